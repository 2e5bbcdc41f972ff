"""Settings of the interpreter and the standard library, read and put back.

The recursion limit, filters of warnings, the decimal context, loggers, the locale.
"""

from __future__ import annotations

import decimal
import importlib
import locale
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any


def read() -> dict[str, Any]:
    """The settings, JSON-able, under the names that `PUT` knows."""
    return {
        "recursion_limit": sys.getrecursionlimit(),
        "warnings": list(_warnings()),
        "decimal": _decimal(),
        "logging": _loggers(),
        "logging_disabled": logging.root.manager.disable,
        "locale": locale.setlocale(locale.LC_ALL),
    }


def cheap() -> tuple[Any, ...]:
    """A value that changes when the settings do; costs microseconds."""
    return (
        sys.getrecursionlimit(),
        tuple(warnings.filters),
        repr(decimal.getcontext()),
        _loggers(),
        logging.root.manager.disable,
        locale.setlocale(locale.LC_ALL),
    )


def _warnings() -> Iterator[list[Any]]:
    for action, message, category, module, line in warnings.filters:
        if not isinstance(category, type):
            continue
        where = f"{category.__module__}:{category.__qualname__}"
        if category.__module__ != "__main__":
            yield [action, _pattern(message), where, _pattern(module), line]


def _pattern(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    return {"pattern": value.pattern, "flags": value.flags}


def _put_warnings(filters: Sequence[Sequence[Any]]) -> None:
    def pattern(value: Any) -> Any:
        return re.compile(value["pattern"], value["flags"]) if isinstance(value, dict) else value

    made = []
    for action, message, where, module, line in filters:
        home, _, name = where.partition(":")
        category: Any = importlib.import_module(home)
        for part in name.split("."):
            category = getattr(category, part)
        made.append((action, pattern(message), category, pattern(module), line))
    # through the front door, so that Python notices; then as they were
    warnings.resetwarnings()
    warnings.filters[:] = made  # type: ignore[index]


def _loggers() -> dict[str, list[Any]]:
    """Level, `disabled` and `propagate` of the loggers where they are not as created."""
    root = logging.getLogger()
    made: dict[str, list[Any]] = {"": [root.level, root.disabled, True]}
    for name, logger in list(root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger):
            state = [logger.level, logger.disabled, logger.propagate]
            if state != [logging.NOTSET, False, True]:
                made[name] = state
    return made


def _put_loggers(state: Mapping[str, Sequence[Any]]) -> None:
    for name, (level, disabled, propagate) in state.items():
        logger = logging.getLogger(name or None)
        logger.setLevel(level)
        logger.disabled, logger.propagate = disabled, propagate


def _decimal() -> dict[str, Any]:
    context = decimal.getcontext()
    return {
        "prec": context.prec,
        "rounding": context.rounding,
        "Emin": context.Emin,
        "Emax": context.Emax,
        "capitals": context.capitals,
        "clamp": context.clamp,
        "traps": sorted(signal.__name__ for signal, on in context.traps.items() if on),
    }


def _put_decimal(state: Mapping[str, Any]) -> None:
    fields = {k: v for k, v in state.items() if k != "traps"}
    traps = [getattr(decimal, name) for name in state["traps"]]
    decimal.setcontext(decimal.Context(**fields, traps=traps))


#: puts one setting back, by name, in this order
PUT: dict[str, Callable[[Any], object]] = {
    "recursion_limit": sys.setrecursionlimit,
    "warnings": _put_warnings,
    "decimal": _put_decimal,
    "logging": _put_loggers,
    "logging_disabled": logging.disable,
    "locale": lambda name: locale.setlocale(locale.LC_ALL, name),
}
