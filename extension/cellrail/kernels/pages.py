"""Copies of memory that a fork will want, made while it waits.

A fork shares its origin's memory page by page (4 KiB) until it writes to a page; that one is copied
then, at the price of a fault. Forks of one origin write to much the same pages, as most of them
hold counts of references: thousands, which cost more than a short cell. So the first kernel that
ends tells which pages were copied for it, and each later one has them copied (`MADV_POPULATE_WRITE`
of Linux 5.14) while it waits for a run. What a process reads there does not change. Where the
system does not tell about pages, nothing is done.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

_PAGE = mmap.PAGESIZE
_POPULATE_WRITE = 23
_MAPS, _PAGEMAP = Path("/proc/self/maps"), Path("/proc/self/pagemap")
#: of an entry of /proc/self/pagemap: the page is there; nobody else has it
_PRESENT, _EXCLUSIVE = 1 << 63, 1 << 56
#: a range of the table: its first page and how many there are
_RANGE = struct.Struct("QQ")
_RANGES = 8192
#: so many pages are copied between two looks at what is asked
_AT_ONCE = 64


class Pages:
    """Which pages forks write to; made by their origin, and shared by all of them."""

    def __init__(self) -> None:
        self._table = mmap.mmap(-1, _RANGE.size * (1 + _RANGES))
        #: of a fork that learns: the pages that it shared when it began
        self._shared: set[int] = set()

    def copy(self, asked: Callable[[], bool]) -> None:
        """In a fork that waits: have the pages copied, or look at them where none are known.

        Args:
            asked: whether there is something else to do now.
        """
        ranges = self.known()
        if not ranges:
            self._shared = set(_pages(_PRESENT))
            return
        advise = ctypes.CDLL(None, use_errno=True).madvise
        advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        for first, count in ranges:
            for part in range(first, first + count, _AT_ONCE):
                if asked():
                    return
                pages = min(_AT_ONCE, first + count - part)
                advise(part * _PAGE, pages * _PAGE, _POPULATE_WRITE)

    def learn(self) -> None:
        """In a fork that ends: tell which pages were copied, where that is not known yet."""
        if not self._shared or self.known():
            return
        copied = sorted(self._shared.intersection(_pages(_EXCLUSIVE)))
        ranges = list(_ranges(copied))[:_RANGES]
        for place, found in enumerate(ranges, 1):
            _RANGE.pack_into(self._table, place * _RANGE.size, *found)
        # last: from now on they are known
        _RANGE.pack_into(self._table, 0, len(ranges), 0)

    def known(self) -> list[tuple[int, int]]:
        """Ranges of pages that forks write to: the first one, and how many."""
        count, _ = _RANGE.unpack_from(self._table, 0)
        return [_RANGE.unpack_from(self._table, n * _RANGE.size) for n in range(1, count + 1)]


def _ranges(pages: list[int]) -> Iterator[tuple[int, int]]:
    """Pages, in order, as first page and count of those that follow one another."""
    first = last = -1
    for page in pages:
        if page != last + 1:
            if last >= 0:
                yield first, last + 1 - first
            first = page
        last = page
    if last >= 0:
        yield first, last + 1 - first


def _pages(bit: int) -> Iterator[int]:
    """Pages of this process's own memory whose entry has a bit."""
    try:
        with _MAPS.open() as maps, _PAGEMAP.open("rb", 0) as entries:
            for line in maps:
                words = line.split()
                if not words[1].startswith("rw") or words[1][3] != "p":
                    continue
                first, end = (int(bound, 16) // _PAGE for bound in words[0].split("-"))
                found = array("Q", os.pread(entries.fileno(), 8 * (end - first), 8 * first))
                yield from (first + n for n, entry in enumerate(found) if entry & bit)
    except OSError:
        return
