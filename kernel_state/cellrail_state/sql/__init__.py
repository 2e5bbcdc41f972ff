"""SQL as data: the schema, numbered migrations, and named queries.

A query stands in `queries.sql` under a line `-- name: NAME` and a line that describes it.
"""

from __future__ import annotations

import functools
import re
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_MIGRATION = re.compile(r"(\d{4})_\w+\.sql")


@functools.cache
def queries() -> dict[str, str]:
    """The named queries."""
    text = (files(__name__) / "queries.sql").read_text("utf-8")
    parts = _NAME.split(text)[1:]
    return dict(zip(parts[::2], (part.strip() for part in parts[1::2]), strict=True))


def schema() -> str:
    """The schema as it is after all migrations."""
    return (files(__name__) / "schema.sql").read_text("utf-8")


@functools.cache
def migrations() -> dict[int, str]:
    """The migrations by number."""
    found = {}
    for entry in (files(__name__) / "migrations").iterdir():
        match = _MIGRATION.fullmatch(entry.name)
        if match:
            found[int(match.group(1))] = entry.read_text("utf-8")
    return dict(sorted(found.items()))
