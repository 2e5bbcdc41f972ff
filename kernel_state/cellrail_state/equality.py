"""Whether two values are equal as object graphs: values, types and sharing.

Two graphs are equal if a walk over both in step meets equal atoms, objects of the same type, and
the same sharing: wherever the one comes back to an object, so does the other. Objects that a
notebook defines may come from two processes, so its classes are compared by name and its functions
by code.

An object is taken apart as pickle would take it apart (`__reduce_ex__`); arrays and frames are
compared as such, what matplotlib draws by the picture. NaN equals NaN. Order matters in lists and
dicts, not in sets.
"""

from __future__ import annotations

import copyreg
import math
import pickle
import re
import sys
import types
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from .definitions import class_state, is_definition
from .reducing import handler_for

_ATOMS = (type(None), bool, int, str, bytes, type(...), types.ModuleType, types.CodeType)
#: how many items of a set that look alike are tried
_TRIES = 50
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
#: frames of Python take no stack of C: long chains of objects can be followed
_DEEP = 100_000
_CODE = (
    "co_code", "co_names", "co_varnames", "co_freevars", "co_cellvars", "co_flags", "co_argcount",
    "co_kwonlyargcount",
)  # fmt: skip
_WEAK = (weakref.WeakKeyDictionary, weakref.WeakValueDictionary, weakref.WeakSet)


def differs(a: object, b: object, *, definitions: bool = False) -> str:
    """Where two values differ, as a path; "" where they are equal.

    Args:
        a: a value.
        b: another.
        definitions: classes of the notebook are compared by what they can do, not by name.
    """
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, _DEEP))
    try:
        walk = _Walk(definitions=definitions)
        return walk.differs(a, b, "") or walk.sets_differ()
    finally:
        sys.setrecursionlimit(limit)


