"""The values of one capture, pickled one by one and then together where they share objects."""

from __future__ import annotations

import enum
import sys
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .definitions import Definitions, is_definition
from .digests import Hasher
from .drawings import FIGURE, figure_of, places_in
from .pickling import OverLimit, Pickler, Sink, explain
from .scanning import Scanner
from .sharing import Groups, Memo, connect, is_as_in, is_flat, is_shared, is_still, snapshot

#: stands for the component of all definitions among the members of a group
DEFINITIONS = "\0definitions"
_LIMIT = 5_000
_MANY = 1_000
_NOT_KEPT = "the contents of an lru_cache are not kept"


@dataclass(slots=True)
class Piece:
    """One variable, or the joint stream of several."""

    names: tuple[str, ...]
    values: list[Any]
    stream: bytes = b""
    buffers: list[memoryview] = field(default_factory=list)
    content: bytes = b""
    keys: tuple[str, ...] = ()
    definitions: tuple[str, ...] = ()
    kinds: Iterable[type] = ()
    modules: Iterable[str] = ()
    pickler: Pickler | None = None
    error: str | None = None
    over_limit: bool = False
    #: key of the definition that the variable is
    body_key: str = ""
    #: the piece of the figure that the values are parts of: they have no stream of their own
    figure: Piece | None = None

    @property
    def heads(self) -> tuple[str, ...]:
        """What stands in the stream, in order."""
        return self.names if self.figure is None else (FIGURE, *self.names)


@dataclass(slots=True)
class Entry:
    """What is remembered of a name until the next capture."""

    #: the object itself, where it is small and immutable
    root: Any
    still: bool
    ident: int
    ref: weakref.ref[Any] | None
    content: bytes | None
    keys: tuple[str, ...]
    error: str | None
    #: what a flat container held
    flat: Any = None
    #: it is a function or class of the notebook
    defines: bool = False
    #: something of matplotlib is in it
    drawn: bool = False

    @staticmethod
    def of(piece: Piece) -> Entry:
        """What to remember of a piece."""
        value = piece.values[0]
        still = piece.error is None and is_still(value)
        ref = None
        if not still:
            try:
                ref = weakref.ref(value)
            except TypeError:  # a list: its address has to do
                ref = None
        return Entry(
            root=value if still else None,
            still=still,
            ident=id(value),
            ref=ref,
            content=piece.content if piece.error is None else None,
            keys=piece.keys,
            error=piece.error,
            flat=snapshot(value) if piece.error is None and not still else None,
            defines=bool(piece.body_key),
            drawn=_draws(piece),
        )

    @staticmethod
    def of_flat(value: object, kept: object) -> Entry:
        """What to remember of a flat container that was not pickled."""
        return Entry(
            root=None, still=False, ident=id(value), ref=None, content=None, keys=(), error=None,
            flat=kept,
        )  # fmt: skip

    def is_object(self, value: object) -> bool:
        """Whether this is the object that the name held before, as far as can be told."""
        if self.ident != id(value):
            return False
        return self.ref is None or self.ref() is value

    def is_settled(self, value: object) -> bool:
        """Whether the name holds the same value as before, as far as can be told at a glance."""
        if self.still:
            return self.root is value
        return self.flat is not None and self.ident == id(value) and is_as_in(value, self.flat)

    def same(self, piece: Piece) -> bool:
        """Whether the name still holds the same object with the same content."""
        value = piece.values[0]
        if not self.is_object(value):
            return False
        return self.content == (piece.content if piece.error is None else None)


