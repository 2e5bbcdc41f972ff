"""Ctrl-C whenever it comes, once or several times.

Laws: the exit code is 130; a run that had begun is cancelled, and can be restarted; no kernel is
left; a cell whose code was done when Ctrl-C came is committed, and nothing follows it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from cellrail.run.recorder import Recorder
from cellrail_state.doctor import examine
from reading import wait_for

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

#: what a sudden end may leave: nothing that was committed is among it
LEFT_OVERS = ("orphan object", "temporary file")
LOOP = (
    "import time\nfrom pathlib import Path\nbase = list(range(1000))",
    "%%step work --foreach x in range(4) --parallel 2 --collect y\n"
    "Path(f'item{x}').touch()\ntime.sleep(30)\ny = x",
    "%%step after\nPath('after').touch()",
)
#: a value whose capture says so, and takes its time
SLOW = (
    "import time\nfrom pathlib import Path\nclass Slow:\n"
    "    def __reduce__(self):\n"
    "        Path('captures').touch()\n        time.sleep(3)\n        return (Slow, ())\n"
)


def drive(path, folder):
    words = [sys.executable, "-m", "cellrail", "run", str(path)]
    return subprocess.Popen(
        words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def is_cancelled(process, app, folder):
    """The process has ended as one that was interrupted, and its run is so."""
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "please report this" not in said
    # before its first record there is a store without a run
    if (folder / ".cellrail").exists() and app.runs():
        run = app.show("last")
        assert (run.status, run.cause) == ("cancelled", "interrupted"), said
        found = {finding.kind for finding in examine(app.store).findings}
        assert found <= {*LEFT_OVERS}, found
    assert not (folder / "after").exists()
    mine = [p for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(folder)]
    _, alive = psutil.wait_procs(mine, timeout=10)
    assert not alive


@pytest.mark.parametrize("seconds", [0.4, 1.0, 1.6, 2.2, 2.8, 3.4])
def test_early_in_a_run_with_a_parallel_loop(make, app, tmp_path, seconds):
    process = drive(make(*LOOP), tmp_path)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(seconds)
    process.send_signal(signal.SIGINT)
    is_cancelled(process, app, tmp_path)


@pytest.mark.parametrize(
    "lines",
    [
        "s --on-error continue",
        "s --on-error skip --retry 2",
        "s --foreach x in 'ab' --on-error skip",
        "s --foreach x in 'ab' --on-error continue",
        "s --foreach x in 'ab' --on-error skip --parallel 2",
        "s --while True --on-error skip",
    ],
)
def test_in_a_step_whose_failure_its_line_accepts(make, app, tmp_path, lines):
    body = "Path('begun').touch()\ntry:\n    time.sleep(60)\nexcept BaseException: 1 / 0"
    path = make(
        "import time\nfrom pathlib import Path", f"%%step {lines}\n{body}",
        "%%step after\nPath('after').touch()",
    )  # fmt: skip
    process = drive(path, tmp_path)
    wait_for((tmp_path / "begun").exists)
    process.send_signal(signal.SIGINT)
    is_cancelled(process, app, tmp_path)
    assert app.show("last")["s"].status == "cancelled"


@pytest.mark.parametrize("pause", [0.0, 0.05, 0.3])
def test_several_times_in_a_row(make, app, tmp_path, pause):
    process = drive(make(*LOOP), tmp_path)
    wait_for((tmp_path / "item0").exists)
    for _ in range(5):
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        time.sleep(pause)
    is_cancelled(process, app, tmp_path)


def test_while_the_workers_of_a_loop_are_started(make, app, tmp_path, monkeypatch):
    """One that has begun asks for a kernel: it is answered, whatever comes."""
    begin = threading.Thread.start

    def start(thread):
        begin(thread)
        if thread.name == "cellrail-item-0":
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(threading.Thread, "start", start)
    run = app.run(make(*LOOP))
    assert run.was_interrupted
    assert not [t for t in threading.enumerate() if t.name.startswith("cellrail-item")]
    assert not (tmp_path / "after").exists()


@pytest.mark.cold  # a forked kernel's parent is not its driver
def test_no_tick_follows_one_whose_run_it_has_ended(make, app, clock):
    stops = "import os, signal, time\nos.kill(os.getppid(), signal.SIGINT)\ntime.sleep(30)"
    app.trigger_add(make(stops), cron="0 * * * *", id="t")
    (done,) = app.tick(clock() + 3 * 3600)
    assert done.interrupted
    make("print(1)")
    rest = app.tick(clock() + 3 * 3600)
    assert [one.run.status for one in rest] == ["success"] * 2


def test_while_a_loop_forks_its_namespace(make, app, tmp_path):
    """The kernel captures, and no code of the notebook runs."""
    loop = "%%step work --foreach x in [1, 2] --parallel 2\nprint(kept)\ntime.sleep(30)"
    process = drive(
        make(SLOW + "kept = None", "%%step prepare --no-checkpoint\nkept = Slow()", loop, LOOP[2]),
        tmp_path,
    )
    wait_for((tmp_path / "captures").exists)
    process.send_signal(signal.SIGINT)
    is_cancelled(process, app, tmp_path)


def test_a_cell_whose_code_was_done_is_committed_and_nothing_follows(make, app, tmp_path):
    process = drive(make(SLOW, "%%step made\nkept = Slow()", LOOP[2]), tmp_path)
    wait_for((tmp_path / "captures").exists)
    process.send_signal(signal.SIGINT)
    is_cancelled(process, app, tmp_path)

    run = app.show("last")
    assert run["made"].status == "success"
    assert app.restart(run.id)["made"].status == "kept"


def test_while_the_process_stays_for_a_run_that_waits(make, app, tmp_path):
    """The run goes on waiting, and that is said, with `-q`, too."""
    path = make("%%step nap --sleep 1h\nx = 1", "%%step after\nprint(x)")
    words = [sys.executable, "-m", "cellrail", "run", str(path), "-q"]
    process = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    wait_for((tmp_path / ".cellrail").exists)
    wait_for(lambda: [run.status for run in app.runs()] == ["suspended"])
    with pytest.raises(subprocess.TimeoutExpired):  # it brings its run to the end before
        process.wait(1.5)
    process.send_signal(signal.SIGINT)

    _, said = process.communicate(timeout=60)

    run = app.show("last")
    assert (process.returncode, run.status) == (130, "suspended"), said
    assert f"run {run.id} stays suspended behind step 'nap' until 20" in said
    assert f"now: cellrail resume {run.id}; not at all: cellrail cancel {run.id}" in said
    assert app.resume(run.id).status == "success"


def test_while_the_driver_has_work_of_its_own_beside_a_cell(make, app, tmp_path, monkeypatch):
    """A slow disk: the cell's code is done before the commit before it is durable."""
    sync, started, jobs = Recorder.sync, Recorder.started, []

    def slow(recorder):
        sync(recorder)
        if len(jobs) == 2:
            jobs.append("pressed")
            wait_for((tmp_path / "captures").exists)
            signal.raise_signal(signal.SIGINT)

    def noted(recorder, step, job_id, **options):
        jobs.append(job_id)
        started(recorder, step, job_id, **options)

    monkeypatch.setattr(Recorder, "sync", slow)
    monkeypatch.setattr(Recorder, "started", noted)
    run = app.run(make(SLOW, "%%step made\nkept = Slow()", LOOP[2]))
    monkeypatch.undo()

    assert jobs[-1] == "pressed"
    assert run.was_interrupted
    assert run["made"].status == "success"
    assert not (tmp_path / "after").exists()
    assert app.restart(run.id)["made"].status == "kept"


