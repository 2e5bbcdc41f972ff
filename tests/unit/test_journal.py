"""Laws of a journal: committed records come back in order; a torn tail was never committed; what
was changed, moved or cut out does not verify; the owner's lock is the owner's life."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cellrail_state import journal as journals
from cellrail_state.errors import (
    JournalDamaged,
    RunIsOwned,
    RunTakenOver,
    StoreNotWritable,
    Untrusted,
)
from cellrail_state.history import RunHistory
from cellrail_state.locks import unlock
from cellrail_state.model import (
    JobFinished,
    Owner,
    RunContinued,
    RunEnded,
    RunStarted,
    RunStatus,
)
from cellrail_state.steps import Sources
from cellrail_state.store import Store
from cellrail_state.testing import RUN, a_run, commit, finished, first_record, open_store


def test_committed_records_come_back_in_order(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    a_run(store, steps=5)
    records = list(store.records(RUN, verify=True))
    assert isinstance(records[0], RunStarted)
    assert [r.step for r in records if isinstance(r, JobFinished)] == [1, 2, 3, 4, 5]


def test_reading_goes_on_from_where_an_entry_ended(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    a_run(store)
    path = store.journal_path(RUN)
    entries = list(journals.read(path))
    for place, entry in enumerate(entries):
        assert list(journals.read(path, entry.end)) == entries[place + 1 :]


def test_any_cut_leaves_every_whole_record_and_nothing_else(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    a_run(store, steps=2)
    path = store.journal_path(RUN)
    data, entries = path.read_bytes(), list(journals.read(path))
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert list(journals.read(path)) == [e for e in entries if e.end <= length]


def test_a_payload_changed_in_the_middle_is_damage(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    a_run(store)
    path = store.journal_path(RUN)
    data, entry = bytearray(path.read_bytes()), list(journals.read(path))[2]
    data[entry.end - 1] ^= 1
    path.write_bytes(data)
    with pytest.raises(JournalDamaged, match=str(entry.offset)):
        list(journals.read(path))


def test_a_length_changed_in_the_middle_is_damage_and_no_torn_tail(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    a_run(store)
    path = store.journal_path(RUN)
    data, entry = bytearray(path.read_bytes()), list(journals.read(path))[2]
    data[entry.offset + 3] ^= 0x40  # high byte of the length: points far behind the end
    path.write_bytes(data)
    with pytest.raises(JournalDamaged):
        list(journals.read(path))


def test_the_journal_of_another_run_does_not_verify_under_this_name(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    a_run(store)
    other = RUN.replace("aaaa", "bbbb")
    store.journal_path(RUN).rename(store.journal_path(other))
    with pytest.raises(Untrusted):
        list(store.records(other, verify=True))


def test_records_in_another_order_do_not_verify(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    a_run(store)
    path = store.journal_path(RUN)
    data, (a, b) = path.read_bytes(), list(journals.read(path))[2:4]
    swapped = data[b.offset : b.end] + data[a.offset : a.end]
    path.write_bytes(data[: a.offset] + swapped + data[b.end :])
    with pytest.raises((Untrusted, JournalDamaged)):
        list(store.records(RUN, verify=True))


def test_a_run_is_owned_as_long_as_its_journal_is_open(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    journal = store.create_journal(first_record())
    assert store.is_owned(RUN)
    journal.close()
    assert not store.is_owned(RUN)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_keep_a_run_owned(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    journal = store.create_journal(first_record())
    (wait, go), (ready, tell) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go)
        os.write(tell, b"!")
        os.read(wait, 1)
        os._exit(0)
    try:
        assert os.read(ready, 1) == b"!"
        journal.close()
        assert not store.is_owned(RUN)
    finally:
        os.close(go)
        os.waitpid(pid, 0)
        for descriptor in (wait, ready, tell):
            os.close(descriptor)


def test_looking_whether_a_run_is_owned_does_not_make_it_look_owned(tmp_path: Path) -> None:
    from cellrail_state import locks

    store = open_store(tmp_path)
    a_run(store)
    path = store.journal_path(RUN)
    seen, real = [], locks.unlock

    def second_look(descriptor: int) -> None:
        if not seen:  # the first look holds its lock: another process looks now
            seen.append(None)
            seen[0] = locks.is_locked(path)
        real(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locks, "unlock", second_look)
        locks.is_locked(path)
    assert seen == [False]


def test_no_space_leaves_the_journal_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    journal = store.create_journal(first_record())
    commit(store, journal, RUN, 1)
    record = finished(store, RUN, 2)
    before = store.journal_path(RUN).read_bytes()
    real, calls = os.write, []

    def full(fd: int, data: bytes) -> int:
        calls.append(1)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return real(fd, bytes(data)[:10])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreNotWritable, match="No space"):
        journal.append(record)
    monkeypatch.undo()
    assert store.journal_path(RUN).read_bytes() == before
    journal.append(record)
    journal.close()
    assert len(list(store.records(RUN, verify=True))) == 4


def test_sync_behind_close_does_nothing(tmp_path: Path) -> None:
    journal = open_store(tmp_path).create_journal(first_record())
    journal.close()
    journal.sync()


# --- under another owner ---------------------------------------------------------------------


def an_interrupted_run(tmp_path: Path) -> Store:
    store = open_store(tmp_path)
    a_run(store, steps=2, end=False)
    return store


def test_another_owner_goes_on_with_the_chain_behind_a_torn_tail(tmp_path: Path) -> None:
    store = an_interrupted_run(tmp_path)
    path = store.journal_path(RUN)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[-40:-7])

    journal, records = store.reopen_journal(RUN)
    assert store.is_owned(RUN)
    commit(store, journal, RUN, 3)
    journal.close()

    assert path.read_bytes().startswith(whole)
    after = list(store.records(RUN, verify=True))
    assert after[: len(records)] == records
    assert [r.step for r in after if isinstance(r, JobFinished)] == [1, 2, 3]


def test_a_run_has_one_owner_at_a_time(tmp_path: Path) -> None:
    store = an_interrupted_run(tmp_path)
    journal, _ = store.reopen_journal(RUN)
    with pytest.raises(RunIsOwned, match="still running"):
        store.reopen_journal(RUN)
    journal.close()
    store.reopen_journal(RUN)[0].close()


def test_an_owner_of_an_older_epoch_writes_nothing(tmp_path: Path) -> None:
    store = an_interrupted_run(tmp_path)
    old, _ = store.reopen_journal(RUN)
    unlock(old._descriptor)
    new, _ = store.reopen_journal(RUN)
    commit(store, new, RUN, 3)
    before = store.journal_path(RUN).read_bytes()
    with pytest.raises(RunTakenOver, match="another process"):
        commit(store, old, RUN, 3)
    assert store.journal_path(RUN).read_bytes() == before
    old.close()
    new.close()


def test_only_who_has_the_key_goes_on_with_a_run(tmp_path: Path) -> None:
    store = an_interrupted_run(tmp_path)
    stranger = open_store(tmp_path, keys="other")
    stranger.keyring.key()
    with pytest.raises(Untrusted, match="signed by somebody else"):
        stranger.reopen_journal(RUN)
    stranger.trust()  # adopted as it is, but not to be added to
    with pytest.raises(Untrusted, match="signed by somebody else"):
        stranger.reopen_journal(RUN)
    stranger.keyring.import_(store.keyring.export())
    journal, _ = stranger.reopen_journal(RUN)
    commit(stranger, journal, RUN, 3)
    journal.close()
    assert len(list(store.records(RUN, verify=True))) == 7


def test_a_history_tells_of_its_owners(tmp_path: Path) -> None:
    store = an_interrupted_run(tmp_path)
    journal, _ = store.reopen_journal(RUN)
    journal.append(RunEnded(time=5.0, status=RunStatus.SUSPENDED))
    owner = Owner(pid=7, started=1.0, host="there")
    journal.append(RunContinued(time=6.0, owner=owner, epoch=2, reason="resume"))
    sources = Sources(records=store.records, owned=store.is_owned, content=store.objects.get)
    running = RunHistory(RUN, sources)
    assert (running.status, running.epoch, running.owner) == ("running", 2, owner)
    journal.close()
    assert RunHistory(RUN, sources).status == "interrupted"
