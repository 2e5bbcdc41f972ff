"""The rooms of backfills, waits and triggers: what a panel is told, and what it can do.

Laws:

* a room that is asked changes nothing, but for what its buttons say;
* what would happen is told before anything runs, and then it happens;
* what cells, labels, parameters and names hold reaches the panel as text, and tables escape it;
* a store that is not there yet is no error.
"""

from __future__ import annotations

import datetime as dt

import pytest

from cellrail import App
from cellrail.errors import BadSchedule, NotWaiting, UserError
from cellrail.panels.base import kind_of
from cellrail.panels.rooms.pacing import Pace
from cellrail.panels.schedule_tables import backfills, triggers, waits
from reading import wait_for

HOSTILE = "<img src=x onerror=alert(1)>\"'&"
MARCH = {"notebook": "flow.ipynb", "every": "day", "tz": "Europe/Paris", "first": "2025-03"}
DAY = {"day": "{date:%Y-%m-%d}"}


def room(app: App, name: str):
    """A room as the panels' process has it."""
    return kind_of(name).make(App(app.store_path, clock=app.clock))


@pytest.fixture
def days(make):
    """A flow with a day as parameter."""

    def build(*sources):
        return make("day = '2025-01-01'", *sources, tags={1: ["parameters"]})

    return build


@pytest.fixture
def gate(make):
    """A flow that waits for an answer."""
    return make(
        "%%step approve\nfrom cellrail import flow\nflow.suspend('24h', on_timeout='cancel')",
        "%%step after\nprint(flow.resume_data)",
    )


# --- backfills -----------------------------------------------------------------------------------


def test_before_the_first_run_there_is_a_calendar_of_missing_ticks(app, days):
    days("print(day)")
    asked = room(app, "backfill")
    form = asked.answer("form", {})
    assert (form["notebook"], form["triggers"]) == ("flow.ipynb", [])
    (parameter,) = form["parameters"]
    assert (parameter["name"], parameter["value"]) == ("day", "{date:%Y-%m-%d}")
    found = asked.answer("calendar", {**MARCH, "months": 1, "parameters": DAY})
    assert set(found["counts"]) == {"missing"}
    assert (found["counts"]["missing"], len(found["days"])) == (31, 31)
    assert found["days"]["2025-03-30"]["mark"] == "+1h"
    assert asked.answer("fills", {}) == []
    asked.stamp("calendar", MARCH)
    assert not app.store_path.exists()


def test_what_would_happen_is_told_and_then_it_happens(app, days):
    days("assert day != '2025-03-02'")
    asked = room(app, "backfill")
    wish = {**MARCH, "start": "2025-03-01", "end": "2025-03-03", "parameters": DAY, "parallel": 2}
    plan = asked.answer("plan", wish)
    assert (plan["ticks"], plan["wanted"], plan["counts"], plan["same"]) == (3, 3, {"run": 3}, "")
    assert [row["todo"] for row in plan["rows"]] == ["run"] * 3
    how = {"kernels": "cold", "cores": 1, "gigabytes": 4}
    started = asked.answer("start", {**wish, **how, "labels": "why=test, team=blue"})
    wait_for(lambda: asked.answer("fill", started)["status"] == "done")
    told = asked.answer("fill", started)
    assert (told["total"], told["ended"], told["left"]) == (3, {"failed": 1, "success": 2}, 0)
    (failure,) = told["failures"]
    assert failure["tick"].startswith("2025-03-02T00:00:00+01:00")
    assert failure["run"]
    assert (told["kernels"], told["cores"], told["memory"]) == ("cold", 1, 4_000_000_000)
    assert (told["labels"], told["cursor"]) == ({"why": "test", "team": "blue"}, "")
    found = asked.answer("calendar", {**MARCH, "months": 1, "parameters": DAY})
    assert found["counts"] == {"failed": 1, "missing": 28, "success": 2}
    assert found["days"]["2025-03-02"]["state"] == "failed"
    failed = asked.answer("plan", {**wish, "ticks": "failed"})
    assert (failed["wanted"], failed["counts"]) == (1, {"nothing": 2, "restart": 1})


