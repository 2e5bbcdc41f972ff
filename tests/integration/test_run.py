"""Laws of a run:

* its status tells of the user's code, whatever ended it; later steps stay pending;
* the source is never written, the output whole or not at all;
* what is recorded rebuilds the executed notebook.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from reading import printed, wait_for


def statuses(run):
    return [str(step.status) for step in run.steps]


def test_a_run_executes_every_cell_and_records_outputs_and_variables(make, app, tmp_path):
    path = make("x = [1, 2]\ny = x", "print('hello')\nx.append(3)", "y")
    before = path.read_bytes()

    run = app.run(path, tmp_path / "out.ipynb")

    assert run.status == "success"
    assert statuses(run) == ["success"] * 3
    assert run["#2"].outputs == [{"output_type": "stream", "name": "stdout", "text": "hello\n"}]
    assert run["cell-1"].variables["x"].load() == [1, 2]
    assert run["#3"].variables["y"].load() == [1, 2, 3]
    assert path.read_bytes() == before
    out = nbformat.read(tmp_path / "out.ipynb", 4)
    assert out.cells[2].outputs[0]["data"]["text/plain"] == "[1, 2, 3]"


def test_without_an_output_none_is_written(make, app, tmp_path):
    app.run(make("1"))

    assert [p.name for p in tmp_path.glob("*.ipynb")] == ["flow.ipynb"]


def test_a_cell_error_fails_its_step_and_leaves_later_ones_pending(make, app, tmp_path):
    run = app.run(make("a = 1", "1 / 0", "b = 2"), tmp_path / "out.ipynb")

    assert run.status == "failed"
    assert statuses(run) == ["success", "failed", "pending"]
    assert run["#2"].cause == "ZeroDivisionError: division by zero"
    assert "Cell In[2], line 1" in re.sub(r"\x1b\[[0-9;]*m", "", "".join(run["#2"].traceback))
    assert "cellrail" not in "".join(run["#2"].traceback)
    out = nbformat.read(tmp_path / "out.ipynb", 4)
    assert out.cells[1].outputs[0]["ename"] == "ZeroDivisionError"
    assert out.cells[2].outputs == []


def test_a_step_timeout_fails_that_step(make, app):
    run = app.run(make("a = 1", "%%step slow --timeout 1\nimport time\ntime.sleep(60)", "b = 2"))

    assert statuses(run) == ["success", "failed", "pending"]
    assert run["slow"].cause == "timeout after 1 s"


def test_a_cell_that_ignores_the_interrupt_is_killed_after_its_timeout(make, app):
    stubborn = (
        "import time\nwhile True:\n    try:\n        time.sleep(60)\n"
        "    except KeyboardInterrupt:\n        pass"
    )
    run = app.run(make("a = 1", f"# step: stubborn --timeout 500ms\n{stubborn}"))

    assert statuses(run) == ["success", "failed"]
    assert run["stubborn"].cause == "timeout after 0.5 s"


def test_the_whole_run_has_a_limit_of_its_own(make, app):
    run = app.run(make("a = 1", "import time; time.sleep(60)"), timeout=2)

    assert run["#2"].cause == "timeout after 2 s (whole run)"


def test_behind_the_limit_of_the_whole_run_no_cell_begins(make, app, tmp_path):
    slow = (
        "import time\nclass Slow:\n    def __getstate__(self): time.sleep(3); return {}\ns = Slow()"
    )
    run = app.run(make(slow, "open('begun', 'w').close()"), timeout=2)

    assert (run.status, run.cause) == ("failed", "timeout after 2 s (whole run)")
    assert [str(step.status) for step in run.steps] == ["success", "failed"]
    assert not (tmp_path / "begun").exists()


def test_a_dead_kernel_fails_the_step_it_died_in(make, app):
    run = app.run(make("a = 1", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "b = 2"))

    assert statuses(run) == ["success", "failed", "pending"]
    assert run["#2"].cause == "the kernel died (SIGKILL)"
    assert run["#1"].variables["a"].load() == 1


def test_a_clean_exit_ends_the_run_as_success(make, app):
    run = app.run(make("a = 1", "import sys\nsys.exit(0)", "b = 2"))

    assert run.status == "success"
    assert statuses(run) == ["success", "success", "pending"]


def test_a_tolerated_error_lets_the_flow_go_on(make, app):
    path = make("a = 1", "a = 2\n1 / 0", "a", tags={2: ["raises-exception"]})
    run = app.run(path)

    assert run.status == "success"
    assert statuses(run) == ["success", "failed", "success"]
    assert run.steps[1].to_dict()["accepted"] is True
    assert app.restart(run.id, from_step="#3")["#3"].outputs[0]["data"]["text/plain"] == "2"


def test_skipped_cells_are_not_executed(make, app):
    run = app.run(make("a = 1", "a = 2", "a", tags={2: ["skip-execution"]}))

    assert statuses(run) == ["success", "skipped", "success"]
    assert run["#3"].outputs[0]["data"]["text/plain"] == "1"


def test_to_stops_after_a_step_and_a_restart_goes_on_from_there(make, app):
    path = make("a = 1", "b = a + 1", "c = b + 1")

    run = app.run(path, to="#2")
    assert run.status == "success"
    assert statuses(run) == ["success", "success", "pending"]

    rest = app.restart(run.id)
    assert statuses(rest) == ["kept", "kept", "success"]
    assert rest["#3"].variables["c"].load() == 3


def test_only_executes_one_step_on_the_namespace_before_it(make, app):
    path = make("a = [1]", "a.append(2)", "a.append(3)\nprint(a)")
    app.run(path)

    run = app.run(path, only="#2")

    assert statuses(run) == ["kept", "success", "pending"]
    assert run["#2"].variables["a"].load() == [1, 2]


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_a_parameter_that_json_has_no_number_for_stays_what_it_is(text, make, app, cellrail):
    notebook = make("big = 1.0\nmore = [1.0]", "print(big, more)", tags={1: ["parameters"]})
    run = app.run(notebook, parameters={"big": float(text), "more": [float(text)]})
    assert printed(run, "#2") == f"{text} [{text}]\n"
    assert repr(run.parameters["big"]) == text
    assert f"big={text}" in cellrail("show", run.id).stdout.replace(" = ", "=").replace(" ", "=")
    again = app.restart(run.id, from_step="#1")
    assert printed(again, "#2") == f"{text} [{text}]\n"
    assert again.parameters.keys() == {"big", "more"}
    assert cellrail("show", run.id, "--json").returncode == 0


def test_parameters_are_papermills_plus_typed_dates(make, app):
    path = make(
        "from datetime import date\nday: date = date(2013, 1, 1)\nn = 1",
        "day, n",
        tags={1: ["parameters"]},
    )

    run = app.run(path, parameters={"day": "2013-02-03", "n": 5})

    assert run["#2"].outputs[0]["data"]["text/plain"] == "(datetime.date(2013, 2, 3), 5)"
    assert str(run.parameters["day"]) == "2013-02-03"
    assert [step.name for step in run.steps] == ["parameters", ""]


def test_the_output_is_a_template_of_the_parameters(make, app, tmp_path):
    path = make("day = 'x'", "day", tags={1: ["parameters"]})

    app.run(path, str(tmp_path / "out-{day}.ipynb"), parameters={"day": "2013-01-01"})

    assert (tmp_path / "out-2013-01-01.ipynb").exists()


def test_the_working_directory_is_the_notebooks_or_the_one_asked_for(make, app, tmp_path):
    path = make("import os\nos.path.realpath(os.getcwd())")
    other = tmp_path / "other"
    other.mkdir()

    here = app.run(path)["#1"].outputs[0]["data"]["text/plain"]
    there = app.run(path, cwd=other)["#1"].outputs[0]["data"]["text/plain"]

    assert here == repr(str(tmp_path.resolve()))
    assert there == repr(str(other.resolve()))


def test_secrets_are_in_no_file_of_the_store_nor_in_the_output(make, app, tmp_path):
    secret = "s3cr3t-horse-battery"
    path = make(
        "user = 'me'\npassword = 'unset-default'  # secret",
        "print('using', password)\nkeep = [password, 1]\nother = password + '!'",
        "len(password)",
        tags={1: ["parameters"]},
    )

    run = app.run(path, tmp_path / "out.ipynb", parameters={"password": secret})

    assert run.status == "success"
    assert run["#3"].outputs[0]["data"]["text/plain"] == str(len(secret))
    assert run["#2"].outputs[0]["text"] == "using ***\n"
    assert run.parameters["password"] == "***"
    files = [p for p in tmp_path.rglob("*") if p.is_file() and p != path]
    for file in files:
        assert secret.encode() not in file.read_bytes(), file
    variables = run["#2"].variables
    assert {n: str(variables[n].verdict) for n in ("user", "password", "keep", "other")} == {
        "user": "stored", "password": "rebuilt", "keep": "rebuilt", "other": "rebuilt",
    }  # fmt: skip
    # a restart has the secret, from its encrypted copy
    again = app.restart(run.id, from_step="#3")
    assert again["#3"].outputs[0]["data"]["text/plain"] == str(len(secret))


def test_progress_bars_keep_their_last_line_only(make, app):
    run = app.run(make("for i in range(3):\n    print(f'\\r{i} of 3', end='')"))

    assert run["#1"].outputs == [{"output_type": "stream", "name": "stdout", "text": "2 of 3"}]


def test_top_level_await_display_and_chatty_cells_work(make, app):
    run = app.run(
        make(
            "import asyncio\nawait asyncio.sleep(0.01)\n'done'",
            "from IPython.display import display, clear_output\n"
            "h = display('a', display_id=True)\nh.update('b')",
            "for i in range(3000):\n    print(i)",
        )
    )

    assert run["#1"].outputs[0]["data"]["text/plain"] == "'done'"
    assert run["#2"].outputs[0]["data"]["text/plain"] == "'b'"
    assert run["#3"].outputs[0]["text"].count("\n") == 3000


def start(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cellrail", "run", str(path)],
        cwd=path.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture
def sleeping(make, tmp_path):
    """A notebook whose second cell says when it runs, and then sleeps."""
    return make(
        "a = [1]",
        "import os, time, pathlib\npathlib.Path('running').write_text(str(os.getpid()))\n"
        "for _ in range(600):\n    time.sleep(0.1)",
        "a.append(2)",
    )


def test_an_interrupted_run_is_cancelled_and_can_be_restarted(sleeping, app, tmp_path, edit):
    process = start(sleeping)
    wait_for((tmp_path / "running").exists)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)

    assert process.returncode == 130, told
    run = app.show("last")
    assert run.status == "cancelled"
    assert statuses(run) == ["success", "cancelled", "pending"]
    assert run["#2"].cause == "interrupted"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_kill_9_of_the_driver_leaves_an_interrupted_run_that_restarts(
    sleeping, app, tmp_path, edit
):
    process = start(sleeping)
    wait_for((tmp_path / "running").exists)
    kernel = int((tmp_path / "running").read_text())
    process.kill()
    process.communicate()

    run = app.show("last")
    assert run.status == "interrupted"
    assert statuses(run) == ["success", "failed", "pending"]
    assert run["#2"].cause == "interrupted"
    assert app.runs(status="interrupted")[0].run_id == run.id
    gone, _ = psutil.wait_procs([psutil.Process(kernel)] if psutil.pid_exists(kernel) else [], 5)
    assert gone or not psutil.pid_exists(kernel)

    edit(sleeping, "range(600)", "range(1)")
    rest = app.restart(run.id)
    assert rest.status == "success"
    assert statuses(rest) == ["kept", "success", "success"]
    assert rest["#3"].variables["a"].load() == [1, 2]


def test_kill_9_of_the_kernel_fails_the_run_and_it_restarts(sleeping, app, tmp_path, edit):
    process = start(sleeping)
    wait_for((tmp_path / "running").exists)
    os.kill(int((tmp_path / "running").read_text()), signal.SIGKILL)
    process.communicate(timeout=30)

    assert process.returncode == 1
    assert statuses(app.show("last")) == ["success", "failed", "pending"]
    edit(sleeping, "range(600)", "range(1)")
    assert app.restart("last").status == "success"


def test_a_running_run_cannot_be_restarted(sleeping, cellrail, tmp_path):
    process = start(sleeping)
    wait_for((tmp_path / "running").exists)
    try:
        done = cellrail("restart", "last", "--json")
        assert done.returncode == 2
        assert json.loads(done.stdout)["error"]["code"] == "run-is-running"
    finally:
        process.kill()
        process.communicate()


def test_four_runs_at_once_and_a_lister_disturb_nobody(make, app, tmp_path, cellrail):
    paths = [make(*[f"x{i} = {i}" for i in range(40)], name=f"flow{k}.ipynb") for k in range(4)]
    processes = [start(path) for path in paths]
    listings = 0
    while any(process.poll() is None for process in processes):
        if (tmp_path / ".cellrail" / "store.json").exists():
            assert len(app.runs()) <= 4
            listings += 1
        time.sleep(0.1)

    for process in processes:
        _, told = process.communicate()
        assert process.returncode == 0, told
    assert listings >= 2
    runs = app.runs()
    assert sorted(row.flow for row in runs) == [f"flow{k}.ipynb" for k in range(4)]
    assert {row.status for row in runs} == {"success"}
    assert app.sql("SELECT count(*) AS n FROM jobs")[0]["n"] == 160
    assert not app.doctor().findings


def test_another_cell_magic_works_below_the_step_line(make, app):
    run = app.run(make("%%step timed\n\n%%capture said\nprint('hidden')", "print(said)"))

    assert run.status == "success", run.cause
    assert run["#2"].outputs[0]["text"] == "hidden\n\n"


def test_an_error_that_cannot_be_told_ends_its_step_all_the_same(make, app):
    broken = (
        "class E(Exception):\n    def __str__(self):\n        raise ValueError('no')\nraise E()"
    )
    run = app.run(make(broken, "b = 2"))

    assert statuses(run) == ["failed", "pending"]
    assert run["#1"].cause


def test_a_value_whose_display_fails_names_that_error(make, app):
    run = app.run(make("class R:\n    def __repr__(self):\n        return 1 / 0\nR()"))

    assert run["#1"].cause == "ZeroDivisionError: division by zero"


def test_a_step_whose_kernel_died_tells_how_long_it_took(make, app):
    run = app.run(make("import os, time\ntime.sleep(.3)\nos._exit(3)"))

    assert run["#1"].seconds >= 0.3


@pytest.mark.parametrize(
    "words",
    [
        ("-y", "n: 7"),
        ("-b", "bjogNw=="),
        ("-f", "values.yaml"),
        ("-r", "n", "7"),
        ("-p", "n", "7"),
    ],
)
def test_parameters_come_in_as_papermills_options(make, cellrail, tmp_path, words):
    make("n = 1", "print(int(n) + 1)", tags={1: ["parameters"]})
    (tmp_path / "values.yaml").write_text("n: 7\n")

    done = cellrail("run", "flow.ipynb", *words)

    assert done.returncode == 0, done.stderr
    assert cellrail("show", "last", "#2").stdout.rstrip().endswith("8")


def test_an_annotated_parameter_is_no_stranger_to_papermill(make, cellrail):
    source = "import datetime\nday: datetime.date = datetime.date(2013, 1, 1)"
    make(source, "day", tags={1: ["parameters"]})

    done = cellrail("run", "flow.ipynb", "-p", "day", "2013-02-03")

    assert done.returncode == 0
    assert "unknown parameter" not in done.stderr


def test_a_whole_number_that_is_secret_is_in_no_object(make, app):
    run = app.run(
        make("pin = 0  # secret", "double = 1", tags={1: ["parameters"]}),
        parameters={"pin": 918273645},
    )

    assert run["parameters"].variables["pin"].verdict == "rebuilt"
