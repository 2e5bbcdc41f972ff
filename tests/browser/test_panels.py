"""Panels as a person meets them, in a real JupyterLab.

Laws: a person finds yesterday's failed run, restarts it from the right step with another parameter,
watches it finish, and looks into a DataFrame as it stood; all of it with the keyboard, too; nothing
a notebook printed runs in the page; a saved notebook holds nothing of what was shown.
"""

from __future__ import annotations

import os
import re
import signal

import pytest
from playwright.sync_api import expect

from cellrail_state.testing import a_run, open_store
from reading import wait_for

# a server, a browser and a kernel: nothing else may run beside them
pytestmark = [pytest.mark.alone, pytest.mark.browser]

EVIL = """<script>window.hacked=1</script><img src=x onerror="window.hacked=1">&"""
OPEN = "%load_ext cellrail\n%flow panel"
FLOW = (
    "import datetime as dt\n\nday = dt.date(2013, 1, 4)  # the day to look at\n"
    "longest = 120  # minutes; a longer delay is taken for an error\nnote = 'plain'",
    "%%step load\nimport numpy as np\nimport pandas as pd\nmade = np.random.default_rng(day.day)\n"
    "flights = pd.DataFrame({\n    'origin': made.choice(['EWR', 'JFK', 'LGA'], 500),\n"
    "    'hour': made.integers(5, 24, 500),\n"
    "    'dep_delay': made.normal(20, 40, 500).round(),\n})\nflights.head()",
    "%%step clean\nlate = flights[flights.dep_delay > 0]\nprint(len(late), 'flights were late')",
    "%%step score --foreach origin in ['EWR', 'JFK', 'LGA'] --collect worst\n"
    "worst = float(late[late.origin == origin].dep_delay.max())",
    "%%step check\nassert max(worst) <= longest, f'a delay of {max(worst)} minutes'",
    "%%step draw\nimport matplotlib.pyplot as plt\nfigure, axes = plt.subplots(figsize=(6, 2.4))\n"
    "late.groupby('hour').dep_delay.mean().plot.bar(ax=axes, title='Mean delay by hour');",
    f"%%step report\nprint(note)\nfrom IPython.display import HTML\nHTML('<b>done</b>' + {EVIL!r})",
)


@pytest.fixture
def failed(make, app):
    """Yesterday's run: it has failed at `check`."""
    path = make(*FLOW, name="delays.ipynb", tags={1: ["parameters"]})
    return app.run(path, parameters={"note": "by night", "longest": 60}, labels={"team": "night"})


def test_what_keeps_somebody_from_using_a_panel_is_seen(markup):
    with pytest.raises(AssertionError, match="button-name"):
        markup("<div class='cellrail'><button></button></div>").check()


