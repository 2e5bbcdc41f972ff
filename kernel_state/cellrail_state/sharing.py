"""Which variables share objects, seen exactly as pickle sees it.

A pickler's memo names every object that it wrote. Two variables are connected if their memos
hold a common object whose identity matters: not a string, a number, a class, a module and other
objects that nobody can change or tell apart.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import fractions
import gc
import itertools
import marshal
import operator
import pathlib
import re
import sys
import types
import typing
import uuid
from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import Any

from .definitions import is_definition
from .drawings import constants
from .reducing import place_of

Memo = Mapping[int, tuple[int, Any]]

_ATOMIC = frozenset(
    (
        type(None), type(...), type(NotImplemented), bool, int, float, complex, str, bytes, range,
        slice, types.ModuleType, types.BuiltinFunctionType, types.FunctionType, types.CodeType,
        types.MethodDescriptorType, types.WrapperDescriptorType, types.GetSetDescriptorType,
        types.MemberDescriptorType, types.ClassMethodDescriptorType,
        dt.date, dt.datetime, dt.time, dt.timedelta, dt.timezone,
        decimal.Decimal, fractions.Fraction, uuid.UUID, re.Pattern, typing.NewType,
        types.GenericAlias, types.UnionType, types.MappingProxyType,
    )
)  # fmt: skip
_ATOMIC_BASES = (type, enum.Enum, pathlib.PurePath, dt.tzinfo)
#: atoms that are small, immutable and never definitions: skipped while the name keeps them
_STILL = _ATOMIC - {
    types.FunctionType,
    types.CodeType,
    types.GenericAlias,
    types.UnionType,
    types.MappingProxyType,
    typing.NewType,
    slice,
}
_BIG = 1 << 20
#: containers whose content can be compared without pickling (sets have no order of their own)
_FLAT = frozenset((list, dict, tuple))
_ATOMS = frozenset((type(None), bool, int, float, complex, str, bytes))
_SHORT = 1000


def is_still(value: Any) -> bool:
    """Whether a name that still holds this very object cannot have changed its value."""
    kind = type(value)
    if kind in _STILL:
        if kind is types.BuiltinFunctionType:  # `rows.append` belongs to its list
            return value.__self__ is None or isinstance(value.__self__, (types.ModuleType, type))
        return kind not in {str, bytes} or len(value) < _BIG
    if kind is types.FunctionType or issubclass(kind, type):
        return not is_definition(value)
    return False


def is_flat(value: Any) -> bool:
    """Whether a container holds nothing but atoms and tuples of atoms.

    Nothing below it can be changed. That one of its tuples is held elsewhere, too, is not looked
    for where there are thousands: an equal one does as well. Found at C speed.
    """
    kind = type(value)
    if kind is dict:
        return are_flat(value) and are_flat(value.values())
    return kind in _FLAT and are_flat(value)


def are_flat(values: Collection[Any]) -> bool:
    """Whether these are atoms and tuples of atoms."""
    kinds = set(map(type, values))
    if tuple in kinds:
        tuples = values if len(kinds) == 1 else [v for v in values if type(v) is tuple]
        kinds.discard(tuple)
        kinds.update(map(type, itertools.chain.from_iterable(tuples)))
    return kinds <= _ATOMS


def snapshot(value: Any) -> Any:
    """What tells later whether this very container changed; None where nothing cheap does.

    Only of flat containers: equal content means that nothing changed. A short one is written out
    (there are often hundreds of them), of a long one the items are kept.
    """
    if type(value) not in _FLAT or not is_flat(value):
        return None
    if len(value) <= _SHORT:
        # version 2 writes values only: no references, which depend on reference counts
        return marshal.dumps(value, 2)
    return columns_of(value)


def items_of(value: Any) -> Any:
    """The items of a long container that is flat if its tuples are; None where it is not.

    As in a snapshot, but the tuples, which take the longest, are not looked into yet.
    """
    if type(value) not in _FLAT or len(value) <= _SHORT:
        return None
    items = columns_of(value)
    kinds = {kind for part in items for kind in set(map(type, part))}
    return items if kinds <= _ATOMS | {tuple} else None


def columns_of(value: Any) -> tuple[tuple[Any, ...], ...]:
    """The items of a container; of a dict the keys, and the values."""
    return (tuple(value), tuple(value.values())) if type(value) is dict else (tuple(value),)


def is_as_in(value: Any, before: Any) -> bool:
    """Whether a container is still as in its snapshot."""
    if isinstance(before, bytes):
        return len(value) <= _SHORT and is_flat(value) and marshal.dumps(value, 2) == before
    now = (value, value.values()) if type(value) is dict else (value,)
    return len(value) == len(before[0]) and all(
        all(map(operator.is_, items, kept)) for items, kept in zip(now, before, strict=True)
    )


def _is_setting(obj: Any) -> bool:
    """A short tuple of atoms, such as every figure takes from the settings for a colour."""
    return type(obj) is tuple and len(obj) <= 4 and all(type(part) in _ATOMS for part in obj)


def is_atomic(kind: type) -> bool:
    """Whether objects of this type are small, and nobody can change them."""
    return kind in _ATOMIC or issubclass(kind, _ATOMIC_BASES)


def is_shared(obj: Any) -> bool:  # noqa: PLR0911 - one line per kind
    """Whether it can be told that two variables hold this very object."""
    kind = type(obj)
    if is_atomic(kind):
        return False
    if kind is tuple:
        return bool(obj)
    if kind is list:
        return not _is_class_list(obj)
    if kind in {dict, set, frozenset}:
        return kind is not frozenset or bool(obj)
    module = str(kind.__module__).partition(".")[0]
    if module == "numpy" and _is_numpy_atom(obj):
        return False
    if module == "pandas" and _is_pandas_atom(obj):
        return False
    if module == "pyarrow":
        return kind.__name__ not in {"Schema", "Field"} and not kind.__name__.endswith("Type")
    if module in {"typing", "functools"} and is_definition(obj):
        return False
    if module in {"typing", "zoneinfo", "operator"}:
        return False
    return not (module != "__main__" and (place_of(obj) or _is_named_singleton(obj)))


def _is_class_list(obj: Any) -> bool:
    """Whether it is the list of a class that pandas writes with every frame."""
    pd = sys.modules.get("pandas")
    metadata = (pd.DataFrame._metadata, pd.Series._metadata) if pd is not None else ()  # noqa: SLF001
    return any(obj is known for known in metadata)


def _is_numpy_atom(obj: Any) -> bool:
    np = sys.modules["numpy"]
    return isinstance(obj, (np.generic, np.dtype, np.ufunc))


def _is_pandas_atom(obj: Any) -> bool:
    pd = sys.modules["pandas"]
    if isinstance(obj, (pd.api.extensions.ExtensionDtype, pd.Interval, pd.offsets.BaseOffset)):
        return True
    return isinstance(obj, (pd.Timestamp, pd.Timedelta, pd.Period)) or obj is pd.NaT or obj is pd.NA


def _is_named_singleton(obj: Any) -> bool:
    kind: Any = type(obj)
    plain: Any = object
    if kind.__reduce__ is plain.__reduce__ and kind.__reduce_ex__ is plain.__reduce_ex__:
        return False
    if type(obj).__module__ in {"collections", "functools"}:
        return False
    try:
        return isinstance(obj.__reduce_ex__(5), str)
    except Exception:  # noqa: BLE001 - a library's own code
        return False


#: of libraries, held by many that do not share anything by it
_COMMON = frozenset({"logging", "threading", "_thread", "weakref", "_weakref", "abc"})
_FAR = 100_000


def reachable(values: Iterable[object], *, limit: int = _FAR) -> dict[int, object]:
    """The objects that these values lead to, by address: also where pickle cannot follow.

    What a generator waits with is found, and what a closure holds; modules, classes and the
    globals of functions are not entered. At most about `limit` objects are looked at.
    """
    found: dict[int, object] = {}
    waiting = list(values)
    while waiting and len(found) < limit:
        obj = waiting.pop()
        if id(obj) in found or _leads_nowhere(obj):
            continue
        found[id(obj)] = obj
        if isinstance(obj, types.FunctionType):
            parts = (obj.__closure__, obj.__defaults__, obj.__kwdefaults__, vars(obj))
            waiting += [part for part in parts if part]
        else:
            waiting += gc.get_referents(obj)
    return found


def _leads_nowhere(obj: object) -> bool:
    kind = type(obj)
    if kind in {types.FunctionType, types.BuiltinFunctionType}:
        return False
    if is_atomic(kind):
        return True
    # the globals of a module or of the notebook
    return kind is dict and "__builtins__" in typing.cast("dict[Any, Any]", obj)


def shared_between(one: Mapping[int, object], other: Mapping[int, object]) -> bool:
    """Whether two sets of objects have one in common that a program can tell from its like."""
    return any(can_be_told(one[ident]) for ident in one.keys() & other.keys())


def can_be_told(obj: object) -> bool:
    """Whether two that hold this very object share something of the notebook's."""
    return is_shared(obj) and str(type(obj).__module__).partition(".")[0] not in _COMMON


