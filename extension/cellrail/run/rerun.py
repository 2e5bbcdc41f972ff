"""A rerun in progress: which step is kept and which executes, decided one after another.

The control machine conducts the whole notebook. Where a unit (a step, or a loop with its steps) is
kept, its actions are answered by what the origin's journal tells, and the run points to its jobs;
the kernel is not asked. Right before the next unit that executes, what the kept ones left is laid
over the kernel's namespace. So a row of kept steps at the end costs no kernel work, and the chain
of the new run (`RunHistory.chain`) has every kept job at its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from cellrail.errors import RestartRefused
from cellrail.notebook import actions
from cellrail.notebook.actions import Purpose
from cellrail.notebook.fingerprint import file_digests
from cellrail.notebook.model import Step
from cellrail.notebook.spread import Cause, Judge, OldUnit, Unit, foresee, other_effects, refusal
from cellrail.run.keeping import lay_over, reserve
from cellrail.run.limits import ending_told
from cellrail.run.performer import Performer
from cellrail.run.putback import Commander
from cellrail.run.recorder import Recorder
from cellrail_state import ambient_parts
from cellrail_state.chains import is_good
from cellrail_state.history import RunHistory
from cellrail_state.laying import laid
from cellrail_state.model import (
    Checkpoint,
    Delta,
    JobFinished,
    KeptReason,
    ObjectRef,
    StepKept,
    StepStatus,
    Woken,
)

_NEVER_CUT = "there is no checkpoint after step {} of this run, so nothing behind it can be kept"


class Stage(Protocol):
    """What a rerun has done for it by the session."""

    def show_kept(self, step: int, origin_step: int) -> None:
        """Show the outputs of a kept step."""

    def fact(self, name: str, value: object) -> None:
        """Cells can ask for this fact."""

    def started_on(self, jobs: Sequence[JobFinished]) -> None:
        """The run goes on from what these jobs have left."""

    def waited(self, woken: Sequence[Woken], after: str) -> None:
        """So the waits of kept jobs ended, of which this was the last."""


class RerunPlan(msgspec.Struct, kw_only=True):
    """What a rerun begins with."""

    history: RunHistory
    units: Sequence[Unit]
    olds: Sequence[OldUnit | None]
    #: why units execute whatever comes before, by place
    causes: dict[int, Cause]
    judge: Judge
    #: the origin's number of each step of today's notebook
    numbers: dict[int, int]
    #: jobs whose definitions may meet those of this run
    jobs: Sequence[JobFinished]
    #: sources by execution count, of jobs that are kept
    inputs: Callable[[Sequence[JobFinished]], dict[int, str]]
    python: str = ""
    #: bytes; larger values wait in the store until a cell can reach them
    lazy_above: int | None = None
    #: where `--reads` and `--writes` look
    folder: Path = Path()

    def jobs_of(self, step: Step) -> list[JobFinished]:
        """The origin's jobs of a step, in order."""
        number = self.numbers.get(step.number)
        if number is None:
            return []
        turns = [j for (n, _), j in self.history.turns.items() if n == number]
        ids = turns or [self.history.state(number).job_id]
        return [self.history.job_by_id(job_id) for job_id in ids if job_id]