def test_between_the_end_of_a_cell_and_its_commit(make, app, tmp_path, monkeypatch):
    finished = Recorder.finished

    def pressed(recorder, job):
        if job.status == "success":
            signal.raise_signal(signal.SIGINT)
        finished(recorder, job)

    monkeypatch.setattr(Recorder, "finished", pressed)
    run = app.run(make(LOOP[0], LOOP[2]))
    monkeypatch.undo()

    assert run.was_interrupted
    assert [step.status for step in run.steps] == ["success", "pending"]
    assert app.restart(run.id).status == "success"


def test_no_wait_begins_behind_a_commit_that_was_interrupted(make, app, monkeypatch):
    finished = Recorder.finished

    def pressed(recorder, job):
        signal.raise_signal(signal.SIGINT)
        finished(recorder, job)

    monkeypatch.setattr(Recorder, "finished", pressed)
    began = time.monotonic()
    run = app.run(make("%%step s --retry 1 --backoff 50s\n1 / 0"))

    assert run.was_interrupted
    assert time.monotonic() - began < 40


def test_the_last_cell_is_committed_and_no_further_tick_begins(make, app, tmp_path):
    path = make(SLOW, "%%step made\nkept = Slow()")
    app.trigger_add(path, cron="* * * * *", id="t")
    later = str(time.time() + 300)
    tick = "import sys; from cellrail.app import App; App('.cellrail').tick(float(sys.argv[1]))"
    words = [sys.executable, "-c", tick, later]
    process = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    wait_for((tmp_path / "captures").exists)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)

    assert said.rstrip().endswith("KeyboardInterrupt")
    assert [run.status for run in app.runs()] == ["success"]
