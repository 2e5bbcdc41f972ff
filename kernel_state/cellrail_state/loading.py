"""What a stream may call by name to build its objects again.

The names of the public functions here are part of the codec `pickle5/1`: streams refer to them.
They find the live globals and the definitions that were already loaded through `Context`, which
`use` carries for the time of a load.
"""

from __future__ import annotations

import enum
import functools
import importlib
import io
import itertools
import pickle
import types
import typing
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from . import nans
from .errors import CannotRestore

CODEC = "pickle5/1"


@dataclass(slots=True)
class Context:
    """What a load needs to know."""

    #: the live namespace: the `__globals__` of every function of the notebook
    globals: dict[str, Any]
    #: functions and classes by key
    definitions: dict[str, Any] = field(default_factory=dict)
    #: globals of functions that were made by `exec` in a dict of their own
    spaces: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: keys of the definitions that the stream named so far
    named: dict[str, None] = field(default_factory=dict)
    #: ids of those whose state is left alone
    settled: frozenset[int] = frozenset()
    #: closure cells of functions that were there already, by the ids of those in the stream
    cells: dict[int, tuple[types.CellType, types.CellType]] = field(default_factory=dict)


_context: ContextVar[Context] = ContextVar("cellrail_load")


@contextmanager
def use(context: Context) -> Iterator[Context]:
    """Loads inside the block resolve definitions and globals through this context."""
    token = _context.set(context)
    try:
        yield context
    finally:
        _context.reset(token)


def definition(key: str) -> Any:
    """The function or class of the notebook with this key."""
    context = _context.get()
    context.named[key] = None
    try:
        return context.definitions[key]
    except KeyError:
        message = f"the definition {key!r} was not stored; run the cell that defines it again"
        raise CannotRestore(message) from None


def _known(key: str) -> Any:
    return _context.get().definitions.get(key)


def _keep(key: str, value: Any) -> Any:
    _context.get().definitions[key] = value
    return value


def new_cell() -> types.CellType:
    """An empty closure cell."""
    return types.CellType()


def fill_cell(cell: types.CellType, contents: object) -> None:
    """Put an object into a closure cell."""
    cell.cell_contents = contents


def new_function(
    key: str,
    code: types.CodeType,
    space: tuple[str, str],
    cells: tuple[types.CellType, ...] | None,
) -> Any:
    """A function without its state; `space` says whose globals it sees."""
    context = _context.get()
    if (known := _known(key)) is not None:
        own = getattr(known, "__closure__", None) or ()
        context.cells.update({id(c): (c, o) for c, o in zip(cells or (), own, strict=False)})
        return known
    if cells:  # what it shares with a function that was there already, it goes on sharing
        cells = tuple(context.cells.get(id(cell), (cell, cell))[1] for cell in cells)
    kind, name = space
    if kind == "live":
        space_globals = context.globals
    elif kind == "module":
        space_globals = vars(importlib.import_module(name))
    else:
        space_globals = context.spaces.setdefault(name, {"__builtins__": __builtins__})
    return _keep(key, types.FunctionType(code, space_globals, code.co_name, None, cells))


def fill_function(function: Any, state: Mapping[str, Any]) -> None:
    """Give a function everything beyond its code."""
    cells = _context.get().cells
    for cell, contents in state["cells"]:
        cells.get(id(cell), (cell, cell))[1].cell_contents = contents
    for token, contents in state.get("space", {}).items():
        _context.get().spaces[token].update(contents)
    for name, value in state["attributes"].items():
        setattr(function, name, value)
    function.__dict__.update(state["dict"])


def new_class(
    key: str, metaclass: type, name: str, bases: tuple[type, ...], body: dict[str, Any]
) -> Any:
    """A class without attributes.

    Its bases are as empty as itself at this time, so that no `__init_subclass__`, `__new__` of a
    metaclass or `__set_name__` of the notebook runs again.
    """
    if (known := _known(key)) is not None:
        return known
    if metaclass is type or metaclass.__module__ == "typing":
        made: Any = type.__new__(metaclass, name, bases, body)
    else:
        made = metaclass(name, bases, body)
    return _keep(key, made)


