"""The room of states, resources and variables, and the rooms of single buttons.

Laws:

* what outlives runs is found by path, type, writer and short value; a secret by none of its value,
  and it is told nowhere;
* a change by hand is made over the version that was seen, or refused;
* a press does its work once, however often it is pressed while that goes on;
* a store that is not there yet is no error; tables escape what they show.
"""

from __future__ import annotations

import msgspec
import pytest

import cellrail
from cellrail import App
from cellrail.app.statelist import StateSearch
from cellrail.errors import NotSet, UserError
from cellrail.panels.base import kind_of
from cellrail.panels.pressing import backfill_wish, restart_wish
from cellrail.panels.static import table_of
from cellrail_state.errors import StateConflict
from reading import wait_for

EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)>&"
SECRET = "hunter2-hunter2-hunter2"
KEEP = (
    "%%step watch\nfrom cellrail import set_state, set_resource\n"
    "set_state({'seen': 3})\nset_resource([1, 2], 'team/limits', 'limits')",
    "%%step each --foreach x in ['a', 'b']\nfrom cellrail import set_resource\n"
    "set_resource(x, f'items/{x}')",
)


def plain(answer):
    """An answer as it reaches the browser."""
    return msgspec.json.decode(msgspec.json.encode(answer))


def room(app: App, name: str = "state"):
    """A room as the panels' process has it."""
    return kind_of(name).make(App(app.store_path, clock=app.clock))


@pytest.fixture
def kept(make, app):
    """A run that has kept a state and resources, and variables set by hand."""
    run = app.run(make(*KEEP))
    assert run.status == "success", run.cause
    app.resource_set("evil/<b>path", {"a": EVIL})
    app.variable_set("mail/host", "post.example.org")
    app.variable_set("mail/password", SECRET, secret=True)
    return run


def paths(asked, **args):
    """What a search finds, by path."""
    page = plain(asked.answer("page", args))
    assert page["total"] == len(page["rows"])
    return [row["path"] for row in page["rows"]]


# --- looking -------------------------------------------------------------------------------------


def test_states_resources_and_variables_are_listed_with_their_writers(kept, app):
    page = plain(room(app).answer("page", {}))
    assert page["counts"] == {"state": 1, "resource": 4, "variable": 2}
    assert not page["empty"]
    rows = {row["path"]: row for row in page["rows"]}
    (state,) = [row for row in page["rows"] if row["kind"] == "state"]
    assert (state["flow"], state["of_step"]) == ("flow.ipynb", "watch")
    assert state["scope"].startswith("user:")
    assert (state["text"], state["run"], state["version"]) == ('{"seen": 3}', kept.id, 1)
    limits = rows["team/limits"]
    assert (limits["kind"], limits["type"], limits["text"]) == ("resource", "limits", "[1, 2]")
    assert (rows["mail/host"]["run"], rows["mail/host"]["text"]) == ("", '"post.example.org"')
    assert rows["mail/host"]["by"]
    assert rows["evil/<b>path"]["text"] == f'{{"a": "{EVIL}"}}'


def test_a_search_finds_paths_types_writers_and_short_values(kept, app):
    asked = room(app)
    assert paths(asked, text="LIMITS team") == ["team/limits"]
    assert paths(asked, text="post.example") == ["mail/host"]
    assert paths(asked, kind="variable") == ["mail/host", "mail/password"]
    assert len(paths(asked, text=kept.id)) == 4
    assert paths(asked, text="seen", kind="resource") == []
    assert plain(asked.answer("page", {"text": "seen", "kind": "resource"}))["counts"]["state"] == 1
    page = plain(asked.answer("page", {"limit": 2, "offset": 5}))
    assert ([row["path"] for row in page["rows"]], page["total"]) == (
        ["mail/host", "mail/password"], 7,
    )  # fmt: skip
    for wrong in ({"kind": "nothing"}, {"limit": "many"}, {"offset": -1}):
        with pytest.raises(UserError, match="no search"):
            asked.answer("page", wrong)


def test_a_secret_is_told_nowhere(kept, app):
    asked = room(app)
    one = plain(asked.answer("one", {"kind": "variable", "path": "mail/password"}))
    assert (one["text"], one["secret"], one["size"]) == ("***", True, 0)
    assert SECRET not in str(plain(asked.answer("page", {})))
    assert paths(asked, text="hunter2") == []
    # nor is what it is kept as
    token = app.store.ledger.entry("variable", "mail/password").written.value
    assert token not in str(plain(asked.answer("page", {})))
    assert paths(asked, text=token[:12]) == []
    assert SECRET not in table_of(app, "state", {}, "state").text()


