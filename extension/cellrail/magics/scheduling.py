"""`%flow trigger` and `%flow backfill`: schedules, and runs for the ticks of a range."""

from __future__ import annotations

from typing import Any

from cellrail.errors import UserError
from cellrail.magics.opened import OpenNotebook
from cellrail.magics.words import Words, split

_TRIGGER = ("add", "list", "show", "next", "enable", "disable", "remove")
_BACKFILL = ("start", "list", "show", "pause", "resume", "cancel")


def flow_trigger(here: OpenNotebook, words: list[str]) -> Any:
    """Make, list, enable, disable and remove triggers."""
    action, rest = _action("trigger", _TRIGGER, words)
    if action == "add":
        return _add(here, rest)
    line = split(rest, most=1, values={"count"} if action == "next" else ())
    app = here.app()
    if action == "list":
        return [_plain(one) for one in app.trigger_list(line.at(0))]
    name = _needed(line, "the trigger's id is needed: %flow trigger list")
    if action == "next":
        return [tick.isoformat() for tick in app.trigger_next(name, line.number("count", 5))]
    if action == "remove":
        app.trigger_remove(name)
        return None
    return _plain(getattr(app, f"trigger_{action}")(name))


def _plain(trigger: Any) -> dict[str, Any]:
    """A trigger without its secrets."""
    import msgspec

    told: dict[str, Any] = msgspec.to_builtins(trigger)
    secrets = told.pop("secrets", {})
    return {**told, "inputs": {**told.get("inputs", {}), **dict.fromkeys(secrets, "***")}}


def _add(here: OpenNotebook, words: list[str]) -> Any:
    line = split(
        words, most=1, parameters=True, lists={"secret"},
        values={"id", "cron", "tz", "missed", "max-active", "late-after", "out"},
    )  # fmt: skip
    if "cron" not in line:
        raise UserError("which ticks? --cron '30 6 * * mon-fri'")
    made = here.app().trigger_add(
        line.at(0) or _open(here), cron=line.options["cron"], id=line.options.get("id"),
        tz=line.options.get("tz", "UTC"), missed=line.options.get("missed", "all"),
        max_active=line.number("max-active", 1), late_after=line.seconds("late-after"),
        out=line.options.get("out"), parameters=line.all_parameters, labels=line.labels,
        secrets=line.secrets,
    )  # fmt: skip
    return _plain(made)


def flow_backfill(here: OpenNotebook, words: list[str]) -> Any:
    """Start, list, pause, resume and cancel backfills. They are driven in the background."""
    action, rest = _action("backfill", _BACKFILL, words)
    if action == "start":
        return _start(here, rest)
    line = split(rest, most=1, flags={"pause": {"now"}, "cancel": {"now"}, "resume": {"latest"}}
                 .get(action, ()))  # fmt: skip
    app = here.app()
    if action == "list":
        return app.backfill_list()
    address = line.at(0) or "last"
    if action == "show":
        found = app.backfill_show(address)
        return {**found.to_dict(), "counts": found.counts()}
    if action == "resume":
        return app.backfill_resume(address, latest="latest" in line, detach=True, tell=print)
    return getattr(app, f"backfill_{action}")(address, now="now" in line)


def _start(here: OpenNotebook, words: list[str]) -> Any:
    line = split(
        words, most=1, parameters=True, lists={"secret"},
        flags={"plan", "detach", "from-start", "latest"},
        values={
            "start", "end", "trigger", "cron", "every", "tz", "ticks", "order", "parallel",
            "stop-after", "out",
        },
    )  # fmt: skip
    if "start" not in line:
        raise UserError("where does the range begin? --start 2013-01-01")
    given = ("end", "trigger", "cron", "every", "tz", "out")
    options: dict[str, Any] = {
        "start": line.options["start"], **{name: line.options.get(name) for name in given},
        "ticks": line.options.get("ticks", "missing"), "order": line.options.get("order", "asc"),
        "parallel": line.number("parallel", 1), "stop_after": line.number("stop-after", 0),
        "from_start": "from-start" in line, "latest": "latest" in line,
        "parameters": line.all_parameters, "labels": line.labels, "secrets": line.secrets,
    }  # fmt: skip
    notebook = line.at(0) or _open(here)
    if "plan" in line:
        print("\n".join(here.app().backfill_start(notebook, plan=True, **options).lines()))
        return None
    # a cell that would last for days holds the notebook
    return here.app().backfill_start(notebook, detach=True, tell=print, **options)


def _action(command: str, known: tuple[str, ...], words: list[str]) -> tuple[str, list[str]]:
    action, rest = (words[0], words[1:]) if words else ("list", [])
    if action not in known:
        raise UserError(f"{command} {', '.join(known)}; not {action!r}")
    return action, rest


def _needed(line: Words, message: str) -> str:
    word = line.at(0)
    if word is None:
        raise UserError(message)
    return word


def _open(here: OpenNotebook) -> str:
    notebook = here.notebook()
    if notebook is None:
        message = "this front end does not tell which notebook it has open"
        raise UserError(message, hint="name the notebook, or %flow config notebook=PATH")
    return str(notebook)
