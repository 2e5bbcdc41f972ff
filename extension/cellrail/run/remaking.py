"""From the jobs of a loop that is gone on with in its midst to those that run again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from cellrail.notebook.actions import Fork
from cellrail.notebook.beside import plan_item, plan_turns
from cellrail.notebook.model import Flow
from cellrail.notebook.origin import OriginStep, RestartRequest
from cellrail.notebook.plan import Fate, PlannedStep
from cellrail.notebook.underway import Going, KeptTurn, Turns
from cellrail.run.replay import ItemPlan
from cellrail_state.history import RunHistory
from cellrail_state.model import Checkpoint, JobFinished, StepStatus, Variable, Verdict


class UnderWayLoop(msgspec.Struct, frozen=True, kw_only=True):
    """The kept jobs of the loop that a chain of jobs ends in."""

    #: place in the chain of its first job
    first: int
    #: the namespace right before that one
    before: Checkpoint
    #: what has ended of it, in order
    kept: list[KeptTurn]
    #: and their places in the chain
    places: list[int]

    def planned(
        self, turns: Turns, flow: Flow, jobs: Sequence[JobFinished]
    ) -> dict[int, PlannedStep]:
        """The steps that run again, by the places of their jobs in the chain."""
        labels = {step.number: step.label for step in flow.steps}
        return {
            self.places[n]: PlannedStep(
                number=self.kept[n].number, label=labels[self.kept[n].number], fate=Fate.REBUILDS,
                job_id=jobs[self.places[n]].job_id, names=tuple(sorted(names)),
            )
            for n, names in turns.makers.items()
        }  # fmt: skip


def loop_under_way(
    flow: Flow,
    history: RunHistory,
    jobs: Sequence[JobFinished],
    loop: str,
    *,
    numbers: Mapping[int, int] | None = None,
) -> UnderWayLoop:
    """What has ended of a loop.

    Args:
        flow: the notebook as it is now.
        history: the run that has the jobs.
        jobs: the chain up to where the loop goes on.
        loop: label of the outermost loop there.
        numbers: the run's number of each step of today's notebook, where they are others.
    """
    first = len(jobs)
    while first > 0 and _is_of_execution(history, jobs[first - 1], jobs[-1], loop):
        first -= 1
    mine = {job_id: number for (number, _), job_id in history.turns.items()}
    before = Checkpoint.fold(job.delta for job in jobs[:first])
    kept, places = _kept(flow, jobs, first, before, _today(mine, numbers))
    return UnderWayLoop(first=first, before=before, kept=kept, places=places)


def _today(mine: Mapping[str, int], numbers: Mapping[int, int] | None) -> dict[str, int]:
    """Today's number of the step of each job; of those that stand for one."""
    if numbers is None:
        return dict(mine)
    today = {there: here for here, there in numbers.items()}
    return {job_id: today[number] for job_id, number in mine.items() if number in today}


def _is_of_execution(history: RunHistory, job: JobFinished, last: JobFinished, loop: str) -> bool:
    """Whether both are of one execution of a loop: a person may have executed it before."""
    if not job.turns or job.turns[0].loop != loop:
        return False
    return not history.is_live or job.sequence == last.sequence


def _kept(
    flow: Flow,
    jobs: Sequence[JobFinished],
    first: int,
    checkpoint: Checkpoint,
    numbers: Mapping[str, int],
) -> tuple[list[KeptTurn], list[int]]:
    steps = {step.number: step for step in flow.steps}
    kept, places = list[KeptTurn](), list[int]()
    for place, job in enumerate(jobs[first:], first):
        number = numbers.get(job.job_id)
        if number is not None:  # else it was executed again, by `flow.rerun`
            step = steps[number]
            places.append(place)
            kept.append(
                KeptTurn(
                    number=number,
                    before=checkpoint.variables,
                    written=frozenset(job.delta.written),
                    effects=job.effects.kinds if job.effects is not None else (),
                    whole=job.status is not StepStatus.FAILED,
                    ends=step.options.loops and job.turns[-1].loop != step.label,
                )
            )
        checkpoint = checkpoint.after(job.delta)
    return kept, places


