"""Restarts that are refused.

Laws: a restart that is refused leaves everything as it was: no run is recorded, and the output
notebook is not touched; `--plan` says no where the restart would, in the same words.
"""

from __future__ import annotations

import json
import os
import shlex
import signal

import pytest

from cellrail.errors import CellrailError, RecoverRefused
from cellrail_state.errors import StateError
from cellrail_state.model import RunStatus
from reading import printed

ITEMS = (
    "import json",
    "%%step work --foreach x in json.load(open('items.json')) --collect y\ny = x + '!'",
    "print(y)",
)


@pytest.fixture
def refused(app, tmp_path):
    """Restarts, and checks that nothing was changed by the refusal; its words."""

    def restart(run_id: str, **options) -> tuple[str, str]:
        output = tmp_path / "out.ipynb"
        output.write_text("what was there")
        before = sorted(app.store.run_ids())

        plan = app.restart(run_id, output, plan=True, **options)
        with pytest.raises((CellrailError, StateError)) as error:
            app.restart(run_id, output, **options)

        assert sorted(app.store.run_ids()) == before
        assert output.read_text() == "what was there"
        told = (str(error.value), error.value.hint)
        assert ("; ".join(plan.refusals), plan.hint) == told
        assert [line for line in plan.lines() if line.startswith("refused: ")]
        folders = app.store.path / "shared"
        assert not folders.is_dir() or {f.name for f in folders.iterdir()} <= set(before)
        return told

    return restart


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ('["b", "a"]', "the items before work[b] are not those of the origin: work[b] is new, or"),
        ('["a"]', "the items before work[b] are not those of the origin: they end before it"),
        ("5", "the items of 'work' cannot be evaluated anew: TypeError: 'int' object is not"),
    ],
)
def test_items_that_do_not_lead_to_the_cut_are_refused_before_the_run(
    items, told, make, app, tmp_path, refused
):
    (tmp_path / "items.json").write_text('["a", "b", "c"]')
    run = app.run(make(*ITEMS))
    (tmp_path / "items.json").write_text(items)

    assert told in refused(run.id, from_step="work[b]", reeval=True)[0]
    assert app.show("last").id == run.id
    again = app.restart(run.id, from_step="work[b]")
    assert again.status == "success", again.cause


def test_a_refusal_with_new_parameters_leaves_nothing_either(make, app, refused):
    cells = (
        "n = 3",
        "%%step work --foreach x in range(n) --collect y\ny = x",
        "print(y)",
    )
    run = app.run(make(*cells, tags={1: ["parameters"]}))
    told = refused(run.id, from_step="work[2]", reeval=True, parameters={"n": 1}, force=True)[0]
    assert "they end before it" in told
    plan = app.restart(
        run.id, from_step="work[2]", reeval=True, parameters={"n": 5}, force=True, plan=True
    )
    assert plan.items["new"] == ("3", "4")


def test_items_are_evaluated_once_where_the_restart_goes_on(make, app, tmp_path):
    cells = (
        "def items():\n    open('w.txt', 'a').write('x')\n    return ['a', 'b']",
        "%%step work --foreach x in items() --collect y\ny = x",
        "print(y)",
    )
    run = app.run(make(*cells))
    (tmp_path / "w.txt").write_text("")
    again = app.restart(run.id, from_step="work[b]", reeval=True)
    assert (again.status, (tmp_path / "w.txt").read_text()) == ("success", "x")


def test_a_checkpoint_that_does_not_load_is_refused_before_the_run(make, app, tmp_path):
    (tmp_path / "once.py").write_text("class Thing: pass\n")
    path = make("from once import Thing\nthing = Thing()", "%%step use\nprint(thing)")
    run = app.run(path)
    (tmp_path / "once.py").write_text("")
    before, output = sorted(app.store.run_ids()), tmp_path / "out.ipynb"
    output.write_text("what was there")

    with pytest.raises(CellrailError, match="the checkpoint could not be put back"):
        app.restart(run.id, output, from_step="use", force=True)

    assert (sorted(app.store.run_ids()), output.read_text()) == (before, "what was there")


