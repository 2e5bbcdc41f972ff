"""From an origin and what changed to a rerun that can be carried out, or shown.

What changed is found (sources, options, local modules, parameters, packages, Python, files) or
named by selectors; then only the named changes and new parameters count, and what else is found
is a warning of the plan.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cellrail.errors import BadSelector, StepNotFound
from cellrail.notebook.address import find_step
from cellrail.notebook.blocks import blocks_of
from cellrail.notebook.changes import (
    Changes,
    Found,
    Selector,
    World,
    detect,
    select,
    told,
    why_changed,
)
from cellrail.notebook.control import ON_FAILURE
from cellrail.notebook.fingerprint import file_digests, local_modules
from cellrail.notebook.match import match
from cellrail.notebook.model import PARAMETERS, Flow, Step
from cellrail.notebook.plan import Fate, Plan, PlannedStep
from cellrail.notebook.spread import (
    Cause,
    Judge,
    OldUnit,
    Outlook,
    Unit,
    certain,
    foresee,
    moved_package,
    refusal,
    taint,
    units_of,
)
from cellrail.restarting import inputs_of
from cellrail.run.rerun import RerunPlan, deltas_here, files_changed
from cellrail.run.states import is_set_otherwise
from cellrail.versions import python_of, versions_of
from cellrail_state.errors import RunIsOwned
from cellrail_state.history import RunHistory
from cellrail_state.model import Checkpoint, JobFinished, StepInfo, StepStatus
from cellrail_state.sameness import Sameness
from cellrail_state.steps import StepState
from cellrail_state.store import Store
from cellrail_state.turns import job_address


class Rerunning(msgspec.Struct, frozen=True, kw_only=True):
    """A rerun, decided on."""

    plan: Plan
    rerun: RerunPlan
    #: numbers of the steps that were named, or read a variable that was
    forced: tuple[int, ...] = ()

    @property
    def history(self) -> RunHistory:
        """The origin."""
        return self.rerun.history


def plan_rerun_of(
    flow: Flow,
    history: RunHistory,
    store: Store,
    *,
    selectors: Sequence[Selector],
    parameters: Sequence[str],
    kernel: str,
    folder: Path,
) -> Rerunning:
    """Plan a rerun of a run with the notebook as it is now.

    Args:
        flow: the notebook.
        history: the origin, verified.
        store: where it lies.
        selectors: what was named as changed; none for everything that is found.
        parameters: names of parameters with other values than in the origin.
        kernel: the name of the kernel that would run it.
        folder: the working directory of the run to come.

    Raises:
        RunIsOwned: the origin is still running.
        BadSelector: a selector selects nothing.
    """
    if history.owned and not history.is_live:
        raise RunIsOwned(
            f"run {history.run_id} is still running",
            hint="wait for its end, or stop it (Ctrl-C where it runs) first",
        )
    planner = _Planner(flow, history, store, parameters=parameters, kernel=kernel, folder=folder)
    return planner.plan(selectors)


class _Planner:
    def __init__(
        self,
        flow: Flow,
        history: RunHistory,
        store: Store,
        *,
        parameters: Sequence[str],
        kernel: str,
        folder: Path,
    ) -> None:
        self.flow, self.history, self.store = flow, history, store
        self.parameters, self.kernel, self.folder = parameters, kernel, folder
        self.states = {state.info.number: state for state in history.states}
        infos = [state.info for state in self.states.values()]
        self.numbers = {new: info.number for new, info in match(infos, flow.steps).items()}
        last = self._last()
        self.steps = [
            step
            for step in flow.steps
            if not (step.skips or step.options.on_failure) and (last is None or step.number <= last)
        ]
        self.units = units_of(blocks_of(self.steps))
        #: addresses of kept jobs that other code made, by number of the step
        self._since: dict[int, str] = {}

    def _last(self) -> int | None:
        """The last step, where the origin was to go no further (`--to`)."""
        to = self.history.started.options.get("to")
        if not to:
            return None
        try:
            return find_step(str(to), self.flow.steps).number
        except StepNotFound:
            return None

    def plan(self, selectors: Sequence[Selector]) -> Rerunning:
        olds = _Olds(self).all()
        changes = self._changes(selectors, olds)
        causes = {
            place: cause
            for place, unit in enumerate(self.units)
            if (cause := certain(unit, olds[place], changes)) is not None
        }
        for place, why in self._other_variables(olds).items():
            if selectors:
                changes.left.append(f"step {self.units[place].label}: {why}")
            else:
                causes.setdefault(place, Cause(reason=why))
        kernels = self.history.kernels
        rerun = RerunPlan(
            history=self.history,
            units=self.units,
            olds=olds,
            causes=causes,
            judge=self._judge(changes),
            numbers=self.numbers,
            jobs=self.history.chain,
            inputs=lambda jobs: inputs_of(self.history, jobs),
            python=kernels[-1].python if kernels else "",
            folder=self.folder,
        )
        outlook = _preview(rerun, self._judge(changes))
        plan = self._told(outlook, olds, changes)
        return Rerunning(plan=plan, rerun=rerun, forced=self._forced(olds, causes, changes))

    def _other_variables(self, olds: Sequence[OldUnit | None]) -> dict[int, str]:
        """Units that have read a variable which somebody else has set to another value since."""
        jobs = (*self.history.jobs, *self.history.chain, *self.history.branches())
        # what these runs have set since they would have set after the step in this one, too
        own = {self.history.run_id, *(job.job_id.rpartition("/")[0] for job in jobs)}
        found: dict[int, str] = {}
        for place, old in enumerate(olds):
            told = old.told if old is not None else ()
            for written in (w for effects in told for w in effects.settings):
                if is_set_otherwise(written, self.store, own):
                    found.setdefault(place, f"reads the variable {written.path}, which is another")
        return found

    def _forced(
        self, olds: Sequence[OldUnit | None], causes: Mapping[int, Cause], changes: Changes
    ) -> tuple[int, ...]:
        """What a run that goes on has to know of what was named."""
        judge = self._judge(changes)
        forced: set[int] = set()
        for place, (unit, old) in enumerate(zip(self.units, olds, strict=True)):
            cause = causes.get(place)
            if cause is None and old is not None:
                cause = judge.reads_forced(unit, old)
            if cause is not None and cause.forced:
                forced.update(unit.numbers)
        return tuple(sorted(forced))

    def _judge(self, changes: Changes) -> Judge:
        sameness = Sameness(self.store.objects)
        known: dict[str, Mapping[str, Any]] = {}

        def snapshot(checkpoint: Checkpoint) -> Mapping[str, Any]:
            ref = checkpoint.ambient
            if ref is None:
                return {}
            if ref.digest not in known:
                known[ref.digest] = msgspec.json.decode(self.store.objects.get(ref))
            return known[ref.digest]

        judge = Judge(
            changes, same=sameness.same, same_definitions=sameness.same_definitions,
            snapshot=snapshot,
        )  # fmt: skip
        judge.parameters = frozenset(self.parameters)
        return judge

    # --- what changed ------------------------------------------------------------------------

    def _changes(self, selectors: Sequence[Selector], olds: Sequence[OldUnit | None]) -> Changes:
        steps = {step.number: step for step in self.flow.steps}
        infos = {new: self._info(old, steps[new]) for new, old in self.numbers.items()}
        python, packages = self._environment()
        found = detect(
            Found(
                flow=self.flow,
                pairs=infos,
                modules={
                    step.number: local_modules(step.imports, self.flow.module_folder)
                    for step in self.flow.steps
                    if step.imports
                },
                parameters=self.parameters,
                packages=packages,
                python=python,
            )
        )
        for number, since in self._since.items():
            if number in found.steps:
                found.steps[number] += f" since {since} was made"
        if not selectors:
            return found
        named = select(selectors, self._world())
        for selector in selectors:
            self._check_selects(selector, olds)
        given = detect(Found(flow=self.flow, pairs={}, parameters=self.parameters))
        for number, why in given.steps.items():
            named.steps.setdefault(number, why)
        # stored values of another Python could not be loaded
        named.everything = found.everything
        named.parameters, named.parameters_told = given.parameters, given.parameters_told
        named.left = [
            line
            for line in told(found, self.flow)
            if line not in told(named, self.flow) and not line.startswith(f"step {PARAMETERS}")
        ]
        return named

    def _check_selects(self, selector: Selector, olds: Sequence[OldUnit | None]) -> None:
        """Refuse what would have nothing executed.

        Raises:
            BadSelector: no step reads what was named.
        """
        changes = select([selector], self._world())
        judge = self._judge(changes)
        judge.parameters = frozenset()
        for unit, old in zip(self.units, olds, strict=True):
            if changes.forced_steps.intersection(unit.numbers):
                return
            if unit.skips:
                continue
            if old is None:  # a new step executes anyhow: does it read it?
                if moved_package(unit, changes) or unit.reach is None:
                    return
                if changes.forced_names & unit.reach:
                    return
                continue
            judge.now = old.before
            if moved_package(unit, changes) or judge.why(unit, old) is not None:
                return
        raise BadSelector(
            f"--changed {selector}: no step reads it, so nothing would execute",
            hint="name the step that shall execute: --changed step:NAME",
        )

    def _info(self, number: int, step: Step) -> StepInfo:
        """The step as the origin has it; where a job was kept that other code made, as it was."""
        state = self.states[number]
        info = state.info
        if state.job is not None and state.job.modules:  # a cell of the run wrote them
            info = msgspec.structs.replace(info, modules=state.job.modules)
        turns = self.history.turns_of(number)
        jobs = turns or ([((), state.job)] if state.job is not None else [])
        for path, job in jobs:
            made = self.history.made_with(number, job)
            old = msgspec.structs.replace(info, source_hash=made.source_hash, options=made.options)
            if why_changed(step, old) and not why_changed(step, info):
                self._since[step.number] = job_address(step.label, path)
                return old
        return info

    def _environment(self) -> tuple[tuple[str, str], dict[str, tuple[str, str]]]:
        """Python in the origin and now; packages whose versions differ."""
        was = self.history.packages
        executable = python_of(self.kernel)
        python, now = versions_of(was, executable, self.flow.path.parent)
        kernels = self.history.kernels
        before = kernels[-1].python if kernels else ""
        differing = {
            name: (version, now[name])
            for name, version in was.items()
            if name in now and now[name] != version
        }
        return (before, python), differing

    def _world(self) -> World:
        files: list[tuple[str, int]] = []
        for step in self.flow.steps:
            paths = set(file_digests(step.options.reads, self.folder))
            state = self.states.get(self.numbers.get(step.number, -1))
            if state is not None and state.job is not None:
                paths |= set(state.job.files)
            files += [(path, step.number) for path in sorted(paths)]
        names = {n for job in self.history.chain for n in job.delta.variables}
        return World(
            flow=self.flow,
            variables=frozenset(names),
            packages=frozenset(self.history.packages),
            files=tuple(files),
        )

    # --- the plan ----------------------------------------------------------------------------

    def _told(self, outlook: Outlook, olds: Sequence[OldUnit | None], changes: Changes) -> Plan:
        places = {number: place for place, unit in enumerate(self.units) for number in unit.numbers}
        steps = []
        for step in self.flow.steps:
            place = places.get(step.number)
            fate, reason = self._fate(step, place, outlook, olds)
            state = self.states.get(self.numbers.get(step.number, -1))
            job = state.job if state is not None else None
            steps.append(
                PlannedStep(
                    number=step.number,
                    label=step.label,
                    fate=fate,
                    reason=reason,
                    seconds=self.history.seconds_of(state.info.number)
                    if state is not None and job is not None
                    else None,
                    within=step.options.in_,
                    job_id=job.job_id if job is not None and fate is Fate.KEPT else "",
                )
            )
        left = [f"{line} (not among --changed: as it was)" for line in changes.left]
        refused = [
            told
            for place, unit in enumerate(self.units)
            if (told := refusal(unit, olds[place], outlook.causes.get(place)))
        ]
        return Plan(steps=tuple(steps), warnings=tuple(left), refusals=tuple(refused))

    def _fate(
        self, step: Step, place: int | None, outlook: Outlook, olds: Sequence[OldUnit | None]
    ) -> tuple[Fate, str]:
        if place is None:
            if step.options.on_failure:
                return Fate.SKIPPED, ON_FAILURE
            skips = step.skips
            return (Fate.SKIPPED, "tag skip-execution") if skips else (Fate.PENDING, "after --to")
        if place in outlook.causes:
            return Fate.EXECUTES, outlook.causes[place].reason
        if place in outlook.may:
            return Fate.MAY_EXECUTE, outlook.may[place]
        if olds[place] is None:
            return Fate.SKIPPED, "new, and nothing to execute"
        state = self.states[self.numbers[step.number]]
        skipped = state.status is StepStatus.SKIPPED
        return (Fate.SKIPPED, state.cause) if skipped else (Fate.KEPT, "unchanged")


def _preview(rerun: RerunPlan, judge: Judge) -> Outlook:
    """What would happen, as far as it is known before anything executes.

    Units that execute are taken to leave what they left, and their names to be in doubt.
    """
    doubtful: dict[str, str] = {}
    causes, may = dict(rerun.causes), dict[int, str]()
    for place, (unit, old) in enumerate(zip(rerun.units, rerun.olds, strict=True)):
        cause = causes.get(place)
        if cause is None and old is not None:
            files = files_changed(unit, rerun.jobs_of, rerun.folder)
            cause = Cause(reason=files) if files else judge.why(unit, old)
            if cause is not None:
                causes[place] = cause
        if cause is None:
            found = foresee([unit], [old], {}, changed=doubtful).may.get(0)
            if found:
                may[place] = found
        _pass(unit, old, cause, judge, doubtful, executes=cause is not None or place in may)
    outlook = foresee(rerun.units, rerun.olds, causes, changed={})
    return msgspec.structs.replace(outlook, may=may)


def _pass(
    unit: Unit,
    old: OldUnit | None,
    cause: Cause | None,
    judge: Judge,
    doubtful: dict[str, str],
    *,
    executes: bool,
) -> None:
    """What is known of the namespace behind a unit."""
    written = unit.touches | (old.written if old is not None else frozenset())
    if old is not None:
        for delta in deltas_here(judge, unit, old, lambda *_: None):
            judge.now = judge.now.after(delta)
    judge.strange -= written
    if not executes:
        for name in unit.binds | (written - (unit.reach or frozenset())):
            doubtful.pop(name, None)
    elif cause is not None and cause.names is not None:
        judge.strange |= cause.names
    elif cause is None or not cause.again:
        taint(doubtful, unit, old)


class _Olds:
    """What the origin has of each unit."""

    def __init__(self, planner: _Planner) -> None:
        self.planner, self.history = planner, planner.history
        self.chain = self.history.chain
        self.numbers = self._numbers()
        self.folds = [Checkpoint()]
        for job in self.chain:
            self.folds.append(self.folds[-1].after(job.delta))

    def _numbers(self) -> dict[str, int]:
        """The step of each job."""
        found = {state.job_id: number for number, state in self.planner.states.items()}
        found |= {job_id: number for (number, _), job_id in self.history.turns.items()}
        found |= {job_id: number for (number, _), job_id in self.history.forks.items()}
        return found

    def all(self) -> list[OldUnit | None]:
        """One for each unit; None where it is new."""
        places: dict[int, list[int]] = {}
        labels = {state.info.label: number for number, state in self.planner.states.items()}
        for place, job in enumerate(self.chain):
            number = self.numbers.get(job.lays or job.job_id, self.numbers.get(job.follows))
            if number is None and job.forks:  # a restart among its items has begun behind it
                number = labels.get(job.forks)
            if number is not None:
                places.setdefault(number, []).append(place)
        return [self._old(unit, places) for unit in self.planner.units]

    def _old(self, unit: Unit, places: Mapping[int, Collection[int]]) -> OldUnit | None:
        numbers = [self.planner.numbers.get(number) for number in unit.numbers]
        known = [number for number in numbers if number is not None]
        if not known:
            return None
        states = [self.planner.states[number] for number in known]
        if len(known) < len(numbers):
            return self._lost(states, "a step of the loop is new")
        mine = sorted(place for number in known for place in places.get(number, ()))
        lost = self._why_lost(states, mine)
        if lost:
            return self._lost(states, lost)
        decided = tuple(d for d in self.history.decided.values() if d.step in known)
        if not mine:
            earlier = [p for n, found in places.items() if n < known[0] for p in found]
            fold = self.folds[max(earlier, default=-1) + 1]
            skipped = states[0].status is StepStatus.SKIPPED
            return OldUnit(before=fold, after=fold, skipped=skipped, decided=decided)
        jobs = tuple(self.chain[mine[0] : mine[-1] + 1])
        return OldUnit(
            jobs=jobs, branches=tuple(self.history.branches(known)), decided=decided,
            before=self.folds[mine[0]], after=self.folds[mine[-1] + 1],
        )  # fmt: skip

    def _lost(self, states: Sequence[StepState], why: str) -> OldUnit:
        jobs = tuple(state.job for state in states if state.job is not None)
        return OldUnit(jobs=jobs, lost=why)

    def _why_lost(self, states: Sequence[StepState], mine: Sequence[int]) -> str:
        """Why the unit cannot be kept."""
        good = {StepStatus.SUCCESS, StepStatus.KEPT, StepStatus.SKIPPED}
        for state in states:
            if state.status not in good and not state.accepted:
                if state.status is StepStatus.PENDING:
                    return "it did not run in the origin"
                return f"it {state.status} in the origin" + f" ({state.cause})" * bool(state.cause)
        if mine and mine[-1] - mine[0] + 1 != len(mine):
            return "its jobs do not stand together in the origin"
        if not mine:
            if all(state.status is StepStatus.SKIPPED for state in states):
                return ""
            return "the origin has no checkpoint of it"
        return self._not_there(states, [self.chain[place] for place in mine])

    def _not_there(self, states: Sequence[StepState], jobs: Sequence[JobFinished]) -> str:
        failure = next((job.delta.failure for job in jobs if job.delta.failure), "")
        failure = failure or self.history.restorable_after(states[-1].info.number)
        if failure and any(state.job is not None for state in states[-1:]):
            return f"there is no checkpoint after it: {failure}"
        contains = self.planner.store.objects.contains
        for job in jobs:
            for component in job.delta.components.values():
                if not all(map(contains, component.refs())):
                    names = ", ".join(component.variables)
                    return f"the stored value of {names or 'its definitions'} is missing"
        return ""
