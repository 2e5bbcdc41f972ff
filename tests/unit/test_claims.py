"""Claims of ticks, and how ticks stand.

Laws: of everybody who claims a tick one decides which run it has; a run is begun once, whoever
begins it; the next claim is made only when the run before it has ended; a tick is filled by a
success, whoever made it; what the catalog does not know, the claims and journals tell.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import msgspec
import pytest

from cellrail_state import standing
from cellrail_state.claims import Claim
from cellrail_state.doctor import examine
from cellrail_state.errors import RunBegun, Untrusted
from cellrail_state.model import Owner, RunEnded, RunStatus, Tick
from cellrail_state.standing import Standing, stand, stands
from cellrail_state.testing import Crashed, RaiseAt, first_record, open_store
from cellrail_state.ticks import Key, stamp_of

FLOW = "etl.ipynb"
KEY = Key("20250101T000000Z", "a" * 32)
ME = Owner(pid=1, started=0.0, host="here")
RUN_A, RUN_B = "20260101-000000000-aaaa", "20260101-000000001-bbbb"


def claim(run_id=RUN_A, number=1, lock="nobody", key=KEY, by=""):
    return Claim(
        flow=FLOW, stamp=key.stamp, inputs=key.inputs, run_id=run_id, time=1.0, owner=ME,
        lock=lock, number=number, by=by,
    )  # fmt: skip


def begin(store, run_id=RUN_A, key=KEY, by="", source="s"):
    tick = Tick(stamp=key.stamp, inputs=key.inputs, by=by, source=source)
    return store.create_journal(first_record(run_id, flow=FLOW, tick=tick))


def end(journal, status=RunStatus.SUCCESS):
    journal.append(RunEnded(time=2.0, status=status))
    journal.close()


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path)


def test_of_many_claims_at_once_one_counts_and_all_are_told_which(store):
    claims = [claim(f"20260101-00000000{n}-aaaa") for n in range(8)]
    told, gate = [], threading.Barrier(len(claims))

    def take(wanted):
        gate.wait()
        told.extend(store.claims.claim([wanted]))

    threads = [threading.Thread(target=take, args=(one,)) for one in claims]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == len(claims)
    assert {one.run_id for one in told} == {store.claims.newest(FLOW, KEY).run_id}
    assert store.claims.numbers(FLOW) == {KEY: 1}


def test_a_run_is_begun_once_and_the_loser_leaves_nothing(store):
    winner = begin(store)
    with pytest.raises(RunBegun, match="begun by another process"):
        begin(store, by="trigger:late")
    winner.close()
    folder = store.journal_path(RUN_A).parent
    assert [path.name for path in folder.iterdir()] == [f"{RUN_A}.journal"]
    assert store.started(RUN_A).tick.by == ""


def test_of_many_processes_that_begin_a_claimed_run_one_does(store, tmp_path):
    code = (
        "import sys; from pathlib import Path; from cellrail_state.testing import *;"
        "from cellrail_state.errors import RunBegun\n"
        "store = open_store(Path(sys.argv[1])); input()\n"
        f"try: store.create_journal(first_record({RUN_A!r})); print('begun')\n"
        "except RunBegun: print('late')\n"
        "input()"
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    said = [worker.stdout.readline().strip() for worker in workers]
    for worker in workers:
        worker.communicate("\n")
    assert sorted(said) == ["begun", "late", "late"]


def test_a_tick_stands_as_its_newest_run_does(store):
    def now():
        by_catalog, by_journal = stands(store, FLOW, [KEY])[KEY], stand(store, FLOW, KEY)
        assert by_catalog == by_journal
        return by_catalog.standing, by_catalog.run_id

    assert now() == (Standing.MISSING, "")
    with store.claims.owner() as lock:
        store.claims.claim([claim(lock=lock)])
        assert now() == (Standing.CLAIMED, RUN_A)
    assert now() == (Standing.ABANDONED, RUN_A)
    journal = begin(store)
    assert now() == (Standing.RUNNING, RUN_A)
    journal.close()
    assert now() == (Standing.INTERRUPTED, RUN_A)
    journal, _ = store.reopen_journal(RUN_A)
    end(journal, RunStatus.FAILED)
    assert now() == (Standing.FAILED, RUN_A)
    store.claims.claim([claim(RUN_B, number=2)])
    assert now() == (Standing.ABANDONED, RUN_B)
    end(begin(store, RUN_B, source="t"))
    assert now() == (Standing.SUCCESS, RUN_B)
    assert stands(store, FLOW, [KEY])[KEY].source == "t"
    other = Key(KEY.stamp, "b" * 32)
    assert stands(store, FLOW, [other])[other].standing is Standing.MISSING


def take(store, run_id, lock="nobody"):
    return try_with(store, stand(store, FLOW, KEY), run_id, lock)


def try_with(store, seen, run_id, lock="nobody"):
    claimer = standing.Claimer(owner=ME, lock=lock, by="backfill:x")
    got = standing.claim(store, FLOW, [seen], claimer, new_id=lambda: run_id, now=1.0)
    return got[0] if got else None


def test_what_was_claimed_by_somebody_who_is_gone_keeps_its_run(store):
    store.claims.claim([claim(RUN_A)])
    assert take(store, RUN_B).run_id == RUN_A
    begin(store).close()
    assert take(store, RUN_B) is None  # it is recovered, not begun


def test_a_tick_is_claimed_again_only_when_its_run_has_ended(store):
    with store.claims.owner() as lock:
        assert take(store, RUN_A, lock).number == 1
        assert take(store, RUN_B) is None
        journal = begin(store)
        assert take(store, RUN_B) is None
        end(journal, RunStatus.FAILED)
        assert take(store, RUN_B).number == 2


def test_whoever_saw_an_older_claim_is_refused(store):
    end(begin(store), RunStatus.FAILED)
    store.claims.claim([claim(RUN_A)])
    seen = stand(store, FLOW, KEY)
    store.claims.claim([claim(RUN_B, number=2)])
    assert try_with(store, seen, "20260101-000000002-cccc") is None
    assert store.claims.newest(FLOW, KEY).run_id == RUN_B


@pytest.mark.parametrize("point", ["claims.before_claim", "claims.after_claim"])
def test_a_crash_on_either_side_of_a_claim_loses_no_tick(tmp_path, point):
    broken = open_store(tmp_path, points=RaiseAt(point))
    with pytest.raises(Crashed):
        take(broken, RUN_A)
    store = open_store(tmp_path)
    found = take(store, RUN_B)
    assert found.run_id == (RUN_B if point == "claims.before_claim" else RUN_A)
    end(begin(store, found.run_id))
    assert stand(store, FLOW, KEY).standing is Standing.SUCCESS


def test_a_killed_owner_is_gone_whatever_the_clock_says(store, tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from cellrail_state.testing import *\n"
        "store = open_store(Path(sys.argv[1]))\n"
        "with store.claims.owner() as lock:\n"
        "    print(lock, flush=True); input(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    one = claim(lock=worker.stdout.readline().strip())
    assert store.claims.lives(one)
    worker.communicate("\n")
    assert not store.claims.lives(one)


def test_claims_follow_a_flow_to_its_new_name(store):
    store.claims.claim([claim()])
    end(begin(store))
    store.rename_flow(FLOW, "new.ipynb", now=2_000_000_000.0)
    assert stands(store, "new.ipynb", [KEY])[KEY].standing is Standing.SUCCESS
    assert stand(store, FLOW, KEY).standing is Standing.MISSING
    store.claims.move("nobody.ipynb", "new.ipynb")


def test_a_claim_of_somebody_else_or_of_another_tick_is_refused(store, tmp_path):
    (tmp_path / "x").mkdir()
    theirs = open_store(tmp_path / "x")
    theirs.claims.claim([claim()])
    store.claims.claim([claim(key=Key("20250102T000000Z", KEY.inputs))])
    (folder,) = [p for p in (store.path / "ticks").iterdir() if p.name != "owners"]
    (foreign,) = [p for p in (theirs.path / "ticks").iterdir() if p.name != "owners"]
    target = folder / f"{KEY.stamp}-{KEY.inputs}.1"
    target.write_bytes(next(foreign.iterdir()).read_bytes())
    with pytest.raises(Untrusted):
        store.claims.newest(FLOW, KEY)
    target.write_bytes((folder / f"20250102T000000Z-{KEY.inputs}.1").read_bytes())
    with pytest.raises(Untrusted):
        store.claims.newest(FLOW, KEY)


def test_many_ticks_are_claimed_at_once_except_those_that_somebody_has(store):
    keys = [Key(f"202501{day:02}T000000Z", "a" * 32) for day in range(1, 6)]
    store.claims.claim([claim(RUN_B, key=keys[2])])
    claimer = standing.Claimer(owner=ME, lock="me")
    ids = iter(f"20260101-00000001{n}-aaaa" for n in range(9))
    seen = [standing.Stand(key=key) for key in keys]
    got = standing.claim(store, FLOW, seen, claimer, new_id=lambda: next(ids), now=1.0)
    assert [one.key for one in got] == [*keys[:2], *keys[3:]]
    assert store.claims.numbers(FLOW) == dict.fromkeys(keys, 1)
    assert [store.claims.newest(FLOW, key).run_id for key in keys][2] == RUN_B
    assert standing.claim(store, FLOW, [], claimer, new_id=lambda: "", now=1.0) == []


def test_a_stamp_is_an_instant_of_whole_seconds():
    import datetime as dt

    paris = dt.datetime.fromisoformat("2025-03-30T03:00:00+02:00")
    assert stamp_of(paris) == "20250330T010000Z"
    assert Key(stamp_of(paris), "").moment == paris
    tick = Tick(stamp=stamp_of(paris), inputs="", zone="Europe/Paris")
    assert tick.moment.isoformat() == paris.isoformat()
    for wrong in (paris.replace(tzinfo=None), paris.replace(microsecond=1)):
        with pytest.raises(ValueError, match="aware datetime of whole seconds"):
            stamp_of(wrong)


def test_records_without_a_tick_read_as_before():
    plain = msgspec.json.decode(msgspec.json.encode(first_record()))
    assert "tick" not in plain


def test_what_a_killed_claimer_leaves_is_swept(store):
    store.claims.claim([claim()])
    (folder,) = [p for p in (store.path / "ticks").iterdir() if p.name != "owners"]
    (folder / ".x.tmp").write_bytes(b"half")
    report = examine(store, fix=True, now=time.time() + 86_400)
    assert [finding.kind for finding in report.findings] == ["temporary file"]
    assert [path.name for path in folder.iterdir()] == [f"{KEY.stamp}-{KEY.inputs}.1"]
