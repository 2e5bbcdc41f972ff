"""The open notebook: `%load_ext cellrail` in a kernel that a front end drives."""

from __future__ import annotations

import json

from cellrail import App
from reading import printed, wait_for


def test_a_live_run_is_recorded_restarted_here_undone_and_restarted_headless(make, front, tmp_path):
    path = make("%load_ext cellrail", "x = [1, 2]\ny = x", "%%step add\nx.append(3)\nprint(x)",
                "print(y is x, y)")  # fmt: skip
    sources = ["".join(c["source"]) for c in json.loads(path.read_text())["cells"]]
    assert front.run("%load_ext cellrail\n%flow config notebook=flow.ipynb", "cell-1")
    for place, source in enumerate(sources[1:], 2):
        said = front.run(source, f"cell-{place}")
    assert said == "True [1, 2, 3]\n"

    plan = front.run("%flow restart --from add --plan")
    assert "add" in plan
    assert "executes: at the cut" in plan
    assert "right before 'add'" in front.run("%flow restart --from add --force")
    assert front.run("(x, y is x)", "scratch") == "([1, 2], True)"
    assert "as it was before the restart" in front.run("%flow undo")
    assert front.run("x", "scratch") == "[1, 2, 3]"
    assert "[1, 2, 3]" in front.run("%flow restart --from add --force --run")

    assert "loaded z" in front.run("%flow load last add x --as z")
    assert front.run("z", "scratch") == "[1, 2, 3]"
    assert "would be overwritten" in front.run("%flow load last add x")

    app = App(tmp_path / ".cellrail")
    live = app.show("last")
    assert live.to_dict()["kind"] == "live"
    assert live["add"].outputs == [
        {"output_type": "stream", "name": "stdout", "text": "[1, 2, 3]\n"}
    ]
    front.close()
    assert app.show(live.id).status == "success"


def test_a_cell_that_only_looks_is_no_step_of_a_live_run(make, front, tmp_path):
    make("%load_ext cellrail", "%flow runs", "%%step add\nx = 1", "%%step later\nx + 1")
    front.run("%load_ext cellrail\n%flow config notebook=flow.ipynb", "cell-1")
    front.run("%flow runs", "cell-2")
    front.run("%%step add\nx = 1", "cell-3")

    told = [(step.label, str(step.status)) for step in App(tmp_path / ".cellrail").show().steps]
    assert told == [("#1", "success"), ("add", "success"), ("later", "pending")]


def test_previous_in_an_open_notebook_is_what_the_cell_left_the_last_time(make, front):
    step = "%%step add\nlast = flow.previous.get('x')\nx = 1 if last is None else last + 1\nlast"
    turns = "%%step loop --foreach i in [1, 2]\nprint(flow.previous.get('i'))"
    make("%load_ext cellrail", "from cellrail import flow", step, turns)
    front.run("%load_ext cellrail\n%flow config notebook=flow.ipynb", "cell-1")
    assert not front.run("from cellrail import flow", "cell-2")

    assert [front.run(step, "cell-3") for _ in range(3)] == ["", "1", "2"]
    assert front.run(turns, "cell-4") == "None\n1\n"
    assert front.run(turns, "cell-4") == "2\n1\n"
    # what it went back behind was the last time all the same
    assert "right before 'add'" in front.run("%flow restart --from add --force")
    assert front.run(step, "cell-3") == "3"
    assert front.run("flow.previous", "scratch") == "<previous values: none>"


def test_previous_in_an_open_notebook_is_that_of_the_run_that_it_went_back_to(make, front, app):
    step = "%%step add\nx = flow.previous.get('x', 0) + 1\nx"
    path = make("%load_ext cellrail", "%%step one\nfrom cellrail import flow", step)
    run = app.run(path)
    front.run("%load_ext cellrail\n%flow config notebook=flow.ipynb", "cell-1")

    assert "right before 'add'" in front.run(f"%flow restart {run.id} --from add")
    assert front.run(step, "cell-3") == "2"
    assert front.run(step, "cell-3") == "3"


