"""Whether looking at a value can execute code of the notebook.

`box.full`, `len(box)`, `box == 1` and `rows["new"]` look harmless, but a property, `__len__`,
`__eq__` or `defaultdict` may change something. Values of installed libraries, and what Python has
built in, change nothing by being looked at.
"""

from __future__ import annotations

import collections
import sys
import types
import weakref
from collections.abc import Iterable

from cellrail_state.reach import is_local

#: so many values are looked at before one is taken for alive
_MOST = 5_000
_PLAIN = frozenset(
    {type(None), type(...), bool, int, float, complex, str, bytes, bytearray, memoryview, range,
     slice, type, types.FunctionType, types.BuiltinFunctionType}
)  # fmt: skip
#: looking at one looks at what it stands for
_PROXIES = (weakref.ProxyType, weakref.CallableProxyType)
#: what their values hold is reached by their own code only
_CLOSED = frozenset({"numpy", "pandas", "polars", "pyarrow", "scipy", "torch", "datetime"})


def are_inert(values: Iterable[object]) -> bool:
    """Whether attributes, items and operators of these values, and of what they hold, only look."""
    todo, seen = list(values), set[int]()
    while todo:
        value = todo.pop()
        kind = type(value)
        if kind in _PLAIN or id(value) in seen:
            continue
        seen.add(id(value))
        if len(seen) > _MOST or not _is_inert(value, kind):
            return False
        if kind.__module__.partition(".")[0] in _CLOSED and not _holds_objects(value):
            continue
        todo += [one for one in _held(value) if type(one) not in _PLAIN]
    return True


def _is_inert(value: object, kind: type) -> bool:
    if kind in _PROXIES:
        return False
    if isinstance(value, types.ModuleType):
        return not is_local(value)
    home = sys.modules.get(kind.__module__)
    if kind.__module__ == "__main__" or not isinstance(home, types.ModuleType) or is_local(home):
        return False
    # `rows["new"]` is there from then on
    return not hasattr(kind, "__missing__")


def _holds_objects(value: object) -> bool:
    """Whether it is a NumPy array whose items are objects: one is looked at by its own code."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray) and value.dtype.hasobject


def _held(value: object) -> Iterable[object]:
    if _holds_objects(value):
        yield from value.ravel().tolist()  # type: ignore[attr-defined]
    if not isinstance(value, types.ModuleType):
        yield from getattr(value, "__dict__", {}).values()
    if isinstance(value, dict):
        yield from dict.keys(value)
        yield from dict.values(value)
    elif isinstance(value, types.MappingProxyType):
        yield from dict(value).items()
    elif isinstance(value, list | tuple | set | frozenset | collections.deque):
        yield from value
