"""`recover`."""

from __future__ import annotations

import click

from cellrail.app.recovering import Recovered
from cellrail.cli.common import Context, common_options, moment, table
from cellrail.cli.progress import bar
from cellrail.cli.running import exit_code, say_run, tell_result
from cellrail.views import RunList


@click.command()
@click.argument("run", metavar="RUN", required=False)
@click.option("--all", "all_", is_flag=True, help="Every run that is interrupted, oldest first.")
@click.option("--plan", is_flag=True, help="Show what would happen; change nothing.")
@common_options
def recover(*, context: Context, run: str | None, all_: bool, plan: bool) -> int:
    """Go on with RUN after a crash, as the same run, from its first unfinished step.

    Without RUN and --all: list the runs that are interrupted.
    """
    if run is not None and all_:
        raise click.UsageError("RUN and --all exclude one another")
    app = context.app(run if run is not None and run.endswith(".ipynb") else None)
    if run is not None:
        if plan:
            return tell_result(context, app.recover(run, plan=True), None)
        return tell_result(
            context, app.recover(run, progress=bar(context), tell=context.note), None
        )
    if not all_:
        return _list(context, app.recover())
    done = app.recover(all=True, plan=plan, progress=bar(context), tell=context.note)
    return _tell_all(context, done) if done else _list(context, app.recover())


def _list(context: Context, found: RunList) -> int:
    context.json({"runs": [row.to_dict() for row in found]})
    if found:
        rows = [(row.run_id, row.flow, moment(row.started)) for row in found]
        context.say(table(("interrupted", "flow", "started"), rows))
        context.note("go on with: cellrail recover RUN, or --all")
    else:
        context.say("no run can be recovered" if found.live else "no run is interrupted")
    if found.live:
        context.note(found.live_told)
    return 0


def _tell_all(context: Context, done: list[Recovered]) -> int:
    context.json({"runs": [_plain(one) for one in done]})
    code = 0
    for one in done:
        if one.run is not None:
            code = max(code, exit_code(one.run))
            if not context.as_json:
                say_run(context, one.run, None)
        elif one.plan is not None:
            code = max(code, 2 if one.plan.refusals else 0)
            context.say("\n".join([f"run {one.run_id}", *one.plan.lines()]))
        else:
            code = max(code, 2)
            context.note(f"run {one.run_id}: {one.refused}")
            if one.hint:
                context.note(f"hint: {one.hint}")
    return code


def _plain(one: Recovered) -> dict[str, object]:
    if one.run is not None:
        return one.run.to_dict()
    if one.plan is not None:
        return {"run_id": one.run_id, "plan": one.plan.to_dict()}
    return {"run_id": one.run_id, "error": {"message": one.refused, "hint": one.hint}}
