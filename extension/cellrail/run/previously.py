"""The clerk of `flow.previous`: what a step left the last time that it ended.

That is its newest earlier job: in this run (the turn before, in a loop; the attempt that was
committed before the run was recovered), else in the run that it was restarted from (of the same
item, where it is in a loop and that run had it). Values are not loaded here: the cell gets the
checkpoint of what it asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cellrail.run.desk import Clerk, Desk, Handler, Job
from cellrail_state.history import RunHistory
from cellrail_state.model import Checkpoint, JobFinished, Turn, Verdict, to_plain
from cellrail_state.steps import Sources


class Previously(Clerk):
    """Knows what was before."""

    def __init__(
        self, desk: Desk, *, origin: RunHistory | None = None, numbers: Mapping[int, int]
    ) -> None:
        """Know where to look.

        Args:
            desk: the run's.
            origin: the run that it was restarted from.
            numbers: that run's number of each step.
        """
        self._desk, self._origin, self._numbers = desk, origin, numbers

    def handlers(self) -> Mapping[str, Handler]:
        """What cells can ask."""
        return {"previous": self.find}

    def find(self, job: Job | None) -> dict[str, Any] | None:
        """The newest earlier job of the step: its values' checkpoint and its outputs."""
        if job is None:
            return None
        here = self._history()
        found = _newest(here, job.number, ())
        if found is not None:
            return _told(here, found, self._desk)
        origin, number = self._origin, self._numbers.get(job.number)
        if origin is None or number is None:
            return None
        found = _newest(origin, number, job.turns)
        return None if found is None else _told(origin, found, self._desk)

    def _history(self) -> RunHistory:
        store = self._desk.recorder.store
        sources = Sources(records=store.records, owned=lambda _: True, content=store.objects.get)
        return RunHistory(self._desk.recorder.run_id, sources)


def _newest(history: RunHistory, number: int, turns: tuple[Turn, ...]) -> JobFinished | None:
    """The newest job of a step that left something, of these turns if there is one."""
    kept = {history.state(number).job_id, history.turns.get((number, turns))}
    own = {job.job_id for job in history.jobs if job.step == number and not job.follows}
    jobs = [job for job in history.chain if (job.lays or job.job_id) in own | kept]
    if any(job.job_id in own for job in jobs):  # what it did itself is newer
        jobs = [job for job in jobs if job.job_id in own]
    same = [job for job in jobs if job.turns == turns]
    found: Sequence[JobFinished] = same or jobs
    return found[-1] if found else None


def _told(history: RunHistory, job: JobFinished, desk: Desk) -> dict[str, Any]:
    chain = history.chain
    place = next(place for place, other in enumerate(chain) if other.job_id == job.job_id)
    checkpoint = Checkpoint.fold(other.delta for other in chain[: place + 1])
    names = [name for name in job.delta.written if name.isidentifier()]
    variables = {n: checkpoint.variables[n] for n in names if n in checkpoint.variables}
    needed = {v.component for v in variables.values() if v.verdict is Verdict.STORED}
    part = Checkpoint(
        variables=variables,
        components={
            cid: c for cid, c in checkpoint.components.items() if cid in needed or c.definitions
        },
    )
    return {
        "checkpoint": to_plain(part),
        "outputs": history.outputs(job),
        "objects": str(desk.recorder.store.path / "objects"),
    }