@pytest.mark.parametrize("where", ["lab", "notebook"])
def test_a_failed_run_is_restarted_with_another_parameter_and_looked_into(lab, failed, app, where):
    notebook = lab.open(lab.notebook(OPEN), app=where)
    notebook.run(0)
    panel = notebook.panel

    row = panel.get_by_role("row", name=re.compile(failed.id))
    expect(row).to_contain_text("failed")
    notebook.shoot("runs")
    row.click()
    expect(panel.get_by_role("treeitem", name=re.compile("^check, failed"))).to_be_visible()
    expect(panel.get_by_role("tabpanel")).to_contain_text("AssertionError: a delay of")
    notebook.shoot("run-failed")

    panel.get_by_role("button", name="Restart from here…").click()
    expect(panel.get_by_label("From")).to_have_value("check")
    expect(panel.get_by_role("region", name="Plan")).to_contain_text("kept")
    longest = panel.get_by_label("longest", exact=True)
    expect(longest).to_have_attribute("type", "number")
    expect(panel.get_by_label("day", exact=True)).to_have_attribute("type", "date")
    longest.fill("1000")
    expect(panel.get_by_text("was 60")).to_be_visible()
    expect(
        panel.get_by_text("1 step executes").or_(panel.get_by_text("3 steps execute"))
    ).to_be_visible()
    notebook.shoot("restart")
    panel.get_by_role("button", name="Restart", exact=True).click()

    expect(panel.get_by_role("treeitem", name=re.compile("^report, success"))).to_be_visible()
    expect(panel.get_by_role("treeitem", name=re.compile("^load, kept"))).to_be_visible()
    expect(panel.locator(".cr-room-run .cr-head")).to_contain_text("success")
    new = app.show("last")
    assert new.id != failed.id
    assert new.parameters["longest"] == 1000
    assert new.status == "success"

    panel.get_by_role("treeitem", name=re.compile("^draw")).click()
    expect(panel.locator("img.cr-picture")).to_be_visible()
    notebook.check()
    panel.get_by_role("treeitem", name=re.compile("^load")).click()
    expect(panel.get_by_role("tab", name=re.compile("^Variables"))).to_be_visible()
    panel.get_by_role("tab", name=re.compile("^Variables")).click()
    panel.get_by_role("button", name="flights", exact=True).click()
    preview = panel.get_by_role("region", name="Preview of flights", exact=True)
    expect(preview).to_contain_text("of 500 rows")
    preview.get_by_label("Filter in SQL").fill("origin = 'JFK' AND dep_delay > 60")
    preview.get_by_role("button", name="Filter", exact=True).click()
    expect(preview).not_to_contain_text("of 500 rows")
    preview.get_by_label("Filter in SQL").fill("")
    preview.get_by_label("Filter in SQL").press("Enter")
    expect(preview).to_contain_text("of 500 rows")
    preview.get_by_label("Filter in SQL").fill("origin = 'JFK' AND dep_delay > 60")
    preview.get_by_label("Filter in SQL").press("Enter")
    expect(preview).not_to_contain_text("of 500 rows")
    preview.get_by_role("button", name="dep_delay", exact=True).click()
    expect(preview.locator("tbody td").nth(0)).to_have_text("JFK")
    notebook.shoot("variables")

    panel.get_by_role("tab", name="Compare", exact=True).click()
    expect(panel.get_by_role("tabpanel")).to_contain_text("longest")
    notebook.check()
    assert notebook.page.evaluate("window.hacked") is None


def test_a_wide_frame_is_turned_by_columns_and_keeps_its_index_when_it_is_sorted(lab, make, app):
    app.run(
        make(
            "%%step make\nimport pandas as pd\n"
            "frame = pd.DataFrame({'A': [1, 2, 3], 'a': [6, 5, 4]}, index=['x', 'y', 'z'])\n"
            "frame.index.name = 'id'\n"
            "for n in range(100):\n    frame[f'c{n}'] = n"
        )
    )
    notebook = lab.open(lab.notebook(OPEN + " last"))
    notebook.run(0)
    panel = notebook.panel
    panel.get_by_role("treeitem", name=re.compile("^make")).click()
    panel.get_by_role("tab", name=re.compile("^Variables")).click()
    panel.get_by_role("button", name="frame", exact=True).click()
    preview = panel.get_by_role("region", name="Preview of frame", exact=True)
    first = preview.locator("tbody tr").first

    preview.get_by_role("button", name="a", exact=True).click()
    expect(first.locator("th, td").nth(0)).to_have_text("z")
    expect(first.locator("th, td").nth(1)).to_have_text("3")
    expect(first.locator("th, td").nth(2)).to_have_text("4")
    expect(first.locator("td").nth(1)).to_have_class("cr-number")
    headings = preview.locator("thead th")
    expect(headings.nth(0)).to_have_text("id")
    expect(headings.nth(2)).to_contain_text("in the filter: a_2")
    expect(preview).to_contain_text("60 of 102 columns")
    notebook.check()
    preview.get_by_role("button", name="Columns behind").click()
    expect(headings.nth(1)).to_contain_text("c58")
    expect(first.locator("th, td").nth(0)).to_have_text("z")
    expect(preview.get_by_role("button", name="Columns behind")).to_be_disabled()
    preview.get_by_role("button", name="Columns before").click()
    preview.get_by_label("Filter in SQL").fill("a_2 = 6")
    preview.get_by_role("button", name="Filter", exact=True).click()
    expect(preview).to_contain_text("1 of 1 rows")
    expect(first.locator("th, td").nth(0)).to_have_text("x")
    notebook.check()


