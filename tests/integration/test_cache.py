"""`--cache`: an equal job is kept instead of executed.

Laws: a job is kept only where its code, all that it can reach, its packages and Python are what
they were; the namespace after it, and its outputs, are those of the execution; what had effects,
failed, or cannot be loaded is executed; so is a step at a restart's cut.
"""

from __future__ import annotations

import pytest

from cellrail import App
from reading import printed

COUNT = "\nwith open('w.txt', 'a') as _f: _f.write('x')\ndel _f"


@pytest.fixture
def times(tmp_path):
    """How often the cell ran since one last asked."""

    def count() -> int:
        path = tmp_path / "w.txt"
        text = path.read_text() if path.exists() else ""
        path.write_text("")
        return len(text)

    return count


SOURCES = (
    "import numpy as np\nbase = np.arange(4.0)\nother = 1",
    "def scale(values): return values * factor\nfactor = 2",
    "%%step slow --cache 1d\nmade = scale(base)\nalso = [made]\nprint('made')" + COUNT,
    "print(made.sum(), also[0] is made, other)\nmade += 1",
)


def test_an_equal_job_is_kept_with_its_outputs_and_values(make, app, times, tmp_path):
    run = app.run(make(*SOURCES))
    assert (run.status, times()) == ("success", 1)

    again = app.run(make(*SOURCES), tmp_path / "out.ipynb")

    assert (again.status, times()) == ("success", 0), again.cause
    assert (again["slow"].status, str(again["slow"]._state.kept)) == ("kept", "cache")
    assert printed(again, "slow") == "made\n"
    assert printed(again, "#4") == "12.0 True 1\n"
    difference = app.diff(run.id, again.id)
    assert difference.equal, [step for step in difference.steps if not step.equal]
    third = app.restart(again.id, from_step="#4")
    assert app.diff(run.id, third.id).equal
    assert times() == 0


@pytest.mark.parametrize(
    ("old", "new", "executed"),
    [
        ("other = 1", "other = 2", 0),
        ("np.arange(4.0)", "np.arange(5.0)", 1),
        ("factor = 2", "factor = 3", 1),
        ("values * factor", "values * factor * 1", 1),
        ("print('made')", "print('Made')", 1),
        ("made += 1", "made += 2", 0),
    ],
)
def test_what_the_code_can_reach_decides(old, new, executed, make, app, times, edit):
    path = make(*SOURCES)
    app.run(path)
    times()
    edit(path, old, new)

    run = app.run(path)

    assert run.status == "success", run.cause
    assert times() == executed
    assert run["slow"].status == ("success" if executed else "kept")


def test_what_a_function_holds_decides_though_its_code_is_the_same(make, app, times, edit):
    path = make(
        "k = 1",
        "def make_it(n):\n    def held(): return n\n    return held\nheld = make_it(k)",
        "%%step slow --cache 1d\nmade = held()" + COUNT,
        "print(made)",
    )
    app.run(path)
    times()
    edit(path, "k = 1", "k = 2")

    run = app.run(path)
    assert (times(), printed(run, "#4")) == (1, "2\n")
    assert app.run(path)["slow"].status == "kept"


def test_it_expires(make, tmp_path, times):
    now = [1_000_000.0]
    app = App(tmp_path / ".cellrail", clock=lambda: now[0])
    path = make("%%step slow --cache 1h\nx = 1" + COUNT)

    for later, executed in ((0, 1), (3000, 0), (3000, 1), (3000, 0)):
        now[0] += later
        assert app.run(path).status == "success"
        assert times() == executed


def test_a_step_at_the_cut_is_executed(make, app, times):
    run = app.run(make(*SOURCES))
    times()

    plan = app.restart(run.id, from_step="slow", plan=True)
    again = app.restart(run.id, from_step="slow")
    assert (times(), again["slow"].status) == (1, "success")
    assert {step.label: step.reason for step in plan.steps}["slow"] == "at the cut"
    before = app.restart(run.id, from_step="#2", plan=True)
    assert "unless an equal job of the last 1d is kept" in "\n".join(before.lines())
    behind = app.restart(run.id, from_step="#2")
    assert (times(), behind["slow"].status) == (0, "kept")


