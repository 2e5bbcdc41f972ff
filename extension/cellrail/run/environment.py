"""Environment variables of a kernel, as its jobs are compared by them."""

from __future__ import annotations

import os
from collections.abc import Iterable

import blake3

#: others in each session, and what says nothing of the user's doing
_OF_SESSIONS = frozenset(
    ("_", "COLUMNS", "LINES", "OLDPWD", "PWD", "PYTHONHASHSEED", "SHLVL", "TERM", "WINDOWID")
)
#: what kernels are started with
_OURS = ("CELLRAIL_", "JPY_", "PYDEVD_")


def variables(names: Iterable[str] | None) -> dict[str, str]:
    """Digests of the values of variables, "" for one that is not set.

    Args:
        names: the variables; None for all but those that differ in each session anyhow.
    """
    if names is None:
        names = [n for n in os.environ if n not in _OF_SESSIONS and not n.startswith(_OURS)]
    values = {name: os.environ.get(name) for name in sorted(names)}
    return {
        name: "" if value is None else blake3.blake3(value.encode(errors="replace")).hexdigest()
        for name, value in values.items()
    }
