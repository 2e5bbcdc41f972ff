"""Functions and classes of the notebook: their keys, and how each is taken apart.

A definition is never inside a value's stream; the stream holds its key. All definitions are
stored together, in four passes that let any of them refer to any other:

1. *skeletons*: code and empty cells, metaclass and bases;
2. methods and properties of classes;
3. state of functions: defaults, closures, attributes;
4. data attributes of classes, virtual subclasses, state of enum members.

Whatever pass 3 or 4 makes (an instance as a default, say) finds its class able to act.
"""

from __future__ import annotations

import abc
import contextlib
import enum
import functools
import importlib
import sys
import types
import typing
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from cloudpickle import list_registry_pickle_by_value
from cloudpickle.cloudpickle import _should_pickle_by_reference

from . import loading

_LRU = type(functools.lru_cache(lambda: None))
_VARIABLES = tuple(
    kind
    for name in ("TypeVar", "ParamSpec", "TypeVarTuple")
    if (kind := getattr(typing, name, None)) is not None
)
_METHODS = (types.FunctionType, staticmethod, classmethod, property)
_ENUM_MACHINERY = frozenset(
    [
        "_generate_next_value_",
        "_member_names_",
        "_member_map_",
        "_member_type_",
        "_value2member_map_",
        "_hashable_values_",
        "_unhashable_values_",
        "_unhashable_values_map_",
    ]
)
_NEVER = frozenset(
    # the last one is what pickling an instance notes down
    ("__dict__", "__weakref__", "_abc_impl", "__annotate_func__", "__slotnames__")
)
_MEMBER_OWN = frozenset(("_value_", "_name_", "__objclass__", "_sort_order_"))


def is_definition(obj: Any) -> bool:
    """Whether an object is stored by definition: a function, class or type of the notebook."""
    kind = type(obj)
    if kind is types.FunctionType:
        return not _is_of_a_module(obj)
    if issubclass(kind, type):
        return bool(obj.__flags__ & _HEAP_TYPE) and not _is_of_a_module(obj)
    if kind is _LRU:
        return not _is_named(obj, getattr(obj, "__qualname__", ""))
    if kind in _VARIABLES or kind is typing.NewType:
        return not _is_named(obj, getattr(obj, "__name__", ""))
    return False


def _is_of_a_module(obj: Any) -> bool:
    module = getattr(obj, "__module__", None)
    # most are what their module has under their name, which is seen in a tenth of the time
    if isinstance(module, str) and module != "__main__" and not list_registry_pickle_by_value():
        home, name = sys.modules.get(module), getattr(obj, "__qualname__", None)
        if type(home) is types.ModuleType and vars(home).get(str(name), home) is obj:
            return True
    if _should_pickle_by_reference(obj):
        return True
    if not isinstance(module, str) or module in sys.modules or module in _tried:
        return False
    # NumPy says that `recarray` is of `numpy.rec`, which it imports only when asked
    _tried.add(module)
    if module.partition(".")[0] in sys.modules:
        with contextlib.suppress(Exception):
            importlib.import_module(module)
            return bool(_should_pickle_by_reference(obj))
    return False


_tried: set[str] = set()

#: set for classes that Python code made; types of the interpreter have no definition
_HEAP_TYPE = 1 << 9


def _is_named(obj: Any, qualname: str) -> bool:
    module = str(getattr(obj, "__module__", None))
    found: Any = sys.modules.get(module) if module != "__main__" else None
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found is obj


