"""How far changes spread: which steps of a rerun execute, and why. Pure.

The unit is a step, or a loop with the steps in it. A unit is kept if everything that it can read
is what it was right before it in the origin, else it executes; so a unit whose outputs come out
equal stops the spread. What it can read are the names of its code that it does not bind before it
uses them, with what functions and classes read in turn (`reads.lineage`).

Before a rerun begins only the first is known for certain (`certain`), the rest is what may follow
(`foresee`). While it goes on, `Judge` compares checkpoints: the namespace here with the one that
the origin's job found. It looks at, in order:

1. changes of the unit itself: forced, new, edited, moved from a loop, `--always`, files;
2. names that it reads, or may bind or change without certainty, and that differ;
3. names that its record shares a component with, definitions whose state differs;
4. ambient state: the working directory and the like for any unit, generators for those that drew;
5. what cannot be stored and a unit behind it may need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from cellrail.notebook.blocks import Block
from cellrail.notebook.changes import Changes
from cellrail.notebook.fingerprint import is_blank
from cellrail.notebook.firstuse import FirstUse, first_use
from cellrail.notebook.foreach import targets
from cellrail.notebook.model import PARAMETERS, Step
from cellrail.notebook.reads import lineage, option_names
from cellrail_state import ambient_parts
from cellrail_state.model import Checkpoint, Component, Decided, Effects, JobFinished, Variable
from cellrail_state.namespace import WARNED

SHARED = "files of the shared folder"
#: kinds of values that cannot be stored and run code of the notebook when they are used
_RUNNING = frozenset({"generator", "coroutine", "async_generator", "map", "filter", "zip"})


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """A step, or a loop with its steps, as today's notebook has it."""

    label: str
    steps: tuple[Step, ...]
    #: names that it can read; None for any
    reach: frozenset[str] | None
    #: names that it binds in any case
    binds: frozenset[str] = frozenset()
    #: names that it may bind, change or delete
    touches: frozenset[str] = frozenset()
    #: names that later units can read as it leaves them; None for any
    live: frozenset[str] | None = None
    #: of names that it can read: what the steps that made them can read; None for any
    makers: dict[str, frozenset[str] | None] = {}

    @property
    def numbers(self) -> tuple[int, ...]:
        """Numbers of its steps."""
        return tuple(step.number for step in self.steps)

    @property
    def skips(self) -> bool:
        """Whether nothing of it is ever executed."""
        return all(step.skips or is_blank(step.body) for step in self.steps)


class OldUnit(msgspec.Struct, frozen=True, kw_only=True):
    """What the origin has of a unit."""

    #: the jobs that make what it left, in the order of the chain; none where it was skipped
    jobs: tuple[JobFinished, ...] = ()
    #: jobs of the items of parallel loops in it: what they left ended with their items
    branches: tuple[JobFinished, ...] = ()
    #: what was decided on its lines, also where nothing was executed for that
    decided: tuple[Decided, ...] = ()
    #: the namespace right before it and right after it
    before: Checkpoint = Checkpoint()
    after: Checkpoint = Checkpoint()
    #: why it cannot be kept; "" where it can
    lost: str = ""
    #: it did not run, on purpose
    skipped: bool = False

    @property
    def effects(self) -> tuple[str, ...]:
        """What it did that must not be done twice without need."""
        jobs = (*self.jobs, *self.branches)
        found = (job.effects.kinds for job in jobs if job.effects is not None)
        return tuple(sorted({kind for kinds in found for kind in kinds}))

    @property
    def told(self) -> tuple[Effects, ...]:
        """What its jobs and conditions have read and set beyond their kernel."""
        records: tuple[JobFinished | Decided, ...] = (*self.jobs, *self.branches, *self.decided)
        return tuple(record.effects for record in records if record.effects is not None)

    @property
    def written(self) -> frozenset[str]:
        """Names that it bound or changed."""
        return frozenset(name for job in self.jobs for name in job.delta.written)


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """Why a unit executes."""

    reason: str
    #: it was named by a person
    forced: bool = False
    #: nothing that it depends on has changed: it only makes again what cannot be stored
    again: bool = False
    #: the names that it changes, where that is known before
    names: frozenset[str] | None = None


# --- today's notebook ------------------------------------------------------------------------