class Pieces:
    """All values that a capture has to look at."""

    def __init__(
        self,
        definitions: Definitions,
        *,
        hasher: Hasher,
        scanner: Scanner,
        entries: Mapping[str, Entry],
        check: Callable[[Piece], str],
        max_value: int | None,
        deadline: float | None,
    ) -> None:
        self.all: dict[str, Piece] = {}
        self.connected = Groups()
        self.defined: Piece | None = None
        self._table, self._hasher, self._scanner = definitions, hasher, scanner
        self._entries, self._check = entries, check
        self._max_value, self._deadline = max_value, deadline
        self._bad: dict[str, str] = {}
        self._memos: dict[str, Memo] = {}
        self._picklers: list[Pickler] = []
        self._copied: dict[int, dict[int, tuple[int, Any]]] = {}
        self._figures: dict[int, Piece] = {}

    # --- pickling ----------------------------------------------------------------------------

    def _dump(
        self, names: tuple[str, ...], values: list[Any], keys: Iterable[str] | None = None
    ) -> Piece:
        piece = self._attempt(names, values, keys)
        if piece.error == "it is nested too deeply" and sys.getrecursionlimit() < _LIMIT:
            limit = sys.getrecursionlimit()
            sys.setrecursionlimit(_LIMIT)
            try:
                piece = self._attempt(names, values, keys)
            finally:
                sys.setrecursionlimit(limit)
        return piece

    def _attempt(
        self, names: tuple[str, ...], values: list[Any], keys: Iterable[str] | None
    ) -> Piece:
        deadline = self._deadline if keys is None else None
        sink = Sink(self._max_value, deadline)
        pickler = Pickler(self._table, sink, by_value=keys is not None)
        self._picklers.append(pickler)
        piece = Piece(names, values, pickler=pickler)
        try:
            if keys is not None:
                pickler.dump_definitions(keys)
            for value in values:
                pickler.dump(value)
            piece.stream = sink.bytes()
            piece.content = self._hasher.content(piece.stream, pickler.buffers)
        except Exception as error:  # noqa: BLE001 - the user's own code may raise anything
            piece.error, piece.over_limit = explain(error), isinstance(error, OverLimit)
        piece.buffers, piece.kinds = pickler.buffers, pickler.kinds.keys()
        piece.keys, piece.modules = tuple(pickler.keys), pickler.modules
        return piece

    def close(self) -> None:
        """Let go of the user's objects: picklers are cycles, which would keep them until a gc."""
        for pickler in self._picklers:
            pickler.close()
        self._picklers.clear()
        self._memos.clear()
        self._copied.clear()
        self._figures.clear()
        for piece in self.all.values():
            piece.figure = None

    def add(self, name: str, value: object) -> None:
        """Pickle a variable by itself; of a part of a figure, the figure."""
        piece = self._part(name, value) or self._dump((name,), [value])
        entry = self._entries.get(name)
        changed = entry is None or entry.content != piece.content
        if piece.error is None and changed and self._secret(piece):
            piece.error = "holds a secret"
        if piece.error is None and is_definition(value):
            piece.body_key = self._table.key(value)
        self.all[name] = piece

    def _part(self, name: str, value: object) -> Piece | None:
        """The piece of a variable that holds a figure or parts of it."""
        figure = figure_of(value)
        if figure is None:
            return None
        whole = self._figures.get(id(figure))
        if whole is None:
            whole = self._figures[id(figure)] = self._dump((FIGURE,), [figure])
        if whole.error is not None:
            return None
        memo = self._memo(whole)
        places = places_in(memo, value)
        if places is None:
            return None
        memo.setdefault(id(value), (-1, value))
        kind = type(value).__qualname__
        return Piece(
            (name,),
            [value],
            content=Hasher.parts(whole.content, kind.encode(), repr(places).encode()),
            keys=whole.keys,
            kinds=whole.kinds,
            modules=whole.modules,
            figure=whole,
        )

    def _parts(self, names: tuple[str, ...]) -> Piece | None:
        """Variables that hold parts of one figure, together; None where they do not."""
        pieces = [self.all[name] for name in names]
        whole = pieces[0].figure
        if whole is None or any(piece.figure is not whole for piece in pieces):
            return None
        return Piece(
            names,
            [piece.values[0] for piece in pieces],
            content=Hasher.parts(*(piece.content for piece in pieces)),
            keys=whole.keys,
            kinds=whole.kinds,
            modules=whole.modules,
            figure=whole,
        )

    def write_out(self, piece: Piece) -> None:
        """Give parts of a figure their stream: the figure, then each of them."""
        whole = piece.figure
        if whole is None or piece.stream:
            return
        made = self._figures.pop(id(whole.values[0]), None)
        if made is None or made.pickler is None:  # its pickler went on with other values already
            made = self._dump(piece.heads, [whole.values[0], *piece.values])
        else:
            try:
                for value in piece.values:
                    made.pickler.dump(value)
            except Exception as error:  # noqa: BLE001 - a library's own code
                made.error, made.over_limit = explain(error), isinstance(error, OverLimit)
            made.stream, made.buffers = made.pickler.sink.bytes(), made.pickler.buffers
        piece.error, piece.over_limit = made.error, made.over_limit
        piece.stream, piece.buffers = made.stream, made.buffers

    def _secret(self, piece: Piece) -> bool:
        if piece.figure is not None:
            return self._secret(piece.figure)
        hits = self._scanner.hits
        return hits(piece.stream) or any(map(hits, piece.buffers))

    def define(self, keys: Iterable[str]) -> None:
        """Pickle the definitions that these keys and the pieces need."""
        wanted = dict.fromkeys(keys)
        for piece in self.all.values():
            wanted.update(dict.fromkeys(piece.keys))
        if not wanted:
            return
        self.defined = self._closure(wanted, [])
        if self.defined.error is not None or self._unfit(self.defined):
            self._separate(wanted)
        for piece in self.all.values():
            bad = next((key for key in piece.keys if key in self._bad), None)
            if bad is None or piece.error is not None:
                continue
            if piece.body_key == bad:
                piece.error = self._bad[bad]
            else:
                name = bad.rpartition("#")[0]
                piece.error = f"it needs `{name}`, which cannot be stored: {self._bad[bad]}"

    def _unfit(self, piece: Piece) -> str:
        return "holds a secret" if self._secret(piece) else self._check(piece)

    def _closure(
        self, keys: Iterable[str], values: list[Any], names: tuple[str, ...] = ()
    ) -> Piece:
        wanted = sorted(keys)
        while True:
            piece = self._dump(names, values, wanted)
            piece.definitions = tuple(wanted)
            if piece.error is not None or set(piece.keys) <= set(wanted):
                return piece
            wanted = sorted({*wanted, *piece.keys})

    def _separate(self, wanted: Iterable[str]) -> None:
        """Find the definitions that cannot be stored; the others are stored without them."""
        good: dict[str, None] = {}
        for key in wanted:
            piece = self._closure([key], [])
            if piece.error is not None:
                self._bad[key] = piece.error
            elif reason := self._unfit(piece):
                self._bad[key] = reason
            else:
                good.update(dict.fromkeys(piece.definitions))
        self.defined = self._closure(good, []) if good else None

    def bodies(self, before: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
        """Digests of the variables that are definitions, with all they reach."""
        known = dict(before or {})
        for piece in self.all.values():
            key = piece.body_key
            if key and key not in known and key not in self._bad:
                known[key] = self._closure([key], []).content
        return known

    def joint(self, names: tuple[str, ...], definitions: tuple[str, ...] = ()) -> Piece:
        """Pickle variables that were looked at in one stream, with the definitions they go with."""
        values = [self.all[name].values[0] for name in names]
        if definitions:
            return self._closure(definitions, values, names)
        return self._together(names)

    def _together(self, names: tuple[str, ...]) -> Piece:
        parts = self._parts(names)
        if parts is not None:
            return parts
        if len(names) == 1:
            return self.all[names[0]]
        return self._dump(names, [self.all[name].values[0] for name in names])

    # --- sharing -----------------------------------------------------------------------------

    def connect(self) -> None:
        """Find which pieces share objects."""
        for name, piece in self.all.items():
            value = piece.values[0]
            alone = is_still(value) or bool(piece.body_key) or isinstance(value, enum.Enum)
            if not alone and (piece.pickler is not None or piece.figure is not None):
                self._memos[name] = {}
        if self.defined is not None and self.defined.pickler is not None:
            self._memos[DEFINITIONS] = {}
        if len(self._memos) < 2:
            return
        parts: dict[int, list[str]] = {}
        good: list[tuple[Hashable, Memo]] = []
        for name in self._memos:
            piece = self.defined if name == DEFINITIONS else self.all[name]  # type: ignore[assignment]
            memo = self._memos[name] = self._memo(piece)
            if piece.figure is not None:
                parts.setdefault(id(piece.figure), []).append(name)
            elif name == DEFINITIONS or not self._failed(name):
                good.append((name, memo))
        good += [(names[0], self._memos[names[0]]) for names in parts.values()]
        drawn = {name for name, piece in self.all.items() if _draws(piece)}
        self.connected = connect(good, drawn)
        for first, *others in parts.values():
            for name in others:
                self.connected.join(first, name)

    def reach(self, settled: Mapping[int, Iterable[str]]) -> set[str]:
        """Names of settled containers that lie within the pieces, and so belong to their groups."""
        pieces = [piece for piece in self.all.values() if not is_still(piece.values[0])]
        if self.defined is not None:
            pieces.append(self.defined)
        found: set[str] = set()
        for piece in pieces:
            for ident in settled.keys() & self._memo(piece).keys():
                found.update(settled[ident])
        return found

    def _failed(self, name: str) -> bool:
        return self.all[name].error is not None

    def notes(self) -> dict[str, str]:
        """What the guarantee does not cover, for every stored piece."""
        lost: dict[int, tuple[str, Any]] = {}
        for name, memo in self._memos.items():
            if name != DEFINITIONS and self._failed(name):
                lost.update((ident, (name, found[1])) for ident, found in memo.items())
        notes: dict[str, str] = {}
        for name, piece in self.all.items():
            if piece.error is not None:
                continue
            texts = []
            for ident in lost.keys() & self._memos.get(name, {}).keys():
                other, obj = lost[ident]
                if is_shared(obj):
                    texts.append(f"shares an object with `{other}`, which is not stored")
                    break
            if any(kind.__name__ == "_lru_cache_wrapper" for kind in piece.kinds):
                texts.append(_NOT_KEPT)
            notes[name] = "; ".join(texts)
        return notes

    def groups(self) -> Iterator[Piece]:
        """The components: one piece each. Failed ones are single."""
        sets: dict[Any, list[str]] = {}
        for name, piece in self.all.items():
            if piece.error is not None:
                yield piece
            else:
                sets.setdefault(self.connected.find(name), []).append(name)
        with_definitions = sets.pop(self.connected.find(DEFINITIONS), [])
        if self.defined is not None:
            if with_definitions:
                names = tuple(sorted(with_definitions))
                values = [self.all[name].values[0] for name in names]
                joint = self._closure(self.defined.definitions, values, names)
                if joint.error is None:
                    yield joint
                else:
                    yield self.defined
                    for name in names:
                        yield self.all[name]
            else:
                yield self.defined
        for members in sets.values():
            yield self._together(tuple(sorted(members)))

    def _memo(self, piece: Piece) -> dict[int, tuple[int, Any]]:
        """The objects of a piece by address, as far as others can share them."""
        pickler = (piece.figure or piece).pickler
        if pickler is None:
            return {}
        known = self._copied.get(id(pickler))
        if known is None:
            value: Any = piece.values[0] if piece.values else None
            if type(value) in {list, dict, tuple} and len(value) > _MANY and is_flat(value):
                # copying a memo of a million tuples takes longer than pickling them
                known = {id(value): (0, value)}
            else:
                known = pickler.memo.copy()
            self._copied[id(pickler)] = known
        return known


def _draws(piece: Piece) -> bool:
    """Whether something of matplotlib is in it."""
    return any(str(kind.__module__).startswith("matplotlib") for kind in piece.kinds)
