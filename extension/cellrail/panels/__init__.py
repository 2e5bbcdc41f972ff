"""Panels: runs, a run, restarts, in the notebook. Nothing heavy is imported before one is made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellrail.locate import flow_id
from cellrail.panels.base import ROOMS, RoomKind, kind_of
from cellrail.panels.plain import Plain

if TYPE_CHECKING:
    from cellrail.app import App
    from cellrail.panels.widget import Panel

__all__ = [
    "backfill_panel",
    "open_panel",
    "panel",
    "restart_panel",
    "run_panel",
    "runs_panel",
    "triggers_panel",
    "waits_panel",
]

_MISSING = "panels need anywidget here: pip install 'cellrail[panels]'"


def panel(store: App | str | Path | None = None, *, run: str = "") -> Panel | Plain:
    """Everything: the runs, and from there each run and what can be done with it.

    Args:
        store: an `App`, or a store's folder; by default the one that belongs to this notebook.
        run: a run to begin with.

    Returns:
        The panel; its `value` is the id of the run that is looked at.
    """
    return open_panel(ROOMS, store, start={"run": run} if run else {}, value=run)


def runs_panel(store: App | str | Path | None = None, **filters: str) -> Panel | Plain:
    """The runs of a store, newest first.

    Args:
        store: an `App`, or a store's folder; by default the one that belongs to this notebook.
        filters: `status`, and `text`: words of an id, flow, cause, label or `name=value`.

    Returns:
        The panel; its `value` is the id of the run that is chosen.
    """
    return open_panel([kind_of("runs")], store, start=filters)


def run_panel(
    run: str = "last", store: App | str | Path | None = None, *, step: str = ""
) -> Panel | Plain:
    """A run: its steps and what they left.

    Args:
        run: the run's address.
        store: an `App`, or a store's folder; by default the one that belongs to this notebook.
        step: a step to look at.

    Returns:
        The panel; its `value` is the address of the step that is looked at.
    """
    return open_panel([kind_of("run")], store, start={"run": run}, value=step)


def restart_panel(
    run: str = "last", store: App | str | Path | None = None, *, from_step: str = ""
) -> Panel | Plain:
    """A restart: where from, with which parameters, and what would happen.

    Args:
        run: the run's address.
        store: an `App`, or a store's folder; by default the one that belongs to this notebook.
        from_step: the cut; by default the first step that did not succeed.

    Returns:
        The panel; its `value` is the id of the run that it has started.
    """
    start = {"run": run, "step": from_step}
    return open_panel([kind_of("restart")], store, start=start)


def backfill_panel(
    notebook: str | Path = "",
    store: App | str | Path | None = None,
    *,
    trigger: str = "",
    start: str = "",
    end: str = "",
    ticks: str = "missing",
) -> Panel | Plain:
    """Backfills: a calendar of a notebook's ticks, what would happen to them, and their progress.

    Args:
        notebook: the notebook's path; by default one of the store's.
        store: an `App`, or a store's folder; by default the one that belongs to this notebook.
        trigger: the trigger whose ticks and inputs are meant.
        start: a date or time to begin with.
        end: the same.
        ticks: `missing`, `failed`, `stale` or `all`.

    Returns:
        The panel; its `value` is the id of the backfill that was started, or is looked at.
    """
    app = _app_of(store)
    told = {"trigger": trigger, "start": start, "end": end, "ticks": ticks}
    flow = flow_id(Path(notebook).resolve(), app.store_path) if notebook else ""
    return open_panel([kind_of("backfill")], app, start={"notebook": flow, **told})


def waits_panel(run: str = "", store: App | str | Path | None = None) -> Panel | Plain:
    """What runs wait for, until when, and answers to it.

    Args:
        run: the run that is looked at.
        store: an `App`, or a store's folder; by default the one that belongs to this notebook.

    Returns:
        The panel; its `value` is the id of the run that is looked at.
    """
    return open_panel([kind_of("waits")], store, start={"run": run} if run else {}, value=run)


def triggers_panel(trigger: str = "", store: App | str | Path | None = None) -> Panel | Plain:
    """Schedules: their next ticks, what they have missed, and whether they are enabled.

    Args:
        trigger: the trigger that is looked at.
        store: an `App`, or a store's folder; by default the one that belongs to this notebook.

    Returns:
        The panel; its `value` is the id of the trigger that is looked at.
    """
    start = {"id": trigger} if trigger else {}
    return open_panel([kind_of("triggers")], store, start=start, value=trigger)


def open_panel(
    kinds: list[RoomKind] | tuple[RoomKind, ...],
    store: App | str | Path | None,
    *,
    start: dict[str, Any],
    value: str = "",
) -> Panel | Plain:
    """A panel with these rooms; without anywidget a table.

    Args:
        kinds: the rooms.
        store: an `App`, or a store's folder; by default the one that belongs to this notebook.
        start: with what the first room opens.
        value: what is chosen at first.
    """
    from cellrail.panels.static import table_of

    app = _app_of(store)
    title = "cellrail" if len(kinds) > 1 else f"cellrail {kinds[0].title.lower()}"
    plain = Plain(title, lambda: table_of(app, kinds[0].name, start, title))
    try:
        from cellrail.panels.widget import Panel
    except ImportError:
        return Plain(title, lambda: table_of(app, kinds[0].name, start, title), hint=_MISSING)
    return Panel(kinds, plain, store=app.store_path, keys=app.keys, start=start, value=value)


def _app_of(store: App | str | Path | None) -> App:
    from cellrail.app import App

    if isinstance(store, App):
        return store
    shell = _shell()
    magics = getattr(shell, "cellrail_live", None)
    if store is None and magics is not None:
        app: App = magics.app
        return app
    return App(store, notebook=_notebook(shell) if shell is not None else None)


def _shell() -> Any:
    """The IPython shell of this process; None where there is none."""
    import sys

    # outside of IPython there is nothing to import it for
    module = sys.modules.get("IPython")
    return module.get_ipython() if module is not None else None


def _notebook(shell: Any) -> Path | None:
    """The notebook that is open here."""
    from cellrail.run.frontend import notebook_of

    return notebook_of(shell)
