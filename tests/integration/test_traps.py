"""Traps that Windmill, HyperFlow and Pipedream fell into, where no other test springs them.

Laws:

* items and conditions are evaluated once, whatever retries, wakes or recovers the run;
* a gate holds what follows it wherever it stands, and nothing else is blamed for its answer;
* null is a result like any other; a turn that failed and was passed over stays what it was;
* forced and recovered are two things; state is the origin's, whoever restarts it;
* the time that is waited counts toward no limit.
"""

from __future__ import annotations

import signal
import sys

import pytest

from reading import WITNESS, counts, printed

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")

#: a cell can kill the process that drives it, once
BEGIN = WITNESS + (
    "def crash(word):\n"
    "    if first(word):\n"
    "        os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)\n"
)

# --- Windmill --------------------------------------------------------------------------------


def test_items_and_conditions_are_evaluated_once_whatever_goes_on_with_the_run(
    make, app, cellrail, tmp_path
):
    notebook = make(
        BEGIN
        + "def items():\n    witness('items')\n    return ['a', 'b']\n"
        + "def ready():\n    witness('ready')\n    return True\n",
        "%%step gate --when ready() --retry 1 --backoff 1ms\nif first('tried'): raise ValueError",
        "%%step each --foreach x in items()\nwitness(x)\nif x == 'a': flow.suspend('1h')",
        "%%step inner --in each --when ready()\nif x == 'b': crash('killed')",
        "%%step last\nprint(x)",
    )
    run = app.run(notebook)
    assert run.status == "suspended", run.cause
    assert counts(tmp_path) == {"ready": 1, "items": 1, "a": 1}

    assert cellrail("resume", run.id).returncode == -signal.SIGKILL
    again = app.recover(run.id)
    assert (again.status, printed(again, "last")) == ("success", "b\n")
    # once for each entry: the gate, and each item's
    assert counts(tmp_path) == {"ready": 3, "items": 1, "a": 1, "b": 1}

    third = app.restart(run.id, from_step="each[b]")
    assert third.status == "success", third.cause
    assert counts(tmp_path) == {"ready": 4, "items": 1, "a": 1, "b": 2}


def test_a_turn_that_failed_and_was_passed_over_stays_so_before_a_cut(make, app, tmp_path):
    run = app.run(
        make(
            BEGIN,
            "%%step each --foreach x in 'abc' --on-error skip --collect y\n"
            "witness(x)\nif first(x): raise ValueError(x)\ny = x",
            "%%step last\nprint(y)",
        )
    )
    assert printed(run, "last") == "[None, None, None]\n"

    again = app.restart(run.id, from_step="each[c]")

    assert printed(again, "last") == "[None, None, 'c']\n"
    assert counts(tmp_path) == {"a": 1, "b": 1, "c": 2}


def test_a_gate_in_a_branch_holds_what_follows(make, app, tmp_path):
    run = app.run(
        make(
            BEGIN,
            "%%step ask --branch size --when True\nflow.suspend('1h')",
            "%%step pass --branch size:default\nwitness('pass')",
            "%%step after\nwitness('after'); print(flow.resume_data)",
        )
    )
    assert (run.status, run["after"].status) == ("suspended", "pending")
    assert not (tmp_path / "witness.txt").exists()

    again = app.resume(run.id, data=[1])

    assert (again["pass"].status, printed(again, "after")) == ("skipped", "[1]\n")


def test_a_gate_that_was_not_answered_is_the_one_that_failed_and_is_not_tried_again(
    make, app, clock, tmp_path
):
    app.run(
        make(
            BEGIN,
            "%%step gate --retry 2 --on-error continue\n"
            "witness('gate'); flow.suspend('1h', on_timeout='fail')",
            "%%step held\nwitness('held')",
        )
    )
    clock.ahead = 3700
    (ticked,) = app.tick()

    assert ticked.run is not None
    assert (ticked.run.status, ticked.run["gate"].status) == ("failed", "failed")
    assert (ticked.run["held"].status, counts(tmp_path)) == ("pending", {"gate": 1})


def test_the_time_that_is_waited_counts_toward_no_limit(make, app, clock):
    run = app.run(
        make(BEGIN, "%%step ask --timeout 50s\nflow.suspend('1h')", "%%step after\nprint(1)"),
        timeout=100,
    )
    clock.ahead = 3000
    assert app.resume(run.id).status == "success"


def test_a_restart_sees_the_state_of_its_origin_whoever_starts_it(make, app, monkeypatch):
    notebook = make(
        "from cellrail import get_state, set_state",
        "%%step count\nprint(get_state())\nset_state((get_state() or 0) + 1)",
    )
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "ann")
    first = app.run(notebook)
    second = app.run(notebook)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "bob")

    assert (printed(first, "count"), printed(second, "count")) == ("None\n", "1\n")
    assert printed(app.restart(second.id, from_step="count"), "count") == "1\n"
    assert printed(app.run(notebook), "count") == "None\n"


# --- HyperFlow -------------------------------------------------------------------------------


def test_a_step_that_leaves_null_is_not_executed_again_for_that(make, app, cellrail, tmp_path):
    notebook = make(
        BEGIN,
        "%%step nothing --foreach x in [1, 2] --collect y\nwitness(f'n{x}'); y = None",
        "%%step silent\nwitness('silent')",
        "%%step dies\ncrash('dies'); print(y)",
    )
    assert cellrail("run", notebook).returncode == -signal.SIGKILL

    again = app.recover(app.show("last").id)

    assert printed(again, "dies") == "[None, None]\n"
    assert counts(tmp_path) == {"n1": 1, "n2": 1, "silent": 1}


def test_forced_and_recovered_are_two_things(make, app, cellrail):
    notebook = make(
        BEGIN,
        "%%step a\nif Path('now').exists(): crash('a')\nprint(flow.forced, flow.recovering)",
        "%%step b\nprint(flow.forced, flow.recovering)",
    )
    origin = app.run(notebook)
    assert printed(origin, "a") == printed(origin, "b") == "False False\n"
    forced = app.rerun(origin.id, changed=["step:a", "step:b"])
    assert printed(forced, "a") == printed(forced, "b") == "True False\n"
    (notebook.parent / "now").touch()
    done = cellrail("rerun", origin.id, "--changed", "step:a", "--changed", "step:b")
    assert done.returncode == -signal.SIGKILL, done.stderr

    again = app.recover(app.show("last").id)

    assert (printed(again, "a"), printed(again, "b")) == ("True True\n", "True False\n")
