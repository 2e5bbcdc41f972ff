"""Looking at what was run: every command answers people and programs."""

from __future__ import annotations

import json

import msgspec
import nbformat
import pytest

from cellrail.panels.rooms.restart import RestartRoom
from cellrail_state.tables import Shown


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


# --- how long it took ------------------------------------------------------------------------


@pytest.fixture
def naps(make, app):
    """A run with loops: three items of 0.1 s and 2 * 0.05 s each, then two at once of 0.3 s."""
    path = make(
        "import time",
        "%%step items --foreach i in range(3)\ntime.sleep(0.1)",
        "%%step inner --in items --foreach k in range(2)\ntime.sleep(0.03)",
        "%%step last --in inner\ntime.sleep(0.02)",
        "%%step apart --foreach j in range(2) --parallel 2\ntime.sleep(0.3); n = j",
        "%%step end\nprint('end')",
    )
    return app.run(path)


def _sum(run, loop, label=""):
    """Seconds of the jobs in a loop, or in an item of it; of one step, where it is named."""
    jobs = [(run.history.address_of(job), job) for job in run.history.jobs if job.turns]
    return pytest.approx(
        sum(
            job.seconds
            for address, job in jobs
            # what gathers the turns of a loop within is no work of its own
            if loop in address and address.endswith(label) and not address.endswith("/inner")
        ),
        abs=1e-4,
    )


def test_the_time_of_a_loop_is_that_of_its_items(naps, app, cellrail):
    told = json.loads(cellrail("show", "last", "--json").stdout)
    took = {step["label"]: step["seconds"] for step in told["steps"]}

    assert took["items"] == _sum(naps, "items[")
    assert took["items"] >= 0.6
    assert took["inner"] == _sum(naps, "inner[")
    assert took["last"] == _sum(naps, "items[", "last")
    # at once: from the first's beginning to the last's end, and no sum
    one, two = sorted((j for j in naps.history.jobs if j.turns[:1] and j.turns[0].loop == "apart"),
                      key=lambda job: job.started)  # fmt: skip
    beside = max(0.0, one.started + one.seconds - two.started)
    assert took["apart"] == pytest.approx(one.seconds + two.seconds - beside)
    run = app.show(naps.id)
    assert run["items[1]/inner"].seconds == _sum(naps, "items[1]/inner[")
    assert run["items[1]/inner[0]/last"].seconds == _sum(naps, "items[1]/inner[0]/last")
    items = run.items(run["items"])
    assert [item.seconds for item in items] == [_sum(naps, f"items[{n}]") for n in range(3)]


def test_a_plan_expects_the_time_of_what_executes_of_a_loop(naps, app):
    def expected(**options):
        plan = app.restart(naps.id, plan=True, **options)
        return plan, {step.label: step.seconds for step in plan.steps}

    plan, whole = expected(from_step="items")
    assert whole["items"] == _sum(naps, "items[")
    # what lies in a loop counts once
    assert plan.seconds_of(plan.executing) == whole["items"] + whole["apart"] + whole["end"]

    plan, some = expected(from_step="items[2]")
    assert some["items"] == _sum(naps, "items[2]")
    assert some["last"] == _sum(naps, "items[2]", "last")
    assert some["apart"] == whole["apart"]
    told = RestartRoom(app).ask_plan({"run": naps.id, "step": "items[2]"})
    assert told["seconds"] == some["items"] + some["apart"] + some["end"]

    plan, one = expected(from_step="apart[1]")
    assert one["apart"] == _sum(naps, "apart[1]")
    assert one["items"] == whole["items"]
    again = {step.label: step.seconds for step in app.rerun(naps.id, plan=True).steps}
    assert again == whole


def test_a_kept_loop_took_the_time_of_its_items_where_they_ran(naps, app):
    kept = app.restart(naps.id, from_step="end")

    before = {step.label: step.seconds for step in app.show(naps.id).steps}
    after = {step.label: step.seconds for step in kept.steps}
    assert {**after, "end": 0} == {**before, "end": 0}


def test_every_record_tells_in_a_line_and_in_a_table_what_it_is(make, app):
    run = app.run(
        make("x = '<b>'", "%%step ask\nfrom cellrail import flow\nflow.suspend('1h')", "x")
    )
    other = app.run(make("x = 2", "x"), labels={"a": "b"})
    rows, waits, diff = app.runs(), app.waits(), app.diff(run.id, other.id)

    assert repr(rows[0]) == f"<run {other.id} of flow.ipynb: success>"
    assert repr(run["ask"]) == "<step ask suspended>"
    assert repr(waits[0]).startswith(f"<wait of {run.id} in ask, until 20")
    assert repr(waits) == repr(waits[0])
    assert repr(diff) == f"<{run.id} and {other.id}: #1, ask, #3, #2 differ>"
    told = {
        "ask": run["ask"], "&lt;b&gt;": run["#1"].variables["x"], "waits": waits,
        "until": waits[0], "differs": diff,
    }  # fmt: skip
    for text, record in told.items():
        shown = record._repr_html_()
        assert text in shown
        assert "<b>" not in shown