def test_step_lines_are_checked_and_transparent(front):
    front.run("%load_ext cellrail")

    assert "unknown option --tiemout; did you mean --timeout?" in front.run(
        "%%step a --tiemout 3\nprint('ran')"
    )
    assert front.run("%%step a --timeout 3\nimport asyncio\nawait asyncio.sleep(0)\n41 + 1") == "42"
    assert front.run("%%step c --foreach x in [1, 2]\nprint('turn', x)") == "turn 1\nturn 2\n"
    assert front.run("%%step b\n1 / 0") == "ZeroDivisionError: division by zero"
    assert "did you mean restart?" in front.run("%flow restrat")
    assert front.run("%flow panel") == "cellrail: run this cell to open it"


def test_a_restart_that_fails_leaves_every_object_as_it_was(make, front):
    sources = [
        "%load_ext cellrail",
        "spoiled = False\nclass S:\n    def __getstate__(self): return {'x': 1}\n"
        "    def __setstate__(self, state):\n        if spoiled: raise ValueError('spoiled')\n"
        "s = S(); keep = [s]",
        "spoiled = True",
        "%%step go\nx = 1",
    ]
    make(*sources)
    front.run("%load_ext cellrail\n%flow config notebook=flow.ipynb", "cell-1")
    for place, source in enumerate(sources[1:], 2):
        front.run(source, f"cell-{place}")

    assert "spoiled" in front.run("%flow restart --from go --force")
    assert front.run("(keep[0] is s, spoiled, x)", "scratch") == "(True, True, 1)"


def test_a_panel_in_a_variable_is_recorded_in_silence(front):
    front.run("%load_ext cellrail")
    assert front.run("import cellrail\np = cellrail.runs_panel()\nshown = [1]") == ""
    shown = front.run("print(cellrail.App().show('last')['#1'].variables['p'].record.reason)")
    assert "opens again" in shown


def test_what_is_not_stored_is_told_in_one_quiet_line(front):
    front.run("%load_ext cellrail")

    assert front.run("import threading\nlock = threading.Lock()").startswith(
        "cellrail: lock (rebuilt: a lock"
    )
    assert front.run("x = 1") == ""


def test_nothing_is_recorded_where_no_person_executes(front, tmp_path):
    front.run("%load_ext cellrail", cell_id="")
    front.run("x = 1", cell_id="")

    assert not (tmp_path / ".cellrail").exists()
    assert "recording is off" in front.run("%flow record", cell_id="")
    front.run("%flow record on", cell_id="")
    front.run("x = 2", cell_id="")
    assert (tmp_path / ".cellrail").exists()


def test_unloading_leaves_the_shell_as_it_was(front):
    count = (
        "ip = get_ipython(); (len(ip.input_transformers_cleanup), "
        "sorted(ip.magics_manager.magics['line']) == lines, "
        "'step' in ip.magics_manager.magics['cell'], "
        "{k: len(v) for k, v in ip.events.callbacks.items()} == events)"
    )
    front.run(
        "ip = get_ipython(); lines = sorted(ip.magics_manager.magics['line']); "
        "events = {k: len(v) for k, v in ip.events.callbacks.items()}"
    )
    before = front.run(count)
    front.run("%load_ext cellrail")
    assert front.run(count) != before
    front.run("%unload_ext cellrail")

    assert front.run(count) == before
    front.run("%load_ext cellrail")
    front.run("%load_ext cellrail")
    assert front.run("%%step again\n1") == "1"


def test_a_live_step_is_interrupted_after_its_timeout(front, tmp_path):
    front.run("%load_ext cellrail", "a")

    said = front.run("%%step slow --timeout 500ms\nimport time\ntime.sleep(20)", "b")

    assert "KeyboardInterrupt" in said
    assert front.run("1 + 1", "c") == "2"
    front.close()
    assert App(tmp_path / ".cellrail").show("last")["slow"].cause == "timeout after 0.5 s"


