"""Cron expressions in a time zone: expression -> ticks. Pure.

An expression speaks of the clock on the wall, and that clock jumps. So its wall times are found
first, by croniter and without a zone, and each is then placed in the zone:

* one that the clock skips (the *gap* in spring) is a tick at the first instant after the gap, at
  which there is one tick however many were skipped;
* one that the clock shows twice (the *overlap* in autumn) is one tick, at its first time; both
  times are ticks where the expression runs hourly or finer.

Ticks are aware datetimes in the zone, in the order of time, and no two are the same instant.
"""

from __future__ import annotations

import datetime as dt
import heapq
from collections.abc import Iterator
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cellrail.errors import BadSchedule
from cellrail.schedule.walls import walls_of

#: `--every`
EVERY = {
    "minute": "* * * * *",
    "hour": "0 * * * *",
    "day": "0 0 * * *",
    "week": "0 0 * * mon",
    "month": "0 0 1 * *",
    "year": "0 0 1 1 *",
}
_HOURS = 24
#: more than any clock has ever jumped (a country that changed sides of the date line)
_JUMP = dt.timedelta(hours=26)
_SECOND = dt.timedelta(seconds=1)


def zone_of(name: str) -> ZoneInfo:
    """A time zone by its name.

    Raises:
        BadSchedule: there is none of this name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise BadSchedule(
            f"{name!r} is no time zone", hint="as in Europe/Paris, America/New_York or UTC"
        ) from error


class Cron:
    """A cron expression in a zone."""

    def __init__(self, expression: str, zone: str = "UTC") -> None:
        """Read it.

        Args:
            expression: five fields, or six with seconds at the end, or `@daily` and the like.
            zone: an IANA name.

        Raises:
            BadSchedule: it is no cron expression, never comes true, or the zone is none.
        """
        from croniter import croniter

        self.expression, self.zone = " ".join(expression.split()), zone_of(zone)
        try:
            fields, special = croniter.expand(self.expression)
        except (ValueError, KeyError, AttributeError) as error:  # croniter's own are ValueErrors
            raise _no_expression(expression, str(error)) from error
        if any(text.lower().startswith(("h", "r(", "r")) for text in self.expression.split()):
            raise _no_expression(expression, "ticks drawn by chance would not be the same again")
        hours = fields[1]
        self._plain = walls_of(self.expression, fields, special=bool(special))
        self._is_hourly = hours == ["*"] or len(set(hours)) == _HOURS
        if next(self.after(dt.datetime(2024, 1, 1, tzinfo=dt.UTC)), None) is None:
            raise _no_expression(expression, "no day fits it")

    def __repr__(self) -> str:
        return f"Cron({self.expression!r}, {self.zone.key!r})"

    def between(self, start: dt.datetime, end: dt.datetime) -> Iterator[dt.datetime]:
        """Ticks from `start` to `end`, both inclusive (aware)."""
        for tick in self._from(start):
            if tick > end:
                return
            yield tick

    def after(self, moment: dt.datetime) -> Iterator[dt.datetime]:
        """Ticks later than a moment (aware), without end."""
        return (tick for tick in self._from(moment) if tick > moment)

    def before(self, moment: dt.datetime) -> dt.datetime | None:
        """The last tick earlier than a moment (aware)."""
        span = dt.timedelta(days=2)
        while moment.timestamp() - span.total_seconds() > 0:
            ticks = [t for t in self.between(moment - span, moment) if t < moment]
            if ticks:
                return ticks[-1]
            span *= 8
        return None

    def __contains__(self, moment: dt.datetime) -> bool:
        """Whether a moment (aware) is a tick."""
        return any(True for _ in self.between(moment, moment))

    # --- from wall times to instants ---------------------------------------------------------

    def _from(self, start: dt.datetime) -> Iterator[dt.datetime]:
        """Ticks from `start` on, in order, each instant once."""
        first = start.astimezone(dt.UTC)
        waiting: list[dt.datetime] = []
        last: dt.datetime | None = None
        for wall in self._walls(start.astimezone(self.zone).replace(tzinfo=None) - _JUMP):
            instants = self._instants(wall)
            # second times of an overlap wait until their turn has come
            while waiting and waiting[0] < instants[0]:
                last, due = waiting[0], heapq.heappop(waiting)
                if due >= first:
                    yield due.astimezone(self.zone)
            for instant in instants:
                if instant != last and instant not in waiting:
                    heapq.heappush(waiting, instant)
        while waiting:
            due = heapq.heappop(waiting)
            if due >= first:
                yield due.astimezone(self.zone)

    def _walls(self, start: dt.datetime) -> Iterator[dt.datetime]:
        """What the clock on the wall shows at ticks after `start`, without a zone."""
        if self._plain is not None:
            yield from self._plain.after(start)
            return
        from croniter import CroniterBadDateError, croniter

        found = croniter(self.expression, start, ret_type=dt.datetime)
        while True:
            try:
                wall: dt.datetime = found.get_next()
            except (CroniterBadDateError, OverflowError):
                return
            yield wall.replace(tzinfo=None)

    def _instants(self, wall: dt.datetime) -> list[dt.datetime]:
        """When the clock shows this, in UTC and in order; never empty."""
        early, late = (
            wall.replace(tzinfo=self.zone, fold=fold).astimezone(dt.UTC) for fold in (0, 1)
        )
        if early == late:
            return [early]
        if early < late:  # the clock shows it twice
            return [early, late] if self._is_hourly else [early]
        return [self._jump_between(late, early)]

    def _jump_between(self, before: dt.datetime, after: dt.datetime) -> dt.datetime:
        """The first instant of another offset, in UTC."""
        offset = before.astimezone(self.zone).utcoffset()
        while after - before > _SECOND:
            middle = before + (after - before) // 2
            if middle.astimezone(self.zone).utcoffset() == offset:
                before = middle
            else:
                after = middle
        return after.replace(microsecond=0)


def _no_expression(expression: str, why: str) -> BadSchedule:
    return BadSchedule(
        f"{expression!r} is no cron expression: {why}",
        hint="minute hour day month weekday, as in '30 6 * * mon-fri'",
    )
