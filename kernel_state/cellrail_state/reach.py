"""Which names a piece of code can change: what it names, and what its functions name in turn.

The guarantee. A cell's code names variables. Whatever can be changed by it lies on a path that
starts at one of them: an alias (names that share objects are looked at together), a method or a
function (the names that its code uses are followed, and so on), a container, a buffer. Where a
path cannot be followed, everything counts as reached:

* code that can name anything: `exec`, `eval`, `globals`, `vars`, `locals`, `getattr` on a module of
  the notebook's folder that keeps state;
* a value that cannot be stored and may run code of the notebook (a generator, an object of a
  library whose insides pickle does not see).

What no path shows is a change by somebody else: a library that keeps an object of the notebook
and changes it in a call that does not name it. An audit finds it (see `capture`).
"""

from __future__ import annotations

import dataclasses
import dis
import enum
import functools
import logging
import pathlib
import re
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from .definitions import _LRU, Definitions, is_definition
from .namespace import INSIDES, LOOK_UP, WHOLE

#: names and attributes in code that can reach any name
_OPAQUE = WHOLE | INSIDES | {"__main__"}
_WORD = re.compile(r"\b[^\W\d]\w*")
_WRAPPERS = (staticmethod, classmethod, functools.cached_property)
#: what `abc` and `dataclasses` keep on a class for themselves
_QUIET_NAMES = frozenset({"_abc_data", "_DataclassParams", "_MISSING_TYPE", "KW_ONLY"})
_DEPTH, _MANY = 4, 1000
_COLLECTIONS = frozenset({tuple, list, set, frozenset, dict, types.MappingProxyType})
_QUIET = (
    type(None), bool, int, float, complex, str, bytes, types.BuiltinFunctionType, types.ModuleType,
    types.GetSetDescriptorType, types.MemberDescriptorType, types.WrapperDescriptorType,
    types.MethodDescriptorType,
)  # fmt: skip


def code_names(code: types.CodeType) -> frozenset[str]:
    """Every name that a code object and those within it use of the globals (or of attributes)."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= code_names(constant)
    return frozenset(found)


def code_words(code: types.CodeType) -> frozenset[str]:
    """Every word of the strings in a code object: queries and formulas name variables there."""
    found: set[str] = set()
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= code_words(constant)
        elif isinstance(constant, str):
            found.update(words(constant))
    return frozenset(found)


def words(text: str) -> list[str]:
    """What can be a name in a text."""
    return _WORD.findall(text)


class Reach:
    """Follows the definitions of one notebook. Remembers what it found in code objects."""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        self._names: dict[types.CodeType, frozenset[str]] = {}
        self._words: dict[types.CodeType, frozenset[str]] = {}

    def names(self, keys: Iterable[str], *, spoken: bool = False) -> frozenset[str] | None:
        """The names that these definitions can use; None for any.

        Args:
            keys: of functions and classes of the notebook.
            spoken: what code is about to look up counts as well: words of its strings, and
                anything where it calls what looks names up by texts.
        """
        found: set[str] = set()
        said: set[str] = set()
        for code in self._codes(keys):
            found |= _remembered(self._names, code, code_names)
            if spoken:
                said |= _remembered(self._words, code, code_words)
        opaque = _OPAQUE | LOOK_UP if spoken else _OPAQUE
        return None if found & opaque else frozenset(found | said)

    def _codes(self, keys: Iterable[str]) -> Iterator[types.CodeType]:
        """The code of these definitions and of what they are made of."""
        waiting: list[Any] = [self._definitions.get(key) for key in keys]
        seen: set[int] = set()
        while waiting:
            obj = waiting.pop()
            if obj is None or id(obj) in seen:
                continue
            seen.add(id(obj))
            if type(obj) is types.FunctionType:
                yield obj.__code__
            parts = list(_parts(obj))
            if any(part is _DEEP for part in parts):
                # values inside definitions are not looked into: any other definition may be there
                waiting += self._definitions.alive()
            waiting += [part for part in parts if part is not _DEEP]


def _remembered(
    known: dict[types.CodeType, frozenset[str]],
    code: types.CodeType,
    find: Callable[[types.CodeType], frozenset[str]],
) -> frozenset[str]:
    found = known.get(code)
    if found is None:
        found = known[code] = find(code)
    return found


_DEEP: Any = object()
#: no modules of the user's, wherever they lie: what a cell imports to ask its run is none
_NO_USERS = frozenset({"__main__", "cellrail", "cellrail_state"})


def _parts(obj: Any) -> Iterator[Any]:
    """What of a definition can run; `_DEEP` for a value that may hold anything."""
    if type(obj) is types.FunctionType:
        for cell in obj.__closure__ or ():
            try:
                yield from _value(cell.cell_contents)
            except ValueError:
                continue
        for value in (*(obj.__defaults__ or ()), *(obj.__kwdefaults__ or {}).values()):
            yield from _value(value)
        for value in vars(obj).values():
            yield from _value(value)
    elif type(obj) is _LRU:
        yield from _value(obj.__wrapped__)
    elif isinstance(obj, type):
        for kind in obj.__mro__:
            if is_definition(kind):
                yield from _value(type(kind))
                for value in vars(kind).values():
                    yield from _value(value)
                if kind is not obj:
                    yield kind


def _value(value: Any, depth: int = 0) -> Iterator[Any]:
    if isinstance(value, _WRAPPERS):
        value = value.func if isinstance(value, functools.cached_property) else value.__func__
    if isinstance(value, _QUIET) or type(value).__name__ in _QUIET_NAMES:
        return
    if type(value) is types.FunctionType or isinstance(value, type) or type(value) is _LRU:
        if is_definition(value):
            yield value
        return
    inside = _inside(value) if depth < _DEPTH else None
    if inside is None:
        yield _DEEP
        return
    for part in inside:
        yield from _value(part, depth + 1)


def _inside(value: Any) -> Collection[Any] | None:
    """What a value within a definition holds, where that is easily told."""
    kind = type(value)
    found: Collection[Any] | None = None
    if kind is property:
        found = (value.fget, value.fset, value.fdel)
    elif kind in _COLLECTIONS and len(value) <= _MANY:
        keys = tuple(value)
        found = (*keys, *value.values()) if isinstance(value, Mapping) else keys
    elif kind is dataclasses.Field:
        found = (value.default, value.default_factory, value.type)
    elif isinstance(value, enum.Enum):
        found = (kind, value.value)
    elif kind.__module__ == "typing" or kind in {types.GenericAlias, types.UnionType}:
        found = (typing.get_origin(value), *typing.get_args(value))
    return found


# --- modules of the user's own ---------------------------------------------------------------


def local_state(names: Iterable[str], values: Mapping[str, Any]) -> bool:
    """Whether one of these names leads to a module of the user's own that keeps values.

    The notebook itself is one, under the name `__main__`.
    """
    found = [values.get(name) for name in names]
    if any(isinstance(v, types.ModuleType) and v.__name__ == "__main__" for v in found):
        return True
    return any(
        _may_hold(value) for module in _local_modules(found) for value in _data(module).values()
    )


def kept_in_modules(value: Any) -> tuple[str, ...]:
    """Modules of the user's own behind a value that may keep something between cells.

    Of these a restart brings nothing back: they are imported anew.
    """
    return tuple(
        module.__name__
        for module in _local_modules([value])
        if any(_may_keep(part) for part in vars(module).values() if _is_own(part, module))
        or any(map(_may_keep, _data(module).values()))
    )


def _local_modules(values: Iterable[Any]) -> Iterator[types.ModuleType]:
    """The user's own modules that these values are of, and those which they import."""
    seen: set[str] = set()
    waiting: list[types.ModuleType] = []
    for value in values:
        if isinstance(value, types.ModuleType):
            waiting.append(value)
            continue
        for thing in (value, type(value)):
            home = sys.modules.get(str(getattr(thing, "__module__", None)))
            if home is not None:
                waiting.append(home)
    while waiting:
        module = waiting.pop()
        if module.__name__ in seen or not is_local(module):
            continue
        seen.add(module.__name__)
        yield module
        waiting += [v for v in list(vars(module).values()) if isinstance(v, types.ModuleType)]


