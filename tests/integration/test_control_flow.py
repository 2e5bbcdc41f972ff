"""Control flow headless: conditions, branches, retries, loops, and restarts in their midst.

Laws: what runs is what the step lines say, told in the journal; a retry begins on the namespace
before the step; a restart inside a loop executes nothing before its cut, and ends as the
uninterrupted run did.
"""

from __future__ import annotations

import pytest

from cellrail.errors import BadNotebook, RestartRefused, StepNotFound
from reading import printed, statuses


def decided(app, run) -> list[tuple[str, bool]]:
    return [(r["purpose"], r["value"]) for r in app.journal(run.id) if r["type"] == "decided"]


# --- conditions, branches, early stop --------------------------------------------------------


def test_conditions_and_branches_choose_what_runs(make, app):
    run = app.run(
        make(
            "n = 5",
            "%%step none --when n > 10\nraise ValueError",
            "%%step small --branch size --when n < 3\nkind = 'small'",
            "%%step middle --branch size --when n < 10\nkind = 'middle'",
            "%%step large --branch size:default\nkind = 'large'",
            "%%step end --stop-if n == 5\nprint(kind)",
            "%%step never\nraise ValueError",
        )
    )

    assert (run.status, run.cause) == ("success", "n == 5 is true")
    assert statuses(run) == {
        "#1": "success", "none": "skipped", "small": "skipped", "middle": "success",
        "large": "skipped", "end": "success", "never": "pending",
    }  # fmt: skip
    assert printed(run, "end") == "middle\n"
    assert run["large"].cause == "branch size: middle was taken"


def test_a_condition_that_raises_fails_its_step_and_names_the_expression(make, app):
    run = app.run(make("n = 5", "%%step a --when m > 1\nx = 1", "y = 2"))

    assert run.status == "failed"
    assert run.cause == "--when m > 1: NameError: name 'm' is not defined"
    assert statuses(run) == {"#1": "success", "a": "failed", "#3": "pending"}


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("--when todo.pop() > 9", "`todo`"),
        ("--branch g --when (n := 9) > 1", "`n`"),
        ("--while (n := next(items, 9)) < 5", "`items` and `n`"),
        ("--stop-if more()", "`count`"),
        ("--when random.random() < 2", "what random draws next"),
        ("--while rng.random() < 0", "`rng`"),
        ("--when np.random.rand() < 0", "what numpy.random draws next"),
        ("--when turn() > 5", "a function or class"),
        ("--stop-if Box.seen.append(1)", "a function or class"),
        ("--when next(rows) > 5", "`rows`"),
        ("--when file.read(1) == 'x'", "`file`"),
        ("--when db.execute('insert into t values (1)') is None", "`db`"),
        ("--when lock.acquire() is None", "`lock`"),
        ("--when groups['new'] == 1", "`groups`"),
        ("--when box.full", "`box` and `boxes`"),
        ("--when boxes[0].full", "`box` and `boxes`"),
        ("--when len(box) > 5", "`box` and `boxes`"),
        ("--when not box", "`box` and `boxes`"),
        ("--when os.chdir('..')", "the working directory"),
        ("--when os.environ.setdefault('NEW', '1') == 2", "`os.environ`"),
        ("--when locked.bump()", "`locked`"),
        ("--when locked.lock.acquire()", "`locked`"),
        ("--while locked.asked", "`locked`"),
        ("--stop-if guarded('a')", "a function or class"),
        ("--when np.set_printoptions(precision=3)", "the options of numpy"),
        ("--when pd.set_option('display.max_rows', 7)", "the options of pandas"),
    ],
)
def test_a_condition_that_changes_something_fails_and_names_it(line, changed, make, app, tmp_path):
    (tmp_path / "some.txt").write_text("some")
    run = app.run(
        make(
            "import os, random, sqlite3, threading\nimport numpy as np\nimport pandas as pd\n"
            "from collections import defaultdict\n"
            "todo, items, count, rng = [1, 2], iter(range(3)), 0, np.random.default_rng(1)\n"
            "def more():\n    global count\n    count += 1\n    return count > 5\n"
            "def turns():\n    n = 0\n    def turn():\n        nonlocal n\n"
            "        n += 1\n        return n\n    return turn\nturn = turns()\n"
            "class Box:\n    seen = []\n    def __len__(self):\n"
            "        self.asked = True\n        return 1\n"
            "    @property\n    def full(self):\n        return len(self) > 1\n"
            "box, lock, groups = Box(), threading.Lock(), defaultdict(list)\n"
            "boxes, rows, file = [box], (n for n in range(3)), open('some.txt')\n"
            "db = sqlite3.connect(':memory:')\n"
            "db.execute('create table t (a)').connection.commit()\n"
            "class Locked:\n    def __init__(self):\n"
            "        self.n, self.lock = 0, threading.Lock()\n"
            "    def bump(self):\n        self.n += 1\n        return True\n"
            "    @property\n    def asked(self):\n        return self.bump()\n"
            "def guard():\n    lock, seen = threading.Lock(), {}\n    def ask(name):\n"
            "        with lock:\n            return seen.setdefault(name, True)\n    return ask\n"
            "locked, guarded = Locked(), guard()",
            f"%%step a {line}\nx = 1",
        )
    )

    assert (run.status, run["a"].status) == ("failed", "failed")
    assert f"ConditionChanges: the condition has changed {changed}, and" in run.cause
    assert "let the condition look at what the cell has left" in run.cause