def test_a_backfill_is_paused_gone_on_with_and_cancelled(app, days, tmp_path):
    days("import os, time\nwhile not os.path.exists('go'): time.sleep(0.02)")
    asked = room(app, "backfill")
    wish = {**MARCH, "start": "2025-03-01", "end": "2025-03-10", "parameters": DAY}
    started = asked.answer("start", wish)
    wait_for(lambda: asked.answer("fill", started)["running"] == 1)
    assert asked.answer("pause", started)["can"]["resume"]
    before = asked.stamp("fill", started)
    (tmp_path / "go").touch()
    wait_for(lambda: asked.answer("fill", started)["ended"] == {"success": 1})
    told = asked.answer("fill", started)
    assert (told["status"], told["left"], told["rate"]) == ("paused", 9, 0)
    assert told["cursor"].startswith("2025-03-02")
    (tmp_path / "go").unlink()
    again = asked.answer("plan", wish)
    assert (again["same"], again["wanted"]) == (started["id"], 9)
    assert asked.answer("resume", started)["can"]["pause"]
    wait_for(lambda: asked.stamp("fill", started) != before)
    wait_for(lambda: asked.answer("fill", started)["running"] == 1)
    assert not asked.answer("cancel", {**started, "now": True})["can"]["cancel"]
    wait_for(lambda: not app.store.backfills.driven(started["id"]))
    (row,) = asked.answer("fills", {})
    assert (row["id"], row["status"]) == (started["id"], "cancelled")
    with pytest.raises(UserError, match="is cancelled"):
        asked.answer("pause", started)


def test_a_running_backfill_tells_its_rate_and_the_time_left(app, days, clock):
    flow = days("1")
    app.backfill_start(flow, start="2025-03-01", end="2025-03-02", every="day", parameters=DAY)
    fill = app.backfill_show()
    progress = fill.progress()
    assert (progress.total, progress.ended, progress.rate) == (2, {"success": 2}, 0)
    assert progress.seconds_left is None


def test_bad_wishes_are_refused_in_words(app, days):
    days("1")
    asked = room(app, "backfill")
    with pytest.raises(UserError, match="pick a range"):
        asked.answer("plan", MARCH)
    with pytest.raises(BadSchedule, match="cron"):
        asked.answer("calendar", {**MARCH, "cron": "nonsense"})
    with pytest.raises(UserError, match="is no label"):
        asked.answer("plan", {**MARCH, "start": "2025-03-01", "end": "2025-03-02", "labels": "x"})
    with pytest.raises(UserError, match="cannot be a backfill"):
        asked.answer("plan", {**MARCH, "parallel": "many"})
    with pytest.raises(UserError, match="cannot be a backfill"):
        asked.answer("plan", {**MARCH, "cores": -1})
    with pytest.raises(UserError, match="is no month"):
        asked.answer("calendar", {**MARCH, "first": "March"})
    with pytest.raises(UserError, match="does not know"):
        asked.answer("nothing", {})


def test_more_ticks_than_anybody_looks_at_are_not_looked_at(app, days):
    days("1")
    wish = {**MARCH, "every": "minute", "months": 3, "parameters": DAY}
    found = room(app, "backfill").answer("calendar", wish)
    assert "look at fewer" in found["problem"]
    assert not found["counts"]
    assert found["days"]["2025-03-30"]["mark"] == "+1h"


def test_values_are_read_as_the_parameter_wants_them(app, make):
    make("word = 'a'\nnumber = 1\nflag = False", tags={1: ["parameters"]})
    wish = {**MARCH, "start": "2025-03-01", "end": "2025-03-01"}
    wish["parameters"] = {"word": "007", "number": "7", "flag": "True"}
    asked = room(app, "backfill")
    started = asked.answer("start", wish)
    wait_for(lambda: asked.answer("fill", started)["status"] == "done")
    assert app.show().parameters == {"word": "007", "number": 7, "flag": True}
    for text, told in {"[NaN]": "NaN is no number", '{"a": 1, "a": 2}': "'a' comes twice"}.items():
        wish["parameters"] = {"word": text, "number": text}
        with pytest.raises(UserError, match=f"number: .*{told}"):
            asked.answer("plan", wish)


