"""Laws of a restart:

* it is a new run; kept steps point to the origin's very jobs; the origin is not touched;
* at every cut, what follows equals the uninterrupted run: outputs, variables, sharing, generators;
* nothing before the cut executes but `--always` and rebuilding cells;
* what is stale is refused, widened or forced; the plan says why.
"""

from __future__ import annotations

import os
import sys

import pytest

from cellrail.errors import RestartRefused, StepNotFound, UnknownParameter
from cellrail_state.errors import ObjectMissing, Untrusted

#: a notebook that leans on its namespace in many ways
VARIED = (
    "import random, os, sys, math\nimport numpy as np\nrandom.seed(1)\nnp.random.seed(2)\n"
    "rng = np.random.default_rng(3)",
    "shared = [1, 2]\nalso = shared\nboth = {'a': shared, 'b': (shared, 1)}\nshared",
    "class Point:\n    made = []\n    def __init__(self, x):\n        self.x = x\n"
    "        Point.made.append(self)\n    def __repr__(self):\n        return f'P({self.x})'\n"
    "class Child(Point):\n    pass\np = Child(1)",
    "def counter():\n    n = 0\n    def up():\n        nonlocal n\n        n += 1\n"
    "        return n + offset\n    return up\noffset = 10\nup = counter()\nup()",
    "print(random.random(), np.random.rand(), rng.integers(100), up())\nalso.append(3)\n"
    "os.environ['MODE'] = 'test'\nos.makedirs('sub', exist_ok=True)\nos.chdir('sub')",
    "view = np.arange(6)\nslice_ = view[::2]\nslice_[0] = 99\nq = Child(2)\n_",
    "offset = 100\nprint(up(), both['b'][0] is shared, isinstance(p, Point), len(Point.made))\n"
    "print(random.random(), np.random.rand(), rng.integers(100))\nview[4] = 7\nshared.append(4)",
    "print(slice_.tolist(), also, os.environ['MODE'], os.path.basename(os.getcwd()))\n"
    "print([type(x) is Child for x in Point.made], Point.made[0] is p, set('abcdef'), Out[2])",
)


@pytest.mark.parametrize("ids", [True, False], ids=["cell ids", "nbformat 4.4, no ids"])
def test_at_every_cut_a_restart_equals_the_uninterrupted_run(make, app, ids):
    path = make(*VARIED, ids=ids)
    whole = app.run(path)
    assert whole.status == "success", whole.cause

    for number in range(2, len(VARIED) + 1):
        again = app.restart(whole.id, from_step=f"#{number}")

        assert again.status == "success", (number, again.cause)
        assert [str(s.status) for s in again.steps[: number - 1]] == ["kept"] * (number - 1)
        assert [s.job_id for s in again.steps[: number - 1]] == [
            s.job_id for s in whole.steps[: number - 1]
        ]
        difference = app.diff(whole.id, again.id)
        assert difference.equal, (number, [d for d in difference.steps if not d.equal])


def test_a_restart_of_a_restart_points_to_the_first_jobs(make, app):
    path = make("a = [1]", "a.append(2)", "a.append(3)", "a.append(4)")
    first = app.run(path)
    second = app.restart(first.id, from_step="#3")
    third = app.restart(second.id, from_step="#4")
    fourth = app.restart(third.id, from_step="#2")

    assert [s.job_id for s in third.steps[:2]] == [s.job_id for s in first.steps[:2]]
    assert third.steps[2].job_id == second.steps[2].job_id
    assert third["#4"].variables["a"].load() == [1, 2, 3, 4]
    assert fourth["#4"].variables["a"].load() == [1, 2, 3, 4]
    assert fourth.origin == third.id


def test_the_failed_step_is_mended_and_the_earlier_ones_are_kept(make, app, edit, tmp_path):
    path = make("a = 20", "b = a / 0", "c = b + 1\nc")
    failed = app.run(path)
    edit(path, "/ 0", "/ 2")

    run = app.restart(str(path), tmp_path / "out.ipynb")

    assert run.origin == failed.id
    assert [str(s.status) for s in run.steps] == ["kept", "success", "success"]
    assert run.steps[0].job_id == failed.steps[0].job_id
    assert run["#3"].outputs[0]["data"]["text/plain"] == "11.0"
    assert app.show(failed.id).status == "failed"