class Groups:
    """Disjoint sets of names that share objects."""

    def __init__(self) -> None:
        self._parent: dict[Hashable, Hashable] = {}

    def find(self, name: Hashable) -> Hashable:
        """The representative of a name's set."""
        parent = self._parent.setdefault(name, name)
        while parent != name:
            name, parent = parent, self._parent[parent]
        return name

    def join(self, one: Hashable, other: Hashable) -> None:
        """Make two sets one."""
        self._parent[self.find(one)] = self.find(other)


def connect(memos: Iterable[tuple[Hashable, Memo]], drawn: Collection[Hashable] = ()) -> Groups:
    """The sets of names whose memos hold common objects that are shared.

    Args:
        memos: what each pickler met, by name.
        drawn: names with something of matplotlib in them: what two of these have of matplotlib
            itself, and of its settings, is not shared.
    """
    groups = Groups()
    ordered = sorted(memos, key=lambda pair: len(pair[1]))
    seen: dict[int, Hashable] = {}
    known = constants() if len(drawn) > 1 else set()
    for place, (name, memo) in enumerate(ordered):
        #: names that are in the same set by now: two figures may share ten thousand objects
        joined: set[Hashable] = set()
        for ident in seen.keys() & memo.keys():
            other = seen[ident]
            if other in joined:
                continue
            if groups.find(other) == groups.find(name):
                joined.add(other)
                continue
            obj = memo[ident][1]
            both = name in drawn and other in drawn
            if is_shared(obj) and not (both and (ident in known or _is_setting(obj))):
                groups.join(other, name)
                joined.add(other)
        if place < len(ordered) - 1:
            seen.update(dict.fromkeys(memo, name))
    return groups
