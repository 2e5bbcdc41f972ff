"""What is checked before a component is written: does its copy load, which packages it needs.

A type whose copies loaded once in a session is not tried again. The types of the libraries in
`_TRUSTED` are never tried: they are known to load, or (matplotlib) loading shows something. Nor is
a class of the notebook whose own code would run when a copy comes or goes: it could change the
very namespace that is captured.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Collection, Iterable, Sequence
from types import FunctionType
from typing import Any, Protocol

from . import pickling
from .definitions import Definitions, is_definition
from .equality import differs
from .loading import Context
from .model import Component, ObjectRef
from .piece import Piece
from .sharing import are_flat

_TRUSTED = frozenset(
    ["numpy", "pandas", "matplotlib", "datetime", "decimal", "collections", "pathlib"]
)
_MAX = 64 << 20
_ACTS = ("__del__", "__new__")


class Source(Protocol):
    """Where stored bytes come from."""

    def get(self, ref: ObjectRef) -> Any:
        """The bytes, verified."""
        ...

    def buffer(self, ref: ObjectRef) -> Any:
        """The bytes, verified, in memory that can be written."""
        ...


class _Live(dict[str, Any]):
    """Definitions as they are in the live namespace."""

    def __init__(self, table: Definitions) -> None:
        super().__init__()
        self._table = table

    def __missing__(self, key: str) -> Any:
        found = self._table.get(key)
        if found is None:
            raise KeyError(key)
        return found


class Inspector:
    """Remembers what was checked in a session."""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        self._verified: set[type] = set()
        self._verified_keys: set[str] = set()
        self._versions: dict[str, str | None] = {}

    def check(self, piece: Piece) -> str:
        """Why a component does not load, in words; empty where it does."""
        unknown = [kind for kind in piece.kinds if not self._is_known(kind)]
        keys = set(piece.definitions) - self._verified_keys
        if _acts_when_copied(piece.kinds):
            return ""
        if not (unknown or keys) or len(piece.stream) + sum(b.nbytes for b in piece.buffers) > _MAX:
            return ""
        live: dict[str, Any] = {} if piece.definitions else _Live(self._definitions)
        context = Context(globals={"__name__": "__main__"}, definitions=live)
        try:
            copies = pickling.load(
                piece.stream,
                piece.buffers,
                context,
                count=len(piece.heads),
                has_definitions=bool(piece.definitions),
            )
        except Exception as error:  # noqa: BLE001 - the user's own code
            return f"its copy does not load: {_short(error)}"
        for value, copy in zip(piece.values, copies[-len(piece.values) :], strict=True):
            if type(value).__qualname__ != type(copy).__qualname__:
                return f"its copy is of another type: {type(copy).__qualname__}"
        self._verified.update(unknown)
        self._verified_keys |= keys
        return ""

    def is_same(self, piece: Piece, stored: Component, objects: Source) -> bool:
        """Whether a component holds what a piece with other bytes holds.

        Some values pickle to other bytes each time (a set, a cache that was filled in between).
        """
        if stored.size > _MAX or piece.definitions or stored.definitions:
            return False
        if _acts_when_copied(piece.kinds):
            return False
        try:
            was = self._copies(stored, objects)
            now = pickling.load(
                piece.stream, piece.buffers, self._context(), count=len(piece.heads)
            )
        except Exception:  # noqa: BLE001 - the user's own code
            return False
        held = dict(zip(stored.names, was, strict=True))
        found = dict(zip(piece.heads, now, strict=True))
        return not differs([held.get(name) for name in found], list(found.values()))

    def is_as_loaded(
        self, piece: Piece, stored: Component, objects: Source, doubtful: Sequence[Collection[Any]]
    ) -> bool:
        """Whether a plain value is as its component, though its bytes are others (see `fresh`).

        Args:
            piece: the value, pickled.
            stored: what it was loaded from.
            objects: where the component's bytes are.
            doubtful: its sets and its very short strings.
        """
        if not doubtful and len(piece.stream) >= stored.stream.size:
            return False  # equal strings that became one would have made them fewer
        try:
            copy = pickling.dump(self._definitions, self._copies(stored, objects))
        except Exception:  # noqa: BLE001 - whatever hinders it: the value counts as changed
            return False
        same = copy.sink.bytes() == piece.stream
        copy.close()
        if same or all(map(are_flat, doubtful)):
            return same
        # a set of instances is walked through as their addresses fall
        return self.is_same(piece, stored, objects)

    def _context(self) -> Context:
        return Context(globals={"__name__": "__main__"}, definitions=_Live(self._definitions))

    def _copies(self, stored: Component, objects: Source) -> list[Any]:
        """What a component holds, loaded once more."""
        return pickling.load(
            objects.get(stored.stream),
            [objects.buffer(ref) for ref in stored.buffers],
            self._context(),
            count=len(stored.names),
        )

    def _is_known(self, kind: type) -> bool:
        if kind in self._verified or kind.__module__ == "builtins":
            return True
        return str(kind.__module__).partition(".")[0] in _TRUSTED

    def packages(self, piece: Piece) -> dict[str, str]:
        """The packages outside the standard library that a stream names, with versions."""
        found = {}
        for top in _tops(piece):
            version = self._version(top)
            if version is not None:
                found[top] = version
        return found

    def own_modules(self, piece: Piece) -> tuple[str, ...]:
        """The modules that a stream names and that belong to no package with a version."""
        known = sys.stdlib_module_names | {"", "__main__", "cellrail", "cellrail_state"}
        return tuple(top for top in _tops(piece) if top not in known and not self._version(top))

    def _version(self, top: str) -> str | None:
        if top not in self._versions:
            self._versions[top] = package_version(top)
        return self._versions[top]


def _tops(piece: Piece) -> list[str]:
    """Top-level names of the modules that a stream names."""
    modules = {kind.__module__ for kind in piece.kinds} | set(piece.modules)
    return sorted({str(module).partition(".")[0] for module in modules})


def _acts_when_copied(kinds: Iterable[type]) -> bool:
    """Whether code of the notebook runs when objects of these types are made or deleted.

    Or something else happens: the copy of a figure that is open opens another.
    """
    kinds = list(kinds)
    if any(str(kind.__module__).startswith("matplotlib") for kind in kinds):
        return True
    return any(
        isinstance(vars(base).get(name), (FunctionType, staticmethod))
        for kind in kinds
        if is_definition(kind)
        for base in kind.__mro__
        if is_definition(base)
        for name in _ACTS
    )


def package_version(top: str) -> str | None:
    """The version of an installed top-level package; None for anything else."""
    if not top or top in sys.stdlib_module_names or top in {"__main__", "cellrail_state"}:
        return None
    module = sys.modules.get(top)
    version = getattr(module, "__version__", None)
    if isinstance(version, str):
        return version
    if module is not None and getattr(module, "__spec__", None) is None:
        return None  # made by hand, as those that Cython's types name: no distribution has it
    try:
        return importlib.metadata.version(top)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
