"""Laws of the planner, on random flows:

* every step has one fate; nothing before the cut executes but `--always` and rebuilding cells;
* widening never refuses, and never cuts behind a stale or unfinished step;
* an unfinished step before the cut is refused, forced or not.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellrail.errors import RestartRefused, StepNotFound
from cellrail.notebook.beside import plan_beside
from cellrail.notebook.blocks import blocks_of
from cellrail.notebook.model import Flow
from cellrail.notebook.origin import OriginStep, RestartRequest
from cellrail.notebook.parse import parse
from cellrail.notebook.plan import Fate
from cellrail.notebook.planner import plan_restart, plan_run
from cellrail_state.model import StepInfo, StepStatus, Variable, Verdict


def flow(*sources: str) -> Flow:
    cells = [
        {"cell_type": "code", "source": s, "id": f"c{n}", "metadata": {}}
        for n, s in enumerate(sources)
    ]
    return parse({"nbformat": 4, "cells": cells}, Path("nb.ipynb"))


def origin(made: Flow, statuses=None, failures=None) -> list[OriginStep]:
    steps = []
    for place, step in enumerate(made.steps):
        status = (statuses or {}).get(place, StepStatus.SUCCESS)
        ran = status is not StepStatus.PENDING
        steps.append(
            OriginStep(
                info=StepInfo(
                    number=step.number,
                    name=step.name,
                    cell_id=step.cell_id,
                    source_hash=step.source_hash,
                ),
                status=status,
                job_id=f"r/{place}" if ran else "",
                seconds=1.0 if ran else None,
                written=tuple(sorted(step.writes)),
                failure=(failures or {}).get(place, ""),
            )
        )
    return steps


def nothing(_number: int) -> dict[str, Variable]:
    return {}


def plan(now, then, *, variables=nothing, **request):
    asked = RestartRequest(**request)
    return plan_restart(now, then, asked, variables_before=variables, made_before=nothing)


def fates(made):
    return [step.fate.value for step in made.steps]


def test_a_run_executes_up_to_the_step_asked_for():
    made = flow("a = 1", "b = 2", "c = 3")

    assert fates(plan_run(made)) == ["executes"] * 3
    assert fates(plan_run(made, to="#2")) == ["executes", "executes", "pending"]


def test_the_cut_is_the_first_step_that_did_not_end_well():
    made = flow("a = 1", "b = 2", "c = 3")
    then = origin(made, {1: StepStatus.FAILED, 2: StepStatus.PENDING})

    found = plan(made, then)

    assert found.cut == "#2"
    assert fates(found) == ["kept", "executes", "executes"]
    assert [s.job_id for s in found.steps] == ["r/0", "", ""]


def test_what_depends_on_a_stale_step_is_stale_and_says_through_what():
    then = origin(flow("a = 1", "b = a", "c = 5", "d = b", "e = d"))
    now = flow("a = 2", "b = a", "c = 5", "d = b", "e = d")

    found = plan(now, then, cut="#5")

    assert found.refusals == (
        "step '#1': source changed",
        "step '#2': depends on `a` of step '#1'",
        "step '#4': depends on `b` of step '#2'",
    )
    assert found.earliest == "#1"


def test_a_name_that_is_bound_anew_ends_the_taint():
    then = origin(flow("a = 1", "a = 7", "b = a", "c = b"))
    now = flow("a = 2", "a = 7", "b = a", "c = b")

    assert plan(now, then, cut="#4").refusals == ("step '#1': source changed",)


def test_a_step_whose_checkpoint_failed_moves_the_legal_cut_before_it():
    made = flow("a = 1", "b = 2", "c = 3")
    then = origin(made, failures={1: "disk full"})

    found = plan(made, then, cut="#3")

    assert found.refusals == ("there is no checkpoint after step '#2': disk full",)
    assert found.earliest == "#2"
    assert fates(plan(made, then, cut="#3", widen=True)) == ["kept", "executes", "executes"]


def unstorable(*names, verdict=Verdict.REBUILT):
    return {n: Variable(name=n, verdict=verdict, reason="no") for n in names}


def test_only_what_an_executed_step_reaches_is_rebuilt_through_functions_too():
    made = flow("con = connect()", "def q():\n    return con.run()", "x = 1", "x + 1", "q()")
    then = origin(made)

    unneeded = plan(made, then, cut="#4", to="#4", variables=lambda _: unstorable("con"))
    assert fates(unneeded) == ["kept", "kept", "kept", "executes", "pending"]
    needed = plan(made, then, cut="#4", variables=lambda _: unstorable("con"))
    assert fates(needed) == ["rebuilds", "kept", "kept", "executes", "executes"]
    assert needed.steps[0].names == ("con",)


def test_lost_names_that_are_read_refuse_with_the_cut_that_makes_them():
    made = flow("a = 1", "big = load()", "c = 3", "use(big)")
    lost = unstorable("big", verdict=Verdict.LOST)

    found = plan(made, origin(made), cut="#4", variables=lambda n: lost if n > 2 else {})

    assert found.refusals == ("`big` is lost: no",)
    assert found.earliest == "#2"


@pytest.mark.parametrize("line", ["# step: made", "# step: made --always"])
def test_a_cell_with_effects_makes_a_value_again_only_where_it_runs_anyhow(line):
    made = flow(f"{line}\ncon = connect()", "x = 1", "con.run()")
    then = [msgspec.structs.replace(origin(made)[0], effects=("once",)), *origin(made)[1:]]

    found = plan(made, then, cut="#3", variables=lambda _: unstorable("con"))

    if "--always" in line:
        assert fates(found) == ["runs again", "kept", "executes"]
        return
    why = "`con` is lost: it cannot be stored, and step 'made', which made it, has recorded once"
    assert (found.refusals, found.earliest) == ((why,), "made")


def test_items_need_what_their_own_cells_read_and_nothing_else_of_the_line():
    made = flow(
        "con, other = connect(), connect()",
        "# step: p --foreach x in con.rows() --when con --parallel 2 --collect y\nz = other",
        "# step: q --in p\ny = x, z",
        "con.close()",
    )
    (loop,) = [block for block in blocks_of(made.steps) if block.is_loop]
    for evaluated, names in (([], ("other",)), ([loop.step], ("con", "other"))):
        found = plan_beside(
            made, origin(made), loop=loop, evaluated=evaluated,
            variables_before=lambda _: unstorable("con", "other", "x", "z"),
        )  # fmt: skip
        assert ([step.names for step in found.again], found.lost) == ([names], ())


def test_what_cannot_be_had_is_lost_for_certain_only_where_code_shows_that_it_is_needed():
    made = flow("con = connect()", "# step: p --foreach x in xs --parallel 2\ncon.run()",
                "# step: q --foreach x in xs --parallel 2\nexec(x)")  # fmt: skip
    then = [msgspec.structs.replace(origin(made)[0], effects=("call",)), *origin(made)[1:]]
    for block, certain in zip(blocks_of(made.steps)[1:], (True, False), strict=True):
        found = plan_beside(
            made, then, loop=block, evaluated=(), variables_before=lambda _: unstorable("con")
        )
        assert (found.again, [(one.name, one.certain) for one in found.lost]) == (
            [],
            [("con", certain)],
        )


SOURCES = st.lists(
    st.sampled_from(
        ["a = 1", "b = a", "a = b + 1", "c = [a]", "c.append(b)", "def f():\n    return a",
         "d = f()", "# step: again --always\nz = 1"]
    ),
    min_size=1, max_size=6, unique=True,
)  # fmt: skip


@given(now=SOURCES, then=SOURCES, data=st.data())
def test_a_widened_plan_holds_every_law(now, then, data):
    made = flow(*now)
    before = flow(*then)
    bad = data.draw(st.sets(st.integers(0, len(then) - 1), max_size=2))
    old = origin(before, dict.fromkeys(bad, StepStatus.FAILED))
    cut = data.draw(st.sampled_from([step.label for step in made.steps]))

    found = plan(made, old, cut=cut, widen=True)

    assert not found.refusals
    place = [step.label for step in found.steps].index(found.cut)
    assert place <= [step.label for step in made.steps].index(cut)
    for number, step in enumerate(found.steps):
        if number < place:
            assert step.fate in {Fate.KEPT, Fate.RUNS_AGAIN, Fate.REBUILDS}
            job = next(o for o in old if o.job_id == step.job_id)
            assert job.ended_well
            assert job.source_hash == made.steps[number].source_hash
        else:
            assert step.fate is Fate.EXECUTES


@given(now=SOURCES, data=st.data())
def test_an_unfinished_step_before_the_cut_is_refused_forced_or_not(now, data):
    made = flow(*now)
    bad = data.draw(st.integers(0, len(now) - 1))
    cut = data.draw(st.integers(0, len(now) - 1))
    then = origin(made, {bad: StepStatus.FAILED})

    for force in (False, True):
        found = plan(made, then, cut=made.steps[cut].label, force=force)
        assert bool(found.refusals) == (bad < cut)
        if found.refusals:
            with pytest.raises(RestartRefused):
                found.check()


HANDLING = ("x = 1", "%%step tell --on-failure\nx = 2", "y = x", "%%step z --on-failure\ny = 3",
            "z = y")  # fmt: skip


def test_steps_for_failures_are_skipped_and_change_no_plan():
    made = flow(*HANDLING)
    assert [str(step.fate) for step in plan_run(made, to="#3").steps] == [
        "executes", "skipped", "executes", "skipped", "pending",
    ]  # fmt: skip
    then = origin(made, {1: StepStatus.FAILED, 3: StepStatus.SUCCESS, 4: StepStatus.FAILED})
    for place in (1, 3):
        told = made.steps[place]
        info = msgspec.structs.replace(then[place].info, options=str(told.options))
        then[place] = msgspec.structs.replace(then[place], info=info)

    found = plan(made, then)

    assert (found.cut, found.refusals) == ("#5", ())
    assert [str(step.fate) for step in found.steps] == [
        "kept", "skipped", "kept", "skipped", "executes",
    ]  # fmt: skip


def test_one_that_was_edited_or_came_to_be_is_no_reason_to_refuse():
    made = flow(*HANDLING)
    then = [step for step in origin(made, {4: StepStatus.FAILED}) if step.number in {1, 3, 5}]
    found = plan(made, then)
    assert (found.cut, found.refusals) == ("#5", ())


@pytest.mark.parametrize("request_", [{"cut": "tell"}, {"cut": "#3", "to": "tell"}])
def test_no_plan_begins_or_ends_with_a_step_for_failures(request_):
    made = flow(*HANDLING)
    with pytest.raises(StepNotFound, match="has --on-failure"):
        plan(made, origin(made), **request_)
