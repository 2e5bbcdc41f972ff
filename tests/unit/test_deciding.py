"""What a backfill does with a tick: every way that it can stand, for each kind of ticks."""

from __future__ import annotations

import pytest

from cellrail.schedule.deciding import Todo, Wanted, decide
from cellrail_state.schedules import Which
from cellrail_state.standing import Stand, Standing
from cellrail_state.ticks import Key

KEY = Key("20250101T000000Z", "a")
MINE = "backfill:b"


def stand(standing, *, ended="", outcome="", ended_by="", filled="", source="old", by=""):
    return Stand(
        key=KEY, standing=standing, run_id="r", ended=ended, outcome=outcome, ended_by=ended_by,
        filled=filled, source=source if filled else "", by=by,
    )  # fmt: skip


NEVER = stand(Standing.MISSING)
FILLED = stand(Standing.SUCCESS, ended="r", outcome="success", filled="r")
FRESH = stand(Standing.SUCCESS, ended="r", outcome="success", filled="r", source="new")
FAILED = stand(Standing.FAILED, ended="r", outcome="failed")
CANCELLED = stand(Standing.CANCELLED, ended="r", outcome="cancelled")
LEFT = stand(Standing.ABANDONED)
LEFT_FAILED = stand(Standing.ABANDONED, ended="q", outcome="failed")
INTERRUPTED = stand(Standing.INTERRUPTED)
RUN, RESTART, RERUN, RECOVER, NOTHING = (
    Todo.RUN, Todo.RESTART, Todo.RERUN, Todo.RECOVER, Todo.NOTHING,
)  # fmt: skip


@pytest.mark.parametrize(
    ("known", "missing", "failed", "stale", "every"),
    [
        (NEVER, RUN, NOTHING, NOTHING, RUN),
        (FILLED, NOTHING, NOTHING, RERUN, RUN),
        (FRESH, NOTHING, NOTHING, NOTHING, RUN),
        (FAILED, NOTHING, RESTART, NOTHING, RUN),
        (CANCELLED, RESTART, RESTART, NOTHING, RUN),
        (LEFT, RUN, NOTHING, NOTHING, RUN),
        (LEFT_FAILED, NOTHING, RESTART, NOTHING, RUN),
        (INTERRUPTED, RECOVER, RECOVER, NOTHING, RECOVER),
        (stand(Standing.RUNNING), *[Todo.WAIT] * 4),
        (stand(Standing.CLAIMED, filled="q", ended="q", outcome="success"), *[Todo.WAIT] * 4),
        (stand(Standing.SUSPENDED), *[NOTHING] * 4),
    ],
)
def test_what_is_done_with_a_tick(known, missing, failed, stale, every):
    found = [decide(Wanted(which=which, name=MINE, source="new"), known) for which in Which]
    assert [one.todo for one in found] == [missing, failed, stale, every]
    assert all(one.why for one in found)


@pytest.mark.parametrize("which", [*Which])
@pytest.mark.parametrize("outcome", ["success", "failed"])
def test_a_backfill_runs_a_tick_once(which, outcome):
    filled = "r" if outcome == "success" else ""
    known = stand(Standing(outcome), ended="r", outcome=outcome, ended_by=MINE, filled=filled)
    wanted = Wanted(which=which, name=MINE, source="new")
    assert decide(wanted, known).todo is NOTHING


def test_what_it_has_cancelled_itself_it_runs_again_and_what_it_left_it_recovers():
    known = stand(Standing.CANCELLED, ended="r", outcome="cancelled", ended_by=MINE)
    assert decide(Wanted(which=Which.MISSING, name=MINE), known).todo is RESTART
    stale = stand(Standing.SUCCESS, ended="r", outcome="cancelled", ended_by=MINE, filled="q")
    wanted = Wanted(which=Which.STALE, name=MINE, source="new")
    assert decide(wanted, stale).todo is RERUN
    left = stand(Standing.INTERRUPTED, by=MINE, filled="q")
    assert decide(wanted, left).todo is RECOVER


def test_from_the_start_nothing_is_kept():
    wanted = {which: Wanted(which=which, name=MINE, from_start=True) for which in Which}
    assert decide(wanted[Which.FAILED], FAILED).todo is RUN
    assert decide(wanted[Which.STALE], FILLED).todo is RUN
    assert decide(wanted[Which.MISSING], CANCELLED).todo is RUN
