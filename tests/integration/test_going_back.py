"""`%flow restart` in an open notebook: what is recorded goes on from where the namespace went back.

Law: whatever is restarted afterwards, here, in a new kernel or headless, begins on the namespace
that a notebook which was never restarted had at that cell.
"""

from __future__ import annotations

import pytest

from reading import printed

START = "%load_ext cellrail\n%flow config notebook=flow.ipynb"
CELLS = (
    START,
    "import random\nrandom.seed(1)\nx, acc = 0, []",
    "%%step mid\nx += 1",
    "%%step end\nacc.append(5)\nprint(x, acc, round(random.random(), 4))",
    "%%step tail\nprint(x, acc, round(random.random(), 4))",
)
END, TAIL = "1 [5] 0.1344\n", "1 [5] 0.8474\n"


class Notebook:
    """An open notebook, whose cells are executed by their places."""

    def __init__(self, front, cells):
        self.front, self.cells = front, cells

    def run(self, *places: int) -> str:
        said = ""
        for place in places:
            said = self.front.run(self.cells[place - 1], f"cell-{place}")
        return said

    def flow(self, line: str) -> str:
        return self.front.run(f"%flow {line}", "scratch")


@pytest.fixture
def opened(make, front):
    make(*CELLS)
    notebook = Notebook(front, CELLS)
    assert notebook.run(1, 2, 3, 4) == END
    assert notebook.run(5) == TAIL
    return notebook


def test_every_restart_after_a_restart_here_begins_on_the_right_namespace(opened, app):
    assert "right before 'mid'" in opened.flow("restart --from mid")
    assert opened.run(3, 4) == END
    assert "right before 'end'" in opened.flow("restart --from end")
    assert opened.run(4) == END
    for cut in ("mid", "end", "end"):
        opened.flow(f"restart --from {cut}")
        assert opened.run(*range(3 if cut == "mid" else 4, 5)) == END
    assert opened.run(5) == TAIL

    again = app.restart("last", from_step="mid")
    assert (printed(again, "end"), printed(again, "tail")) == (END, TAIL)
    again = app.restart(again.id, from_step="end")
    assert (printed(again, "end"), printed(again, "tail")) == (END, TAIL)


def test_a_cell_that_was_not_executed_since_is_gone_back_to_by_force_alone(opened, app):
    opened.flow("restart --from mid")
    opened.run(3)
    assert "'mid' was executed out of order" in opened.flow("restart --from tail")
    # its last execution was before that: it is that moment which comes back
    assert "right before 'tail'" in opened.flow("restart --from tail --force")
    assert opened.run(5) == TAIL
    again = app.restart("last", from_step="end", force=True)
    assert (printed(again, "end"), printed(again, "tail")) == (END, TAIL)


def test_what_was_undone_is_as_if_it_had_not_been(opened, app):
    opened.flow("restart --from mid")
    assert "as it was before" in opened.flow("undo")
    assert opened.front.run("print(x, acc)", "cell-6") == "1 [5]\n"
    assert "right before 'end'" in opened.flow("restart --from end")
    assert opened.run(4, 5) == TAIL


GATES = (
    START,
    "from cellrail import flow, get_flow_user_state, set_flow_user_state\n"
    "calls = []\nset_flow_user_state('n', 1)",
    "%%step ask\nflow.suspend('1h')",
    "%%step use\ncalls.append(flow.resume_data)\n"
    "set_flow_user_state('n', get_flow_user_state('n') + 1)\n"
    "print(calls, flow.once('k', lambda: len(calls)))",
    "%%step late\nprint(flow.step('ask').resume_data, calls, get_flow_user_state('n'),"
    " flow.once('k', int))",
    "%%step end\nprint(calls, get_flow_user_state('n'))",
)


def test_a_new_kernel_goes_on_from_the_run_of_the_one_before(make, front, another_front, app):
    make(*GATES)
    first = Notebook(front, GATES)
    first.run(1, 2, 3)
    first.flow("resume --data 2")
    assert first.run(4) == "[2] 1\n"
    assert first.run(5) == "2 [2] 2 1\n"
    old = app.show("last").id
    front.manager.shutdown_kernel(now=True)

    second = Notebook(another_front(), GATES)
    second.run(1)
    assert "right before 'late'" in second.flow(f"restart {old} --from late")
    assert second.run(5) == "2 [2] 2 1\n"
    assert second.run(6) == "[2] 2\n"
    assert "right before 'end'" in second.flow("restart --from end")
    assert second.run(6) == "[2] 2\n"
    assert "right before 'use'" in second.flow(f"restart {old} --from use")
    assert second.run(4) == "[2] 1\n"
    assert second.run(5) == "2 [2] 2 1\n"
    assert second.run(6) == "[2] 2\n"

    # the run that began so is an origin like any other
    new = app.show("last").id
    assert new != old
    assert "right before 'end'" in second.flow("restart --from end")
    assert second.run(6) == "[2] 2\n"
    for cut in ("late", "end", "use"):
        again = app.restart(new, from_step=cut)
        assert again.status == "success", again.cause
        assert printed(again, "late") == "2 [2] 2 1\n"
        assert printed(again, "end") == "[2] 2\n"


