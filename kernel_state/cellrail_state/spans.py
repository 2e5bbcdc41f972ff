"""How long jobs took together."""

from __future__ import annotations

from collections.abc import Iterable

from cellrail_state.model import JobFinished


def busy_seconds(jobs: Iterable[JobFinished]) -> float | None:
    """Seconds in which the code of at least one of them was executed; None where there is none.

    Of jobs one after another that is their sum, without what passed while the run waited or a
    checkpoint was written; of jobs beside one another it is the time from the first's beginning to
    the last's end. The same job twice counts once.
    """
    busy: float | None = None
    reached = float("-inf")
    for job in sorted(jobs, key=lambda job: job.started):
        end = job.started + job.seconds
        # not from the two moments, which are too coarse for a quick cell
        busy = (busy or 0.0) + (job.seconds if job.started >= reached else max(0.0, end - reached))
        reached = max(reached, end)
    return busy
