"""What a clock on the wall shows when a plain cron expression comes true. Pure.

croniter reads every expression; a year of hours costs it two seconds. Most expressions are lists of
numbers once it has read them, and for those the days and times are walked here, to the same end.
"""

from __future__ import annotations

import calendar
import datetime as dt
import re
from collections.abc import Iterator, Sequence

import msgspec

_ANY = ["*"]
#: after so many years without a day that fits none will come
_YEARS = 50
_DAY = re.compile(r"[\d*,/-]+")
_MONTHS = 12
_WEEK = 7


class Walls(msgspec.Struct, frozen=True, kw_only=True):
    """A plain expression, read."""

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    months: frozenset[int]
    #: days of the month, and of the week from Sunday; None for any
    days: frozenset[int] | None
    weekdays: frozenset[int] | None

    def after(self, start: dt.datetime) -> Iterator[dt.datetime]:
        """The wall times later than one, in order; without a zone."""
        day, year = start.replace(hour=0, minute=0, second=0, microsecond=0), start.year
        while day.year - year <= _YEARS:
            if day.month not in self.months:
                day = _next_month(day)
                continue
            if self._fits(day):
                year = day.year
                yield from (wall for wall in self._times(day) if wall > start)
            if day.year >= dt.MAXYEAR:
                return
            day += dt.timedelta(days=1)

    def _fits(self, day: dt.datetime) -> bool:
        in_month = self.days is None or day.day in self.days
        in_week = self.weekdays is None or day.isoweekday() % _WEEK in self.weekdays
        if self.days is not None and self.weekdays is not None:
            return in_month or in_week
        return in_month and in_week

    def _times(self, day: dt.datetime) -> Iterator[dt.datetime]:
        for hour in self.hours:
            for minute in self.minutes:
                for second in self.seconds:
                    yield day.replace(hour=hour, minute=minute, second=second)


def walls_of(expression: str, fields: Sequence[Sequence[object]], *, special: bool) -> Walls | None:
    """A plain expression; None where only croniter knows what it means.

    Args:
        expression: as it was written.
        fields: as croniter has read them: minute, hour, day, month, weekday, and perhaps second.
        special: it names certain weekdays of a month.
    """
    words = expression.split()
    if special or len(fields) not in {5, 6} or (len(words) > 1 and not _DAY.fullmatch(words[2])):
        return None
    minutes, hours, days, months, weekdays, *rest = (_numbers(field) for field in fields)
    seconds = rest[0] if rest else (0,)
    if any(field == () for field in (minutes, hours, days, months, weekdays, seconds)):
        return None
    return Walls(
        seconds=tuple(range(60)) if seconds is None else seconds,
        minutes=tuple(range(60)) if minutes is None else minutes,
        hours=tuple(range(24)) if hours is None else hours,
        months=frozenset(range(1, _MONTHS + 1) if months is None else months),
        days=frozenset(days) if days is not None else None,
        weekdays=frozenset(day % _WEEK for day in weekdays) if weekdays is not None else None,
    )


def _numbers(field: Sequence[object]) -> tuple[int, ...] | None:
    """Sorted numbers; None for any, () for what is something else."""
    if list(field) == _ANY:
        return None
    numbers = [value for value in field if isinstance(value, int)]
    return tuple(sorted(set(numbers))) if len(numbers) == len(field) else ()


def _next_month(day: dt.datetime) -> dt.datetime:
    length = calendar.monthrange(day.year, day.month)[1]
    return day + dt.timedelta(days=length - day.day + 1)
