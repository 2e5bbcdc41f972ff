"""What a cell imports: `from cellrail import flow, get_state, set_state`.

Each call asks the desk of the run that the cell is part of: over the kernel's channel in a headless
run, directly in an open notebook that is recorded. Where no run is recorded (nbval, plain
papermill, a script) what is set lives as long as this process, and one fixed line says so.
"""

from __future__ import annotations

import contextvars
import functools
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cellrail.errors import BadState, CallFailed, CellrailError, NotJson
from cellrail_state.errors import StateError

if TYPE_CHECKING:
    import datetime as dt

    from cellrail.called import CalledRun
    from cellrail.each import Each
    from cellrail.previous import Previous
    from cellrail.run.asking import Backend

T = TypeVar("T")

#: plain facts about the run, and what they are where nobody knows better
_FACTS: dict[str, Any] = {
    "callback_request": None, "context": None, "forced": False,
    "recovering": False, "resume_data": None, "runs": 1, "tick": None, "woke_by": None,
}  # fmt: skip
#: keys of the functions around, that are running once
_RUNNING: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("once", default=())
#: seconds between two looks at a function that another run is running
_ONCE_SECONDS = 0.2


class _Missing:
    """No default was given."""

    def __repr__(self) -> str:
        return "<none>"


_MISSING = _Missing()


@functools.cache
def _unrecorded() -> Backend:
    from cellrail.run.unrecorded import Unrecorded

    return Unrecorded()


def _backend() -> Backend:
    """Whom to ask: the desk of the run that this kernel executes."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    desk: Backend | None = getattr(shell, "cellrail_desk", None)
    return desk if desk is not None else _unrecorded()


def _ask(question: str, /, **arguments: Any) -> Any:
    """Ask; what goes wrong has a traceback that begins here."""
    error: Exception
    try:
        return _backend().ask(question, arguments)
    except (CellrailError, StateError) as found:
        error = _with_hint(found)
    raise error


def _with_hint(error: CellrailError | StateError) -> Exception:
    """A cell shows an error's message only."""
    if not error.hint or error.hint in str(error):
        return error.with_traceback(None)
    return type(error)(f"{error} ({error.hint})", hint=error.hint)


def recorded_place() -> dict[str, str] | None:
    """The store and the keys of the run that this process belongs to; None where it is of none."""
    try:
        place: dict[str, str] | None = _backend().ask("call_place", {})
    except (CellrailError, StateError):
        return None
    return place


def shared_place() -> str:
    """Where the run's shared folder is, for a path in it that is stored or loaded.

    No cell asks for it, so none has used the folder for that.
    """
    return str(_ask("shared_place"))


def _text(value: object, what: str) -> str:
    from cellrail.run.jsontext import to_text

    error: Exception
    try:
        return to_text(value, what)
    except NotJson as found:
        error = _with_hint(found)
    raise error


def _value(text: str | None, default: Any) -> Any:
    from cellrail.run.jsontext import from_text

    return default if text is None else from_text(text)


def _key(key: object, what: str) -> str:
    if not isinstance(key, str) or not key:
        message = f"{what}: the key is a string, not {key!r}"
        raise BadState(message)
    return key


# --- states ----------------------------------------------------------------------------------


def get_state(default: Any = None) -> Any:
    """The state that this step has kept from run to run; `default` the first time.

    There is one for each flow, step, and user or trigger.
    """
    return _value(_ask("get_state"), default)


def set_state(value: Any) -> None:
    """Keep a JSON value for the next run of this step. It counts when the step succeeds.

    Raises:
        NotJson: the value is no JSON (a `TypeError`).
        StateConflict: another run has written it since this step read it.
    """
    _ask("set_state", value=_text(value, "set_state()"))


def get_state_path() -> str:
    """Where this step's state lies, as a resource of type `state`."""
    return str(_ask("state_path"))


def get_flow_user_state(key: str, default: Any = None) -> Any:
    """What this run keeps under a key; a restart sees it as it stood at its cut."""
    return _value(_ask("get_user_state", key=_key(key, "get_flow_user_state()")), default)


def set_flow_user_state(key: str, value: Any) -> None:
    """Keep a JSON value under a key of this run. It counts when the step succeeds.

    Raises:
        NotJson: the value is no JSON (a `TypeError`).
    """
    text = _text(value, f"set_flow_user_state({key!r})")
    _ask("set_user_state", key=_key(key, "set_flow_user_state()"), value=text)


