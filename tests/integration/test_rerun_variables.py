"""Laws of a rerun, of what steps and the conditions on their lines read beyond the notebook:

* a step executes that read a variable which was set to another value since, and no other does;
* what a changed step sets reaches those that read it;
* that holds of what a condition reads, also where nothing was executed for it, and after reruns and
  restarts that kept what it came to.
"""

from __future__ import annotations

import json
import time

import pytest

from cellrail_state.prune import prune
from reading import printed, statuses

READS = (
    "from cellrail import get_variable, set_variable",
    "%%step own\nset_variable('n', str(int(get_variable('n', '0')) + 1))",
    "%%step reads\nv = get_variable('v', None)",
    "%%step apart\nw = 1",
    "%%step says\nprint(v)",
)


def _fates(run):
    return list(statuses(run).values())


@pytest.mark.parametrize("secret", [False, True])
@pytest.mark.parametrize("big", [1, 50_000])
def test_a_step_that_read_a_variable_executes_where_it_is_another_now(secret, big, make, app):
    app.variable_set("v", "old value" * big, secret=secret)
    origin = app.run(make(*READS))

    assert _fates(app.rerun(origin.id)) == ["kept"] * 5
    app.variable_set("v", "new value" * big)
    app.variable_set("v", "old value" * big)
    assert _fates(app.rerun(origin.id)) == ["kept"] * 5
    app.variable_set("v", "new value" * big)
    plan = app.rerun(origin.id, plan=True)
    again = app.rerun(origin.id)

    assert _fates(again) == ["kept", "kept", "success", "kept", "success"]
    told = "reads the variable v, which is another"
    assert (again["reads"].why, plan.steps[2].reason) == (told, told)
    assert _fates(app.rerun(again.id)) == ["kept"] * 5


def test_a_variable_that_was_made_or_deleted_since_is_another(make, app):
    origin = app.run(make(*READS))
    app.variable_set("v", "made")
    again = app.rerun(origin.id)
    assert (_fates(again)[2], printed(again, "says")) == ("success", "made\n")
    app.variable_delete("v")
    third = app.rerun(again.id)
    assert (_fates(third)[2], printed(third, "says")) == ("success", "None\n")


def test_a_variable_that_a_changed_step_sets_reaches_the_steps_that_read_it(make, app, edit):
    path = make(
        "from cellrail import get_variable, set_variable",
        "%%step sets\nset_variable('v', 'one')",
        "%%step reads\nv = get_variable('v')",
    )
    origin = app.run(path)
    edit(path, "'one'", "'two'")

    again = app.rerun(origin.id)

    assert _fates(again) == ["kept", "success", "success"]
    edit(path, "'two'", "'two' * 1")
    assert _fates(app.rerun(again.id)) == ["kept", "success", "kept"]


def test_with_named_changes_another_variable_is_a_warning(make, app):
    app.variable_set("v", "old")
    origin = app.run(make(*READS))
    app.variable_set("v", "new")

    plan = app.rerun(origin.id, changed=["step:apart"], plan=True)

    assert [step.number for step in plan.steps if step.fate == "executes"] == [4]
    told = "step reads: reads the variable v, which is another (not among --changed: as it was)"
    assert plan.warnings == (told,)
    assert _fates(app.rerun(origin.id, changed=["step:apart"]))[2] == "kept"


# --- what conditions read ------------------------------------------------------------------------

ASKS = "from cellrail import *\ndef v():\n    return get_variable('v')"
CONDITIONS = {
    "when": "--when get_variable('v') == 'old'",
    "when that was false": "--when get_variable('v') == 'new'",
    "a function": "--when v() == 'old'",
    "branch": "--branch b --when v() == 'old'",
    "foreach": "--foreach y in v() --collect x",
    "foreach without an item": "--foreach y in (v() == 'new') * 'ab' --collect x",
    "parallel": "--foreach y in v() --parallel 2 --collect x",
    "key": "--foreach y in [1, 2] --key v()[y] --collect x",
    "while": "--while len(v()) > get_runs()",
    "stop-if": "--stop-if v() == 'new'",
    "retry-if": "--retry 1 --retry-if v() == 'old'",
}


FAILS_ONCE = "import os\nif not os.path.exists('tried'):\n    open('tried', 'w').close()\n    1 / 0"


