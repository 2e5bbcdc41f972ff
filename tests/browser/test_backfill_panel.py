"""Backfills, waits and triggers as a person meets them, in a real JupyterLab.

Laws: a range is picked by dragging or with the keyboard alone; what would happen is seen before it
happens; a pause in the middle runs no tick twice; a suspended run is resumed with a form; whatever
labels and parameters hold, nothing of it runs in the page.
"""

from __future__ import annotations

import collections
import re

import pytest
from playwright.sync_api import expect

from reading import WITNESS, wait_for

# a server, a browser and a kernel: nothing else may run beside them
pytestmark = [pytest.mark.alone, pytest.mark.browser, pytest.mark.timeout(600)]

EVIL = """<script>window.hacked=1</script><img src=x onerror="window.hacked=1">&"""
PANEL = "import cellrail\nshown = cellrail.{}\nshown"
#: the fifth day waits for a file
DAYS = (
    "day = '2025-01-01'  # the day to load",
    WITNESS + "while day.endswith('-05') and not os.path.exists('go'):\n    time.sleep(0.02)\n"
    "witness(day)",
)
#: milliseconds that ten runs may take on a busy machine
LONG = 300_000


@pytest.fixture
def flow(make):
    """A notebook with a day as parameter, whose runs an outside witness is told of."""
    return make(*DAYS, name="days.ipynb", tags={1: ["parameters"]})


def day(panel, date: str):
    return panel.locator(f"td[data-day='{date}']")


def drag(page, panel, first: str, last: str) -> None:
    """Drag over days, as a hand does."""
    begin, end = day(panel, first).bounding_box(), day(panel, last).bounding_box()
    page.mouse.move(begin["x"] + 12, begin["y"] + 20)
    page.mouse.down()
    page.mouse.move(end["x"] + 12, end["y"] + 20, steps=8)
    page.mouse.up()


@pytest.mark.parametrize("where", ["lab", "notebook"])
def test_ten_days_are_backfilled_with_a_pause_in_the_middle(lab, flow, app, tmp_path, where):
    cells = lab.notebook(PANEL.format("backfill_panel('days.ipynb')"), "shown.value")
    notebook = lab.open(cells, app=where)
    notebook.run(0)
    page, panel = notebook.page, notebook.panel
    panel.get_by_label("Time zone", exact=True).fill("Europe/Paris")
    panel.get_by_label("Labels", exact=True).fill(f"why={EVIL}")
    # walk to March 2025
    first = panel.locator("td[data-day][tabindex='0']")
    first.focus()
    while not day(panel, "2025-03-01").count():
        page.keyboard.press("PageUp")
    expect(day(panel, "2025-03-10")).to_have_attribute("data-state", "missing")
    expect(day(panel, "2025-03-30")).to_have_attribute(
        "aria-label", re.compile("clocks go forward")
    )
    drag(page, panel, "2025-03-01", "2025-03-10")
    expect(panel.get_by_label("From")).to_have_value("2025-03-01")
    expect(panel.get_by_label("To", exact=True)).to_have_value("2025-03-10")
    expect(panel.get_by_role("region", name="What would happen")).to_contain_text("never run")
    assert not app.store_path.exists()
    notebook.check()

    panel.get_by_role("button", name="Start: 10 ticks").click()
    about = panel.get_by_role("region", name=re.compile("^Backfill "))
    expect(about).to_contain_text("4 success, 1 running, 5 to go", timeout=LONG)
    expect(day(panel, "2025-03-05")).to_have_attribute("data-state", "running")
    about.get_by_role("button", name="Pause", exact=True).click()
    resume = about.get_by_role("button", name="Resume", exact=True)
    expect(resume).to_be_visible()
    # what runs goes on to its end, and nothing begins
    (tmp_path / "go").touch()
    expect(about).to_contain_text("5 success, 5 to go", timeout=LONG)
    wait_for(lambda: not app.store.backfills.driven(app.backfill_show().id))
    assert app.backfill_show().progress().left == 5
    expect(day(panel, "2025-03-06")).to_have_attribute("data-state", "missing")
    notebook.shoot("backfill")
    resume.click()

    expect(about).to_contain_text("10 of 10 ticks: 10 success", timeout=LONG)
    expect(day(panel, "2025-03-10")).to_have_attribute("data-state", "success", timeout=LONG)
    notebook.check()
    told = collections.Counter((tmp_path / "witness.txt").read_text().split())
    assert told == {f"2025-03-{number:02}": 1 for number in range(1, 11)}
    notebook.run(1)
    expect(page.locator(".jp-OutputArea-output").last).to_contain_text(app.backfill_show().id)
    assert not page.evaluate("window.hacked")
    assert EVIL not in str(notebook.save())