def test_a_condition_that_looks_may_call_what_it_likes(make, app):
    notebook = make(
        "import sqlite3\nimport pandas as pd\nfrom pathlib import Path\n"
        "from functools import cache\n"
        "frame, here = pd.DataFrame({'a': [1, 2]}), Path('there')\n"
        "db = sqlite3.connect(':memory:')\n"
        "from collections import Counter, defaultdict\n"
        "class Limits:\n    most = 9\n    def __init__(self): self.least = 1\n"
        "    @property\n    def span(self): return self.most - self.least\n"
        "limits, words, gen = Limits(), Counter('aab'), (n for n in 'ab')\n"
        "import subprocess, threading\nlimits.lock, limits.done = threading.Lock(), "
        "subprocess.Popen(['true'])\nlimits.done.communicate()\n"
        "def held():\n    with limits.lock:\n        return limits.lock.locked()\n"
        "groups = defaultdict(list, a=[1])\n"
        "seen = [1]\n@cache\ndef asked(n):\n    return n in seen",
        "%%step look --when limits.span == 8 and words['z'] == 0 and groups['a'] and gen\npass",
        "%%step a --when frame.groupby('a').a.sum().max() == 2 and not here.exists()\nx = [1]",
        "%%step b --when db.execute('select 2').fetchone()[0] == 2 and asked(1)\nx.append(2)",
        "%%step c --while sum(y for y in x) < 9\nx.append(3)",
        "%%step d --when held() and limits.done.poll() == 0 and not limits.lock.locked()\npass",
        "print(x)",
    )
    run = app.run(notebook)
    assert run["look"].status == "success"
    assert run["d"].status == "success"
    assert printed(run, "#7") == "[1, 2, 3, 3]\n"
    again = app.restart(run.id, from_step="c[1]")
    assert printed(again, "#7") == "[1, 2, 3, 3]\n"


def test_a_condition_that_warns_has_changed_nothing(make, app):
    run = app.run(
        make(
            "import threading, warnings\n"
            "class Locked:\n    def __init__(self): self.lock = threading.Lock()\n"
            "    def ask(self):\n        warnings.warn('old', stacklevel=2)\n        return True\n"
            "locked = Locked()",
            "%%step a --when locked.ask()\npass",
        )
    )
    assert (run.status, run.cause, run["a"].status) == ("success", "", "success")


def test_a_restart_keeps_what_was_skipped_and_decides_anew_at_the_cut(make, app):
    notebook = make(
        "n = 1",
        "%%step a --branch g --when n == 2\nkind = 'a'",
        "%%step b --branch g:default\nkind = 'b'",
        "%%step c --when n == 1\nprint(kind)",
    )
    run = app.run(notebook)

    behind = app.restart(run.id, from_step="c")
    inside = app.restart(run.id, from_step="b")
    at = app.restart(run.id, from_step="a")

    for again in (behind, inside, at):
        assert app.diff(run.id, again.id).equal
        assert statuses(again)["a"] == "skipped"
        assert printed(again, "c") == "b\n"


