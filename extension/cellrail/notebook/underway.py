"""A loop that is gone on with in its midst: which of its kept turns have to run again. Pure.

Behind a loop its steps are cells like any other (`rebuilding`). In its midst the turns that are
kept are looked at one by one, from the last on: of what cannot be stored and can still be used,
each name is made again by the turns that may have made or changed it, back to the one that bound it
in any case. What was there before the loop is left to the cells above it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from cellrail.notebook.blocks import Block, blocks_of
from cellrail.notebook.foreach import targets
from cellrail.notebook.model import Step
from cellrail.notebook.origin import SideBySide
from cellrail.notebook.rebuilding import Lost, Rebuilding, not_stored
from cellrail_state.model import Variable, Verdict


class KeptTurn(msgspec.Struct, frozen=True, kw_only=True):
    """A job of the loop that is kept."""

    #: number of its step, today
    number: int
    #: variables right before it
    before: Mapping[str, Variable]
    #: names that it bound or changed
    written: frozenset[str] = frozenset()
    #: what it did beyond its kernel, in words
    effects: tuple[str, ...] = ()
    #: it ended well
    whole: bool = True
    #: nothing was executed: it ends a loop
    ends: bool = False


class Going(msgspec.Struct, frozen=True, kw_only=True):
    """Where a loop is gone on with."""

    #: labels of the loops around, from the outermost
    loops: tuple[str, ...]
    #: label of the step that comes next; of the innermost loop, where a turn begins
    step: str
    #: that step is behind it; of a loop, only the job that ends it is left
    ends: bool = False


class Turns(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be made again of a loop that is gone on with."""

    #: the names that each of its kept jobs makes again, by its place among them
    makers: dict[int, frozenset[str]] = {}
    #: what cannot be made again
    lost: tuple[Lost, ...] = ()
    #: names that these jobs, or what comes, need from before the loop
    before: frozenset[str] = frozenset()

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why the loop cannot be gone on with, in words."""
        return tuple(dict.fromkeys(lost.told for lost in self.lost))


class UnderWay:
    """Finds the kept turns that make again what cannot be stored."""

    def __init__(self, both: SideBySide, rebuilding: Rebuilding) -> None:
        """Know the notebook.

        Args:
            both: today's notebook beside the origin.
            rebuilding: what its steps use and bind.
        """
        self._both, self._rebuilding = both, rebuilding
        self._places = {step.number: place for place, step in enumerate(both.steps)}

    def turns(
        self,
        kept: Sequence[KeptTurn],
        variables: Mapping[str, Variable],
        needed: frozenset[str] | None,
    ) -> Turns:
        """The turns that have to run again, and why that cannot be.

        Args:
            kept: the loop's jobs that are kept, in order.
            variables: right behind the last of them.
            needed: names that what comes can use as it finds them; None for any name.
        """
        wanted = _unstorable(needed, variables)
        lost = self._lost(needed, kept, variables)
        makers: dict[int, frozenset[str]] = {}
        ever = not_stored(variables).union(*(not_stored(job.before) for job in kept))
        for place in range(len(kept) - 1, -1, -1):
            job = kept[place]
            step = self._both.steps[self._places[job.number]]
            if job.ends:
                told = f"the loop {step.label!r} has collected it"
                collected = wanted & {*step.options.collect}
                lost += [self._not_again(n, job, told, needed) for n in sorted(collected)]
                wanted -= collected
                continue
            made = frozenset(
                name for name in wanted if self._may_have_made(name, job, variables, ever)
            )
            if not made:
                continue
            makers[place] = made
            if job.effects and not step.options.always:
                what = " and ".join(job.effects)
                told = f"step {step.label!r}, which may have changed it, has recorded {what}"
                lost += [self._not_again(name, job, told, needed) for name in sorted(made)]
            if job.whole:
                wanted -= self._binds(job)
            reads = self._rebuilding.needs[self._places[job.number]]
            wanted = _unstorable(None if reads is None else wanted | reads, job.before)
        return Turns(makers=makers, lost=tuple(lost), before=wanted)

    def _lost(
        self,
        needed: frozenset[str] | None,
        kept: Sequence[KeptTurn],
        variables: Mapping[str, Variable],
    ) -> list[Lost]:
        """What the loop has lost, and can be used."""
        if needed is None or self._both.request.force or not kept:
            return []
        before, place = kept[0].before, self._places[kept[0].number]
        return [
            Lost(name=name, place=place, told=f"`{name}` is lost: {variable.reason}", certain=True)
            for name, variable in variables.items()
            if variable.verdict is Verdict.LOST and name in needed and before.get(name) != variable
        ]

    def _not_again(self, name: str, job: KeptTurn, why: str, needed: frozenset[str] | None) -> Lost:
        told = f"`{name}` is lost: it cannot be stored, and {why}"
        place = self._places[job.number]
        return Lost(name=name, place=place, told=told, certain=needed is not None)

    def _may_have_made(
        self, name: str, job: KeptTurn, variables: Mapping[str, Variable], ever: frozenset[str]
    ) -> bool:
        place, rebuilding = self._places[job.number], self._rebuilding
        if name in targets(self._both.steps[place].options.foreach):
            return True
        fixed = rebuilding.is_fixed(variables.get(name) or job.before.get(name))
        return rebuilding.may_bind(name, place, job.written) or (
            not fixed and rebuilding.reaches(rebuilding.sharing(name, ever), place)
        )

    def _binds(self, job: KeptTurn) -> frozenset[str]:
        """Names that it has bound, whatever they held."""
        place = self._places[job.number]
        bound = targets(self._both.steps[place].options.foreach)
        return self._rebuilding.first_uses[place].binds.union(bound)

    # --- what can be used --------------------------------------------------------------------

    def needed(self, going: Going) -> frozenset[str] | None:
        """Names that what comes can use as it finds them; None for any name.

        Args:
            going: where the loop goes on.
        """
        last = self._both.last_place()
        level: Sequence[Block] = blocks_of(self._both.steps[: last + 1])
        after = frozenset[str]()
        outermost = _place_of(level, (*going.loops, going.step)[0])
        first = self._places[level[outermost].step.number]
        if any(names is None for names in self._rebuilding.needs[first : last + 1]):
            return None
        block = level[outermost]
        for label in going.loops:
            place = _place_of(level, label)
            block = level[place]
            # what is behind the loop, or before that another turn
            after = self._before(level[place + 1 :], after) | self._turn(block, frozenset())
            level = block.body
        if going.step in going.loops:  # the innermost: a turn of it begins, if its condition holds
            begun = self._turn(block, after)
            bound = targets(block.step.options.foreach)  # those of the loops around are bound
            return (begun | after if block.step.options.while_ else begun).difference(bound)
        place = _place_of(level, going.step)
        return self._before(level[place + going.ends :], after)

    def _before(self, blocks: Sequence[Block], after: frozenset[str]) -> frozenset[str]:
        """What can be used from blocks on, where `after` can be behind them."""
        for block in reversed(blocks):
            if block.is_loop:  # it may have no turn
                after |= self._turn(block, frozenset())
            else:
                optional = block.step.options.when or block.step.options.branch
                after = self._used(block.step, after, surely=not optional)
        return after

    def _turn(self, block: Block, after: frozenset[str]) -> frozenset[str]:
        """What can be used from a turn of a loop on, where `after` can be behind it."""
        return self._used(block.step, self._before(block.body, after), surely=True)

    def _used(self, step: Step, after: frozenset[str], *, surely: bool) -> frozenset[str]:
        place = self._places[step.number]
        stops = all(s.options.on_error == "stop" for s in self._rebuilding.loops(step))
        if surely and stops and not (step.may_fail or step.skips or step.options.cache):
            after -= self._rebuilding.first_uses[place].binds
        return after | (self._rebuilding.needs[place] or frozenset())


def _place_of(blocks: Sequence[Block], label: str) -> int:
    return next(n for n, block in enumerate(blocks) if block.step.label == label)


def _unstorable(names: frozenset[str] | None, variables: Mapping[str, Variable]) -> frozenset[str]:
    """Of these names (of all, where there are none given) those that have to be made again."""
    found = not_stored(variables)
    return found if names is None else found & names
