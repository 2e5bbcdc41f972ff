"""The room of what outlives runs: states, resources and variables; what they hold, and who says so.

What is written here is written by hand, as `cellrail state set` does it, and only over the version
that was seen. A secret goes in and never comes out.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import msgspec

from cellrail.app.statelist import StatePage, StateRow, StateSearch
from cellrail.errors import UserError
from cellrail.panels.base import Args
from cellrail.panels.rooms.fields import json_of
from cellrail.panels.rooms.pacing import PacedRoom
from cellrail_state.errors import StoreNotFound

#: rows of a page, at most
MOST = 200
_VARIABLE = "variable"
#: the path of a step's state: flow, step, and whose it is
_STATE = re.compile(r"(.+?\.ipynb)/(.+)/((?:user|trigger|backfill):.*)")


class StateRoom(PacedRoom):
    """Answers `page`, `one`, `set` and `delete`."""

    #: a writer may have to wait for another
    slow = frozenset({"set", "delete"})

    def now(self, what: str, args: Args) -> Hashable:
        """Changes when anything is written; that of one value when it is."""
        ledger = self.app.store.ledger
        if what == "one":
            kind = _VARIABLE if args.get("kind") == _VARIABLE else "resource"
            return ledger.version(kind, str(args.get("path")))
        try:
            told = ledger.path.stat()
        except FileNotFoundError:  # nothing was ever written
            return None
        return told.st_mtime_ns, told.st_size

    def ask_page(self, args: Args) -> dict[str, Any]:
        """A page of what fits.

        Args:
            args: `text`, `kind`, `limit`, `offset`.
        """
        search = search_of(args)
        try:
            page = self.app.state_page(search)
        except StoreNotFound:
            page = StatePage(rows=(), counts={}, total=0)
        return {
            "rows": [_plain(row) for row in page.rows],
            "counts": page.counts,
            "total": page.total,
            "empty": not any(page.counts.values()) and not search.text,
        }

    def ask_one(self, args: Args) -> dict[str, Any]:
        """One of them, its whole value, and the step that wrote it.

        Args:
            args: `kind`, `path`.
        """
        kind, path = _key(args)
        row = self.app.state_row(kind, path)
        return {**_plain(row), "step": self.app.state_writer(kind, path)}

    def ask_set(self, args: Args) -> dict[str, Any]:
        """Set one that is there, if it is as it was seen.

        Args:
            args: `kind`, `path`, `version` (the one that was seen), `text`: JSON; of a variable the
                string itself.
        """
        (kind, path), version = _key(args), _version(args)
        text = str(args.get("text", ""))
        if kind == _VARIABLE:
            stored = self.app.variable_set(path, text, if_version=version)
        else:
            stored = self.app.resource_set(path, json_of(text), if_version=version)
        return {"path": path, "version": stored.version}

    def ask_delete(self, args: Args) -> dict[str, Any]:
        """Delete one, if it is as it was seen.

        Args:
            args: `kind`, `path`, `version`.
        """
        (kind, path), version = _key(args), _version(args)
        if kind == _VARIABLE:
            self.app.variable_delete(path, if_version=version)
        else:
            self.app.resource_delete(path, if_version=version)
        return {"path": path}


def search_of(args: Args) -> StateSearch:
    """The search that a person has typed.

    Args:
        args: `text`, `kind`, `limit`, `offset`; others are passed over.

    Raises:
        UserError: it is none.
    """
    wish = {name: args[name] for name in StateSearch.__struct_fields__ if args.get(name)}
    try:
        search = msgspec.convert(wish, StateSearch)
    except msgspec.ValidationError as error:
        raise UserError(f"this is no search: {error}") from error
    return msgspec.structs.replace(search, limit=min(search.limit, MOST))


def _key(args: Args) -> tuple[str, str]:
    return str(args.get("kind", "")), str(args.get("path", ""))


def _version(args: Args) -> int:
    version = args.get("version")
    if not isinstance(version, int):
        raise UserError("which version was seen is not told")
    return version


def _plain(row: StateRow) -> dict[str, Any]:
    parts = _STATE.fullmatch(row.path) if row.kind == "state" else None
    flow, step, scope = parts.groups() if parts is not None else ("", "", "")
    told: dict[str, Any] = msgspec.to_builtins(row)
    told["run"] = told.pop("run_id")
    return {**told, "flow": flow, "of_step": step, "scope": scope}
