"""Pieces of variables that hold a matplotlib figure or parts of one (`drawings` tells which do).

The figure is pickled once for all of them. A part has no stream of its own: its content is the
figure's and the places of what it holds in the figure's memo. Only what is written gets a stream:
the figure, then each of the parts.
"""

from __future__ import annotations

from collections.abc import Sequence

from .digests import Hasher
from .drawings import FIGURE, figure_of, places_in
from .dumping import Dumper
from .piece import Piece


class Figures:
    """The figures that were met in one capture."""

    def __init__(self, dumper: Dumper) -> None:
        self._dumper = dumper
        self._whole: dict[int, Piece] = {}

    def close(self) -> None:
        """Let go of the user's objects."""
        self._whole.clear()

    def part(self, name: str, value: object, *, nans: bool = False) -> Piece | None:
        """The piece of a variable that holds a figure or parts of it; see `Dumper.dump`."""
        figure = figure_of(value)
        if figure is None:
            return None
        whole = self._whole.get(id(figure))
        if whole is None:
            whole = self._whole[id(figure)] = self._dumper.dump((FIGURE,), [figure], nans=nans)
        if whole.error is not None:
            return None
        memo = self._dumper.memo(whole)
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
            nans=whole.nans,
        )

    @staticmethod
    def joint(names: tuple[str, ...], pieces: Sequence[Piece]) -> Piece | None:
        """Variables that hold parts of one figure, together; None where they do not."""
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
        made = self._whole.pop(id(whole.values[0]), None)
        if made is None or made.pickler is None:  # its pickler went on with other values already
            made = self._dumper.dump(piece.heads, [whole.values[0], *piece.values], nans=whole.nans)
        else:
            self._dumper.go_on(made, made.pickler, piece.values)
        piece.error, piece.over_limit = made.error, made.over_limit
        piece.stream, piece.buffers = made.stream, made.buffers
