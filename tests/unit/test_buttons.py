"""Buttons under a cell that waits.

Laws: what a label or a message holds is text; the data is JSON or nothing is answered; a shell
without a front end gets one line; a wait that is over takes no more presses.
"""

from __future__ import annotations

import ipywidgets
import pytest

from cellrail.buttons import Buttons, offer
from cellrail.errors import UserError
from cellrail.run.countdown import Countdown
from cellrail_state.waits import WaitInfo

EVIL = """each["<b onclick='x()'>&"]"""


def info(label=EVIL):
    return WaitInfo(wait_id="run/1", kind="suspend", step=1, asked=1.0, label=label)


class Pressed:
    """Remembers answers."""

    def __init__(self, words="approve was resumed by <ann>"):
        self.words, self.given = words, []

    def __call__(self, wait, by, *, data=None):
        self.given.append((wait.wait_id, by, data))
        if isinstance(self.words, Exception):
            raise self.words
        return self.words


@pytest.fixture
def make():
    return lambda press: Buttons(ipywidgets, info(), press)


def parts(buttons):
    row, said = buttons._box.children
    data, resume, cancel = row.children
    return data, resume, cancel, said


def test_labels_and_messages_are_shown_as_text(make):
    buttons = make(Pressed())
    data, resume, cancel, said = parts(buttons)

    assert "&lt;b onclick" in said.value
    assert "<" not in said.value
    resume.click()
    assert said.value == "approve was resumed by &lt;ann&gt;"
    assert all(part.disabled for part in (data, resume, cancel))
    buttons.over("<script>")
    assert said.value == "&lt;script&gt;"


@pytest.mark.parametrize(
    ("typed", "given"), [("", None), ("  ", None), ("null", "null"), (' {"a": [1]} ', '{"a": [1]}')]
)
def test_resume_brings_what_was_typed_as_json(make, typed, given):
    press = Pressed()
    data, resume, _, _ = parts(make(press))
    data.value = typed
    resume.click()
    assert press.given == [("run/1", "resume", given)]


@pytest.mark.parametrize("typed", ["yes", "{'a': 1}", "NaN", "@file", "1 2"])
def test_what_is_no_json_answers_nothing(make, typed):
    press = Pressed()
    data, resume, cancel, said = parts(make(press))
    data.value = typed
    resume.click()
    assert press.given == []
    assert "no JSON" in said.value
    assert not resume.disabled
    cancel.click()
    assert press.given == [("run/1", "cancel", None)]


def test_a_refusal_is_told_with_what_to_do(make):
    _, resume, _, said = parts(make(Pressed(UserError("no <room>", hint="make some"))))
    resume.click()
    assert said.value == "no &lt;room&gt; (make some)"


class Shell:
    """A shell with or without a front end."""

    def __init__(self, kernel=None):
        self.kernel, self.published = kernel, []
        self.display_pub = self

    def publish(self, **named):
        self.published.append(named)


def test_without_a_front_end_there_is_one_line(capsys):
    told = offer(Shell(), info("approve"), Pressed())
    told("over")
    assert capsys.readouterr().out == (
        "cellrail: approve waits: %flow resume [--data JSON] or %flow cancel here; "
        "cellrail resume RUN in a terminal\n"
    )


def test_a_front_end_without_widgets_shows_the_line_too(capsys):
    shell = Shell(kernel=object())
    offer(shell, info("approve"), Pressed())
    (shown,) = shell.published
    assert shown["data"]["text/plain"].startswith("cellrail: approve waits: %flow resume")
    assert "application/vnd.jupyter.widget-view+json" in shown["data"]
    assert capsys.readouterr().out == ""


# --- counting down ---------------------------------------------------------------------------


def test_a_countdown_leaves_a_line_without_a_time():
    shell = Shell(kernel=object())
    with Countdown(shell, "cellrail: waits") as countdown:
        for seconds in (3700.2, 3700.1, 61.0, 1.0):
            countdown.show(seconds)
    texts = [shown["data"]["text/plain"] for shown in shell.published]
    assert [text.partition(" left")[0].rpartition(" ")[2] for text in texts[:-1]] == [
        "1:01:40", "1:01", "0:01",
    ]  # fmt: skip
    assert texts[-1] == "cellrail: waits"
    assert [shown["update"] for shown in shell.published] == [False, True, True, True]


def test_a_short_wait_shows_nothing(capsys):
    shell = Shell(kernel=object())
    with Countdown(shell, "cellrail: waits") as countdown:
        countdown.show(1.9)
    assert shell.published == []


def test_a_terminal_says_once_that_it_waits(capsys):
    with Countdown(Shell(), "cellrail: waits") as countdown:
        countdown.show(90.0)
        countdown.show(80.0)
    said = capsys.readouterr().out
    assert said == "cellrail: waits: 1:30 left; interrupt the kernel to stop\n"
