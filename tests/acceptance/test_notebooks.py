"""The shipped notebooks: under plain tools, with our engine, restarted at each cut."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from cellrail import App

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
NAMES = ("daily_delays", "delay_model", "digit_epochs", "plain_weather")
#: with a loop over two cells, and with a wait
CONDUCTED = ("sum_of_squares", "approval")


@pytest.fixture
def folder(tmp_path):
    """The notebooks in a folder of the test's own."""
    for name in (*NAMES, *CONDUCTED):
        shutil.copy(NOTEBOOKS / f"{name}.ipynb", tmp_path)
    return tmp_path


def run(folder, *words):
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, capture_output=True, text=True, check=False,
        timeout=240,
    )  # fmt: skip


def sources(path):
    return [cell.source for cell in nbformat.read(path, 4).cells]


@pytest.mark.parametrize("name", ["daily_delays", "plain_weather", *CONDUCTED])
def test_papermill_runs_it_without_surprises(folder, name):
    before = sources(folder / f"{name}.ipynb")

    mill = run(folder, "papermill", f"{name}.ipynb", "done.ipynb", "--no-progress-bar")

    assert mill.returncode == 0, mill.stderr
    # (what papermill adds is a cell of parameters)
    assert [source for source in sources(folder / "done.ipynb") if source in before] == before
    assert not (folder / ".cellrail").exists()


@pytest.mark.parametrize("name", ["daily_delays", *CONDUCTED])
def test_nbconvert_runs_it_without_surprises(folder, name):
    """All of them are executed by nbclient when nbval compares their outputs (`make test`)."""
    before = sources(folder / f"{name}.ipynb")

    convert = run(folder, "nbconvert", "--to", "notebook", "--execute", f"{name}.ipynb",
                  "--output", "done.ipynb")  # fmt: skip

    assert convert.returncode == 0, convert.stderr
    assert sources(folder / "done.ipynb") == before
    assert not (folder / ".cellrail").exists()


def test_one_notebook_is_plain():
    text = "".join(sources(NOTEBOOKS / "plain_weather.ipynb"))
    notebook = nbformat.read(NOTEBOOKS / "plain_weather.ipynb", 4)

    assert "%" not in text
    assert "step" not in text
    assert not any(cell.metadata.get("tags") for cell in notebook.cells)


def test_the_plain_notebook_restarts_at_each_of_its_cells_in_turn(folder):
    path = folder / "plain_weather.ipynb"
    app = App(folder / ".cellrail")
    first, second = app.run(path), app.run(path)
    assert app.diff(first.id, second.id).equal

    for number in range(1, len(first.steps) + 1):
        again = app.restart(second.id, from_step=f"#{number}")
        assert [str(s.status) for s in again.steps] == ["kept"] * (number - 1) + ["success"] * (
            len(first.steps) - number + 1
        )
        assert app.diff(first.id, again.id).equal, number


def test_the_model_is_not_trained_again_after_a_failure_below_it(folder):
    app = App(folder / ".cellrail")
    whole = app.run(folder / "delay_model.ipynb")
    assert whole.status == "success", whole.cause

    again = app.restart(whole.id, from_step="score")

    assert again["train"].job_id == whole["train"].job_id
    assert again["score"].outputs == whole["score"].outputs
    differing = {name for step in app.diff(whole.id, again.id).steps for name in step.variables}
    # a drawn figure holds counters and addresses of its own
    assert differing <= {"figure", "axes", "Out[9]", "_"}


def test_a_model_that_is_trained_in_epochs_goes_on_with_the_epoch_that_crashed(folder, edit):
    notebook = folder / "digit_epochs.ipynb"
    edit(notebook, 'every="1m"', "every=5")
    edit(
        notebook,
        "    order = rng.permutation",
        "    with open('epochs.txt', 'a') as file:\n        print(epoch, file=file)\n"
        "    if epoch == 17 and open('epochs.txt').read().split().count('17') == 1:\n"
        "        import os; os.kill(os.getpid(), 9)\n"
        "    order = rng.permutation",
    )
    (folder / "epochs.txt").write_text("17\n17\n")
    app = App(folder / ".cellrail")
    whole = app.run(notebook)
    assert whole.status == "success", whole.cause
    (folder / "epochs.txt").unlink()

    crashed = app.run(notebook)
    assert crashed.status == "failed"
    again = app.recover(crashed.id)

    assert again.status == "success", again.cause
    epochs = [int(word) for word in (folder / "epochs.txt").read_text().split()]
    assert epochs == [*range(18), *range(15, 30)]
    assert app.diff(whole.id, again.id).equal
    model = again["train"].variables["model"].load()
    assert model.coefs_[0].shape == (64, 32)


def test_under_papermills_own_command_the_run_is_recorded(folder):
    done = run(folder, "papermill", "--engine", "cellrail", "daily_delays.ipynb", "out.ipynb",
               "-p", "day", "2013-02-03", "--no-progress-bar")  # fmt: skip
    assert done.returncode == 0, done.stderr

    app = App(folder / ".cellrail")
    recorded = app.show("last")
    assert recorded.status == "success"
    assert str(recorded.parameters["day"]) == "2013-02-03"
    report = nbformat.read(folder / "out.ipynb", 4).cells[-1].outputs[0]
    assert "2013-02-03" in report["data"]["text/plain"]


def test_under_papermills_own_command_failures_are_papermills(make, tmp_path):
    path = make("a = 1", "1 / 0", "b = 2")
    done = run(tmp_path, "papermill", "--engine", "cellrail", path.name, "out.ipynb")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr

    path = make("1 / 0", "b = 2", tags={1: ["raises-exception"]})
    done = run(tmp_path, "papermill", "--engine", "cellrail", path.name, "out.ipynb")
    assert done.returncode == 0, done.stderr

    path = make("import os\nos._exit(3)", "b = 2")
    done = run(tmp_path, "papermill", "--engine", "cellrail", path.name, "out.ipynb")
    assert done.returncode == 138
    app = App(tmp_path / ".cellrail")
    assert [str(s.status) for s in app.show("last").steps] == ["failed", "pending"]
    assert app.show("last")["#1"].cause == "the kernel died (exit code 3)"


def test_the_demo_holds_what_it_claims(tmp_path):
    root = NOTEBOOKS.parent
    done = subprocess.run(
        [sys.executable, str(root / "docs" / "demo" / "run_demo.py"), "--out", str(tmp_path / "o")],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal: every output and every variable" in done.stdout
    assert json.loads((tmp_path / "o" / "morning.ipynb").read_text())["nbformat"] == 4