def test_when_nothing_failed_the_cut_must_be_named(make, app):
    app.run(make("a = 1"))

    with pytest.raises(RestartRefused, match="nothing to repair"):
        app.restart("last")


def test_a_cut_past_a_failed_step_is_refused_with_the_earliest_legal_one(make, app):
    app.run(make("a = 1", "1 / 0", "b = 2"))

    with pytest.raises(RestartRefused, match=r"'#2' before the cut is failed") as refused:
        app.restart("last", from_step="#3")

    assert "'#2' would do" in refused.value.hint
    # it is never forced
    with pytest.raises(RestartRefused):
        app.restart("last", from_step="#3", force=True)


def test_edited_and_new_steps_are_refused_widened_or_forced(make, app, edit):
    path = make("a = 1", "b = a + 1", "c = b + 1")
    origin = app.run(path)
    edit(path, "b = a + 1", "b = a + 10")

    with pytest.raises(RestartRefused, match=r"'#2': source changed"):
        app.restart(origin.id, from_step="#3")
    plan = app.restart(origin.id, from_step="#3", plan=True)
    assert plan.earliest == "#2"

    forced = app.restart(origin.id, from_step="#3", force=True)
    assert forced["#3"].variables["c"].load() == 3
    widened = app.restart(origin.id, from_step="#3", widen=True)
    assert [str(s.status) for s in widened.steps] == ["kept", "success", "success"]
    assert widened["#3"].variables["c"].load() == 12


def test_cells_that_changed_places_are_never_kept_in_the_wrong_order(make, app):
    origin = app.run(make("x = 1", "x = x * 10", "x = x + 5", "x"))
    path = make("x = 1", "x = x + 5", "x = x * 10", "x", ids=False)

    with pytest.raises(RestartRefused, match="step '#3': moved"):
        app.restart(origin.id, from_step="#4")
    plan = app.restart(origin.id, from_step="#4", plan=True)
    assert plan.earliest == "#2"
    run = app.restart(origin.id, from_step="#4", widen=True)
    assert run["#4"].outputs[0]["data"]["text/plain"] == "60"
    assert path.is_file()


def test_a_blank_cell_before_the_cut_changes_nothing(make, app):
    origin = app.run(make("a = 1", "b = 2"))
    make("a = 1", "# a remark\n\n", "b = 2", ids=False)

    run = app.restart(origin.id, from_step="#3")

    assert [str(s.status) for s in run.steps] == ["kept", "skipped", "success"]


def test_a_forced_plan_says_which_steps_are_stale(make, app, edit):
    path = make("a = 1", "b = a + 1", "c = b")
    origin = app.run(path)
    edit(path, "a + 1", "a + 2")

    plan = app.restart(origin.id, from_step="#3", force=True, plan=True)

    assert plan.steps[1].reason == "as it was (--force), though source changed"


def test_after_an_exit_the_rest_can_be_run(make, app):
    origin = app.run(make("x = 1", "import sys\nx = 2\nsys.exit()", "print(x)"))
    assert [str(s.status) for s in origin.steps] == ["success", "success", "pending"]

    run = app.restart(origin.id)

    assert run["#3"].outputs[0]["text"] == "2\n"


def test_an_inserted_cell_is_a_new_step_and_a_deleted_one_is_named(make, app):
    origin = app.run(make("a = 1", "b = 2", "c = 3"))
    make("a = 1", "b = 2", "extra = 9", "c = 3", ids=False)

    with pytest.raises(RestartRefused, match=r"'#3': new step"):
        app.restart(origin.id, from_step="#4")
    run = app.restart(origin.id, from_step="#4", widen=True)
    assert [str(s.status) for s in run.steps] == ["kept", "kept", "success", "success"]

    make("a = 1", "c = 3", "d = 4", ids=False)
    with pytest.raises(RestartRefused, match=r"step '#2' is absent"):
        app.restart(origin.id, from_step="#3")
    # right behind the last cell that both have, the deleted one left no trace
    run = app.restart(origin.id, from_step="#2")
    assert "b" not in run["#3"].variables


