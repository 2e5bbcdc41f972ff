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


@pytest.mark.parametrize(
    ("body", "cut", "reeval", "told"),
    [
        ("y = x", "L[1]", False, ["its items are those that the old one made (--reeval ev"]),
        ("y = x", "L[1]", True, []),
        ("y = n", "L[0]", True, []),
        ("y = n", "L[1]", True, ["kept items keep what was made"]),
        ("y = n", "L[1]", False, ["its items are those", "kept items keep what was made"]),
    ],
)
def test_what_another_parameter_would_have_made_otherwise_is_told(
    body, cut, reeval, told, make, app
):
    cells = ("n = 2", f"%%step L --foreach x in range(n) --collect y\n{body}", "print(y)")
    run = app.run(make(*cells, tags={1: ["parameters"]}))

    plan = app.restart(run.id, from_step=cut, reeval=reeval, parameters={"n": 3}, plan=True)
    found = [line for line in plan.warnings if "parameter `n` changed" in line]
    assert len(found) == len(told)
    assert all(text in line for text, line in zip(told, found, strict=True))
    assert not app.restart(run.id, from_step=cut, plan=True).warnings


# --- what is told of kept items afterwards ------------------------------------------------------


def mended(make, app):
    """A restart that kept the items a and b with the old code of K."""
    failed = app.run(make(BASE, LOOP, BODY, END))
    (app.store_path.parent / "ok").touch()
    make(BASE, LOOP, BODY.replace('"k"', '"NEW"'), END)
    run = app.restart(failed.id)
    assert shown(run) == "['aak', 'bbk', 'ccNEW']\n"
    return run


def test_a_kept_job_shows_the_source_that_it_was_made_with(make, app, cellrail):
    run = mended(make, app)

    sources = {view.address: view.source for view in run["K"].turns_here}
    assert '"k"' in sources["L[a]/K"]
    assert '"k"' in sources["L[b]/K"]
    assert '"NEW"' in sources["L[c]/K"]
    assert '"NEW"' in run["K"].source
    told = cellrail("show", run.id, "L[a]/K").stdout
    assert '"k"' in told
    assert "NEW" not in told
    # and of a restart that keeps them all
    later = app.restart(run.id, from_step="end", force=True)
    assert {v.address: v.source for v in later["K"].turns_here} == sources


def test_a_rerun_executes_a_loop_whose_kept_items_other_code_made(make, app):
    run = mended(make, app)

    plan = app.rerun(run.id, plan=True)
    told = {step.label: (str(step.fate), step.reason) for step in plan.steps}
    why = "source changed since L[a]/K was made (K)"
    assert told["L"] == told["K"] == ("executes", why)
    again = app.rerun(run.id)
    assert shown(again) == "['aaNEW', 'bbNEW', 'ccNEW']\n"
    third = app.rerun(again.id, plan=True)
    assert {str(step.fate) for step in third.steps} == {"kept"}


def test_a_step_that_was_kept_by_force_shows_its_own_source_and_is_rerun(make, app):
    origin = app.run(make("x = 1", "%%step y\ny = x + 1", "print(y)"))
    make("x = 1", "%%step y\ny = x + 5", "print(y)")
    forced = app.restart(origin.id, from_step="#3", force=True)

    assert forced["y"].source.endswith("y = x + 1")
    plan = app.rerun(forced.id, plan=True)
    told = {step.label: (str(step.fate), step.reason) for step in plan.steps}
    assert told["y"] == ("executes", "source changed since y was made")
    assert app.diff(origin.id, forced.id).steps[1].source_equal


def test_an_item_kept_under_another_header_is_made_anew_by_a_rerun(make, app):
    run = again(make, app, (BASE, LOOP.replace("t r", "t r,x"), BODY, END), force=True)
    assert run.status == "success", run.cause
    plan = app.rerun(run.id, plan=True)
    assert plan.steps[1].reason == "--collect changed since L[a] was made (L)"


def test_a_condition_that_the_origin_does_not_know_refuses_what_is_forced_too(make, app):
    cells = (BASE, LOOP.replace("--collect r", "--when base --collect r"), BODY, END)
    told = "the origin's journal does not tell --when of L"
    with pytest.raises(RestartRefused, match=told):
        again(make, app, cells, force=True)
    plan = app.restart("last", plan=True, force=True)
    assert plan.refusals == (told,)
    assert app.restart("last", widen=True).status == "success"


# --- a restart says what it mixes, and the next one knows -----------------------------------------

ROOT = "import os\nq = 1"
SQUARES = '%%step loop --foreach d in ["x", "y", "z"] --collect sq\nsq = (d, q)'
NEW = SQUARES.replace("(d, q)", "(d, q, 'new')")
REPORT = "%%step report\nprint(sq)"
MIXED = "[('x', 1), ('y', 1, 'new'), ('z', 1, 'new')]\n"
WHOLE = "[('x', 1, 'new'), ('y', 1, 'new'), ('z', 1, 'new')]\n"


def mixed(make, app, header=""):
    """A restart behind the first item of a loop that was edited since."""
    app.run(make(ROOT, SQUARES.replace(" --collect", f"{header} --collect"), REPORT))
    make(ROOT, NEW.replace(" --collect", f"{header} --collect"), REPORT)
    return app.restart("last", from_step="loop[#1]")