def test_a_range_is_picked_and_started_with_the_keyboard_alone(lab, flow, app):
    shown = "backfill_panel('days.ipynb', start='2025-03-29', end='2025-03-29')"
    notebook = lab.open(lab.notebook(PANEL.format(shown)))
    notebook.run(0)
    page, panel = notebook.page, notebook.panel
    cell = day(panel, "2025-03-29")
    expect(cell).to_have_attribute("aria-selected", "true")
    expect(panel.locator("td[data-day][tabindex='0']")).to_have_count(1)
    cell.focus()
    page.keyboard.press("ArrowLeft")
    for _ in range(4):
        page.keyboard.press("Shift+ArrowRight")
    # over the end of a month, and back
    expect(panel.locator("td[aria-selected='true']")).to_have_count(5)
    expect(panel.get_by_label("To", exact=True)).to_have_value("2025-04-01")
    page.keyboard.press("Shift+ArrowUp")
    expect(panel.get_by_label("From")).to_have_value("2025-03-25")
    expect(panel.get_by_label("To", exact=True)).to_have_value("2025-03-28")
    expect(panel.get_by_role("button", name="Start: 4 ticks")).to_be_enabled()
    page.keyboard.press("Escape")
    expect(panel.locator("td[aria-selected='true']")).to_have_count(0)
    page.keyboard.press("Enter")
    start = panel.get_by_role("button", name="Start: 1 tick")
    expect(start).to_be_enabled()
    side_by_side = panel.get_by_label("In parallel")
    side_by_side.fill("-3")
    side_by_side.blur()
    expect(side_by_side).to_have_value("1")
    start.focus()
    page.keyboard.press("Enter")
    expect(panel.get_by_role("region", name=re.compile("^Backfill "))).to_contain_text(
        "1 of 1 ticks: 1 success", timeout=LONG
    )
    assert app.backfill_show().record.start.startswith("2025-03-25")


def test_a_range_that_is_typed_brings_its_months(lab, flow):
    shown = "backfill_panel('days.ipynb', start='2025-03-29', every='week', tz='Europe/Paris')"
    notebook = lab.open(lab.notebook(PANEL.format(shown)))
    notebook.run(0)
    panel = notebook.panel
    expect(panel.get_by_label("Every")).to_have_value("week")
    expect(day(panel, "2025-03-29")).to_have_attribute("aria-selected", "true")
    panel.get_by_label("From").fill("2024-10-02")
    panel.get_by_label("To", exact=True).fill("2024-10-20")
    expect(day(panel, "2024-10-02")).to_have_attribute("aria-selected", "true")
    expect(panel.get_by_role("button", name="Start: 2 ticks")).to_be_enabled()
    # what is no day moves nothing
    panel.get_by_label("To", exact=True).fill("2024-99-99")
    expect(day(panel, "2024-10-02")).to_be_visible()


@pytest.mark.parametrize("where", ["lab", "notebook"])
def test_a_suspended_run_is_resumed_with_a_form(lab, make, app, where):
    path = make(
        "%%step approve\nfrom cellrail import flow\nflow.suspend('24h', on_timeout='cancel')",
        "%%step after\nprint(flow.resume_data)",
        name="gate.ipynb",
    )
    run = app.run(path, labels={"who": EVIL})
    notebook = lab.open(lab.notebook(PANEL.format("waits_panel()")), app=where, dark=True)
    notebook.run(0)
    panel = notebook.panel
    row = panel.get_by_role("row", name=re.compile(run.id))
    expect(row).to_contain_text("then it is cancelled")
    expect(row).to_contain_text(EVIL)
    row.get_by_role("button", name="Answer").click()
    expect(panel.get_by_label("Name 1")).to_be_focused()
    panel.get_by_label("Name 1").fill("approved")
    panel.get_by_label("Value 1").fill("true")
    panel.get_by_role("tab", name="JSON").click()
    expect(panel.get_by_label("JSON for flow.resume_data")).to_have_value('{"approved":true}')
    notebook.shoot("waits")
    panel.get_by_role("button", name="Resume", exact=True).click()
    expect(panel.get_by_text("No run waits")).to_be_visible(timeout=LONG)
    wait_for(lambda: app.show(run.id).status == "success")
    assert "{'approved': True}" in str(app.show(run.id)["after"].outputs)
    assert not notebook.page.evaluate("window.hacked")