# --- failures --------------------------------------------------------------------------------


def test_a_retry_begins_on_the_namespace_before_the_step(make, app):
    run = app.run(
        make(
            "import random\nrandom.seed(1)\ntries, count, shared = [], 0, [1]\nalias = shared\n"
            "class Config:\n    level = 0",
            "%%step flaky --retry 3 --backoff 10ms*2\n"
            "tries.append(random.random()); shared.append(2); fresh = 1; Config.level += 1\n"
            "with open('w.txt', 'a') as f: f.write('x')\n"
            "if len(open('w.txt').read()) < 3: del count; raise ValueError('again')\n"
            "count += 1",
            "print(len(tries), shared is alias, shared, count, Config.level)",
        )
    )

    assert run.status == "success", run.cause
    assert printed(run, "#3") == "1 True [1, 2] 1 1\n"
    attempts = [
        (line.get("attempt", 1), line["status"])
        for line in app.journal(run.id)
        if line["type"] == "finished" and line["step"] == 2
    ]
    assert attempts == [(1, "failed"), (2, "failed"), (3, "success")]


def test_a_retry_in_a_loop_begins_on_its_own_item_and_keeps_what_was_collected(make, app):
    flaky = (
        "with open('w.txt', 'a') as f: f.write(region)\n"
        "if open('w.txt').read().count(region) < 2: raise ValueError\nmark = region * 2"
    )
    run = app.run(
        make(
            "regions = ['a', 'b', 'c']",
            "%%step score --foreach region in regions --collect mark --retry 2 --backoff 1ms\n"
            + flaky,
            "print(mark, region, open('w.txt').read())",
        )
    )

    assert run.status == "success", run.cause
    assert printed(run, "#3") == "['aa', 'bb', 'cc'] c aabbcc\n"
    again = app.restart(run.id, from_step="score[c]")
    assert printed(again, "#3").startswith("['aa', 'bb', 'cc']")


def test_a_retry_keeps_what_a_step_without_a_checkpoint_made(make, app):
    run = app.run(
        make(
            "%%step quick --no-checkpoint\nz = [5]",
            "%%step use --retry 1 --backoff 1ms\nimport os\nz.append(6)\n"
            "if not os.path.exists('w.txt'): open('w.txt', 'w').close(); raise ValueError",
            "print(z)",
        )
    )

    assert run.status == "success", run.cause
    assert printed(run, "#3") == "[5, 6]\n"
    assert app.show(run.id)["use"].variables["z"].load() == [5, 6]


def test_what_cannot_be_put_back_before_a_retry_is_named_in_the_journal(make, app):
    run = app.run(
        make(
            "numbers = iter(range(5)); numbers = (n for n in numbers)",
            "%%step use --retry 1 --backoff 1ms\nif next(numbers) == 0: raise ValueError",
        )
    )

    assert run.status == "success"
    back = [r for r in app.journal(run.id) if r["type"] == "rolled back"]
    assert back[0].get("not_restored", ()) == ("numbers",)


def test_retry_if_sees_the_error(make, app):
    run = app.run(
        make(
            "%%step a --retry 5 --backoff 1ms --retry-if isinstance(error, OSError)\n"
            "open('w.txt', 'a').write('x')\n"
            "raise (OSError if len(open('w.txt').read()) < 3 else KeyError)('no')",
        )
    )

    assert run.cause == "KeyError: 'no'"
    assert decided(app, run) == [("retry-if", True), ("retry-if", True), ("retry-if", False)]


def test_a_timeout_is_tried_again(make, app):
    run = app.run(
        make(
            "%%step a --retry 1 --backoff 1ms --timeout 1\nimport os, time\n"
            "if not os.path.exists('w.txt'):\n    open('w.txt', 'w').close(); time.sleep(30)\n"
            "done = True",
        )
    )

    assert run.status == "success", run.cause


SLOW = "if not os.path.exists('ok'): time.sleep(60)\n"
LAST = "if x == 2 and not os.path.exists('ok'): time.sleep(60)\n"


