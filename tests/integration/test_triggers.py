"""Triggers: a notebook runs at the ticks of a schedule.

Laws:

* each tick starts at most one run, whatever crashes or races happen, and whatever the clock does;
* a tick that was missed runs, or not, as the trigger says; what is skipped is told;
* no more runs are under way than the trigger allows;
* what cannot be run is told, and blocks no other trigger.
"""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
import time

import pytest

from cellrail import App
from cellrail.errors import BadSchedule, NoSuchTrigger, TickIsTaken, UnknownParameter, UserError
from cellrail_state.model import RunStatus
from cellrail_state.standing import Claimer, claim, stands
from cellrail_state.testing import FakeClock, first_record

HOURLY = "0 * * * *"
SOURCE = ("day = None\nn = 1", "from cellrail import flow\nprint(day, flow.tick)")


def at(text: str) -> float:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()


@pytest.fixture
def clock():
    return FakeClock(at("2025-06-01T00:30"))


@pytest.fixture
def timed(tmp_path, clock):
    return App(tmp_path / ".cellrail", clock=clock)


@pytest.fixture
def flow(make):
    return make(*SOURCE, tags={1: ["parameters"]})


def printed(run) -> str:
    return "".join(o["text"] for o in run["#2"].outputs if o["output_type"] == "stream").strip()


def ticks(app) -> list[str]:
    """The ticks that have runs, in order of time."""
    rows = app.store.catalog.query("SELECT tick FROM runs WHERE tick IS NOT NULL ORDER BY tick")
    return [row["tick"][9:13] for row in rows]


def test_a_tick_runs_once_with_its_inputs_labels_and_time(timed, clock, flow):
    timed.trigger_add(
        flow, cron="30 3 * * *", tz="Europe/Paris", id="daily", labels={"team": "a"},
        parameters={"day": "{date:%Y-%m-%d}", "n": 2},
    )  # fmt: skip
    assert timed.tick() == []  # the first tick is the next one
    clock.now = at("2025-06-01T01:31")
    (done,) = timed.tick()
    assert done.run.status is RunStatus.SUCCESS
    assert printed(done.run) == "2025-06-01 2025-06-01 03:30:00+02:00"
    started = timed.history(done.run_id).started
    assert started.labels == {
        "team": "a", "trigger": "daily", "tick": "2025-06-01T03:30:00+02:00",
    }  # fmt: skip
    assert started.scope == "trigger:daily"
    assert timed.tick() == []
    clock.advance(86_400)
    assert len(timed.tick()) == 1
    assert [tick.isoformat() for tick in timed.trigger_next("daily", 1)] == [
        "2025-06-03T03:30:00+02:00"
    ]


@pytest.mark.parametrize(
    ("missed", "late_after", "runs"),
    [
        ("all", None, ["0100", "0200", "0300", "0400"]),
        ("last", None, ["0400"]),
        ("none", None, []),
        ("all", 4000.0, ["0400"]),
        ("last", 60.0, []),
    ],
)
def test_missed_ticks_run_as_the_trigger_says_and_are_listed_first(
    timed, clock, make, missed, late_after, runs
):
    timed.trigger_add(make("1"), cron=HOURLY, id="t", missed=missed, late_after=late_after)
    clock.now = at("2025-06-01T04:40")
    told: list[str] = []
    done = timed.tick(tell=told.append)
    assert len(done) == len(runs)
    assert ticks(timed) == runs
    listed = " ".join(told)
    assert listed.count("+00:00") == 4
    assert ("will run" in listed) == bool(runs)
    told.clear()
    assert timed.tick(tell=told.append) == []
    assert told == []
    clock.now = at("2025-06-01T05:01")  # in time
    assert len(timed.tick()) == 1


def test_the_command_line_tells_what_is_due_missed_and_skipped(timed, clock, make, cellrail):
    clock.now = time.time() - 4 * 3600
    for missed in ("all", "last"):
        timed.trigger_add(make("1"), cron=HOURLY, id=missed, missed=missed)
    clock.now = time.time()
    due = {name: timed.trigger_due(name) for name in ("all", "last")}

    lines = cellrail("trigger", "list").stdout.splitlines()
    assert lines[1].endswith(f"{len(due['all'].ticks)} due, {len(due['all'].missed)} missed")
    assert lines[2].endswith(f"{len(due['last'].skipped)} skipped")
    shown = cellrail("trigger", "show", "last").stdout
    for tick in due["last"].skipped:
        assert f"skipped      {tick.isoformat()}" in shown
    told = json.loads(cellrail("trigger", "show", "all", "--json").stdout)
    assert told["missed"] == "all"
    assert told["due"]["missed"] == [tick.isoformat() for tick in due["all"].missed]


