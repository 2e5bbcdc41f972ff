"""From a run without an owner to what is left of it.

The control machine is conducted through the run's journal until the journal ends: there the run
goes on. The namespace is that of all committed jobs; `--always` cells and cells that rebuild what
cannot be stored run first, as before a restart's cut.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from cellrail.errors import CellrailError, RecoverRefused
from cellrail.notebook import actions, control
from cellrail.notebook.address import find_step
from cellrail.notebook.blocks import Block, blocks_of
from cellrail.notebook.model import Flow, Step
from cellrail.notebook.options import NO_CHECKPOINT
from cellrail.notebook.origin import RestartRequest
from cellrail.notebook.parameters import from_json
from cellrail.notebook.plan import Fate, Plan, PlannedStep
from cellrail.notebook.planner import plan_rebuilds
from cellrail.notebook.underway import Going
from cellrail.restarting import inputs_of, numbers_of, plan_restart_of
from cellrail.run import prepare
from cellrail.run.again import segments_of
from cellrail.run.answers import Answers, where_it_ends
from cellrail.run.orders import loop_root
from cellrail.run.origins import origin_step
from cellrail.run.putback import PutBack
from cellrail.run.remaking import items_refused, remade, told_remade
from cellrail.run.replay import ItemPlan, Replay
from cellrail.run.session import branches_taken
from cellrail_state.history import RunHistory
from cellrail_state.model import (
    Checkpoint,
    JobFinished,
    Record,
    StepStatus,
    Variable,
    Verdict,
)
from cellrail_state.turns import job_address

#: a step of the run that is not executed again
_COMMITTED = "committed"


class Continuation(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of a run."""

    flow: Flow
    history: RunHistory
    #: the run that it was restarted from, where there is one still
    origin: RunHistory | None
    #: of the run as a whole, as it began
    whole: Plan
    #: what is still to happen, to each step
    plan: Plan
    #: nothing is left to execute
    done: bool
    #: the jobs whose deltas are the namespace
    jobs: tuple[JobFinished, ...]
    checkpoint: Checkpoint
    #: of a loop that it goes on with, the jobs that run again for what cannot be stored, by place
    remade: dict[int, PlannedStep] = {}
    #: it goes on with the items of a parallel loop
    in_items: bool = False
    #: why it cannot go on
    refusals: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse what cannot go on.

        Raises:
            RecoverRefused: with every reason, and the restart that would do.
        """
        if self.refusals:
            raise RecoverRefused("; ".join(self.refusals), hint=self._instead())

    def _instead(self) -> str:
        run_id, cut = self.history.run_id, self.plan.cut.partition("[")[0]
        try:
            found = plan_restart_of(
                self.flow, self.history, from_step=None if self.in_items else cut, to=None,
                changed=(), force=False, widen=False,
            ).plan  # fmt: skip
        except CellrailError:
            return f"make a new run of it: cellrail restart {run_id}"
        label = found.earliest if found.refusals else found.cut
        return f"make a new run of it: cellrail restart {run_id}" + (
            f" --from {shlex.quote(label)}" if label else ""
        )

    def answers(self, records: Sequence[Record], clock: Callable[[], float] = time.time) -> Answers:
        """The answers of its journal."""
        return _answers(self, records, clock)

    def replay(self) -> Replay | None:
        """Of a restart, what leads to its cut inside a loop."""
        return _replay(self.flow, self.history, self.origin)

    def putback(self, *, lazy_above: int | None, secrets: Mapping[str, Any]) -> PutBack | None:
        """How the namespace comes back; None where there is nothing to put back.

        Args:
            lazy_above: bytes; larger values may be put back when a cell needs them.
            secrets: the run's secrets, by parameter.
        """
        started = self.history.started
        if self.done or not self.jobs:
            return None
        parameters = next((s for s in self.flow.steps if s.label == "parameters"), None)
        return PutBack(
            segments=segments_of(self.plan.steps, self.jobs, self.history, self.remade),
            checkpoint=self.checkpoint,
            jobs=self.jobs,
            inputs=inputs_of(self.history, self.jobs),
            python=self.history.kernels[-1].python if self.history.kernels else "",
            force=bool(started.options.get("force")),
            assignment=_assignment(self.history, secrets),
            parameters_step=parameters.number if parameters is not None else 0,
            parameters_job=started.kept.get(parameters.number, "") if parameters else "",
            lazy_above=lazy_above,
            counted=max((job.execution_count or 0 for job in self.history.jobs), default=0),
        )


def plan_continuation(
    flow: Flow, history: RunHistory, origin: RunHistory | None, records: Sequence[Record]
) -> Continuation:
    """What is left of a run.

    Args:
        flow: its steps, from the notebook that it recorded.
        history: the run.
        origin: the run that it was restarted from.
        records: its journal.
    """
    jobs = tuple(history.chain)
    checkpoint = Checkpoint.fold(job.delta for job in jobs)
    whole = _whole(flow, history)
    found = Continuation(
        flow=flow, history=history, origin=origin, whole=whole, plan=whole, done=False,
        jobs=jobs, checkpoint=checkpoint,
    )  # fmt: skip
    answers = found.answers(records)
    machine = control.conduct(
        blocks(flow, whole), taken=branches_taken(flow, whole), apart=(answers.apart,)
    )
    at = where_it_ends(machine, answers)
    if isinstance(at, actions.End):
        plan = msgspec.structs.replace(whole, steps=_done(whole, history))
        return msgspec.structs.replace(found, plan=plan, done=True)
    # the machine stands before these items: that is where they are asked for
    items = answers.items(at) if isinstance(at, actions.Fork) else None
    return _Remaining(found, at, items or ()).planned()


def blocks(flow: Flow, plan: Plan) -> tuple[Block, ...]:
    """The blocks that a plan executes."""
    numbers = {p.number for p in plan.steps if p.fate is Fate.EXECUTES}
    return blocks_of([step for step in flow.steps if step.number in numbers])


def _answers(found: Continuation, records: Sequence[Record], clock: Callable[[], float]) -> Answers:
    stored = found.checkpoint.variables.values()
    return Answers(
        records,
        job=found.history.job_by_id,
        outputs=found.history.outputs,
        roots={v.name for v in stored if not v.name.isidentifier()},
        before=_replay(found.flow, found.history, found.origin),
        own=Replay(found.history, numbers={}, step=-1, turns=()),
        forced=frozenset(found.history.started.options.get("forced", ())),
        clock=clock,
    )


def _replay(flow: Flow, history: RunHistory, origin: RunHistory | None) -> Replay | None:
    cut = history.started.origin
    if cut is None or not cut.turns or origin is None:
        return None
    numbers = numbers_of(flow, origin.states)
    return Replay(
        origin, numbers=numbers, step=cut.step, turns=cut.turns, again=cut.again,
        apart=cut.turns[-1].loop if cut.apart else "", reeval=cut.reeval,
    )  # fmt: skip


def _assignment(history: RunHistory, secrets: Mapping[str, Any]) -> str:
    """Code that assigns a restart's changed parameters, where that was not done yet."""
    started = history.started
    changed = started.options.get("changed", ())
    if not changed or any(job.follows for job in history.jobs):
        return ""
    given = {name: from_json(started.parameters[name]) for name in changed}
    return prepare.assignments({name: secrets.get(name, value) for name, value in given.items()})


