"""The runs of a store, page by page."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from cellrail.notebook.parameters import from_json
from cellrail.panels.base import Args, Room
from cellrail_state.errors import StoreNotFound
from cellrail_state.rows import RunRow
from cellrail_state.searching import RunSearch

#: rows of a page, at most
MOST = 200
#: characters of a value that a listing shows
_SHOWN = 80


class RunsRoom(Room):
    """Answers `page`."""

    def ask_page(self, args: Args) -> dict[str, Any]:
        """A page of the runs that fit.

        Args:
            args: `text`, `status`, `sort`, `ascending`, `limit`, `offset`.
        """
        search = RunSearch(
            text=str(args.get("text") or ""),
            status=args.get("status") or None,
            sort=args.get("sort") or "started",
            ascending=bool(args.get("ascending")),
            limit=min(int(args.get("limit", 50)), MOST),
            offset=max(int(args.get("offset", 0)), 0),
        )
        try:
            page = self.app.runs_page(search)
        except StoreNotFound:
            return {"rows": [], "counts": {}, "total": 0, "behind": 0, "empty": True}
        return {
            "rows": [row_of(row) for row in page.rows],
            "counts": page.counts,
            "total": page.total,
            "behind": self.app.store.catalog.behind,
            "empty": not page.counts and not search.text,
        }

    def stamp(self, what: str, args: Args) -> Hashable:
        """Whether anything happens; that there is no store yet is no error."""
        try:
            return super().stamp(what, args)
        except StoreNotFound:
            return None


def row_of(row: RunRow) -> dict[str, Any]:
    """A run as a row."""
    return {
        "run": row.run_id,
        "flow": row.flow,
        "kind": row.kind,
        "status": row.status,
        "cause": clipped(row.cause, 200),
        "origin": row.origin or "",
        "from_step": row.from_step or "",
        "started": row.started,
        "seconds": row.seconds,
        "parameters": [[name, shown(from_json(value))] for name, value in row.parameters.items()],
        "labels": [[name, clipped(value, _SHOWN)] for name, value in row.labels.items()],
    }


def shown(value: Any) -> str:
    """A parameter's value in a listing: text as it is, the rest as Python writes it."""
    if isinstance(value, str):
        return clipped(value, _SHOWN)
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    return clipped(repr(value), _SHOWN)


def clipped(text: str, most: int) -> str:
    """Text without its end, where it is long."""
    return text if len(text) <= most else text[: most - 1] + "…"
