"""The DuckDB catalog: the index of the journals that everybody queries.

It is never the truth. `ingest` reads every journal that has grown since and replaces that run's
rows in one transaction; doing so twice changes nothing. It happens at the end of a run and before
every query, by whoever gets the lock: our processes take turns through `catalog.lock`, connections
are short, and a catalog that another program holds open, or that is damaged, never stops anybody.
Then queries are answered from a database in memory that is filled from the journals: as right, only
slower.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from cellrail_state import locks
from cellrail_state.errors import StoreError, StoreTooNew
from cellrail_state.rows import Rows, RunRow, rows_of
from cellrail_state.sql import migrations, queries

if TYPE_CHECKING:
    from cellrail_state.store import Store

#: seconds that an ingest at a run's end waits for its turn
INGEST_SECONDS = 2.0
#: seconds that a query waits before it answers from memory
QUERY_SECONDS = 1.0
_TABLES = ("runs", "steps", "jobs", "variables", "journals")


class _Unavailable(Exception):
    """The file cannot be used now: another program holds it, or it is damaged."""


class Catalog:
    """The catalog of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._path = store.path / "catalog.duckdb"
        self._lock = store.path / "catalog.lock"

    def ingest(self, *, seconds: float = INGEST_SECONDS) -> bool:
        """Bring the catalog up to date with the journals.

        Args:
            seconds: how long to wait for a turn.

        Returns:
            Whether it is; False where it could not be had, which does no harm.
        """
        try:
            with self._connection(seconds):
                return True
        except _Unavailable:
            return False

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Rows of a query over an up-to-date catalog.

        Raises:
            StoreError: the query is wrong.
            StoreTooNew: the catalog was made by a newer version.
        """
        with self._any_connection() as connection:
            connection.execute("BEGIN")
            try:
                self._derive(connection)
                return _rows(connection, sql, parameters)
            finally:
                # it is an index: no query changes it, and what is derived is not written
                with contextlib.suppress(Exception):
                    connection.execute("ROLLBACK")

    def _derive(self, connection: Any) -> None:
        """Make `interrupted` what runs without an owner."""
        running = [row["run_id"] for row in _rows(connection, queries()["running"])]
        gone = [run_id for run_id in running if not self._store.is_owned(run_id)]
        if gone:
            connection.execute(queries()["interrupt_runs"], {"runs": gone})
            connection.execute(queries()["interrupt_steps"], {"runs": gone})

    def runs(
        self,
        *,
        flow: str | None = None,
        status: str | None = None,
        labels: Mapping[str, str] | None = None,
        parameters: Mapping[str, Any] | None = None,
        since: float | None = None,
        limit: int = 20,
    ) -> list[RunRow]:
        """The newest runs that fit, newest first.

        Args:
            flow: only this flow's.
            status: only these; `running` and `interrupted` are told apart by their locks.
            labels: only runs that bear all of them.
            parameters: only runs with these values (JSON-able).
            since: only runs started after this moment (seconds since the epoch).
            limit: at most so many.
        """
        values = {
            "flow": flow,
            "status": status,
            "since": since,
            "labels": msgspec.json.encode(dict(labels or {})).decode(),
            "parameters": msgspec.json.encode(dict(parameters or {})).decode(),
            "limit": limit,
        }
        return [RunRow.from_row(row) for row in self.query(queries()["newest_runs"], values)]

    def difference(self) -> str:
        """In which table the catalog says other than the journals; "" where in none."""
        try:
            with self._connection(QUERY_SECONDS) as connection, self._in_memory() as right:
                for table in _TABLES:
                    text = queries()["whole_table"].replace("TABLE_NAME", table)
                    if connection.execute(text).fetchall() != right.execute(text).fetchall():
                        return f"the rows of {table} are not what the journals say"
        except _Unavailable:
            pass  # `problem` tells
        return ""

    def rebuild(self) -> None:
        """Make the catalog anew from the journals.

        Raises:
            StoreError: another program holds it open.
        """
        with locks.locked(self._lock, seconds=INGEST_SECONDS) as got:
            if not got:
                raise StoreError("the catalog is in use; try again later")
            for suffix in ("", ".wal"):
                path = self._path.with_name(self._path.name + suffix)
                path.unlink(missing_ok=True)
        if not self.ingest():
            raise StoreError("the catalog is held open by another program; close it first")

    def problem(self) -> str:
        """Why the file cannot be used; "" where it can."""
        try:
            with self._connection(QUERY_SECONDS):
                return ""
        except _Unavailable as error:
            return str(error)

    # --- connections -------------------------------------------------------------------------

    @contextlib.contextmanager
    def _any_connection(self) -> Iterator[Any]:
        """The catalog, or where it cannot be had its like in memory."""
        with contextlib.ExitStack() as stack:
            try:
                connection = stack.enter_context(self._connection(QUERY_SECONDS))
            except _Unavailable:
                connection = stack.enter_context(self._in_memory())
            yield connection

    @contextlib.contextmanager
    def _connection(self, seconds: float) -> Iterator[Any]:
        """The catalog's file, up to date; ours alone while it is open."""
        import duckdb

        with contextlib.ExitStack() as stack:
            try:
                got = stack.enter_context(locks.locked(self._lock, seconds=seconds))
            except OSError as error:  # a store that can only be read
                raise _Unavailable(str(error)) from error
            if not got:
                message = "the catalog is in use"
                raise _Unavailable(message)
            try:
                connection = _alone(duckdb.connect(str(self._path)))
            except duckdb.Error as error:
                # held by another program, or damaged: either way not ours to wait for
                raise _Unavailable(str(error).splitlines()[0]) from error
            try:
                try:
                    _migrate(connection)
                    self._store.points.reach("catalog.before_ingest")
                    _ingest(connection, self._store)
                    self._store.points.reach("catalog.after_ingest")
                except StoreTooNew:
                    raise
                except (duckdb.Error, StoreError) as error:
                    raise _Unavailable(str(error).splitlines()[0]) from error
                yield connection
            except RuntimeError as error:
                # how DuckDB tells of Ctrl-C
                if "interrupted" in str(error).lower():
                    raise KeyboardInterrupt from error
                raise
            finally:
                connection.close()

    @contextlib.contextmanager
    def _in_memory(self) -> Iterator[Any]:
        import duckdb

        connection = _alone(duckdb.connect(":memory:"))
        try:
            _migrate(connection)
            _ingest(connection, self._store)
            yield connection
        finally:
            connection.close()


