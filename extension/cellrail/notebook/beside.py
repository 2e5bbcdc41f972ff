"""What another kernel runs again to stand where one stood: in a loop's midst, beside it, behind it.

A loop that is gone on with, the items of a parallel loop, and cells with `--on-failure` have a
kernel that has executed nothing of the flow yet. Checkpoints give it what is stored; here is told
which cells make the rest. Of a loop that has not ended those are single turns (`underway`). Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from cellrail.notebook.apart import evaluation, in_item
from cellrail.notebook.blocks import Block
from cellrail.notebook.foreach import targets
from cellrail.notebook.model import Flow, Step
from cellrail.notebook.origin import OriginStep, RestartRequest, SideBySide
from cellrail.notebook.plan import Fate, PlannedStep
from cellrail.notebook.planner import Planner, of_the_chain
from cellrail.notebook.rebuilding import Lost, Rebuilding
from cellrail.notebook.underway import Going, KeptTurn, Turns, UnderWay
from cellrail_state.model import Variable


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """What another kernel has to run again, and cannot have."""

    #: the cells that run again, in order
    again: list[PlannedStep]
    #: of the loop around, the names that each of its jobs makes again, by its place among them
    turns: Turns = Turns()
    #: what cannot be made again
    lost: tuple[Lost, ...]

    @staticmethod
    def of(found: tuple[list[PlannedStep], tuple[Lost, ...]]) -> Beside:
        """Outside of loops that are under way."""
        return Beside(again=found[0], lost=found[1])


def needed_behind(flow: Flow, step: Step, loops: tuple[str, ...] = ()) -> frozenset[str] | None:
    """Names that the flow can use behind a step as it leaves them; None for any.

    Args:
        flow: its steps.
        step: the step.
        loops: labels of the loops that it is in, from the outermost.
    """
    both = of_the_chain(flow, (), RestartRequest())
    rebuilding = Rebuilding(both, lambda _: {})
    if not loops:
        return rebuilding.needed(both.steps.index(step) + 1)
    return UnderWay(both, rebuilding).needed(Going(loops=loops, step=step.label, ends=True))


def plan_turns(
    flow: Flow,
    origin: Sequence[OriginStep],
    request: RestartRequest,
    *,
    going: Going,
    kept: Sequence[KeptTurn],
    variables: Mapping[str, Variable],
) -> Turns:
    """What has to be made again of a loop that is gone on with in its midst.

    Args:
        flow: the notebook as it is now.
        origin: the run's steps.
        request: what was asked for.
        going: where the loop goes on.
        kept: its jobs that are kept, in order.
        variables: right behind the last of them.
    """
    both = of_the_chain(flow, origin, request)
    under_way = UnderWay(both, Rebuilding(both, lambda _: {}))
    return under_way.turns(kept, variables, under_way.needed(going))


def plan_item(
    flow: Flow,
    loop: Block,
    *,
    going: Going,
    kept: Sequence[KeptTurn],
    variables: Mapping[str, Variable],
) -> Turns:
    """What has to be made again of an item of a parallel loop that is gone on with in its midst.

    Args:
        flow: the run's steps.
        loop: the parallel loop.
        going: where the item goes on, by the loops inside it.
        kept: its jobs that are kept, in order.
        variables: right behind the last of them.
    """
    both, _ = _in_an_item(flow, (), loop)
    under_way = UnderWay(both, Rebuilding(both, lambda _: {}))
    return under_way.turns(kept, variables, under_way.needed(going))


def _in_an_item(
    flow: Flow, origin: Sequence[OriginStep], loop: Block, evaluated: Sequence[Step] = ()
) -> tuple[SideBySide, int]:
    """The notebook as an item of a parallel loop meets it, and the place where that begins."""
    place = flow.steps.index(loop.step)
    steps = [in_item(step, loop.step) for step in flow.steps]
    steps[place:place] = [evaluation(step, -n) for n, step in enumerate(evaluated, 1)]
    request = RestartRequest(cut=steps[place].label, to=list(loop.steps())[-1].label)
    both = of_the_chain(msgspec.structs.replace(flow, steps=tuple(steps)), origin, request)
    return both, both.steps.index(steps[place])


def plan_beside(
    flow: Flow,
    origin: Sequence[OriginStep],
    *,
    loop: Block,
    evaluated: Sequence[Step],
    variables_before: Callable[[int], Mapping[str, Variable]],
    around: Step | None = None,
    turns: Sequence[KeptTurn] = (),
) -> Beside:
    """What a further kernel has to run before it can carry out items of a parallel loop.

    Args:
        flow: the run's steps.
        origin: the same steps as they have ended so far.
        loop: the loop.
        evaluated: loops whose items the kernel has to evaluate, since they are not stored.
        variables_before: the namespace right before a step, by its number; of a loop that is under
            way before its first turn, and right before the items by the number of their step.
        around: the outermost loop that it lies in; None where it lies in none.
        turns: what has ended of that one, in order.
    """
    both, cut = _in_an_item(flow, origin, loop, evaluated)
    bound = targets(loop.step.options.foreach)
    planner = Planner(both, Rebuilding(both, variables_before))
    if around is None:
        return Beside.of(planner.beside(cut, bound=bound))
    again = _inside(planner, around, cut)
    needed = planner.rebuilding.needed(cut, bound=bound)
    found = _within(
        of_the_chain(flow, origin, RestartRequest(cut=around.label, to=both.request.to)),
        around, turns, needed=needed, variables=variables_before(loop.step.number),
        variables_before=variables_before,
    )  # fmt: skip
    return msgspec.structs.replace(found, again=[*found.again, *again])


def _inside(planner: Planner, around: Step, cut: int) -> list[PlannedStep]:
    """The cells of a loop that is under way, before the cut, which always run again."""
    first = next(n for n, s in enumerate(planner.steps) if s.number == around.number)
    planned = [planner.planned(place, cut, {}) for place in range(first, cut)]
    return [step for step in planned if step.fate is Fate.RUNS_AGAIN]


def _within(
    both: SideBySide,
    around: Step,
    turns: Sequence[KeptTurn],
    *,
    needed: frozenset[str] | None,
    variables: Mapping[str, Variable],
    variables_before: Callable[[int], Mapping[str, Variable]],
) -> Beside:
    """What a kernel runs again to stand in the midst of a loop.

    Args:
        both: the notebook beside the run.
        around: the outermost loop.
        turns: what has ended of it, in order.
        needed: names that are needed; None for any.
        variables: right behind the last turn.
        variables_before: right before a step, by its number.
    """
    planner = Planner(both, Rebuilding(both, variables_before))
    inside = UnderWay(both, planner.rebuilding).turns(turns, variables, needed)
    place = next(n for n, s in enumerate(both.steps) if s.number == around.number)
    # what the turns need, or what comes, and was there before
    before = Beside.of(planner.beside(place, needed=inside.before))
    lost = [
        msgspec.structs.replace(one, certain=one.certain and needed is not None)
        for one in (*before.lost, *inside.lost)
    ]
    return msgspec.structs.replace(before, turns=inside, lost=tuple(lost))


def plan_behind(
    flow: Flow,
    origin: Sequence[OriginStep],
    *,
    handlers: Sequence[Step],
    variables_before: Callable[[int], Mapping[str, Variable]],
    around: Step | None = None,
    turns: Sequence[KeptTurn] = (),
) -> Beside:
    """What a further kernel has to run before it can carry out steps with `--on-failure`.

    Args:
        flow: the run's steps.
        origin: the same steps as they have ended; those that have not, without a job.
        handlers: the steps to be carried out.
        variables_before: the namespace right before a step that has ended, by its number; of any
            other number, as the last one has left it.
        around: the outermost loop that the run failed in; None where it failed in none.
        turns: what has ended of that one, in order.
    """
    ended = {step.number for step in origin if step.job_id and step.ended_well}
    done = [s for s in flow.steps if s.number in ended and not s.options.on_failure]
    known = [step for step in origin if step.number in {s.number for s in done}]
    # what is lost is missed by a cell that uses it, and by no other
    request = RestartRequest(cut=handlers[0].label, to=handlers[-1].label, force=True)
    both = SideBySide.of([*done, *handlers], known, request)
    planner = Planner(both, Rebuilding(both, variables_before))
    if around is None:
        return Beside.of(planner.beside(len(done)))
    needed, last = planner.rebuilding.needed(len(done)), variables_before(handlers[0].number)
    request = RestartRequest(cut=around.label, force=True)
    both = of_the_chain(flow, origin, request)
    return _within(
        both, around, turns, needed=needed, variables=last, variables_before=variables_before
    )
