"""Laws of the spread, before anything executes:

* what is certain executes; what reads a name in doubt may, until the name is bound anew;
* what cannot be stored is made again by those that made or may have changed it, where it is needed;
* what a unit can read is what its code, and the functions behind it, use before they bind it.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from cellrail.notebook.blocks import blocks_of
from cellrail.notebook.changes import Changes
from cellrail.notebook.parse import parse
from cellrail.notebook.spread import Cause, OldUnit, certain, foresee, refusal, units_of
from cellrail_state.model import (
    Checkpoint,
    Delta,
    Effects,
    JobFinished,
    StepStatus,
    Variable,
    Verdict,
)


def _units(*sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    flow = parse(nbformat.v4.new_notebook(cells=cells), Path("flow.ipynb"))
    return units_of(blocks_of(flow.steps))


def _old(unit, *, unstorable=(), kind="generator", effects=None):
    records = {
        name: Variable(name=name, verdict=Verdict.REBUILT, type=kind, reason="it is alive")
        for name in unstorable
    }
    job = JobFinished(
        time=0, step=unit.numbers[0], job_id="r/1", status=StepStatus.SUCCESS, started=0,
        delta=Delta(written=tuple(sorted(unit.touches)), variables=records), effects=effects,
    )  # fmt: skip
    known = Checkpoint(variables=records)
    return OldUnit(jobs=(job,), before=known, after=known)


#: name: (sources, places that execute for certain, places that may)
SPREAD = {
    "readers, and their readers": (["a = 1", "b = a", "c = b", "d = 5"], {0}, {1, 2}),
    "a name bound anew": (["a = 1", "a = 2", "b = a"], {0}, set()),
    "a name that may be bound anew": (["a = 1", "if c:\n    a = 2", "b = a"], {0}, {1, 2}),
    "a function": (["k = 1", "def f(): return k", "x = f()", "y = 1"], {0}, {2}),
    "anything": (["a = 1", "b = eval(t)", "c = 1"], {0}, {1}),
    "a lambda in a list": (["k = 1", "h = []", "h.append(lambda: k)", "h[0]()"], {0}, {2, 3}),
    "a text that is evaluated": (["a = 1", "df.query('x > @a')", "other.query('y')"], {0}, {1}),
    "a loop": (["a = 1", "# step: l --foreach i in a\nb = i", "# step: m --in l\nc = b"], {0}, {1}),
    "a condition": (["a = 1", "# step: w --when a > 0\nb = 1", "c = b"], {0}, {1, 2}),
    "the variable of a comprehension": (["i = 1", "b = [i for i in range(3)]"], {0}, set()),
    "nothing": (["a = 1", "b = a"], set(), set()),
}  # fmt: skip


@pytest.mark.parametrize("case", SPREAD)
def test_what_may_follow_is_foreseen(case):
    sources, sure, may = SPREAD[case]
    units = _units(*sources)
    causes = {place: Cause(reason="source changed") for place in sure}

    outlook = foresee(units, [_old(unit) for unit in units], causes, changed={})

    assert set(outlook.causes) == sure
    assert set(outlook.may) == may


def test_the_plan_names_the_variable_and_the_step():
    units = _units("a = 1", "b = a")

    outlook = foresee(units, [_old(u) for u in units], {0: Cause(reason="x")}, changed={})

    assert outlook.may == {1: "if `a` of step #1 comes out different"}


def test_what_cannot_be_stored_is_made_again_where_it_is_needed():
    units = _units("g = make()", "a = next(g)", "k = 1", "b = next(g) + k", "c = 1")
    olds = [_old(units[0], unstorable=["g"]), _old(units[1], unstorable=["g"]),
            *map(_old, units[2:])]  # fmt: skip

    needed = foresee(units, olds, {2: Cause(reason="x")}, changed={})
    spared = foresee(units, olds, {4: Cause(reason="x")}, changed={})

    assert {place for place, cause in needed.causes.items() if cause.again} == {0, 1}
    assert needed.causes[0].reason == "step #2 needs `g`, which cannot be put back (it is alive)"
    assert set(spared.causes) == {4}


def test_what_no_change_reaches_is_made_again_though_it_was_in_doubt():
    units = _units("f = k = 1", "g = make(f)", "b = next(g) + k")
    olds = [_old(units[0]), _old(units[1], unstorable=["g"]), _old(units[2])]
    changed = {"f": "of step #1", "k": "of step #1"}

    doubted = foresee(units, olds, {}, changed=changed, begin=1)
    settled = foresee(units, olds, {}, changed=changed, begin=1, settled=1)

    assert (set(doubted.may), set(doubted.causes)) == ({1, 2}, set())
    assert (set(settled.may), set(settled.causes)) == ({2}, {1})


def test_a_step_with_an_effect_is_never_the_one():
    (unit,) = _units("# step: connect\ndb = connect()")
    old = _old(unit, unstorable=["db"], effects=Effects(user={"n": "1"}))
    again = Cause(reason="step use needs `db`", again=True)

    assert "--changed step:connect" in refusal(unit, old, again)
    assert not refusal(unit, old, Cause(reason="source changed"))
    assert not refusal(unit, _old(unit), again)


def test_certain_are_new_named_changed_lost_and_always_steps():
    new, named, edited, lost, always, imports, blank, same = units = _units(
        "a = 1", "b = 1", "c = 1", "d = 1", "# step: e --always\ne = 1", "import pandas as pd",
        "# nothing", "f = 1",
    )  # fmt: skip
    changes = Changes(
        steps={2: "forced by step:#2", 3: "source changed"}, forced_steps={2},
        packages={"pandas": "package pandas 2.1 -> 3.0"},
    )  # fmt: skip
    olds = {unit.label: _old(unit) for unit in units}

    def why(unit, old):
        cause = certain(unit, old, changes)
        return (cause.reason, cause.forced, cause.again) if cause is not None else None

    assert why(new, None) == ("new step", False, False)
    assert why(named, olds["#2"]) == ("forced by step:#2", True, False)
    assert why(edited, olds["#3"]) == ("source changed", False, False)
    assert why(lost, OldUnit(lost="it did not run in the origin")) == (
        "it did not run in the origin", False, False,
    )  # fmt: skip
    assert why(always, olds["e"]) == ("--always", False, True)
    assert why(imports, olds["#6"]) == ("package pandas 2.1 -> 3.0", False, False)
    assert why(blank, None) is None
    assert why(same, olds["#8"]) is None
