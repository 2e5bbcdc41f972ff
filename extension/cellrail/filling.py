"""Drives a backfill: gives its ticks to an executor, and waits for what becomes of them.

The driver may be killed at any moment. It keeps nothing that the store does not hold: claims say
which run a tick has, journals what became of it, the backfill's state what it is told to do. So
whoever drives it next plans anew, and goes on: a tick that was filled is left alone, a run that
lost its owner is recovered under its id, one that still runs in an orphaned worker is waited for.
"""

from __future__ import annotations

import collections
import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec

from cellrail.executors import Done, Executor, Task
from cellrail.schedule.deciding import Decision, Todo, Wanted, decide
from cellrail_state.claims import Claim
from cellrail_state.schedules import Backfill, BackfillState, Filling
from cellrail_state.standing import Claimer, Stand, Standing, claim, stand, stands
from cellrail_state.store import Store
from cellrail_state.ticks import Key

_POLL_SECONDS = 0.1
#: seconds between two looks at ticks that others run
_LOOK_SECONDS = 2.0
#: so many ticks are claimed at once: a claim takes two writes to the disk, however many they are
_BATCH = 16
#: a tick whose worker dies so often has failed
_DEATHS = 3
#: so many runs in a row that could not begin: there is no use in trying the next
_IN_A_ROW = 10
_CLAIMED = frozenset((Todo.RUN, Todo.RESTART, Todo.RERUN))
_FIRST_FAILURES = 5


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A tick of the range, how it stands, and what is to be done with it."""

    tick: dt.datetime
    key: Key
    stand: Stand
    decision: Decision


class Counts(msgspec.Struct, kw_only=True):
    """How far a backfill is."""

    #: ticks that it has to do with: those of its range that it does not leave alone
    total: int = 0
    #: what became of them, by status; `error` where the run could not begin
    ended: dict[str, int] = {}
    running: int = 0
    #: run by others
    elsewhere: int = 0
    #: runs that ended while it was driven, and seconds since then
    done: int = 0
    seconds: float = 0.0
    #: the first failures: tick, run and why
    failures: list[tuple[str, str, str]] = []

    @property
    def over(self) -> int:
        """Ticks that nothing more is done with."""
        return sum(self.ended.values())

    @property
    def failed(self) -> int:
        """Ticks that have failed, or could not begin."""
        return self.ended.get("failed", 0) + self.ended.get("error", 0)

    @property
    def rate(self) -> float:
        """Runs per second."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def left(self) -> float | None:
        """Seconds until the end at this rate; None where nobody knows."""
        return (self.total - self.over) / self.rate if self.rate > 0 else None


class Watch(Protocol):
    """Is told how far a backfill is."""

    def show(self, counts: Counts) -> None:
        """As far as this."""

    def close(self) -> None:
        """It is driven no more."""


def plan(
    store: Store, flow: str, ticks: Sequence[tuple[dt.datetime, Key]], wanted: Wanted
) -> list[Item]:
    """What is to be done with each tick of a range.

    Args:
        store: the store.
        flow: the flow's id.
        ticks: of the range, with their keys, in the order in which they are run.
        wanted: which of them are wanted.
    """
    known = stands(store, flow, (key for _, key in ticks))
    return [
        Item(tick=tick, key=key, stand=known[key], decision=decide(wanted, known[key]))
        for tick, key in ticks
    ]