def test_a_double_click_on_restart_starts_one_run(lab, failed, app):
    notebook = lab.open(
        lab.notebook(
            f"import cellrail\ncellrail.restart_panel({failed.id!r}, {str(app.store_path)!r})"
        )
    )
    notebook.run(0)
    restart = notebook.panel.get_by_role("button", name="Restart", exact=True)
    expect(restart).to_be_enabled()
    restart.dblclick()
    expect(notebook.panel.get_by_role("button", name="Another restart")).to_be_visible()
    notebook.page.wait_for_timeout(2000)
    assert [run.origin for run in app.runs()].count(failed.id) == 1


def test_an_answer_drops_nothing_that_was_typed(lab, make, app):
    path = make(
        "%%step ask\nfrom cellrail import flow\nflow.suspend('1h')",
        "%%step after\nprint(flow.resume_data)",
    )
    run = app.run(path)
    notebook = lab.open(
        lab.notebook(f"import cellrail\ncellrail.waits_panel({str(app.store_path)!r})")
    )
    notebook.run(0)
    panel = notebook.panel
    panel.get_by_role("button", name=re.compile("^Answer")).click()
    value, resume = panel.get_by_label("Value 1"), panel.get_by_role("button", name="Resume")
    value.fill("yes")
    resume.click()
    expect(panel.get_by_role("alert")).to_have_text("This value has no name.")
    expect(panel.get_by_label("Name 1")).to_be_focused()
    panel.get_by_role("tab", name="JSON").click()
    expect(value).to_have_value("yes")
    panel.get_by_label("Name 1").fill("by")
    expect(panel.get_by_role("alert")).to_have_count(0)
    panel.get_by_role("button", name="Another field").click()
    panel.get_by_label("Name 2").fill("by")
    panel.get_by_label("Value 2").fill("no")
    resume.click()
    expect(panel.get_by_role("alert")).to_contain_text("There is a field by already")
    notebook.check()
    assert app.show(run.id).status == "suspended"
    panel.get_by_label("Name 2").fill("who")
    panel.get_by_role("tab", name="JSON").click()
    expect(panel.get_by_label("JSON for flow.resume_data")).to_have_value('{"by":"yes","who":"no"}')
    panel.get_by_role("tab", name="Form").click()
    expect(panel.get_by_label("Value 2")).to_have_value("no")
    resume.click()
    expect(panel.get_by_role("button", name="Resume")).to_have_count(0)
    expect(panel.get_by_text("ask of run").first).to_be_visible()
    expect(panel.get_by_text("No run waits.")).to_be_visible()
    assert "{'by': 'yes', 'who': 'no'}" in str(app.show(run.id)["after"].outputs)


def test_what_was_said_of_one_answer_is_gone_where_the_next_is_written(lab, make, app):
    cells = ("%%step ask\nfrom cellrail import flow\nflow.suspend('1h')", "1")
    first, second = (app.run(make(*cells, name=f"{name}.ipynb")) for name in ("one", "two"))
    notebook = lab.open(
        lab.notebook(
            f"import cellrail\ncellrail.waits_panel({first.id!r}, {str(app.store_path)!r})"
        )
    )
    notebook.run(0)
    panel = notebook.panel
    panel.get_by_role("button", name="Resume").click()
    said = panel.get_by_text(f"ask of run {first.id} is resumed")
    expect(said.first).to_be_visible()
    panel.get_by_role("button", name=f"Answer ask of run {second.id}").press("Enter")
    expect(panel.get_by_label("Name 1")).to_be_focused()
    expect(said).to_have_count(0)