def test_a_triggers_inputs_and_schedule_are_taken(app, days):
    flow = days("1")
    app.trigger_add(flow, id="early", cron="0 6 * * *", tz="Europe/Paris", parameters=DAY)
    asked = room(app, "backfill")
    form = asked.answer("form", {})
    assert (form["trigger"], form["parameters"][0]["value"]) == ("early", "")
    assert form["parameters"][0]["says"] == "trigger: {date:%Y-%m-%d}"
    wish = {**MARCH, "trigger": "early", "start": "2025-03-01", "end": "2025-03-02"}
    plan = asked.answer("plan", wish)
    assert [row["tick"][11:16] for row in plan["rows"]] == ["06:00", "06:00"]


# --- waits ---------------------------------------------------------------------------------------


def test_what_waits_is_told_and_a_resume_goes_on_by_itself(app, gate):
    run = app.run(gate, labels={"who": HOSTILE})
    asked = room(app, "waits")
    (row,) = asked.answer("waits", {})["rows"]
    assert (row["run"], row["step"], row["kind"]) == (run.id, "approve", "suspend")
    assert (row["on_timeout"], row["can"], row["words"]) == ("cancel", True, "waits")
    assert row["labels"] == {"who": HOSTILE}
    assert 86_000 < row["until"] - row["asked"] < 86_500
    with pytest.raises(UserError, match="no JSON") as refused:
        asked.answer("answer", {"run": run.id, "step": "approve", "by": "resume", "data": "yes"})
    assert "quotes" in refused.value.hint
    wrong = {'{"by": 1, "by": 2}': "the key 'by' comes twice", "[NaN]": "NaN is no number"}
    for text, told in wrong.items():
        with pytest.raises(UserError, match=told):
            asked.answer("answer", {"run": run.id, "step": "approve", "by": "resume", "data": text})
    before = asked.stamp("waits", {})
    answer = {"run": run.id, "step": "approve", "by": "resume", "data": '{"by": "ann"}'}
    assert asked.answer("answer", answer)["step"] == "approve"
    wait_for(lambda: app.show(run.id).status == "success")
    assert "{'by': 'ann'}" in str(app.show(run.id)["after"].outputs)
    wait_for(lambda: asked.stamp("waits", {}) != before)
    assert asked.answer("waits", {})["rows"] == []
    with pytest.raises(NotWaiting):
        asked.answer("answer", answer)


def test_a_wait_is_cancelled(app, gate):
    run = app.run(gate)
    answer = {"run": run.id, "step": "approve", "by": "cancel"}
    room(app, "waits").answer("answer", answer)
    wait_for(lambda: app.show(run.id).status == "cancelled")
    with pytest.raises(UserError, match="resume or cancel"):
        room(app, "waits").answer("answer", {**answer, "by": "delete"})


def test_an_answer_that_nobody_goes_on_with_is_told(app, gate):
    run = app.run(gate)
    app.answer(run.id, data=1)
    (one,) = app.waits()
    assert one.words.startswith("resumed by ")
    assert not one.can_answer
    assert app.resume(run.id).status == "success"
    assert app.waits() == []


# --- triggers ------------------------------------------------------------------------------------


