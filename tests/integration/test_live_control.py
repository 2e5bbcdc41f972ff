"""Control flow in an open notebook, through a real kernel.

Laws: an open notebook and a headless run of it come to equal outputs and equal variables; a person
sees their own traceback; Run All stops at a failure, and not at one that the flow goes on after;
every turn and attempt is a job of the live run, and a place to restart from.
"""

from __future__ import annotations

import json
import re

import pytest

LOAD = "%load_ext cellrail\n%flow config notebook=flow.ipynb"


class Notebook:
    """A notebook that is open in a front end, and saved."""

    def __init__(self, make, front, *sources, tags=None):
        self.path = make(LOAD, *sources, tags=tags)
        self.front = front
        self.cells = json.loads(self.path.read_text())["cells"]

    def run_all(self, stop=True):
        """Execute the cells in order, as Run All does."""
        done = []
        for place in range(1, len(self.cells) + 1):
            done.append(self.cell(place))
            if stop and done[-1].status == "error":
                break
        return done

    def cell(self, place, **options):
        """Execute a cell, from 1."""
        cell = self.cells[place - 1]
        return self.front.execute(cell["source"], cell["id"], cell["metadata"], **options)


@pytest.fixture
def opened(make, front):
    """Opens a notebook; its first cell loads the extension."""
    return lambda *sources, **options: Notebook(make, front, *sources, **options)


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def jobs(app, run_id, step):
    """Attempt, status and turns of each job of a step."""
    return [
        (line.get("attempt", 1), line["status"], [t["key"] for t in line.get("turns", ())])
        for line in app.journal(run_id)
        if line["type"] == "finished" and line["step"] == step
    ]


# --- an open notebook and a headless run of it -----------------------------------------------

CONDITIONS = (
    "n = 5",
    "%%step none --when n > 10\nraise ValueError",
    "%%step small --branch size --when n < 3\nkind = 'small'",
    "%%step middle --branch size --when n < 10\nkind = 'middle'\nkind",
    "%%step large --branch size:default\nkind = 'large'",
    "%%step load --on-error continue\npart = 1\nprint('before')\n1 / 0",
    "print(kind, part, type(error_load).__name__)",
)
LOOPS = (
    "import asyncio, random\nrandom.seed(1)\nseen, alias = [], None",
    "%%step score --foreach name, n in {'a': 1, 'b': 2}.items() --key name --collect mark\n"
    "mark = [n, random.random()]\nseen.append(mark)\nprint(name)\nmark",
    "%%step wait --foreach item in range(3) --collect got --on-error skip\n"
    "await asyncio.sleep(0)\nif item == 1: raise ValueError(item)\ngot = item * 2\ngot",
    "%%step grow --while len(seen) < 5 --max-turns 9\nseen.append(len(seen))\nlen(seen)",
    "%%step flaky --retry 2 --backoff 1ms --retry-if isinstance(error, OSError)\n"
    "tries = globals().get('tries', 0) + 1\nlast = random.random()\n"
    "with open('tries.txt', 'a') as f: f.write('x')\ndel f\n"
    "if open('tries.txt').read().count('x') % 3: raise OSError('again')\nprint('done')",
    "print(mark[0] is seen[0], seen, got, tries, last)",
)
BLOCK = (
    "regions = ['north', 'south', 'east']\nseen, totals = [], {}",
    "%%step score --foreach region in regions --collect mark\nmark = [region]\nseen.append(mark)",
    "%%step inner --in score --foreach day in range(2) --collect t\n"
    "import asyncio\nawait asyncio.sleep(0)\nt = (region, day)\n"
    "with open('w.txt', 'a') as f: f.write(f'{region[0]}{day} ')\ndel f",
    "%%step deep --in inner\ntotals[t] = len(seen)",
    "%%step odd --in score --when region != 'south'\nkept = region",
    "%%step show\nprint(mark, seen, t, totals, mark[0] is seen[0], kept)",
)