@pytest.mark.parametrize("header", ["", " --parallel 2"])
def test_a_restart_that_keeps_items_of_old_code_says_so_when_it_is_carried_out(
    header, make, app, caplog
):
    run = mixed(make, app, header)
    assert run.status == "success", run.cause
    assert "step 'loop': source changed; kept items keep what it made" in caplog.text


@pytest.mark.parametrize("header", ["", " --parallel 2"])
def test_the_restart_behind_a_loop_of_items_that_other_code_made_is_refused(header, make, app):
    run = mixed(make, app, header)
    why = "step 'loop': source changed since loop\\[x\\] was made"
    with pytest.raises(RestartRefused, match=why) as error:
        app.restart(run.id, from_step="report")
    assert "a restart from 'loop' would do (or --widen)" in error.value.hint

    kept = app.restart(run.id, from_step="report", force=True)
    assert kept["report"].outputs == run["report"].outputs
    plan = app.restart(run.id, from_step="report", force=True, plan=True)
    assert plan.steps[1].reason.endswith("though source changed since loop[x] was made")
    widened = app.restart(run.id, from_step="report", widen=True)
    assert widened["report"].outputs[0]["text"] == WHOLE
    later = app.restart(widened.id, from_step="report")
    assert later["report"].outputs[0]["text"] == WHOLE


def test_a_restart_within_a_loop_of_items_that_other_code_made_says_so(make, app, caplog):
    run = mixed(make, app)
    assert run["report"].outputs[0]["text"] == MIXED
    caplog.clear()
    again = app.restart(run.id, from_step="loop[z]")
    assert again["report"].outputs[0]["text"] == MIXED
    why = "step 'loop': source changed since loop[x] was made; kept items keep what was made"
    assert why in caplog.text
    caplog.clear()
    app.restart(run.id, from_step="loop")
    assert not caplog.records


def test_an_item_that_other_code_began_in_an_earlier_run_is_not_finished(make, app):
    run = mended_loop = again(
        make, app, (BASE, LOOP.replace("x * 2", "x * 3"), BODY, END), force=True
    )
    assert shown(mended_loop) == "['aak', 'bbk', 'cck']\n"
    why = "step 'L': source changed since L\\[b\\] was made"
    with pytest.raises(RestartRefused, match=why):
        app.restart(run.id, from_step="L[b]/K")
    assert (
        shown(app.restart(run.id, from_step="L[b]/K", widen=True)) == "['aaak', 'bbbk', 'ccck']\n"
    )


NESTED = (
    "g = []",
    "%%step L --foreach k in 'pqr'\ng.append(k)",
    "%%step M --in L --foreach y in 'ab'\ng.append(y)",
    "%%step N --in M\ng.append('old')",
    "%%step T --in L --foreach z in 'cd'\ng.append(z)",
    "%%step B --in L\ng.append('B')",
    "%%step end\nprint(''.join(g))",
)


@pytest.mark.parametrize(
    ("cut", "refused"),
    [
        ("L[q]/T", True),
        ("L[q]/T[d]", True),
        ("L[q]/B", True),
        # those turns are whole
        ("L[q]/M[b]", False),
        ("L[r]", False),
        # of that item it was made by the code of today
        ("L[r]/B", False),
    ],
)
def test_a_loop_that_other_code_made_in_the_item_at_the_cut_is_part_of_it(cut, refused, make, app):
    run = app.run(make(*NESTED))
    make(*(cell.replace("'old'", "'new'") for cell in NESTED))
    with pytest.raises(RestartRefused, match="step 'N': source changed"):
        app.restart(run.id, from_step="L[q]/B")
    forced = app.restart(run.id, from_step="L[q]/B", force=True)

    plan = app.restart(forced.id, from_step=cut, plan=True)

    why = "step 'N': source changed since L[{}]/M[a]/N was made"
    assert [told.startswith(why.format("q")) for told in plan.refusals] == [True] * refused
    assert [told.startswith(why.format("p")) for told in plan.warnings] == [True]


@pytest.mark.parametrize(
    ("cells", "why", "result"),
    [
        ((BASE, LOOP, BODY.replace('"k"', '"K"'), END), "step 'K': source", "['aaK', 'bbK']"),
        ((BASE, LOOP.replace('"a", "b"', '"b"'), BODY, END), "step 'L': --foreach", "['bbk']"),
    ],
    ids=["a cell in the loop", "its items"],
)
def test_a_widened_restart_executes_a_changed_loop_whole(cells, why, result, make, app):
    def two(*sources):
        return make(*(source.replace(', "c"]', "]") for source in sources))

    app.run(two(BASE, LOOP, BODY, END))
    two(*cells)
    with pytest.raises(RestartRefused, match=f"{why} changed") as error:
        app.restart("last", from_step="end")
    assert "a restart from 'L' would do" in error.value.hint
    assert shown(app.restart("last", from_step="end", widen=True)) == f"{result}\n"


def test_a_step_kept_by_force_is_not_kept_once_more_without_it(make, app):
    app.run(make("x = 1", "%%step y\ny = x + 1", "%%step end\nprint(y)"))
    make("x = 1", "%%step y\ny = x + 5", "%%step end\nprint(y)")
    forced = app.restart("last", from_step="end", force=True)
    with pytest.raises(RestartRefused, match="step 'y': source changed since y was made"):
        app.restart(forced.id, from_step="end")
    assert shown(app.restart(forced.id, from_step="end", widen=True)) == "6\n"
