"""From an origin and an address to a restart that can be carried out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from cellrail.changed_inside import changes_inside
from cellrail.inside import InnerCut, inner_cut, keys_of, origin_number
from cellrail.notebook.actions import Path
from cellrail.notebook.address import find_step
from cellrail.notebook.fingerprint import local_modules
from cellrail.notebook.match import match
from cellrail.notebook.model import Flow, Step
from cellrail.notebook.origin import OriginStep, RestartRequest
from cellrail.notebook.plan import Fate, Plan, PlannedStep
from cellrail.notebook.planner import plan_restart
from cellrail.notebook.underway import Going
from cellrail.rehearsing import why_not_led
from cellrail.run.again import segments_of
from cellrail.run.eachs import inherited
from cellrail.run.folder import files_after
from cellrail.run.items_again import ItemsAgain, items_again
from cellrail.run.origins import origin_step
from cellrail.run.putback import PutBack
from cellrail.run.remaking import items_refused, remade, told_remade
from cellrail.run.replay import ItemPlan, Rehearsal, Replay
from cellrail_state.errors import ObjectMissing
from cellrail_state.history import RunHistory
from cellrail_state.model import Checkpoint, EachStored, JobFinished, ObjectRef, Origin, Turn
from cellrail_state.steps import StepState


class RestartPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A plan and the origin it keeps from."""

    plan: Plan
    history: RunHistory
    #: the chain of jobs before the cut
    jobs: tuple[JobFinished, ...]
    #: load values under another Python or another major of a package, too
    force: bool = False
    #: where the cut lies inside a loop
    inner: InnerCut | None = None
    #: the origin's number of each step of today's notebook
    numbers: dict[int, int] = {}
    #: of the loops that the cut lies in, the items that have to be evaluated again
    items: tuple[ItemsAgain, ...] = ()
    #: and the kept jobs that run again for what cannot be stored, by their places in the chain
    remade: dict[int, PlannedStep] = {}

    @property
    def chain(self) -> tuple[str, ...]:
        """Ids of the jobs that the new run starts on."""
        return tuple(job.job_id for job in self.jobs)

    @property
    def kept(self) -> dict[int, str]:
        """The jobs that stand for steps before the cut, by step."""
        return {step.number: step.job_id for step in self.plan.steps if step.job_id}

    @property
    def origin(self) -> Origin:
        """What the new run's first record tells of it."""
        first = [s.number for s in self.plan.steps if s.fate is Fate.EXECUTES]
        inner = self.inner
        return Origin(
            run_id=self.history.run_id,
            from_step=self.plan.cut,
            step=inner.step.number if inner is not None else min(first, default=0),
            turns=inner.turns if inner is not None else (),
            again=tuple(sorted(inner.again)) if inner is not None else (),
            apart=inner is not None and inner.sequential,
            reeval=inner is not None and inner.reeval,
        )

    @property
    def hash_seed(self) -> int | None:
        """The origin's seed of string hashes."""
        return self.history.started.hash_seed

    def keys_before(self, cut: InnerCut) -> tuple[str, ...]:
        """Keys of the items of the innermost loop of a cut, in the origin."""
        steps = [state.info for state in self.history.states]
        number = find_step(cut.turns[-1].loop, steps).number
        return keys_of(self.history, number, cut.turns[:-1])

    def replay(self, kind: type[Replay] = Replay) -> Replay | None:
        """What leads to a cut inside a loop."""
        if self.inner is None:
            return None
        return kind(
            self.history,
            numbers=self.numbers,
            step=self.inner.step.number,
            turns=self.inner.turns,
            again=self.inner.again,
            apart=self.inner.fork.step.label
            if self.inner.sequential and self.inner.fork is not None
            else "",
            reeval=self.inner.reeval,
        )

    def kept_items(self) -> dict[Path, tuple[JobFinished, ...]]:
        """Of a cut in a parallel loop, the kept jobs of each of its items."""
        inner, replay = self.inner, self.replay()
        if inner is None or inner.fork is None or inner.sequential or replay is None:
            return {}
        if self.plan.refusals:
            return {}
        plans = zip(inner.fork.items, replay.item_plans(inner.fork), strict=True)
        return {path: plan.jobs for path, plan in plans}

    def stored_in_cells(self, flow: Flow, changed: Sequence[str] = ()) -> list[EachStored]:
        """What `flow.each` has stored in the step at the cut, which goes on from there.

        Args:
            flow: the notebook as it is now.
            changed: parameters with other values.
        """
        return inherited(self.history, self.origin, flow, numbers=self.numbers, changed=changed)

    def putback(
        self, assignment: str, *, lazy_above: int | None = None, spread: str = ""
    ) -> PutBack:
        """How the namespace before the cut comes back.

        Args:
            assignment: code that assigns the changed parameters; "" where none changed.
            lazy_above: bytes; larger values may be put back when a cell needs them.
            spread: as `PutBack` takes it.
        """
        parameters = next((s for s in self.plan.steps if s.label == "parameters"), None)
        return PutBack(
            segments=segments_of(self.plan.steps, self.jobs, self.history, self.remade),
            checkpoint=Checkpoint.fold(job.delta for job in self.jobs),
            jobs=self.jobs,
            inputs=inputs_of(self.history, self.jobs),
            python=self.history.kernels[-1].python if self.history.kernels else "",
            force=self.force,
            assignment=assignment if self.jobs else "",
            parameters_step=parameters.number if parameters is not None else 0,
            parameters_job=parameters.job_id if parameters is not None else "",
            lazy_above=lazy_above,
            spread=spread,
            items=self.items,
        )