@pytest.mark.parametrize("sources", [CONDITIONS, LOOPS, BLOCK])
@pytest.mark.cold
def test_an_open_notebook_comes_to_what_a_headless_run_of_it_comes_to(opened, app, sources):
    notebook = opened(*sources)

    done = notebook.run_all()
    live = app.show("last")
    headless = app.run(notebook.path)

    assert headless.status == "success", headless.cause
    assert [cell.status for cell in done] == ["ok"] * len(done)
    assert done[-1].text == "".join(o["text"] for o in headless.steps[-1].outputs)
    for step in headless.steps[1:]:
        mine = live[step.label]
        assert str(mine.status) == str(step.status), step.label
        assert shape(mine.outputs) == shape(step.outputs), step.label
        assert values(mine) == values(step), step.label


def shape(outputs):
    """Outputs but for cell numbers: a headless run has a number for each turn."""
    told = []
    for output in outputs:
        kept = {key: value for key, value in output.items() if key != "execution_count"}
        if output["output_type"] == "error":
            kept["traceback"] = re.sub(r"In\[\d+\]", "", plain("\n".join(output["traceback"])))
        told.append(kept)
    return told


def values(step):
    names = [n for n in step.variables if n.isidentifier() and not n.startswith("error_")]
    stored = [n for n in names if step.variables[n].verdict == "stored"]
    return {n: repr(v) for n, v in step.load(stored).items() if "module" not in repr(v)}


# --- what a person sees ----------------------------------------------------------------------


def test_a_turns_last_expression_is_shown_and_the_cell_is_one_execution(opened, front):
    notebook = opened("%%step turns --foreach n in [1, 2]\nprint('turn', n)\nn * 10;\nn * 10")

    done = notebook.run_all()[-1]

    assert [o["output_type"] for o in done.outputs] == ["stream", "execute_result"] * 2
    assert done.text == "turn 1\n10turn 2\n20"
    assert front.run("(_, Out)") == f"(20, {{{done.execution_count}: 20}})"


def test_a_failure_shows_the_users_own_traceback_and_stops_run_all(opened):
    notebook = opened(
        "def f(n):\n    return 1 / (n - 2)",
        "%%step turns --foreach n in [1, 2, 3]\nx = n\nf(n)",
        "raise ValueError('not reached')",
    )

    done = notebook.run_all()

    assert [cell.status for cell in done] == ["ok", "ok", "error"]
    assert done[-1].text == "-1.0ZeroDivisionError: division by zero"
    told = plain("\n".join(done[-1].error["traceback"]))
    assert "----> 3 f(n)" in told
    assert "----> 2     return 1 / (n - 2)" in told
    assert re.findall(r"(?:File|Cell) .*", told) == [
        "Cell In[3], line 3",
        "Cell In[2], line 2, in f(n)",
    ]
    assert notebook.front.run("x, n") == "(2, 2)"


def test_the_traceback_is_that_of_a_plain_cell(opened):
    source = "\n\nvalues = [1]\ndef f():\n    return values[3]\n\n\n[f() for _ in range(2)]"
    notebook = opened(f"#{source}", f"%%step again --timeout 60{source}")

    plainly, conducted = notebook.run_all(stop=False)[1:]

    numbers = re.compile(r"In\[\d+\]")
    one, other = (
        numbers.sub("", plain("\n".join(c.error["traceback"]))) for c in (plainly, conducted)
    )
    assert one == other


def test_a_syntax_error_is_told_as_in_a_plain_cell(opened, app):
    notebook = opened("%%step bad --foreach n in [1]\nx = = 1", "y = 1")

    done = notebook.run_all(stop=False)

    assert done[1].error["ename"] == "SyntaxError"
    assert app.show("last")["bad"].status == "failed"
    assert done[2].status == "ok"


def test_a_tolerated_failure_is_shown_and_does_not_stop_run_all(opened):
    notebook = opened("%%step a --on-error continue\n1 / 0", "print(repr(error_a))")

    done = notebook.run_all()

    assert [o["output_type"] for o in done[1].outputs] == ["stream"]
    assert "ZeroDivisionError: division by zero" in plain(done[1].text)
    assert done[2].text == "ZeroDivisionError('division by zero')\n"