@pytest.mark.parametrize(
    ("cells", "where", "left"),
    [
        (["%%step s --on-error continue\nz = 1\n" + SLOW + "z = 2"], "s", "2"),
        (["%%step s --on-error skip --retry 2\nz = 1\n" + SLOW + "z = 2"], "s", "2"),
        (["%%step s --foreach x in range(3) --on-error skip --collect z\n" + LAST + "z = x"],
         "s[2]", "[0, 1, 2]"),
        (["%%step s --foreach x in range(3) --on-error continue --collect z\n" + LAST + "z = x"],
         "s[2]", "[0, 1, 2]"),
        (["%%step s --while x < 3 --on-error skip --collect z --max-turns 5\n" + LAST
          + "z = x\nx += 1"], "s[2]", "[0, 1, 2]"),
        (["%%step o --foreach y in 'p' --on-error skip --collect z",
          "%%step s --in o --foreach x in range(3) --on-error skip --collect z\n" + LAST
          + "z = x"], "o[p]/s[2]", "[[0, 1, 2]]"),
        (["%%step s --on-error continue --when time.sleep(9 * (not os.path.exists('ok'))) is None"
          "\nz = 2"], "s", "2"),
    ],
)  # fmt: skip
def test_the_limit_of_the_whole_run_ends_it_where_it_strikes_whatever_the_line_accepts(
    make, app, tmp_path, cells, where, left
):
    path = make("import os, time\nx = 0", *cells, "%%step after\nprint(z)")

    run = app.run(path, timeout=4)

    assert (run.status, run.cause) == ("failed", "timeout after 4 s (whole run)")
    assert [r["step"] for r in app.journal(run.id) if r["type"] == "end"] == [where]
    assert (run["s"].status, run["after"].status) == ("failed", "pending")
    (tmp_path / "ok").touch()
    again = app.restart(run.id)
    assert (again.status, printed(again, "after")) == ("success", left + "\n"), again.cause


def test_its_own_limit_is_an_error_of_the_step_that_its_line_accepts(make, app):
    run = app.run(
        make(
            "%%step s --foreach x in range(3) --on-error skip --collect z --timeout 500ms\n"
            "import time\ntime.sleep(60 * (x == 1))\nz = x",
            "print(z)",
        ),
        timeout=60,
    )

    assert (run.status, printed(run, "#2")) == ("success", "[0, None, 2]\n"), run.cause


def test_a_kernel_that_died_is_told_and_not_tried_again(make, app):
    run = app.run(
        make(
            "%%step a --retry 3 --backoff 1ms\nimport os, signal\n"
            "open('w.txt', 'a').write('x'); os.kill(os.getpid(), signal.SIGKILL)",
            "x = 1",
        )
    )

    assert (run.status, run.cause) == ("failed", "the kernel died (SIGKILL)")
    assert statuses(run) == {"a": "failed", "#2": "pending"}


def test_on_error_continue_binds_the_error_and_goes_on(make, app):
    run = app.run(
        make(
            "%%step load --on-error continue\npart = 1\n1 / 0",
            "print(type(error_load).__name__, part)",
        )
    )

    assert run.status == "success"
    assert run["load"].status == "failed"
    assert printed(run, "#2") == "ZeroDivisionError 1\n"
    again = app.restart(run.id, from_step="#2")
    assert app.diff(run.id, again.id).equal


@pytest.mark.parametrize("again", ["True", "type(error) is OSError"])
def test_a_retry_of_what_is_tolerated_begins_on_the_namespace_before_the_step(again, make, app):
    run = app.run(
        make(
            "y = 1",
            f"%%step a --on-error continue --retry 2 --backoff 1ms --retry-if {again}\n"
            "open('w.txt', 'a').write('x')\nbefore, y = y, 2\n"
            "raise (OSError if len(open('w.txt').read()) < 2 else KeyError)('no')",
            "print(before, y, type(error_a).__name__)",
        )
    )

    assert run.status == "success", run.cause
    assert printed(run, "#3") == "1 2 KeyError\n"
    assert app.diff(run.id, app.restart(run.id, from_step="#3").id).equal


# --- loops -----------------------------------------------------------------------------------

