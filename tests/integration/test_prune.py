"""Laws of a prune: both conditions hold; what a kept run needs stays; a plan deletes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cellrail_state import prune as module
from cellrail_state.model import KeptReason, RunKind, StepKept
from cellrail_state.objects import is_object
from cellrail_state.prune import prune, prune_live
from cellrail_state.store import Store
from cellrail_state.testing import RUN, a_run, first_record, open_store

NOW = 1_700_000_000.0
DAY = 86_400.0


def runs(store: Store, ages: list[int], **changes: object) -> list[str]:
    """Runs of these ages in days, oldest first; their objects are old too."""
    ids = []
    for place, age in enumerate(ages):
        ids.append(f"20260101-{place:09d}-aaaa")
        a_run(store, ids[-1], steps=1, time=NOW - age * DAY, **changes)
    for path in store.objects.files():
        os.utime(path, (1, 1))
    return ids


def test_both_conditions_must_hold(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    ids = runs(store, [40, 35, 31, 5])
    report = prune(store, keep_last=2, older_than=30 * DAY, now=NOW)
    assert report.runs == tuple(ids[:2])
    assert store.run_ids() == ids[2:]


def test_a_plan_tells_the_same_and_deletes_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    ids = runs(store, [40, 35])
    plan = prune(store, keep_last=1, plan=True, now=NOW)
    assert store.run_ids() == ids
    real = prune(store, keep_last=1, now=NOW)
    assert (plan.runs, plan.freed_bytes) == (real.runs, real.freed_bytes)


def test_labelled_and_running_runs_stay(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    runs(store, [40], labels={"keep": "me"})
    journal = store.create_journal(first_record(RUN.replace("aaaa", "zzzz"), time=1.0))
    assert not prune(store, keep_last=0, now=NOW).runs
    journal.close()


def test_a_run_that_a_kept_run_points_to_stays_with_its_objects(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    (origin,) = runs(store, [40])
    job = f"{origin}/1"
    journal = store.create_journal(first_record(RUN.replace("2026", "2027"), chain=(job,)))
    journal.append(StepKept(time=NOW, step=1, job_id=job, reason=KeptReason.ORIGIN))
    journal.close()
    report = prune(store, keep_last=0, now=NOW)
    assert report.needed == (origin,)
    assert origin in store.run_ids()
    assert sum(is_object(p) for p in store.objects.files()) == 1


def test_what_no_kept_run_points_to_is_freed(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    runs(store, [40])
    report = prune(store, keep_last=0, now=NOW + 10 * DAY)
    assert report.objects == 1
    assert not list(store.objects.files())
    assert not store.catalog.runs()


def test_an_object_put_again_at_the_same_moment_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    runs(store, [40])
    refs, real = [], module._old

    def old(mtime: float, now: float) -> bool:
        verdict = real(mtime, now)
        refs.append(store.objects.put(b"1" * 5000))  # another run stores the same value now
        return verdict

    monkeypatch.setattr(module, "_old", old)
    prune(store, keep_last=0, now=NOW)
    assert refs
    assert store.objects.get(refs[0])


def test_only_the_newest_live_runs_of_a_notebook_stay(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    ids = runs(store, [9, 8, 7, 6, 5, 4, 3], kind=RunKind.LIVE)
    assert prune_live(store, "etl.ipynb", keep=5, now=NOW).runs == tuple(ids[:2])