def test_a_skipped_cell_says_so_in_one_line(opened):
    notebook = opened(
        "n = 1",
        "%%step big --when n > 10\nraise ValueError",
        "%%step b --branch g --when n == 1\npass",
        "%%step c --branch g:default\nraise ValueError",
    )

    done = notebook.run_all()

    assert done[2].text == "cellrail: skipped, n > 10 is false\n"
    assert done[4].text == "cellrail: skipped, branch g: b was taken\n"


def test_stop_if_stops_run_all_with_one_line(opened, app):
    notebook = opened("n = 5", "%%step end --stop-if n == 5\nn", "raise ValueError")

    done = notebook.run_all()

    assert done[-1].status == "error"
    assert done[-1].text == "5SystemExit: 0"
    assert done[-1].error["traceback"] == ["cellrail: the flow ends here: n == 5 is true"]
    assert app.show("last")["end"].status == "success"


def test_a_turn_that_failed_leaves_nothing_to_be_collected_and_a_name_must_be_bound(opened):
    notebook = opened(
        "def f(x):\n    global q\n    if x == 'z': q = x",
        "%%step L --foreach x in 'abc' --collect r --on-error continue\nif x == 'b': 1 / 0\nr = x",
        "print(r)",
        "%%step M --foreach x in 'abc' --collect q\nf(x)",
    )
    done = notebook.run_all()
    assert done[-2].text == "['a', None, 'c']\n"
    assert done[-1].status == "error"
    assert "--collect q: no turn of the loop binds it" in done[-1].text


def test_a_condition_that_raises_fails_the_cell_and_names_the_expression(opened):
    notebook = opened("%%step a --when m > 1\nx = 1", "%%step b --while True --max-turns 2\nx = 1",
                      "# step: c --wehn x\nx = 2")  # fmt: skip

    _, broken, endless, wrong = notebook.run_all(stop=False)

    assert broken.text == "NameError: name 'm' is not defined"
    assert any("<--when>" in line for line in broken.error["traceback"])
    assert endless.text == "RuntimeError: True is still true after 2 turns (--max-turns)"
    assert wrong.error["traceback"] == ["cellrail: unknown option --wehn; did you mean --when?"]
    assert notebook.front.run("x") == "1"


def test_a_condition_that_changes_something_fails_the_cell_where_it_is_recorded(opened):
    notebook = opened("todo = [1, 2]", "%%step a --when todo.pop() == 2\nx = 1")

    *_, refused = notebook.run_all(stop=False)

    assert refused.text.startswith("ConditionChanges: the condition has changed `todo`, and")


def test_tags_that_the_front_end_sends_are_options(opened):
    notebook = opened("x = 1", "x += 1\nx")
    metadata = {"tags": ["step:grow"], "cellrail": {"options": "--while x < 4"}}
    notebook.cells[2]["metadata"] = metadata

    assert notebook.run_all()[-1].text == "234"


def test_a_timeout_and_an_interrupt_end_the_cell(opened, app):
    sleep = "import time\nprint('now', flush=True)\ntime.sleep(60)"
    notebook = opened(
        f"%%step slow --retry 1 --backoff 1ms --timeout 300ms\n{sleep}",
        f"%%step turns --foreach n in [1, 2]\n{sleep}",
        "%%step wait --retry 3 --backoff 60s\nraise ValueError",
        "%%step awaits --foreach n in [1, 2] --timeout 60\nimport asyncio\nprint('now')\n"
        "for _ in range(300): await asyncio.sleep(0.2)",
        "%%step late --timeout 300ms\nawait asyncio.sleep(60)",
        "1 + 1",
    )

    _, slow = notebook.cell(1), notebook.cell(2)
    turns = notebook.cell(3, interrupt_at="now")
    wait = notebook.cell(4, interrupt_at="attempt 1 of 4 failed (ValueError)")
    awaits = notebook.cell(5, interrupt_at="now")
    late, last = notebook.cell(6), notebook.cell(7)

    assert late.text.endswith("cellrail: timeout after 0.3 s\n")
    assert slow.error["ename"] == "KeyboardInterrupt"
    assert slow.text.endswith("cellrail: timeout after 0.3 s\n")
    assert (turns.error["ename"], wait.error["ename"]) == ("KeyboardInterrupt", "KeyboardInterrupt")
    assert awaits.error["ename"] == "CancelledError"
    assert last.text == "2"
    run = app.show("last")
    assert run["slow"].cause == "timeout after 0.3 s"
    assert [str(run[name].status) for name in ("slow", "turns", "wait", "awaits")] == [
        "failed", "cancelled", "cancelled", "cancelled",
    ]  # fmt: skip
    assert jobs(app, run.id, 4) == [(1, "failed", []), (1, "cancelled", [])]