def test_every_record_that_the_app_gives_is_a_table_in_a_notebook(make, app):
    step = "%%step each --foreach item in ['<i>'] --collect x\nx = item"
    notebook = make("x = '<b>'", step)
    run = app.run(notebook, labels={"<b>": "c"})
    plan = app.restart(run.id, from_step="each", plan=True)
    trigger = app.trigger_add(notebook, cron="0 6 * * *", labels={"day": "<b>"})
    days = {"cron": "0 6 * * *", "start": "2024-01-01", "end": "2024-01-02"}
    told = {
        f"<td>{run.id}</td>": app.runs()[0], "1 of 1 runs: 1 success": app.runs_page(),
        "<td>each[&quot;&lt;i&gt;&quot;]</td>": run.items(run["each"])[0],
        "<td>executes</td>": plan.steps[1],
        "<td>%%step each": app.steps(notebook).steps[1], "<td>item, x</td>": app.steps(notebook),
        "<td>day = &lt;b&gt;</td>": trigger, "no tick is due": app.trigger_due(trigger.id),
        "<td>0 6 * * *</td>": app.trigger_list(),
        "no backfills": app.backfill_list(), "T06:00:00+00:00</td>": app.trigger_next(trigger.id),
        "<td>2 run</td>": app.backfill_start(notebook, plan=True, **days),
        "<td>a = &lt;b&gt;</td>": app.state_set("some/where", {"a": "<b>"}),
        "<td>some/where</td><td>state</td>": app.state_list(),
        "<td>journals</td><td>1</td>": app.doctor(), "<td>freed_bytes</td>": app.prune(),
    }  # fmt: skip
    for text, record in told.items():
        shown = record._repr_html_()
        assert text in shown, shown
        assert "<b>" not in shown, shown

    assert "2 run" in repr(app.backfill_start(notebook, plan=True, **days))
    fill = app.backfill_start(notebook, **days)
    assert "<td>2 success, 0 running, 0 left</td>" in fill._repr_html_()
    assert repr(fill) == f"<backfill {fill.id} of flow.ipynb: done: 2 success>"
    assert "<td>done: 2 success</td>" in app.backfill_list()._repr_html_()
    assert repr(trigger) == f"<trigger {trigger.id} of flow.ipynb: 0 6 * * * in UTC, enabled>"
    assert repr(app.trigger_list()) == repr(trigger)
    assert repr(app.trigger_due(trigger.id)) == "<0 due, 0 of them missed, 0 skipped>"
    assert repr(app.runs_page()) == "<3 of 3 runs: 3 success>"
    assert repr(app.doctor()).startswith("<report: journals 3, objects ")
    (stored,) = app.state_list()
    assert repr(stored).startswith("<stored: path some/where, type state, version 1, value a = <b>")


class Made(Shown, msgspec.Struct):
    """A record of any kind."""

    name: str = ""
    things: tuple[int, ...] = ()
    on: bool = False
    time: float = 0.0
    secrets: dict[str, str] = {}


def test_a_record_tells_in_a_line_what_it_holds_and_no_secret():
    assert repr(Made()) == "<made: nothing>"
    assert "<td>nothing</td>" not in Made(name="x")._repr_html_()
    assert (
        repr(Made(name="a\nb", things=(1, 2), on=True)) == "<made: name a b, things 1, 2, on True>"
    )
    assert repr(Made(things=(1,) * 9)) == "<made: things 9>"
    kept = Made(secrets={"key": "token"})
    assert repr(kept) == "<made: secrets key = ***>"
    assert "token" not in kept._repr_html_()


def test_an_item_that_is_kept_as_it_failed_says_so(make, app):
    each = "%%step each --foreach i in range(3) --on-error skip\nassert i != 1"
    run = app.run(make("x = 1", each, "%%step end\nx"))

    kept = app.restart(run.id, from_step="end")
    words = [item.status for item in kept.items(kept["each"])]
    assert words == ["kept (origin)", "kept (origin; failed)", "kept (origin)"]
    assert repr(kept["each[1]"]) == "<step each[1] kept (origin; failed)>"
