"""`flow.each` through real kernels: a cell goes on where its loop has stored.

Laws:

* a retry, a recovery and a restart at the step go on behind the last item stored; no item before it
  is executed again (counted by a witness file), and what comes out equals an undisturbed run's:
  values, sharing, classes, random numbers;
* whatever else executes the cell begins anew: a restart before its step, another parameter that it
  reads, a person in an open notebook;
* what is stored in mid-cell disturbs neither the checkpoint at the cell's end nor a roll-back;
* items that are not what they were are refused with a clear message, or as `on_change` says;
* of what was stored only what is needed is kept, and no secret is in it.
"""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cellrail.kernels.ending import end_kernels
from cellrail_state.doctor import examine, holding, references
from cellrail_state.model import EachStored
from cellrail_state.prune import prune
from reading import counts, printed

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")

#: in a cell: who is killed, or what fails, once for each word
SETUP = (
    "import os, signal, time, random\n"
    "from cellrail import flow\n"
    "def witness(word):\n"
    "    fd = os.open('witness.txt', os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n"
    "    os.write(fd, f'{word}\\n'.encode()); os.close(fd)\n"
    "def crash(word, who='driver'):\n"
    "    name = f'crash-{word}'\n"
    "    if os.environ.get('CALM') or os.path.exists(name): return\n"
    "    os.close(os.open(name, os.O_CREAT))\n"
    "    if who == 'error': raise ValueError(word)\n"
    "    if who in ('driver', 'both'): os.kill(os.getppid(), signal.SIGKILL)\n"
    "    if who in ('kernel', 'both'): os.kill(os.getpid(), signal.SIGKILL)\n"
    "    time.sleep(60)\n"
)
TRAIN = (
    "%%step train {options}\n"
    "class Model:\n"
    "    def __init__(self): self.w = []\n"
    "    def step(self, x): self.w.append(x)\n"
    "model = Model()\n"
    "opt = {{'of': model, 'n': 0}}\n"
    "random.seed(5)\n"
    "for epoch in flow.each('epoch', range(8), save=['model', 'opt', 'epoch'], every={every}):\n"
    "    witness(epoch)\n"
    "    model.step(random.random())\n"
    "    opt['n'] += 1\n"
    "    if epoch == 5: crash('five', '{who}')\n"
    "last = epoch\n"
)
AFTER = "%%step after\nprint(opt['of'] is model, type(model) is Model, opt['n'], last, model.w)"


def train(who: str, *, options: str = "", every: object = 1) -> str:
    return TRAIN.format(who=who, options=options, every=every)


def stored(app, run_id: str) -> list[EachStored]:
    return [r for r in app.store.records(run_id, verify=True) if isinstance(r, EachStored)]


@pytest.fixture
def calm(make, app, tmp_path, monkeypatch):
    """The same notebook, undisturbed; the witness forgets it."""

    def run(notebook: Path):
        with monkeypatch.context() as patched:
            patched.setenv("CALM", "1")
            done = app.run(notebook)
        assert done.status == "success", done.cause
        (tmp_path / "witness.txt").unlink(missing_ok=True)
        return done

    return run


def files(records) -> set[str]:
    return {f.digest for record in records for ref in references(record) for f in ref.files()}


def same(app, one, other) -> None:
    found = app.diff(one.id, other.id)
    assert found.equal, found


@pytest.mark.parametrize("who", ["driver", "kernel", "both"])
def test_a_crashed_run_goes_on_behind_the_last_item_stored(
    make, app, cellrail, calm, tmp_path, who
):
    notebook = make(SETUP, train(who), AFTER)
    undisturbed = calm(notebook)
    cellrail("run", notebook)
    run = app.show("last")
    assert run.status == ("failed" if who == "kernel" else "interrupted")
    assert counts(tmp_path) == {str(n): 1 for n in range(6)}

    again = app.recover(run.id)

    assert (again.id, again.status) == (run.id, "success"), again.cause
    assert counts(tmp_path) == {**{str(n): 1 for n in range(8)}, "5": 2}
    assert printed(again, "after").startswith("True True 8 7 [")
    same(app, undisturbed, again)