# --- the run as a whole ----------------------------------------------------------------------


def _whole(flow: Flow, history: RunHistory) -> Plan:
    """What its steps were to come to when the run began."""
    started = history.started
    to = started.options.get("to")
    last = find_step(to, flow.steps).number if to else None
    first = _first(flow, history)
    states = {state.info.number: state for state in history.states}
    steps = []
    for step in flow.steps:
        job_id = started.kept.get(step.number, "")
        fate, reason = Fate.EXECUTES, ""
        if step.options.on_failure:
            fate, reason = Fate.SKIPPED, control.ON_FAILURE
        elif last is not None and step.number > last:
            fate, reason = Fate.PENDING, "after --to"
        elif step.number < first and not job_id:
            state = states.get(step.number)
            fate, reason = Fate.SKIPPED, state.cause if state is not None else ""
        elif step.number < first:
            fate = Fate.RUNS_AGAIN if step.options.always else Fate.KEPT
        elif step.skips:
            fate, reason = Fate.SKIPPED, "tag skip-execution"
        planned = PlannedStep(
            number=step.number, label=step.label, fate=fate,
            reason=reason or "skipped in the origin" * (fate is Fate.SKIPPED),
            job_id=job_id if step.number < first else "",
        )  # fmt: skip
        steps.append(planned)
    return Plan(steps=tuple(steps))


