"""Panels on a store: what each room answers, what it starts, and that it shows whatever it holds.

Laws: rooms answer with plain data; hostile text comes through unchanged (the browser makes text of
it) and tables escape it; an errand outlives who began it, and takes no value on its command line; a
page of runs is found by words, labels and parameters; a panel's process ends with its last panel.
"""

from __future__ import annotations

import json
import queue
import time

import msgspec
import nbformat
import pytest
from nbclient import NotebookClient

import cellrail
from cellrail import App
from cellrail.errors import RunNotFound, UserError
from cellrail.panels.clerk import Clerk
from cellrail.panels.errand import Errand, Wish
from cellrail.panels.rooms.restart import RestartRoom
from cellrail.panels.rooms.run import RunRoom
from cellrail.panels.rooms.runs import RunsRoom

EVIL = """<script>alert('x')</script><img src=x onerror="alert(1)">&"""
SOURCES = (
    "day = 'x'\nlimit = 2",
    "%%step load\nimport pandas as pd\nflights = pd.DataFrame({'delay': range(100)})\n"
    "text = day * 2\nflights",
    "%%step score --foreach region in ['north', 'south']\npart = region + day",
    f"%%step report\nprint({EVIL!r})\nassert limit > 2, {EVIL!r}",
)


@pytest.fixture
def failed(make, app):
    """A run that failed at its last step, with hostile text wherever there may be text."""
    path = make(*SOURCES, tags={1: ["parameters"]})
    return app.run(path, parameters={"day": EVIL}, labels={"team": EVIL})


def plain(answer):
    """An answer as it reaches the browser."""
    return msgspec.json.decode(msgspec.json.encode(answer))


# --- runs ------------------------------------------------------------------------------------


def test_a_page_of_runs_is_found_by_words_labels_and_parameters(make, app):
    path = make(
        "day = '2013-01-01'\nwho = 'ann'", "1 / (day != '2013-01-03')", tags={1: ["parameters"]}
    )
    ids = [
        app.run(
            path, parameters={"day": f"2013-01-0{n}"}, labels={"team": "blue" if n % 2 else "red"}
        ).id
        for n in (1, 2, 3)
    ]
    room = RunsRoom(app)

    def found(**args):
        page = plain(room.ask_page(args))
        assert page["total"] == len(page["rows"])
        return [ids.index(row["run"]) + 1 for row in page["rows"]]

    assert found() == [3, 2, 1]
    assert found(status="failed") == [3]
    assert found(text="team=blue") == [3, 1]
    assert found(text="TEAM=Bl day=2013-01-01") == [1]
    assert found(text="day=2013-01-0") == [3, 2, 1]
    assert found(text="zerodivision") == [3]
    assert found(text="flow.ipynb red") == [2]
    assert found(text="nothing% fits_") == []
    assert found(sort="started", ascending=True) == [1, 2, 3]
    page = plain(room.ask_page({"limit": 1, "offset": 1}))
    assert ([row["run"] for row in page["rows"]], page["total"]) == ([ids[1]], 3)
    assert page["counts"] == {"success": 2, "failed": 1}


def test_a_store_that_is_not_there_yet_has_no_runs(tmp_path):
    room = RunsRoom(App(tmp_path / "none"))
    assert room.ask_page({})["empty"] is True
    assert room.stamp("page", {}) is None


def test_what_is_followed_changes_with_a_run(failed, app, make):
    room, run_room = RunsRoom(app), RunRoom(app)
    before, run_before = room.stamp("page", {}), run_room.stamp("view", {"run": failed.id})
    assert room.stamp("page", {}) == before
    app.run(make("1", name="other.ipynb"))
    assert room.stamp("page", {}) != before
    assert run_room.stamp("view", {"run": failed.id}) == run_before
    assert run_room.stamp("view", {"run": "last"}) != run_before


# --- a run -----------------------------------------------------------------------------------


