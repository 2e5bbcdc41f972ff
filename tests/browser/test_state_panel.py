"""What outlives runs, and single buttons, as a person meets them in a real JupyterLab.

Laws: whatever keys and values hold, nothing of it runs in the page; a secret is shown to nobody; a
change that would overwrite another's is refused; nothing is deleted at one press; a button works
once, tells how it goes, and is pressed with the keyboard, too.
"""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import expect

from cellrail.errors import NotSet
from reading import wait_for

# a server, a browser and a kernel: nothing else may run beside them
pytestmark = [pytest.mark.alone, pytest.mark.browser, pytest.mark.timeout(600)]

EVIL = """<script>window.hacked=1</script><img src=x onerror="window.hacked=1">&"""
SECRET = "hunter2-hunter2-hunter2"
PANEL = "import cellrail\nshown = cellrail.{}\nshown"
#: milliseconds that a few runs may take on a busy machine
LONG = 300_000


@pytest.fixture
def kept(make, app):
    """A run that has kept a state and a resource, both of them hostile, and variables."""
    run = app.run(
        make(
            f"%%step watch\nfrom cellrail import set_state, set_resource\n"
            f"set_state({{'seen': {EVIL!r}}})\nset_resource([1, 2], {EVIL!r}, 'limits')",
        )
    )
    assert run.status == "success", run.cause
    app.variable_set("mail/host", "post.example.org")
    app.variable_set("mail/password", SECRET, secret=True)
    return run


def test_values_are_found_looked_at_and_never_run_in_the_page(lab, kept):
    notebook = lab.open(lab.notebook(PANEL.format("state_panel()"), "shown.value"))
    notebook.run(0)
    panel = notebook.panel
    expect(panel.get_by_role("button", name=re.compile("^All 4"))).to_be_visible()
    expect(panel.get_by_role("row", name=re.compile("watch"))).to_contain_text(json.dumps(EVIL))
    notebook.check()
    panel.get_by_label("Search states, resources and variables").fill("limits")
    row = panel.get_by_role("row", name=re.compile("limits"))
    expect(row).to_contain_text("[1, 2]")
    expect(panel.get_by_role("row")).to_have_count(2)
    row.get_by_role("button", name=f"Show resource {EVIL}").click()
    one = panel.get_by_role("region", name=EVIL, exact=True)
    expect(one).to_contain_text(f"{kept.id}, step watch")
    expect(one.get_by_label("Value as JSON")).to_contain_text("1,")
    notebook.check()
    notebook.run(1)
    expect(notebook.page.locator(".jp-OutputArea-output").last).to_contain_text("window.hacked=1")
    panel.get_by_label("Search states, resources and variables").fill("")
    panel.get_by_role("button", name=re.compile("^Variables")).click()
    secret = panel.get_by_role("row", name="mail/password")
    expect(secret).to_contain_text("*** secret")
    secret.click()
    expect(panel.get_by_role("region", name="mail/password")).to_contain_text("*** secret")
    notebook.check()
    assert SECRET not in notebook.page.content()
    assert notebook.page.evaluate("window.hacked") is None
    assert panel.locator("script, img[src='x']").count() == 0
    assert SECRET not in str(notebook.save())


def test_a_value_is_changed_and_deleted_by_hand_and_a_conflict_is_told(lab, kept, app):
    notebook = lab.open(lab.notebook(PANEL.format("state_panel('mail/host')")), dark=True)
    notebook.run(0)
    panel = notebook.panel
    one = panel.get_by_role("region", name="mail/host", exact=True)
    expect(one).to_contain_text("post.example.org")
    one.get_by_role("button", name="Change …").click()
    field = one.get_by_label("The new text")
    expect(field).to_have_value("post.example.org")
    # somebody is faster
    app.variable_set("mail/host", "theirs.example.org")
    expect(one.get_by_text("It was written in the meantime")).to_be_visible()
    field.fill("mine.example.org")
    notebook.check()
    one.get_by_role("button", name="Set", exact=True).click()
    expect(one.get_by_role("alert")).to_contain_text("in the meantime")
    assert app.variable_get("mail/host") == "theirs.example.org"
    one.get_by_role("button", name="Leave it as it is").click()
    expect(one.get_by_label("Value as JSON")).to_contain_text("theirs.example.org")
    one.get_by_role("button", name="Change …").click()
    field.fill(EVIL)
    one.get_by_role("button", name="Set", exact=True).click()
    expect(one.get_by_label("Value as JSON")).to_contain_text("<img src=x")
    assert app.variable_get("mail/host") == EVIL
    one.get_by_role("button", name="Delete").click()
    assert app.variable_get("mail/host") == EVIL
    really = one.get_by_role("button", name="Really delete variable?")
    really.focus()
    # a press at once is no second thought
    notebook.page.wait_for_timeout(600)
    notebook.page.keyboard.press("Enter")
    expect(one).to_have_count(0)
    with pytest.raises(NotSet):
        app.variable_get("mail/host")
    assert notebook.page.evaluate("window.hacked") is None