def _alone(connection: Any) -> Any:
    """A table that does not exist is not looked for among the variables of this program."""
    connection.execute("SET python_enable_replacements = false")
    return connection


def _migrate(connection: Any) -> None:
    """Apply the migrations that are still to come, each with its own record."""
    found = _rows(connection, queries()["has_migrations"])[0]["found"]
    done = {row["number"] for row in _rows(connection, queries()["migrations"])} if found else set()
    known = migrations()
    if done - set(known):
        raise StoreTooNew(
            "the catalog was made by a newer cellrail",
            hint="upgrade, or rebuild it for this version: cellrail doctor --fix",
        )
    for number, text in known.items():
        if number not in done:
            connection.execute("BEGIN")
            connection.execute(text)
            connection.execute(queries()["record_migration"], {"number": number})
            connection.execute("COMMIT")


def _ingest(connection: Any, store: Store) -> None:
    """Replace the rows of every run whose journal has changed, in one transaction."""
    known = {
        row["run_id"]: (row["bytes"], row["ended"])
        for row in _rows(connection, queries()["read_so_far"])
    }
    run_ids = store.run_ids()
    fresh = Rows()
    for run_id in run_ids:
        try:
            size = store.journal_path(run_id).stat().st_size
        except FileNotFoundError:  # pruned a moment ago
            continue
        # the journal of a run that has ended does not grow any more
        if known.get(run_id, (-1,))[0] != size:
            rows_of(store, run_id, size, into=fresh)
    gone = sorted(set(known) - set(run_ids))
    for rename in store.renames:
        connection.execute(queries()["rename_flow"], msgspec.to_builtins(rename))
    touched = [row["run_id"] for row in fresh.journals] + gone
    if touched:
        _replace(connection, store, fresh, touched)


def _replace(connection: Any, store: Store, fresh: Rows, touched: Sequence[str]) -> None:
    connection.execute("BEGIN")
    for name in ("variables", "steps", "jobs", "runs", "journals"):
        connection.execute(queries()[f"forget_{name}"], {"runs": touched})
    for table in _TABLES:
        _insert(connection, table, getattr(fresh, table))
    store.points.reach("catalog.before_commit")
    connection.execute("COMMIT")


def _insert(connection: Any, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert many rows in one statement (row by row is a hundred times slower)."""
    if not rows:
        return
    columns = _rows(connection, queries()["columns"], {"table": table})
    kinds = {column["name"]: column["kind"] for column in columns}
    structure = msgspec.json.encode([kinds]).decode()
    connection.execute(
        f"INSERT INTO {table} BY NAME SELECT r.* FROM "  # noqa: S608 - names of our own schema
        f"(SELECT unnest(from_json($rows, '{structure}')) AS r)",
        {"rows": msgspec.json.encode(list(rows)).decode()},
    )


def _rows(
    connection: Any, sql: str, parameters: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    import duckdb

    try:
        cursor = connection.execute(sql, dict(parameters) if parameters else None)
    except duckdb.Error as error:
        raise StoreError(
            f"the query failed: {error}",
            hint="tables: " + ", ".join(_TABLES[:-1]) + "; DESCRIBE runs tells columns",
        ) from error
    if cursor.description is None:
        return []
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
