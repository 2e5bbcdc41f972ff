"""One run as its journal tells it, with the jobs of other runs that it points to.

This is the truth that restarts are planned from; the catalog is only an index of it.

* `RunHistory.states` has one entry per step, with the job that stands for it (its own, or the kept
  job of an earlier run).
* `RunHistory.chain` are the jobs whose deltas, folded in order, are the namespace (`chains`): first
  the jobs that the run was started on (`RunStarted.chain`), then its own. The namespace right
  before a job is the fold of the chain before it, so a cut in a live run is a moment, and in any
  other run the end of the step before.
* `RunHistory.forks` are the jobs that the items of parallel loops begin behind. The jobs of an item
  are a branch: the namespace in it is the fold of the chain through the fork and of its own jobs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable
from typing import Any

import msgspec

from cellrail_state.chains import (
    before_place,
    chain_of,
    ends_the_run,
    found_late,
    is_good,
    place_of,
    through_jobs,
)
from cellrail_state.eachs import EachBook
from cellrail_state.errors import JournalDamaged, ObjectError
from cellrail_state.model import (
    Called,
    Checkpoint,
    Decided,
    JobFinished,
    JobStarted,
    KeptReason,
    KernelStarted,
    Laid,
    ObjectRef,
    OnceDone,
    Owner,
    Record,
    RunContinued,
    RunEnded,
    RunKind,
    RunStarted,
    RunStatus,
    StepChosen,
    StepInfo,
    StepKept,
    StepRebuilt,
    StepSkipped,
    StepStatus,
    Turn,
    WaitInfo,
    Waits,
    Woken,
    Written,
)
from cellrail_state.waits import SUSPEND


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
        self._calls: dict[str, list[Called]] = {}

    def job(self, job_id: str) -> JobFinished:
        """A committed job of any run.

        Raises:
            JournalDamaged: its journal holds no such job.
        """
        run_id = job_id.rpartition("/")[0]
        jobs = self._runs.get(run_id)
        if jobs is None:
            jobs = self._runs[run_id] = self._jobs_of(run_id)
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

    def _jobs_of(self, run_id: str) -> dict[str, JobFinished]:
        jobs: dict[str, JobFinished] = {}
        for record in self.records(run_id):
            if isinstance(record, JobFinished):
                jobs[record.job_id] = record
            elif isinstance(record, Laid):
                kept = jobs.get(record.lays) or self.job(record.lays)
                jobs[record.job_id] = stand_in(kept, record)
        return jobs


def stand_in(kept: JobFinished, laid: Laid) -> JobFinished:
    """The job that stands for a kept one where it leaves something else."""
    return msgspec.structs.replace(kept, job_id=laid.job_id, lays=laid.lays, delta=laid.delta)


class RunHistory:
    """A run, read from its journal."""

    def __init__(self, run_id: str, sources: Sources) -> None:
        """Read the run's journal.

        Raises:
            JournalDamaged: the journal does not begin with the run's record.
        """
        self.run_id = run_id
        self._sources = sources
        self.ended: RunEnded | None = None
        #: how often another owner went on with it, oldest first
        self.continued: list[RunContinued] = []
        self.kernels: list[KernelStarted] = []
        self.jobs: list[JobFinished] = []
        self._states: dict[int, StepState] = {}
        #: values of expressions, by step, purpose and turns
        self.decided: dict[tuple[int, str, tuple[Turn, ...]], Decided] = {}
        #: the job of each turn, by step and turns
        self.turns: dict[tuple[int, tuple[Turn, ...]], str] = {}
        #: jobs in the order in which they became part of the run, and how many there were when
        #: a turn's job was first met
        self._order: list[str] = []
        #: what became of each turn of each step, in order
        self.turn_records: list[StepKept | StepSkipped | JobFinished] = []
        self._began: dict[tuple[int, tuple[Turn, ...]], int] = {}
        #: why steps of a rerun execute, by number
        self.chosen: dict[int, StepChosen] = {}
        #: jobs kept in mid-run, each with how many jobs had been committed before
        self._kept: list[tuple[int, str]] = []
        #: the job that a loop's items begin behind, by step and turns of the loop
        self.forks: dict[tuple[int, tuple[Turn, ...]], str] = {}
        #: the turns, in this run, of the jobs that have some
        self._turns_of: dict[str, tuple[Turn, ...]] = {}
        self._own: dict[str, JobFinished] = {}
        self._numbers: dict[str, int] = {}
        #: what `flow.once` has run, by key, and what it inherited
        self.once: dict[str, OnceDone] = {}
        #: what `flow.each` has stored in mid-cell, and can be gone on from
        self.each = EachBook()
        #: what its cells have called, in order
        self.calls: list[Called] = []
        self._live = False
        #: waits by id, and how they ended
        self.waits: dict[str, WaitInfo] = {}
        self.woken: dict[str, Woken] = {}
        #: what it waits for, or would if it had an owner
        self.pending: WaitInfo | None = None
        #: the job that is being executed, or was when its owner was gone
        self.firing = ""
        self._before_wait: StepState | None = None
        #: in a live run, what cells wait for behind a step, by its number
        self._held: dict[int, WaitInfo] = {}
        started: RunStarted | None = None
        for record in sources.records(run_id):
            self.each.see(record)
            if isinstance(record, RunStarted):
                started = record
                self._live = record.kind is RunKind.LIVE
                self._states = {info.number: StepState(info=info) for info in record.steps}
                self._numbers = {info.label: info.number for info in record.steps}
            else:
                self._order_in(record)
                self._take(record)
        if started is None:
            raise JournalDamaged(f"the journal of {run_id} has no beginning")
        self.started: RunStarted = started
        #: who drives it, or did at last
        self.owner: Owner = self.continued[-1].owner if self.continued else started.owner
        self.owned = self.ended is None and sources.owned(run_id)
        if not self.owned:
            self._close_what_was_running()

    def _order_in(self, record: Record) -> None:
        if self._live and isinstance(record, Decided):
            self._forget_turns(record)
        if isinstance(record, (JobStarted, StepKept, StepSkipped)) and record.turns:
            self._began.setdefault((record.step, record.turns), len(self._order))
        if isinstance(record, (StepKept, JobFinished)):
            inside = record.turns or record.forks
            if inside or isinstance(record, JobFinished):
                self._order.append(record.job_id)
            if inside:
                self.turn_records.append(record)
                self._turns_of[record.job_id] = record.turns
        elif isinstance(record, StepSkipped) and record.turns:
            self.turn_records.append(record)

    def _take(self, record: Record) -> None:
        taken = self._takers.get(type(record))
        if taken is not None:
            taken(record)

    @functools.cached_property
    def _takers(self) -> dict[type, Callable[[Any], None]]:
        """What each kind of record does to the history; others tell nothing that is asked for."""
        return {
            RunEnded: self._end,
            RunContinued: self._continue,
            Waits: self._expect,
            Woken: self._woke,
            KernelStarted: self.kernels.append,
            JobStarted: self._begin,
            JobFinished: self._commit,
            Decided: self._decide,
            OnceDone: self._do_once,
            Called: self.calls.append,
            StepChosen: self._choose,
            StepKept: self._keep,
            StepSkipped: self._skip,
            StepRebuilt: self._rebuild,
        }

    def _end(self, record: RunEnded) -> None:
        self.ended = record
        self._suspend()

    def _continue(self, record: RunContinued) -> None:
        self.ended = None
        self.continued.append(record)
        self._wake_up()

    def _expect(self, record: Waits) -> None:
        self.pending = self.waits[record.wait.wait_id] = record.wait
        self._hold(record.wait)

    def _begin(self, record: JobStarted) -> None:
        self.firing, self.pending = record.job_id, None
        self._let_go(record.step)
        if record.info is not None:
            self._change(record.step, info=record.info)
        self._start(record)

    def _commit(self, record: JobFinished) -> None:
        self.jobs.append(record)
        self._own[record.job_id] = record
        self.firing, self.pending = "", record.wait
        if record.wait is not None:
            self.waits[record.wait.wait_id] = record.wait
        self._finish(record)
        if record.wait is not None:
            self._hold(record.wait)
        else:
            self._let_go()

    def _hold(self, wait: WaitInfo) -> None:
        """In an open notebook cells above go on being executed, while those behind wait."""
        if not self._live:
            return
        self._held[wait.step] = wait
        if wait.kind == SUSPEND and not wait.turns:
            self._change(wait.step, status=StepStatus.SUSPENDED)

    def _let_go(self, step: int | None = None) -> None:
        """In an open notebook: nothing waits behind a step any more; what does still is pending."""
        if not self._live:
            return
        if step is not None:
            self._held.pop(step, None)
        self.pending = next(reversed(self._held.values()), None)

    def _decide(self, record: Decided) -> None:
        self.decided[record.step, record.purpose, record.turns] = record

    def _do_once(self, record: OnceDone) -> None:
        self.once.setdefault(record.key, record)

    def _rebuild(self, record: StepRebuilt) -> None:
        self._change(record.step, rebuilt=record.names)

    def _suspend(self) -> None:
        """The step that the run waits behind is suspended."""
        if self.ended is None or self.ended.status is not RunStatus.SUSPENDED:
            self.pending = None
        if self.pending is not None and self.pending.step in self._states:
            self._before_wait = self._states[self.pending.step]
            self._change(self.pending.step, status=StepStatus.SUSPENDED, cause=self.cause)

    def _wake_up(self) -> None:
        if self._before_wait is not None:
            self._states[self._before_wait.info.number] = self._before_wait
            self._before_wait = None

    def _woke(self, record: Woken) -> None:
        self.woken[record.wait_id] = record
        if record.origin:
            return
        self._wake_up()
        state = self._states.get(record.step)
        if self._live and state is not None and state.status is StepStatus.SUSPENDED:
            self._change(record.step, status=StepStatus.SUCCESS)
        if not record.goes_on:
            failed = record.by == "timeout" and record.on_timeout == "fail"
            status = StepStatus.FAILED if failed else StepStatus.CANCELLED
            self._change(record.step, status=status, cause=_why(record))
        self.pending = None
        self._let_go(record.step)

    def _forget_turns(self, record: Decided) -> None:
        """A live run may execute a loop again: its turns are those of the last execution."""
        around, loop = record.turns, ""
        if record.purpose == "foreach" and record.step in self._states:
            loop = self._states[record.step].info.label
        elif record.purpose == "while" and around[-1].index == 0:
            around, loop = around[:-1], around[-1].loop
        depth = len(around)

        def stays(turns: tuple[Turn, ...]) -> bool:
            return not (
                len(turns) > depth and turns[:depth] == around and turns[depth].loop == loop
            )

        if loop:
            self.turns = {key: job for key, job in self.turns.items() if stays(key[1])}
            self.decided = {key: told for key, told in self.decided.items() if stays(key[2])}
            self._began = {key: place for key, place in self._began.items() if stays(key[1])}
            self.turn_records = [r for r in self.turn_records if stays(r.turns)]

    def _choose(self, record: StepChosen) -> None:
        self.chosen[record.step] = record

    def _start(self, record: JobStarted) -> None:
        state = self._states.get(record.step)
        if state is not None and self.fork_of(record.turns) is not None:
            # another item has ended: its job stands for the step until this one's may
            if self._is_of_turns(state):
                return
            if state.job is not None:
                if not ends_the_run(state.job):
                    self._change(record.step, status=StepStatus.RUNNING)
                return
        self._change(
            record.step, status=StepStatus.RUNNING, job_id=record.job_id, fired=record.time
        )

    def _keep(self, record: StepKept) -> None:
        self._kept += [(len(self.jobs), job_id) for job_id in record.chain]
        if record.forks:
            self.forks[record.step, record.turns] = record.job_id
            return
        if record.turns:
            self.turns[record.step, record.turns] = record.job_id
            self._keep_turn(record)
            return
        self._change(record.step, status=StepStatus.KEPT, kept=record.reason, job_id=record.job_id)

    def _skip(self, record: StepSkipped) -> None:
        if not record.turns:
            self._change(record.step, status=StepStatus.SKIPPED, cause=record.reason)

    def _finish(self, job: JobFinished) -> None:
        if job.follows and job.step in self._states and self._states[job.step].kept:
            # parameters assigned anew: the step stays kept, the chain has the assignment
            self._change(job.step, status=StepStatus.KEPT, job_id=job.follows)
            return
        if job.forks:
            self.forks[job.step, job.turns] = job.job_id
            self._change(job.step, status=StepStatus.RUNNING, fired=job.started)
            return
        if job.turns:
            self.turns[job.step, job.turns] = job.job_id
        if self._is_decided(job):
            state = self._states[job.step]
            if state.job is None:
                return
            job = state.job
        cause = job.cause
        if job.error is not None and not cause:
            cause = f"{job.error.name}: {job.error.value}"
        status = job.status
        label = self._states[job.step].info.label if job.step in self._states else ""
        if job.turns and job.turns[-1].loop == label and not ends_the_run(job):
            status = StepStatus.RUNNING  # the loop goes on
        if job.again:
            status = StepStatus.RUNNING
        self._change(
            job.step,
            status=status,
            kept=KeptReason.CACHE if job.cached else None,
            job_id=job.job_id,
            job=job,
            cause=cause,
            fired=job.started,
        )

    def _keep_turn(self, record: StepKept) -> None:
        """A step of which every turn was kept is kept."""
        state = self._states.get(record.step)
        if state is None or state.job is not None:
            return
        waits = state.status in {StepStatus.PENDING, StepStatus.RUNNING}
        if not (waits or self._is_of_turns(state)):
            return
        if record.turns[-1].loop == state.info.label:
            if waits:
                self._change(record.step, status=StepStatus.RUNNING)
        elif not self._stands(state, record.turns):
            self._change(
                record.step, status=StepStatus.KEPT, kept=record.reason, job_id=record.job_id
            )

    def _is_of_turns(self, state: StepState) -> bool:
        return state.kept is not None and state.job_id in self._turns_of

    def _stands(self, state: StepState, turns: tuple[Turn, ...]) -> bool:
        """Whether the job that stands for a step goes on doing so after one of these turns.

        Of a loop the last turn stands for its steps, whichever item of a parallel one ended last.
        """
        known = self._turns_of.get(state.job_id, ())
        # the job that ends a loop has a turn less than those before it
        pairs = zip(known, turns, strict=False)
        return next((a.index > b.index for a, b in pairs if a.index != b.index), False)

    def _is_decided(self, job: JobFinished) -> bool:
        """Whether the job of another item of a parallel loop stands for the step."""
        state = self._states.get(job.step)
        if state is None or self.fork_of(job.turns) is None:
            return False
        if self._is_of_turns(state):
            return not ends_the_run(job) and self._stands(state, job.turns)
        other = state.job
        if other is None or other.job_id not in self._own or self.fork_of(other.turns) is None:
            return False
        if other.turns == job.turns or ends_the_run(other) or ends_the_run(job):
            return other.turns != job.turns and ends_the_run(other)
        return self._stands(state, job.turns)

    def _change(self, number: int, **changes: Any) -> None:
        state = self._states.get(number)
        if state is None:
            # a live run meets its steps as they are executed
            state = StepState(info=StepInfo(number=number))
        self._states[number] = msgspec.structs.replace(state, **changes)

    def _close_what_was_running(self) -> None:
        for number, state in self._states.items():
            if state.status is StepStatus.RUNNING:
                self._change(number, status=StepStatus.FAILED, cause="interrupted")

    # --- what became of it -------------------------------------------------------------------

    @property
    def status(self) -> RunStatus:
        """The run's status; `interrupted` where its owner is gone without a last word."""
        if self.ended is not None:
            return self.ended.status
        return RunStatus.RUNNING if self.owned else RunStatus.INTERRUPTED

    @property
    def cause(self) -> str:
        """Why, where it is not success."""
        return self.ended.cause if self.ended is not None else ""

    @property
    def held(self) -> list[WaitInfo]:
        """In a live run: what cells wait for, oldest first."""
        return list(self._held.values())

    def woke(self, number: int) -> Woken | None:
        """How the last wait of a step ended; None where it has not, or where there was none."""
        found = [w for w in self.woken.values() if w.step == number]
        return found[-1] if found else None

    @property
    def epoch(self) -> int:
        """How many owners it has had."""
        return len(self.continued) + 1

    @property
    def is_live(self) -> bool:
        """Whether a person executed it in an open notebook."""
        return self.started.kind is RunKind.LIVE

    @property
    def states(self) -> list[StepState]:
        """The steps in order, each with its job (kept jobs are read from their own journals)."""
        return [self._with_job(state) for _, state in sorted(self._states.items())]

    def state(self, number: int) -> StepState:
        """The step of this number."""
        return self._with_job(self._states[number])

    def _with_job(self, state: StepState) -> StepState:
        if state.job is not None or not state.job_id or state.status is not StepStatus.KEPT:
            return state
        return msgspec.structs.replace(state, job=self._sources.job(state.job_id))

    def job_by_id(self, job_id: str) -> JobFinished:
        """A job of this run or of one that it points to."""
        return self._own.get(job_id) or self._sources.job(job_id)

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

    # --- the namespace -----------------------------------------------------------------------

    @property
    def chain(self) -> list[JobFinished]:
        """The jobs whose deltas are the namespace, in order."""
        before = map(self._sources.job, self.started.chain)
        kept = [(count, self._sources.job(job_id)) for count, job_id in self._kept]
        return chain_of(before, self.jobs, live=self.is_live, kept=kept, apart=self._item_of)

    def chain_before(self, number: int) -> list[JobFinished]:
        """The jobs that made the namespace right before a step (its last execution)."""
        state = self._states.get(number)
        chain = self.chain
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
        """The jobs that made the namespace right before a turn's job of a step."""
        fork = self.fork_of(turns)
        if fork is not None:
            item = turns[: len(fork[1]) + 1]
            return [*self.chain_of_fork(*fork), *self.item_jobs(item, before=(number, turns))]
        chain = self.chain
        places = {job.lays or job.job_id: place for place, job in enumerate(chain)}
        at = self._began.get((number, turns), len(self._order))
        # an `--always` cell that ran again stands where it stood before
        before = (places[job_id] for job_id in self._order[:at] if job_id in places)
        return chain[: max(before, default=-1) + 1]

    # --- parallel loops ----------------------------------------------------------------------

    def fork_of(self, turns: tuple[Turn, ...]) -> tuple[int, tuple[Turn, ...]] | None:
        """The parallel loop that these turns lie in: its step and its own turns; None for none."""
        for place, turn in enumerate(turns if self.forks else ()):
            number = self._numbers.get(turn.loop, -1)
            if (number, turns[:place]) in self.forks:
                return number, turns[:place]
        return None

    def label_of(self, number: int) -> str:
        """What listings call a step."""
        state = self._states.get(number)
        return state.info.label if state is not None else f"#{number}"

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

    def chain_of_fork(self, number: int, turns: tuple[Turn, ...]) -> list[JobFinished]:
        """The jobs that made the namespace that a parallel loop's items begin on."""
        chain = self.chain
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
        at = len(self._order) if before is None else self._began.get(before, len(self._order))
        mine = [i for i in self._order[:at] if self._turns_of.get(i, ())[: len(item)] == item]
        jobs = [self.job_by_id(job_id) for job_id in mine]
        return [job for job in jobs if is_good(job)]

    def checkpoint_after_turn(self, number: int, turns: tuple[Turn, ...]) -> Checkpoint:
        """The namespace right after a turn's job of a step."""
        chain = self.chain_before_turn(number, turns)
        job = self.job_by_id(self.turns[number, turns])
        more = [job] if is_good(job) and job not in chain else []
        return Checkpoint.fold(found.delta for found in [*chain, *more])

    def chain_through(self, number: int) -> list[JobFinished]:
        """The jobs up to and with a step's job, and parameters assigned behind it."""
        job_id = self._states[number].job_id
        own = self._own.get(job_id)
        if own is not None and own.handles:
            return self._chain_of_handler(own)
        turns = self._turns_of.get(job_id, ())
        fork = self.fork_of(turns)
        if fork is not None:
            jobs = self.item_jobs(turns[: len(fork[1]) + 1])
            place = place_of(jobs, job_id)
            last = len(jobs) if place is None else place + 1
            return [*self.chain_of_fork(*fork), *jobs[:last]]
        if place_of(self.chain, job_id) is None:
            return self.chain_before(number)
        return self.chain_through_jobs([job_id])

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

    def effects_of(self, number: int) -> tuple[str, ...]:
        """What the jobs that stand for a step did beyond their kernel, in words."""
        own = {job.job_id: job for job in self.jobs if job.step == number}
        ids = [job_id for (step, _), job_id in self.turns.items() if step == number]
        turns = [own.get(job_id) or self._sources.job(job_id) for job_id in ids]
        job = self._with_job(self._states[number]).job
        jobs = [*turns, *([job] if job is not None else [])]
        return tuple(sorted({k for j in jobs if j.effects is not None for k in j.effects.kinds}))

    def reads_of(self, number: int, turns: tuple[Turn, ...] = ()) -> tuple[Written, ...]:
        """The resources that a step (in these turns) read, as it saw them."""
        for job in reversed(self.jobs):
            if (job.step, job.turns) == (number, turns) and job.effects is not None:
                return job.effects.reads
        state = self._states.get(number)
        job_id = self.turns.get((number, turns)) if turns else state and state.job_id
        if not job_id or job_id.rpartition("/")[0] == self.run_id:
            return ()
        effects = self.job_by_id(job_id).effects
        return effects.reads if effects is not None else ()

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


def _why(woken: Woken) -> str:
    """Why a run does not go on behind a wait, in words."""
    if woken.by == "timeout":
        return "nobody resumed it in time"
    return f"cancelled by {woken.who}" if woken.who else "cancelled"
