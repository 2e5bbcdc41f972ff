"""Fires the ticks of one trigger: which comes next, and who runs it.

How far its ticks were decided on (its *look*) moves past a tick only when the run of it has begun,
or it is skipped. So a crash between the claim of a tick and the beginning of its run loses no tick:
the next look finds the claim, and begins that run.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from cellrail.app.scheduling import Schedule, task_of
from cellrail.executors import Task
from cellrail.run import prepare
from cellrail.schedule.deciding import Todo
from cellrail.schedule.due import Due, due
from cellrail_state.model import RunStatus
from cellrail_state.schedules import Trigger
from cellrail_state.sql import queries
from cellrail_state.standing import Claimer, Stand, Standing, claim, run_status, stands
from cellrail_state.store import Store

_SHOWN = 10
#: nothing more is done with a tick that stands so: it was run, or is
_BEGUN = frozenset(
    (
        Standing.RUNNING,
        Standing.SUSPENDED,
        Standing.INTERRUPTED,
        Standing.SUCCESS,
        Standing.FAILED,
        Standing.CANCELLED,
    )
)
_ACTIVE = frozenset((RunStatus.RUNNING, RunStatus.SUSPENDED, RunStatus.INTERRUPTED))


class Firing:
    """A trigger, about to fire."""

    def __init__(
        self,
        trigger: Trigger,
        schedule: Schedule,
        *,
        store: Store,
        claimer: Claimer,
        notebook: Path,
        clock: Callable[[], float],
    ) -> None:
        """Know the trigger.

        Args:
            trigger: the trigger.
            schedule: its flow at its ticks.
            store: the store.
            claimer: this process, for the trigger.
            notebook: the notebook's path.
            clock: seconds since the epoch.
        """
        self._trigger, self._schedule, self._store = trigger, schedule, store
        self._claimer, self._notebook, self._clock = claimer, notebook, clock

    def missed(self, now: float) -> Iterator[str]:
        """Lines that tell which ticks were missed, and what becomes of them."""
        found = self._due(now)
        for ticks, what in ((found.missed, "missed, will run"), (found.skipped, "skipped")):
            if ticks:
                first = ", ".join(tick.isoformat() for tick in ticks[:_SHOWN])
                more = f" and {len(ticks) - _SHOWN} more" if len(ticks) > _SHOWN else ""
                yield f"trigger {self._trigger.id}: {what}: {first}{more}"

    def next(self, now: float, tried: Collection[str], given: Collection[str] = ()) -> Task | None:
        """Claim the next tick that may run, or find a run to recover; None where there is none.

        Args:
            now: ticks up to here are due.
            tried: runs that this process has dealt with: their ticks are decided on.
            given: runs that workers of this process have been given, and may not have begun: their
                ticks are not given once more, and not decided on.
        """
        with self._store.triggers.turn(self._trigger) as got:
            if not got:  # another process is at it
                return None
            rows = self._store.catalog.query(
                queries()["fired_and_not_ended"], {"by": self._claimer.by}
            )
            if self._store.catalog.behind:  # nobody knows how many are under way
                return None
            status = {row["run_id"]: run_status(self._store, row["run_id"]) for row in rows}
            for run_id, found in status.items():
                if found is RunStatus.INTERRUPTED and run_id not in tried:
                    return Task(todo=Todo.RECOVER, run_id=run_id, notebook=str(self._notebook))
            active = sum(found in _ACTIVE for found in status.values())
            return self._fire(now, tried, given, self._trigger.max_active - active)

    def _due(self, now: float) -> Due:
        trigger = self._trigger
        looked = self._store.triggers.looked(trigger)
        cron, late = self._schedule.cron, trigger.late_after
        return due(
            cron, looked, now, missed=trigger.missed, late_after=late, created=trigger.created
        )

    def _fire(
        self, now: float, tried: Collection[str], given: Collection[str], room: int
    ) -> Task | None:
        """Claim the first tick that nobody has run, where there is room."""
        triggers, trigger, found = self._store.triggers, self._trigger, self._due(now)
        keyed = list(self._schedule.keys(found.ticks))
        known = stands(self._store, trigger.flow, (key for _, key in keyed))
        # (a claim that a worker was given may be of an owner who is gone)
        taken = {
            key
            for key, stand in known.items()
            if stand.standing is Standing.CLAIMED
            or (stand.standing is Standing.ABANDONED and stand.run_id in given)
        }
        room -= len(taken)
        task: Task | None = None
        left: dt.datetime | None = None
        for tick, key in keyed:
            stand = known[key]
            if stand.standing in _BEGUN or (stand.run_id and stand.run_id in tried):
                continue
            left = left or tick
            if task is None and room > 0 and key not in taken:
                task = self._claimed(tick, stand)
        if left is not None:
            triggers.look(trigger, left.timestamp() - 1)
        else:
            triggers.look(trigger, keyed[-1][0].timestamp() if found.more else now)
        return task

    def _claimed(self, tick: dt.datetime, stand: Stand) -> Task | None:
        trigger, by = self._trigger, self._claimer.by
        got = claim(
            self._store, trigger.flow, [stand], self._claimer,
            new_id=lambda: prepare.new_run_id(self._clock()), now=self._clock(),
        )  # fmt: skip
        if not got:
            return None
        return task_of(
            self._schedule, tick, stand.key, todo=Todo.RUN, run_id=got[0].run_id,
            number=got[0].number, by=by, notebook=self._notebook, labels=trigger.labels,
            secrets=trigger.secrets, out=trigger.out,
        )  # fmt: skip