# --- branches, executed one by one -----------------------------------------------------------


def test_a_step_of_a_group_looks_only_at_what_was_taken_above_it(opened, front):
    notebook = opened(
        "n = 1",
        "%%step one --branch g --when n == 1\nprint('one')",
        "%%step two --branch g --when n == 2\nprint('two')",
        "%%step rest --branch g:default\nprint('rest')",
    )
    notebook.run_all()

    front.run("n = 2", "scratch")
    said = [notebook.cell(place).text for place in (3, 4, 5)]
    assert said == ["cellrail: skipped, n == 1 is false\n", "two\n",
                    "cellrail: skipped, branch g: two was taken\n"]  # fmt: skip
    assert notebook.cell(4).text == "two\n"
    front.run("n = 3", "scratch")
    assert notebook.cell(4).text == "cellrail: skipped, n == 2 is false\n"
    assert notebook.cell(5).text == "rest\n"


# --- what is recorded ------------------------------------------------------------------------


def test_every_attempt_and_turn_is_a_job_and_the_last_execution_counts(opened, app):
    notebook = opened(
        "items, log, fails = ['a', 'b', 'c'], [], 1",
        "%%step go --foreach x in items --key x --retry 1 --backoff 1ms --collect y\n"
        "y = x * 2\nlog.append(x)\nif x == 'b' and fails: raise ValueError",
        "print(log, y)",
    )
    assert notebook.run_all()[-1].status == "error"
    notebook.front.run("fails = 0; items.append('d'); log.append('|')", "scratch")
    for place in (3, 4):
        assert notebook.cell(place).status == "ok"

    run = app.show("last")

    first = [(1, "success", ["a"]), (1, "failed", ["b"]), (2, "failed", ["b"])]
    then = [(1, "success", [key]) for key in "abcd"]
    assert jobs(app, run.id, 3) == [*first, *then, (1, "success", [])]
    decided = [r["keys"] for r in app.journal(run.id) if r["type"] == "decided"]
    assert decided == [tuple("abc"), tuple("abcd")]
    printed = "['a', 'b', '|', 'a', 'b', 'c', 'd'] ['aa', 'bb', 'cc', 'dd']\n"
    for cut in ("go", "go[b]", "go[#3]", "#4"):
        again = app.restart(run.id, from_step=cut, force=True)
        assert again["#4"].outputs[0]["text"] == printed, cut


def test_a_retry_begins_on_what_is_there_and_not_only_on_what_was_recorded(opened):
    notebook = opened(
        "%%step quick --no-checkpoint\nz = [5]",
        "%%step use --retry 1 --backoff 1ms\nimport os\nz.append(6)\n"
        "if not os.path.exists('w.txt'): open('w.txt', 'w').close(); raise ValueError",
    )

    notebook.run_all()

    assert notebook.front.run("z") == "[5, 6]"