def get_resource(path: str, default: Any = _MISSING) -> Any:
    """The JSON value at a path, across runs and flows.

    Raises:
        NotSet: there is none, and no default was given (a `KeyError`).
    """
    text = _ask("get_resource", path=path, required=default is _MISSING)
    return _value(text, default)


def set_resource(value: Any, path: str | None = None, resource_type: str | None = None) -> None:
    """Set the JSON value at a path; without one, this step's state. It counts on success.

    Args:
        value: the value.
        path: `a/b/c`.
        resource_type: what kind of thing it is, told when it is created; later it must agree.

    Raises:
        NotJson: the value is no JSON (a `TypeError`).
        BadState: the path is none, or the type is another (a `ValueError`).
        StateConflict: somebody has written it since this step read it.
    """
    text = _text(value, "set_resource()")
    _ask("set_resource", value=text, path=path, resource_type=resource_type)


def get_variable(path: str, default: Any = _MISSING) -> Any:
    """The string at a path, across runs and flows. A secret is masked wherever it is shown.

    Raises:
        NotSet: there is none, and no default was given (a `KeyError`).
    """
    found = _ask("get_variable", path=path, required=default is _MISSING)
    return default if found is None else found


def set_variable(path: str, value: str, secret: bool = False) -> None:
    """Set the string at a path; with `secret`, encrypted from now on. It counts on success.

    Raises:
        BadState: the value is no string (a `ValueError`).
        StateConflict: somebody has written it since this step read it.
    """
    if not isinstance(value, str):
        kind = type(value).__name__
        raise BadState(f"set_variable({path!r}): a variable is a string, not a {kind}")
    _ask("set_variable", path=path, value=value, secret=bool(secret))


# --- the flow --------------------------------------------------------------------------------


class Urls(dict[str, "str | None"]):
    """The URLs of a wait: `urls.resume_url` is `urls["resume_url"]`."""

    def __getattr__(self, name: str) -> str | None:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class StepFacts:
    """How the wait behind a step ended."""

    def __init__(self, facts: dict[str, Any]) -> None:
        #: the JSON that the resume brought; None where there was none
        self.resume_data: Any = facts.get("resume_data")
        #: `resume` or `timeout`; None where it has not waited
        self.woke_by: str | None = facts.get("woke_by")
        #: the HTTP request that woke it (method, headers, query, body)
        self.callback_request: dict[str, Any] | None = facts.get("callback_request")


#: what a cell is told where it has no URL to hand out
_NO_URL = "cellrail: there is no base_url; to go on: cellrail resume RUN"


def _urls(answer: dict[str, Any]) -> Urls:
    if answer.get("told"):
        print(_NO_URL)
    return Urls(answer["urls"])


