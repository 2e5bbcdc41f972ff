"""What is to be done next in a run, and what is told of it: the words of `control`'s machine.

`control` yields an `Action`; whoever carries it out answers with `Told`, `Ended`, `Woke` or
`Joined`. What a run or an item came to is `End` or `ItemEnd`.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from cellrail.notebook.blocks import Block
from cellrail.notebook.model import Step
from cellrail_state.model import Decided, Effects, RunStatus, StepError, StepStatus, Turn

#: the turns that an action happens in, outermost first
Path = tuple[Turn, ...]


class Purpose(StrEnum):
    """What an expression is evaluated for."""

    WHEN = "when"
    FOREACH = "foreach"
    WHILE = "while"
    RETRY_IF = "retry-if"
    STOP_IF = "stop-if"


class _Action(msgspec.Struct, frozen=True, kw_only=True):
    step: Step
    path: Path = ()


class Ask(_Action, frozen=True, kw_only=True):
    """Evaluate an expression of the step's line; answered by `Told`."""

    purpose: Purpose
    expression: str
    #: of the attempt that failed, for `--retry-if`
    error: StepError | None = None


class Fire(_Action, frozen=True, kw_only=True):
    """Execute the step's code; answered by `Ended`."""

    attempt: int = 1
    #: a loop around goes on past its failure
    passed_over: bool = False
    #: which execution of the step it is (`flow.rerun`), from 1
    runs: int = 1


class Commit(_Action, frozen=True, kw_only=True):
    """Record what was fired last, with this verdict."""

    attempt: int = 1
    status: StepStatus
    accepted: bool = False
    cause: str = ""
    #: the step will not be tried again
    final: bool = True
    runs: int = 1
    #: it ended well, and asked to be executed again: the namespace will be put back
    again: bool = False


class RollBack(_Action, frozen=True, kw_only=True):
    """Put the namespace back to what it was before the step fired."""


class Wait(_Action, frozen=True, kw_only=True):
    """Let so many seconds pass; answered by `Woke`, or by None where they have passed."""

    seconds: float
    #: retry, or sleep
    why: str = "retry"
    attempt: int = 1
    runs: int = 1


class Suspend(_Action, frozen=True, kw_only=True):
    """The job that was committed last waits, as it has asked for; answered by `Woke`."""

    attempt: int = 1
    runs: int = 1


class Skip(_Action, frozen=True, kw_only=True):
    """Record that the step is not executed, on purpose."""

    reason: str


class Enter(_Action, frozen=True, kw_only=True):
    """Begin a turn of the loop: the last place of `path`; its variable is bound to the item."""


class Turned(_Action, frozen=True, kw_only=True):
    """A turn of the loop has ended: gather what `--collect` names, None where it was skipped.

    Answered by None, or by why it cannot be gathered: then the run fails.
    """

    skipped: bool = False
    #: names of which it has left nothing (`collecting`)
    missing: tuple[str, ...] = ()


class Leave(_Action, frozen=True, kw_only=True):
    """The loop has ended: what it collected is bound.

    Answered by None, or by why it cannot be bound: then the run fails.
    """

    #: names that some turn must have bound
    expects: tuple[str, ...] = ()


class Fork(_Action, frozen=True, kw_only=True):
    """Carry out the loop's items, each conducted apart by `conduct_item`; answered by `Joined`.

    `path` leads to the loop. Where an item tells an `end`, no further one begins.
    """

    block: Block
    #: the paths of the items, in order
    items: tuple[Path, ...]
    #: the loops around, outermost first
    around: tuple[Step, ...] = ()


Action = Ask | Fire | Commit | RollBack | Wait | Suspend | Skip | Enter | Turned | Leave | Fork


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a job's code ended."""

    #: ok, error, timeout, overdue (the whole run's time was up), died or interrupted
    ending: str
    error: StepError | None = None
    #: in words, where it is not the user's error
    cause: str = ""
    #: `sys.exit(0)`
    exited: bool = False
    #: why it has failed though its code has not: `--strict`
    refused: str = ""
    #: what it wrote that is not its own, in words: nothing tolerates that
    forbidden: str = ""
    #: the kernel lives: without it nothing can be tried again, and the flow cannot go on
    alive: bool = True
    #: it has asked for a wait
    waits: bool = False
    #: with `waits`: it asks to be executed again behind it
    again: bool = False


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """An expression's value: true or false, or the keys of a loop's items in order."""

    value: bool = False
    keys: tuple[str, ...] = ()
    #: what it has read beyond its kernel; None where that was nothing
    effects: Effects | None = None
    #: it raised
    error: StepError | None = None
    #: there is no kernel to ask: an item's job has failed with it, in this way
    lacks: Ended | None = None

    @classmethod
    def of(cls, known: Decided) -> Told:
        """What a journal tells."""
        return cls(value=known.value, keys=known.keys, effects=known.effects)


class Woke(msgspec.Struct, frozen=True, kw_only=True):
    """How a wait ended; or that it has not, and nobody stays to wait for it."""

    #: resume, timeout, cancel or parked
    by: str
    #: what it comes to where its time was up: resume, cancel or fail
    on_timeout: str = "resume"
    who: str = ""
    #: of one that is parked: what it waits for, in words
    cause: str = ""


class End(msgspec.Struct, frozen=True, kw_only=True):
    """What the run came to."""

    status: RunStatus
    cause: str = ""
    #: address of the step that decided it
    step: str = ""
    #: what would have to pass before a step behind the last one (its `--sleep`)
    rest: Wait | None = None


class ItemEnd(msgspec.Struct, frozen=True, kw_only=True):
    """What a parallel item came to."""

    #: it failed, and the loop goes on past it
    skipped: bool = False
    #: names of which it has left nothing to be collected
    missing: tuple[str, ...] = ()
    #: the run ends with it
    end: End | None = None
    #: label of the loop around that goes on with its own next item
    leaves: str = ""


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """What the items came to, in order; None for one that did not begin."""

    items: tuple[ItemEnd | None, ...] = ()
    #: why none of them can begin: the loop itself has failed
    refused: str = ""
