"""What a run's own journal answers, when the same run goes on under another owner.

The control machine is conducted from the run's first block again. As far as the journal reaches,
it gets the answers that it got before, and nothing is recorded or executed anew: conditions have
their values, committed jobs their endings, attempts their numbers. What the journal does not tell
is done now; from the first job that it does not tell on, everything is.

* A job without a commit was interrupted: it executes again, as the same attempt.
* A job whose kernel died has told nothing: it executes again, too.
* The items of a loop are in the checkpoints of its jobs. Before the first of those is committed
  they are nowhere, so they are evaluated again.
* A wait that was under way goes on until its time is up; one that nobody stays for is answered by
  the record of its end, and until there is that the run is parked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from cellrail.notebook import actions
from cellrail.notebook.actions import Path, Purpose
from cellrail.notebook.model import Step
from cellrail.run.client import CellResult
from cellrail.run.limits import ending_told
from cellrail.run.orders import loop_root
from cellrail.run.replay import (
    KERNEL_DIED,
    REBUILD_FAILED,
    ItemPlan,
    Replay,
    Stage,
    Teller,
)
from cellrail.run.waits import in_words, woke
from cellrail_state.chains import is_good
from cellrail_state.model import (
    Decided,
    JobFinished,
    JobStarted,
    Record,
    StepKept,
    StepSkipped,
    StepStatus,
    WaitInfo,
    Waits,
    Woken,
)
from cellrail_state.waits import RERUN, RETRY, SLEEP, SUSPEND

#: number of a step, its turns, its execution and its attempt
_Place = tuple[int, Path, int, int]


class Answers:
    """Answers what the journal tells."""

    def __init__(
        self,
        records: Iterable[Record],
        *,
        job: Callable[[str], JobFinished],
        outputs: Callable[[JobFinished], list[dict[str, Any]]],
        roots: Collection[str],
        before: Replay | None = None,
        own: Replay | None = None,
        forced: frozenset[int] = frozenset(),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Read the journal.

        Args:
            records: of the run, in order.
            job: a job of this run, or of one that it points to, by its id.
            outputs: a job's outputs.
            roots: what the checkpoint holds beside the notebook's variables: items of loops.
            before: of a restart, what leads to its cut inside a loop.
            own: tells what the run's journal has of the items of parallel loops.
            forced: of a rerun, the steps that were named as changed.
            clock: seconds since the epoch.
        """
        self._job, self._outputs, self._roots = job, outputs, roots
        self._before, self._own, self._clock = before, own, clock
        #: numbers of steps that a person has named (`flow.forced`)
        self.forced = forced
        self._attempts: dict[_Place, JobFinished] = {}
        #: waits by what they stand behind, and how they ended
        self._waits: dict[tuple[str, _Place], WaitInfo] = {}
        self._woken: dict[str, Woken] = {}
        #: the job that was committed last; None where anything has begun since
        self._last: JobFinished | None = None
        self._kept: dict[tuple[int, Path], str] = {}
        self._decided: dict[tuple[int, str, Path], Decided] = {}
        #: `--retry-if` of each attempt
        self._again: dict[_Place, Decided] = {}
        self._skipped: set[tuple[int, Path]] = set()
        #: the job that stands for a step, where its cell has run again since
        self._newest: dict[tuple[int, Path], JobFinished] = {}
        for record in records:
            self._read(record)
        #: the journal ends here
        self._over = False
        self._attempt, self._runs = 1, 1

    # --- the journal -------------------------------------------------------------------------

    def _read(self, record: Record) -> None:
        if _begins_something(record):
            self._last = None
        if isinstance(record, Waits):
            self._expect(record.wait)
        elif isinstance(record, Woken):
            self._woken[record.wait_id] = record
        elif isinstance(record, Decided):
            self._decided[record.step, record.purpose, record.turns] = record
        elif isinstance(record, StepSkipped):
            self._skipped.add((record.step, record.turns))
        elif isinstance(record, StepKept) and not record.forks:
            self._kept[record.step, record.turns] = record.job_id
        elif isinstance(record, JobFinished) and not (record.forks or record.handles):
            self._finish(record)

    def _expect(self, wait: WaitInfo) -> None:
        place = (wait.step, wait.turns, wait.runs, wait.attempt)
        self._waits[wait.kind, place] = wait

    def _finish(self, job: JobFinished) -> None:
        if job.wait is not None:
            self._expect(job.wait)
        again = self._decided.pop((job.step, str(Purpose.RETRY_IF), job.turns), None)
        if job.follows or tells_nothing(job):
            return
        if job.replaces:
            if is_good(job):
                self._newest[job.step, job.turns] = job
            return
        key = (job.step, job.turns, job.runs, job.attempt)
        self._last = job
        if key not in self._attempts and again is not None:
            self._again[key] = again
        self._attempts.setdefault(key, job)

    def _known(self, action: actions.Fire | actions.Commit) -> JobFinished | None:
        number, path = action.step.number, action.path
        job = self._attempts.get((number, path, action.runs, action.attempt))
        kept = self._kept.get((number, path))
        return self._job(kept) if job is None and kept is not None else job

    def _left(self, action: actions.Ask | actions.Leave | actions.Fork) -> JobFinished | None:
        """The job that ended a loop."""
        fired = actions.Fire(step=action.step, path=action.path)
        return self._known(fired)

    # --- answers -----------------------------------------------------------------------------

    def takes(self, action: actions.Action) -> bool:
        """Whether the action was done before, or needs not be done."""
        # it has to see every action, to know where its cut is
        before = self._before is not None and self._before.takes(action)
        return not self._over and (self._tells(action) or before)

    def _tells(self, action: actions.Action) -> bool:
        if isinstance(action, (actions.Enter, actions.Turned, actions.RollBack, actions.Wait)):
            return True
        if isinstance(action, actions.Suspend):
            return self._woke(action) is not None
        if isinstance(action, actions.Ask):
            return self._told(action) is not None
        if isinstance(action, actions.Skip):
            return (action.step.number, action.path) in self._skipped
        if isinstance(action, (actions.Leave, actions.Fork)):
            return self._left(action) is not None
        return self._known(action) is not None

    @property
    def apart(self) -> str:
        """Label of a loop whose items ran one after another in the origin, and run apart here."""
        return self._before.apart if self._before is not None else ""

    def forces(self, step: Step, path: Path) -> bool:
        """Whether a job was asked for by the restart or rerun that the run is."""
        asked = self._before is not None and self._before.forces(step, path)
        return asked or step.number in self.forced

    def items(self, fork: actions.Fork) -> list[ItemPlan] | None:
        """What becomes of each item of a parallel loop that was under way."""
        before = self._before.items(fork) if self._before is not None else None
        own = self._own.item_plans(fork) if self._own is not None else None
        if before is None or own is None:
            return [told(plan) for plan in own] if own is not None else before
        # what the origin has whole was perhaps not told here yet
        return [
            old if old.kept or not (new.kept or new.replay) else told(new)
            for old, new in zip(before, own, strict=True)
        ]

    def live(self, action: actions.Action) -> None:
        """The action is carried out now."""
        if isinstance(action, (actions.Fire, actions.Leave)):
            self._over = True

    def perform(self, action: actions.Action, stage: Stage, teller: Teller) -> Any:
        """The answer from the journal."""
        if not self._tells(action):
            return self._of_origin(action, stage, teller)
        if isinstance(action, actions.Ask):
            return self._told(action)
        if isinstance(action, actions.Suspend | actions.Wait):
            return self._waited(action, stage)
        if isinstance(action, actions.Fire):
            self._attempt, self._runs = action.attempt, action.runs
            job = self._known(action)
            return ended_as(job) if job is not None else None
        if isinstance(action, actions.Commit):
            self._committed(action, stage)
        elif isinstance(action, actions.Leave | actions.Fork):
            return self._looped(action, stage)
        elif isinstance(action, (actions.Enter, actions.Turned)):
            stage.perform(action)
        return None

    def _looped(self, action: actions.Leave | actions.Fork, stage: Stage) -> Any:
        job = self._left(action)
        # it failed though its items had not: they did not begin, or left nothing
        refused = job.cause if job is not None and job.status is StepStatus.FAILED else None
        if isinstance(action, actions.Leave):
            if refused is None:
                stage.settle()
            return refused
        if self._before is not None:
            self._before.passes(action)
        if refused is not None:
            return actions.Joined(refused=refused)
        return self._own.keep_items(action, stage, Nobody()) if self._own is not None else None

    def _of_origin(self, action: actions.Action, stage: Stage, teller: Teller) -> Any:
        return None if self._before is None else self._before.perform(action, stage, teller)

    def _told(self, action: actions.Ask) -> actions.Told | None:
        number, path = action.step.number, action.path
        if action.purpose is Purpose.RETRY_IF and (number, path) not in self._kept:
            known = self._again.get((number, path, self._runs, self._attempt))
        else:
            known = self._decided.get((number, str(action.purpose), path))
        if known is None:
            return None
        if action.purpose is Purpose.FOREACH:
            there = loop_root(action.step, path) in self._roots
            if not there and self._left(action) is None:
                return None
        return actions.Told.of(known)

    def _committed(self, action: actions.Commit, stage: Stage) -> None:
        job = self._known(action)
        if job is None or not action.final:
            return
        job = self._newest.get((action.step.number, action.path), job)
        stage.show_job(action.step, job, self._outputs(job))
        if action.status is StepStatus.SUCCESS or action.accepted:
            stage.settle()

    def _waited(self, action: actions.Suspend | actions.Wait, stage: Stage) -> actions.Woke | None:
        return self._wait(action, stage) if isinstance(action, actions.Wait) else self._woke(action)

    def _woke(self, action: actions.Suspend) -> actions.Woke | None:
        if (action.step.number, action.path) in self._kept:
            return actions.Woke(by="resume")  # its origin went on
        place = _place(action)
        found = self._waits.get((SUSPEND, place)) or self._waits.get((RERUN, place))
        record = self._woken.get(found.wait_id) if found is not None else None
        return woke(record) if record is not None else None

    def _wait(self, action: actions.Wait, stage: Stage) -> actions.Woke | None:
        number, path = action.step.number, action.path
        if (number, path) in self._kept:
            return None
        place = _place(action)
        known = self._waits.get((action.why, place))
        if known is not None:
            record = self._woken.get(known.wait_id)
            return woke(record) if record is not None else parked(known)
        job = self._attempts.get(place)
        if action.why == RETRY and (*place[:3], action.attempt + 1) in self._attempts:
            return None
        if action.why == SLEEP and job is not self._last:
            return None
        since = job.time if job is not None else self._clock()
        left = min(action.seconds, since + action.seconds - self._clock())
        if left <= 0:
            return None
        found: actions.Woke | None = stage.perform(msgspec.structs.replace(action, seconds=left))
        return found