def new_enum(
    key: str, metaclass: Any, name: str, bases: tuple[type, ...], body: dict[str, Any]
) -> Any:
    """An enum with its members' values; `body["members"]` holds aliases too."""
    if (known := _known(key)) is not None:
        return known
    space = metaclass.__prepare__(name, bases)
    for member, value in body["members"].items():
        space[member] = value
    made = metaclass.__new__(metaclass, name, bases, space)
    made.__module__, made.__qualname__ = body["__module__"], body["__qualname__"]
    return _keep(key, made)


def fill_class(kind: type, attributes: Mapping[str, Any]) -> None:
    """Set attributes of a class past any `__setattr__` of its metaclass."""
    for name, value in attributes.items():
        type.__setattr__(kind, name, value)


def fill_class_rest(kind: type, rest: Mapping[str, Any]) -> None:
    """What a class has beside its attributes: virtual subclasses, state of enum members."""
    for subclass in rest.get("registry", ()):
        kind.register(subclass)  # type: ignore[attr-defined]
    for member, state in rest.get("members", {}).items():
        typing.cast("type[enum.Enum]", kind)[member].__dict__.update(state)


def new_type(key: str, name: str, module: str, supertype: object) -> Any:
    """A `typing.NewType`."""
    if (known := _known(key)) is not None:
        return known
    make: Any = typing.NewType
    made = make(name, supertype)
    made.__module__ = module
    return _keep(key, made)


def new_variable(key: str, kind: Any, name: str, args: tuple[Any, ...], options: Any) -> Any:
    """A `TypeVar`, `ParamSpec` or `TypeVarTuple`."""
    if (known := _known(key)) is not None:
        return known
    made = kind(name, *args, **options)
    made.__module__ = "__main__"
    return _keep(key, made)


def new_lru_cache(key: str, function: Any, maxsize: int | None, typed: bool) -> Any:
    """An `lru_cache` wrapper with an empty cache."""
    if (known := _known(key)) is not None:
        return known
    return _keep(key, functools.lru_cache(maxsize=maxsize, typed=typed)(function))


def fill_dict(owner: Any, state: Mapping[str, Any]) -> None:
    """Replace the `__dict__` of an object."""
    owner.__dict__.clear()
    owner.__dict__.update(state)


def new_exception(base: Any, kind: type, args: tuple[Any, ...]) -> Any:
    """An exception as its builtin base makes it; its own `__init__` ran long ago."""
    made = base.__new__(kind, *args)
    base.__init__(made, *args)
    return made


def new_instance(base: Any, kind: type, *args: Any) -> Any:
    """An object as its builtin base makes it; a `__new__` of the notebook ran long ago."""
    return base.__new__(kind, *args)


def fill_exception(error: Any, state: tuple[Any, dict[str, Any], tuple[Any, Any, bool]]) -> None:
    """Give an exception its attributes, and what it came from."""
    own, more, (cause, context, suppress) = state
    if own is not None:
        error.__setstate__(own)
    for name, value in more.items():
        setattr(error, name, value)
    error.__cause__, error.__context__ = cause, context
    error.__suppress_context__ = suppress


def dict_view(owner: dict[Any, Any], kind: str) -> Any:
    """`owner.keys()`, `.values()` or `.items()`, live."""
    return getattr(owner, kind)()


def weak_reference(target: Any) -> Any:
    """A weak reference; what it points to lives on only where something else holds it."""
    return weakref.ref(target)


def dead_reference() -> Any:
    """A weak reference to what is gone."""

    class Gone:
        pass

    return weakref.ref(Gone())


def memory_view(owner: Any, span: slice, form: str, shape: list[int], readonly: bool) -> Any:
    """A view of the owner's memory."""
    view: Any = memoryview(owner).cast("B")[span]
    view = view.cast(form, shape)
    return view.toreadonly() if readonly else view


def weak_mapping(kind: Any, items: list[tuple[Any, Any]]) -> Any:
    """A weak dictionary."""
    made = kind()
    for key, value in items:
        made[key] = value
    return made


def weak_set(items: list[Any]) -> Any:
    """A weak set."""
    return weakref.WeakSet(items)


def cached_property(function: Any, name: str | None) -> Any:
    """A `functools.cached_property`, with a lock of its own where Python has one."""
    made: Any = functools.cached_property(function)
    made.attrname = name
    return made


