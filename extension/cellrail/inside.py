"""Cuts inside loops: from an address, or from what failed, to a turn of the origin.

A cut in a parallel loop stands before one item, and of the others what ended well is kept. The same
holds for the failed items of a loop whose items ran one after another, where they are independent:
they wrote nothing but the loop's variable and what it collects, and read none of that first.
"""

from __future__ import annotations

from difflib import get_close_matches

import msgspec

from cellrail.errors import RestartRefused, StepNotFound
from cellrail.notebook.actions import Fork, Path, Purpose
from cellrail.notebook.address import find_step, split_address
from cellrail.notebook.blocks import Block, blocks_of
from cellrail.notebook.model import Flow, Step, handles_failures
from cellrail_state.chains import is_good
from cellrail_state.history import RunHistory
from cellrail_state.model import StepStatus, Turn
from cellrail_state.turns import job_address


class InnerCut(msgspec.Struct, frozen=True, kw_only=True):
    """A cut right before one turn's job of a step."""

    step: Step
    #: the origin's number of the step
    number: int
    turns: tuple[Turn, ...]
    #: the parallel loop that it lies in, with its items as the origin has them
    fork: Fork | None = None
    #: keys of the items of that loop that are executed again
    again: frozenset[str] = frozenset()
    #: the items of that loop ran one after another
    sequential: bool = False
    #: the items of the innermost loop are evaluated anew
    reeval: bool = False

    @property
    def label(self) -> str:
        """Its address."""
        at_loop = self.turns[-1].index < 0
        return job_address(self.step.label, self.turns[:-1] if at_loop else self.turns)


def inner_cut(
    flow: Flow,
    history: RunHistory,
    wanted: str | None,
    *,
    failed_only: bool = False,
    reeval: bool = False,
) -> InnerCut | str | None:
    """Where to cut: inside a loop, before a step, or where the planner says.

    Args:
        flow: the notebook as it is now.
        history: the origin.
        wanted: the address that was asked for; None for what failed.
        failed_only: execute the failed items of a loop.
        reeval: evaluate the items of the loop anew.

    Raises:
        StepNotFound: there is no such step, loop or item.
        RestartRefused: a step inside a loop without its item.
    """
    if failed_only:
        from cellrail.failed_items import failed_items

        return failed_items(flow, history, wanted, reeval=reeval)
    at = _named(flow, history, wanted) if wanted is not None else _failed(flow, history)
    cut = _from_its_loop(history, at) if isinstance(at, InnerCut) else at
    if not isinstance(cut, InnerCut):
        if reeval and (cut is None or not find_step(cut, flow.steps).options.foreach):
            raise RestartRefused(
                "--reeval: the cut lies in no loop with items",
                hint="name an item with --from 'LOOP[key]'",
            )
        return _new_items(flow, history, str(cut)) or cut if reeval else cut
    loop = at.turns[-1].loop if isinstance(at, InnerCut) else ""
    if reeval and not find_step(loop, flow.steps).options.foreach:
        raise RestartRefused(f"--reeval: {loop!r} is a --while loop, without items")
    # those of a loop that is cut at its beginning are evaluated in any case
    anew = reeval and at is cut
    return in_fork(flow, history, msgspec.structs.replace(cut, reeval=anew))


def _new_items(flow: Flow, history: RunHistory, wanted: str) -> InnerCut | None:
    """Of a parallel loop the items that are new, and those that did not end well."""
    step = find_step(wanted, flow.steps)
    number = origin_number(history, step)
    if (number, ()) not in history.forks or not step.options.parallel:
        return None
    # no item has this place: none is executed because it was asked for
    return InnerCut(
        step=step,
        number=number,
        turns=(Turn(step.label, -1, ""),),
        fork=items_fork(flow, history, step, ()),
        reeval=True,
    )


def _named(flow: Flow, history: RunHistory, wanted: str) -> InnerCut | str:
    if "[" not in wanted:
        step = find_step(wanted, flow.steps)
        _check_outermost(flow, step)
        return wanted
    named, rest = split_address(wanted)
    loops = [find_step(loop, flow.steps) for loop, _ in named]
    step = find_step(rest, flow.steps) if rest else loops[-1]
    _check_nesting(wanted, loops, step, rest)
    _check_outermost(flow, loops[0])
    turns: Path = ()
    for loop, (_, key) in zip(loops, named, strict=True):
        turns = (*turns, _turn(history, loop, turns, key))
    return InnerCut(step=step, number=origin_number(history, step), turns=turns)


def _check_outermost(flow: Flow, step: Step) -> None:
    """An address begins with a step that is in no loop."""
    if step.options.in_:
        raise RestartRefused(
            f"step {step.label!r} belongs to the loop {step.options.in_!r}: which item?",
            hint=_which_item(flow, step),
        )


def _which_item(flow: Flow, step: Step) -> str:
    """How an item of a step in loops is named."""
    loops, name = list[str](), step.options.in_
    while name:
        loops.insert(0, name)
        name = find_step(name, flow.steps).options.in_
    places = "/".join(f"{loop}[KEY]" for loop in loops)
    return f"--from '{places}/{step.label}', or --from {loops[0]}"


def _check_nesting(wanted: str, loops: list[Step], step: Step, rest: str) -> None:
    around = [loop.options.in_ for loop in loops[1:]] + ([step.options.in_] if rest else [])
    for loop, inner in zip(loops, around, strict=False):
        if inner != loop.name:
            raise StepNotFound(f"{wanted!r}: that is not how the loops are nested")
    for loop in loops:
        if not loop.options.loops:
            raise StepNotFound(f"{wanted!r}: step {loop.label!r} is no loop")