def test_a_run_is_shown_with_what_feeds_what(failed, app):
    view = plain(RunRoom(app).ask_view({"run": "last"}))

    assert view["run"]["id"] == failed.id
    assert view["run"]["parameters"] == [["day", EVIL[:79] + "…" if len(EVIL) > 80 else EVIL]]
    assert [step["label"] for step in view["steps"]] == ["parameters", "load", "score", "report"]
    assert [step["status"] for step in view["steps"]] == ["success"] * 3 + ["failed"]
    assert view["steps"][2]["items"] == {"success": 2}
    numbers = {step["label"]: step["number"] for step in view["steps"]}
    assert [numbers["parameters"], numbers["report"], ["limit"]] in view["edges"]
    assert [numbers["parameters"], numbers["score"], ["day"]] in view["edges"]
    (bar,) = view["steps"][1]["bars"]
    assert bar[0] <= bar[1]
    assert bar[2] == "success"


def test_a_step_shows_what_it_left(failed, app):
    room = RunRoom(app)
    step = plain(room.ask_step({"run": failed.id, "step": "report"}))

    assert step["outputs"][0] == {"kind": "text", "name": "stdout", "text": EVIL + "\n"}
    assert "AssertionError" in step["traceback"]
    assert step["before"] is True
    assert [v["written"] for v in step["variables"]] == [False] * len(step["variables"])
    load = plain(room.ask_step({"run": failed.id, "step": "load"}))
    assert load["outputs"][0]["kind"] == "html"
    assert [v["name"] for v in load["variables"] if v["written"]][:3] == ["flights", "text", "pd"]
    items = plain(room.ask_items({"run": failed.id, "step": "score"}))
    assert [item["address"] for item in items["items"]] == ["score[north]", "score[south]"]
    item = plain(room.ask_step({"run": failed.id, "step": "score[south]"}))
    assert [v["preview"] for v in item["variables"] if v["name"] == "region"] == ["'south'"]
    with pytest.raises(RunNotFound):
        room.ask_view({"run": "nothing-like-it"})


def test_attempts_are_told_of_what_was_tried_more_than_once_alone(make, app):
    app.run(
        make(
            "tries = []",
            "%%step flaky --retry 1\nopen('tried', 'a').write('x')\n"
            "assert len(open('tried').read()) > 1, 'once more'",
            "%%step beside --foreach item in [1, 2] --parallel 2 --collect item\npass",
        )
    )
    room = RunRoom(app)
    flaky, beside = (plain(room.ask_step({"run": "last", "step": s})) for s in ("flaky", "beside"))
    tries = [(one["attempt"], one["status"], one["error"]) for one in flaky["attempts"]]
    assert tries == [(1, "failed", "AssertionError: once more"), (2, "success", "")]
    # the header of a parallel loop is executed once for its items, and ends once behind them
    assert beside["attempts"] == []


def test_a_variable_is_paged_sorted_and_filtered_as_it_stood(failed, app):
    room = RunRoom(app)
    args = {"run": failed.id, "step": "load", "name": "flights"}

    assert plain(room.ask_variable(args))["total"] == 100
    found = plain(
        room.ask_variable({**args, "where": "delay >= 90", "sort": 0, "descending": True})
    )
    assert (found["total"], found["rows"][0]) == (10, ["99", "99"])
    assert EVIL in room.ask_variable({**args, "name": "text"})["text"]
    with pytest.raises(UserError, match="no variable 'nothing'"):
        room.ask_variable({**args, "name": "nothing"})


def test_runs_are_compared_step_by_step(failed, app):
    other = app.restart(failed.id, from_step="score", parameters={"limit": 3}, force=True)
    room = RunRoom(app)

    assert plain(room.ask_runs({"run": other.id})) == [[failed.id, "failed"]]
    told = plain(room.ask_compare({"run": other.id, "other": failed.id, "step": "report"}))
    assert told["parameters"] == [["limit", "not given", "3"]]
    assert [step["step"] for step in told["steps"] if not step["equal"]] == [
        "parameters",
        "score",
        "report",
    ] or [step["step"] for step in told["steps"] if not step["equal"]][-1] == "report"
    journal = plain(room.ask_journal({"run": other.id, "step": "load"}))
    assert journal["records"][0]["what"] == "run"
    assert journal["total"] < len(list(app.journal(other.id)))