def test_a_cell_that_a_cell_executes_is_part_of_it(opened, app):
    inner = "%%step inner --foreach n in [1, 2]\\nprint(n)"
    notebook = opened(
        f"get_ipython().run_cell('{inner}')\nx = n",
        f"%%step twice --foreach k in 'ab'\nget_ipython().run_cell('{inner}'); y = n",
    )

    done = notebook.run_all()

    assert [cell.text for cell in done[1:]] == ["1\n2\n", "1\n2\n1\n2\n"]
    run = app.show("last")
    assert [str(step.status) for step in run.steps] == ["success"] * 3
    assert run["#2"].outputs == [{"output_type": "stream", "name": "stdout", "text": "1\n2\n"}]
    assert len(jobs(app, run.id, 3)) == 3


def test_a_loop_that_fails_leaves_nothing_of_its_own_behind(opened, app):
    notebook = opened("%%step go --foreach x in [1, 0] --collect y\ny = 1 / x", "z = 1")

    notebook.run_all(stop=False)

    deltas = [line["delta"] for line in app.journal("last") if line["type"] == "finished"]
    root = "Loop[go].y[0]"
    assert root in deltas[2]["variables"]
    assert root in deltas[3]["deleted"]
    assert notebook.front.run("[n for n in dir() if 'cellrail' in n]") == "[]"


def test_a_cut_inside_a_loop_is_for_headless_restarts(opened):
    notebook = opened("%%step go --foreach x in [1, 2]\ny = x", "z = 1")
    notebook.run_all()

    said = notebook.front.run("%flow restart --from go[2]")

    assert "go[2] lies inside a loop, which a cell executes as a whole (--from go here" in said
    assert "right before 'go'" in notebook.front.run("%flow restart --from go --force")
    assert notebook.cell(2).status == "ok"


# --- loops over several cells ----------------------------------------------------------------


def test_the_header_executes_the_cells_of_its_loop_as_they_are_saved(opened, edit):
    notebook = opened(*BLOCK)
    done = notebook.run_all()
    assert [c.text for c in done[4:6]] == [
        "cellrail: ran in the turns of score\n", "cellrail: ran in the turns of score\n",
    ]  # fmt: skip

    notebook.cells[4]["source"] += " * 2"
    edited = notebook.cell(5)
    assert edited.status == "error"
    assert edited.error["traceback"] == [
        "cellrail: deep is not as it was when score executed it: "
        "save the notebook, then execute score"
    ]
    edit(notebook.path, "len(seen)", "len(seen) * 2")
    assert [notebook.cell(place).status for place in (2, 3, 4, 5)] == ["ok"] * 4
    assert notebook.front.run("totals['east', 1]") == "6"

    notebook.cells[2]["source"] += "\npass"
    assert "the loop score is not saved as it is" in notebook.cell(3).error["traceback"][0]


def test_the_header_of_a_loop_in_a_loop_runs_in_the_turns_of_the_outer_one(opened):
    notebook = opened(
        "log = []",
        "%%step outer --foreach k in 'pq'\nlog.append(k)",
        "%%step inner --in outer --foreach y in range(2)\nlog.append(y)",
        "%%step last --in inner\nlog.append('x')",
    )

    assert [c.text for c in notebook.run_all()[-2:]] == [
        "cellrail: ran in the turns of outer\n"
    ] * 2
    assert notebook.front.run("''.join(map(str, log))") == "'p0x1xq0x1x'"


def test_a_failure_in_a_cell_below_the_header_shows_that_cells_lines(opened):
    notebook = opened(
        "%%step score --foreach n in [1, 0]\npass",
        "%%step below --in score\nx = 2\n1 / n",
    )

    done = notebook.run_all()[-1]

    assert "----> 3 1 / n" in plain("\n".join(done.error["traceback"]))
    alone = notebook.cell(3)
    assert "below runs in the turns of score: save the notebook" in alone.error["traceback"][0]


def test_where_the_notebook_is_not_known_a_cell_of_a_loop_says_what_to_do(front):
    front.run("%load_ext cellrail", "a")
    front.run("%%step score --foreach n in [1, 2]\nprint(n)", "b")

    said = front.execute("%%step below --in score\nprint(n)", "c")

    assert said.error["traceback"] == [
        "cellrail: below runs in the turns of score, which has to know the notebook: "
        "%flow config notebook=PATH, then execute score"
    ]
