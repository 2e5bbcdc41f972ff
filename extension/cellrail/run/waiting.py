"""Restored values that wait in the store until a cell can reach them.

A restart begins at once: what is small, definitions and open figures are put back, the rest when
the code that is about to run can reach it. What it can reach is found as a capture finds what it
can have changed (`cellrail_state.reach`), and beyond that by the words of strings, since queries
and formulas name variables there. Where that cannot be told, everything is put back.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from IPython.core.error import InputRejected

from cellrail.run import shellspace
from cellrail_state import ambient
from cellrail_state.capture import Capture
from cellrail_state.errors import StateError
from cellrail_state.fresh import Fresh
from cellrail_state.model import Checkpoint
from cellrail_state.objects import Objects
from cellrail_state.restore import Reader, reading_order, restore

#: libraries that look variables up by names which they may have read from a file
_LOOK_UP = ("duckdb", "chdb", "pandasql", "patsy", "formulaic")
_OUTPUT = re.compile(r"_(\d+)")


class NotPutBack(InputRejected):
    """A cell was not run: a value it can reach could not be put back."""


class Waiting:
    """The values of one restored checkpoint that are still to come."""

    def __init__(self, shell: Any, objects: Objects, capture: Capture) -> None:
        self._shell, self._objects, self._capture = shell, objects, capture
        self._names: set[str] = set()
        self._definitions: Mapping[str, Any] = {}
        self._ahead: Reader | None = None

    @property
    def names(self) -> frozenset[str]:
        """What waits."""
        return frozenset(self._names)

    @property
    def definitions(self) -> Mapping[str, Any]:
        """Functions and classes by key, for what waits."""
        return self._definitions

    def begin(
        self,
        names: Collection[str],
        definitions: Mapping[str, Any],
        ahead: Sequence[str] | None,
    ) -> None:
        """Begin to wait.

        Args:
            names: of the capture's checkpoint, that are not in the namespace yet.
            definitions: functions and classes by key.
            ahead: names that the cells to come use, in order; None where they may use any. What
                they lead to is read in the background.
        """
        self._names, self._definitions = set(names), definitions
        order = {name: place for place, name in enumerate(ahead or ())}
        checkpoint = self._capture.current
        first: dict[str, int] = {}
        for name in self.needed(ahead):
            ident = checkpoint.variables[name].component
            if ident is not None:
                place = order.get(name, len(order))
                first[ident] = min(place, first.get(ident, place))
        components = [checkpoint.components[ident] for ident in first]
        components.sort(key=lambda c: (first[c.id], *reading_order(c)))
        self._ahead = Reader(self._objects, components) if components else None

    def needed(self, names: Collection[str] | None) -> set[str]:
        """What has to be put back before code that uses these names runs.

        Args:
            names: what it names, and the words of its strings; None where it may use anything.
        """
        if not self._names:
            return set()
        roots = shellspace.capture_roots(self._shell)
        # what was bound anew meanwhile is not waited for
        self._names -= roots.keys()
        if names is None or any(library in sys.modules for library in _LOOK_UP):
            return set(self._names)
        reached = self._capture.leads_to(roots, names)
        if reached is None:
            return set(self._names)
        reached |= {f"Out[{found[1]}]" for name in reached if (found := _OUTPUT.fullmatch(name))}
        return self._names & reached

    def bring(self, names: Collection[str] | None) -> None:
        """Put back what code that uses these names can reach.

        Raises:
            StateError: a value's copy does not load.
        """
        # a value that is there now may lead to others
        while needed := self.needed(names):
            self._load(needed)

    def _load(self, names: Collection[str]) -> None:
        checkpoint = self._capture.current
        wanted = {checkpoint.variables[name].component for name in names}
        together = [n for n in self._names if checkpoint.variables[n].component in wanted]
        failed = self._restore(checkpoint, together)
        if failed and self._names - set(together):
            # code that runs while a value is loaded may use any other
            failed = self._restore(checkpoint, list(self._names))
            failed = {name: why for name, why in failed.items() if name in together}
        if failed:
            told = "; ".join(f"{name}: {why}" for name, why in sorted(failed.items()))
            raise StateError(f"not every value could be put back: {told}")

    def _restore(self, checkpoint: Checkpoint, names: Collection[str]) -> dict[str, str]:
        with ambient.generators_kept():
            report = restore(
                checkpoint,
                self._shell.user_ns,
                self._objects,
                names=names,
                place={},
                definitions=self._definitions,
                defined=True,
                each=self._take,
                ahead=self._ahead,
            )
        return report.failed

    def _take(self, values: Mapping[str, Any], known: Fresh | None) -> None:
        shellspace.place(self._shell, values)
        self._names -= values.keys()
        self._capture.admit(values, known)


class Refusal(ast.NodeTransformer):
    """Keeps the shell from running its next cell: nothing else can, once `run_cell` was called."""

    def __init__(self, remove: Callable[[Refusal], None], why: str) -> None:
        self._remove, self._why = remove, why

    def visit(self, node: ast.AST) -> ast.AST:
        """Refuse, once."""
        del node
        self._remove(self)
        raise NotPutBack(self._why)
