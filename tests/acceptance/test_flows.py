"""The notebooks of control flow, state and waits do headless what their pages tell."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cellrail import App
from reading import printed

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
DOCS = NOTEBOOKS.parent / "docs"


@pytest.fixture
def book(tmp_path):
    """Puts a notebook into the test's folder."""

    def copy(name: str) -> Path:
        return Path(shutil.copy(NOTEBOOKS / f"{name}.ipynb", tmp_path))

    return copy


def statuses(run) -> dict[str, str]:
    return {step.label: str(step.status) for step in run.steps if step.name}


def turns(app, run, label: str) -> list[dict]:
    """The jobs of a loop's step that the run itself has executed, one for each turn."""
    number = run[label].number
    jobs = [line for line in app.journal(run.id) if line["type"] == "finished"]
    return [job for job in jobs if job["step"] == number and job.get("turns")]


# --- Windmill: watch for changes, loop over the difference -----------------------------------


def test_each_run_looks_up_what_is_new_and_what_failed_before(book, app):
    path = book("watch_aircraft")
    first = app.run(path, parameters={"until": "2013-01-01"})
    assert first.status == "success", first.cause
    again = app.run(path, parameters={"until": "2013-01-01"})
    later = app.run(path, parameters={"until": "2013-01-06"})

    # two aircraft on the first day; one of them is not in the register, and stays new
    assert printed(first, "watch") == "2 aircraft until 2013-01-01 of which new: 2\n"
    assert printed(again, "watch") == "2 aircraft until 2013-01-01 of which new: 1\n"
    (state,) = app.state_list()
    assert state.path.startswith("watch_aircraft.ipynb/watch/user:")
    known = first["report"].variables["found"].load()
    new = later["watch"].variables["new"].load()
    found = later["report"].variables["found"].load()
    assert len(known) == 1
    assert not set(known) & set(new)
    assert 0 < len(found) < len(new)
    assert state.value == sorted({*known, *found})
    (row,) = app.sql("SELECT flow, value FROM state JOIN runs USING (run_id)")
    assert (row["flow"], json.loads(row["value"])) == ("watch_aircraft.ipynb", state.value)


def test_a_run_that_fails_behind_its_loop_has_forgotten_nothing(book, app, edit):
    path = book("watch_aircraft")
    whole = app.run(path, parameters={"until": "2013-01-01"}, to="report")
    assert app.state_list() == []
    edit(path, "found = {", "1 / 0\nfound = {")
    failed = app.run(path, parameters={"until": "2013-01-01"})
    assert (failed.status, app.state_list()) == ("failed", [])
    assert printed(failed, "watch") == printed(whole, "watch")

    edit(path, "1 / 0\n", "")
    mended = app.restart(failed.id)

    assert mended["look_up"].status == "kept"
    assert app.state_list()[0].value == sorted(mended["report"].variables["found"].load())


def test_failed_items_alone_are_looked_up_again(book, app):
    run = app.run(book("watch_aircraft"), parameters={"until": "2013-01-06"})
    items = turns(app, run, "look_up")

    again = app.restart(run.id, failed_only=True)

    failed = [job for job in items if job["status"] == "failed"]
    assert 0 < len(failed) < len(items)
    tried = [job["turns"] for job in turns(app, again, "look_up")]
    assert tried == [job["turns"] for job in failed]


# --- HyperFlow: a sum of squares with an accumulator -----------------------------------------