def _begins_something(record: Record) -> bool:
    """Whether the run has gone on behind its last job."""
    if isinstance(record, Decided):
        return record.purpose not in {Purpose.STOP_IF, Purpose.RETRY_IF}
    return isinstance(record, (JobStarted, StepSkipped))


def _place(action: actions.Suspend | actions.Wait) -> _Place:
    return (action.step.number, action.path, action.runs, action.attempt)


def parked(wait: WaitInfo) -> actions.Woke:
    """The run goes on waiting, and nobody stays."""
    return actions.Woke(by="parked", cause=in_words(wait))


def tells_nothing(job: JobFinished) -> bool:
    """Whether a commit leaves its step to be executed all the same."""
    return job.cause.startswith((KERNEL_DIED, REBUILD_FAILED))


def ended_as(job: JobFinished) -> actions.Ended:
    """How a committed job's code ended."""
    error = job.error
    if job.status in {StepStatus.SUCCESS, StepStatus.KEPT}:
        exited = error is not None and error.name == "SystemExit"
        return actions.Ended(
            ending="ok", error=error, exited=exited, waits=job.wait is not None, again=job.again
        )
    if job.status is StepStatus.CANCELLED:
        return actions.Ended(ending="interrupted", error=error)
    refused = "not restorable after: "
    if job.cause.startswith(refused):
        return actions.Ended(ending="ok", refused=job.cause.removeprefix(refused))
    return actions.Ended(ending=ending_told(job.cause), error=error, cause=job.cause)


