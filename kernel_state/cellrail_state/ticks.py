"""Ticks of schedules, and who has taken them. Plain records.

A tick's *key* is its instant and a digest of the inputs that are made for it: two backfills that
would run a flow at the same instant with the same inputs mean the same tick.
"""

from __future__ import annotations

import datetime as dt

import msgspec

_STAMP = "%Y%m%dT%H%M%SZ"


class _Struct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of the records."""


class Key(msgspec.Struct, frozen=True, order=True):
    """What names a tick of a flow."""

    #: the instant in UTC, `20250330T010000Z`: it sorts by time
    stamp: str
    #: hex digest of the inputs
    inputs: str

    @property
    def moment(self) -> dt.datetime:
        """The instant, aware, in UTC."""
        return dt.datetime.strptime(self.stamp, _STAMP).replace(tzinfo=dt.UTC)


class Tick(_Struct, frozen=True):
    """The tick that a run is of."""

    #: as in its `Key`
    stamp: str
    inputs: str
    #: the zone that it is told in
    zone: str = "UTC"
    #: who fired it: `trigger:ID`, `backfill:ID`, or "" for a person
    by: str = ""
    #: place of its claim among those of the tick, from 1
    number: int = 1
    #: digest of the steps' sources and options, and of the local modules that they import
    source: str = ""

    @property
    def key(self) -> Key:
        """What names it among the ticks of its flow."""
        return Key(self.stamp, self.inputs)

    @property
    def moment(self) -> dt.datetime:
        """The tick, aware, in its zone."""
        from zoneinfo import ZoneInfo

        return self.key.moment.astimezone(ZoneInfo(self.zone))


def stamp_of(moment: dt.datetime) -> str:
    """An aware datetime as a stamp.

    Raises:
        ValueError: it is not aware, or no whole second.
    """
    if moment.tzinfo is None or moment.microsecond:
        message = f"a tick is an aware datetime of whole seconds, not {moment!r}"
        raise ValueError(message)
    return moment.astimezone(dt.UTC).strftime(_STAMP)
