"""The driver of a backfill, with an executor that does what a test says.

Laws: every tick that is wanted is given out once; what it is told is heeded within a look; what
others run is waited for, and taken over when they are gone; a worker that dies loses no tick.
"""

from __future__ import annotations

import datetime as dt

import msgspec
import pytest

from cellrail.executors import Done, Task
from cellrail.filling import Driver, plan
from cellrail.schedule.deciding import Todo, Wanted
from cellrail_state.model import Owner, RunEnded, RunStatus, Tick
from cellrail_state.schedules import Backfill, BackfillState, Filling, Which
from cellrail_state.standing import Claimer, claim, stand, stands
from cellrail_state.testing import first_record, open_store
from cellrail_state.ticks import Key, stamp_of

FLOW = "etl.ipynb"
OWNER = Owner(pid=1, started=0.0, host="here")
TICKS = [dt.datetime(2025, 1, day, tzinfo=dt.UTC) for day in range(1, 8)]
KEYS = [Key(stamp_of(tick), "a" * 32) for tick in TICKS]


class Timer:
    """Time passes when it is asked for."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


class Workers:
    """Executes tasks at once, as `act` says; counts what it was given."""

    def __init__(self, store, count=2):
        self.store, self.count = store, count
        self.given: list[Task] = []
        self.held: list[Task] = []
        self.interrupted: list[str] = []
        self.act = lambda task: self.end(task, RunStatus.SUCCESS)

    @property
    def busy(self):
        return [task.run_id for task in self.held]

    @property
    def free(self):
        return self.count - len(self.held)

    def submit(self, task):
        self.given.append(task)
        self.held.append(task)
        assert len(self.held) <= self.count

    def wait(self, seconds):
        done = []
        for task in list(self.held):
            result = self.act(task)
            if result is not None:
                self.held.remove(task)
                done.append(result)
        return done

    def interrupt(self, run_id):
        self.interrupted.append(run_id)

    def close(self):
        pass

    def begin(self, task):
        if task.todo == Todo.RECOVER:
            return self.store.reopen_journal(task.run_id)[0]
        return self.store.create_journal(first_record(task.run_id, flow=FLOW, tick=task.tick))

    def end(self, task, status):
        journal = self.begin(task)
        journal.append(RunEnded(time=1.0, status=status))
        journal.close()
        return Done(run_id=task.run_id, status=str(status))


class World:
    """A store with a backfill."""

    def __init__(self, folder, **settings):
        self.store = open_store(folder)
        self.backfill = Backfill(
            id="20260101-b", flow=FLOW, notebook=FLOW, cron="0 0 * * *", zone="UTC",
            start="", end="", **settings,
        )  # fmt: skip
        self.store.backfills.add(self.backfill, b"")
        self.workers = Workers(self.store)
        self.ids = iter(range(10**6))
        self.changed = lambda state: ""

    def drive(self, lock="nobody", which=Which.MISSING):
        name = self.backfill.name
        wanted = Wanted(which=which, name=name, source="s")

        def task(item, run_id, number):
            tick = Tick(
                stamp=item.key.stamp, inputs=item.key.inputs, by=name, number=number, source="s"
            )
            return Task(
                todo=item.decision.todo, run_id=run_id, notebook=FLOW, tick=tick,
                origin=item.decision.origin,
            )  # fmt: skip

        driver = Driver(
            self.backfill, plan(self.store, FLOW, list(zip(TICKS, KEYS, strict=True)), wanted),
            store=self.store, wanted=wanted, executor=self.workers,
            claimer=Claimer(owner=OWNER, lock=lock, by=name), task=task,
            changed=self.changed, new_id=self.new_id, clock=lambda: 1.0,
            timer=Timer(),
        )  # fmt: skip
        return driver, driver.run()

    def new_id(self):
        return f"20260101-{next(self.ids):09d}-aaaa"

    def stands(self):
        return [str(one.standing) for one in stands(self.store, FLOW, KEYS).values()]

    def tell(self, filling, **rest):
        self.store.backfills.tell(self.backfill.id, BackfillState(filling=filling, **rest))


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_every_tick_runs_once_in_order_and_the_backfill_is_done(world):
    driver, state = world.drive()
    assert state.filling is Filling.DONE
    assert [task.tick.stamp for task in world.workers.given] == [key.stamp for key in KEYS]
    assert world.stands() == ["success"] * 7
    assert (driver.counts.ended, driver.counts.total) == ({"success": 7}, 7)
    assert driver.counts.rate > 0
    assert driver.counts.left == 0
    world.workers.given.clear()
    assert world.drive()[1].filling is Filling.DONE
    assert world.workers.given == []


def test_a_pause_lets_running_runs_end_and_begins_no_more(world):
    def act(task):
        if len(world.workers.given) == 4:
            world.tell(Filling.PAUSED)
        return world.workers.end(task, RunStatus.SUCCESS)

    world.workers.act = act
    driver, state = world.drive()
    assert state.filling is Filling.PAUSED
    assert driver.counts.ended == {"success": 4}
    world.tell(Filling.RUNNING)
    driver, state = world.drive()
    assert state.filling is Filling.DONE
    assert driver.counts.ended == {"success": 3}
    assert world.stands() == ["success"] * 7


@pytest.mark.parametrize("filling", [Filling.PAUSED, Filling.CANCELLED])
def test_now_interrupts_each_running_run_once(world, filling):
    looks = []

    def act(task):
        looks.append(task.run_id)
        if len(looks) == 1:
            world.tell(filling, now=True)
        if len(looks) < 8:
            return None
        return world.workers.end(task, RunStatus.CANCELLED)

    world.workers.act = act
    driver, state = world.drive()
    assert state.filling is filling
    assert sorted(world.workers.interrupted) == sorted(t.run_id for t in world.workers.given)
    assert driver.counts.ended == {"cancelled": 2}
    if filling is Filling.PAUSED:
        world.workers.act = lambda task: world.workers.end(task, RunStatus.SUCCESS)
        world.tell(Filling.RUNNING)
        world.drive()
        again = {t.tick.stamp for t in world.workers.given[2:] if t.todo == Todo.RESTART}
        assert again == {key.stamp for key in KEYS[:2]}
        assert world.stands() == ["success"] * 7


def test_a_cancelled_backfill_stays_cancelled(world):
    world.tell(Filling.CANCELLED)
    world.tell(Filling.RUNNING)
    assert world.drive()[1].filling is Filling.CANCELLED
    assert world.workers.given == []


def test_it_pauses_when_so_many_ticks_have_failed(tmp_path):
    world = World(tmp_path, stop_after=2)
    world.workers.act = lambda task: world.workers.end(task, RunStatus.FAILED)
    driver, state = world.drive()
    assert (state.filling, state.why) == (Filling.PAUSED, "2 ticks have failed")
    assert driver.counts.failed == 2
    assert len(driver.counts.failures) == 2
    world.tell(Filling.RUNNING)
    world.drive()
    assert world.stands() == ["failed"] * 4 + ["abandoned"] * 3  # each was tried once


def test_a_worker_that_dies_loses_no_tick(world):
    deaths = {KEYS[1].stamp: 1, KEYS[2].stamp: 2, KEYS[3].stamp: 9}

    def act(task):
        left = deaths.get(task.tick.stamp, 0)
        if not left:
            return world.workers.end(task, RunStatus.SUCCESS)
        deaths[task.tick.stamp] -= 1
        if task.tick.stamp != KEYS[1].stamp:  # the other dies before its run begins
            world.workers.begin(task).close()
        return Done(run_id=task.run_id, lost=True)

    world.workers.act = act
    with world.store.claims.owner() as lock:
        driver, _ = world.drive(lock)
    assert driver.counts.ended == {"success": 6, "failed": 1}
    (failure,) = driver.counts.failures
    assert "died 3 times" in failure[2]
    runs = {task.tick.stamp: set() for task in world.workers.given}
    for task in world.workers.given:
        runs[task.tick.stamp].add(task.run_id)
    assert all(len(found) == 1 for found in runs.values())  # always the same run
    todos = [task.todo for task in world.workers.given if task.tick.stamp == KEYS[2].stamp]
    assert todos == ["run", "recover", "recover"]


def test_what_others_run_is_waited_for_and_taken_over_when_they_leave_it(world):
    store = world.store

    def theirs(key, lock):
        (mine,) = claim(
            store, FLOW, [stand(store, FLOW, key)], Claimer(owner=OWNER, lock=lock, by="trigger:t"),
            new_id=world.new_id, now=1.0,
        )  # fmt: skip
        tick = Tick(stamp=key.stamp, inputs=key.inputs, by="trigger:t")
        return mine, first_record(mine.run_id, flow=FLOW, tick=tick)

    with store.claims.owner() as lock:
        _, first = theirs(KEYS[0], lock)
        running = store.create_journal(first)
        _, first = theirs(KEYS[1], lock)
        dying = store.create_journal(first)
        steps = []

        def act(task):
            steps.append(task)
            if len(steps) == 3:
                running.append(RunEnded(time=1.0, status=RunStatus.SUCCESS))
                running.close()
                dying.close()
            return world.workers.end(task, RunStatus.SUCCESS)

        world.workers.act = act
        _, state = world.drive()
    assert state.filling is Filling.DONE
    assert world.stands() == ["success"] * 7
    given = {task.tick.stamp: task.todo for task in world.workers.given}
    assert KEYS[0].stamp not in given
    assert given[KEYS[1].stamp] == "recover"


def test_a_run_that_somebody_else_has_begun_is_not_begun_again(world):
    late = []

    def act(task):
        if not late:
            late.append(task)
            world.workers.end(task, RunStatus.SUCCESS)
            return Done(run_id=task.run_id, error="begun", elsewhere=True)
        return world.workers.end(task, RunStatus.SUCCESS)

    world.workers.act = act
    driver, _ = world.drive()
    assert driver.counts.ended == {"success": 7}
    assert len(world.workers.given) == 7


def test_what_cannot_begin_is_told_and_ten_in_a_row_are_enough(world, monkeypatch):
    from cellrail import filling

    monkeypatch.setattr(filling, "_IN_A_ROW", 3)
    world.workers.act = lambda task: Done(run_id=task.run_id, error="no kernel", hint="install")
    driver, state = world.drive()
    assert (state.filling, state.why) == (Filling.PAUSED, "3 runs in a row could not begin")
    assert driver.counts.ended["error"] <= 4
    assert driver.counts.failures[0][2] == "no kernel"
    world.workers.act = lambda task: world.workers.end(task, RunStatus.SUCCESS)
    world.tell(Filling.RUNNING)
    assert world.drive()[1].filling is Filling.DONE
    assert world.stands() == ["success"] * 7


def test_a_change_of_what_was_pinned_pauses_it(world):
    world.changed = lambda state: "" if state.modules else "the module helpers has changed"
    _, state = world.drive()
    assert (state.filling, state.why) == (Filling.PAUSED, "the module helpers has changed")
    assert world.workers.given == []
    world.tell(Filling.RUNNING, modules={"helpers": "x"})
    assert world.drive()[1].filling is Filling.DONE


def test_an_interrupt_cancels_what_runs_and_pauses_it(world):
    calls = []

    def act(task):
        calls.append(task)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return world.workers.end(task, RunStatus.CANCELLED)

    world.workers.act = act
    driver, state = world.drive()
    assert (state.filling, state.why) == (Filling.PAUSED, "interrupted")
    assert len(world.workers.interrupted) == 2
    assert driver.counts.ended == {"cancelled": 2}


def test_two_backfills_at_once_run_each_tick_once(world, monkeypatch):
    from cellrail import filling

    monkeypatch.setattr(filling, "_BATCH", 2)
    other = msgspec.structs.replace(world.backfill, id="20260101-c")
    world.store.backfills.add(other, b"")
    mine, theirs = world.workers, Workers(world.store)
    looks = []

    def wait(seconds):
        looks.append(seconds)
        if len(looks) > 10:  # only what the first has claimed is left
            world.tell(Filling.PAUSED)
        return Workers.wait(theirs, seconds)

    theirs.wait = wait

    def act(task):
        if not looks:  # in the midst of one the other is driven as far as it comes
            world.backfill, world.workers = other, theirs
            with world.store.claims.owner() as lock:
                driver, state = world.drive(lock)
            assert (state.filling, driver.counts.elsewhere) == (Filling.PAUSED, 2)
        return mine.end(task, RunStatus.SUCCESS)

    mine.act = act
    with world.store.claims.owner() as lock:
        _, state = world.drive(lock)
    assert state.filling is Filling.DONE
    assert world.stands() == ["success"] * 7
    assert (len(mine.given), len(theirs.given)) == (2, 5)