def _first(flow: Flow, history: RunHistory) -> int:
    """Number of the first step that was not kept."""
    origin = history.started.origin
    if origin is None:
        return -1
    if origin.turns:
        return find_step(origin.turns[0].loop, flow.steps).number
    return origin.step


def _done(whole: Plan, history: RunHistory) -> tuple[PlannedStep, ...]:
    steps = []
    for planned in whole.steps:
        state = history.state(planned.number)
        told = planned
        if planned.fate is Fate.EXECUTES and state.status is StepStatus.SKIPPED:
            told = msgspec.structs.replace(planned, fate=Fate.SKIPPED, reason=state.cause)
        elif planned.fate is Fate.EXECUTES and state.job is not None:
            told = msgspec.structs.replace(planned, fate=Fate.KEPT, reason=_COMMITTED)
        elif planned.fate is Fate.EXECUTES:
            told = msgspec.structs.replace(planned, fate=Fate.PENDING, reason="the run has ended")
        elif planned.fate is Fate.RUNS_AGAIN:
            told = msgspec.structs.replace(planned, fate=Fate.KEPT)
        steps.append(told)
    return tuple(steps)


# --- what is left ----------------------------------------------------------------------------


class _Remaining:
    """What is still to happen to each step."""

    def __init__(self, found: Continuation, at: actions.Action, items: Sequence[ItemPlan]) -> None:
        self._found, self._at, self._items = found, at, items
        self._history, self._flow = found.history, found.flow
        self._places = {job.job_id for job in found.jobs}
        loop = at.path[0].loop if at.path else at.step.label
        #: number of the step, or of the outermost loop, that the journal ends in
        self._cut = find_step(loop, found.flow.steps).number
        self._address = job_address(at.step.label, at.path)
        #: where in a loop it goes on; None where it is in none
        self._going: Going | None = None
        if at.path or isinstance(at, actions.Leave):
            loops = tuple(turn.loop for turn in at.path)
            ends = isinstance(at, actions.Leave)
            self._going = Going(loops=loops, step=at.step.label, ends=ends)
        self._remade: dict[int, PlannedStep] = {}

    def planned(self) -> Continuation:
        """What is left, planned; with why it cannot be carried out."""
        to = self._history.started.options.get("to")
        origin = [origin_step(self._history, state) for state in self._history.states]
        names, refusals = plan_rebuilds(
            self._flow, origin, self._cut, to=to, variables_before=self._variables_before
        )
        if self._going is not None:
            self._remade, unmade = remade(
                self._flow, self._history, self._found.jobs, self._going,
                origin=origin, request=RestartRequest(to=to),
            )  # fmt: skip
            refusals = (*refusals, *unmade)
        steps = tuple(self._planned(p, names) for p in self._found.whole.steps)
        return msgspec.structs.replace(
            self._found,
            plan=Plan(steps=steps, cut=self._address),
            remade=self._remade,
            in_items=isinstance(self._at, actions.Fork),
            refusals=(
                *self._no_checkpoint(), *self._no_items(), *refusals, *self._items_refused()
            ),
        )  # fmt: skip

    def _items_refused(self) -> Iterable[str]:
        """Why items of the parallel loop that is under way cannot go on."""
        if not isinstance(self._at, actions.Fork):
            return ()
        return items_refused(self._flow, self._at, self._items, self._found.jobs).values()

    def _variables_before(self, number: int) -> Mapping[str, Variable]:
        # what a loop that is under way has made, its own turns make again
        if number >= self._cut and self._going is None:
            return self._found.checkpoint.variables
        return self._history.checkpoint_before(min(number, self._cut)).variables

    def _no_checkpoint(self) -> list[str]:
        jobs = self._found.jobs
        failure = jobs[-1].delta.failure if jobs else ""
        if not failure:
            return []
        label = self._history.state(jobs[-1].step).info.label
        why = "its line says --no-checkpoint" if failure == NO_CHECKPOINT else failure
        return [f"there is no checkpoint after {label!r}, the last step committed: {why}"]

    def _no_items(self) -> list[str]:
        refusals = []
        for depth, turn in enumerate(self._at.path):
            step = find_step(turn.loop, self._flow.steps)
            root = loop_root(step, self._at.path[:depth])
            variable = self._found.checkpoint.variables.get(root)
            if variable is not None and variable.verdict is not Verdict.STORED:
                refusals.append(f"the items of {step.label!r} cannot be stored: {variable.reason}")
        return refusals

    def _planned(self, planned: PlannedStep, names: Mapping[int, tuple[str, ...]]) -> PlannedStep:
        step = next(s for s in self._flow.steps if s.number == planned.number)
        state = self._history.state(planned.number)
        seconds = self._history.seconds_of(planned.number) if state.job is not None else None
        if planned.fate in {Fate.PENDING, Fate.SKIPPED}:
            return planned
        fate: Fate = planned.fate
        reason, job_id = planned.reason, self._job_id(step)
        if step.number >= self._cut:
            fate, reason, again = self._from_here_on(step, job_id)
            job_id = job_id if again else ""
        elif state.status is StepStatus.SKIPPED:
            fate, reason, job_id = Fate.SKIPPED, state.cause, ""
        elif step.options.always and job_id and not step.options.loops and not step.options.in_:
            fate, reason = Fate.RUNS_AGAIN, "--always"
        elif step.number in names:
            fate, reason = Fate.REBUILDS, f"{', '.join(names[step.number])} cannot be stored"
        elif planned.fate is Fate.EXECUTES:
            fate, reason = Fate.KEPT, _COMMITTED
        else:
            fate = Fate.KEPT
        if fate is Fate.EXECUTES:  # what is there of a loop that goes on is kept
            there = {*self._places, *self._history.turns.values()}
            seconds = self._history.seconds_of(planned.number, without=there)
        return msgspec.structs.replace(
            planned, fate=fate, reason=reason, seconds=seconds, job_id=job_id,
            names=names.get(step.number, ()) if fate is Fate.REBUILDS else (),
        )  # fmt: skip

    def _from_here_on(self, step: Step, job_id: str) -> tuple[Fate, str, bool]:
        path = self._at.path
        if step.number == self._cut:
            told = "interrupted" if not path else f"goes on at {self._address}"
            told += told_remade(self._remade)
            return Fate.EXECUTES, told, False
        if step.options.always and job_id and not step.options.loops and path:
            turns = self._history.job_by_id(job_id).turns
            if turns and turns == path[: len(turns)]:  # of the turn that goes on
                return Fate.RUNS_AGAIN, "--always", True
        return Fate.EXECUTES, "", False

    def _job_id(self, step: Step) -> str:
        """The job in the chain that stands for a step."""
        state = self._history.state(step.number)
        # an `--always` cell that was running again stood there before
        before = [job.job_id for job in self._found.jobs if job.step == step.number][-1:]
        known = (state.job_id, self._history.started.kept.get(step.number, ""), *before)
        return next((job_id for job_id in known if job_id in self._places), "")
