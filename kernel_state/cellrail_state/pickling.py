"""One pickler for values and definitions. Its codec is `pickle5/1`.

A component is a sequence of pickles that share one memo: variables in one component share their
objects again. Contiguous buffers of `OUT_OF_BAND` bytes and more leave the stream and become
objects of their own. Functions and classes of the notebook are written as keys (see
`definitions`); a component of definitions begins with four pickles that make them.

What `pickle` or `cloudpickle` would take apart wrongly without a word is taken apart by `reducing`
and `arrays`, or refused with `CannotStore`.
"""

from __future__ import annotations

import pickle
import time
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import cloudpickle

from . import loading, nans, reducing
from .definitions import _LRU, _VARIABLES, Definitions, is_definition
from .errors import CannotRestore, CannotStore
from .loading import CODEC, Context

__all__ = ["CODEC", "OUT_OF_BAND", "OverLimit", "Pickler", "Sink", "Unpickler", "dump", "load"]

#: buffers of this size and more are objects of their own
OUT_OF_BAND = 2048


class OverLimit(CannotStore):
    """The value is over a limit."""

    code = "over-limit"


class Sink:
    """Collects a stream, and stops where it gets too long or takes too long."""

    def __init__(self, max_value: int | None = None, deadline: float | None = None) -> None:
        self.parts: list[bytes] = []
        self.size, self._foreseen = 0, 0
        self._max, self._deadline = max_value, deadline

    def write(self, data: bytes) -> int:
        """Take bytes from the pickler."""
        self.parts.append(bytes(data))
        self.count(len(data))
        return len(data)

    def count(self, size: int) -> None:
        """Add to the size of the component.

        Raises:
            OverLimit: it is too large, or took too long.
        """
        self.size += size
        if self._max is not None and self.size > self._max:
            raise OverLimit(f"over the limit: more than {self._max:,} bytes (max_value)")
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise OverLimit("over the limit: the capture took too long (max_seconds)")

    def foresee(self, size: int) -> None:
        """So much more will come beside the stream, and is counted when it does.

        Raises:
            OverLimit: it will be too large, or takes too long.
        """
        self._foreseen += size
        self.count(self._foreseen)
        self.size -= self._foreseen

    def bytes(self) -> bytes:
        """The whole stream."""
        return self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles values; learns which types, definitions and modules they use."""

    #: looked up once per type, in `_meet`, instead of once per object
    dispatch_table: typing.ClassVar[dict[type, Any]] = {}

    def __init__(
        self, definitions: Definitions, sink: Sink | None = None, *, by_value: bool = False
    ) -> None:
        self.sink = sink or Sink()
        super().__init__(self.sink, protocol=5, buffer_callback=self._buffer)
        self.definitions = definitions
        self.buffers: list[memoryview] = []
        #: types of the objects met
        self.kinds: dict[type, Callable[[Any], Any] | None] = {}
        #: keys of the definitions met
        self.keys: dict[str, None] = {}
        #: modules of functions and classes named in the stream
        self.modules: set[str] = set()
        self._by_value = by_value
        self._cells: set[int] = set()

    @property
    def holds_nans(self) -> bool:
        """Whether it has met a NaN, as far as it looks for them."""
        return False

    def close(self) -> None:
        """Forget every object that was met."""
        self.clear_memo()
        self.kinds.clear()
        self.buffers.clear()

    def _buffer(self, buffer: pickle.PickleBuffer) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:
            return True
        if raw.nbytes < OUT_OF_BAND:
            return True
        self.buffers.append(raw)
        self.sink.count(raw.nbytes)
        return False

    def reducer_override(self, obj: Any) -> Any:
        """Called by `pickle` for everything but the commonest builtin types."""
        kind = type(obj)
        try:
            handler = self.kinds[kind]
        except KeyError:
            handler = self.kinds[kind] = self._meet(kind)
        return NotImplemented if handler is None else handler(obj)

    def _meet(self, kind: type) -> Callable[[Any], Any] | None:
        if issubclass(kind, type):
            return self._class
        if kind is types.FunctionType or kind is _LRU:
            return self._function
        if kind is typing.NewType or kind in _VARIABLES:
            return self._function
        if kind is types.CellType:
            return self._cell
        if (handler := reducing.handler_for(kind)) is not None:
            return handler
        return typing.cast(
            "Callable[[Any], Any] | None", cloudpickle.Pickler.dispatch_table.get(kind)
        )

    def _class(self, obj: type) -> Any:
        if is_definition(obj):
            return self._definition(obj)
        self.modules.add(getattr(obj, "__module__", None) or "")
        # singletons' types and builtins without a name
        return cloudpickle.cloudpickle._class_reduce(obj)  # noqa: SLF001

    def _function(self, obj: Any) -> Any:
        if is_definition(obj):
            return self._definition(obj)
        self.modules.add(getattr(obj, "__module__", None) or "")
        return NotImplemented

    def _definition(self, obj: Any) -> Any:
        key = self.definitions.key(obj)
        self.keys[key] = None
        if not self._by_value:
            return loading.definition, (key,)
        if type(obj) is types.FunctionType:
            self._cells.update(map(id, obj.__closure__ or ()))
        return self.definitions.skeleton(obj)

    def _cell(self, cell: types.CellType) -> Any:
        if id(cell) in self._cells:  # its function fills it
            return loading.new_cell, ()
        try:
            contents = cell.cell_contents
        except ValueError:
            return loading.new_cell, ()
        return loading.new_cell, (), contents, None, None, loading.fill_cell

    def dump_definitions(self, keys: Iterable[str]) -> None:
        """The four passes. Definitions met on the way are in `keys` afterwards.

        The caller repeats with a new pickler until no new ones are met.
        """
        table = self.definitions
        found = [(key, table.get(key)) for key in keys]
        known = [obj for _, obj in found if obj is not None]
        done: set[str] = set()
        self.dump(known)
        self.dump([(o, s) for o in known if (s := table.methods(o))])
        self.dump([(o, s) for o in known if (s := table.state(o, done))])
        self.dump([(o, d) for o in known if (d := table.data(o))])


def dump(
    definitions: Definitions,
    values: Iterable[object],
    *,
    keys: Iterable[str] | None = None,
    sink: Sink | None = None,
) -> Pickler:
    """Pickle values that may share objects into one component.

    Args:
        definitions: the session's definitions.
        values: the objects, in order.
        keys: None for a component of values; else the definitions that the component holds.
        sink: where the stream goes.

    Returns:
        The pickler, with stream, buffers and what it met. It keeps everything alive.

    Raises:
        Exception: whatever the values' own code raises.
    """
    pickler = Pickler(definitions, sink, by_value=keys is not None)
    values = list(values)
    fill(pickler, values, keys)
    if sink is None and nans.may_hold_nans(pickler.sink.bytes()):
        pickler = NanPickler(definitions, by_value=keys is not None)
        fill(pickler, values, keys)
    return pickler


def fill(pickler: Pickler, values: Iterable[object], keys: Iterable[str] | None) -> None:
    """Pickle definitions, where there are some, and values into one stream."""
    if keys is not None:
        pickler.dump_definitions(keys)
    for value in values:
        pickler.dump(value)


class NanPickler(Pickler):
    """Pickles values that hold a NaN: slower, as it is asked about every object."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._nans = nans.Names()
        # no method that calls it: half of what the question costs, a million times
        self.persistent_id = self._nans.of
        super().__init__(*args, **options)

    @property
    def holds_nans(self) -> bool:
        """Whether it has met a NaN."""
        return self._nans.met


