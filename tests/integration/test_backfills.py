"""Backfills: a notebook runs for the ticks of a range.

Laws:

* whoever is killed, and however often: in the end every tick has exactly one successful run, and no
  committed step was executed twice;
* what is run is the notebook as it was at the start;
* a tick that is filled is left alone; a failed one keeps what it has done; of a stale one only what
  changed executes;
* pause, cancel and Ctrl-C are heeded at once.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cellrail import App
from cellrail.errors import BadSchedule, NoSuchBackfill, UserError
from cellrail.filling import Counts
from cellrail_state.errors import StoreError, Untrusted
from cellrail_state.model import JobFinished
from cellrail_state.testing import FakeClock
from reading import WITNESS

#: a cell that tells that it was executed
DAY = {"day": "{date:%Y-%m-%d}"}
RANGE = {"start": "2025-01-01", "end": "2025-01-03", "every": "day", "parameters": DAY}


@pytest.fixture
def days(make):
    """A flow with a day as parameter."""

    def build(*sources, **options):
        return make("day = ''", *sources, tags={1: ["parameters"]}, **options)

    return build


def witnessed(folder: Path) -> list[str]:
    path = folder / "witness.txt"
    return path.read_text().split() if path.exists() else []


def filled(app) -> dict[str, list[str]]:
    """The successful runs of each tick."""
    rows = app.store.catalog.query(
        "SELECT tick, run_id FROM runs WHERE status = 'success' AND tick IS NOT NULL "
        "ORDER BY run_id"
    )
    found = collections.defaultdict(list)
    for row in rows:
        found[row["tick"][:8]].append(row["run_id"])
    return dict(sorted(found.items()))


def test_every_tick_runs_once_with_its_inputs_labels_and_time(app, days):
    flow = days("from cellrail import flow\nprint(day, flow.tick)")
    fill = app.backfill_start(flow, **RANGE, tz="Europe/Paris", labels={"why": "test"}, parallel=2)
    assert (fill.status, fill.counts()) == ("done", {"success": 3})
    runs = [app.show(row.run_id) for row in app.runs(flow, labels={"backfill": fill.id})]
    said = sorted(o["text"].strip() for run in runs for o in run["#2"].outputs)
    assert said == [f"2025-01-0{n} 2025-01-0{n} 00:00:00+01:00" for n in (1, 2, 3)]
    ticks = {run.labels["tick"] for run in runs}
    assert ticks == {f"2025-01-0{n}T00:00:00+01:00" for n in (1, 2, 3)}
    started = app.history(runs[0].id).started
    assert (started.scope, started.labels["why"]) == (f"backfill:{fill.id}", "test")
    again = app.backfill_start(flow, **RANGE, tz="Europe/Paris", labels={"why": "test"}, parallel=2)
    assert again.driven.total == 0


def test_modules_beside_the_notebook_are_no_modules_of_ours(app, days, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tomllib.py").write_text("raise ImportError('not yours')")
    assert app.backfill_start(days("1"), **RANGE).driven.ended == {"success": 3}


def test_a_plan_runs_nothing_and_makes_nothing(app, days, tmp_path):
    flow = days("1 / 0")
    found = app.backfill_start(flow, **RANGE, plan=True)
    assert found.counts == {"run": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["flow.ipynb"]
    app.backfill_start(flow, **RANGE)
    found = app.backfill_start(flow, **RANGE, ticks="failed", plan=True)
    assert found.counts == {"restart": 3}
    assert "failed" in "\n".join(found.lines())
    assert len(app.backfill_list()) == 1


def test_failed_ticks_keep_what_they_have_done(app, days, tmp_path):
    flow = days(
        WITNESS + "witness(f'a{day}')", "assert not os.path.exists('bad')\nwitness(f'b{day}')"
    )
    (tmp_path / "bad").touch()
    first = app.backfill_start(flow, **RANGE, stop_after=2)
    assert (first.status, first.state.why) == ("paused", "2 ticks have failed")
    assert first.failures()[0][0] == "2025-01-01T00:00:00+00:00"
    (tmp_path / "bad").unlink()
    second = app.backfill_start(flow, **RANGE, ticks="failed")
    assert second.driven.ended == {"success": 2}
    third = app.backfill_start(flow, **RANGE)
    assert third.driven.ended == {"success": 1}
    counted = collections.Counter(witnessed(tmp_path))
    assert set(counted.values()) == {1}
    assert len(counted) == 6
    assert [len(runs) for runs in filled(app).values()] == [1, 1, 1]


def test_of_stale_ticks_only_what_changed_executes(app, days, edit, tmp_path):
    flow = days(WITNESS + "witness(f'a{day}')\nx = 1", "y = x\nwitness(f'b{day}')")
    app.backfill_start(flow, **RANGE)
    assert app.backfill_start(flow, **RANGE, ticks="stale").driven.total == 0
    edit(flow, "y = x", "y = x + 1")
    fill = app.backfill_start(flow, **RANGE, ticks="stale")
    assert fill.driven.ended == {"success": 3}
    counted = collections.Counter(word[0] for word in witnessed(tmp_path))
    assert counted == {"a": 3, "b": 6}
    assert app.backfill_start(flow, **RANGE, ticks="stale").driven.total == 0
    whole = app.backfill_start(flow, **RANGE, ticks="all")
    assert whole.driven.ended == {"success": 3}


class Meddler:
    """A watch that does something once a run has ended."""

    def __init__(self, act):
        self.act = act

    def show(self, counts: Counts) -> None:
        if counts.done and self.act is not None:
            act, self.act = self.act, None
            act()

    def close(self) -> None:
        pass


def test_what_is_run_is_the_notebook_as_it_was_at_the_start(app, days, edit, tmp_path):
    flow = days("print('old')")
    fill = app.backfill_start(flow, **RANGE, watch=Meddler(lambda: edit(flow, "old", "new")))
    assert fill.status == "done"
    runs = [app.show(runs[0]) for runs in filled(app).values()]
    assert ["".join(o["text"] for o in run["#2"].outputs) for run in runs] == ["old\n"] * 3
    later = app.backfill_start(flow, **RANGE, ticks="stale", plan=True)
    assert later.counts == {"rerun": 3}
    pinned = app.store.backfills.folder(fill.id) / "notebook.ipynb"
    pinned.write_text(pinned.read_text().replace("old", "bad"))
    with pytest.raises(StoreError, match="is not the notebook"):
        fill.plan()


def printed(app, number: int = 2) -> list[str]:
    """What a step of each successful run has printed, by tick."""
    runs = [app.show(runs[-1]) for runs in filled(app).values()]
    return ["".join(o["text"] for o in run[f"#{number}"].outputs) for run in runs]


@pytest.mark.parametrize("kernels", ["cold", "warm"])
def test_local_modules_are_those_of_the_start_whatever_becomes_of_their_files(
    app, days, tmp_path, kernels
):
    (tmp_path / "helpers.py").write_text("import tools.deep\nword = 'old ' + tools.deep.word\n")
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "__init__.py").write_text("")
    (tmp_path / "tools" / "deep.py").write_text(
        "from pathlib import Path\nword = Path(__file__).with_name('word.txt').read_text()\n"
        "def show(): return word"
    )
    (tmp_path / "tools" / "word.txt").write_text("deep")
    flow = days(
        "import helpers, inspect, tools.deep as deep\n"
        "print(helpers.word, helpers.__file__, inspect.getsource(deep.show))"
    )

    def change():
        (tmp_path / "helpers.py").write_text("word = 'new'")
        (tmp_path / "tools" / "deep.py").unlink()

    fill = app.backfill_start(flow, **RANGE, kernels=kernels, watch=Meddler(change))
    assert (fill.status, fill.counts()) == ("done", {"success": 3})
    said = f"old deep {tmp_path}/helpers.py def show(): return word\n"
    assert printed(app) == [said] * 3
    # what was run is recorded: today's files are other ones
    assert app.backfill_start(flow, **RANGE, ticks="stale", plan=True).counts == {"rerun": 3}
    kept = app.store.backfills.folder(fill.id) / "modules" / "helpers.py"
    kept.write_text("word = 'bad'")
    with pytest.raises(StoreError, match=r"is not the helpers\.py"):
        app.backfill_show(fill.id).plan()


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_run_that_is_recovered_has_the_modules_of_the_start(app, days, tmp_path):
    (tmp_path / "helpers.py").write_text("word = 'old'")
    flow = days(
        "import os, pathlib",
        "import signal\nif not os.path.exists('died'):\n"
        "    open('died', 'w').close()\n"
        "    pathlib.Path('helpers' + '.py').write_text('word = 1 / 0')\n"
        "    os.kill(os.getppid(), signal.SIGKILL)\n    import time; time.sleep(60)",
        "import helpers\nprint(helpers.word)",
    )
    fill = app.backfill_start(flow, **RANGE, kernels="cold")
    assert (fill.status, fill.driven.ended) == ("done", {"success": 3})
    assert printed(app, 4) == ["old\n"] * 3
    # somebody who restarts it by hand is told that the module is another one
    plan = app.restart(filled(app)["20250101"][0], from_step="#4", plan=True)
    assert not plan.refusals
    assert app.restart(filled(app)["20250101"][0], from_step="#4").status == "failed"


def test_a_local_module_that_a_cell_names_is_not_kept_and_pauses_it_when_it_changes(
    app, days, tmp_path, monkeypatch
):
    from cellrail.app import backfilling

    monkeypatch.setattr(backfilling, "_MODULES_SECONDS", 0.0)
    (tmp_path / "helpers.py").write_text("word = 'old'")
    flow = days("import helpers\nlength = len(open('helpers.py').read())\nprint(helpers.word)")

    def change():
        (tmp_path / "helpers.py").write_text("word = 'new'")

    fill = app.backfill_start(flow, **RANGE, watch=Meddler(change))
    assert fill.status == "paused"
    assert "the module helpers is not as it was" in fill.state.why
    assert app.backfill_resume(fill.id).status == "paused"
    done = app.backfill_resume(fill.id, latest=True)
    assert (done.status, done.counts()) == ("done", {"success": 3})


def test_a_trigger_lends_its_ticks_and_inputs_and_shares_its_ticks(tmp_path, days):
    clock = FakeClock(1_735_776_000.0)  # 2025-01-02T00:00:00Z
    app = App(tmp_path / ".cellrail", clock=clock)
    flow = days("print(day)")
    app.trigger_add(flow, cron="0 6 * * *", id="daily", parameters=DAY, labels={"a": "b"})
    clock.advance(7 * 3600)
    assert len(app.tick()) == 1  # 2025-01-02
    fill = app.backfill_start(flow, start="2025-01-01", end="2025-01-03")
    assert fill.record.trigger == "daily"
    assert fill.driven.ended == {"success": 2}
    clock.advance(86_400)
    assert app.tick() == []  # the backfill has run it
    assert [len(runs) for runs in filled(app).values()] == [1, 1, 1]
    other = app.backfill_start(flow, start="2025-01-01", end="2025-01-01", parameters={"day": "x"})
    assert other.driven.ended == {"success": 1}  # other inputs, another tick


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("kernels", ["cold", "warm"])
def test_a_worker_that_dies_loses_no_tick(app, days, tmp_path, kernels):
    flow = days(
        WITNESS + "witness(f'a{day}')",
        "import signal, psutil\n"
        "if not os.path.exists(f'died{day}'):\n"
        "    open(f'died{day}', 'w').close()\n"
        "    above = psutil.Process().parents()\n"
        f"    above[{kernels == 'warm':d}].kill()\n"
        "    import time; time.sleep(60)\n"
        "witness(f'b{day}')",
    )
    fill = app.backfill_start(flow, **RANGE, kernels=kernels)
    assert (fill.status, fill.driven.ended) == ("done", {"success": 3})
    counted = collections.Counter(word for word in witnessed(tmp_path) if word[0] == "a")
    assert set(counted.values()) == {1}
    assert [len(runs) for runs in filled(app).values()] == [1, 1, 1]


def start(folder, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "cellrail", "backfill", *words], cwd=folder,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def until(fits, seconds=90.0):
    deadline = time.monotonic() + seconds
    while not fits():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killed_again_and_again_every_tick_has_one_run_and_no_step_ran_twice(app, days, tmp_path):
    days(
        WITNESS + "witness(f'a{day}')", "import time\ntime.sleep(0.2)\nwitness(f'b{day}')",
        "witness(f'c{day}')",
    )  # fmt: skip
    words = (
        "start", "flow.ipynb", "--start", "2025-01-01", "--end", "2025-01-08", "--every", "day",
        "-p", "day", "{date}", "--parallel", "2",
    )  # fmt: skip
    for kill, whole in enumerate((True, False, True)):
        seen = len(witnessed(tmp_path))
        driver = start(tmp_path, *words)
        until(lambda seen=seen, kill=kill: len(witnessed(tmp_path)) >= seen + 3 + kill)
        victims = [psutil.Process(driver.pid)]
        if whole:  # its workers, too; else they end what they have begun
            victims += victims[0].children()
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.send_signal(signal.SIGKILL)
        driver.communicate()
    last = start(tmp_path, *words)
    said, _ = last.communicate(timeout=120)
    assert last.returncode == 0, said
    assert "goes on with backfill" in said
    assert len(app.backfill_list()) == 1
    assert {tick: len(runs) for tick, runs in filled(app).items()} == {
        f"2025010{n}": 1 for n in range(1, 9)
    }
    assert all(row.status == "success" for row in app.runs(limit=100))
    assert len(app.runs(limit=100)) == 8
    # a step that was committed did not run again; one that was killed before that may have
    committed = collections.Counter()
    for row in app.runs(limit=100):
        steps = [r.step for r in app.store.records(row.run_id) if isinstance(r, JobFinished)]
        assert len(steps) == len(set(steps)) == 4
        committed[row.run_id] = len(steps)
    counted = collections.Counter(witnessed(tmp_path))
    assert len(counted) == 24
    assert sum(counted.values()) <= 24 + 3 * 2  # at most what was running at each kill


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT")
def test_pause_now_cancel_and_an_interrupt_are_heeded_at_once(app, days, tmp_path):
    days(WITNESS + "witness(f'a{day}')", "import time\nif not os.path.exists('go'): time.sleep(60)")
    words = ("start", "flow.ipynb", "--start", "2025-01-01", "--end", "2025-01-03", "--every",
             "day", "-p", "day", "{date}")  # fmt: skip
    driver = start(tmp_path, *words)
    until(lambda: len(witnessed(tmp_path)) == 1)
    assert app.backfill_show().status == "running"
    with pytest.raises(UserError, match="the same backfill is running"):
        app.backfill_start(tmp_path / "flow.ipynb", **{**RANGE, "parameters": {"day": "{date}"}})
    app.backfill_pause(now=True)
    said, _ = driver.communicate(timeout=30)
    assert driver.returncode == 3, said
    (row,) = app.runs()
    assert row.status == "cancelled"

    driver = start(tmp_path, "resume")
    until(lambda: len(app.runs(status="running")) == 1 and app.runs(status="running"))
    until(lambda: app.show("last")["#3"].status == "running")
    driver.send_signal(signal.SIGINT)
    said, _ = driver.communicate(timeout=30)
    assert driver.returncode == 130, said
    assert app.backfill_show().state.why == "interrupted"

    (tmp_path / "go").touch()
    done = app.backfill_resume()
    assert (done.status, done.counts()) == ("done", {"success": 3})
    assert collections.Counter(witnessed(tmp_path)) == {f"a2025-01-0{n}": 1 for n in (1, 2, 3)}
    with pytest.raises(UserError, match="is done"):
        app.backfill_cancel()


def test_a_schedule_goes_on_through_two_overlapping_backfills_and_no_tick_runs_twice(
    tmp_path, days
):
    clock = FakeClock(1_735_689_600.0)  # 2025-01-01T00:00:00Z
    app = App(tmp_path / ".cellrail", clock=clock)
    days(WITNESS + "witness(f'a{day}')")
    app.trigger_add(
        tmp_path / "flow.ipynb", cron="0 6 * * *", id="t",
        parameters={"day": "{date}"}, max_active=3,
    )  # fmt: skip
    fills = [
        start(tmp_path, "start", "flow.ipynb", "--start", begin, "--end", end, "--trigger", "t")
        for begin, end in (("2025-01-01", "2025-01-05"), ("2025-01-03", "2025-01-07"))
    ]
    ticked = 0
    clock.now += 7 * 3600 + 6 * 86_400  # all seven are due, while the backfills run
    until(lambda: witnessed(tmp_path))
    ticked += len(app.tick())
    for fill in fills:
        said, _ = fill.communicate(timeout=120)
        assert fill.returncode == 0, said
    ticked += len(app.tick())
    assert app.tick() == []
    counted = collections.Counter(witnessed(tmp_path))
    assert counted == {f"a2025-01-0{n}": 1 for n in range(1, 8)}
    runs = [app.history(row.run_id).started.tick for row in app.runs(limit=100)]
    assert len(runs) == 7
    fired = collections.Counter(tick.by.partition(":")[0] for tick in runs)
    assert fired["trigger"] == ticked


def test_kernels_are_forked_from_one_process_a_worker_unless_cold_ones_are_asked_for(
    app, days, tmp_path
):
    flow = days("import os, json", "print(os.getppid())")
    told = {"start": "2025-01-01", "end": "2025-01-06", "every": "day", "parameters": DAY}
    fill = app.backfill_start(flow, **told, parallel=2)
    assert (fill.record.kernels, fill.driven.ended) == ("warm", {"success": 6})
    above = collections.Counter(printed(app, 3))
    assert len(above) <= 2  # a zygote a worker; with cold kernels it is the worker itself
    runs = [app.history(runs[0]).started for runs in filled(app).values()]
    # all of them order their sets alike, so a restart finds a process to fork from, too
    assert {run.hash_seed for run in runs} == {fill.record.hash_seed}
    again = app.backfill_start(flow, **told, ticks="all", kernels="cold")
    assert again.driven.ended == {"success": 6}
    assert len(collections.Counter(printed(app, 3))) == 1
    with pytest.raises(UserError, match="cold or warm"):
        app.backfill_start(flow, **told, kernels="hot")


def test_leading_steps_that_only_compute_and_read_are_executed_once_for_all_runs(
    app, days, tmp_path
):
    (tmp_path / "data.txt").write_text("7")
    flow = days(
        "import os\nbase = int(open('data.txt').read())\nwho = os.getpid()\nprint('read')",
        "def scale(x):\n    return base * x\ntable = [scale(n) for n in range(3)]",
        "open('hidden.txt', 'a').write('x')",
        "from cellrail import flow\nprint(day, flow.tick.date(), scale(2), table, who)",
    )
    plan = app.backfill_start(flow, **RANGE, share=["auto"], plan=True)
    assert plan.shared[0].startswith("executed once for all: #2, #3, #4 (step '#5' reads `day`)")
    assert "the clock" in plan.shared[1]
    fill = app.backfill_start(flow, **RANGE, share=["auto"], parallel=2)
    assert (fill.driven.ended, fill.driven.failures) == ({"success": 3}, [])
    # the write was seen: each run does it itself, and the base did
    assert "(step '#4' writes (hidden.txt))" in fill.shared()[0]
    assert (tmp_path / "hidden.txt").read_text() == "x" * 4
    said = printed(app, 5)
    assert [line.split()[:3] for line in said] == [
        [f"2025-01-0{n}", f"2025-01-0{n}", "14"] for n in (1, 2, 3)
    ]
    assert len({line.split()[-1] for line in said}) == 1  # one process has executed #2
    run = app.show(filled(app)["20250102"][0])
    told = [(step["status"], step["kept"]) for step in run.to_dict()["steps"]]
    assert told == [("kept", "shared")] * 3 + [("success", None)] * 2
    assert app.history(run.id).started.scope == f"backfill:{fill.id}"
    # what was shared is stale as anything else is
    (tmp_path / "data.txt").write_text("8")
    again = app.backfill_start(flow, **RANGE, ticks="all", share=["#2"])
    assert again.driven.ended == {"success": 3}
    assert [line.split()[2] for line in printed(app, 5)] == ["16"] * 3


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import socket\nsocket.socket().connect_ex(('127.0.0.1', 9))", "opens a connection"),
        ("import random\nx = random.random()", "draws random numbers (random)"),
        ("import numpy as np\nx = np.random.rand(312)", "draws random numbers"),
        ("import subprocess\nsubprocess.run(['true'])", "starts a process"),
        ("from cellrail import get_state\nx = get_state()", "uses the run"),
        ("from cellrail import flow\nx = str(flow.tick)", "uses the run"),
        ("import threading, time\n"
         "threading.Thread(target=time.sleep, args=(3,), daemon=True).start()", "leaves code"),
    ],
)  # fmt: skip
def test_a_step_with_a_hidden_write_socket_or_draw_is_not_shared(app, days, code, told):
    flow = days("plain = 1", code, "print(day)")
    fill = app.backfill_start(flow, **RANGE, share=["auto"])
    assert fill.driven.ended == {"success": 3}
    assert "has executed for all: #2 (step '#3' " in fill.shared()[0]
    assert told in fill.shared()[0]
    run = app.show(filled(app)["20250103"][0])
    assert [str(s.status) for s in run.steps] == ["kept", "kept", "success", "success"]


def test_runs_that_share_steps_draw_other_numbers_behind_them(app, days):
    flow = days("import random\nplain = 1", "print(random.random(), day)")
    fill = app.backfill_start(flow, **RANGE, share=["auto"])
    assert fill.driven.ended == {"success": 3}
    assert "has executed for all: #2" in fill.shared()[0]
    assert len({line.split()[0] for line in printed(app, 3)}) == 3


def test_what_cannot_be_shared_is_told(app, days):
    flow = days("x = day", "y = 1")
    with pytest.raises(UserError, match="step '#3' cannot be shared: step '#2' reads `day`"):
        app.backfill_start(flow, **RANGE, share=["#3"])
    fill = app.backfill_start(flow, **RANGE, share=["auto"])
    assert fill.driven.ended == {"success": 3}
    assert fill.shared() == ("nothing: step '#2' reads `day`",)
    assert len(app.runs(limit=100)) == 3


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no such call")
def test_runs_keep_to_their_cores_and_wait_for_room_in_memory(app, days):
    flow = days("import os, time", "print(len(os.sched_getaffinity(0)))\nbegan = time.time()\n"
                "time.sleep(0.3)\nended = time.time()")  # fmt: skip
    fill = app.backfill_start(flow, **RANGE, parallel=3, cores=1, memory=1)
    assert fill.driven.ended == {"success": 3}
    assert printed(app, 3) == ["1\n"] * 3
    runs = [app.show(runs[0])["#3"].variables for runs in filled(app).values()]
    spans = sorted((run["began"].load(), run["ended"].load()) for run in runs)
    assert all(one[1] < two[0] for one, two in itertools.pairwise(spans))


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT")
@pytest.mark.parametrize("kernels", ["cold", "warm"])
@pytest.mark.parametrize("word", ["pause", "cancel"])
def test_pause_and_cancel_are_heeded_at_once_while_runs_execute(app, days, tmp_path, kernels, word):
    days(WITNESS + "witness(f'a{day}')", "import time; time.sleep(100)")
    driver = start(
        tmp_path, "start", "flow.ipynb", "--start", "2025-01-01", "--end", "2025-01-09",
        "--every", "day", "-p", "day", "{date}", "--parallel", "2", "--kernels", kernels,
    )  # fmt: skip
    until(lambda: len(witnessed(tmp_path)) == 2)
    until(lambda: [app.show(row.run_id)["#3"].status for row in app.runs()] == ["running"] * 2)
    assert app.backfill_show().status == "running"
    assert app.backfill_show().counts()["running"] == 2
    getattr(app, f"backfill_{word}")(now=True)
    # long before the cells that execute would end; how soon is told by `make bench-ticks`
    until(lambda: not app.runs(status="running"))
    driver.communicate(timeout=30)
    assert driver.returncode == {"pause": 3, "cancel": 4}[word]
    assert [row.status for row in app.runs()] == ["cancelled", "cancelled"]


def test_a_backfill_has_its_ticks_and_inputs_of_its_own_once_it_has_begun(app, days):
    flow = days("print(day)")
    app.trigger_add(flow, cron="0 0 * * *", id="t", parameters=DAY)
    fill = app.backfill_start(
        flow, start="2025-01-01", end="2025-01-03", watch=Meddler(app.backfill_pause)
    )
    assert fill.status == "paused"
    app.trigger_disable("t")
    app.trigger_remove("t")
    done = app.backfill_resume(fill.id)
    assert (done.status, done.counts()) == ("done", {"success": 3})


def test_ends_are_inclusive_and_an_open_end_is_the_moment_of_the_start(tmp_path, days):
    clock = FakeClock(1_735_776_000.0)  # 2025-01-02T00:00:00Z
    app = App(tmp_path / ".cellrail", clock=clock)
    flow = days("1")

    def ticks(**options):
        found = app.backfill_start(flow, every="day", plan=True, **options)
        return [item.tick.isoformat()[:16] for item in found.items]

    assert ticks(start="2025-01-01") == ["2025-01-01T00:00", "2025-01-02T00:00"]
    assert ticks(start="2025-01-01T00:00", end="2025-01-01T00:00") == ["2025-01-01T00:00"]
    assert ticks(start="2025-01-01T00:01", end="2025-01-02") == ["2025-01-02T00:00"]
    assert ticks(start="2030-01-01", end="2030-01-01") == ["2030-01-01T00:00"]
    fill = app.backfill_start(
        flow, every="day", start="2025-01-01", watch=Meddler(app.backfill_pause)
    )
    clock.advance(86_400)
    again = app.backfill_start(flow, every="day", start="2025-01-01")
    assert again.id == fill.id
    assert len(again.plan().items) == 2  # it does not slide


def test_a_store_of_somebody_else_is_used_once_it_is_trusted_and_fires_nothing_by_itself(
    app, days, tmp_path, monkeypatch
):
    flow = days("assert day != '2025-01-02'")
    app.trigger_add(flow, cron="* * * * * *", id="t", parameters=DAY)
    fill = app.backfill_start(flow, **RANGE, stop_after=1)
    monkeypatch.setenv("CELLRAIL_KEYS", str(tmp_path / "other"))
    other = App(tmp_path / ".cellrail")
    with pytest.raises(Untrusted):
        other.trigger_list()
    failed = next(row.run_id for row in other.runs(status="failed"))
    with pytest.raises(Untrusted):
        other.restart(failed)
    other.trust()
    assert [trigger.enabled for trigger in other.trigger_list()] == [False]
    assert other.tick() == []
    assert other.restart(failed).status == "failed"
    assert other.backfill_resume(fill.id).counts() == {"failed": 1, "success": 2}


def test_a_detached_backfill_runs_in_the_background(app, days, tmp_path):
    flow = days("1")
    fill = app.backfill(flow, **RANGE)
    until(lambda: fill.status == "done")
    assert fill.counts() == {"success": 3}
    assert repr(fill) == f"<backfill {fill.id} of flow.ipynb: done: 3 success>"


def test_what_is_no_good_is_refused_and_nothing_is_kept(app, days, make):
    flow = days("1")
    for wrong, error, told in (
        ({"start": "2025-01-03", "end": "2025-01-01", "every": "day"}, BadSchedule, "ends"),
        ({"start": "2025-01-01", "end": "2025-01-03"}, UserError, "which ticks"),
        ({"start": "2025-01-01", "every": "day", "cron": "* * * * *"}, UserError, "one of"),
        ({"start": "2025-01-01", "every": "dya"}, BadSchedule, "one of minute"),
        ({"start": "x", "every": "day"}, BadSchedule, "neither a date"),
        ({"start": "2025-01-01", "every": "day", "parameters": {"dya": 1}}, UserError, "'day'"),
        ({"start": "2025-01-01", "every": "day", "ticks": "some"}, UserError, "ticks is"),
        ({"start": "2025-01-01", "every": "day", "parallel": 0}, UserError, "at least 1"),
        (
            {"start": "2025-01-01T01:00", "end": "2025-01-01T02:00", "every": "day"},
            BadSchedule, "no tick",
        ),
    ):  # fmt: skip
        with pytest.raises(error, match=told):
            app.backfill_start(flow, **wrong)
    assert app.backfill_list() == []
    with pytest.raises(NoSuchBackfill, match="there is no backfill"):
        app.backfill_show("20250101")


def test_the_command_line_lists_and_shows_backfills(cellrail, days):
    days("assert day != '2025-01-02'")
    words = ("flow.ipynb", "--start", "2025-01-01", "--end", "2025-01-03", "--every", "day",
             "-p", "day", "{date}")  # fmt: skip
    plan = cellrail("backfill", "start", *words, "--plan")
    assert (plan.returncode, plan.stdout.count("never run")) == (0, 3)
    done = cellrail("backfill", "start", *words, "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["counts"], told["schema"]) == (1, {"success": 2, "failed": 1}, 1)
    assert "AssertionError" in told["failures"][0]["why"]
    (listed,) = json.loads(cellrail("backfill", "list", "--json").stdout)["backfills"]
    assert (listed["backfill_id"], listed["status"]) == (told["backfill_id"], "done")
    assert "done: 1 failed, 2 success" in cellrail("backfill", "list").stdout
    shown = cellrail("backfill", "show", told["backfill_id"][:19], "--ticks")
    assert "1 failed, 2 success; 0 left" in shown.stdout
    assert shown.stdout.count("2025-01-02T00:00:00+00:00") == 2
    gone = cellrail("backfill", "resume")
    assert (gone.returncode, "is done" in gone.stderr) == (2, True)