class _Walk:
    def __init__(self, *, definitions: bool = False) -> None:
        self._deep = definitions
        self._left: dict[int, int] = {}
        self._right: dict[int, int] = {}
        # which items are partners shows best where all but the sets was looked at
        self._sets_left: list[tuple[Any, Any, str]] = []
        self._trying = False
        # what reducing makes lives until the walk is over, so that addresses stay unique
        self._alive: list[object] = []

    def differs(self, a: Any, b: Any, path: str) -> str:  # noqa: PLR0911 - one line per kind
        if not _same_type(type(a), type(b)):
            return path or "type"
        if isinstance(a, _ATOMS):
            return "" if a == b else path or "value"
        if isinstance(a, float):
            return "" if a == b or (math.isnan(a) and math.isnan(b)) else path or "value"
        if isinstance(a, type):
            return self._classes(a, b, path)
        if _is_dtype(a):
            # an array that was pickled has a dtype object of its own: nobody can tell
            return "" if a == b and a.metadata == b.metadata else path or "dtype"
        seen = self._seen(a, b)
        if seen is not None:
            return "" if seen else f"{path or 'value'} (sharing)"
        if self._deep and type(a) is not type(b):
            found = self._classes(type(a), type(b), f"{path}.__class__")
            if found:
                return found
        return self._inside(a, b, path)

    def _classes(self, a: Any, b: Any, path: str) -> str:
        if a is b:
            return ""
        if not _is_notebooks(a) or not _same_type(a, b):
            return path or "class"
        if not self._deep or self._seen(a, b) is not None:
            return ""
        found = self.differs(list(a.__bases__), list(b.__bases__), f"{path}.__bases__")
        # a class that was restored has its methods before its data
        return found or self._dicts(*_in_one_order(class_state(a), class_state(b)), path)

    def _seen(self, a: object, b: object) -> bool | None:
        """Whether both were met before, as partners; None where neither was."""
        if isinstance(a, (tuple, frozenset)) and not a:
            return True
        left, right = self._left.get(id(a)), self._right.get(id(b))
        if left is None and right is None:
            self._left[id(a)], self._right[id(b)] = id(b), id(a)
            self._alive += [a, b]
            return None
        if isinstance(a, tuple) and (left is None or right is None):
            # a constant tuple may be one object or several equal ones
            return None
        return left == id(b) and right == id(a)

    def _inside(self, a: Any, b: Any, path: str) -> str:  # noqa: PLR0911 - one line per kind
        for kinds, compare in self._comparisons():
            if isinstance(a, kinds):
                return compare(a, b, path)
        module = str(type(a).__module__).partition(".")[0]
        if module == "numpy" and hasattr(a, "dtype"):
            return self._arrays(a, b, path)
        if module == "pandas" and type(a).__name__ in {"DataFrame", "Series"}:
            return self._frames(a, b, path)
        if module == "pandas" and isinstance(a, sys.modules["pandas"].Index):
            return self._indexes(a, b, path)
        if module == "pyarrow" and callable(getattr(a, "equals", None)):
            return self._arrow(a, b, path)
        if module == "matplotlib" and callable(getattr(a, "get_figure", None)):
            return self._artists(a, b, path)
        return self._reduced(a, b, path)

    def _comparisons(self) -> Iterable[tuple[Any, Callable[[Any, Any, str], str]]]:
        return (
            ((list, tuple), self._sequences),
            (dict, self._dicts),
            ((set, frozenset), self._sets),
            (types.FunctionType, self._functions),
            ((staticmethod, classmethod), self._wrappers),
            (property, self._properties),
            (types.MappingProxyType, lambda x, y, path: self.differs(dict(x), dict(y), path)),
            (_WEAK, self._weak_containers),
            (types.CellType, self._cells),
            (weakref.ref, self._weak_references),
            (memoryview, self._views),
            (pickle.PickleBuffer, lambda x, y, path: "" if bytes(x) == bytes(y) else path),
            ((type({}.keys()), type({}.values()), type({}.items())), self._views),
        )

    def _sequences(self, a: Any, b: Any, path: str) -> str:
        if type(a) not in {list, tuple}:
            return self._reduced(a, b, path) if len(a) == len(b) else f"{path} (length)"
        if len(a) != len(b):
            return f"{path or 'value'} (length)"
        for place, (x, y) in enumerate(zip(a, b, strict=True)):
            found = self.differs(x, y, f"{path}[{place}]")
            if found:
                return found
        return ""

    def _dicts(self, a: Any, b: Any, path: str) -> str:
        if type(a) is not dict:
            return self._reduced(a, b, path)
        found = self._sequences(list(a), list(b), f"{path}.keys()")
        if found:
            return found
        for (key, x), y in zip(a.items(), b.values(), strict=True):
            found = self.differs(x, y, f"{path}[{key!r}]" if isinstance(key, str) else f"{path}[…]")
            if found:
                return found
        return ""

    def _sets(self, a: Any, b: Any, path: str) -> str:
        if len(a) != len(b):
            return f"{path or 'value'} (length)"
        if self._trying:
            return self._items(a, b, path)
        self._sets_left.append((a, b, path))
        return ""

    def sets_differ(self) -> str:
        """Where sets that were met differ."""
        while self._sets_left:
            found = self._items(*self._sets_left.pop(0))
            if found:
                return found
        return ""

    def _items(self, a: Any, b: Any, path: str) -> str:
        rest: dict[tuple[str, str], list[Any]] = {}
        for y in b:
            rest.setdefault(_order(y), []).append(y)
        for x in sorted(a, key=_order):
            alike = rest.get(_order(x), [])
            tried = range(min(len(alike), _TRIES))
            place = next((i for i in tried if self._match(x, alike[i], len(alike))), None)
            if place is None:
                return f"{path}{{}}"
            del alike[place]
        return ""

    def _match(self, a: Any, b: Any, candidates: int) -> bool:
        """Whether two items of sets are partners; if they are not, nothing is remembered."""
        if candidates == 1:
            return not self.differs(a, b, "")
        left, right, trying = dict(self._left), dict(self._right), self._trying
        self._trying = True
        found = self.differs(a, b, "")
        self._trying = trying
        if found:
            self._left, self._right = left, right
        return not found

    def _functions(self, a: Any, b: Any, path: str) -> str:
        if a is b:
            return ""
        if not _is_notebooks(a):
            return path or "function"
        for part in ("__defaults__", "__kwdefaults__", "__closure__", "__dict__"):
            found = self.differs(getattr(a, part), getattr(b, part), f"{path}.{part}")
            if found:
                return found
        same = _same_code(a.__code__, b.__code__) and a.__qualname__ == b.__qualname__
        return "" if same else f"{path or 'function'} (code)"

    def _wrappers(self, a: Any, b: Any, path: str) -> str:
        return self.differs(a.__func__, b.__func__, path)

    def _properties(self, a: Any, b: Any, path: str) -> str:
        return self.differs([a.fget, a.fset, a.fdel], [b.fget, b.fset, b.fdel], path)

    def _cells(self, a: Any, b: Any, path: str) -> str:
        try:
            left, right = a.cell_contents, b.cell_contents
        except ValueError:
            return ""
        return self.differs(left, right, f"{path}.cell")

    def _weak_references(self, a: Any, b: Any, path: str) -> str:
        return self.differs(a(), b(), f"{path}()")

    def _weak_containers(self, a: Any, b: Any, path: str) -> str:
        if isinstance(a, weakref.WeakSet):
            return self._sets(set(a), set(b), path)
        return self._sequences(list(a.items()), list(b.items()), path)

    def _views(self, a: Any, b: Any, path: str) -> str:
        return self._sequences(list(a), list(b), path)

    def _arrays(self, a: Any, b: Any, path: str) -> str:
        import numpy as np

        x, y = np.asarray(a), np.asarray(b)
        if x.dtype != y.dtype or x.shape != y.shape:
            return f"{path or 'array'} (dtype or shape)"
        if x.dtype.names:  # what lies between fields is nobody's
            found = (self._arrays(x[n], y[n], f"{path}[{n!r}]") for n in x.dtype.names)
            return next(filter(None, found), "")
        if x.dtype.hasobject:
            return self._sequences(x.ravel().tolist(), y.ravel().tolist(), path)
        return "" if x.tobytes() == y.tobytes() or _nearly_same(x, y) else path or "array"

    def _frames(self, a: Any, b: Any, path: str) -> str:
        import pandas as pd

        check = pd.testing.assert_frame_equal if a.ndim == 2 else pd.testing.assert_series_equal
        try:
            check(a, b, check_exact=True)
        except AssertionError as error:
            return f"{path or 'frame'} ({str(error).splitlines()[0]})"
        return ""

    def _indexes(self, a: Any, b: Any, path: str) -> str:
        """By what they hold: some keep what they have computed."""
        import pandas as pd

        if getattr(a, "freq", None) != getattr(b, "freq", None):
            return f"{path or 'index'} (freq)"
        try:
            pd.testing.assert_index_equal(a, b, exact=True)
        except AssertionError as error:
            return f"{path or 'index'} ({str(error).splitlines()[0]})"
        return ""

    def _arrow(self, a: Any, b: Any, path: str) -> str:
        """Arrow may or may not write out that no value is missing; NaN it takes for unequal."""
        try:
            alike = a.equals(b, check_metadata=True)
        except TypeError:
            alike = a.equals(b)
        return "" if alike else self._reduced(a, b, path)

    def _artists(self, a: Any, b: Any, path: str) -> str:
        """Inside, no two figures are alike (they number their callbacks): the picture is."""
        figures = a.get_figure(), b.get_figure()
        if None in figures or figures == (a, b):
            return "" if _picture(a) == _picture(b) else f"{path or 'value'} (picture)"
        return self.differs(*figures, f"{path}.figure")

    def _reduced(self, a: Any, b: Any, path: str) -> str:
        try:
            x, y = _taken_apart(a), _taken_apart(b)
        except Exception:  # noqa: BLE001 - a library's own code; identity is all that is left
            return "" if a is b else f"{path or 'value'} (cannot be compared)"
        if isinstance(x, str):
            return "" if x == y else path or "value"
        listed = [[list(p) if _is_iterator(p) else p for p in parts] for parts in (x, y)]
        if len(listed[0]) > 2 and len(listed[1]) > 2:
            listed[0][2], listed[1][2] = _in_one_order(listed[0][2], listed[1][2])
        self._alive += listed
        return self._sequences(listed[0], listed[1], f"{path}.{type(a).__name__}")