LOOP = (
    "regions = ['north', 'south', 'east']\nseen, totals = [], {}",
    "%%step score --foreach region in regions --collect mark\n"
    "mark = [region]\nseen.append(mark)\nprint(region)",
    "%%step inner --in score --foreach day in range(2) --collect t\n"
    "t = (region, day)\nwith open('w.txt', 'a') as f: f.write(f'{region[0]}{day} ')",
    "%%step deep --in inner\ntotals[t] = len(seen)",
    "%%step odd --in score --when region != 'south'\nkept = region",
    "%%step show\nprint(mark, seen, t, totals, mark[0] is seen[0], kept)",
)


def test_a_loop_over_several_cells_collects_in_order(make, app):
    run = app.run(make(*LOOP))

    assert run.status == "success", run.cause
    assert printed(run, "score") == "north\nsouth\neast\n"
    assert printed(run, "show").startswith("[['north'], ['south'], ['east']] [['north'],")
    assert " True east" in printed(run, "show")
    assert not [name for name in run["show"].variables if name.startswith("Loop")]


@pytest.mark.parametrize(
    ("cut", "executed"),
    [
        ("score", "n0 n1 s0 s1 e0 e1 "),
        ("score[north]", "n0 n1 s0 s1 e0 e1 "),
        ("score[north]/inner[1]", "n1 s0 s1 e0 e1 "),
        ("score[south]", "s0 s1 e0 e1 "),
        ("score[#2]", "e0 e1 "),
        ("score[south]/inner", "s0 s1 e0 e1 "),
        ("score[east]/inner[#1]/deep", ""),
        ("score[south]/odd", "e0 e1 "),
        ("show", ""),
    ],
)
def test_a_restart_inside_loops_executes_nothing_before_its_cut(cut, executed, make, app, tmp_path):
    run = app.run(make(*LOOP))
    (tmp_path / "w.txt").write_text("")

    again = app.restart(run.id, tmp_path / "out.ipynb", from_step=cut)

    assert again.status == "success", again.cause
    assert (tmp_path / "w.txt").read_text() == executed
    difference = app.diff(run.id, again.id)
    assert difference.equal, [step for step in difference.steps if not step.equal]
    # and of the restart, too
    third = app.restart(again.id, from_step="score[east]")
    assert third.status == "success", third.cause
    assert app.diff(run.id, third.id).equal


def test_a_kept_turn_shows_the_names_from_before_its_loop_too(make, app):
    run = app.run(make("n, m = 0, 5", "%%step a --foreach x in 'abc'\nn += 1", "print(n)"))

    again = app.restart(run.id, from_step="a[b]")

    for item, n in (("a[a]", 1), ("a[b]", 2)):
        shown = again[item].variables
        assert set(shown) == set(run[item].variables) >= {"n", "m", "x"}
        assert shown["n"].load() == n


def test_a_failed_item_is_where_a_restart_begins(make, app, tmp_path):
    notebook = make(
        "n = 0",
        "%%step a --foreach x in 'abc'\nn += 1\nopen('w.txt', 'a').write(x)",
        "%%step b --in a\nimport os\nif x == 'b' and not os.path.exists('ok'): raise ValueError",
        "print(n)",
    )
    run = app.run(notebook)
    assert run.cause.startswith("ValueError")
    (tmp_path / "ok").touch()

    plan = app.restart(run.id, plan=True)
    again = app.restart(run.id)

    assert plan.cut == "a[b]/b"
    assert again.status == "success", again.cause
    assert (tmp_path / "w.txt").read_text() == "abc"
    assert printed(again, "#4") == "3\n"


@pytest.mark.parametrize("more", ["", " --parallel 2"])
def test_items_are_taken_apart_as_a_for_does(more, make, app):
    run = app.run(
        make(
            "pairs = {'a': (1, 2, 3), 'b': (4, 5, 6)}",
            f"%%step s --foreach n, (k, (first, *rest)) in enumerate(pairs.items()){more}"
            " --key k --collect got\ngot = (n, k, first, rest)",
            "print(got)",
        )
    )
    expected = "[(0, 'a', 1, [2, 3]), (1, 'b', 4, [5, 6])]\n"
    assert printed(run, "#3") == expected, run.cause
    assert printed(app.restart(run.id, from_step="s[b]"), "#3") == expected


