"""The days of a calendar of ticks.

Laws:

* a day shows that of its ticks' states which most wants to be looked at, and counts all of them;
* every state has a letter of its own: none is told by its colour alone;
* a day on which the clock jumps says so, in whatever zone, and no other day does.
"""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellrail.panels.ticking import (
    Day,
    State,
    counts_of,
    days_of,
    jumps_of,
    month_span,
    shifted,
    state_of,
)
from cellrail.schedule.cron import Cron
from cellrail_state.standing import Stand, Standing
from cellrail_state.ticks import Key

PARIS = ZoneInfo("Europe/Paris")
NOON = dt.datetime(2025, 3, 15, 12, tzinfo=dt.UTC)
EARLY, LATE = NOON - dt.timedelta(hours=1), NOON + dt.timedelta(hours=1)


def stand(standing: Standing = Standing.MISSING, **more: str) -> Stand:
    return Stand(key=Key("20250315T110000Z", "inputs"), standing=standing, **more)


def test_every_standing_has_a_state_and_every_state_a_letter_of_its_own() -> None:
    seen = {state_of(EARLY, stand(one), source="", now=NOON) for one in Standing}
    assert seen == set(State) - {State.STALE, State.UPCOMING}
    assert len({state.letter for state in State}) == len(State)
    assert all(state.words for state in State)


def test_a_tick_whose_time_has_not_come_is_not_missing() -> None:
    assert state_of(LATE, stand(), source="", now=NOON) is State.UPCOMING
    assert state_of(LATE, stand(Standing.SUCCESS), source="", now=NOON) is State.SUCCESS


def test_a_tick_that_another_source_has_filled_is_old() -> None:
    filled = stand(Standing.SUCCESS, source="a")
    assert state_of(EARLY, filled, source="b", now=NOON) is State.STALE
    assert state_of(EARLY, filled, source="a", now=NOON) is State.SUCCESS
    assert state_of(EARLY, filled, source="", now=NOON) is State.SUCCESS
    assert state_of(EARLY, stand(Standing.FAILED, source="a"), source="b", now=NOON) is State.FAILED


def test_a_day_shows_what_most_wants_to_be_looked_at_and_counts_the_rest() -> None:
    hours = [dt.datetime(2025, 3, 1, hour, tzinfo=PARIS) for hour in range(4)]
    states = [State.SUCCESS, State.MISSING, State.FAILED, State.SUCCESS]
    (day,) = days_of(
        zip(hours, states, strict=True), PARIS, dt.date(2025, 3, 1), dt.date(2025, 3, 29)
    )
    assert (day.date, day.state, day.ticks) == (dt.date(2025, 3, 1), State.FAILED, 4)
    assert list(day.counts.items()) == [(State.FAILED, 1), (State.MISSING, 1), (State.SUCCESS, 2)]
    assert day.words == "4 ticks: 1 failed, 1 missing, 2 success"
    assert day.plain() == {
        "state": "failed",
        "counts": {"failed": 1, "missing": 1, "success": 2},
        "words": day.words,
    }


def test_a_tick_is_on_the_day_that_the_clock_in_its_zone_shows() -> None:
    tick = dt.datetime(2025, 3, 1, 23, 30, tzinfo=dt.UTC)
    (day,) = days_of([(tick, State.SUCCESS)], PARIS, dt.date(2025, 3, 1), dt.date(2025, 3, 9))
    assert day.date == dt.date(2025, 3, 2)


def test_days_on_which_clocks_jump_are_marked_and_explained() -> None:
    spring, autumn = jumps_of(PARIS, dt.date(2025, 1, 1), dt.date(2025, 12, 31))
    assert (spring.at.date(), spring.mark) == (dt.date(2025, 3, 30), "+1h")
    assert "02:00 to 03:00 is skipped" in spring.words
    assert (autumn.at.date(), autumn.mark) == (dt.date(2025, 10, 26), "-1h")
    assert "02:00 to 03:00 comes twice" in autumn.words
    (day,) = days_of([], PARIS, dt.date(2025, 3, 1), dt.date(2025, 3, 31))
    assert day.plain() == {"mark": "+1h", "words": f"no tick; {spring.words}"}


@pytest.mark.parametrize(
    ("zone", "date", "mark"),
    [
        ("Australia/Lord_Howe", dt.date(2025, 10, 5), "+30m"),
        ("Africa/Cairo", dt.date(2025, 4, 25), "+1h"),
        ("America/New_York", dt.date(2025, 11, 2), "-1h"),
        ("Pacific/Auckland", dt.date(2025, 9, 28), "+1h"),
        ("Pacific/Apia", dt.date(2011, 12, 31), "+24h"),
    ],
)
def test_a_jump_is_found_where_only_its_own_day_is_shown(
    zone: str, date: dt.date, mark: str
) -> None:
    (jump,) = jumps_of(ZoneInfo(zone), date, date)
    assert (jump.at.date(), jump.mark) == (date, mark)
    other = date + dt.timedelta(days=2)
    assert not list(jumps_of(ZoneInfo(zone), other, other))
    assert not list(jumps_of(ZoneInfo("UTC"), dt.date(2025, 1, 1), dt.date(2025, 12, 31)))


def test_hourly_ticks_of_a_day_that_is_an_hour_shorter_are_counted_as_they_are() -> None:
    day = dt.date(2025, 3, 30)
    for date, number in ((day, 23), (dt.date(2025, 10, 26), 25), (dt.date(2025, 3, 29), 24)):
        start = dt.datetime(date.year, date.month, date.day, tzinfo=PARIS)
        cron = Cron("0 * * * *", "Europe/Paris")
        ticks = [(t, State.MISSING) for t in cron.between(start, start + dt.timedelta(days=2))]
        found = {one.date: one.ticks for one in days_of(ticks, PARIS, date, date)}
        assert found[date] == number


def test_no_day_is_made_without_ticks() -> None:
    assert days_of([], PARIS, dt.date(2025, 1, 1), dt.date(2025, 1, 31)) == []
    assert Day(date=dt.date(2025, 1, 1)).words == "no tick"


@given(st.dates(dt.date(1990, 1, 1), dt.date(2090, 12, 31)), st.integers(1, 24))
def test_months_end_where_the_next_begins(first: dt.date, months: int) -> None:
    start, last = month_span(first, months)
    assert (start.day, start.month, start.year) == (1, first.month, first.year)
    assert last + dt.timedelta(days=1) == shifted(first, months)
    assert shifted(shifted(first, months), -months) == start


@given(st.lists(st.sampled_from(State)))
def test_nothing_is_lost_in_counting(states: list[State]) -> None:
    counts = counts_of(states)
    assert sum(counts.values()) == len(states)
    assert list(counts) == [state for state in State if state in counts]