@pytest.mark.parametrize("options", ["--retry 1 --backoff 1ms", "--retry 2 --backoff 1ms"])
def test_a_retry_rolls_the_namespace_back_and_then_goes_on(make, app, calm, tmp_path, options):
    before = "made = [0]\nalso = made"
    code = train("error", options=options).replace("random.seed(5)", "random.seed(5); made += [1]")
    notebook = make(SETUP, before, code, AFTER + "\nprint(made, also is made)")
    undisturbed = calm(notebook)

    run = app.run(notebook)

    assert run.status == "success", run.cause
    assert counts(tmp_path) == {**{str(n): 1 for n in range(8)}, "5": 2}
    assert printed(run, "after").endswith("[0, 1] True\n")
    same(app, undisturbed, run)


def test_a_restart_at_the_step_goes_on_and_its_plan_says_so(make, app, calm, tmp_path):
    notebook = make(SETUP, train("error"), AFTER)
    undisturbed = calm(notebook)
    run = app.run(notebook)
    assert run.status == "failed"

    plan = app.restart(run.id, plan=True)
    assert any("flow.each('epoch') goes on behind item 5 of 8" in line for line in plan.lines())
    again = app.restart(run.id)

    assert again.status == "success", again.cause
    assert counts(tmp_path) == {**{str(n): 1 for n in range(8)}, "5": 2}
    same(app, undisturbed, again)
    # what was stored is no longer needed: the step has a checkpoint
    anew = app.restart(again.id, from_step="train")
    assert anew.status == "success"
    assert counts(tmp_path)["0"] == 2
    same(app, undisturbed, anew)


def test_a_restart_that_crashes_is_recovered_with_what_it_has_inherited(
    make, app, cellrail, calm, tmp_path
):
    code = train("error").replace(
        "    if epoch == 5", "    if epoch == 6: crash('six')\n    if epoch == 5"
    )
    notebook = make(SETUP, code, AFTER)
    undisturbed = calm(notebook)
    first = app.run(notebook)
    assert cellrail("restart", first.id).returncode == -signal.SIGKILL

    again = app.recover(app.show("last").id)

    assert again.status == "success", again.cause
    assert counts(tmp_path) == {**{str(n): 1 for n in range(8)}, "5": 2, "6": 2}
    same(app, undisturbed, again)


def test_a_restart_of_an_edited_cell_goes_on_with_the_new_code(make, app, edit, tmp_path):
    notebook = make(SETUP, train("error"), AFTER)
    run = app.run(notebook)
    edit(notebook, "self.w.append(x)", "self.w.append(-1)")

    again = app.restart(run.id)

    assert again.status == "success", again.cause
    assert printed(again, "train") == (
        "cellrail: flow.each('epoch') goes on behind item 5 of 8, stored before the cell was "
        "edited (under another name it begins anew)\n"
    )
    assert printed(again, "after").endswith(", -1, -1, -1]\n")
    assert counts(tmp_path) == {**{str(n): 1 for n in range(8)}, "5": 2}


def test_a_restart_before_the_step_or_with_another_parameter_begins_anew(make, app, tmp_path):
    parameters = "rate = 1\nother = 1"
    code = train("error").replace("random.seed(5)", "random.seed(5 * rate)")
    notebook = make(parameters, SETUP, code, tags={1: ["parameters"]})
    run = app.run(notebook)
    assert run.status == "failed"

    assert app.restart(run.id, parameters={"other": 2}).status == "success"
    assert counts(tmp_path)["0"] == 1
    assert app.restart(run.id, parameters={"rate": 2}).status == "success"
    assert counts(tmp_path)["0"] == 2
    assert app.restart(run.id, from_step="#2").status == "success"
    assert counts(tmp_path)["0"] == 3


@pytest.mark.parametrize(
    ("every", "positions", "again"),
    [("3", [1, 3, 6, 8], "345"), ("'1h'", [1, 8], "12345"), ("'0s'", list(range(1, 9)), "5")],
)
def test_it_stores_after_the_first_item_after_every_and_at_the_end(
    make, app, calm, tmp_path, every, positions, again
):
    notebook = make(SETUP, train("error", options="--retry 1 --backoff 1ms", every=every), AFTER)
    undisturbed = calm(notebook)
    assert [r.position for r in stored(app, undisturbed.id)] == positions
    assert [r.ended for r in stored(app, undisturbed.id)][-2:] == [False, True]

    run = app.run(notebook)

    assert counts(tmp_path) == {str(n): 1 + (str(n) in again) for n in range(8)}
    same(app, undisturbed, run)


