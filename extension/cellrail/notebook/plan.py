"""The planner: what happens to each step of a run or a restart, and why. Pure.

A restart keeps the steps before a cut and executes from the cut on. What a plan checks, in order:

1. every step before the cut ended well in the origin (this is never forced);
2. none of them is stale: edited, new, gone, moved, behind a changed local module, or a reader of a
   changed parameter (`force` keeps stale steps as they were, `widen` moves the cut to the first);
3. the namespace right before the cut can be put back;
4. names that cannot be stored and that an executed step can reach are rebuilt by the cells that
   made them, in order; lost ones refuse the cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from cellrail.errors import RestartRefused
from cellrail.notebook.address import find_step
from cellrail.notebook.fingerprint import is_blank
from cellrail.notebook.match import match
from cellrail.notebook.model import PARAMETERS, Flow, Step
from cellrail.notebook.reads import lineage
from cellrail_state.model import StepInfo, StepStatus, Variable, Verdict


class Fate(StrEnum):
    """What happens to a step."""

    KEPT = "kept"
    EXECUTES = "executes"
    #: an `--always` step before the cut
    RUNS_AGAIN = "runs again"
    #: kept, and its cell runs again for what cannot be stored
    REBUILDS = "rebuilds"
    PENDING = "pending"
    SKIPPED = "skipped"


class PlannedStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step's fate and the reason for it."""

    number: int
    label: str
    fate: Fate
    reason: str = ""
    #: seconds its last run took
    seconds: float | None = None
    #: the kept job
    job_id: str = ""
    #: names that its cell rebuilds
    names: tuple[str, ...] = ()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What would happen."""

    steps: tuple[PlannedStep, ...]
    #: label of the step the cut stands before; "" for a run from the start
    cut: str = ""
    #: why the restart is refused; empty where it is not
    refusals: tuple[str, ...] = ()
    #: label of the latest step that a restart could legally begin at; "" where there is none
    earliest: str = ""
    #: whether `force` would lift the refusals
    by_force: bool = False
    warnings: tuple[str, ...] = ()
    #: the origin's number of the step at the cut, where it has one
    origin_cut: int | None = None
    #: the namespace is the one of the origin's moment, not the end of the last kept step
    as_it_was: bool = False

    def lines(self) -> list[str]:
        """The plan for people."""
        width = max([len(step.label) for step in self.steps], default=0)
        lines = []
        for step in self.steps:
            took = f" ({step.seconds:.2f} s last time)" if step.seconds is not None else ""
            why = f": {step.reason}" if step.reason else ""
            lines.append(f"{step.label.ljust(width)}  {step.fate.value}{why}{took}")
        lines += [f"warning: {warning}" for warning in self.warnings]
        lines += [f"refused: {refusal}" for refusal in self.refusals]
        if self.refusals and self.hint:
            lines.append(self.hint)
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return {k: plain[k] for k in ("cut", "refusals", "earliest", "warnings", "steps")}

    @property
    def hint(self) -> str:
        """What would do instead of a refused cut."""
        if self.earliest:
            return f"a restart from {self.earliest!r} would do (or --widen)"
        return "--force cuts at that moment all the same" if self.by_force else ""

    def check(self) -> None:
        """Refuse what the plan refuses.

        Raises:
            RestartRefused: with every reason, and the cut that would do.
        """
        if self.refusals:
            raise RestartRefused("; ".join(self.refusals), hint=self.hint)


class OriginStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step as the origin left it."""

    info: StepInfo
    status: StepStatus
    accepted: bool = False
    cause: str = ""
    job_id: str = ""
    seconds: float | None = None
    #: names its job bound or changed
    written: tuple[str, ...] = ()
    #: why the namespace after it cannot be put back; "" where it can
    failure: str = ""
    #: place of its last execution in a live run; 0 elsewhere
    sequence: int = 0

    @property
    def number(self) -> int:
        """Its place among the code cells."""
        return self.info.number

    @property
    def name(self) -> str:
        """Its given name."""
        return self.info.name

    @property
    def cell_id(self) -> str:
        """Its cell's id."""
        return self.info.cell_id

    @property
    def source_hash(self) -> str:
        """Digest of its code."""
        return self.info.source_hash

    @property
    def ended_well(self) -> bool:
        """Whether a later step may be the cut."""
        good = {StepStatus.SUCCESS, StepStatus.KEPT, StepStatus.SKIPPED}
        return self.status in good or self.accepted


class RestartRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A restart as asked for."""

    cut: str | None = None
    to: str | None = None
    #: names of parameters with new values
    changed: tuple[str, ...] = ()
    force: bool = False
    widen: bool = False
    live: bool = False
    #: digests of the local modules each step imports today, by step number
    modules: dict[int, dict[str, str]] = {}
    #: packages whose versions differ, in words
    packages: tuple[str, ...] = ()


def plan_run(flow: Flow, *, to: str | None = None) -> Plan:
    """The plan of a run from the start.

    Raises:
        StepNotFound: there is no step `to`.
    """
    last = find_step(to, flow.steps).number if to is not None else None
    return Plan(steps=tuple(_fresh(step, last) for step in flow.steps))


def _fresh(step: Step, last: int | None) -> PlannedStep:
    if last is not None and step.number > last:
        return PlannedStep(number=step.number, label=step.label, fate=Fate.PENDING,
                           reason="after --to")  # fmt: skip
    if step.skips:
        return PlannedStep(number=step.number, label=step.label, fate=Fate.SKIPPED,
                           reason="tag skip-execution")  # fmt: skip
    return PlannedStep(number=step.number, label=step.label, fate=Fate.EXECUTES)


def plan_restart(
    flow: Flow,
    origin: Sequence[OriginStep],
    request: RestartRequest,
    *,
    variables_before: Callable[[int], Mapping[str, Variable]],
) -> Plan:
    """The plan of a restart.

    Args:
        flow: the notebook as it is now.
        origin: the origin's steps in order.
        request: what is asked for.
        variables_before: the variables of the origin right before a step, by its number there.

    Raises:
        StepNotFound: there is no such step.
        RestartRefused: everything succeeded and no cut is named.
    """
    return _Planner(flow, origin, request, variables_before).plan()


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
    planner = _Planner(flow, origin, RestartRequest(to=to), variables_before)
    place = next(place for place, step in enumerate(flow.steps) if step.number == cut)
    makers, refusals = planner.rebuilds(place)
    names = {flow.steps[p].number: tuple(sorted(found)) for p, found in makers.items()}
    return names, tuple(told for _, told in refusals)


class _Planner:
    def __init__(
        self,
        flow: Flow,
        origin: Sequence[OriginStep],
        request: RestartRequest,
        variables_before: Callable[[int], Mapping[str, Variable]],
    ) -> None:
        self.flow = flow
        self.steps = flow.steps
        self.origin = origin
        self.request = request
        self.variables_before = variables_before
        self.pairs: dict[int, OriginStep] = match(origin, flow.steps)
        self.reached = lineage(flow.steps)
        #: why kept steps are stale, where `--force` keeps them all the same
        self.forced: dict[int, str] = {}

    def plan(self) -> Plan:
        cut = self._asked_cut()
        while True:
            refusals, earliest = self._refusals(cut)
            if not refusals or not self.request.widen or earliest >= cut:
                break
            cut = earliest
        rebuilds = {} if refusals else self.rebuilds(cut)[0]
        # in a live run every cut may be refused, the first as well
        legal = bool(refusals) and not self._refusals(earliest)[0]
        if self.request.force:
            self.forced = {
                place: told.partition(": ")[2] or told for place, told in self._stale(cut)
            }
        label = self.steps[cut].label
        at_cut = self.pairs.get(self.steps[cut].number)
        return Plan(
            cut=label,
            steps=tuple(self._planned(place, cut, rebuilds) for place in range(len(self.steps))),
            refusals=tuple(refusals),
            earliest=self.steps[earliest].label if refusals and legal else "",
            by_force=self.request.live and not self._unfinished(cut),
            warnings=self.request.packages,
            origin_cut=at_cut.number if at_cut is not None else None,
            as_it_was=self.request.live or self.request.force,
        )

    # --- the cut -----------------------------------------------------------------------------

    def _asked_cut(self) -> int:
        if self.request.cut is not None:
            step = find_step(self.request.cut, self.steps)
            return self.steps.index(step)
        for place, step in enumerate(self.steps):
            old = self.pairs.get(step.number)
            if old is not None and not old.ended_well:
                return place
        # nothing failed: a notebook that goes on further than the origin did
        for place in range(len(self.steps)):
            if all(later.number not in self.pairs for later in self.steps[place:]):
                return place
        raise RestartRefused(
            "every step of the origin ended well, so there is nothing to repair",
            hint="name the step to restart from with --from",
        )

    def _refusals(self, cut: int) -> tuple[list[str], int]:
        """Why not to cut there, and the latest place before it where one could."""
        refusals: list[str] = []
        places: list[int] = []
        stale = [] if self.request.force else self._stale(cut)
        for place, reason in [*self._unfinished(cut), *stale]:
            refusals.append(reason)
            places.append(place)
        if not refusals:
            for place, reason in self._not_restorable(cut):
                refusals.append(reason)
                places.append(place)
        if not refusals:
            for place, reason in self.rebuilds(cut)[1]:
                refusals.append(reason)
                places.append(place)
        if not refusals:
            return [], cut
        earliest = min([*places, cut])
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
            old = self.pairs.get(step.number)
            if old is not None and not old.ended_well:
                cause = f" ({old.cause})" if old.cause else ""
                found.append((place, f"step {step.label!r} before the cut is {old.status}{cause}"))
        return found

    # --- staleness ---------------------------------------------------------------------------

    def _stale(self, cut: int) -> list[tuple[int, str]]:
        """Kept steps that are no longer what they were, with the reason."""
        found: list[tuple[int, str]] = []
        tainted: dict[str, str] = {name: f"parameter `{name}`" for name in self.request.changed}
        highest = -1
        for place, step in enumerate(self.steps[:cut]):
            old = self.pairs.get(step.number)
            reason = self._changed(step, old)
            if not reason and old is not None and old.number < highest:
                reason = "moved"
            highest = max(highest, old.number if old is not None else -1)
            if not reason and step.name != PARAMETERS:
                reason = self._reads_stale(place, tainted)
            if reason:
                found.append((place, f"step {step.label!r}: {reason}"))
                written = old.written if old is not None else tuple(step.writes)
                for name in written:
                    tainted.setdefault(name, f"step {step.label!r}")
            elif step.name == PARAMETERS:
                continue
            elif old is not None:
                # a later sound step that binds a name anew ends the taint
                for name in set(old.written) & set(tainted) - set(self.request.changed):
                    if name not in step.mutates:
                        del tainted[name]
        found += self._gone(cut)
        if self.request.live:
            found += self._out_of_order(cut)
        return found

    def _changed(self, step: Step, old: OriginStep | None) -> str:
        if old is None:
            return "" if step.skips or is_blank(step.body) else "new step"
        if old.source_hash != step.source_hash:
            return "source changed"
        today = self.request.modules.get(step.number, {})
        for module in sorted(set(today) | set(old.info.modules)):
            if today.get(module) != old.info.modules.get(module):
                return f"local module {module} changed"
        return ""

    def _reads_stale(self, place: int, tainted: Mapping[str, str]) -> str:
        if not tainted:
            return ""
        reached = self.reached[place]
        if reached is None:
            name, source = next(iter(tainted.items()))
            return f"may read anything, and {source} changed"
        for name in sorted(reached & set(tainted)):
            source = tainted[name]
            if source.startswith("parameter"):
                return f"{source} changed"
            return f"depends on `{name}` of {source}"
        return ""

    def _gone(self, cut: int) -> list[tuple[int, str]]:
        """Steps that ran before a kept one in the origin, and are not kept."""
        matched = {old.number for old in self.pairs.values()}
        kept = {
            self.pairs[step.number].number: place
            for place, step in enumerate(self.steps[:cut])
            if step.number in self.pairs
        }
        found = []
        for old in self.origin:
            if old.number in kept or not old.job_id:
                continue
            # a kept step that came after it was made on a namespace that it had touched
            after = [place for number, place in kept.items() if number > old.number]
            if after:
                told = "comes later now" if old.number in matched else "is absent from the notebook"
                found.append((min(after), f"step {old.info.label!r} {told}"))
        return found

    def _out_of_order(self, cut: int) -> list[tuple[int, str]]:
        at_cut = self.pairs.get(self.steps[cut].number)
        moment = at_cut.sequence if at_cut is not None and at_cut.sequence else float("inf")
        found = []
        highest = 0
        for place, step in enumerate(self.steps):
            old = self.pairs.get(step.number)
            if old is None or not old.sequence or place == cut:
                continue
            if place < cut and (old.sequence > moment or old.sequence < highest):
                found.append((place, f"step {step.label!r} was executed out of order"))
            elif place > cut and old.sequence < moment:
                found.append((cut, f"step {step.label!r} was executed before the cut"))
            highest = max(highest, old.sequence)
        return found

    # --- what can be put back ----------------------------------------------------------------

    def _not_restorable(self, cut: int) -> list[tuple[int, str]]:
        for place in range(cut - 1, -1, -1):
            old = self.pairs.get(self.steps[place].number)
            if old is None or not old.job_id:
                continue
            if old.failure:
                label = self.steps[place].label
                return [(place, f"there is no checkpoint after step {label!r}: {old.failure}")]
            return []
        return []

    def rebuilds(self, cut: int) -> tuple[dict[int, set[str]], list[tuple[int, str]]]:
        """Names to rebuild by place of the cell, and why the cut cannot be put back."""
        needed = self._needed(cut)
        variables = self._variables(cut)
        refusals: list[tuple[int, str]] = []
        wanted: set[str] = set()
        for name, variable in variables.items():
            if not name.isidentifier() or (needed is not None and name not in needed):
                continue
            if variable.verdict is Verdict.REBUILT:
                wanted.add(name)
            elif needed is None or self.request.force:
                continue
            elif variable.verdict is Verdict.LOST:
                place = self._binder(name, cut)
                told = f"`{name}` is lost: {variable.reason}"
                refusals.append((place if place is not None else 0, told))
        makers: dict[int, set[str]] = {}
        waiting = [(name, cut) for name in sorted(wanted)]
        seen: set[tuple[str, int]] = set()
        while waiting:
            name, until = waiting.pop()
            if (name, until) in seen:
                continue
            seen.add((name, until))
            places = self._makers(name, until)
            if not places:
                refusals.append((0, f"`{name}` cannot be stored, and no kept step made it"))
            for place in places:
                makers.setdefault(place, set()).add(name)
                waiting += [(other, place) for other in self._unstorable_reads(place)]
        return makers, refusals

    def _needed(self, cut: int) -> set[str] | None:
        """Names that a step to be executed can reach; None for any name."""
        last = self._last_place()
        needed: set[str] = set()
        again = [p for p in range(cut) if self.steps[p].options.always]
        for place in [*again, *range(cut, last + 1)]:
            reached = self.reached[place]
            if reached is None:
                return None
            needed |= reached
        return needed

    def _last_place(self) -> int:
        if self.request.to is None:
            return len(self.steps) - 1
        return self.steps.index(find_step(self.request.to, self.steps))

    def _variables(self, place: int) -> Mapping[str, Variable]:
        """The origin's variables right before a place of today's notebook."""
        for step in self.steps[place:]:
            if step.number in self.pairs:
                return self.variables_before(self.pairs[step.number].number)
        return self.variables_before(max((old.number for old in self.origin), default=0) + 1)

    def _binder(self, name: str, until: int) -> int | None:
        for place in range(until - 1, -1, -1):
            old = self.pairs.get(self.steps[place].number)
            if old is not None and name in old.written:
                return place
        return None

    def _makers(self, name: str, until: int) -> list[int]:
        """The cell that bound a name, and the later ones that may have changed its value."""
        binder = self._binder(name, until)
        if binder is None:
            return []
        # a name changed in place counts as written: go back to where it was bound
        while name not in self.steps[binder].writes:
            earlier = self._binder(name, binder)
            if earlier is None:
                break
            binder = earlier
        later = [
            place
            for place in range(binder + 1, until)
            if (reached := self.reached[place]) is None or name in reached
        ]
        return [binder, *later]

    def _unstorable_reads(self, place: int) -> Iterable[str]:
        reached = self.reached[place]
        return [
            name
            for name, variable in self._variables(place).items()
            if variable.verdict is Verdict.REBUILT
            and name.isidentifier()
            and (reached is None or name in reached)
        ]

    # --- fates -------------------------------------------------------------------------------

    def _planned(self, place: int, cut: int, rebuilds: Mapping[int, set[str]]) -> PlannedStep:
        step = self.steps[place]
        old = self.pairs.get(step.number)
        seconds = old.seconds if old is not None else None
        fate, reason, names = self._fate(place, cut, rebuilds)
        return PlannedStep(
            number=step.number,
            label=step.label,
            fate=fate,
            reason=reason,
            seconds=seconds,
            job_id=old.job_id if old is not None and place < cut else "",
            names=names,
        )

    def _fate(  # noqa: PLR0911 - a fate per line
        self, place: int, cut: int, rebuilds: Mapping[int, set[str]]
    ) -> tuple[Fate, str, tuple[str, ...]]:
        step = self.steps[place]
        if place > self._last_place():
            return Fate.PENDING, "after --to", ()
        if step.skips:
            return Fate.SKIPPED, "tag skip-execution", ()
        old = self.pairs.get(step.number)
        if place < cut and old is not None and old.status is StepStatus.SKIPPED:
            return Fate.SKIPPED, old.cause or "skipped in the origin", ()
        if place >= cut:
            return Fate.EXECUTES, self._why_executed(place, cut), ()
        if step.number not in self.pairs and is_blank(step.body):
            return Fate.SKIPPED, "new, and nothing to execute", ()
        if step.number not in self.pairs:
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
        step = self.steps[place]
        where = "at the cut" if place == cut else "after the cut"
        changed = self._changed(step, self.pairs.get(step.number))
        return f"{where}, {changed}" if changed else where