@pytest.mark.parametrize("where", ["lab", "notebook"])
def test_a_trigger_is_switched_off_and_on(lab, flow, app, where):
    app.trigger_add(flow, id="nightly", cron="30 2 * * *", tz="Europe/Paris")
    notebook = lab.open(lab.notebook(PANEL.format("triggers_panel('nightly')")), app=where)
    notebook.run(0)
    panel = notebook.panel
    switch = panel.get_by_role("switch", name="Trigger nightly is enabled")
    expect(switch).to_be_checked()
    expect(panel.get_by_role("region", name="Trigger nightly")).to_contain_text("02:30")
    notebook.shoot("triggers")
    switch.focus()
    notebook.page.keyboard.press("Space")
    expect(switch).not_to_be_checked()
    assert not app.trigger_show("nightly").enabled
    # who works by keyboard is still there
    expect(switch).to_be_focused()
    panel.get_by_role("button", name="Enable").focus()
    notebook.page.keyboard.press("Enter")
    expect(switch).to_be_checked()
    expect(panel.get_by_role("button", name="Disable")).to_be_focused()


def test_missed_ticks_are_seen_and_run_as_each_trigger_says(lab, flow, app, clock):
    clock.ahead = -3 * 86_400
    for hour, policy in enumerate(("all", "last", "none")):
        app.trigger_add(
            flow, id=policy, cron=f"0 {hour} * * *", missed=policy, parameters={"day": "{date}"}
        )
    clock.ahead = 0
    due = {policy: app.trigger_due(policy) for policy in ("all", "last", "none")}
    assert [len(one.ticks) for one in due.values()] == [3, 1, 0]
    notebook = lab.open(lab.notebook(PANEL.format("triggers_panel('all')")))
    notebook.run(0)
    panel = notebook.panel
    for policy, one in due.items():
        row = panel.get_by_role("row", name=re.compile(f"Show trigger {policy} "))
        for number, word in ((len(one.missed), "missed"), (len(one.skipped), "skipped")):
            if number:
                expect(row).to_contain_text(f"{number} {word}")
    chosen = panel.get_by_role("region", name="Trigger all")
    expect(chosen).to_contain_text("every missed tick is run")
    for tick in due["all"].ticks:
        expect(chosen).to_contain_text(tick.isoformat()[11:16])
    notebook.check()

    panel.get_by_role("button", name="Run what is due now").focus()
    notebook.page.keyboard.press("Enter")
    wait_for(lambda: len(app.runs(status="success")) == 4, seconds=LONG / 1000)
    ran = collections.Counter(run.labels["trigger"] for run in app.runs())
    assert ran == {"all": 3, "last": 1}
    expect(panel.get_by_role("button", name="Run what is due now")).to_have_count(0)
    begun = panel.get_by_role("status").filter(has_text="to be run in the background")
    for policy, one in due.items():
        for number, word in ((len(one.ticks), "to be run"), (len(one.skipped), "skipped")):
            if number:
                expect(begun).to_contain_text(re.compile(rf"{policy}: .*\b{number} {word}"))
    # who works by keyboard is still there, and another Enter presses nothing
    expect(panel.locator(":focus")).to_have_count(1)
    notebook.page.keyboard.press("Enter")
    assert app.tick() == []
    assert app.trigger_show("all").enabled
    # it is told until the next press, whatever is looked at
    panel.get_by_role("button", name="Show trigger none").click()
    expect(begun).to_contain_text("none: ")
    notebook.check()
    panel.get_by_role("button", name="Disable").click()
    expect(begun).to_have_count(0)


def test_a_trigger_leads_to_a_backfill_of_its_ticks(lab, flow, app):
    app.trigger_add(flow, id="early", cron="0 6 * * *", tz="Europe/Paris")
    app.trigger_add(flow, id="late", cron="0 22 * * *", tz="Europe/Paris")
    notebook = lab.open(lab.notebook(PANEL.format("panel()")))
    notebook.run(0)
    panel = notebook.panel
    panel.get_by_role("tab", name="Triggers").click()
    panel.get_by_role("button", name="Show trigger late").click()
    panel.get_by_role("button", name="Backfill …").click()
    room = panel.locator(".cr-room-backfill")
    expect(room.get_by_label("Trigger", exact=True)).to_have_value("late")
    expect(room).to_contain_text("0 22 * * * in Europe/Paris")
    notebook.check()