def test_cells_run_by_a_restart_are_recorded_as_their_steps(make, front, edit, tmp_path):
    path = make(
        "%load_ext cellrail\n%flow config notebook=flow.ipynb",
        "x = 1",
        "%%step add\nx += 1",
        "y = x * 2",
    )
    front.run("%load_ext cellrail\n%flow config notebook=flow.ipynb", "cell-1")
    for place, source in enumerate(("x = 1", "%%step add\nx += 1", "y = x * 2"), 2):
        front.run(source, f"cell-{place}")
    edit(path, "x += 1", "x += 10")

    front.run("%flow restart --from add --run --force")
    said = front.run("%flow restart --from '#4'")

    assert "right before '#4'" in said, said
    assert front.run("x", "scratch") == "11"


def test_a_live_cut_that_cannot_be_had_offers_no_other_that_cannot(make, front):
    make(
        "%load_ext cellrail\n%flow config notebook=flow.ipynb",
        "x = 1",
        "%%step add\nx += 1",
        "y = x * 2",
    )
    front.run("%load_ext cellrail\n%flow config notebook=flow.ipynb", "cell-1")
    for place, source in enumerate(("x = 1", "%%step add\nx += 1", "y = x * 2", "x = 1"), 2):
        front.run(source, f"cell-{2 if place == 5 else place}")

    said = front.run("%flow restart --from add")

    assert "out of order" in said
    assert "--force cuts at that moment" in said


def test_saved_flow_cells_are_no_part_of_a_live_run(make, front, tmp_path):
    sources = (
        "%load_ext cellrail",
        "%flow config notebook=flow.ipynb",
        "x = [1]",
        "%flow show last",
        "%%step add\nx.append(2)",
        "%flow restart --from add --run",
        "print(x)",
        "%flow undo",
    )
    make(*sources)
    for place, source in enumerate(sources[:5], 1):
        front.run(source, f"cell-{place}")
    front.run(sources[6], "cell-7")

    plan = front.run("%flow restart --from add --plan", "scratch")
    assert "refused" not in plan, plan
    assert plan.count("skipped: %flow lines only") == 4
    assert "new step" not in plan
    said = front.run("%flow restart --from '#7'", "scratch")
    assert "right before '#7'" in said
    assert front.run("x", "look") == "[1, 2]"
    # a saved `%flow restart --run` does not begin another one
    said = front.run("%flow restart --from add --run --force", "scratch")
    assert said.count("-- add") == 1, said
    assert "[1, 2]" in said
    assert "holds %flow lines" in front.run("%flow restart --from '#6'", "scratch")


def test_saved_flow_cells_do_not_stop_a_headless_run(make, app):
    run = app.run(
        make("%load_ext cellrail\nx = 1", "%flow restart --from '#1' --force", "%flow undo", "x")
    )
    assert run.status == "success", run.cause
    assert "for an open notebook" in run["#2"].outputs[0]["text"]


def test_a_live_run_gets_its_name_when_the_notebook_is_known(make, front, app, tmp_path):
    sources = (
        "%load_ext cellrail\nfrom cellrail import get_state, set_state",
        "before = 1",
        "%%step count\nset_state((get_state() or 0) + 1)",
        "%%step later\nprint(get_state())",
    )
    make(*sources)
    front.run(sources[0], "cell-1")
    front.run(sources[1], "cell-2")
    live = app.show("last")
    assert live.flow == "unknown.ipynb"

    front.run("%flow config notebook=flow.ipynb", "scratch")
    front.run(sources[2], "cell-3")

    assert app.show("last").flow == "flow.ipynb"
    assert [row.run_id for row in app.runs(tmp_path / "flow.ipynb")] == [live.id]
    [state] = app.state_list()
    assert state.path.startswith("flow.ipynb/count/")
    plan = front.run("%flow restart --from count --plan", "scratch")
    assert "refused" not in plan, plan
    assert "right before 'count'" in front.run("%flow restart --from count", "scratch")
    front.close()
    done = app.show(str(tmp_path / "flow.ipynb"))
    assert (done.id, done.status) == (live.id, "success")
    assert app.doctor().findings == ()


