"""What panels show where no front end shows widgets: one table for each room."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellrail_state.searching import RunSearch
from cellrail_state.tables import Table

if TYPE_CHECKING:
    from cellrail.app import App

_ROWS = 20
#: what does in a terminal what a room does
_COMMANDS = {
    "runs": "cellrail runs", "run": "cellrail show RUN, cellrail show RUN STEP",
    "restart": "cellrail restart RUN --from STEP, with --plan to see what would happen",
    "backfill": "cellrail backfill list, cellrail backfill start NOTEBOOK --start DAY --end DAY",
    "waits": "cellrail runs --status suspended, cellrail resume RUN, cellrail cancel RUN",
    "triggers": "cellrail trigger list, cellrail trigger enable ID, cellrail tick",
    "state": "cellrail state list, cellrail resource list, cellrail variable list",
}  # fmt: skip


def commands_of(room: str) -> str:
    """What to call in a terminal for what a room does; "" for a button."""
    commands = _COMMANDS.get(room, "")
    return f"in a terminal: {commands}" if commands else ""


def table_of(app: App, room: str, start: Mapping[str, Any], title: str) -> Table:
    """The table that stands for a room.

    Args:
        app: the store's.
        room: the room's name.
        start: with what it opens.
        title: what the table is called.
    """
    from cellrail.panels import pressing
    from cellrail.panels import schedule_tables as schedules

    makers: dict[str, Callable[[App, Mapping[str, Any], str], Table]] = {
        "runs": _runs,
        "run": _run,
        "restart": _restart,
        "backfill": schedules.backfills,
        "waits": schedules.waits,
        "triggers": schedules.triggers,
        "state": _state,
        "restart_button": lambda of, told, name: pressing.restart_table(
            told["wish"], name, told=_open_parameters(of, told["wish"])
        ),
        "backfill_button": lambda of, told, name: pressing.backfill_table(
            told["wish"], name, told=_open_parameters(of, told["wish"])
        ),
    }
    return makers[room](app, start, title)


def _open_parameters(app: App, wish: Mapping[str, Any]) -> set[str]:
    """The parameters of what a button starts that are no secrets; none where nobody can tell."""
    from cellrail.errors import CellrailError
    from cellrail_state.errors import StateError

    try:
        if "run" in wish:
            run, flow = app.restartable(str(wish["run"]))
            hidden = set(run.history.started.secrets)
        else:
            flow, hidden = (
                app.steps(Path(wish["notebook"])),
                set(wish["options"].get("secrets", ())),
            )
            trigger = wish["options"].get("trigger")
            hidden |= set(app.trigger_show(trigger).secrets) if trigger else set()
    except (CellrailError, StateError):
        return set()
    return {one.name for one in flow.parameters if not one.secret} - hidden


def _runs(app: App, start: Mapping[str, Any], title: str) -> Table:
    search = RunSearch(text=start.get("text", ""), status=start.get("status"), limit=_ROWS)
    page = app.runs_page(search)
    rows = tuple(
        (row.run_id, row.status, row.flow, moment(row.started), took(row.seconds), row.cause)
        for row in page.rows
    )
    more = f" ({len(rows)} of {page.total})" if page.total > len(rows) else ""
    headings = ("run", "status", "flow", "started (UTC)", "took", "cause")
    return Table(title=title + more, headings=headings, rows=rows, empty="no run fits")


def _run(app: App, start: Mapping[str, Any], title: str) -> Table:
    run = app.show(str(start.get("run") or "last"))
    rows = tuple(
        (f"#{step.number}", step.name, step.status_words, took(step.seconds), step.cause)
        for step in run.steps
    )
    return Table(
        title=f"{title} {run.id} of {run.flow}: {run.status}",
        headings=("step", "name", "status", "took", "cause"),
        rows=rows,
    )


def _restart(app: App, start: Mapping[str, Any], title: str) -> Table:
    run = str(start.get("run") or "last")
    plan = app.restart(run, from_step=start.get("step") or None, plan=True)
    rows = tuple(
        (step.label, step.fate.value, step.reason, took(step.seconds)) for step in plan.steps
    )
    refused = f": refused, {'; '.join(plan.refusals)}" if plan.refusals else ""
    return Table(
        title=f"{title} of {run} from {plan.cut}{refused}",
        headings=("step", "what happens", "why", "took last time"),
        rows=rows,
    )


def _state(app: App, start: Mapping[str, Any], title: str) -> Table:
    from cellrail.panels.rooms.state import search_of

    text = start.get("text") or start.get("path")
    page = app.state_page(search_of({"kind": start.get("kind"), "text": text, "limit": _ROWS}))
    rows = tuple(
        (row.kind, row.path, row.text if row.whole else f"{row.text}…", str(row.version),
         row.run_id or f"{row.by or 'a person'}, by hand", moment(row.time))
        for row in page.rows
    )  # fmt: skip
    more = f" ({len(rows)} of {page.total})" if page.total > len(rows) else ""
    headings = ("kind", "path", "value", "version", "written by", "written (UTC)")
    return Table(title=title + more, headings=headings, rows=rows, empty="nothing is kept")


def moment(seconds: float) -> str:
    """An instant for people, in UTC."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")


def took(seconds: float | None) -> str:
    """A duration for people; "" where there is none."""
    return "" if seconds is None else f"{seconds:.2f} s"