def _same_code(a: types.CodeType, b: types.CodeType) -> bool:
    """Whether two codes do the same, wherever they stand in their files."""
    return all(getattr(a, part) == getattr(b, part) for part in _CODE) and _same_constants(
        a.co_consts, b.co_consts
    )


def _same_constants(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, types.CodeType):
        return _same_code(a, b)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(_same_constants, a, b))
    return repr(a) == repr(b) if isinstance(a, float | complex) else bool(a == b)


def _is_iterator(part: Any) -> bool:
    return hasattr(part, "__next__") and not isinstance(part, type)


def _taken_apart(value: Any) -> Any:
    """As this package's pickler would do it."""
    handler = handler_for(type(value)) or copyreg.dispatch_table.get(type(value))
    made = handler(value) if handler is not None else NotImplemented
    return value.__reduce_ex__(4) if made is NotImplemented else made


def _in_one_order(a: Any, b: Any) -> tuple[Any, Any]:
    """Attributes of two objects; in which order they were set does not matter."""
    if type(a) is not dict or type(b) is not dict or list(a) == list(b) or a.keys() != b.keys():
        return a, b
    return a, {name: b[name] for name in a}


def _same_type(a: type, b: type) -> bool:
    if a is b:
        return True
    named = (a.__module__, a.__qualname__) == (b.__module__, b.__qualname__)
    return named and _is_notebooks(a)


def _is_dtype(thing: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(thing, numpy.dtype)


def _is_notebooks(thing: Any) -> bool:
    """Whether it is no object of a library that both share: each has one of its own."""
    return getattr(thing, "__module__", None) == "__main__" or is_definition(thing)


def _order(item: object) -> tuple[str, str]:
    return type(item).__qualname__, _ADDRESS.sub("", repr(item))


def _nearly_same(x: Any, y: Any) -> bool:
    """Equal but for the bits of NaN."""
    import numpy as np

    try:
        return bool(np.array_equal(x, y, equal_nan=True))
    except TypeError:
        return False


def _picture(artist: Any) -> bytes:
    """What a figure looks like; of an artist without a figure nothing can be seen."""
    if not hasattr(artist, "savefig"):
        return b""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    before = artist.canvas
    try:
        canvas: Any = FigureCanvasAgg(artist)
        canvas.draw()
        return bytes(canvas.buffer_rgba())
    finally:
        artist.set_canvas(before)