def told(plan: ItemPlan) -> ItemPlan:
    """An item of which the run's own journal tells what is kept."""
    return msgspec.structs.replace(plan, told=True)


class Nobody:
    """A stage and a teller for whom nothing is done: to find out where a journal ends."""

    result: CellResult | None = None

    def perform(self, action: actions.Action) -> Any:
        """Do nothing."""

    def show(self, step: Step, outputs: Sequence[Mapping[str, Any]]) -> None:
        """Show nothing."""

    def show_job(self, step: Step, job: JobFinished, outputs: Sequence[Mapping[str, Any]]) -> None:
        """Show nothing."""

    def settle(self) -> None:
        """Nothing was to be done."""

    def kept_turn(self, step: int, job_id: str, turns: Path, forks: str = "") -> None:
        """Tell nobody."""

    def skipped(self, step: int, reason: str, turns: Path = ()) -> None:
        """Tell nobody."""

    def decided(self, ask: actions.Ask, told: actions.Told) -> None:
        """Tell nobody."""


def where_it_ends(
    machine: Any, answers: Answers
) -> actions.Ask | actions.Fire | actions.Leave | actions.Fork | actions.End:
    """The first action that a kernel is needed for; what the run came to where none is.

    Args:
        machine: conducts the run from its first block.
        answers: of the run; not to be used again.
    """
    answer: Any = None
    nobody = Nobody()
    while True:
        try:
            action = machine.send(answer)
        except StopIteration as stop:
            end: actions.End = stop.value
            return end
        if answers.takes(action):
            answer = answers.perform(action, nobody, nobody)
        elif isinstance(action, (actions.Ask, actions.Fire, actions.Leave, actions.Fork)):
            return action
        elif isinstance(action, actions.Suspend):
            answer = actions.Woke(by="parked")
        else:
            answer = None
