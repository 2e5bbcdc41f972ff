"""The planner: what happens to each step of a run or a restart, and why. Pure.

A restart keeps the steps before a cut and executes from the cut on. What a plan checks, in order:

1. every step before the cut ended well in the origin (this is never forced);
2. none of them is stale: edited, new, gone, moved, behind a changed local module, or a reader of a
   changed parameter (`staleness`; `force` keeps stale steps as they were, `widen` moves the cut to
   the first);
3. the namespace right before the cut can be put back;
4. names that cannot be stored and that an executed step can reach are rebuilt by the cells that
   made them, in order; lost ones refuse the cut (`rebuilding`).

Steps with `--on-failure` are no part of all this: they leave nothing to later ones. The same holds
for cells of `%flow` lines where the origin is a live run, which has not recorded them.

`origin` has what is compared, `plan` what comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from cellrail.errors import RestartRefused, StepNotFound
from cellrail.notebook.address import find_step
from cellrail.notebook.control import ON_FAILURE
from cellrail.notebook.fingerprint import is_blank
from cellrail.notebook.model import PARAMETERS, Flow, Step, handles_failures
from cellrail.notebook.options import duration_told
from cellrail.notebook.origin import OriginStep, RestartRequest, SideBySide
from cellrail.notebook.plan import Fate, Plan, PlannedStep
from cellrail.notebook.rebuilding import Lost, Rebuilding
from cellrail.notebook.staleness import changed, stale
from cellrail.step_line import only_looks
from cellrail_state.model import StepStatus, Variable

#: why a live run's restart leaves a cell of `%flow` lines out
_ABOUT_FLOW = "%flow lines only: about the flow, no part of it"


def plan_run(flow: Flow, *, to: str | None = None) -> Plan:
    """The plan of a run from the start.

    Raises:
        StepNotFound: there is no step `to`.
    """
    last = _planned_step(flow, to).number if to is not None else None
    return Plan(steps=tuple(_fresh(step, last) for step in flow.steps))


def _on_failure(step: Step) -> PlannedStep:
    return PlannedStep(number=step.number, label=step.label, fate=Fate.SKIPPED, reason=ON_FAILURE)


def _with_others(flow: Flow, planned: Sequence[PlannedStep]) -> tuple[PlannedStep, ...]:
    """The planned steps, and between them those that are not planned."""
    known = {step.number: step for step in planned}
    return tuple(known.get(step.number) or _other(step) for step in flow.steps)


def _other(step: Step) -> PlannedStep:
    if step.options.on_failure:
        return _on_failure(step)
    return PlannedStep(number=step.number, label=step.label, fate=Fate.SKIPPED, reason=_ABOUT_FLOW)


def _fresh(step: Step, last: int | None) -> PlannedStep:
    if step.options.on_failure:
        return _on_failure(step)
    if last is not None and step.number > last:
        return PlannedStep(number=step.number, label=step.label, fate=Fate.PENDING,
                           reason="after --to")  # fmt: skip
    if step.skips:
        return PlannedStep(number=step.number, label=step.label, fate=Fate.SKIPPED,
                           reason="tag skip-execution")  # fmt: skip
    return PlannedStep(
        number=step.number, label=step.label, fate=Fate.EXECUTES, reason=_unless_cached(step)
    )


def _planned_step(flow: Flow, address: str) -> Step:
    """The step at an address that a plan can begin or end with.

    Raises:
        StepNotFound: there is none, or it runs on failures only.
    """
    step = find_step(address, flow.steps)
    if step.options.on_failure:
        raise StepNotFound(
            f"step {step.label!r} has --on-failure: {ON_FAILURE}, and no run begins or ends there",
            hint="name a step of the flow itself",
        )
    return step


def _unless_cached(step: Step) -> str:
    """That an equal job may be kept instead: which one is told when the step's turn comes."""
    if not step.options.cache:
        return ""
    return f"unless an equal job of the last {duration_told(step.options.cache)} is kept (--cache)"


def plan_restart(
    flow: Flow,
    origin: Sequence[OriginStep],
    request: RestartRequest,
    *,
    variables_before: Callable[[int], Mapping[str, Variable]],
    made_before: Callable[[int], Collection[str]],
) -> Plan:
    """The plan of a restart.

    Args:
        flow: the notebook as it is now.
        origin: the origin's steps in order.
        request: what is asked for.
        variables_before: the variables of the origin right before a step, by its number there.
        made_before: ids of the jobs that made the namespace there.

    Raises:
        StepNotFound: there is no such step.
        RestartRefused: everything succeeded and no cut is named.
    """
    for address in (request.cut, request.to):
        if address is not None:
            step = _planned_step(flow, address)
            if request.live and step.only_looks:
                raise StepNotFound(
                    f"cell {step.label!r} holds %flow lines: it is no step of a live run",
                    hint="name the cell above or below it",
                )
    both = of_the_chain(flow, origin, request, made_before)
    plan = Planner(both, Rebuilding(both, variables_before)).plan()
    return msgspec.structs.replace(plan, steps=_with_others(flow, plan.steps))


