"""Whether looking at a value can execute code of the notebook.

`box.full`, `len(box)`, `box == 1` and `rows["new"]` look harmless, but a property, `__len__`,
`__eq__` or `defaultdict` may change something. Values of installed libraries, and what Python has
built in, change nothing by being looked at.
"""

from __future__ import annotations

import collections
import sys
import types
from collections.abc import Iterable

from cellrail_state.reach import is_local

#: so many values are looked at before one is taken for alive
_MOST = 5_000
_PLAIN = frozenset(
    {type(None), type(...), bool, int, float, complex, str, bytes, bytearray, memoryview, range,
     slice, type, types.FunctionType, types.BuiltinFunctionType}
)  # fmt: skip
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
        if kind.__module__.partition(".")[0] in _CLOSED:
            continue
        todo += [one for one in _held(value) if type(one) not in _PLAIN]
    return True


def _is_inert(value: object, kind: type) -> bool:
    if isinstance(value, types.ModuleType):
        return not is_local(value)
    home = sys.modules.get(kind.__module__)
    if kind.__module__ == "__main__" or not isinstance(home, types.ModuleType) or is_local(home):
        return False
    # `rows["new"]` is there from then on
    return not hasattr(kind, "__missing__")


def _held(value: object) -> Iterable[object]:
    if not isinstance(value, types.ModuleType):
        yield from getattr(value, "__dict__", {}).values()
    if isinstance(value, dict):
        yield from dict.keys(value)
        yield from dict.values(value)
    elif isinstance(value, list | tuple | set | frozenset | collections.deque):
        yield from value
