"""The loop that fires what is due, and sees to it that tasks are executed.

One thread looks every second or so: at waits that are over, at triggers with due ticks, at
backfills whose driver was killed. It executes nothing: each run goes to a worker process
(`LocalProcesses`). Workers are not killed with the server: each ends the run that it has begun. Any
number of servers, `cellrail tick` and people may do the same at the same time; each run is one's.

What is refused is tried again later, and later each time: nothing that fails is tried each second.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from logging import Logger

import msgspec

from cellrail.app import App
from cellrail.app.fills import INTERRUPTED
from cellrail.errors import CellrailError, UserError
from cellrail.executors import Done, LocalProcesses, Task
from cellrail.schedule.deciding import Todo
from cellrail_state.errors import StateError, StoreNotFound
from cellrail_state.schedules import Trigger

#: seconds between two looks, and what share of the time looking may take at most
_LOOK_SECONDS = 1.0
_SHARE = 0.05
#: seconds between two looks at runs of triggers, and backfills, that lost their owner
_SELDOM_SECONDS = 60.0
#: seconds until somebody who asks is heard
_POLL_SECONDS = 0.1
#: what was refused is tried again after so many seconds, twice as many each time, up to so many
_AGAIN_SECONDS, _SELDOM_AGAIN_SECONDS = 30.0, 3600.0
#: a trigger that may not run more at a time is looked at again after so many seconds
_FULL_SECONDS = 2.0
#: workers that have had nothing to do for so long are ended
_IDLE_SECONDS = 60.0
#: so many tasks that people asked for run beside those that are due
_ASKED = 16


class Full(UserError):
    """Too many runs are under way; try again later."""

    code = "full"


class _Flight(msgspec.Struct, kw_only=True):
    """A task that is being executed."""

    task: Task
    #: what it is tried again as; "" where somebody asked for it
    key: str = ""
    #: gives back the lock under which its tick was claimed
    release: contextlib.ExitStack


class _Retry(msgspec.Struct, kw_only=True):
    """What was refused."""

    at: float
    delay: float


class Rounds:
    """The loop. `take` and `nudge` may be called from any thread."""

    def __init__(
        self,
        make_app: Callable[[], App],
        *,
        log: Logger,
        workers: int,
        url: Callable[[], str] = lambda: "",
        fires: bool = True,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """Know the store.

        Args:
            make_app: makes an `App` on it.
            log: is told what happens.
            workers: so many runs that are due at the same time.
            url: tells where links of waits begin; "" for nowhere.
            fires: look at what is due; else execute only what somebody asks for.
            timer: seconds since any moment.
        """
        self._make_app, self._log, self._timer = make_app, log, timer
        self._workers, self._url, self._fires = workers, url, fires
        self._asked: queue.SimpleQueue[tuple[Task, Future[None]]] = queue.SimpleQueue()
        self._event, self._stopping = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._executor: LocalProcesses | None = None
        self._flights: dict[str, _Flight] = {}
        self._retries: dict[str, _Retry] = {}
        self._told: set[str] = set()
        self._served = ""
        self._orphans: set[str] = set()
        self._looked_seldom = float("-inf")
        self._next_look = float("-inf")
        self._busy_until = float("-inf")

    # --- from any thread ---------------------------------------------------------------------

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._loop, name="cellrail-rounds", daemon=True)
        self._thread.start()

    def take(self, task: Task) -> Future[None]:
        """Have a task executed; the future tells when it is given to a worker, or refused."""
        asked: Future[None] = Future()
        self._asked.put((task, asked))
        self._event.set()
        return asked

    def nudge(self) -> None:
        """Something was answered: look now."""
        self._next_look = float("-inf")
        self._event.set()

    def stop(self, seconds: float = 10.0) -> None:
        """End. Workers end the runs that they have begun, and then themselves."""
        self._stopping.set()
        self._event.set()
        if self._thread is not None:
            self._thread.join(seconds)
            self._thread = None

    @property
    def under_way(self) -> list[str]:
        """The runs that its workers execute."""
        return list(self._flights)

    # --- the loop ----------------------------------------------------------------------------

    def _loop(self) -> None:
        try:
            while not self._stopping.is_set():
                self._event.wait(_POLL_SECONDS)
                self._event.clear()
                self.turn()
        finally:
            self._close()

    def turn(self) -> None:
        """Do what there is to do now."""
        if self._executor is not None:
            for done in self._executor.wait(0.0):
                self._settle(done)
        self._take_asked()
        now = self._timer()
        if now >= self._next_look:
            try:
                self._look(self._make_app(), now)
            except StoreNotFound:
                pass  # nothing was run yet
            except (CellrailError, StateError) as error:
                self._tell_once(f"what is due cannot be looked at: {error}", error.hint)
            except Exception:  # noqa: BLE001 - a defect of ours: the loop goes on
                self._log.exception("what is due cannot be looked at")
            took = self._timer() - now
            self._next_look = self._timer() + max(_LOOK_SECONDS, took / _SHARE)
        self._rest()

    def _look(self, app: App, now: float) -> None:
        self._serve(app)
        for wait in app.waits_over(app.clock(), timers=self._fires):
            key = f"wait:{wait.wait_id}"
            if wait.run_id not in self._flights and self._may(key, now) and self._room:
                self._submit(app.task_of_wait(wait), key)
        if not self._fires:
            return
        seldom = now - self._looked_seldom >= _SELDOM_SECONDS
        for trigger in app.store.triggers.all():
            key = f"trigger:{trigger.id}"
            due = trigger.enabled and (seldom or app.is_due(trigger, app.clock()))
            if due and self._may(key, now) and self._room:
                self._fire(app, trigger, key)
        if seldom:
            self._looked_seldom = now
            self._adopt(app)

    def _serve(self, app: App) -> None:
        """Have the links of waits lead here, from when there is a store."""
        store = app.store
        url = "" if self._served else self._url()
        if url:
            try:
                store.serve(url)
            except StateError as error:
                self._tell_once(f"links of waits will not lead here: {error}", error.hint)
            self._served = url

    def _fire(self, app: App, trigger: Trigger, key: str) -> None:
        """Give the ticks that are due to workers, as far as the trigger and the workers may."""
        flights = self._flights.values()
        # (a tick that is claimed and has not begun is not passed over: it would be lost with us)
        tried = {f.task.run_id for f in flights if f.key == key and f.task.todo == Todo.RECOVER}
        told = False
        while self._room:
            with contextlib.ExitStack() as stack:
                try:
                    lock = stack.enter_context(app.store.claims.owner())
                    firing = app.firing(trigger, lock)
                    if not told:
                        told = True
                        for line in firing.missed(app.clock()):
                            self._tell_once(line)
                    task = firing.next(app.clock(), tried, given=self._flights)
                except (CellrailError, StateError) as error:
                    self._refused(key, f"trigger {trigger.id}: {error}", error.hint)
                    return
                if task is None:
                    before = self._retries.get(key)
                    # (one that was given may be refused again)
                    delay = before.delay if before is not None else 0.0
                    self._retries[key] = _Retry(at=self._timer() + _FULL_SECONDS, delay=delay)
                    return
                if task.todo == Todo.RECOVER:
                    tried.add(task.run_id)
                self._submit(task, key, stack.pop_all())

    def _adopt(self, app: App) -> None:
        """Go on with backfills whose driver was killed: those that had none a minute ago, too."""
        fills = {fill.id: fill for fill in app.backfill_list() if fill.status == INTERRUPTED}
        for backfill_id in self._orphans & set(fills):
            key = f"backfill:{backfill_id}"
            if not self._may(key, self._timer()):
                continue
            try:
                app.backfill_resume(backfill_id, detach=True)
                self._log.info("backfill %s goes on: its process was gone", backfill_id)
            except (CellrailError, StateError) as error:
                self._refused(key, f"backfill {backfill_id}: {error}", error.hint)
        self._orphans = set(fills)

    # --- tasks -------------------------------------------------------------------------------

    @property
    def _room(self) -> bool:
        """Whether one more that is due may begin."""
        return sum(bool(flight.key) for flight in self._flights.values()) < self._workers

    def _take_asked(self) -> None:
        while True:
            try:
                task, asked = self._asked.get_nowait()
            except queue.Empty:
                return
            if task.run_id in self._flights:
                asked.set_exception(UserError(f"run {task.run_id} is being gone on with"))
                continue
            mine = sum(not flight.key for flight in self._flights.values())
            if self._stopping.is_set() or mine >= _ASKED:
                asked.set_exception(Full("too many runs are under way", hint="try again later"))
                continue
            try:
                self._submit(task, "")
                asked.set_result(None)
            except OSError as error:
                asked.set_exception(error)

    def _submit(self, task: Task, key: str, release: contextlib.ExitStack | None = None) -> None:
        if self._executor is None:
            app = self._make_app()
            log = app.store_path / "server" / "workers.log"
            self._executor = LocalProcesses(
                app.store_path, count=self._workers + _ASKED, log=log, keys=app.keys
            )
        self._executor.submit(task)
        stack = release or contextlib.ExitStack()
        self._flights[task.run_id] = _Flight(task=task, key=key, release=stack)
        self._log.info("run %s: %s %s", task.run_id, task.todo, task.notebook)

    def _settle(self, done: Done) -> None:
        flight = self._flights.pop(done.run_id, None)
        if flight is None:
            return
        flight.release.close()
        self._busy_until = self._timer()
        self._next_look = float("-inf")
        key, what = flight.key, f"run {done.run_id}"
        if done.lost:
            self._refused(key, f"{what}: the process that executed it has died", "")
        elif done.error and not done.elsewhere:
            self._refused(key, f"{what}: {done.error}", done.hint)
        else:
            self._retries.pop(key, None)
            self._told.clear()
            if not done.elsewhere:
                self._log.info("%s: %s %s", what, done.status, done.cause)

    def _may(self, key: str, now: float) -> bool:
        """Whether it is time to try this (again)."""
        retry = self._retries.get(key)
        return retry is None or now >= retry.at

    def _refused(self, key: str, why: str, hint: str) -> None:
        self._tell_once(why, hint)
        if not key:
            return
        before = self._retries.get(key)
        delay = min(before.delay * 2 or _AGAIN_SECONDS, _SELDOM_AGAIN_SECONDS) if before else 0.0
        delay = delay or _AGAIN_SECONDS
        self._retries[key] = _Retry(at=self._timer() + delay, delay=delay)

    def _tell_once(self, text: str, hint: str = "") -> None:
        """Say something that stays so, once."""
        if text not in self._told:
            self._told.add(text)
            self._log.warning("%s%s", text, f" ({hint})" if hint else "")

    def _rest(self) -> None:
        """End workers that have had nothing to do for long; forget what is long past."""
        now = self._timer()
        idle = not self._flights and now - self._busy_until > _IDLE_SECONDS
        if self._executor is not None and idle:
            self._executor.close()
            self._executor = None
        for key in [k for k, r in self._retries.items() if now - r.at > 2 * _SELDOM_AGAIN_SECONDS]:
            del self._retries[key]

    def _close(self) -> None:
        if self._served:
            with contextlib.suppress(StateError, OSError):
                self._make_app().store.unserve(self._served)
        if self._executor is not None:
            self._executor.close()
        for flight in self._flights.values():
            flight.release.close()
        self._flights.clear()
        while True:
            try:
                _, asked = self._asked.get_nowait()
            except queue.Empty:
                return
            asked.set_exception(Full("the server stops", hint="try again later"))