def test_every_room_of_a_house_has_names_that_tell_its_parts_apart(lab, failed, app, make):
    app.resource_set("team/limits", [1])
    app.trigger_add(app.store_path.parent / failed.flow, id="nightly", cron="0 6 * * *")
    app.run(make("%%step ask\nfrom cellrail import flow\nflow.suspend('1h')", name="gate.ipynb"))
    notebook = lab.open(lab.notebook(f"{OPEN} {failed.id}"))
    notebook.run(0)
    panel = notebook.panel
    parts = {
        "Runs": ("row", failed.id), "Run": ("treeitem", "^check"),
        "Restart": ("button", "^Restart$"), "Backfill": ("combobox", "^Notebook"),
        "Waits": ("button", "^Answer"), "Triggers": ("button", "^Show trigger"),
        "State": ("button", "^Show resource"),
    }  # fmt: skip
    for tab, (role, name) in parts.items():
        panel.get_by_role("tab", name=tab, exact=True).click()
        room = panel.locator(f".cr-room-{tab.lower()}")
        part = room.get_by_role(role, name=re.compile(name)).first
        expect(part).to_be_visible()
        if tab in {"Waits", "Triggers", "State"}:
            part.click()
            expect(room.locator(".cr-chosen-one")).to_be_visible()
        notebook.check()


def asked(lab, make, app):
    """A run that waits, and a notebook whose panel shows the form of its answer."""
    run = app.run(make("%%step ask\nfrom cellrail import flow\nflow.suspend('1h')", "1"))
    notebook = lab.open(
        lab.notebook(f"import cellrail\ncellrail.waits_panel({str(app.store_path)!r})")
    )
    notebook.run(0)
    notebook.panel.get_by_role("button", name=re.compile("^Answer")).click()
    return run, notebook


def test_a_double_click_on_cancel_does_not_answer_what_it_asks(lab, make, app):
    run, notebook = asked(lab, make, app)
    panel = notebook.panel
    panel.get_by_role("button", name="Cancel", exact=True).dblclick()
    sure = panel.get_by_role("button", name="Really cancel the run?")
    expect(sure).to_be_enabled()
    notebook.page.wait_for_timeout(2000)
    assert app.show(run.id).status == "suspended"
    sure.click()
    expect(panel.get_by_text("No run waits.")).to_be_visible()
    assert app.show(run.id).status == "cancelled"


def test_an_answer_that_somebody_else_has_given_leaves_what_was_typed(lab, make, app):
    run, notebook = asked(lab, make, app)
    panel = notebook.panel
    panel.get_by_label("Name 1").fill("by")
    panel.get_by_label("Value 1").fill("ann")
    app.resume(run.id)
    expect(panel.get_by_role("alert")).to_contain_text("somebody else has answered it")
    expect(panel.get_by_text("by: ann")).to_be_visible()


def test_a_restart_at_an_item_may_evaluate_the_items_anew(lab, make, app):
    cells = ("n = 2", "%%step L --foreach x in range(n) --collect y\ny = x", "print(y)")
    run = app.run(make(*cells, tags={1: ["parameters"]}))
    notebook = lab.open(
        lab.notebook(
            f"import cellrail\n"
            f"cellrail.restart_panel({run.id!r}, {str(app.store_path)!r}, from_step='L[1]')"
        )
    )
    notebook.run(0)
    panel = notebook.panel
    panel.get_by_label("n", exact=True).fill("3")
    expect(panel.get_by_text("its items are those that the old one made")).to_be_visible()
    panel.get_by_label("Evaluate the items anew").check()
    expect(panel.get_by_text("items new: 2")).to_be_visible()
    panel.get_by_role("button", name="Restart", exact=True).click()
    expect(panel.get_by_role("button", name="Another restart")).to_be_visible(timeout=60_000)
    wait_for(lambda: app.runs()[0].status == "success")
    assert app.show("last")["#3"].outputs[0]["text"] == "[0, 1, 2]\n"


