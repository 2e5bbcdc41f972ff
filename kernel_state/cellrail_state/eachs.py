"""What `flow.each` has stored in mid-cell, and which of it can still be gone on from. Pure.

Of each loop only the newest record counts. It is no longer needed

* when its step has succeeded (or is to be executed anew: `flow.rerun`);
* when the loop around it has stored a later item: what an inner loop stored for an item that is
  done is part of that;
* in an open notebook, when a person executes the cell again: that begins anew, except right after
  a restart.
"""

from __future__ import annotations

from collections.abc import Iterable

from cellrail_state.model import (
    EachStored,
    JobFinished,
    JobStarted,
    Record,
    RunKind,
    RunStarted,
    StepStatus,
    Turn,
)

#: names of loops, each with the index of its item
Path = tuple[tuple[str, int], ...]
_Step = tuple[int, tuple[Turn, ...]]
_Key = tuple[Path, str]


class EachBook:
    """The records of one run that can be gone on from."""

    def __init__(self, records: Iterable[EachStored] = (), *, live: bool = False) -> None:
        """Begin with some.

        Args:
            records: what the run has stored or inherited so far, in order.
            live: a person executes the cells.
        """
        self._kept: dict[_Step, dict[_Key, EachStored]] = {}
        #: steps that a restart has just given records to
        self._handed: set[_Step] = set()
        self._live = live
        for record in records:
            self.take(record)

    def see(self, record: Record) -> None:
        """A record of the run's journal, in order."""
        if isinstance(record, EachStored):
            self.take(record)
        elif isinstance(record, JobFinished):
            if record.status in {StepStatus.SUCCESS, StepStatus.KEPT}:
                self.done(record.step, record.turns)
        elif isinstance(record, JobStarted):
            self.begin(record.step, record.turns, record.attempt)
        elif isinstance(record, RunStarted):
            self._live = record.kind is RunKind.LIVE

    def take(self, record: EachStored) -> None:
        """A loop has stored something."""
        step = record.step, record.turns
        if record.origin:
            self._handed.add(step)
        records = self._kept.setdefault(step, {})
        mine = (*record.path, (record.name, record.position))
        for path, name in [key for key in records if _is_over(key[0], mine)]:
            del records[path, name]
        records[record.path, record.name] = record

    def begin(self, step: int, turns: tuple[Turn, ...], attempt: int) -> None:
        """A job begins."""
        key = step, turns
        if self._live and attempt == 1 and key not in self._handed:
            self._kept.pop(key, None)
        self._handed.discard(key)

    def take_back(self) -> None:
        """The restart that has handed records over was itself taken back."""
        for key in self._handed:
            self._kept.pop(key, None)
        self._handed.clear()

    def done(self, step: int, turns: tuple[Turn, ...]) -> None:
        """A job has succeeded: its checkpoint holds everything."""
        self._kept.pop((step, turns), None)

    def find(self, step: int, turns: tuple[Turn, ...], path: Path, name: str) -> EachStored | None:
        """What a loop has stored last; None for nothing."""
        return self._kept.get((step, turns), {}).get((path, name))

    def records(self) -> list[EachStored]:
        """All that can be gone on from, in the order in which loops began to store."""
        return [record for records in self._kept.values() for record in records.values()]


def _is_over(path: Path, now: Path) -> bool:
    """Whether a loop with this path belongs to an item that is done."""
    depth = len(now)
    around, (name, position) = now[:-1], now[-1]
    if len(path) < depth or path[: depth - 1] != around:
        return False
    return path[depth - 1][0] == name and path[depth - 1][1] < position
