"""The tables that stand for the rooms of backfills, waits and triggers without a front end."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cellrail_state.tables import Table

if TYPE_CHECKING:
    from cellrail.app import App

_ROWS = 20


def backfills(app: App, start: Mapping[str, Any], title: str) -> Table:
    """The newest backfills; of a notebook where one is named."""
    flow = str(start.get("notebook") or "")
    found = [fill for fill in app.backfill_list() if flow in {"", fill.record.flow}][:_ROWS]
    rows = tuple(
        (f.id, f.status, f.record.flow, str(f.record.which), f.record.start, f.record.end)
        for f in found
    )
    headings = ("backfill", "status", "notebook", "ticks", "start", "end")
    return Table(title=title, headings=headings, rows=rows, empty="there is no backfill")


def waits(app: App, start: Mapping[str, Any], title: str) -> Table:
    """What runs wait for, the soonest to end first."""
    run = str(start.get("run") or "")
    rows = tuple(
        (
            one.info.run_id, one.flow, one.info.label, one.info.kind,
            _moment(one.info.until) if one.info.until is not None else "", one.info.on_timeout,
            one.words,
        )
        for one in app.waits(limit=_ROWS)
        if run in {"", one.info.run_id}
    )  # fmt: skip
    headings = ("run", "notebook", "step", "waits", "until (UTC)", "then", "how it stands")
    return Table(title=title, headings=headings, rows=rows, empty="no run waits")


def triggers(app: App, start: Mapping[str, Any], title: str) -> Table:
    """The triggers, with their next tick and how many they have missed."""
    del start
    rows = []
    for one in app.trigger_list():
        following = app.trigger_next(one.id, 1) if one.enabled else []
        missed = len(app.trigger_due(one.id).missed) if one.enabled else 0
        told = following[0].isoformat() if following else "none" if one.enabled else "disabled"
        rows.append((one.id, one.flow, one.cron, one.zone, told, str(missed or "")))
    headings = ("trigger", "notebook", "cron", "zone", "next", "missed")
    return Table(title=title, headings=headings, rows=tuple(rows), empty="there is no trigger")


def _moment(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