# --- a restart -------------------------------------------------------------------------------


def test_the_form_has_the_values_of_the_run_and_offers_the_cut(failed, app):
    form = plain(RestartRoom(app).ask_form({"run": "last"}))

    assert form["cut"] == "report"
    fields = {field["name"]: (field["kind"], field["value"]) for field in form["parameters"]}
    assert fields == {"day": ("text", EVIL), "limit": ("int", "2")}
    addresses = [cut["address"] for cut in form["cuts"]]
    assert addresses == ["parameters", "load", "score", "score[north]", "score[south]", "report"]


def test_the_list_of_cuts_says_how_many_items_it_leaves_out(make, app):
    run = app.run(make("%%step many --foreach i in range(45)\nassert i != 44", "x = 1"))
    cuts = plain(RestartRoom(app).ask_form({"run": run.id}))["cuts"]
    assert cuts[1]["address"] == "many[44]"
    assert [cut["left"] for cut in cuts if "left" in cut] == [5]
    assert sum(cut["item"] for cut in cuts) == 41


def test_a_plan_tells_what_would_happen_with_other_parameters(failed, app):
    room = RestartRoom(app)
    as_it_was = plain(room.ask_plan({"run": failed.id, "step": "report"}))
    assert (as_it_was["kept"], as_it_was["executes"], as_it_was["refusals"]) == (3, 1, [])
    refused = plain(room.ask_plan({"run": failed.id, "step": "report", "parameters": {"day": "y"}}))
    assert refused["refusals"]
    assert refused["earliest"] == "load"
    wide = {"run": failed.id, "step": "report", "parameters": {"day": "y"}, "widen": True}
    assert plain(room.ask_plan(wide))["refusals"] == []


def test_what_is_wrong_with_a_parameter_is_told_of_its_field(failed, app):
    room = RestartRoom(app)
    wrong = {"run": failed.id, "parameters": {"limit": "two"}}
    assert plain(room.ask_plan(wrong)) == {"wrong": {"limit": "'two' is no whole number"}}
    with pytest.raises(UserError, match="limit: 'two' is no whole number"):
        room.ask_start(wrong)


def test_a_field_in_which_nothing_stands_says_what_that_means(make, app):
    cell = (
        "import math\nnothing = None\nempty = ''\nworst = float('nan')\nmost = math.inf\n"
        "at: int = now()"
    )
    run = app.run(
        make(f"now = int\n{cell}", "x = 1", tags={1: ["parameters"]}), parameters={"most": None}
    )
    fields = plain(RestartRoom(app).ask_form({"run": run.id}))["parameters"]
    assert {one["name"]: (one["kind"], one["value"], one["empty"]) for one in fields[1:]} == {
        "nothing": ("any", "", "None"), "empty": ("text", "", ""),
        "worst": ("float", "", "float('nan')"), "most": ("float", "", "None"),
        "at": ("int", "", "now()"),
    }  # fmt: skip
    wrong = {"run": run.id, "parameters": {"worst": "abc", "most": "-inf"}}
    assert plain(RestartRoom(app).ask_plan(wrong)) == {"wrong": {"worst": "'abc' is no number"}}


