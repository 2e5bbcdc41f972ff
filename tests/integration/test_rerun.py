"""Laws of a rerun:

* it is a new run; kept steps point to the origin's very jobs;
* outputs and variables equal those of an uninterrupted run of the notebook as it is now;
* exactly the steps execute that changed, or that read what came out different;
* the plan says for each step what happens and why, and nothing runs;
* restarts of a rerun find the namespace of every step.
"""

from __future__ import annotations

import json

import pytest

from cellrail.errors import BadSelector, RestartRefused
from cellrail_state.errors import RunIsOwned
from reading import printed, statuses


def test_when_nothing_changed_everything_points_to_the_origins_jobs(make, app):
    path = make("a = [1]\nb = a", "b.append(2)", "print(a)\na")
    origin = app.run(path)
    again = app.rerun(str(path))
    third = app.rerun(again.id)

    assert (again.origin, again.status) == (origin.id, "success")
    assert {str(s.status) for s in again.steps} == {"kept"}
    assert [str(s._state.kept) for s in again.steps] == ["unchanged"] * 3
    assert [s.job_id for s in third.steps] == [s.job_id for s in origin.steps]
    assert again["#3"].outputs == origin["#3"].outputs
    assert third["#3"].variables["b"].load() == [1, 2]
    assert app.diff(origin.id, third.id).equal


def test_restarts_of_a_rerun_find_every_namespace(make, app, edit):
    path = make(
        "def old(x):\n    return x + 1\npair = [lambda: 'one']",
        "def other(x):\n    return x * 10\nsaid = [lambda: 'two']\nshared = [1]\nalso = shared",
        "a = other(2)\nalso.append(a)",
        "b = old(1)",
        "c = said[0]()\nshared.append(b * 0)",
    )
    origin = app.run(path)
    edit(path, "return x + 1", "return x + 5")
    again = app.rerun(origin.id)
    whole = app.run(path)

    assert [str(s.status) for s in again.steps] == ["success", "kept", "kept", "success", "success"]
    assert app.diff(again.id, whole.id).equal
    for number in (3, 4, 5):
        cut = app.restart(again.id, from_step=f"#{number}")
        assert cut.status == "success", (number, cut.cause)
        difference = app.diff(cut.id, whole.id)
        assert difference.equal, (number, [d for d in difference.steps if not d.equal])
    assert cut["#5"].load(["shared", "also"])["shared"] == [1, 20, 0]


def test_parameters_that_changed_execute_their_readers(make, app):
    sources = ("day = 1\nname = 'x'", "a = day * 2", "b = name * 2", "c = a\nd = b", "e = b")
    origin = app.run(make(*sources, tags={1: ["parameters"]}), parameters={"day": 3})

    plan = app.rerun(origin.id, plan=True, parameters={"day": 4})
    run = app.rerun(origin.id, parameters={"day": 4})
    same = app.rerun(run.id, parameters={"day": 4}, plan=True)

    assert plan.steps[0].reason == "parameter `day` changed"
    assert plan.steps[1].reason == "parameter `day` changed"
    assert [str(s.fate) for s in plan.steps] == [
        "executes", "executes", "kept", "may execute", "kept",
    ]  # fmt: skip
    assert [str(s.status) for s in run.steps] == ["success", "success", "kept", "success", "kept"]
    assert run["#5"].load(["a", "c", "e"]) == {"a": 8, "c": 8, "e": "xx"}
    assert {str(s.fate) for s in same.steps} == {"kept"}


def test_a_run_that_failed_goes_on_with_what_was_mended(make, app, edit):
    path = make("a = 20", "b = 3", "c = a / 0", "d = c + b")
    failed = app.run(path)
    edit(path, "/ 0", "/ 2")

    run = app.rerun(str(path))

    assert failed.status == "failed"
    assert [str(s.status) for s in run.steps] == ["kept", "kept", "success", "success"]
    assert run["#4"].variables["d"].load() == 13


FORCED = (
    "from cellrail import flow\nn = 1\nseen = flow.forced",
    "# step: load_a\na = (n, flow.forced)",
    "# step: load_b\nb = (n, flow.forced)",
    "# step: use\nc = (a, b, flow.forced)",
    "# step: rest\nd = n",
)


