"""What the runs of a store wait for, as people look at it."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec

from cellrail.app.base import AppBase
from cellrail_state.model import RunKind
from cellrail_state.tables import Listing
from cellrail_state.waits import Answer, WaitInfo


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A wait that nobody has gone on from."""

    info: WaitInfo
    flow: str
    labels: dict[str, str] = {}
    #: it is in an open notebook
    is_live: bool = False
    #: the process that drives the run, or has it open, is there
    owned: bool = False
    #: it was answered, and nobody has gone on with it yet
    answer: Answer | None = None

    @property
    def words(self) -> str:
        """How it stands."""
        if self.answer is not None:
            who = f" by {self.answer.who}" if self.answer.who else ""
            how = {"resume": "resumed", "cancel": "cancelled", "timeout": "its time was up"}
            told = f"{how.get(self.answer.by, self.answer.by)}{who}"
            return f"{told}; " + ("goes on" if self.owned else "nobody has gone on with it yet")
        if self.is_live:
            return "in an open notebook" if self.owned else "the notebook's kernel has ended"
        if self.info.until is None:
            return "its step is still running" if self.owned else "its step was interrupted"
        return "waits"

    @property
    def until(self) -> str:
        """When its time is up, here; `resumed` where it waits for somebody."""
        if self.info.until is None:
            return "resumed"
        return dt.datetime.fromtimestamp(self.info.until).astimezone().isoformat(" ", "seconds")

    @property
    def can_answer(self) -> bool:
        """Whether an answer would count."""
        gone = not self.owned and (self.is_live or self.info.until is None)
        return self.answer is None and not gone

    def __repr__(self) -> str:
        return (
            f"<wait of {self.info.run_id} in {self.info.label}, until {self.until}: {self.words}>"
        )

    def _repr_html_(self) -> str:
        return Waits([self])._repr_html_()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        info = self.info
        return {
            "run_id": info.run_id, "flow": self.flow, "step": info.label, "kind": info.kind,
            "asked": info.asked, "until": info.until, "on_timeout": info.on_timeout,
            "labels": self.labels, "live": self.is_live, "words": self.words,
            "can_answer": self.can_answer,
        }  # fmt: skip


class Waits(Listing[Waiting]):
    """Waits as a listing."""

    title = "waits"
    headings = ("run", "flow", "step", "until", "how it stands")
    empty = "no run waits"

    def row(self, record: Waiting) -> tuple[str, ...]:
        """A wait's line."""
        info = record.info
        return info.run_id, record.flow, info.label, record.until, record.words


class WaitList(AppBase):
    """Lists waits."""

    def waits(self, *, limit: int = 200) -> Waits:
        """What runs wait for, the soonest to end first; what has no end last.

        Args:
            limit: at most so many.
        """
        store = self.store
        waiting = store.inbox.waiting()
        waiting.sort(key=lambda info: (info.until is None, info.until or 0.0, info.asked))
        found = Waits()
        for info in waiting[:limit]:
            started = store.started(info.run_id)
            found.append(
                Waiting(
                    info=info, flow=store.current_flow(started), labels=dict(started.labels),
                    is_live=started.kind is RunKind.LIVE, owned=store.is_owned(info.run_id),
                    answer=store.inbox.answered(info.wait_id),
                )
            )  # fmt: skip
        return found