NESTED = (
    "%%step work --retry 3 --backoff 1ms\n"
    "total, rows = 0, []\n"
    "for first in flow.each('first', 'ab', save=['total', 'first']):\n"
    "    witness(first); total += 1\n"
    "    if first == 'b': crash('in-first', 'error')\n"
    "for outer in flow.each('outer', range(3), save=['rows', 'outer'], every=2):\n"
    "    witness(f'outer{outer}')\n"
    "    here = []\n"
    "    for inner in flow.each('inner', iter('xyz'), save=['here']):\n"
    "        witness(f'{outer}{inner}')\n"
    "        here.append(inner)\n"
    "        if (outer, inner) in ((1, 'y'), (2, 'z')): crash(f'{outer}{inner}', 'error')\n"
    "    rows.append((outer, here))\n"
)


def test_nested_loops_and_several_in_one_cell_go_on_each_by_itself(make, app, calm, tmp_path):
    notebook = make(SETUP, NESTED, "%%step after\nprint(total, rows, first, outer)")
    undisturbed = calm(notebook)

    run = app.run(notebook)

    assert run.status == "success", run.cause
    assert printed(run, "after") == printed(undisturbed, "after")
    same(app, undisturbed, run)
    twice = {"b", "outer1", "1y", "outer2", "2z"}
    every = {
        "a",
        "b",
        *(f"outer{n}" for n in range(3)),
        *(f"{n}{x}" for n in range(3) for x in "xyz"),
    }
    assert counts(tmp_path) == {word: 1 + (word in twice) for word in every}
    # an inner loop's last record goes with its item
    assert not app.history(run.id).each.records()


@pytest.mark.parametrize(
    "around", ["for k in range(2): fit('inner')", "fit('inner'); fit('inner')"]
)
def test_a_second_loop_of_the_same_name_in_a_cell_is_refused(around, make, app):
    function = (
        "from cellrail import flow\nhits = 0\ndef fit(name):\n    global hits\n"
        "    for i in flow.each(name, range(3), save=['hits']): hits += 1"
    )
    run = app.run(make(function, f"%%step a --retry 1 --backoff 1ms\n{around}"))
    assert "flow.each('inner'): the cell has had a loop of this name before" in run.cause

    named = "for k in range(2): fit(f'inner-{k}')"
    assert (
        app.run(make(function, named, "%%step end\nprint(hits)"))["end"].outputs[0]["text"] == "6\n"
    )


@pytest.mark.parametrize("region", ["n", "s"])
@pytest.mark.parametrize("more", ["", "--parallel 2"])
@pytest.mark.parametrize("failed_only", [False, True])
def test_items_of_loops_go_on_and_a_failed_one_alone(
    make, app, tmp_path, region, more, failed_only
):
    # in a comprehension: items that tell others nothing can be executed alone
    cell = (
        f"%%step fit --foreach region in ['n', 's', 'e'] --collect w {more}\n"
        "w = []\n"
        "[\n"
        "    (witness(f'{region}{k}'), w.append(k),\n"
        f"     (region, k) == ('{region}', 1) and crash('item', 'error'))\n"
        "    for k in flow.each('k', range(3), save='w')\n"
        "];\n"
    )
    run = app.run(make(SETUP, cell, "%%step after\nprint(w)"))
    assert run.status == "failed"
    again = app.restart(run.id, failed_only=failed_only)
    assert again.status == "success", again.cause
    assert printed(again, "after") == "[[0, 1, 2], [0, 1, 2], [0, 1, 2]]\n"
    found = counts(tmp_path)
    assert found.pop(f"{region}1") == 2
    assert set(found.values()) == {1}, found


@pytest.mark.parametrize("more", ["", "--parallel 2"])
def test_the_first_item_of_an_inner_loop_goes_on(make, app, tmp_path, more):
    cell = (
        "%%step fit --in lp --foreach region in ['n', 's'] --collect w\nw = []\n"
        "for k in flow.each('k', range(3), save='w'):\n"
        "    witness(f'{x}{region}{k}'); w.append(k)\n"
        "    if (x, region, k) == (2, 'n', 1): crash('item', 'error')\n"
    )
    loop = f"%%step lp --foreach x in [1, 2] --collect w {more}\nw = 0"
    run = app.run(make(SETUP, loop, cell, "%%step after\nprint(w)"))
    assert run.status == "failed"

    again = app.restart(run.id)

    assert again.status == "success", again.cause
    assert printed(again, "after") == f"{[[[0, 1, 2]] * 2] * 2}\n"
    found = counts(tmp_path)
    assert found.pop("2n1") == 2
    assert set(found.values()) == {1}, found


