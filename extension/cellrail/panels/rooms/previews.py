"""Previews of checkpointed values: tables page by page, arrays in numbers, figures drawn.

Values are loaded here, in the process behind the panels and not in the notebook's kernel; those
that were looked at last are kept, as long as they are small.
"""

from __future__ import annotations

import base64
import io
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cellrail.errors import UserError
from cellrail_state.model import Verdict

if TYPE_CHECKING:
    from cellrail.views import VariableView

#: rows of a table on a page, columns at most, characters of a cell
PAGE, _COLUMNS, _CELL = 25, 60, 200
#: bytes of a value that is loaded without being asked twice, and of all that are kept
LARGE, _KEPT = 500_000_000, 600_000_000
#: numbers of an array that are shown, in rows and columns
_ROWS_SHOWN, _NUMBERS_SHOWN = 12, 10
#: characters of any other value
_TEXT = 20_000
_INDEX = "__cellrail_index__"


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
            args: of a table `offset`, `sort`, `descending`, `where`; `anyway` loads a large value.
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


# --- tables ----------------------------------------------------------------------------------


def _is(module: str, *names: str) -> Callable[[Any], bool]:
    """Whether a value is of a class of a module that is loaded: nothing is imported to find out."""

    def is_one(value: Any) -> bool:
        found = sys.modules.get(module)
        kinds = tuple(k for n in names if isinstance(k := getattr(found, n, None), type))
        return bool(kinds) and isinstance(value, kinds)

    return is_one


def _pandas(value: Any, args: Mapping[str, Any]) -> dict[str, Any]:
    frame = value if hasattr(value, "columns") else value.to_frame(str(value.name or "value"))
    columns = [str(column) for column in frame.columns]
    wanted = args.get("sort") or args.get("where")
    fits = len(set(columns)) == len(columns) and _INDEX not in columns
    if wanted and not fits:
        raise UserError("columns of the same name: this table cannot be sorted or filtered")
    if wanted:
        return _with_sql(frame.set_axis(columns, axis=1), columns, args)
    offset = _offset(args)
    part = frame.iloc[offset : offset + PAGE, :_COLUMNS]
    rows = [
        [_cell(index), *map(_cell, row)]
        for index, row in zip(part.index, part.itertuples(index=False, name=None), strict=True)
    ]
    kinds = [[name, str(kind)] for name, kind in zip(columns, frame.dtypes, strict=True)]
    return _table(kinds, rows, total=len(frame), offset=offset, index=True)


def _polars(value: Any, args: Mapping[str, Any]) -> dict[str, Any]:
    frame = value if hasattr(value, "columns") else value.to_frame()
    if args.get("sort") or args.get("where"):
        return _with_sql(frame, list(frame.columns), args)
    offset = _offset(args)
    columns = list(frame.columns)
    rows = frame.slice(offset, PAGE).select(columns[:_COLUMNS]).rows()
    kinds = [[name, str(kind)] for name, kind in zip(columns, frame.dtypes, strict=True)]
    listed = [list(map(_cell, row)) for row in rows]
    return _table(kinds, listed, total=frame.height, offset=offset, index=False)


def _arrow(value: Any, args: Mapping[str, Any]) -> dict[str, Any]:
    columns = [str(name) for name in value.column_names]
    if args.get("sort") or args.get("where"):
        return _with_sql(value, columns, args)
    offset = _offset(args)
    part = value.slice(offset, PAGE).select(range(min(len(columns), _COLUMNS)))
    rows = [list(map(_cell, row.values())) for row in part.to_pylist()]
    kinds = [[name, str(kind)] for name, kind in zip(columns, value.schema.types, strict=True)]
    return _table(kinds, rows, total=value.num_rows, offset=offset, index=False)


def _with_sql(frame: Any, columns: Sequence[str], args: Mapping[str, Any]) -> dict[str, Any]:
    """A page of a table that is sorted or filtered: DuckDB does both."""
    import duckdb

    sort, where = str(args.get("sort") or ""), str(args.get("where") or "").strip()
    if sort and sort not in columns:
        raise UserError(f"there is no column {sort!r}")
    way = "DESC" if args.get("descending") else "ASC"
    order = f"ORDER BY {_quoted(sort)} {way} NULLS LAST" if sort else ""
    having = f"WHERE ({where}\n)" if where else ""
    offset = _offset(args)
    connection = duckdb.connect(":memory:")
    try:
        connection.execute("SET python_enable_replacements = false")
        connection.execute("SET enable_external_access = false")
        connection.register("frame", frame)
        counted = connection.execute(f"SELECT count(*) FROM frame {having}").fetchone()  # noqa: S608
        listed = ", ".join(map(_quoted, columns[:_COLUMNS]))
        found = connection.execute(
            f"SELECT {listed} FROM frame {having} {order} LIMIT {PAGE} OFFSET {offset}"  # noqa: S608
        )
        kinds = [[column[0], str(column[1]).lower()] for column in found.description]
        rows = [list(map(_cell, row)) for row in found.fetchall()]
    except duckdb.Error as error:
        raise UserError(
            f"the filter is wrong: {str(error).splitlines()[0]}",
            hint="it is what stands behind WHERE in SQL, such as: dep_delay > 60",
        ) from error
    finally:
        connection.close()
    total = counted[0] if counted is not None else 0
    return _table(kinds, rows, total=total, offset=offset, index=False, width=len(columns))


def _table(
    kinds: list[list[str]], rows: list[list[str]], *, total: int, offset: int, index: bool,
    width: int = 0,
) -> dict[str, Any]:  # fmt: skip
    shown = kinds[:_COLUMNS]
    return {
        "kind": "table",
        "columns": [[name, kind, _is_number(kind)] for name, kind in shown],
        "rows": rows,
        "total": total,
        "offset": offset,
        "limit": PAGE,
        "index": index,
        "more_columns": (width or len(kinds)) - len(shown),
    }


def _is_number(kind: str) -> bool:
    words = ("int", "float", "double", "decimal", "number", "uint", "hugeint", "real")
    return kind.lower().startswith(words)


def _offset(args: Mapping[str, Any]) -> int:
    return max(int(args.get("offset") or 0), 0)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return format(value, ".6g")
    try:
        text = str(value)
    except Exception as error:  # noqa: BLE001 - it is the user's class
        return f"<{type(value).__name__}: {type(error).__name__}>"
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


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
                ["least", _cell(finite.min().item())], ["greatest", _cell(finite.max().item())],
                ["mean", _cell(float(finite.mean()))],
            ]  # fmt: skip
        if value.dtype.kind == "f":
            facts.append(["not finite", f"{value.size - finite.size:,}"])
    corner = value
    while corner.ndim > 2:
        corner = corner[0]
    corner = corner.reshape(1, -1) if corner.ndim < 2 else corner
    rows = [[_cell(n) for n in row[:_NUMBERS_SHOWN].tolist()] for row in corner[:_ROWS_SHOWN]]
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
    (_is("pandas", "DataFrame", "Series"), _pandas),
    (_is("polars", "DataFrame", "Series"), _polars),
    (_is("pyarrow", "Table"), _arrow),
    (_is("numpy", "ndarray"), _array),
    (_is("matplotlib.figure", "Figure"), _figure),
    (_is("matplotlib.axes", "Axes"), _figure),
)
