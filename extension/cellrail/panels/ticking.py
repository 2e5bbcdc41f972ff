"""From how ticks stand to the days of a calendar: states, letters, and clocks that jump. Pure.

A day shows one state, that of its ticks which most wants to be looked at, and how many ticks there
are of each. States are `State`, a closed set; every one has a letter, so that none is told by its
colour alone.
"""

from __future__ import annotations

import collections
import datetime as dt
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from cellrail_state.standing import Stand, Standing

_DAY = dt.timedelta(days=1)
_SECOND = dt.timedelta(seconds=1)


class State(StrEnum):
    """How a tick looks in a calendar; the first of a day's states is the day's."""

    FAILED = "failed"
    INTERRUPTED = "interrupted"
    SUSPENDED = "suspended"
    RUNNING = "running"
    #: somebody has taken it, and is about to begin
    QUEUED = "queued"
    CANCELLED = "cancelled"
    MISSING = "missing"
    #: filled, by another source
    STALE = "stale"
    SUCCESS = "success"
    #: its time has not come
    UPCOMING = "upcoming"

    @property
    def letter(self) -> str:
        """What stands in its cell."""
        return _LETTERS[self]

    @property
    def words(self) -> str:
        """What it means."""
        return _WORDS[self]


_LETTERS = {
    State.FAILED: "F", State.INTERRUPTED: "I", State.SUSPENDED: "W", State.RUNNING: "R",
    State.QUEUED: "Q", State.CANCELLED: "C", State.MISSING: "M", State.STALE: "O",
    State.SUCCESS: "S", State.UPCOMING: "·",
}  # fmt: skip
_WORDS = {
    State.FAILED: "failed", State.INTERRUPTED: "interrupted: its process is gone",
    State.SUSPENDED: "waits (suspended)", State.RUNNING: "running",
    State.QUEUED: "queued: about to run",
    State.CANCELLED: "cancelled", State.MISSING: "missing: never run",
    State.STALE: "old: made by another source", State.SUCCESS: "success",
    State.UPCOMING: "its time has not come",
}  # fmt: skip
_OF_STANDING = {
    Standing.MISSING: State.MISSING, Standing.CLAIMED: State.QUEUED,
    # whoever was about to run it is gone: nobody has
    Standing.ABANDONED: State.MISSING,
    Standing.RUNNING: State.RUNNING, Standing.SUSPENDED: State.SUSPENDED,
    Standing.INTERRUPTED: State.INTERRUPTED, Standing.SUCCESS: State.SUCCESS,
    Standing.FAILED: State.FAILED, Standing.CANCELLED: State.CANCELLED,
}  # fmt: skip
_ORDER = {state: place for place, state in enumerate(State)}


class Jump(msgspec.Struct, frozen=True, kw_only=True):
    """A clock that jumps."""

    #: the first instant of the new offset, in the zone
    at: dt.datetime
    #: by so much; less than nothing where it goes back
    by: dt.timedelta

    @property
    def mark(self) -> str:
        """In a cell: `+1h`, `-30m`."""
        return ("+" if self.by > dt.timedelta() else "-") + _span(self.by)

    @property
    def words(self) -> str:
        """For people."""
        wall = self.at.replace(tzinfo=None, fold=0)
        if self.by > dt.timedelta():
            return (
                f"clocks go forward by {_span(self.by)}: {wall - self.by:%H:%M} to {wall:%H:%M} "
                "is skipped, a tick in it runs right after it"
            )
        return (
            f"clocks go back by {_span(self.by)}: {wall:%H:%M} to {wall - self.by:%H:%M} comes "
            "twice, a tick in it runs once (hourly or finer: twice)"
        )


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """A day of a calendar."""

    date: dt.date
    #: how many of its ticks stand how, in the order of `State`
    counts: dict[State, int] = {}
    jump: Jump | None = None

    @property
    def state(self) -> State | None:
        """That of its ticks which most wants to be looked at; None where it has none."""
        return next(iter(self.counts), None)

    @property
    def ticks(self) -> int:
        """How many it has."""
        return sum(self.counts.values())

    @property
    def words(self) -> str:
        """For people."""
        told = listed(self.counts) if self.ticks else "no tick"
        if self.ticks > 1:
            told = f"{self.ticks} ticks: {told}"
        elif self.state is not None:
            told = self.state.words
        jump = f"; {self.jump.words}" if self.jump is not None else ""
        return f"{told}{jump}"

    def plain(self) -> dict[str, Any]:
        """As the calendar's front end takes it."""
        made: dict[str, Any] = {"words": self.words}
        if self.state is not None:
            made |= {
                "state": str(self.state),
                "counts": {str(s): n for s, n in self.counts.items()},
            }
        if self.jump is not None:
            made["mark"] = self.jump.mark
        return made