class _PlainItems(pickle.Unpickler):
    """Loads a slab, which holds what Python has built in and names nothing else."""

    def __init__(self, slab: Any) -> None:
        super().__init__(io.BytesIO(slab))
        self._nans = nans.Values()

    def persistent_load(self, name: str) -> float:
        """A NaN by its id."""
        return self._nans.of(name)

    def find_class(self, module: str, name: str) -> Any:
        """Nothing may be named but the one type of atoms that pickle makes by a call."""
        if (module, name) == ("builtins", "complex"):
            return complex
        raise CannotRestore(f"a slab of plain items names {module}.{name}")


def from_slabs(kind: str, *slabs: Any) -> Any:
    """A long list or dict of plain items, from its slabs."""
    parts = (_PlainItems(slab).load() for slab in slabs)
    if kind == "dict":
        return dict(itertools.chain.from_iterable(itertools.starmap(zip, parts)))
    return list(itertools.chain.from_iterable(items for (items,) in parts))


def constant(module: str, name: str) -> Any:
    """An object that is compared by identity, from its module."""
    return getattr(importlib.import_module(module), name)


def import_module(name: str) -> types.ModuleType:
    """A module by name."""
    return importlib.import_module(name)


# --- NumPy and pandas ------------------------------------------------------------------------


def array(
    data: Any, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...], *flags: bool
) -> Any:
    """An array that owns its memory."""
    import numpy as np

    made: Any = np.ndarray(shape, dtype=dtype, buffer=data, strides=strides)
    if flags and not flags[0]:
        made.flags.writeable = False
    return made


def small_array(data: bytes, dtype: Any, *shape: int) -> Any:
    """An array that owns a copy of these bytes."""
    import numpy as np

    return np.frombuffer(data, dtype).reshape(shape).copy()


def array_view(  # noqa: PLR0917 - the order is part of the codec
    owner: Any,
    dtype: Any,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int,
    writeable: bool,
) -> Any:
    """A view on the memory of another array."""
    import numpy as np

    locked = writeable and not owner.flags.writeable
    if locked:  # the view was made before its owner was locked
        owner.flags.writeable = True
    if not dtype.hasobject:
        made: Any = np.ndarray(shape, dtype=dtype, buffer=owner, strides=strides, offset=offset)
    else:
        flat = owner.transpose(_order(owner)).reshape(-1)[offset // dtype.itemsize :]
        made = np.lib.stride_tricks.as_strided(flat, shape, strides)
    if locked:
        owner.flags.writeable = False
    if made.flags.writeable and not writeable:
        made.flags.writeable = False
    return made


def _order(array: Any) -> Sequence[int]:
    """Axes from the widest stride to the narrowest: memory order."""
    return sorted(range(array.ndim), key=lambda axis: (-array.strides[axis], axis))


def masked_array(data: Any, mask: Any, fill_value: Any, hard: bool, state: Any) -> Any:
    """A masked array on the memory of `data`."""
    import numpy as np

    made: Any = np.ma.MaskedArray(data, mask=mask, copy=False, hard_mask=hard)
    made.__dict__["_fill_value"] = fill_value
    made.__dict__["_basedict"], made.__dict__["_optinfo"] = dict(state[0]), dict(state[1])
    return made


def block_refs() -> Any:
    """What pandas' Copy-on-Write knows about who else uses a block's memory."""
    from pandas._libs.internals import BlockValuesRefs

    return BlockValuesRefs()


def block(values: Any, placement: Any, ndim: int, refs: Any) -> Any:
    """A block of a frame, registered with the others on the same memory."""
    from pandas._libs.internals import BlockPlacement
    from pandas.core.internals.blocks import new_block

    return new_block(values, BlockPlacement(placement), ndim=ndim, refs=refs)


def series_manager(block: Any, axis: Any) -> Any:
    """What a Series holds: one block and its index."""
    from pandas.core.internals.managers import SingleBlockManager

    return SingleBlockManager(block, axis)


def index(make: Any, args: tuple[Any, ...], refs: Any) -> Any:
    """An index on memory that a block uses too."""
    made = make(*args)
    made._references = refs  # noqa: SLF001 - pandas' own unpickling loses it
    refs.add_index_reference(made)
    return made
