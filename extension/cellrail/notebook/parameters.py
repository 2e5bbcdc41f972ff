"""The parameters of a notebook: what its parameters cell assigns, and values given for them.

papermill's types, plus dates: a parameter whose annotation or default is a `date`, a `datetime` or
a `Timestamp` takes ISO strings and is assigned as such. A name that the cell lacks is refused.
"""

from __future__ import annotations

import ast
import datetime as dt
import math
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from cellrail.errors import BadParameter, UnknownParameter
from cellrail.notebook.model import Parameter

_SECRET = re.compile(r"\bsecret\b", re.IGNORECASE)
_KINDS = {"date": "date", "datetime": "datetime", "Timestamp": "timestamp"}


def infer(source: str) -> tuple[Parameter, ...]:
    """The parameters that a cell assigns at its top level, in order."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ()
    lines = source.splitlines()
    found: dict[str, Parameter] = {}
    for node in tree.body:
        for name, annotation, value in _assignments(node):
            comment = _comment(lines, node)
            found[name] = Parameter(
                name=name,
                default=_literal(value),
                source=ast.unparse(value) if value is not None else "",
                annotation=ast.unparse(annotation) if annotation is not None else "",
                help=comment,
                secret=bool(_SECRET.search(comment)),
                kind=_kind(annotation, value),
            )
    return tuple(found.values())


def _assignments(
    node: ast.stmt,
) -> list[tuple[str, ast.expr | None, ast.expr | None]]:
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [(node.target.id, node.annotation, node.value)]
    if isinstance(node, ast.Assign):
        return [(t.id, None, node.value) for t in node.targets if isinstance(t, ast.Name)]
    return []


def _comment(lines: Sequence[str], node: ast.stmt) -> str:
    """The comment behind a statement's last line."""
    end = node.end_col_offset or 0
    last = lines[(node.end_lineno or 1) - 1]
    # offsets count UTF-8 bytes
    rest = last.encode()[end:].decode(errors="ignore").strip()
    return rest.lstrip("#").strip() if rest.startswith("#") else ""


def _literal(value: ast.expr | None) -> Any:
    if value is None:
        return None
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return _date_literal(value)


def _date_literal(value: ast.expr) -> dt.date | None:
    if not isinstance(value, ast.Call) or value.keywords:
        return None
    kinds = {"date": dt.date, "datetime": dt.datetime}
    try:
        arguments = [ast.literal_eval(argument) for argument in value.args]
        function = _dotted(value.func)
        if function[-1] == "fromisoformat" and len(function) > 1:
            return kinds[function[-2]].fromisoformat(*arguments)
        if function[-1] == "Timestamp":
            return dt.datetime.fromisoformat(*arguments)
        return kinds[function[-1]](*arguments)
    except (KeyError, IndexError, ValueError, TypeError):
        return None


def _dotted(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Attribute):
        return [*_dotted(node.value), node.attr]
    return [node.id] if isinstance(node, ast.Name) else []


def _kind(annotation: ast.expr | None, value: ast.expr | None) -> str:
    if annotation is not None:
        words = re.findall(r"[A-Za-z_]+", ast.unparse(annotation))
        for word in reversed(words):
            if word in _KINDS:
                return _KINDS[word]
    if isinstance(value, ast.Call):
        for word in reversed(_dotted(value.func)):
            if word in _KINDS:
                return _KINDS[word]
    return ""


def choices(parameter: Parameter) -> tuple[Any, ...]:
    """What a parameter that is annotated as `Literal[...]` can be; empty for another one."""
    if "Literal[" not in parameter.annotation:
        return ()
    try:
        tree = ast.parse(parameter.annotation, mode="eval").body
        if not isinstance(tree, ast.Subscript) or _dotted(tree.value)[-1:] != ["Literal"]:
            return ()
        found = ast.literal_eval(tree.slice)
    except (ValueError, TypeError, SyntaxError):
        return ()
    return found if isinstance(found, tuple) else (found,)


def coerce(parameters: Sequence[Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """Values for a run: names checked, typed dates made dates.

    Raises:
        UnknownParameter: the parameters cell lacks a name; the nearest right one is named.
        BadParameter: a typed date got something that is none.
    """
    known = {parameter.name: parameter for parameter in parameters}
    values = {}
    for name, value in given.items():
        parameter = known.get(name)
        if parameter is None:
            raise _unknown(name, list(known))
        values[name] = _coerced(parameter, value)
    return values


def _unknown(name: str, known: Sequence[str]) -> UnknownParameter:
    if not known:
        return UnknownParameter(
            f"the notebook has no parameters, so {name!r} cannot be set",
            hint="tag the cell that assigns them with `parameters`",
        )
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    suggestion = f"; did you mean {near[0]!r}?" if near else ""
    return UnknownParameter(
        f"the notebook has no parameter {name!r}{suggestion}", hint="it has: " + ", ".join(known)
    )


def _coerced(parameter: Parameter, value: Any) -> Any:
    if not parameter.kind or value is None:
        return value
    try:
        if parameter.kind == "date":
            return _date(value)
        return _datetime(value)
    except (ValueError, TypeError) as error:
        raise BadParameter(
            f"parameter {parameter.name!r} is a {parameter.kind}; {value!r} is none",
            hint="write it as 2013-01-31"
            + ("" if parameter.kind == "date" else " or 2013-01-31T12:00:00"),
        ) from error


def _date(value: Any) -> dt.date:
    if isinstance(value, dt.datetime):
        return value.date()
    if isinstance(value, dt.date):
        return value
    if isinstance(value, str):
        return dt.date.fromisoformat(value)
    raise TypeError


def _datetime(value: Any) -> dt.datetime:
    if isinstance(value, dt.datetime):
        return value
    if isinstance(value, dt.date):
        return dt.datetime.combine(value, dt.time())
    if isinstance(value, str):
        return dt.datetime.fromisoformat(value)
    raise TypeError


def plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as papermill can write them: dates as ISO strings."""
    return {
        name: value.isoformat() if isinstance(value, dt.date) else value
        for name, value in values.items()
    }


def expressions(values: Mapping[str, Any]) -> dict[str, str]:
    """Expressions for the values that papermill cannot write; they use no name of the user."""
    found = {}
    for name, value in values.items():
        if isinstance(value, dt.datetime):
            made = f"datetime.fromisoformat({value.isoformat()!r})"
        elif isinstance(value, dt.date):
            made = f"date.fromisoformat({value.isoformat()!r})"
        else:
            continue
        found[name] = f"__import__('datetime').{made}"
    return found


def to_json(value: Any) -> Any:
    """A value as JSON: dates as `{"$date": …}`, other strange things as their `str`.

    JSON has no NaN and no infinity either: these are `{"$float": "nan"}` and the like.
    """
    if isinstance(value, dt.datetime):
        return {"$datetime": value.isoformat()}
    if isinstance(value, dt.date):
        return {"$date": value.isoformat()}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(float(value))}
    plain = value is None or isinstance(value, (bool, int, float, str))
    return value if plain else str(value)


def from_json(value: Any) -> Any:
    """The inverse of `to_json` for one value."""
    if isinstance(value, Mapping):
        if set(value) == {"$date"}:
            return dt.date.fromisoformat(value["$date"])
        if set(value) == {"$datetime"}:
            return dt.datetime.fromisoformat(value["$datetime"])
        if set(value) == {"$float"}:
            return float(value["$float"])
        return {key: from_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_json(item) for item in value]
    return value