def test_a_lost_object_is_told_by_the_plan(make, app, refused):
    made = "import random\nbig = b'mark' * 250 + random.Random(1).randbytes(50_000)"
    run = app.run(make(made, "%%step use\nprint(len(big))"))
    for file in (app.store.path / "objects").rglob("*"):
        if file.is_file() and b"mark" * 250 in file.read_bytes():
            file.unlink()
    assert "is missing; it holds big" in refused(run.id, from_step="use")[0]


def test_a_suspended_origin_needs_to_be_told_what_becomes_of_it(make, app, refused):
    run = app.run(make("from cellrail import flow\nflow.suspend('1d')", "%%step then\nprint(1)"))
    assert run.status is RunStatus.SUSPENDED

    told, hint = refused(run.id, from_step="#1")
    assert told.startswith(f"run {run.id} is suspended: it waits behind")
    assert "--cancel-origin cancels it, --keep-waiting leaves it as it is" in hint
    for option in ("cancel_origin", "keep_waiting"):
        assert app.restart(run.id, from_step="#1", plan=True, **{option: True}).refusals == ()
    assert app.show(run.id).status is RunStatus.SUSPENDED


def test_the_command_line_tells_it_too(make, app, cellrail):
    run = app.run(make("from cellrail import flow\nflow.suspend('1d')"))
    done = cellrail("restart", run.id, "--from", "#1", "--plan")
    assert done.returncode == 2
    assert "--cancel-origin cancels it" in done.stdout


def test_a_plan_refuses_bad_places_as_the_restart_does(make, app, tmp_path):
    run = app.run(make("x = 1", "print(x)"))
    for plan in (True, False):
        with pytest.raises(CellrailError, match=r"the folder of the output .* does not exist"):
            app.restart(run.id, tmp_path / "no" / "out.ipynb", from_step="#2", plan=plan)
        with pytest.raises(CellrailError, match=r"the working directory .* does not exist"):
            app.restart(run.id, from_step="#2", cwd=tmp_path / "no", plan=plan)


def test_the_hint_names_the_whole_path_of_a_nested_item(make, app):
    cells = (
        "outer = ['a', 'b']",
        "%%step O --foreach o in outer\npass",
        "%%step I --in O --foreach i in [1, 2]\npass",
        "%%step K --in I\nx = (o, i)",
    )
    run = app.run(make(*cells))
    with pytest.raises(CellrailError) as error:
        app.restart(run.id, from_step="K")
    assert error.value.hint == "--from 'O[KEY]/I[KEY]/K', or --from O"
    with pytest.raises(CellrailError) as error:
        app.restart(run.id, from_step="I")
    assert error.value.hint == "--from 'O[KEY]/I', or --from O"
    with pytest.raises(CellrailError, match=r"the loop 'O\[b\]/I' had no item '7'"):
        app.restart(run.id, from_step="O[b]/I[7]")


def test_items_of_a_nested_loop_are_told_with_their_whole_path(make, app, tmp_path, refused):
    cells = (
        "import json\nouter = ['a', 'b']",
        "%%step O --foreach o in outer\npass",
        "%%step I --in O --foreach i in json.load(open('items.json'))\npass",
    )
    (tmp_path / "items.json").write_text('["p", "q"]')
    run = app.run(make(*cells))
    (tmp_path / "items.json").write_text(json.dumps(["q", "p"]))
    told, hint = refused(run.id, from_step="O[b]/I[q]", reeval=True)
    assert "the items before I[q] are not" in told
    assert hint == "restart from the loop itself: --from 'O[b]/I'"
    assert app.restart(run.id, from_step="O[b]/I").status == "success"


@pytest.mark.parametrize(
    "cells",
    [
        ("%%step L --foreach i in range(2) --parallel 2 --collect c\nc = i",
         "%%step M --in L --when i > 5\nc = 0"),
        ("%%step L --foreach i in range(2) --on-error skip\n1 / 0", "%%step M --in L\nc = 0"),
    ],
)  # fmt: skip
def test_a_step_that_no_turn_came_to_refuses_nothing_behind_its_loop(cells, make, app):
    run = app.run(make(*cells, "%%step end\nprint('done')"))
    assert run.status == "success", run.cause

    with pytest.raises(CellrailError, match="every step of the origin ended well"):
        app.restart(run.id)
    again = app.restart(run.id, from_step="end")

    assert (again.status, printed(again, "end")) == ("success", "done\n")


