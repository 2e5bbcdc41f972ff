"""The room of waits: what is suspended, and until when; answers."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from cellrail.app.waitlist import Waiting
from cellrail.errors import UserError
from cellrail.panels.base import Args
from cellrail.panels.errand import Errands
from cellrail.panels.rooms.fields import json_of
from cellrail.panels.rooms.pacing import PacedRoom
from cellrail_state.errors import StoreNotFound
from cellrail_state.waits import CANCEL, RESUME

if TYPE_CHECKING:
    from cellrail.app import App

_LISTED = 200


class WaitsRoom(PacedRoom):
    """Answers for waits."""

    def __init__(self, app: App) -> None:
        """Look into a store.

        Args:
            app: the store's.
        """
        super().__init__(app)
        self._errands = Errands(app)

    def now(self, what: str, args: Args) -> Hashable:
        """Changes when a wait is told of, answered or over, and every few seconds."""
        del what, args
        waiting = tuple(info.wait_id for info in self.app.store.inbox.waiting())
        return self.pulse.beat(), waiting, int(self.app.clock() // 5)

    def ask_waits(self, args: Args) -> dict[str, Any]:
        """What runs wait for, the soonest to end first."""
        del args
        try:
            rows = [_row(one) for one in self.app.waits(limit=_LISTED)]
        except StoreNotFound:
            rows = []
        return {"rows": rows, "now": self.app.clock()}

    def ask_answer(self, args: Args) -> dict[str, Any]:
        """Resume or cancel a run; it goes on in a process of its own.

        Args:
            args: `run`, `step`, `by` (resume or cancel), `data` (JSON text; empty for none).
        """
        by, run_id = str(args.get("by")), str(args.get("run"))
        if by not in {RESUME, CANCEL}:
            raise UserError(f"an answer is resume or cancel, not {by!r}")
        text = str(args.get("data") or "") if by == RESUME else ""
        data = json_of(text) if text.strip() else None
        woke = self.app.answer(run_id, by, step=str(args.get("step") or "") or None, data=data)
        if not self.app.history(run_id).is_live:
            self._errands.begin(by, woke.run_id)
        return {"run": woke.run_id, "step": woke.step, "by": by}


def _row(one: Waiting) -> dict[str, Any]:
    info = one.info
    return {
        "key": info.wait_id, "run": info.run_id, "flow": one.flow, "step": info.label,
        "kind": info.kind, "asked": info.asked, "until": info.until,
        "on_timeout": info.on_timeout, "words": one.words, "can": one.can_answer,
        "labels": dict(one.labels), "live": one.is_live,
        "answered": one.answer is not None,
    }  # fmt: skip
