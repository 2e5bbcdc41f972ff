"""Steps that are executed again after a while, sleeps and durable retries.

Laws: no kernel is held meanwhile, and no process is needed; the step sees the namespace before it;
what passes is no time that the run took.
"""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from cellrail import App
from reading import APPROVAL, WITNESS, counts, kernels_alive, printed, wait_for

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")


# --- rerun -----------------------------------------------------------------------------------

POLL = (
    WITNESS,
    "%%step setup\nseen = ['setup']",
    "%%step poll\nfrom cellrail import get_state, set_state\n"
    "witness(f'poll-{flow.runs}')\nseen.append(flow.runs)\nset_state(flow.runs)\n"
    "from cellrail import set_flow_user_state\n"
    "set_flow_user_state('turns', flow.runs)\n"
    "if flow.runs < 3: flow.rerun({delay}, context={'job': 7, 'after': flow.runs})\n"
    "print(flow.runs, flow.context, flow.woke_by)",
    "%%step after\nfrom cellrail import get_flow_user_state\n"
    "print(seen, get_flow_user_state('turns'), flow.woke_by)",
)


@pytest.mark.parametrize("delay", ["0.1", "6"])
def test_a_step_is_executed_again_on_the_namespace_before_it(make, app, tmp_path, clock, delay):
    run = app.run(make(*(cell.replace("{delay}", delay) for cell in POLL)))
    assert run.status == "success"
    assert printed(run, "poll") == "3 {'job': 7, 'after': 2} timeout\n"
    assert printed(run, "after") == "['setup', 3] 3 None\n"
    assert counts(tmp_path) == {"poll-1": 1, "poll-2": 1, "poll-3": 1}
    continued = [line["reason"] for line in app.journal(run.id) if line["type"] == "continued"]
    assert continued == ([] if delay == "0.1" else ["timer", "timer"])
    turns = [line for line in app.journal(run.id) if line["type"] == "finished"]
    assert [line.get("runs", 1) for line in turns if line["step"] == run["poll"].number] == [
        1, 2, 3,
    ]  # fmt: skip


def test_a_callback_wakes_a_step_at_once_and_it_sees_the_request(make, tmp_path, monkeypatch):
    monkeypatch.setenv("CELLRAIL_BASE_URL", "http://localhost:1")
    app = App(tmp_path / ".cellrail")
    notebook = make(
        WITNESS,
        "%%step call\nif flow.runs == 1:\n"
        "    Path('url.txt').write_text(flow.rerun('1h').resume_url)\n"
        "print(flow.runs, flow.woke_by, flow.callback_request, flow.resume_data)",
    )
    driver = subprocess.Popen([sys.executable, "-m", "cellrail", "run", notebook], cwd=tmp_path)
    try:
        while not (tmp_path / "url.txt").exists() or app.show("last").status != "suspended":
            time.sleep(0.05)
        url = (tmp_path / "url.txt").read_text()
        request = {"method": "POST", "headers": {}, "query": {"a": "b"}, "body": "x"}
        app.wake(url.rpartition("/")[2], data=5, request=request)
        # the process that runs it has stayed, without a kernel, and goes on
        assert driver.wait(60) == 0
    finally:
        driver.kill()
    assert printed(app.show("last"), "call") == f"2 resume {request} 5\n"


@pytest.mark.parametrize(("on_exceeded", "status"), [("continue", "success"), ("raise", "failed")])
def test_a_step_is_not_executed_more_often_than_it_may_be(make, app, tmp_path, on_exceeded, status):
    run = app.run(
        make(
            WITNESS,
            "%%step poll\nwitness('poll')\n"
            f"flow.rerun(0, max_retries=2, on_exceeded={on_exceeded!r})",
            "%%step after\nwitness('after')",
        )
    )
    assert run.status == status
    after = {"after": 1} if status == "success" else {}
    assert counts(tmp_path) == {"poll": 3, **after}
    if status == "failed":
        assert run.cause.startswith("RerunExceeded: flow.rerun(): the step has been executed 3")


def test_each_call_of_rerun_has_a_limit_of_its_own_and_those_of_one_execution_agree(
    make, app, tmp_path
):
    """Pipedream's limit is passed per call: a call with another value changes it."""
    run = app.run(
        make(
            WITNESS,
            "%%step poll\nwitness('poll')\n"
            "flow.rerun(0, max_retries=9 if flow.runs == 1 else 1, on_exceeded='continue')",
            "%%step more\nwitness('more')\n"
            "flow.rerun(0, max_retries=flow.runs, on_exceeded='raise') if flow.runs < 4 else None",
            "%%step twice\nwitness('twice')\nflow.rerun(0, max_retries=5)\n"
            "flow.rerun(0, max_retries=6)",
        )
    )
    assert counts(tmp_path) == {"poll": 2, "more": 4, "twice": 1}
    assert run.status == "failed"
    assert "max_retries is 6 here, and 5 in the call before" in run.cause


# --- time ------------------------------------------------------------------------------------


def test_long_sleeps_and_retries_hold_no_kernel_and_survive_their_process(
    make, app, clock, tmp_path
):
    notebook = make(
        WITNESS,
        "%%step nap --sleep 1h\nwitness('nap')",
        "%%step fetch --retry 2 --backoff 1h --when True --sleep 1h\nwitness('fetch')\n"
        "tries = Path('witness.txt').read_text().split().count('fetch')\n"
        "if tries < 2: raise ValueError(tries)",
    )
    driver = subprocess.Popen([sys.executable, "-m", "cellrail", "run", notebook], cwd=tmp_path)
    while not (tmp_path / ".cellrail").exists() or not app.runs(status="suspended"):
        time.sleep(0.05)
    driver.kill()
    driver.wait()
    run = app.show("last")
    assert (run["nap"].status, run.cause) == ("suspended", "waits behind nap (--sleep)")
    wait_for(lambda: not kernels_alive(app, run.id))  # it was killed while it said good-bye
    for expected in ("waits behind fetch to try it again", ""):
        assert app.tick() == []
        clock.ahead += 4000  # a wait before a retry varies by a tenth
        (ticked,) = app.tick()
        assert ticked.run is not None
        assert ticked.run.cause == expected
    # nothing follows the last step: it does not sleep
    assert ticked.run.status == "success"
    assert counts(tmp_path) == {"nap": 1, "fetch": 2}


def test_what_passes_while_a_run_waits_is_no_time_that_it_took(make, app, clock, cellrail):
    run = app.run(make(*APPROVAL))
    assert run.status == "suspended"
    driven = run.seconds
    assert driven < 60
    clock.ahead = 1800.0
    done = app.resume(run.id)

    assert done.status == "success", done.cause
    assert driven <= done.seconds < 120
    [row] = app.runs()
    assert row.seconds == pytest.approx(done.seconds)
    assert row.ended - row.started > 1800
    assert app.store.catalog.query("SELECT seconds FROM runs")[0]["seconds"] == row.seconds
    assert " took 0 h" not in cellrail("show", run.id).stdout


def test_a_step_in_a_loop_is_executed_again_with_its_item(make, app, tmp_path):
    run = app.run(
        make(
            WITNESS,
            "done = []",
            "%%step each --foreach item in ['a', 'b']\n"
            "witness(f'{item}{flow.runs}')\nif flow.runs < 2: flow.rerun(0.05)\n"
            "done.append(item)",
            "%%step last\nprint(done, item)",
        )
    )
    assert printed(run, "last") == "['a', 'b'] b\n"
    assert counts(tmp_path) == {"a1": 1, "a2": 1, "b1": 1, "b2": 1}
