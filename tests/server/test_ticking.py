"""The loop: what is due is given to workers, once; what is refused is tried again, later each time;
nothing that somebody else runs is run."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from cellrail import App
from cellrail.executors import Done
from cellrail.server import ticking
from cellrail.server.ticking import Rounds


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1_750_000_000.0

    def __call__(self) -> float:
        return self.now


class Executor:
    """Executes nothing."""

    def __init__(self, *given: Any, **options: Any) -> None:
        self.tasks: list[Any] = []
        self.done: list[Done] = []
        self.closed = False

    def submit(self, task: Any) -> None:
        self.tasks.append(task)

    def wait(self, seconds: float) -> list[Done]:
        found, self.done = self.done, []
        return found

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> Executor:
    """Whoever asks for workers gets this one."""
    made = Executor()
    monkeypatch.setattr(ticking, "LocalProcesses", lambda *given, **options: made)
    return made


@pytest.fixture
def rounds(tmp_path, clock, executor):
    made = Rounds(
        lambda: App(tmp_path / ".cellrail", clock=clock), log=logging.getLogger("test"),
        workers=2, timer=clock,
    )  # fmt: skip
    yield made
    made._close()


@pytest.fixture
def app(tmp_path, clock) -> App:
    return App(tmp_path / ".cellrail", clock=clock)


def ended(executor: Executor, **told: Any) -> None:
    """What became of the last task."""
    executor.done.append(Done(run_id=executor.tasks[-1].run_id, **told))


def later(rounds: Rounds, clock: Clock, seconds: float) -> None:
    clock.now += seconds
    rounds.turn()


def test_where_there_is_no_store_there_is_nothing_to_do(rounds, executor):
    rounds.turn()
    assert executor.tasks == []


def test_a_tick_that_is_due_is_given_to_a_worker_once(rounds, executor, app, clock, make):
    app.trigger_add(make("x = 1"), cron="* * * * *", id="t")
    rounds.turn()
    assert executor.tasks == []
    later(rounds, clock, 61)
    assert [task.todo for task in executor.tasks] == ["run"]
    assert executor.tasks[0].labels["trigger"] == "t"
    # max_active is 1: the next tick waits for the end of the first
    later(rounds, clock, 61)
    later(rounds, clock, 2)
    assert len(executor.tasks) == 1


def test_two_servers_give_a_tick_to_one_worker(rounds, executor, app, clock, make, tmp_path):
    app.trigger_add(make("x = 1"), cron="* * * * *", id="t", max_active=9)
    other = Rounds(
        lambda: App(tmp_path / ".cellrail", clock=clock), log=logging.getLogger("test"),
        workers=2, timer=clock,
    )  # fmt: skip
    try:
        later(rounds, clock, 61)
        other.turn()
        assert len(executor.tasks) == 1
    finally:
        other._close()


def test_a_tick_whose_run_could_not_begin_is_tried_again_later_each_time(
    rounds, executor, app, clock, make
):
    app.trigger_add(make("x = 1"), cron="0 0 1 1 *", id="t")
    clock.now += 366 * 86_400
    rounds.turn()
    assert len(executor.tasks) == 1
    for number, delay in enumerate((30, 60, 120), 1):
        ended(executor, error="no room")
        rounds.turn()
        later(rounds, clock, delay - 2)
        assert len(executor.tasks) == number
        later(rounds, clock, 4)
        assert len(executor.tasks) == number + 1
    # it is the same run that is tried
    assert len({task.run_id for task in executor.tasks}) == 1


def test_a_trigger_whose_notebook_is_gone_is_told_once_and_stops_no_other(
    rounds, executor, app, clock, make, caplog
):
    gone = make("x = 1", name="gone.ipynb")
    app.trigger_add(gone, cron="* * * * *", id="a")
    app.trigger_add(make("x = 1"), cron="* * * * *", id="b")
    gone.unlink()
    later(rounds, clock, 61)
    assert [task.labels["trigger"] for task in executor.tasks] == ["b"]
    for _ in range(20):
        later(rounds, clock, 1)
    told = [record for record in caplog.records if "trigger a" in record.getMessage()]
    assert len(told) == 1


def test_no_more_runs_are_under_way_than_workers_may(rounds, executor, app, clock, make):
    for name in "abcd":
        app.trigger_add(make("x = 1", name=f"{name}.ipynb"), cron="* * * * *", id=name)
    later(rounds, clock, 61)
    later(rounds, clock, 1)
    assert len(executor.tasks) == 2
    ended(executor, status="success")
    rounds.turn()
    assert len(executor.tasks) == 3


def test_a_disabled_trigger_and_one_that_is_not_due_cost_no_look_at_the_catalog(
    rounds, executor, app, clock, make, monkeypatch
):
    from cellrail_state.catalog import Catalog

    app.trigger_add(make("x = 1"), cron="0 0 1 1 *", id="later")
    app.trigger_add(make("x = 1"), cron="* * * * *", id="off")
    app.trigger_disable("off")
    rounds.turn()
    asked = []
    monkeypatch.setattr(Catalog, "query", lambda self, *given: asked.append(given) or [])
    for _ in range(30):
        later(rounds, clock, 1)
    assert asked == []


def test_it_may_execute_only_what_people_ask_for(tmp_path, executor, app, clock, make):
    app.trigger_add(make("x = 1"), cron="* * * * *", id="t")
    rounds = Rounds(
        lambda: App(tmp_path / ".cellrail", clock=clock), log=logging.getLogger("test"),
        workers=2, timer=clock, fires=False,
    )  # fmt: skip
    later(rounds, clock, 61)
    assert executor.tasks == []
    task = app.task_of_run(tmp_path / "flow.ipynb", parameters={}, labels={}, secrets=())
    asked = rounds.take(task)
    rounds.turn()
    assert asked.done()
    assert [one.run_id for one in executor.tasks] == [task.run_id]
    rounds._close()


def test_workers_that_have_nothing_to_do_are_ended(rounds, executor, app, clock, make):
    app.trigger_add(make("x = 1"), cron="0 0 1 1 *", id="t")
    clock.now += 366 * 86_400
    rounds.turn()
    assert len(executor.tasks) == 1
    # (this executor says that the run was a success, and there is none)
    app.trigger_disable("t")
    ended(executor, status="success")
    rounds.turn()
    later(rounds, clock, 61)
    later(rounds, clock, 1)
    assert executor.closed


def test_a_backfill_whose_process_was_killed_goes_on_but_not_one_that_was_paused(
    rounds, executor, app, clock, make, monkeypatch
):
    resumed: list[str] = []
    monkeypatch.setattr(App, "_detach", lambda self, backfill: resumed.append(backfill.id))
    options: dict[str, Any] = {"end": "2025-01-02", "every": "day", "detach": True}
    killed = app.backfill_start(make("x = 1"), start="2025-01-01", **options)
    paused = app.backfill_start(make("x = 2", name="b.ipynb"), start="2025-01-01", **options)
    app.backfill_pause(paused.id)
    resumed.clear()
    rounds.turn()
    later(rounds, clock, 61)
    later(rounds, clock, 61)
    assert killed.id in resumed
    assert paused.id not in resumed


def test_a_clock_that_was_set_back_fires_nothing_again(rounds, executor, app, clock, make):
    app.trigger_add(make("x = 1"), cron="* * * * *", id="t", max_active=9)
    later(rounds, clock, 61)
    assert len(executor.tasks) == 1
    clock.now -= 60
    rounds.turn()
    clock.now += 59
    rounds.turn()
    assert len(executor.tasks) == 1


def test_an_error_of_ours_is_logged_and_the_loop_goes_on(
    rounds, executor, app, clock, make, monkeypatch, caplog
):
    app.trigger_add(make("x = 1"), cron="* * * * *", id="t")

    def broken(*given: Any, **options: Any) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(App, "waits_over", broken)
        later(rounds, clock, 61)
    assert "ZeroDivisionError" in caplog.text
    later(rounds, clock, 61)
    assert len(executor.tasks) == 1
