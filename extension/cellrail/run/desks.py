"""Desks with everybody who answers there, for headless runs and open notebooks."""

from __future__ import annotations

import getpass
from collections.abc import Iterable, Mapping

import msgspec

from cellrail.run.desk import Desk
from cellrail.run.eachs import Eachs
from cellrail.run.folder import Folder
from cellrail.run.onces import Onces
from cellrail.run.past import Past
from cellrail.run.recorder import Recorder
from cellrail.run.states import States
from cellrail.run.waits import Waiter, WaitRules
from cellrail_state.eachs import EachBook
from cellrail_state.model import EachStored, OnceDone, Tick, WaitInfo, Woken


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """How a run waits, and what it has waited for."""

    rules: WaitRules
    #: waits that are over, in order
    woken: tuple[Woken, ...] = ()
    #: all waits of the run, by id
    infos: dict[str, WaitInfo] = {}
    #: id of the last job before what executes next
    after: str = ""


def own_user() -> str:
    """The name of the user that this process belongs to."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a name for its user
        return "unknown"


def own_scope() -> str:
    """Whose states the steps of a run see that is started by hand."""
    return f"user:{own_user()}"


def desk_of(
    recorder: Recorder,
    *,
    flow: str,
    scope: str = "",
    past: Past | None = None,
    once: Mapping[str, OnceDone] | None = None,
    tick: Tick | None = None,
    waiting: Waiting | None = None,
    each: Iterable[EachStored] = (),
    live: bool = False,
) -> Desk:
    """The desk of a run.

    Args:
        recorder: the run's journal.
        flow: the flow's id.
        scope: whose states its steps see; the user's own by default.
        past: what its steps saw in its origin.
        once: what it, or what it was restarted from, has done once, by key.
        tick: the tick that it is of; None where it was started by hand.
        waiting: how it waits, and what it has waited for; None where an open notebook's clerk is
            added, which knows the notebook.
        each: what `flow.each` has stored in mid-cell, and can be gone on from.
        live: a person executes its cells.
    """
    desk = Desk(recorder, user=own_user())
    desk.add(States(desk, flow=flow, scope=scope or own_scope(), past=past))
    desk.add(Folder(desk))
    key = f"{tick.stamp}-{tick.inputs}" if tick is not None else ""
    desk.add(Onces(desk, flow=flow, done=once or {}, tick=key))
    if tick is not None:
        desk.facts["tick"] = {"moment": tick.key.moment.isoformat(), "zone": tick.zone}
    desk.add(Eachs(desk, EachBook(each, live=live)))
    if waiting is not None:
        desk.waiter = Waiter(
            desk, rules=waiting.rules, woken=waiting.woken, infos=waiting.infos,
            after=waiting.after,
        )  # fmt: skip
        desk.add(desk.waiter)
    return desk