#: an item's first cell has a value that no checkpoint may hold, and an effect that is done once
SECRETIVE = (
    "import os, signal, time\nfrom cellrail import flow, get_variable",
    "%%step loop --foreach k in [1, 2, 3] --parallel 2 --collect m\n"
    "pw = get_variable('pw'); flow.once(f'mail {k}', lambda: 1)\nm = k",
    "%%step body --in loop\nm = k * len(pw)\nif str(k) in os.environ.get('BAD', ''): 1 / 0\n"
    "if str(k) in os.environ.get('KILL', ''): os.kill(os.getppid(), signal.SIGKILL); time.sleep(9)",
    "%%step end\nprint(m)",
)
LOST = "cannot go on behind its kept jobs: `pw` is lost: it cannot be stored, and step 'loop'"


def test_an_item_that_cannot_make_again_what_it_needs_is_refused_with_the_cut_that_would_do(
    make, app, refused
):
    app.variable_set("pw", "s3cret-pass", secret=True)
    run = app.run(make(*SECRETIVE))
    assert run.status == "success", run.cause

    told, hint = refused(run.id, from_step="loop[2]/body")
    assert told.startswith(f"loop[2] {LOST}, which may have changed it, has recorded once")
    assert "'loop[2]'" in hint
    again = app.restart(run.id, from_step="loop[2]")
    assert (again.status, printed(again, "end")) == ("success", "[11, 22, 33]\n")
    wider = app.restart(run.id, from_step="loop[2]/body", widen=True)
    assert (wider.status, printed(wider, "end")) == ("success", "[11, 22, 33]\n")
    assert [item.status for item in wider.items(wider["loop"])] == [
        "kept (origin)", "success", "kept (origin)"
    ]  # fmt: skip


@pytest.mark.parametrize(("bad", "cut"), [("2", "loop[2]"), ("12", "loop")])
def test_items_that_failed_and_cannot_go_on_are_refused_where_the_restart_names_no_cut(
    bad, cut, make, app, refused, monkeypatch
):
    app.variable_set("pw", "s3cret-pass", secret=True)
    monkeypatch.setenv("BAD", bad)
    run = app.run(make(*SECRETIVE))
    assert run.status == "failed"
    monkeypatch.setenv("BAD", "")

    told, hint = refused(run.id)
    assert {item for item in "123" if f"loop[{item}] {LOST}" in told} == {*bad}
    assert repr(cut) in hint
    again = app.restart(run.id, from_step=cut)
    assert (again.status, printed(again, "end")) == ("success", "[11, 22, 33]\n")


def test_a_recovery_of_items_that_cannot_go_on_is_refused_with_the_restart_that_would_do(
    make, app, cellrail
):
    app.variable_set("pw", "s3cret-pass", secret=True)
    path = make(*SECRETIVE)
    env = {**os.environ, "KILL": "2"}
    assert cellrail("run", path, env=env).returncode == -signal.SIGKILL
    run = app.show("last")

    with pytest.raises(RecoverRefused) as error:
        app.recover(run.id)

    assert f"loop[2] {LOST}" in str(error.value)
    words = error.value.hint.partition(": cellrail ")[2]
    assert words.startswith(f"restart {run.id} --from ")
    assert cellrail(*shlex.split(words)).returncode == 0
    assert printed(app.show("last"), "end") == "[11, 22, 33]\n"


@pytest.mark.parametrize("plan", [True, False])
def test_a_step_that_failed_and_was_deleted_is_told_of(make, app, plan):
    run = app.run(make("x = 1", "%%step broken\n1 / 0"))
    make("x = 1")
    with pytest.raises(CellrailError, match="'broken', which did not end well, is not") as told:
        app.restart(run.id, plan=plan)
    assert told.value.hint == "name the step to restart from with --from"
