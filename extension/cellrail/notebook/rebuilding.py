"""What has to be made again, so that the namespace before a cut is whole, and what cannot be. Pure.

A stored name is loaded. One that cannot be stored is rebuilt if an executed step can reach it: by
the cell that bound it and the later ones that may have changed it, each on what it reads in turn.
A lost name that an executed step can reach refuses the cut; so does one whose cell has recorded an
effect (state, `once`, shared files): that cell must not run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from cellrail.notebook.firstuse import FirstUse, first_use
from cellrail.notebook.model import Step
from cellrail.notebook.origin import SideBySide
from cellrail.notebook.reads import lineage, option_names
from cellrail_state.model import Variable, Verdict


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

    def rebuilds(self, cut: int) -> tuple[dict[int, set[str]], list[tuple[int, str]]]:
        """Names to rebuild by place of the cell, and why the cut cannot be put back."""
        variables = self._variables(cut)
        if all(variable.verdict is Verdict.STORED for variable in variables.values()):
            return {}, []
        needed = self._needed(cut)
        refusals: list[tuple[int, str]] = []
        wanted: set[str] = set()
        for name, variable in variables.items():
            if not name.isidentifier() or (needed is not None and name not in needed):
                continue
            if variable.verdict is Verdict.REBUILT:
                wanted.add(name)
            elif needed is None or self._both.request.force:
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
                if told := self._effects(place):
                    refusals.append((place, f"`{name}` is lost: it cannot be stored, and {told}"))
                makers.setdefault(place, set()).add(name)
                waiting += [(other, place) for other in self._unstorable_reads(place)]
        return makers, refusals

    def _needed(self, cut: int) -> set[str] | None:
        """Names that a step to be executed can reach as they are; None for any name.

        Not those that a step before it, or it itself, binds in any case before they are used.
        """
        both, needed = self._both, set[str]()
        steps = both.steps
        uses = [first_use(step.body) for step in steps]
        found = lineage(steps, [_used(s, u) for s, u in zip(steps, uses, strict=True)])
        for place in range(both.last_place(), cut - 1, -1):
            reached = both.reached[place]
            if reached is not None and not uses[place].evaluates:
                reached = found[place]
            if reached is None:
                return None
            if _surely_runs(steps[place]):
                needed -= uses[place].binds
            needed |= reached
        for place in range(cut):
            reached = both.reached[place] if steps[place].options.always else frozenset()
            if reached is None:
                return None
            needed |= reached
        return needed

    def _variables(self, place: int) -> Mapping[str, Variable]:
        """The origin's variables right before a place of today's notebook."""
        for step in self._both.steps[place:]:
            if step.number in self._both.pairs:
                return self._variables_before(self._both.pairs[step.number].number)
        return self._variables_before(max((old.number for old in self._both.origin), default=0) + 1)

    def _binder(self, name: str, until: int) -> int | None:
        for place in range(until - 1, -1, -1):
            old = self._both.old(place)
            if old is not None and name in old.written:
                return place
        return None

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
        later = [
            place
            for place in range(binder + 1, until)
            if (reached := self._both.reached[place]) is None or name in reached
        ]
        return [binder, *later]

    def _effects(self, place: int) -> str:
        """Why a cell must not run again for what it made; "" where it may."""
        old = self._both.old(place)
        if old is None or not old.effects:
            return ""
        label, what = self._both.steps[place].label, " and ".join(old.effects)
        return f"step {label!r}, which made it, has recorded {what}"

    def _unstorable_reads(self, place: int) -> Iterable[str]:
        reached = self._both.reached[place]
        return [
            name
            for name, variable in self._variables(place).items()
            if variable.verdict is Verdict.REBUILT
            and name.isidentifier()
            and (reached is None or name in reached)
        ]


def _used(step: Step, first: FirstUse) -> frozenset[str]:
    """Names that a step may read before it has bound them itself."""
    if first.uses is None:
        return step.reads
    return (step.reads & first.uses) | option_names(step.options).reads


def _surely_runs(step: Step) -> bool:
    """Whether a step runs to its end, once, before the one behind it does."""
    options = step.options
    conditional = bool(options.when or options.branch or options.in_ or options.loops)
    tolerated = step.may_fail or options.on_error != "stop"
    return not (conditional or tolerated or step.skips or options.cache)
