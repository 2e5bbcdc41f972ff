"""Audits: where a run ends, or gives its kernel up, what changed unseen has to be found.

What is hidden here is hidden on purpose: no code that can be read names the list that it changes.
"""

from __future__ import annotations

import time

import pytest

from cellrail import App
from cellrail.errors import RestartRefused

BEGIN = "import operator\nfrom cellrail import flow\nacc = [1]\ndef f(): pass"
HIDDEN = "operator.attrgetter('__glo' + 'bals__')(f)['ac' + 'c'].append(2)"
SHOW = "%%step show\nprint(acc)"


class Clock:
    """Time as a test has it."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def app(tmp_path, clock) -> App:
    return App(tmp_path / ".cellrail", clock=clock)


def shown(run) -> str:
    return run["show"].outputs[0]["text"]


@pytest.mark.parametrize(
    "end",
    [
        ("%%step last --when False\nprint(acc)",),
        ("%%step enough --stop-if True\nx = 1", "print(acc)"),
        ("%%step quick --no-checkpoint\nx = 1",),
    ],
    ids=["a step that is skipped", "a step that ends it", "a step without a checkpoint"],
)
def test_a_run_that_does_not_end_with_a_capture_looks_at_everything_at_its_end(end, make, app):
    run = app.run(make(BEGIN, HIDDEN, "x = 0", *end))

    assert run.status == "success"
    with pytest.raises(RestartRefused, match=r"`acc` changed unseen before .* ended"):
        app.restart(run.id, from_step="#3")
    assert app.restart(run.id, from_step="#2").status == "success"


@pytest.mark.parametrize("option", ["--when len(other) > 5", "--when other.append(1)"])
def test_what_a_condition_of_a_skipped_step_changes_is_no_late_find(option, make, app):
    run = app.run(make("other = []", "x = 0", "y = 1", f"%%step last {option}\npass"))

    assert app.restart(run.id, from_step="#3").status == "success"


def test_a_step_without_a_checkpoint_at_the_end_is_no_late_find(make, app):
    run = app.run(
        make("acc = [1]", "x = 0", "y = 1", "%%step quick --no-checkpoint\nacc.append(2)")
    )

    assert app.restart(run.id, from_step="#3").status == "success"


@pytest.mark.parametrize(
    "waits",
    [
        (f"{HIDDEN}\nflow.suspend()",),
        (f"%%step nap --sleep 1h\n{HIDDEN}",),
        (HIDDEN, "%%step wait\nflow.suspend()"),
        (HIDDEN, "%%step fetch --retry 1 --backoff 1h\ntry:\n    open('here', 'x')\n"
                 "except FileExistsError: pass\nelse: 1 / 0"),
        (HIDDEN, "%%step poll\nflow.rerun(delay='1h', max_retries=1, on_exceeded='continue')"),
    ],
    ids=["suspends", "sleeps", "suspends later", "is tried again", "is executed again"],
)  # fmt: skip
def test_a_kernel_that_is_given_up_takes_nothing_unseen_with_it(waits, make, app, clock):
    run = app.run(make(BEGIN, *waits, SHOW))
    assert run.status == "suspended", run.cause
    clock.ahead += 4000

    if not app.tick():
        app.resume(run.id)

    run = app.show(run.id)
    assert (run.status, shown(run)) == ("success", "[1, 2]\n")


def test_the_items_of_a_parallel_loop_begin_with_what_changed_unseen(make, app):
    each = "%%step each --foreach i in range(2) --parallel 2 --collect seen\nseen = len(acc)"
    run = app.run(make(BEGIN, HIDDEN, each, "%%step show\nprint(seen)"))

    assert (run.status, shown(run)) == ("success", "[2, 2]\n")
