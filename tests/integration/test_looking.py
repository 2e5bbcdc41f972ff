"""Looking at what was run: every command answers people and programs."""

from __future__ import annotations

import json

import nbformat
import pytest


@pytest.fixture
def runs(make, app, edit):
    """A failed run and its restart."""
    path = make("day = 'x'", "import pandas as pd\nt = pd.DataFrame({'a': [1, 2, 3]})\nt.shape",
                "%%step last\nprint('<b>' + day, 1 / 0)", tags={1: ["parameters"]})  # fmt: skip
    first = app.run(path, labels={"team": "x"})
    edit(path, "1 / 0", "1")
    return first.to_dict(), app.restart(first.id).to_dict()


def test_json_of_every_command(runs, cellrail, tmp_path):
    first, second = runs
    assert (first["status"], second["status"]) == ("failed", "success")
    assert [s["status"] for s in second["steps"]] == ["kept", "kept", "success"]

    def answer(*words, code=0):
        done = cellrail(*words, "--json")
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    assert answer("show", "last").items() >= {"schema": 1, **second}.items()
    listed = answer("runs")["runs"]
    assert [r["run_id"] for r in listed] == [second["run_id"], first["run_id"]]
    assert listed[0]["labels"] == {"team": "x"}
    assert answer("runs", "--status", "failed")["runs"][0]["run_id"] == first["run_id"]
    assert answer("runs", "--label", "team=y")["runs"] == []
    step = answer("show", "last", "#2")
    assert [v["name"] for v in step["variables"]][-1] == "t"
    assert answer("sql", "SELECT sum(a) AS s FROM t", "--run", "last", "--step", "#2") == {
        "schema": 1, "rows": [{"s": 6}],
    }  # fmt: skip
    assert answer("sql", "SELECT count(*) AS n FROM runs")["rows"] == [{"n": 2}]
    assert answer("diff", second["run_id"], second["run_id"])["equal"] is True
    different = answer("diff", first["run_id"], second["run_id"], code=1)
    assert [s["step"] for s in different["steps"] if not s["equal"]] == ["last"]
    assert [s["label"] for s in answer("steps", "flow.ipynb")["steps"]] == [
        "parameters", "#2", "last",
    ]  # fmt: skip
    assert answer("doctor")["findings"] == []
    assert answer("prune", "--keep-last", "1", "--plan")["runs"] == []


def test_the_journal_tells_what_happened_in_order(runs, cellrail):
    lines = [json.loads(line) for line in cellrail("journal", "last").stdout.splitlines()]

    kinds = [line["type"] for line in lines]
    assert kinds == ["run", "kernel", "kept", "kept", "started", "finished", "end"]
    assert lines[0]["origin"]["from_step"] == "last"


def test_the_executed_notebook_is_rebuilt_from_the_store_alone(runs, cellrail, tmp_path):
    (tmp_path / "flow.ipynb").unlink()
    _, second = runs

    assert cellrail("export", second["run_id"], "x.ipynb").returncode == 0
    assert cellrail("export", second["run_id"], "x.html").returncode == 0

    notebook = nbformat.read(tmp_path / "x.ipynb", 4)
    nbformat.validate(notebook)
    assert "kept from run" in notebook.cells[1].outputs[0]["data"]["text/plain"]
    assert notebook.cells[2].outputs[0]["text"] == "<b>x 1.0\n" or notebook.cells[2].outputs
    html = (tmp_path / "x.html").read_text()
    assert "kept from run" in html
    assert "&lt;b&gt;x" in html


def test_people_get_tables(runs, cellrail):
    shown = cellrail("show", "last").stdout
    assert "kept (origin)" in shown
    assert "restarted from" in shown
    assert "3 x 1 table" in cellrail("show", "last", "#2", "--vars").stdout
    assert "failed" in cellrail("runs").stdout


def test_a_renamed_notebook_keeps_its_history(runs, cellrail, tmp_path):
    (tmp_path / "flow.ipynb").rename(tmp_path / "new.ipynb")

    assert cellrail("mv", "flow.ipynb", "new.ipynb").returncode == 0
    assert len(json.loads(cellrail("runs", "new.ipynb", "--json").stdout)["runs"]) == 2
    again = cellrail("restart", "new.ipynb", "--from", "last", "--json")
    assert json.loads(again.stdout)["flow"] == "new.ipynb"
    assert cellrail("doctor", "--fix").returncode == 0


def test_prune_keeps_what_kept_runs_point_to(make, app, tmp_path):
    path = make("a = 'x' * 10_000", "b = 1", "c = 2")
    first = app.run(path)
    second = app.restart(first.id, from_step="#3")
    loose = app.run(make("z = 'y' * 10_000", name="other.ipynb"))
    app.run(make("z = 1", name="other.ipynb"))

    report = app.prune(keep_last=1)

    assert report.runs == (loose.id,)
    assert report.needed == (first.id,)
    assert app.restart(second.id, from_step="#3").status == "success"
    assert not app.doctor().findings
