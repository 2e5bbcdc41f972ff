"""`steps`, `runs`, `show`, `journal`, `diff`, `export` and `sql`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import click

from cellrail.cli.common import Context, common_options, count, moment, seconds, size, span, table
from cellrail.views import ChildView, ItemView, Run, StepView, TurnView, first_line, status_words
from cellrail_state.model import RunStatus

#: items of a loop that a run's listing shows
_LISTED = 20


@click.command()
@click.argument("notebook")
@common_options
def steps(*, context: Context, notebook: str) -> None:
    """List the steps of NOTEBOOK and check it; nothing runs."""
    flow = context.app(notebook).steps(notebook)
    context.json(
        {
            "notebook": notebook,
            "steps": [
                {
                    "number": step.number,
                    "name": step.name,
                    "label": step.label,
                    "cell_id": step.cell_id,
                    "options": str(step.options),
                    "tags": list(step.tags),
                    "reads": sorted(step.reads),
                    "writes": sorted(step.writes),
                    "first_line": first_line(step.source),
                }
                for step in flow.steps
            ],
            "parameters": [p.name for p in flow.parameters],
        }
    )
    context.say(
        table(
            ("step", "name", "options", "source"),
            [(f"#{s.number}", s.name, str(s.options), first_line(s.source)) for s in flow.steps],
        )
    )


@click.command()
@click.argument("notebook", required=False)
@click.option(
    "--status",
    type=click.Choice([status.value for status in RunStatus]),
    help="Only runs with this status.",
)
@click.option("--label", "labels", multiple=True, metavar="K=V", help="Only runs with this label.")
@click.option(
    "-p",
    "parameters",
    nargs=2,
    multiple=True,
    metavar="NAME VALUE",
    help="Only runs with this parameter.",
)
@click.option("--since", type=seconds, metavar="DUR", help="Only runs younger than this.")
@click.option(
    "--limit", type=click.IntRange(min=0), default=20, show_default=True, help="At most so many."
)
@common_options
def runs(
    *, context: Context, notebook: str | None, status: str | None, labels: tuple[str, ...],
    parameters: tuple[tuple[str, str], ...], since: float | None, limit: int,
) -> None:  # fmt: skip
    """List the newest runs (of NOTEBOOK)."""
    from cellrail.given import parse_labels, typed_value

    app = context.app(notebook)
    found = app.runs(
        notebook,
        status=status,
        labels=parse_labels(labels),
        parameters={name: typed_value(value) for name, value in parameters},
        since=None if since is None else app.clock() - since,
        limit=limit,
    )
    context.json({"runs": [row.to_dict() for row in found], **_stale(context, found.behind)})
    context.say(
        table(
            ("run", "flow", "status", "started", "time", "kind", "labels"),
            [
                (
                    row.run_id,
                    row.flow,
                    row.status,
                    moment(row.started),
                    span(row.seconds),
                    row.kind,
                    " ".join(f"{k}={v}" for k, v in sorted(row.labels.items())),
                )
                for row in found
            ],
        )
        if found
        else "no runs"
    )


def _stale(context: Context, behind: int) -> dict[str, int]:
    """Say how many runs an answer does not know; for `--json`, the same."""
    if not behind:
        return {}
    context.note(
        f"stale: the catalog is in use or damaged, and the newest records of {behind} runs are "
        "not in this answer; ask again later, or: cellrail doctor --fix"
    )
    return {"behind": behind}


@click.command()
@click.argument("run", default="last")
@click.argument("step", required=False)
@click.option("--vars", "variables", is_flag=True, help="The variables after the step.")
@common_options
def show(*, context: Context, run: str, step: str | None, variables: bool) -> None:
    """Show RUN, or one STEP of it: source, outputs, traceback, variables."""
    found = context.app(run if run.endswith(".ipynb") else None).show(run)
    if step is None:
        last = _last_done(found) if variables else None
        data = found.to_dict()
        if last is not None:
            data["variables"] = [v.to_dict() for v in last.variables.values()]
        context.json(data)
        _say_run(context, found)
        if last is not None:
            _say_variables(context, last)
        return
    view = found[step]
    turns = [] if "[" in step else [turn.to_dict() for turn in view.turns_here]
    context.json(
        {
            "run_id": found.id,
            **view.to_dict(),
            **({"turns": turns} if turns else {}),
            "not_covered": list(view.not_covered),
            "source": view.source,
            "outputs": view.outputs,
            "traceback": list(view.traceback),
            "variables": [v.to_dict() for v in view.variables.values()],
        }
    )
    _say_step(context, view, variables=variables)
    if turns:
        _say_turns(context, view.turns_here)


def _last_done(run: Run) -> StepView | None:
    done = [step for step in run.steps if step.job_id and step.seconds is not None]
    return done[-1] if done else None


def _say_run(context: Context, run: Run) -> None:
    origin = f", restarted from {run.origin}" if run.origin else ""
    context.say(f"run {run.id} of {run.flow}: {run.status}{origin}")
    if run.cause:
        context.say(f"cause: {run.cause}")
    if run.epoch > 1:
        context.say(f"continued {count(run.epoch - 1, 'time')} (cellrail journal {run.id})")
    told = {**run.parameters}
    if told:
        context.say("parameters: " + ", ".join(f"{k}={v!r}" for k, v in told.items()))
    if run.labels:
        context.say("labels: " + ", ".join(f"{k}={v}" for k, v in run.labels.items()))
    context.say(f"started {moment(run.started)}, took {span(run.seconds) or 'so far unknown'}")
    context.say(
        table(
            ("step", "name", "status", "time", "stored", "job", "source"),
            [
                (
                    f"#{s.number}",
                    s.name,
                    status_words(s._state),  # noqa: SLF001
                    span(s.seconds),
                    size(s.stored_bytes) if s.seconds is not None else "",
                    s.job_id,
                    first_line(s.source),
                )
                for s in run.steps
            ],
        )
    )
    _say_children(context, run.children)
    for step in run.steps:
        items = run.items(step)
        if items:
            _say_items(context, step, items)


def _say_children(context: Context, children: Sequence[ChildView]) -> None:
    """List the runs that steps have called."""
    if not children:
        return
    context.say("\ncalled runs")
    context.say(
        table(
            ("run", "notebook", "status", "step", "key"),
            [(c.run_id, c.notebook, c.status or "gone", c.step, c.key) for c in children],
        )
    )


def _say_items(context: Context, step: StepView, items: Sequence[ItemView]) -> None:
    """List a loop's items; where there are too many, those that did not end well first."""
    counts = Counter(item.status for item in items)
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    context.say(f"\nitems of {step.label}: {told}")
    shown = sorted(items, key=lambda item: item.status.startswith(("success", "kept")))
    shown = shown[:_LISTED] if len(items) > _LISTED else list(items)
    context.say(
        table(
            ("item", "status", "time", "cause"),
            [(i.address, i.status, span(i.seconds), _short(i.cause)) for i in shown],
        )
    )
    if len(shown) < len(items):
        left = len(items) - len(shown)
        context.say(f"and {left} more; all of them: cellrail show RUN {step.label}")


