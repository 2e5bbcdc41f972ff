"""Restarts inside loops of edited notebooks.

Law: no item is half old and half new without being asked for, no turn is kept of a loop that is not
the same loop any more, and what earlier items keep of old code is told.
"""

from __future__ import annotations

import pytest

from cellrail.errors import RestartRefused, StepNotFound

BASE = "import os\nbase = 1"
LOOP = '%%step L --foreach x in ["a", "b", "c"] --collect r\nr = x * 2'
BODY = '%%step K --in L\nif x == "c" and not os.path.exists("ok"): 1 / 0\nr = r + "k"'
END = "%%step end\nprint(r)"


def again(make, app, cells, **options):
    """Restart a run that failed at item c with other cells."""
    failed = app.run(make(BASE, LOOP, BODY, END))
    assert failed.status == "failed"
    (app.store_path.parent / "ok").touch()
    make(*cells)
    return app.restart(failed.id, **options)


def shown(run) -> str:
    return run["end"].outputs[0]["text"]


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        ((BASE, LOOP.replace("x * 2", "x * 3"), BODY, END), "step 'L': source changed"),
        ((BASE, LOOP.replace('"c"]', '"c", "d"]'), BODY, END), "step 'L': --foreach changed"),
        ((BASE, LOOP.replace("--collect r", "--collect r,x"), BODY, END), "--collect changed"),
        ((BASE, LOOP, BODY.replace("--in L", "--in L --when x"), END), "step 'K': --when changed"),
    ],
)
def test_an_item_is_not_finished_by_other_code_than_began_it(cells, why, make, app):
    with pytest.raises(RestartRefused, match=why) as error:
        again(make, app, cells)
    assert "a restart from 'L' would do (or --widen)" in error.value.hint

    widened = app.restart("last", widen=True)
    assert widened.status == "success", widened.cause
    fresh = app.run(make(*cells))
    assert shown(widened) == shown(fresh)


def test_force_keeps_the_items_as_they_were(make, app):
    cells = (BASE, LOOP.replace("x * 2", "x * 3"), BODY, END)
    run = again(make, app, cells, force=True)
    assert shown(run) == "['aak', 'bbk', 'cck']\n"


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("cells", "why"),
    [
        ((BASE, LOOP, BODY, "%%step N --in L\nr += 'n'", END), "step 'N': new step in the loop"),
        ((BASE, LOOP, BODY.replace(" --in L", ""), END), "step 'K' is absent from the loop 'L'"),
        ((BASE, LOOP, END), "no step 'K'"),
    ],
    ids=["a step more", "a step that has left", "a step that is gone"],
)
def test_a_loop_of_another_shape_is_not_cut_into(cells, why, force, make, app):
    with pytest.raises((RestartRefused, StepNotFound), match=why):
        again(make, app, cells, force=force)


def test_the_failed_cell_itself_may_be_mended_and_kept_items_are_told(make, app):
    cells = (BASE, LOOP, BODY.replace('"k"', '"NEW"'), END)
    failed = app.run(make(BASE, LOOP, BODY, END))
    (app.store_path.parent / "ok").touch()
    make(*cells)

    plan = app.restart(failed.id, plan=True)
    assert "step 'K': source changed; kept items keep what it made" in plan.warnings
    run = app.restart(failed.id)
    assert shown(run) == "['aak', 'bbk', 'ccNEW']\n"
