"""A cell that is executed again for what it made sees what it saw when it ran first.

Laws:

* what woke its job, which execution it was, its context and what its step had left before are told
  again, encrypted answers too; what the run is now (it recovers) is not told;
* states, resources, flow user state and shared files are as its job saw them, whatever kept steps
  have set since; what is not known any more fails aloud;
* behind it the steps that execute see all that as it stands.
"""

from __future__ import annotations

import json
import signal
import sys

import pytest

from reading import printed, wait_for

SECRET = "hunter2-longsecret"
SETUP = (
    "import os, signal, threading, time\nfrom cellrail import *\nfrom cellrail import flow\n"
    "class Held:\n"
    "    def __init__(self, *seen):\n"
    "        self.seen, self.lock = seen, threading.Lock()\n"
)
#: its driver is killed, once
CRASH = (
    "%%step crash\nif not os.path.exists('crashed'):\n"
    "    os.close(os.open('crashed', os.O_CREAT)); os.kill(os.getppid(), signal.SIGKILL)\n"
    "    time.sleep(60)"
)


KILLED = pytest.param(
    "recover", marks=pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
)


@pytest.mark.parametrize("what", ["connection", "secret"])
@pytest.mark.parametrize("way", ["restart", "rerun", KILLED])
def test_what_a_resume_brought_is_there_for_what_is_made_again(
    what, way, make, app, cellrail, tmp_path
):
    app.variable_set("pw", SECRET, secret=True)
    answer = {"connection": "db1", "secret": SECRET}[what]
    told = "flow.resume_data, flow.woke_by, flow.step('ask').resume_data, flow.runs"
    made = {"connection": f"held = Held({told})", "secret": f"held = [{told}]"}[what]
    seen = {"connection": "held.seen", "secret": "held"}[what]
    notebook = make(
        SETUP,
        "%%step pw\npw = get_variable('pw')",
        "%%step ask\nflow.suspend('1h')",
        f"%%step use\n{made}",
        CRASH,
        "%%step end\nd, by, later, runs = " + seen + "\n"
        "print(d == later, d == pw, d if d != pw else '', by, runs, flow.resume_data)",
    )
    if way != "recover":
        (tmp_path / "crashed").touch()
    run = app.run(notebook)
    assert run.status == "suspended"
    done = cellrail("resume", run.id, "--data", json.dumps(answer))
    expected = f"True {what == 'secret'} {'' if what == 'secret' else answer} resume 1 None\n"

    if way == "recover":
        assert done.returncode == -signal.SIGKILL
        again = app.recover(run.id)
    else:
        assert done.returncode == 0, done.stderr
        assert printed(app.show(run.id), "end") == expected  # the witness
        again = (
            app.restart(run.id, from_step="end")
            if way == "restart"
            else app.rerun(run.id, changed=["step:end"])
        )

    assert again.status == "success", again.cause
    assert printed(again, "end") == expected


def test_which_execution_it_was_and_its_context_are_told_again(make, app):
    run = app.run(
        make(
            SETUP,
            "%%step poll\nif flow.runs < 3: flow.rerun(0, context={'n': flow.runs})\n"
            "held = Held(flow.runs, flow.context, flow.woke_by)",
            "%%step end\nprint(held.seen, flow.runs, flow.context)",
        )
    )
    assert printed(run, "end") == "(3, {'n': 2}, 'timeout') 1 None\n"

    again = app.restart(run.id, from_step="end")

    assert again.status == "success", again.cause
    assert printed(again, "end") == printed(run, "end")


