"""`run`, `restart` and `rerun`."""

from __future__ import annotations

import sys
from typing import Any

import click

from cellrail.cli.common import Context, common_options, moment, seconds, size, span
from cellrail.cli.parameters import parameter_options
from cellrail.cli.progress import bar
from cellrail.notebook.plan import Plan
from cellrail.views import Run
from cellrail_state.model import RunStatus

EXIT_CODES = {
    RunStatus.SUCCESS: 0,
    RunStatus.FAILED: 1,
    RunStatus.SUSPENDED: 3,
    RunStatus.CANCELLED: 130,
}
#: of a run that somebody has cancelled, not interrupted
CANCELLED = 4
#: bytes of a store that says how large it is
LARGE_STORE = 10_000_000_000
#: checkpoints that could not be written, of those that are told
_FEW = 3


@click.command()
@click.argument("notebook")
@click.argument("output", required=False)
@parameter_options
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="NAME",
    help="A secret parameter: from -p, the environment variable NAME, or asked for.",
)
@click.option("--to", metavar="STEP", help="Stop after this step; later ones stay pending.")
@click.option(
    "--only",
    metavar="STEP",
    help="Execute one step on the namespace before it, from an earlier run.",
)
@click.option("--base", metavar="RUN", help="With --only: the run whose namespace is used.")
@click.option("--cwd", metavar="DIR", help="Working directory (default: the notebook's folder).")
@click.option("--timeout", type=seconds, metavar="DUR", help="Limit for the whole run.")
@click.option("-k", "--kernel", metavar="NAME", help="Kernel (default: the notebook's).")
@click.option(
    "--strict",
    is_flag=True,
    default=None,
    help="A checkpoint that cannot be written fails its step.",
)
@click.option(
    "--shared", is_flag=True, help="Make ./shared the run's shared folder while the run lasts."
)
@click.option("--plan", is_flag=True, help="Show what would happen; run nothing.")
@click.option(
    "--kernels",
    type=click.Choice(["cold", "warm"]),
    default="cold",
    help="Start kernels cold (default), or fork them from a process that has the imports done.",
)
@click.option("--detach", is_flag=True, help="Run it in a process of its own; return at once.")
@common_options
def run(
    *, context: Context, notebook: str, output: str | None, secrets: tuple[str, ...],
    parameters: dict[str, Any], **options: Any,
) -> int:  # fmt: skip
    """Run NOTEBOOK as a flow; write the executed notebook to OUTPUT."""
    app = context.app(notebook)
    parameters = {**parameters, **secret_values(secrets, parameters)}
    result = app.run(
        notebook, output, parameters=parameters, secrets=secrets,
        progress=None if options["detach"] else bar(context), **options,
    )  # fmt: skip
    return tell_result(context, result, output, detached=options["detach"])


@click.command()
@click.argument("run", metavar="RUN")
@click.argument("output", required=False)
@parameter_options
@click.option(
    "--from",
    "from_step",
    metavar="STEP",
    help="The cut (default: the first step that is not success, kept or skipped).",
)
@click.option("--to", metavar="STEP", help="Stop after this step; later ones stay pending.")
@click.option("--force", is_flag=True, help="Keep stale steps as they were.")
@click.option("--widen", is_flag=True, help="Move the cut to the first stale step.")
@click.option(
    "--state",
    type=click.Choice(["origin", "current"]),
    default="origin",
    help="See states and resources as in the origin (default), or as they are now.",
)
@click.option("--cwd", metavar="DIR", help="Working directory (default: the origin's).")
@click.option("--timeout", type=seconds, metavar="DUR", help="Limit for the whole run.")
@click.option("--plan", is_flag=True, help="Show what would happen and why; run nothing.")
@click.option("--failed-only", is_flag=True, help="Of a loop, execute the items that failed.")
@click.option("--reeval", is_flag=True, help="Evaluate the items of the loop anew.")
@click.option("--cancel-origin", is_flag=True, help="Cancel RUN where it is suspended.")
@click.option("--keep-waiting", is_flag=True, help="Leave RUN suspended where it is.")
@click.option("--detach", is_flag=True, help="Run it in a process of its own; return at once.")
@common_options
def restart(
    *, context: Context, run: str, output: str | None, **options: Any,
) -> int:  # fmt: skip
    """Restart RUN (an id, `last`, or a notebook's path) from a step, as a new run."""
    app = context.app(run if run.endswith(".ipynb") else None)
    result = app.restart(
        run, output, progress=None if options["detach"] else bar(context), **options
    )
    return tell_result(context, result, output, detached=options["detach"])