class Rerun:
    """Takes the actions of kept steps, and prepares the kernel for the others."""

    def __init__(
        self,
        plan: RerunPlan,
        *,
        recorder: Recorder,
        client: Commander,
        stage: Stage,
        lazy_above: int | None,
    ) -> None:
        """Prepare.

        Args:
            plan: what it begins with.
            recorder: the run's journal.
            client: the kernel's.
            stage: the session.
            lazy_above: bytes; larger values wait in the store until a cell can reach them.
        """
        self._plan, self._recorder, self._client = plan, recorder, client
        self._stage, self._lazy_above = stage, lazy_above
        self._judge = plan.judge
        self._places = {n: p for p, unit in enumerate(plan.units) for n in unit.numbers}
        self._place = -1
        self._cause: Cause | None = None
        #: jobs of the run's chain, and those kept since a cell ran last
        self._chain: list[JobFinished] = []
        self._pending: list[JobFinished] = []
        self._counted = 0
        self._prepared = self._begun = False
        #: parallel loops that are executed: their paths and labels
        self._forks: set[tuple[actions.Path, str]] = set()
        #: why nothing more can be kept
        self._blind = ""
        recorder.watch = self._committed

    # --- the machine's actions ---------------------------------------------------------------

    def takes(self, action: actions.Action) -> bool:
        """Whether the action belongs to a kept unit."""
        place = self._places[action.step.number]
        if place != self._place:
            self._leave()
            self._place, self._prepared = place, False
            self._cause = self._decide(place, action)
            if self._cause is None:
                self._keep(place)
            else:
                cause = self._cause
                self._recorder.chosen(action.step.number, cause.reason, forced=cause.forced)
        return self._cause is None

    def perform(self, action: actions.Action, performer: Performer, recorder: Recorder) -> Any:
        """What the origin's journal answers."""
        if isinstance(action, actions.Ask):
            return self._told(action)
        if isinstance(action, actions.Fire):
            return self._ended(action)
        if isinstance(action, actions.Fork):
            return actions.Joined(items=tuple(actions.ItemEnd() for _ in action.items))
        if isinstance(action, actions.Skip) and not action.path:
            recorder.skipped(action.step.number, action.reason)
        del performer
        return None

    def live(self, action: actions.Action) -> None:
        """An action that is carried out now: the kernel has what it needs."""
        if isinstance(action, actions.Fork):
            self._forks.add((action.path, action.step.label))
        needs_kernel = actions.Ask | actions.Fire | actions.RollBack | actions.Leave | actions.Fork
        if self._prepared or not isinstance(action, needs_kernel):
            return
        self._prepared = True
        self._stage.fact("forced", self._cause is not None and self._cause.forced)
        if not self._begun:
            self._begun = True
            reserve(self._client, self._plan.jobs, first=self._first_generators())
        if self._pending:
            self._lay_over()
            self._stage.started_on(self._chain)

    #: no loop whose items ran one after another runs apart
    apart = ""

    def forces(self, step: Step, path: actions.Path) -> bool:
        """Whether a job is executed though an equal one is known (`--cache`)."""
        del step, path
        return self._cause is not None and (self._cause.forced or self._cause.again)

    def items(self, fork: actions.Fork) -> None:
        """Every item of a parallel loop that executes is executed."""
        del fork

    # --- deciding ----------------------------------------------------------------------------

    def _decide(self, place: int, action: actions.Action) -> Cause | None:
        """Why a unit executes; None where it is kept."""
        plan = self._plan
        unit, old = plan.units[place], plan.olds[place]
        cause = plan.causes.get(place)
        if cause is not None or old is None:
            return cause
        if self._blind:
            return Cause(reason=self._blind)
        if not self._is_met_alike(action, old):
            return Cause(reason="its branch is decided otherwise")
        files = files_changed(unit, plan.jobs_of, plan.folder)
        cause = Cause(reason=files) if files else self._judge.why(unit, old)
        cause = cause or self._needed_behind(place)
        told = refusal(unit, old, cause)
        if told:
            raise RestartRefused(told)
        return cause

    def _is_met_alike(self, action: actions.Action, old: OldUnit) -> bool:
        """Whether the machine comes to the step as it did in the origin."""
        if isinstance(action, actions.Skip):
            return old.skipped
        return not old.skipped or (
            isinstance(action, actions.Ask) and self._known(action) is not None
        )

    def _needed_behind(self, place: int) -> Cause | None:
        """What a unit that no change reaches made, cannot be stored, and a step behind needs."""
        plan, old = self._plan, self._plan.olds[place]
        if old is None:
            return None
        outlook = foresee(
            plan.units, plan.olds, plan.causes, changed=self._judge.changed(old.before),
            begin=place, settled=place,
        )  # fmt: skip
        cause = outlook.causes.get(place)
        return cause if cause is not None and cause.again else None

    # --- what executed -----------------------------------------------------------------------

    def _committed(self, job: JobFinished) -> None:
        """A job of this run is in its journal."""
        writes = job.effects.writes if job.effects is not None else ()
        self._judge.set_anew |= {f"{written.kind} {written.path}" for written in writes}
        if self._is_apart(job):
            self._judge.other_state |= other_effects(job, self._plan.olds[self._place])
            return
        self._counted = max(self._counted, job.execution_count or 0)
        if not is_good(job):
            return
        self._chain.append(job)
        self._judge.now = self._judge.now.after(job.delta)
        if job.delta.failure:
            label = self._plan.units[self._place].label
            self._blind = _NEVER_CUT.format(label)
        cause = self._cause
        if cause is None or cause.again:
            self._judge.strange.difference_update(job.delta.written)
            return
        records = job.delta.variables
        self._judge.strange.difference_update(job.delta.written)
        self._judge.strange |= {n for n, v in records.items() if v.component is None}
        self._judge.other_state |= other_effects(job, self._plan.olds[self._place])

    def _is_apart(self, job: JobFinished) -> bool:
        """Whether a job is one of a parallel loop's items: what it left ends with the item."""
        return any((job.turns[:n], turn.loop) in self._forks for n, turn in enumerate(job.turns))

    def _leave(self) -> None:
        """A unit has ended."""
        self._stage.fact("forced", False)

    # --- what is kept ------------------------------------------------------------------------

    def _keep(self, place: int) -> None:
        """The run points to the unit's jobs; its outputs are shown."""
        plan, recorder = self._plan, self._recorder
        unit, old = plan.units[place], plan.olds[place]
        if old is None:  # nothing to execute
            for step in unit.steps:
                recorder.skipped(step.number, "new, and nothing to execute")
            return
        history = plan.history
        deltas = deltas_here(self._judge, unit, old, self._ambient)
        mapped = {plan.numbers[step.number]: step.number for step in unit.steps}
        ids = {job.lays or job.job_id for job in old.jobs}
        woken = recorder.woken_inherited(history, mapped, ids)
        self._stage.waited(woken, history.stepped_last(old.jobs))
        recorder.kept_turns(history, mapped)
        last: StepKept | None = None
        for step in reversed(unit.steps):
            state = history.state(plan.numbers[step.number])
            if not state.job_id:
                continue
            if last is not None:
                recorder.kept([(last.step, last.job_id)], reason=KeptReason.UNCHANGED)
            last = StepKept(
                time=recorder.clock(), step=step.number, job_id=state.job_id,
                reason=KeptReason.UNCHANGED,
            )  # fmt: skip
            self._stage.show_kept(step.number, plan.numbers[step.number])
        if last is None:
            return
        chain = recorder.kept_in_midrun(last, old.jobs, deltas)
        self._chain += chain
        self._pending += chain
        for job in chain:
            self._judge.now = self._judge.now.after(job.delta)
            self._judge.strange.difference_update(job.delta.written)

    def _ambient(self, now: Checkpoint, before: Checkpoint, after: Checkpoint) -> ObjectRef | None:
        """The ambient state after a kept job, where it is not the one it left there."""
        if after.ambient == before.ambient or now.ambient in {None, before.ambient}:
            return None
        objects, snapshot = self._recorder.store.objects, self._judge.snapshot
        made = ambient_parts.merged(snapshot(now), snapshot(before), snapshot(after))
        ref = objects.put(ambient_parts.encoded(made))
        objects.flush()
        return ref

    def _lay_over(self) -> None:
        pending, self._pending = self._pending, []
        self._counted = max([self._counted, *(job.execution_count or 0 for job in pending)])
        lay_over(
            self._client,
            self._judge.now,
            pending,
            inputs=self._plan.inputs(pending),
            execution_count=self._counted + 1,
            python=self._plan.python,
            lazy_above=self._lazy_above,
            ahead=self._ahead(),
        )

    def _ahead(self) -> list[str] | None:
        """Names that the units to come may use, in order; None where they may use any."""
        plan = self._plan
        old = plan.olds[self._place]
        changed = self._judge.changed(old.before) if old is not None else {}
        outlook = foresee(plan.units, plan.olds, plan.causes, changed=changed, begin=self._place)
        names: dict[str, None] = {}
        for place in sorted({self._place, *outlook.executing}):
            if place < self._place:
                continue
            for step in plan.units[place].steps:
                if step.needs is None:
                    return None
                names.update(dict.fromkeys(sorted(step.needs)))
        return list(names)

    def _first_generators(self) -> Mapping[str, Any]:
        """Where the generators of Python stood in the origin, as far as is known.

        Where nobody seeds them they begin anywhere; so they may begin where the origin's did, and
        a step that draws is no other step for that.
        """
        if self._chain or not self._plan.jobs:
            return {}
        first = self._judge.snapshot(Checkpoint.fold([self._plan.jobs[0].delta]))
        found = first.get("generators", {}).get("random")
        return {"random": found} if found is not None else {}

    # --- what the origin's journal tells -----------------------------------------------------

    def _known(self, action: actions.Ask) -> Any:
        number = self._plan.numbers.get(action.step.number)
        return self._plan.history.decided.get((number or 0, str(action.purpose), action.path))

    def _told(self, action: actions.Ask) -> actions.Told:
        known = self._known(action)
        if known is None:
            # of a step that failed, and the flow went on: it is not tried again
            return actions.Told(value=action.purpose is not Purpose.RETRY_IF)
        return actions.Told.of(known)

    def _ended(self, action: actions.Fire) -> actions.Ended:
        plan = self._plan
        number = plan.numbers.get(action.step.number, 0)
        job_id = plan.history.turns.get((number, action.path))
        if not action.path:
            job_id = plan.history.state(number).job_id if number else None
        if not job_id:
            return actions.Ended(ending="ok")
        job = plan.history.job_by_id(job_id)
        exited = job.error is not None and job.error.name == "SystemExit"
        if job.status in {StepStatus.SUCCESS, StepStatus.KEPT}:
            return actions.Ended(ending="ok", error=job.error, exited=exited)
        return actions.Ended(ending=ending_told(job.cause), error=job.error, cause=job.cause)