def _asking(line, body="x = x, 'ran'"):
    again = "runs = []\ndef get_runs():\n    return len(runs) + 2"
    body = body if "--while" not in line else f"{body}\nruns.append(1)"
    body = body if "--retry" not in line else f"{body}\n{FAILS_ONCE}"
    cells = (f"%%step defines\n{ASKS}\n{again}\nx = None", f"%%step q {line}\n{body}")
    return (*cells, "%%step other\nz = 1", "%%step says\nprint(x)")


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_step_whose_condition_read_a_variable_executes_where_it_is_another_now(
    condition, make, app
):
    app.variable_set("v", "old")
    origin = app.run(make(*_asking(CONDITIONS[condition])))
    assert "success" not in _fates(app.rerun(origin.id))

    app.variable_set("v", "new")
    plan = app.rerun(origin.id, plan=True)
    # what it came to is kept, with what it had read, as often as there is a rerun
    again = app.rerun(app.rerun(origin.id, changed=["step:other"]).id)

    told = "reads the variable v, which is another"
    assert (plan.steps[1].fate, plan.steps[1].reason) == ("executes", told)
    assert again["q"].why == told
    whole = app.run(make(*_asking(CONDITIONS[condition])))
    assert statuses(again).keys() == statuses(whole).keys()
    assert (again["q"].status, again.status) == (whole["q"].status, whole.status)
    assert app.diff(again.id, whole.id).equal
    assert "success" not in _fates(app.rerun(again.id))


@pytest.mark.parametrize("condition", ["get_resource('r')", "get_flow_user_state('r')", "r()"])
def test_what_a_changed_step_sets_reaches_the_conditions_that_read_it(condition, make, app, edit):
    sets = "set_resource('1', 'r')" if "resource" in condition else "set_flow_user_state('r', '1')"
    path = make(
        "from cellrail import *\ndef r():\n    return get_flow_user_state('r')",
        f"%%step sets\n{sets}",
        "%%step apart\nset_resource('1', 's')",
        f"%%step asks --when {condition} == '1'\nx = 1",
        "%%step reads --when get_resource('s')\ny = 1",
    )
    origin = app.run(path)
    edit(path, sets, sets.replace("1", "2"))

    again = app.rerun(origin.id)

    assert _fates(again) == ["kept", "success", "kept", "skipped", "kept"]
    assert again["asks"].why.startswith("reads the")


def test_a_restart_keeps_what_conditions_have_read(make, app):
    app.variable_set("v", "old")
    path = make(
        *_asking("--while len(v()) > get_runs()")[:-1],
        "%%step lp --foreach i in [1, 2, 3] --collect a",
        "%%step in --in lp --when v() == 'old'\na = i",
    )
    first = app.run(path)
    assert first.status == "success"
    second = app.restart(first.id, from_step="lp[3]")
    app.variable_set("v", "new")

    again = app.rerun(second.id)

    assert _fates(again)[:4] == ["kept", "success", "kept", "success"]
    told = "reads the variable v, which is another"
    assert [again[name].why for name in ("q", "lp")] == [told, told]


def test_a_condition_that_read_a_secret_shows_it_nowhere(make, app, everything, disguises):
    app.variable_set("v", "hunter2-hunter2", secret=True)
    origin = app.run(make(*_asking("--when len(v()) == 15")))
    app.variable_set("v", "hunter3-hunter3", secret=True)
    again = app.rerun(origin.id)

    assert again["q"].why == "reads the variable v, which is another"
    for word in disguises("hunter2-hunter2") + disguises("hunter3-hunter3"):
        assert not [place for place, data in everything(app) if word in data]


def test_a_long_value_that_only_a_condition_read_stays_as_long_as_its_run(make, app):
    app.variable_set("v", "old" * 50_000)
    origin = app.run(make(*_asking("--when v()")))
    app.variable_delete("v")
    prune(app.store, keep_last=1, now=time.time() + 10 * 86_400)

    assert not app.doctor().findings
    told = "reads the variable v, which is another"
    assert app.rerun(origin.id, plan=True).steps[1].reason == told


def test_an_open_notebook_tells_what_its_conditions_have_read(make, app, front):
    app.variable_set("v", "old")
    cells = ("%load_ext cellrail\n%flow config notebook=flow.ipynb", *_asking(CONDITIONS["when"]))
    path = make(*cells)
    for cell in json.loads(path.read_text())["cells"]:
        assert front.execute(cell["source"], cell["id"], cell["metadata"]).status == "ok"
    assert app.rerun("last", plan=True).steps[2].fate == "kept"
    app.variable_set("v", "new")

    plan = app.rerun("last", plan=True)

    assert plan.steps[2].reason == "reads the variable v, which is another"
    assert [step.fate for step in plan.steps][3:] == ["kept", "may execute"]
