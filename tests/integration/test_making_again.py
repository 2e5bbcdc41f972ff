"""What cannot be stored is made again, and nothing else of the cells that make it stays.

Law: behind a restart, a recovery or `%flow restart` every name holds what it held in the run that
was never disturbed, whatever cells that ran again changed in place, loops as well as plain cells.
"""

from __future__ import annotations

import pytest

from cellrail.errors import RestartRefused
from reading import printed

SETUP = "import threading\nlock, acc = threading.Lock(), [1]"
END = "%%step end\nprint(acc, lock.locked())"


def fates(plan):
    return {step.label: str(step.fate) for step in plan.steps}


@pytest.mark.parametrize(
    "cells",
    [
        ("%%step lp --foreach i in ['a']\nlock.locked(); acc.append(1)",),
        ("%%step lp --foreach i in ['a', 'b']\nlock.locked(); acc.append(i)",),
        ("%%step lp --foreach i in ['a', 'b']\nlock.locked()",
         "%%step body --in lp\nlock.locked(); acc.append(i)"),
        ("%%step lp --while len(acc)<3\nlock.locked(); acc.append(1)",),
        ("lock.locked(); acc.append(1)",),
        # the namespace before the cut is the one before the cell that runs again
        ("lock.locked(); acc.append(1)", "acc.pop()"),
    ],
)  # fmt: skip
def test_what_a_cell_that_runs_again_changes_in_place_does_not_stay(make, app, cells):
    run = app.run(make(SETUP, *cells, "%%step use\nacc.append(2)", END))
    assert run.status == "success", run.cause

    again = app.restart(run.id, from_step="use")

    assert again.status == "success", again.cause
    assert printed(again, "end") == printed(run, "end")


@pytest.mark.parametrize(
    ("step", "items"),
    [("%%step", "['a', 'b']"), ("%%step", "[lock, threading.Lock()]"), ("# step:", "['a', 'b']")],
)
def test_in_an_open_notebook_neither(make, front, step, items):
    cells = (
        "%load_ext cellrail\n%flow config notebook=flow.ipynb", SETUP,
        f"{step} lp --foreach i in {items}\nlock.locked(); acc.append('ab'[len(acc) - 1])",
        "%%step use\nacc.append(2)", END,
    )  # fmt: skip
    make(*cells)
    said = [front.run(cell, f"cell-{place}") for place, cell in enumerate(cells, 1)][-1]
    assert said == "[1, 'a', 'b', 2] False\n"

    assert "right before 'use'" in front.run("%flow restart --from use", "scratch")
    assert front.run("print(acc)", "scratch") == "[1, 'a', 'b']\n"
    assert [front.run(cells[n], f"cell-{n + 1}") for n in (3, 4)][-1] == said


# --- loops that make it ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "executed"),
    [
        # bound anew by each item: the last one will do, on what it found
        (("%%step lp --foreach i in [1, 2]\nnote(i); acc.append(i); lock = threading.Lock(); "
          "held = (x for x in list(acc)), i",), 1),
        # grown by each item
        (("%%step lp --foreach i in [1, 2]\nnote(i); acc.append(i); held.append(i)",), 2),
        # what an item raises is tolerated as it was
        (("%%step lp --foreach i in [1, 2] --on-error continue\nnote(i); acc.append(i); "
          "held.append(i)\nif i == 2: raise ValueError(i)",), 2),
        # of a failed item only what cannot be put back has stayed
        (("%%step lp --foreach i in [1, 2] --on-error skip\nnote(i); acc.append(i); "
          "held.append(i)\nif i == 2: raise ValueError(i)",), 2),
        (("%%step lp --foreach i in [1, 2]",
          "%%step make --in lp\nnote(i); lock = threading.Lock(); acc.append(i)",
          "%%step take --in lp\nnote(i); held.append(i if lock.acquire() else 0)"), 4),
        (("%%step lp --foreach i in [1, 2]\nacc.append(i)",
          "%%step inner --in lp --foreach j, k in [(i, 3), (i, 4)] --key k\n"
          "note(i); held.append((i, j, k))"), 4),
        (("%%step lp --while len(acc)<3\nnote(0); acc.append(1); held.append(len(acc))",), 2),
        # the items cannot be stored
        (("%%step lp --foreach i in [lock, threading.RLock()]\nnote(0); held.append(type(i))",
          ), 2),
        (("%%step lp --foreach i in []\nheld.append(i)",), 0),
        # items had kernels of their own: nothing of them is here
        (("%%step lp --foreach i in [1, 2] --parallel 2\nlock.locked(); len(held)",), 0),
        (("%%step may --on-error continue\nnote(0); held.append(2); raise ValueError(1)",), 1),
    ],
)  # fmt: skip
def test_a_loop_makes_again_what_its_items_made(make, app, tmp_path, cells, executed):
    setup = (
        "import threading\nlock, acc = threading.Lock(), [1]\nheld = [threading.Lock()]\n"
        "def note(i):\n    with open('notes', 'a') as f:\n        f.write('x')"
    )
    shown = "[list(h) if hasattr(h, 'gi_frame') else h for h in held[1:]], list(held)[:0]"
    if "held = " in cells[0]:
        shown = "list(held[0]), held[1]"
    end = f"%%step end\nprint({shown}, acc, lock.locked())"
    run = app.run(make(setup, *cells, "%%step use\nacc.append(5)", end))
    assert run.status == "success", run.cause
    notes = tmp_path / "notes"
    notes.write_text("")

    again = app.restart(run.id, from_step="use")

    assert again.status == "success", again.cause
    assert printed(again, "end") == printed(run, "end")
    assert len(notes.read_text()) == executed


