"""`resume`, `cancel` and `tick`."""

from __future__ import annotations

import click

from cellrail.cli.common import INTERRUPTED, Context, common_options
from cellrail.cli.progress import bar
from cellrail.cli.running import exit_code, say_run, tell_result
from cellrail.run.jsontext import given_value
from cellrail_state.model import RunStatus


@click.command()
@click.argument("run", metavar="RUN", default="last")
@click.option("--step", metavar="STEP", help="The step that it waits behind.")
@click.option("--data", metavar="JSON|@FILE|-", help="What the next step gets.")
@common_options
def resume(*, context: Context, run: str, step: str | None, data: str | None) -> int:
    """Resume a suspended RUN, and go on with it."""
    value = given_value(data, "--data")
    app = context.app(run if run.endswith(".ipynb") else None)
    result = app.resume(run, step=step, data=value, progress=bar(context), tell=context.note)
    if result.status is RunStatus.RUNNING or app.store.is_owned(result.id):
        context.json(result.to_dict())
        if not result.is_live:
            context.say(f"run {result.id}: the answer is kept; the run goes on by itself")
        return 0
    return tell_result(context, result, None)


@click.command()
@click.argument("run", metavar="RUN", default="last")
@common_options
def cancel(*, context: Context, run: str) -> int:
    """Cancel a RUN that is suspended, or running on this machine."""
    app = context.app(run if run.endswith(".ipynb") else None)
    result = app.cancel(run, tell=context.note)
    if context.as_json:
        context.json(result.to_dict())
    if result.is_live:
        return 0
    if not context.as_json:
        say_run(context, result, None)
    return 0 if result.status is RunStatus.CANCELLED else exit_code(result)


@click.command()
@common_options
def tick(*, context: Context) -> int:
    """Fire what is due, once: runs whose wait is over, and the ticks of triggers.

    For cron, where no server does it.
    """
    done = context.app().tick(tell=context.note)
    plain = [
        one.run.to_dict()
        if one.run is not None
        else {"run_id": one.run_id, "error": {"message": one.refused, "hint": one.hint}}
        for one in done
    ]
    context.json({"runs": plain})
    code = 0
    for one in done:
        if one.run is None:
            code = 2
            context.note(f"run {one.run_id}: {one.refused}" if one.run_id else one.refused)
            if one.hint:
                context.note(f"hint: {one.hint}")
        else:
            if one.interrupted:
                code = INTERRUPTED
            if not context.as_json:
                say_run(context, one.run, None)
    if not done and not context.quiet:
        context.say("nothing is due")
    return code