def test_that_a_person_had_named_it_is_told_again(make, app):
    first = app.run(
        make(
            SETUP,
            "%%step use\nheld = Held(flow.forced, flow.recovering)",
            "%%step end\nprint(held.seen, flow.forced)",
        )
    )
    assert printed(first, "end") == "(False, False) False\n"
    run = app.rerun(first.id, changed=["step:use"])
    assert printed(run, "end") == "(True, False) False\n"

    again = app.restart(run.id, from_step="end")

    assert again.status == "success", again.cause
    assert printed(again, "end") == printed(run, "end")


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_that_the_run_recovered_is_told_to_what_was_executed_first_then(make, app, cellrail):
    crash = CRASH.removeprefix("%%step crash\n")
    notebook = make(
        SETUP,
        "%%step before\nbefore = Held(flow.recovering)",
        f"%%step use\nheld = Held(flow.recovering)\n{crash}",
        "%%step after\nafter = Held(flow.recovering)",
        "%%step end\nprint(before.seen, held.seen, after.seen)",
    )
    assert cellrail("run", notebook).returncode == -signal.SIGKILL
    run = app.recover("last")
    assert printed(run, "end") == "(False,) (True,) (False,)\n"

    again = app.restart(run.id, from_step="end")

    assert again.status == "success", again.cause
    assert printed(again, "end") == printed(run, "end")


def test_in_a_loop_each_item_finds_what_the_one_before_it_left(make, app):
    notebook = make(
        SETUP + "held = [threading.Lock()]",
        "%%step lp --foreach k in ['a', 'b']\nheld.append((k, flow.previous.get('k')))",
        "%%step end\nprint(held[1:])",
    )
    run = app.run(notebook)
    assert printed(run, "end") == "[('a', None), ('b', 'a')]\n"

    again = app.restart(run.id, from_step="end")
    assert printed(again, "end") == printed(run, "end"), again.cause

    # a run that was restarted itself: its first item found what its origin had left
    origin = app.restart(run.id, from_step="lp")
    assert printed(origin, "end") == "[('a', 'a'), ('b', 'a')]\n"
    again = app.restart(origin.id, from_step="end")
    assert printed(again, "end") == printed(origin, "end"), again.cause


STATES = (
    SETUP + "set_flow_user_state('u', 1); (flow.shared / 'f').write_text('one')",
    "%%step use\nheld = Held(get_resource('q'), get_state(default=0), get_flow_user_state('u'),"
    " (flow.shared / 'f').read_text(), sorted(os.listdir(flow.shared)))",
    "%%step change\nset_resource(2, 'q'); set_flow_user_state('u', 2)\n"
    "(flow.shared / 'f').write_text('two, longer'); (flow.shared / 'g').write_text('new')",
)
SEEN = (
    "get_resource('q'), get_flow_user_state('u'), (flow.shared / 'f').read_text(), "
    "sorted(os.listdir(flow.shared))"
)


@pytest.mark.parametrize("way", ["restart", "current", "rerun", KILLED])
def test_states_and_files_are_as_it_saw_them_whatever_was_set_since(
    way, make, app, cellrail, tmp_path
):
    app.resource_set("q", 1)
    notebook = make(*STATES, CRASH, f"%%step end\nprint(held.seen, {SEEN})")
    expected = "(1, 0, 1, 'one', ['f']) 2 2 two, longer ['f', 'g']\n"
    if way == "recover":
        assert cellrail("run", notebook).returncode == -signal.SIGKILL
        again = app.recover("last")
    else:
        (tmp_path / "crashed").touch()
        run = app.run(notebook)
        assert printed(run, "end") == expected  # the witness
        app.resource_set("q", 2)
        again = (
            app.rerun(run.id, changed=["step:end"])
            if way == "rerun"
            else app.restart(
                run.id, from_step="end", state="current" if way == "current" else "origin"
            )
        )

    assert again.status == "success", again.cause
    assert printed(again, "end") == expected


def test_a_connection_to_a_shared_file_goes_on_with_the_file_as_it_stands(make, app):
    run = app.run(
        make(
            SETUP + "(flow.shared / 'log').write_text('1\\n')",
            "%%step open\nlog = open(flow.shared / 'log')",
            "%%step add\nwith open(flow.shared / 'log', 'a') as f: f.write('2\\n')",
            "%%step end\nprint(log.read().split())",
        )
    )
    assert printed(run, "end") == "['1', '2']\n"

    again = app.restart(run.id, from_step="end")

    assert again.status == "success", again.cause
    assert printed(again, "end") == printed(run, "end")


