"""The values of one capture, pickled one by one and then together where they share objects.

`add` pickles a variable by itself, `define` the functions and classes that the pieces need, as far
as they can be stored. `connect` finds which pieces share objects; `groups` then yields the
components, of several variables where they do.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from .baseline import Entry
from .definitions import Definitions, is_definition
from .dumping import Dumper
from .figures import Figures
from .piece import DEFINITIONS, HOLDS_A_SECRET, Piece
from .scanning import Scanner
from .sharing import Groups, Memo, can_be_told, connect, is_still, reachable

#: characters of a string that takes no more bytes than a reference to another
_SHORT = 2
#: objects of a value that cannot be stored that are compared with those of others
_NEAR = 10_000
_NOT_KEPT = "the contents of an lru_cache are not kept"


class Pieces:
    """All values that a capture has to look at."""

    def __init__(
        self,
        definitions: Definitions,
        *,
        scanner: Scanner,
        entries: Mapping[str, Entry],
        check: Callable[[Piece], str],
        max_value: int | None,
        deadline: float | None,
    ) -> None:
        self.all: dict[str, Piece] = {}
        self.connected = Groups()
        self.defined: Piece | None = None
        self._table, self._scanner = definitions, scanner
        self._entries, self._check = entries, check
        self._dumper = Dumper(definitions, max_value=max_value, deadline=deadline)
        self._figures = Figures(self._dumper)
        self._bad: dict[str, str] = {}
        self._memos: dict[str, Memo] = {}

    # --- pickling ----------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the user's objects."""
        self._dumper.close()
        self._figures.close()
        self._memos.clear()
        for piece in self.all.values():
            piece.figure = None

    def add(self, name: str, value: object) -> None:
        """Pickle a variable by itself; of a part of a figure, the figure."""
        entry = self._entries.get(name)
        nans = entry is not None and entry.nans
        piece = self._figures.part(name, value, nans=nans) or self._dumper.dump(
            (name,), [value], before=entry.slabs if entry is not None else None, nans=nans
        )
        changed = entry is None or entry.fresh is not None or entry.content != piece.content
        if piece.error is None and changed and self._secret(piece):
            piece.error = HOLDS_A_SECRET
        if piece.error is None and is_definition(value):
            piece.body_key = self._table.key(value)
        self.all[name] = piece

    def _secret(self, piece: Piece) -> bool:
        if piece.figure is not None:
            return self._secret(piece.figure)
        return any(map(self._scanner.hits, piece.data))

    def write_out(self, piece: Piece) -> None:
        """Give parts of a figure, which have none, their stream."""
        self._figures.write_out(piece)

    # --- functions and classes ---------------------------------------------------------------

    def define(self, keys: Iterable[str]) -> None:
        """Pickle the definitions that these keys and the pieces need."""
        wanted = dict.fromkeys(keys)
        for piece in self.all.values():
            wanted.update(dict.fromkeys(piece.keys))
        if not wanted:
            return
        self.defined = self.closure(wanted)
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
        return HOLDS_A_SECRET if self._secret(piece) else self._check(piece)

    def closure(
        self, keys: Iterable[str], values: Sequence[Any] = (), names: tuple[str, ...] = ()
    ) -> Piece:
        """Pickle definitions with all that these need, and values behind them."""
        wanted, nans = sorted(keys), self._hold_nans(names)
        while True:
            piece = self._dumper.dump(names, list(values), wanted, nans=nans)
            piece.definitions = tuple(wanted)
            if piece.error is not None or set(piece.keys) <= set(wanted):
                return piece
            wanted = sorted({*wanted, *piece.keys})

    def _separate(self, wanted: Iterable[str]) -> None:
        """Find the definitions that cannot be stored; the others are stored without them."""
        good: dict[str, None] = {}
        for key in wanted:
            piece = self.closure([key])
            if piece.error is not None:
                self._bad[key] = piece.error
            elif reason := self._unfit(piece):
                self._bad[key] = reason
            else:
                good.update(dict.fromkeys(piece.definitions))
        self.defined = self.closure(good) if good else None

    def bodies(self, before: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
        """Digests of the variables that are definitions, with all they reach."""
        known = dict(before or {})
        for piece in self.all.values():
            key = piece.body_key
            if key and key not in known and key not in self._bad:
                known[key] = self.closure([key]).content
        return known

    # --- together ----------------------------------------------------------------------------

    def joint(self, names: tuple[str, ...], definitions: tuple[str, ...] = ()) -> Piece:
        """Pickle variables that were looked at in one stream, with the definitions they go with."""
        values = [self.all[name].values[0] for name in names]
        if definitions:
            return self.closure(definitions, values, names)
        return self._together(names)

    def _together(self, names: tuple[str, ...]) -> Piece:
        parts = self._figures.joint(names, [self.all[name] for name in names])
        if parts is not None:
            return parts
        if len(names) == 1:
            return self.all[names[0]]
        values = [self.all[name].values[0] for name in names]
        return self._dumper.dump(names, values, nans=self._hold_nans(names))

    def _hold_nans(self, names: Iterable[str]) -> bool:
        return any(name in self.all and self.all[name].nans for name in names)

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
            memo = self._memos[name] = self._dumper.memo(piece)
            if piece.figure is not None:
                parts.setdefault(id(piece.figure), []).append(name)
            elif name == DEFINITIONS or not self._failed(name):
                good.append((name, memo))
        good += [(names[0], self._memos[names[0]]) for names in parts.values()]
        drawn = {name for name, piece in self.all.items() if piece.draws}
        self.connected = connect(good, drawn)
        for first, *others in parts.values():
            for name in others:
                self.connected.join(first, name)

    def doubtful(self, piece: Piece) -> list[Collection[Any]]:
        """What may give a value other bytes, but no fewer, once it was loaded (see `fresh`)."""
        found: list[Collection[Any]] = []
        for _, obj in self._dumper.memo(piece).values():
            if type(obj) in {set, frozenset} or (type(obj) is str and len(obj) <= _SHORT):
                found.append(obj)
        return found

    def reach(self, settled: Mapping[int, Iterable[str]]) -> set[str]:
        """Names of settled containers that lie within the pieces, and so belong to their groups."""
        pieces = [piece for piece in self.all.values() if not is_still(piece.values[0])]
        if self.defined is not None:
            pieces.append(self.defined)
        found: set[str] = set()
        for piece in pieces:
            for ident in settled.keys() & self._dumper.memo(piece).keys():
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
                # pickle gave up before it met the rest
                inside = reachable([self.all[name].values[0]], limit=_NEAR)
                lost.update((ident, (name, obj)) for ident, obj in inside.items())
        notes: dict[str, str] = {}
        for name, piece in self.all.items():
            if piece.error is not None:
                continue
            texts = []
            for ident in lost.keys() & self._memos.get(name, {}).keys():
                other, obj = lost[ident]
                if can_be_told(obj):
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
                joint = self.closure(self.defined.definitions, values, names)
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