def _data(module: types.ModuleType) -> dict[str, Any]:
    """What a module holds beside modules."""
    return {
        name: value
        for name, value in list(vars(module).items())
        if not (
            isinstance(value, types.ModuleType) or (name.startswith("__") and name.endswith("__"))
        )
    }


def _is_own(value: Any, module: types.ModuleType) -> bool:
    return isinstance(value, types.FunctionType) and value.__globals__ is vars(module)


def _may_keep(value: Any) -> bool:
    """Whether it may change between cells: a container, an object, a function that sets globals."""
    if isinstance(value, types.FunctionType):
        return _sets_globals(value.__code__) or bool(vars(value))
    if isinstance(value, (re.Pattern, logging.Logger, pathlib.PurePath, enum.Enum)):
        return False
    return not isinstance(value, type) and _may_hold(value)


@functools.lru_cache(maxsize=4096)
def _sets_globals(code: types.CodeType) -> bool:
    return any(step.opname == "STORE_GLOBAL" for step in dis.get_instructions(code)) or any(
        _sets_globals(part) for part in code.co_consts if isinstance(part, types.CodeType)
    )


def _may_hold(value: Any) -> bool:
    """Whether a value of a module may hold objects of a notebook."""
    if isinstance(value, types.FunctionType):
        return bool(value.__closure__ or vars(value))
    if isinstance(value, type):
        return any(isinstance(part, (list, dict, set)) for part in vars(value).values())
    return not isinstance(value, (*_QUIET, tuple, frozenset))


@functools.cache
def _installed() -> tuple[str, ...]:
    import site
    import sysconfig

    paths = {*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages()}
    return tuple(path for path in paths if path and path != sysconfig.get_path("data"))


def is_local(module: types.ModuleType) -> bool:
    """Whether a module is the user's own: its file lies outside site-packages and Python."""
    if module.__name__.partition(".")[0] in sys.stdlib_module_names | _NO_USERS:
        return False
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and not file.startswith(_installed())
