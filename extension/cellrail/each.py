"""`flow.each`: a loop inside a cell that stores variables, and goes on where it has stored them.

It stores after the first item (what cannot be stored is told then, not after ten minutes), after
each `every`, and when no item is left. What it comes to, a closed set:

* it *begins*: nothing was stored, or the cell does not belong to a job;
* it *goes on* behind the last item stored: the variables are put back before the next one;
* it has *ended*: the variables are put back, and no item is left;
* it *refuses* (`EachChanged`): the items are not what they were.

A storing that fails later on is told, once, and the loop goes on.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import fractions
import hashlib
import itertools
import pathlib
import sys
import time
import uuid
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cellrail.errors import BadState, EachChanged
from cellrail_state.errors import CannotRestore, CannotStore, StateError

if TYPE_CHECKING:
    from cellrail.run.asking import Backend
    from cellrail.run.midway import MidCapture, Midway
    from cellrail_state.model import Checkpoint

T = TypeVar("T")

_ON_CHANGE = ("raise", "anew", "continue")
#: told by what they say of themselves
_PLAIN = (
    bool, int, float, complex, str, bytes, type(None), dt.date, dt.time, dt.timedelta,
    decimal.Decimal, fractions.Fraction, uuid.UUID, pathlib.PurePath, enum.Enum,
)  # fmt: skip
#: sequences of which an item costs nothing
_LISTS = (list, tuple, range, str, bytes)
#: nested so deep, and of so many parts, an item is told by its type alone
_DEEP, _LONG = 3, 1000


class Each(Generic[T]):
    """An iterator over the items that are left."""

    def __init__(
        self,
        name: str,
        items: Iterable[T],
        *,
        save: str | Iterable[str],
        every: int | str,
        on_change: str,
        backend: Backend | None,
    ) -> None:
        """Check the arguments; see `flow.each`."""
        if not isinstance(name, str) or not name:
            raise BadState(f"flow.each(): the name is a string, not {name!r}")
        self._what = f"flow.each({name!r})"
        if not isinstance(items, Iterable):
            kind = type(items).__name__
            raise BadState(f"{self._what}: the items are a list, a range or the like, not a {kind}")
        if on_change not in _ON_CHANGE:
            told = f"on_change is {', '.join(_ON_CHANGE)}, not {on_change!r}"
            raise BadState(f"{self._what}: {told}")
        self._name, self._given, self._on_change = name, items, on_change
        self._save = _names(save, self._what)
        self._due = _Due(every, self._what)
        self._backend = backend
        self._items: Iterator[T] | None = None
        self._total = len(items) if isinstance(items, Sized) else None
        self._seen = _Seen(items)
        #: items that are done, and whether one is under way
        self.position = 0
        self._under_way = False
        #: it has ended before, at this position
        self._ended_at = 0
        self._store: _Store | None = None

    def __iter__(self) -> Iterator[T]:
        return self

    def __len__(self) -> int:
        if self._total is None:
            message = f"{self._what}: the items cannot be counted"
            raise TypeError(message)
        return self._total - self.position

    def __next__(self) -> T:
        if self._items is None:
            self._items = self._begin()
        if self._under_way:
            self._done()
        try:
            item = next(self._items)
        except StopIteration:
            self._end()
            raise
        self._seen.item(item)
        self._under_way = True
        return item

    def __reduce__(self) -> tuple[Any, ...]:
        # a loop goes on in its cell only: what a checkpoint brings back is over
        return _over, (self._name, self.position)

    def __repr__(self) -> str:
        total = "" if self._total is None else f" of {self._total}"
        return f"<{self._what}: {self.position}{total} done>"

    # --- storing -----------------------------------------------------------------------------

    def _done(self) -> None:
        """The body has ended for an item."""
        self._under_way = False
        self.position += 1
        # after the last item it stores anyhow
        if self._store is not None and self.position != self._total and self._due(self.position):
            self._store(self.position, self._seen.digest, ended=False)
            self._due.stored()

    def _end(self) -> None:
        store, self._store = self._store, None
        if store is None:
            return
        if self.position > self._ended_at:
            store(self.position, self._seen.digest, ended=True)
        store.close()

    # --- going on ----------------------------------------------------------------------------

    def _begin(self) -> Iterator[T]:
        """The items that are left."""
        midway = getattr(self._backend, "midway", None)
        if self._backend is None or midway is None:
            return iter(self._given)
        job = self._backend.ask("each_job", {})
        if not job:
            return iter(self._given)
        self._store = _Store(
            self, name=self._name, what=self._what, save=self._save, total=self._total,
            backend=self._backend,
        )  # fmt: skip
        found = self._store.open(midway(), job)
        items = self._go_on(found, midway()) if found else iter(self._given)
        self._due.start(stored=self.position > 0)
        return items

    def _go_on(self, found: Mapping[str, Any], midway: Midway) -> Iterator[T]:
        from cellrail_state.model import Checkpoint, from_plain

        position, checkpoint = int(found["position"]), from_plain(found["checkpoint"], Checkpoint)
        lost = sorted({*self._save} - checkpoint.variables.keys())
        why = f"{', '.join(map(repr, lost))} was not saved then" if lost else ""
        if found["total"] is not None and found["total"] != self._total:
            now = "cannot be counted now" if self._total is None else f"are {self._total} now"
            why = why or f"there were {found['total']} items, and they {now}"
        items, gone = self._skip(position)
        if gone < position:
            why = why or f"{position} items were done, and there are {gone} now"
        elif found["ended"] and self._total is None and not items.is_over():
            why = why or f"there were {position} items, and there are more now"
        if self._seen.digest != found["seen"]:
            why = why or f"the first {position} items are not the ones that were done"
        if why and self._on_change == "anew":
            self.position, self._seen = 0, _Seen(self._given)
            return items.again()
        if why and self._on_change == "raise":
            raise EachChanged(
                f"{self._what} has stored after item {position}, but {why} "
                "(another name, or on_change='anew', begins with the first item; "
                f"on_change='continue' goes on behind item {position})"
            )
        self.position, self._ended_at = gone, gone if found["ended"] else 0
        names = [name for name in self._save if name in checkpoint.variables]
        self._put_back(checkpoint, names, midway, edited=bool(found["edited"]))
        if found["edited"] and not found["ended"]:
            of = "" if self._total is None else f" of {self._total}"
            _say(
                f"{self._what} goes on behind item {gone}{of}, stored before the cell was edited "
                "(under another name it begins anew)"
            )
        return items

    def _skip(self, count: int) -> tuple[_Rest[T], int]:
        """The items behind the first ones, and how many there were of these."""
        given = self._given
        if isinstance(given, Sequence) and not isinstance(given, _LISTS):
            there = min(count, len(given))
            return _Rest(given, (given[n] for n in range(there, len(given)))), there
        items = iter(given)
        # what can be gone through only once
        passed: list[T] | None = [] if self._on_change == "anew" and items is given else None
        gone = 0
        for item in itertools.islice(items, count):
            self._seen.item(item)
            if passed is not None:
                passed.append(item)
            gone += 1
        return _Rest(given, items, passed), gone

    def _put_back(
        self, checkpoint: Checkpoint, names: Sequence[str], midway: Midway, *, edited: bool
    ) -> None:
        error: Exception
        try:
            told = midway.put_back(checkpoint, names, edited=edited)
        except StateError as found:
            error = CannotRestore(
                f"{self._what} cannot go on: {found} (under another name it begins anew)"
            )
        else:
            for line in told:
                _say(f"{self._what}: {line}")
            return
        raise error


def _over(name: str, position: int) -> Each[Any]:
    """A loop of a checkpoint."""
    made: Each[Any] = Each(name, (), save=(), every=1, on_change="raise", backend=None)
    made.position = position
    return made


class _Rest(Iterator[T]):
    """What is left of some items, and all of them."""

    def __init__(
        self, given: Iterable[T], items: Iterator[T], passed: list[T] | None = None
    ) -> None:
        self._given, self._items, self._passed = given, items, passed

    def __next__(self) -> T:
        return next(self._items)

    def is_over(self) -> bool:
        """Whether nothing is left."""
        for item in self._items:
            self._items = itertools.chain([item], self._items)
            return False
        return True

    def again(self) -> Iterator[T]:
        """All items, from the first one."""
        if self._passed is not None:
            return itertools.chain(self._passed, self._items)
        return iter(self._given)


class _Store:
    """Stores for one loop."""

    def __init__(
        self,
        loop: Each[Any],
        *,
        name: str,
        what: str,
        save: Sequence[str],
        total: int | None,
        backend: Backend,
    ) -> None:
        self._loop, self._name, self._what = weakref.ref(loop), name, what
        self._save, self._total, self._backend = save, total, backend
        self._path: list[tuple[str, int]] = []
        self._midway: Midway | None = None
        self._capture: MidCapture | None = None
        self._job = ""
        self._has_stored = self._has_told = False

    def open(self, midway: Midway, job: str) -> Mapping[str, Any]:
        """Take the place among the loops that are under way; what was stored last."""
        self._midway, self._capture, self._job = midway, midway.captures(), job
        around = [loop for ref in midway.loops if (loop := ref()) is not None]
        around = [loop for loop in around if loop.job == job]
        names = [loop.name for loop in around]
        if self._name in names:  # it was left, and is gone through once more
            around = around[: names.index(self._name)]
        self._path = [(loop.name, loop.position) for loop in around]
        midway.loops[:] = [*(weakref.ref(loop) for loop in around), weakref.ref(self)]
        # what a lazy restore has left for later
        midway.bring(self._save)
        found: Mapping[str, Any] = self._backend.ask(
            "each_find", {"name": self._name, "path": self._path}
        )
        return found

    @property
    def job(self) -> str:
        """The job that the loop belongs to."""
        return self._job

    @property
    def name(self) -> str:
        """The loop's name."""
        return self._name

    @property
    def position(self) -> int:
        """Items that are done."""
        loop = self._loop()
        return loop.position if loop is not None else 0

    def close(self) -> None:
        """No item is left."""
        if self._midway is not None:
            self._midway.loops[:] = [ref for ref in self._midway.loops if ref() is not self]

    def __call__(self, position: int, seen: str, *, ended: bool) -> None:
        """Store the names, and where the loop stands."""
        from cellrail_state.model import to_plain

        assert self._capture is not None
        error: Exception
        try:
            checkpoint = self._capture.store(self._save)
            stored = {
                "position": position, "total": self._total, "seen": seen, "ended": ended,
                "checkpoint": to_plain(checkpoint),
            }  # fmt: skip
            asked = {"name": self._name, "path": self._path, "stored": stored}
            self._backend.ask("each_keep", asked)
            self._has_stored = True
        except Exception as found:  # noqa: BLE001 - hours of work must not end with it
            if not self._has_stored and isinstance(found, CannotStore):
                error = CannotStore(f"{self._what}: {found}")
            else:
                self._tell(position, found)
                return
        else:
            return
        raise error

    def _tell(self, position: int, error: Exception) -> None:
        if not self._has_told:
            self._has_told = True
            _say(f"{self._what} could not store after item {position}: {error}")


