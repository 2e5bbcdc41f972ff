"""Whether a name holds the same in two checkpoints, of one run or of two.

Equal component ids mean equal bytes, which is the answer for almost every name; what the bytes
refer to, functions and classes of the notebook, has to be equal as well. Where the ids differ the
values are loaded and compared (`equality`): equal values pickle to other bytes when, say, equal
strings are one object or two. What is too large for that, or does not load, counts as different.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Protocol

import msgspec

from .equality import differs
from .laying import is_same_record
from .model import Checkpoint, Component, ObjectRef
from .restore import restore

#: bytes of a component that are loaded for a comparison
_MAX = 1 << 28


class Source(Protocol):
    """Where objects come from."""

    def get(self, ref: ObjectRef) -> Any:
        """The bytes, verified."""
        ...

    def buffer(self, ref: ObjectRef) -> Any:
        """The bytes, verified, in memory that can be written."""
        ...


class Sameness:
    """Compares names of checkpoints of one store; looks at each pair once."""

    def __init__(self, objects: Source) -> None:
        self._objects = objects
        self._known: dict[tuple[object, ...], bool] = {}
        self._loaded: dict[str, dict[str, Any]] = {}

    def same(self, name: str, a: Checkpoint, b: Checkpoint) -> bool:
        """Whether a name holds the same in both; what cannot be stored, is of the same kind."""
        x, y = a.variables.get(name), b.variables.get(name)
        if x is None or y is None or x.component is None or y.component is None:
            return is_same_record(x, y)
        left, right = a.components.get(x.component), b.components.get(y.component)
        if left is None or right is None:
            return False
        key: tuple[object, ...] = (left.id, right.id, _definitions(a), _definitions(b))
        if left.id != right.id:
            key += (_together(left, a), _together(right, b))
        if key not in self._known:
            self._known[key] = self._same(left, a, right, b)
        return self._known[key]

    def same_definitions(self, keys: Iterable[str], a: Checkpoint, b: Checkpoint) -> bool:
        """Whether functions and classes, by key, are the same in both, with all they hold."""
        return all(self._same_definition(key, a, b) for key in keys)

    def _same(self, left: Component, a: Checkpoint, right: Component, b: Checkpoint) -> bool:
        if left.id == right.id:
            return self.same_definitions(left.uses, a, b)
        names = _together(left, a)
        if names != _together(right, b) or max(left.size, right.size) > _MAX:
            return False
        if not _has_varying_buffers(left) and _bulk(left) != _bulk(right):
            return False
        try:
            x, y = self._load(a, left, names), self._load(b, right, names)
            return not differs(x, y, definitions=True)
        except Exception:  # noqa: BLE001 - the user's own code
            return False

    def _load(self, checkpoint: Checkpoint, component: Component, names: Iterable[str]) -> Any:
        wanted = {i: c for i, c in checkpoint.components.items() if c.definitions}
        only = msgspec.structs.replace(checkpoint, components={**wanted, component.id: component})
        namespace: dict[str, Any] = {"__name__": "__main__"}
        report = restore(only, namespace, self._objects, names=list(names))
        if report.failed:
            raise ValueError(str(report.failed))
        return [namespace[name] for name in names]

    # --- definitions -------------------------------------------------------------------------

    def _same_definition(self, key: str, a: Checkpoint, b: Checkpoint) -> bool:
        left, right = _holder(key, a), _holder(key, b)
        if left is None or right is None or left.id == right.id:
            return left is right or (left is not None and right is not None)
        known = (key, left.id, right.id)
        if known not in self._known:
            try:
                x, y = self._definitions_of(left), self._definitions_of(right)
                self._known[known] = not differs(x[key], y[key], definitions=True)
            except Exception:  # noqa: BLE001 - the user's own code
                self._known[known] = False
        return self._known[known]

    def _definitions_of(self, component: Component) -> dict[str, Any]:
        if component.id not in self._loaded:
            only = Checkpoint(components={component.id: component})
            report = restore(only, {"__name__": "__main__"}, self._objects, names=())
            self._loaded[component.id] = dict(report.definitions)
        return self._loaded[component.id]


def _holder(key: str, checkpoint: Checkpoint) -> Component | None:
    """The newest component that holds a definition."""
    held = [c for c in checkpoint.components.values() if key in c.definitions]
    return held[-1] if held else None


def _definitions(checkpoint: Checkpoint) -> tuple[str, ...]:
    return tuple(i for i, c in checkpoint.components.items() if c.definitions)


def _together(component: Component, checkpoint: Checkpoint) -> tuple[str, ...]:
    """The names that still share this component."""
    known = checkpoint.variables
    return tuple(
        name for name in sorted(component.variables)
        if name in known and known[name].component == component.id
    )  # fmt: skip


def _bulk(component: Component) -> Counter[str]:
    return Counter(ref.digest for ref in component.buffers)


def _has_varying_buffers(component: Component) -> bool:
    """Whether equal values may have other buffers.

    Figures have caches; an Arrow column without nulls may come with a bitmap of them or without.
    """
    return not {"matplotlib", "pyarrow"}.isdisjoint(component.packages)
