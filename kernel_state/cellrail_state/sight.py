"""What can be seen of values that cannot be stored: whether they are as a moment ago.

One object that pickle refuses, a lock, say, hides all that its owner holds beside it. Here such an
object is written down by what can be told of it, and the rest as it is always written. The result
is compared within the process; nothing loads it.

* What Python's containers, iterators and weak references hold, objects of the notebook's classes
  and of the user's modules, closures, classes, and what a generator is about to go on with, is
  looked through.
* An object of a library is compared whole where it can be stored. Where it cannot, it is looked at
  from outside: which it is, whether a lock is held, a queue or an iterator has gone on, how far a
  file is, what a database has changed. What it keeps inside is its own business: it may count, or
  remember, whatever is asked of it (`Popen.poll`, `Thread.is_alive`, a pool of connections).
* So are, in an object of the notebook's class, private attributes if the class inherits from a
  library's that keeps something in them.
"""

from __future__ import annotations

import collections
import contextlib
import contextvars
import copyreg
import gc
import io
import itertools
import queue
import socket
import sqlite3
import sys
import threading
import time
import types
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from .definitions import Definitions, is_definition
from .digests import Hasher
from .pickling import OverLimit, Pickler, Sink, fill
from .reach import is_local
from .sharing import is_atomic, is_shared

_DEEP = 5_000
#: modules of Python whose objects are nothing but what they hold
_OPEN = frozenset({"builtins", "collections", "functools", "itertools", "operator", "types"})
_OPEN_KINDS = frozenset(
    {threading.Event, threading.Condition, threading.Semaphore, threading.BoundedSemaphore,
     threading.Barrier, queue.Queue, queue.LifoQueue, queue.PriorityQueue, weakref.ref}
)  # fmt: skip
#: bases that keep nothing in private attributes
_BARE = _OPEN | {"abc", "_abc", "collections.abc", "contextlib", "dataclasses", "enum", "numbers",
                 "typing", "_thread"}  # fmt: skip
#: what goes on where it has stopped: how its frame is called, and what it waits for
_FRAMED = {
    types.GeneratorType: ("gi", "yieldfrom"),
    types.CoroutineType: ("cr", "await"),
    types.AsyncGeneratorType: ("ag", "await"),
}
_PROXIES = (weakref.ProxyType, weakref.CallableProxyType)
#: libraries with values that are as plain as Python's, and often many
_NUMBERS = frozenset({"numpy", "pandas"})
#: what tells of itself how far it is, or whether it is held
_TELLING = ("locked", "is_set", "qsize", "__length_hint__")
#: where in what pickle takes an object apart into its attributes stand
_STATE = 2
#: set for classes that Python code made
_HEAP_TYPE = 1 << 9


class Sight:
    """Looks at values, all in one moment."""

    def __init__(
        self,
        definitions: Definitions,
        *,
        max_value: int | None = None,
        max_seconds: float | None = None,
    ) -> None:
        """Prepare to look.

        Args:
            definitions: the functions and classes of the notebook, by key.
            max_value: bytes that one value is looked at for.
            max_seconds: how long is looked at all of them.
        """
        self.definitions = definitions
        self.hasher = Hasher()
        #: of the functions and classes that were met
        self.keys: dict[str, None] = {}
        #: what was told of objects of libraries, by address; with them, so that they live
        self.told: dict[int, tuple[object, Any]] = {}
        self._max_value = max_value
        self._deadline = None if max_seconds is None else time.monotonic() + max_seconds

    def of(self, value: object) -> bytes | None:
        """A digest of a value; None for what is too large or too deep, or fails to be looked at."""
        return self._digest([value], None)

    def of_definitions(self, keys: Iterable[str]) -> bytes | None:
        """A digest of functions and classes with all they hold; None as above."""
        self.keys.update(dict.fromkeys(keys))
        while True:
            wanted = sorted(self.keys)
            digest = self._digest([], wanted)
            if digest is None or len(self.keys) == len(wanted):
                return digest

    def sink(self) -> Sink:
        """Where a stream goes, within limits."""
        return Sink(self._max_value, self._deadline)

    def _digest(self, values: Collection[object], keys: Collection[str] | None) -> bytes | None:
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(max(limit, _DEEP))
        pickler = _Looking(self, by_value=keys is not None)
        try:
            fill(pickler, values, keys)
            return self.hasher.content(pickler.sink.bytes(), pickler.buffers)
        except Exception:  # noqa: BLE001 - the user's own code may raise anything
            return None
        finally:
            sys.setrecursionlimit(limit)
            self.keys.update(pickler.keys)
            pickler.close()


