"""`trigger`: schedules of notebooks."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import click
import msgspec

from cellrail.cli.common import Context, common_options, moment, seconds, span, table
from cellrail.cli.parameters import parameter_options
from cellrail.cli.running import secret_values
from cellrail.schedule.due import Due
from cellrail_state.schedules import Missed, Trigger

if TYPE_CHECKING:
    from cellrail.app import App

#: so many due ticks are listed
_SHOWN = 20


@click.group()
def trigger() -> None:
    """Schedules of notebooks; `cellrail tick` fires what is due."""


@trigger.command()
@click.argument("notebook")
@click.option("--id", "id", metavar="ID", help="Its name (default: the notebook's).")
@click.option("--cron", required=True, metavar="EXPR", help="As in '30 6 * * mon-fri'.")
@click.option("--tz", default="UTC", metavar="ZONE", help="As in Europe/Paris (default: UTC).")
@click.option(
    "--missed",
    type=click.Choice([str(one) for one in Missed]),
    default="all",
    help="Of ticks that nobody looked at in time, run all (default), the last, or none.",
)
@click.option(
    "--max-active", type=click.IntRange(min=1), default=1, metavar="N",
    help="So many of its runs are under way at most (default: 1).",
)  # fmt: skip
@click.option(
    "--late-after", type=seconds, metavar="DUR", help="A tick later than this is skipped."
)
@click.option("--out", metavar="OUT", help="The executed notebook: a template of the parameters.")
@click.option("--secret", "secrets", multiple=True, metavar="NAME", help="A secret parameter.")
@parameter_options
@common_options
def add(
    *, context: Context, notebook: str, secrets: tuple[str, ...], parameters: dict[str, Any],
    **options: Any,
) -> None:  # fmt: skip
    """Have NOTEBOOK run at the ticks of a schedule.

    A value can be a template of the tick: -p day "{date:%Y-%m-%d}", with date, start, end, previous
    and next.
    """
    app = context.app(notebook)
    parameters = {**parameters, **secret_values(secrets, parameters)}
    made = app.trigger_add(notebook, parameters=parameters, secrets=secrets, **options)
    first = app.trigger_next(made.id, 1)
    context.json(_plain(made, first))
    context.note(f"trigger {made.id}: {made.cron} in {made.zone}, next {_told(first)}")


@trigger.command("list")
@click.argument("notebook", required=False)
@common_options
def list_(*, context: Context, notebook: str | None) -> None:
    """List the triggers, of NOTEBOOK or of the whole store."""
    app = context.app(notebook)
    found = [
        (one, app.trigger_next(one.id, 1), _due(app, one)) for one in app.trigger_list(notebook)
    ]
    context.json({"triggers": [_plain(one, ticks, due) for one, ticks, due in found]})
    if found:
        rows = [
            (t.id, t.flow, t.cron, t.zone, _told(ticks) if t.enabled else "disabled", _counts(due))
            for t, ticks, due in found
        ]
        context.say(table(("trigger", "flow", "cron", "zone", "next", "due"), rows))
    elif not context.as_json:
        context.note("there are no triggers")


@trigger.command()
@click.argument("id", metavar="ID")
@common_options
def show(*, context: Context, id: str) -> None:  # noqa: A002 - as it is called
    """Show a trigger."""
    app = context.app()
    found = app.trigger_show(id)
    following, due = app.trigger_next(id), _due(app, found)
    context.json(_plain(found, following, due))
    inputs = {**found.inputs, **dict.fromkeys(found.secrets, "***")}
    lines = [
        ("flow", found.flow), ("cron", found.cron), ("zone", found.zone),
        ("missed", found.missed), ("max active", found.max_active),
        ("late after", span(found.late_after) or "never"),
        *((f"-p {name}", value) for name, value in inputs.items()),
        *(("label", f"{name}={value}") for name, value in found.labels.items()),
        ("out", found.out or "none"), ("enabled", "yes" if found.enabled else "no"),
        ("created", f"{moment(found.created)} by {found.user}"),
        *(("due", f"{tick.isoformat()}{' (missed)' if tick in due.missed else ''}")
          for tick in due.ticks[:_SHOWN]),
        *([("", f"and {len(due.ticks) - _SHOWN} more")] if len(due.ticks) > _SHOWN else []),
        *(("skipped", tick.isoformat()) for tick in due.skipped[:_SHOWN]),
        *([("", f"and {len(due.skipped) - _SHOWN} more")] if len(due.skipped) > _SHOWN else []),
        *(("next", tick.isoformat()) for tick in following),
    ]  # fmt: skip
    context.say("\n".join(f"{name:<12} {value}" for name, value in lines))


@trigger.command("next")
@click.argument("id", metavar="ID")
@click.option("--count", type=click.IntRange(min=1, max=10_000), default=5, metavar="N")
@common_options
def next_(*, context: Context, id: str, count: int) -> None:  # noqa: A002 - as it is called
    """List the next ticks of a trigger."""
    found = context.app().trigger_next(id, count)
    context.json({"ticks": [tick.isoformat() for tick in found]})
    context.say("\n".join(tick.isoformat() for tick in found))


@trigger.command()
@click.argument("id", metavar="ID")
@common_options
def enable(*, context: Context, id: str) -> None:  # noqa: A002 - as it is called
    """Enable a trigger, from its next tick on."""
    app = context.app()
    found = app.trigger_enable(id)
    following = app.trigger_next(id, 1)
    context.json(_plain(found, following))
    context.note(f"trigger {id} is enabled, next {_told(following)}")


@trigger.command()
@click.argument("id", metavar="ID")
@common_options
def disable(*, context: Context, id: str) -> None:  # noqa: A002 - as it is called
    """Disable a trigger; runs that it has fired go on."""
    context.json(_plain(context.app().trigger_disable(id), []))
    context.note(f"trigger {id} is disabled")


@trigger.command()
@click.argument("id", metavar="ID")
@common_options
def remove(*, context: Context, id: str) -> None:  # noqa: A002 - as it is called
    """Remove a trigger (also: delete); its runs stay."""
    context.app().trigger_remove(id)
    context.json({"id": id, "removed": True})
    context.note(f"trigger {id} is removed")


trigger.add_command(remove, "delete")


def _told(ticks: list[dt.datetime]) -> str:
    return ticks[0].isoformat() if ticks else "never"


def _due(app: App, found: Trigger) -> Due:
    """The ticks that nobody has decided on yet; a disabled trigger has none."""
    return app.trigger_due(found.id) if found.enabled else Due()


def _counts(due: Due) -> str:
    """How many ticks are due, missed and skipped, in words; "" for none."""
    counts = ((due.ticks, "due"), (due.missed, "missed"), (due.skipped, "skipped"))
    return ", ".join(f"{len(ticks)} {word}" for ticks, word in counts if ticks)


def _plain(found: Trigger, following: list[dt.datetime], due: Due | None = None) -> dict[str, Any]:
    """A trigger without its secrets."""
    plain: dict[str, Any] = {
        name: getattr(found, name) for name in found.__struct_fields__ if name != "secrets"
    }
    return {
        **msgspec.to_builtins(plain),
        "inputs": {**found.inputs, **dict.fromkeys(found.secrets, "***")},
        "next": [tick.isoformat() for tick in following],
        **({} if due is None else {"due": due.to_dict()}),
    }