def _say_turns(context: Context, turns: Sequence[TurnView]) -> None:
    """List a step's jobs in loops."""
    context.say(
        table(
            ("item", "status", "time", "job", "cause"),
            [
                (
                    turn.address,
                    status_words(turn._state),  # noqa: SLF001
                    span(turn.seconds),
                    turn.job_id,
                    _short(turn.cause),
                )
                for turn in turns
            ],
        )
    )


def _short(cause: str) -> str:
    return cause.partition("\n")[0][:60]


def _say_step(context: Context, step: StepView, *, variables: bool) -> None:
    context.say(f"step #{step.number} {step.name}: {status_words(step._state)}")  # noqa: SLF001
    if step.cause:
        context.say(f"cause: {step.cause}")
    if step.job_id:
        context.say(f"job {step.job_id}, {span(step.seconds)}, {size(step.stored_bytes)} stored")
    if step.uncached:
        context.say(f"not kept (--cache): {step.uncached}")
    context.say("\n" + step.source + "\n")
    for output in step.outputs:
        context.say(_output_text(output))
    if variables:
        _say_variables(context, step)


def _output_text(output: dict[str, Any]) -> str:
    if output.get("output_type") == "stream":
        return str(output["text"]).rstrip("\n")
    if output.get("output_type") == "error":
        return "\n".join(output.get("traceback", ()))
    data = output.get("data", {})
    text = data.get("text/plain")
    if text is not None:
        return text if isinstance(text, str) else "".join(text)
    return f"<{', '.join(data) or 'output'}>"


def _say_variables(context: Context, step: StepView) -> None:
    context.say(
        table(
            ("variable", "verdict", "type", "bytes", "value"),
            [
                (
                    v.name,
                    f"{v.verdict}: {v.record.reason}" if v.record.reason else str(v.verdict),
                    v.record.type,
                    size(v.record.size),
                    v.record.preview
                    + (f" (not covered: {v.record.not_covered})" if v.record.not_covered else ""),
                )
                for v in step.variables.values()
            ],
        )
    )
    if step.not_covered:
        context.say(f"not covered: {', '.join(step.not_covered)}")
    if step.not_restorable:
        context.say(f"not restorable after this step: {step.not_restorable}")


@click.command()
@click.argument("run", default="last")
@click.option("--follow", is_flag=True, help="Go on until the run has ended.")
@common_options
def journal(*, context: Context, run: str, follow: bool) -> None:
    """Print RUN as JSON lines, in the order things happened."""
    app = context.app(run if run.endswith(".ipynb") else None)
    for line in app.journal(run, follow=follow):
        click.echo(json.dumps(line, ensure_ascii=False))


@click.command()
@click.argument("run_a")
@click.argument("run_b")
@common_options
def diff(*, context: Context, run_a: str, run_b: str) -> int:
    """Compare two runs step by step; exit 1 where they differ."""
    found = context.app().diff(run_a, run_b)
    context.json(found.to_dict())
    differing = [step for step in found.steps if not step.equal]
    rows = [(step.step, step.told) for step in differing]
    context.say(table(("step", "difference"), rows) if rows else "equal")
    return 1 if differing else 0


@click.command()
@click.argument("run")
@click.argument("output")
@common_options
def export(*, context: Context, run: str, output: str) -> None:
    """Rebuild RUN's executed notebook as OUTPUT (.ipynb or .html) from the store alone."""
    path = context.app(run if run.endswith(".ipynb") else None).export(run, output)
    context.json({"output": str(path)})
    context.say(f"wrote {path}")


@click.command()
@click.argument("query")
@click.option("--run", metavar="RUN", help="Query this run's checkpointed DataFrames by name.")
@click.option("--step", metavar="STEP", help="With --run: as they stood after this step.")
@common_options
def sql(*, context: Context, query: str, run: str | None, step: str | None) -> None:
    """Run an SQL QUERY over the catalog, or over a run's DataFrames."""
    if step is not None and run is None:
        raise click.UsageError("--step goes with --run")
    app = context.app()
    rows = app.sql(query, run=run, step=step)
    behind = 0 if run is not None else app.store.catalog.behind
    context.json({"rows": rows, **_stale(context, behind)})
    if rows:
        context.say(table(tuple(rows[0]), [tuple(row.values()) for row in rows]))
    else:
        context.say("no rows")