class _Told:
    """Stands in a stream for an object that is written down by what can be told of it."""


class _Looking(Pickler):
    """Pickles everything: what cannot be stored by what can be told of it."""

    def __init__(self, sight: Sight, *, by_value: bool) -> None:
        super().__init__(sight.definitions, sight.sink(), by_value=by_value)
        self._sight = sight
        #: whether a class is the user's, and whether a library's is among its bases
        self._own: dict[type, bool] = {}
        self._private: dict[type, bool] = {}

    def reducer_override(self, obj: Any) -> Any:  # noqa: PLR0911 - one line per kind
        """Called by `pickle` for everything but the commonest builtin types."""
        kind = type(obj)
        if obj is _Told:
            return NotImplemented
        if is_definition(obj):
            return self._definition(obj)
        if kind is types.FunctionType or issubclass(kind, type):
            return _Told, (id(obj),)
        if issubclass(kind, types.ModuleType):
            return self._module(obj)
        if _is_plain(obj):
            return super().reducer_override(obj)
        if self._is_own(kind) or kind in _OPEN_KINDS or kind.__module__ in _OPEN:
            return self._through(obj)
        return self._of_a_library(obj)

    def _is_own(self, kind: type) -> bool:
        found = self._own.get(kind)
        if found is None:
            found = self._own[kind] = any(map(_is_users, kind.__mro__))
        return found

    def _is_private(self, kind: type) -> bool:
        found = self._private.get(kind)
        if found is None:
            found = self._private[kind] = any(map(_keeps_private, kind.__mro__))
        return found

    def _through(self, obj: Any) -> Any:
        own = self._is_own(type(obj))
        made = self._reduced(obj)
        private = own and self._is_private(type(obj))
        if made is None:
            inside = [*_held(obj), *(_attributes(obj, private=private) if own else ())]
            return _Told, (id(type(obj)), id(obj), *_outside(obj, own=own)), inside
        if private and len(made) > _STATE:
            return *made[:_STATE], _public(made[_STATE]), *made[_STATE + 1 :]
        return made

    def _reduced(self, obj: Any) -> tuple[Any, ...] | None:
        """As pickle takes it apart; None where it cannot."""
        kind: Any = type(obj)
        if kind not in self.kinds:
            self.kinds[kind] = self._meet(kind)
        handler = self.kinds[kind]
        made: Any = NotImplemented
        try:
            if handler is not None:
                made = handler(obj)
            if made is NotImplemented and (other := copyreg.dispatch_table.get(kind)) is not None:
                made = other(obj)
            if made is NotImplemented:
                made = obj.__reduce_ex__(5)
        except Exception:  # noqa: BLE001 - that is what cannot be stored
            return None
        return made if isinstance(made, tuple) else None

    def _module(self, module: types.ModuleType) -> Any:
        if sys.modules.get(module.__name__) is module:
            return _Told, (id(module),)
        named = vars(module).items()
        return _Told, (id(module),), {k: v for k, v in named if not k.startswith("__")}

    def _of_a_library(self, obj: Any) -> Any:
        known = self._sight.told.get(id(obj))
        if known is None:
            known = self._sight.told[id(obj)] = (obj, self._tell(obj))
        return known[1]

    def _tell(self, obj: Any) -> Any:
        pickler = Pickler(self.definitions, self._sight.sink())
        try:
            pickler.dump(obj)
            content = self._sight.hasher.content(pickler.sink.bytes(), pickler.buffers)
        except OverLimit:
            raise
        except Exception:  # noqa: BLE001 - that is what cannot be stored
            return _Told, (id(type(obj)), id(obj), *_outside(obj, own=False)), [*_held(obj)]
        finally:
            self.keys.update(pickler.keys)
            pickler.close()
        return _Told, (content,)


