"""What a button does at its press: plain data, checked when the button is made."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellrail.run.jsontext import from_text, to_text
from cellrail.tables import Table

#: options of `App` that name something of this process
_NEVER = frozenset({"progress"})


def restart_wish(run: str, from_step: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a button of a restart does.

    Args:
        run: the run's address.
        from_step: the cut.
        options: as of `App.restart`.

    Raises:
        NotJson: a value cannot be told to another process.
        TypeError: there is no such option.
    """
    from cellrail.app.restarting import RestartOptions

    _check("restart_button()", options, RestartOptions.__annotations__)
    wished = {"from_step": from_step, **options}
    return _plain({"run": run, "options": {n: v for n, v in wished.items() if v is not None}})


def backfill_wish(
    notebook: Path, start: str, end: str | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """What a button of a backfill does.

    Args:
        notebook: the notebook's path.
        start: where the range begins.
        end: where it ends; None for the moment of the press.
        options: as of `App.backfill_start`.

    Raises:
        NotJson: a value cannot be told to another process.
        TypeError: there is no such option.
    """
    from cellrail.app.wishing import BackfillOptions

    _check("backfill_button()", options, BackfillOptions.__annotations__)
    given = {name: value for name, value in options.items() if value is not None}
    return _plain({"notebook": notebook, "start": start, "end": end, "options": given})


def restart_table(wish: Mapping[str, Any], title: str) -> Table:
    """What a button would do, where none can be pressed."""
    run, cut = str(wish["run"]), str(wish["options"].get("from_step") or "")
    command = f"cellrail restart {run}" + (f" --from {cut}" if cut else "")
    rows = [("run", run), ("from", cut or "the first step that did not succeed")]
    return _table(title, [*rows, *_others(wish, without="from_step"), ("in a terminal", command)])


def backfill_table(wish: Mapping[str, Any], title: str) -> Table:
    """What a button would do, where none can be pressed."""
    start, end = str(wish["start"]), str(wish["end"] or "")
    command = f"cellrail backfill start {Path(wish['notebook']).name} --start {start}"
    rows = [("notebook", str(wish["notebook"])), ("from", start), ("to", end or "now")]
    told = f"{command} --end {end}" if end else command
    return _table(title, [*rows, *_others(wish), ("in a terminal", told)])


def _table(title: str, rows: list[tuple[str, str]]) -> Table:
    return Table(title=title, headings=("a press", "of the button"), rows=tuple(rows))


def _others(wish: Mapping[str, Any], *, without: str = "") -> list[tuple[str, str]]:
    """The names of the options; a value may be a secret, and is not told."""
    names = [name for name in wish["options"] if name != without]
    return [("with", ", ".join(names))] if names else []


def _check(who: str, options: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for name in options:
        if name not in known or name in _NEVER:
            raise TypeError(f"{who} got an unexpected keyword argument {name!r}")


def _plain(wish: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = from_text(to_text(_simple(wish), "what the button does"))
    return told


def _simple(value: Any) -> Any:
    """Days and times as parameters take them, paths as text; the rest must be JSON."""
    if isinstance(value, (dt.date, dt.datetime)):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {name: _simple(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_simple(one) for one in value]
    return value