@pytest.mark.parametrize(
    "cells",
    [
        ("%%step lp --foreach i in [1, 2] --collect lock\nlock = threading.Lock()",),
        ("%%step lp --foreach i in [1, 2] --collect lock",
         "%%step make --in lp\nlock = threading.Lock()"),
    ],
)  # fmt: skip
def test_what_a_loop_has_collected_is_not_made_again_by_halves(make, app, cells):
    run = app.run(make("import threading", *cells, "%%step end\nprint(len(lock))"))
    assert printed(run, "end") == "2\n"

    with pytest.raises(RestartRefused, match="the loop 'lp' has collected it"):
        app.restart(run.id, from_step="end")


def test_items_that_are_others_by_now_are_refused(make, app, tmp_path):
    (tmp_path / "names").write_text("ab")
    run = app.run(
        make(
            "import threading\nheld = [threading.Lock()]",
            "def items():\n    return [(c, threading.Lock()) for c in open('names').read()]",
            "%%step lp --foreach name, lock in items() --key name\nheld.append(name)",
            "%%step end\nprint(held[1:])",
        )
    )
    assert printed(run, "end") == "['a', 'b']\n"
    assert printed(app.restart(run.id, from_step="end"), "end") == "['a', 'b']\n"
    (tmp_path / "names").write_text("xy")

    with pytest.raises(RestartRefused, match=r"cannot be had as they were: lp\[a\] is no longer"):
        app.restart(run.id, from_step="end")


# --- whose value it is -----------------------------------------------------------------------


def test_a_cell_that_only_reads_a_secret_text_has_not_made_it(make, app, tmp_path):
    app.variable_set("pw", "s3cret-pass", secret=True)
    run = app.run(
        make(
            "import os\nfrom cellrail import flow, get_variable",
            "%%step secret\npw = get_variable('pw')",
            "%%step mail\nflow.once('mail', lambda: len(pw))",
            "%%step lp --foreach i in [pw, 'b'] --on-error continue\nlen(pw)\n"
            "if i == 'b':\n    raise ValueError(pw)",
            "%%step end\nif not os.path.exists('ok'):\n    raise ValueError('no')\nprint(len(pw))",
        )
    )
    assert run.status == "failed"
    (tmp_path / "ok").touch()

    plan = app.restart(run.id, plan=True)

    assert fates(plan) == {
        "#1": "kept", "secret": "rebuilds", "mail": "kept", "lp": "kept", "end": "executes",
    }  # fmt: skip
    again = app.restart(run.id)
    assert again.status == "success", again.cause
    assert printed(again, "end") == "11\n"


@pytest.mark.parametrize(
    "between",
    [
        "%%step mail\npw = pw + get_variable('more'); flow.once('mail', lambda: 1)",
        # a function binds the name anew: maybe at the same address
        "def turn():\n    global pw\n    pw = None\n    pw = get_variable('more')",
        "%%step mail\nexec('pw = pw + get_variable(\"more\")'); flow.once('mail', lambda: 1)",
    ],
)
def test_a_cell_that_may_have_bound_it_must_not_run_twice(make, app, between):
    app.variable_set("pw", "s3cret-pass", secret=True)
    app.variable_set("more", "s3cret-more", secret=True)
    tail = () if "mail" in between else ("%%step mail\nturn(); flow.once('mail', lambda: 1)",)
    run = app.run(
        make("from cellrail import flow, get_variable\npw = get_variable('pw')", between, *tail,
             "%%step end\nprint(len(pw))")
    )  # fmt: skip
    assert run.status == "success", run.cause

    with pytest.raises(RestartRefused) as refused:
        app.restart(run.id, from_step="end")

    assert str(refused.value).count("`pw` is lost: it cannot be stored, and step 'mail'") == 1


def test_what_may_have_changed_a_value_in_place_refuses_once_and_says_so(make, app):
    run = app.run(
        make(
            "from cellrail import flow",
            "%%step made\nimport threading\nlock, other = threading.Lock(), threading.Lock()",
            "%%step one\nflow.once('one', lambda: lock.locked() or other.locked())",
            "%%step two\nflow.once('two', lambda: lock.locked() or other.locked())",
            "%%step end\nprint(lock.locked(), other.locked())",
        )
    )
    assert run.status == "success", run.cause

    plan = app.restart(run.id, from_step="end", plan=True)

    assert len(plan.refusals) == len(set(plan.refusals)) == 4
    assert (
        "`lock` is lost: it cannot be stored, and step 'one', which may have changed it, has "
        "recorded once"
    ) in plan.refusals
