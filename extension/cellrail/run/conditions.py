"""Watches a condition on a step's line while it is evaluated: it must change nothing.

A run that is recovered, restarted or rerun takes what a condition came to from the journal, and
what it had changed would be missing there: an item that `next(items)` took would come twice, a
number that was drawn would be drawn again. So such a condition fails, at once and by name.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from typing import Any

from cellrail.run import shellspace
from cellrail.run.inert import are_inert
from cellrail_state import ambient, randomness
from cellrail_state.capture import Capture
from cellrail_state.namespace import WARNED

#: a binding, and what can be seen of its value; None where nothing can
_Seen = tuple[int, bytes | None]
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
        self._settings, self._modules = ambient.settings(), len(sys.modules)

    def _reach(self) -> set[str] | None:
        if self._names is None:
            return None
        reached = self._capture.leads_to(shellspace.capture_roots(self._shell), self._names)
        return None if reached is None else reached | {*self._names}

    def _look(self) -> dict[str, _Seen]:
        """The binding of each name, and what can be seen of its value."""
        roots = shellspace.capture_roots(self._shell)
        known = {
            name: value
            for name, value in roots.items()
            if not shellspace.is_hidden(name) and name != WARNED
        }
        names = known.keys() if self._reached is None else self._reached & known.keys()
        seen = self._capture.seen(known, names)
        return {n: (id(known.get(n)), content) for n, content in seen.items()}

    def refuse_changes(self) -> None:
        """Look again.

        Raises:
            ConditionChanges: something is not as it was.
        """
        now = self._look()
        names = _different(self._held, now)
        if names:
            # what is never seen twice as it was, tells nothing: it counts how often it is looked at
            names -= _different(now, self._look())
        changed = [f"`{name}`" for name in sorted(names) if not name.startswith("\0")]
        drawn = zip(_GENERATORS, self._drawn, randomness.cheap(), strict=True)
        changed += [
            f"what {generator} draws next"
            for generator, was, is_ in drawn
            if was is not None and was != is_
        ]
        changed += self._settings_changed()
        if changed or names:
            what = " and ".join(changed) or "a function or class"
            raise ConditionChanges(
                f"the condition has changed {what}, and no checkpoint would hold that: a condition "
                "only looks. Do it in a cell, and let the condition look at what the cell has left"
            )

    def _settings_changed(self) -> list[str]:
        before, now = self._settings, ambient.settings()
        found = [name for name in now if before.get(name) != now[name]]
        if len(sys.modules) == self._modules:
            return found
        # a library that nobody had used before may set what it likes, but it does not move
        return [name for name in found if name == ambient.FOLDER]


def only_looks(shell: Any, names: Collection[str]) -> bool:
    """Whether looking at what these names hold executes no code of the notebook."""
    return are_inert(shell.user_ns[name] for name in names if name in shell.user_ns)


def _different(before: Mapping[str, _Seen], now: Mapping[str, _Seen]) -> set[str]:
    """Names that hold something else, as far as that can be seen."""
    return {n for n in before.keys() | now.keys() if _differs(before.get(n), now.get(n))}


def _differs(before: _Seen | None, now: _Seen | None) -> bool:
    if before is None or now is None:
        return before is not now
    if before[1] is None or now[1] is None:
        return before[0] != now[0]
    return before[1] != now[1]
