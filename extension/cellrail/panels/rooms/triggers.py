"""The room of triggers: schedules, their next ticks, and the ticks that they have missed."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from cellrail.panels.base import Args
from cellrail.panels.errand import Errand, Errands
from cellrail.panels.rooms.pacing import PacedRoom
from cellrail.schedule.due import Due
from cellrail_state.errors import StoreNotFound
from cellrail_state.schedules import Trigger
from cellrail_state.sql import queries

if TYPE_CHECKING:
    from cellrail.app import App

#: so many next ticks, so many of the missed ones
_NEXT, _SHOWN = 5, 20


class TriggersRoom(PacedRoom):
    """Answers for triggers."""

    def __init__(self, app: App) -> None:
        """Look into a store.

        Args:
            app: the store's.
        """
        super().__init__(app)
        self._errands = Errands(app)
        self._tick: Errand | None = None

    def stamp(self, what: str, args: Args) -> Hashable:
        """How far a tick has come is told at once."""
        if what == "ticked":
            return self._tick is None or self._tick.ended
        return super().stamp(what, args)

    def now(self, what: str, args: Args) -> Hashable:
        """Changes when a trigger or a run does, and every ten seconds."""
        del what, args
        return self.pulse.beat(), int(self.app.clock() // 10)

    def ask_triggers(self, args: Args) -> dict[str, Any]:
        """Every trigger of the store."""
        del args
        try:
            triggers = self.app.trigger_list()
            found = self.app.store.catalog.query(queries()["fired_newest"]) if triggers else []
        except StoreNotFound:
            return {"rows": [], "now": self.app.clock()}
        runs = {row["fired_by"]: row for row in found}
        return {
            "rows": [self._row(one, runs.get(f"trigger:{one.id}")) for one in triggers],
            "now": self.app.clock(),
        }

    def ask_enable(self, args: Args) -> dict[str, Any]:
        """Enable one, from its next tick on."""
        return {"id": self.app.trigger_enable(str(args.get("id"))).id}

    def ask_disable(self, args: Args) -> dict[str, Any]:
        """Disable one; what it has fired goes on."""
        return {"id": self.app.trigger_disable(str(args.get("id"))).id}

    def ask_tick(self, args: Args) -> dict[str, Any]:
        """Fire what is due, once, in a process of its own; which ticks are run, and which not."""
        del args
        told = [_due(one.id, self.app.trigger_due(one.id))
                for one in self.app.trigger_list() if one.enabled]  # fmt: skip
        self._tick = self._errands.begin("tick")
        return {"begun": [one for one in told if one["due_count"] or one["skipped_count"]]}

    def ask_ticked(self, args: Args) -> dict[str, Any]:
        """Whether the last press is still at work, and what could not be run."""
        del args
        if self._tick is None:
            return {"ended": True, "error": None}
        state = self._tick.state()
        return {"ended": state.state == "ended", "error": state.error}

    def _row(self, one: Trigger, run: dict[str, Any] | None) -> dict[str, Any]:
        due = self.app.trigger_due(one.id) if one.enabled else Due()
        return {
            **_due(one.id, due),
            "flow": one.flow, "cron": one.cron, "zone": one.zone,
            "enabled": one.enabled, "missed_policy": str(one.missed),
            "max_active": one.max_active, "late_after": one.late_after,
            "inputs": {**{n: str(v) for n, v in one.inputs.items()},
                       **dict.fromkeys(one.secrets, "***")},
            "labels": dict(one.labels), "out": one.out, "created": one.created, "user": one.user,
            "looked": self.app.store.triggers.looked(one),
            "next": [t.isoformat() for t in self.app.trigger_next(one.id, _NEXT)]
            if one.enabled else [],
            "active": run["active"] if run else 0,
            "last": {"run": run["run_id"], "status": run["status"]} if run else None,
        }  # fmt: skip


def _due(trigger: str, due: Due) -> dict[str, Any]:
    missed = set(due.missed)
    return {
        "id": trigger,
        "due": [{"tick": t.isoformat(), "missed": t in missed} for t in due.ticks[:_SHOWN]],
        "due_count": len(due.ticks), "missed_count": len(due.missed), "more": due.more,
        "skipped": [tick.isoformat() for tick in due.skipped[:_SHOWN]],
        "skipped_count": len(due.skipped),
    }  # fmt: skip
