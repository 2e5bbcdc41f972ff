"""Journals into a catalog: the rows of every run whose journal has changed, made anew.

A job that was committed never changes, so of a run that goes on only the new jobs are added.

Journals are read in batches, newest runs first; each batch is one transaction. A run that is known
to exist but was not read yet has the length -1, so a kill between two batches loses no run: what
has not ended is looked at again every time, what has ended does not grow any more.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from cellrail_state.errors import StoreError
from cellrail_state.news import Told
from cellrail_state.rows import Rows, rows_of
from cellrail_state.sql import queries

if TYPE_CHECKING:
    from cellrail_state.store import Store

TABLES = ("runs", "steps", "jobs", "variables", "waits", "journals")
#: whose rows are made anew where a journal has grown
_OF_RUNS = ("steps", "waits", "runs", "journals")
#: runs of a transaction
_BATCH = 500
#: the same where time is short
_SMALL_BATCH = 25


class Ingested(msgspec.Struct, frozen=True, kw_only=True):
    """What an ingest has done."""

    #: runs whose newest records it had no time for
    behind: int
    #: every journal was looked at
    whole: bool
    #: what need not be told any more: runs that have rows, runs without a journal
    known: set[str]
    gone: set[str]


class _Changes(msgspec.Struct, kw_only=True):
    """What differs between journals and rows."""

    #: length of each journal to be read, by run
    read: dict[str, int] = {}
    #: runs that have rows, among those that were looked at
    known: set[str] = set()
    #: runs without a journal
    gone: set[str] = set()


def ingest(connection: Any, store: Store, *, seconds: float | None = None) -> Ingested:
    """Bring a catalog up to date.

    Args:
        connection: the catalog.
        store: where the journals lie.
        seconds: stop after this, whatever is left.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    for rename in store.renames:
        connection.execute(queries()["rename_flow"], msgspec.to_builtins(rename))
    told = store.news.told()
    if told is None or not fetch(connection, queries()["count_journals"])[0]["runs"]:
        told = None
        changes = _everything(connection, store)
    else:
        changes = _what_is_told(connection, store, told)
    gone = sorted(changes.gone & changes.known)
    if gone:
        # the variables first: they are found by their jobs
        _write(
            connection,
            store,
            Rows(),
            ("variables", "jobs", *_OF_RUNS),
            gone,
        )
    if told is None:
        _announce(connection, store, changes)
    left = sorted(changes.read, reverse=True)
    size = _BATCH if deadline is None else _SMALL_BATCH
    while left and (deadline is None or time.monotonic() < deadline):
        batch, left = left[:size], left[size:]
        again = sorted(changes.known.intersection(batch))
        rows = fetch(connection, queries()["count_jobs"], {"runs": again}) if again else []
        jobs = {row["run_id"]: row["jobs"] for row in rows}
        fresh = Rows()
        for run_id in batch:
            rows_of(store, run_id, changes.read[run_id], jobs.get(run_id, 0), into=fresh)
        _write(connection, store, fresh, _OF_RUNS, again)
    return Ingested(
        behind=len(left),
        whole=told is None,
        known=(changes.known | changes.read.keys()) - changes.gone,
        gone=changes.gone,
    )


def _everything(connection: Any, store: Store) -> _Changes:
    """Compare every journal's length with what has been read of it."""
    known = {row["run_id"]: row["bytes"] for row in fetch(connection, queries()["read_so_far"])}
    sizes = store.journal_sizes()
    return _Changes(
        read={run_id: size for run_id, size in sizes.items() if known.get(run_id) != size},
        known=set(known),
        gone=known.keys() - sizes.keys(),
    )


def _what_is_told(connection: Any, store: Store, told: Told) -> _Changes:
    """Compare the lengths of the journals that are new, deleted, or have not ended."""
    runs = sorted(told.begun | told.gone)
    rows = fetch(connection, queries()["read_of_some"], {"runs": runs})
    changes = _Changes(known={row["run_id"] for row in rows})
    lengths = {row["run_id"]: row["bytes"] for row in rows}
    for run_id in {*lengths, *runs}:
        size = store.journal_size(run_id)
        if not size:
            changes.gone.add(run_id)
        elif lengths.get(run_id) != size:
            changes.read[run_id] = size
    return changes


def _announce(connection: Any, store: Store, changes: _Changes) -> None:
    """Note which runs there are before the first of them is read."""
    fresh = Rows()
    unknown = changes.read.keys() - changes.known
    fresh.journals = [{"run_id": r, "bytes": -1, "ended": False} for r in sorted(unknown)]
    _write(connection, store, fresh, (), ())
    changes.known |= unknown


def _write(
    connection: Any, store: Store, fresh: Rows, tables: Sequence[str], stale: Sequence[str]
) -> None:
    """In one transaction: drop the rows of some runs from tables and insert new ones."""
    connection.execute("BEGIN")
    for name in tables if stale else ():
        connection.execute(queries()[f"forget_{name}"], {"runs": list(stale)})
    for table in TABLES:
        insert(connection, table, getattr(fresh, table))
    store.points.reach("catalog.before_commit")
    connection.execute("COMMIT")
    store.points.reach("catalog.after_commit")


def insert(connection: Any, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert many rows in one statement (row by row is a hundred times slower)."""
    if not rows:
        return
    columns = fetch(connection, queries()["columns"].replace("TABLE_NAME", table))
    kinds = {column["column_name"]: column["column_type"] for column in columns}
    structure = msgspec.json.encode([kinds]).decode()
    connection.execute(
        f"INSERT INTO {table} BY NAME SELECT r.* FROM "  # noqa: S608 - names of our own schema
        f"(SELECT unnest(from_json($rows, '{structure}')) AS r)",
        {"rows": msgspec.json.encode(list(rows)).decode()},
    )


def fetch(
    connection: Any, sql: str, parameters: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The rows of a query, by column.

    Raises:
        StoreError: the query is wrong.
    """
    import duckdb

    try:
        cursor = connection.execute(sql, dict(parameters) if parameters else None)
    except duckdb.Error as error:
        raise StoreError(
            f"the query failed: {error}",
            hint="tables: " + ", ".join(TABLES[:-1]) + ", state; DESCRIBE runs tells columns",
        ) from error
    if cursor.description is None:
        return []
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
