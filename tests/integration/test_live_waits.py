"""Waits in an open notebook, through a real kernel.

Laws: Run All stops at a step that suspends, and what is behind it is refused until somebody resumes
it, whatever the way: a button, `%flow resume`, `cellrail resume`, or the time that is up; the first
answer counts; cells above go on being executed; the cells behind get what a headless run gives
them; what stays in the notebook holds no id and no time; where nothing is recorded nothing waits.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time

import pytest

from cellrail.errors import AlreadyAnswered, NotWaiting, RestartRefused
from cellrail_state.doctor import examine

LOAD = "%load_ext cellrail\n%flow config notebook=flow.ipynb\nfrom cellrail import flow"
GATE = "%%step approve\nflow.suspend('1h', approval=True);"
SHOW = "%%step deploy\nprint(flow.resume_data, flow.woke_by, flow.step('approve').resume_data)"
LATER = "%%step later\nprint(flow.resume_data, flow.woke_by, flow.step('approve').resume_data)"
NO_URL = "cellrail: there is no base_url; to go on: cellrail resume RUN\n"
STOPS = "RunSuspended: waits behind approve until it is resumed"
REFUSED = "Refused: this cell waits behind approve until it is resumed"
LINE = (
    "cellrail: approve waits: %flow resume [--data JSON] or %flow cancel here; "
    "cellrail resume RUN in a terminal"
)


class Notebook:
    """A notebook that is open in a front end, and saved."""

    def __init__(self, make, front, *sources):
        self.path = make(LOAD, *sources)
        self.front = front
        self.cells = json.loads(self.path.read_text())["cells"]

    def run_all(self):
        """Execute the cells in order, as Run All does."""
        done = []
        for place in range(1, len(self.cells) + 1):
            done.append(self.cell(place))
            if done[-1].status == "error":
                break
        return done

    def cell(self, place, **options):
        """Execute a cell, from 1."""
        cell = self.cells[place - 1]
        return self.front.execute(cell["source"], cell["id"], cell["metadata"], **options)


@pytest.fixture
def opened(make, front):
    """Opens a notebook; its first cell loads the extension."""
    return lambda *sources: Notebook(make, front, *sources)


@pytest.fixture
def gated(opened):
    """A notebook that has stopped at its gate, and what each cell came to."""
    notebook = opened("x = [1]", GATE, SHOW, LATER)
    return notebook, notebook.run_all()


def statuses(app):
    return {step.label: str(step.status) for step in app.show("last").steps}


def kinds(app):
    return [line["type"] for line in app.journal("last")]


def test_run_all_stops_at_a_gate_and_what_is_behind_it_is_refused(gated, app):
    notebook, done = gated
    assert [cell.status for cell in done] == ["ok", "ok", "error"]
    assert done[-1].text == NO_URL + STOPS
    assert statuses(app) | {"#1": "", "#2": ""} == {
        "#1": "", "#2": "", "approve": "suspended", "deploy": "pending", "later": "pending",
    }  # fmt: skip
    for place in (4, 5):
        refused = notebook.cell(place)
        assert (refused.status, refused.text.startswith(REFUSED)) == ("error", True)
    assert notebook.cell(2).status == "ok"
    assert notebook.front.run("%flow resume --step approve --data 3") == (
        "approve: the open notebook is told when its next cell is executed\n"
    )
    assert notebook.cell(4).text == "3 resume 3\n"
    assert notebook.cell(5).text == "None None 3\n"
    # executed again, a cell is told the same again
    assert notebook.cell(4).text == "3 resume 3\n"
    assert statuses(app)["approve"] == "success"
    assert app.show("last")["approve"].resume_data == 3
    assert kinds(app).count("woken") == 1
    assert not [line for line in app.journal("last") if "not recorded" in str(line)]


def test_what_stays_in_the_notebook_holds_no_id_and_no_time(gated, app):
    _, done = gated
    (shown,) = [o for o in done[-1].outputs if o["output_type"] == "display_data"]
    assert shown["data"]["text/plain"] == LINE
    kept = json.dumps(
        [o["data"]["text/plain"] if "data" in o else o for o in done[-1].outputs]
    ) + str(app.show("last")["approve"].outputs)
    assert app.show("last").id not in kept
    assert not re.search(r"\d\d:\d\d", kept)
    assert "display_data" not in str(app.show("last")["approve"].outputs)


def test_buttons_answer_and_say_so(gated, app):
    notebook, _ = gated
    front = notebook.front
    assert front.said() == "waits behind approve until it is resumed"
    front.type("Data", "{'a': 1}")
    front.click("Resume")
    assert "no JSON" in front.said()
    assert notebook.cell(4).status == "error"
    front.type("Data", '{"a": [1, null]}')
    front.click("Resume")
    assert re.fullmatch(r"approve was resumed by \w+", front.said())
    assert front.widgets[front.widget("Resume")]["disabled"] is True
    front.click("Cancel")
    assert re.fullmatch(r"approve was resumed by \w+, before this", front.said())
    with pytest.raises(NotWaiting, match=r"waits for nothing.*approve was resumed by"):
        app.resume("last")
    data = {"a": [1, None]}
    assert notebook.cell(4).text == f"{data} resume {data}\n"
    assert statuses(app)["approve"] == "success"


def test_what_was_cancelled_stays_closed_until_its_cell_is_executed_again(gated, app):
    notebook, _ = gated
    notebook.front.click("Cancel")
    refused = notebook.cell(4)
    assert refused.status == "error"
    assert re.search(r"approve was cancelled by \w+: execute it again", refused.text)
    assert statuses(app)["approve"] == "cancelled"
    assert notebook.cell(2).status == "ok"
    assert notebook.cell(3).text == NO_URL + STOPS
    assert statuses(app)["approve"] == "suspended"
    app.resume("last")
    assert notebook.cell(4).text == "None resume None\n"


def test_a_terminal_answers_and_the_first_answer_counts(gated, app, cellrail):
    notebook, _ = gated
    done = cellrail("resume", "last", "--data", '"yes"')
    assert done.returncode == 0, done.stderr
    assert "the open notebook is told when its next cell is executed" in done.stderr
    again = cellrail("cancel", "last")
    assert again.returncode == 2
    assert "was resumed by" in again.stderr
    notebook.front.click("Cancel")
    assert notebook.front.said().endswith(", before this")
    assert notebook.cell(4).text == "yes resume yes\n"


def test_a_resume_while_the_cell_runs_is_kept_and_run_all_goes_on(opened, app, tmp_path):
    ask = (
        "%%step approve\nimport time, pathlib\nflow.suspend('1h'); pathlib.Path('asked').touch()\n"
        "while not pathlib.Path('go').exists(): time.sleep(0.02)"
    )
    notebook = opened(ask, SHOW)
    words = (
        "import pathlib, subprocess, sys, time\n"
        "while not pathlib.Path('asked').exists(): time.sleep(0.02)\n"
        "subprocess.run([sys.executable, '-m', 'cellrail', 'resume', 'last', '--data', '1'])\n"
        "pathlib.Path('go').touch()"
    )
    with subprocess.Popen([sys.executable, "-c", words], cwd=tmp_path) as other:
        done = notebook.run_all()
    assert other.returncode == 0
    assert [cell.status for cell in done] == ["ok"] * 3
    assert done[-1].text == "1 resume 1\n"
    assert not notebook.front.widgets


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("flow.suspend(2)", "None timeout None\n"),
        ("flow.suspend(2, approval=True)", "approve was not resumed in time: execute it again"),
    ],
)
def test_when_the_time_is_up_it_comes_to_what_was_asked(opened, asked, told):
    notebook = opened(f"%%step approve\nimport time\n{asked};", SHOW)
    assert notebook.run_all()[-1].status == "error"
    time.sleep(2)
    assert told in notebook.cell(3).text


def test_a_function_may_suspend_and_a_cell_that_fails_waits_for_nothing(opened, app):
    notebook = opened(
        "def ask():\n    return flow.suspend('1h')",
        "%%step bad\nask(); 1 / 0",
        "%%step approve\nask();",
        SHOW,
    )
    assert notebook.run_all()[-1].error["ename"] == "ZeroDivisionError"
    with pytest.raises(NotWaiting, match="waits for nothing"):
        app.resume("last")
    assert notebook.cell(4).text == NO_URL + STOPS
    app.resume("last", data=[1])
    assert notebook.cell(5).text == "[1] resume [1]\n"


def test_cells_with_a_top_level_await_wait_as_others_do(opened, app):
    notebook = opened(
        "import asyncio",
        "%%step approve\nawait asyncio.sleep(0)\nflow.suspend('1h');",
        "%%step poll\nawait asyncio.sleep(0)\nprint(flow.runs, flow.resume_data)\n"
        "if flow.runs < 2: flow.rerun(0.3)",
        "print('end')",
    )
    assert notebook.run_all()[-1].text == NO_URL + STOPS
    assert notebook.cell(4).text.startswith(REFUSED)
    app.resume("last", data=1)
    assert notebook.cell(4).text == f"1 1\n{NO_URL}2 None\n"
    assert notebook.cell(5).text == "end\n"


def test_cells_that_a_restart_runs_here_stop_at_a_gate_too(gated, app):
    notebook, _ = gated
    app.resume("last", data=1)
    assert notebook.cell(4).status == "ok"
    said = notebook.front.run("%flow restart --from #2 --run")
    # a semicolon hides nothing in a cell that has no number
    assert said.replace("{'resume_url': None, 'cancel_url': None}", "") == (
        f"-- #2\n-- approve\n{NO_URL}{STOPS}"
    )
    assert notebook.cell(4).text.startswith(REFUSED)
    app.resume("last", data=2)
    assert notebook.cell(4).text == "2 resume 2\n"


def test_a_step_is_executed_again_on_the_namespace_before_it(opened, app):
    poll = (
        "%%step poll\nseen.append(flow.runs)\nprint(seen, flow.context, flow.woke_by)\n"
        "if flow.runs < 3: flow.rerun(0.05, context={'n': flow.runs})"
    )
    notebook = opened("seen = []; also = seen", poll, "print(seen, also is seen, flow.runs)")
    done = notebook.run_all()
    assert [cell.status for cell in done] == ["ok"] * 4
    assert done[2].text == (
        f"[1] None None\n{NO_URL}[2] {{'n': 1}} timeout\n{NO_URL}[3] {{'n': 2}} timeout\n"
    )
    assert done[3].text == "[3] True 1\n"
    jobs = [line for line in app.journal("last") if line["type"] == "finished"]
    assert [job.get("runs", 1) for job in jobs if job["step"] == 3] == [1, 2, 3]
    assert statuses(app)["poll"] == "success"
    again = app.restart("last", from_step="#4")
    assert again.status == "success"
    assert again.steps[-1].outputs[0]["text"] == "[3] True 1\n"


def test_a_rerun_is_woken_by_a_resume_ends_by_an_interrupt_and_counts_its_retries(
    opened, app, tmp_path
):
    poll = (
        "%%step poll\nprint('run', flow.runs, flow.resume_data)\n"
        "if flow.runs < 3: flow.rerun('1h', max_retries=9)"
    )
    notebook = opened(poll, "%%step twice\nprint(flow.runs)\nflow.rerun(0, max_retries=1);")
    words = (
        "import json, subprocess, sys, time\n"
        "def resume(data):\n"
        "    words = [sys.executable, '-m', 'cellrail', 'resume', 'last', '--data', data]\n"
        "    while subprocess.run(words, capture_output=True).returncode: time.sleep(0.2)\n"
        "resume('1')\nresume('2')"
    )
    notebook.cell(1)
    with subprocess.Popen([sys.executable, "-c", words], cwd=tmp_path):
        done = notebook.cell(2)
    said = re.findall(r"run \d \w+", done.text)
    assert said == ["run 1 None", "run 2 1", "run 3 2"]
    assert notebook.cell(3).text == f"1\n{NO_URL}2\n"

    stopped = notebook.cell(2, interrupt_on="display_data")
    assert stopped.error["ename"] in {"KeyboardInterrupt", "CancelledError"}
    assert statuses(app)["poll"] == "cancelled"
    assert not app.store.inbox.waiting()


def test_rerun_hidden_from_an_open_notebook_is_refused_with_what_to_do(opened):
    notebook = opened(
        "def poll():\n    if flow.runs < 2: flow.rerun(0)\n    return flow.runs\nhidden = [poll]",
        "%%step named\npoll()",
        "%%step hidden_one\nhidden[0]()",
    )
    done = notebook.run_all()
    assert done[2].text == f"{NO_URL}12"
    assert "call flow.rerun() in the cell itself" in done[3].text


def test_a_sleep_holds_the_next_cell_behind_it(opened, app):
    notebook = opened("%%step nap --sleep 5s\nx = 2", "print(x)", "print('end')")
    done = notebook.run_all()
    assert [cell.status for cell in done] == ["ok"] * 4
    assert done[2].text == "2\n"
    (shown,) = [o["data"]["text/plain"] for o in done[2].outputs if "data" in o]
    assert re.fullmatch(
        r"cellrail: waits behind nap \(--sleep\): 0:0\d left; interrupt the kernel to stop", shown
    )
    lines = list(app.journal("last"))
    (waits,) = [line["wait"] for line in lines if line["type"] == "waits"]
    (woken,) = [line for line in lines if line["type"] == "woken"]
    begun = [line["time"] for line in lines if line["type"] == "started" and line["step"] == 3]
    assert (woken["by"], waits["kind"]) == ("timeout", "sleep")
    assert begun[0] >= waits["until"]


def test_a_sleep_does_not_hold_cells_above_it_and_a_wrong_word_is_refused(opened, app):
    notebook = opened("x = 1", "%%step nap --sleep 1h\nx = 2", "print(x)")
    for place in (1, 2, 3, 2, 3):
        assert notebook.cell(place).status == "ok"
    assert len(app.store.inbox.waiting()) == 1
    assert "a run is needed" in notebook.front.run("%flow cancel a b")
    notebook.front.run("%flow cancel")
    assert re.search(r"nap was cancelled by \w+: execute it again", notebook.cell(4).text)


def test_an_interrupt_ends_a_sleep(opened, app):
    notebook = opened("%%step nap --sleep 1h\nx = 2", "print(x)")
    notebook.cell(1)
    notebook.cell(2)
    resumed = app.resume("last")
    assert resumed.status == "running"
    assert notebook.cell(3).text == "2\n"
    notebook.cell(2)
    stopped = notebook.cell(3, interrupt_on="display_data")
    assert stopped.error["ename"] in {"KeyboardInterrupt", "CancelledError"}
    assert notebook.cell(3).text == "2\n"


def test_a_suspension_in_a_loop_holds_its_cell(opened, app, tmp_path):
    notebook = opened(
        "%%step each --foreach item in ['a', 'b'] --collect got\nflow.suspend('1h'); got = item",
        "%%step after\nprint(got)",
    )
    words = (
        "import subprocess, sys, time\n"
        "for n in '12':\n"
        "    words = [sys.executable, '-m', 'cellrail', 'resume', 'last', '--data', n]\n"
        "    while subprocess.run(words, capture_output=True).returncode: time.sleep(0.2)\n"
    )
    notebook.cell(1)
    with subprocess.Popen([sys.executable, "-c", words], cwd=tmp_path):
        done = notebook.cell(2)
    assert done.status == "ok", done.text
    assert notebook.cell(3).text == "['a', 'b']\n"
    woken = [line["data"] for line in app.journal("last") if line["type"] == "woken"]
    assert woken == ["1", "2"]


# --- the kernel ends -------------------------------------------------------------------------


@pytest.mark.parametrize("killed", [False, True])
def test_when_the_kernel_ends_the_wait_is_told_of_and_resume_says_what_to_do(
    gated, app, cellrail, killed
):
    notebook, _ = gated
    run = app.show("last")
    if killed:
        notebook.front.manager.shutdown_kernel(now=True)
    else:
        notebook.front.close()
    deadline = time.monotonic() + 10
    while app.store.is_owned(run.id) and time.monotonic() < deadline:
        time.sleep(0.05)
    run = app.show(run.id)
    assert (str(run.status), str(run["approve"].status)) == (
        "interrupted" if killed else "cancelled", "suspended",
    )  # fmt: skip
    done = cellrail("resume", run.id)
    assert done.returncode == 2
    assert "its kernel has ended" in done.stderr
    assert f"cellrail restart {run.id} --from approve" in done.stderr
    assert app.tick(time.time() + 7200) == []
    assert app.store.inbox.waiting() == []
    with pytest.raises(RestartRefused):
        app.restart(run.id, from_step="deploy")
    again = app.restart(run.id, from_step="approve")
    assert (again.status, again["approve"].status) == ("suspended", "suspended")
    assert app.resume(again.id, data=1).status == "success"
    assert not examine(app.store, now=time.time() + 10 * 86_400).unmended


def test_a_restart_of_an_open_notebook_keeps_what_a_resume_brought(gated, app):
    notebook, _ = gated
    app.resume("last", data="ok")
    assert notebook.cell(4).status == "ok"
    again = app.restart("last", from_step="later")
    assert again["later"].outputs[0]["text"] == "None None ok\n"


# --- nothing is recorded ---------------------------------------------------------------------


def test_where_nothing_is_recorded_nothing_waits(opened, app, tmp_path):
    # nbval shows a last value also where a semicolon hides it
    gate, poll = GATE.replace("flow.", "urls = flow."), "%%step poll\nurls = flow.rerun(1)"
    notebook = opened("x = [1]", gate, SHOW, poll)
    done = subprocess.run(
        [
            sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute",
            "--output", "done.ipynb", notebook.path.name,
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    line = "cellrail: no run waits here; the notebook goes on as if resumed without data\n"
    cells = json.loads((tmp_path / "done.ipynb").read_text())["cells"]
    said = ["".join(o["text"]) for cell in cells[2:] for o in cell["outputs"]]
    assert "".join(said) == f"{line}None None None\n{line}"
    val = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "nbval.plugin",
            "--nbval", "done.ipynb",
        ],
        cwd=tmp_path, env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert val.returncode == 0, val.stdout
    assert not (tmp_path / ".cellrail").exists()


def test_buttons_are_imported_when_a_cell_waits(opened):
    notebook = opened("x = 1", GATE)
    notebook.cell(1)
    known = "import sys\nprint('cellrail.buttons' in sys.modules)"
    assert notebook.front.run(known, notebook.cells[1]["id"]) == "False\n"
    assert notebook.cell(3).status == "error"
    assert notebook.front.run(known, notebook.cells[1]["id"]) == "True\n"


def test_a_second_answer_is_told_who_was_first(gated, app):
    app.resume("last", data=1)
    with pytest.raises(AlreadyAnswered, match="was resumed by"):
        app.resume("last", data=2)
