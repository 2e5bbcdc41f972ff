"""Variables that hold parts of one matplotlib figure: a figure is pickled once for all of them.

An axes, a line, an array of axes each reach the whole figure, and pickling a figure is dear. So the
figure is pickled by itself, and what a variable holds of it is told by places in the memo.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

#: stands for the figure itself among the names of its component
FIGURE = "\0figure"
_FEW = 100

Memo = Mapping[int, tuple[int, Any]]


def figure_of(value: Any) -> Any:
    """The figure that a value is, or is a part of, or that all of its items are parts of."""
    artists = sys.modules.get("matplotlib.artist")
    if artists is None:
        return None
    items = _items(value)
    if not items or not all(isinstance(item, artists.Artist) for item in items):
        return None
    figures = [_root(item) for item in items]
    return figures[0] if all(figure is figures[0] for figure in figures) else None


def places_in(memo: Memo, value: Any) -> tuple[int, ...] | None:
    """Where a pickler met the parts of a figure that a value holds; None where it did not."""
    places = [memo.get(id(item)) for item in _items(value)]
    if any(place is None for place in places):
        return None
    return tuple(place[0] for place in places if place is not None)


def _items(value: Any) -> list[Any]:
    np = sys.modules.get("numpy")
    if np is not None and type(value) is np.ndarray:
        return list(value.flat) if value.dtype.hasobject and value.size <= _FEW else []
    return list(value) if type(value) in {list, tuple} and len(value) <= _FEW else [value]


def _root(artist: Any) -> Any:
    """The outermost figure that an artist is in; None where it is in none."""
    figure = getattr(artist, "figure", None)
    while figure is not None and getattr(figure, "figure", figure) is not figure:
        figure = figure.figure
    return figure


def constants() -> set[int]:
    """Addresses of objects of matplotlib itself that many figures show."""
    markers = sys.modules.get("matplotlib.markers")
    if markers is None:
        return set()
    transforms = sys.modules["matplotlib.transforms"]
    found = {id(getattr(transforms.IdentityTransform, "_mtx", None))}
    kept = (markers, markers.MarkerStyle, sys.modules["matplotlib.path"].Path)
    for part in (part for owner in kept for part in vars(owner).values()):
        if type(part).__name__ == "Path":
            found |= {id(part), id(vars(part)), *map(id, vars(part).values())}
    settings = sys.modules["matplotlib"].rcParams
    found |= {id(value) for value in dict.values(settings) if type(value) is list}
    # each copy of a registered map of colours shows its lists
    for known in sys.modules["matplotlib"].colormaps.values():
        if type(colours := getattr(known, "colors", None)) is list:
            found |= {id(colours), *map(id, colours)}
    return found
