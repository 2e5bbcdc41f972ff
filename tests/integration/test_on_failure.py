"""`--on-failure`: cells that run when a headless run has failed.

Laws:

* they run when the run has failed, and never otherwise: not in a run that succeeds, not on a
  cancel, not in an open notebook; there they are skipped;
* they see `flow.error`, and the namespace as the failure has left it; where the kernel is dead, a
  fresh one with the last checkpoint put back;
* what becomes of them changes nothing of what the run came to, and its first cause stays;
* they are no part of the chain: restarts, reruns and plans do not see them;
* killed while one runs, the recovered run executes those that had not ended, and no step.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reading import WITNESS, printed, statuses

TELL = (
    "%%step tell --on-failure\nfrom cellrail import flow\n"
    "told = (flow.error.step, flow.error.name, flow.error.value)\n"
    "print(*told, sep='|')\nprint(flow.error.traceback)"
)


def words(folder: Path) -> list[str]:
    return (folder / "witness.txt").read_text().split()


def test_it_runs_when_a_step_has_failed_on_what_the_failure_left(make, app):
    notebook = make("x = 1", TELL, "%%step bad\ny = 2\n1 / 0", "%%step never\nz = 3")

    run = app.run(notebook)

    assert (run.status, run.cause) == ("failed", "ZeroDivisionError: division by zero")
    assert statuses(run) == {"#1": "success", "tell": "success", "bad": "failed",
                             "never": "pending"}  # fmt: skip
    first, *traceback = printed(run, "tell").splitlines()
    assert first == "bad|ZeroDivisionError|division by zero"
    assert any("----> 3 1 / 0" in line for line in traceback)
    assert "\x1b" not in printed(run, "tell")
    variables = run["tell"].variables
    assert (variables["x"].load(), variables["y"].load()) == (1, 2)
    assert variables["told"].load()[0] == "bad"


def test_a_run_that_succeeds_skips_it(make, app):
    run = app.run(make("x = 1", TELL, "y = 2"))

    assert run.status == "success"
    assert statuses(run)["tell"] == "skipped"
    assert run["tell"].cause == "it runs when a headless run fails"
    plan = app.run(make("x = 1", TELL), plan=True)
    assert [(s.label, str(s.fate)) for s in plan.steps] == [("#1", "executes"),
                                                            ("tell", "skipped")]  # fmt: skip


def test_a_dead_kernel_is_replaced_with_the_last_checkpoint(make, app):
    notebook = make(
        "class Box: pass\nbox = Box(); box.again = [box]",
        "%%step connect\nlock = __import__('threading').Lock()",
        TELL,
        "%%step late --on-failure\nprint(told, box.again[0] is box, type(lock).__name__, extra)",
        "%%step kept --no-checkpoint\nextra = 1",
        "%%step bad\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    )

    run = app.run(notebook)

    assert (run.status, run.cause) == ("failed", "the kernel died (SIGKILL)")
    assert printed(run, "tell").startswith("bad|KernelDied|the kernel died (SIGKILL)\n")
    # what no checkpoint holds is missed by the cell that uses it, and by no other
    assert statuses(run)["late"] == "failed"
    assert run["late"].cause == "NameError: name 'extra' is not defined"


def test_what_cannot_be_stored_is_made_again_in_the_fresh_kernel(make, app):
    notebook = make(
        "%%step connect\nimport threading\nlock = threading.Lock()\nbox = [1]",
        "%%step setup --always\nready = True",
        "%%step tell --on-failure\nprint(lock.locked(), box, ready)",
        "%%step bad\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
        "%%step later --always\nprint('never')",
    )

    run = app.run(notebook)

    assert printed(run, "tell") == "False [1] True\n"
    assert statuses(run)["later"] == "pending"


@pytest.mark.parametrize("then", ["1 / 0", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_where_it_cannot_be_made_again_they_run_without_it(then, make, app):
    notebook = make(
        "%%step connect\nimport os, signal, threading\n"
        f"if os.path.exists('down'): {then}\nlock, x = threading.Lock(), 1",
        "%%step tell --on-failure\nfrom cellrail import flow\nprint(x, flow.error.name)\n"
        "print(lock)",
        "%%step last --on-failure\nprint('told')",
        "%%step bad\nopen('down', 'w').close(); os.kill(os.getpid(), signal.SIGKILL)",
    )

    run = app.run(notebook)

    assert (run.status, run.cause) == ("failed", "the kernel died (SIGKILL)")
    assert printed(run, "tell") == "1 KernelDied\n"
    assert run["tell"].cause == "NameError: name 'lock' is not defined"
    assert printed(run, "last") == "told\n"


def test_what_the_turns_of_a_loop_made_of_it_is_made_again_there_too(make, app):
    notebook = make(
        "import os, signal, threading\nheld = [threading.Lock()]",
        "%%step L --foreach i in range(4)\nheld.append(i)",
        "%%step bad --in L\nif i == 2: os.kill(os.getpid(), signal.SIGKILL)",
        "%%step tell --on-failure\nprint(i, held[1:])",
    )

    run = app.run(notebook)

    assert printed(run, "tell") == "2 [0, 1, 2]\n", run["tell"].cause


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("%%step bad --when missing\n1", "bad|RunFailed|--when missing: NameError: name 'missing'"),
        ("%%step bad --timeout 1\nimport time\ntime.sleep(60)",
         "bad|TimeoutError|timeout after 1 s"),
        ("%%step bad --while True --max-turns 2\n1", "bad|RunFailed|True is still true after 2"),
        ("%%step bad --foreach n in [1, 2]\n1 / (n - 2)",
         "bad[2]|ZeroDivisionError|division by zero"),
        ("%%step bad --foreach n in [1, 2] --parallel 2 --collect n\n1 / (n - 2)",
         "bad[2]|ZeroDivisionError|division by zero"),
    ],
)  # fmt: skip
def test_whatever_fails_a_run_is_told(make, app, cell, told):
    run = app.run(make("x = 1", cell, TELL))

    assert run.status == "failed"
    assert printed(run, "tell").startswith(told)


def test_a_limit_of_the_whole_run_does_not_count_for_it(make, app):
    notebook = make("%%step bad\nimport time\ntime.sleep(60)", TELL)

    run = app.run(notebook, timeout=2)

    assert run.cause == "timeout after 2 s (whole run)"
    assert printed(run, "tell").startswith("bad|TimeoutError|timeout after 2 s (whole run)\n")
    assert "KeyboardInterrupt" in printed(run, "tell")


def test_its_own_failure_hides_nothing_and_stops_no_other(make, app, cellrail):
    notebook = make(
        "%%step broken --on-failure --retry 1 --backoff 1ms\nprint('try'); raise OSError('mine')",
        "%%step dead --on-failure\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
        TELL,
        "%%step no --on-failure --when False\n1",
        "%%step bad\n1 / 0",
    )

    done = cellrail("run", notebook)

    run = app.show("last")
    assert done.returncode == 1
    assert (run.status, run.cause) == ("failed", "ZeroDivisionError: division by zero")
    assert statuses(run) == {"broken": "failed", "dead": "failed", "tell": "success",
                             "no": "skipped", "bad": "failed"}  # fmt: skip
    assert run["no"].cause == "False is false"
    assert printed(run, "tell").startswith("bad|ZeroDivisionError|division by zero\n")


def test_it_cannot_wait_and_its_states_count(make, app):
    notebook = make(
        "%%step wait --on-failure\nfrom cellrail import flow\nflow.suspend('1h')",
        "%%step note --on-failure\nfrom cellrail import get_state, set_state\n"
        "set_state((get_state() or 0) + 1)\nprint(get_state())",
        "%%step bad\n1 / 0",
    )

    runs = [app.run(notebook), app.run(notebook)]

    assert "the run has failed; nothing of it waits any more" in runs[0]["wait"].cause
    assert [printed(run, "note") for run in runs] == ["1\n", "2\n"]


def test_secrets_are_masked_in_what_it_is_told(make, app):
    notebook = make("token = ''  # secret", "%%step bad\nraise ValueError(token)", TELL,
                    tags={1: ["parameters"]})  # fmt: skip

    run = app.run(notebook, parameters={"token": "s3cret-token"})

    assert printed(run, "tell").startswith("bad|ValueError|***\n")
    assert run["tell"].variables["told"].load() == ("bad", "ValueError", "***")


def test_a_restart_keeps_what_it_would_keep_without_it(make, app, edit):
    notebook = make(
        "x = [1]", TELL, "%%step two\ny = x + [2]",
        "%%step spoil --on-failure\nx.append(9); y = 'spoilt'; raise OSError",
        "%%step bad\nx.append(5)\nz = y + [3]\n1 / 0", "%%step end\nprint(x, y, z)",
    )  # fmt: skip
    failed = app.run(notebook)
    assert statuses(failed)["spoil"] == "failed"
    edit(notebook, "1 / 0", "0 / 1")
    edit(notebook, "raise OSError", "raise RuntimeError")

    again = app.restart(failed.id)

    assert again.status == "success"
    assert statuses(again) == {"#1": "kept", "tell": "skipped", "two": "kept", "spoil": "skipped",
                               "bad": "success", "end": "success"}  # fmt: skip
    assert printed(again, "end") == "[1, 5] [1, 2] [1, 2, 3]\n"
    # one more, from behind all of them, and a rerun
    assert app.restart(again.id, from_step="end").status == "success"
    changed = app.rerun(again.id, changed=["step:two"])
    assert statuses(changed)["tell"] == "skipped"
    assert changed.status == "success"


def test_no_run_begins_or_ends_with_it(make, app):
    notebook = make("x = 1", TELL)
    run = app.run(notebook)

    for wanted in ({"from_step": "tell"}, {"from_step": "#1", "to": "tell"}):
        with pytest.raises(Exception, match="has --on-failure") as error:
            app.restart(run.id, **wanted)
        assert error.value.exit_code == 2
    with pytest.raises(Exception, match="has --on-failure"):
        app.run(notebook, to="tell")


def test_it_runs_in_a_restarted_run_that_fails_again(make, app):
    notebook = make("x = 1", TELL, "%%step bad\n1 / 0")
    first = app.run(notebook)

    again = app.restart(first.id)

    assert statuses(again) == {"#1": "kept", "tell": "success", "bad": "failed"}
    assert printed(again, "tell").startswith("bad|ZeroDivisionError")


def test_a_cancel_runs_none(make, app, cellrail, tmp_path):
    notebook = make(TELL, "%%step slow\nopen('begun', 'w').close()\nimport time\ntime.sleep(60)")
    process = subprocess.Popen(
        [sys.executable, "-m", "cellrail", "run", str(notebook)], cwd=tmp_path,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)

    process.send_signal(signal.SIGINT)

    assert process.wait(60) == 130
    run = app.show("last")
    assert (run.status, statuses(run)["tell"]) == ("cancelled", "skipped")


def test_a_wait_that_nobody_ends_in_time_has_a_fresh_kernel_for_it(make, app):
    notebook = make(
        "x = [1, 2]",
        "%%step ask\nfrom cellrail import flow\n_ = flow.suspend('1h', on_timeout='fail')",
        "%%step tell --on-failure\nfrom cellrail import flow\nprint(flow.error, x)",
    )
    waiting = app.run(notebook)
    assert waiting.status == "suspended"

    (done,) = app.tick(app.clock() + 7200)

    run = done.run
    assert (run.status, run.cause) == ("failed", "nobody resumed it in time")
    assert printed(run, "tell") == "step ask: RunFailed: nobody resumed it in time [1, 2]\n"


CRASHING = (
    WITNESS + "x = [1]",
    "%%step first --on-failure\nfrom cellrail import flow\nwitness('first'); print(flow.error)",
    "%%step second --on-failure\nwitness('second')\n"
    "if first('killed'): os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)\n"
    "print(flow.error, x)",
    "%%step third --on-failure\nwitness('third')",
    "%%step bad\nwitness('bad')\nx.append(2)\n1 / 0",
)


def test_killed_while_one_runs_the_run_goes_on_with_those_that_had_not_ended(
    make, app, cellrail, tmp_path
):
    done = cellrail("run", make(*CRASHING))
    assert done.returncode == -signal.SIGKILL
    run = app.show("last")
    assert run.status == "interrupted"

    again = app.recover(run.id)

    assert (again.id, again.status) == (run.id, "failed")
    assert again.cause == "ZeroDivisionError: division by zero"
    assert words(tmp_path) == ["bad", "first", "second", "second", "third"]
    assert statuses(again) == {"#1": "success", "first": "success", "second": "success",
                               "third": "success", "bad": "failed"}  # fmt: skip
    # the first one found what the failure had left, and so do those behind it
    assert printed(again, "second") == "step bad: ZeroDivisionError: division by zero [1, 2]\n"


def test_a_run_whose_kernel_died_can_still_be_recovered(make, app, tmp_path):
    notebook = make(
        WITNESS + "x = [1]",
        "%%step tell --on-failure\nwitness('told'); x.append('spoilt')",
        "%%step bad\nwitness('bad')\nif first('died'): os.kill(os.getpid(), signal.SIGKILL)\n"
        "if first('again'): os.kill(os.getpid(), signal.SIGKILL)\nx.append(2)",
    )
    assert app.run(notebook).status == "failed"

    assert app.recover("last").status == "failed"
    run = app.recover("last")

    assert run.status == "success"
    assert words(tmp_path) == ["bad", "told", "bad", "told", "bad"]
    assert run["bad"].variables["x"].load() == [1, 2]


def test_an_open_notebook_skips_it(front):
    front.run("%load_ext cellrail")

    told = front.execute("%%step tell --on-failure\nprint('ran')", "a")

    assert told.status == "ok"
    assert told.text == "cellrail: skipped, it runs when a headless run fails\n"
