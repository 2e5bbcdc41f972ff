"""A run's journal, record by record: what each of them does to the picture of the run.

`Told` holds what was told so far; how each namespace came about is `lineage`, and what is asked of
a run beyond that `history`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import msgspec

from cellrail_state.chains import (
    ends_the_run,
)
from cellrail_state.eachs import EachBook
from cellrail_state.errors import JournalDamaged
from cellrail_state.model import (
    Called,
    Decided,
    JobFinished,
    JobStarted,
    KeptReason,
    KernelStarted,
    OnceDone,
    Owner,
    Record,
    RunContinued,
    RunEnded,
    RunKind,
    RunNamed,
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
    WentBack,
    Woken,
)
from cellrail_state.steps import Sources, StepState
from cellrail_state.turns import lies_in
from cellrail_state.waits import SUSPEND


class Told:
    """What a run's journal tells, read from its beginning to its end."""

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
        #: jobs kept in mid-run, and chains that an open notebook went back to, each with how many
        #: jobs had been committed before
        self._kept, self._backs = list[tuple[int, str]](), list[tuple[int, tuple[str, ...]]]()
        #: the job that a loop's items begin behind, by step and turns of the loop
        self.forks: dict[tuple[int, tuple[Turn, ...]], str] = {}
        #: the turns, in this run, of the jobs that have some
        self._turns_of: dict[str, tuple[Turn, ...]] = {}
        #: in a live run, steps as they were with jobs that do not stand for them any more
        self._stood: dict[str, StepState] = {}
        self._own, self._numbers = dict[str, JobFinished](), dict[str, int]()
        #: what `flow.once` has run, by key, and what it inherited
        self.once: dict[str, OnceDone] = {}
        #: what `flow.each` has stored in mid-cell, and can be gone on from
        self.each = EachBook()
        #: what its cells have called, in order
        self.calls: list[Called] = []
        self._live = False
        #: seconds that earlier owners drove it, when the present one began, and the last record
        self._driven, self._since, self._seen = 0.0, 0.0, 0.0
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
                started, self._since = record, record.time
                self._live = record.kind is RunKind.LIVE
                self._states = {info.number: StepState(info=info) for info in record.steps}
                self._numbers = {info.label: info.number for info in record.steps}
            elif isinstance(record, RunNamed) and started is not None:
                started = record.of(started)
            else:
                self._order_in(record)
                self._take(record)
            # what was inherited bears an earlier time
            self._seen = max(self._seen, record.time)
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
            WentBack: self._go_back,
            StepSkipped: self._skip,
            StepRebuilt: self._rebuild,
        }

    def _end(self, record: RunEnded) -> None:
        self.ended = record
        self._driven += record.time - self._since
        self._suspend()

    def _continue(self, record: RunContinued) -> None:
        if self.ended is None:  # its owner was gone: it did something up to its last record
            self._driven += self._seen - self._since
        self.ended, self._since = None, record.time
        self.continued.append(record)
        self._wake_up()

    def _expect(self, record: Waits) -> None:
        self.pending = self.waits[record.wait.wait_id] = record.wait
        self._hold(record.wait)

    def _begin(self, record: JobStarted) -> None:
        self.firing, self.pending = record.job_id, None
        self._let_go(record.step)
        self._remember(record.step)
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
            status, cause = _came_to(record)
            self._change(record.step, status=status, cause=cause)
        self.pending = None
        self._let_go(record.step)

    def _forget_turns(self, record: Decided) -> None:
        """A live run may execute a loop again: its turns are those of the last execution."""
        around, loop = record.turns, ""
        if record.purpose == "foreach" and record.step in self._states:
            loop = self._states[record.step].info.label
        elif record.purpose == "while" and around[-1].index == 0:
            around, loop = around[:-1], around[-1].loop

        def stays(turns: tuple[Turn, ...]) -> bool:
            return not lies_in(turns, loop, around)

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

    def _go_back(self, record: WentBack) -> None:
        self._backs.append((len(self.jobs), record.chain))
        # what was executed since is as if it had not been
        standing = {state.job_id: state for state in self._states.values()}
        put_back = (standing.get(i) or self._stood.get(i) for i in record.chain)
        found = {state.info.number: state for state in put_back if state is not None}
        for number in {*found, *record.kept}:
            self._remember(number)
        self._states |= found
        for number, job_id in record.kept.items():
            self._change(
                number, status=StepStatus.KEPT, kept=KeptReason.ORIGIN, job_id=job_id, job=None,
                cause="",
            )  # fmt: skip

    def _remember(self, number: int) -> None:
        """In an open notebook: a step as it is, before another job stands for it."""
        state = self._states.get(number)
        if self._live and state is not None and state.job_id:
            self._stood[state.job_id] = state

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
                status, cause = self._cut_off(state.info.label)
                self._change(number, status=status, cause=cause)

    def _cut_off(self, label: str) -> tuple[StepStatus, str]:
        """What a step came to that had not ended when its run did, and why."""
        status = self.ended.status if self.ended is not None else None
        # whoever cancels a run may do so while its driver is busy with something else than the cell
        if status is RunStatus.CANCELLED:
            return StepStatus.CANCELLED, "interrupted"
        where = self.ended_in(label)
        if status is RunStatus.FAILED and where:
            return StepStatus.FAILED, f"{where} failed"
        if status is RunStatus.SUSPENDED and where:
            return StepStatus.SUSPENDED, self.cause
        if status is RunStatus.SUCCESS and where:  # `--stop-if`: a restart goes on with it
            return StepStatus.PENDING, f"the run ended at {where}"
        return StepStatus.FAILED, "interrupted"

    def ended_in(self, label: str) -> str:
        """Address of the step that the run ended with, where that is in this loop; else ""."""
        step = self.ended.step if self.ended is not None else ""
        return step if f"/{label}[" in f"/{step}" else ""

    def given_up(self, job: JobFinished) -> tuple[StepStatus, str] | None:
        """What a job came to behind which the run did not go on, since its wait ended so; and why.

        None where it did, or still waits. The job itself had ended well.
        """
        woken = self.woken.get(job.wait.wait_id) if job.wait is not None else None
        return _came_to(woken) if woken is not None and not woken.goes_on else None

    @property
    def seconds(self) -> float | None:
        """Seconds that a process drove it, without those between; None while it runs."""
        return None if self.ended is None else self._driven

    @property
    def cause(self) -> str:
        """Why, where it is not success."""
        return self.ended.cause if self.ended is not None else ""

    def fork_of(self, turns: tuple[Turn, ...]) -> tuple[int, tuple[Turn, ...]] | None:
        """The parallel loop that these turns lie in: its step and its own turns; None for none."""
        for place, turn in enumerate(turns if self.forks else ()):
            number = self._numbers.get(turn.loop, -1)
            if (number, turns[:place]) in self.forks:
                return number, turns[:place]
        return None


def _came_to(woken: Woken) -> tuple[StepStatus, str]:
    """What a step comes to that the run does not go on behind, and why."""
    failed = woken.by == "timeout" and woken.on_timeout == "fail"
    return StepStatus.FAILED if failed else StepStatus.CANCELLED, _why(woken)


def _why(woken: Woken) -> str:
    """Why a run does not go on behind a wait, in words."""
    if woken.by == "timeout":
        return "nobody resumed it in time"
    return f"cancelled by {woken.who}" if woken.who else "cancelled"
