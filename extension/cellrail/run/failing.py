"""Carries out the steps with `--on-failure` of a run that has failed.

They run one after another in the kernel that the failure has left, on the namespace as it is; where
that kernel is dead, in a fresh one with the last checkpoint put back. What becomes of them changes
nothing of what the run came to: one that fails stops neither the next one nor the end of the run.

Their jobs are no part of the run's chain (`JobFinished.handles`). A run that is recovered executes
those that had not ended, and none twice for the same failure.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from cellrail.kernels.channel import ChannelClosed
from cellrail.kernels.kernel import Kernel
from cellrail.notebook import actions, control
from cellrail.notebook.address import find_step
from cellrail.notebook.beside import plan_behind
from cellrail.notebook.model import Flow, Step
from cellrail.run.again import segments_of
from cellrail.run.client import Ending
from cellrail.run.crew import Ground, Place, own_history
from cellrail.run.desk import Desk
from cellrail.run.limits import RunLimits, ending_told, seconds_of
from cellrail.run.origins import origin_step
from cellrail.run.performer import Performer
from cellrail.run.recorder import Recorder
from cellrail.run.remaking import loop_under_way
from cellrail.run.replay import KERNEL_DIED
from cellrail_state.chains import ends_the_run, is_good
from cellrail_state.errors import CannotRestore
from cellrail_state.history import RunHistory
from cellrail_state.model import (
    Checkpoint,
    JobFinished,
    Record,
    RunEnded,
    StepError,
    StepStatus,
    Variable,
)

_LOGGER = logging.getLogger(__name__)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
#: what `flow.error.name` is where no exception of the user's code tells
TIMEOUT, DIED, OTHER = "TimeoutError", "KernelDied", "RunFailed"


class Means(msgspec.Struct, frozen=True, kw_only=True):
    """What a failed run has to carry them out with."""

    flow: Flow
    recorder: Recorder
    notebook: Any
    desk: Desk
    limits: RunLimits
    sources: Mapping[int, str]
    #: starts a further kernel
    start: Callable[[], Kernel]
    #: a performer for a kernel that is as good as new: its arguments beside those above
    rest: dict[str, Any]
    jitter: Callable[[], float]
    #: is told of each action that is performed
    tell: Callable[[actions.Action], None]


def carry_out(
    means: Means, performer: Performer | None, *, step: str, cause: str, alive: Callable[[], bool]
) -> None:
    """Run what has not run yet for this failure.

    Args:
        means: the run's.
        performer: of the run's kernel; None where there is none.
        step: address of the step that decided the failure; "" where none did.
        cause: why the run has failed.
        alive: whether the run's kernel lives.
    """
    recorder = means.recorder
    jobs = handled(recorder.store.records(recorder.run_id))
    done = {job.step for job in jobs if _is_final(job, means.flow)}
    todo = [
        step
        for step in means.flow.steps
        if step.options.on_failure and not step.skips and step.number not in done
    ]
    if not todo:
        return
    means.desk.facts["error"] = told_failure(own_history(recorder), recorder, step, cause)
    if means.desk.waiter is not None:
        means.desk.waiter.refuses = "the run has failed; nothing of it waits any more"
    place: Place | None = None
    try:
        while todo:
            if performer is None or not alive():
                if place is not None:
                    place.close()
                place, performer = _fresh(means, todo)
                alive = _lives(place)
            _conduct(means, performer, todo.pop(0))
            if performer.result is not None and performer.result.ending is Ending.INTERRUPTED:
                return
    finally:
        if place is not None:
            place.close()


def _conduct(means: Means, performer: Performer, step: Step) -> None:
    performer.handles = True
    # no cell of the flow follows: what was to be done before it is not done
    performer.settle()
    # the limit of the whole run is what the run may have failed by
    performer.deadline.lift()
    performer.is_last = lambda *_: True
    machine = control.conduct_handler(step, jitter=means.jitter)
    answer: Any = None
    while True:
        try:
            action = machine.send(answer)
        except StopIteration:
            return
        means.tell(action)
        answer = performer.perform(action)


# --- a fresh kernel --------------------------------------------------------------------------


def _fresh(means: Means, todo: Sequence[Step]) -> tuple[Place, Performer]:
    """A fresh kernel on the last checkpoint."""
    ground = _ground(means, own_history(means.recorder), todo)
    place = _place(means, ground, todo)
    try:
        return place, _performer(means, place)
    except (CannotRestore, ChannelClosed) as error:
        place.close()
        if not ground.segments:
            raise
        # whoever is to be told shall be told; what is not there is missed by a cell that uses it
        told = str(error) or "the kernel died"
        _LOGGER.warning("not made again for what runs since the run has failed: %s", told)
        place = _place(means, msgspec.structs.replace(ground, segments=()), todo)
        return place, _performer(means, place)


def _place(means: Means, ground: Ground, todo: Sequence[Step]) -> Place:
    names: set[str] | None = set()
    for step in todo:
        names = None if names is None or step.needs is None else names | step.needs
    return Place(
        ground,
        flow=means.flow,
        recorder=means.recorder,
        notebook=means.notebook,
        sources=means.sources,
        ahead=None if names is None else sorted(names),
        start=means.start,
        stop=threading.Event(),
        seconds=lambda step: seconds_of(step, means.limits, None),
        what="what runs since the run has failed",
    )


def _ground(means: Means, history: RunHistory, todo: Sequence[Step]) -> Ground:
    jobs = history.chain
    while jobs and jobs[-1].delta.failure:
        jobs = jobs[:-1]
    loop = jobs[-1].turns[0].loop if jobs and jobs[-1].turns else ""
    around = find_step(loop, means.flow.steps) if loop else None
    under_way = loop_under_way(means.flow, history, jobs, loop) if loop else None
    # those that ran before in another kernel: they found what the failure had left
    before = handled(means.recorder.store.records(means.recorder.run_id))
    jobs += [job for job in before if is_good(job) and not job.delta.failure]
    checkpoint = Checkpoint.fold(job.delta for job in jobs)
    known = {job.job_id for job in jobs} | {job.lays for job in jobs}
    states = history.states
    origin = [
        step if step.job_id in known else msgspec.structs.replace(step, job_id="")
        for step in (origin_step(history, state) for state in states)
    ]
    ended = {step.number for step in origin if step.job_id}

    def variables_before(number: int) -> Mapping[str, Variable]:
        if around is not None and under_way is not None and number == around.number:
            return under_way.before.variables
        found = history.checkpoint_before(number) if number in ended else checkpoint
        return found.variables

    behind = plan_behind(
        means.flow, origin, handlers=todo, variables_before=variables_before, around=around,
        turns=under_way.kept if under_way is not None else (),
    )  # fmt: skip
    turns = under_way.planned(behind.turns, means.flow, jobs) if under_way is not None else {}
    if behind.lost:
        told = "; ".join(dict.fromkeys(one.told for one in behind.lost))
        _LOGGER.warning("not made again for what runs since the run has failed: %s", told)
    sources = {state.job_id: state.info.source for state in states}
    return Ground(
        checkpoint=checkpoint,
        jobs=tuple(jobs),
        segments=tuple(segments_of(behind.again, jobs, history, turns)),
        inputs={
            job.execution_count: job.source or sources.get(job.job_id, "")
            for job in jobs
            if job.execution_count is not None
        },
        lazy_above=means.limits.lazy_above,
    )


def _performer(means: Means, place: Place) -> Performer:
    return Performer(
        client=place.ready(means.notebook, means.desk),
        recorder=means.recorder,
        cells=means.notebook["cells"],
        sources=means.sources,
        limits=msgspec.structs.replace(means.limits, timeout=None),
        lazy=place.lazy,
        exit_code=place.exit_code,
        desk=means.desk,
        **means.rest,
    )


def _lives(place: Place) -> Callable[[], bool]:
    return lambda: place.exit_code() is None


# --- what the journal tells ------------------------------------------------------------------


def handled(records: Iterable[Record]) -> list[JobFinished]:
    """The jobs that have run for the failure that the run is in, in order."""
    jobs: list[JobFinished] = []
    for record in records:
        if isinstance(record, JobFinished) and record.handles:
            jobs.append(record)
        elif isinstance(record, (RunEnded, JobFinished)):
            jobs.clear()  # the run was gone on with: that failure is over
    return jobs


def _is_final(job: JobFinished, flow: Flow) -> bool:
    """Whether the step is not tried again."""
    retry = next((s.options.retry for s in flow.steps if s.number == job.step), 0)
    return job.status is not StepStatus.FAILED or job.attempt > retry


def told_failure(history: RunHistory, recorder: Recorder, step: str, cause: str) -> dict[str, Any]:
    """What `flow.error` tells, without secrets."""
    cause = recorder.masker.text(cause)
    error = _error_of(history, cause)
    name, value, lines = OTHER, cause, tuple[str, ...]()
    if cause.startswith(KERNEL_DIED):
        name = DIED
    elif error is not None:
        name, value, lines = error.name, error.value, error.traceback
        if ending_told(cause) != "error":
            name, value = TIMEOUT, cause
    elif ending_told(cause) != "error":
        name = TIMEOUT
    traceback = _COLOURS.sub("", "\n".join(lines))
    return {"step": step, "name": name, "value": value, "traceback": traceback}


def _error_of(history: RunHistory, cause: str) -> StepError | None:
    """The user's error that the run has failed by."""
    for job in reversed(history.jobs):
        error = job.error
        if job.handles or not ends_the_run(job) or error is None:
            continue
        if cause == (job.cause or f"{error.name}: {error.value}"):
            return error
    return None
