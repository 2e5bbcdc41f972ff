"""Previews of checkpointed values: tables page by page, arrays in numbers, figures drawn.

Values are loaded here, in the process behind the panels and not in the notebook's kernel; those
that were looked at last are kept, as long as they are small.
"""

from __future__ import annotations

import base64
import io
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cellrail.panels.rooms.frames import arrow_page, cell_text, pandas_page, polars_page
from cellrail_state.model import Verdict

if TYPE_CHECKING:
    from cellrail.views import VariableView

#: bytes of a value that is loaded without being asked twice, and of all that are kept
LARGE, _KEPT = 500_000_000, 600_000_000
#: numbers of an array that are shown, in rows and columns
_ROWS_SHOWN, _NUMBERS_SHOWN = 12, 10
#: characters of any other value
_TEXT = 20_000


class Previews:
    """Loads values and tells what they look like."""

    def __init__(self) -> None:
        self._values: OrderedDict[Any, tuple[Any, int]] = OrderedDict()

    def preview(
        self, place: tuple[str, str], view: VariableView, args: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What a variable looks like.

        Args:
            place: run and step.
            view: the variable.
            args: of a table those of `frames.pandas_page`; `anyway` loads a large value.
        """
        record = view.record
        told = {"name": view.name, "type": record.type, "bytes": record.size}
        if view.verdict is not Verdict.STORED:
            return {**told, "kind": "note", "text": f"{view.verdict}: {record.reason}"}
        if record.size > LARGE and not args.get("anyway"):
            return {**told, "kind": "large"}
        value = self._value((*place, view.name, record.component), view)
        return {**told, **look_at(value, args)}

    def _value(self, key: Any, view: VariableView) -> Any:
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key][0]
        value = view.load()
        self._values[key] = value, view.record.size
        while sum(size for _, size in self._values.values()) > _KEPT and len(self._values) > 1:
            self._values.popitem(last=False)
        return value


def look_at(value: Any, args: Mapping[str, Any]) -> dict[str, Any]:
    """A value as plain data."""
    for is_one, show in _KINDS:
        if is_one(value):
            return show(value, args)
    return {"kind": "text", "text": _text(value)}


# --- what is shown how ------------------------------------------------------------------------


def _is(module: str, *names: str) -> Callable[[Any], bool]:
    """Whether a value is of a class of a module that is loaded: nothing is imported to find out."""

    def is_one(value: Any) -> bool:
        found = sys.modules.get(module)
        kinds = tuple(k for n in names if isinstance(k := getattr(found, n, None), type))
        return bool(kinds) and isinstance(value, kinds)

    return is_one


# --- arrays, figures, the rest ---------------------------------------------------------------


def _array(value: Any, args: Mapping[str, Any]) -> dict[str, Any]:
    del args
    import numpy as np

    facts = [
        ["shape", " by ".join(map(str, value.shape)) or "a number"],
        ["type", str(value.dtype)],
    ]
    if value.size and value.dtype.kind in "iufb":
        finite = value[np.isfinite(value)] if value.dtype.kind == "f" else value
        if finite.size:
            facts += [
                ["least", cell_text(finite.min().item())],
                ["greatest", cell_text(finite.max().item())],
                ["mean", cell_text(float(finite.mean()))],
            ]
        if value.dtype.kind == "f":
            facts.append(["not finite", f"{value.size - finite.size:,}"])
    corner = value
    while corner.ndim > 2:
        corner = corner[0]
    corner = corner.reshape(1, -1) if corner.ndim < 2 else corner
    rows = [list(map(cell_text, row[:_NUMBERS_SHOWN].tolist())) for row in corner[:_ROWS_SHOWN]]
    return {"kind": "array", "facts": facts, "rows": rows, "cut": value.size > sum(map(len, rows))}


def _figure(value: Any, args: Mapping[str, Any]) -> dict[str, Any]:
    del args
    figure = value if hasattr(value, "savefig") else value.figure
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100, bbox_inches="tight")
    encoded = base64.b64encode(drawn.getvalue()).decode()
    return {"kind": "picture", "src": f"data:image/png;base64,{encoded}", "text": _text(value)}


def _text(value: Any) -> str:
    """Anything else, as Python writes it."""
    from IPython.lib.pretty import pretty

    try:
        text = value if isinstance(value, str) else pretty(value, max_width=100, max_seq_length=200)
    except Exception as error:  # noqa: BLE001 - it is the user's class
        return f"<{type(value).__qualname__}, whose repr fails: {type(error).__name__}: {error}>"
    return text if len(text) <= _TEXT else text[:_TEXT] + "\n…"


#: how what is shown; the first that fits
_KINDS: tuple[tuple[Callable[[Any], bool], Callable[..., dict[str, Any]]], ...] = (
    (_is("pandas", "DataFrame", "Series"), pandas_page),
    (_is("polars", "DataFrame", "Series"), polars_page),
    (_is("pyarrow", "Table"), arrow_page),
    (_is("numpy", "ndarray"), _array),
    (_is("matplotlib.figure", "Figure"), _figure),
    (_is("matplotlib.axes", "Axes"), _figure),
)
