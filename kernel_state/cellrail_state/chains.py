"""Chains: lists of jobs whose deltas, folded in order, are a namespace. Pure.

A chain begins with the jobs that a run was started on and goes on with its own. A job that replaces
or follows another one stands at that one's place. To cut a chain is to tell the namespace of a
moment: loops are cut whole, and what belongs to a job stays with it.

The jobs of a parallel loop's items are no part of it, but branches: each begins behind the job that
forks (`JobFinished.forks`). Nor are jobs that ran since the run had failed (`JobFinished.handles`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec

from cellrail_state.model import JobFinished, RunEnded, StepStatus


def chain_of(
    before: Iterable[JobFinished],
    jobs: Iterable[JobFinished],
    *,
    live: bool,
    kept: Iterable[tuple[int, JobFinished]] = (),
    apart: Callable[[JobFinished], object] = lambda _: False,
) -> list[JobFinished]:
    """The jobs whose deltas are a run's namespace, in order.

    Args:
        before: the jobs that the run was started on.
        jobs: its own.
        live: a person executed them, so that failed ones count as well.
        kept: jobs that it kept in mid-run, each with how many of its own came before.
        apart: whether a job is one of a parallel loop's items.
    """
    chain, waiting = list(before), list(kept)
    for count, job in enumerate(jobs):
        while waiting and waiting[0][0] <= count:
            chain.append(waiting.pop(0)[1])
        if job.handles or apart(job):
            continue
        if not (live or is_good(job)):
            continue
        moved = job.replaces or job.follows
        place = place_of(chain, moved) if moved else None
        if place is None:
            chain.append(job)
        elif job.replaces:
            chain[place] = job
        else:
            chain.insert(place + 1, job)
    return chain + [job for _, job in waiting]


def names_of(job: JobFinished) -> set[str]:
    """The ids under which a chain knows a job: its own, and that of the one it stands for."""
    return {job.job_id, job.lays} - {""}


def place_of(chain: Sequence[JobFinished], job_id: str) -> int | None:
    """Where a job stands; None where it does not."""
    for place, job in enumerate(chain):
        if job_id in names_of(job):
            return place
    return None


def before_place(chain: Sequence[JobFinished], place: int, label: str) -> list[JobFinished]:
    """The jobs before the one at a place; of a job that ends the loop `label`, before its loop."""
    job = chain[place]
    while place > 0 and (
        # in a live run, of this execution of the cell
        (chain[place - 1].sequence == job.sequence and _is_of_loop(chain[place - 1], label))
        # it was executed before, by `flow.rerun`
        or (
            chain[place - 1].again
            and (chain[place - 1].step, chain[place - 1].turns) == (job.step, job.turns)
        )
    ):
        place -= 1
    return list(chain[:place])


def _is_of_loop(job: JobFinished, label: str) -> bool:
    return job.forks == label or any(turn.loop == label for turn in job.turns)


def is_good(job: JobFinished) -> bool:
    """Whether the flow went on with what the job left."""
    return job.accepted or job.status in {StepStatus.SUCCESS, StepStatus.KEPT}


def ends_the_run(job: JobFinished) -> bool:
    """Whether nothing could go on after the job."""
    return job.status in {StepStatus.FAILED, StepStatus.CANCELLED} and not job.accepted


def through_jobs(chain: Sequence[JobFinished], job_ids: Collection[str]) -> list[JobFinished]:
    """The jobs up to and with the last of these, and what belongs to its step or loop."""
    place = max((p for p, job in enumerate(chain) if names_of(job) & {*job_ids}), default=None)
    if place is None:
        return []
    # parameters assigned behind it; the job that ends its loop
    while place + 1 < len(chain) and (
        chain[place + 1].follows or len(chain[place + 1].turns) < len(chain[place].turns)
    ):
        place += 1
    return list(chain[: place + 1])


class Late(msgspec.Struct, frozen=True):
    """Names that were found changed, and before which step's end; None for the run's."""

    names: tuple[str, ...]
    step: int | None


def found_late(
    jobs: Sequence[JobFinished], job: JobFinished, ended: RunEnded | None = None
) -> Late | None:
    """What was found changed after a job, though no code showed it: by a later job or at the end.

    An audit looks at everything, so what changed before one does not concern what follows it.
    """
    place = place_of(jobs, job.job_id)
    if place is None or job.delta.audited:
        return None
    for later in jobs[place + 1 :]:
        if later.delta.missed:
            return Late(later.delta.missed, later.step)
        if later.delta.audited:
            return None
    return Late(ended.missed, None) if ended is not None and ended.missed else None