def test_classes_and_functions_from_anywhere_stay_the_notebooks_own(make, app, calm):
    cells = (
        SETUP,
        "class Base:\n    made = 0\n    def __init__(self): type(self).made += 1; self.seen = []\n"
        "def double(x): return 2 * x",
        "%%step work --retry 1 --backoff 1ms\n"
        "class Own(Base):\n    made = 0\n    @property\n    def n(self): return len(self.seen)\n"
        "def counter():\n    n = 0\n    def count():\n        nonlocal n; n += 1; return n\n"
        "    return count\n"
        "own, count, apply = [], counter(), double\n"
        "for k in flow.each('k', range(4), save=['own', 'count', 'apply']):\n"
        "    own.append(Own()); own[-1].seen.append(apply(count())); Base.made += 1\n"
        "    if k == 2: crash('two', 'error')\n",
        "%%step after\nprint([(type(o) is Own, o.n, o.seen) for o in own], Own.made, Base.made,\n"
        "      apply is double, count(), isinstance(own[0], Base))",
    )
    notebook = make(*cells)
    undisturbed = calm(notebook)
    assert printed(undisturbed, "after").endswith("4 4 True 5 True\n")
    run = app.run(notebook)
    assert run.status == "success", run.cause
    assert printed(run, "after") == printed(undisturbed, "after")
    same(app, undisturbed, run)


def test_what_cannot_be_stored_is_told_after_the_first_item(make, app, tmp_path):
    for body, told in (
        ("f = open('witness.txt', 'a')", "flow.each('k'): `f` cannot be stored: "),
        ("g = 1", "flow.each('k'): there is no variable 'f' to save"),
    ):
        run = app.run(
            make(
                SETUP,
                "%%step work\nfor k in flow.each('k', range(5), save='f', every='1h'):\n"
                f"    witness(k); {body}",
            )
        )
        assert run.status == "failed"
        assert told in run.cause
        assert counts(tmp_path) == {"0": 1}
        (tmp_path / "witness.txt").unlink()


def test_a_storing_that_fails_later_is_told_once_and_the_loop_goes_on(make, app):
    run = app.run(
        make(
            SETUP,
            "%%step work\nx = 0\nfor k in flow.each('k', range(4), save='x'):\n"
            "    x = k if k in (0, 3) else open('witness.txt', 'a')",
            "%%step after\nprint(x)",
        )
    )
    assert run.status == "success", run.cause
    assert printed(run, "after") == "3\n"
    assert printed(run, "work").count("cellrail: ") == 1
    assert "flow.each('k') could not store after item 2: `x` cannot be stored" in printed(
        run, "work"
    )
    assert [(r.position, r.ended) for r in stored(app, run.id)] == [(1, False), (4, True)]


def test_no_secret_is_stored(make, app, everything, disguises):
    notebook = make(
        "password = ''  # secret",
        SETUP,
        "%%step work\nx, y = 1, 'before ' + password\n"
        "for k in flow.each('k', range(3), save=['x', 'y']): pass",
        tags={1: ["parameters"]},
    )
    run = app.run(notebook, parameters={"password": "correct horse battery"})
    assert run.status == "failed"
    assert "flow.each('k'): `y` cannot be stored: " in run.cause
    assert stored(app, run.id) == []
    for where, content in everything(app):
        assert not any(form in content for form in disguises("correct horse battery")), where


