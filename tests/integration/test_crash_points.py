"""kill -9 at every crash point: the store opens, committed records are whole, the rest is swept."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cellrail_state.doctor import examine
from cellrail_state.model import JobFinished
from cellrail_state.testing import CRASH_POINTS, RUN, a_run, open_store

CODE = """
import sys
from pathlib import Path
from cellrail_state.testing import RUN, KillAt, commit, first_record, open_store
store = open_store(Path(sys.argv[1]), points=KillAt(sys.argv[2], after=int(sys.argv[3])))
run_id = RUN.replace("aaaa", "zzzz")
journal = store.create_journal(first_record(run_id, steps=9))
for step in range(1, 10):
    commit(store, journal, run_id, step)
    print(step, flush=True)
    store.catalog.ingest()
"""
HARMLESS = {"orphan object", "temporary file", "torn journal", "catalog"}


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("after", [0, 1, 4])
@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_kill_leaves_a_store_whose_committed_steps_are_whole(
    tmp_path: Path, point: str, after: int
) -> None:
    store = open_store(tmp_path)
    a_run(store)
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path), point, str(after)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    told = [int(line) for line in done.stdout.split()]
    for run_id in store.run_ids():
        assert not store.is_owned(run_id)
        assert store.started(run_id)
        jobs = [r for r in store.records(run_id, verify=True) if isinstance(r, JobFinished)]
        if run_id != RUN:
            assert [job.step for job in jobs][: len(told)] == told
        for job in jobs:
            for component in job.delta.components.values():
                assert store.objects.get(component.stream)
    assert store.catalog.runs()[-1].run_id == RUN
    later = time.time() + 10 * 86_400
    assert {f.kind for f in examine(store, fix=True, now=later).findings} <= HARMLESS
    assert not examine(store, now=later).findings
