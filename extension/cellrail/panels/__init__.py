"""Panels and buttons in the notebook. Nothing heavy is imported before one is made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from cellrail.locate import flow_id, is_run_id
from cellrail.panels.base import ROOMS, RoomKind, kind_of
from cellrail.panels.plain import Plain

if TYPE_CHECKING:
    from cellrail.app import App
    from cellrail.app.wishing import BackfillOptions
    from cellrail.panels.widget import Panel

__all__ = [
    "backfill_button",
    "backfill_panel",
    "open_panel",
    "panel",
    "restart_button",
    "restart_panel",
    "run_panel",
    "runs_panel",
    "state_panel",
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
    app = _app_of(store)
    found = _run_now(app, run) if run else ""
    return open_panel(ROOMS, app, start={"run": found} if found else {}, value=found)


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
    app = _app_of(store)
    return open_panel([kind_of("run")], app, start={"run": _run_now(app, run)}, value=step)


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
    app = _app_of(store)
    start = {"run": _run_now(app, run), "step": from_step}
    return open_panel([kind_of("restart")], app, start=start)


def backfill_panel(
    notebook: str | Path = "",
    store: App | str | Path | None = None,
    *,
    trigger: str = "",
    start: str = "",
    end: str = "",
    ticks: str = "missing",
    every: str = "",
    cron: str = "",
    tz: str = "",
) -> Panel | Plain:
    """Backfills: a calendar of a notebook's ticks, what would happen to them, and their progress.

    Args:
        notebook: the notebook's path; by default one of the store's.
        store: an `App`, or a store's folder; by default the one that belongs to this notebook.
        trigger: the trigger whose ticks and inputs are meant.
        start: a date or time to begin with.
        end: the same.
        ticks: `missing`, `failed`, `stale` or `all`.
        every: `hour`, `day`, `week` and so on, where there is no trigger; by default each day.
        cron: a cron expression instead.
        tz: the zone that both are meant in.

    Returns:
        The panel; its `value` is the id of the backfill that was started, or is looked at.
    """
    app = _app_of(store)
    told = {"trigger": trigger, "start": start, "end": end, "ticks": ticks}
    schedule = {"every": every, "cron": cron, "tz": tz}
    told |= {name: given for name, given in schedule.items() if given}
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


def state_panel(
    path: str = "", store: App | str | Path | None = None, **filters: str
) -> Panel | Plain:
    """What outlives runs: states, resources and variables, who wrote them, and when.

    Args:
        path: one of them, to look at.
        store: an `App`, or a store's folder; by default the one that belongs to this notebook.
        filters: `kind` (state, resource or variable), and `text`: words of a path, type, writer or
            short value.

    Returns:
        The panel; its `value` is the path that is looked at.
    """
    start = {**filters, "path": path} if path else filters
    return open_panel([kind_of("state")], store, start=start, value=path)


def restart_button(
    run: str = "last",
    from_step: str | None = None,
    store: App | str | Path | None = None,
    *,
    description: str = "",
    **options: Any,
) -> Panel | Plain:
    """A button that restarts a run in the background, and tells how that goes.

    Args:
        run: the run's address; `last` is the last one now, whatever is run until the press.
        from_step: the cut; by default the first step that did not succeed.
        store: an `App`, or a store's folder; by default the one that belongs to this notebook.
        description: what the button says; by default `Restart from STEP`.
        options: those of `App.restart`: `parameters`, `labels`, `force`, `widen` and so on. They
            stay in the kernel: no value of them is part of the widget.

    Returns:
        The button; its `value` is the id of the run that it has started last.

    Raises:
        NotJson: a value of an option cannot be told to another process.
        TypeError: there is no such option.
    """
    from cellrail.panels.pressing import restart_wish

    app = _app_of(store)
    found = _run_now(app, run)
    wish = restart_wish(found, from_step, options)
    words = description or (f"Restart from {from_step}" if from_step else "Restart")
    about = f"Restarts run {found}, in the background"
    return _button("restart_button", app, wish, words=words, about=about)


def backfill_button(
    notebook: str | Path,
    store: App | str | Path | None = None,
    *,
    start: str,
    end: str | None = None,
    description: str = "",
    **options: Unpack[BackfillOptions],
) -> Panel | Plain:
    """A button that starts a backfill, goes on with it, and tells how it goes.

    Args:
        notebook: the notebook's path.
        store: an `App`, or a store's folder; by default the one that belongs to this notebook.
        start: a date or time; inclusive where it is a tick.
        end: the same; by default the moment of the press.
        description: what the button says; by default `Backfill NOTEBOOK`.
        options: as of `App.backfill_start`: `every`, `cron` or `trigger`, `parameters`, `ticks`,
            `parallel` and so on. They stay in the kernel: no value of them is part of the widget.

    Returns:
        The button; its `value` is the id of the backfill that it has started last.

    Raises:
        NotJson: a value of an option cannot be told to another process.
        TypeError: there is no such option.
    """
    from cellrail.panels.pressing import backfill_wish

    app, path = _app_of(store), Path(notebook).absolute()
    wish = backfill_wish(path, start, end, options)
    about = f"Backfills {path.name} from {start} to {end or 'now'}, in the background"
    words = description or f"Backfill {path.stem}"
    return _button("backfill_button", app, wish, words=words, about=about)


def _button(name: str, app: App, wish: dict[str, Any], *, words: str, about: str) -> Panel | Plain:
    import secrets

    # two views of one button are one button: it is named
    own = {"wish": wish, "button": secrets.token_hex(8)}
    return open_panel([kind_of(name)], app, start={"words": words, "about": about}, own=own)


def open_panel(
    kinds: list[RoomKind] | tuple[RoomKind, ...],
    store: App | str | Path | None,
    *,
    start: dict[str, Any],
    value: str = "",
    own: dict[str, Any] | None = None,
) -> Panel | Plain:
    """A panel with these rooms; without anywidget a table.

    Args:
        kinds: the rooms.
        store: an `App`, or a store's folder; by default the one that belongs to this notebook.
        start: with what the first room opens.
        value: what is chosen at first.
        own: what its room is told with every question, and the browser never is.
    """
    from cellrail.panels.static import commands_of, table_of

    app = _app_of(store)
    title = "cellrail" if len(kinds) > 1 else f"cellrail {kinds[0].title.lower()}"
    shown = {**start, **(own or {})}
    words = commands_of(kinds[0].name)
    try:
        from cellrail.panels.widget import Panel
    except ImportError:
        words = "\n".join(filter(None, [words, _MISSING]))
        return Plain(title, lambda: table_of(app, kinds[0].name, shown, title), hint=words)
    plain = Plain(title, lambda: table_of(app, kinds[0].name, shown, title), hint=words)
    return Panel(
        kinds, plain, store=app.store_path, keys=app.keys, start=start, value=value, own=own
    )


def _run_now(app: App, run: str) -> str:
    """The run that an address means now: `last` may be this very notebook, when its cell has ended.

    An address that means none is told of by the panel.
    """
    from cellrail.errors import CellrailError
    from cellrail.locate import RunLocator
    from cellrail_state.errors import StateError

    try:
        return RunLocator(app.store).find(run)
    except (CellrailError, StateError):
        return run


def _app_of(store: App | str | Path | None) -> App:
    from cellrail.app import App
    from cellrail.errors import UserError

    if isinstance(store, App):
        return store
    if isinstance(store, str) and is_run_id(store):
        raise UserError(
            f"{store!r} is the id of a run, and here a store's folder is meant",
            hint=f"cellrail.panel(run={store!r})",
        )
    shell = _shell()
    magics = getattr(shell, "cellrail_live", None)
    if store is None and magics is not None:
        app: App = magics.here.app()
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