def test_a_clock_that_is_set_back_or_far_ahead_runs_no_tick_twice_and_loses_none(
    timed, clock, make
):
    timed.trigger_add(make("1"), cron=HOURLY, id="t", missed="last")
    clock.now = at("2025-06-01T02:01")
    assert len(timed.tick()) == 1
    clock.now = at("2025-06-01T00:59")
    assert timed.tick() == []
    clock.now = at("2025-06-01T02:02")
    assert timed.tick() == []
    clock.now = at("2031-01-01T00:01")  # wrong, for a moment
    assert len(timed.tick()) == 1
    clock.now = at("2025-06-01T03:01")
    assert len(timed.tick()) == 1
    assert ticks(timed) == ["0200", "0300", "0000"]


def test_a_crash_between_claim_and_start_has_the_chosen_run_begin(timed, clock, make):
    trigger = timed.trigger_add(make("1"), cron=HOURLY, id="t")
    clock.now = at("2025-06-01T01:01")
    key = _key(timed, trigger, clock.now)
    store = timed.store
    (mine,) = claim(
        store, trigger.flow, [stands(store, trigger.flow, [key])[key]],
        Claimer(owner=first_record().owner, lock="gone", by="trigger:t"),
        new_id=lambda: "20250601-010000000-aaaa", now=clock.now,
    )  # fmt: skip
    (done,) = timed.tick()
    assert done.run_id == mine.run_id
    assert timed.tick() == []


def _key(app, trigger, now):
    from cellrail.schedule.cron import Cron

    cron = Cron(trigger.cron, trigger.zone)
    _, flow = app._flow(app.store_path.parent / trigger.flow)
    schedule = app._schedule(flow, cron, trigger.inputs, trigger.secrets)
    tick = cron.before(dt.datetime.fromtimestamp(now, dt.UTC))
    return next(iter(schedule.keys([tick])))[1]


def test_what_somebody_else_is_about_to_run_is_left_and_counts_as_under_way(timed, clock, make):
    trigger = timed.trigger_add(make("1"), cron=HOURLY, id="t")
    clock.now = at("2025-06-01T02:01")
    key = _key(timed, trigger, at("2025-06-01T01:01"))
    store = timed.store
    with store.claims.owner() as lock:
        claimer = Claimer(owner=first_record().owner, lock=lock, by="backfill:b")
        seen = stands(store, trigger.flow, [key])[key]
        (mine,) = claim(
            store, trigger.flow, [seen], claimer, new_id=lambda: "20250601-0-aaaa", now=0.0
        )
        assert timed.tick() == []
        timed.store.triggers.change(_with(trigger, max_active=2))
        assert [ticks(timed), len(timed.tick())] == [[], 1]
    assert ticks(timed) == ["0200"]
    # it was never begun, and its owner is gone
    assert [done.run_id for done in timed.tick()] == [mine.run_id]


def _with(record, **changes):
    import msgspec

    return msgspec.structs.replace(record, **changes)


def test_no_more_runs_are_under_way_than_allowed_and_those_blocked_run_later(timed, clock, make):
    flow = make("from cellrail import flow\nflow.suspend('1d')")
    timed.trigger_add(flow, cron=HOURLY, id="t")
    clock.now = at("2025-06-01T03:01")
    (first,) = timed.tick()
    assert first.run.status is RunStatus.SUSPENDED
    assert timed.tick() == []
    timed.cancel(first.run_id)
    assert len(timed.tick()) == 1
    assert ticks(timed) == ["0100", "0200"]


def test_an_interrupted_run_is_recovered_under_its_id(timed, clock, make, tmp_path):
    flow = make("open('witness', 'a').write('a')", "open('witness', 'a').write('b')")
    trigger = timed.trigger_add(flow, cron=HOURLY, id="t")
    clock.now = at("2025-06-01T01:01")
    (done,) = timed.tick()
    path = timed.store.journal_path(done.run_id)
    entries = list(_entries(path))
    path.write_bytes(path.read_bytes()[: entries[3].end])  # killed in its second cell
    timed.store.triggers.look(trigger, clock.now)
    timed.store.catalog.rebuild()
    (again,) = timed.tick()
    assert (again.run_id, again.run.status) == (done.run_id, RunStatus.SUCCESS)
    assert (tmp_path / "witness").read_text() == "abb"
    assert timed.tick() == []


def _entries(path):
    from cellrail_state.journal import read

    return read(path)


