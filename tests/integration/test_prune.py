"""Laws of a prune.

* Both conditions hold; a plan deletes nothing.
* What a kept, suspended or running run points to stays, whenever that one began: a restart that
  begins during a prune keeps its origin, or is refused before it has changed anything.
* It takes nothing that a process stores at the same time.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from pathlib import Path

import pytest

from cellrail_state import prune as module
from cellrail_state.doctor import examine
from cellrail_state.errors import JournalDamaged
from cellrail_state.model import (
    KeptReason,
    Origin,
    RunEnded,
    RunKind,
    RunStarted,
    RunStatus,
    StepKept,
)
from cellrail_state.objects import is_object
from cellrail_state.prune import prune, prune_live
from cellrail_state.store import Store
from cellrail_state.testing import RUN, Crashed, RaiseAt, a_run, commit, first_record, open_store

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


def restarted(origin: str) -> RunStarted:
    """The first record of a restart that has not said yet which jobs it keeps."""
    later = RUN.replace("2026", "2027")
    return first_record(later, origin=Origin(run_id=origin, from_step="step1"))


def test_a_suspended_run_stays_with_its_objects(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    journal = store.create_journal(first_record(time=1.0))
    commit(store, journal, RUN, 1)
    journal.append(RunEnded(time=2.0, status=RunStatus.SUSPENDED))
    journal.close()
    for path in store.objects.files():
        os.utime(path, (1, 1))
    assert not prune(store, keep_last=0, now=NOW).runs
    assert not examine(store).findings


def test_a_restart_that_begins_after_the_scan_keeps_its_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    (origin,) = runs(store, [40])
    real, journals = module._known, []

    def known(*arguments: object) -> object:
        found = real(*arguments)  # type: ignore[arg-type]
        if not journals:  # right after the first look
            journals.append(store.create_journal(restarted(origin)))
        return found

    monkeypatch.setattr(module, "_known", known)
    report = prune(store, keep_last=0, now=NOW)
    journals[0].close()
    assert (report.runs, report.needed, report.objects) == ((), (origin,), 0)
    assert not examine(store).findings


def test_a_restart_that_begins_during_the_deletion_is_refused_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    refused: list[BaseException] = []
    (origin,) = runs(open_store(tmp_path), [40])

    def restart() -> None:
        try:
            open_store(tmp_path).create_journal(restarted(origin))
        except JournalDamaged as error:
            refused.append(error)

    restarting = threading.Thread(target=restart)

    class Meanwhile:
        def reach(self, name: str) -> None:
            if name == "prune.before_delete":
                restarting.start()

    assert prune(open_store(tmp_path, points=Meanwhile()), keep_last=0, now=NOW).runs == (origin,)
    restarting.join()
    assert "deleted meanwhile" in str(refused[0])
    assert not open_store(tmp_path).run_ids()
    assert not examine(open_store(tmp_path)).findings


def test_an_object_that_a_killed_prune_had_moved_aside_is_still_there(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    runs(store, [40])
    path = next(iter(store.objects.files()))
    killed = open_store(tmp_path, points=RaiseAt("objects.before_unlink"))
    with pytest.raises(Crashed):
        killed.objects.retire(path, before=NOW)
    assert not path.exists()
    assert not examine(store).findings
    assert path.exists()


VALUES = 40


def _store_again(folder: Path, number: int) -> None:
    """Commit steps whose values an old run holds, too."""
    store = open_store(folder)
    run_id = f"20270101-{number:09d}-aaaa"
    journal = store.create_journal(first_record(run_id, steps=VALUES))
    for step in range(1, VALUES + 1):
        commit(store, journal, run_id, step, data=f"{step}".encode() * 5000)
    journal.close()


def test_what_is_stored_during_a_prune_is_whole(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    a_run(store, steps=VALUES, time=1.0)
    for path in store.objects.files():
        os.utime(path, (1, 1))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        storing = [pool.apply_async(_store_again, (tmp_path, n)) for n in range(2)]
        while not any(run_id > RUN for run_id in store.run_ids()):
            time.sleep(0.001)
        pruned = [prune(store, older_than=DAY, now=time.time()).runs]
        while not all(one.ready() for one in storing):
            pruned.append(prune(store, older_than=DAY, now=time.time()).runs)
        _ = [one.get() for one in storing]
    assert pruned[0] == (RUN,)
    assert len(store.run_ids()) == 2
    assert not examine(store).findings