class _Due:
    """When to store: after the first item, then after so many, or so much time."""

    def __init__(self, every: int | str, what: str) -> None:
        from cellrail.notebook.options import duration

        self._count, self._seconds = 0, 0.0
        if isinstance(every, str):
            try:
                self._seconds = duration(every)
            except ValueError as error:
                raise BadState(f"{what}: every: {error}") from None
        elif isinstance(every, int) and not isinstance(every, bool) and every > 0:
            self._count = every
        else:
            told = f"a number of items from 1, or a duration as '10m', not {every!r}"
            raise BadState(f"{what}: every is {told}")
        self._has_stored, self._last = False, 0.0

    def start(self, *, stored: bool) -> None:
        """The loop begins, or goes on behind what it has stored."""
        self._has_stored, self._last = stored, time.monotonic()

    def __call__(self, position: int) -> bool:
        if not self._has_stored:
            return True
        if self._count:
            return position % self._count == 0
        return time.monotonic() - self._last >= self._seconds

    def stored(self) -> None:
        """It has just stored."""
        self.start(stored=True)


class _Seen:
    """A digest of the items so far; none of sequences whose items may cost something."""

    def __init__(self, items: object) -> None:
        plain = isinstance(items, _LISTS) or not isinstance(items, Sequence)
        self._digest = hashlib.blake2b(digest_size=16) if plain else None

    def item(self, item: object) -> None:
        """The next one."""
        if self._digest is not None:
            told = _told(item)
            self._digest.update(b"%d:" % len(told) + told)

    @property
    def digest(self) -> str:
        """Hexadecimal; "" where nothing can be said."""
        return self._digest.hexdigest() if self._digest is not None else ""


