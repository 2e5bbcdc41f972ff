"""What the turns of a loop leave to be collected (`--collect`). Pure.

A turn leaves its value of a name if a cell of it that ended well may have bound the name, or, where
no cell of the loop binds it, may have changed what it holds. It leaves nothing, None in the list,
where every cell that does so failed (and the flow went on) or was skipped: what the name holds then
is of the turn before. That is the same whether the items share a kernel or not.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches
from enum import StrEnum

from cellrail.notebook.blocks import Block, blocks_of
from cellrail.notebook.foreach import targets
from cellrail.notebook.model import Step
from cellrail.notebook.reads import names_of


class Did(StrEnum):
    """What a step did in a turn."""

    #: its code ended well
    WELL = "well"
    #: its code failed, and the flow went on with `error_NAME`
    FAILED = "failed"
    #: a loop within the turn: it came to its end
    LEFT = "left"


#: that a step, by number, did this
Mark = tuple[int, Did]


def error_name(step: Step) -> str:
    """The variable that the flow goes on with after the step's error; "" where it does not."""
    if step.options.on_error != "continue":
        return ""
    return "error_" + (re.sub(r"\W", "_", step.name) or str(step.number))


class Collecting:
    """Who binds what a loop collects."""

    def __init__(self, block: Block) -> None:
        """Read the code of a loop's steps."""
        self.names = block.step.options.collect
        self._binds: dict[str, set[Mark]] = {}
        #: and who may change what it holds
        self._changes: dict[str, set[Mark]] = {}
        #: whose code may bind anything
        self._any: set[Mark] = set()
        self.own = frozenset(targets(block.step.options.foreach))
        if self.names:
            self._read(block)

    def _read(self, block: Block) -> None:
        step = block.step
        found = names_of(step.body)
        for name in found.writes:
            self._binds.setdefault(name, set()).add((step.number, Did.WELL))
        for name in found.mutates:
            self._changes.setdefault(name, set()).add((step.number, Did.WELL))
        if found.opaque:
            self._any.add((step.number, Did.WELL))
        if error := error_name(step):
            self._binds.setdefault(error, set()).add((step.number, Did.FAILED))
        for inner in block.body:
            if not inner.step.options.parallel:  # of such a loop only what it collects comes back
                self._read(inner)
            if inner.is_loop:
                line = inner.step.options
                for name in {*line.collect, *targets(line.foreach)}:
                    self._binds.setdefault(name, set()).add((inner.step.number, Did.LEFT))

    def missing(self, did: Collection[Mark]) -> tuple[str, ...]:
        """The names of which a turn leaves nothing.

        Args:
            did: what its steps did.
        """
        marks = set(did)
        return tuple(
            name
            for name in self.names
            if name not in self.own
            # code that is called may bind a name that no step of the loop shows
            and (known := self._binds.get(name) or self._changes.get(name))
            and not marks & (known | self._any)
        )

    def unbound(self) -> tuple[str, ...]:
        """The names that no step of the loop can bind, as far as the code shows."""
        if self._any:
            return ()
        known = self._binds.keys() | self._changes.keys() | self.own
        return tuple(name for name in self.names if name not in known)

    def near(self, name: str) -> str:
        """The name most like this one that the loop binds; "" where none is like it."""
        return next(iter(get_close_matches(name, [*self._binds], n=1)), "")


def mistakes(steps: Sequence[Step]) -> Iterator[tuple[Step, str]]:
    """Names that a loop collects and nothing binds (of steps whose loops are right)."""
    waiting = list(blocks_of(steps))
    while waiting:
        block = waiting.pop(0)
        waiting += block.body
        collecting = Collecting(block)
        for name in collecting.unbound():
            # a function from elsewhere may bind it when it is called
            if any(re.search(rf"\bglobal\b.*\b{re.escape(name)}\b", s.body) for s in steps):
                continue
            near = collecting.near(name)
            yield block.step, nothing_binds([name]) + f"; did you mean {near!r}?" * bool(near)


def nothing_binds(names: Sequence[str]) -> str:
    """That a loop collects what none of its turns binds."""
    return f"--collect {','.join(names)}: no turn of the loop binds it"