CHANGED = (
    "%%step work\nw = []\nfor k in flow.each('k', ITEMS, save=['w']):\n"
    "    witness(k); w.append(k)\n    if k == 3: crash('three', 'error')\n"
)


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ("range(9)", "there were 5 items, and they are 9 now"),
        ("[0, 1, 7, 3, 4]", "the first 3 items are not the ones that were done"),
        ("iter(range(5))", "there were 5 items, and they cannot be counted now"),
    ],
)
def test_other_items_are_refused_or_what_on_change_says(make, app, edit, tmp_path, items, told):
    notebook = make(SETUP, CHANGED.replace("ITEMS", "[0, 1, 2, 3, 4]"), "%%step after\nprint(w)")
    run = app.run(notebook)
    edit(notebook, "[0, 1, 2, 3, 4]", items)
    refused = app.restart(run.id)
    assert refused.status == "failed"
    assert f"EachChanged: flow.each('k') has stored after item 3, but {told}" in refused.cause
    edit(notebook, "save=['w']", "save=['w'], on_change='continue'")
    assert app.restart(refused.id).status == "success"
    assert counts(tmp_path)["0"] == 1
    edit(notebook, "on_change='continue'", "on_change='anew'")
    anew = app.restart(refused.id)
    assert anew.status == "success", anew.cause
    assert counts(tmp_path)["0"] == 2


def test_another_name_to_save_is_refused(make, app, edit):
    notebook = make(SETUP, CHANGED.replace("ITEMS", "range(5)").replace("w = []", "w, v = [], 1"))
    run = app.run(notebook)
    edit(notebook, "save=['w']", "save=['w', 'v']")
    refused = app.restart(run.id)
    assert "has stored after item 3, but 'v' was not saved then" in refused.cause


def test_what_was_stored_is_kept_while_it_is_needed_and_freed_then(make, app, tmp_path):
    big = "bytearray(os.urandom(300_000))"
    cell = (
        f"%%step work\nfor k in flow.each('k', range(4), save=['x']):\n    x = {big}\n"
        "    if k == 2: crash('two', 'error')\n"
    )
    run = app.run(make(SETUP, cell))
    assert run.status == "failed"
    store, later = app.store, time.time() + 10 * 86_400
    records = stored(app, run.id)
    assert len(records) == 2
    prune(store, keep_last=100, now=later)
    [needed] = [r for r in holding(store.records(run.id)) if isinstance(r, EachStored)]
    assert needed == records[-1]
    assert all(store.objects.contains(f) for ref in needed.checkpoint.refs() for f in ref.files())
    gone = files(records[:1]) - files([needed])
    assert gone
    assert not {path.name for path in store.objects.files()} & gone
    assert not examine(store, now=later).findings

    again = app.restart(run.id)

    assert again.status == "success", again.cause
    assert not [r for r in holding(store.records(again.id)) if isinstance(r, EachStored)]
    kept = {
        f.digest
        for r in holding(store.records(again.id))
        for ref in references(r)
        for f in ref.files()
    }
    passing = {
        f.digest for r in stored(app, again.id) for ref in r.checkpoint.refs() for f in ref.files()
    }
    prune(store, keep_last=100, now=later)
    left = {path.name for path in store.objects.files()}
    assert passing - kept
    # the origin can be restarted once more
    assert left & (passing - kept) <= {
        f.digest for ref in needed.checkpoint.refs() for f in ref.files()
    }
    assert not examine(store, now=later).findings


def test_a_lost_object_is_told_and_another_name_begins_anew(make, app, edit, tmp_path):
    cell = (
        "%%step work\nx = []\nfor k in flow.each('k', range(4), save=['x']):\n"
        "    x.append(bytearray(300_000)); x[-1][:] = os.urandom(300_000)\n"
        "    if k == 2: crash('two', 'error')\n"
    )
    notebook = make(SETUP, cell)
    run = app.run(notebook)
    ref = next(f for r in stored(app, run.id)[-1].checkpoint.refs() for f in r.files())
    [path] = [p for p in app.store.objects.files() if p.name == ref.digest]
    path.chmod(0o600)
    path.unlink()
    kinds = [
        (f.kind, "what flow.each('k') stored" in f.message) for f in examine(app.store).findings
    ]
    assert ("missing object", True) in kinds
    refused = app.restart(run.id)
    assert "CannotRestore: flow.each('k') cannot go on: " in refused.cause
    edit(notebook, "each('k'", "each('anew'")
    assert app.restart(refused.id).status == "success"


WALK = (
    "%%step walk\n"
    "import numpy as np\n"
    "np.random.seed(1)\n"
    "w, table = [], {}\n"
    "for k in flow.each('k', range(60), save=['w', 'table'], every=4):\n"
    "    witness(k); w.append(float(np.random.random())); table[k] = w\n"
    "    time.sleep(0.01)\n"
    "sums = sum(w)\n"
)