def test_a_panel_whose_kernel_was_restarted_says_so(lab, failed):
    notebook = lab.open(lab.notebook(OPEN, "import time\ntime.sleep(14)"))
    notebook.run(0)
    panel = notebook.panel
    row = panel.get_by_role("row", name=re.compile(failed.id))
    expect(row).to_be_visible()
    silent, gone = panel.get_by_text("has not answered"), panel.get_by_text("Run this cell again")
    notebook.run(1)
    panel.get_by_role("searchbox").fill("nothing")
    # where widgets are answered beside the cells, nobody has to wait
    expect(silent.or_(panel.get_by_text("No run fits."))).to_be_visible()
    expect(panel.get_by_text("No run fits.")).to_be_visible()
    expect(silent).to_have_count(0)
    panel.get_by_role("searchbox").fill("")
    expect(row).to_be_visible()
    notebook.page.evaluate("jupyterapp.shell.currentWidget.sessionContext.restartKernel()")
    expect(gone).to_be_visible()
    row.click()
    expect(panel.get_by_role("alert").first).to_contain_text("The kernel was restarted or is gone.")
    expect(panel.get_by_text("Looking…")).to_have_count(0)
    notebook.check()
    notebook.run(0)
    expect(row).to_be_visible()
    expect(gone).to_have_count(0)


ENDS = {
    "restarted here": "session => session.kernel.restart()",
    "restarted by another": "session => fetch(`/api/kernels/${session.kernel.id}/restart?token=${"
    "session.kernel.serverSettings.token}`, {method: 'POST'})",
    "shut down": "session => session.shutdown()",
    "killed": "",
}


@pytest.mark.parametrize("end", [*ENDS])
def test_a_panel_whose_kernel_is_gone_says_so_at_once_and_can_only_be_read(lab, make, app, end):
    app.run(make("%%step ask\nfrom cellrail import flow\nflow.suspend('1h')", "1"))
    store = str(app.store_path)
    source = f"import os, cellrail\nprint(os.getpid())\ncellrail.waits_panel(store={store!r})"
    notebook = lab.open(lab.notebook(source))
    notebook.run(0)
    page, panel = notebook.page, notebook.panel
    panel.get_by_role("button", name=re.compile("^Answer")).click()
    panel.get_by_label("Name 1").fill("by")
    panel.get_by_label("Value 1").fill("ann")
    if ENDS[end]:
        lead = "jupyterapp.shell.currentWidget.sessionContext.session"
        page.evaluate(f"() => ({ENDS[end]})({lead})")
    else:
        printed = page.locator(".jp-OutputArea-output pre").first.text_content()
        os.kill(int(printed), signal.SIGKILL)
    # the server looks for dead kernels every 3 s; another's restart is told of by the new kernel
    at_once = {"killed": 6000, "restarted by another": 8000}.get(end, 3000)
    expect(panel.get_by_text("Run this cell again")).to_be_visible(timeout=at_once)

    expect(panel.get_by_label("Value 1")).to_have_value("ann")
    expect(panel.get_by_label("Value 1")).not_to_be_editable()
    for node in panel.locator(".cr-body button").all():
        expect(node).to_have_attribute("aria-disabled", "true")
    resume = panel.get_by_role("button", name="Resume")
    resume.focus()
    page.keyboard.press("Enter")
    resume.click(force=True)
    expect(resume).to_be_visible()
    expect(panel.get_by_text("Sending")).to_have_count(0)
    notebook.check()