def test_an_inner_loop_at_the_cut_is_executed(make, app, times):
    sources = (
        "%%step L --foreach k in 'pq'\npass",
        f"%%step M --in L --foreach y in [1, 2] --cache 1d\nv = f'{{k}}{{y}}'{COUNT}",
    )
    run = app.run(make(*sources))
    assert times() == 4

    executed = [
        app.restart(run.id, from_step=cut) and times()
        for cut in ("L[q]/M", "L[q]/M[1]", "L[q]/M[2]", "L[q]")
    ]

    assert executed == [2, 2, 1, 0]


@pytest.mark.parametrize(
    "body",
    [
        "import random\nx = random.random()",
        "import os\nos.environ['WAS'] = 'here'\nx = 1",
        "def x(): pass",
        "x = list(globals())",
        "from cellrail import flow, set_flow_user_state\nset_flow_user_state('k', 1)\nx = 1",
        "x = (n for n in range(3))",
    ],
)
def test_what_cannot_be_done_again_by_loading_is_executed(body, make, app, times):
    path = make("%%step slow --cache 1d\n" + body + COUNT, "print(x)")

    for _ in range(2):
        assert app.run(path).status == "success"
        assert times() == 1


def test_a_failure_is_not_kept(make, app, times):
    path = make("%%step slow --cache 1d --on-error continue" + COUNT + "\n1 / 0", "x = 1")

    for _ in range(2):
        assert app.run(path).status == "success"
        assert times() == 1


def test_names_that_are_not_stored_and_needed_later_are_made_again(make, app, times):
    line = "%%step slow --cache 1d --outputs a\na, b = 1, 2" + COUNT
    needs, without = make(line, "print(b)"), make(line, "print(a)", name="other.ipynb")

    for path, counts in ((needs, (1, 1)), (without, (0, 0))):
        for executed in counts:
            run = app.run(path)
            assert (run.status, times()) == ("success", executed), run.cause


def test_a_name_that_is_written_and_was_there_is_compared(make, app, times):
    first = make("x = 5", "%%step slow --cache 1d\nx = 5" + COUNT, "print(x)")
    second = make("x = 3", "%%step slow --cache 1d\nx = 5" + COUNT, "print(x)", name="b.ipynb")

    assert printed(app.run(first), "#3") == "5\n"
    assert printed(app.run(second), "#3") == "5\n"
    assert times() == 2
    assert printed(app.run(second), "#3") == "5\n"
    assert times() == 0


@pytest.mark.parametrize("more", ["", " --parallel 2"])
def test_items_of_loops_are_kept_one_by_one(more, make, app, times, edit):
    path = make(
        "items = [1, 2, 3]\nscale = 10",
        f"%%step s --foreach x in items --collect y --cache 1d{more}\ny = x * scale\nprint(y)"
        + COUNT,
        "print(y)",
    )
    run = app.run(path)
    assert (printed(run, "#3"), times()) == ("[10, 20, 30]\n", 3)
    edit(path, "[1, 2, 3]", "[1, 4, 3]")

    again = app.run(path)

    assert (printed(again, "#3"), times()) == ("[10, 40, 30]\n", 1), again.cause
    assert printed(again, "s") == "10\n40\n30\n"


def test_a_variable_of_an_earlier_loop_is_bound_by_the_next_one_and_not_unseen(make, app, times):
    path = make(
        "%%step one --foreach x in [1, 2, 3] --cache 1d --collect y\ny = x" + COUNT,
        "%%step two --foreach x in [1, 2, 3] --key x * 2 --cache 1d --collect z\nz = x + 1" + COUNT,
        "print(y, z)",
    )
    run = app.run(path)
    assert (printed(run, "#3"), times()) == ("[1, 2, 3] [2, 3, 4]\n", 6)
    assert not any(job.delta.missed for job in app.history(run.id).jobs)

    again = app.run(path)

    assert (printed(again, "#3"), times()) == ("[1, 2, 3] [2, 3, 4]\n", 0)


