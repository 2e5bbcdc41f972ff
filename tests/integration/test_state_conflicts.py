"""Two writers of one key: one is told, and may try again on the namespace before."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cellrail import App
from cellrail_state.ledger import Ledger
from cellrail_state.model import JobFinished
from reading import printed

RESOURCE = "from cellrail import get_resource, set_resource\n"


def test_a_state_conflict_can_be_tried_again(make, app, cellrail):
    """Another process writes between the cell's write and its end; the second attempt succeeds."""
    run = app.run(
        make(
            RESOURCE + "import subprocess, sys",
            "%%step add --retry 1 --backoff 1ms\nn = get_resource('n', 0)\n"
            "set_resource(n + 1, 'n')\n"
            "words = [sys.executable, '-m', 'cellrail', 'resource', 'set', 'n', '10']\n"
            "if n == 0: subprocess.run(words, check=True, capture_output=True)",
        )
    )
    assert run.status == "success", run.cause
    assert app.resource_get("n") == 11
    jobs = [r for r in app.store.records(run.id) if isinstance(r, JobFinished) and r.step == 2]
    assert [str(job.status) for job in jobs] == ["failed", "success"]
    assert jobs[0].error is not None
    assert "by hand" in jobs[0].error.value


ADD = (
    "%%step add --retry 1 --backoff 1ms\nn = get_resource('n', 0)\nrows.append(n)\n"
    "set_resource(n + 1, 'n')"
)


def test_items_of_one_run_that_write_one_key_are_tried_again_and_told_of_one_another(make, app):
    begin = RESOURCE + "import time\nfrom pathlib import Path\nrows = []"
    loop = (
        "%%step add --foreach x in range(5) --parallel 2 --collect rows --retry 5 --backoff 1ms\n"
        "n = get_resource('n', 0)\nPath(f'item{x}').touch()\n"
        # two of them have read before one writes
        "while len(list(Path().glob('item*'))) < 2: time.sleep(0.01)\n"
        "rows.append(n)\nset_resource(n + 1, 'n')"
    )
    run = app.run(make(begin, loop))
    assert run.status == "success", run.cause
    assert app.resource_get("n") == 5
    assert sorted(run["add"].variables["rows"].load()) == [[n] for n in range(5)]
    jobs = [record for record in app.store.records(run.id) if isinstance(record, JobFinished)]
    failed = [job for job in jobs if job.error is not None]
    assert failed
    assert {job.error.name for job in failed} == {"StateConflict"}
    told = f"written by another item of this run ({run.id})"
    assert all(told in job.error.value for job in failed)


@pytest.fixture
def beaten(app, monkeypatch):
    """Somebody writes the key `n` right before the first commit of a step that writes it."""
    commits = []

    def claim(ledger, *arguments, **options):
        commits.append(1)
        if len(commits) == 1:
            App(app.store_path).resource_set("n", 10)
        return original(ledger, *arguments, **options)

    original = Ledger.claim
    monkeypatch.setattr(Ledger, "claim", claim)
    return commits


def test_a_conflict_after_the_capture_is_tried_again_on_the_namespace_before(make, app, beaten):
    run = app.run(
        make(
            RESOURCE + "import threading\nrows, also = [], None\nalso = rows\n"
            "lock = threading.Lock()\nclass Count:\n    calls = 0",
            "kept = 1",
            ADD + "\nCount.calls += 1\nkept = 2\nnew = n",
            "%%step after\nprint(rows, also is rows, Count.calls, kept, new, lock.locked())",
        )
    )
    assert run.status == "success", run.cause
    assert (app.resource_get("n"), len(beaten)) == (11, 2)
    jobs = [r for r in app.store.records(run.id) if isinstance(r, JobFinished) and r.step == 3]
    assert [str(job.status) for job in jobs] == ["failed", "success"]
    assert jobs[0].error.name == "StateConflict"
    told = "[10] True 1 2 10 False\n"
    assert printed(run, "after") == told
    # the checkpoint is the namespace's
    again = app.restart(run.id, from_step="after")
    assert printed(again, "after") == told


def test_a_conflict_after_the_capture_can_be_asked_for_and_passed_over(make, app, beaten):
    run = app.run(
        make(
            RESOURCE + "rows = []",
            "%%step add --retry 1 --retry-if type(error).__name__ != 'StateConflict' "
            "--on-error continue\nn = get_resource('n', 0)\nrows.append(n)\n"
            "set_resource(n + 1, 'n')",
            "%%step after\nprint(rows, type(error_add).__name__)",
        )
    )
    assert run.status == "success", run.cause
    assert app.resource_get("n") == 10
    assert printed(run, "after") == "[0] StateConflict\n"
    assert printed(app.restart(run.id, from_step="after"), "after") == "[0] StateConflict\n"


def test_of_two_runs_that_write_one_key_at_a_time_the_second_fails_and_names_the_first(
    make, app, tmp_path
):
    meet = (
        "open(f'{who}.read', 'w').close()\n"
        "import os, time\n"
        "end = time.time() + 60\n"
        "while not (os.path.exists('a.read') and os.path.exists('b.read')):\n"
        "    assert time.time() < end; time.sleep(0.01)\n"
    )
    path = make(
        "who = 'a'",
        RESOURCE + "n = get_resource('shared/n', default=0)\n" + meet
        + "set_resource(n + 1, 'shared/n')\ntime.sleep(0.3)",
        tags={1: ["parameters"]},
    )  # fmt: skip
    app.resource_set("other", 1)  # the store is there
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "cellrail", "run", str(path), "-p", "who", who, "--json"],
            stdout=subprocess.PIPE, text=True, cwd=tmp_path,
        )
        for who in "ab"
    ]  # fmt: skip
    told = [json.loads(process.communicate(timeout=120)[0]) for process in runs]
    assert sorted(run["status"] for run in told) == ["failed", "success"]
    good = next(run for run in told if run["status"] == "success")
    bad = next(run for run in told if run["status"] == "failed")
    assert "shared/n" in bad["cause"]
    assert good["run_id"] in bad["cause"]
    [stored] = [s for s in app.resource_list() if s.path == "shared/n"]
    assert (stored.value, stored.version, stored.run_id) == (1, 1, good["run_id"])