def test_the_last_tab_follows_what_is_kept_and_leads_to_the_run(lab, kept, app):
    notebook = lab.open(lab.notebook("%load_ext cellrail\n%flow panel"))
    notebook.run(0)
    panel = notebook.panel
    tab = panel.get_by_role("tab").last
    expect(tab).to_have_text("State")
    tab.click()
    room = panel.locator(".cr-room-state")
    expect(room.get_by_role("row", name=re.compile("watch"))).to_be_visible()
    app.resource_set("new/one", 7)
    expect(room.get_by_role("row", name="new/one")).to_be_visible()
    room.get_by_role("row", name=re.compile("watch")).click()
    room.get_by_role("button", name="Look at the run").click()
    expect(panel.get_by_role("treeitem", name=re.compile("^watch, success"))).to_be_visible()
    assert notebook.page.evaluate("window.hacked") is None


def test_a_button_restarts_a_run_once_and_tells_how_it_goes(lab, make, app, tmp_path):
    path = make(
        "limit = 1",
        "%%step wait\nimport os, time\nwhile not os.path.exists('go'): time.sleep(0.02)",
        "%%step check\nassert limit > 1",
        tags={1: ["parameters"]},
    )
    (tmp_path / "go").touch()
    run = app.run(path)
    (tmp_path / "go").unlink()
    shown = (
        f"restart_button({run.id!r}, 'wait', parameters={{'limit': 2}}, labels={{'a': {EVIL!r}}}, "
        f"description={'Again ' + EVIL!r})"
    )
    notebook = lab.open(lab.notebook(PANEL.format(shown), "shown.value", "shown"))
    notebook.run(0)
    panel = notebook.panel
    button = panel.get_by_role("button", name=f"Again {EVIL}")
    expect(button).to_be_enabled()
    notebook.check()
    button.focus()
    notebook.page.keyboard.press("Enter")
    expect(button).to_be_disabled()
    expect(panel).to_contain_text("running 1 of 3 steps", timeout=LONG)
    notebook.check()
    # the same button, shown again
    notebook.run(2)
    other = notebook.page.locator(".cellrail").nth(1)
    expect(other).to_contain_text("running 1 of 3 steps")
    expect(other.get_by_role("button")).to_be_disabled()
    (tmp_path / "go").touch()
    for view in (panel, other):
        expect(view).to_contain_text("success 3 of 3 steps", timeout=LONG)
        expect(view.get_by_role("button")).to_be_enabled()
    new = app.show("last")
    assert (new.origin, new.parameters["limit"]) == (run.id, 2)
    assert len(app.store.run_ids()) == 2
    notebook.run(1)
    expect(notebook.page.locator(".jp-OutputArea-output").nth(1)).to_contain_text(new.id)
    assert notebook.page.evaluate("window.hacked") is None


def test_a_button_backfills_and_tells_its_counts(lab, make, app):
    make(
        "day = ''", "assert day != '2025-03-02'",
        name="days.ipynb", tags={1: ["parameters"]},
    )  # fmt: skip
    shown = (
        "backfill_button('days.ipynb', start='2025-03-01', end='2025-03-03', every='day', "
        "parameters={'day': '{date:%Y-%m-%d}'})"
    )
    notebook = lab.open(lab.notebook(PANEL.format(shown)))
    notebook.run(0)
    panel = notebook.panel
    button = panel.get_by_role("button", name="Backfill days")
    button.click()
    expect(button).to_be_disabled()
    expect(panel).to_contain_text("3 of 3 ticks", timeout=LONG)
    expect(panel).to_contain_text("1 failed")
    expect(button).to_be_enabled(timeout=LONG)
    notebook.check()
    wait_for(lambda: app.backfill_show().status == "done")
    expect(panel).to_contain_text(app.backfill_show().id)
