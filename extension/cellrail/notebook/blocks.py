"""Steps as blocks: a loop and the steps in it are one.

A header step with `--foreach` or `--while` and the steps below it with `--in HEADER` are a loop;
they stand together. A loop without such steps has the header's own code as its body.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches

import msgspec

from cellrail.notebook.model import Step


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A step, and the steps of its loop."""

    step: Step
    body: tuple[Block, ...] = ()

    @property
    def is_loop(self) -> bool:
        """Whether it runs once per item or turn."""
        return self.step.options.loops

    def steps(self) -> Iterator[Step]:
        """Its step and those of its loop, in order."""
        yield self.step
        for block in self.body:
            yield from block.steps()


def blocks_of(steps: Sequence[Step]) -> tuple[Block, ...]:
    """The blocks of a flow whose `mistakes` are none."""
    blocks: list[Block] = []
    place = 0
    while place < len(steps):
        block, place = _block(steps, place)
        blocks.append(block)
    return tuple(blocks)


def _block(steps: Sequence[Step], place: int) -> tuple[Block, int]:
    step = steps[place]
    place += 1
    body: list[Block] = []
    while step.options.loops and place < len(steps) and steps[place].options.in_ == step.name:
        inner, place = _block(steps, place)
        body.append(inner)
    return Block(step=step, body=tuple(body)), place


def mistakes(steps: Sequence[Step]) -> list[tuple[Step, str]]:
    """What is wrong with loops and branches, with the step it is wrong with."""
    return [*_misplaced(steps), *_branches(steps)]


def _misplaced(steps: Sequence[Step]) -> Iterator[tuple[Step, str]]:
    headers = {step.name for step in steps if step.options.loops and step.name}
    around: list[str] = []
    for step in steps:
        inside = step.options.in_
        if inside and inside not in headers:
            near = get_close_matches(inside, headers, n=1)
            told = f"; did you mean {near[0]!r}?" if near else ""
            yield step, f"--in {inside}: no step above has this name and --foreach or --while{told}"
            continue
        while around and around[-1] != inside:
            around.pop()
        if inside and not around:
            yield step, f"--in {inside}: the steps of a loop stand together, right below its header"
        if step.options.loops and step.name:
            around.append(step.name)


def _branches(steps: Sequence[Step]) -> Iterator[tuple[Step, str]]:
    closed: set[tuple[str, str]] = set()
    for step in steps:
        branch = step.options.branch
        if branch is None:
            continue
        group = (step.options.in_, branch.group)
        if group in closed:
            yield step, f"--branch {branch.group}: it stands behind the group's default step"
        if branch.default:
            closed.add(group)