def _seconds(value: float | str, what: str) -> float:
    """Seconds of a number or a duration.

    Raises:
        BadState: it is neither, or negative.
    """
    from cellrail.notebook.options import duration

    try:
        if isinstance(value, str):
            return duration(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e10:
            return float(value)
        why = f"{value!r} is no number of seconds from 0"
    except ValueError as error:
        why = str(error)
    raise BadState(f"{what}: {why}")


class Failure:
    """Why the run has failed: `flow.error` of a step with `--on-failure`."""

    def __init__(self, told: dict[str, str]) -> None:
        #: address of the step that it failed at; "" where none is to blame
        self.step: str = told["step"]
        #: the exception's class; `TimeoutError`, `KernelDied` or `RunFailed` where there was none
        self.name: str = told["name"]
        #: its message, or the cause in words
        self.value: str = told["value"]
        #: the traceback as plain text; "" where there is none
        self.traceback: str = told["traceback"]

    def __str__(self) -> str:
        where = f"step {self.step}: " if self.step else ""
        return f"{where}{self.name}: {self.value}"

    def __repr__(self) -> str:
        return f"<failure {self}>"


class FlowApi:
    """The flow that a cell runs in."""

    @property
    def error(self) -> Failure | None:
        """Why the run has failed, in a step with `--on-failure`; None elsewhere. No secrets."""
        told = _ask("fact", name="error")
        return None if told is None else Failure(told)

    @property
    def shared(self) -> Path:
        """The run's shared folder. Its files are checkpointed after each step that used it."""
        from cellrail.shared import SharedPath

        return SharedPath(_ask("shared"))

    @property
    def previous(self) -> Previous:
        """What this step left the last time that it ended: values by name, and `outputs`.

        Its newest earlier job counts, in this run or in the one that it was restarted from; where
        there is none it is empty.
        """
        from cellrail.previous import Previous

        return Previous(_ask("previous"))

    def once(self, key: str, fn: Callable[[], T], scope: str = "run") -> T:
        """Run a function once, and return what it returned then (JSON).

        It is not repeated by a retry, a restart or a recovery. A crash between its end and the
        record of it repeats it: use the key as its idempotency key.

        Args:
            key: what identifies it.
            fn: takes nothing and returns JSON (or None).
            scope: `run`: this run and everything restarted from it; `flow`: all runs of the flow.

        Raises:
            NotJson: the function returned something else; it has run and does not run again.
        """
        if scope not in {"run", "flow"}:
            raise BadState(f"flow.once(): the scope is run or flow, not {scope!r}")
        _key(key, "flow.once()")
        if not callable(fn):
            raise BadState(f"flow.once({key!r}): a function is needed, not {fn!r}")
        if key in _RUNNING.get():
            raise BadState(f"flow.once({key!r}): its function waits for itself")
        while (found := _ask("once_find", key=key, scope=scope)).get("wait"):
            time.sleep(_ONCE_SECONDS)
        if not found:
            token = _RUNNING.set((*_RUNNING.get(), key))
            try:
                value: T = _run_once(key, fn, scope)
            finally:
                _RUNNING.reset(token)
        elif "lost" in found:
            raise _no_json(key, found["lost"], f"it has run in run {found['run']}")
        else:
            value = _value(found["value"], None)
        return value

    def suspend(
        self,
        timeout: float | str = "24h",
        on_timeout: str | None = None,
        approval: bool = False,
    ) -> Urls:
        """Let the run wait at the end of this step, until somebody resumes or cancels it.

        The rest of the cell runs. While the run waits it holds no kernel. A second call returns the
        same URLs, and must agree.

        Args:
            timeout: after which it goes on anyhow: seconds, or a duration as `24h`.
            on_timeout: what it comes to then: `resume` (with no data), `cancel` or `fail`.
            approval: cancel is the default.

        Returns:
            `resume_url` and `cancel_url`, as attributes and as items; None without a `base_url`.

        Raises:
            BadState: an argument is wrong (a `ValueError`).
        """
        what = "flow.suspend()"
        on_timeout = on_timeout or ("cancel" if approval else "resume")
        if on_timeout not in {"resume", "cancel", "fail"}:
            raise BadState(f"{what}: on_timeout is resume, cancel or fail, not {on_timeout!r}")
        return _urls(_ask("suspend", seconds=_seconds(timeout, what), on_timeout=on_timeout))

    def rerun(
        self,
        delay: float | str,
        context: Any = None,
        max_retries: int = 10,
        on_exceeded: str = "continue",
    ) -> Urls:
        """Let this step be executed again, from its first line and on the namespace before it.

        The cell runs to its end first; what it has set in states counts.

        Args:
            delay: after which it is executed again (its resume URL does that at once): seconds, or
                a duration as `10m`.
            context: JSON; the next execution finds it as `flow.context`.
            max_retries: so many executions at most, beside the first.
            on_exceeded: `continue` with the next step then, or `raise`.

        Returns:
            `resume_url` and `cancel_url`, as attributes and as items; None without a `base_url`.

        Raises:
            BadState: an argument is wrong (a `ValueError`).
            NotJson: the context is no JSON (a `TypeError`).
            RerunExceeded: with `on_exceeded="raise"`.
        """
        what = "flow.rerun()"
        whole = isinstance(max_retries, int) and not isinstance(max_retries, bool)
        if not whole or max_retries < 0:
            raise BadState(f"{what}: max_retries is a whole number from 0, not {max_retries!r}")
        if on_exceeded not in {"continue", "raise"}:
            raise BadState(f"{what}: on_exceeded is continue or raise, not {on_exceeded!r}")
        text = None if context is None else _text(context, f"{what}: the context")
        answer = _ask(
            "rerun", seconds=_seconds(delay, what), context=text, max_retries=max_retries,
            on_exceeded=on_exceeded,
        )  # fmt: skip
        return _urls(answer)

    def each(
        self,
        name: str,
        items: Iterable[T],
        save: str | Iterable[str] = (),
        every: int | str = 1,
        on_change: str = "raise",
    ) -> Each[T]:
        """Go through items, and store variables in mid-cell, so that the loop can go on.

        A retry, a recovery and a restart at this step put the variables back as they stood after
        the last item stored, the random generators too, and go on with the next item. They are
        stored after the first item, then after `every`, and at the end.

        Args:
            name: of the loop; what it has stored is found by it.
            items: a list, a range or the like. A generator is run again up to the item.
            save: names of variables of the notebook.
            every: so many items, or a duration as `10m`.
            on_change: what becomes of it where the items done, their number or `save` are not what
                they were: `raise`; `anew`: begin with the first item; `continue` behind as many
                items as were done.

        Raises:
            BadState: an argument is wrong (a `ValueError`).
            EachChanged: see `on_change`.
            CannotStore: a variable is not there, or cannot be stored.
        """
        from cellrail.each import Each

        return Each(name, items, save=save, every=every, on_change=on_change, backend=_backend())

    def call(
        self,
        notebook: str | Path,
        parameters: Mapping[str, Any] | None = None,
        key: str | None = None,
        labels: Mapping[str, str] | None = None,
        *,
        secrets: Sequence[str] = (),
        timeout: float | str | None = None,
        check: bool = True,
    ) -> CalledRun:
        """Run another notebook as a run of its own, wait for it, and return it.

        Called again with the same key by a retry or after a crash, a run that succeeded is returned
        as it is, an interrupted one is recovered, and one that failed is restarted.

        Args:
            notebook: its path; a relative one begins in the folder of this notebook.
            parameters: JSON values and dates, by name.
            key: what identifies the call in this step; by default what is called with which
                parameters, and how often that was before.
            labels: of the run, beside `parent`.
            secrets: names of parameters that are secret.
            timeout: the most that the whole run may take: seconds, or a duration as `10m`.
            check: raise where the run is no success.

        Raises:
            CallFailed: the run is no success; `error.run` is the run.
            BadCall: the notebook, a parameter or an argument is wrong, or the notebook is among
                those that wait for this one (a `ValueError`).
            NotJson: a parameter is no JSON (a `TypeError`).
        """
        from cellrail.called import call

        error: Exception
        seconds = None if timeout is None else _seconds(timeout, "flow.call(): timeout")
        if seconds == 0:
            raise BadState("flow.call(): timeout: a limit is more than 0 seconds")
        try:
            return call(
                _ask, notebook, parameters, key, labels, secrets=secrets, timeout=seconds,
                check=check,
            )  # fmt: skip
        except (CellrailError, StateError) as found:
            error = _with_hint(found)
            if isinstance(found, CallFailed) and isinstance(error, CallFailed):
                error.run = found.run
        raise error

    def step(self, name: str) -> StepFacts:
        """How the wait behind an earlier step ended.

        Raises:
            StepNotFound: there is no such step.
        """
        return StepFacts(_ask("step_facts", step=name))

    def __getattr__(self, name: str) -> Any:
        if name in _FACTS:
            found = _ask("fact", name=name)
            if name == "tick" and found is not None:
                return _moment(found)
            return _FACTS[name] if found is None else found
        message = f"flow has no attribute {name!r}"
        raise AttributeError(message)

    def __reduce__(self) -> str:
        return "flow"

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_FACTS})

    def __repr__(self) -> str:
        return "<cellrail flow>"


def _moment(told: dict[str, str]) -> dt.datetime:
    """The tick in its zone."""
    import datetime as dt
    from zoneinfo import ZoneInfo

    return dt.datetime.fromisoformat(told["moment"]).astimezone(ZoneInfo(told["zone"]))


def _run_once(key: str, fn: Callable[[], Any], scope: str) -> Any:
    try:
        result = fn()
    except BaseException:
        _ask("once_failed", key=key)
        raise
    try:
        text = _text(result, "its result")
    except NotJson as error:
        why = str(error).removesuffix(f" ({error.hint})")
        _ask("once_keep", key=key, scope=scope, value=None, lost=why)
        raise _no_json(key, why, "it has run") from None
    _ask("once_keep", key=key, scope=scope, value=text, lost="")
    return _value(text, None)


def _no_json(key: str, why: str, ran: str) -> NotJson:
    return NotJson(
        f"flow.once({key!r}): {ran}, and does not run again; but {why}, so it was not kept "
        "(return JSON or None from it, and use another key if it may run again)"
    )


flow = FlowApi()
