"""The clerk of `flow.call`: another notebook runs as a run of its own, in a process of its own.

A call is known by its step, the turns of loops and the execution of the step it belongs to, and by
its key. Before anything of the child begins, a record in the parent's journal names its run
(`Called`), so that no crash loses it. When the same call comes again, in a retry, in the recovered
run, or in a restart of a step that had not ended well, its newest run decides:

==================  ==========================================================
that run            what happens
==================  ==========================================================
success             it is the answer; nothing is executed
running, suspended  it is waited for
interrupted         it is recovered: the same run goes on
failed, cancelled   it is restarted from where it failed, as a new run
never began         a new run
==================  ==========================================================

A call with another notebook or other parameters is another call. A restart that executes a step
again which had ended well calls anew, and so does one of a notebook that was edited since.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3

from cellrail.errors import BadCall, CallFailed, CellrailError, InternalError
from cellrail.notebook.parse import load, parse
from cellrail.run.children import Child, Request
from cellrail.run.desk import Clerk, Desk, Handler, Job
from cellrail.run.jsontext import from_text
from cellrail.run.prepare import new_run_id
from cellrail_state.history import RunHistory
from cellrail_state.model import Called, Effects, RunStatus, StepStatus, Turn
from cellrail_state.steps import Sources
from cellrail_state.store import Store
from cellrail_state.texts import is_unicode

CALL = "call"
#: the label that names the run which called
PARENT = "parent"
#: refusals behind which another way is tried
_INSTEAD = {"recover-refused": "restart", "restart-refused": "run"}

#: what is no refusal: the process was killed, or failed itself
_CRASHES = frozenset({"died", "internal", "interrupted"})

#: step, turns, execution of the step, key
_Place = tuple[str, tuple[Turn, ...], int, str]


class CallRules(msgspec.Struct, frozen=True, kw_only=True):
    """How a run calls."""

    #: relative paths begin here: the folder of the notebook that calls
    folder: Path
    #: the flow that calls, and those that wait for it, outermost first
    callers: tuple[str, ...] = ()
    #: whose states the steps of a child see
    scope: str = ""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A call as the cell makes it."""

    notebook: str
    #: JSON text, as `notebook.parameters.to_json` has it
    parameters: str = "{}"
    #: what identifies the call in its step; None for what is called, and how often
    key: str | None = None
    labels: dict[str, str] = {}
    #: names of secret parameters
    secrets: tuple[str, ...] = ()
    #: seconds for the whole run
    timeout: float | None = None


class _Open(msgspec.Struct, kw_only=True):
    """A call that is being answered."""

    called: Called
    request: Request
    child: Child | None = None
    #: what was tried for this job already: run, restart, recover
    tried: set[str] = msgspec.field(default_factory=set)
    #: what its process said, where that was no run
    error: dict[str, Any] = {}


