"""A backfill as people look at it, and its plan."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

import msgspec

from cellrail.filling import Counts, Item
from cellrail.schedule.deciding import Todo
from cellrail_state.schedules import Backfill, BackfillState, Filling
from cellrail_state.sql import queries
from cellrail_state.standing import Standing
from cellrail_state.tables import Listing, Shown, Table, facts

if TYPE_CHECKING:
    from cellrail.app.backfilling import Backfilling, Range

_SHOWN = 50
_NOTHING = "nothing to do"
_FIRST_FAILURES = 5
#: told of a backfill whose process is gone
INTERRUPTED = "interrupted"


class FillPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What would happen to each tick of a range."""

    backfill: Backfill
    items: list[Item]
    #: what is executed once for all runs, in words
    shared: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Ticks by what is done with them."""
        return dict(collections.Counter(str(item.decision.todo) for item in self.items))

    def lines(self, *, limit: int = _SHOWN) -> list[str]:
        """For people."""
        lines = [self._title, self._told, *self.shared]
        wanted = self._wanted
        lines += [
            f"  {item.tick.isoformat()}  {item.decision.todo:<8} {item.decision.why}"
            for item in wanted[:limit]
        ]
        if len(wanted) > limit:
            lines.append(f"  … and {len(wanted) - limit} more")
        return lines

    @property
    def _title(self) -> str:
        backfill = self.backfill
        return (
            f"{len(self.items)} ticks of {backfill.cron!r} in {backfill.zone} "
            f"from {backfill.start} to {backfill.end}"
        )

    @property
    def _told(self) -> str:
        return ", ".join(f"{n} {todo}" for todo, n in sorted(self.counts.items())) or _NOTHING

    @property
    def _wanted(self) -> list[Item]:
        return [item for item in self.items if item.decision.todo is not Todo.NOTHING]

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        rows = [("all", self._told, "; ".join(self.shared))]
        rows += [
            (item.tick.isoformat(), str(item.decision.todo), item.decision.why)
            for item in self._wanted[:_SHOWN]
        ]
        headings = ("tick", "what happens", "why")
        return Table(title=self._title, headings=headings, rows=tuple(rows)).html()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        backfill = self.backfill
        return {
            "flow": backfill.flow, "cron": backfill.cron, "zone": backfill.zone,
            "start": backfill.start, "end": backfill.end, "counts": self.counts,
            "shared": list(self.shared),
            "ticks": [
                {
                    "tick": item.tick.isoformat(), "todo": str(item.decision.todo),
                    "why": item.decision.why, "standing": str(item.stand.standing),
                    "run_id": item.stand.run_id,
                }
                for item in self.items
            ],
        }  # fmt: skip


class Progress(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """How far a backfill is, as the store tells it: whoever drives it, or none."""

    #: ticks of its range that are its own: it has run them, runs them, or has to
    total: int
    #: those that nothing more is done with, by how they stand
    ended: dict[str, int] = {}
    #: those that run now
    running: int = 0
    #: runs that ended since it was last started or resumed, and the seconds since then
    done: int = 0
    seconds: float = 0.0
    #: the first failures: tick, run and why
    failures: list[tuple[str, str, str]] = []

    @property
    def left(self) -> int:
        """Ticks that are still to be run, or running."""
        return self.total - sum(self.ended.values())

    @property
    def rate(self) -> float:
        """Runs per second; 0 where nobody knows."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the end at this rate; None where nobody knows."""
        return self.left / self.rate if self.rate > 0 else None