def test_one_is_told_whole_with_the_step_that_wrote_it(kept, app):
    asked = room(app)
    one = plain(asked.answer("one", {"kind": "resource", "path": "team/limits"}))
    assert (one["text"], one["whole"], one["step"]) == ("[\n  1,\n  2\n]", True, "watch")
    item = plain(asked.answer("one", {"kind": "resource", "path": "items/b"}))
    assert item["step"] == "each[b]"
    by_hand = plain(asked.answer("one", {"kind": "variable", "path": "mail/host"}))
    assert (by_hand["step"], by_hand["run"]) == ("", "")
    with pytest.raises(NotSet, match="any more"):
        asked.answer("one", {"kind": "variable", "path": "nothing/there"})
    with pytest.raises(UserError, match="no kind"):
        asked.answer("one", {"kind": "once", "path": "mail/host"})


def test_a_large_value_is_read_only_where_it_is_looked_at(app):
    app.resource_set("big", ["é" * 1000] * 50)
    app.resource_set("huge", "x" * 300_000)
    app.resource_set("long", "y" * 1000)
    # half a character reaches the browser as its escape
    app.resource_set("odd", "\ud800")
    asked = room(app)
    rows = {row["path"]: row for row in plain(asked.answer("page", {}))["rows"]}
    assert (rows["big"]["text"], rows["big"]["whole"]) == ("", False)
    assert rows["big"]["size"] > 50_000
    assert (len(rows["long"]["text"]), rows["long"]["whole"], rows["long"]["size"]) == (
        160, False, 1002,
    )  # fmt: skip
    assert rows["odd"]["text"] == '"\\ud800"'
    assert "é" * 1000 in plain(asked.answer("one", {"kind": "resource", "path": "big"}))["text"]
    huge = plain(asked.answer("one", {"kind": "resource", "path": "huge"}))
    assert (len(huge["text"]), huge["whole"], huge["size"]) == (200_000, False, 300_002)


def test_a_store_that_is_not_there_yet_holds_nothing(tmp_path):
    asked = kind_of("state").make(App(tmp_path / "none"))
    assert asked.answer("page", {})["empty"] is True
    assert asked.stamp("page", {}) is None
    assert not (tmp_path / "none").exists()


def test_what_is_followed_changes_with_a_write(kept, app):
    asked = room(app)
    one = {"kind": "variable", "path": "mail/host"}
    before, of_one = asked.now("page", {}), asked.now("one", one)
    assert asked.now("page", {}) == before
    app.variable_set("mail/port", "25")
    assert asked.now("page", {}) != before
    assert asked.now("one", one) == of_one
    app.variable_set("mail/host", "other.example.org")
    assert asked.now("one", one) != of_one


# --- changing ------------------------------------------------------------------------------------


def test_a_change_by_hand_is_made_over_the_version_that_was_seen(kept, app):
    asked = room(app)
    limits = {"kind": "resource", "path": "team/limits", "version": 1}
    assert asked.answer("set", {**limits, "text": "[7]"}) == {"path": "team/limits", "version": 2}
    assert app.resource_get("team/limits") == [7]
    with pytest.raises(StateConflict, match="in the meantime"):
        asked.answer("set", {**limits, "text": "[8]"})
    with pytest.raises(StateConflict, match="in the meantime"):
        asked.answer("delete", limits)
    with pytest.raises(UserError, match="no JSON") as refused:
        asked.answer("set", {**limits, "version": 2, "text": "yes"})
    assert "quotes" in refused.value.hint
    for text in ("", "NaN", '{"a": 1, "a": 2}'):
        with pytest.raises(UserError, match="no JSON"):
            asked.answer("set", {**limits, "version": 2, "text": text})
    with pytest.raises(UserError, match="which version"):
        asked.answer("delete", {"kind": "resource", "path": "team/limits"})
    assert app.resource_get("team/limits") == [7]
    asked.answer("delete", {**limits, "version": 2})
    assert "team/limits" not in paths(asked)


def test_a_variable_is_text_and_a_secret_stays_one(kept, app):
    asked = room(app)
    host = {"kind": "variable", "path": "mail/host", "version": 1}
    asked.answer("set", {**host, "text": '"quoted"'})
    assert app.variable_get("mail/host") == '"quoted"'
    password = {"kind": "variable", "path": "mail/password", "version": 1}
    told = asked.answer("set", {**password, "text": "another-secret"})
    assert "another" not in str(told)
    assert app.variable_get("mail/password") == "another-secret"
    assert app.variable_is_secret("mail/password")
    asked.answer("delete", {**password, "version": 2})
    assert paths(asked, kind="variable") == ["mail/host"]


# --- tables --------------------------------------------------------------------------------------


def test_a_table_stands_for_the_room_and_escapes_what_it_shows(kept, app):
    table = table_of(app, "state", {}, "<title>")
    assert len(table.rows) == 7
    for markup in ("<script", "<img", "<b>", "<title>"):
        assert markup not in table.html()
    assert [row[1] for row in table_of(app, "state", {"kind": "variable"}, "state").rows] == [
        "mail/host", "mail/password",
    ]  # fmt: skip
    for shown in (
        cellrail.state_panel("", app), cellrail.state_panel("mail/host", app, kind="variable"),
    ):  # fmt: skip
        bundle = shown._repr_mimebundle_()
        assert "mail/host" in bundle["text/plain"]
        assert "<script" not in bundle["text/html"]
        shown.close()
    assert app.state_page(StateSearch(text="nothing fits")).total == 0