class Calls(Clerk):
    """Has other notebooks run."""

    def __init__(self, desk: Desk, *, rules: CallRules, known: Iterable[Called] = ()) -> None:
        """Know what was called before.

        Args:
            desk: the run's.
            rules: how it calls.
            known: earlier calls of this run, and those that it takes over, in order.
        """
        self._desk, self._rules = desk, rules
        self._recorder, self._store = desk.recorder, desk.recorder.store
        self._known: dict[_Place, Called] = {_place_of(called): called for called in known}
        self._open: dict[_Place, _Open] = {}
        #: how often the current job has made a call without a key, by what it calls
        self._counts: dict[str, int] = {}
        self._called = False

    def another(self, desk: Desk) -> Calls:
        """A clerk for a kernel beside this one."""
        made = Calls(desk, rules=self._rules)
        made._known = self._known
        return made

    def take_over(self, known: Iterable[Called]) -> None:
        """The calls of another run that this one goes on with."""
        self._known |= {_place_of(called): called for called in known}

    def belongs_to(self, flow: str, folder: Path) -> None:
        """The flow has a name now, and a folder that relative paths begin in."""
        self._rules = msgspec.structs.replace(self._rules, folder=folder, callers=(flow,))

    def handlers(self) -> Mapping[str, Handler]:
        """What cells can ask."""
        return {
            "call_begin": self.begin_call, "call_look": self.look, "call_stop": self.stop,
            "call_place": lambda _: place_of(self._store),
        }  # fmt: skip

    # --- questions ---------------------------------------------------------------------------

    def begin_call(self, job: Job | None, asked: dict[str, Any]) -> dict[str, Any]:
        """Call a notebook; the key by which its end is asked for.

        Args:
            job: the current job.
            asked: what to call, as `Asked` has it.
        """
        del job
        call = msgspec.convert(asked, Asked)
        what, key = f"flow.call({call.notebook!r})", call.key
        current = self._desk.current(what)
        values, masker = from_text(call.parameters), self._recorder.masker
        if not is_unicode([call.notebook, values]):
            raise BadCall(f"{what}: the notebook and texts in its parameters have to be Unicode")
        path = (self._rules.folder / call.notebook).resolve()
        flow = self._flow(path)
        self._check(what, path, flow)
        hidden = {name for name, value in values.items() if masker.value(value) != value}
        digest = self._digest(flow, call.parameters)
        if key is None:
            count = self._counts[digest] = self._counts.get(digest, 0) + 1
            key = f"{flow}#{digest[:8]}" + (f"-{count}" if count > 1 else "")
        key = self._recorder.lasting_key(key)
        place = (current.step, current.turns, current.runs, key)
        request = Request(
            action="run", notebook=str(path), parameters=values, timeout=call.timeout,
            secrets=tuple(sorted({*call.secrets, *hidden})), scope=self._rules.scope,
            labels={PARENT: self._recorder.run_id, **masker.value(call.labels)},
            callers=self._rules.callers, **place_of(self._store),
        )  # fmt: skip
        known = self._known.get(place)
        if known is not None and known.job_id == current.job_id and known.digest != digest:
            raise BadCall(
                f"{what}: the key {key!r} stands for another call in this step",
                hint="give each call a key of its own",
            )
        if place in self._open:
            return {"key": key}
        called = Called(
            time=self._recorder.clock(), step=current.number, job_id=current.job_id,
            caller=current.step, key=key, run_id="", notebook=flow, digest=digest,
            turns=current.turns, runs=current.runs,
        )  # fmt: skip
        self._called = True
        opened = self._open[place] = _Open(called=called, request=request)
        if known is not None and known.digest == digest and self._holds(known, path):
            self._tell(place, opened, known.run_id)
        else:
            self._start(place, opened, "run")
        return {"key": key}

    def look(self, job: Job | None, key: str) -> dict[str, Any]:
        """What a call has come to, or that it is to be waited for."""
        place, opened = self._opened(job, key)
        if opened.child is not None:
            if not opened.child.ended():
                return {"wait": True}
            self._take(opened)
        run_id = opened.called.run_id
        if self._store.journal_size(run_id) and self._store.is_owned(run_id):
            return {"wait": True}
        action = self._next(opened)
        if action == "wait":
            return {"wait": True, "slow": True}
        if action:
            self._start(place, opened, action)
            return {"wait": True}
        self._open.pop(place)
        if opened.error:
            raise _refusal(opened)
        history = self._history(run_id)
        return {
            "run": run_id, "status": str(history.status), **place_of(self._store),
            "told": _told(opened.called, history) if history.status != "success" else "",
        }  # fmt: skip

    def stop(self, job: Job | None, key: str) -> None:
        """The cell is interrupted: its child is, too. The job's end waits for the child's."""
        _, opened = self._opened(job, key)
        if opened.child is not None:
            opened.child.interrupt()

    def _opened(self, job: Job | None, key: str) -> tuple[_Place, _Open]:
        if job is None:
            job = self._desk.current("flow.call()")
        place = (job.step, job.turns, job.runs, key)
        if place not in self._open:
            message = f"nothing is called with the key {key!r}"
            raise InternalError(message)
        return place, self._open[place]

    # --- what is to be done ------------------------------------------------------------------

    def _flow(self, path: Path) -> str:
        return Path(os.path.relpath(path, self._store.path.resolve().parent)).as_posix()

    def _check(self, what: str, path: Path, flow: str) -> None:
        if flow in self._rules.callers:
            chain = " → ".join([*self._rules.callers, flow])
            raise BadCall(
                f"{what}: the notebook would wait for itself: {chain}",
                hint="call a notebook that is not among those that wait",
            )
        if not path.is_file():
            raise BadCall(
                f"{what}: there is no notebook {path}",
                hint="a relative path begins in the folder of the notebook that calls",
            )

    def _digest(self, flow: str, parameters: str) -> str:
        # keyed: parameters may be secret, and short
        key = self._store.keyring.key()
        return blake3(f"{flow}\n{parameters}".encode(), key=key).hexdigest()[:32]

    def _holds(self, known: Called, path: Path) -> bool:
        """Whether the answer to an earlier call can be one to this."""
        own = known.job_id.rpartition("/")[0] == self._recorder.run_id
        if own or not self._store.journal_size(known.run_id):
            return True
        then = self._history(known.run_id)
        ended_well = then.status is RunStatus.SUCCESS
        return not ended_well or not _edited(then, path)

    def _next(self, opened: _Open) -> str:
        """What to do for a call whose run nobody drives; "" where it has come to its end."""
        run_id = opened.called.run_id
        if opened.error:
            instead = _INSTEAD.get(opened.error.get("code", ""), "")
            if not instead or instead in opened.tried:
                return ""
            opened.error = {}
            return instead
        if not self._store.journal_size(run_id):
            return "run"
        history = self._history(run_id)
        status = history.status
        if status is RunStatus.SUSPENDED:
            pending = history.pending
            now = self._recorder.clock()
            due = pending is not None and self._store.inbox.due(pending, now) is not None
            return "wake" if due else "wait"
        again = {
            RunStatus.INTERRUPTED: "recover",
            RunStatus.FAILED: "restart",
            RunStatus.CANCELLED: "restart",
        }
        return "" if opened.tried else again.get(status, "")

    def _start(self, place: _Place, opened: _Open, action: str) -> None:
        """Start a process that makes a run of the call, or goes on with its run."""
        of = opened.called.run_id
        opened.tried.add(action)
        if action in {"run", "restart"}:
            self._tell(place, opened, new_run_id(self._recorder.clock()))
        opened.child = Child(
            msgspec.structs.replace(
                opened.request, action=action, run_id=opened.called.run_id, of=of
            )
        )

    def _tell(self, place: _Place, opened: _Open, run_id: str) -> None:
        """Record which run answers the call, before anything of it happens."""
        opened.called = msgspec.structs.replace(
            opened.called, time=self._recorder.clock(), run_id=run_id
        )
        self._recorder.called(opened.called)
        self._known[place] = opened.called

    def _take(self, opened: _Open) -> None:
        """The process has ended: what it said counts where there is no run to tell."""
        if opened.child is None:
            return
        told, opened.child = opened.child.told(), None
        error = told.get("error", {})
        if error.get("code") in _INSTEAD or not self._store.journal_size(opened.called.run_id):
            opened.error = error or {"code": "died", "message": "no run came of it"}

    def _history(self, run_id: str) -> RunHistory:
        store = self._store
        sources = Sources(records=store.records, owned=store.is_owned, content=store.objects.get)
        return RunHistory(run_id, sources)

    # --- jobs --------------------------------------------------------------------------------

    def begin(self, job: Job) -> None:
        """A job begins: what an attempt before it called is called again."""
        del job
        self.close()
        self._counts.clear()
        self._called = False

    def contribute(self, effects: Effects, *, success: bool) -> Effects:
        """The job must not be executed again for what it made; nobody waits for it any more."""
        del success
        self.close()
        if not self._called:
            return effects
        return msgspec.structs.replace(effects, marks=(*effects.marks, CALL))

    def close(self) -> None:
        """End the children that nobody waits for."""
        opened, self._open = self._open, {}
        children = [one.child for one in opened.values() if one.child is not None]
        for child in children:
            child.interrupt()
        for child in children:
            child.end()


