"""The steps of a run as planners see them: one account of each, whoever plans with it.

A restart, a recovery, the items of a parallel loop and what runs since a run has failed have it
from here, so all of them know the same of a step: what it wrote, and that it must not be executed
again for that.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from cellrail.notebook.origin import Made, OriginStep
from cellrail_state.history import RunHistory
from cellrail_state.steps import StepState
from cellrail_state.turns import job_address


def origin_step(history: RunHistory, state: StepState) -> OriginStep:
    """A step of a run as planners see it."""
    job, info = state.job, state.info
    if job is not None and job.modules:  # a cell of the run wrote them
        info = msgspec.structs.replace(info, modules=job.modules)
    return OriginStep(
        info=info,
        status=state.status,
        accepted=state.accepted,
        cause=state.cause,
        job_id=state.job_id if job is not None else "",
        seconds=history.seconds_of(info.number) if job is not None else None,
        written=history.written_by(info.number),
        failure=history.restorable_after(state.info.number) if job is not None else "",
        # a kept job's is its own run's
        sequence=job.sequence if job is not None and state.kept is None else 0,
        effects=history.effects_of(state.info.number) if job is not None else (),
        made=tuple(_made(history, state)),
    )


def _made(history: RunHistory, state: StepState) -> Iterator[Made]:
    """Jobs that stand for a step and that other code made, of those made alike the first."""
    info = state.info
    known = {(info.source_hash, info.options)}
    jobs = history.turns_of(info.number) or ([((), state.job)] if state.job is not None else [])
    for path, job in jobs:
        then = history.made_with(info.number, job)
        if (then.source_hash, then.options) not in known:
            known.add((then.source_hash, then.options))
            yield Made(address=job_address(info.label, path), info=then)
