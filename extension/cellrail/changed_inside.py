"""What changed of a loop that a restart cuts into: kept turns are those of the old notebook.

* A step of the loop that is new, gone, or no longer of this loop refuses the cut, whatever is
  forced: the turns that are kept have no job of it, or one that nothing leads to.
* Another `--foreach`, `--while`, `--when`, `--branch` or `--collect`, or other code of a step that
  the item at the cut has executed already, refuses the cut, unless it is forced: the item would be
  half old and half new.
* Other code at the cut or behind it, and other parameters, are what a restart is made for. Earlier
  items keep what the old ones made of them, and the items are those that the old ones made, unless
  they are evaluated anew: that is told.

The code of a kept job is that of the run which made it: the origin may have kept it, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import msgspec

from cellrail.inside import InnerCut, block_of
from cellrail.notebook.actions import Path
from cellrail.notebook.address import find_step
from cellrail.notebook.fingerprint import is_blank
from cellrail.notebook.foreach import split
from cellrail.notebook.model import Flow, Step
from cellrail.notebook.options import OptionError, StepOptions, parse_options
from cellrail.notebook.origin import Made
from cellrail.notebook.reads import names_of
from cellrail.notebook.staleness import since_made
from cellrail_state.history import RunHistory
from cellrail_state.model import StepInfo
from cellrail_state.turns import job_address


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """Why a cut inside a loop is refused, and what a person should know of it."""

    #: the loop is not the same loop any more
    shape: tuple[str, ...] = ()
    #: `--force` keeps what was made all the same
    stale: tuple[str, ...] = ()
    told: tuple[str, ...] = ()


def changes_inside(
    flow: Flow,
    history: RunHistory,
    cut: InnerCut,
    numbers: Mapping[int, int],
    parameters: Collection[str],
) -> Changes:
    """What changed of the outermost loop that a cut lies in.

    Args:
        flow: the notebook as it is now.
        history: the origin.
        cut: where the restart goes on.
        numbers: the origin's number of each step.
        parameters: those that are given other values.
    """
    loop = find_step(cut.turns[0].loop, flow.steps)
    infos = {state.info.number: state.info for state in history.states}
    steps = list(block_of(flow, loop).steps())
    places = {step.label: step.number for step in steps}
    shape, stale, told = [], [], []
    for step in steps:
        old = infos.get(numbers.get(step.number, -1))
        if old is None:
            if not is_blank(step.body):
                shape.append(f"step {step.label!r}: new step in the loop {loop.label!r}")
            continue
        before, now = _options(old), step.options
        if before.in_ != now.in_:
            where = f"of {before.in_!r}" if before.in_ else "of no loop"
            shape.append(f"step {step.label!r}: was a step {where}")
        stale += [
            f"step {step.label!r}: {line} changed" for line in _other_lines(before, now, cut, step)
        ]
        if old.source_hash != step.source_hash:
            if step.number < cut.step.number:
                stale.append(f"step {step.label!r}: source changed")
            else:
                told.append(f"step {step.label!r}: source changed; kept items keep what it made")
        else:
            half, whole = _made_otherwise(history, old, step, cut, places)
            stale += [f"step {step.label!r}: {why}" for why in half[:1]]
            told += [
                f"step {step.label!r}: {why}; kept items keep what was made" for why in whole[:1]
            ]
        turns = [path for path, _ in history.turns_of(old.number)]
        kept = any(_kept(path, step, cut, places) is not None for path in turns)
        told += _other_values(step, cut, parameters, kept=kept)
    mine = {numbers.get(step.number) for step in steps}
    label = infos[numbers[loop.number]].label if loop.number in numbers else loop.label
    shape += [
        f"step {old.label!r} is absent from the loop {loop.label!r}"
        for old in _of_loop(label, infos)
        if old.number not in mine
    ]
    return Changes(shape=tuple(shape), stale=tuple(stale), told=tuple(told))


def _made_otherwise(
    history: RunHistory, old: StepInfo, step: Step, cut: InnerCut, places: Mapping[str, int]
) -> tuple[list[str], list[str]]:
    """Of the jobs that are kept, those that other code made: of the item at the cut, of others."""
    half, whole = list[str](), list[str]()
    for path, job in history.turns_of(old.number):
        kept = _kept(path, step, cut, places)
        if kept is None:
            continue
        made = Made(address=job_address(step.label, path), info=history.made_with(old.number, job))
        why = since_made(step, (made,))
        if why:
            (half if kept else whole).append(why)
    return half, whole


def _other_values(
    step: Step, cut: InnerCut, parameters: Collection[str], *, kept: bool
) -> Iterator[str]:
    """What other parameters would have made otherwise of the items that are kept, and of them."""
    loops = [turn.loop for turn in cut.turns]
    items = names_of(f"({split(step.options.foreach)[1]})").reads if step.options.foreach else ()
    for name in sorted(parameters):
        last = step.label == loops[-1]
        if name in items and step.label in loops and not (last and cut.reeval):
            way = "--reeval" if last else f"a restart from {step.label!r}"
            yield (
                f"step {step.label!r}: parameter `{name}` changed; its items are those that the "
                f"old one made ({way} evaluates them anew)"
            )
        if kept and name in names_of(step.body).reads:
            yield f"step {step.label!r}: parameter `{name}` changed; kept items keep what was made"


def _kept(path: Path, step: Step, cut: InnerCut, places: Mapping[str, int]) -> bool | None:
    """Whether a kept job is of the item at the cut; None where it is not kept.

    Args:
        path: the job's turns.
        step: its step.
        cut: where the restart goes on.
        places: numbers of the loop's steps, by label.
    """
    depth = 0
    while depth < min(len(path), len(cut.turns)) and path[depth] == cut.turns[depth]:
        depth += 1
    rest, there = path[depth:], cut.turns[depth:]
    if rest and there and rest[0].loop == there[0].loop:  # another item of a loop around the cut
        if cut.fork is not None and depth == len(cut.fork.path):
            return None if rest[0].key in cut.again else False
        return False if rest[0].index < there[0].index else None
    # of the same item: in a step of it, or in a loop of it, that ended before the cut
    mine = places.get(rest[0].loop, 0) if rest else step.number
    other = places.get(there[0].loop, 0) if there else cut.step.number
    return True if mine < other else None


def _options(info: StepInfo) -> StepOptions:
    try:
        return parse_options(info.options)
    except OptionError:  # of another version of cellrail
        return StepOptions()


def _other_lines(before: StepOptions, now: StepOptions, cut: InnerCut, step: Step) -> Iterator[str]:
    """Options that decide what turns there are, and what comes of them."""
    again = cut.reeval and step.label == cut.turns[-1].loop
    for name in ("foreach", "key", "while_", "when", "branch", "collect"):
        if again and name in {"foreach", "key"}:
            continue
        if getattr(before, name) != getattr(now, name):
            yield f"--{name.rstrip('_')}"


def _of_loop(label: str, infos: Mapping[int, StepInfo]) -> Iterator[StepInfo]:
    """The steps that a loop of the origin had, those of its inner loops too."""
    loops = {label}
    for _, info in sorted(infos.items()):
        if _options(info).in_ in loops:
            loops.add(info.label)
            yield info