def remade(
    flow: Flow,
    history: RunHistory,
    jobs: Sequence[JobFinished],
    going: Going,
    *,
    origin: Sequence[OriginStep],
    request: RestartRequest,
    numbers: Mapping[int, int] | None = None,
) -> tuple[dict[int, PlannedStep], tuple[str, ...]]:
    """The kept turns that run again for what cannot be stored, and why that cannot be.

    Args:
        flow: the notebook as it is now.
        history: the run that has the jobs.
        jobs: the chain up to where the loop goes on.
        going: where that is.
        origin: the run's steps.
        request: what was asked for.
        numbers: the run's number of each step of today's notebook, where they are others.

    Returns:
        The steps, by their jobs' places in the chain, and refusals.
    """
    variables = Checkpoint.fold(job.delta for job in jobs).variables
    if not _has_unstored(variables):
        return {}, ()
    loop = (*going.loops, going.step)[0]
    under_way = loop_under_way(flow, history, jobs, loop, numbers=numbers)
    turns = plan_turns(flow, origin, request, going=going, kept=under_way.kept, variables=variables)
    return under_way.planned(turns, flow, jobs), turns.refusals


def remade_in_item(
    flow: Flow, fork: Fork, plan: ItemPlan, ground: Sequence[JobFinished]
) -> tuple[dict[int, PlannedStep], tuple[str, ...]]:
    """The kept jobs of an item of a parallel loop that run again for what cannot be stored.

    Args:
        flow: the run's steps.
        fork: the parallel loop.
        plan: what becomes of the item.
        ground: the chain of jobs that the loop's items begin on.

    Returns:
        The steps, by their jobs' places in the chain that the item goes on behind, and why it
        cannot go on there.
    """
    if plan.replay is None or plan.kept or not plan.jobs:
        return {}, ()
    jobs, first = (*ground, *plan.jobs), len(ground)
    before = Checkpoint.fold(job.delta for job in ground)
    variables = Checkpoint.fold((job.delta for job in plan.jobs), before=before).variables
    if not _has_unstored(variables):
        return {}, ()
    kept, places = _kept(flow, jobs, first, before, plan.replay.numbers(fork))
    turns = plan_item(
        flow, fork.block, going=plan.replay.goes_on(fork), kept=kept, variables=variables
    )
    found = UnderWayLoop(first=first, before=before, kept=kept, places=places)
    # what it perhaps never asks for is told by the cell that does
    why = tuple(dict.fromkeys(one.told for one in turns.lost if one.certain))
    return {} if why else found.planned(turns, flow, jobs), why


def item_of(fork: Fork, plan: ItemPlan) -> str:
    """The address of an item that has kept jobs."""
    return "/".join(map(str, plan.jobs[0].turns[: len(fork.path) + 1]))


def items_refused(
    flow: Flow, fork: Fork, plans: Sequence[ItemPlan], ground: Sequence[JobFinished]
) -> dict[str, str]:
    """The items of a parallel loop that cannot go on behind their kept jobs, and why, in words.

    Args:
        flow: the run's steps.
        fork: the loop.
        plans: what becomes of each item.
        ground: the chain of jobs that the items begin on.
    """
    found = dict[str, str]()
    for plan in plans:
        _, why = remade_in_item(flow, fork, plan, ground)
        if why:
            item = item_of(fork, plan)
            found[item] = f"{item} cannot go on behind its kept jobs: {'; '.join(why)}"
    return found


def _has_unstored(variables: Mapping[str, Variable]) -> bool:
    return any(variable.verdict is not Verdict.STORED for variable in variables.values())


def told_remade(turns: Mapping[int, PlannedStep]) -> str:
    """That kept jobs run again, in words behind others; "" where none does."""
    names = ", ".join(sorted({name for planned in turns.values() for name in planned.names}))
    jobs = "1 kept job runs" if len(turns) == 1 else f"{len(turns)} kept jobs run"
    return f"; {jobs} again for {names}" if turns else ""
