"""Values as JSON text: what a cell may keep beyond its kernel, and nothing that only looks like it.

`None`, booleans, numbers (no NaN, no infinity), strings, lists, tuples (they come back as lists)
and dictionaries with string keys, however nested.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cellrail.errors import NotJson, UserError


def to_text(value: object, what: str) -> str:
    """A value as JSON text.

    Args:
        value: the value.
        what: what it is for, in words.

    Raises:
        NotJson: names the place in it that is none.
    """
    place, why = _fault(value, "", 0)
    if why:
        raise NotJson(
            f"{what}: {place or 'the value'} is {why}, which is no JSON",
            hint="keep numbers, strings, lists, and dictionaries with string keys",
        )
    return json.dumps(value, allow_nan=False)


def from_text(text: str) -> Any:
    """The value behind a JSON text."""
    return json.loads(text)


def typed(text: str) -> Any:
    """The value of a JSON text that a person has typed: nothing in it is dropped or made up.

    `json_fault` in the panels' `shared.js` is the same rule.

    Raises:
        json.JSONDecodeError: it is no JSON.
        ValueError: a key comes twice, or a number is none of JSON (NaN, infinities, 1e999).
    """
    try:
        return json.loads(
            text, object_pairs_hook=_once, parse_constant=_constant, parse_float=_finite
        )
    except RecursionError as error:
        message = "it is nested too deeply"
        raise ValueError(message) from error


def _constant(word: str) -> float:
    message = f"{word} is no number of JSON"
    raise ValueError(message)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        message = f"{digits} is too large a number"
        raise ValueError(message)
    return number


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        message = f"the key {twice!r} comes twice"
        raise ValueError(message)
    return found


def given_value(text: str | None, what: str) -> Any:
    """The value that a person gives as JSON, as a file's (`@FILE`), or on standard input (`-`).

    Raises:
        UserError: it cannot be read, or is no JSON.
    """
    if text is None:
        return None
    try:
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text("utf-8")
        return typed(text)
    except OSError as error:
        raise UserError(f"{what}: {error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(
            f"{what} is no JSON ({error})", hint=f"a text needs quotes: {what} '\"yes\"'"
        ) from error


#: a deeper value is a cycle, or cannot be read back everywhere
_DEPTH = 200


def _fault(value: object, place: str, depth: int) -> tuple[str, str]:
    """Where a value is no JSON, and what is there; two empty strings where it is."""
    inside: Iterable[tuple[str, object]] = ()
    if depth > _DEPTH:
        return place[:60] + "…", "nested too deeply"
    if isinstance(value, float):
        return ("", "") if math.isfinite(value) else (place, repr(value))
    if isinstance(value, dict):
        other = [key for key in value if not isinstance(key, str)]
        if other:
            return place, f"a dictionary with the key {other[0]!r}"
        inside = ((f"{place}[{key!r}]", item) for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        inside = ((f"{place}[{index}]", item) for index, item in enumerate(value))
    elif value is not None and not isinstance(value, (bool, int, str)):
        return place, f"a {_named(type(value))}"
    faults = (_fault(item, where, depth + 1) for where, item in inside)
    return next((fault for fault in faults if fault[1]), ("", ""))


def _named(kind: type) -> str:
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__.partition('.')[0]} {kind.__qualname__}"