def test_a_changed_local_module_makes_its_readers_stale(make, app, tmp_path):
    (tmp_path / "helper.py").write_text("def f():\n    return 1\n")
    path = make("import helper\nx = helper.f()", "y = x", "z = y")
    origin = app.run(path)
    (tmp_path / "helper.py").write_text("def f():\n    return 2  # mended\n")

    with pytest.raises(RestartRefused, match="local module helper changed"):
        app.restart(origin.id, from_step="#3")


def test_changed_parameters_refuse_only_steps_that_read_them(make, app):
    path = make(
        "day = '2013-01-01'\nlimit = 5",
        "def label():\n    return day",
        "base = 1",
        "title = label()",
        "big = limit > 3\nprint(title, big)",
        tags={1: ["parameters"]},
    )
    origin = app.run(path)

    run = app.restart(origin.id, from_step="#5", parameters={"limit": 1})
    assert run["#5"].outputs[0]["text"] == "2013-01-01 False\n"
    assert run["parameters"].job_id == origin["parameters"].job_id
    assert run["#5"].variables["limit"].load() == 1
    # and the next restart sees it, too
    assert app.restart(run.id, from_step="#5")["#5"].outputs[0]["text"] == "2013-01-01 False\n"

    with pytest.raises(RestartRefused, match="parameter `day` changed"):
        app.restart(origin.id, from_step="#5", parameters={"day": "x"})
    widened = app.restart(origin.id, from_step="#5", parameters={"day": "x"}, widen=True)
    assert widened["#5"].outputs[0]["text"] == "x True\n"
    with pytest.raises(UnknownParameter, match="did you mean 'limit'"):
        app.restart(origin.id, from_step="#5", parameters={"limits": 1})


def test_what_cannot_be_stored_is_rebuilt_by_its_cells_in_order(make, app, tmp_path):
    path = make(
        "import pathlib, sqlite3, threading\nlog = []\n"
        "def note(t):\n    with open('log.txt', 'a') as f:\n        f.write(t + '\\n')",
        "note('connect')\nlog.append('c')\ncon = sqlite3.connect(':memory:')\n"
        "lock = threading.Lock()",
        "note('fill')\ncon.execute('create table t (a)')\ncon.execute('insert into t values (1)')",
        "note('other')\nother = 5",
        "def gen():\n    yield from range(5)\ng = gen()\nnext(g)",
        "note('use')\nprint(con.execute('select * from t').fetchall(), next(g), log, other)",
    )
    origin = app.run(path)
    assert origin.status == "success", origin.cause
    variables = origin["#5"].variables
    assert {n: str(variables[n].verdict) for n in ("con", "lock", "g", "log")} == {
        "con": "rebuilt", "lock": "rebuilt", "g": "rebuilt", "log": "stored",
    }  # fmt: skip
    (tmp_path / "log.txt").unlink()

    plan = app.restart(origin.id, from_step="#6", plan=True)
    assert {s.label: s.fate.value for s in plan.steps} == {
        "#1": "kept", "#2": "rebuilds", "#3": "rebuilds", "#4": "kept", "#5": "rebuilds",
        "#6": "executes",
    }  # fmt: skip
    run = app.restart(origin.id, from_step="#6")

    assert run["#6"].outputs == origin["#6"].outputs
    assert (tmp_path / "log.txt").read_text().split() == ["connect", "fill", "use"]
    assert [str(s.status) for s in run.steps] == ["kept"] * 5 + ["success"]


def test_unneeded_connections_are_not_rebuilt(make, app):
    path = make("import threading\nlock = threading.Lock()", "x = 1", "x + 1")
    origin = app.run(path)

    plan = app.restart(origin.id, from_step="#3", plan=True)

    assert [s.fate.value for s in plan.steps] == ["kept", "kept", "executes"]


def test_always_steps_run_again_and_their_jobs_belong_to_the_new_run(make, app, tmp_path):
    path = make(
        "count = 1",
        "# step: connect --always\nimport pathlib\ncount += 1\n"
        "with open('seen', 'a') as f:\n    f.write('x')",
        "count += 10",
        "print(count)",
    )
    origin = app.run(path)

    run = app.restart(origin.id, from_step="#4")

    assert (tmp_path / "seen").read_text() == "xx"
    assert [str(s.status) for s in run.steps] == ["kept", "success", "kept", "success"]
    assert run["connect"].job_id != origin["connect"].job_id
    # a later kept step wrote the name: its value stands
    assert run["#4"].outputs[0]["text"] == "12\n"


