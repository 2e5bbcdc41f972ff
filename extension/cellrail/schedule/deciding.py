"""What a backfill does with a tick, and why. Pure: one place decides, for plans and for runs.

Outcomes are `Todo`, a closed set. A tick whose run lost its owner is recovered, one that somebody
runs is waited for; else it is what became of it that counts, and which ticks are wanted.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from cellrail_state.schedules import Which
from cellrail_state.standing import Stand, Standing


class Todo(StrEnum):
    """What is done with a tick."""

    #: a new run, from the first step
    RUN = "run"
    #: a new run that keeps what its last run has done
    RESTART = "restart"
    #: a new run in which only what changed executes
    RERUN = "rerun"
    #: the same run goes on
    RECOVER = "recover"
    #: somebody else runs it: what it comes to is waited for
    WAIT = "wait"
    NOTHING = "nothing"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which ticks a backfill wants."""

    which: Which
    #: how it fires: `backfill:ID`; "" where it has not begun
    name: str = ""
    #: digest of what it runs; "" where that is whatever is there then
    source: str = ""
    from_start: bool = False


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What is done with a tick, and why, in words."""

    todo: Todo
    why: str
    #: the run that is gone on from
    origin: str = ""


def decide(wanted: Wanted, stand: Stand) -> Decision:
    """What is done with a tick.

    Args:
        wanted: which ticks are wanted.
        stand: how it stands.
    """
    standing = stand.standing
    if standing in {Standing.RUNNING, Standing.CLAIMED}:
        return Decision(todo=Todo.WAIT, why=f"run {stand.run_id} is under way")
    if standing is Standing.SUSPENDED:
        return Decision(todo=Todo.NOTHING, why=f"run {stand.run_id} is suspended")
    if standing is Standing.INTERRUPTED:
        why = f"run {stand.run_id} was interrupted"
        own = bool(wanted.name) and stand.by == wanted.name
        if own or wanted.which is not Which.STALE:
            return Decision(todo=Todo.RECOVER, why=why, origin=stand.run_id)
        return Decision(todo=Todo.NOTHING, why=why)
    return _by_outcome(wanted, stand)


def _by_outcome(wanted: Wanted, stand: Stand) -> Decision:
    """By what became of it; a claim of somebody who is gone changes nothing of that."""
    cancelled = stand.outcome == Standing.CANCELLED
    if wanted.name and stand.ended_by == wanted.name and not cancelled:
        return Decision(todo=Todo.NOTHING, why=f"done: {stand.outcome}")
    if stand.filled:
        return _of_filled(wanted, stand)
    if stand.ended:
        return _of_unfilled(wanted, stand, cancelled=cancelled)
    wants = wanted.which in {Which.MISSING, Which.ALL}
    return Decision(todo=Todo.RUN if wants else Todo.NOTHING, why="never run")


def _of_unfilled(wanted: Wanted, stand: Stand, *, cancelled: bool) -> Decision:
    """No run of it was a success. One that was cancelled is still missing."""
    why = f"run {stand.ended} {'was cancelled' if cancelled else 'failed'}"
    if wanted.which is Which.FAILED or (cancelled and wanted.which is Which.MISSING):
        todo = Todo.RUN if wanted.from_start else Todo.RESTART
        return Decision(todo=todo, why=why, origin=stand.ended)
    return Decision(todo=Todo.RUN if wanted.which is Which.ALL else Todo.NOTHING, why=why)


def _of_filled(wanted: Wanted, stand: Stand) -> Decision:
    if wanted.which is Which.ALL:
        return Decision(todo=Todo.RUN, why=f"all: run {stand.filled} has filled it before")
    if wanted.which is Which.STALE and stand.source != wanted.source:
        todo = Todo.RUN if wanted.from_start else Todo.RERUN
        why = f"run {stand.filled} was made by another source"
        return Decision(todo=todo, why=why, origin=stand.filled)
    return Decision(todo=Todo.NOTHING, why=f"filled by run {stand.filled}")
