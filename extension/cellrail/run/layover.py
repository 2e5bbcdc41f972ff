"""Laying a checkpoint over a living namespace, between two cells.

A step that is kept in mid-run leaves what it left in the run that it is kept from: the values of
the names it wrote come from the store, everything else stays as the cells before it left it. The
driver says what the namespace has to be (a checkpoint: the fold of all deltas so far, those of
kept jobs included); what of it differs from the last capture is put in its place:

* a stored name whose component is another is restored, with all that shares the component; large
  ones wait until a cell can reach them;
* a name that is gone, or whose value cannot be stored and is not the one that is there, is removed;
* definitions that are there already stay the same objects; kept ones are added, and their state is
  the one they have in the newest component;
* ambient state, set-up magics, `In`, `Out` and the execution count follow.

Nothing else is touched: the very objects stay, also those that cannot be stored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from cellrail.run import shellspace
from cellrail.run.setup import run_setup_line
from cellrail.run.waiting import Waiting
from cellrail_state import ambient
from cellrail_state.capture import Capture
from cellrail_state.errors import StateError
from cellrail_state.model import Checkpoint
from cellrail_state.objects import Objects
from cellrail_state.restore import restore


class LayOver:
    """Lays checkpoints over one shell's namespace."""

    def __init__(
        self,
        shell: Any,
        objects: Objects,
        capture: Capture,
        waiting: Waiting,
        surroundings: ambient.Ambient,
    ) -> None:
        self._shell, self._objects = shell, objects
        self._capture, self._waiting, self._surroundings = capture, waiting, surroundings

    def lay(
        self,
        target: Checkpoint,
        order: Mapping[str, Any],
        *,
        state: Mapping[str, Any] | None,
        left_for_later: Callable[[Checkpoint], Collection[str]],
    ) -> dict[str, Any]:
        """Make the namespace what the checkpoint says.

        Args:
            target: the checkpoint.
            order: `magics`, `inputs` and `execution_count`, as for a restore, and `ahead`: names
                that the cells to come use, in order.
            state: the ambient state to put back; None where it is the right one.
            left_for_later: names that may wait until a cell can reach them.

        Returns:
            `restored`, `waiting` and `removed` names, and `warnings`.

        Raises:
            StateError: a value's copy does not load; the namespace is as it was.
        """
        before = self._capture.current
        later = set(left_for_later(target))
        there = shellspace.capture_roots(self._shell)
        with shellspace.whole_or_not_at_all(self._shell), ambient.generators_kept():
            warnings = self._surroundings.apply(state) if state is not None else []
            warnings += [
                told for line in order["magics"] if (told := run_setup_line(self._shell, line))
            ]
            moved = self._capture.differs_from(target)
            stored = {n for n in moved if _is_stored(target, n)}
            removed = (moved - stored) & there.keys()
            shellspace.remove(self._shell, removed | (stored & later))
            placed, definitions = self._restore(before, target, stored - later)
            shellspace.place(self._shell, placed)
        self._capture.move_to(target, definitions)
        self._capture.admit(placed)
        still = {n for n in self._waiting.names - moved if n in target.variables}
        waits = still | (stored & later)
        # nothing of ours keeps the user's objects alive without need
        self._waiting.begin(waits, definitions if waits else {}, order.get("ahead"))
        shellspace.set_history(
            self._shell,
            {int(number): source for number, source in order["inputs"].items()},
            int(order["execution_count"]),
        )
        if state is not None:
            warnings += ambient.apply_generators(state)
        return {
            "restored": sorted(placed),
            "waiting": sorted(stored & later),
            "removed": sorted(removed),
            "warnings": warnings,
        }

    def _restore(
        self, before: Checkpoint, target: Checkpoint, names: Collection[str]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The values of these names, and every definition that lives now."""
        there = self._capture.definitions.living()
        wanted = {target.variables[name].component for name in names}
        missing = {key for c in wanted if c is not None for key in target.components[c].uses}
        missing -= there.keys()
        # the state of definitions that are there already is the one that the last capture saw
        fresh = {
            ident: component
            for ident, component in target.components.items()
            if not component.definitions
            or ident not in before.components
            or missing & set(component.definitions)
        }
        placed: dict[str, Any] = {}
        report = restore(
            msgspec.structs.replace(target, components=fresh),
            self._shell.user_ns,
            self._objects,
            names=names,
            place=placed,
            definitions={**self._waiting.definitions, **there},
        )
        if report.failed:
            told = "; ".join(f"{name}: {why}" for name, why in sorted(report.failed.items()))
            raise StateError(f"not every value could be put back: {told}")
        return placed, dict(report.definitions)


def _is_stored(checkpoint: Checkpoint, name: str) -> bool:
    variable = checkpoint.variables.get(name)
    return variable is not None and variable.component is not None