LOOPS = (
    START,
    "%%step loop --foreach i in range(4) --collect m\nm = i * 10",
    "%%step mid\nprint(m)",
)


def test_a_run_that_went_back_to_another_one_has_the_items_of_its_loops(
    make, front, another_front, app
):
    make(*LOOPS)
    Notebook(front, LOOPS).run(1, 2, 3)
    old = app.show("last").id
    front.manager.shutdown_kernel(now=True)
    second = Notebook(another_front(), LOOPS)
    second.run(1)
    second.flow(f"restart {old} --from mid")

    new = app.show("last")
    assert [item.status for item in new.items(new["loop"])] == ["kept (origin)"] * 4
    again = app.restart(new.id, from_step="loop[2]")

    assert (again.status, printed(again, "mid")) == ("success", "[0, 10, 20, 30]\n")
    assert [item.status for item in again.items(again["loop"])][1:] == [
        "kept (origin)", "success", "success",
    ]  # fmt: skip


def test_a_kept_step_is_cut_before_headless_though_the_kernel_has_executed_what_follows(
    make, front, another_front, app
):
    loop = "%%step loop --foreach i in range(3) --collect m\nm = i"
    cells = (START, loop, "%%step mid\nn = sum(m)\nn", "%%step end\nprint(n)")
    make(*cells)
    Notebook(front, cells).run(1, 2, 3)
    old = app.show("last").id
    second = Notebook(another_front(), cells)
    second.run(1)
    assert "right before 'mid'" in second.flow(f"restart {old} --from mid")
    assert second.run(3, 4) == "3\n"

    new = app.show("last").id
    for cut, first in (("loop[1]", "kept (origin)"), ("loop", "success")):
        assert not app.restart(new, from_step=cut, plan=True).refusals
        again = app.restart(new, from_step=cut)
        assert (again.status, printed(again, "end")) == ("success", "3\n")
        assert again.items(again["loop"])[0].status == first
    # what was executed since, and stands above, was no part of that moment
    second.run(2)
    (told,) = app.restart(new, from_step="mid", plan=True).refusals
    assert told == "step 'loop' was executed out of order"


def test_what_belongs_to_the_run_goes_back_and_what_others_can_see_does_not(make, front, app):
    cells = (
        START,
        "from cellrail import *\nfrom cellrail import flow",
        "%%step count\nn = get_resource('n', 0) + 1\nset_resource(n, 'n')\n"
        "set_flow_user_state('u', get_flow_user_state('u', 0) + 1)\n"
        "(flow.shared / 'f').open('a').write('x')",
        "%%step look\nprint(get_resource('n'), get_flow_user_state('u'),\n"
        "      (flow.shared / 'f').read_text())",
    )
    make(*cells)
    notebook = Notebook(front, cells)
    assert notebook.run(1, 2, 3, 4) == "1 1 x\n"
    assert "right before 'count'" in notebook.flow("restart --from count")
    assert notebook.run(3, 4) == "2 1 x\n"

    again = app.restart("last", from_step="count")
    assert (again.status, printed(again, "look")) == ("success", "2 1 x\n")


# --- what is said where a restart here cannot be ------------------------------------------------


def test_a_kernel_in_the_place_of_a_killed_one_is_told_which_run_has_the_step(
    opened, another_front, app
):
    old = app.show("last").id
    opened.front.manager.shutdown_kernel(now=True)
    second = Notebook(another_front(), CELLS)
    second.run(1)

    said = second.flow("restart --from end")
    assert f"run {old} has executed it: %flow restart {old} --from end" in said
    assert f"%flow restart {old} --from end" in second.flow("restart --from end --plan")
    assert "right before 'end'" in second.flow(f"restart {old} --from end")
    assert second.run(4) == END


def test_a_cell_that_was_executed_and_not_saved_is_said_not_to_be_saved(opened):
    opened.front.run("%%step fresh\ny = 1", "cell-9")
    said = opened.flow("restart --from fresh")
    assert "'fresh' was executed here, and is not in the notebook as it is saved" in said
    assert "save the notebook" in said
    assert "there is no step 'frosh'" in opened.flow("restart --from frosh")


def test_json_in_a_flow_line_is_meant_as_it_is(make, front):
    make(*GATES)
    notebook = Notebook(front, GATES)
    notebook.run(1, 2, 3)
    assert "Error" not in notebook.flow('resume --data {"by":10, "to": ["a b"]}')
    assert front.run("print(flow.resume_data)", "cell-9") == "{'by': 10, 'to': ['a b']}\n"


