"""State where no run is recorded: it lives as long as this process.

Plain papermill, nbval, nbconvert and scripts get the same answers as a recorded run would give,
except that nothing outlives the process, and that what is set is there at once.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cellrail.errors import BadCall, BadState, InternalError
from cellrail.run.children import Child, Request
from cellrail.run.states import ANY, STATE, checked_path, nothing_there

#: what is said the first time something is set
TOLD = "cellrail: no run is recorded here; what is set lives as long as this kernel"


#: what a cell is told that would wait
GOES_ON = "cellrail: no run waits here; the notebook goes on as if resumed without data"


def goes_on() -> dict[str, Any]:
    """The answer to a wait where nothing waits."""
    print(GOES_ON)
    return {"urls": {"resume_url": None, "cancel_url": None}}


class Unrecorded:
    """Answers what cells ask, from memory."""

    def __init__(self) -> None:
        self._user: dict[str, str] = {}
        self._resources: dict[str, tuple[str, str]] = {}
        self._variables: dict[str, str] = {}
        self._once: dict[str, dict[str, Any]] = {}
        self._running: set[str] = set()
        self._calls: dict[str, Child] = {}
        self._numbers = itertools.count(1)
        self._shared = ""
        self._told = False
        self._lock = threading.RLock()

    def ask(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Answer at once."""
        handler: Callable[..., Any] | None = getattr(self, f"_answer_{name}", None)
        if handler is None:
            message = f"nobody answers {name!r}"
            raise InternalError(message)
        with self._lock:
            return handler(**arguments)

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            print(TOLD, file=sys.stderr)

    def _answer_previous(self) -> None:
        """Nothing was kept."""

    # --- flow user state, states, resources --------------------------------------------------

    def _answer_get_user_state(self, key: str) -> str | None:
        return self._user.get(key)

    def _answer_set_user_state(self, key: str, value: str) -> None:
        self._tell()
        self._user[key] = value

    def _answer_state_path(self) -> str:
        return f"unrecorded/{_step()}/session"

    def _answer_get_state(self) -> str | None:
        found = self._resources.get(self._answer_state_path())
        return found[0] if found is not None else None

    def _answer_set_state(self, value: str) -> None:
        self._tell()
        self._resources[self._answer_state_path()] = (value, STATE)

    def _answer_get_resource(self, path: str, required: bool) -> str | None:
        found = self._resources.get(checked_path(path))
        if found is None and required:
            raise nothing_there("resource", path, self._resources)
        return found[0] if found is not None else None

    def _answer_set_resource(self, value: str, path: str | None, resource_type: str | None) -> None:
        self._tell()
        if path is None:
            path, resource_type = self._answer_state_path(), resource_type or STATE
        there = self._resources.get(checked_path(path))
        made = there[1] if there is not None else resource_type or ANY
        if resource_type is not None and resource_type != made:
            raise BadState(
                f"the resource {path!r} was created with the type {made!r}, not {resource_type!r}"
            )
        self._resources[path] = (value, made)

    # --- variables ---------------------------------------------------------------------------

    def _answer_get_variable(self, path: str, required: bool) -> str | None:
        if checked_path(path) not in self._variables and required:
            raise nothing_there("variable", path, self._variables)
        return self._variables.get(path)

    def _answer_set_variable(self, path: str, value: str, secret: bool) -> None:
        del secret
        self._tell()
        self._variables[checked_path(path)] = value

    # --- the flow ----------------------------------------------------------------------------

    def _answer_suspend(self, seconds: float, on_timeout: str) -> dict[str, Any]:
        del seconds, on_timeout
        return goes_on()

    def _answer_rerun(
        self, seconds: float, context: str | None, max_retries: int, on_exceeded: str
    ) -> dict[str, Any]:
        del seconds, context, max_retries, on_exceeded
        return goes_on()

    # --- calls -------------------------------------------------------------------------------

    def _answer_call_place(self) -> None:
        """No run is recorded."""

    def _answer_call_begin(self, asked: Mapping[str, Any]) -> dict[str, str]:
        """The run is recorded in the store of its own notebook; nobody is its parent."""
        path = Path(asked["notebook"]).resolve()
        if not path.is_file():
            raise BadCall(f"flow.call({asked['notebook']!r}): there is no notebook {path}")
        number = str(next(self._numbers))
        self._calls[number] = Child(
            Request(
                action="run", notebook=str(path), parameters=json.loads(asked["parameters"]),
                labels=asked["labels"], secrets=tuple(asked["secrets"]), timeout=asked["timeout"],
            )
        )  # fmt: skip
        return {"key": number}

    def _answer_call_look(self, key: str) -> dict[str, Any]:
        if not self._calls[key].ended():
            return {"wait": True}
        told = self._calls.pop(key).told()
        if "error" in told:
            error = told["error"]
            raise BadCall(str(error.get("message")), hint=str(error.get("hint", "")))
        run_id, why = told["run_id"], f": {told['cause']}" if told["cause"] else ""
        words = f"{told['flow']}: {told['status']}{why} (cellrail show {run_id})"
        place = {"store": told["store"], "keys": told["keys"]}
        return {"run": run_id, "status": told["status"], "told": words, **place}

    def _answer_call_stop(self, key: str) -> None:
        if key in self._calls:
            self._calls.pop(key).end()

    def _answer_step_facts(self, step: str) -> dict[str, Any]:
        del step
        return {}

    def _answer_fact(self, name: str) -> None:
        del name

    def _answer_shared(self) -> str:
        if not self._shared:
            import atexit
            import shutil
            import tempfile

            self._shared = tempfile.mkdtemp(prefix="cellrail-shared-")
            atexit.register(shutil.rmtree, self._shared, ignore_errors=True)
        return self._shared

    def _answer_once_find(self, key: str, scope: str) -> dict[str, Any]:
        del scope
        if key in self._once:
            return self._once[key]
        if key in self._running:
            return {"wait": True}
        self._tell()
        self._running.add(key)
        return {}

    def _answer_once_keep(self, key: str, scope: str, value: str | None, lost: str) -> None:
        del scope
        self._running.discard(key)
        told = {"value": value} if value is not None else {"lost": lost, "run": "this one"}
        self._once[key] = {"found": True, **told}

    def _answer_once_failed(self, key: str) -> None:
        self._running.discard(key)


def _step() -> str:
    """What identifies the cell that runs: its step's name, its id, or its code."""
    from hashlib import sha256

    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython is not None else None
    parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
    source = str(parent.get("content", {}).get("code", ""))
    if not source:
        return "session"
    from cellrail.notebook.parse import read_steps

    cell_id = str(parent.get("metadata", {}).get("cellId", "") or "")
    cell = {"cell_type": "code", "source": source, "id": cell_id, "metadata": {}}
    steps, _ = read_steps({"cells": [cell]})
    named = steps[0].name if steps else ""
    return named or cell_id or sha256(source.encode()).hexdigest()[:16]
