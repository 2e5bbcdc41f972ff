"""Laws of the catalog: idempotent, only an index, right whoever holds the file."""

from __future__ import annotations

import contextlib
import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cellrail_state.testing import RUN, a_run, commit, first_record, open_store


def test_ingesting_twice_changes_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    a_run(store)
    counts = "SELECT (SELECT count(*) FROM jobs) AS j, (SELECT count(*) FROM variables) AS v"
    assert store.catalog.ingest()
    first = store.catalog.query(counts)
    assert store.catalog.ingest()
    assert store.catalog.query(counts) == first == [{"j": 3, "v": 3}]


def test_a_run_that_grows_is_followed(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    journal = store.create_journal(first_record())
    for step in (1, 2, 3):
        commit(store, journal, RUN, step)
        assert store.catalog.query("SELECT count(*) AS n FROM jobs") == [{"n": step}]
    journal.close()


def test_a_run_whose_owner_is_gone_is_interrupted(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    journal = store.create_journal(first_record())
    assert [row.status for row in store.catalog.runs()] == ["running"]
    journal.close()
    assert [row.status for row in store.catalog.runs()] == ["interrupted"]
    assert len(store.catalog.runs(status="interrupted")) == 1
    assert not store.catalog.runs(status="running")


def test_runs_are_found_by_label_parameter_flow_and_time(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    a_run(store, labels={"team": "a"}, parameters={"day": "2013-01-01", "n": 1})
    a_run(store, RUN.replace("aaaa", "bbbb"), labels={"team": "b"}, time=1_800_000_000.0)
    runs = store.catalog.runs
    assert [r.run_id for r in runs(labels={"team": "a"})] == [RUN]
    assert [r.run_id for r in runs(parameters={"n": 1})] == [RUN]
    assert not runs(parameters={"n": 2})
    assert not runs(flow="other.ipynb")
    assert len(runs(since=1_750_000_000.0)) == 1
    assert len(runs(limit=1)) == 1


def test_a_program_that_holds_the_file_does_not_stop_a_query(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    a_run(store)
    store.catalog.ingest()
    code = "import duckdb, sys\nc = duckdb.connect(sys.argv[1])\nprint('held', flush=True)\ninput()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(store.path / "catalog.duckdb")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        a_run(store, RUN.replace("aaaa", "bbbb"))
        assert len(store.catalog.runs()) == 2
        assert store.catalog.ingest(seconds=0.1) is False
    finally:
        holder.communicate("\n", timeout=30)


@pytest.mark.parametrize("content", [b"", b"not a database" * 1000])
def test_a_damaged_file_does_not_stop_a_query(tmp_path: Path, content: bytes) -> None:
    store = open_store(tmp_path)
    a_run(store)
    (store.path / "catalog.duckdb").write_bytes(content)
    assert len(store.catalog.runs()) == 1


def test_a_catalog_with_other_columns_does_not_stop_a_query(tmp_path: Path) -> None:
    import duckdb

    store = open_store(tmp_path)
    store.catalog.ingest()
    with duckdb.connect(str(store.path / "catalog.duckdb")) as connection:
        connection.execute("DROP TABLE journals")
    a_run(store)
    assert len(store.catalog.runs()) == 1


def test_a_run_pruned_meanwhile_does_not_stop_a_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    a_run(store)
    monkeypatch.setattr(store, "run_ids", lambda: [RUN, RUN.replace("aaaa", "gone")])
    assert [row.run_id for row in store.catalog.runs()] == [RUN]


def test_a_lock_file_that_cannot_be_made_does_not_stop_a_query(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    a_run(store)
    (store.path / "catalog.lock").mkdir()  # as on a store that is read only
    assert len(store.catalog.runs()) == 1


def test_a_users_query_cannot_change_the_index(tmp_path: Path) -> None:
    from cellrail_state.errors import StoreError

    store = open_store(tmp_path)
    a_run(store)
    with contextlib.suppress(StoreError):
        store.catalog.query("DELETE FROM runs")
    assert len(store.catalog.runs()) == 1


def test_sql_sees_an_interrupted_run_as_interrupted(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    a_run(store, end=False)
    assert store.catalog.query("SELECT status FROM runs") == [{"status": "interrupted"}]


def _write(folder: Path, name: int, seconds: float) -> int:
    store = open_store(folder)
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        a_run(store, f"20260101-{name:03d}{count:06d}-aaaa", steps=2)
        store.catalog.ingest()
        count += 1
    return count


def test_four_writers_and_a_lister_do_not_disturb_each_other(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        jobs = [pool.apply_async(_write, (tmp_path, n, 3.0)) for n in range(4)]
        while not all(job.ready() for job in jobs):
            store.catalog.runs(limit=100_000)
            time.sleep(0.1)
        written = sum(job.get() for job in jobs)
    assert len(store.catalog.runs(limit=100_000)) == written
