"""What a person types into a panel as JSON: one rule in the browser and in Python.

Laws: a key that comes twice, NaN and infinities are refused at the field; what is sent is what was
typed, digit for digit; what is no JSON in a form's field is text.
"""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import expect

from cellrail.panels.widget import script_of
from cellrail.run.jsontext import typed

pytestmark = [pytest.mark.alone, pytest.mark.browser]

WAITS = "%%step ask\nfrom cellrail import flow\nflow.suspend('1h')"
TEXTS = [
    "1", " [1] ", '"a"', "null", "", "yes", "NaN", "[NaN]", '{"a": -Infinity}', "Infinity", "-NaN",
    "1e999", "-1e999", "[0.5e400]", "1e-999", "9" * 400, "01", "[1,]", "{'a': 1}", '"NaN 1e999"',
    '{"a": 1, "a": 1}', '{"a": {"a": 1}, "b": [{"a": 1}, {"a": 1}]}', '[{"b": {"c": 1, "c": 2}}]',
    r'{"\u0061": 1, "a": 2}', r'{"a\"": 1, "a": 2}', '{"a": "a", "b": ":"}', '["a", "a", ":"]',
    '"open', '{"a": ":", "a:": 1}', '{"": 1, "": 2}', "[" * 99 + "]" * 99, "\ufeff1", "1 2",
]  # fmt: skip


def taken(text: str) -> bool:
    try:
        typed(text)
    except ValueError:
        return False
    return True


def test_the_browser_takes_as_json_what_python_takes(markup):
    page = markup("<p>").page
    rule = script_of([]).partition("export default")[0] + "\nreturn texts.map(json_fault)"
    told = page.evaluate("([rule, texts]) => new Function('texts', rule)(texts)", [rule, TEXTS])
    assert {text: not why for text, why in zip(TEXTS, told, strict=True)} == {
        text: taken(text) for text in TEXTS
    }


@pytest.fixture
def asked(lab, make, app):
    """A run that waits, and the panel with the form of its answer."""
    run = app.run(make(WAITS, "%%step after\nprint(flow.resume_data)"))
    notebook = lab.open(
        lab.notebook(f"import cellrail\ncellrail.waits_panel({str(app.store_path)!r})")
    )
    notebook.run(0)
    notebook.panel.get_by_role("button", name=re.compile("^Answer")).click()
    return run, notebook


def test_what_json_has_not_is_refused_at_the_field_of_an_answer(asked, app):
    run, notebook = asked
    panel, alert = notebook.panel, notebook.panel.get_by_role("alert")
    resume = panel.get_by_role("button", name="Resume")
    value = panel.get_by_label("Value 1")
    expect(panel.get_by_label("Name 1")).to_be_focused()
    panel.get_by_label("Name 1").fill("n")
    for text, told in {
        "NaN": "NaN is no number of JSON",
        '{"a": 1, "a": 2}': 'the key "a" comes twice',
        "[1e999]": "1e999 is too large a number",
    }.items():
        value.fill(text)
        resume.click()
        expect(alert).to_contain_text(told)
        expect(value).to_be_focused()
        expect(value).to_have_attribute("aria-invalid", "true")
    notebook.check()
    value.fill("12345678901234567890")
    expect(alert).to_have_count(0)

    panel.get_by_role("tab", name="JSON").click()
    area = panel.get_by_label("JSON for flow.resume_data")
    expect(area).to_have_value('{"n":12345678901234567890}')
    area.fill('{"n": Infinity}')
    resume.click()
    expect(alert).to_contain_text("Infinity is no number of JSON")
    expect(area).to_be_focused()
    notebook.check()
    area.fill('{"n": 12345678901234567890, "t": "5", "w": "five", "f": 1.50}')
    expect(alert).to_have_count(0)
    panel.get_by_role("tab", name="Form").click()
    for place, shown in enumerate(["12345678901234567890", '"5"', "five", "1.50"], 1):
        expect(panel.get_by_label(f"Value {place}")).to_have_value(shown)
    assert app.show(run.id).status == "suspended"
    resume.click()
    expect(panel.get_by_text("No run waits.")).to_be_visible()
    told = {"n": 12345678901234567890, "t": "5", "w": "five", "f": 1.5}
    assert str(told) in str(app.show(run.id)["after"].outputs)


def test_the_answer_of_a_run_keeps_what_is_typed_and_says_what_is_wrong_with_it(lab, make, app):
    run = app.run(make(WAITS, "%%step after\nprint(flow.resume_data)"))
    notebook = lab.open(
        lab.notebook(f"import cellrail\ncellrail.run_panel({run.id!r}, {str(app.store_path)!r})")
    )
    notebook.run(0)
    panel = notebook.panel
    data = panel.get_by_label("JSON for the next step")
    data.fill('{"a": 1, "a": 2}')
    panel.get_by_role("button", name="Resume").click()
    expect(panel.get_by_role("alert")).to_contain_text('the key "a" comes twice')
    expect(data).to_be_focused()
    notebook.check()
    data.fill("[12345678901234567890]")
    expect(panel.get_by_role("alert")).to_have_count(0)
    # nor is it lost when the focus is elsewhere and the panel is drawn anew
    panel.get_by_role("treeitem", name=re.compile("^ask")).click()
    app.run(make(json.dumps("another"), name="other.ipynb"))
    notebook.page.wait_for_timeout(2000)
    expect(data).to_have_value("[12345678901234567890]")
    panel.get_by_role("button", name="Resume").click()
    expect(panel.locator(".cr-head")).to_contain_text("success")
    assert "[12345678901234567890]" in str(app.show(run.id)["after"].outputs)


def test_a_state_is_not_set_to_what_is_no_json(lab, app, make):
    app.run(make("x = 1"))
    app.resource_set("team/limits", [1])
    notebook = lab.open(
        lab.notebook(f"import cellrail\ncellrail.state_panel(store={str(app.store_path)!r})")
    )
    notebook.run(0)
    panel = notebook.panel
    panel.get_by_role("button", name="Show resource team/limits").click()
    panel.get_by_role("button", name="Change …").click()
    field = panel.get_by_label("The new value as JSON")
    field.fill("[NaN]")
    panel.get_by_role("button", name="Set", exact=True).click()
    expect(panel.get_by_role("alert")).to_contain_text("NaN is no number of JSON")
    expect(field).to_be_focused()
    notebook.check()
    field.fill("[2]")
    expect(panel.get_by_role("alert")).to_have_count(0)
    panel.get_by_role("button", name="Set", exact=True).click()
    expect(panel.get_by_role("region", name="Value as JSON")).to_contain_text("2")
    assert app.resource_get("team/limits") == [2]