def place_of(store: Store) -> dict[str, str]:
    """Where a store lies, and the keys that go with it."""
    return {"store": str(store.path), "keys": str(store.keyring.folder)}


def taken_over(history: RunHistory, here: Mapping[int, int]) -> list[Called]:
    """The calls that a restart of a run goes on with: those of steps that had not ended well.

    Args:
        history: the run.
        here: the number that each of its steps has in the new one, by its number there.
    """
    good = {StepStatus.SUCCESS, StepStatus.KEPT}
    found = []
    for called in {_place_of(called): called for called in history.calls}.values():
        if called.step not in here:
            continue
        if called.turns:
            job_id = history.turns.get((called.step, called.turns))
            job = history.job_by_id(job_id) if job_id else None
        else:
            job = history.state(called.step).job
        if job is None or job.status not in good:
            found.append(msgspec.structs.replace(called, step=here[called.step]))
    return found


def _place_of(called: Called) -> _Place:
    return (called.caller, called.turns, called.runs, called.key)


def _edited(history: RunHistory, path: Path) -> bool:
    """Whether the steps of a notebook are others than those of its run."""
    try:
        flow = parse(load(path), path)
    except CellrailError:
        return True
    then = [(i.source_hash, i.options) for i in history.started.steps if i.number > 0]
    return then != [(step.source_hash, str(step.options)) for step in flow.steps]


def _told(called: Called, history: RunHistory) -> str:
    """What a run that is no success came to, in words."""
    where = history.ended.step if history.ended is not None else ""
    at = f" at step {where!r}" if where else ""
    why = f": {history.cause}" if history.cause else ""
    return f"{called.notebook}: {history.status}{at}{why} (cellrail show {history.run_id})"


def _refusal(opened: _Open) -> CellrailError:
    """Why no run came of a call, as the cell gets it."""
    error = opened.error
    message = f"flow.call({opened.called.notebook!r}): {error.get('message', '')}"
    kind = CallFailed if error.get("code") in _CRASHES else BadCall
    return kind(message, hint=str(error.get("hint", "")))