def test_triggers_are_told_with_what_comes_next_and_what_was_missed(app, days, clock):
    flow = days("1")
    app.trigger_add(
        flow, id="hourly", cron="0 * * * *", parameters={"day": HOSTILE.replace("{", "")}
    )
    clock.ahead = 3 * 3600 + 400
    asked = room(app, "triggers")
    (row,) = asked.answer("triggers", {})["rows"]
    assert (row["id"], row["enabled"], row["last"], row["active"]) == ("hourly", True, None, 0)
    assert row["due_count"] in {3, 4}
    assert 2 <= row["missed_count"] <= row["due_count"]
    assert len(row["next"]) == 5
    assert all(dt.datetime.fromisoformat(tick).timestamp() > clock() for tick in row["next"])
    assert row["inputs"] == {"day": HOSTILE}
    asked.answer("disable", {"id": "hourly"})
    (row,) = asked.answer("triggers", {})["rows"]
    assert (row["enabled"], row["next"], row["due_count"]) == (False, [], 0)
    asked.answer("enable", {"id": "hourly"})
    (row,) = asked.answer("triggers", {})["rows"]
    # what was missed meanwhile is not run
    assert (row["enabled"], row["due_count"]) == (True, 0)


def test_what_is_due_is_run_at_a_press(app, days):
    flow = days("1")
    app.trigger_add(flow, id="secondly", cron="* * * * * */2", missed="last")
    asked = room(app, "triggers")
    assert asked.answer("ticked", {}) == {"ended": True, "error": None}
    wait_for(lambda: asked.answer("triggers", {})["rows"][0]["due_count"])
    (begun,) = asked.answer("tick", {})["begun"]
    assert begun["id"] == "secondly"
    assert begun["due_count"] == len(begun["due"]) > 0
    wait_for(lambda: asked.answer("triggers", {})["rows"][0]["last"])
    wait_for(lambda: asked.answer("triggers", {})["rows"][0]["last"]["status"] == "success")
    asked.answer("disable", {"id": "secondly"})


def test_a_press_tells_what_it_skips_and_what_could_not_be_run(app, days, clock):
    gone = days("1")
    for policy in ("last", "none"):
        app.trigger_add(gone, id=policy, cron="0 * * * *", missed=policy)
    gone.unlink()
    clock.ahead = 3 * 3600 + 1800
    due = {policy: app.trigger_due(policy) for policy in ("last", "none")}
    asked = room(app, "triggers")
    before = asked.stamp("ticked", {})
    told = {one["id"]: one for one in asked.answer("tick", {})["begun"]}
    for policy, one in due.items():
        assert told[policy]["skipped"] == [tick.isoformat() for tick in one.skipped]
        assert [tick["tick"] for tick in told[policy]["due"]] == [t.isoformat() for t in one.ticks]
    wait_for(lambda: asked.answer("ticked", {})["ended"])
    assert "trigger last: " in asked.answer("ticked", {})["error"]["message"]
    assert before == asked.stamp("ticked", {})


# --- tables and stamps ---------------------------------------------------------------------------


def test_tables_stand_for_the_rooms_and_escape_what_they_show(app, make, gate):
    app.run(gate)
    flow = make("name = 'a'", name="a<b>&.ipynb", tags={1: ["parameters"]})
    app.trigger_add(flow, id="daily", cron="0 6 * * *")
    app.backfill_start(flow, start="2025-03-01", end="2025-03-01", trigger="daily")
    tables = [made(app, {}, "<title>") for made in (backfills, waits, triggers)]
    for table in tables:
        assert len(table.rows) == 1
        assert "<b>" not in table.html()
        assert "<title>" not in table.html()
        assert table.headings[0] in table.text()
    assert "a&lt;b&gt;&amp;.ipynb" in tables[0].html()
    assert "approve" in tables[1].text()
    assert waits(app, {"run": "another"}, "waits").rows == ()


def test_stamps_are_held_back_for_a_while_and_never_for_good():
    now, stamp = [0.0], [1]
    pace = Pace(2.0, timer=lambda: now[0])
    assert pace.stamp("a", lambda: stamp[0]) == 1
    stamp[0] = 2
    now[0] = 1.9
    assert pace.stamp("a", lambda: stamp[0]) == 1
    assert pace.stamp("b", lambda: stamp[0]) == 2
    now[0] = 2.0
    assert pace.stamp("a", lambda: stamp[0]) == 2
