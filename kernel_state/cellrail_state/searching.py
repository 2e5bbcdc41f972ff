"""Searches among the runs: what is asked for, as the catalog's SQL."""

from __future__ import annotations

from typing import Any

import msgspec

from cellrail_state.errors import StoreError
from cellrail_state.rows import RunRow, RunRows
from cellrail_state.sql import queries
from cellrail_state.tables import Shown

#: what a page of runs can be sorted by; the id sorts by time
_SORTS = {
    "started": "run_id",
    "seconds": "coalesce(seconds, epoch(now()) - started)",
    "status": "status",
    "flow": "flow",
}


class RunSearch(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs are looked for, and which page of them."""

    #: words that must all occur in a run's id, flow, kind, cause, labels or parameters;
    #: `name=value` is a label or a parameter whose value begins so
    text: str = ""
    #: only these; None for all
    status: str | None = None
    #: `started`, `seconds`, `status` or `flow`
    sort: str = "started"
    #: the other way round
    ascending: bool = False
    #: at most so many rows
    limit: int = 50
    #: behind so many
    offset: int = 0

    def page(self, flow: str | None) -> tuple[str, dict[str, Any]]:
        """The query of the page, and its values.

        Args:
            flow: only this flow's; None for all.

        Raises:
            StoreError: there is no such order.
        """
        if self.sort not in _SORTS:
            raise StoreError(f"runs cannot be sorted by {self.sort!r}", hint=", ".join(_SORTS))
        way = "ASC" if self.ascending else "DESC"
        order = f"{_SORTS[self.sort]} {way}, run_id {way}"
        window = {"status": self.status, "limit": self.limit, "offset": self.offset}
        sql, values = self._fitting("page_of_runs", flow)
        return sql.replace("SORT_KEY", order), values | window

    def counts(self, flow: str | None) -> tuple[str, dict[str, Any]]:
        """The query of how many runs of each status fit, and its values.

        Args:
            flow: only this flow's; None for all.
        """
        return self._fitting("count_runs", flow)

    def _fitting(self, name: str, flow: str | None) -> tuple[str, dict[str, Any]]:
        values: dict[str, Any] = {"flow": flow}
        words = [_condition(word, values) for word in self.text.split()]
        fitting = queries()["fitting_runs"].replace("EVERY_WORD", " AND ".join(["true", *words]))
        return queries()[name].replace("FITTING_RUNS", fitting), values


class RunPage(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """A page of a listing of runs."""

    rows: list[RunRow]
    #: how many runs there are of each status, whatever status was asked for
    counts: dict[str, int]
    #: how many runs the page is of
    total: int

    def __repr__(self) -> str:
        return f"<{self._told}>"

    def _repr_html_(self) -> str:
        return RunRows(self.rows).table(self._told).html()

    @property
    def _told(self) -> str:
        counts = ", ".join(f"{number} {status}" for status, number in self.counts.items())
        return f"{len(self.rows)} of {self.total} runs: {counts or 'none'}"


def _condition(word: str, values: dict[str, Any]) -> str:
    """The condition that a word of a search is; its values are added to those that there are.

    It looks into what `rows` has joined for it, and into the flow, which can get another id.
    """
    word = word.lower()
    name, equals, value = word.partition("=")
    if equals and name:
        columns, texts = ["searched"], _json_texts(name, value)
    else:
        columns, texts = ["searched", "lower(flow)"], [word]
    tests = []
    for text in texts:
        key = f"text{len(values)}"
        values[key] = text
        tests += [f"contains({column}, ${key})" for column in columns]
    return f"({' OR '.join(tests)})"


def _json_texts(name: str, value: str) -> list[str]:
    """How a label or a parameter of this name whose value begins so can stand in JSON."""

    def quoted(text: str) -> str:
        return msgspec.json.encode(text).decode()

    key, begins = quoted(name), quoted(value)[:-1]
    dates = [f'{key}:{{"${kind}":{begins}' for kind in ("date", "datetime")]
    return [f"{key}:{begins}", f"{key}:{value}", *dates]