@click.command()
@click.argument("run", metavar="RUN")
@click.argument("output", required=False)
@parameter_options
@click.option(
    "--changed",
    multiple=True,
    metavar="WHAT",
    help="step:NAME, var:NAME, param:NAME, file:PATH, package:NAME or @FILE; repeatable "
    "(default: whatever is found to differ).",
)
@click.option("--cwd", metavar="DIR", help="Working directory (default: the origin's).")
@click.option("--timeout", type=seconds, metavar="DUR", help="Limit for the whole run.")
@click.option("--plan", is_flag=True, help="Show what would happen and why; run nothing.")
@click.option("--detach", is_flag=True, help="Run it in a process of its own; return at once.")
@common_options
def rerun(*, context: Context, run: str, output: str | None, **options: Any) -> int:
    """Execute what changed since RUN (an id, `last`, or a notebook's path), as a new run."""
    app = context.app(run if run.endswith(".ipynb") else None)
    result = app.rerun(run, output, progress=None if options["detach"] else bar(context), **options)
    return tell_result(context, result, output, detached=options["detach"])


def secret_values(names: tuple[str, ...], given: dict[str, Any]) -> dict[str, str]:
    """Values of secret parameters that the command line does not hold."""
    import os

    values = {}
    for name in names:
        if name in given:
            continue
        if name in os.environ:
            values[name] = os.environ[name]
        elif sys.stdin.isatty():
            values[name] = click.prompt(f"secret {name}", hide_input=True, err=True)
        else:
            raise click.UsageError(
                f"--secret {name}: give it with -p, or in the environment variable {name}"
            )
    return values


def tell_result(
    context: Context, result: Run | Plan, output: str | None, *, detached: bool = False
) -> int:
    """Say what a run came to, or would; the exit code."""
    if isinstance(result, Plan):
        context.json({"plan": result.to_dict()})
        context.say("\n".join(result.lines()))
        return 2 if result.refusals else 0
    if detached:
        context.json(result.to_dict())
        context.say(f"run {result.id}: in the background; cellrail show {result.id}")
        return 0
    if context.as_json:
        context.json(result.to_dict())
    else:
        say_run(context, result, output)
    return exit_code(result)


def exit_code(run: Run) -> int:
    """The exit code for what a run came to."""
    if run.status is RunStatus.CANCELLED and not run.was_interrupted:
        return CANCELLED
    return EXIT_CODES.get(run.status, 1)


def say_run(context: Context, run: Run, output: str | None) -> None:
    """Say what a run came to."""
    steps = run.steps
    kept = sum(step.status == "kept" for step in steps)
    executed = sum(step.status in {"success", "failed"} for step in steps)
    words = f"run {run.id}: {run.status}, {executed} executed"
    words += f", {kept} kept" if kept else ""
    words += f", {span(run.seconds)}" if run.seconds is not None else ""
    context.say(words)
    broken = [
        step
        for step in steps
        if step.status in {"failed", "cancelled"}
        and not step._state.accepted  # noqa: SLF001
        and not step.ended_inside
    ]
    for step in broken:
        for line in step.traceback:
            context.note(line)
        last = run.ended_at.rpartition("/")[2]
        mine = last == step.label or last.startswith(f"{step.label}[")
        context.note(f"step {run.ended_at if mine else step.label} {step.status}: {step.cause}")
    for step in [step for step in steps if step.unkept][:_FEW]:
        context.note(f"no checkpoint behind step {step.label}: {step.unkept}")
    if run.status in {RunStatus.FAILED, RunStatus.CANCELLED}:
        if run.cause and not broken:
            context.note(run.cause)
        context.note(f"go on with: cellrail restart {run.id}")
    if run.status is RunStatus.SUSPENDED:
        until = next((s.waits_until for s in steps if s.waits_until is not None), None)
        context.note(f"it {run.cause}" + (f", at most until {moment(until)}" if until else ""))
        context.note(f"go on with: cellrail resume {run.id}")
    if output is not None and not context.quiet:
        context.say(f"wrote {output}")
    held = context.opened.store_bytes() if context.opened is not None else 0
    if held > LARGE_STORE:
        context.note(f"the store holds {size(held)}; `cellrail prune --plan` tells what may go")