def test_steps_that_are_named_are_forced_and_know_it(make, app, tmp_path):
    origin = app.run(make(*FORCED))

    run = app.rerun(origin.id, changed=["step:load_*"])

    assert [str(s.status) for s in run.steps] == ["kept", "success", "success", "success", "kept"]
    assert run["use"].load(["a", "b", "c"])["c"] == ((1, True), (1, True), False)
    modified = tmp_path / "recovery.json"
    modified.write_text('{"modified": [{"selector": "process.name", "value": "load_a"}]}')
    plan = app.rerun(origin.id, changed=[f"@{modified}"], plan=True)
    assert [str(s.fate) for s in plan.steps] == [
        "kept", "executes", "kept", "may execute", "kept",
    ]  # fmt: skip
    assert plan.steps[1].reason == "forced by step:load_a"


def test_a_variable_that_is_named_executes_its_readers(make, app, edit):
    path = make(*FORCED)
    origin = app.run(path)
    edit(path, "d = n", "d = n + 1")

    plan = app.rerun(origin.id, changed=["var:a"], plan=True)
    run = app.rerun(origin.id, changed=["var:a"])

    assert plan.steps[3].reason == "variable `a` was named as changed"
    assert plan.warnings == ("step rest: source changed (not among --changed: as it was)",)
    assert [str(s.status) for s in run.steps] == ["kept", "kept", "kept", "success", "kept"]
    assert run["use"].variables["c"].load()[2] is True


def test_a_selector_of_nothing_is_refused_with_the_nearest_name(make, app):
    origin = app.run(make(*FORCED))

    for selector, message, hint in (
        ("step:lod_a", "there is no such step", "step:load_a"),
        ("var:aa", "there is no such variable", "did you mean var:a?"),
        ("steps:use", "no kind of change", "did you mean step:use?"),
        ("use", "says not what changed", "step:use"),
        ("param:x", "there is no such parameter", ""),
        ("@gone.json", "cannot be read", ""),
    ):
        with pytest.raises(BadSelector, match=message) as refused:
            app.rerun(origin.id, changed=[selector])
        assert hint in refused.value.hint
    assert len(app.runs()) == 1


def test_the_plan_names_the_step_that_binds_what_may_come_out_different(make, app, edit):
    path = make(
        "%%step load\nframe = [1, 2]",
        "%%step look\nprint(frame)\nsize = len(frame)",
        "%%step sort\nframe.sort()",
        "%%step use\nprint(frame, size)",
        "%%step last\nprint(size)",
    )
    origin = app.run(path)
    edit(path, "[1, 2]", "[2, 1]")

    reasons = {s.label: s.reason for s in app.rerun(origin.id, plan=True).steps}

    assert reasons["load"] == "source changed"
    for label in ("look", "sort", "use"):
        assert reasons[label].startswith("if `frame` of step load comes out"), reasons
    assert reasons["last"].startswith("if `size` of step look comes out"), reasons


def test_a_selector_that_no_step_reads_is_refused(make, app):
    path = make(
        "from datetime import date\nday: date = date(2013, 1, 1)\nused = 1",
        "import json\nunread = 2",
        "print(used)",
        tags={1: ["parameters"]},
    )  # fmt: skip
    origin = app.run(path)

    for selector in ("param:day", "var:unread", "param:d*"):
        for plan in (True, False):
            with pytest.raises(BadSelector, match="no step reads it") as refused:
                app.rerun(origin.id, changed=[selector], plan=plan)
            assert "step:NAME" in refused.value.hint
    assert len(app.runs()) == 1
    for selector in ("param:used", "var:u*", "package:json", "step:#3"):
        lines = app.rerun(origin.id, changed=[selector], plan=True).lines()
        assert any("executes" in line for line in lines), lines


def test_files_that_changed_execute_their_readers_and_writers(make, app, tmp_path):
    (tmp_path / "in.txt").write_text("one")
    path = make(
        "# step: load --reads in.txt\nwith open('in.txt') as f:\n    text = f.read()",
        "# step: other\nn = 1",
        "# step: save --writes out/*.txt\nimport os\nos.makedirs('out', exist_ok=True)\n"
        "with open('out/x.txt', 'w') as f:\n    f.write(str(n))",
        "# step: check --reads out/*.txt\nwith open('out/x.txt') as f:\n    found = f.read()",
        "size = len(text)",
    )
    origin = app.run(path)
    assert {str(s.fate) for s in app.rerun(origin.id, plan=True).steps} == {"kept"}

    (tmp_path / "in.txt").write_text("two")
    run = app.rerun(origin.id)
    assert [s.label for s in run.steps if s.status == "success"] == ["load", "#5"]
    assert run["load"].variables["text"].load() == "two"

    (tmp_path / "out" / "x.txt").unlink()
    plan = app.rerun(run.id, plan=True)
    assert plan.steps[2].reason == "wrote file out/x.txt, which is gone"
    mended = app.rerun(run.id)
    assert [s.label for s in mended.steps if s.status == "success"] == ["save"]
    assert (tmp_path / "out" / "x.txt").read_text() == "1"
    plan = app.rerun(mended.id, changed=["file:in.txt"], plan=True)
    assert [s.label for s in plan.steps if s.fate == "executes"] == ["load"]


