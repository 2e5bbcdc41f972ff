"""The inputs of ticks: values made of templates, and the digest that names them. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from cellrail.errors import BadSchedule
from cellrail.schedule.cron import Cron
from cellrail.schedule.templates import fields_of, fill, is_template

Neighbour = Callable[[], dt.datetime | None]
#: what stands for a secret's value: a token that is exchanged makes no other tick
_SECRET = {"$secret": True}


class Inputs:
    """Values for every tick, some of them templates."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        """Read them.

        Args:
            given: values by parameter.

        Raises:
            BadSchedule: a template is none; the message names its parameter.
        """
        self._plain = {name: value for name, value in given.items() if not is_template(value)}
        self._templates = {name: value for name, value in given.items() if is_template(value)}
        for name, text in self._templates.items():
            try:
                fields_of(text)
            except BadSchedule as error:
                raise BadSchedule(f"parameter {name!r}: {error}", hint=error.hint) from None

    def at(self, tick: dt.datetime, *, previous: Neighbour, following: Neighbour) -> dict[str, Any]:
        """The values at a tick (aware, in its zone).

        Args:
            tick: the tick.
            previous: tells the tick before.
            following: tells the tick after.

        Raises:
            BadSchedule: a template needs a neighbour that the tick does not have.
        """
        filled = {
            name: fill(text, tick, previous=previous, following=following)
            for name, text in self._templates.items()
        }
        return {**self._plain, **filled}

    def along(
        self, ticks: Sequence[dt.datetime], cron: Cron
    ) -> Iterator[tuple[dt.datetime, dict[str, Any]]]:
        """The values at each of some neighbouring ticks of a schedule, in order of time."""
        for place, tick in enumerate(ticks):
            yield (
                tick,
                self.at(
                    tick,
                    previous=lambda place=place, tick=tick: (  # type: ignore[misc]
                        ticks[place - 1] if place else cron.before(tick)
                    ),
                    following=lambda place=place, tick=tick: (  # type: ignore[misc]
                        ticks[place + 1] if place + 1 < len(ticks) else next(cron.after(tick), None)
                    ),
                ),
            )


def inputs_digest(values: Mapping[str, Any], secrets: Collection[str] = ()) -> str:
    """What names the inputs of a tick: equal values, equal digest (32 hex digits).

    Args:
        values: JSON-able, by parameter: those that were given.
        secrets: names of those whose values do not count.
    """
    import blake3

    told = {name: _SECRET if name in secrets else value for name, value in values.items()}
    return blake3.blake3(msgspec.json.encode(told, order="sorted")).hexdigest()[:32]