def test_in_the_kernels_of_a_parallel_loop_it_sees_them_too(make, app):
    app.resource_set("q", 1)
    run = app.run(
        make(
            SETUP,
            "%%step ask\nflow.suspend('1h')",
            "%%step use\nheld = Held(flow.resume_data, get_resource('q'))",
            "%%step change\nset_resource(2, 'q')",
            "%%step lp --foreach k in [1, 2] --parallel 2 --collect seen\nseen = held.seen",
            "%%step end\nprint(seen)",
        )
    )
    app.resume(run.id, data="yes")
    wait_for(lambda: app.show(run.id).status not in {"suspended", "running"})

    done = app.show(run.id)

    assert done.status == "success", done.cause
    assert printed(done, "end") == "[('yes', 1), ('yes', 1)]\n"


def test_an_item_that_goes_on_is_told_again_what_woke_the_run_before_its_loop(
    make, app, cellrail, tmp_path
):
    run = app.run(
        make(
            SETUP,
            "%%step ask\nflow.suspend('1h')",
            "%%step lp --foreach k in ['a', 'b'] --parallel 2 --collect seen\n"
            "held = Held(k, flow.resume_data)",
            "%%step use --in lp\nseen = held.seen\n"
            "if k == 'b' and not os.path.exists('ok'): raise ValueError(k)",
            "%%step end\nprint(seen)",
        )
    )
    assert cellrail("resume", run.id, "--data", '"yes"').returncode == 1
    (tmp_path / "ok").touch()

    again = app.restart(run.id)

    assert again.status == "success", again.cause
    assert printed(again, "end") == "[('a', 'yes'), ('b', 'yes')]\n"


def test_what_runs_since_a_run_has_failed_finds_the_files_as_the_failure_left_them(make, app):
    run = app.run(
        make(
            SETUP + "(flow.shared / 'f').write_text('one')",
            "%%step use\nheld = Held((flow.shared / 'f').read_text())",
            "%%step change\n(flow.shared / 'f').write_text('two')",
            "%%step die\n(flow.shared / 'f').write_text('three')\n"
            "os.kill(os.getpid(), signal.SIGKILL if hasattr(signal, 'SIGKILL') else 15)",
            "%%step tell --on-failure\nprint(held.seen, (flow.shared / 'f').read_text())",
        )
    )

    assert run.status == "failed"
    assert printed(run, "tell") == "('one',) three\n"


def test_beside_items_files_that_were_others_are_refused(make, app):
    app.resource_set("q", 1)
    run = app.run(
        make(*STATES, "%%step lp --foreach k in [1, 2] --parallel 2 --collect seen\n"
             "seen = held.seen")
    )  # fmt: skip

    assert run.status == "failed"
    assert "the shared files are not as it saw them" in run.cause


def test_a_resource_that_it_had_not_read_is_not_made_up(make, app, tmp_path):
    app.resource_set("q", 1)
    run = app.run(
        make(
            SETUP,
            "%%step use\nheld = Held(get_resource('q') if os.path.exists('late') else 0)",
            "%%step end\nprint(held.seen)",
        )
    )
    assert printed(run, "end") == "(0,)\n"
    (tmp_path / "late").touch()

    again = app.restart(run.id, from_step="end")

    assert again.status == "failed"
    assert "had not read the resource 'q' before" in again.cause


def test_in_an_open_notebook_it_is_told_and_sees_the_same(make, front):
    cells = (
        "%load_ext cellrail\n%flow config notebook=flow.ipynb",
        *STATES[:1],
        "%%step ask\nflow.suspend('1h')",
        "%%step use\nheld = Held(flow.resume_data, get_resource('q', default=0),"
        " (flow.shared / 'f').read_text())",
        STATES[2],
        "%%step end\nprint(held.seen, get_flow_user_state('u'), (flow.shared / 'f').read_text())",
    )
    make(*cells)
    for place, cell in enumerate(cells[:3], 1):
        front.execute(cell, f"cell-{place}")
    front.run("%flow resume --data '\"yes\"'", "scratch")
    said = [front.run(cell, f"cell-{place}") for place, cell in enumerate(cells[3:], 4)][-1]
    assert said.startswith("('yes', 0, 'one') 2 two, longer")

    front.run("%flow restart --from end", "scratch")

    assert front.run(cells[-1], "cell-6") == said