def test_a_local_module_that_changed_executes_what_uses_it(make, app, tmp_path):
    module = tmp_path / "mine.py"
    module.write_text("class M:\n    def f(self):\n        return 1\ndef g():\n    return 1\n")
    path = make("from mine import M, g", "m = M()", "n = 5", "a = m.f()", "b = g()", "c = n")
    origin = app.run(path)
    module.write_text("class M:\n    def f(self):\n        return 20\ndef g():\n    return 2\n")

    run = app.rerun(origin.id)

    assert [str(s.status) for s in run.steps] == [
        "success", "success", "kept", "success", "success", "kept",
    ]  # fmt: skip
    assert run["#6"].load(["a", "b"]) == {"a": 20, "b": 2}


def test_a_package_that_changed_executes_what_reads_its_values(make, app, monkeypatch):
    path = make(
        "import pandas as pd\ndf = pd.DataFrame({'x': [1, 2]})", "n = 1",
        "s = int(df.x.sum())", "t = s + n",
    )  # fmt: skip
    origin = app.run(path)
    monkeypatch.setattr(
        "cellrail.rerunning.versions_of", lambda was, *_: ("", {**was, "pandas": "99.1"})
    )

    plan = app.rerun(origin.id, plan=True)
    run = app.rerun(origin.id)

    assert "package pandas" in plan.steps[0].reason
    assert "-> 99.1" in plan.steps[0].reason
    assert [str(s.status) for s in run.steps] == ["success", "kept", "success", "kept"]


def test_what_cannot_be_stored_is_made_again_only_where_it_is_needed(make, app, edit):
    path = make(
        "import sqlite3", "# step: connect --always\ndb = sqlite3.connect(':memory:')\nm = 1",
        "_ = db.execute('create table t (n)')\n_ = db.execute('insert into t values (3)')",
        "import threading\nlock = threading.Lock()", "k = 1", "r = k + 1",
        "n = db.execute('select n from t').fetchone()[0] + k",
    )  # fmt: skip
    origin = app.run(path)
    assert origin.status == "success", origin.cause
    edit(path, "r = k + 1", "r = k + 2")
    spared = app.rerun(origin.id)
    assert [s.label for s in spared.steps if s.status == "success"] == ["connect", "#6"]

    edit(path, "k = 1", "k = 2")
    run = app.rerun(origin.id)
    assert run.status == "success", run.cause
    assert [s.number for s in run.steps if s.status == "success"] == [2, 3, 5, 6, 7]
    assert run["#7"].variables["n"].load() == 5


def test_large_values_of_kept_steps_wait_until_a_cell_can_reach_them(make, app, edit, monkeypatch):
    monkeypatch.setenv("CELLRAIL_LAZY_ABOVE", "1000")
    path = make(
        "import numpy as np\nbig = np.arange(20000)\nother = np.ones(20000)", "k = 1", "a = k",
        "s = int(big.sum()) + k", "print(float(other[0]), s)",
    )  # fmt: skip
    origin = app.run(path)
    edit(path, "k = 1", "k = 2")

    run = app.rerun(origin.id)

    assert [s.number for s in run.steps if s.status == "success"] == [2, 3, 4, 5]
    assert app.diff(run.id, app.run(path).id).equal


def test_the_command_line_reruns_and_tells_the_plan(make, app, edit, cellrail, tmp_path):
    path = make("a = 1", "b = 2", "print(a + b)")
    origin = app.run(path)
    edit(path, "b = 2", "b = 3")

    plan = cellrail("rerun", origin.id, "--plan")
    told = json.loads(cellrail("rerun", origin.id, "--plan", "--json").stdout)
    done = cellrail("rerun", "flow.ipynb", "out.ipynb")
    wrong = cellrail("rerun", origin.id, "--changed", "var:bb")

    assert "#2  executes: source changed" in plan.stdout
    assert "#3  may execute: if `b` of step #2 comes out different" in plan.stdout
    assert [s["fate"] for s in told["plan"]["steps"]] == ["kept", "executes", "may execute"]
    assert (done.returncode, wrong.returncode) == (0, 2)
    assert "2 executed, 1 kept" in done.stdout
    assert "did you mean var:b?" in wrong.stderr
    out = json.loads((tmp_path / "out.ipynb").read_text("utf-8"))
    assert out["cells"][-1]["outputs"][0]["text"] in ("4\n", ["4\n"])
    shown = json.loads(cellrail("show", "last", "--json").stdout)
    assert shown["steps"][1]["why"] == "source changed"


