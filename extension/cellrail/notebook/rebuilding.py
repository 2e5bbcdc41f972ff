"""What has to be made again, so that the namespace before a cut is whole, and what cannot be. Pure.

A stored name is loaded. One that cannot be stored is rebuilt if an executed step can reach it: by
the cell that bound it and the later ones that may have changed it, each on what it reads in turn.
What cannot be changed in place (a string that is a secret) is made only by cells that bind it.
A lost name that an executed step can reach refuses the cut; so does one whose cell has recorded an
effect (state, `once`, shared files): that cell must not run again. Only `--always` cells may, since
they run in each new kernel, whatever is needed of them.

The rule is the same for a restart, a recovery, the items of a parallel loop and what runs since a
run has failed. What comes of it is not: a restart is refused in doubt, too, before anything of it
has happened; in a run that is under way a cell that may use any name finds out (`Lost.certain`).
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec

from cellrail.notebook.firstuse import FirstUse, first_use
from cellrail.notebook.foreach import split, targets
from cellrail.notebook.model import Step
from cellrail.notebook.origin import SideBySide
from cellrail.notebook.reads import lineage, names_of, option_names
from cellrail.notebook.shelllines import parsed
from cellrail_state.model import Variable, Verdict

#: types whose values no code changes in place
_IMMUTABLE = frozenset({"str", "bytes", "int", "float", "complex", "bool", "NoneType"})


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """A value that steps to be executed need, or may need, and that cannot be made again."""

    name: str
    #: the step that would have to be executed, by place
    place: int
    #: why, in words
    told: str
    #: a step reaches it; else one is executed that may reach any name
    certain: bool


class Rebuilds(msgspec.Struct, frozen=True, kw_only=True):
    """What is made again before a cut, and what cannot be."""

    #: names by place of the cell
    makers: dict[int, set[str]] = {}
    lost: tuple[Lost, ...] = ()


class Rebuilding:
    """Finds the cells that make again what cannot be stored."""

    def __init__(
        self, both: SideBySide, variables_before: Callable[[int], Mapping[str, Variable]]
    ) -> None:
        """Know the notebook and the origin.

        Args:
            both: today's notebook beside the origin.
            variables_before: the origin's variables right before a step, by its number there.
        """
        self._both = both
        self._variables_before = variables_before
        self._variables_at: dict[int, Mapping[str, Variable]] = {}

    @functools.cached_property
    def first_uses(self) -> list[FirstUse]:
        """How the code of each step meets the namespace, by place."""
        return [first_use(step.body) for step in self._both.steps]

    @functools.cached_property
    def needs(self) -> list[frozenset[str] | None]:
        """Names that each step can reach as it finds them, by place; None for any name."""
        steps, uses, reached = self._both.steps, self.first_uses, self._both.reached
        found = lineage(steps, [_used(s, u) for s, u in zip(steps, uses, strict=True)])
        return [
            names if reached[place] is not None and not uses[place].evaluates else reached[place]
            for place, names in enumerate(found)
        ]

    def not_restorable(self, cut: int) -> list[tuple[int, str]]:
        """Why there is no namespace right before the cut; empty where there is one."""
        for place in range(cut - 1, -1, -1):
            old = self._both.old(place)
            if old is None or not old.job_id:
                continue
            if old.failure:
                label = self._both.steps[place].label
                return [(place, f"there is no checkpoint after step {label!r}: {old.failure}")]
            return []
        return []

    def rebuilds(
        self, cut: int, *, bound: Collection[str] = (), needed: frozenset[str] | None = None
    ) -> Rebuilds:
        """What has to be made again before a cut.

        Args:
            cut: its place.
            bound: names that are bound anew right before the step at the cut.
            needed: names that are needed there; None for those that the steps behind it can reach.
        """
        variables = self._variables(cut)
        if all(variable.verdict is Verdict.STORED for variable in variables.values()):
            return Rebuilds()
        if needed is None:
            needed = self.needed(cut, bound=bound)
        lost: list[Lost] = []
        makers: dict[int, set[str]] = {}
        for name, variable in sorted(variables.items()):
            if not name.isidentifier() or (needed is not None and name not in needed):
                continue
            if variable.verdict is Verdict.REBUILT:
                made, refusals = self._again(name, cut)
                lost += [
                    Lost(name=name, place=place, told=told, certain=needed is not None)
                    for place, told in refusals
                ]
                for place, names in {} if refusals else made.items():
                    makers.setdefault(place, set()).update(names)
            elif variable.verdict is Verdict.LOST and needed is not None:
                if self._both.request.force:
                    continue
                place = self._binder(name, cut) or 0
                told = f"`{name}` is lost: {variable.reason}"
                lost.append(Lost(name=name, place=place, told=told, certain=True))
        return Rebuilds(makers=makers, lost=tuple(lost))

    def _again(self, name: str, cut: int) -> tuple[dict[int, set[str]], list[tuple[int, str]]]:
        """The cells that make one name again, with what each of them needs; why they must not."""
        refusals: list[tuple[int, str]] = []
        makers: dict[int, set[str]] = {}
        waiting = [(name, cut)]
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
                how = "which made it" if place == places[0] else "which may have changed it"
                if told := self._effects(place, how) or self._collected(name, place):
                    refusals.append((place, f"`{name}` is lost: it cannot be stored, and {told}"))
                makers.setdefault(place, set()).add(name)
                waiting += [(other, place) for other in self._unstorable_reads(place)]
        return makers, refusals

    def needed(self, cut: int, *, bound: Collection[str] = ()) -> frozenset[str] | None:
        """Names that a step to be executed can reach as they are; None for any name.

        Not those that a step before it, or it itself, binds in any case before they are used.

        Args:
            cut: the place of the first one.
            bound: names that are bound anew right before it.
        """
        both, needed = self._both, set[str]()
        steps = both.steps
        for place in range(both.last_place(), cut - 1, -1):
            reached = self.needs[place]
            if reached is None:
                return None
            if _surely_runs(steps[place]):
                needed -= self.first_uses[place].binds
            needed |= reached
        for place in range(cut):
            reached = both.reached[place] if steps[place].options.always else frozenset()
            if reached is None:
                return None
            needed |= reached
        return frozenset(needed.difference(bound))

    def _variables(self, place: int) -> Mapping[str, Variable]:
        """The origin's variables right before a place of today's notebook."""
        if place not in self._variables_at:
            pairs = (self._both.pairs.get(step.number) for step in self._both.steps[place:])
            number = next((old.number for old in pairs if old is not None), self._both.behind)
            self._variables_at[place] = self._variables_before(number)
        return self._variables_at[place]

    def _binder(self, name: str, until: int) -> int | None:
        for place in range(until - 1, -1, -1):
            old, step = self._both.old(place), self._both.steps[place]
            if old is None or (self._is_apart(step) and name not in step.options.collect):
                continue
            if name in old.written or name in self._variables_of(place):
                return place
        return None

    def _variables_of(self, place: int) -> list[str]:
        """The variables of a loop: its turns have bound them, not the job that it ends with."""
        old, options = self._both.old(place), self._both.steps[place].options
        return targets(options.foreach) if old is not None and old.job_id else []

    def _makers(self, name: str, until: int) -> list[int]:
        """The cell that bound a name, and the later ones that may have changed its value."""
        binder = self._binder(name, until)
        if binder is None:
            return []
        # a name changed in place counts as written: go back to where it was bound
        while name not in self._both.steps[binder].writes:
            earlier = self._binder(name, binder)
            if earlier is None:
                break
            binder = earlier
        variables = self._variables(until)
        fixed = self.is_fixed(variables.get(name))
        names = self.sharing(name, not_stored(variables))
        return [
            binder,
            *(
                place
                for place in range(binder + 1, until)
                if self.may_bind(name, place, self._written(place))
                or (not fixed and self.reaches(names, place))
            ),
        ]

    def _written(self, place: int) -> Collection[str]:
        old = self._both.old(place)
        return old.written if old is not None else ()

    def reaches(self, names: Collection[str], place: int) -> bool:
        """Whether a step's code may have used a name in the kernel that the flow goes on with.

        Args:
            names: those of one value.
            place: the step's.
        """
        reached = self._both.reached[place]
        used = reached is None or not reached.isdisjoint(names)
        return used and not self._is_apart(self._both.steps[place])

    def sharing(self, name: str, others: Collection[str]) -> frozenset[str]:
        """Names that may lead to the value of a name, which code can change by them: it as well.

        Args:
            name: the name; nothing that can be stored leads to its value.
            others: names whose values cannot be stored.
        """
        found, waiting = {name}, [name]
        while waiting:
            new = (self._together.get(waiting.pop(), set()) & {*others}) - found
            found |= new
            waiting += new
        return frozenset(found)

    @functools.cached_property
    def _together(self) -> dict[str, set[str]]:
        """Of each name those that it may lead to, or that lead to it: code put them together."""
        found: dict[str, set[str]] = {}
        for step in self._both.steps:
            bound = step.writes.union(step.mutates, targets(step.options.foreach))
            changed = step.mutates | _declared_global(step)
            pairs = [(bound, step.reads)]
            pairs += [(changed & free, free) for free in step.definitions.values()]
            for ones, others in pairs:
                for one in ones:
                    found.setdefault(one, set()).update(others)
                for other in others:
                    found.setdefault(other, set()).update(ones)
        return found

    def _is_apart(self, step: Step) -> bool:
        """Whether it ran in kernels of its own: only what its loop collects came back."""
        if self._both.request.live:
            return False
        return any(loop.options.parallel for loop in self.loops(step))

    def loops(self, step: Step) -> list[Step]:
        """A step, and the loops around it."""
        found = [step]
        while outer := [s for s in self._both.steps if s.label == found[-1].options.in_]:
            found.append(outer[0])
        return found

    def is_fixed(self, variable: Variable | None) -> bool:
        """Whether code can only bind the name anew, not change what it holds."""
        if variable is None or variable.type not in _IMMUTABLE:
            return False
        # a class of the notebook may have the name of a built-in one
        return not any(variable.type in step.writes for step in self._both.steps)

    def may_bind(self, name: str, place: int, written: Collection[str]) -> bool:
        """Whether a step's code, or a function that it can reach, may have bound a name.

        Args:
            name: the name.
            place: the step's.
            written: names that it was seen to bind or change.
        """
        reached, step = self._both.reached[place], self._both.steps[place]
        if self._is_apart(step):
            return name in step.options.collect
        if reached is None or name in step.writes or name in written:
            return True
        return any(
            not reached.isdisjoint(earlier.definitions) and name in _declared_global(earlier)
            for earlier in self._both.steps[: place + 1]
        )

    def _collected(self, name: str, place: int) -> str:
        """Why a loop cannot make a name again; "" where it can."""
        for loop in self.loops(self._both.steps[place]):
            if name in loop.options.collect:
                return f"the loop {loop.label!r} has collected it"
        return ""

    def _effects(self, place: int, how: str) -> str:
        """Why a cell must not run again for what it made; "" where it may."""
        old = self._both.old(place)
        if old is None or not old.effects or self._both.steps[place].options.always:
            return ""
        label, what = self._both.steps[place].label, " and ".join(old.effects)
        return f"step {label!r}, {how}, has recorded {what}"

    def _unstorable_reads(self, place: int) -> Iterable[str]:
        reached, foreach = self._both.reached[place], self._both.steps[place].options.foreach
        # a loop binds its variable before its cell reads that
        bound = frozenset(targets(foreach)) - names_of(f"({split(foreach)[1]})").reads
        return [
            name
            for name, variable in self._variables(place).items()
            if variable.verdict is Verdict.REBUILT
            and name.isidentifier()
            and name not in bound
            and (reached is None or name in reached)
        ]


def not_stored(variables: Mapping[str, Variable]) -> frozenset[str]:
    """Names whose values have to be made again."""
    return frozenset(
        name
        for name, variable in variables.items()
        if variable.verdict is Verdict.REBUILT and name.isidentifier()
    )


def _used(step: Step, first: FirstUse) -> frozenset[str]:
    """Names that a step may read before it has bound them itself."""
    if first.uses is None:
        return step.reads
    return (step.reads & first.uses) | option_names(step.options).reads


def _declared_global(step: Step) -> set[str]:
    """Names that functions of a cell bind when they are called."""
    tree = parsed(step.body)
    nodes = ast.walk(tree) if tree is not None else ()
    return {name for node in nodes if isinstance(node, ast.Global) for name in node.names}


def _surely_runs(step: Step) -> bool:
    """Whether a step runs to its end, once, before the one behind it does."""
    options = step.options
    conditional = bool(options.when or options.branch or options.in_ or options.loops)
    tolerated = step.may_fail or options.on_error != "stop"
    return not (conditional or tolerated or step.skips or options.cache)