def _is_plain(obj: Any) -> bool:
    """Whether pickle takes it apart itself: a cell, code, what nobody can change."""
    kind = type(obj)
    if kind is types.BuiltinFunctionType:  # `rows.append` belongs to its list
        return False
    if kind is types.CellType or is_atomic(kind):
        return True
    return str(kind.__module__).partition(".")[0] in _NUMBERS and not is_shared(obj)


def _is_users(kind: type) -> bool:
    """Whether a class is the notebook's or of a module of the user's own."""
    if kind.__module__ == "__main__":
        return True
    home = sys.modules.get(kind.__module__)
    return isinstance(home, types.ModuleType) and is_local(home)


def _keeps_private(kind: type) -> bool:
    """Whether a class of a library may keep something in private attributes."""
    made = bool(kind.__flags__ & _HEAP_TYPE)
    return made and kind.__module__ not in _BARE and not _is_users(kind)


def _public(state: Any) -> Any:
    """What pickle writes of an object without its private attributes."""
    if isinstance(state, tuple):
        return tuple(map(_public, state))
    if not isinstance(state, Mapping):
        return state
    return {k: v for k, v in state.items() if not str(k).startswith("_")}


def _attributes(obj: Any, *, private: bool) -> Iterator[Any]:
    """What an object holds that does not let pickle take it apart; `private` is left out."""
    held = getattr(obj, "__dict__", {})
    yield _public(held) if private else held
    for name in copyreg._slotnames(type(obj)):  # type: ignore[attr-defined] # noqa: SLF001
        with contextlib.suppress(AttributeError):
            yield getattr(obj, name)
    held_by: tuple[Any, ...] = (dict, list, tuple, set, frozenset, collections.deque)
    for kind in held_by:
        if isinstance(obj, kind):
            yield from kind.__iter__(obj)
    if isinstance(obj, dict):
        yield from dict.values(obj)


def _held(obj: Any) -> list[Any]:
    """What a value of Python's own leads to, where pickle does not follow."""
    kind, held = type(obj), list[Any]()
    with contextlib.suppress(Exception):
        if kind in _FRAMED:
            prefix, waits_for = _FRAMED[kind]
            frame = getattr(obj, f"{prefix}_frame")
            going_on = [frame.f_lasti, dict(frame.f_locals)] if frame is not None else []
            held = [*going_on, getattr(obj, f"{prefix}_{waits_for}")]
        elif kind is weakref.ref:
            held = [obj(), obj.__callback__]
        elif kind in _PROXIES:
            held = [obj.__reduce_ex__.__self__]
        elif isinstance(obj, threading.local):
            held = [vars(obj)]
        elif kind is contextvars.ContextVar:
            held = [obj.get(None)]
        elif kind.__module__ == "itertools":
            held = gc.get_referents(obj)
        elif kind.__module__ == "tempfile":
            held = [obj.file]
    return held


def _outside(obj: Any, *, own: bool) -> list[Any]:
    """What a value tells of itself without being changed by it."""
    kind, told = type(obj), list[Any]()
    with contextlib.suppress(Exception):
        if isinstance(obj, io.IOBase):
            told += [obj.closed, obj.tell()]
        elif isinstance(obj, sqlite3.Connection):
            told += [obj.total_changes, obj.in_transaction]
        elif isinstance(obj, socket.socket):
            told += [obj.fileno(), obj.gettimeout()]
        elif kind is itertools.count or kind.__module__ == "_thread":
            # `count(5)`, `<locked …>`, `<… owner=1 count=2 …>`: there is no other way to see it
            told.append(repr(obj))
        elif not own:
            looks = (getattr(kind, method, None) for method in _TELLING)
            told += [look(obj) for look in looks if callable(look)]
    return told
