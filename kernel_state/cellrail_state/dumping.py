"""Pickles values into pieces, for one capture: within limits, whatever the user's code does.

The picklers stay open until the capture ends, because their memos tell which objects they met.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from .definitions import Definitions
from .digests import Hasher
from .nans import may_hold_nans
from .pickling import NanPickler, OverLimit, Pickler, Sink, explain, fill
from .piece import Piece
from .sharing import is_flat
from .slabs import Slabs, cut

_LIMIT = 5_000
_MANY = 1_000


class Dumper:
    """Makes pieces, and keeps their picklers."""

    def __init__(
        self,
        definitions: Definitions,
        *,
        max_value: int | None,
        deadline: float | None,
    ) -> None:
        """Prepare to pickle.

        Args:
            definitions: the functions and classes of the notebook, by key.
            max_value: bytes of the longest stream.
            deadline: monotonic seconds when values are given up.
        """
        self._table, self._hasher = definitions, Hasher()
        self._max_value, self._deadline = max_value, deadline
        self._picklers: list[Pickler] = []
        self._copied: dict[int, dict[int, tuple[int, Any]]] = {}

    def close(self) -> None:
        """Let go of the user's objects: picklers are cycles, which would keep them until a gc."""
        for pickler in self._picklers:
            pickler.close()
        self._picklers.clear()
        self._copied.clear()

    def dump(
        self,
        names: tuple[str, ...],
        values: list[Any],
        keys: Iterable[str] | None = None,
        before: Slabs | None = None,
        *,
        nans: bool = False,
    ) -> Piece:
        """Pickle values into one stream.

        Args:
            names: what they are called.
            values: what they are, in the same order.
            keys: of functions and classes that stand before them, by value.
            before: what the one value was cut into at the capture before.
            nans: they held NaNs when they were pickled last, and probably do so again.
        """
        piece = self._attempt(names, values, keys, before, nans=nans)
        if piece.error == "it is nested too deeply" and sys.getrecursionlimit() < _LIMIT:
            limit = sys.getrecursionlimit()
            sys.setrecursionlimit(_LIMIT)
            try:
                piece = self._attempt(names, values, keys, before, nans=nans)
            finally:
                sys.setrecursionlimit(limit)
        return piece

    def _attempt(
        self,
        names: tuple[str, ...],
        values: list[Any],
        keys: Iterable[str] | None,
        before: Slabs | None,
        *,
        nans: bool,
    ) -> Piece:
        # (where there is no NaN, both make the same stream)
        if not nans:
            piece = self._made(Pickler, names, values, keys, before)
            if piece.error is not None or not may_hold_nans(piece.stream):
                return piece
        return self._made(NanPickler, names, values, keys, before)

    def _made(
        self,
        kind: type[Pickler],
        names: tuple[str, ...],
        values: list[Any],
        keys: Iterable[str] | None,
        before: Slabs | None,
    ) -> Piece:
        deadline = self._deadline if keys is None else None
        sink = Sink(self._max_value, deadline)
        pickler = kind(self._table, sink, by_value=keys is not None)
        self._picklers.append(pickler)
        piece = Piece(names, values, pickler=pickler)
        try:
            if keys is None and len(values) == 1:
                piece.slabs = cut(values[0], before, sink.foresee)
            fill(pickler, values if piece.slabs is None else [piece.slabs], keys)
            piece.stream = sink.bytes()
            piece.content = self._hasher.content(piece.stream, pickler.buffers)
        except Exception as error:  # noqa: BLE001 - the user's own code may raise anything
            piece.error, piece.over_limit = explain(error), isinstance(error, OverLimit)
        pickler.kinds.pop(Slabs, None)
        piece.buffers, piece.kinds = pickler.buffers, pickler.kinds.keys()
        piece.keys, piece.modules = tuple(pickler.keys), pickler.modules
        piece.nans = pickler.holds_nans
        return piece

    def go_on(self, piece: Piece, pickler: Pickler, values: Iterable[Any]) -> None:
        """Pickle further values into a piece's stream."""
        try:
            for value in values:
                pickler.dump(value)
        except Exception as error:  # noqa: BLE001 - a library's own code
            piece.error, piece.over_limit = explain(error), isinstance(error, OverLimit)
        piece.stream, piece.buffers = pickler.sink.bytes(), pickler.buffers

    def memo(self, piece: Piece) -> dict[int, tuple[int, Any]]:
        """The objects of a piece by address, as far as others can share them."""
        pickler = (piece.figure or piece).pickler
        if pickler is None:
            return {}
        known = self._copied.get(id(pickler))
        if known is None:
            value: Any = piece.values[0] if piece.values else None
            if piece.slabs is not None or _is_long_and_flat(value):
                # copying a memo of a million tuples takes longer than pickling them
                known = {id(value): (0, value)}
            else:
                known = pickler.memo.copy()
            self._copied[id(pickler)] = known
        return known


def _is_long_and_flat(value: Any) -> bool:
    return type(value) in {list, dict, tuple} and len(value) > _MANY and is_flat(value)
