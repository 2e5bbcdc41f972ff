"""Writes what happens in one run: the only place that turns events of a run into journal records.

A step commits with one append (`finished`). The append reaches the operating system at once, so a
kill of this process loses nothing; `sync` makes it durable against a power failure and is called
while the next cell already runs. What is written holds no secret of the run.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from cellrail.notebook.actions import Ask, Told
from cellrail.run.interrupts import heard_afterwards
from cellrail.run.masking import KEPT_LENGTH, MINIMUM_LENGTH, Masker
from cellrail_state.history import RunHistory
from cellrail_state.journal import Journal
from cellrail_state.model import (
    Called,
    Decided,
    Delta,
    EachStored,
    JobFinished,
    JobStarted,
    KeptReason,
    KernelStarted,
    Laid,
    ObjectRef,
    OnceDone,
    Owner,
    Record,
    RolledBack,
    RunContinued,
    RunEnded,
    RunNamed,
    RunStarted,
    RunStatus,
    StepChosen,
    StepInfo,
    StepKept,
    StepRebuilt,
    StepSkipped,
    Turn,
    WaitInfo,
    Waits,
    WentBack,
    Woken,
    to_plain,
)
from cellrail_state.steps import stand_in
from cellrail_state.store import Store
from cellrail_state.texts import encodable, json_bytes


class Recorder:
    """Appends a run's records to its journal; owns the run while it is open."""

    def __init__(
        self,
        store: Store,
        started: RunStarted,
        *,
        masker: Masker | None = None,
        clock: Callable[[], float] = time.time,
        reopened: tuple[Journal, Sequence[Record]] | None = None,
        held: bool = False,
    ) -> None:
        """Create the journal with its first record; the run is `running` from here on.

        A run that is `held` begins when something of it is executed, or when it ends: until then
        it can still be refused, as if it had never been.

        Args:
            store: where it lies.
            started: the run's first record.
            masker: the run's secrets.
            clock: seconds since the epoch.
            reopened: the journal of a run that goes on, and what it holds.
            held: create the journal later (`begin`).
        """
        self.store = store
        self.run_id = started.run_id
        self.masker = masker if masker is not None else Masker()
        self.clock = clock
        self._unsynced = self._over = False
        self._appending = threading.Lock()
        #: is told of each job once it is committed
        self.watch: Callable[[JobFinished], None] = lambda _: None
        self._first = started
        #: what is told of a run that has not begun; None once it has
        self._held: list[Record] | None = [] if held else None
        self._journal: Journal | None = None
        records: Sequence[Record] = ()
        if reopened is not None:
            self._journal, records = reopened
        elif not held:
            self._journal = store.create_journal(started)
        self._jobs = _jobs_of(records)
        #: steps of the run, by the names that it knows them by
        self.steps = started.steps
        #: when it began, in seconds since the epoch
        self.began = started.time
        self._waits = sum(isinstance(record, Waits) for record in records)
        #: what was kept, skipped and decided by an owner before
        self._told = {_fact(record) for record in records} - {None}
        self._decided = {(r.step, r.purpose, r.turns) for r in records if isinstance(r, Decided)}

    @property
    def is_held(self) -> bool:
        """Whether the run has not begun, and can still be refused."""
        return self._held is not None

    def begin(self) -> None:
        """The run is `running` from here on, where it was held."""
        with self._appending:
            self._begin()

    def forget(self) -> None:
        """The run was refused before it began: nothing of it stays."""
        shutil.rmtree(self.store.shared_folder(self.run_id), ignore_errors=True)

    def _begin(self) -> Journal:
        if self._journal is None:
            self._journal = self.store.create_journal(self._first)
        held, self._held = self._held, None
        for record in held or ():
            self._journal.append(record)
            self._unsynced = True
        return self._journal

    def continued(self, *, owner: Owner, epoch: int, reason: str, command: str) -> None:
        """The run goes on: it is `running` again from here on."""
        self._append(
            RunContinued(
                time=self.clock(),
                owner=owner,
                epoch=epoch,
                reason=reason,
                command=self.masker.text(command),
            )
        )
        self.sync()
        # the catalog may have looked between the lock and this record
        self.store.news.tell(self.run_id)

    def named(self, flow: str, notebook_path: str) -> None:
        """The live run has learnt which notebook it is of."""
        self._append(RunNamed(time=self.clock(), flow=flow, notebook_path=notebook_path))
        self.sync()
        # the catalog has it under no name
        self.store.news.tell(self.run_id)

    def next_job_id(self) -> str:
        """An id for the next job of this run."""
        with self._appending:
            self._jobs += 1
            return f"{self.run_id}/{self._jobs}"

    def put_outputs(self, outputs: Sequence[Mapping[str, Any]]) -> ObjectRef | None:
        """Store a cell's outputs, secrets masked; None where there are none."""
        if not outputs:
            return None
        plain = self.masker.value([dict(output) for output in outputs])
        ref = self.store.objects.put(json_bytes(plain))
        self.store.objects.flush()
        return ref

    def kernel(
        self,
        *,
        pid: int,
        started: float,
        python: str,
        implementation: str,
        packages: dict[str, str],
    ) -> None:
        """A kernel is ready."""
        self._append(
            KernelStarted(
                time=self.clock(),
                pid=pid,
                started=started,
                python=python,
                implementation=implementation,
                packages=packages,
            )
        )

    def kept(self, jobs: Iterable[tuple[int, str]], reason: KeptReason = KeptReason.ORIGIN) -> None:
        """Steps (number, job id) point to jobs of an earlier run."""
        now = self.clock()
        for step, job_id in jobs:
            self._append(StepKept(time=now, step=step, job_id=job_id, reason=reason))

    def went_back(self, jobs: Sequence[JobFinished], kept: Mapping[int, str]) -> None:
        """In an open notebook the namespace is as these jobs have left it, in order.

        Args:
            jobs: of this run, and of others.
            kept: jobs of another run that stand for steps from now on, by step.
        """
        chain = tuple(job.lays or job.job_id for job in jobs)
        # nobody deletes what this begins to point to
        with self.store.pruning(shared=True):
            self._append(WentBack(time=self.clock(), chain=chain, kept=dict(kept)))
        self.sync()

    def skipped(self, step: int, reason: str, turns: tuple[Turn, ...] = ()) -> None:
        """A step is not executed, on purpose."""
        reason = self.masker.text(reason)
        self._append(StepSkipped(time=self.clock(), step=step, reason=reason, turns=turns))

    def key(self, key: str) -> str:
        """The key of a loop's item in records: Unicode, and what stands for secrets."""
        return self._sealed(encodable(key), MINIMUM_LENGTH)

    def lasting_key(self, key: str) -> str:
        """A key that a cell gives again in runs to come.

        Only of secrets that no checkpoint holds: whoever has such a one has read it, so the run
        knows it. Of a shorter one a restart may not know, and would not find what was done.
        """
        return self._sealed(encodable(key), KEPT_LENGTH)

    def _sealed(self, key: str, shortest: int) -> str:
        if not self.masker:
            return key
        return self.masker.key(key, self.store.keyring.key(), shortest=shortest)

    def keyed(self, told: Told) -> Told:
        """What a line's expression came to, with keys that hold no secret."""
        return msgspec.structs.replace(told, keys=tuple(map(self.key, told.keys)))

    def decided(self, ask: Ask, told: Told) -> None:
        """An expression of a step's line was evaluated; its keys are `keyed`."""
        self._append(
            Decided(
                time=self.clock(),
                step=ask.step.number,
                purpose=str(ask.purpose),
                expression=self.masker.text(ask.expression),
                value=told.value,
                keys=told.keys,
                turns=ask.path,
                effects=told.effects,
            )
        )

    def rolled_back(self, step: int, names: Sequence[str], turns: tuple[Turn, ...]) -> None:
        """The namespace was put back for another attempt, except these names."""
        self._append(
            RolledBack(time=self.clock(), step=step, not_restored=tuple(names), turns=turns)
        )

    def kept_turn(self, step: int, job_id: str, turns: tuple[Turn, ...], forks: str = "") -> None:
        """A turn of a loop points to a job of an earlier run; `forks` as in `JobFinished`."""
        self._append(
            StepKept(time=self.clock(), step=step, job_id=job_id, turns=turns, forks=forks)
        )

    def kept_turns(self, origin: RunHistory, numbers: Mapping[int, int]) -> None:
        """Turns of kept steps, and what was decided on their lines, as the origin tells.

        Args:
            origin: the run that they are kept from.
            numbers: the step's number in this run, by its number there.
        """
        for decided in origin.decided.values():
            step = numbers.get(decided.step)
            if step is not None and (step, decided.purpose, decided.turns) not in self._decided:
                self._append(msgspec.structs.replace(decided, step=step))
        for record in origin.turn_records:
            step = numbers.get(record.step)
            if step is None:
                continue
            if isinstance(record, StepSkipped):
                self.skipped(step, record.reason, record.turns)
            elif record.forks:
                self.kept_turn(step, record.job_id, record.turns, record.forks)
            elif origin.turns.get((record.step, record.turns)) == record.job_id:
                self.kept_turn(step, record.job_id, record.turns)

    def chosen(self, step: int, reason: str, *, forced: bool) -> None:
        """A step of a rerun executes."""
        reason = self.masker.text(reason)
        self._append(StepChosen(time=self.clock(), step=step, reason=reason, forced=forced))

    def kept_in_midrun(
        self,
        kept: StepKept,
        jobs: Sequence[JobFinished],
        deltas: Sequence[Delta],
    ) -> list[JobFinished]:
        """A step is kept between others that execute.

        Args:
            kept: what is kept.
            jobs: the jobs that make what it leaves, in order.
            deltas: what each of them leaves here.

        Returns:
            What stands in the run's chain: the jobs themselves, where they leave what they left.
        """
        chain: list[JobFinished] = []
        for job, delta in zip(jobs, deltas, strict=True):
            if delta is not job.delta:
                laid = Laid(
                    time=self.clock(),
                    step=kept.step,
                    job_id=self.next_job_id(),
                    lays=job.lays or job.job_id,
                    delta=delta,
                )
                self._append(laid)
                job = stand_in(job, laid)  # noqa: PLW2901 - it is what stands in the chain
            chain.append(job)
        ids = tuple(job.job_id for job in chain)
        self._append(msgspec.structs.replace(kept, chain=ids))
        return chain

    def rebuilt(self, step: int, names: Sequence[str], seconds: float) -> None:
        """A kept step's cell ran again for what cannot be stored."""
        self._append(StepRebuilt(time=self.clock(), step=step, names=tuple(names), seconds=seconds))

    def started(
        self,
        step: int,
        job_id: str,
        info: StepInfo | None = None,
        *,
        attempt: int = 1,
        turns: tuple[Turn, ...] = (),
        executes: bool = True,
    ) -> None:
        """A step fired; where it `executes`, a run that was held begins."""
        if executes:
            self.begin()
        if info is not None:
            info = msgspec.structs.replace(info, source=self.masker.text(info.source))
        record = JobStarted(
            time=self.clock(), step=step, job_id=job_id, info=info, attempt=attempt, turns=turns
        )
        self._append(record)

    def finished(self, job: JobFinished) -> JobFinished:
        """Commit a step. Returns the job as it was recorded, secrets masked."""
        if self.masker and job.error is not None:
            job = msgspec.structs.replace(
                job, error=msgspec.convert(self.masker.value(to_plain(job.error)), type(job.error))
            )
        if self.masker and job.cause:
            job = msgspec.structs.replace(job, cause=self.masker.text(job.cause))
        if self.masker and job.source is not None:
            job = msgspec.structs.replace(job, source=self.masker.text(job.source))
        self._append(job)
        self.watch(job)
        return job

    def next_wait_id(self) -> str:
        """An id for the next time that has to pass in this run."""
        self._waits += 1
        return f"{self.run_id}/t{self._waits}"

    def waits(self, wait: WaitInfo) -> None:
        """Time has to pass."""
        self._append(Waits(time=self.clock(), step=wait.step, wait=wait))
        self.sync()

    def woken(self, record: Woken) -> None:
        """A wait is over: that is durable before anything builds on it."""
        self._append(record)
        self.sync()

    def woken_inherited(
        self, origin: RunHistory, numbers: Mapping[int, int], jobs: Collection[str]
    ) -> list[Woken]:
        """What the waits of kept jobs came to, this run knows too.

        Args:
            origin: the run that they are kept from.
            numbers: the step's number in this run, by its number there.
            jobs: the kept ones.
        """
        found = [
            msgspec.structs.replace(
                woken, step=numbers[woken.step], origin=woken.origin or origin.run_id
            )
            for woken in origin.woken.values()
            if woken.wait_id in jobs and woken.step in numbers and woken.goes_on
        ]
        for woken in found:
            self._append(woken)
        return found

    def once(self, done: OnceDone) -> None:
        """`flow.once` has run its function: that is durable before anything else happens."""
        self._append(done)
        self.sync()

    def called(self, *records: Called) -> None:
        """Cells have other notebooks run: that is durable before anything of them begins."""
        for record in records:
            self._append(record)
        self.sync()

    def once_inherited(self, origin: RunHistory) -> None:
        """What the origin has done once, this run does not do again."""
        for done in origin.once.values():
            self._append(msgspec.structs.replace(done, origin=done.origin or origin.run_id))

    def each(self, stored: EachStored) -> None:
        """`flow.each` has stored names: that is durable before the loop goes on."""
        self._append(stored)
        self.sync()

    def end(
        self, status: RunStatus, *, cause: str = "", step: str = "", missed: Sequence[str] = ()
    ) -> None:
        """The run is over; its ownership ends with it. Only the first end counts."""
        if self._over:
            return
        self._over = True
        self._append(
            RunEnded(
                time=self.clock(), status=status, cause=self.masker.text(cause), step=step,
                missed=tuple(missed),
            )
        )  # fmt: skip
        self.close()

    def _append(self, record: Any) -> None:
        if self._told and _fact(record) in self._told:
            return
        # in an open notebook a thread may record what it has done once; a record that Ctrl-C cuts
        # off from the journal's account of itself would spoil what follows
        with heard_afterwards(), self._appending:
            if self._held is not None and not _happens(record):
                self._held.append(record)
                return
            self._begin().append(record)
            self._unsynced = True

    def sync(self) -> None:
        """Make all that was appended survive a power failure."""
        if self._unsynced and self._journal is not None:
            self._unsynced = False
            self._journal.sync()

    def close(self) -> None:
        """Give the journal back."""
        self.sync()
        if self._journal is not None:
            self._journal.close()


def _happens(record: Record) -> bool:
    """Whether a record tells of something that was executed, or of the run's end."""
    if isinstance(record, JobFinished):
        return not record.follows  # parameters that are assigned anew are no execution
    return isinstance(record, StepRebuilt | Waits | RunEnded)


def _jobs_of(records: Collection[Record]) -> int:
    """How many ids of jobs a run has used."""
    ids = [record.job_id for record in records if isinstance(record, JobStarted | JobFinished)]
    return max((int(job_id.rpartition("/")[2]) for job_id in ids), default=0)


def _fact(record: Record) -> tuple[object, ...] | None:
    """What a record tells once and for all; None where it tells of something that happens."""
    if isinstance(record, StepKept):
        return ("kept", record.step, record.turns, record.job_id)
    if isinstance(record, StepSkipped):
        return ("skipped", record.step, record.turns)
    return None