def state_of(tick: dt.datetime, stand: Stand, *, source: str, now: dt.datetime) -> State:
    """How a tick looks.

    Args:
        tick: the tick.
        stand: how it stands.
        source: digest of what would be run now; "" where nobody knows.
        now: this moment.
    """
    state = _OF_STANDING[stand.standing]
    if state is State.SUCCESS and source and stand.source and stand.source != source:
        return State.STALE
    if state is State.MISSING and tick > now:
        return State.UPCOMING
    return state


def days_of(
    ticks: Iterable[tuple[dt.datetime, State]], zone: ZoneInfo, first: dt.date, last: dt.date
) -> list[Day]:
    """The days of a calendar that have ticks, or on which the clock jumps, in order.

    Args:
        ticks: each with its state.
        zone: the clock on the wall.
        first: the first day.
        last: the last day, inclusive.
    """
    counted: dict[dt.date, collections.Counter[State]] = {}
    for tick, state in ticks:
        counted.setdefault(tick.astimezone(zone).date(), collections.Counter())[state] += 1
    jumps = {jump.at.date(): jump for jump in jumps_of(zone, first, last)}
    return [
        Day(date=date, counts=_sorted(counted.get(date, collections.Counter())),
            jump=jumps.get(date))
        for date in sorted({*counted, *jumps})
    ]  # fmt: skip


def jumps_of(zone: ZoneInfo, first: dt.date, last: dt.date) -> Iterator[Jump]:
    """When the clock jumps, from a day to another, both inclusive."""
    day, end = _midnight(first) - _DAY, _midnight(last) + 2 * _DAY  # whatever the zone
    while day < end:
        after = day + _DAY
        if _offset(day, zone) != _offset(after, zone):
            at = _first_instant(day, after, zone).astimezone(zone)
            if first <= at.date() <= last:
                yield Jump(at=at, by=_offset(after, zone) - _offset(day, zone))
        day = after


def month_span(first: dt.date, months: int) -> tuple[dt.date, dt.date]:
    """The first and the last day of some months.

    Args:
        first: any day of the first month.
        months: how many.
    """
    start = first.replace(day=1)
    months += start.year * 12 + start.month - 1
    year, month = divmod(months, 12)
    return start, dt.date(year, month + 1, 1) - _DAY


def shifted(first: dt.date, months: int) -> dt.date:
    """The first day of the month so many months later."""
    year, month = divmod(first.year * 12 + first.month - 1 + months, 12)
    return dt.date(year, month + 1, 1)


def listed(counts: dict[State, int]) -> str:
    """`3 missing, 4 success`."""
    return ", ".join(f"{number} {state}" for state, number in counts.items())


def counts_of(states: Iterable[State]) -> dict[State, int]:
    """How many there are of each state, in the order of `State`."""
    return _sorted(collections.Counter(states))


def _sorted(counts: collections.Counter[State]) -> dict[State, int]:
    return dict(sorted(counts.items(), key=lambda pair: _ORDER[pair[0]]))


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)


def _offset(moment: dt.datetime, zone: ZoneInfo) -> dt.timedelta:
    return moment.astimezone(zone).utcoffset() or dt.timedelta()


def _first_instant(before: dt.datetime, after: dt.datetime, zone: ZoneInfo) -> dt.datetime:
    """The first instant with the offset that holds at `after`."""
    old = _offset(before, zone)
    while after - before > _SECOND:
        middle = before + (after - before) // 2
        if _offset(middle, zone) == old:
            before = middle
        else:
            after = middle
    return after.replace(microsecond=0)


def _span(by: dt.timedelta) -> str:
    minutes = abs(round(by.total_seconds() / 60))
    hours, rest = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{rest}m" if rest else "")
