"""Tables of pandas, polars and Arrow, page by page: sorted and filtered by DuckDB.

DuckDB only finds the numbers of a page's rows; what is shown of them comes from the table itself,
so it looks the same, its index and types too, whatever is sorted or filtered. Columns are told
apart by their places, as two may have one name, or names that differ in case only, which are one
to DuckDB.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from cellrail.errors import UserError

#: rows of a table on a page, columns on one, characters of a cell
PAGE, COLUMNS, _CELL = 25, 60, 200
_ROW = "__cellrail_row__"


class _Frame(msgspec.Struct, frozen=True, kw_only=True):
    """A table, whatever library it is of."""

    columns: Sequence[str]
    types: Sequence[str]
    rows: int
    #: what stands above its index; "" where it has none
    index: str = ""
    #: places of columns of which DuckDB knows nothing
    unreadable: frozenset[int] = frozenset()
    #: the whole for DuckDB, with these names for its columns and the numbers of its rows in a
    #: further column of this name
    asked: Callable[[list[str], str], Any]
    #: the rows of these numbers, with the index before the columns of these places
    part: Callable[[Sequence[int], range], Iterable[Iterable[Any]]]


def pandas_page(value: Any, args: Mapping[str, Any]) -> dict[str, Any]:
    """A page of a DataFrame or Series of pandas.

    Args:
        value: the table.
        args: `offset`, the first row; `column`, the place of the first column; `sort`, the place
            of a column, and `descending`; `where`, a condition in SQL.
    """
    frame = value if hasattr(value, "columns") else value.to_frame(str(value.name or "value"))
    levels = _levels(frame.index.names)
    unreadable = frozenset(n for n, kind in enumerate(frame.dtypes) if _is_unreadable(kind))

    def asked(names: list[str], row: str) -> Any:
        copy = frame.copy(deep=False)
        copy.columns = names
        copy = copy.drop(columns=[names[place] for place in unreadable])
        known = {name.lower() for name in (*names, row)}
        for place, level in enumerate(levels):
            values = frame.index.get_level_values(place)
            if _is_unreadable(values.dtype):
                continue
            # in the filter a column of this name counts before it
            if level.lower() not in known:
                known.add(level.lower())
                copy.insert(len(copy.columns), level, values.array)
        copy.insert(len(copy.columns), row, range(len(copy)))
        return copy

    def part(numbers: Sequence[int], places: range) -> Iterator[tuple[Any, ...]]:
        rows = frame.iloc[list(numbers), places.start : places.stop]
        return iter(rows.itertuples(name=None))

    told = _Frame(
        columns=[str(column) for column in frame.columns],
        types=[str(kind) for kind in frame.dtypes],
        rows=len(frame),
        index=", ".join(levels),
        unreadable=unreadable,
        asked=asked,
        part=part,
    )
    return _page(told, args)


def _levels(names: Sequence[Any]) -> list[str]:
    """What the levels of an index are called: without a name as `reset_index` of pandas does."""
    nameless = "index" if len(names) == 1 else "level_{}"
    told = ("" if name is None else str(name) for name in names)
    return [name or nameless.format(place) for place, name in enumerate(told)]


def _is_unreadable(kind: Any) -> bool:
    """Whether DuckDB refuses a frame of pandas for a column of this type."""
    words = str(kind).lower()
    return words.startswith(("period", "interval", "sparse", "complex"))


def polars_page(value: Any, args: Mapping[str, Any]) -> dict[str, Any]:
    """A page of a DataFrame or Series of polars; `args` as of `pandas_page`."""
    frame = value if hasattr(value, "columns") else value.to_frame()

    def asked(names: list[str], row: str) -> Any:
        copy = frame.clone()
        copy.columns = names
        return copy.with_row_index(row)

    told = _Frame(
        columns=list(frame.columns),
        types=[str(kind) for kind in frame.dtypes],
        rows=frame.height,
        asked=asked,
        part=lambda numbers, places: frame.select(frame.columns[places.start : places.stop])[
            list(numbers)
        ].rows(),
    )
    return _page(told, args)


def arrow_page(value: Any, args: Mapping[str, Any]) -> dict[str, Any]:
    """A page of a table of Arrow; `args` as of `pandas_page`."""
    import pyarrow as pa

    def part(numbers: Sequence[int], places: range) -> Iterator[Iterable[Any]]:
        rows = value.select(list(places)).take(pa.array(numbers, pa.int64()))
        # by place: a dict would hold one of two columns that have one name
        return (row.values() for row in rows.rename_columns(list(map(str, places))).to_pylist())

    def asked(names: list[str], row: str) -> Any:
        import pyarrow.compute as pc

        numbers = pc.cumulative_sum(pa.repeat(1, value.num_rows), start=-1)
        return value.rename_columns(names).append_column(row, numbers)

    told = _Frame(
        columns=[str(name) for name in value.column_names],
        types=[str(kind) for kind in value.schema.types],
        rows=value.num_rows,
        asked=asked,
        part=part,
    )
    return _page(told, args)


def _page(frame: _Frame, args: Mapping[str, Any]) -> dict[str, Any]:
    offset = max(int(args.get("offset") or 0), 0)
    names = _names(frame.columns)
    numbers: Sequence[int]
    if args.get("sort") is not None or str(args.get("where") or "").strip():
        total, numbers = _found(frame, names, args, offset)
    else:
        total, numbers = frame.rows, range(offset, max(min(offset + PAGE, frame.rows), offset))
    width = len(frame.columns)
    first = min(max(int(args.get("column") or 0), 0), max(width - 1, 0))
    places = range(first, min(first + COLUMNS, width))
    return {
        "kind": "table",
        "columns": [
            [frame.columns[place], frame.types[place], _is_number(frame.types[place])]
            for place in places
        ],
        # what a column is called in the filter, where that is not its name
        "called": [
            "" if names[place] == frame.columns[place] else names[place] for place in places
        ],
        "rows": [list(map(cell_text, row)) for row in frame.part(numbers, places)],
        "total": total,
        "offset": offset,
        "limit": PAGE,
        "index": frame.index,
        "column": first,
        "columns_total": width,
        "columns_limit": COLUMNS,
    }


def _found(
    frame: _Frame, names: list[str], args: Mapping[str, Any], offset: int
) -> tuple[int, list[int]]:
    """How many rows fit a condition, and the numbers of those on a page, in their order."""
    import duckdb

    where = str(args.get("where") or "").strip()
    having = f"WHERE ({where}\n)" if where else ""
    order = f"ORDER BY {_sorted_by(frame, names, args)}{_ROW}"
    connection = duckdb.connect(":memory:")
    try:
        connection.execute("SET python_enable_replacements = false")
        connection.execute("SET enable_external_access = false")
        connection.register("frame", frame.asked(names, _ROW))
        counted = connection.execute(f"SELECT count(*) FROM frame {having}").fetchone()  # noqa: S608
        found = connection.execute(
            f"SELECT {_ROW} FROM frame {having} {order} LIMIT {PAGE} OFFSET {offset}"  # noqa: S608
        )
        numbers = [int(number) for (number,) in found.fetchall()]
    except duckdb.Error as error:
        raise UserError(
            f"the filter is wrong: {str(error).splitlines()[0]}",
            hint="it is what stands behind WHERE in SQL, such as: dep_delay > 60",
        ) from error
    finally:
        connection.close()
    return counted[0] if counted is not None else 0, numbers


def _sorted_by(frame: _Frame, names: list[str], args: Mapping[str, Any]) -> str:
    place = args.get("sort")
    if place is None:
        return ""
    if not 0 <= int(place) < len(names):
        raise UserError(f"there is no column {place}")
    if int(place) in frame.unreadable:
        raise UserError(f"columns of type {frame.types[int(place)]} cannot be sorted or filtered")
    name = names[int(place)].replace('"', '""')
    return f'"{name}" {"DESC" if args.get("descending") else "ASC"} NULLS LAST, '


def _names(columns: Sequence[str]) -> list[str]:
    """What each column is called in SQL: its name; numbered where that is no name of its own.

    Of columns whose names are one to DuckDB each gets a number, the first too: a filter that has
    the name alone is refused, and not taken to mean any of them.
    """
    often = Counter(column.lower() for column in columns)
    taken = {*often, _ROW}
    names = []
    number: Counter[str] = Counter()
    for column in columns:
        name, folded = column, column.lower()
        if not column or often[folded] > 1 or folded == _ROW:
            while name.lower() in taken or not name:
                number[folded] += 1
                name = f"{column or 'column'}_{number[folded]}"
            taken.add(name.lower())
        names.append(name)
    return names


def _is_number(kind: str) -> bool:
    words = ("int", "float", "double", "decimal", "number", "uint", "hugeint", "real")
    return kind.lower().startswith(words)


def cell_text(value: Any) -> str:
    """A value in a table, in short."""
    if value is None:
        return ""
    if isinstance(value, float):
        return format(value, ".6g")
    try:
        text = str(value)
    except Exception as error:  # noqa: BLE001 - it is the user's class
        return f"<{type(value).__name__}: {type(error).__name__}>"
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"
