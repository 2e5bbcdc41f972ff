"""Watches a condition on a step's line while it is evaluated: it must change nothing.

A run that is recovered, restarted or rerun takes what a condition came to from the journal, and
what it had changed would be missing there: an item that `next(items)` took would come twice, a
number that was drawn would be drawn again. So such a condition fails, at once and by name.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from cellrail.run import shellspace
from cellrail_state import randomness
from cellrail_state.capture import Capture

_GENERATORS = ("random", "numpy.random", "torch")


class ConditionChanges(Exception):
    """A condition on a step's line has changed something."""

    __module__ = "cellrail"


class Watch:
    """What names hold, and generators would draw next, before a condition is evaluated."""

    def __init__(self, shell: Any, capture: Capture, names: Collection[str] | None) -> None:
        """Look.

        Args:
            shell: the IPython shell.
            capture: of its namespace.
            names: that the condition uses; None where it may use any.
        """
        self._shell, self._capture, self._names = shell, capture, names
        self._reached = self._reach()
        self._held = self._look()
        self._drawn = randomness.cheap()

    def _reach(self) -> set[str] | None:
        if self._names is None:
            return None
        reached = self._capture.leads_to(shellspace.capture_roots(self._shell), self._names)
        return None if reached is None else reached | {*self._names}

    def _look(self) -> dict[str, object]:
        roots = shellspace.capture_roots(self._shell)
        known = {name: value for name, value in roots.items() if not shellspace.is_hidden(name)}
        names = known.keys() if self._reached is None else self._reached & known.keys()
        digests = self._capture.fingerprints(known, names).digests
        # of what cannot be stored only the binding is known
        return {n: id(known[n]) if n in known and d is None else d for n, d in digests.items()}

    def refuse_changes(self) -> None:
        """Look again.

        Raises:
            ConditionChanges: something is not as it was.
        """
        before, now = self._held, self._look()
        names = {n for n in before.keys() | now.keys() if before.get(n) != now.get(n)}
        changed = [f"`{name}`" for name in sorted(names) if not name.startswith("\0")]
        drawn = zip(_GENERATORS, self._drawn, randomness.cheap(), strict=True)
        changed += [
            f"what {generator} draws next"
            for generator, was, is_ in drawn
            if was is not None and was != is_
        ]
        if changed or names:
            what = " and ".join(changed) or "a function or class"
            raise ConditionChanges(
                f"the condition has changed {what}, and no checkpoint would hold that: a condition "
                "only looks. Do it in a cell, and let the condition look at what the cell has left"
            )