def test_a_step_without_a_checkpoint_offers_the_earlier_cut(make, app):
    path = make("a = [1]", "%%step quick --no-checkpoint\na.append(2)", "a.append(3)", "a")
    origin = app.run(path)

    with pytest.raises(RestartRefused, match="no checkpoint after step 'quick'"):
        app.restart(origin.id, from_step="#3")
    assert app.restart(origin.id, from_step="#4")["#4"].outputs[0]["data"]["text/plain"] == (
        "[1, 2, 3]"
    )


def test_outputs_limits_what_is_stored_and_lost_names_refuse_a_cut(make, app):
    path = make("%%step big --outputs keep\nkeep = 1\ndrop = [2]", "x = keep", "y = drop")
    origin = app.run(path)

    assert str(origin["big"].variables["drop"].verdict) == "lost"
    assert app.restart(origin.id, from_step="#2", to="#2").status == "success"
    with pytest.raises(RestartRefused, match=r"`drop` is lost: not in --outputs"):
        app.restart(origin.id, from_step="#3")


def test_steps_that_do_not_exist_are_named_with_the_nearest(make, app):
    app.run(make("# step: load\na = 1", "1 / 0"))

    with pytest.raises(StepNotFound, match="did you mean 'load'"):
        app.restart("last", from_step="laod")


def test_a_store_that_somebody_else_signed_is_not_unpickled_until_trusted(
    make, app, tmp_path, monkeypatch
):
    from cellrail import App

    path = make("a = [1]", "a")
    run = app.run(path)
    monkeypatch.setenv("CELLRAIL_KEYS", str(tmp_path / "other-keys"))
    stranger = App(tmp_path / ".cellrail")

    assert stranger.show(run.id).status == "success"
    with pytest.raises(Untrusted):
        stranger.show(run.id)["#1"].variables["a"].load()
    with pytest.raises(Untrusted, match="signed by somebody else"):
        stranger.restart(run.id, from_step="#2")

    stranger.trust()
    assert stranger.restart(run.id, from_step="#2").status == "success"


def test_an_exported_key_makes_a_store_readable_elsewhere(make, app, tmp_path, monkeypatch):
    from cellrail import App

    run = app.run(make("a = [1]"))
    key = app.key_export()
    monkeypatch.setenv("CELLRAIL_KEYS", str(tmp_path / "other-keys"))
    elsewhere = App(tmp_path / ".cellrail")
    elsewhere.key_import(key)

    assert elsewhere.show(run.id)["#1"].variables["a"].load() == [1]


def test_a_missing_object_is_named_with_the_steps_that_still_restart(make, app, tmp_path):
    made = "import random\nbig = b'mark' * 250 + random.Random(a).randbytes(50_000)"
    path = make("a = 1", made, "c = 3", "len(big)")
    run = app.run(path)
    objects = [p for p in (tmp_path / ".cellrail" / "objects").rglob("*") if p.is_file()]
    for file in objects:
        if b"mark" * 250 in file.read_bytes():
            file.unlink()

    before = len(app.runs())

    with pytest.raises(ObjectMissing, match=r"it holds big") as error:
        app.restart(run.id, from_step="#4")
    assert "a restart from '#2' or an earlier step still works" in error.value.hint
    assert len(app.runs()) == before
    finding = next(f for f in app.doctor().findings if f.kind == "missing object")
    assert "a restart from '#2' or an earlier step still works" in finding.message
    assert app.restart(run.id, from_step="#2").status == "success"