def follow(room, errand, seconds=120):
    """The progress of an errand, when it has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        told = plain(room.ask_progress({"errand": errand}))
        if told["state"] == "ended":
            return told
        time.sleep(0.1)
    raise AssertionError("the errand has not ended")


def test_a_restart_runs_in_a_process_of_its_own(failed, app):
    room = RestartRoom(app)
    started = room.ask_start(
        {"run": failed.id, "step": "report", "parameters": {"limit": "3"}, "force": True}
    )
    told = follow(room, started["errand"])

    assert told["error"] is None
    assert told["status"] == "success"
    run = app.show(told["run"])
    assert run.origin == failed.id
    assert run.parameters["limit"] == 3
    assert "limit" not in run.history.started.command


def test_a_restart_has_the_numbers_that_were_typed(make, app):
    run = app.run(
        make("a = 1.0\nb = 2.0\nc = 3.0", "print(a, b, c)", tags={1: ["parameters"]}),
        parameters={"c": float("nan")},
    )
    room = RestartRoom(app)
    started = room.ask_start(
        {"run": run.id, "step": "parameters", "parameters": {"a": "-inf", "b": "nan"}}
    )
    told = follow(room, started["errand"])

    assert told["error"] is None
    again = app.show(told["run"])
    assert str(again.parameters) == "{'c': nan, 'a': -inf, 'b': nan}"
    assert again["#2"].outputs[0]["text"] == "-inf nan nan\n"


def test_a_restart_that_is_asked_for_twice_is_one_run(failed, app):
    room = RestartRoom(app)
    wish = {"run": failed.id, "step": "report", "parameters": {"limit": "3"}, "force": True}
    first, second = room.ask_start(wish), room.ask_start(wish)
    assert first == second
    follow(room, first["errand"])
    assert len(app.runs()) == 2
    # what is asked for behind its end is another one
    assert room.ask_start(wish) != first
    follow(room, room.ask_start(wish)["errand"])
    assert len(app.runs()) == 3


def test_a_refused_errand_says_why(failed, app):
    wish = Wish(
        store=str(app.store_path), verb="restart", run=failed.id, options={"from_step": "nothing"}
    )
    state = Errand(app, wish).wait(60)
    assert state.error is not None
    assert "nothing" in state.error["message"]


def test_a_suspended_run_is_resumed_and_a_second_resume_is_told(make, app):
    path = make(
        "%%step ask\nfrom cellrail import flow\nurls = flow.suspend('1h')", "got = flow.resume_data"
    )
    run = app.run(path)
    room = RunRoom(app)
    assert plain(room.ask_view({"run": run.id}))["run"]["waits"]["label"] == "ask"
    resume = {"run": run.id, "verb": "resume", "data": json.dumps({"yes": EVIL})}
    room.ask_act(resume)
    begun = room._acted[run.id].pid
    room.ask_act(resume)
    assert room._acted[run.id].pid == begun  # pressed twice
    while (told := room.ask_acted({"run": run.id}))["state"] != "ended":
        time.sleep(0.1)
    assert told["error"] is None
    assert app.show(run.id).status == "success"
    assert plain(room.ask_step({"run": run.id, "step": "ask"}))["resume_data"]
    with pytest.raises(UserError):
        room.ask_act({"run": run.id, "verb": "delete"})


# --- in the kernel ---------------------------------------------------------------------------


def test_a_clerk_carries_questions_to_a_process_that_ends_with_the_last_panel(failed, app):
    clerk = Clerk(app.store_path)
    heard = queue.Queue()
    clerk.open("p", heard.put)
    clerk.ask("p", {"n": 1, "room": "runs", "what": "page", "args": {}, "watch": True})
    answer = heard.get(timeout=60)
    assert answer["data"]["rows"][0]["labels"] == [["team", EVIL]]

    process = clerk._process
    process.kill()
    assert heard.get(timeout=60) == {"lost": True}
    clerk.ask("p", {"n": 2, "room": "run", "what": "view", "args": {"run": "none-such"}})
    assert "none-such" in heard.get(timeout=60)["error"]["message"]
    process = clerk._process
    clerk.leave("p")
    process.wait(timeout=60)


def test_a_restart_in_this_kernel_puts_its_variables_back(make, app, front):
    run = app.run(make("x = [1, 2]", "%%step add\nx.append(1 / 0)"))
    front.run("%load_ext cellrail\n%flow config notebook=flow.ipynb")
    asked = "from cellrail.panels.here import here\nprint(here({'flow': %r}))"
    assert "'why': ''" in front.run(asked % "flow.ipynb")
    assert "this run is of other.ipynb" in front.run(asked % "other.ipynb")
    wish = {"restart": run.id, "step": "add"}
    said = front.run(f"from cellrail.panels.here import restart_here\nprint(restart_here({wish}))")
    assert "right before 'add'" in said
    assert front.run("x") == "[1, 2]"
    wish = {"restart": run.id, "step": "none"}
    said = front.run(f"from cellrail.panels.here import restart_here\nprint(restart_here({wish}))")
    assert "no step 'none'" in said


def test_the_id_of_a_run_that_is_given_for_a_store_is_refused_with_what_to_call(failed):
    with pytest.raises(UserError, match=f"{failed.id}.* is the id of a run") as refused:
        cellrail.panel(failed.id)
    assert refused.value.hint == f"cellrail.panel(run={failed.id!r})"


def test_panels_are_tables_where_there_is_no_front_end(failed, app):
    for shown in (
        cellrail.panel(app), cellrail.runs_panel(app), cellrail.run_panel(failed.id, app),
        cellrail.restart_panel(failed.id, app),
    ):  # fmt: skip
        bundle = shown._repr_mimebundle_()
        assert "<script" not in bundle["text/html"]
        assert "<img" not in bundle["text/html"]
        assert failed.id in bundle["text/plain"]
        assert "in a terminal: cellrail " in bundle["text/plain"]
        assert "in a terminal: cellrail " in bundle["text/html"]
        shown.close()


def test_a_notebook_that_another_engine_executes_keeps_no_widget_of_a_panel(make, failed, app):
    """nbclient, as papermill and nbconvert have it, saves the state of every widget it hears of."""
    panels = (
        f"import cellrail\napp = cellrail.App({str(app.store_path)!r})\n"
        f"shown = cellrail.restart_panel({failed.id!r}, app)\nshown"
    )
    scripted = (
        "seen = []\nruns = cellrail.runs_panel(app)\n"
        "runs.observe(lambda change: seen.append(change.new), 'value')\n"
        "runs.value = 'chosen'\nassert seen == ['chosen']\n"
        "button = cellrail.restart_button(store=app, parameters={'limit': 3})\nbutton"
    )
    path = make(panels, scripted, name="panels.ipynb")
    book = nbformat.read(path, as_version=4)
    NotebookClient(book, kernel_name="python3").execute()
    assert "widgets" not in book.metadata
    table = book.cells[0].outputs[0].data
    assert set(table) == {"text/plain", "text/html"}
    assert failed.id in table["text/plain"]

    # a box is the user's own widget; what it holds is the panel's name alone
    box = "import ipywidgets\nipywidgets.VBox([shown, cellrail.runs_panel(app)])"
    boxed = make(panels, box, name="boxed.ipynb")
    book = nbformat.read(boxed, as_version=4)
    NotebookClient(book, kernel_name="python3").execute()
    kept = book.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    assert not any("anywidget" in str(state) for state in kept.values())
    assert EVIL not in str(kept)


def test_a_panel_that_a_widget_asks_for_is_opened(failed, app, front):
    """A handler has no cell; it was somebody's click that called it."""
    front.run(f"import cellrail\napp = cellrail.App({str(app.store_path)!r})")
    front.run(
        "made = []\nfrom ipykernel.comm import Comm\n"
        "get_ipython().kernel.comm_manager.register_target("
        "'clicked', lambda comm, message: made.append(cellrail.runs_panel(app)))"
    )
    kernel = front.client
    kernel.shell_channel.send(
        kernel.session.msg("comm_open", {"comm_id": "c", "target_name": "clicked", "data": {}})
    )
    assert front.run("made[0].comm is not None") == "True"
