"""How many runs have room beside one another: a bound on the memory that they take together.

How much a run takes is not known before one has run. So the first of them runs alone, and from then
on as many as the bound holds of the largest that was seen; one always may.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable


class Room:
    """Bounds how many runs begin."""

    def __init__(self, memory: int, measure: Callable[[int], int]) -> None:
        """Know the bound.

        Args:
            memory: bytes that all runs may take together.
            measure: the bytes that a worker's process and those below it take now.
        """
        self._memory, self._measure = memory, measure
        self._largest, self._known = 0, False

    def ended(self) -> None:
        """A run has ended: what it took is known."""
        self._known = True

    def holds(self, busy: Iterable[int]) -> int:
        """So many runs may be under way.

        Args:
            busy: the processes that execute one now.
        """
        self._largest = max([self._largest, *map(self._measure, busy)])
        if not self._known or not self._largest:
            return 1
        return max(1, self._memory // self._largest)


def bytes_below(pid: int) -> int:
    """Bytes of memory that a process and those below it take; what they share counts once."""
    import psutil

    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0
    return sum(map(_bytes_of, family))


def _bytes_of(process: object) -> int:
    import psutil

    assert isinstance(process, psutil.Process)
    try:
        full = process.memory_full_info()
    except (psutil.Error, OSError):  # it has ended, or may not be asked
        return 0
    return int(getattr(full, "pss", full.rss))