def test_what_cannot_run_is_told_and_blocks_no_other_trigger(timed, clock, make):
    broken = make("1", name="gone.ipynb")
    timed.trigger_add(broken, cron=HOURLY, id="a")
    timed.trigger_add(make("1"), cron=HOURLY, id="b")
    broken.rename(broken.with_name("away.ipynb"))
    clock.now = at("2025-06-01T02:01")
    refused, *done = timed.tick()
    assert "trigger a: " in refused.refused
    assert "does not exist" in refused.refused
    assert len(done) == 2
    broken.with_name("away.ipynb").rename(broken)
    assert len(timed.tick()) == 2  # nothing was lost


def test_a_failed_tick_is_not_tried_again_by_itself_and_a_restart_fills_it(
    timed, clock, make, edit
):
    flow = make("x = 1", "1 / 0")
    trigger = timed.trigger_add(flow, cron=HOURLY, id="t")
    clock.now = at("2025-06-01T01:01")
    (done,) = timed.tick()
    assert done.run.status is RunStatus.FAILED
    assert timed.tick() == []
    edit(flow, "1 / 0", "2 / 1")
    run = timed.restart(done.run_id)
    started = timed.history(run.id).started
    assert (started.tick.number, started.tick.by, started.labels["trigger"]) == (
        2,
        "trigger:t",
        "t",
    )
    key = started.tick.key
    assert stands(timed.store, trigger.flow, [key])[key].filled == run.id


def test_a_tick_whose_run_has_not_ended_is_not_restarted(timed, clock, make):
    timed.trigger_add(make("from cellrail import flow\nflow.suspend('1d')"), cron=HOURLY, id="t")
    clock.now = at("2025-06-01T01:01")
    (done,) = timed.tick()
    with pytest.raises(TickIsTaken, match="has a run that has not ended"):
        timed.restart(done.run_id, from_step="#1", keep_waiting=True)
    run = timed.restart(done.run_id, from_step="#1", cancel_origin=True)
    assert run.status is RunStatus.SUSPENDED


def test_a_failed_run_is_not_recovered_when_its_tick_has_had_another(timed, clock, make, tmp_path):
    flow = make(
        "import os, signal\n"
        "if not os.path.exists('calm'): os.kill(os.getpid(), signal.SIGKILL)"
    )  # fmt: skip
    timed.trigger_add(flow, cron=HOURLY, id="t")
    clock.now = at("2025-06-01T01:01")
    (done,) = timed.tick()
    assert done.run.cause.startswith("the kernel died")
    assert timed.recover(done.run_id).status is RunStatus.FAILED
    (tmp_path / "calm").touch()
    clock.advance(1)
    assert timed.restart(done.run_id).status is RunStatus.SUCCESS
    with pytest.raises(TickIsTaken, match="has had another run since"):
        timed.recover(done.run_id)
    assert timed.store.claims.numbers("flow.ipynb").popitem()[1] == 3


def test_once_is_once_per_tick_and_inputs(timed, clock, make, tmp_path):
    flow = make(
        "n = 0",
        "from cellrail import flow\nflow.once('mail', lambda: open('mails', 'a').write('m'))",
        "import os\nassert os.path.exists('good')", tags={1: ["parameters"]},
    )  # fmt: skip
    timed.trigger_add(flow, cron=HOURLY, id="t")
    clock.now = at("2025-06-01T01:01")
    (done,) = timed.tick()
    (tmp_path / "good").touch()
    clock.advance(1)
    assert timed.restart(done.run_id, from_step="#2").status is RunStatus.SUCCESS
    assert (tmp_path / "mails").read_text() == "m"
    clock.advance(1)
    timed.restart(done.run_id, from_step="#2", parameters={"n": 1})  # of another tick
    clock.now = at("2025-06-01T02:01")
    timed.tick()
    assert (tmp_path / "mails").read_text() == "mmm"


def test_a_disabled_trigger_fires_nothing_and_an_enabled_one_from_now_on(timed, clock, make):
    timed.trigger_add(make("1"), cron=HOURLY, id="t")
    timed.trigger_disable("t")
    clock.now = at("2025-06-01T03:01")
    assert timed.tick() == []
    timed.trigger_enable("t")
    assert timed.tick() == []
    clock.now = at("2025-06-01T04:01")
    assert len(timed.tick()) == 1
    timed.trigger_remove("t")
    with pytest.raises(NoSuchTrigger):
        timed.trigger_show("t")