def test_killed_at_any_moments_it_ends_as_if_undisturbed(make, app, tmp_path, calm):
    notebook = make(SETUP, WALK, "%%step after\nprint(sums, len(w), table[7] is w)")
    undisturbed = calm(notebook)
    chance = random.Random(11)
    words, kills = ["run", str(notebook)], 0
    while True:
        driver = subprocess.Popen([sys.executable, "-m", "cellrail", *words], cwd=tmp_path)
        lines = len(witnessed(tmp_path))
        wanted = lines + chance.randrange(2, 14)
        deadline = time.monotonic() + 60
        while driver.poll() is None and len(witnessed(tmp_path)) < wanted:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        if driver.poll() is not None:
            break
        time.sleep(chance.random() * 0.02)
        driver.kill()
        driver.wait()
        kills += 1
        run = app.show("last")
        end_kernels(app.history(run.id).kernels)
        words = ["recover", run.id]
    run = app.show("last")
    assert run.status == "success", run.cause
    assert kills >= 3
    same(app, undisturbed, run)
    found = witnessed(tmp_path)
    starts = [int(b) for a, b in itertools.pairwise(found) if int(b) != int(a) + 1]
    # each part begins behind the last item stored: after the first one and every fourth
    assert all(start in {0, 1} or start % 4 == 0 for start in starts)
    assert all(int(a) - int(b) < 5 for a, b in itertools.pairwise(found) if int(b) <= int(a)), found


def witnessed(folder: Path) -> list[str]:
    file = folder / "witness.txt"
    return file.read_text().split() if file.exists() else []


@pytest.mark.parametrize("point", ["journal.before_append", "journal.after_append"])
def test_a_driver_killed_at_the_record_goes_on_before_or_behind_it(
    make, app, calm, tmp_path, point
):
    notebook = make(SETUP, train("error").replace("crash(", "None and crash("), AFTER)
    undisturbed = calm(notebook)
    code = (
        "import sys, os, signal\n"
        "from cellrail.run.recorder import Recorder\n"
        "each, point = Recorder.each, sys.argv.pop(1)\n"
        "def die(self, stored):\n"
        "    if stored.position < 4: return each(self, stored)\n"
        "    if point == 'journal.after_append': self._append(stored)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "Recorder.each = die\n"
        "from cellrail.cli import main\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, point, "run", str(notebook)], cwd=tmp_path, check=False
    )
    assert done.returncode == -signal.SIGKILL
    again = app.recover(app.show("last").id)
    assert again.status == "success", again.cause
    twice = {"3"} if point == "journal.before_append" else set()
    assert counts(tmp_path) == {str(n): 1 + (str(n) in twice) for n in range(8)}
    same(app, undisturbed, again)


def test_a_step_that_is_executed_again_on_purpose_begins_anew(make, app, tmp_path):
    run = app.run(
        make(
            SETUP,
            "%%step work\nw = []\nfor k in flow.each('k', range(3), save=['w']):\n"
            "    witness(k); w.append(k)\nif flow.runs < 3: flow.rerun(0)",
        )
    )
    assert run.status == "success", run.cause
    assert counts(tmp_path) == {"0": 3, "1": 3, "2": 3}


def test_values_that_a_lazy_restore_has_left_for_later_are_there(make, app, tmp_path, monkeypatch):
    monkeypatch.setenv("CELLRAIL_LAZY_ABOVE", "0")
    notebook = make(
        SETUP,
        "NAMES = ['big', 'other']\nbig = list(range(1000))\nother = [big]",
        "%%step work\n"
        "def grow(): big.append(len(big))\n"
        "for k in flow.each('k', range(4), save=NAMES):\n"
        "    grow()\n    if k == 2: crash('two', 'error')",
        "%%step after\nprint(len(big), other[0] is big)",
    )
    run = app.run(notebook)
    again = app.restart(run.id)
    assert again.status == "success", again.cause
    assert printed(again, "after") == "1004 True\n"