class Driver:
    """Drives one backfill; this process holds its lock."""

    def __init__(
        self,
        backfill: Backfill,
        items: Iterable[Item],
        *,
        store: Store,
        wanted: Wanted,
        executor: Executor,
        claimer: Claimer,
        task: Callable[[Item, str, int], Task],
        changed: Callable[[BackfillState], str],
        new_id: Callable[[], str],
        clock: Callable[[], float],
        timer: Callable[[], float],
        watch: Watch | None = None,
    ) -> None:
        """Know what is to be done.

        Args:
            backfill: the backfill.
            items: its ticks, in the order in which they are run.
            store: the store.
            wanted: which of them are wanted.
            executor: executes runs.
            claimer: who claims ticks.
            task: makes the task of an item, a run's id and the number of its claim.
            changed: tells what is not as it was at the backfill's start; "" where nothing is.
            new_id: makes ids of runs.
            clock: seconds since the epoch.
            timer: seconds since any moment, which nobody sets.
            watch: is told how far it is.
        """
        self._backfill, self._store, self._wanted = backfill, store, wanted
        self._executor, self._claimer, self._task = executor, claimer, task
        self._changed, self._new_id = changed, new_id
        self._clock, self._timer, self._watch = clock, timer, watch
        self.counts = Counts()
        self._queue: collections.deque[Item] = collections.deque()
        #: what others run, and when it was looked at
        self._waiting: list[Item] = []
        self._looked = 0.0
        #: ours, by run: what runs, and what was claimed and has not begun
        self._running: dict[str, Item] = {}
        self._claims: dict[Key, Claim] = {}
        self._deaths: collections.Counter[Key] = collections.Counter()
        self._in_a_row = 0
        self._interrupted: set[str] = set()
        for item in items:
            if item.decision.todo is not Todo.NOTHING:
                self.counts.total += 1
                self._sort(item)

    def run(self) -> BackfillState:
        """Drive it until it is done, paused or cancelled; its state then."""
        begun = self._timer()
        try:
            while True:
                state = self._store.backfills.state(self._backfill.id)
                if state.filling is Filling.RUNNING:
                    state = self._feed(state)
                if state.filling is not Filling.RUNNING:
                    if state.now:
                        self._cancel_running()
                    if not self._running:
                        return state
                for done in self._executor.wait(_POLL_SECONDS):
                    self._settle(done)
                self._look_at_others()
                self._show(begun)
                if not (self._queue or self._running or self._waiting):
                    return self._end(Filling.DONE, "")
        except KeyboardInterrupt:
            state = self._end(Filling.PAUSED, "interrupted", now=True)
            self._cancel_running()
            while self._running:
                for done in self._executor.wait(_POLL_SECONDS):
                    self._settle(done)
            return state
        finally:
            if self._watch is not None:
                self._watch.close()

    def _end(self, filling: Filling, why: str, *, now: bool = False) -> BackfillState:
        before = self._store.backfills.state(self._backfill.id)
        if before.filling is Filling.CANCELLED:
            return before
        state = BackfillState(
            filling=filling, why=why, now=now, time=self._clock(), modules=before.modules
        )
        self._store.backfills.tell(self._backfill.id, state)
        return state

    # --- giving ------------------------------------------------------------------------------

    def _sort(self, item: Item) -> None:
        (self._waiting if item.decision.todo is Todo.WAIT else self._queue).append(item)

    def _feed(self, state: BackfillState) -> BackfillState:
        """Give work to whom is free, unless there is a reason to stop."""
        stop = self._backfill.stop_after
        if stop and self.counts.failed >= stop and (self._queue or self._waiting):
            return self._end(Filling.PAUSED, f"{self.counts.failed} ticks have failed")
        if self._in_a_row >= _IN_A_ROW:
            return self._end(Filling.PAUSED, f"{_IN_A_ROW} runs in a row could not begin")
        if self._queue and self._executor.free > 0:
            changed = self._changed(state)
            if changed:
                return self._end(Filling.PAUSED, changed)
        while self._queue and self._executor.free > 0:
            self._give(self._queue.popleft())
        return state

    def _give(self, item: Item) -> None:
        if item.decision.todo is Todo.RECOVER:
            self._submit(item, item.decision.origin, item.stand.number)
            return
        if item.key not in self._claims:
            self._claim(item)
        mine = self._claims.get(item.key)
        if mine is None:
            self._again(item)
        else:
            self._submit(item, mine.run_id, mine.number)

    def _submit(self, item: Item, run_id: str, number: int) -> None:
        self._running[run_id] = item
        self._executor.submit(self._task(item, run_id, number))

    def _claim(self, first: Item) -> None:
        """Claim a tick and some of the next."""
        few = [first]
        for item in self._queue:
            if len(few) >= _BATCH:
                break
            if item.decision.todo in _CLAIMED and item.key not in self._claims:
                few.append(item)
        got = claim(
            self._store, self._backfill.flow, [item.stand for item in few], self._claimer,
            new_id=self._new_id, now=self._clock(),
        )  # fmt: skip
        self._claims.update({mine.key: mine for mine in got})

    # --- settling ----------------------------------------------------------------------------

    def _settle(self, done: Done) -> None:
        item = self._running.pop(done.run_id, None)
        if item is None:
            return
        self._interrupted.discard(done.run_id)
        self._in_a_row = self._in_a_row + 1 if done.error and not done.elsewhere else 0
        if done.lost:
            self._deaths[item.key] += 1
            if self._deaths[item.key] < _DEATHS:
                self._again(item)
                return
            why = f"the process that executed it died {_DEATHS} times"
            done = msgspec.structs.replace(done, status="failed", cause=why)
        elif done.elsewhere or self._was_recovered(item, done):
            self._again(item)
            return
        self._claims.pop(item.key, None)
        self.counts.done += 1
        self._count(item, done.status or "error", done.run_id, done.cause or done.error)

    def _was_recovered(self, item: Item, done: Done) -> bool:
        """Whether a run could not be recovered because somebody else has."""
        if item.decision.todo is not Todo.RECOVER or not done.error:
            return False
        now = stand(self._store, self._backfill.flow, item.key)
        return now.standing is not Standing.INTERRUPTED

    def _count(self, item: Item, status: str, run_id: str, why: str) -> None:
        ended = self.counts.ended
        ended[status] = ended.get(status, 0) + 1
        if status in {"failed", "error"} and len(self.counts.failures) < _FIRST_FAILURES:
            self.counts.failures.append((item.tick.isoformat(), run_id, why))

    def _again(self, item: Item) -> None:
        """Look how a tick stands now, and decide anew."""
        now = stand(self._store, self._backfill.flow, item.key)
        mine = self._claims.get(item.key)
        if mine is not None and now.standing is Standing.CLAIMED and now.run_id == mine.run_id:
            self._queue.appendleft(item)  # it has not begun, and is ours
            return
        self._claims.pop(item.key, None)
        decision = decide(self._wanted, now)
        if decision.todo is Todo.NOTHING:
            # (of a run that is suspended it says so)
            self._count(item, now.standing if now.under_way else now.outcome, now.run_id, "")
            return
        self._sort(msgspec.structs.replace(item, stand=now, decision=decision))

    def _look_at_others(self) -> None:
        """What others have run to its end, or left, is decided anew."""
        now = self._timer()
        if not self._waiting or now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        waiting, self._waiting = self._waiting, []
        for item in waiting:
            self._again(item)

    def _cancel_running(self) -> None:
        for run_id in self._running:
            if run_id not in self._interrupted:
                self._interrupted.add(run_id)
                who = f"backfill {self._backfill.id}"
                self._store.inbox.stop(run_id, who=who, now=self._clock())
                self._executor.interrupt(run_id)

    def _show(self, begun: float) -> None:
        counts = self.counts
        counts.running, counts.elsewhere = len(self._running), len(self._waiting)
        counts.seconds = self._timer() - begun
        if self._watch is not None:
            self._watch.show(counts)
