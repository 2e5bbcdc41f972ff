"""Ticks of cron expressions, ranges, and templates.

Laws of ticks, held against a walk through every minute of the zone's clock:

* a wall time that the expression fits is a tick; one that the clock skips is a tick at the first
  instant after the gap, one that it shows twice is one tick, or two where it runs hourly;
* ticks are in order, no two are the same instant, and a range is the part of them between its ends;
* all of it in zones that jump by an hour, by half an hour, by a day, north and south.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import given, settings
from hypothesis import strategies as st

from cellrail.errors import BadSchedule
from cellrail.schedule.cron import EVERY, Cron
from cellrail.schedule.spans import moment_of
from cellrail.schedule.templates import FIELDS, fields_of, fill, is_template

MINUTE = dt.timedelta(minutes=1)
#: zones, and days around which their clocks jump
JUMPS = (
    ("Europe/Paris", "2025-03-30"), ("Europe/Paris", "2025-10-26"),
    ("America/New_York", "2025-03-09"), ("America/New_York", "2025-11-02"),
    ("Australia/Sydney", "2025-10-05"), ("Australia/Sydney", "2025-04-06"),
    ("Australia/Lord_Howe", "2025-10-05"), ("Australia/Lord_Howe", "2025-04-06"),
    ("America/Santiago", "2025-09-07"), ("America/Santiago", "2025-04-06"),
    ("Pacific/Apia", "2011-12-30"), ("UTC", "2025-03-30"), ("Asia/Kolkata", "2025-03-30"),
)  # fmt: skip


def aware(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


def walked(
    minutes: set[int], hours: set[int], zone: ZoneInfo, start: dt.datetime, end: dt.datetime
) -> list[str]:
    """The ticks, found by looking at the clock every minute."""

    def fits(wall: dt.datetime) -> bool:
        return wall.minute in minutes and wall.hour in hours

    found: set[dt.datetime] = set()
    now, before = start - dt.timedelta(hours=2), None
    while now <= end:
        local = now.astimezone(zone)
        wall = local.replace(tzinfo=None, fold=0)
        skipped = wall if before is None else before + MINUTE
        while skipped < wall:
            if fits(skipped):
                found.add(now)
            skipped += MINUTE
        if fits(wall) and (local.fold == 0 or len(hours) == 24):
            found.add(now)
        before, now = wall, now + MINUTE
    return [tick.isoformat() for tick in sorted(found) if start <= tick <= end]


def ticks(cron: Cron, start: dt.datetime, end: dt.datetime) -> list[str]:
    return [tick.astimezone(dt.UTC).isoformat() for tick in cron.between(start, end)]


MINUTES = {
    "0": {0}, "30": {30}, "*/15": {0, 15, 30, 45}, "15,45": {15, 45}, "59": {59},
    "*/7": {*range(0, 60, 7)},
}  # fmt: skip
HOURS = {
    "*": {*range(24)}, "2": {2}, "1-3": {1, 2, 3}, "0": {0}, "*/2": {*range(0, 24, 2)},
    "0,2,23": {0, 2, 23}, "0-23": {*range(24)},
}  # fmt: skip


@settings(max_examples=60)
@given(st.sampled_from([*MINUTES]), st.sampled_from([*HOURS]), st.sampled_from(JUMPS))
def test_ticks_are_those_of_a_walk_through_every_minute_of_the_clock(minute, hour, jump):
    name, day = jump
    zone = ZoneInfo(name)
    start = (aware(day) - dt.timedelta(hours=3)).replace(tzinfo=zone).astimezone(dt.UTC)
    end = start + dt.timedelta(days=1, hours=8)
    witness = walked(MINUTES[minute], HOURS[hour], zone, start, end)

    assert ticks(Cron(f"{minute} {hour} * * *", name), start, end) == witness


@pytest.mark.parametrize(
    ("zone", "expression", "day", "expected"),
    [
        # skipped: the first valid instant
        ("Europe/Paris", "30 2 * * *", "2025-03-30", ["2025-03-30T03:00:00+02:00"]),
        ("America/New_York", "30 2 * * *", "2025-03-09", ["2025-03-09T03:00:00-04:00"]),
        ("Australia/Sydney", "30 2 * * *", "2025-10-05", ["2025-10-05T03:00:00+11:00"]),
        ("Australia/Lord_Howe", "15 2 * * *", "2025-10-05", ["2025-10-05T02:30:00+11:00"]),
        # shown twice: once
        ("Europe/Paris", "30 2 * * *", "2025-10-26", ["2025-10-26T02:30:00+02:00"]),
        ("America/New_York", "30 1 * * *", "2025-11-02", ["2025-11-02T01:30:00-04:00"]),
        ("Australia/Sydney", "30 2 * * *", "2025-04-06", ["2025-04-06T02:30:00+11:00"]),
        # midnight itself is skipped
        ("America/Santiago", "0 0 * * *", "2025-09-07", ["2025-09-07T01:00:00-03:00"]),
    ],
)
def test_a_daily_tick_that_the_clock_skips_or_shows_twice_is_one_tick(
    zone, expression, day, expected
):
    start, end = moment_of(day, zone), moment_of(day, zone, ends=True)
    assert [tick.isoformat() for tick in Cron(expression, zone).between(start, end)] == expected


@pytest.mark.parametrize(
    ("zone", "day", "count"),
    [
        ("Europe/Paris", "2025-03-30", 23), ("Europe/Paris", "2025-10-26", 25),
        ("America/New_York", "2025-03-09", 23), ("America/New_York", "2025-11-02", 25),
        ("Australia/Sydney", "2025-10-05", 23), ("Australia/Sydney", "2025-04-06", 25),
        ("Pacific/Apia", "2011-12-29", 24), ("UTC", "2025-03-30", 24),
    ],
)  # fmt: skip
def test_an_hourly_tick_comes_as_often_as_the_day_has_hours(zone, day, count):
    start, end = moment_of(day, zone), moment_of(day, zone, ends=True)
    found = list(Cron("0 * * * *", zone).between(start, end))
    assert len(found) == count
    instants = [tick.timestamp() for tick in found]
    assert {b - a for a, b in itertools.pairwise(instants)} == {3600.0}


NUMBERS = {
    "minute": ["*", "0", "*/20", "5,35", "10-12"], "hour": ["*", "3", "*/6", "9-17/4"],
    "day": ["*", "1", "31", "*/10", "13,28-30"], "month": ["*", "2", "*/5", "jan,jul"],
    "weekday": ["*", "0", "7", "mon-fri", "sun", "6-7", "1,3"],
}  # fmt: skip


@settings(max_examples=150)
@given(
    st.tuples(*(st.sampled_from(field) for field in NUMBERS.values())),
    st.sampled_from(["", " 0", " */25", " *"]),
    st.datetimes(dt.datetime(2023, 1, 1), dt.datetime(2025, 1, 1)),
)
def test_the_days_and_times_of_plain_expressions_are_those_that_croniter_finds(
    fields, second, start
):
    expression = " ".join(fields) + second
    try:
        cron = Cron(expression)
    except BadSchedule:  # the 31st of February
        return
    assert cron._plain is not None
    start = start.replace(microsecond=0)
    found = itertools.islice(cron._plain.after(start), 40)
    there = croniter(expression, start, ret_type=dt.datetime)
    assert list(found) == [there.get_next() for _ in range(40)]


@pytest.mark.parametrize("expression", ["0 0 l * *", "0 0 * * fri#2", "0 0 * * l5", "0 0 15w * *"])
def test_what_is_no_list_of_numbers_is_left_to_croniter(expression):
    try:
        cron = Cron(expression)
    except BadSchedule:  # an older croniter
        return
    assert cron._plain is None
    assert next(cron.after(aware("2025-01-01T00:00:00+00:00"))) is not None


def test_a_range_holds_its_ends_and_neighbours_are_found_over_years():
    cron = Cron("0 6 29 2 *", "Europe/Paris")
    leap = aware("2024-02-29T06:00:00+01:00")
    assert list(cron.between(leap, leap)) == [leap]
    assert leap in cron
    assert leap + MINUTE not in cron
    assert next(cron.after(leap)) == aware("2028-02-29T06:00:00+01:00")
    assert cron.before(leap) == aware("2020-02-29T06:00:00+01:00")
    assert list(cron.between(leap + MINUTE, leap)) == []


def test_every_period_is_an_expression():
    start = aware("2025-01-01T00:00:00+00:00")
    firsts = {name: next(Cron(text).after(start)).isoformat() for name, text in EVERY.items()}
    assert firsts == {
        "minute": "2025-01-01T00:01:00+00:00", "hour": "2025-01-01T01:00:00+00:00",
        "day": "2025-01-02T00:00:00+00:00", "week": "2025-01-06T00:00:00+00:00",
        "month": "2025-02-01T00:00:00+00:00", "year": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip


@pytest.mark.parametrize(
    "expression",
    ["", "* * *", "61 * * * *", "0 0 30 2 *", "H * * * *", "R * * * *", "R(0-30) * * * *", "x" * 99,
     "0 25 * * *", "@never", "* * * * * * * *", "\0"],
)  # fmt: skip
def test_what_is_no_expression_or_never_comes_true_is_refused(expression):
    with pytest.raises(BadSchedule, match="no cron expression"):
        Cron(expression)


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../etc/passwd", "/etc/localtime", "a\0b"])
def test_what_is_no_zone_is_refused(zone):
    with pytest.raises(BadSchedule, match="no time zone"):
        Cron("* * * * *", zone)


def test_dates_are_days_of_the_zone_and_times_may_have_an_offset():
    paris = "Europe/Paris"
    assert moment_of("2025-03-30", paris).isoformat() == "2025-03-30T00:00:00+01:00"
    assert moment_of("2025-03-30", paris, ends=True).isoformat() == (
        "2025-03-30T23:59:59.999999+02:00"
    )
    assert moment_of("2025-03-01T06:00Z", paris).isoformat() == "2025-03-01T07:00:00+01:00"
    # shown twice: a range holds both
    assert moment_of("2025-10-26T02:30", paris).utcoffset() == dt.timedelta(hours=2)
    assert moment_of("2025-10-26T02:30", paris, ends=True).utcoffset() == dt.timedelta(hours=1)
    # a day that begins at one in the morning
    assert moment_of("2025-09-07", "America/Santiago").isoformat() == "2025-09-07T01:00:00-03:00"
    with pytest.raises(BadSchedule, match="it was skipped"):
        moment_of("2025-03-30T02:30", paris)
    for wrong in ("", "tomorrow", "2025-02-30", "2025-13-01", "20:00"):
        with pytest.raises(BadSchedule, match="neither a date nor a time"):
            moment_of(wrong, paris)


# --- templates -------------------------------------------------------------------------------

TICK = dt.datetime(2025, 3, 30, 6, 0, tzinfo=ZoneInfo("Europe/Paris"))
CRON = Cron("0 6 * * *", "Europe/Paris")


def filled(text: str) -> str:
    return fill(
        text, TICK, previous=lambda: CRON.before(TICK), following=lambda: next(CRON.after(TICK))
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{date:%Y-%m-%d}", "2025-03-30"), ("{date}", "2025-03-30"),
        ("day={date:%j}/{date:%H}", "day=089/06"), ("{start}", "2025-03-30T06:00:00+02:00"),
        ("{end}", "2025-03-31T06:00:00+02:00"), ("{next:%d}", "31"),
        ("{previous}", "2025-03-29T06:00:00+01:00"), ("{{{date:%d}}}", "{30}"), ("{{x}}", "{x}"),
    ],
)  # fmt: skip
def test_a_template_is_filled_with_the_tick_in_its_zone(text, expected):
    assert is_template(text)
    assert filled(text) == expected


def test_what_is_json_or_no_text_is_no_template():
    for value in ('{"a": 1}', "[1]", "plain", 5, None, "{}", '"{date}"', json.dumps({"x": "{y}"})):
        assert not is_template(value)


@pytest.mark.parametrize(
    "text", ["{day}", "{date", "date}", "{date!r}", "{}x", "{date.year}", "{0}", "{date[0]} "]
)
def test_a_wrong_template_is_refused_with_what_it_may_name(text):
    with pytest.raises(BadSchedule, match="template"):
        fields_of(text)


@given(st.text(alphabet="{}:!%dateYm -", max_size=20))
def test_any_text_is_filled_or_refused(text):
    try:
        names = fields_of(text)
    except BadSchedule:
        return
    assert names <= {*FIELDS}
    assert isinstance(filled(text), str)