def test_an_alias_that_is_not_saved_is_told(make, app):
    run = app.run(
        make(
            SETUP,
            "%%step work --retry 1 --backoff 1ms\nw = []\nalias = w\n"
            "for k in flow.each('k', range(3), save='w'):\n"
            "    w.append(k)\n    if k == 1: crash('one', 'error')",
            "%%step after\nprint(w, alias)",
        )
    )
    assert printed(run, "after") == "[0, 1, 2] []\n"
    assert "`alias` shared an object with `w`, and is cut off from it" in printed(run, "work")


LIVE = (
    "%%step work {options}\nw, n = [], 0\n"
    "for k in flow.each('k', range(4), save=['w', 'k']):\n"
    "    witness(k); w.append(k)\n    if k == 2: crash('two', 'error')\n"
)


def test_in_an_open_notebook_a_restart_goes_on_and_a_person_begins_anew(make, app, front, tmp_path):
    cell = LIVE.format(options="")
    make("%load_ext cellrail", SETUP, cell)
    front.run("%load_ext cellrail\n%flow config notebook=flow.ipynb", "cell-1")
    front.run(SETUP, "cell-2")
    assert front.execute(cell, "cell-3").status == "error"
    assert counts(tmp_path) == {"0": 1, "1": 1, "2": 1}
    plan = front.run("%flow restart --from work --force --plan")
    assert "flow.each('k') goes on behind item 2 of 4" in plan
    front.run("%flow restart --from work --force")
    again = front.execute(cell, "cell-3")
    assert (again.status, again.text) == ("ok", "")
    assert front.run("w", "scratch") == "[0, 1, 2, 3]"
    assert counts(tmp_path) == {"0": 1, "1": 1, "2": 2, "3": 1}

    (tmp_path / "crash-two").unlink()
    assert front.execute(cell, "cell-3").status == "error"
    assert front.execute(cell, "cell-3").status == "ok"
    assert counts(tmp_path) == {"0": 3, "1": 3, "2": 4, "3": 2}

    (tmp_path / "crash-two").unlink()
    assert front.execute(cell, "cell-3").status == "error"
    front.run("%flow restart --from work --force")
    front.run("%flow undo")
    assert front.execute(cell, "cell-3").status == "ok"
    assert counts(tmp_path)["0"] == 5


def test_in_an_open_notebook_a_retry_goes_on_and_so_does_another_kernel(make, app, front, tmp_path):
    cell = LIVE.format(options="--retry 1 --backoff 1ms")
    make("%load_ext cellrail", SETUP, cell)
    front.run("%load_ext cellrail\n%flow config notebook=flow.ipynb", "cell-1")
    front.run(SETUP, "cell-2")
    assert front.execute(cell, "cell-3").status == "ok"
    assert counts(tmp_path) == {"0": 1, "1": 1, "2": 2, "3": 1}
    (tmp_path / "crash-two").unlink()
    dying = cell.replace("'error'", "'kernel'").replace(" --retry 1 --backoff 1ms", "")
    make("%load_ext cellrail", SETUP, dying)
    front.client.execute(dying)  # the kernel is gone before it could say so
    deadline = time.monotonic() + 60
    while front.manager.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    live = app.show("last")
    assert live.status == "interrupted"

    again = app.restart(live.id, from_step="work", force=True)

    assert again.status == "success", again.cause
    assert counts(tmp_path) == {"0": 2, "1": 2, "2": 4, "3": 2}


def test_where_nothing_is_recorded_it_is_a_plain_loop(tmp_path):
    code = "from cellrail import flow\nprint(list(flow.each('k', range(3), save=['x'])))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[0, 1, 2]\n", "")


def test_an_interrupted_loop_goes_on_in_another_kernel_without_its_notebook(make, app, front):
    notebook = make(SETUP, LIVE.format(options="").replace("range(4)", "range(9)"))
    run = app.run(notebook)
    assert run.status == "failed"
    front.run("%load_ext cellrail\n%flow config store=.cellrail", "one")
    front.run("x = 1", "two")
    front.run(f"%flow restart {run.id} --from work --force", "three")
    cell = LIVE.format(options="").replace("range(4)", "range(9)")
    assert front.execute(cell, "cell-2").status == "ok"
    assert front.run("w", "scratch") == "[0, 1, 2, 3, 4, 5, 6, 7, 8]"
    assert counts(notebook.parent)["0"] == 1
    # `x = 1` and this cell are not taken for the notebook's
    assert front.run("print(*flow.each('k', range(3)))", "two") == "0 1 2\n"
