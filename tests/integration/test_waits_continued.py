"""Waits beside crashes, restarts, reruns, prune and cancel.

Laws: an answer is not lost, and one that does not count is told to be void; a run that goes on
knows what its waits brought; no committed job executes twice.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from cellrail.errors import NotWaiting, RecoverRefused
from reading import APPROVAL, WITNESS, counts, printed, statuses, wait_for

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")


# --- crashes ---------------------------------------------------------------------------------


def test_an_answer_that_nobody_went_on_from_is_not_lost(make, app, tmp_path, clock):
    from cellrail_state.waits import Answer

    for go_on in ("tick", "resume", "recover"):
        run = app.run(make(*APPROVAL))
        info = app.store.inbox.waiting(run.id)[0]
        # whoever resumed it was killed right behind the answer
        app.store.inbox.answer(
            info.wait_id, Answer(by="resume", time=clock(), who="ann", data=f'"{go_on}"')
        )
        if go_on == "tick":
            (ticked,) = app.tick()
            done = ticked.run
        elif go_on == "resume":
            told: list[str] = []
            done = app.resume(run.id, data="second", tell=told.append)
            assert "resumed by ann" in told[0]
        else:
            done = app.recover(run.id)
        assert done.status == "success"
        assert printed(done, "deploy") == f"{go_on} resume True\n"
    with pytest.raises(RecoverRefused, match="is suspended: it waits behind approve"):
        app.recover(app.run(make(*APPROVAL)).id)


def test_a_run_killed_while_its_always_cell_runs_again_runs_it_again(make, app, cellrail, tmp_path):
    run = app.run(
        make(
            WITNESS,
            "%%step setup --always\nwitness('setup')\n"
            "if Path('kill').exists():\n"
            "    Path('kill').unlink(); os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)",
            "%%step ask\nurls = flow.suspend('1h')",
            "%%step after\nwitness('after'); print(flow.resume_data)",
        )
    )
    (tmp_path / "kill").touch()
    assert cellrail("resume", run.id, "--data", "1").returncode == -signal.SIGKILL
    again = app.recover(run.id)
    assert (again.status, set(statuses(again).values())) == ("success", {"success"})
    assert printed(again, "after") == "1\n"
    assert counts(tmp_path) == {"setup": 3, "after": 1}


def test_what_an_interrupted_step_asked_for_is_void(make, app, cellrail, tmp_path):
    notebook = make(
        WITNESS,
        "%%step ask\nurls = flow.suspend('1h')\n"
        "if not Path('was').exists():\n"
        "    Path('was').touch(); os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)",
        "%%step after\nprint(flow.resume_data)",
    )
    assert cellrail("run", notebook).returncode == -signal.SIGKILL
    (left,) = app.store.inbox.waiting()
    assert app.recover("last").status == "suspended"
    (info,) = app.store.inbox.waiting()
    assert info.wait_id != left.wait_id
    voided = app.store.inbox.answered(left.wait_id)
    assert voided is not None
    assert voided.by == "void"
    assert app.resume("last", data=2).status == "success"


def test_recover_says_that_a_resume_does_not_count_whose_step_was_killed_before_it_ended(
    make, app, cellrail, tmp_path
):
    notebook = make(
        WITNESS,
        "%%step ask\nflow.suspend('1h'); witness('asked')\n"
        "while not Path('go').exists(): time.sleep(0.02)",
        "%%step after\nprint(flow.resume_data)",
    )
    driver = subprocess.Popen([sys.executable, "-m", "cellrail", "run", notebook], cwd=tmp_path)
    wait_for((tmp_path / "witness.txt").exists)
    assert cellrail("resume", "last", "--data", "1").returncode == 0
    driver.kill()
    driver.wait()
    (tmp_path / "go").touch()

    done = cellrail("recover", "last")

    assert app.show("last").status == "suspended", done.stderr
    assert "step 'ask' was resumed by " in done.stderr
    assert "that answer does not count; where the step asks again, answer again" in done.stderr
    assert printed(app.resume("last", data=2), "after") == "2\n"


def test_a_run_says_that_a_resume_does_not_count_whose_attempt_failed(
    make, app, cellrail, tmp_path
):
    notebook = make(
        WITNESS,
        "%%step ask --retry 1 --backoff 1ms\nflow.suspend('1h')\n"
        "if not Path('witness.txt').exists():\n    witness('asked')\n"
        "    while not Path('go').exists(): time.sleep(0.02)\n    1 / 0",
        "%%step after\nprint(flow.resume_data)",
    )
    words = [sys.executable, "-m", "cellrail", "run", notebook]
    driver = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    wait_for((tmp_path / "witness.txt").exists)
    assert cellrail("resume", "last", "--data", "1").returncode == 0
    (tmp_path / "go").touch()

    said = driver.communicate(timeout=60)[1]

    assert driver.returncode == 3, said
    assert "step 'ask' was resumed by " in said
    assert "that answer does not count; where the step asks again, answer again" in said
    assert printed(app.resume("last", data=2), "after") == "2\n"


def test_a_run_killed_behind_the_wake_up_goes_on_with_the_same_answer(
    make, app, cellrail, tmp_path
):
    notebook = make(
        WITNESS,
        "%%step ask\nwitness('ask')\nflow.suspend('1h')",
        "%%step after\nwitness('after')\n"
        "if not Path('crashed').exists():\n"
        "    Path('crashed').touch(); os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)\n"
        "print(flow.resume_data, flow.woke_by)",
    )
    run = app.run(notebook)
    done = cellrail("resume", run.id, "--data", "[1]")
    assert done.returncode == -signal.SIGKILL
    assert app.show(run.id).status == "interrupted"
    with pytest.raises(NotWaiting, match="it is interrupted; ask was resumed by"):
        app.resume(run.id, data="other")
    # as it stands when the process was killed before it could take the wait from the list
    (taken,) = (app.store.path / "waits" / run.id).glob("*.done")
    taken.rename(taken.with_suffix(".open"))
    assert [w.run_id for w in app.store.inbox.waiting()] == [run.id]
    again = app.recover(run.id)
    assert printed(again, "after") == "[1] resume\n"
    assert counts(tmp_path) == {"ask": 1, "after": 2}
    assert app.waits() == []


def test_a_run_killed_before_it_could_park_is_parked_by_recover(make, app, cellrail, tmp_path):
    run = app.run(make(*APPROVAL))
    path = app.store.journal_path(run.id)
    from cellrail_state import journal

    entries = list(journal.read(path))
    assert entries[-1].payload.startswith(b'{"type":"end"')
    os.truncate(path, entries[-2].end)  # killed between the step's commit and the run's end
    assert app.show(run.id).status == "interrupted"
    again = app.recover(run.id)
    assert (again.status, again["approve"].status) == ("suspended", "suspended")
    assert app.resume(run.id).status == "success"
    assert counts(tmp_path) == {"plan": 1, "approve": 1, "deploy": 1, "later": 1}


# --- restart, prune, cancel ------------------------------------------------------------------


def test_a_restart_of_a_run_that_was_resumed_knows_what_the_resume_brought(make, app, tmp_path):
    run = app.run(make(*APPROVAL))
    app.resume(run.id, data={"by": "ann"})
    again = app.restart(run.id, from_step="deploy")
    assert again.status == "success"
    assert printed(again, "deploy") == "{'by': 'ann'} resume True\n"
    assert printed(again, "later") == "None None {'by': 'ann'}\n"
    last = app.restart(again.id, from_step="later")
    assert printed(last, "later") == "None None {'by': 'ann'}\n"
    assert last["approve"].resume_data == {"by": "ann"}
    assert counts(tmp_path) == {"plan": 1, "approve": 1, "deploy": 2, "later": 3}


ASKED = (
    "from cellrail import flow",
    "%%step ask --foreach i in [1, 2]\nflow.suspend()",
    "%%step told\nprint(flow.resume_data, flow.woke_by, flow.step('ask').resume_data)",
    "%%step later\nprint(flow.resume_data, flow.step('ask').resume_data)",
)


@pytest.mark.parametrize("looped", [True, False])
def test_restarts_and_reruns_know_what_resumed_the_steps_that_they_keep(looped, make, app):
    cells = [cell if looped else cell.replace(" --foreach i in [1, 2]", "") for cell in ASKED]
    run = app.run(make(*cells))
    while run.status == "suspended":
        run = app.resume(run.id, data="b")
    shown = (printed(run, "told"), printed(run, "later"))
    assert shown == ("b resume b\n", "None b\n")

    found = [
        app.restart(run.id, from_step="told"),
        app.rerun(run.id, changed=["step:told", "step:later"]),
        app.rerun(run.id, changed=["step:later"]),
    ]
    found.append(app.restart(found[1].id, from_step="told"))

    assert [(printed(one, "told"), printed(one, "later")) for one in found] == [shown] * 4


def test_a_suspended_run_is_restarted_only_when_it_is_said_what_becomes_of_it(make, app, cellrail):
    run = app.run(make(*APPROVAL))
    done = cellrail("restart", run.id, "--from", "plan")
    assert done.returncode == 2
    assert "--cancel-origin" in done.stderr
    done = cellrail("restart", run.id, "--from", "deploy", "--keep-waiting")
    assert done.returncode == 2  # nobody has approved
    assert "approve" in done.stderr
    done = cellrail("restart", run.id, "--from", "plan", "--keep-waiting")
    assert done.returncode == 3, done.stderr
    assert app.show(run.id).status == "suspended"
    done = cellrail("restart", run.id, "--from", "plan", "--cancel-origin")
    assert done.returncode == 3, done.stderr
    assert app.show(run.id).status == "cancelled"


def test_a_suspended_run_is_not_pruned_and_a_pruned_one_leaves_no_wait(make, app, clock):
    run = app.run(make(*APPROVAL))
    clock.ahead = 90 * 86_400.0
    assert app.prune(older_than=86_400.0).runs == ()
    assert app.show(run.id).status == "suspended"
    (ticked,) = app.tick()
    assert ticked.run is not None
    assert ticked.run.status == "success"
    assert app.prune(older_than=86_400.0).runs == (run.id,)
    assert list((app.store.path / "waits").iterdir()) == []


@pytest.mark.parametrize("ignored", [False, True], ids=["", "started by a script with &"])
def test_a_running_run_is_cancelled_through_its_process(ignored, make, app, cellrail, tmp_path):
    notebook = make(WITNESS, "%%step long\nwitness('long')\ntime.sleep(60)", "1")
    words = [sys.executable, "-m", "cellrail", "run", str(notebook)]
    # what a shell without job control does for a command in the background
    shell = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"] if ignored else []
    driver = subprocess.Popen([*shell, *words], cwd=tmp_path)
    while not (tmp_path / "witness.txt").exists():
        time.sleep(0.02)
    done = cellrail("cancel", "last")
    assert done.returncode == 0, done.stderr
    assert driver.wait(60) == 4
    run = app.show("last")
    assert (run.status, run["long"].status) == ("cancelled", "cancelled")
    assert run.cause.startswith("cancelled by ")
