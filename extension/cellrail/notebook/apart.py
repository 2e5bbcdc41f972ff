"""Which names the items of a parallel loop may write.

Each item works on a namespace of its own, and only what the loop collects comes back. A write to a
name that the notebook had before would be lost without a word: it is refused, before the run where
the code shows it, else when the item has done it. An item's own are

* the variables of its loop and of loops within it,
* what the loop collects,
* names that were not there when the loop began: they live and end with the item.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Sequence

import msgspec

from cellrail.notebook.blocks import Block, blocks_of
from cellrail.notebook.foreach import targets
from cellrail.notebook.model import Step
from cellrail.notebook.reads import names_of, option_names
from cellrail.notebook.shelllines import parsed

_HINT = "only --collect names come back: collect it, or bind another name"


def own_names(block: Block) -> frozenset[str]:
    """The names that an item of this loop may write though the notebook has them."""
    options = [step.options for step in block.steps()]
    bound = {name for option in options if option.foreach for name in targets(option.foreach)}
    return frozenset(bound | set(block.step.options.collect))


def is_variable(name: str) -> bool:
    """Whether a root is a person's variable: not `Out[3]`, nor `__warningregistry__`."""
    return name.isidentifier() and not (name.startswith("__") and name.endswith("__"))


def forbidden(written: Collection[str], outer: Collection[str], own: Collection[str]) -> str:
    """Why a job of an item must not have written these names; empty where it may.

    Args:
        written: what the job bound or changed.
        outer: the names that were there when the loop began.
        own: `own_names` of the loop.
    """
    lost = sorted(n for n in written if is_variable(n) and n in outer and n not in own)
    if not lost:
        return ""
    names = ", ".join(f"`{name}`" for name in lost)
    was = "was" if len(lost) == 1 else "were"
    return f"{names} {was} there before the parallel loop and must not be changed in it; {_HINT}"


def in_item(step: Step, loop: Step) -> Step:
    """A step as an item of a parallel loop executes it: the loop is no loop there.

    Args:
        step: any of the notebook.
        loop: the step of the loop's line.
    """
    options = step.options
    if step.number == loop.number:
        options = msgspec.structs.replace(
            options, when="", branch=None, in_="", parallel=0, foreach="", key="", collect=(),
            # behind its failure nothing else of the item is executed
            on_error="stop" if options.on_error == "skip" else options.on_error,
        )  # fmt: skip
    elif loop.name and options.in_ == loop.name:
        options = msgspec.structs.replace(options, in_="")
    else:
        return step
    names, line = names_of(step.body), option_names(options)
    return msgspec.structs.replace(
        step, options=options, reads=names.reads | line.reads, opaque=names.opaque or line.opaque
    )


def evaluation(loop: Step, number: int) -> Step:
    """A step that reads what the items of a loop, and their keys, are evaluated from."""
    options = loop.options
    body = f"for {options.foreach}:\n    ({options.key or None})"
    names = names_of(body)
    return Step(
        number=number, body=body, reads=names.reads, writes=names.writes, opaque=names.opaque,
        mentions=names.mentions, looks_up=names.looks_up,
    )  # fmt: skip


def mistakes(steps: Sequence[Step]) -> Iterator[tuple[Step, str]]:
    """What the code shows to be wrong with parallel loops (of steps whose loops are right)."""
    before: dict[str, Step] = {}
    for block in blocks_of(steps):
        yield from _within(block, dict(before), apart=None)
        for step in block.steps():
            before.update(dict.fromkeys(step.writes, step))


def _within(
    block: Block, before: dict[str, Step], apart: Block | None
) -> Iterator[tuple[Step, str]]:
    """Mistakes of a block, `before` which names were bound, in the parallel loop `apart`."""
    step = block.step
    if step.options.parallel:
        if apart is not None:
            told = f"--parallel: the loop {apart.step.label!r} around it is parallel already"
            yield step, told
            return
        apart = block
    if apart is not None:
        if step.options.no_checkpoint and apart.step.options.collect:
            yield step, "--no-checkpoint: what a parallel loop collects comes through checkpoints"
        if step.options.sleep is not None:
            told = "--sleep: an item of a parallel loop cannot wait, other items run beside it"
            yield step, f"{told}; sleep in a step behind the loop"
        yield from _lost_writes(step, before, own_names(apart))
        for inner in block.body:
            yield from _within(inner, before, apart)
        return
    before.update(dict.fromkeys(step.writes, step))
    for inner in block.body:
        yield from _within(inner, before, None)
        for other in inner.steps():
            before.update(dict.fromkeys(other.writes, other))


def _lost_writes(
    step: Step, before: dict[str, Step], own: Collection[str]
) -> Iterator[tuple[Step, str]]:
    written = step.writes - _imported(step.body)
    for name in sorted((written & before.keys()) - set(own)):
        yield step, f"`{name}` is bound in step {before[name].label!r} already; {_HINT}"


def _imported(body: str) -> set[str]:
    """Names that are bound by imports: the same module again is no change."""
    tree = parsed(body)
    nodes = list(ast.walk(tree)) if tree is not None else []
    aliases = [a for n in nodes if isinstance(n, (ast.Import, ast.ImportFrom)) for a in n.names]
    return {alias.asname or alias.name.partition(".")[0] for alias in aliases}