def test_the_first_and_the_last_page_of_runs_are_a_press_away(lab, app):
    store = open_store(app.store_path.parent)
    for number in range(120):
        a_run(store, f"20260101-{number:09d}-aaaa", steps=1)
    notebook = lab.open(
        lab.notebook(f"import cellrail\ncellrail.runs_panel({str(app.store_path)!r})")
    )
    notebook.run(0)
    panel = notebook.panel
    at, row = panel.get_by_role("status"), panel.get_by_role("row")
    first, last = (panel.get_by_role("button", name=f"{name} page") for name in ("First", "Last"))
    expect(at.get_by_text(re.compile("^1.50 of 120 runs"))).to_be_visible()
    expect(first).to_be_disabled()
    last.click()
    expect(at.get_by_text(re.compile("^101.120 of 120 runs"))).to_be_visible()
    expect(row.filter(has_text="20260101-000000000-aaaa")).to_be_visible()
    expect(last).to_be_disabled()
    expect(last).to_be_focused()
    first.click()
    expect(at.get_by_text(re.compile("^1.50 of 120 runs"))).to_be_visible()
    notebook.check()


@pytest.mark.parametrize("where", ["lab", "notebook"])
def test_a_button_of_ones_own_opens_a_panel(lab, failed, where):
    source = (
        "import ipywidgets, cellrail\nfrom IPython.display import display\n"
        "button, out = ipywidgets.Button(description='Look'), ipywidgets.Output()\n"
        "@button.on_click\ndef look(_):\n    with out:\n        display(cellrail.panel())\n"
        "display(button, out)"
    )
    notebook = lab.open(lab.notebook(source), app=where)
    notebook.run(0)
    notebook.page.get_by_role("button", name="Look", exact=True).click()
    row = notebook.panel.get_by_role("row", name=re.compile(failed.id))
    expect(row).to_be_visible()
    row.click()
    expect(notebook.panel.get_by_role("treeitem", name=re.compile("^check"))).to_be_visible()


def test_nothing_that_was_printed_runs_in_the_page(lab, make, app):
    report = "%%step report\nprint(note)\nfrom IPython.display import HTML\nHTML(note)"
    fail = f"%%step fail\nraise ValueError({EVIL!r})"
    path = make(f"note = {EVIL!r}", report, fail, tags={1: ["parameters"]})
    app.run(path, parameters={"note": EVIL}, labels={EVIL: EVIL})
    notebook = lab.open(lab.notebook(OPEN + " last"))
    notebook.run(0)
    panel = notebook.panel
    for step in ("report", "fail"):
        panel.get_by_role("treeitem", name=re.compile(f"^{step}")).click()
        for tab in ("Code", "Variables", "More", "Output"):
            panel.get_by_role("tab", name=re.compile(f"^{tab}")).click()
            expect(panel.get_by_role("tabpanel")).to_be_visible()
    panel.get_by_role("treeitem", name=re.compile("^report")).click()
    inside = panel.frame_locator("iframe.cr-frame")
    expect(inside.locator("body")).to_contain_text("&")
    panel.get_by_role("tab", name="Restart", exact=True).click()
    expect(panel.get_by_label("note", exact=True)).to_have_value(EVIL)
    panel.get_by_role("tab", name="Runs", exact=True).click()
    expect(panel.get_by_role("row", name=re.compile("alert|hacked"))).to_be_visible()
    assert notebook.page.evaluate("window.hacked") is None
    assert panel.locator("script, img[src='x']").count() == 0


def test_a_saved_notebook_holds_nothing_of_what_was_shown(lab, failed):
    notebook = lab.open(lab.notebook(OPEN))
    notebook.run(0)
    expect(notebook.panel.get_by_role("row", name=re.compile(failed.id))).to_be_visible()
    saved = notebook.save()
    text = str(saved)
    assert failed.id not in text
    assert "night" not in text
    assert "widgets" not in saved["metadata"]
    (output,) = [o for o in saved["cells"][0]["outputs"] if "data" in o]
    assert "".join(output["data"]["text/plain"]) == "cellrail: run this cell to open it"


