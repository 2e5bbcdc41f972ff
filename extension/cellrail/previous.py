"""What a step left the last time that it ended: `flow.previous`.

A value may be of a class of the notebook. Where the cells that defined it were kept, it is the one
that lives here. Where they are executed again (it may be the very cell that asks), the notebook's
class of that name is it if it is equal; else the value comes with the class of then.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cellrail_state.definitions import is_definition
from cellrail_state.equality import differs
from cellrail_state.errors import CannotRestore
from cellrail_state.model import Checkpoint, Verdict, from_plain
from cellrail_state.objects import Objects
from cellrail_state.restore import restore


class Previous(Mapping[str, Any]):
    """Values by name, each loaded when it is asked for; empty where there was no earlier job.

    What could not be stored is not in it; who asks for it is told why.
    """

    def __init__(self, found: Mapping[str, Any] | None) -> None:
        """Take the answer of the run's desk; None where there is nothing."""
        told = found or {"checkpoint": {}, "outputs": [], "objects": "", "defined": []}
        self._checkpoint: Checkpoint = from_plain(told["checkpoint"], Checkpoint)
        self._objects = Objects(Path(str(told["objects"])))
        self._stored = sorted(
            n for n, v in self._checkpoint.variables.items() if v.verdict is Verdict.STORED
        )
        #: keys of classes and functions that are the same here, if they live
        self._defined = frozenset(told["defined"])
        #: the cell's outputs then, as plain nbformat outputs
        self.outputs: list[dict[str, Any]] = list(told["outputs"])

    def __getitem__(self, name: str) -> Any:
        """A copy of the value that the step left under a name.

        Raises:
            KeyError: it left none.
            CannotRestore: it could not be stored, or does not load here.
        """
        variable = self._checkpoint.variables[name]
        if variable.verdict is not Verdict.STORED:
            raise CannotRestore(f"`{name}` was not stored: {variable.reason}")
        place: dict[str, Any] = {}
        namespace, living = _living()
        report = restore(
            self._checkpoint,
            namespace,
            self._objects,
            names=[name],
            place=place,
            definitions=self._definitions(name, namespace, living),
            defined=True,
        )
        if name in report.failed:
            raise CannotRestore(
                f"`{name}` does not load here: {report.failed[name]}",
                hint="catch CannotRestore, and make the value anew",
            )
        return place[name]

    def _definitions(
        self, name: str, namespace: Mapping[str, Any], living: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What lives here of the classes and functions that a value is made of, by key."""
        same = {key: living[key] for key in self._defined & living.keys()}
        stored, ident = self._checkpoint.components, self._checkpoint.variables[name].component
        component = stored.get(ident or "")
        if component is None or same.keys() >= set(component.uses):
            return same
        held = {i: c for i, c in stored.items() if c.definitions}
        # apart from the namespace, and from what lives: a metaclass may keep lists
        then = restore(
            Checkpoint(components=held), {"__name__": "__main__"}, self._objects
        ).definitions
        return same | {
            key: namespace[called]
            for key, was in then.items()
            if key not in same
            and (called := key.rpartition("#")[0]) in namespace
            and _is_equal(was, namespace[called], called)
        }

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def __repr__(self) -> str:
        return f"<previous values: {', '.join(self) or 'none'}>"


def _is_equal(was: object, now: object, called: str) -> bool:
    if not is_definition(now) or getattr(now, "__qualname__", called) != called:
        return False
    try:
        return not differs(was, now, definitions=True)
    except Exception:  # noqa: BLE001 - the user's own code
        return False


def _living() -> tuple[dict[str, Any], dict[str, Any]]:
    """The namespace, and the classes and functions of the notebook that live in it, by key."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    hooks = getattr(shell, "cellrail_hooks", None)
    if shell is None or hooks is None:
        return {}, {}
    namespace: dict[str, Any] = shell.user_ns
    return namespace, hooks.state.living()
