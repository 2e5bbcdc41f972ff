"""How the namespace at any place of a run came about: the jobs whose deltas, folded, are it.

* `Lineage.chain`: the jobs whose deltas, folded in order, are the namespace (`chains`): first the
  jobs that the run was started on (`RunStarted.chain`), then its own. The namespace right before a
  job is the fold of the chain before it, so a cut in a live run is a moment, and in any other run
  the end of the step before. Where an open notebook went back (`WentBack`) a new chain begins; a
  job is looked for in the newest one that has it. A step that it went back to before is cut at its
  last execution all the same, unless the steps before it have been executed anew (`is_anew`).
* `Lineage.forks`: the jobs that the items of parallel loops begin behind. The jobs of an item are a
  branch: the namespace in it is the fold of the chain through the fork and of its own jobs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from cellrail_state.chains import (
    before_place,
    chain_of,
    found_late,
    is_good,
    names_of,
    place_of,
    through_jobs,
)
from cellrail_state.model import (
    Checkpoint,
    JobFinished,
    RunKind,
    StepStatus,
    Turn,
)
from cellrail_state.steps import StepState
from cellrail_state.telling import Told
from cellrail_state.turns import lies_in


class Lineage(Told):
    """What a run's journal tells, with the way to each of its namespaces."""

    @property
    def chain(self) -> list[JobFinished]:
        """The jobs whose deltas are the namespace, in order."""
        return self._stretch(len(self._backs))

    def _stretch(self, number: int) -> list[JobFinished]:
        """The chain as it was before the run went back for the next time; 0: for the first time."""
        starts = [(0, self.started.chain), *self._backs]
        first, before = starts[number]
        last = starts[number + 1][0] if number < len(self._backs) else len(self.jobs)
        return chain_of(
            map(self.job_by_id, before),
            self.jobs[first:last],
            live=self.is_live,
            kept=[(count, self._sources.job(job_id)) for count, job_id in self._kept],
            apart=self._item_of,
        )

    def _chain_of(self, job_id: str) -> list[JobFinished]:
        """The newest chain that has a job; the present one where none has it."""
        for number in range(len(self._backs), -1, -1):
            chain = self._stretch(number)
            if place_of(chain, job_id) is not None:
                return chain
        return self.chain

    def is_gone(self, job_id: str) -> bool:
        """Whether an open notebook went back to before a job."""
        return bool(self._backs and job_id) and place_of(self.chain, job_id) is None

    def has(self, job_id: str) -> bool:
        """Whether a job of an earlier run stands for something here."""
        return job_id in self.turns.values() or place_of(self.chain, job_id) is not None

    def chain_before(self, number: int) -> list[JobFinished]:
        """The jobs that made the namespace right before a step.

        It is that of its last execution, unless the notebook has come there anew (`is_anew`).
        """
        return self.chain if self.is_anew(number) else self._chain_then(number)

    def is_anew(self, number: int) -> bool:
        """Whether an open notebook went back to before a step, and has come to it again.

        Then all that stands for the steps before it has made the present namespace: what was put
        back, and behind that what was executed since. The step's last execution knew another one.
        """
        state = self._states.get(number)
        if state is None or not self.is_gone(state.job_id):
            return False
        apart = {job.job_id for job in self.branches()}
        before = {
            earlier: found.job_id
            for earlier, found in self._states.items()
            if earlier < number and found.job_id not in {"", *apart}
            and found.status is not StepStatus.SKIPPED
        }  # fmt: skip
        then, now = _names(self._chain_then(number)), _names(self.chain)
        if then.issuperset(before.values()) or not now.issuperset(before.values()):
            return False
        # what stood there already, and was executed once more, was executed out of order
        back = self._backs[-1][1]
        stood = {self._stood[job_id].info.number for job_id in back if job_id in self._stood}
        return all(job_id in back or earlier not in stood for earlier, job_id in before.items())

    def made_before(self, number: int) -> frozenset[str]:
        """Ids of the jobs that made the namespace right before a step, and of items beside it."""
        apart = (job.job_id for job in self.branches())
        return frozenset(_names(self.chain_before(number)).union(apart))

    def _chain_then(self, number: int) -> list[JobFinished]:
        state = self._states.get(number)
        chain = self._chain_of(state.job_id) if state is not None else self.chain
        if state is not None and state.job_id:
            place = place_of(chain, state.job_id)
            if place is not None:
                return before_place(chain, place, state.info.label)
        if self.is_live or state is None:
            return chain
        # the step has no job in the chain: everything that steps before it did
        for earlier in range(number - 1, -1, -1):
            found = self._states.get(earlier)
            if found is not None and place_of(chain, found.job_id) is not None:
                return self.chain_through(earlier)
        return []

    def chain_before_turn(self, number: int, turns: tuple[Turn, ...]) -> list[JobFinished]:
        """The jobs that made the namespace right before a step begins in these turns.

        A loop begins before its first turn; the job that it has in the turns around it ends it.
        """
        fork = self.fork_of(turns)
        if fork is not None:
            item = turns[: len(fork[1]) + 1]
            return [*self.chain_of_fork(*fork), *self.item_jobs(item, before=(number, turns))]
        chain = self._chain_of(self.turns.get((number, turns), ""))
        places = {job.lays or job.job_id: place for place, job in enumerate(chain)}
        met = self._order[: self._beginning(number, turns)]
        # an `--always` cell that ran again stands where it stood before
        before = (places[job_id] for job_id in met if job_id in places)
        return chain[: max(before, default=-1) + 1]

    def _beginning(self, number: int, turns: tuple[Turn, ...]) -> int:
        """How many jobs there were when a step began in these turns."""
        state = self._states.get(number)
        loop = state.info.label if state is not None else ""
        own = (
            place
            for (step, path), place in self._began.items()
            if (step == number and path == turns) or lies_in(path, loop, turns)
        )
        return min(own, default=len(self._order))

    def _item_of(self, job: JobFinished) -> tuple[Turn, ...]:
        """The item of a parallel loop that a job belongs to; empty for the flow itself."""
        fork = self.fork_of(job.turns)
        return job.turns[: len(fork[1]) + 1] if fork is not None else ()

    def branches(self, numbers: Collection[int] | None = None) -> list[JobFinished]:
        """Jobs of the items of parallel loops, of these steps alone where some are given."""
        return [
            self.job_by_id(job_id)
            for (number, turns), job_id in self.turns.items()
            if (numbers is None or number in numbers) and self.fork_of(turns) is not None
        ]

    def loop_ends(self) -> dict[str, str]:
        """Of each job of a parallel loop's item, the job that ended its loop, where one did."""
        found: dict[str, str] = {}
        for (_, turns), job_id in self.turns.items():
            fork = self.fork_of(turns)
            end = self._end_of(*fork) if fork is not None else ""
            if end:
                found[job_id] = end
        return found

    def _end_of(self, number: int, around: tuple[Turn, ...]) -> str:
        """The job that ended a loop; "" where none did."""
        state = self._states.get(number)
        job_id = self.turns.get((number, around), "") if around else state and state.job_id
        # until it has ended, the job that forks or one of its items stands for it
        if not job_id or job_id == self.forks[number, around]:
            return ""
        return job_id if self._turns_of.get(job_id, ()) == around else ""

    def chain_of_fork(self, number: int, turns: tuple[Turn, ...]) -> list[JobFinished]:
        """The jobs that made the namespace that a parallel loop's items begin on."""
        chain = self._chain_of(self.forks[number, turns])
        place = place_of(chain, self.forks[number, turns])
        return chain if place is None else chain[: place + 1]

    def item_jobs(
        self, item: tuple[Turn, ...], before: tuple[int, tuple[Turn, ...]] | None = None
    ) -> list[JobFinished]:
        """The jobs that made the namespace in an item beyond the one it began on.

        Args:
            item: its turns.
            before: a step and its turns: only what came before that job.
        """
        at = len(self._order) if before is None else self._beginning(*before)
        mine = [i for i in self._order[:at] if self._turns_of.get(i, ())[: len(item)] == item]
        jobs = [self.job_by_id(job_id) for job_id in mine]
        return [job for job in jobs if is_good(job)]

    def checkpoint_after_turn(self, number: int, turns: tuple[Turn, ...]) -> Checkpoint:
        """The namespace right after a turn's job of a step."""
        job_id = self.turns[number, turns]
        chain = self.chain_around(job_id, turns)
        place = place_of(chain, job_id)
        # one that ended the run is in none
        upto = chain if place is None else chain[: place + 1]
        return Checkpoint.fold(job.delta for job in upto)

    def chain_around(self, job_id: str, turns: tuple[Turn, ...]) -> list[JobFinished]:
        """The chain that has a job; in an item of a parallel loop, that of the item."""
        fork = self.fork_of(turns)
        if fork is None:
            return self._chain_of(job_id)
        return [*self.chain_of_fork(*fork), *self.item_jobs(turns[: len(fork[1]) + 1])]

    def chain_through(self, number: int) -> list[JobFinished]:
        """The jobs up to and with a step's job, and parameters assigned behind it."""
        job_id = self._states[number].job_id
        own = self._own.get(job_id)
        if own is not None and own.handles:
            return self._chain_of_handler(own)
        turns = self._turns_of.get(job_id, ())
        chain = self.chain_around(job_id, turns)
        place = place_of(chain, job_id)
        if self.fork_of(turns) is not None:
            return chain if place is None else chain[: place + 1]
        return self.chain_before(number) if place is None else through_jobs(chain, [job_id])

    def _chain_of_handler(self, last: JobFinished) -> list[JobFinished]:
        """The jobs up to and with one that ran since the run had failed."""
        upto = self.jobs[: self.jobs.index(last) + 1]
        return [*self.chain, *(job for job in upto if job.handles and is_good(job))]

    def chain_through_jobs(self, job_ids: Collection[str]) -> list[JobFinished]:
        """The jobs up to and with the last of these, and what belongs to its step or loop."""
        return through_jobs(self.chain, job_ids)

    def checkpoint_before(self, number: int) -> Checkpoint:
        """The namespace right before a step."""
        return Checkpoint.fold(job.delta for job in self.chain_before(number))

    def checkpoint_after(self, number: int) -> Checkpoint:
        """The namespace right after a step's job."""
        return Checkpoint.fold(job.delta for job in self.chain_through(number))

    def restorable_after(self, number: int) -> str:
        """Why the namespace after a step cannot be put back; empty where it can."""
        job = self._with_job(self._states[number]).job
        if job is None:
            return "it did not run"
        return job.delta.failure or self._found_late(job)

    def _found_late(self, job: JobFinished) -> str:
        """Names that were found changed after this job, though no code showed it."""
        # the jobs of other items looked at other kernels
        item = self._item_of(job)
        # and what a failed step has left is found by those that run since
        mine = [o for o in self.jobs if self._item_of(o) == item and not o.handles]
        late = found_late(mine, job, None if item else self.ended)
        if late is None:
            return ""
        names = ", ".join(f"`{name}`" for name in late.names)
        end = "the run" if late.step is None else f"step {self._states[late.step].info.label!r}"
        return f"{names} changed unseen before {end} ended"

    @property
    def is_live(self) -> bool:
        """Whether a person executed it in an open notebook."""
        return self.started.kind is RunKind.LIVE

    def _with_job(self, state: StepState) -> StepState:
        if state.job is not None or not state.job_id or state.status is not StepStatus.KEPT:
            return state
        return msgspec.structs.replace(state, job=self._sources.job(state.job_id))

    def job_by_id(self, job_id: str) -> JobFinished:
        """A job of this run or of one that it points to."""
        return self._own.get(job_id) or self._sources.job(job_id)


def _names(chain: Iterable[JobFinished]) -> set[str]:
    return {name for job in chain for name in names_of(job)}