def check_objects(decided: RestartPlan, contains: Callable[[ObjectRef], bool]) -> None:
    """Refuse a restart whose checkpoint is not all there, before anything is started.

    Args:
        decided: the restart.
        contains: whether the store holds an object.

    Raises:
        ObjectMissing: names the object, its variables, and a step that still restarts.
    """
    needed = Checkpoint.fold(job.delta for job in decided.jobs).components
    labels = {state.info.number: state.info.label for state in decided.history.states}
    for job in decided.jobs:
        for component in job.delta.components.values():
            lost = [ref for ref in component.refs() if not contains(ref)]
            if lost and component.id in needed:
                names = ", ".join(component.variables or component.definitions)
                raise ObjectMissing(
                    f"the object {lost[0].digest} is missing; it holds {names}",
                    hint=f"a restart from {labels[job.step]!r} or an earlier step still works",
                )
    for name, file in files_after(decided.jobs).items():
        if file.ref is not None and not contains(file.ref):
            raise ObjectMissing(f"the object {file.ref.digest} is missing; it holds shared/{name}")


def plan_restart_of(
    flow: Flow,
    history: RunHistory,
    *,
    from_step: str | None,
    to: str | None,
    changed: Sequence[str],
    force: bool,
    widen: bool,
    failed_only: bool = False,
    reeval: bool = False,
) -> RestartPlan:
    """Plan a restart of a run with the notebook as it is now.

    Raises:
        RunIsOwned: the run is still running.
        StepNotFound: there is no such step.
    """
    from cellrail_state.errors import RunIsOwned

    # a live run has a moment for each of its steps: it need not have ended
    if history.owned and not history.is_live:
        raise RunIsOwned(
            f"run {history.run_id} is still running",
            hint="wait for its end, or stop it (Ctrl-C where it runs) first",
        )
    states = history.states
    cut = inner_cut(flow, history, from_step, failed_only=failed_only, reeval=reeval)
    inner = cut if isinstance(cut, InnerCut) else None
    request = RestartRequest(
        cut=inner.turns[0].loop if inner is not None else from_step if cut is None else str(cut),
        to=to,
        changed=tuple(changed),
        force=force,
        widen=widen,
        live=history.is_live,
        modules={
            step.number: local_modules(step.imports, flow.module_folder)
            for step in flow.steps
            if step.imports
        },
    )
    origin = [origin_step(history, state) for state in states]
    plan = plan_restart(
        flow,
        origin,
        request,
        variables_before=lambda number: history.checkpoint_before(number).variables,
        made_before=history.made_before,
    )
    jobs = _jobs(plan, history) if inner is None else _jobs_inside(history, inner)
    lost = [
        f"shared/{name} does not come back: {file.lost}"
        for name, file in sorted(files_after(jobs).items())
        if file.lost
    ]
    plan = msgspec.structs.replace(plan, warnings=(*plan.warnings, *lost))
    decided = RestartPlan(
        plan=plan, history=history, jobs=tuple(jobs), force=force, inner=inner,
        numbers=numbers_of(flow, states),
    )  # fmt: skip
    if inner is not None:
        changes = changes_inside(flow, history, inner, decided.numbers, changed)
        refused = changes.shape if force else (*changes.shape, *changes.stale)
        if not (refused or plan.refusals):
            refused = why_not_led(flow, plan, decided.replay(Rehearsal))
        items = _items_inside(decided, flow, inner)
        again, unmade = _remade(decided, flow, inner, origin, request)
        decided = msgspec.structs.replace(decided, items=tuple(items), remade=again)
        refused = (*refused, *(told.refusal for told in items if told.refusal), *unmade)
        earliest = inner.turns[0].loop if refused else ""
        if not (refused or plan.refusals):
            refused, earliest = _items_refused(decided, flow, inner, from_step)
        if refused and widen:
            return plan_restart_of(
                flow, history, from_step=earliest, to=to, changed=changed, force=force,
                widen=widen,
            )  # fmt: skip
        plan = decided.plan if refused else _told_inside(decided, inner)
        plan = msgspec.structs.replace(
            plan,
            refusals=(*plan.refusals, *refused),
            earliest=plan.earliest or earliest,
            warnings=(*plan.warnings, *changes.told),
        )
        decided = msgspec.structs.replace(decided, plan=plan)
        if refused:
            return decided
    return msgspec.structs.replace(decided, plan=_told_in_cells(decided, flow, changed))


