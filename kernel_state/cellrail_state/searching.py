"""Searches among the runs: what is asked for, as the catalog's SQL."""

from __future__ import annotations

from typing import Any

import msgspec

from cellrail_state.errors import StoreError
from cellrail_state.rows import RunRow
from cellrail_state.sql import queries

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
        return _of("page_of_runs").replace("SORT_KEY", order), {**self._fitting(flow), **window}

    def counts(self, flow: str | None) -> tuple[str, dict[str, Any]]:
        """The query of how many runs of each status fit, and its values.

        Args:
            flow: only this flow's; None for all.
        """
        return _of("count_runs"), self._fitting(flow)

    def _fitting(self, flow: str | None) -> dict[str, Any]:
        return {"flow": flow, "needles": [_needles(word) for word in self.text.split()]}


class RunPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a listing of runs."""

    rows: list[RunRow]
    #: how many runs there are of each status, whatever status was asked for
    counts: dict[str, int]
    #: how many runs the page is of
    total: int


def _of(name: str) -> str:
    return queries()[name].replace("FITTING_RUNS", queries()["fitting_runs"])


def _needles(word: str) -> list[str]:
    """The texts of which one occurs in a run that a word of a search fits, in lower case.

    Labels and parameters are searched as the JSON that they are stored as.
    """
    name, equals, value = word.lower().partition("=")
    if not (equals and name):
        return [word.lower()]

    def quoted(text: str) -> str:
        return msgspec.json.encode(text).decode()

    key, begins = quoted(name), quoted(value)[:-1]
    dates = [f'{key}:{{"${kind}":{begins}' for kind in ("date", "datetime")]
    return [f"{key}:{begins}", f"{key}:{value}", *dates]