def test_a_run_that_is_running_cannot_be_rerun(make, app, monkeypatch):
    origin = app.run(make("a = 1"))
    monkeypatch.setattr("cellrail_state.history.RunHistory.owned", True, raising=False)
    history = app.history(origin.id)
    history.owned = True
    monkeypatch.setattr(type(app), "history", lambda *_, **__: history)

    with pytest.raises(RunIsOwned):
        app.rerun(origin.id)


def test_a_step_with_an_effect_is_not_executed_for_what_cannot_be_stored(make, app, edit):
    path = make(
        "from cellrail import set_flow_user_state\nimport sqlite3",
        "# step: connect\ndb = sqlite3.connect(':memory:')\nset_flow_user_state('n', 1)",
        "k = 1", "r = db.execute('select 3').fetchone()[0] + k",
    )  # fmt: skip
    origin = app.run(path)
    assert origin.status == "success", origin.cause
    edit(path, "k = 1", "k = 2")

    plan = app.rerun(origin.id, plan=True)
    with pytest.raises(RestartRefused, match="recorded an effect"):
        app.rerun(origin.id)
    run = app.rerun(origin.id, changed=["step:connect", "step:#3"])

    assert "--changed step:connect" in plan.refusals[0]
    assert run["#4"].variables["r"].load() == 5


def test_a_step_that_counts_on_what_a_step_before_it_has_set_anew_counts_again(make, app, edit):
    """The values are equal; but what the second one had set is no longer there."""
    add = "n = get_resource('n', 0)\nset_resource(n + 1, 'n')"
    path = make(
        "from cellrail import get_resource, set_resource", f"{add}; x = 1",
        f"%%step second\n{add}", "%%step blind\nset_resource(get_resource('n'), 'copy')",
        "%%step end\nprint(get_resource('n'), get_resource('copy'))",
    )  # fmt: skip
    origin = app.run(path)
    assert printed(origin, "end") == "2 2\n", origin.cause
    edit(path, "x = 1", "x = 2")

    again = app.rerun(origin.id)

    assert again.status == "success", again.cause
    assert app.resource_get("n") == 2
    assert printed(again, "end") == "2 2\n"
    assert statuses(again) == {
        "#1": "kept", "#2": "success", "second": "success", "blind": "kept", "end": "kept"
    }  # fmt: skip


def test_flow_user_state_and_shared_files_of_kept_steps_are_there(make, app, edit):
    path = make(
        "from cellrail import flow, get_flow_user_state, set_flow_user_state",
        "set_flow_user_state('n', 1)\n(flow.shared / 'x.txt').write_text('x')",
        "k = 1", "set_flow_user_state('m', k)", "a = get_flow_user_state('n') + k",
        "b = (flow.shared / 'x.txt').read_text() * k", "c = get_flow_user_state('m')",
    )  # fmt: skip
    origin = app.run(path)
    assert origin.status == "success", origin.cause
    edit(path, "k = 1", "k = 2")

    run = app.rerun(origin.id)

    assert run.status == "success", run.cause
    assert run["#7"].load(["a", "b", "c"]) == {"a": 3, "b": "xx", "c": 2}
    assert [str(s.status) for s in run.steps][:2] == ["kept", "kept"]


def test_a_rerun_that_was_killed_is_recovered(make, app, edit, cellrail, tmp_path):
    path = make(
        "a = [1]", "b = 2", "def f(x):\n    return x + 1",
        "import os, signal\nif os.path.exists('kill'):\n    os.remove('kill')\n"
        "    os.kill(os.getppid(), signal.SIGKILL)\n    import time; time.sleep(60)\nc = f(b)",
        "a.append(c)", "print(a)",
    )  # fmt: skip
    origin = app.run(path)
    edit(path, "b = 2", "b = 3")
    (tmp_path / "kill").write_text("")

    killed = cellrail("rerun", origin.id)
    run_id = app.show("last").id
    recovered = app.recover(run_id)
    whole = app.run(path)

    assert killed.returncode == -9
    assert run_id != origin.id
    (run,) = recovered if isinstance(recovered, list | tuple) else [recovered]
    assert (run.id, str(run.status)) == (run_id, "success")
    assert [str(s.status) for s in run.steps] == [
        "kept", "success", "kept", "success", "success", "success",
    ]  # fmt: skip
    difference = app.diff(run_id, whole.id)
    assert difference.equal, [d for d in difference.steps if not d.equal]
