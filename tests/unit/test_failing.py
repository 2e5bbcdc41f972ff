"""Which cells with `--on-failure` have run for the failure that a run is in."""

from __future__ import annotations

from cellrail.run.failing import handled
from cellrail.run.prepare import this_process
from cellrail_state.model import JobFinished, RunContinued, RunEnded, RunStatus, StepStatus

OWNER = this_process()


def job(number: int, *, handles: bool, status: StepStatus = StepStatus.SUCCESS) -> JobFinished:
    return JobFinished(
        time=0.0, step=number, job_id=f"r/{number}", status=status, started=0.0, handles=handles
    )


FAILED = job(1, handles=False, status=StepStatus.FAILED)
END = RunEnded(time=0.0, status=RunStatus.FAILED)
ON = RunContinued(time=0.0, owner=OWNER, epoch=2, reason="recover")


def test_those_behind_the_last_failure_have_run_for_it():
    assert handled([FAILED]) == []
    first, second = job(2, handles=True), job(3, handles=True)
    assert handled([FAILED, first, second]) == [first, second]
    # its driver was killed, and another one goes on
    assert handled([FAILED, first, ON]) == [first]


def test_a_failure_that_was_gone_on_behind_is_over():
    first = job(2, handles=True)
    assert handled([FAILED, first, END, ON]) == []
    assert handled([FAILED, first, ON, FAILED]) == []