class Fill:
    """A backfill."""

    def __init__(self, app: Backfilling, record: Backfill) -> None:
        """Look at one.

        Args:
            app: whose store it is in.
            record: the backfill.
        """
        self._app, self.record = app, record
        #: how far it came while this process drove it; None where none of it did
        self.driven: Counts | None = None
        #: its ticks, once they are known not to change
        self._found: Range | None = None

    def __repr__(self) -> str:
        return f"<backfill {self.id} of {self.record.flow}: {self.told}>"

    def _repr_html_(self) -> str:
        record, progress = self.record, self.progress()
        ended = ", ".join(f"{n} {outcome}" for outcome, n in sorted(progress.ended.items()))
        left = f"{progress.running} running, {progress.left} left"
        known = {
            "flow": record.flow,
            "status": f"{self.status} {self.state.why}".strip(),
            "range": f"{record.start} to {record.end}, {record.cron} in {record.zone}",
            "runs": f"{record.which} ticks",
            "ticks": f"{ended}, {left}" if ended else left,
            "first failures": "; ".join(" ".join(failure) for failure in progress.failures),
        }
        return facts(f"backfill {self.id}", known).html()

    @property
    def id(self) -> str:
        """Its id."""
        return self.record.id

    @property
    def state(self) -> BackfillState:
        """What it is told to do."""
        return self._app.store.backfills.state(self.id)

    @property
    def status(self) -> str:
        """Running, paused, cancelled, done, or interrupted: to be running, but nobody drives it."""
        filling = self.state.filling
        if filling is Filling.RUNNING and not self._app.store.backfills.driven(self.id):
            return INTERRUPTED
        return str(filling)

    @property
    def told(self) -> str:
        """How it stands, in words; of one that has ended, how its ticks did."""
        status = self.status
        if status not in {str(Filling.DONE), str(Filling.CANCELLED)}:
            return status
        ended = self.progress().ended
        counts = ", ".join(f"{number} {outcome}" for outcome, number in sorted(ended.items()))
        return f"{status}: {counts}" if counts else status

    def plan(self) -> FillPlan:
        """How its ticks stand, and what is still to be done."""
        found = self._found or self._app._range(self.record)  # noqa: SLF001 - a view of it
        if self.record.pinned:
            self._found = found
        items = self._app._planned(self.record, found)  # noqa: SLF001
        return FillPlan(backfill=self.record, items=items)

    def shared(self) -> tuple[str, ...]:
        """What its runs share, in words; empty where nothing was to be."""
        if not self.record.share:
            return ()
        flow = self._app._range(self.record).flow  # noqa: SLF001 - a view of it
        found = self._app._shared(self.record, flow)  # noqa: SLF001
        if not found.steps:
            return (f"nothing: {found.why}",)
        told = f"run {found.run_id} has executed for all: {', '.join(found.steps)}"
        return (f"{told} ({found.why})" if found.why else told,)

    def counts(self) -> dict[str, int]:
        """The ticks of its range by how they stand, whoever ran them."""
        return dict(collections.Counter(str(i.stand.standing) for i in self.plan().items))

    def failures(self, limit: int = 5) -> list[tuple[str, str]]:
        """The first ticks whose last run failed, with that run."""
        failed = [i for i in self.plan().items if i.stand.standing == "failed"]
        return [(item.tick.isoformat(), item.stand.run_id) for item in failed[:limit]]

    def progress(self, plan: FillPlan | None = None) -> Progress:
        """How far it is, whoever drives it.

        Args:
            plan: how its ticks stand, where the caller has just looked.
        """
        name, state, store = self.record.name, self.state, self._app.store
        own = [item for item in (plan or self.plan()).items if _is_of(item, name)]
        over = [(i, _outcome(i, name)) for i in own if i.decision.todo is Todo.NOTHING]
        failed = [item for item, outcome in over if outcome == "failed"][:_FIRST_FAILURES]
        causes = {
            row["run_id"]: row["cause"]
            for row in store.catalog.query(
                queries()["causes"], {"runs": [item.stand.ended for item in failed]}
            )
        }
        since = {"by": name, "since": state.time}
        driven = self.status == Filling.RUNNING
        ended = store.catalog.query(queries()["ended_by"], since)[0]["runs"] if driven else 0
        return Progress(
            total=len(own),
            ended=dict(collections.Counter(outcome for _, outcome in over)),
            running=sum(item.stand.standing is Standing.RUNNING for item in own),
            done=ended,
            seconds=max(self._app.clock() - state.time, 0.0) if driven else 0.0,
            failures=[
                (i.tick.isoformat(), i.stand.ended, causes.get(i.stand.ended, "")) for i in failed
            ],
        )

    def pause(self, *, now: bool = False) -> Fill:
        """Begin no more runs."""
        return self._app.backfill_pause(self.id, now=now)

    def resume(self, *, detach: bool = True) -> Fill:
        """Go on."""
        return self._app.backfill_resume(self.id, detach=detach)

    def cancel(self, *, now: bool = False) -> Fill:
        """End it for good."""
        return self._app.backfill_cancel(self.id, now=now)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        record, state = self.record, self.state
        told = {
            name: value
            for name, value in msgspec.to_builtins(record).items()
            if name not in {"id", "secrets", "modules", "inputs"}
        }
        return {
            "backfill_id": self.id, "status": self.status, "why": state.why, **told,
            "inputs": {**record.inputs, **dict.fromkeys(record.secrets, "***")},
        }  # fmt: skip


def _is_of(item: Item, name: str) -> bool:
    """Whether a tick is a backfill's: it has run it, runs it, or has to."""
    return item.decision.todo is not Todo.NOTHING or name in {item.stand.by, item.stand.ended_by}


def _outcome(item: Item, name: str) -> str:
    """What a backfill's own run of a tick came to."""
    stand = item.stand
    return stand.outcome if stand.ended_by == name else str(stand.standing)


class FillList(Listing[Fill]):
    """Backfills as a listing."""

    title = "backfills"
    headings = ("backfill", "flow", "status", "ticks", "start", "end")
    empty = "no backfills"

    def row(self, record: Fill) -> tuple[str, ...]:
        """A backfill's line."""
        asked = record.record
        return record.id, asked.flow, record.told, str(asked.which), asked.start, asked.end