def test_the_keyboard_reaches_everything(lab, failed):
    notebook = lab.open(lab.notebook(OPEN))
    notebook.run(0)
    panel, keys = notebook.panel, notebook.page.keyboard
    panel.get_by_role("row", name=re.compile(failed.id)).focus()
    keys.press("Enter")
    panel.get_by_role("treeitem", name=re.compile("^check")).focus()
    keys.press("ArrowUp")
    expect(panel.get_by_role("treeitem", name=re.compile("^score"))).to_be_focused()
    keys.press("ArrowRight")
    item = panel.get_by_role("treeitem", name=re.compile(r"^score\[EWR\]"))
    expect(item).to_be_visible()
    keys.press("ArrowDown")
    expect(item).to_be_focused()
    expect(panel.get_by_role("heading", name="score[EWR]")).to_be_visible()
    panel.get_by_role("tab", name="Output", exact=True).focus()
    keys.press("ArrowRight")
    expect(panel.get_by_role("tab", name="Code", exact=True)).to_have_attribute(
        "aria-selected", "true"
    )
    notebook.check()


def test_a_restart_by_keyboard_alone_never_loses_the_focus(lab, failed, app):
    notebook = lab.open(lab.notebook(OPEN))
    notebook.run(0)
    panel, keys = notebook.panel, notebook.page.keyboard
    has_focus = panel.locator(":focus")
    panel.get_by_role("row", name=re.compile(failed.id)).focus()
    keys.press("Enter")
    again = panel.get_by_role("button", name=re.compile("^Restart from"))
    expect(again.first).to_be_visible()
    expect(has_focus).to_have_count(1)

    reach(again.first, keys)
    keys.press("Enter")
    go = panel.get_by_role("button", name="Restart", exact=True)
    expect(go).to_be_enabled()
    expect(has_focus).to_have_count(1)

    reach(go, keys)
    keys.press("Enter")
    expect(panel.get_by_role("status").filter(has_text="has ended: failed")).to_be_visible()
    expect(has_focus).to_have_count(1)
    # it is shown, and the keyboard is there
    reach(again.first, keys)
    assert [run.origin for run in app.runs()].count(failed.id) == 1
    notebook.check()


def reach(button, keys, most=60):
    """Tab, from where the focus is, until a button has it."""
    for _ in range(most):
        if button.evaluate("node => node === document.activeElement"):
            return
        keys.press("Tab")
    pytest.fail("Tab does not get there")


def test_enter_does_what_the_button_beside_a_field_does(lab, make, app):
    path = make(
        "%%step ask\nfrom cellrail import flow\nflow.suspend('1h')",
        "%%step after\nprint(flow.resume_data)",
    )
    run = app.run(path)
    notebook = lab.open(
        lab.notebook(f"import cellrail\ncellrail.run_panel('none', {str(app.store_path)!r})")
    )
    notebook.run(0)
    panel = notebook.panel
    panel.get_by_role("textbox", name="Run", exact=True).fill(run.id)
    panel.get_by_role("textbox", name="Run", exact=True).press("Enter")
    panel.get_by_label("JSON for the next step").fill("[7]")
    panel.get_by_label("JSON for the next step").press("Enter")
    expect(panel.locator(".cr-head")).to_contain_text("success")
    assert "[7]" in str(app.show(run.id)["after"].outputs)