def numbers_of(flow: Flow, states: Sequence[StepState]) -> dict[int, int]:
    """The origin's number of each step."""
    pairs = match([state.info for state in states], flow.steps)
    return {number: info.number for number, info in pairs.items()}


def _jobs_inside(history: RunHistory, cut: InnerCut) -> list[JobFinished]:
    """The chain of jobs that makes the namespace that the run's own kernel begins on."""
    fork = cut.fork
    if fork is None:
        return history.chain_before_turn(cut.number, cut.turns)
    if not cut.sequential:
        return history.chain_of_fork(origin_number(history, fork.step), fork.path)
    chain = history.chain
    label = fork.step.label
    last = max(n for n, job in enumerate(chain) if job.turns and job.turns[0].loop == label)
    return chain[: last + 1]


def _items_inside(decided: RestartPlan, flow: Flow, cut: InnerCut) -> list[ItemsAgain]:
    """The items of the loops that a cut lies in, where no checkpoint holds them."""
    loops: list[tuple[Step, Path, int | None]] = []
    depth = len(cut.turns) if cut.fork is None else len(cut.fork.path) + 1
    for place, turn in enumerate(cut.turns[:depth]):
        last = place == depth - 1
        if last and cut.reeval:
            continue
        step = find_step(turn.loop, flow.steps)
        begins = last and (cut.fork is not None or cut.step.number == step.number)
        loops.append((step, cut.turns[:place], None if begins else turn.index))
    return items_again(
        flow, decided.history, loops, jobs=decided.jobs, numbers=decided.numbers,
        checkpoint=Checkpoint.fold(job.delta for job in decided.jobs),
    )  # fmt: skip


def _remade(
    decided: RestartPlan,
    flow: Flow,
    cut: InnerCut,
    origin: Sequence[OriginStep],
    request: RestartRequest,
) -> tuple[dict[int, PlannedStep], tuple[str, ...]]:
    """The kept jobs of the outermost loop of a cut that run again, and why that cannot be."""
    step, path = (cut.step, cut.turns) if cut.fork is None else (cut.fork.step, cut.fork.path)
    if cut.sequential or not path:
        return {}, ()
    going = Going(loops=tuple(turn.loop for turn in path), step=step.label)
    return remade(
        flow, decided.history, decided.jobs, going, origin=origin, request=request,
        numbers=decided.numbers,
    )  # fmt: skip


def _items_refused(
    decided: RestartPlan, flow: Flow, cut: InnerCut, from_step: str | None
) -> tuple[tuple[str, ...], str]:
    """Why items of a parallel loop cannot go on, and the cut that would do."""
    replay = decided.replay()
    if cut.fork is None or replay is None:
        return (), ""
    refused = items_refused(flow, cut.fork, replay.item_plans(cut.fork), decided.jobs)
    if not refused:
        return (), ""
    item, depth = next(iter(refused)), len(cut.fork.path) + 1
    # from its beginning that item goes; with another one at the cut, or several, no such cut does
    alone = len(refused) == 1
    asked = from_step is None or item == "/".join(map(str, cut.turns[:depth]))
    return tuple(refused.values()), item if alone and asked else cut.turns[0].loop


