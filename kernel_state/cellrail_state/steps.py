"""What became of a step, and where a history gets what is not in the run's own journal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from cellrail_state.errors import JournalDamaged
from cellrail_state.model import (
    Called,
    JobFinished,
    JobStarted,
    KeptReason,
    Laid,
    Record,
    RunStarted,
    StepInfo,
    StepStatus,
)


class StepState(msgspec.Struct, frozen=True, kw_only=True):
    """A step in a run: what became of it, and the job that stands for it."""

    info: StepInfo
    status: StepStatus = StepStatus.PENDING
    kept: KeptReason | None = None
    job_id: str = ""
    #: None while nothing was committed
    job: JobFinished | None = None
    #: why, in words, where it is not success
    cause: str = ""
    #: seconds since the epoch when the step fired
    fired: float | None = None
    #: it ran again before the cut for names that cannot be stored
    rebuilt: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        """A failure that the flow tolerates."""
        return self.job is not None and self.job.accepted


class Sources:
    """Where a history gets what is not in the run's own journal."""

    def __init__(
        self,
        *,
        records: Callable[[str], Iterable[Record]],
        owned: Callable[[str], bool],
        content: Callable[[Any], bytes],
    ) -> None:
        """Know the store.

        Args:
            records: the records of a run's journal, by run id.
            owned: whether a run's owner lives, by run id.
            content: the bytes behind an `ObjectRef`.
        """
        self.records = records
        self.owned = owned
        self.content = content
        self._runs: dict[str, dict[str, JobFinished]] = {}
        #: the step that each job was made with, as it was then
        self._infos: dict[str, StepInfo] = {}
        self._calls: dict[str, list[Called]] = {}

    def jobs(self, run_id: str) -> dict[str, JobFinished]:
        """The committed jobs of a run by their ids, in order."""
        jobs = self._runs.get(run_id)
        if jobs is None:
            jobs = self._runs[run_id] = self._jobs_of(run_id)
        return jobs

    def job(self, job_id: str) -> JobFinished:
        """A committed job of any run.

        Raises:
            JournalDamaged: its journal holds no such job.
        """
        jobs = self.jobs(job_id.rpartition("/")[0])
        if job_id not in jobs:
            raise JournalDamaged(
                f"the job {job_id} is missing in its journal",
                hint="`cellrail doctor` tells which runs it hurts",
            )
        return jobs[job_id]

    def calls(self, run_id: str) -> list[Called]:
        """What the cells of a run have called, in order."""
        if run_id not in self._calls:
            found = [record for record in self.records(run_id) if isinstance(record, Called)]
            self._calls[run_id] = found
        return self._calls[run_id]

    def info(self, job_id: str) -> StepInfo | None:
        """The step that a job of any run was made with; None where its run does not tell.

        Raises:
            JournalDamaged: its journal holds no such job.
        """
        self.job(job_id)
        return self._infos.get(job_id)

    def _jobs_of(self, run_id: str) -> dict[str, JobFinished]:
        jobs: dict[str, JobFinished] = {}
        infos: dict[int, StepInfo] = {}
        for record in self.records(run_id):
            if isinstance(record, RunStarted):
                infos = {info.number: info for info in record.steps}
            elif isinstance(record, JobStarted) and record.info is not None:
                infos[record.step] = record.info
            elif isinstance(record, JobFinished):
                jobs[record.job_id] = record
                if record.step in infos:
                    self._infos[record.job_id] = with_source(infos[record.step], record)
            elif isinstance(record, Laid):
                kept = jobs.get(record.lays) or self.job(record.lays)
                jobs[record.job_id] = stand_in(kept, record)
        return jobs


def with_source(info: StepInfo, job: JobFinished) -> StepInfo:
    """A step with the source that a job of it executed."""
    return msgspec.structs.replace(
        info,
        source=job.source if job.source is not None else info.source,
        source_hash=job.source_hash or info.source_hash,
    )


def stand_in(kept: JobFinished, laid: Laid) -> JobFinished:
    """The job that stands for a kept one where it leaves something else."""
    return msgspec.structs.replace(kept, job_id=laid.job_id, lays=laid.lays, delta=laid.delta)
