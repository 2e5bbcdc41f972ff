"""Long lists and dicts of plain items, cut into slabs that are pickled one by one.

A list of a million tuples takes four times as long to pickle in one stream, whose memo outgrows
every cache of the processor, as in slabs with a memo each. And of a slab whose items are still
those of the capture before nothing is pickled at all: items of a *flat* container (atoms, and
tuples of atoms) cannot change, so the same objects are the same content.

What a slab cannot tell: that one tuple stands in two slabs, or in another variable as well. It
comes back as two that are equal.
"""

from __future__ import annotations

import io
import operator
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from . import loading, nans
from .sharing import are_flat, columns_of

#: a container with more items is cut, this many items a slab
LONG, SLAB = 100_000, 1 << 16
#: bytes of one container's slabs that are kept from one capture to the next
KEPT = 64 << 20


class Slabs(msgspec.Struct, frozen=True, kw_only=True):
    """A long flat container, as it was when it was cut."""

    kind: type
    #: its items, in columns: those of a list, or keys and values of a dict
    columns: tuple[tuple[Any, ...], ...]
    #: the pickled slabs; empty where they are too large to be kept
    slabs: tuple[bytes, ...]

    def __reduce__(self) -> Any:
        """In a stream it stands for the container, with its slabs beside the stream."""
        return loading.from_slabs, (self.kind.__name__, *map(pickle.PickleBuffer, self.slabs))

    @property
    def kept(self) -> Slabs:
        """What the next capture compares with."""
        if sum(map(len, self.slabs)) <= KEPT:
            return self
        return msgspec.structs.replace(self, slabs=())


def cut(value: object, before: Slabs | None, count: Callable[[int], None]) -> Slabs | None:
    """Cut a container into slabs; None where it is short, or not flat.

    Args:
        value: any value.
        before: the slabs that the same name had at the capture before.
        count: is told the size of each slab, and raises where it gets too much.
    """
    if type(value) not in {list, dict} or len(value) <= LONG:  # type: ignore[arg-type]
        return None
    columns = columns_of(value)
    slabs = []
    for place, start in enumerate(range(0, len(columns[0]), SLAB)):
        part = tuple(column[start : start + SLAB] for column in columns)
        slab = _same(part, before, place)
        if slab is None:
            if not all(map(are_flat, part)):
                return None
            slab = _pickled(part)
        count(len(slab))
        slabs.append(slab)
    return Slabs(kind=type(value), columns=columns, slabs=tuple(slabs))


class _NanPickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, 5)
        self._nans = nans.Names()

    def persistent_id(self, obj: Any) -> str | None:
        """The id of a NaN."""
        return self._nans.of(obj)


def _pickled(part: tuple[tuple[Any, ...], ...]) -> bytes:
    slab = pickle.dumps(part, 5)
    if nans.may_hold_nans(slab):
        file = io.BytesIO()
        _NanPickler(file).dump(part)
        slab = file.getvalue()
    return slab


def _same(part: tuple[tuple[Any, ...], ...], before: Slabs | None, place: int) -> bytes | None:
    """The slab that stood at this place, where its items are the same objects."""
    if before is None or place >= len(before.slabs) or len(part) != len(before.columns):
        return None
    was = _at(before, place)
    same = all(
        len(items) == len(old) and all(map(operator.is_, items, old))
        for items, old in zip(part, was, strict=True)
    )
    return before.slabs[place] if same else None


def _at(slabs: Slabs, place: int) -> Iterator[tuple[Any, ...]]:
    start = place * SLAB
    return (column[start : start + SLAB] for column in slabs.columns)
