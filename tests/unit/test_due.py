"""Which ticks are due: missed ones, late ones, and clocks that jump."""

from __future__ import annotations

import datetime as dt

import pytest

from cellrail.schedule.cron import Cron
from cellrail.schedule.due import due
from cellrail_state.schedules import Missed

HOURLY = Cron("0 * * * *", "Europe/Paris")


def at(text: str) -> float:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()


def hours(ticks) -> list[int]:
    return [tick.astimezone(dt.UTC).hour for tick in ticks]


@pytest.mark.parametrize(
    ("missed", "late_after", "runs", "skipped"),
    [
        (Missed.ALL, None, [1, 2, 3], []), (Missed.LAST, None, [3], [1, 2]),
        (Missed.NONE, None, [], [1, 2, 3]), (Missed.ALL, 5400.0, [3], [1, 2]),
        (Missed.LAST, 60.0, [], [1, 2, 3]),
    ],
)  # fmt: skip
def test_missed_ticks_run_as_is_said(missed, late_after, runs, skipped):
    found = due(HOURLY, at("2025-06-01T00:30"), at("2025-06-01T03:40"), missed=missed,
                late_after=late_after)  # fmt: skip
    assert (hours(found.ticks), hours(found.skipped)) == (runs, skipped)
    assert hours(found.missed) == runs


@pytest.mark.parametrize("missed", [*Missed])
def test_a_tick_in_time_runs_whatever_is_said_of_missed_ones(missed):
    found = due(HOURLY, at("2025-06-01T02:30"), at("2025-06-01T03:04"), missed=missed)
    assert (hours(found.ticks), found.missed, found.skipped) == ([3], (), ())


def test_a_clock_that_went_back_has_the_ticks_of_the_last_minutes_looked_at_again():
    now = at("2025-06-01T03:01")
    found = due(HOURLY, at("2031-01-01T00:00"), now, missed=Missed.ALL)
    assert hours(found.ticks) == [3]
    later = due(HOURLY, at("2031-01-01T00:00"), now, missed=Missed.ALL, created=now - 10)
    assert later.ticks == ()


@pytest.mark.parametrize(("missed", "count"), [(Missed.LAST, 6), (Missed.NONE, 6)])
def test_of_very_many_missed_ticks_the_last_ones_are_found(missed, count):
    cron = Cron("* * * * *")
    found = due(cron, at("2024-01-01T00:00"), at("2025-06-01T03:00"), missed=missed)
    assert len(found.ticks) == count
    assert found.ticks[-1].timestamp() == at("2025-06-01T03:00")
    assert not found.more


def test_very_many_ticks_come_in_parts():
    cron = Cron("* * * * *")
    found = due(cron, at("2024-01-01T00:00"), at("2025-06-01T03:00"), missed=Missed.ALL)
    assert found.more
    assert found.ticks[0].timestamp() == at("2024-01-01T00:01")
    assert len(found.ticks) == 10_000
