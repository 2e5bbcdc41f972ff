"""Which calls a restart goes on with, and what a child's process has said in the end."""

from __future__ import annotations

import pytest

from cellrail.run.calls import taken_over
from cellrail.run.prepare import this_process
from cellrail_state.history import RunHistory
from cellrail_state.model import (
    Called,
    JobFinished,
    JobStarted,
    RunKind,
    RunStarted,
    StepInfo,
    StepStatus,
    Turn,
)
from cellrail_state.steps import Sources

STEPS = (StepInfo(number=1, name="go"), StepInfo(number=2, name="loop"))


def called(step: int, run_id: str, key: str = "k", turns: tuple[Turn, ...] = ()) -> Called:
    return Called(
        time=0.0, step=step, job_id=f"r/{step}", caller=STEPS[step - 1].name, key=key,
        run_id=run_id, notebook="item.ipynb", turns=turns,
    )  # fmt: skip


def ended(step: int, status: StepStatus, turns: tuple[Turn, ...] = ()) -> list[object]:
    job_id = f"r/{step}-{len(turns) and turns[0].index}"
    return [
        JobStarted(time=0.0, step=step, job_id=job_id, turns=turns),
        JobFinished(
            time=0.0, step=step, job_id=job_id, status=status, started=0.0, turns=turns
        ),
    ]  # fmt: skip


def history(*records: object) -> RunHistory:
    started = RunStarted(
        run_id="r", flow="f", kind=RunKind.RUN, time=0.0, owner=this_process(), steps=STEPS
    )
    return RunHistory(
        "r",
        Sources(
            records=lambda _: [started, *records], owned=lambda _: False, content=lambda _: b""
        ),
    )


SAME = {1: 1, 2: 2}


@pytest.mark.parametrize(
    ("status", "taken"),
    [(StepStatus.SUCCESS, False), (StepStatus.KEPT, False), (StepStatus.FAILED, True),
     (StepStatus.CANCELLED, True)],
)  # fmt: skip
def test_the_calls_of_a_step_are_taken_over_unless_it_ended_well(status, taken):
    found = taken_over(history(called(1, "c"), *ended(1, status)), SAME)
    assert [call.run_id for call in found] == ["c"] * taken


def test_the_newest_run_of_a_call_of_an_interrupted_step_is_taken_over():
    run = history(called(1, "a"), called(1, "b"), called(1, "c", key="other"))
    assert [call.run_id for call in taken_over(run, SAME)] == ["b", "c"]


def test_in_a_loop_each_item_counts_for_itself():
    north, south = (Turn("loop", 0, "north"),), (Turn("loop", 1, "south"),)
    run = history(
        called(2, "a", turns=north), *ended(2, StepStatus.SUCCESS, north),
        called(2, "b", turns=south), *ended(2, StepStatus.FAILED, south),
    )  # fmt: skip
    assert [call.run_id for call in taken_over(run, SAME)] == ["b"]


def test_a_step_that_moved_takes_its_calls_along_and_one_that_is_gone_has_none():
    run = history(called(1, "a"), called(2, "b"))
    assert [(call.run_id, call.step) for call in taken_over(run, {2: 7})] == [("b", 7)]