def of_the_chain(
    flow: Flow,
    origin: Sequence[OriginStep],
    request: RestartRequest,
    made_before: Callable[[int], Collection[str]] = lambda _: (),
) -> SideBySide:
    """Today's steps beside the origin's, without those that run on failures only."""
    return SideBySide.of(
        [s for s in flow.steps if not (s.options.on_failure or (request.live and s.only_looks))],
        [
            s
            for s in origin
            if not (handles_failures(s.info) or (request.live and only_looks(s.info.source)))
        ],
        request,
        made_before,
    )


def plan_rebuilds(
    flow: Flow,
    origin: Sequence[OriginStep],
    cut: int,
    *,
    to: str | None,
    variables_before: Callable[[int], Mapping[str, Variable]],
) -> tuple[dict[int, tuple[str, ...]], tuple[str, ...]]:
    """What has to be made again before a step, and why that cannot be.

    Args:
        flow: the notebook.
        origin: its steps as they are in the run.
        cut: the step's number.
        to: the last step to execute.
        variables_before: the run's variables right before a step, by its number.

    Returns:
        The names to rebuild by number of the step that makes them, and refusals.
    """
    both = of_the_chain(flow, origin, RestartRequest(to=to))
    place = next(place for place, step in enumerate(both.steps) if step.number == cut)
    found = Rebuilding(both, variables_before).rebuilds(place)
    names = {both.steps[p].number: tuple(sorted(made)) for p, made in found.makers.items()}
    return names, tuple(dict.fromkeys(told.told for told in found.lost))