def units_of(blocks: Sequence[Block]) -> list[Unit]:
    """The units of a notebook."""
    steps = [step for block in blocks for step in block.steps()]
    first = {step.number: first_use(step.body) for step in steps}
    uses = [_uses(step, first[step.number]) for step in steps]
    late = [first[step.number].late for step in steps]
    reached = dict(zip((step.number for step in steps), lineage(steps, uses, late), strict=True))
    units, mentioned, defined = [], set[str](), set[str]()
    made: dict[str, frozenset[str] | None] = {}
    for block in blocks:
        inside = tuple(block.steps())
        reach: set[str] | None = set()
        for step in inside:
            use = first[step.number]
            mentioned |= step.mentions
            defined |= set(step.definitions)
            found = reached[step.number]
            if found is None or use.evaluates or reach is None:
                reach = None
                continue
            reach |= found
            reach |= step.mentions if step.looks_up else set()
            reach |= defined if use.loads else set()
        alone = not block.is_loop
        found = None if reach is None else frozenset(reach)
        touches = _touches(block)
        units.append(
            Unit(
                label=block.step.label,
                steps=inside,
                reach=found,
                binds=first[block.step.number].binds if alone else frozenset(),
                touches=touches,
                makers={name: made[name] for name in made.keys() & (found or ())},
            )
        )
        for name in touches:
            before = made.get(name, frozenset())
            made[name] = None if before is None or found is None else before | found
    return _with_live(units)


def _touches(block: Block) -> frozenset[str]:
    """Names that a block may leave otherwise than it found them."""
    options, step = block.step.options, block.step
    if options.parallel:  # of its items only that comes back
        return frozenset(options.collect)
    return (step.writes | step.mutates).union(*map(_touches, block.body))


def used_late(unit: Unit, old: OldUnit) -> frozenset[str] | None:
    """What else the unit can read, through generators and the like; None for any name.

    Their code runs when they are used, and reads what the names hold then.
    """
    known, found = old.before.variables, frozenset[str]()
    for name, names in unit.makers.items():
        if name in known and known[name].component is None and known[name].type in _RUNNING:
            if names is None:
                return None
            found |= names
    return found


def _with_live(units: Sequence[Unit]) -> list[Unit]:
    """The units, each with what those behind it can read of what it leaves."""
    live: frozenset[str] | None = frozenset()
    found = []
    for unit in reversed(units):
        found.append(msgspec.structs.replace(unit, live=live))
        live = None if live is None or unit.reach is None else (live - unit.binds) | unit.reach
    return found[::-1]


def _uses(step: Step, first: FirstUse) -> frozenset[str]:
    if first.uses is None:
        return step.reads
    line = option_names(step.options)
    bound = frozenset(targets(step.options.foreach))
    return (step.reads & first.uses - bound) | (line.reads - bound)


def reach_of(unit: Unit, old: OldUnit | None) -> frozenset[str] | None:
    """The names that a unit can read; None for any."""
    late = used_late(unit, old) if old is not None else frozenset()
    return None if unit.reach is None or late is None else unit.reach | late


# --- before it begins ------------------------------------------------------------------------


def certain(unit: Unit, old: OldUnit | None, changes: Changes) -> Cause | None:
    """Why a unit executes whatever comes before it; None where that is not known."""
    named = [n for n in unit.numbers if n in changes.forced_steps]
    if named:
        return Cause(reason=changes.steps[named[0]], forced=True)
    if unit.skips:
        return None
    if old is None:
        return Cause(reason="new step")
    reason = (
        changes.everything
        or _changed_step(unit, changes)
        or old.lost
        or moved_package(unit, changes)
    )
    if reason:
        given = changes.parameters if reason == changes.parameters_told else None
        return Cause(reason=reason, names=given)
    always = any(step.options.always for step in unit.steps)
    return Cause(reason="--always", again=True) if always else None


def _changed_step(unit: Unit, changes: Changes) -> str:
    for step in unit.steps:
        if step.number in changes.steps:
            inside = f" ({step.label})" if len(unit.steps) > 1 else ""
            return changes.steps[step.number] + inside
    return ""


def moved_package(unit: Unit, changes: Changes) -> str:
    """Why a unit executes since it imports what changed; "" where it imports none of it."""
    for step in unit.steps:
        for module in step.imports:
            found = changes.packages.get(module.partition(".")[0])
            if found:
                return found
    return ""


class Outlook(msgspec.Struct, kw_only=True):
    """What is known of the units to come."""

    #: why a unit executes, by its place
    causes: dict[int, Cause] = {}
    #: why it may, in words
    may: dict[int, str] = {}

    @property
    def executing(self) -> set[int]:
        """Places of units that execute, or may."""
        return {*self.causes, *self.may}


