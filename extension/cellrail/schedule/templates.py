"""Values that are made of the tick: `-p day "{date:%Y-%m-%d}"`. Pure.

The fields are `date` and `start` (the tick in its zone: alone the one is its day and the other its
time), `end` and `next` (the next tick) and `previous`; what stands behind the colon is a format of
`strftime`. `{{` and `}}` are literal braces; a value that is valid JSON is no template, so
that an object or a list can be given as it is.
"""

from __future__ import annotations

import datetime as dt
import json
import string
from collections.abc import Callable

from cellrail.errors import BadSchedule

FIELDS = ("date", "start", "end", "previous", "next")


def is_template(value: object) -> bool:
    """Whether a value is text with fields of the tick."""
    if not isinstance(value, str) or "{" not in value:
        return False
    try:
        json.loads(value)
    except ValueError:
        return True
    return False


def fields_of(text: str) -> set[str]:
    """The fields that a template names.

    Raises:
        BadSchedule: its braces do not fit, or it names something else.
    """
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise BadSchedule(
            f"{text!r} is no template: {error}", hint="{{ is a literal brace"
        ) from None
    names = {name for _, name, _, _ in parts if name is not None}
    unknown = sorted(names - {*FIELDS})
    if unknown or any(conversion for _, _, _, conversion in parts):
        told = repr(unknown[0]) if unknown else "a conversion"
        raise BadSchedule(
            f"{text!r} names {told}; a template knows {', '.join(FIELDS)}",
            hint="{{ is a literal brace; a value that is valid JSON is no template",
        )
    return names


def fill(
    text: str,
    tick: dt.datetime,
    *,
    previous: Callable[[], dt.datetime | None],
    following: Callable[[], dt.datetime | None],
) -> str:
    """A template's text at a tick.

    Args:
        text: the template.
        tick: aware, in its zone.
        previous: tells the tick before.
        following: tells the tick after.

    Raises:
        BadSchedule: it is no template, or needs a neighbour that the tick does not have.
    """
    wanted = fields_of(text)
    neighbours = {"end": following, "next": following, "previous": previous}
    known: dict[str, dt.datetime] = {"date": tick, "start": tick}
    for name in wanted - known.keys():
        value = neighbours[name]()
        if value is None:
            raise BadSchedule(f"{text!r}: the tick {tick.isoformat()} has no {name}")
        known[name] = value
    return "".join(
        literal + (_text(name, known[name], spec or "") if name is not None else "")
        for literal, name, spec, _ in string.Formatter().parse(text)
    )


def _text(name: str, moment: dt.datetime, spec: str) -> str:
    if spec:
        return moment.strftime(spec)
    return moment.date().isoformat() if name == "date" else moment.isoformat()