# --- buttons -------------------------------------------------------------------------------------


def test_a_press_restarts_once_and_tells_how_it_goes(make, app, tmp_path):
    path = make(
        "limit = 1",
        "%%step wait\nimport os, time\nwhile not os.path.exists('go'): time.sleep(0.02)",
        "%%step check\nassert limit > 1",
        tags={1: ["parameters"]},
    )
    (tmp_path / "go").touch()
    run = app.run(path)
    assert run.status == "failed"
    (tmp_path / "go").unlink()
    wish = restart_wish(run.id, "wait", {"parameters": {"limit": 2}, "labels": {"who": EVIL}})
    asked, own = room(app, "restart_button"), {"button": "b1", "wish": wish, "id": ""}
    assert plain(asked.answer("told", own))["state"] == "idle"
    before = asked.stamp("told", own)
    asked.answer("press", own)
    asked.answer("press", own)
    wait_for(lambda: plain(asked.answer("told", own))["state"] == "running")
    assert asked.stamp("told", own) != before
    wait_for(lambda: plain(asked.answer("told", own))["words"] == "1 of 3 steps")
    told = plain(asked.answer("told", own))
    assert (told["status"], told["error"]) == ("running", None)
    (tmp_path / "go").touch()
    wait_for(lambda: plain(asked.answer("told", own))["state"] == "ended")
    told = plain(asked.answer("told", own))
    assert (told["status"], told["words"]) == ("success", "3 of 3 steps")
    new = app.show(told["id"])
    assert (new.origin, new.parameters["limit"], new.labels) == (run.id, 2, {"who": EVIL})
    assert len(app.store.run_ids()) == 2
    # another view, or another process, knows the run by the value alone
    other = {**own, "button": "b2", "id": new.id}
    assert plain(room(app, "restart_button").answer("told", other))["status"] == "success"
    # a run that is looked at since is the one that is told of
    assert plain(asked.answer("told", {**own, "id": run.id}))["id"] == run.id


def test_a_press_that_is_refused_says_why_and_can_be_repeated(make, app):
    run = app.run(make("x = 1"))
    asked = room(app, "restart_button")
    own = {"button": "b", "wish": restart_wish(run.id, "nothing-like-it", {}), "id": ""}
    asked.answer("press", own)
    wait_for(lambda: plain(asked.answer("told", own))["state"] == "ended")
    told = plain(asked.answer("told", own))
    assert "nothing-like-it" in told["error"]["message"]
    assert told["id"] == ""
    own["wish"] = restart_wish(run.id, "#1", {})
    asked.answer("press", own)
    wait_for(lambda: plain(asked.answer("told", own))["status"] == "success")


def test_a_press_starts_a_backfill_and_goes_on_with_a_paused_one(make, app, tmp_path):
    path = make(
        "day = ''", "import os, time\nwhile not os.path.exists('go'): time.sleep(0.02)",
        tags={1: ["parameters"]},
    )  # fmt: skip
    given = {"every": "day", "parameters": {"day": "{date:%Y-%m-%d}"}, "labels": {"who": EVIL}}
    wish = backfill_wish(path, "2025-03-01", "2025-03-03", given)
    asked, own = room(app, "backfill_button"), {"button": "b", "wish": wish, "id": ""}
    assert plain(asked.answer("told", own))["state"] == "idle"
    assert asked.stamp("told", own) is None
    assert not app.store_path.exists()
    started = asked.answer("press", own)
    looked = {**own, **started}
    wait_for(lambda: "1 running" in asked.answer("told", looked).words)
    assert asked.answer("press", own) == started
    app.backfill_pause(started["id"])
    before = asked.now("told", looked)
    (tmp_path / "go").touch()
    wait_for(lambda: not app.store.backfills.driven(started["id"]))
    told = plain(asked.answer("told", looked))
    assert (told["state"], told["status"]) == ("ended", "paused")
    assert told["words"] == "1 of 3 ticks: 1 success"
    assert asked.now("told", looked) != before
    assert asked.answer("press", looked) == started
    wait_for(lambda: asked.answer("told", looked).status == "done")
    assert asked.answer("told", looked).words == "3 of 3 ticks: 3 success"
    assert app.backfill_show(started["id"]).record.labels == {"who": EVIL}


def test_buttons_are_text_where_there_is_no_front_end(make, app):
    path = make("x = 1")
    run = app.run(path)
    again = cellrail.restart_button(store=app, from_step="#1", parameters={"x": EVIL})
    days = cellrail.backfill_button(
        path, app, start="2025-03-01", end="2025-03-02", every="day", description=EVIL
    )
    for shown, told in ((again, f"cellrail restart {run.id} --from '#1'"), (days, "2025-03-02")):
        bundle = shown._repr_mimebundle_()
        assert told in bundle["text/plain"]
        assert "<script" not in bundle["text/html"]
        assert EVIL not in bundle["text/plain"]
        shown.close()