def deltas_here(
    judge: Judge,
    unit: Unit,
    old: OldUnit,
    ambient: Callable[[Checkpoint, Checkpoint, Checkpoint], ObjectRef | None],
) -> list[Delta]:
    """What each job of a kept unit leaves here.

    Args:
        judge: knows the namespace here.
        unit: what is kept.
        old: what the origin has of it.
        ambient: the ambient state after a job, of the namespace here, and of those before and
            after the job; None where it is the one that the job left there.
    """
    now, before, binds = judge.now, old.before, judge.binds(unit, old)
    found = []
    for place, job in enumerate(old.jobs):
        after = before.after(job.delta)
        bound = binds & after.variables.keys() if place == len(old.jobs) - 1 else ()
        state = ambient(now, before, after)
        delta = laid(now, before, job.delta, bound=bound, ambient=state)
        found.append(delta)
        now, before = now.after(delta), after
    return found


def files_changed(unit: Unit, jobs: Callable[[Step], Sequence[JobFinished]], folder: Path) -> str:
    """A file that a unit reads, or wrote, and that is another now, in words; "" where none is.

    Args:
        unit: the unit.
        jobs: the origin's jobs of a step.
        folder: the run's working directory.
    """
    for step in unit.steps:
        done = jobs(step)
        if not done:
            continue
        for globs, was, told in (
            (step.options.reads, done[-1].files, "reads"),
            (step.options.writes, done[-1].made, "wrote"),
        ):
            name = differing_file(was, globs, folder) if globs else ""
            if name:
                return f"{told} {name}"
    return ""


def differing_file(was: Mapping[str, str], globs: Sequence[str], folder: Path) -> str:
    """A file that is not as it was, in words; "" where all are."""
    now = file_digests(globs, folder)
    for path in sorted({**was, **now}):
        before, after = was.get(path, ""), now.get(path, "")
        if before == after:
            continue
        if not before:
            return f"file {path}, which is new"
        return f"file {path}, which {'changed' if after else 'is gone'}"
    return ""