def test_a_loop_goes_on_past_failed_items(make, app):
    run = app.run(
        make(
            "%%step a --foreach x in [1, 0, 2] --on-error skip --collect y\ny = 1 / x",
            "print(y)",
        )
    )

    assert run.status == "success", run.cause
    assert printed(run, "#2") == "[1.0, None, 0.5]\n"


def test_a_while_loop_carries_its_changes_over(make, app):
    run = app.run(make("n = 1", "%%step grow --while n < 100 --collect n\nn *= 3", "print(n)"))
    assert printed(run, "#3") == "[3, 9, 27, 81, 243]\n"

    again = app.restart(run.id, from_step="grow[3]")

    assert app.diff(run.id, again.id).equal


def test_a_while_loop_that_does_not_end_fails_with_its_bound(make, app):
    run = app.run(make("n = 0", "%%step forever --while True --max-turns 3\nn += 1"))

    assert run.status == "failed"
    assert run.cause == "True is still true after 3 turns (--max-turns)"


def test_items_may_be_objects_and_share_with_variables(make, app):
    notebook = make(
        "boxes = [{'n': 1}, {'n': 2}]",
        "%%step fill --foreach box in boxes --key box['n']\nbox['n'] += 10",
        "print(boxes)",
    )
    run = app.run(notebook)
    assert printed(run, "#3") == "[{'n': 11}, {'n': 12}]\n"

    again = app.restart(run.id, from_step="fill[2]")

    assert app.diff(run.id, again.id).equal


def test_an_empty_loop_collects_an_empty_list(make, app):
    run = app.run(make("%%step a --foreach x in [] --collect y\ny = x", "print(y)"))

    assert (run.status, printed(run, "#2")) == ("success", "[]\n")


def test_a_run_that_ends_with_a_loop_is_audited_at_its_end(make, app):
    run = app.run(make("a = [1]", "%%step s --foreach x in [1, 2]\nb = x"))

    finished = [r for r in app.journal(run.id) if r["type"] == "finished"]
    assert finished[-1]["delta"]["audited"]


def test_progress_counts_a_loop_once_and_an_attempt_never(make, app):
    class Bar:
        counted, expected, names = 0, 0, ()

        def total(self, steps):
            self.expected = steps

        def step(self, label):
            self.names += (label,)

        def done(self):
            self.counted += 1

        def close(self):
            pass

    bar = Bar()
    app.run(
        make(
            "n = 0",
            "%%step s --foreach x in 'ab'\nb = x",
            "%%step inner --in s\nc = b",
            "%%step t --when False\nb = 1",
            "%%step f --retry 2 --backoff 1ms\nimport os\n"
            "if not os.path.exists('w'): open('w', 'w').close(); raise ValueError",
        ),
        progress=bar,
    )

    assert bar.counted == bar.expected == 4
    assert bar.names == ("#1", "s[a]", "s[a]/inner", "s[b]", "s[b]/inner", "f")


def test_several_targets_take_an_item_apart(make, app):
    run = app.run(make("d = {'a': 1}", "%%step s --foreach k, v in d.items()\nprint(k, v)"))

    assert printed(run, "s") == "a 1\n"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--foreach x in 5", "TypeError: 'int' object is not iterable"),
        ("--foreach x in [[1], [2]] --key x", "a list is no key; make it a string"),
        ("--foreach x in [1, 2] --key 'same'", "'same' is the key of two items"),
        ("--foreach x, y in [(1, 2, 3)]", "--foreach x, y: too many values to unpack"),
        ("--foreach x, (y, z) in [(1, 2)]", "--foreach x, (y, z): cannot unpack"),
    ],
)
def test_bad_items_are_named(line, told, make, app):
    run = app.run(make(f"%%step a {line}\npass"))

    assert run.status == "failed"
    assert told in run.cause


@pytest.mark.parametrize(
    ("cut", "error", "told"),
    [
        ("inner", RestartRefused, "belongs to the loop 'score': which item?"),
        ("score[nort]", StepNotFound, "did you mean 'north'?"),
        ("score[#9]", StepNotFound, "had no item '#9'"),
        ("show[1]", StepNotFound, "step 'show' is no loop"),
        ("inner[0]", RestartRefused, "belongs to the loop 'score': which item?"),
        ("inner[0]/deep", RestartRefused, "belongs to the loop 'score': which item?"),
        ("score[north", StepNotFound, "is no step's address"),
        ("score[north]/show", StepNotFound, "not how the loops are nested"),
    ],
)
def test_addresses_that_lead_nowhere_say_so(cut, error, told, make, app):
    run = app.run(make(*LOOP))

    with pytest.raises(error, match=r".") as raised:
        app.restart(run.id, from_step=cut)
    assert told in str(raised.value)


