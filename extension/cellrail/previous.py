"""What a step left the last time that it ended: `flow.previous`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cellrail_state.errors import CannotRestore
from cellrail_state.model import Checkpoint, Verdict, from_plain
from cellrail_state.objects import Objects
from cellrail_state.restore import restore


class Previous(Mapping[str, Any]):
    """Values by name, each loaded when it is asked for; empty where there was no earlier job."""

    def __init__(self, found: Mapping[str, Any] | None) -> None:
        """Take the answer of the run's desk; None where there is nothing."""
        told = found or {"checkpoint": {}, "outputs": [], "objects": ""}
        self._checkpoint: Checkpoint = from_plain(told["checkpoint"], Checkpoint)
        self._objects = str(told["objects"])
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
        namespace, definitions = _living()
        report = restore(
            self._checkpoint,
            namespace,
            Objects(Path(self._objects)),
            names=[name],
            place=place,
            definitions=definitions,
            defined=definitions is not None,
        )
        if name in report.failed:
            raise CannotRestore(f"`{name}` does not load here: {report.failed[name]}")
        return place[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._checkpoint.variables))

    def __len__(self) -> int:
        return len(self._checkpoint.variables)

    def __repr__(self) -> str:
        return f"<previous values: {', '.join(self) or 'none'}>"


def _living() -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The namespace, and the classes and functions of the notebook that live in it."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    hooks = getattr(shell, "cellrail_hooks", None)
    if shell is None or hooks is None:
        return {}, None
    namespace: dict[str, Any] = shell.user_ns
    return namespace, hooks.state.living()
