"""What the load of a value tells of it, so that it need not be pickled to be known.

A capture compares a value with what it was before: after a restore, with the value as it was
loaded. To pickle it for that takes longer than to load it. A *plain* value needs no pickling: its
stream holds what Python has built in, and instances of classes of the notebook which have no code
of their own for pickling. Such a value is what its stream says, it leads to the definitions that
its stream names, and it pickles to the same bytes again, but for two things: equal strings may be
one string now, which makes the bytes fewer unless they are very short, and a set may be walked
through in another order. Where other bytes may come of that, the stored ones are loaded once more,
and that copy is compared (see `Inspector.is_as_loaded`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from .definitions import is_definition
from .digests import Hasher
from .model import Component
from .pickling import Trace

#: what is pickled quickly needs no such care; a copy of more would take too much memory
LEAST, MOST = 64 << 10, 64 << 20
#: what the stream of a plain value may name
_NAMES = frozenset(
    (
        ("cellrail_state.loading", "definition"),
        ("builtins", "complex"), ("builtins", "bytearray"), ("builtins", "range"),
        ("collections", "OrderedDict"), ("collections", "deque"),
        ("datetime", "date"), ("datetime", "datetime"), ("datetime", "timedelta"),
        ("decimal", "Decimal"),
    )
)  # fmt: skip
#: what the stream of a long flat container names, whose slabs name nothing
_SLABS = ("cellrail_state.loading", "from_slabs")
#: code that has a say in how instances are pickled and made
_HOOKS = frozenset(
    (
        "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__",
        "__getnewargs_ex__", "__new__", "__getattribute__", "__getattr__", "__setattr__",
        "__class__", "__del__", "__slots__",
    )
)  # fmt: skip


class Fresh(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a plain value that was just loaded."""

    component: Component
    #: the digest of its stream, as `digests.Hasher.content` makes it
    content: bytes
    #: the definitions that it leads to
    keys: tuple[str, ...]
    #: nothing but what Python has built in
    builtin: bool


def fresh(
    component: Component,
    stream: Any,
    buffers: Iterable[memoryview],
    trace: Trace,
    definitions: Mapping[str, Any],
) -> Fresh | None:
    """What is known of the one value of a component; None where it has to be pickled.

    Args:
        component: what was loaded.
        stream: its bytes.
        buffers: what stands beside it.
        trace: what the stream named.
        definitions: functions and classes by key.
    """
    if len(component.names) != 1 or component.definitions:
        return None
    slabs = trace.names == {_SLABS}
    plain = slabs or (not component.buffers and trace.names <= _NAMES)
    if not plain or not LEAST <= component.size <= MOST:
        return None
    if not all(_is_plain(definitions.get(key)) for key in trace.keys):
        return None
    return Fresh(
        component=component, content=Hasher().content(stream, buffers), keys=tuple(trace.keys),
        builtin=slabs or not trace.names,
    )  # fmt: skip


def _is_plain(definition: Any) -> bool:
    """Whether the notebook has no say in how instances of this class are pickled."""
    if not isinstance(definition, type) or type(definition) is not type:
        return False
    return all(
        kind is object or (is_definition(kind) and _HOOKS.isdisjoint(vars(kind)))
        for kind in definition.__mro__
    )
