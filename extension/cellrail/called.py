"""What `flow.call` does in the cell, and what it returns."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellrail.errors import BadCall, CallFailed, CellrailError
from cellrail_state.errors import StateError

if TYPE_CHECKING:
    from cellrail.views import Run, StepView

_POLL_SECONDS = 0.1
#: the run waits for somebody
_SLOW_SECONDS = 2.0

Ask = Callable[..., Any]


class CalledRun:
    """A run that a cell has called: its status, and the values that it left.

    It holds the run's id alone; everything else is read from the store when it is asked for.
    """

    def __init__(self, run_id: str, status: str, *, store: str, keys: str) -> None:
        #: the run's id
        self.id = run_id
        #: what became of it, when it was called
        self.status = status
        self._store, self._keys = store, keys

    @property
    def run(self) -> Run:
        """The run as `App.show` has it: parameters, labels, steps, outputs, times."""
        from cellrail.app import App

        store, keys = self._place()
        return App(store, keys=keys).show(self.id)

    def __getitem__(self, address: str) -> StepView:
        """A step: `run["fit"].variables["model"].load()`.

        Raises:
            StepNotFound: it has no such step.
        """
        return self.run[address]

    def value(self, name: str) -> Any:
        """A variable as it stood at the run's end, as a new object.

        Raises:
            KeyError: there is none.
            CannotRestore: it could not be stored, or does not load here.
        """
        ended = [step for step in self.run.steps if step.job_id and step.seconds is not None]
        for step in reversed(ended):
            variables = step.variables
            if variables:
                return variables[name].load()
        raise KeyError(name)

    def _place(self) -> tuple[str, str]:
        """Where the store is today: the one that the notebook is recorded in, if any."""
        from cellrail.api import recorded_place

        found = recorded_place()
        if found is not None and (Path(found["store"]) / "store.json").exists():
            return found["store"], found["keys"]
        return self._store, self._keys

    def __repr__(self) -> str:
        return f"<called run {self.id}: {self.status}>"


def call(
    ask: Ask,
    notebook: str | Path,
    parameters: Mapping[str, Any] | None,
    key: str | None,
    labels: Mapping[str, str] | None,
    *,
    secrets: Sequence[str],
    timeout: float | None,
    check: bool,
) -> CalledRun:
    """Have a notebook run, and wait for it; see `flow.call`."""
    what = f"flow.call({str(notebook)!r})"
    asked = {
        "notebook": str(notebook), "parameters": _text(parameters, what), "key": _key(key, what),
        "labels": _labels(labels, what), "secrets": _names(secrets, what), "timeout": timeout,
    }  # fmt: skip
    key = ask("call_begin", asked=asked)["key"]
    try:
        while (found := ask("call_look", key=key)).get("wait"):
            time.sleep(_SLOW_SECONDS if found.get("slow") else _POLL_SECONDS)
    except (CellrailError, StateError):
        raise
    except BaseException:
        with contextlib.suppress(CellrailError, StateError):
            ask("call_stop", key=key)
        raise
    run = CalledRun(found["run"], found["status"], store=found["store"], keys=found["keys"])
    if check and run.status != "success":
        error = CallFailed(found["told"])
        error.run = run
        raise error
    return run


def _text(parameters: Mapping[str, Any] | None, what: str) -> str:
    """The parameters as JSON text; dates are told apart from texts, NaN from nothing."""
    import datetime as dt

    from cellrail.notebook.parameters import to_json
    from cellrail.run.jsontext import to_text

    plain: dict[str, Any] = {}
    for name, value in (parameters or {}).items():
        if not isinstance(name, str) or not name.isidentifier():
            raise BadCall(f"{what}: {name!r} is no parameter's name")
        plain[name] = to_json(value) if isinstance(value, (dt.date, float)) else value
    return to_text(plain, f"{what}: parameters")


def _key(key: str | None, what: str) -> str | None:
    if key is not None and (not isinstance(key, str) or not key):
        raise BadCall(f"{what}: the key is a string, not {key!r}")
    return key


def _labels(labels: Mapping[str, str] | None, what: str) -> dict[str, str]:
    found = dict(labels or {})
    for name, value in found.items():
        if not (isinstance(name, str) and name and isinstance(value, str)):
            raise BadCall(f"{what}: a label is a name and a text, not {name!r}: {value!r}")
    if "parent" in found:
        raise BadCall(f"{what}: the label 'parent' names the run that calls; choose another")
    return found


def _names(secrets: Sequence[str], what: str) -> list[str]:
    if isinstance(secrets, str):
        raise BadCall(f"{what}: secrets are a list of parameters' names, not {secrets!r}")
    return [str(name) for name in secrets]