def test_an_accumulator_survives_a_kill_in_the_midst_of_its_loop(book, app, cellrail, edit):
    path = book("sum_of_squares")
    whole = app.run(path)
    assert whole.status == "success", whole.cause
    kill = (
        "import os, pathlib, time\n"
        "if month == 7 and not pathlib.Path('killed').exists():\n"
        "    pathlib.Path('killed').touch(); os.kill(os.getppid(), 9); time.sleep(60)"
    )
    edit(path, "total += squares", f"total += squares\n{kill}")
    done = cellrail("run", path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    killed = app.show("last")
    before = [job["job_id"] for job in turns(app, killed, "add")]
    assert len(before) == 6

    again = app.recover(killed.id)

    assert again.status == "success", again.cause
    assert printed(again, "check") == printed(whole, "check")
    after = [job["job_id"] for job in turns(app, again, "add")]
    assert (after[:6], len(after), len(turns(app, again, "square"))) == (before, 12, 12)


def test_a_restart_at_a_month_goes_on_with_the_sum_of_those_before(book, app):
    whole = app.run(book("sum_of_squares"))
    again = app.restart(whole.id, from_step="square[7]")

    assert printed(again, "check") == printed(whole, "check")
    months = [int(job["turns"][0]["key"]) for job in turns(app, again, "add")]
    assert months == [7, 8, 9, 10, 11, 12]


# --- Pipedream: approval, polling, callback --------------------------------------------------


def test_nothing_is_dropped_before_somebody_approves(book, app, cellrail):
    path = book("approval")
    done = cellrail("run", path)
    assert done.returncode == 3, done.stderr
    waiting = app.show("last")
    assert statuses(waiting) == {
        "parameters": "success", "load": "success", "approve": "suspended", "clean": "pending",
        "report": "pending",
    }  # fmt: skip

    done = cellrail("resume", waiting.id, "--data", '{"by": "ann"}')

    assert done.returncode == 0, done.stderr
    run = app.show(waiting.id)
    assert (run.status, run["approve"].resume_data) == ("success", {"by": "ann"})
    assert printed(run, "clean") == "1 dropped, approved by ann\n"
    assert "1048" not in printed(run, "report")


def test_who_cancels_has_dropped_nothing_and_a_restart_asks_again(book, app):
    path = book("approval")
    cancelled = app.cancel(app.run(path).id)
    assert cancelled.status == "cancelled"
    assert statuses(cancelled)["clean"] == "pending"

    asked = app.restart(cancelled.id)
    assert (asked.status, asked["load"].status) == ("suspended", "kept")
    assert app.resume(asked.id, data={"by": "bob"}).status == "success"


def test_where_there_is_nothing_to_doubt_nobody_is_asked(book, app):
    run = app.run(book("approval"), parameters={"limit": 2000})

    assert (run.status, run["approve"].status) == ("success", "skipped")
    assert printed(run, "clean") == "0 dropped, approved by nobody\n"


@pytest.mark.parametrize("parks", [False, True])
def test_a_job_elsewhere_is_asked_until_it_is_done(book, app, tmp_path, parks):
    path = book("polling")
    if parks:
        words = [sys.executable, "-m", "cellrail", "run", path, "-p", "seconds", "600"]
        there = {**os.environ, "TMPDIR": str(tmp_path)}
        driver = subprocess.Popen(words, cwd=tmp_path, env=there)
        try:
            while not (tmp_path / ".cellrail" / "store.json").exists() or not app.runs(
                status="suspended"
            ):
                time.sleep(0.05)
        finally:
            driver.kill()
            driver.wait()
        waiting = app.show("last")
        while not list(tmp_path.glob("*/months.json")):  # the job outlives the kernel
            time.sleep(0.05)
        run = app.resume(waiting.id)
    else:
        run = app.run(path)

    assert run.status == "success", run.cause
    assert printed(run, "report") == "336776 flights, most of them in month 7\n"
    looks = [
        line.get("runs", 1)
        for line in app.journal(run.id)
        if line["type"] == "finished" and line["step"] == run["poll"].number
    ]
    assert len(looks) >= 2
    assert looks == list(range(1, len(looks) + 1))


def ordered(book, tmp_path, monkeypatch):
    """A run that waits for its service, and the order that the service got."""
    monkeypatch.setenv("CELLRAIL_BASE_URL", "http://localhost:1")
    app = App(tmp_path / ".cellrail")
    words = [sys.executable, "-m", "cellrail", "run", book("callback"), "-p", "outbox", tmp_path]
    driver = subprocess.Popen([str(word) for word in words], cwd=tmp_path)
    try:
        while not (tmp_path / ".cellrail" / "store.json").exists() or not app.runs(
            status="suspended"
        ):
            time.sleep(0.05)
    finally:  # nobody has to stay for the call
        driver.kill()
        driver.wait()
    return app, json.loads((tmp_path / "order.json").read_text())


def test_a_service_calls_back_and_the_step_sees_its_request(book, tmp_path, monkeypatch):
    app, order = ordered(book, tmp_path, monkeypatch)
    assert (order["airport"], order["reports"]) == ("JFK", 8706)
    token = order["callback"].rpartition("/")[2]

    request = {"method": "POST", "headers": {}, "query": {}, "body": '{"fastest": 42.6}'}
    app.wake(token, request=request, who="service")
    (ticked,) = app.tick()

    assert ticked.run is not None
    assert ticked.run.status == "success", ticked.run.cause
    assert printed(ticked.run, "compare") == ("the service found 42.6 and the reports say 42.6\n")


def test_a_service_that_does_not_call_fails_the_step(book, tmp_path, monkeypatch):
    app, _ = ordered(book, tmp_path, monkeypatch)
    (ticked,) = app.tick(time.time() + 90_000)

    assert ticked.run is not None
    assert ticked.run.status == "failed"
    assert ticked.run.cause == "TimeoutError: the service has not called back"


# --- a parallel loop, its cache, and reruns --------------------------------------------------


def test_models_are_fitted_once_for_the_same_rows_and_again_for_others(book, app):
    path = book("airport_models")
    whole = app.run(path)
    assert whole.status == "success", whole.cause
    assert len(whole["table"].variables["score"].load()) == 3

    cached = app.run(path)
    assert printed(cached, "table") == printed(whole, "table")
    fitted = [job["status"] for job in turns(app, cached, "fit")]
    assert fitted == ["kept"] * 3

    same = app.rerun(whole.id, parameters={"longest": 610})
    other = app.rerun(whole.id, parameters={"longest": 60})
    assert [str(step.status) for step in same.steps][-3:] == ["success", "kept", "kept"]
    assert [str(step.status) for step in other.steps][-4:] == ["kept", *(["success"] * 3)]
    assert printed(other, "table") != printed(whole, "table")


# --- calls -----------------------------------------------------------------------------------


def test_of_several_calls_only_the_one_that_failed_is_made_again(book, app, edit):
    path, called = book("storm_days"), book("daily_delays")
    good = "today = date.fromisoformat(str(day))"
    edit(called, good, f"{good}\nif today.day == 8: raise ValueError('no data')")
    failed = app.run(path)
    assert (failed.status, failed["report"].status) == ("failed", "failed")
    assert "no data" in printed(failed, "tell")
    edit(called, "raise ValueError('no data')", "pass")

    run = app.restart(failed.id)

    assert run.status == "success", run.cause
    assert printed(run, "worst") == "2013-02-08 51% cancelled\n"
    called = [app.show(row.run_id) for row in app.runs() if row.labels.get("parent")]
    days = [str(run.parameters["day"]) for run in called]
    assert sorted(days) == ["2013-02-07", "2013-02-08", "2013-02-08", "2013-02-10"]


# --- the pages -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page",
    ["calls", "checkpoints", "control_flow", "each", "recover", "rerun", "state", "waits"],
)
def test_each_page_names_notebooks_that_there_are(page):
    text = (DOCS / f"{page}.md").read_text("utf-8")
    named = [word.split(")")[0] for word in text.split("](../notebooks/")[1:]]

    assert named
    assert [name for name in named if not (NOTEBOOKS / name).is_file()] == []