def test_commands_of_runs_triggers_and_backfills_are_those_of_the_command_line(
    make, front, app, tmp_path
):
    make(
        "from datetime import date\nday: date = date(2013, 1, 1)",
        "%%step load --foreach x in 'ab' --on-error continue\n"
        "from pathlib import Path\nif x == 'b' and not Path('ok').exists(): raise ValueError(x)",
        "%%step end\nprint(day)",
        tags={1: ["parameters"]},
    )  # fmt: skip
    front.run("%load_ext cellrail", "a")

    assert "executes" in front.run("%flow run flow.ipynb --plan", "b")
    assert "success" in front.run("%flow run flow.ipynb -p day 2013-02-03 --label a=b", "b")
    origin = app.show(str(tmp_path / "flow.ipynb"))
    assert origin.labels == {"a": "b"}
    said = front.run(f"%flow restart {origin.id} --from load --failed-only", "b")
    assert "--failed-only is for a run of its own" in said
    (tmp_path / "ok").touch()
    said = front.run(f"%flow restart {origin.id} --from end -p day 2013-03-03 --detach", "b")
    assert "running" in said or "success" in said, said  # it may have been as fast as that
    wait_for(lambda: app.show(str(tmp_path / "flow.ipynb")).status == "success")
    assert printed(app.show(str(tmp_path / "flow.ipynb")), "end") == "2013-03-03\n"
    said = front.run(
        "%flow trigger add flow.ipynb --id daily --cron '0 6 * * *' -p day '{date:%Y-%m-%d}'", "c"
    )
    assert "daily" in said, said
    assert front.run("%flow trigger next daily --count 2", "c").count("T06:00:00") == 2
    front.run("%flow trigger disable daily", "c")
    assert not app.trigger_show("daily").enabled
    plan = front.run(
        "%flow backfill start flow.ipynb --every day --start 2013-01-01 --end 2013-01-03 "
        "-p day '{date:%Y-%m-%d}' --plan", "c"
    )  # fmt: skip
    assert "3 ticks" in plan, plan
    said = front.run(
        "%flow backfill start flow.ipynb --every day --start 2013-01-01 --end 2013-01-01 "
        "-p day '{date:%Y-%m-%d}'", "c"
    )  # fmt: skip
    assert "backfill" in said, said
    wait_for(lambda: app.backfill_show().status == "done")
    assert "'counts': {'success': 1}" in front.run("%flow backfill show", "c")
    assert "there is no trigger 'dialy'; did you mean 'daily'?" in front.run(
        "%flow trigger remove dialy", "c"
    )
    assert "backfill start, list" in front.run("%flow backfill strat", "c")
    assert "[{'n': 1}]" in front.run("%flow sql 'SELECT 1 AS n'", "c")
    assert "a notebook would keep the key" in front.run("%flow key export", "c")


def test_undo_brings_back_what_cannot_be_stored_and_what_it_shares(make, front):
    first = (
        "import threading\nclass Acc:\n    def __init__(s): s.lock, s.rows = threading.Lock(), []\n"
        "acc = Acc(); rows = acc.rows\ng = iter(r for r in rows)"
    )
    make("%load_ext cellrail", first, "%%step later\nx = [acc, g]")
    front.run("%load_ext cellrail\n%flow config notebook=flow.ipynb", "cell-1")
    front.run(first, "cell-2")
    front.run("%%step later\nx = [acc, g]", "cell-3")
    front.run("rows.append(7)", "scratch")
    tell = "print(rows, acc.rows is rows, type(acc) is Acc, next(g, 'over'))"

    assert "right before 'later'" in front.run("%flow restart --from later --force")
    assert front.run(tell, "scratch").strip() == "[] True True over"
    assert "as it was before" in front.run("%flow undo")
    assert front.run(tell, "scratch").strip() == "[7] True True 7"