def test_a_loop_without_its_header_is_refused_before_anything_runs(make, app):
    with pytest.raises(BadNotebook, match="--in nothing: no step above"):
        app.run(make("x = 1", "%%step a --in nothing\ny = 1"))


def test_a_retry_finds_the_environment_as_it_was_before_the_step(make, app, monkeypatch):
    monkeypatch.setenv("KEPT", "k")
    monkeypatch.setenv("LOST", "l")
    seen = "print([os.environ.get(name) for name in ('ZZ', 'BEFORE', 'KEPT', 'LOST')])"
    run = app.run(
        make(
            "import os\nfrom pathlib import Path\nos.environ['BEFORE'] = 'b'",
            f"%%step a --retry 3 --backoff 1ms\n{seen}\n"
            "os.environ['ZZ'] = os.environ.get('ZZ', '') + 'x'\n"
            "os.environ['BEFORE'] += 'c'; os.environ['KEPT'] += 'x'; os.environ.pop('LOST', 0)\n"
            "with open('tries', 'a') as file: file.write('x')\n"
            "if len(Path('tries').read_text()) < 4: raise ValueError('again')",
            f"%%step b\n{seen}",
        )
    )

    assert run.status == "success", run.cause
    assert run["a"].outputs[0]["text"] == "[None, 'b', 'k', 'l']\n"
    assert run["b"].outputs[0]["text"] == "['x', 'bc', 'kx', None]\n"


# --- loops that something in them ends ---------------------------------------------------------

NESTED = (
    "%%step O --foreach o in 'ab'\npass",
    "%%step I --in O --foreach i in [1, 2]\npass",
    "%%step K --in I{line}\n{code}",
    "print('end')",
)


def nested(line: str, code: str) -> list[str]:
    return [source.replace("{line}", line).replace("{code}", code) for source in NESTED]


def test_the_loops_around_a_step_that_failed_tell_which_one_it_was(make, app, cellrail):
    path = make(*nested("", "if (o, i) == ('b', 2): 1 / 0"))
    done = cellrail("run", path)
    run = app.show("last")

    told = {step.label: (str(step.status), step.cause) for step in run.steps}
    assert told["O"] == told["I"] == ("failed", "O[b]/I[2]/K failed")
    assert told["K"] == ("failed", "ZeroDivisionError: division by zero")
    assert "step O[b]/I[2]/K failed: ZeroDivisionError: division by zero" in done.stderr
    assert done.stderr.count("failed: ") == 1
    assert "interrupted" not in done.stdout + done.stderr


def test_a_loop_that_stop_if_ends_is_pending_and_a_restart_goes_on_with_it(make, app, tmp_path):
    code = "open('w.txt', 'a').write(f'{o}{i} ')"
    run = app.run(make(*nested(" --stop-if (o, i) == ('a', 2)", code)))

    assert run.status == "success"
    told = {step.label: (str(step.status), step.cause) for step in run.steps}
    assert told["O"] == told["I"] == ("pending", "the run ended at O[a]/I[2]/K")
    assert told["#4"] == ("pending", "")
    make(*nested("", code))
    again = app.restart(run.id, from_step="O")
    assert again.status == "success", again.cause
    assert (tmp_path / "w.txt").read_text() == "a1 a2 a1 a2 b1 b2 "


def test_a_loop_in_which_a_step_waits_is_suspended(make, app):
    code = "from cellrail import flow\nif o == 'b': flow.suspend('1d')"
    run = app.run(make(*nested("", code)))

    assert run.status == "suspended"
    told = {step.label: str(step.status) for step in run.steps}
    assert told == {"O": "suspended", "I": "suspended", "K": "suspended", "#4": "pending"}
    assert run["O"].cause == run.cause == "waits behind O[b]/I[1]/K until it is resumed"
    assert app.resume(run.id).status in {"suspended", "success"}