_NEWLINE = ord("\n")


@dataclass(slots=True)
class Trace:
    """What a stream named."""

    #: modules and names
    names: set[tuple[str, str]] = field(default_factory=set)
    #: keys of definitions
    keys: dict[str, None] = field(default_factory=dict)


class _Frames:
    """A stream as a file, which the unpickler reads frame by frame.

    Between two frames other threads can run; the unpickler itself never lets them.
    """

    def __init__(self, stream: Any) -> None:
        self._view, self._done = memoryview(stream), 0

    def read(self, count: int) -> bytes:
        """The next bytes."""
        start = self._done
        self._done = start + count
        return bytes(self._view[start : self._done])

    def readinto(self, target: Any) -> int:
        """The next bytes, into memory."""
        view = memoryview(target)
        data = self._view[self._done : self._done + view.nbytes]
        view[: data.nbytes] = data
        self._done += data.nbytes
        return data.nbytes

    def readline(self) -> bytes:
        """The rest of a line: nothing that we write asks for it, but a stream may."""
        start, end = self._done, self._done
        while end < self._view.nbytes and self._view[end] != _NEWLINE:
            end += 1
        self._done = min(end + 1, self._view.nbytes)
        return bytes(self._view[start : self._done])


class Unpickler(pickle.Unpickler):
    """Loads components. Nothing can be loaded by reference to the notebook itself."""

    def __init__(self, stream: Any, buffers: Iterable[Any], trace: Trace) -> None:
        super().__init__(stream, buffers=iter(buffers))
        self._trace, self._nans = trace, nans.Values()

    def persistent_load(self, name: str) -> float:
        """A NaN by its id."""
        return self._nans.of(name)

    def find_class(self, module: str, name: str) -> Any:
        """An object by module and name."""
        if module == "__main__":
            message = f"the stream names {name!r} of the notebook, which is not there yet"
            raise CannotRestore(message)
        self._trace.names.add((module, name))
        return super().find_class(module, name)


def load(
    stream: bytes,
    buffers: Iterable[Any],
    context: Context,
    *,
    count: int,
    has_definitions: bool = False,
    trace: Trace | None = None,
) -> list[Any]:
    """The values of a component; its definitions go into the context, its names into `trace`."""
    trace = Trace() if trace is None else trace
    context.named = trace.keys
    with loading.use(context):
        unpickler = Unpickler(_Frames(stream), buffers, trace)
        if has_definitions:
            unpickler.load()
            for kind, attributes in _unsettled(unpickler.load(), context):
                loading.fill_class(kind, attributes)
            for owner, state in _unsettled(unpickler.load(), context):
                if "cells" in state:
                    loading.fill_function(owner, state)
                else:
                    loading.fill_dict(owner, state["dict"])
            for kind, (plain, rest) in _unsettled(unpickler.load(), context):
                loading.fill_class(kind, plain)
                loading.fill_class_rest(kind, rest)
        return [unpickler.load() for _ in range(count)]


def _unsettled(found: Iterable[tuple[Any, Any]], context: Context) -> list[tuple[Any, Any]]:
    """The definitions that get their state, with it."""
    return [(owner, state) for owner, state in found if id(owner) not in context.settled]


def explain(error: BaseException) -> str:
    """Why something cannot be stored, in words."""
    if isinstance(error, CannotStore):
        return str(error) if isinstance(error, OverLimit) else f"{error} cannot be stored"
    if isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "there was not enough memory to store it"
    text = " ".join(str(error).split())
    lower = text.lower()
    if lower.startswith(("cannot pickle '", "can't pickle ")) and "object" in lower:
        what = text.split("'")[1] if "'" in text else text.split()[2]
        what = what.removeprefix("_thread.")
        article = "an" if what[:1].lower() in "aeiou" or what == "RLock" else "a"
        return f"{article} {what} cannot be pickled"
    return f"pickling it failed: {type(error).__name__}: {text}"[:300]
