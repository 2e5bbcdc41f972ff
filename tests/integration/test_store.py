"""Laws of the store:

* a record is whole or not there; a changed, moved or foreign one does not verify;
* an object's bytes are what its address says; it appears whole;
* a kill at any named point leaves a store that opens, with every committed step whole.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellrail_state import journal
from cellrail_state.doctor import examine
from cellrail_state.errors import (
    JournalDamaged,
    ObjectDamaged,
    ObjectMissing,
    StateError,
    StoreOnNetwork,
    Untrusted,
)
from cellrail_state.keys import KeyRing
from cellrail_state.model import (
    JobStarted,
    Owner,
    RunEnded,
    RunKind,
    RunStarted,
    RunStatus,
)
from cellrail_state.objects import INLINE_LIMIT, Objects
from cellrail_state.store import Mount, Store, refuse_network


@pytest.fixture
def store(tmp_path):
    return Store.open_or_create(tmp_path / "store", keyring=KeyRing(tmp_path / "keys"))


def begin(store, run_id="20260101-000000000-aaaa"):
    owner = Owner(pid=os.getpid(), started=0.0, host="h")
    return store.create_journal(
        RunStarted(run_id=run_id, flow="f.ipynb", kind=RunKind.RUN, time=1.0, owner=owner)
    )


def fill(store, run_id="20260101-000000000-aaaa", records=3):
    writer = begin(store, run_id)
    for n in range(records):
        writer.append(JobStarted(time=float(n), step=n + 1, job_id=f"{run_id}/{n + 1}"))
    writer.append(RunEnded(time=9.0, status=RunStatus.SUCCESS))
    writer.close()
    return store.journal_path(run_id)


def test_records_come_back_in_order_and_verified(store):
    fill(store)

    records = list(store.records("20260101-000000000-aaaa", verify=True))

    assert [type(r).__name__ for r in records] == [
        "RunStarted", "JobStarted", "JobStarted", "JobStarted", "RunEnded",
    ]  # fmt: skip


@given(cut=st.integers(0, 400))
def test_a_journal_cut_anywhere_yields_a_prefix_of_whole_records(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("cut")
    store = Store.open_or_create(folder / "s", keyring=KeyRing(folder / "k"))
    path = fill(store)
    whole = list(journal.read(path))
    data = path.read_bytes()
    path.write_bytes(data[: min(cut, len(data))])

    found = list(journal.read(path))

    assert found == whole[: len(found)]
    assert all(entry.end <= cut for entry in found)


def test_a_changed_byte_anywhere_is_refused(store):
    path = fill(store)
    data = bytearray(path.read_bytes())
    for place in range(0, len(data), 7):
        changed = bytearray(data)
        changed[place] ^= 0x20
        path.write_bytes(changed)
        with pytest.raises((JournalDamaged, Untrusted)):
            read_whole(store)


def read_whole(store):
    """All five records; a journal cut short at its end was never whole."""
    records = list(store.records("20260101-000000000-aaaa", verify=True))
    if len(records) < 5:
        raise JournalDamaged


def test_a_journal_of_another_run_does_not_verify(store):
    path = fill(store)
    path.rename(store.journal_path("20260101-000000000-bbbb"))

    with pytest.raises(Untrusted):
        list(store.records("20260101-000000000-bbbb", verify=True))


def test_an_adopted_store_is_refused_again_once_it_changes(store, tmp_path):
    path = fill(store)
    stranger = Store.open(store.path, keyring=KeyRing(tmp_path / "other"))
    assert stranger.trust() == 1
    assert len(list(stranger.records("20260101-000000000-aaaa", verify=True))) == 5

    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(Untrusted):
        list(stranger.records("20260101-000000000-aaaa", verify=True))


def test_a_run_is_owned_while_its_writer_lives(store):
    writer = begin(store)
    assert store.is_owned("20260101-000000000-aaaa")
    writer.close()
    assert not store.is_owned("20260101-000000000-aaaa")


def test_objects_are_inline_when_small_and_files_when_not(tmp_path):
    objects = Objects(tmp_path)
    small, big = objects.put(b"x" * INLINE_LIMIT), objects.put(b"x" * (INLINE_LIMIT + 1))
    objects.flush()

    assert small.inline is not None
    assert big.inline is None
    assert objects.get(small) == b"x" * INLINE_LIMIT
    assert objects.get(big) == bytes(objects.buffer(big)) == b"x" * (INLINE_LIMIT + 1)
    assert objects.put(b"x" * (INLINE_LIMIT + 1)) == big
    assert len(list(objects.files())) == 1


@pytest.mark.parametrize("content", [b"", b"y" * 5000, b"y" * 5001, b"y" * 4999])
def test_damaged_objects_are_refused_however_they_are_read(tmp_path, content):
    objects = Objects(tmp_path)
    ref = objects.put(b"x" * 5000)
    objects.path(ref.digest).write_bytes(content)

    for read in (objects.get, objects.buffer):
        with pytest.raises(ObjectDamaged, match=ref.digest):
            read(ref)
    objects.path(ref.digest).unlink()
    with pytest.raises(ObjectMissing, match=ref.digest):
        objects.buffer(ref)


def test_keys_are_private_and_shared_by_processes_that_start_together(tmp_path):
    code = (
        "import sys, pathlib; from cellrail_state.keys import KeyRing; "
        "print(KeyRing(pathlib.Path(sys.argv[1])).key().hex())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "keys")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    keys = {process.communicate()[0] for process in processes}

    assert len(keys) == 1
    assert (tmp_path / "keys" / "signing.key").stat().st_mode & 0o077 == 0


def test_secrets_are_read_only_with_the_key_that_wrote_them(tmp_path):
    mine, other = KeyRing(tmp_path / "a"), KeyRing(tmp_path / "b")
    token = mine.encrypt("hunter22")

    assert "hunter22" not in token
    assert mine.decrypt(token) == "hunter22"
    with pytest.raises(StateError, match="another key"):
        other.decrypt(token)
    other.import_(mine.export())
    assert other.decrypt(token) == "hunter22"
    with pytest.raises(StateError, match="no exported key"):
        other.import_("nonsense")


def test_a_store_on_a_network_file_system_is_refused(tmp_path):
    mounts = [Mount("/", "ext4"), Mount(str(tmp_path), "nfs4")]

    with pytest.raises(StoreOnNetwork, match="nfs4"):
        refuse_network(tmp_path / "x", mounts)
    refuse_network(tmp_path.parent, mounts)


POINTS = (
    "objects.before_write", "objects.before_rename", "objects.after_rename",
    "journal.before_append", "journal.after_append", "catalog.before_ingest",
    "catalog.before_commit", "catalog.after_ingest",
)  # fmt: skip
WORKER = """
import os, pathlib, signal, sys
from cellrail_state.keys import KeyRing
from cellrail_state.model import *
from cellrail_state.store import Store