def _told_inside(decided: RestartPlan, cut: InnerCut) -> Plan:
    """The plan of a restart inside a loop."""
    plan, jobs = decided.plan, decided.jobs
    refusals = list(plan.refusals)
    failure = jobs[-1].delta.failure if jobs else ""
    if failure:
        refusals.append(f"there is no checkpoint right before {cut.label!r}: {failure}")
    label, reason = cut.label, ""
    replay = decided.replay()
    stand = list(jobs)
    if cut.fork is not None and replay is not None:
        items = replay.item_plans(cut.fork)
        label, reason = cut.label, told_items(cut, items)
        stand += [job for item in items for job in item.jobs]
    else:
        kept = sum(bool(job.turns) for job in jobs)
        reason = f"goes on at {label}; {kept} of its jobs {'is' if kept == 1 else 'are'} kept"
    if cut.reeval and not _is_anew(cut):
        reason += "; its items are evaluated anew"
    reason += told_remade(decided.remade)
    steps = [
        msgspec.structs.replace(step, reason=reason) if step.label == cut.turns[0].loop else step
        for step in _without(decided, stand)
    ]
    return msgspec.structs.replace(plan, cut=label, steps=tuple(steps), refusals=tuple(refusals))


def _without(decided: RestartPlan, kept: Sequence[JobFinished]) -> list[PlannedStep]:
    """The steps of a plan; those that execute without the seconds of what is kept of them."""
    ids = {job_id for job in kept for job_id in (job.job_id, job.lays)}
    return [
        msgspec.structs.replace(
            step, seconds=decided.history.seconds_of(decided.numbers[step.number], without=ids)
        )
        if step.fate is Fate.EXECUTES and step.number in decided.numbers
        else step
        for step in decided.plan.steps
    ]


def _told_in_cells(decided: RestartPlan, flow: Flow, changed: Sequence[str]) -> Plan:
    """The plan, with where `flow.each` goes on in the step at the cut."""
    plan = decided.plan
    told: dict[int, str] = {}
    for stored in decided.stored_in_cells(flow, changed):
        if not stored.ended and not stored.path:
            of = f" of {stored.total}" if stored.total is not None else ""
            told[stored.step] = (
                f"flow.each({stored.name!r}) goes on behind item {stored.position}{of}"
            )
    steps = [
        msgspec.structs.replace(
            step, reason="; ".join(filter(None, (step.reason, told[step.number])))
        )
        if step.number in told
        else step
        for step in plan.steps
    ]
    return msgspec.structs.replace(plan, steps=tuple(steps))


def _is_anew(cut: InnerCut) -> bool:
    """Whether the items that are evaluated anew are those of the parallel loop."""
    return cut.reeval and cut.fork is not None and cut.fork.step.label == cut.turns[-1].loop


def told_items(cut: InnerCut, items: Sequence[ItemPlan], now: Sequence[str] | None = None) -> str:
    """What happens to the items of a loop, in words.

    Args:
        cut: lies in the loop.
        items: what is planned for the origin's items.
        now: keys of the items as they are now; None where they are the origin's, or not yet known.
    """
    fork = cut.fork
    if fork is None:
        return ""
    plans = {path[-1].key: (path[-1], item) for path, item in zip(fork.items, items, strict=True)}
    turns = [(turn, item) for turn, item in plans.values() if now is None or turn.key in now]
    told = [str(t) if i.replay is None else f"{t} (goes on)" for t, i in turns if not i.kept]
    kept = len(turns) - len(told)
    told += [str(Turn(fork.step.label, 0, key)) for key in now or () if key not in plans]
    more = f" and {len(told) - 10} more" if len(told) > 10 else ""
    listed = ", ".join(told[:10]) + more
    if not _is_anew(cut):
        return f"executes {listed or 'none'}; {kept} of {len(items)} items are kept"
    if now is None:
        listed = "new items" + (f" and {listed}" if listed else "")
        left = f"of the {len(items)} before, {kept} are kept if they are still there"
        return f"its items are evaluated anew; executes {listed}; {left}"
    told_kept = f"{kept} of {len(now)} items are kept"
    return f"its items are evaluated anew; executes {listed or 'none'}; {told_kept}"


def _jobs(plan: Plan, history: RunHistory) -> list[JobFinished]:
    """The chain of jobs that makes the namespace before the cut."""
    if plan.as_it_was and plan.origin_cut is not None:
        return history.chain_before(plan.origin_cut)
    return history.chain_through_jobs([step.job_id for step in plan.steps if step.job_id])


def inputs_of(history: RunHistory, jobs: Sequence[JobFinished]) -> dict[int, str]:
    """Sources by execution count, for `In`."""
    sources = {state.job_id: state.info.source for state in history.states}
    return {
        job.execution_count: job.source or sources.get(job.job_id, "")
        for job in jobs
        if job.execution_count is not None
    }