def _turn(history: RunHistory, loop: Step, around: Path, key: str) -> Turn:
    """The turn of a loop with this key, or at this place (`#2`)."""
    number = origin_number(history, loop)
    if loop.options.foreach:
        decided = history.decided.get((number, str(Purpose.FOREACH), around))
        keys = decided.keys if decided is not None else ()
    else:
        found = {t[-1].key for s, t in history.turns if s == number and t[:-1] == around and t}
        keys = tuple(sorted(found, key=int))
    if key in keys:
        return Turn(loop.label, keys.index(key), key)
    if key.startswith("#") and key[1:].isdigit() and int(key[1:]) < len(keys):
        return Turn(loop.label, int(key[1:]), keys[int(key[1:])])
    near = get_close_matches(key, keys, n=1)
    told = f"; did you mean {near[0]!r}?" if near else ""
    raise StepNotFound(
        f"the loop {job_address(loop.label, around)!r} had no item {key!r}{told}",
        hint=f"it had {len(keys)} items: {', '.join(keys[:10])}" + ", …" * (len(keys) > 10),
    )


def origin_number(history: RunHistory, step: Step) -> int:
    """The origin's number of a step."""
    for state in history.states:
        info = state.info
        if (step.name and info.name == step.name) or (
            not step.name and info.cell_id == step.cell_id and info.number == step.number
        ):
            return info.number
    return step.number


def _from_its_loop(history: RunHistory, cut: InnerCut) -> InnerCut | str:
    """The first job of a loop's first turn is the beginning of the loop itself.

    Not of a parallel loop: its other items do not follow.
    """
    step, around, turn = cut.step, cut.turns[:-1], cut.turns[-1]
    first = turn.loop == step.label and turn.index == 0
    if not first or (cut.number, around) in history.forks:
        return cut
    return msgspec.structs.replace(cut, turns=around) if around else step.label


def _failed(flow: Flow, history: RunHistory) -> InnerCut | None:
    """The turn that failed, where the first step that did not end well is in a loop."""
    for state in history.states:
        if handles_failures(state.info):
            continue
        good = {StepStatus.SUCCESS, StepStatus.KEPT, StepStatus.SKIPPED}
        if state.status in good or state.accepted:
            continue
        failing = [
            (number, turns)
            for (number, turns), job_id in history.turns.items()
            if turns and turns[0].loop == state.info.label
            for job in [history.job_by_id(job_id)]
            if not is_good(job) or history.given_up(job) is not None
        ]
        if not failing:
            return _unfinished_item(flow, history, state.info.number)
        number, turns = failing[-1]
        info = history.state(number).info
        step = find_step(info.name or f"#{info.number}", flow.steps)
        return InnerCut(step=step, number=number, turns=turns)
    return None


# --- parallel loops --------------------------------------------------------------------------


def _unfinished_item(flow: Flow, history: RunHistory, number: int) -> InnerCut | None:
    """The first item of a parallel loop that did not end, where the run did not end itself."""
    if (number, ()) not in history.forks:
        return None
    info = history.state(number).info
    step = find_step(info.name or f"#{info.number}", flow.steps)
    keys = keys_of(history, number)
    done = {turns[0].key for (n, turns) in history.turns if n == number and turns}
    first = next((n for n, key in enumerate(keys) if key not in done), 0)
    if not keys:
        return None
    turn = Turn(step.label, first, keys[first])
    return InnerCut(step=step, number=number, turns=(turn,))


def keys_of(history: RunHistory, number: int, around: Path = ()) -> tuple[str, ...]:
    """Keys of a loop's items in the origin."""
    decided = history.decided.get((number, str(Purpose.FOREACH), around))
    return decided.keys if decided is not None else ()


def in_fork(flow: Flow, history: RunHistory, cut: InnerCut) -> InnerCut:
    """The cut, with the parallel loop that it lies in.

    Raises:
        RestartRefused: a loop has become parallel since, or is no longer.
    """
    outermost = find_step(cut.turns[0].loop, flow.steps)
    block = block_of(flow, outermost)
    for step in block.steps():
        number = origin_number(history, step)
        known = any(n == number and p == Purpose.FOREACH for n, p, _ in history.decided)
        was = any(n == number for n, _ in history.forks)
        if known and was is not bool(step.options.parallel):
            told = "was parallel" if was else "was not parallel"
            raise RestartRefused(
                f"the loop {step.label!r} {told} in the origin, so nothing inside it can be cut",
                hint=f"restart from the loop itself: --from {outermost.label}",
            )
    place = history.fork_of(cut.turns)
    if place is None:
        return cut
    around = place[1]
    loop = find_step(cut.turns[len(around)].loop, flow.steps)
    target = cut.turns[: len(around) + 1]
    whole = cut.turns == target and cut.step.number == loop.number
    return msgspec.structs.replace(
        cut,
        fork=items_fork(flow, history, loop, around),
        again=frozenset({target[-1].key}) if whole else frozenset(),
    )


def items_fork(flow: Flow, history: RunHistory, loop: Step, around: Path) -> Fork:
    """A parallel loop with its items as the origin has them."""
    keys = keys_of(history, origin_number(history, loop), around)
    return Fork(
        step=loop,
        path=around,
        block=block_of(flow, loop),
        items=tuple((*around, Turn(loop.label, n, key)) for n, key in enumerate(keys)),
        around=tuple(find_step(turn.loop, flow.steps) for turn in around),
    )


def block_of(flow: Flow, step: Step) -> Block:
    """A step with the steps of its loop."""
    waiting = list(blocks_of(flow.steps))
    while waiting:
        block = waiting.pop()
        if block.step is step:
            return block
        waiting += block.body
    raise StepNotFound(f"the step {step.label!r} is in no loop")
