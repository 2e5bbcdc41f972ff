"""Which step of today's notebook is which step of a run.

By name, then by cell id, then by source, then by place between equal neighbours. Each step is
matched at most once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Protocol, TypeVar

from cellrail.notebook.address import Addressed


class Identified(Addressed, Protocol):
    """What identifies a step."""

    @property
    def source_hash(self) -> str:
        """Digest of its code."""


Old = TypeVar("Old", bound=Identified)
New = TypeVar("New", bound=Identified)


def match(origin: Sequence[Old], current: Sequence[New]) -> dict[int, Old]:
    """The origin's step for each step of today's notebook, by today's number."""
    pairs: dict[int, Old] = {}
    taken: set[int] = set()

    def pair(key: Callable[[Identified], Hashable]) -> None:
        waiting: dict[Hashable, list[Old]] = {}
        for old in origin:
            if old.number not in taken and key(old):
                waiting.setdefault(key(old), []).append(old)
        for new in current:
            if new.number in pairs or not key(new):
                continue
            candidates = waiting.get(key(new))
            if candidates:
                old = candidates.pop(0)
                pairs[new.number] = old
                taken.add(old.number)

    pair(lambda step: step.name)
    pair(lambda step: step.cell_id)
    pair(lambda step: step.source_hash if not step.name else "")
    _by_place(origin, current, pairs, taken)
    return pairs


def _by_place(
    origin: Sequence[Old], current: Sequence[New], pairs: dict[int, Old], taken: set[int]
) -> None:
    """A step that fills the one gap between matched neighbours is the same step."""
    before = -1
    gap: list[New] = []
    places = {old.number: place for place, old in enumerate(origin)}
    for new in [*current, None]:
        if new is not None and new.number not in pairs:
            gap.append(new)
            continue
        after = places[pairs[new.number].number] if new is not None else len(origin)
        between = [old for old in origin[before + 1 : after] if old.number not in taken]
        alike = [(o, n) for o, n in zip(between, gap, strict=False) if _may_be_same(o, n)]
        if len(between) == len(gap) == len(alike):
            for old, fresh in alike:
                pairs[fresh.number] = old
                taken.add(old.number)
        gap, before = [], after


def _may_be_same(old: Identified, new: Identified) -> bool:
    """Two different names, or two different cell ids, are two steps."""
    named = bool(old.name and new.name)
    identified = bool(old.cell_id and new.cell_id)
    return not named and not identified
