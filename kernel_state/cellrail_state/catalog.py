"""The DuckDB catalog: the index of the journals that everybody queries.

It is never the truth. `ingest` reads every journal that has grown since and replaces that run's
rows in one transaction; doing so twice changes nothing. It happens at the end of a run and before
every query, by whoever gets the lock: our processes take turns through `catalog.lock`, connections
are short, and a catalog that another program holds open, or that is damaged, never stops anybody.
Then queries are answered from a copy of the file that is brought up to date, or where there is none
from a database in memory that is filled from the journals. A query does not wait for very many
journals there: the newest runs come first, and `behind` tells how many are missing.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cellrail_state import locks
from cellrail_state.errors import StoreError, StoreTooNew
from cellrail_state.ingest import TABLES, Ingested, fetch, ingest, insert
from cellrail_state.instances import attached
from cellrail_state.rows import RunRow, state_rows
from cellrail_state.searching import RunPage, RunSearch
from cellrail_state.sql import migrations, queries

if TYPE_CHECKING:
    from cellrail_state.store import Store

#: seconds that an ingest at a run's end waits for its turn: who waits for an answer goes first, and
#: whoever asks next catches up
INGEST_SECONDS = 0.0
#: seconds that a query waits before it is answered from a copy
QUERY_SECONDS = 0.06
#: seconds that it waits for the copy, which nobody holds for long
ASIDE_SECONDS = 2.0
#: seconds that a query spends on bringing a copy up to date
INGEST_ASIDE_SECONDS = 0.05
#: the same where there is no copy and all has to be read
MEMORY_SECONDS = 2.0
#: seconds that a copy is kept after its last use
_COPY_SECONDS = 600.0
#: queries that may mean the table of state, or want to know which tables there are
_OF_STATE = re.compile(r"\bstate\b|\btables\b|schema|duckdb_", re.IGNORECASE)
#: seconds that the doctor waits
REBUILD_SECONDS = 10.0


class _Unavailable(Exception):
    """The file cannot be used now: another program holds it, or it is damaged."""


class Catalog:
    """The catalog of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._path = store.path / "catalog.duckdb"
        self._lock = store.path / "catalog.lock"
        #: how many runs' newest records the last answer does not know
        self.behind = 0

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
        """Rows of a query over an up-to-date catalog; `behind` tells where it is not quite.

        Raises:
            StoreError: the query is wrong.
            StoreTooNew: the catalog was made by a newer version.
        """
        with self._answering() as connection:
            if _OF_STATE.search(sql):
                self._tell_state(connection)
            return fetch(connection, sql, parameters)

    @contextlib.contextmanager
    def _answering(self) -> Iterator[Any]:
        """An up-to-date catalog, with what is derived."""
        with self._any_connection() as connection:
            connection.execute("BEGIN")
            try:
                self._derive(connection)
                yield connection
            finally:
                # it is an index: no query changes it, and what is derived is not written
                with contextlib.suppress(Exception):
                    connection.execute("ROLLBACK")

    def page(self, search: RunSearch, *, flow: str | None = None) -> RunPage:
        """A page of the runs, and how many there are.

        Args:
            search: which.
            flow: only this flow's.

        Raises:
            StoreError: there is no such order.
        """
        listing, counting = search.page(flow), search.counts(flow)
        with self._answering() as connection:
            rows, counted = fetch(connection, *listing), fetch(connection, *counting)
        counts = {row["status"]: row["runs"] for row in counted}
        total = sum(counts.values()) if search.status is None else counts.get(search.status, 0)
        return RunPage(rows=[RunRow.from_row(row) for row in rows], counts=counts, total=total)

    def _derive(self, connection: Any) -> None:
        """Make `interrupted` what runs without an owner."""
        running = [row["run_id"] for row in fetch(connection, queries()["running"])]
        gone = [run_id for run_id in running if not self._store.is_owned(run_id)]
        if gone:
            connection.execute(queries()["interrupt_runs"], {"runs": gone})
            connection.execute(queries()["interrupt_steps"], {"runs": gone})

    def _tell_state(self, connection: Any) -> None:
        """Make the table of what outlives runs: that is in no journal's rows, but in the ledger."""
        connection.execute(queries()["make_state"])
        insert(connection, "state", state_rows(self._store))

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
            "labels": msgspec.json.encode(dict(labels)).decode() if labels else None,
            "parameters": msgspec.json.encode(dict(parameters)).decode() if parameters else None,
            "limit": limit,
        }
        return [RunRow.from_row(row) for row in self.query(queries()["newest_runs"], values)]

    def difference(self) -> str:
        """In which table the catalog says other than the journals; "" where in none."""
        try:
            with self._connection(REBUILD_SECONDS) as connection, self._in_memory() as right:
                for table in TABLES:
                    text = queries()["digest_of_table"].replace("TABLE_NAME", table)
                    if fetch(connection, text) != fetch(right, text):
                        return f"the rows of {table} are not what the journals say"
        except _Unavailable:
            pass  # `problem` tells
        return ""

    def rebuild(self) -> None:
        """Make the catalog anew from the journals.

        Raises:
            StoreError: another program holds it open.
        """
        with locks.locked(self._lock, seconds=REBUILD_SECONDS) as got:
            if not got:
                raise StoreError("the catalog is in use; try again later")
            for suffix in ("", ".wal"):
                path = self._path.with_name(self._path.name + suffix)
                path.unlink(missing_ok=True)
        if not self.ingest(seconds=REBUILD_SECONDS):
            raise StoreError("the catalog is held open by another program; close it first")

    def problem(self) -> str:
        """Why the file cannot be used; "" where it can."""
        try:
            with self._connection(REBUILD_SECONDS):
                return ""
        except _Unavailable as error:
            return str(error)

    # --- connections -------------------------------------------------------------------------

    @contextlib.contextmanager
    def _any_connection(self) -> Iterator[Any]:
        """The catalog; where it cannot be had a copy of it, or its like in memory."""
        self.behind = 0
        with contextlib.ExitStack() as stack:
            for connect in (self._usual, self._aside, self._newest):
                try:
                    connection = stack.enter_context(connect())
                except _Unavailable:
                    continue
                yield connection
                return

    def _usual(self) -> contextlib.AbstractContextManager[Any]:
        return self._connection(QUERY_SECONDS)

    @contextlib.contextmanager
    def _connection(self, seconds: float) -> Iterator[Any]:
        """The catalog's file, up to date; ours alone while it is open."""
        with _turn(self._lock, seconds):
            self._begin()
            with self._open(self._path) as (connection, done):
                yield connection
            # only now is it in the file
            if done.whole:
                self._store.news.scanned()
            self._store.news.forget(done.known, done.gone)
            self._forget_copies(older_than=_COPY_SECONDS)

    def _begin(self) -> None:
        """Make the file where there is none, whole or not at all (the disk may be full)."""
        import duckdb

        with contextlib.suppress(OSError):  # a store that can only be read
            self._store.news.begin()
            if self._path.exists():
                return
            new = self._path.with_suffix(".new")
            for path in (new, new.with_name(new.name + ".wal")):
                path.unlink(missing_ok=True)
            try:
                with attached(new) as connection:
                    _migrate(connection)
            except duckdb.Error as error:
                raise _Unavailable(str(error).splitlines()[0]) from error
            new.rename(self._path)

    @contextlib.contextmanager
    def _aside(self) -> Iterator[Any]:
        """A copy of the catalog's file, brought up to date as far as time allows.

        Another program that holds the file open keeps us from the file, not from its bytes. DuckDB
        writes a block anew before it points to it, so a copy is what the file was at its last
        checkpoint; one that is torn after all does not open.
        """
        with _turn(self._path.with_suffix(".aside.lock"), ASIDE_SECONDS):
            path = self._copy()
            with self._open(path, seconds=INGEST_ASIDE_SECONDS) as (connection, done):
                self.behind = done.behind
                with contextlib.suppress(OSError):
                    if self._path_of_copy() != path:
                        # what was written into the file since is news no more: it may be missing
                        self.behind = max(1, self.behind)
                yield connection

    def _path_of_copy(self) -> Path:
        """Where the copy of the catalog's file as it is now lies, or would."""
        log = self._path.with_name(self._path.name + ".wal")
        state = [path.stat() for path in (self._path, log) if path.exists()]
        version = "-".join(f"{s.st_size:x}-{s.st_mtime_ns:x}" for s in state)
        return self._path.with_suffix(f".aside-{version}.duckdb")

    def _copy(self) -> Path:
        """The copy of the catalog's file as it is now, made where there is none."""
        log = self._path.with_name(self._path.name + ".wal")
        try:
            copy = self._path_of_copy()
            if not copy.exists():
                self._forget_copies(older_than=0.0)
                half = copy.with_suffix(".half")
                if log.exists():  # before the file: a log that is too old is told from its number
                    shutil.copyfile(log, copy.with_name(copy.name + ".wal"))
                shutil.copyfile(self._path, half)
                half.replace(copy)
        except OSError as error:
            raise _Unavailable(str(error)) from error
        return copy

    def _forget_copies(self, *, older_than: float) -> None:
        for path in self._path.parent.glob(self._path.with_suffix(".aside-*").name):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime >= older_than:
                    path.unlink()

    @contextlib.contextmanager
    def _open(self, path: Path, *, seconds: float | None = None) -> Iterator[tuple[Any, Ingested]]:
        """A database file, up to date (as far as `seconds` allow)."""
        import duckdb

        with contextlib.ExitStack() as stack:
            try:
                connection = stack.enter_context(attached(path))
                self._store.points.reach("catalog.before_ingest")
                _migrate(connection)
                done = ingest(connection, self._store, seconds=seconds)
                self._store.points.reach("catalog.after_ingest")
            except StoreTooNew:
                raise
            except (duckdb.Error, StoreError) as error:
                # held by another program, or damaged: either way not ours to wait for
                raise _Unavailable(str(error).splitlines()[0]) from error
            try:
                yield connection, done
            except RuntimeError as error:
                # how DuckDB tells of Ctrl-C
                if "interrupted" in str(error).lower():
                    raise KeyboardInterrupt from error
                raise

    @contextlib.contextmanager
    def _newest(self) -> Iterator[Any]:
        """A database in memory, of the newest runs where there are very many."""
        with self._in_memory(MEMORY_SECONDS) as connection:
            yield connection

    @contextlib.contextmanager
    def _in_memory(self, seconds: float | None = None) -> Iterator[Any]:
        with attached(None) as connection:
            _migrate(connection)
            self.behind = ingest(connection, self._store, seconds=seconds).behind
            yield connection


@contextlib.contextmanager
def _turn(lock: Path, seconds: float) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            got = stack.enter_context(locks.locked(lock, seconds=seconds))
        except OSError as error:  # a store that can only be read
            raise _Unavailable(str(error)) from error
        if not got:
            message = "the catalog is in use"
            raise _Unavailable(message)
        yield


def _migrate(connection: Any) -> None:
    """Apply the migrations that are still to come, each with its own record."""
    import duckdb

    try:
        # asking whether the table exists would load every table's statistics
        done = {number for (number,) in connection.execute(queries()["migrations"]).fetchall()}
    except duckdb.CatalogException:
        done = set()
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