class Kill:
    left = int(sys.argv[3])
    def reach(self, name):
        if name == sys.argv[2]:
            Kill.left -= 1
            if Kill.left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

folder = pathlib.Path(sys.argv[1])
store = Store.open_or_create(folder / "store", keyring=KeyRing(folder / "keys"), points=Kill())
run_id = "20260101-000000000-aaaa"
writer = store.create_journal(RunStarted(
    run_id=run_id, flow="f", kind=RunKind.RUN, time=1.0,
    owner=Owner(pid=os.getpid(), started=0.0, host="h"), steps=(StepInfo(number=1),)))
for n in range(1, 6):
    ref = store.objects.put(bytes([n]) * 10_000)
    store.objects.flush()
    component = Component(id=str(n), names=("x",), codec="c", stream=ref)
    variable = Variable(name="x", verdict=Verdict.STORED, component=str(n))
    writer.append(JobFinished(time=1.0, step=1, job_id=f"{run_id}/{n}", started=1.0,
        status=StepStatus.SUCCESS,
        delta=Delta(components={str(n): component}, variables={"x": variable})))
    print(n, flush=True)
    store.catalog.ingest()
writer.append(RunEnded(time=2.0, status=RunStatus.SUCCESS))
writer.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_any_point_leaves_committed_steps_whole(tmp_path, point, nth):
    worker = [sys.executable, "-c", WORKER, str(tmp_path), point, str(nth)]
    done = subprocess.run(worker, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    said = [int(word) for word in done.stdout.split()]

    store = Store.open(tmp_path / "store", keyring=KeyRing(tmp_path / "keys"))
    records = [r for run in store.run_ids() for r in store.records(run, verify=True)]
    jobs = [r for r in records if hasattr(r, "delta")]

    # what was told to have been committed is there, and at most the append under way besides
    assert len(jobs) in {len(said), len(said) + 1}
    for job in jobs:
        for component in job.delta.components.values():
            assert len(store.objects.get(component.stream)) == 10_000
    assert store.catalog.query("SELECT count(*) AS n FROM jobs") == [{"n": len(jobs)}]
    later = examine(store, now=4e9)
    assert {f.kind for f in later.findings} <= {"orphan object", "temporary file", "torn journal"}
    examine(store, fix=True, now=4e9)
    assert not examine(store, now=4e9).findings
    for job in jobs:
        for component in job.delta.components.values():
            assert store.objects.get(component.stream)