def test_interrupted_live_runs_are_said_not_to_be_recoverable(opened, cellrail):
    opened.front.manager.shutdown_kernel(now=True)
    done = cellrail("recover")
    assert done.stdout == "no run can be recovered\n"
    assert "1 interrupted live run: a kernel's cannot be recovered" in done.stderr
    assert "no run is interrupted" not in cellrail("recover", "--all").stdout


def test_a_step_sees_the_resource_that_it_saw_when_the_notebook_had_gone_back(make, front, app):
    """Going back puts the namespace back; what cells have set of a resource stays set."""
    cells = (
        START + "\nfrom cellrail import get_resource, set_resource",
        "%%step add\nn = get_resource('n', 0)\nset_resource(n + 1, 'n')\nprint(n)",
        "%%step show\nprint(get_resource('n'))",
    )
    make(*cells)
    notebook = Notebook(front, cells)
    assert notebook.run(1, 2, 3) == "1\n"
    notebook.flow("restart --from add")
    assert (notebook.run(2), notebook.run(3)) == ("1\n", "2\n")
    front.close()

    again = app.restart("last", from_step="add")
    assert (printed(again, "add"), printed(again, "show")) == ("1\n", "2\n"), again.cause
    assert printed(app.restart(again.id, from_step="show"), "show") == "2\n"


# --- cells that were not executed again -----------------------------------------------------------

STEPS = (
    START,
    "%%step a\nx, log = 1, ['a']",
    "%%step b\ny = x + 1\nlog.append('b')",
    "%%step c\nz = y * 10\nlog.append('c')",
    "%%step e\nprint(x, y, z, log)",
)
WITNESS = "1 2 20 ['a', 'b', 'c']\n"


@pytest.fixture
def steps(make, front):
    make(*STEPS)
    notebook = Notebook(front, STEPS)
    assert notebook.run(1, 2, 3, 4, 5) == WITNESS
    return notebook


def refusals(app, cut):
    return app.restart("last", from_step=cut, plan=True).refusals


def test_a_run_goes_on_behind_what_was_executed_since_the_notebook_went_back(steps, app):
    live = app.show("last").id
    steps.flow("restart --from b")
    for place, cut in ((3, "c"), (4, "e")):
        steps.run(place)
        again = app.restart(live, from_step=cut)
        assert (again.status, printed(again, "e")) == ("success", WITNESS)
    # what was not executed since is not kept
    steps.flow("restart --from b")
    steps.run(3)
    assert app.restart(live, from_step="e", plan=True).refusals


def test_an_edited_cell_is_gone_on_from_with_what_it_left_since(make, steps, app):
    steps.flow("restart --from b")
    edited = (*STEPS[:2], "%%step b\ny = x + 5\nlog.append('B')", *STEPS[3:])
    make(*edited)
    steps.cells = edited
    steps.run(3)
    again = app.restart("last", from_step="c")
    assert printed(again, "e") == "1 6 60 ['a', 'B', 'c']\n"
    assert "right before 'c'" in steps.flow("restart --from c")
    assert steps.run(4, 5) == "1 6 60 ['a', 'B', 'c']\n"


@pytest.mark.parametrize("cuts", [("c", "b"), ("b", "c"), ("e", "b"), ("b", "b")])
def test_of_two_restarts_in_a_row_the_last_one_counts(cuts, steps, app):
    live = app.show("last").id
    for cut in cuts:
        steps.flow(f"restart --from {cut}")
    first = {"b": 3, "c": 4}[cuts[-1]]
    steps.run(first)
    again = app.restart(live, from_step={3: "c", 4: "e"}[first])
    assert (again.status, printed(again, "e")) == ("success", WITNESS)


def test_a_restart_here_at_an_earlier_cut_drops_what_was_executed_since_the_first(steps, app):
    live = app.show("last").id
    steps.flow("restart --from c")
    steps.run(4)
    steps.flow("restart --from b")
    steps.run(3)
    assert app.restart(live, from_step="e", plan=True).refusals
    assert printed(app.restart(live, from_step="c"), "e") == WITNESS


@pytest.mark.parametrize("executed", [(2,), (2, 3), (3, 2)])
def test_what_stands_before_the_cut_is_executed_out_of_order_after_a_restart_here(
    executed, steps, app
):
    steps.flow("restart --from b")
    steps.run(*executed)
    if 3 not in executed:
        assert "step 'a' was executed out of order" in refusals(app, "b")
    assert any("out of order" in told for told in refusals(app, "c"))


def test_a_step_that_was_passed_over_since_the_notebook_went_back_is_not_kept(steps, app):
    steps.flow("restart --from b")
    steps.run(4)  # `y` is not there
    assert refusals(app, "c") == ("step 'b' was executed out of order",)
    # nor was it there when it was cut before it
    assert printed(app.restart("last", from_step="b"), "e") == WITNESS


