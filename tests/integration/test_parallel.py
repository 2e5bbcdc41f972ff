"""Parallel loops: items in kernels of their own, and restarts of single items.

Laws: a parallel loop ends as the same loop did one item after another; what an item writes stays
its own but for what is collected; every item's jobs are in the journal; what ended well in the
origin is never executed again, unless it was asked for.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from cellrail.errors import BadNotebook, RestartRefused
from reading import WITNESS, counts, printed, wait_for

LOOP = (
    "import numpy as np\nregions = ['north', 'south', 'east', 'west']\nbase = np.arange(4.0)\n"
    "class Mark:\n    def __init__(self, region, total): self.region, self.total = region, total",
    "%%step score --foreach region in regions --collect mark, total{more}\n"
    "part = base[: len(region)]\nprint(region)",
    "%%step inner --in score --foreach day in range(2) --collect t\n"
    "t = (region, day)\nwith open('w.txt', 'a') as f: f.write(f'{region[0]}{day} ')",
    "%%step save --in score\ntotal = float(part.sum())",
    "%%step odd --in score --when region != 'east'\ntotal += 1",
    "%%step close --in score\nmark = Mark(region, t)",
    "%%step show\nprint([isinstance(m, Mark) for m in mark], [m.total for m in mark], total)",
)


def loop(more: str = "") -> list[str]:
    return [source.replace("{more}", more) for source in LOOP]


def test_a_parallel_loop_ends_as_the_same_loop_in_sequence(make, app, tmp_path):
    witness = app.run(make(*loop(), name="one.ipynb"), tmp_path / "one-out.ipynb")
    run = app.run(make(*loop(" --parallel 2"), name="two.ipynb"), tmp_path / "two-out.ipynb")

    assert witness.status == "success", witness.cause
    assert run.status == "success", run.cause
    assert printed(run, "score") == "north\nsouth\neast\nwest\n"
    assert printed(run, "show") == printed(witness, "show")
    kernels = [line for line in app.journal(run.id) if line["type"] == "kernel"]
    assert 2 <= len(kernels) <= 3


@pytest.mark.parametrize(
    ("cut", "executed"),
    [
        ("score[north]", "n0 n1 "),
        ("score[#2]", "e0 e1 "),
        ("score[south]/inner[1]", "s1 "),
        ("score[west]/close", ""),
        ("show", ""),
    ],
)
def test_a_restart_at_an_item_executes_that_item_alone(cut, executed, make, app, tmp_path):
    run = app.run(make(*loop(" --parallel 2")))
    assert run.status == "success", run.cause
    (tmp_path / "w.txt").write_text("")

    again = app.restart(run.id, tmp_path / "out.ipynb", from_step=cut)

    assert again.status == "success", again.cause
    assert (tmp_path / "w.txt").read_text() == executed
    difference = app.diff(run.id, again.id)
    assert difference.equal, [step for step in difference.steps if not step.equal]
    assert printed(again, "score") == "north\nsouth\neast\nwest\n"
    third = app.restart(again.id, from_step="score[east]/odd")
    assert third.status == "success", third.cause
    assert (tmp_path / "w.txt").read_text() == executed
    assert app.diff(run.id, third.id).equal


FAILING = (
    "import os\nitems = ['a', 'b', 'c', 'd']",
    "%%step work --foreach x in items --collect y{more}\n"
    "open('w.txt', 'a').write(x)\n"
    "if x in 'bd' and not os.path.exists('ok'): raise ValueError(x)\ny = x.upper()",
    "print(y)",
)


@pytest.mark.parametrize("more", [" --parallel 2", ""])
def test_failed_items_alone_are_executed_again(more, make, app, tmp_path):
    sources = [s.replace("{more}", f"{more} --on-error skip") for s in FAILING]
    run = app.run(make(*sources))
    assert run.status == "success", run.cause
    assert printed(run, "#3") == "['A', None, 'C', None]\n"
    (tmp_path / "w.txt").write_text("")
    (tmp_path / "ok").touch()

    plan = app.restart(run.id, failed_only=True, plan=True)
    again = app.restart(run.id, failed_only=True)

    assert "executes work[b], work[d]; 2 of 4 items are kept" in "\n".join(plan.lines())
    assert again.status == "success", again.cause
    assert "".join(sorted((tmp_path / "w.txt").read_text())) == "bd"
    assert printed(again, "#3") == "['A', 'B', 'C', 'D']\n"
    witness = app.run(make(*[s.replace("{more}", "") for s in FAILING], name="witness.ipynb"))
    assert printed(again, "#3") == printed(witness, "#3")
    with pytest.raises(RestartRefused, match="no item of any loop failed"):
        app.restart(again.id, failed_only=True)


def test_after_a_failure_what_ended_well_is_kept_and_the_rest_is_executed(make, app, tmp_path):
    sources = [s.replace("{more}", " --parallel 2") for s in FAILING]
    run = app.run(make(*sources))
    assert (run.status, run["work"].status) == ("failed", "failed")
    assert run.cause == "ValueError: b"
    before = (tmp_path / "w.txt").read_text()
    assert {"a", "b"} <= set(before)
    (tmp_path / "w.txt").write_text("")
    (tmp_path / "ok").touch()

    again = app.restart(run.id)

    assert again.status == "success", again.cause
    assert "".join(sorted((tmp_path / "w.txt").read_text())) == "".join(
        sorted({"b", "d"} | ({"c"} - {*before}))
    )
    assert printed(again, "#3") == "['A', 'B', 'C', 'D']\n"


@pytest.mark.parametrize(
    ("line", "body", "told"),
    [
        ("--collect y", "total += 1\ny = 1 / x", "s[1] wrote `total`"),
        ("--collect y", "y = 1 / x if x else y / x", "reads `y`, maybe of the item before"),
        ("--collect y", "import random\nrandom.random()\ny = 1 / x", "changed the process's gen"),
    ],
)
def test_failed_items_that_depend_on_others_are_refused(line, body, told, make, app):
    run = app.run(
        make(
            "total = 0\nitems = [1, 0]",
            f"%%step s --foreach x in items {line} --on-error skip\n{body}",
        )
    )
    assert run.status == "success", run.cause

    with pytest.raises(RestartRefused, match=r".") as raised:
        app.restart(run.id, failed_only=True)
    assert "depend on one another" in str(raised.value)
    assert told in str(raised.value)
    assert raised.value.hint.endswith("--from 's[0]'")


# --- what an item may do ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("total = x", "cell #2: `total` is bound in step '#1' already; only --collect names"),
        ("total += x", "`total` is bound in step '#1' already"),
    ],
)
def test_a_body_whose_code_writes_another_name_is_refused_before_it_runs(body, told, make, app):
    with pytest.raises(BadNotebook) as raised:
        app.run(
            make(
                "total = 0", f"%%step s --foreach x in [1] --parallel 2 --collect y\n{body}\ny = 1"
            )
        )
    assert told in str(raised.value)


def test_a_body_that_changes_another_name_in_place_is_refused_when_it_has(make, app):
    run = app.run(
        make(
            "seen, alias = [], []\nalias = seen",
            "%%step s --foreach x in 'ab' --parallel 2 --on-error skip\n"
            "for y in [alias]: y.append(x)",
            "print(seen)",
        )
    )

    assert (run.status, run["s"].status) == ("failed", "failed")
    assert run.cause.startswith("`alias`, `seen` were there before the parallel loop")
    assert run["#3"].status == "pending"


def test_what_an_item_binds_for_itself_ends_with_it(make, app):
    run = app.run(
        make(
            "n = 1",
            "%%step s --foreach x in 'ab' --parallel 2 --collect y\nown = x * 2\ny = own",
            "print(y, 'own' in globals(), 'x' in globals())",
        )
    )

    assert printed(run, "#3") == "['aa', 'bb'] False False\n", run.cause


def test_items_draw_different_random_numbers_and_the_same_in_each_run(make, app):
    sources = (
        "import random, numpy as np\nrandom.seed(1); np.random.seed(1)",
        "%%step s --foreach x in range(3) --parallel 2 --collect y\n"
        "y = (random.random(), float(np.random.rand()))",
        "print(y, len(set(y)), random.random())",
    )
    run, other = app.run(make(*sources)), app.run(make(*sources))

    assert run.status == "success", run.cause
    assert ") 3 " not in printed(run, "#3")
    assert "] 3 " in printed(run, "#3")
    assert printed(run, "#3") == printed(other, "#3")
    again = app.restart(run.id, from_step="s[1]")
    assert app.diff(run.id, again.id).equal


def test_what_cannot_be_stored_is_made_again_in_each_kernel(make, app):
    run = app.run(
        make(
            "import sqlite3\nbase = 5",
            "db = sqlite3.connect(':memory:')",
            "%%step s --foreach x in range(3) --parallel 2 --collect y\n"
            "y = db.execute('select ? + ?', (x, base)).fetchone()[0]",
            "print(y, db.execute('select 7').fetchone())",
        )
    )

    assert run.status == "success", run.cause
    assert printed(run, "#4") == "[5, 6, 7] (7,)\n"


def test_what_an_item_collects_must_be_storable(make, app):
    run = app.run(make("%%step s --foreach x in 'ab' --parallel 2 --collect y\ny = (c for c in x)"))

    assert run.status == "failed"
    assert run.cause.startswith("`y` cannot be collected: ")


def test_a_kernel_that_was_left_changed_serves_no_further_item(make, app, tmp_path):
    (tmp_path / "counter.py").write_text("calls = 0\n")
    run = app.run(
        make(
            "import os, counter",
            "%%step s --foreach x in range(3) --parallel 1 --collect y\n"
            "counter.calls += 1\ny = (counter.calls, os.environ.get('SEEN'))\n"
            "os.environ['SEEN'] = 'x'",
            "print(y)",
        )
    )

    assert run.status == "success", run.cause
    assert printed(run, "#3") == "[(1, None), (1, None), (1, None)]\n"


# --- endings ---------------------------------------------------------------------------------


def test_a_kernel_that_dies_is_its_items_failure_alone(make, app):
    run = app.run(
        make(
            "import os, signal",
            "%%step s --foreach x in 'abc' --parallel 2 --on-error skip --collect y --retry 1 "
            "--backoff 1ms\nif x == 'b': os.kill(os.getpid(), signal.SIGKILL)\ny = x",
            "print(y)",
        )
    )

    assert run.status == "success", run.cause
    assert printed(run, "#3") == "['a', None, 'c']\n"
    dead = [r for r in app.journal(run.id) if r.get("cause", "").startswith("the kernel died")]
    assert [r["turns"][0]["key"] for r in dead if r["type"] == "finished"] == ["b"]


def test_timeouts_retries_and_conditions_work_in_items(make, app, tmp_path):
    run = app.run(
        make(
            "import os, time",
            "%%step s --foreach x in 'abc' --parallel 2 --on-error skip --collect y --timeout 2\n"
            "if x == 'a': time.sleep(60)\ny = x",
            "%%step t --in s --retry 2 --backoff 1ms\n"
            "with open(x, 'a') as f: f.write('.')\n"
            "if os.path.getsize(x) < 2: y = None; raise ValueError",
            "%%step u --in s --when x == 'c'\ny = y + '!'",
            "%%step v --in s --on-error continue\n1 / 0",
            "print(y)",
        )
    )

    assert run.status == "success", run.cause
    assert printed(run, "#6") == "[None, 'b', 'c!']\n"
    assert (tmp_path / "b").read_text() == ".."


@pytest.mark.parametrize("failed_only", [False, True])
def test_the_limit_of_the_whole_run_ends_it_in_an_item_that_the_loop_would_pass(
    make, app, tmp_path, failed_only
):
    run = app.run(
        make(
            "import os, time",
            "%%step s --foreach x in 'abc' --parallel 2 --on-error skip --collect y\n"
            "with open('w.txt', 'a') as f: f.write(x)",
            "%%step t --in s --on-error continue --retry 1\n"
            "if x == 'b' and not os.path.exists('ok'): time.sleep(60)\ny = x",
            "print(y)",
        ),
        timeout=10,
    )

    assert (run.status, run.cause) == ("failed", "timeout after 10 s (whole run)")
    assert [r["step"] for r in app.journal(run.id) if r["type"] == "end"] == ["s[b]/t"]
    assert run["#4"].status == "pending"
    (tmp_path / "ok").touch()
    again = app.restart(run.id, failed_only=failed_only)
    assert printed(again, "#4") == "['a', 'b', 'c']\n", again.cause
    assert sorted((tmp_path / "w.txt").read_text()) == [*"abbc"] if failed_only else [*"abc"]


def test_the_limit_of_the_whole_run_ends_it_while_an_item_is_given_what_cannot_be_stored(
    make, app, tmp_path
):
    run = app.run(
        make(
            "import os, time",
            "%%step made\nwith open('made', 'a') as f: f.write('.')\n"
            "if os.path.getsize('made') > 1 and not os.path.exists('ok'): time.sleep(60)\n"
            "made = (n for n in 'z')",
            "%%step s --foreach x in 'ab' --parallel 1 --on-error skip --collect y\n"
            "y = x + next(made)",
            "print(y)",
        ),
        timeout=6,
    )

    assert (run.status, run.cause) == ("failed", "timeout after 6 s (whole run)")
    assert (run["s"].status, run["#4"].status) == ("failed", "pending")
    (tmp_path / "ok").touch()
    again = app.restart(run.id)
    assert printed(again, "#4") == "['az', 'bz']\n", again.cause


def test_items_that_failed_at_the_first_turn_of_a_loop_in_them_go_on_there(make, app, tmp_path):
    body = (
        "with open(f'begun-{k}', 'w'): pass\n"
        "while not (os.path.exists('begun-p') and os.path.exists('begun-q')): time.sleep(0.01)\n"
        "if not os.path.exists('ok'): raise ValueError(k)\nr.append(y)"
    )
    run = app.run(
        make(
            "import os, time",
            "%%step L --foreach k in 'pq' --parallel 2 --collect r\nr = [k]",
            f"%%step M --in L --foreach y in [1, 2]\n{body}",
            "print(r)",
        )
    )
    assert run.status == "failed"
    (tmp_path / "ok").touch()

    again = app.restart(run.id)

    assert again.status == "success", again.cause
    assert printed(again, "#4") == "[['p', 1, 2], ['q', 1, 2]]\n"
    assert {str(item.status) for item in again["L"].turns_here} == {"kept"}


def test_an_item_that_ends_the_run_ends_it_as_a_success(make, app):
    run = app.run(
        make("%%step s --foreach x in 'ab' --parallel 2 --stop-if x == 'a'\ny = x", "print(1)")
    )

    assert (run.status, run.cause) == ("success", "x == 'a' is true")
    assert run["#2"].status == "pending"


def test_a_parallel_loop_within_a_loop_begins_on_that_turns_namespace(make, app, tmp_path):
    sources = (
        "seen = []",
        "%%step outer --foreach k in 'pq' --collect got\nseen.append(k)",
        "%%step inner --in outer --foreach n in range(2) --parallel 2 --collect z\n"
        "z = (k, n, len(seen))\nwith open('w.txt', 'a') as f: f.write(f'{k}{n} ')",
        "%%step after --in outer\ngot = list(z)",
        "print(got, seen)",
    )
    run = app.run(make(*sources))
    assert run.status == "success", run.cause
    shown = "[[('p', 0, 1), ('p', 1, 1)], [('q', 0, 2), ('q', 1, 2)]] ['p', 'q']\n"
    assert printed(run, "#5") == shown
    (tmp_path / "w.txt").write_text("")

    for cut, executed in (("outer[q]/inner[0]", "q0 "), ("outer[q]/after", ""), ("#5", "")):
        again = app.restart(run.id, from_step=cut)
        assert again.status == "success", again.cause
        assert printed(again, "#5") == shown
        assert (tmp_path / "w.txt").read_text() == executed
        (tmp_path / "w.txt").write_text("")


def test_an_empty_parallel_loop_collects_an_empty_list(make, app):
    run = app.run(make("%%step a --foreach x in [] --parallel 2 --collect y\ny = x", "print(y)"))

    assert (run.status, printed(run, "#2")) == ("success", "[]\n")


def test_a_loop_that_has_become_parallel_is_cut_as_a_whole(make, app, edit):
    path = make("%%step s --foreach x in 'ab' --collect y\ny = x", "print(y)")
    run = app.run(path)
    edit(path, "--collect y", "--collect y --parallel 2")

    with pytest.raises(RestartRefused, match="'s' was not parallel in the origin") as raised:
        app.restart(run.id, from_step="s[b]")
    assert raised.value.hint == "restart from the loop itself: --from s"
    again = app.restart(run.id, from_step="s")
    assert printed(again, "#2") == "['a', 'b']\n"


# --- items that have changed -----------------------------------------------------------------

CHANGING = (
    "import json\nsuffix = '!'",
    "%%step work --foreach x in json.load(open('items.json')) --collect y{more}\n"
    "open('w.txt', 'a').write(x)\ny = x + suffix",
    "print(y)",
)


@pytest.mark.parametrize("now", [["a", "c"], ["c", "x", "b", "a", "d"], ["b"]])
def test_items_that_changed_since_are_the_recorded_ones_or_matched_by_key(now, make, app, tmp_path):
    (tmp_path / "items.json").write_text('["a", "b", "c"]')
    run = app.run(make(*[s.replace("{more}", " --parallel 2") for s in CHANGING]))
    assert printed(run, "#3") == "['a!', 'b!', 'c!']\n", run.cause
    (tmp_path / "items.json").write_text(json.dumps(now))
    (tmp_path / "w.txt").write_text("")

    as_it_was = app.restart(run.id, from_step="work[b]")
    assert printed(as_it_was, "#3") == "['a!', 'b!', 'c!']\n"
    assert (tmp_path / "w.txt").read_text() == "b"
    (tmp_path / "w.txt").write_text("")

    plan = app.restart(run.id, from_step="work", reeval=True, plan=True)
    anew = app.restart(run.id, from_step="work", reeval=True)

    assert plan.items["new"] == tuple(x for x in now if x not in "abc")
    assert plan.items["gone"] == tuple(x for x in "abc" if x not in now)
    assert plan.cut == "work"
    new = ", ".join(f"work[{x}]" for x in plan.items["new"]) or "none"
    kept = f"{len(plan.items['kept'])} of {len(now)} items are kept"
    assert plan.steps[1].reason == f"its items are evaluated anew; executes {new}; {kept}"
    assert anew.status == "success", anew.cause
    assert sorted((tmp_path / "w.txt").read_text()) == sorted(plan.items["new"])
    assert printed(anew, "#3") == f"{[x + '!' for x in now]}\n"
    (tmp_path / "w.txt").write_text("")
    third = app.restart(anew.id, from_step=f"work[{now[0]}]")
    assert (tmp_path / "w.txt").read_text() == now[0]
    assert app.diff(anew.id, third.id).equal


def test_items_of_a_sequential_loop_may_only_change_behind_the_cut(make, app, tmp_path):
    (tmp_path / "items.json").write_text('["a", "b", "c"]')
    run = app.run(make(*[s.replace("{more}", "") for s in CHANGING]))
    (tmp_path / "items.json").write_text('["a", "b", "d", "e"]')

    anew = app.restart(run.id, from_step="work[b]", reeval=True)

    assert printed(anew, "#3") == "['a!', 'b!', 'd!', 'e!']\n", anew.cause
    for items in ('["b", "a"]', '["a"]'):
        (tmp_path / "items.json").write_text(items)
        with pytest.raises(RestartRefused, match="are not those of the origin") as raised:
            app.restart(run.id, from_step="work[b]", reeval=True)
        assert raised.value.hint == "restart from the loop itself: --from work"
    (tmp_path / "items.json").write_text("5")
    with pytest.raises(RestartRefused, match="cannot be evaluated anew: TypeError"):
        app.restart(run.id, from_step="work[b]", reeval=True)
    with pytest.raises(RestartRefused, match="the cut lies in no loop with items"):
        app.restart(run.id, from_step="#3", reeval=True)


def test_the_items_that_are_evaluated_anew_are_those_of_the_innermost_loop_that_is_named(
    make, app, tmp_path
):
    def items(**now: str) -> None:
        for name, text in now.items():
            (tmp_path / name).write_text(text)

    items(outer="ab", inner="xy")
    cells = (
        "done = []",
        "%%step L --foreach k in open('outer').read()\npass",
        "%%step M --in L --foreach y in open('inner').read()\ndone.append(k + y)",
        "%%step W --in L --while done[-1] != 'w'\ndone.append('w')",
        "print(*done)",
    )
    run = app.run(make(*cells))
    items(outer="abc", inner="xyz")

    def found(cut: str) -> str:
        return printed(app.restart(run.id, from_step=cut, reeval=True), "#5")

    before = "ax ay w bx by"
    assert found("L[b]/M[x]") == found("L[b]/M[y]") == f"{before} bz w\n"
    assert found("L[b]/M") == found("L[b]") == f"{before} bz w cx cy cz w\n"
    for cut in ("L[b]/W[0]", "L[a]/W[0]"):
        with pytest.raises(RestartRefused, match="'W' is a --while loop, without items"):
            app.restart(run.id, from_step=cut, reeval=True)


# --- interruptions ---------------------------------------------------------------------------


def test_ctrl_c_interrupts_every_item_and_a_restart_keeps_what_had_ended(make, app, tmp_path):
    path = make(
        "import os, time",
        "%%step s --foreach x in 'abcd' --parallel 2 --collect y\n"
        "with open('w.txt', 'a') as f: f.write(x)\n"
        "if x in 'bc' and not os.path.exists('ok'): open('slow' + x, 'w').close(); time.sleep(60)\n"
        "y = x",
        "print(y)",
    )
    process = subprocess.Popen([sys.executable, "-m", "cellrail", "run", str(path)], cwd=tmp_path)
    wait_for(lambda: (tmp_path / "slowb").exists() and (tmp_path / "slowc").exists())
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130

    run = app.show("last")
    assert (run.status, run.cause) == ("cancelled", "interrupted")
    assert run["s"].status == "cancelled"
    assert "d" not in (tmp_path / "w.txt").read_text()
    (tmp_path / "w.txt").write_text("")
    (tmp_path / "ok").touch()
    again = app.restart(run.id)
    assert printed(again, "#3") == "['a', 'b', 'c', 'd']\n", again.cause
    assert sorted((tmp_path / "w.txt").read_text()) == ["b", "c", "d"]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_run_goes_on_with_the_items_that_had_not_ended(make, app, cellrail, tmp_path):
    sources = (
        "import os, signal, time\nbase = [1]",
        "%%step s --foreach x in 'abcd' --parallel 2 --collect y\n"
        "with open('w.txt', 'a') as f: f.write(x)\ny = x",
        "%%step t --in s\nif x == 'c' and not os.path.exists('ok'):\n"
        "    open('ok', 'w').close(); os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)\n"
        "with open('t.txt', 'a') as f: f.write(x)\ny = y + '!'",
        "print(y, base)",
    )
    path = make(*sources)
    done = cellrail("run", path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    run = app.show("last")
    assert run.status == "interrupted"
    committed = [r["turns"][0]["key"] for r in app.journal(run.id)
                 if r["type"] == "finished" and r.get("turns") and r["step"] == 3]  # fmt: skip
    begun = [r["turns"][0]["key"] for r in app.journal(run.id)
             if r["type"] == "finished" and r.get("turns") and r["step"] == 2]  # fmt: skip
    (tmp_path / "w.txt").write_text("")
    (tmp_path / "t.txt").write_text("")

    back = cellrail("recover", run.id)

    assert back.returncode == 0, back.stderr
    after = app.show(run.id)
    assert after.status == "success", after.cause
    assert printed(after, "#4") == "['a!', 'b!', 'c!', 'd!'] [1]\n"
    assert set((tmp_path / "t.txt").read_text()) == {*"abcd"} - {*committed}
    assert not set((tmp_path / "w.txt").read_text()) & {*begun}
    witness = app.run(path)
    assert app.diff(witness.id, run.id).equal
    again = app.restart(run.id, from_step="s[a]")
    assert app.diff(witness.id, again.id).equal


@pytest.mark.parametrize("call", ["flow.suspend('1h')", "flow.rerun('1s')"])
def test_an_item_cannot_wait_and_is_told_so(call, make, app):
    path = make(
        "from cellrail import flow",
        "%%step s --foreach x in [1, 2, 3] --parallel 2 --collect y --on-error skip\n"
        f"if x == 2: {call}\ny = (x, flow.runs)",
        "print(y)",
    )
    run = app.run(path)

    assert (run.status, printed(run, "#3")) == ("success", "[(1, 1), None, (3, 1)]\n"), run.cause
    failed = [line for line in app.journal(run.id) if line["type"] == "finished"]
    told = [line["error"]["value"] for line in failed if line.get("error")]
    assert len(told) == 1
    assert "an item of a parallel loop cannot wait" in told[0]


def test_items_and_the_step_behind_them_know_what_woke_the_run(make, app):
    run = app.run(make(
        "from cellrail import flow",
        "%%step ask\nflow.suspend('1h')",
        "%%step s --foreach x in [1, 2] --parallel 2 --collect y\ny = flow.resume_data",
        "print(y, flow.resume_data, flow.step('ask').resume_data)",
    ))  # fmt: skip
    assert run.status == "suspended"

    run = app.resume(run.id, data={"by": "ann"})

    told = "[{'by': 'ann'}, {'by': 'ann'}] None {'by': 'ann'}\n"
    assert (run.status, printed(run, "#4")) == ("success", told), run.cause


def test_a_loop_that_was_restarted_at_an_item_and_kept_by_a_rerun_is_restarted_there_again(
    make, app, tmp_path
):
    path = make(*(cell.replace("{more}", " --parallel 2") for cell in FAILING))
    run = app.run(path)
    assert run.status == "failed"
    (tmp_path / "ok").touch()
    run = app.rerun(app.restart(run.id).id)
    (tmp_path / "w.txt").write_text("")

    again = app.restart(run.id, from_step="work[c]")

    assert (again.status, printed(again, "#3")) == ("success", "['A', 'B', 'C', 'D']\n"), (
        again.cause
    )
    assert (tmp_path / "w.txt").read_text() == "c"


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_restart_at_an_item_that_was_killed_in_a_later_loop_goes_on_there(
    make, app, cellrail, tmp_path
):
    path = make(
        WITNESS,
        "%%step p --foreach j in 'ab' --parallel 2 --collect r\nr = j\n"
        "if j == 'b' and first('b'): 1 / 0",
        "%%step q --foreach i in range(4)\nwitness(f'q{i}')\n"
        "if i == 2 and first('killed'): os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)",
        "%%step end\nprint(r, i)",
    )
    assert app.run(path).status == "failed"
    assert cellrail("restart", path).returncode == -signal.SIGKILL

    run = app.recover("last")

    assert (run.status, printed(run, "end")) == ("success", "['a', 'b'] 3\n"), run.cause
    assert counts(tmp_path) == {"q0": 1, "q1": 1, "q2": 2, "q3": 1}


def test_a_key_that_is_written_like_a_place_counts_before_the_place(make, app):
    run = app.run(make("%%step p --foreach j in ['x', '#2', '#0', '#1']\nprint(j)"))

    assert {key: run[f"p[{key}]"].outputs[0]["text"] for key in ("x", "#0", "#1", "#2", "#3")} == {
        "x": "x\n", "#0": "#0\n", "#1": "#1\n", "#2": "#2\n", "#3": "#1\n",
    }  # fmt: skip
