"""Which ticks of a trigger are due, and which of them are skipped. Pure."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import Any

import msgspec

from cellrail.schedule.cron import Cron
from cellrail_state.schedules import Missed
from cellrail_state.tables import Shown, Table

#: a tick that nobody looked at for so long was missed; `cellrail tick` may run every few minutes
ON_TIME_SECONDS = 300.0
#: so many are looked at at once, oldest first
_MANY = 10_000


class Due(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """The ticks that are due."""

    #: to be run, oldest first
    ticks: tuple[dt.datetime, ...] = ()
    #: those of them that nobody looked at in time
    missed: tuple[dt.datetime, ...] = ()
    #: too late, or missed where missed ones are not wanted; the first of them
    skipped: tuple[dt.datetime, ...] = ()
    #: there are more
    more: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        kinds = {"ticks": self.ticks, "missed": self.missed, "skipped": self.skipped}
        told = {name: [tick.isoformat() for tick in ticks] for name, ticks in kinds.items()}
        return {**told, "more": self.more}

    def __repr__(self) -> str:
        counts = (len(self.ticks), len(self.missed), len(self.skipped))
        more = " and more" if self.more else ""
        return "<{} due, {} of them missed, {} skipped{}>".format(*counts, more)

    def _repr_html_(self) -> str:
        rows = [
            (tick.isoformat(), "missed, will run" if tick in self.missed else "will run")
            for tick in self.ticks
        ]
        rows += [(tick.isoformat(), "skipped") for tick in self.skipped]
        rows += [("…", "there are more")] if self.more else []
        headings = ("tick", "what happens")
        return Table(
            title="due", headings=headings, rows=tuple(sorted(rows)), empty="no tick is due"
        ).html()


def due(
    cron: Cron,
    looked: float,
    now: float,
    *,
    missed: Missed,
    late_after: float | None = None,
    created: float = 0.0,
) -> Due:
    """The ticks after one moment, up to another.

    A clock that was set back is no reason to wait: what was decided on before is told by its claim.

    Args:
        cron: the schedule.
        looked: up to here they have been decided on (seconds since the epoch).
        now: up to here they are due.
        missed: which of those run that nobody looked at in time.
        late_after: a tick that is later than so many seconds is skipped; None for never.
        created: there were no ticks before this.
    """
    since = looked if looked <= now else max(now - ON_TIME_SECONDS, created)
    every = list(itertools.islice(_between(cron, since, now), _MANY))
    more = len(every) == _MANY
    if more and missed is not Missed.ALL:
        # nearly all of them are skipped: only the last ones count
        every = [*every[:1], *_between(cron, now - ON_TIME_SECONDS - 1, now)] or every
        last = cron.before(_moment(now) + dt.timedelta(microseconds=1))
        every = sorted({*every, *([last] if last is not None else [])})
        more = False
    kept: list[dt.datetime] = []
    old: list[dt.datetime] = []
    for tick in every:
        age = now - tick.timestamp()
        wanted = (
            missed is Missed.ALL
            or age <= ON_TIME_SECONDS
            or (missed is Missed.LAST and tick == every[-1])
        )
        in_time = late_after is None or age <= late_after
        (kept if wanted and in_time else old).append(tick)
    return Due(
        ticks=tuple(kept),
        missed=tuple(t for t in kept if now - t.timestamp() > ON_TIME_SECONDS),
        skipped=tuple(old),
        more=more,
    )


def _between(cron: Cron, since: float, until: float) -> itertools.takewhile[dt.datetime]:
    return itertools.takewhile(lambda tick: tick.timestamp() <= until, cron.after(_moment(since)))


def _moment(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)