def test_what_is_no_good_is_refused_and_nothing_is_kept(timed, make, flow):
    timed.trigger_add(flow, cron=HOURLY, id="daily")
    with pytest.raises(UserError, match="there is a trigger 'daily' already"):
        timed.trigger_add(flow, cron=HOURLY, id="daily")
    with pytest.raises(UserError, match="is no id"):
        timed.trigger_add(flow, cron=HOURLY, id="../x")
    with pytest.raises(UnknownParameter, match="did you mean 'day'"):
        timed.trigger_add(flow, cron=HOURLY, id="x", parameters={"dya": 1})
    with pytest.raises(BadSchedule, match="parameter 'day'"):
        timed.trigger_add(flow, cron=HOURLY, id="x", parameters={"day": "{dat}"})
    with pytest.raises(BadSchedule, match="no cron expression"):
        timed.trigger_add(flow, cron="x", id="x")
    with pytest.raises(NoSuchTrigger, match="did you mean 'daily'"):
        timed.trigger_show("dayly")
    assert [trigger.id for trigger in timed.trigger_list(flow)] == ["daily"]
    assert timed.trigger_list(make("1", name="other.ipynb")) == []


def test_a_secret_of_a_trigger_is_kept_encrypted(timed, clock, make, everything):
    flow = make("token = ''  # secret", "print(len(token))", tags={1: ["parameters"]})
    timed.trigger_add(flow, cron=HOURLY, id="t", parameters={"token": "hunter2hunter2"})
    clock.now = at("2025-06-01T01:01")
    (done,) = timed.tick()
    assert printed(done.run) == "14"
    assert not [where for where, data in everything(timed) if b"hunter2hunter2" in data]


def test_triggers_follow_a_flow_to_its_new_name(timed, clock, make):
    flow = make("1")
    timed.trigger_add(flow, cron=HOURLY, id="t")
    clock.now = at("2025-06-01T01:01")
    assert len(timed.tick()) == 1
    flow.rename(flow.with_name("new.ipynb"))
    clock.advance(1)
    timed.mv(flow, flow.with_name("new.ipynb"))
    assert timed.trigger_show("t").flow == "new.ipynb"
    assert timed.tick() == []
    clock.now = at("2025-06-01T02:01")
    assert [done.run.status for done in timed.tick()] == [RunStatus.SUCCESS]


def test_of_many_processes_that_look_at_once_and_are_killed_each_tick_has_one_run(
    app, make, tmp_path
):
    flow = make(
        "import os\nfrom cellrail import flow\n"
        "fd = os.open('witness', os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n"
        "os.write(fd, f'{flow.tick:%H}\\n'.encode())\nos.close(fd)",
        "import time\ntime.sleep(0.5)",
    )  # fmt: skip
    trigger = app.trigger_add(flow, cron=HOURLY, id="t", max_active=2)
    # the processes look at the clock of the machine
    app.store.triggers.change(_with(trigger, created=time.time() - 4 * 3600))

    def looks(count):
        words = [sys.executable, "-m", "cellrail", "tick", "-q"]
        return [subprocess.Popen(words, cwd=tmp_path) for _ in range(count)]

    witness, first = tmp_path / "witness", looks(2)
    deadline = time.monotonic() + 60
    while not witness.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    for process in first:
        process.kill()
    for process in [*first, *looks(3)]:
        process.wait(timeout=120)
    app.tick(time.time())
    rows = app.runs(limit=100)
    assert {row.status for row in rows} == {"success"}
    hours = [app.history(row.run_id).started.tick.stamp for row in rows]
    assert len(hours) == len(set(hours)) >= 4  # five where an hour has just begun
    assert len(set(witness.read_text().split())) == len(hours)


def test_the_command_line_keeps_triggers(cellrail, make):
    make("day = None", "print(day)", tags={1: ["parameters"]})
    made = cellrail(
        "trigger", "add", "flow.ipynb", "--cron", "*/30 * * * *", "--tz", "Europe/Paris",
        "-p", "day", "{date}", "--late-after", "10m",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert "trigger flow: */30 * * * * in Europe/Paris, next 2" in made.stderr
    (listed,) = json.loads(cellrail("trigger", "list", "--json").stdout)["triggers"]
    assert (listed["id"], listed["late_after"], listed["inputs"]) == (
        "flow",
        600.0,
        {"day": "{date}"},
    )
    assert "Europe/Paris" in cellrail("trigger", "show", "flow").stdout
    assert len(cellrail("trigger", "next", "flow", "--count", "3").stdout.split()) == 3
    assert "nothing is due" in cellrail("tick").stdout
    assert cellrail("trigger", "disable", "flow").returncode == 0
    assert "disabled" in cellrail("trigger", "list").stdout
    assert cellrail("trigger", "delete", "flow").returncode == 0
    gone = cellrail("trigger", "show", "flow")
    assert (gone.returncode, "there is no trigger 'flow'" in gone.stderr) == (2, True)
