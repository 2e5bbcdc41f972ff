"""How long jobs took together: a sum one after another, from begin to end beside one another."""

from __future__ import annotations

import pytest

from cellrail_state.model import JobFinished, StepStatus
from cellrail_state.spans import busy_seconds


def _job(started: float, seconds: float) -> JobFinished:
    return JobFinished(
        time=started + seconds, step=1, job_id=f"r/{started}", status=StepStatus.SUCCESS,
        started=started, seconds=seconds,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [
        ([], None),
        ([(10.0, 0.0)], 0.0),
        # one after another, with a wait between
        ([(100.0, 2.0), (10.0, 1.0)], 3.0),
        # beside one another, one of them within another
        ([(10.0, 5.0), (11.0, 1.0), (12.0, 6.0)], 8.0),
        # the same job twice
        ([(10.0, 5.0), (10.0, 5.0)], 5.0),
    ],
)
def test_jobs_took_the_time_in_which_one_of_them_was_executed(spans, seconds):
    assert busy_seconds(_job(*span) for span in spans) == seconds