def test_a_new_cell_is_no_cut_where_what_stands_before_it_is_gone(make, steps, app):
    steps.flow("restart --from b")
    make(*STEPS, "%%step new\nprint(y)")
    assert "step 'b' was executed out of order" in refusals(app, "new")


def test_what_was_executed_out_of_order_before_a_restart_here_is_so_after_it(steps, app):
    steps.run(2)
    assert "out of order" in steps.flow("restart --from b")
    steps.flow("restart --from c --force")
    steps.run(4)
    # the moment that came back is the one before that
    live = app.show("last").id
    assert printed(app.restart(live, from_step="e"), "e") == WITNESS
    steps.run(2)
    told = app.restart(live, from_step="e", plan=True).refusals
    assert "step 'a' was executed out of order" in told


def test_an_execution_that_was_undone_is_as_if_it_had_not_been(make, steps, app):
    live = app.show("last").id
    steps.flow("restart --from b")
    edited = (*STEPS[:2], "%%step b\ny = x + 5\nlog.append('B')", *STEPS[3:])
    steps.cells = edited
    steps.run(3)
    steps.flow("undo")
    assert printed(app.restart(live, from_step="c"), "e") == WITNESS
    make(*edited)
    (told,) = app.restart(live, from_step="c", plan=True).refusals
    assert "step 'b'" in told


def test_a_run_goes_on_behind_a_loop_that_was_executed_since(make, front, app):
    cells = (
        START,
        "%%step first\nbase = 1",
        "%%step loop --foreach i in range(3) --collect m\nm = i + base",
        "%%step mid\nn = sum(m)",
        "%%step end\nprint(m, n)",
    )
    make(*cells)
    notebook = Notebook(front, cells)
    witness = notebook.run(1, 2, 3, 4, 5)
    live = app.show("last").id
    notebook.flow("restart --from loop")
    assert app.restart(live, from_step="loop[1]", plan=True).refusals == ()
    notebook.run(3)
    for cut in ("mid", "loop", "loop[1]"):
        again = app.restart(live, from_step=cut)
        assert (again.status, printed(again, "end")) == ("success", witness), cut
    notebook.run(4)
    assert printed(app.restart(live, from_step="end"), "end") == witness


def test_a_run_goes_on_behind_what_was_executed_on_the_namespace_of_another_run(
    steps, another_front, app
):
    old = app.show("last").id
    second = Notebook(another_front(), STEPS)
    second.run(1, 2, 3, 4, 5)
    live = app.show("last").id
    assert live != old
    second.flow(f"restart {old} --from b")
    assert printed(app.restart(live, from_step="b"), "e") == WITNESS
    second.run(3)
    assert printed(app.restart(live, from_step="c"), "e") == WITNESS
    assert app.restart(live, from_step="e", plan=True).refusals
    second.run(4)
    assert printed(app.restart(live, from_step="e"), "e") == WITNESS
    second.run(2, 5)
    assert app.restart(live, from_step="e", plan=True).refusals


def test_a_step_sees_what_kept_steps_have_set_since_the_notebook_went_back(make, front, app):
    cells = (
        START + "\nfrom cellrail import get_resource, set_resource",
        "%%step put\nwords = 'old'",
        "%%step add\nset_resource(words, 'n')",
        "%%step show\nprint(get_resource('n'))",
        "%%step last\nprint(get_resource('n'))",
    )
    make(*cells)
    notebook = Notebook(front, cells)
    notebook.run(1, 2, 3, 4, 5)
    notebook.flow("restart --from put")
    notebook.cells = (*cells[:1], "%%step put\nwords = 'new'", *cells[2:])
    make(*notebook.cells)
    notebook.run(2, 3)
    again = app.restart("last", from_step="show")
    assert (printed(again, "show"), printed(again, "last")) == ("new\n", "new\n"), again.cause


def test_a_loop_in_a_cell_begins_anew_behind_a_step_that_was_executed_since(make, front, app):
    cells = (
        START + "\nfrom cellrail import flow",
        "%%step base\nn = 1",
        "%%step sums\ngot = []\nfor i in flow.each('i', range(4), save=['got']):\n"
        "    got.append(n * i)\n    assert n != 1 or i != 2\nprint(got)",
    )
    make(*cells)
    notebook = Notebook(front, cells)
    assert "AssertionError" in notebook.run(1, 2, 3)
    notebook.flow("restart --from base")
    notebook.cells = (cells[0], "%%step base\nn = 3", cells[2])
    make(*notebook.cells)
    notebook.run(2)
    again = app.restart("last", from_step="sums")
    assert (again.status, printed(again, "sums")) == ("success", "[0, 3, 6, 9]\n"), again.cause