def test_the_typed_form_keeps_line_breaks_and_tells_what_is_wrong_at_the_field(lab, make, app):
    cell = "note = 'two\\nlines'\nnothing = None\nworst = float('nan')\nnames = ['a']"
    app.run(make(cell, "%%step show\nprint(note)", tags={1: ["parameters"]}))
    store = str(app.store_path)
    source = f"import cellrail\ncellrail.restart_panel('last', {store!r}, from_step='show')"
    notebook = lab.open(lab.notebook(source))
    notebook.run(0)
    panel = notebook.panel
    expect(panel.get_by_label("note", exact=True)).to_have_value("two\nlines")
    expect(panel.get_by_label("nothing", exact=True)).to_have_attribute("placeholder", "None")
    worst, names = panel.get_by_label("worst", exact=True), panel.get_by_label("names", exact=True)
    expect(worst).to_have_attribute("placeholder", "float('nan')")
    worst.fill("abc")
    names.fill("[")
    expect(worst).to_have_attribute("aria-invalid", "true")
    expect(panel.locator(".cr-wrong").filter(has_text="'abc' is no number")).to_be_visible()
    expect(panel.locator(".cr-wrong").filter(has_text="is no JSON")).to_be_visible()
    restart = panel.get_by_role("button", name="Restart", exact=True)
    expect(restart).to_be_disabled()
    notebook.check()
    worst.fill("inf")
    names.fill("[]")
    panel.get_by_label("note", exact=True).fill("three\nlines\nnow")
    expect(panel.get_by_text("was two⏎lines")).to_be_visible()
    expect(restart).to_be_enabled()
    expect(panel.locator(".cr-wrong")).to_have_count(0)
    restart.click()
    expect(panel.get_by_role("button", name="Another restart")).to_be_visible()
    assert app.show("last").parameters["note"] == "three\nlines\nnow"


@pytest.mark.parametrize("where", ["lab", "notebook"])
def test_a_run_is_watched_while_it_goes_on_and_cancelled(lab, make, app, where):
    path = make(
        "%%step first\nx = 1", "%%step wait\nimport time\ntime.sleep(60)", "%%step last\ny = x"
    )
    from cellrail.panels.errand import Errand, Wish

    errand = Errand(app, Wish(store=str(app.store_path), verb="run", run=str(path)))
    notebook = lab.open(lab.notebook(OPEN), app=where)
    notebook.run(0)
    panel = notebook.panel
    panel.get_by_role("row", name=re.compile("running.* flow.ipynb")).click()
    expect(panel.get_by_role("treeitem", name=re.compile("^wait, running"))).to_be_visible()
    notebook.check()
    panel.get_by_role("button", name="Cancel", exact=True).click()
    expect(panel.locator(".cr-room-run .cr-head")).to_contain_text("cancelled")
    assert app.show(errand.wait(30).run).status == "cancelled"


def test_panels_are_dark_where_the_theme_is(lab, failed):
    notebook = lab.open(lab.notebook(OPEN + f" {failed.id}"), dark=True)
    notebook.run(0)
    expect(
        notebook.panel.get_by_role("treeitem", name=re.compile("^check, failed"))
    ).to_be_visible()
    expect(notebook.panel).to_have_class(re.compile("cr-dark"))
    notebook.shoot("run-dark")


def test_a_restart_in_this_kernel_is_offered_where_it_leads_somewhere(lab, failed):
    notebook = lab.open(lab.notebook(OPEN + f" {failed.id}"))
    notebook.run(0)
    panel = notebook.panel
    panel.get_by_role("button", name="Restart from here…").click()
    button = panel.get_by_role("button", name="In this kernel")
    expect(panel.get_by_text("Not in this kernel: this run is of delays.ipynb.")).to_be_visible()
    expect(button).to_be_disabled()
    notebook.check()

    own = lab.open("delays.ipynb")
    own.page.evaluate("jupyterapp.commands.execute('notebook:insert-cell-above')")
    cell = own.page.locator(".jp-Notebook .jp-CodeCell").first.locator(".cm-content")
    cell.click()
    own.page.keyboard.insert_text(f"%load_ext cellrail\n%flow panel {failed.id}")
    own.run(0)
    own.panel.get_by_role("button", name="Restart from here…").click()
    button = own.panel.get_by_role("button", name="In this kernel")
    expect(button).to_be_enabled()
    own.panel.get_by_label("longest", exact=True).fill("1000")
    expect(own.panel.get_by_text("the changed ones are for a run of its own")).to_be_visible()
    expect(button).to_be_disabled()
