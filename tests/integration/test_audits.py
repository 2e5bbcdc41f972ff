"""Audits: where a run ends, or gives its kernel up, what changed unseen has to be found.

What is hidden here is hidden on purpose: no code that can be read names the list that it changes.
"""

from __future__ import annotations

import time

import pytest

from cellrail import App
from cellrail.errors import RestartRefused

BEGIN = (
    "import operator\nfrom cellrail import flow\nacc = [1]\ndef f(): pass\n"
    # an audit of this takes so long that none is due again by itself before the run's end
    "ballast = [(str(n), {n: None}) for n in range(100_000)]"
)
HIDDEN = "operator.attrgetter('__glo' + 'bals__')(f)['ac' + 'c'].append(2)"
SHOW = "%%step show\nprint(acc)"
BORN = time.time()


def fast() -> float:
    """A clock whose hours are seconds."""
    return BORN + (time.time() - BORN) * 3600


@pytest.fixture
def app(tmp_path) -> App:
    return App(tmp_path / ".cellrail", clock=fast)


def kernels(app, run) -> int:
    return sum(line["type"] == "kernel" for line in app.journal(run.id))


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


@pytest.mark.parametrize("option", ["--when len(other) > 5", "--when other.count(1)"])
def test_what_the_condition_of_a_skipped_step_looks_at_is_no_late_find(option, make, app):
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
    ],
    ids=["suspends", "sleeps", "suspends later"],
)
def test_a_kernel_that_is_given_up_takes_nothing_unseen_with_it(waits, make, app):
    run = app.run(make(BEGIN, *waits, SHOW))
    if run.status == "suspended":  # nobody waits for what may come at any time
        run = app.resume(run.id)

    assert (run.status, shown(run), kernels(app, run)) == ("success", "[1, 2]\n", 2)


FETCH = (
    "%%step fetch --retry 1 --backoff 6s\n"
    "try: open('here', 'x')\nexcept FileExistsError: pass\nelse: 1 / 0"
)
POLL = "%%step poll\nflow.rerun(delay='1h', max_retries=1, on_exceeded='continue')"


@pytest.mark.parametrize("again", [FETCH, POLL], ids=["a retry", "another execution"])
@pytest.mark.parametrize("hidden", [HIDDEN, "x = 0"], ids=["unseen", "nothing"])
def test_a_kernel_is_kept_for_another_attempt_where_it_alone_has_a_change(again, hidden, make, app):
    if hidden != HIDDEN:
        again = again.replace("6s", "1h")
    run = app.run(make(BEGIN, hidden, again, SHOW))

    seen = ("[1, 2]\n", 1) if hidden == HIDDEN else ("[1]\n", 2)
    assert (run.status, shown(run), kernels(app, run)) == ("success", *seen)


def test_the_items_of_a_parallel_loop_begin_with_what_changed_unseen(make, app):
    each = "%%step each --foreach i in range(2) --parallel 2 --collect seen\nseen = len(acc)"
    run = app.run(make(BEGIN, HIDDEN, each, "%%step show\nprint(seen)"))

    assert (run.status, shown(run)) == ("success", "[2, 2]\n")