def foresee(
    units: Sequence[Unit],
    olds: Sequence[OldUnit | None],
    causes: Mapping[int, Cause],
    *,
    changed: Mapping[str, str],
    begin: int = 0,
    settled: int | None = None,
) -> Outlook:
    """What may follow from what is certain.

    Args:
        units: in order.
        olds: what the origin has of each.
        causes: why units execute for certain, by place.
        changed: names that are others than in the origin, with the reason in words.
        begin: the first unit that is still to come.
        settled: a unit of which is known that no change reaches it; it may be needed all the same.
    """
    outlook = Outlook(causes=dict(causes))
    tainted = dict(changed)
    for place in range(begin, len(units)):
        unit, old = units[place], olds[place]
        cause = outlook.causes.get(place)
        if cause is None and tainted and not unit.skips and place != settled:
            hit = _hit(unit, old, tainted)
            if hit:
                outlook.may[place] = hit
        if cause is not None or place in outlook.may:
            if cause is None or not cause.again:
                taint(tainted, unit, old)
        else:
            for name in unit.binds:
                tainted.pop(name, None)
    _make_again(outlook, units, olds, begin)
    return outlook


def taint(tainted: dict[str, str], unit: Unit, old: OldUnit | None) -> None:
    """A unit executes, or may: what it makes is in doubt from here on.

    Args:
        tainted: names in doubt, with whose they are in words.
        unit: the unit.
        old: what the origin has of it.
    """
    written = old.written if old is not None else frozenset()
    bound = written.union(*(step.writes for step in unit.steps))
    for name in sorted((unit.touches | written) - {WARNED}):
        # what it may only have changed in place is told of the step that bound it
        if name in bound or name not in tainted:
            tainted[name] = f"of step {unit.label}"


def _hit(unit: Unit, old: OldUnit | None, tainted: Mapping[str, str]) -> str:
    reach = reach_of(unit, old)
    if reach is None:
        name = next(iter(tainted))
        return f"it may read anything: if `{name}` {tainted[name]} comes out different"
    for name in sorted(reach | (unit.touches - unit.binds)):
        if name in tainted:
            return f"if `{name}` {tainted[name]} comes out different"
    return ""


def _make_again(
    outlook: Outlook, units: Sequence[Unit], olds: Sequence[OldUnit | None], begin: int
) -> None:
    """Units that made, or may have changed, what cannot be stored and is needed behind them."""
    needed: dict[str, str] = {}
    for place in range(len(units) - 1, begin - 1, -1):
        unit, old = units[place], olds[place]
        if old is not None and place not in outlook.executing:
            for name in sorted(unstorable(unit, old)):
                user = needed.get(name, needed.get("*", ""))
                if user:
                    why = old.after.variables[name].reason or "it is not stored"
                    reason = f"step {user} needs `{name}`, which cannot be put back ({why})"
                    outlook.causes[place] = Cause(reason=reason, again=True)
                    break
        for name in unit.binds:
            needed.pop(name, None)
        if place in outlook.executing:
            if unit.reach is None:
                needed["*"] = unit.label
            else:
                needed |= dict.fromkeys(unit.reach, unit.label)


def unstorable(unit: Unit, old: OldUnit) -> set[str]:
    """Names without a stored value that the unit made, or may have changed."""
    names = old.written if unit.reach is None else old.written | unit.reach
    known = old.after.variables
    return {n for n in names if n in known and known[n].component is None and n.isidentifier()}


def refusal(unit: Unit, old: OldUnit | None, cause: Cause | None) -> str:
    """Why a unit must not execute, though something behind it needs that; "" where it may."""
    if cause is None or not cause.again or old is None or not old.effects:
        return ""
    if any(step.options.always for step in unit.steps):
        return ""
    return (
        f"{cause.reason}; step {unit.label} made it and has recorded an effect "
        f"({', '.join(old.effects)}), so it is not executed again for that "
        f"(--changed step:{unit.label} executes it all the same)"
    )


# --- while it goes on ------------------------------------------------------------------------


Same = Callable[[str, Checkpoint, Checkpoint], bool]


