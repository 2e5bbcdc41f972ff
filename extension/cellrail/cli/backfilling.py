"""`backfill`: runs for the ticks of a range."""

from __future__ import annotations

import sys
from typing import Any

import click

from cellrail.app.fills import Fill, FillPlan
from cellrail.cli.common import (
    INTERRUPTED,
    Context,
    byte_count,
    common_options,
    count,
    moment,
    span,
    table,
)
from cellrail.cli.parameters import parameter_options
from cellrail.cli.running import CANCELLED, secret_values
from cellrail.filling import Counts
from cellrail.schedule.cron import EVERY
from cellrail_state.schedules import Which

_PAUSED = 3


class FillBar:
    """A tqdm bar over the ticks of a backfill; its time left is that of the runs."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._failures = 0

    def show(self, counts: Counts) -> None:
        """As far as this."""
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=counts.total, unit="run", file=sys.stderr, leave=False)
        for tick, run_id, why in counts.failures[self._failures :]:
            self._bar.write(f"{tick} failed (run {run_id}): {why}", file=sys.stderr)
        self._failures = len(counts.failures)
        told = {**counts.ended, "running": counts.running}
        if counts.elsewhere:
            told["elsewhere"] = counts.elsewhere
        self._bar.n = counts.over
        self._bar.set_postfix(told, refresh=False)
        self._bar.refresh()

    def close(self) -> None:
        """It is driven no more."""
        if self._bar is not None:
            self._bar.close()


def _bar(context: Context) -> FillBar | None:
    if context.quiet or context.as_json or not sys.stderr.isatty():
        return None
    return FillBar()


@click.group()
def backfill() -> None:
    """Runs of a notebook for the ticks of a range."""


@backfill.command()
@click.argument("notebook")
@click.option("--start", required=True, metavar="TIME", help="A date or time; inclusive.")
@click.option("--end", metavar="TIME", help="A date or time; inclusive (default: now).")
@click.option("--trigger", metavar="ID", help="The ticks and inputs of a trigger.")
@click.option("--cron", metavar="EXPR", help="The ticks of a cron expression.")
@click.option("--every", type=click.Choice([*EVERY]), help="A tick a day, an hour, …")
@click.option(
    "--tz", metavar="ZONE", help="Of the dates and ticks (default: the trigger's, or UTC)."
)
@click.option(
    "--ticks", type=click.Choice([str(one) for one in Which]), default="missing",
    help="Those never run (default), those that failed, those made by another source, or all.",
)  # fmt: skip
@click.option(
    "--order", type=click.Choice(["asc", "desc"]), default="asc", help="Oldest first, or newest."
)
@click.option(
    "--parallel", type=click.IntRange(min=1), default=1, metavar="N", help="So many at a time."
)
@click.option(
    "--stop-after", type=click.IntRange(min=0), default=0, metavar="N",
    help="Pause when so many ticks have failed.",
)  # fmt: skip
@click.option(
    "--from-start", is_flag=True, help="Run failed and stale ticks from their first step."
)
@click.option("--latest", is_flag=True, help="Each run takes the notebook as it is then.")
@click.option("--out", metavar="OUT", help="The executed notebooks: a template of the parameters.")
@click.option("--secret", "secrets", multiple=True, metavar="NAME", help="A secret parameter.")
@click.option("--plan", is_flag=True, help="Show what would happen to each tick; run nothing.")
@click.option("--detach", is_flag=True, help="Drive it in a process of its own.")
@click.option(
    "--share",
    default="none",
    metavar="none|auto|STEP,…",
    help="Execute the leading steps once for all runs: these, or those that only compute and read.",
)
@click.option(
    "--cores",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Processors that its runs use (default: all).",
)
@click.option(
    "--memory",
    type=byte_count,
    default=0,
    metavar="SIZE",
    help="No run begins that would make them take more than this together (500MB, 8GB).",
)
@click.option(
    "--kernels",
    type=click.Choice(["cold", "warm"]),
    help="Start kernels cold, or fork them from a process that has the imports done "
    "(default: warm, where the system can).",
)
@parameter_options
@common_options
def start(
    *, context: Context, notebook: str, plan: bool, detach: bool, secrets: tuple[str, ...],
    parameters: dict[str, Any], share: str, **options: Any,
) -> int:  # fmt: skip
    """Run NOTEBOOK for the ticks of a range. The same command again goes on after a crash."""
    options["share"] = tuple(word.strip() for word in share.split(",") if word.strip())
    app = context.app(notebook)
    options["parameters"] = {**parameters, **secret_values(secrets, parameters)}
    options["secrets"] = secrets
    if plan:
        return _tell_plan(context, app.backfill_start(notebook, plan=True, **options))
    done = app.backfill_start(
        notebook, detach=detach, watch=_bar(context), tell=context.note, **options
    )
    return _tell(context, done, detached=detach)


@backfill.command("list")
@common_options
def list_(*, context: Context) -> None:
    """List the backfills, newest first."""
    found = context.app().backfill_list()
    context.json({"backfills": [fill.to_dict() for fill in found]})
    if found:
        context.say(table(found.headings, [found.row(fill) for fill in found]))
    elif not context.as_json:
        context.note("there are no backfills")


@backfill.command()
@click.argument("id", metavar="ID", default="last")
@click.option("--ticks", is_flag=True, help="List every tick.")
@common_options
def show(*, context: Context, id: str, ticks: bool) -> None:  # noqa: A002 - as it is called
    """Show a backfill: its range, and how its ticks stand."""
    fill = context.app().backfill_show(id)
    found, counts, failures = fill.plan(), fill.counts(), fill.failures()
    context.json({
        **fill.to_dict(), "counts": counts, "left": _left(found),
        "failures": [{"tick": tick, "run_id": run_id} for tick, run_id in failures],
        **({"ticks": found.to_dict()["ticks"]} if ticks else {}),
    })  # fmt: skip
    record, state = fill.record, fill.state
    lines = [
        f"backfill {fill.id}: {fill.status}" + (f" ({state.why})" if state.why else ""),
        f"flow      {record.flow}" + (f", trigger {record.trigger}" if record.trigger else ""),
        f"ticks     {record.cron} in {record.zone}, {record.which}",
        f"range     {record.start} to {record.end}",
        f"started   {moment(record.created)} by {record.user}",
        "notebook  " + (f"as it was then ({record.pinned[:12]})" if record.pinned else "as it is"),
        f"stands    {_listed(counts)}; {_left(found)} left",
        *(f"shared    {line}" for line in fill.shared()),
    ]
    lines += [f"failed    {tick}  run {run_id}" for tick, run_id in failures]
    if ticks:
        lines += [
            f"  {i.tick.isoformat()}  {i.stand.standing:<11} {i.stand.run_id}" for i in found.items
        ]
    context.say("\n".join(lines))


@backfill.command()
@click.argument("id", metavar="ID", default="last")
@click.option("--now", is_flag=True, help="Cancel the runs that are running.")
@common_options
def pause(*, context: Context, id: str, now: bool) -> None:  # noqa: A002 - as it is called
    """Begin no more runs; those that run go on to their end."""
    fill = context.app().backfill_pause(id, now=now)
    context.json(fill.to_dict())
    context.note(f"backfill {fill.id} is paused; go on with: cellrail backfill resume {fill.id}")


@backfill.command()
@click.argument("id", metavar="ID", default="last")
@click.option(
    "--latest", is_flag=True, help="Take local modules that it does not keep as they are."
)
@click.option("--detach", is_flag=True, help="Drive it in a process of its own.")
@common_options
def resume(*, context: Context, id: str, latest: bool, detach: bool) -> int:  # noqa: A002
    """Go on with a backfill that is paused, or whose process is gone."""
    fill = context.app().backfill_resume(
        id, latest=latest, detach=detach, watch=_bar(context), tell=context.note
    )
    return _tell(context, fill, detached=detach or fill.driven is None)


@backfill.command()
@click.argument("id", metavar="ID", default="last")
@click.option("--now", is_flag=True, help="Cancel the runs that are running.")
@common_options
def cancel(*, context: Context, id: str, now: bool) -> None:  # noqa: A002 - as it is called
    """End a backfill for good; its runs stay."""
    fill = context.app().backfill_cancel(id, now=now)
    context.json(fill.to_dict())
    context.note(f"backfill {fill.id} is cancelled")


def _left(plan: FillPlan) -> int:
    return len(plan.items) - plan.counts.get("nothing", 0)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} {what}" for what, n in sorted(counts.items())) or "no ticks"


def _tell_plan(context: Context, found: FillPlan) -> int:
    context.json({"plan": found.to_dict()})
    context.say("\n".join(found.lines(limit=10_000 if context.verbose else 50)))
    return 0


def _tell(context: Context, fill: Fill, *, detached: bool) -> int:
    """Say what a backfill came to; the exit code."""
    counts = fill.driven
    if detached or counts is None:
        context.json(fill.to_dict())
        context.say(f"backfill {fill.id}: in the background; cellrail backfill show {fill.id}")
        return 0
    state, status = fill.state, fill.status
    context.json({
        **fill.to_dict(), "counts": counts.ended, "total": counts.total,
        "seconds": counts.seconds,
        "failures": [
            {"tick": tick, "run_id": run_id, "why": why} for tick, run_id, why in counts.failures
        ],
    })  # fmt: skip
    words = f"backfill {fill.id}: {status}" + (f" ({state.why})" if state.why else "")
    context.say(f"{words}; {_listed(counts.ended)}, {count(counts.done, 'run')} in "
                f"{span(counts.seconds)}")  # fmt: skip
    for tick, run_id, why in counts.failures:
        context.note(f"{tick} failed (run {run_id}): {why}")
    if status == "paused":
        context.note(f"go on with: cellrail backfill resume {fill.id}")
        return INTERRUPTED if state.why == "interrupted" else _PAUSED
    if status == "cancelled":
        return CANCELLED
    if counts.failed:
        context.note("to run the failed ones again: the same with --ticks failed")
    return 1 if counts.failed else 0
