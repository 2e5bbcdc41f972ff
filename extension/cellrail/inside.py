"""Cuts inside loops: from an address, or from what failed, to a turn of the origin."""

from __future__ import annotations

from difflib import get_close_matches

import msgspec

from cellrail.errors import RestartRefused, StepNotFound
from cellrail.notebook.address import find_step, split_address
from cellrail.notebook.control import Path, Purpose, address
from cellrail.notebook.model import Flow, Step
from cellrail_state.history import RunHistory
from cellrail_state.model import StepStatus, Turn


class InnerCut(msgspec.Struct, frozen=True, kw_only=True):
    """A cut right before one turn's job of a step."""

    step: Step
    #: the origin's number of the step
    number: int
    turns: tuple[Turn, ...]

    @property
    def label(self) -> str:
        """Its address."""
        return address(self.step, self.turns)


def inner_cut(flow: Flow, history: RunHistory, wanted: str | None) -> InnerCut | str | None:
    """Where to cut: inside a loop, before a step, or where the planner says.

    Args:
        flow: the notebook as it is now.
        history: the origin.
        wanted: the address that was asked for; None for what failed.

    Raises:
        StepNotFound: there is no such step, loop or item.
        RestartRefused: a step inside a loop without its item.
    """
    if wanted is None:
        return _failed(flow, history)
    if "[" not in wanted:
        step = find_step(wanted, flow.steps)
        if step.options.in_:
            raise RestartRefused(
                f"step {step.label!r} belongs to the loop {step.options.in_!r}: which item?",
                hint=f"--from '{step.options.in_}[KEY]/{step.label}', or --from {step.options.in_}",
            )
        return wanted
    named, rest = split_address(wanted)
    loops = [find_step(loop, flow.steps) for loop, _ in named]
    step = find_step(rest, flow.steps) if rest else loops[-1]
    _check_nesting(wanted, loops, step, rest)
    turns: Path = ()
    for loop, (_, key) in zip(loops, named, strict=True):
        turns = (*turns, _turn(history, loop, turns, key))
    return _from_its_loop(history, step, turns)


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
    number = _origin_number(history, loop)
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
        f"the loop {loop.label!r} had no item {key!r}{told}",
        hint=f"it had {len(keys)} items: {', '.join(keys[:10])}" + ", …" * (len(keys) > 10),
    )


def _origin_number(history: RunHistory, step: Step) -> int:
    for state in history.states:
        info = state.info
        if (step.name and info.name == step.name) or (
            not step.name and info.cell_id == step.cell_id and info.number == step.number
        ):
            return info.number
    return step.number


def _from_its_loop(history: RunHistory, step: Step, turns: Path) -> InnerCut | str:
    """The first job of a loop's first turn is the beginning of the loop itself."""
    while turns and turns[-1].loop == step.label and turns[-1].index == 0:
        turns = turns[:-1]
    if not turns:
        return step.name or f"#{step.number}"
    return InnerCut(step=step, number=_origin_number(history, step), turns=turns)


def _failed(flow: Flow, history: RunHistory) -> InnerCut | str | None:
    """The turn that failed, where the first step that did not end well is in a loop."""
    for state in history.states:
        good = {StepStatus.SUCCESS, StepStatus.KEPT, StepStatus.SKIPPED}
        if state.status in good or state.accepted:
            continue
        failing = [
            (number, turns)
            for (number, turns), job_id in history.turns.items()
            if turns and turns[0].loop == state.info.label
            for job in [history.job_by_id(job_id)]
            if job.status is not StepStatus.SUCCESS and not job.accepted
        ]
        if not failing:
            return None
        number, turns = failing[-1]
        info = history.state(number).info
        step = find_step(info.name or f"#{info.number}", flow.steps)
        return _from_its_loop(history, step, turns)
    return None