class Judge:
    """Tells why a unit has to execute, on the namespace that is here now."""

    def __init__(
        self,
        changes: Changes,
        *,
        same: Same,
        same_definitions: Callable[[Iterable[str], Checkpoint, Checkpoint], bool],
        snapshot: Callable[[Checkpoint], Mapping[str, Any]],
    ) -> None:
        """Know what changed.

        Args:
            changes: found, or named.
            same: whether a name holds the same in two checkpoints.
            same_definitions: whether functions and classes, by key, are the same in both.
            snapshot: a checkpoint's ambient state.
        """
        self._changes, self._same = changes, same
        self._same_definitions, self.snapshot = same_definitions, snapshot
        #: the namespace as it is here
        self.now = Checkpoint()
        #: names of parameters that have other values
        self.parameters: frozenset[str] = frozenset()
        #: names that a changed unit made, and whose values nobody can compare
        self.strange: set[str] = set()
        #: parts of flow user state and resources that changed units set
        self.other_state: set[str] = set()
        #: resources and variables that steps have set here, to whatever
        self.set_anew: set[str] = set()

    def why(self, unit: Unit, old: OldUnit) -> Cause | None:
        """Why the unit executes here; None where it is kept."""
        forced = self.reads_forced(unit, old)
        if forced is not None:
            return forced
        reason = (
            self._reads(unit, old)
            or self._may_write(unit, old)
            or self._shares(old)
            or self._sets_state_of_definitions(old)
            or self._ambient(old)
            or self._state(unit, old)
        )
        return Cause(reason=reason) if reason else None

    def differs(self, name: str, old: Checkpoint) -> str:
        """Why a name is another than in a checkpoint of the origin; "" where it is the same."""
        mine, theirs = self.now.variables.get(name), old.variables.get(name)
        if name in self.strange:
            given = name in self.parameters
            return f"parameter `{name}` changed" if given else f"`{name}`, which is another"
        moved = self._moved(mine, self.now) or self._moved(theirs, old)
        if moved:
            return f"`{name}` ({moved})"
        if self._same(name, self.now, old):
            return ""
        if name in self.parameters:
            return f"parameter `{name}` changed"
        if mine is None:
            return f"`{name}`, which is gone"
        return f"`{name}`, which is {'new' if theirs is None else 'another'}"

    def changed(self, old: Checkpoint) -> dict[str, str]:
        """All names that are others than in a checkpoint of the origin, as far as bytes tell."""
        here, there = self.now.variables, old.variables
        found = {
            name: "(it is another here)"
            for name in {**here, **there}
            if name in self.strange or not _same_bytes(here.get(name), there.get(name))
        }
        return found | dict.fromkeys(self._changes.forced_names, "(named as changed)")

    def _moved(self, variable: Variable | None, where: Checkpoint) -> str:
        """The package or module behind a value that changed."""
        if variable is None or not self._changes.packages:
            return ""
        tops: set[str] = set()
        if variable.type == "module":
            tops.add(variable.preview.removeprefix("module ").partition(".")[0])
        component: Component | None = where.components.get(variable.component or "")
        if component is not None:
            tops |= {*component.packages, *component.modules}
        return next(
            (self._changes.packages[t] for t in sorted(tops & {*self._changes.packages})), ""
        )

    # --- the reasons -------------------------------------------------------------------------

    def reads_forced(self, unit: Unit, old: OldUnit) -> Cause | None:
        """The cause where a unit reads a variable that was named; None where it reads none."""
        forced = self._changes.forced_names
        if not forced or PARAMETERS in {step.name for step in unit.steps}:
            return None
        hit = sorted(forced if unit.reach is None else forced & unit.reach)
        here = [n for n in hit if n in old.before.variables or n in self.now.variables]
        return Cause(reason=self._changes.names[here[0]], forced=True) if here else None

    def _reads(self, unit: Unit, old: OldUnit) -> str:
        known = {*self.now.variables, *old.before.variables}
        reach = reach_of(unit, old)
        for name in sorted(known if reach is None else known & reach):
            told = self.differs(name, old.before)
            if told:
                if told.startswith("parameter"):
                    return told
                return f"may read anything, also {told}" if reach is None else f"reads {told}"
        return ""

    def _may_write(self, unit: Unit, old: OldUnit) -> str:
        """A name of which nobody can tell whether the unit would set it here.

        (It was bound to what it held already, or not at all.)
        """
        for name in sorted(unit.touches - self.binds(unit, old) - old.written):
            told = self.differs(name, old.before)
            if told:
                return f"may set {told}"
        return ""

    def binds(self, unit: Unit, old: OldUnit) -> frozenset[str]:
        """Names that the unit bound in any case: what it left there is what it leaves here."""
        if not old.jobs or any(job.accepted or job.error is not None for job in old.jobs):
            return frozenset()
        # a loop's variable: whether it was bound is of no consequence where nobody reads it
        return unit.binds | (unit.touches - unit.live if unit.live is not None else frozenset())

    def _shares(self, old: OldUnit) -> str:
        """A name that its record regrouped with those that it changed."""
        beside = {
            name
            for job in old.jobs
            for component in job.delta.components.values()
            for name in component.variables
        } - old.written
        for name in sorted(beside):
            if self.differs(name, old.before):
                return f"changes what shares objects with `{name}`, which is another"
        return ""

    def _sets_state_of_definitions(self, old: OldUnit) -> str:
        """Definitions whose state the unit's record sets, though it is another here."""
        here = {key for c in self.now.components.values() for key in c.definitions}
        held = {key for job in old.jobs for c in job.delta.components.values()
                for key in c.definitions}  # fmt: skip
        for key in sorted(here & held):
            if not self._same_definitions([key], self.now, old.before):
                return f"may change `{key.rpartition('#')[0]}`, which holds something else here"
        return ""

    def _ambient(self, old: OldUnit) -> str:
        before, after = old.before.ambient, old.after.ambient
        if before is None or self.now.ambient is None or self.now.ambient == before:
            return ""
        now, found = self.snapshot(self.now), self.snapshot(old.before)
        told = ambient_parts.difference(now, found)
        elsewhere = ambient_parts.generators_that_differ(now, found)
        if old.branches and not told and elsewhere:
            # each item's generators follow from where they stood at the entry
            names = ", ".join(sorted(elsewhere))
            return f"may draw from the generator of {names}, which stands elsewhere"
        if told or after == before or after is None:
            return f"{told} is another" if told else ""
        left = self.snapshot(old.after)
        drawn = ambient_parts.generators_moved(found, left) & elsewhere
        if drawn:
            return f"draws from the generator of {', '.join(sorted(drawn))}, which stands elsewhere"
        told = ambient_parts.conflict(now, found, left)
        return f"sets {told}, which is another" if told else ""

    def _state(self, unit: Unit, old: OldUnit) -> str:
        """Flow user state, a resource or a variable that a changed unit set."""
        effects = old.told
        read = {f"{r.kind} {r.path}" for e in effects for r in (*e.reads, *e.settings)}
        read |= {f"flow user state `{key}`" for e in effects for key in e.asked}
        for what in sorted(read & self.other_state):
            return f"reads the {what}, which is another"
        # what it had set stood above what the step before it has set again
        sets = {f"{w.kind} {w.path}" for found in effects for w in found.writes}
        for what in sorted(sets & self.set_anew):
            return f"sets the {what}, as a step before it has done again"
        user = sorted(s for s in self.other_state if s.startswith("flow user state"))
        # not every journal tells which keys were read
        if user and any("flow_user_state" in step.source for step in unit.steps):
            return f"may read {user[0]}, which is another"
        if SHARED in self.other_state and any("shared" in step.source for step in unit.steps):
            return f"may read {SHARED}, which are others"
        return ""


def other_effects(job: JobFinished, old: OldUnit | None) -> set[str]:
    """What a job did beyond its kernel that its step did not do in the origin, in words."""
    jobs = (*old.jobs, *old.branches) if old is not None else ()
    before = [j.effects for j in jobs if j.effects is not None]
    user = {key: value for effects in before for key, value in effects.user.items()}
    writes = {(w.kind, w.path): w.value for effects in before for w in effects.writes}
    shared = {name: file.ref for effects in before for name, file in effects.shared.items()}
    gone = {name for effects in before for name in effects.unshared}
    now = job.effects or Effects()
    found = {f"flow user state `{k}`" for k in {*user, *now.user} if user.get(k) != now.user.get(k)}
    written = {(w.kind, w.path): w.value for w in now.writes}
    found |= {f"{k[0]} {k[1]}" for k in {*writes, *written} if writes.get(k) != written.get(k)}
    if shared != {name: file.ref for name, file in now.shared.items()} or gone != {*now.unshared}:
        found.add(SHARED)
    return found


def _same_bytes(a: Variable | None, b: Variable | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.component == b.component and (a.component is not None or a.verdict == b.verdict)