def _told(item: object, depth: int = 0) -> bytes:
    """What an item is, as far as that can be told at little cost and the same in any process."""
    kind = type(item)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(item, _PLAIN):
        return f"{name} {item!r}".encode("utf-8", "surrogatepass")
    if isinstance(item, (tuple, list)) and depth < _DEEP and len(item) <= _LONG:
        return _joined(name, item, depth)
    if isinstance(item, dict) and depth < _DEEP and len(item) <= _LONG:
        return _joined(name, itertools.chain.from_iterable(item.items()), depth)
    if kind.__module__ == "numpy" and getattr(item, "ndim", None) == 0:
        return f"{name} {item}".encode()
    return name.encode()


def _joined(name: str, parts: Iterable[object], depth: int) -> bytes:
    told = [_told(part, depth + 1) for part in parts]
    return b"%s(%s)" % (name.encode(), b",".join(b"%d:%s" % (len(t), t) for t in told))


def _names(save: str | Iterable[str], what: str) -> tuple[str, ...]:
    names: Collection[str] = [save] if isinstance(save, str) else list(save)
    for name in names:
        if not isinstance(name, str) or not name.isidentifier():
            raise BadState(f"{what}: save takes names of variables, not {name!r}")
    return tuple(dict.fromkeys(names))


def _say(text: str) -> None:
    print(f"cellrail: {text}", file=sys.stderr)
