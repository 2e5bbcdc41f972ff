"""Many processes at once: no error, nothing lost, and whoever asks is answered.

Figures are for `make bench-store`; here stand facts that hold at any speed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cellrail import App
from cellrail_state import catalog as catalog_module
from cellrail_state.model import RunEnded, RunStatus
from cellrail_state.testing import RUN, a_run, commit, first_record, open_store

pytestmark = pytest.mark.alone

WRITERS, RUNS, STEPS = 8, 2, 5
HOLDER = "import duckdb, sys\nc = duckdb.connect(sys.argv[1])\nprint('held', flush=True)\ninput()"


def write(folder: Path, number: int) -> int:
    """Commit steps of some runs; how many."""
    store, count = open_store(folder), 0
    for run in range(RUNS):
        run_id = f"20260101-{number:03d}{run:06d}-aaaa"
        journal = store.create_journal(first_record(run_id, steps=STEPS))
        for step in range(1, STEPS + 1):
            commit(store, journal, run_id, step, data=f"{number}.{step}".encode() * 3000)
            journal.sync()
            count += 1
        journal.append(RunEnded(time=time.time(), status=RunStatus.SUCCESS))
        journal.close()
        store.catalog.ingest()
    return count


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Another program has a database open, read-write."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield
    finally:
        holder.communicate("\n", timeout=30)


@pytest.mark.parametrize("in_use", [False, True])
def test_eight_writers_lose_nothing_and_every_query_is_answered(
    tmp_path: Path, in_use: bool
) -> None:
    store = open_store(tmp_path)
    store.catalog.ingest()
    file, seen = store.path / "catalog.duckdb", []
    with (
        held(file) if in_use else contextlib.nullcontext(),
        multiprocessing.get_context("spawn").Pool(WRITERS) as pool,
    ):
        jobs = [pool.apply_async(write, (tmp_path, n)) for n in range(WRITERS)]
        while not all(job.ready() for job in jobs):
            seen.append(store.catalog.query("SELECT count(*) AS n FROM jobs")[0]["n"])
            time.sleep(0.05)
        written = sum(job.get() for job in jobs)
        told = store.catalog.query("SELECT count(*) AS n, count(DISTINCT job_id) AS d FROM jobs")
        assert store.catalog.behind or told == [{"n": written, "d": written}]
    assert seen == sorted(seen)
    counts = store.catalog.query("SELECT status, count(*) AS n FROM runs GROUP BY ALL")
    assert counts == [{"status": "success", "n": WRITERS * RUNS}]
    assert written == WRITERS * RUNS * STEPS
    assert store.catalog.difference() == ""


def test_a_listing_that_had_no_time_for_all_runs_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    a_run(store)
    store.catalog.ingest()
    later = RUN.replace("aaaa", "bbbb")
    a_run(store, later)
    app = App(store.path, keys=tmp_path / "keys")
    monkeypatch.setattr(catalog_module, "INGEST_ASIDE_SECONDS", -1.0)
    with held(store.path / "catalog.duckdb"):
        found = app.runs()
        assert ([row.run_id for row in found], found.behind) == ([RUN], 1)
    found = app.runs()
    assert ([row.run_id for row in found], found.behind) == ([later, RUN], 0)


def test_a_query_reads_no_journal_that_the_catalog_knows_and_that_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    for number in range(5):
        a_run(store, f"20260101-{number:09d}-aaaa")
    store.catalog.ingest()
    a_run(store, RUN.replace("aaaa", "zzzz"))
    looked: list[str] = []
    path = store.journal_path
    monkeypatch.setattr(store, "journal_path", lambda run_id: looked.append(run_id) or path(run_id))
    monkeypatch.setattr(store, "run_ids", None)
    monkeypatch.setattr(store, "journal_sizes", None)

    assert len(store.catalog.runs()) == 6
    assert set(looked) == {RUN.replace("aaaa", "zzzz")}
    looked.clear()
    assert len(store.catalog.runs()) == 6
    assert not looked


def test_a_run_is_found_without_reading_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    ids = [f"2026010{n % 2 + 1}-{n:09d}-aaaa" for n in range(60)]
    for number, run_id in enumerate(ids):
        a_run(store, run_id, steps=1, flow="rare.ipynb" if number == 4 else "etl.ipynb")
    app = App(store.path, keys=tmp_path / "keys")
    assert app.runs()
    read: list[str] = []
    started = type(store).started
    monkeypatch.setattr(
        type(store), "started", lambda self, run_id: read.append(run_id) or started(self, run_id)
    )
    # nor are all of them listed
    monkeypatch.setattr(type(store), "run_ids", lambda self: pytest.fail("listed every run"))
    assert app.history("last").run_id == max(ids)
    assert app.history(ids[7]).run_id == ids[7]
    assert app.history(ids[7][:-3]).run_id == ids[7]
    # of the newest alone it is asked whether a cell of another run has called it
    assert read == [max(ids)]
    read.clear()
    assert app.history(str(tmp_path / "rare.ipynb")).run_id == ids[4]
    assert len(read) < len(ids)


def test_deleted_runs_leave_the_catalog_too(tmp_path: Path) -> None:
    from cellrail_state.prune import prune

    store = open_store(tmp_path)
    for number in range(3):
        a_run(store, f"20260101-{number:09d}-aaaa", time=1.0)
    assert len(store.catalog.runs()) == 3
    with held(store.path / "catalog.duckdb"):
        prune(store, keep_last=1, now=time.time())
        assert len(store.catalog.runs()) == 1
    assert len(store.catalog.runs()) == 1
    assert store.catalog.difference() == ""
