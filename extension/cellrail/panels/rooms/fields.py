"""Parameters as fields of a typed form, and the texts of fields as values."""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from typing import TYPE_CHECKING, Any

from cellrail.errors import BadParameter, UserError
from cellrail.notebook.parameters import choices
from cellrail.panels.rooms.runs import clipped
from cellrail.run.jsontext import typed

if TYPE_CHECKING:
    from cellrail.notebook.model import Parameter
    from cellrail.views import Run

_MADE = re.compile(r"(?:(bool|int|float|str)\(|(?:math|np|numpy)\.(?:nan|inf)$)")
_ANNOTATED = {"bool": "bool", "int": "int", "float": "float", "str": "text"}
#: a switch has no third side: `bool | None` is typed as a word
_OPTIONAL = re.compile(
    r"(?:typing\.)?Optional\[(int|float|str)\]|(int|float|str) \| None|None \| (int|float|str)"
)
_WORDS: dict[str, Any] = {"True": True, "False": False, "None": None, "true": True, "false": False}


def field_of(parameter: Parameter, run: Run) -> dict[str, Any]:
    """A parameter as a field of the form, with the origin's value as text."""
    given = parameter.name in run.parameters
    value = run.parameters.get(parameter.name, parameter.default)
    secret = parameter.secret or parameter.name in run.history.started.secrets
    return {
        "name": parameter.name,
        "kind": "secret" if secret else kind_of(parameter),
        "choices": [text_of(choice) for choice in choices(parameter)],
        "value": "" if secret else text_of(value),
        "empty": "" if secret else _empty(parameter, value, given=given),
        "help": clipped(parameter.help, 200),
        "default": "" if secret else clipped(parameter.source, 80),
        "given": given,
    }


def _empty(parameter: Parameter, value: Any, *, given: bool) -> str:
    """What stands behind a field in which nothing does; "" where that is an empty text."""
    if value is not None:
        return ""
    return "None" if given else clipped(parameter.source, 80) or "None"


def kind_of(parameter: Parameter) -> str:
    """The kind of field that a parameter gets.

    Returns:
        choice, date, datetime, bool, int, float, text, json, or any (numbers are recognised).
    """
    if choices(parameter):
        return "choice"
    if parameter.kind:
        return "date" if parameter.kind == "date" else "datetime"
    if parameter.annotation in _ANNOTATED:
        return _ANNOTATED[parameter.annotation]
    optional = _OPTIONAL.fullmatch(parameter.annotation)
    if optional is not None:
        return _ANNOTATED[next(filter(None, optional.groups()))]
    # float("nan"), int(time()): no literals, and yet it is known what they are
    made = _MADE.match(parameter.source)
    if made is not None:
        return _ANNOTATED[made[1]] if made[1] else "float"
    kinds: tuple[tuple[Any, str], ...] = (
        (bool, "bool"), (int, "int"), (float, "float"), (str, "text"),
        ((list, tuple, dict), "json"),
    )  # fmt: skip
    return next((kind for types, kind in kinds if isinstance(parameter.default, types)), "any")


def text_of(value: Any) -> str:
    """A value as the text of its field."""
    if value is None:
        return ""
    if isinstance(value, (dt.date, dt.datetime)):
        return value.isoformat()
    if isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def value_of(parameter: Parameter, given: Any) -> Any:
    """The value of a field (JSON-able; dates as ISO text).

    Raises:
        BadParameter: the text is no value of the field's kind.
    """
    kind = kind_of(parameter)
    if isinstance(given, bool) or not isinstance(given, str):
        return given
    if not given.strip() and _may_be_none(parameter):
        return None
    try:
        return _READERS[kind](given, parameter)
    except ValueError as error:
        why = f": {error}" if kind == "json" else ""
        raise BadParameter(f"{parameter.name}: {given!r} is no {_NAMES[kind]}{why}") from error


def json_of(text: str) -> Any:
    """The value of a field that takes JSON.

    Raises:
        UserError: it is no JSON.
    """
    try:
        return typed(text)
    except ValueError as error:
        raise UserError(f"this is no JSON: {error}", hint='a text needs quotes: "yes"') from error


def any_of(text: str) -> Any:
    """As on the command line: numbers, booleans and None are recognised."""
    if text in _WORDS:
        return _WORDS[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text if text else None


def _may_be_none(parameter: Parameter) -> bool:
    """Whether its empty field is None: it is written so, or is none today."""
    written = _OPTIONAL.fullmatch(parameter.annotation) is not None
    return written or parameter.source == "None"


def _bool(text: str, _: Parameter) -> bool:
    value = _WORDS.get(text.strip())
    if not isinstance(value, bool):
        raise ValueError(text)
    return value


def _choice(text: str, parameter: Parameter) -> Any:
    for choice in choices(parameter):
        if text_of(choice) == text:
            return choice
    raise ValueError(text)


_READERS: dict[str, Any] = {
    "int": lambda text, _: int(text),
    "float": lambda text, _: float(text),
    "text": lambda text, _: text,
    "bool": _bool,
    "date": lambda text, _: dt.date.fromisoformat(text).isoformat(),
    "datetime": lambda text, _: dt.datetime.fromisoformat(text).isoformat(),
    "json": lambda text, _: typed(text),
    "choice": _choice,
    "any": lambda text, _: any_of(text),
}
_NAMES = {
    "int": "whole number", "float": "number", "text": "text", "bool": "True or False",
    "date": "date (2013-01-31)", "datetime": "time (2013-01-31T12:00)", "json": "JSON",
    "choice": "choice of this parameter", "any": "value",
}  # fmt: skip
