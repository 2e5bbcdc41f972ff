"""Laws of the doctor: finds what is wrong, mends without losing what was committed."""

from __future__ import annotations

import os
from pathlib import Path

import duckdb
import msgspec
import pytest

from cellrail_state import journal as journals
from cellrail_state.doctor import examine
from cellrail_state.model import JobFinished, RunEnded, RunStatus
from cellrail_state.objects import is_object
from cellrail_state.store import Store
from cellrail_state.testing import RUN, a_run, finished, first_record, open_store
from cellrail_state.waits import RESUME, SUSPEND, Answer, WaitInfo


def kinds(store: Store, **options: object) -> list[str]:
    return [finding.kind for finding in examine(store, **options).findings]  # type: ignore[arg-type]


def test_a_whole_store_has_no_finding(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    a_run(store)
    assert not kinds(store)


def test_a_torn_tail_is_cut_off_and_every_record_before_it_stays(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    a_run(store)
    path = store.journal_path(RUN)
    before = path.read_bytes()
    path.write_bytes(before + before[5:40])
    assert kinds(store, fix=True) == ["torn journal"]
    assert path.read_bytes() == before
    assert not kinds(store)


def test_mending_never_deletes_records_behind_a_damaged_length(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    a_run(store)
    path = store.journal_path(RUN)
    data, entries = bytearray(path.read_bytes()), list(journals.read(path))
    data[entries[2].offset + 3] ^= 0x40
    path.write_bytes(data)
    examine(store, fix=True)
    held = b"".join(p.read_bytes() for p in path.parent.iterdir())
    assert bytes(data[entries[-1].offset : entries[-1].end]) in held


@pytest.mark.parametrize("kind", ["missing object", "damaged object"])
def test_a_hurt_object_names_run_step_and_variable(tmp_path: Path, kind: str) -> None:
    store = open_store(tmp_path)
    a_run(store)
    job = next(r for r in store.records(RUN) if isinstance(r, JobFinished) and r.step == 2)
    path = store.objects.path(next(iter(job.delta.components.values())).stream.digest)
    if kind == "missing object":
        path.unlink()
    else:
        path.write_bytes(b"?" * path.stat().st_size)
    (finding,) = examine(store).findings
    assert finding.kind == kind
    assert all(word in finding.message for word in (RUN, "step2", "v2_0"))


def test_orphans_and_temporary_files_are_swept_when_they_are_old(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    a_run(store)
    orphan = store.objects.path(store.objects.put(b"orphan" * 5000).digest)
    stray = orphan.with_name(".x.tmp")
    stray.touch()
    assert not kinds(store), "the young belong to a step that is about to commit"
    for path in (orphan, stray):
        os.utime(path, (1, 1))
    assert sorted(kinds(store, fix=True)) == ["orphan object", "temporary file"]
    assert not orphan.exists()
    assert sum(is_object(p) for p in store.objects.files()) == 3


def test_a_damaged_catalog_is_made_anew(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    a_run(store)
    (store.path / "catalog.duckdb").write_bytes(b"not a database" * 1000)
    assert kinds(store, fix=True) == ["catalog"]
    assert not kinds(store)
    assert len(store.catalog.runs()) == 1


def test_rows_that_differ_from_the_journals_are_found_and_mended(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    a_run(store)
    store.catalog.ingest()
    with duckdb.connect(str(store.path / "catalog.duckdb")) as connection:
        connection.execute("UPDATE jobs SET status = 'failed'")
    assert kinds(store, fix=True) == ["catalog"]
    assert store.catalog.query("SELECT DISTINCT status FROM jobs") == [{"status": "success"}]


# --- waits -----------------------------------------------------------------------------------


def a_suspended_run(store: Store) -> WaitInfo:
    """A run that waits behind its first step."""
    wait = WaitInfo(wait_id=f"{RUN}/1", kind=SUSPEND, step=1, asked=1.0, until=9e9, label="step1")
    journal = store.create_journal(first_record(RUN, steps=2))
    store.inbox.tell(wait)
    journal.append(msgspec.structs.replace(finished(store, RUN, 1), wait=wait))
    journal.append(RunEnded(time=2.0, status=RunStatus.SUSPENDED, cause="waits", step="step1"))
    journal.sync()
    journal.close()
    return wait


def test_a_suspended_run_is_whole_and_one_that_was_answered_too(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    wait = a_suspended_run(store)
    assert not kinds(store)
    store.inbox.answer(wait.wait_id, Answer(by=RESUME, time=3.0))
    assert not kinds(store, fix=True)
    assert [found.wait_id for found in store.inbox.waiting()] == [wait.wait_id]
    assert store.inbox.answered(wait.wait_id) is not None


def test_a_wait_that_tick_does_not_know_is_told_again(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    wait = a_suspended_run(store)
    store.inbox.forget(RUN)
    assert kinds(store) == ["wait"]
    assert kinds(store, fix=True) == ["wait"]
    assert store.inbox.waiting() == [wait]
    assert not kinds(store)


@pytest.mark.parametrize("name", ["1.open", "1.answer"])
def test_a_file_of_a_wait_that_cannot_be_read_goes_and_the_wait_can_be_answered(
    tmp_path: Path, name: str
) -> None:
    store = open_store(tmp_path)
    wait = a_suspended_run(store)
    store.inbox.answer(wait.wait_id, Answer(by=RESUME, time=3.0))
    path = store.path / "waits" / RUN / name
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert set(kinds(store, fix=True)) == {"wait"}
    assert not kinds(store)
    assert store.inbox.waiting() == [wait]
    answer = store.inbox.answer(wait.wait_id, Answer(by=RESUME, time=4.0))
    assert answer.time == (4.0 if name == "1.answer" else 3.0)


def test_what_nobody_waits_for_is_closed(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    a_run(store)
    store.inbox.tell(WaitInfo(wait_id=f"{RUN}/9", kind=SUSPEND, step=2, asked=1.0))
    store.inbox.tell(WaitInfo(wait_id="gone/9", kind=SUSPEND, step=2, asked=1.0))
    half = store.path / "waits" / RUN / ".9.open.1.tmp"
    half.touch()
    os.utime(half, (1, 1))
    assert sorted(kinds(store, fix=True)) == ["temporary file", "wait", "wait"]
    assert not kinds(store)
    assert store.inbox.waiting() == []


def test_the_waits_of_a_run_that_lives_or_is_somebody_elses_are_left_alone(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    journal = store.create_journal(first_record(RUN, steps=2))
    store.inbox.tell(WaitInfo(wait_id=f"{RUN}/1", kind=SUSPEND, step=1, asked=1.0))
    assert "wait" not in kinds(store, fix=True)
    assert len(store.inbox.waiting()) == 1
    journal.close()
    assert "wait" in kinds(store)

    stranger = open_store(tmp_path, keys=tmp_path / "others")
    assert "wait" not in kinds(stranger, fix=True)
    assert len(store.inbox.waiting()) == 1
