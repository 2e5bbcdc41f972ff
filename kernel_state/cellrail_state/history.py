"""One run as its journal tells it, with the jobs of other runs that it points to.

This is the truth that restarts are planned from; the catalog is only an index of it. In three
rooms: `telling` reads the journal, `lineage` knows how each namespace came about, and here stands
what else is asked of a run. `RunHistory.states` has one entry per step, with the job that stands
for it (its own, or the kept job of an earlier run).
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from cellrail_state.errors import JournalDamaged, ObjectError
from cellrail_state.lineage import Lineage
from cellrail_state.model import (
    Called,
    JobFinished,
    ObjectRef,
    RunStatus,
    StepInfo,
    Turn,
    WaitInfo,
    Woken,
    Written,
)
from cellrail_state.spans import busy_seconds
from cellrail_state.steps import StepState, with_source
from cellrail_state.turns import job_address


class RunHistory(Lineage):
    """A run, read from its journal."""

    @property
    def status(self) -> RunStatus:
        """The run's status; `interrupted` where its owner is gone without a last word."""
        if self.ended is not None:
            return self.ended.status
        return RunStatus.RUNNING if self.owned else RunStatus.INTERRUPTED

    @property
    def held(self) -> list[WaitInfo]:
        """In a live run: what cells wait for, oldest first."""
        return list(self._held.values())

    def woke(self, number: int) -> Woken | None:
        """How the last wait of a step ended; None where it has not, or where there was none."""
        found = [w for w in self.woken.values() if w.step == number]
        return found[-1] if found else None

    def stepped_last(self, jobs: Sequence[JobFinished]) -> str:
        """Id of the last of these jobs that executed a step; the end of a loop is none.

        Empty behind a parallel loop: its items stand beside one another.
        """
        numbers = {job_id: number for (number, _), job_id in self.turns.items()}
        numbers |= {state.job_id: number for number, state in self._states.items()}
        for job in reversed(jobs):
            job_id = job.lays or job.job_id
            number, around = numbers.get(job_id), job.turns
            if number is None or not self._has_turns(number, around):
                return job_id
            if (number, around) in self.forks:
                break
        return ""

    def _has_turns(self, number: int, around: tuple[Turn, ...]) -> bool:
        label = self._states[number].info.label
        return any(
            step == number and turns[:-1] == around and turns[-1].loop == label
            for step, turns in self.turns
            if len(turns) > len(around)
        )

    @property
    def epoch(self) -> int:
        """How many owners it has had."""
        return len(self.continued) + 1

    @property
    def states(self) -> list[StepState]:
        """The steps in order, each with its job (kept jobs are read from their own journals)."""
        return [self._with_job(state) for _, state in sorted(self._states.items())]

    def state(self, number: int) -> StepState:
        """The step of this number."""
        return self._with_job(self._states[number])

    def made_with(self, number: int, job: JobFinished) -> StepInfo:
        """The step that a job was made with: of a kept one, as it was in the run that made it.

        Args:
            number: of the step here that it stands for.
            job: of this run, or of one that it points to.
        """
        info, job_id = self._states[number].info, job.lays or job.job_id
        if job_id in self._own or any(other.follows == job_id for other in self.jobs):
            return with_source(info, job)
        return self._sources.info(job_id) or with_source(info, job)

    def called(self) -> list[Called]:
        """The calls of its jobs, and of those that it keeps; of each call the newest."""
        kept: dict[str, set[str]] = {}
        for job_id in [*self.turns.values(), *(s.job_id for s in self._states.values())]:
            run_id = job_id.rpartition("/")[0]
            if run_id and run_id != self.run_id:
                kept.setdefault(run_id, set()).add(job_id)
        found = [
            called
            for run_id, jobs in sorted(kept.items())
            for called in self._sources.calls(run_id)
            if called.job_id in jobs
        ]
        # what it took over from its origin counts when one of its jobs calls it
        own = [called for called in self.calls if called.job_id.startswith(f"{self.run_id}/")]
        newest = {(c.caller, c.turns, c.runs, c.key): c for c in [*found, *own]}
        return list(newest.values())

    def status_of(self, run_id: str) -> RunStatus | None:
        """The status of a run that was called; None where it is gone, or never began."""
        try:
            return RunHistory(run_id, self._sources).status
        except JournalDamaged:
            return None

    def turns_of(self, number: int) -> list[tuple[tuple[Turn, ...], JobFinished]]:
        """The jobs of a step in loops by their turns, in the order of items."""
        found = [
            (turns, self.job_by_id(job_id))
            for (step, turns), job_id in self.turns.items()
            if step == number
        ]
        # items of parallel loops end in any order; the job that ends a loop comes last
        return sorted(found, key=lambda f: [*((0, turn.index) for turn in f[0]), (1, 0)])

    def seconds_of(
        self, number: int, turns: tuple[Turn, ...] = (), *, without: Collection[str] = ()
    ) -> float | None:
        """Seconds in which a step was executed; None where it was not.

        Of a loop these are the seconds of its items, with all steps in them; of a step in loops,
        those of all its turns (`busy_seconds` tells what they are together).

        Args:
            number: of the step.
            turns: only what it did in these.
            without: ids of jobs that do not count.
        """
        inside = self._spent.get(number)
        if inside is None:
            job = self._with_job(self._states[number]).job
            return job.seconds if job is not None and job.job_id not in without else None
        jobs = [job for at, job in inside if at[: len(turns)] == turns]
        return busy_seconds(job for job in jobs if job.job_id not in without)

    @functools.cached_property
    def _spent(self) -> dict[int, list[tuple[tuple[Turn, ...], JobFinished]]]:
        """The jobs in loops that each step's time is made of, with their turns."""
        numbers = {state.info.label: number for number, state in self._states.items()}
        loops = {(t.loop, turns[:n]) for _, turns in self.turns for n, t in enumerate(turns)}
        found: dict[int, list[tuple[tuple[Turn, ...], JobFinished]]] = {}
        for (step, turns), job_id in self.turns.items():
            if (self.label_of(step), turns) in loops:
                continue  # the job that ends a loop in a turn is no work of its own
            made = turns, self.job_by_id(job_id)
            for number in {step, *(numbers.get(turn.loop, step) for turn in turns)}:
                found.setdefault(number, []).append(made)
        return found

    def content(self, ref: ObjectRef) -> bytes:
        """The bytes behind an address."""
        found: bytes = self._sources.content(ref)
        return found

    def outputs(self, job: JobFinished) -> list[dict[str, Any]]:
        """A job's outputs as plain nbformat outputs."""
        if job.outputs is None:
            return []
        outputs: list[dict[str, Any]] = msgspec.json.decode(self._sources.content(job.outputs))
        return outputs

    def step_outputs(self, number: int) -> list[dict[str, Any]]:
        """A step's outputs as plain nbformat outputs; of a step in a loop, those of all turns."""
        jobs = [job for _, job in self.turns_of(number)]
        if not jobs:
            job = self.state(number).job
            jobs = [job] if job is not None else []
        return [output for job in jobs for output in self.outputs(job)]

    def notebook(self) -> dict[str, Any] | None:
        """The notebook that the run executed, without outputs; None where it is not recorded."""
        if self.started.notebook is None:
            return None
        try:
            content = self._sources.content(self.started.notebook)
        except ObjectError:
            return None
        notebook: dict[str, Any] = msgspec.json.decode(content)
        return notebook

    @property
    def packages(self) -> dict[str, str]:
        """Versions of the packages that its jobs imported."""
        versions: dict[str, str] = {}
        for kernel in self.kernels:
            versions.update(kernel.packages)
        for job in (*self.chain, *self.branches()):
            versions.update(job.packages)
        return versions

    def label_of(self, number: int) -> str:
        """What listings call a step."""
        state = self._states.get(number)
        return state.info.label if state is not None else f"#{number}"

    def effects_of(self, number: int) -> tuple[str, ...]:
        """What the jobs that stand for a step did beyond their kernel, in words."""
        own = {job.job_id: job for job in self.jobs if job.step == number}
        ids = [job_id for (step, _), job_id in self.turns.items() if step == number]
        turns = [own.get(job_id) or self._sources.job(job_id) for job_id in ids]
        job = self._with_job(self._states[number]).job
        jobs = [*turns, *([job] if job is not None else [])]
        return tuple(sorted({k for j in jobs if j.effects is not None for k in j.effects.kinds}))

    def written_by(self, number: int) -> tuple[str, ...]:
        """Names that a step has bound or changed, in all its turns."""
        job = self.state(number).job
        jobs = [made for _, made in self.turns_of(number)] + ([job] if job is not None else [])
        return tuple(sorted({name for made in jobs for name in made.delta.written}))

    def reads_of(self, number: int, turns: tuple[Turn, ...] = ()) -> tuple[Written, ...]:
        """The resources that a step (in these turns) read, as it saw them."""
        job = self.reader_of(number, turns)
        return job.effects.reads if job is not None and job.effects is not None else ()

    def reader_of(self, number: int, turns: tuple[Turn, ...] = ()) -> JobFinished | None:
        """The job of a step (in these turns) that tells what it read; None where none does."""
        job = self._asked.get((number, turns))
        if job is None:
            state = self._states.get(number)
            job_id = self.turns.get((number, turns)) if turns else state and state.job_id
            if not job_id or job_id.rpartition("/")[0] == self.run_id:
                return None
            job = self.job_by_id(job_id)
        return job

    @functools.cached_property
    def _asked(self) -> dict[tuple[int, tuple[Turn, ...]], JobFinished]:
        """Of each step and its turns, the last own job that asked for something."""
        return {(job.step, job.turns): job for job in self.jobs if job.effects is not None}

    def jobs_of(self, run_id: str) -> list[JobFinished]:
        """What it has committed, or a run that it was restarted from, in order."""
        if run_id == self.run_id:
            return self.jobs
        return [job for job in self._sources.jobs(run_id).values() if not job.lays]

    def address_of(self, job: JobFinished) -> str:
        """How a job is called, of this run or of one that it points to."""
        info = None if job.job_id in self._own else self._sources.info(job.job_id)
        label = info.label if info is not None else self.label_of(job.step)
        return job_address(label, job.turns)
