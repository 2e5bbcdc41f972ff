"""The steps of a run as rows: what feeds what, what became of each, and when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from cellrail.panels.rooms.runs import clipped
from cellrail.views import Run, StepView, first_line
from cellrail_state.model import JobFinished, StepStatus


def edges_of(steps: Sequence[StepView]) -> list[list[Any]]:
    """What feeds what: `[from, to, names]`, by the numbers of steps.

    A step reads a name from the last step above it that wrote it: as its code says, and as its
    checkpoint saw. Modules are left out: nearly every step reads those.
    """
    writer: dict[str, int] = {}
    modules: set[str] = set()
    found: dict[tuple[int, int], list[str]] = {}
    for step in steps:
        reads, writes, imported = step.names
        modules |= imported
        for name in sorted(reads - modules):
            if name in writer:
                found.setdefault((writer[name], step.number), []).append(name)
        writer.update(dict.fromkeys(writes, step.number))
    return [[a, b, names] for (a, b), names in sorted(found.items())]


def row_of(run: Run, step: StepView) -> dict[str, Any]:
    """A step's row."""
    items = Counter(item.status.partition(" ")[0] for item in run.items(step))
    own = step.job_id.startswith(f"{run.id}/")
    return {
        "number": step.number,
        "label": step.label,
        "line": first_line(step.source),
        "status": str(step.status),
        "words": step.status_words,
        "cause": clipped(step.cause, 300),
        "seconds": step.seconds,
        "bars": _bars(run, step),
        "fired": step.fired,
        "own": own,
        "items": dict(items),
        "until": step.waits_until,
        "restorable": not step.not_restorable if step.seconds is not None else None,
        "always": "--always" in step.options,
        "options": step.options,
    }


def _bars(run: Run, step: StepView) -> list[list[Any]]:
    """When the step's jobs of this run were executed: `[from, to, status]`.

    Of a loop, whose items may be very many, its first and last moment is one bar.
    """
    jobs = [job for job in run.history.jobs if job.step == step.number and not job.cached]
    if len(jobs) > 1 and any(job.turns for job in jobs):
        status = "running" if step.status is StepStatus.RUNNING else str(step.status)
        return [[jobs[0].started, max(_end(job) for job in jobs), status]]
    bars: list[list[Any]] = [[job.started, _end(job), str(job.status)] for job in jobs]
    if step.status is StepStatus.RUNNING and step.fired is not None:
        bars.append([step.fired, None, "running"])
    return bars


def _end(job: JobFinished) -> float:
    return job.started + job.seconds
