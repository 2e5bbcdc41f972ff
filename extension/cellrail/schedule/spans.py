"""From what a person writes to the range of a backfill. Pure."""

from __future__ import annotations

import datetime as dt
import re
from zoneinfo import ZoneInfo

from cellrail.errors import BadSchedule
from cellrail.schedule.cron import zone_of

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_INSTANT = dt.timedelta(microseconds=1)


def moment_of(text: str, zone: str, *, ends: bool = False) -> dt.datetime:
    """The instant that a date or a time means.

    Args:
        text: ISO 8601; a date without a time is its first instant, or with `ends` its last. A time
            without an offset is of the zone; one that the clock shows twice is the first, or with
            `ends` the last of the two.
        zone: an IANA name.
        ends: it is the end of a range.

    Returns:
        An aware datetime in the zone.

    Raises:
        BadSchedule: it is neither, or a time that the clock in the zone skips.
    """
    place = zone_of(zone)
    text = text.strip()
    if _DATE.fullmatch(text):
        return _edge_of(_read(text), place, ends=ends)
    found = _read(text)
    if found.tzinfo is not None:
        return found.astimezone(place)
    aware = found.replace(tzinfo=place, fold=int(ends))
    if aware.astimezone(dt.UTC).astimezone(place).replace(tzinfo=None) != found:
        raise BadSchedule(
            f"{text} never was on a clock in {zone}: it was skipped",
            hint="give an offset, as in 2025-03-30T02:30:00+01:00",
        )
    return aware


def _edge_of(day: dt.datetime, zone: ZoneInfo, *, ends: bool) -> dt.datetime:
    """The first or the last instant of a day, which may not begin at midnight."""
    if not ends:
        return day.replace(tzinfo=zone).astimezone(dt.UTC).astimezone(zone)
    following = (day + dt.timedelta(days=1)).replace(tzinfo=zone).astimezone(dt.UTC)
    return (following - _INSTANT).astimezone(zone)


def _read(text: str) -> dt.datetime:
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise BadSchedule(
            f"{text!r} is neither a date nor a time",
            hint="as in 2025-03-01, 2025-03-01T06:00 or 2025-03-01T06:00:00+01:00",
        ) from error
