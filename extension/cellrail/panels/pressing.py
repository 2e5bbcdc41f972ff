"""What a button does at its press: plain data, checked when the button is made."""

from __future__ import annotations

import datetime as dt
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from cellrail.run.jsontext import from_text, to_text
from cellrail_state.tables import Table

#: options of `App` that name something of this process
_NEVER = frozenset({"progress"})
#: options whose name on a command line is another one
_NAMED = {"from_step": "--from"}


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


def restart_table(wish: Mapping[str, Any], title: str, *, told: Collection[str] = ()) -> Table:
    """What a button would do, where none can be pressed.

    Args:
        wish: as of `restart_wish`.
        title: what the table is called.
        told: the parameters whose values may be told; another's may be a secret.
    """
    run, cut = str(wish["run"]), str(wish["options"].get("from_step") or "")
    rows = [("run", run), ("from", cut or "the first step that did not succeed")]
    words = ["restart", run]
    return _table(title, [*rows, *_others(wish, words, told, without="from_step")])


def backfill_table(wish: Mapping[str, Any], title: str, *, told: Collection[str] = ()) -> Table:
    """What a button would do, where none can be pressed.

    Args:
        wish: as of `backfill_wish`.
        title: what the table is called.
        told: the parameters whose values may be told; another's may be a secret.
    """
    start, end = str(wish["start"]), str(wish["end"] or "")
    rows = [("notebook", str(wish["notebook"])), ("from", start), ("to", end or "now")]
    words = ["backfill", "start", Path(wish["notebook"]).name, "--start", start]
    words += ["--end", end] if end else []
    return _table(title, [*rows, *_others(wish, words, told)])


def _table(title: str, rows: list[tuple[str, str]]) -> Table:
    return Table(title=title, headings=("a press", "of the button"), rows=tuple(rows))


def _others(
    wish: Mapping[str, Any], words: list[str], told: Collection[str], *, without: str = ""
) -> list[tuple[str, str]]:
    """The names of the options, and the command that does what the button does."""
    options: Mapping[str, Any] = wish["options"]
    names = [name for name in options if name != without]
    # nobody could type how its kernels start
    lacking = [name for name in names if words[0] == "restart" and name == "kernels"]
    for name, value in options.items():
        if name not in lacking:
            words += _words(name, value, told)
    rows = [("with", ", ".join(names))] if names else []
    if lacking:
        rows.append(("only by the button", ", ".join(lacking)))
    return [*rows, ("in a terminal", shlex.join(["cellrail", *words]))]


def _words(name: str, value: Any, told: Collection[str]) -> list[str]:
    """An option as on a command line."""
    if name == "parameters":
        return [word for one, of in value.items() for word in _given(one, of, told)]
    if name == "labels":
        return [word for one, of in value.items() for word in ("--label", f"{one}={of}")]
    if name == "secrets":
        return [word for one in value for word in ("--secret", str(one))]
    option = _NAMED.get(name) or f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [option] if value else []
    return [option, ",".join(map(str, value)) if isinstance(value, list) else str(value)]


def _given(name: str, value: Any, told: Collection[str]) -> list[str]:
    """A parameter as on a command line, its value only where it may be told."""
    if name not in told:
        return ["-r", name, "***"]
    if isinstance(value, str):
        return ["-r", name, value]
    if isinstance(value, (list, dict)):
        return ["-y", to_text({name: value}, "what the button does")]
    return ["-p", name, str(value)]


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