class Planner:
    """Plans one cut of a notebook beside its origin."""

    def __init__(self, both: SideBySide, rebuilding: Rebuilding) -> None:
        """Know both, and what can be made again."""
        self.both = both
        self.steps = both.steps
        self.request = both.request
        self.rebuilding = rebuilding
        #: why kept steps are stale, where `--force` keeps them all the same
        self.forced: dict[int, str] = {}

    def plan(self) -> Plan:
        """What becomes of each step, and why it cannot be."""
        cut = self._asked_cut()
        while True:
            refusals, earliest = self._refusals(cut)
            if not refusals or not self.request.widen or earliest >= cut:
                break
            cut = earliest
        rebuilds = {} if refusals else self.rebuilding.rebuilds(cut).makers
        # in a live run every cut may be refused, the first as well
        legal = bool(refusals) and not self._refusals(earliest)[0]
        if self.request.force:
            self.forced = {
                place: told.partition(": ")[2] or told for place, told in stale(self.both, cut)
            }
        label = self.steps[cut].label
        at_cut = self.both.old(cut)
        return Plan(
            cut=label,
            steps=tuple(self.planned(place, cut, rebuilds) for place in range(len(self.steps))),
            refusals=tuple(refusals),
            earliest=self.steps[earliest].label if refusals and legal else "",
            by_force=self.request.live and not self._unfinished(cut),
            warnings=self.request.packages,
            origin_cut=at_cut.number if at_cut is not None else None,
            as_it_was=self.request.live or self.request.force,
        )

    def beside(
        self, cut: int, *, bound: Collection[str] = (), needed: frozenset[str] | None = None
    ) -> tuple[list[PlannedStep], tuple[Lost, ...]]:
        """The cells before the cut that a further kernel runs again, and what it cannot have."""
        rebuilds = self.rebuilding.rebuilds(cut, bound=bound, needed=needed)
        planned = [self.planned(place, cut, rebuilds.makers) for place in range(cut)]
        again = [step for step in planned if step.fate in {Fate.RUNS_AGAIN, Fate.REBUILDS}]
        return again, rebuilds.lost

    # --- the cut -----------------------------------------------------------------------------

    def _asked_cut(self) -> int:
        if self.request.cut is not None:
            step = find_step(self.request.cut, self.steps)
            return self.steps.index(step)
        return self._loop_of(self._where_it_failed())

    def _loop_of(self, place: int) -> int:
        """The place of the outermost loop of a step; the step's own where it lies in none."""
        named = {step.name: place for place, step in enumerate(self.steps) if step.name}
        while around := self.steps[place].options.in_:
            place = named[around]
        return place

    def _where_it_failed(self) -> int:
        for place in range(len(self.steps)):
            old = self.both.old(place)
            if old is not None and not old.ended_well and not self._is_passed(self.steps[place]):
                return place
        # nothing failed: a notebook that goes on further than the origin did
        for place in range(len(self.steps)):
            if all(later.number not in self.both.pairs for later in self.steps[place:]):
                return place
        found = {old.number for old in self.both.pairs.values()}
        gone = (old for old in self.both.origin if old.number not in found and not old.ended_well)
        why = "every step of the origin ended well, so there is nothing to repair"
        if first := next(gone, None):
            label = first.info.label
            why = f"step {label!r}, which did not end well, is not in this notebook any more"
        raise RestartRefused(why, hint="name the step to restart from with --from")

    def _refusals(self, cut: int) -> tuple[list[str], int]:
        """Why not to cut there, and the latest place before it where one could."""
        refusals: list[str] = []
        places: list[int] = []
        outdated = [] if self.request.force else stale(self.both, cut)
        for place, reason in [*self._unfinished(cut), *outdated]:
            refusals.append(reason)
            places.append(place)
        if not refusals:
            for place, reason in self.rebuilding.not_restorable(cut):
                refusals.append(reason)
                places.append(place)
        if not refusals:
            lost = self.rebuilding.rebuilds(cut).lost
            refusals += dict.fromkeys(told.told for told in lost)
            places += [told.place for told in lost]
        if not refusals:
            return [], cut
        earliest = min([*places, cut])
        # a loop is cut whole: alone, a step of it would run once, on what the last item left
        earliest = self._loop_of(earliest)
        # what would do must itself be legal
        while 0 < earliest < cut:
            further, earlier = self._refusals(earliest)
            if not further or earlier >= earliest:
                break
            earliest = earlier
        return refusals, earliest

    def _unfinished(self, cut: int) -> list[tuple[int, str]]:
        found = []
        for place, step in enumerate(self.steps[:cut]):
            old = self.both.old(place)
            if old is not None and not old.ended_well and not self._is_passed(step):
                cause = f" ({old.cause})" if old.cause else ""
                found.append((place, f"step {step.label!r} before the cut is {old.status}{cause}"))
        return found

    def _is_passed(self, step: Step) -> bool:
        """Whether a loop around a step ended well all the same: no turn may have come to it."""
        around = self.rebuilding.loops(step)[1:]
        olds = [self.both.old(self.steps.index(loop)) for loop in around]
        return any(old is not None and old.ended_well for old in olds)

    # --- fates -------------------------------------------------------------------------------

    def planned(self, place: int, cut: int, rebuilds: Mapping[int, set[str]]) -> PlannedStep:
        """What becomes of a step, by its place and that of the cut."""
        step = self.steps[place]
        old = self.both.old(place)
        seconds = old.seconds if old is not None else None
        fate, reason, names = self._fate(place, cut, rebuilds)
        return PlannedStep(
            number=step.number,
            label=step.label,
            fate=fate,
            reason=reason,
            seconds=seconds,
            within=step.options.in_,
            job_id=old.job_id if old is not None and place < cut else "",
            names=names,
        )

    def _fate(  # noqa: PLR0911 - a fate per line
        self, place: int, cut: int, rebuilds: Mapping[int, set[str]]
    ) -> tuple[Fate, str, tuple[str, ...]]:
        step = self.steps[place]
        if place > self.both.last_place():
            return Fate.PENDING, "after --to", ()
        if step.skips:
            return Fate.SKIPPED, "tag skip-execution", ()
        old = self.both.old(place)
        if place < cut and old is not None and old.status is StepStatus.SKIPPED:
            return Fate.SKIPPED, old.cause or "skipped in the origin", ()
        if place >= cut:
            return Fate.EXECUTES, self._why_executed(place, cut), ()
        if old is None and is_blank(step.body):
            return Fate.SKIPPED, "new, and nothing to execute", ()
        if old is None:
            return Fate.SKIPPED, "new step before the cut, left out (--force)", ()
        if step.options.always:
            return Fate.RUNS_AGAIN, "--always", ()
        if place in rebuilds:
            names = tuple(sorted(rebuilds[place]))
            return Fate.REBUILDS, f"{', '.join(names)} cannot be stored", names
        if step.name == PARAMETERS and self.request.changed:
            return Fate.KEPT, f"{', '.join(self.request.changed)} assigned anew", ()
        if place in self.forced:
            return Fate.KEPT, f"as it was (--force), though {self.forced[place]}", ()
        return Fate.KEPT, "", ()

    def _why_executed(self, place: int, cut: int) -> str:
        where = "at the cut" if place == cut else "after the cut"
        how = changed(self.both, place) or (
            _unless_cached(self.steps[place]) if place != cut else ""
        )
        return f"{where}, {how}" if how else where