def test_values_of_another_major_of_their_package_need_force(make, app, tmp_path, monkeypatch):
    library = tmp_path / "library"
    library.mkdir()
    package = library / "things.py"
    package.write_text("__version__ = '1.4'\nclass Thing:\n    pass\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(library), *sys.path]))
    path = make("import things\nt = things.Thing()", "x = 1", "type(t).__name__")
    origin = app.run(path)
    # of another size: where that and the second are equal, Python takes its compiled file
    package.write_text("__version__ = '2.0'\nclass Thing:\n    more = 1\n")

    runs = sorted(app.store.run_ids())
    with pytest.raises(RestartRefused, match=r"t: stored with things 1\.4, here is 2\.0") as error:
        app.restart(origin.id, from_step="#3")
    assert sorted(app.store.run_ids()) == runs
    plan = app.restart(origin.id, from_step="#3", plan=True)
    assert (plan.refusals, plan.hint) == ((str(error.value),), error.value.hint)
    assert app.restart(origin.id, from_step="#3", plan=True, force=True).refusals == ()
    assert app.restart(origin.id, from_step="#3", force=True).status == "success"


def test_a_change_that_no_code_shows_is_found_and_refuses_the_cuts_it_spoils(make, app):
    hidden = "operator.attrgetter('__glo' + 'bals__')(f)['ac' + 'c'].append(3)"
    # an audit of this takes so long that none is due again before the run's last cell
    much = "ballast = [(str(n), {n: None}) for n in range(100_000)]"
    first = f"import operator\nacc = []\ndef f(): pass\n{much}"
    path = make(first, hidden, "x = 1", "print(acc)", "y = 2")
    run = app.run(path)

    for cut in ("#3", "#4"):
        with pytest.raises(RestartRefused, match="`acc` changed unseen before step '#4' ended"):
            app.restart(run.id, from_step=cut)
    for cut in ("#2", "#5"):
        again = app.restart(run.id, from_step=cut)
        assert again["#4"].outputs == run["#4"].outputs


@pytest.mark.parametrize(
    "code", ["import cProfile\ncProfile.run('f()', 'o')", "import timeit\ntimeit.timeit('f()', "
             "setup='from __main__ import f', number=2)"],
)  # fmt: skip
def test_code_in_strings_counts(code, make, app):
    run = app.run(make("acc = []\ndef f(): acc.append(1)", code, "x = 1", "print(acc)"))

    again = app.restart(run.id, from_step="#3")

    assert app.diff(run.id, again.id).equal


@pytest.mark.parametrize("lazy_above", ["0", "1000000"])
def test_a_value_whose_loading_needs_another_is_loaded_after_it(lazy_above, make, app, monkeypatch):
    monkeypatch.setenv("CELLRAIL_LAZY_ABOVE", lazy_above)
    run = app.run(
        make(
            "class Model:\n    def __setstate__(self, d): self.n = len(table)\n"
            "    def __getstate__(self): return {'x': 1}\na_model = Model(); a_model.n = 1",
            "table = [1]",
            "x = 1",
            "print(a_model.n, x, table)",
        )
    )

    again = app.restart(run.id, from_step="#4")

    assert again.status == "success", again.cause
    assert app.diff(run.id, again.id).equal


def test_what_the_failed_cell_binds_itself_first_is_not_made_again(make, app, tmp_path):
    connect = "open('w.txt', 'a').write('x')\nc = sqlite3.connect(':memory:')"
    path = make(
        "import sqlite3, os",
        f"%%step one\n{connect}",
        "%%step two\nc = sqlite3.connect(':memory:')\n"
        "c.execute('select 1')\nassert os.path.exists('ok')",
        "%%step three\nprint(c.execute('select 2').fetchall())",
    )
    run = app.run(path)
    assert run.status == "failed"
    (tmp_path / "w.txt").write_text("")
    (tmp_path / "ok").touch()

    plan = app.restart(run.id, plan=True)
    assert {s.label: str(s.fate) for s in plan.steps}["one"] == "kept"
    again = app.restart(run.id)
    assert (again.status, (tmp_path / "w.txt").read_text()) == ("success", "")


@pytest.mark.parametrize(
    "cell",
    [
        "%%step two\nc.close()\nc = sqlite3.connect(':memory:')",
        "%%step two\nif a: c = sqlite3.connect(':memory:')",
        "%%step two --when a\nc = sqlite3.connect(':memory:')",
        "%%step two --on-error continue\nc = sqlite3.connect(':memory:')",
        "%%step two\nuse()\nc = sqlite3.connect(':memory:')",
    ],
)
def test_what_a_cell_may_use_before_it_binds_it_is_made_again(cell, make, app):
    first = "import sqlite3\na = 1\ndef use(): return c"
    run = app.run(make(first, "%%step one\nc = sqlite3.connect(':memory:')", cell, "c"))
    assert run.status == "success", run.cause
    plan = app.restart(run.id, from_step="two", plan=True)
    assert {s.label: str(s.fate) for s in plan.steps}["one"] == "rebuilds"