@pytest.mark.parametrize("more", ["", " --parallel 2"])
def test_a_kept_item_has_not_written_what_it_only_shares_memory_with(more, make, app, times):
    path = make(
        "import numpy as np\ntable = np.arange(6).reshape(2, 3)\nalso = table",
        f"%%step s --foreach x in [0, 1] --collect y --cache 1d{more}\n"
        "row = table[x]\ny = int(row.sum())" + COUNT,
        "print(y, also is table)",
    )
    runs = [app.run(path) for _ in range(2)]

    assert [(printed(run, "#3"), run.cause) for run in runs] == [("[3, 12] True\n", "")] * 2
    assert times() == 2


def test_files_that_a_step_reads_and_writes_are_looked_at(make, app, times, tmp_path):
    path = make(
        "%%step slow --cache 1d --reads in.txt --writes out.txt\n"
        "from pathlib import Path\nx = Path('in.txt').read_text()\n"
        "done = Path('out.txt').write_text(x)" + COUNT,
        "print(x)",
    )
    for text, keep, executed in (("a", True, 1), ("a", True, 0), ("b", True, 1), ("b", False, 1)):
        (tmp_path / "in.txt").write_text(text)
        if not keep:
            (tmp_path / "out.txt").unlink()
        run = app.run(path)
        assert (run.status, times(), printed(run, "#2")) == ("success", executed, f"{text}\n")
        assert (tmp_path / "out.txt").read_text() == text


def test_a_rerun_keeps_equal_jobs_but_not_of_a_step_that_was_named(make, app, times, edit):
    path = make("k = 1", "%%step slow --cache 1d\nx = k" + COUNT, "print(x)")
    first = app.run(path)
    edit(path, "k = 1", "k = 2")
    second = app.run(path)
    assert times() == 2

    again = app.rerun(first.id)
    assert (again["slow"].status, times(), printed(again, "#3")) == ("kept", 0, "2\n")
    named = app.rerun(second.id, changed=["step:slow"])

    assert (named["slow"].status, times(), printed(named, "#3")) == ("success", 1, "2\n")


@pytest.mark.parametrize("read", ["os.environ['REGION']", "region()", "dict(os.environ)['REGION']"])
def test_an_environment_variable_that_the_code_reads_is_part_of_the_job(
    make, app, times, monkeypatch, read
):
    path = make(
        "import os\ndef region(): return os.environ.get('REGION')",
        f"%%step slow --cache 1d\nmade = {read}" + COUNT,
        "print(made)",
    )
    monkeypatch.setenv("REGION", "north")
    app.run(path)
    assert times() == 1
    assert app.run(path)["slow"].status == "kept"
    monkeypatch.setenv("REGION", "south")
    again = app.run(path)

    assert (printed(again, "#3"), times()) == ("south\n", 1)
    monkeypatch.setenv("OTHER", "1")
    monkeypatch.setenv("REGION", "north")
    kept = "kept" if "dict" not in read else "success"
    assert app.run(path)["slow"].status == kept


# --- what a step has of its run ------------------------------------------------------------------

ASKED = "; no later job can be kept instead: it asked the run for "


@pytest.mark.parametrize(
    ("read", "told"),
    [
        ("flow.resume_data", "flow.resume_data"),
        ("flow.woke_by", "flow.woke_by"),
        ("flow.callback_request", "flow.callback_request"),
        ("flow.context", "flow.context"),
        ("flow.recovering", "flow.recovering"),
        ("flow.forced", "flow.forced"),
        ("flow.runs", "flow.runs"),
        ("flow.tick", "flow.tick"),
        ("flow.error", "flow.error"),
        ("len(flow.previous)", "flow.previous"),
        ("flow.step('first').resume_data", "flow.step()"),
        ("helper()", "flow.resume_data"),
        ("get_flow_user_state('k')", "get_flow_user_state()"),
        ("get_variable('v', None)", "get_variable()"),
        ("get_resource('r', None)", "get_resource()"),
        ("get_state()", "get_state()"),
        ("get_state_path()", "get_state_path()"),
        ("sorted(flow.shared.iterdir())", "flow.shared"),
    ],
)
def test_what_a_step_asks_its_run_for_is_read_anew_in_each_run(read, told, make, app, times):
    path = make(
        "%%step first\nfrom cellrail import flow, get_flow_user_state, get_resource, get_state\n"
        "from cellrail import get_state_path, get_variable\ndef helper(): return flow.resume_data",
        f"%%step slow --cache 1d\nx = {read}" + COUNT,
        "print(x)",
    )
    for _ in range(2):
        run = app.run(path)
        assert (run.status, times()) == ("success", 1), run.cause
        assert run["slow"].uncached.endswith(ASKED + told), run["slow"].uncached


