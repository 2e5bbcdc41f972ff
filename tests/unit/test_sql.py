"""Every query has a name and a line that describes it."""

from __future__ import annotations

import re
from importlib.resources import files

from cellrail_state.sql import queries


def test_every_query_is_described() -> None:
    for name, text in queries().items():
        first, _, rest = text.partition("\n")
        assert first.startswith("-- "), name
        assert rest.strip(), name


def test_no_two_queries_share_a_name() -> None:
    text = (files("cellrail_state.sql") / "queries.sql").read_text("utf-8")
    names = re.findall(r"^-- name: (\w+)$", text, re.MULTILINE)
    assert sorted(names) == sorted(queries())
