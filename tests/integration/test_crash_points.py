"""kill -9 at every crash point: the store opens, committed steps are whole, the rest is swept.

* The points stand before and after every write of an object (in parts, too), rename, append, ingest
  and delete; a write is torn in its middle besides.
* A prune that is killed takes nothing that a kept run points to.
* The long form draws deaths at random (`make crash-test`): CRASH_ROUNDS stores; CRASH_SEED repeats
  a run of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cellrail_state.model import RunContinued, RunEnded, RunStatus
from cellrail_state.testing import (
    CRASH_POINTS,
    PRUNE_POINTS,
    RUN,
    a_run,
    commit,
    first_record,
    open_store,
)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="fork and SIGKILL")

OLD = [f"20250101-00000000{n}-aaaa" for n in range(3)]
#: what a write that was torn leaves besides
TORN = ("orphan object", "temporary file", "torn journal")
ROUNDS = int(os.environ.get("CRASH_ROUNDS", "4"))
SEED = int(os.environ.get("CRASH_SEED", "0")) or random.SystemRandom().randrange(2**32)

Die = Callable[..., int]


@pytest.fixture(scope="module")
def worker() -> Iterator[subprocess.Popen[str]]:
    """The process whose forks die."""
    script = Path(__file__).with_name("crash_worker.py")
    process = subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.communicate(timeout=30)


@pytest.fixture
def die(worker: subprocess.Popen[str]) -> Die:
    """Has a process work on a store and die at a point; the signal that ended it, or 0."""

    def request(folder: Path, work: str, point: str, after: int) -> int:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(json.dumps([str(folder), work, point, after]) + "\n")
        worker.stdin.flush()
        status = int(worker.stdout.readline())
        assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0

    return request


def a_store(folder: Path) -> dict[str, list[int]]:
    """A store of old runs and a newer one; what is committed in it."""
    store = open_store(folder)
    for place, run_id in enumerate(OLD):
        a_run(store, run_id, steps=1, time=1_600_000_000.0 + place)
    a_run(store)
    store.catalog.ingest()
    return {RUN: [1, 2, 3]}


def committed(folder: Path) -> dict[str, list[int]]:
    """What the processes that were killed had told."""
    told: dict[str, list[int]] = {}
    with contextlib.suppress(FileNotFoundError):
        for line in (folder / "told").read_text().splitlines():
            told.setdefault(line.split()[0], []).append(int(line.split()[1]))
    return told


@pytest.mark.parametrize("after", [0, 5])
@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_kill_leaves_a_store_whose_committed_steps_are_whole(
    tmp_path: Path, die: Die, assert_whole: Callable[..., None], point: str, after: int
) -> None:
    before = a_store(tmp_path)
    killed = die(tmp_path, "steps", point, after)
    assert killed == signal.SIGKILL or point.startswith("catalog")
    assert_whole(tmp_path, {**before, **committed(tmp_path)})


@pytest.mark.parametrize("after", [0, 3, 8, 15])
def test_a_kill_in_the_middle_of_a_write_leaves_what_was_committed_before(
    tmp_path: Path, die: Die, assert_whole: Callable[..., None], after: int
) -> None:
    before = a_store(tmp_path)
    assert die(tmp_path, "torn", "", after) == signal.SIGKILL
    assert_whole(tmp_path, {**before, **committed(tmp_path)}, harmless=TORN)


@pytest.mark.parametrize(
    ("work", "point", "after"),
    [("go on", point, after) for point in CRASH_POINTS[3:] for after in (0, 1)]
    + [("torn go on", "", after) for after in (0, 1, 2, 3)],
)
def test_a_run_that_goes_on_and_is_killed_again_is_whole_and_goes_on_again(
    tmp_path: Path, die: Die, assert_whole: Callable[..., None], work: str, point: str, after: int
) -> None:
    gone = "20260303-000000000-gone"
    before = a_store(tmp_path)
    store = open_store(tmp_path)
    journal = store.create_journal(first_record(gone, steps=3))
    commit(store, journal, gone, 1)
    journal.close()
    store.catalog.ingest()
    killed = die(tmp_path, work, point, after)
    assert killed == signal.SIGKILL or point.startswith("catalog")
    told = committed(tmp_path).get(gone, [])
    assert_whole(tmp_path, {**before, gone: [1, *told]}, harmless=TORN)
    reopened, records = open_store(tmp_path).reopen_journal(gone)
    reopened.append(RunEnded(time=9.0, status=RunStatus.SUCCESS))
    reopened.close()
    assert [r.epoch for r in records if isinstance(r, RunContinued)] in ([], [2], [2, 3])
    (row,) = (row for row in open_store(tmp_path).catalog.runs(limit=9) if row.run_id == gone)
    assert row.status == "success"


@pytest.mark.parametrize("after", [1])
@pytest.mark.parametrize("point", PRUNE_POINTS)
def test_a_prune_that_is_killed_takes_nothing_that_a_kept_run_points_to(
    tmp_path: Path, die: Die, assert_whole: Callable[..., None], point: str, after: int
) -> None:
    kept = {**a_store(tmp_path), OLD[0]: [1]}
    store = open_store(tmp_path)
    chain = (f"{OLD[0]}/1", f"{RUN}/1")
    store.create_journal(first_record(RUN.replace("aaaa", "bbbb"), chain=chain)).close()
    assert die(tmp_path, "sweep", point, after) in {signal.SIGKILL, 0}
    assert_whole(tmp_path, kept)


def test_deaths_at_random(
    tmp_path_factory: pytest.TempPathFactory, die: Die, assert_whole: Callable[..., None]
) -> None:
    print(f"CRASH_SEED={SEED} CRASH_ROUNDS={ROUNDS}")
    chance, killed, start = random.Random(SEED), 0, time.monotonic()
    for number in range(ROUNDS):
        folder = tmp_path_factory.mktemp("death")
        kept = a_store(folder)
        deaths = []
        for _ in range(chance.randint(1, 3)):  # a store may see more than one
            work = chance.choice(["steps", "steps", "torn", "sweep"])
            point = chance.choice(CRASH_POINTS if work == "steps" else PRUNE_POINTS)
            deaths.append((work, point, chance.randint(0, 20)))
            killed += bool(die(folder, *deaths[-1]))
        try:
            assert_whole(folder, {**kept, **committed(folder)}, harmless=TORN)
        except BaseException:
            print(f"round {number}: {deaths}")
            raise
    print(f"{killed} kills in {time.monotonic() - start:.0f} s")