class Definitions:
    """The definitions a session has met, each with a key that it keeps."""

    def __init__(self, globals: dict[str, Any]) -> None:  # noqa: A002 - that is what it is
        self.globals = globals
        self._keys: dict[int, tuple[weakref.ref[Any], str]] = {}
        self._objects: dict[str, weakref.ref[Any]] = {}
        self._count: dict[str, int] = {}
        self._spaces: dict[int, tuple[dict[str, Any], str]] = {}

    def key(self, obj: Any) -> str:
        """The key of a definition; a new one at first sight."""
        found = self._keys.get(id(obj))
        if found is not None and found[0]() is obj:
            return found[1]
        name = str(getattr(obj, "__qualname__", None) or getattr(obj, "__name__", "?"))
        number = self._count[name] = self._count.get(name, 0) + 1
        return self._bind(f"{name}#{number}", obj)

    def _bind(self, key: str, obj: Any) -> str:
        ref = weakref.ref(obj)
        self._keys[id(obj)] = (ref, key)
        self._objects[key] = ref
        return key

    def adopt(self, definitions: dict[str, Any], keys: Iterable[str] = ()) -> None:
        """Take over the keys of restored definitions; `keys` are only never given again."""
        for key in (*definitions, *keys):
            name, _, number = key.rpartition("#")
            self._count[name] = max(self._count.get(name, 0), int(number))
        for key, obj in definitions.items():
            self._bind(key, obj)

    def get(self, key: str) -> Any:
        """The living definition with this key, or None."""
        ref = self._objects.get(key)
        return ref() if ref is not None else None

    def alive(self) -> list[Any]:
        """Every definition met that still lives."""
        return list(self.living().values())

    def living(self) -> dict[str, Any]:
        """Every definition met that still lives, by its key."""
        return {key: obj for key, ref in self._objects.items() if (obj := ref()) is not None}

    def space(self, function: types.FunctionType) -> tuple[str, str]:
        """Whose globals a function sees."""
        seen = function.__globals__
        main = sys.modules.get("__main__")
        if seen is self.globals or (main is not None and seen is vars(main)):
            return ("live", "")
        name = seen.get("__name__")
        module = sys.modules.get(name) if isinstance(name, str) else None
        if module is not None and vars(module) is seen:
            return ("module", str(name))
        known = self._spaces.setdefault(id(seen), (seen, f"g{len(self._spaces) + 1}"))
        return ("own", known[1])

    # --- pass 1 ------------------------------------------------------------------------------

    def skeleton(self, obj: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """What makes the definition, without its state."""
        key, kind = self.key(obj), type(obj)
        if kind is types.FunctionType:
            return loading.new_function, (key, obj.__code__, self.space(obj), obj.__closure__)
        if kind is _LRU:
            asked = obj.cache_parameters()
            args = (key, obj.__wrapped__, asked["maxsize"], asked["typed"])
            return loading.new_lru_cache, args
        if kind is typing.NewType:
            return loading.new_type, (key, obj.__name__, obj.__module__, obj.__supertype__)
        if kind in _VARIABLES:
            return loading.new_variable, (key, kind, obj.__name__, *_variable(obj))
        if issubclass(kind, enum.EnumType) and obj.__members__:
            body = {
                "members": {name: member._value_ for name, member in dict(obj.__members__).items()},
                "__module__": obj.__module__,
                "__qualname__": obj.__qualname__,
            }
            return loading.new_enum, (key, kind, obj.__name__, obj.__bases__, body)
        own = vars(obj)
        body = {
            name: own[name] for name in ("__module__", "__slots__", "__orig_bases__") if name in own
        }
        body["__qualname__"] = obj.__qualname__
        return loading.new_class, (key, kind, obj.__name__, obj.__bases__, body)

    # --- passes 2 to 4 -----------------------------------------------------------------------

    def methods(self, obj: Any) -> dict[str, Any] | None:
        """Pass 2: what a class can do."""
        if not isinstance(obj, type):
            return None
        return {n: v for n, v in _attributes(obj).items() if isinstance(v, _METHODS)}

    def state(self, obj: Any, done: set[str]) -> dict[str, Any] | None:
        """Pass 3: the state of a function; `done` are the dicts of globals already written."""
        if type(obj) is _LRU:
            return {"dict": vars(obj)}
        if type(obj) is not types.FunctionType:
            return None
        names = ["__name__", "__qualname__", "__module__", "__doc__", "__defaults__"]
        names.append("__kwdefaults__")
        if sys.version_info >= (3, 12):
            names.append("__type_params__")
        lazy = getattr(obj, "__annotate__", None)
        names.append("__annotations__" if lazy is None else "__annotate__")
        state: dict[str, Any] = {
            "attributes": {name: getattr(obj, name) for name in names},
            "dict": dict(vars(obj)),
            "cells": [
                (cell, cell.cell_contents) for cell in obj.__closure__ or () if not _is_empty(cell)
            ],
        }
        kind, token = self.space(obj)
        if kind == "own" and token not in done:
            done.add(token)
            own = {k: v for k, v in obj.__globals__.items() if k != "__builtins__"}
            state["space"] = {token: own}
        return state

    def data(self, obj: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Pass 4: data attributes of a class, and what it has beside them."""
        if not isinstance(obj, type):
            return None
        plain = {n: v for n, v in _attributes(obj).items() if not isinstance(v, _METHODS)}
        rest: dict[str, Any] = {}
        if isinstance(obj, abc.ABCMeta):
            registry = [ref() for ref in abc._get_dump(obj)[0]]  # type: ignore[attr-defined] # noqa: SLF001
            rest["registry"] = [kind for kind in registry if kind is not None]
        if isinstance(obj, enum.EnumType):
            found: dict[str, Any] = dict(obj.__members__)
            members: dict[str, Any] = {
                name: {k: v for k, v in vars(member).items() if k not in _MEMBER_OWN}
                for name, member in found.items()
            }
            rest["members"] = {name: state for name, state in members.items() if state}
        return plain, rest


def _is_empty(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - the access is the test
    except ValueError:
        return True
    return False


def _variable(obj: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if type(obj) is not typing.TypeVar:
        return (), {}
    options = {
        "bound": obj.__bound__,
        "covariant": obj.__covariant__,
        "contravariant": obj.__contravariant__,
    }
    return obj.__constraints__, options


def class_state(kind: type) -> dict[str, Any]:
    """What a class of the notebook consists of: its attributes, and members of an enum by value."""
    state = _attributes(kind)
    if isinstance(kind, enum.EnumType):
        found: dict[str, Any] = dict(kind.__members__)
        state["members"] = {name: member._value_ for name, member in found.items()}
    return state


def _attributes(kind: type) -> dict[str, Any]:
    """The attributes of a class that its creation does not make by itself."""
    own = {}
    skipped: set[str] = set(_NEVER)
    if isinstance(kind, enum.EnumType):
        skipped |= _ENUM_MACHINERY | set(kind.__members__)
    for name, value in vars(kind).items():
        if name in skipped:
            continue
        descriptor = isinstance(value, (types.MemberDescriptorType, types.GetSetDescriptorType))
        if descriptor and value.__objclass__ is kind:
            continue
        own[name] = value
    return own