@pytest.mark.parametrize("more", ["", " --parallel 2"])
def test_an_item_that_asks_its_run_for_something_is_executed(more, make, app, times):
    path = make(
        f"%%step s --foreach x in [1, 2] --collect y --cache 1d{more}\n"
        "from cellrail import get_variable\ny = get_variable('v') if x == 2 else ''" + COUNT,
        "print(y)",
    )
    for value, executed in (("a", 2), ("b", 1)):
        app.variable_set("v", value)
        run = app.run(path)
        assert (printed(run, "#2"), times()) == (f"['', '{value}']\n", executed), run.cause


def test_a_step_that_reaches_the_shared_folder_by_a_variable_is_executed(make, app, times):
    path = make(
        "from cellrail import flow\nimport time\nplace = flow.shared\nother = 1\n"
        "_ = (place / 'x').write_text(str(time.time_ns()))",
        "%%step slow --cache 1d\ntext = (place / 'x').read_text()" + COUNT,
        "%%step quick --cache 1d\ny = other" + COUNT,
        "print(text == (place / 'x').read_text())",
    )
    for executed in (2, 1):
        run = app.run(path)
        assert (printed(run, "#4"), times()) == ("True\n", executed), run["quick"].uncached
        assert run["slow"].uncached == "it can reach a path into the run's shared folder"
    assert (run["quick"].status, run["quick"].uncached) == ("kept", "")


# --- last values, and why a job was executed ----------------------------------------------------


def test_a_cell_that_shows_its_last_value_is_kept_beside_a_parameters_cell(make, app, times):
    path = make("n = 3", "%%step train --cache 7d\nmodel = 5" + COUNT + "\nmodel", "print(model)",
                tags={1: ["parameters"]})  # fmt: skip
    for executed, number in ((1, 3), (0, 3), (0, 4)):
        run = app.run(path, parameters={"n": number})
        assert (times(), run["train"].uncached == "") == (executed, not executed)
        assert run["train"].outputs[0]["data"]["text/plain"] == "5"


def test_a_parameters_cell_whose_function_uses_last_values_counts(make, app, times):
    source = "n = 3\ndef last(): return globals().get('_')"
    path = make(source, "%%step train --cache 7d\nmodel = 5" + COUNT + "\nmodel", "print(last())",
                tags={1: ["parameters"]})  # fmt: skip
    for _ in range(2):
        run = app.run(path)
        assert (times(), printed(run, "#3")) == (1, "5\n")
    why = "it ends with a value, which only an execution puts into Out, and a step uses Out"
    assert why in run["train"].uncached


def test_show_says_why_a_step_was_executed_and_not_kept(make, app, cellrail):
    path = make("n = 1", "%%step a --cache 7d\na = n", "%%step f --cache 7d\ndef f(): pass",
                "%%step g --cache 7d\nx = list(globals())", "%%step u\nu = 1")  # fmt: skip
    app.run(path)
    unknown = "no job with the same code and the same inputs is known"
    never = "; no later job can be kept instead: "
    run = app.run(path)
    assert run["a"].uncached == ""
    assert run["f"].uncached == f"{unknown}{never}it defines f"
    assert run["g"].uncached == "it may use any name"
    assert run["u"].uncached == ""
    again = app.restart(run.id, from_step="a")
    assert again["a"].uncached == "it was to be executed: it was named, or stands at the cut"
    shown = cellrail("show", again.id, "a").stdout
    assert "not kept (--cache): it was to be executed" in shown


def test_an_expired_job_is_said_to_be_too_old(make, app, clock):
    path = make("%%step a --cache 90s\na = 1")
    app.run(path)
    clock.ahead = 100
    assert app.run(path)["a"].uncached == "the equal job is older than 90s"
