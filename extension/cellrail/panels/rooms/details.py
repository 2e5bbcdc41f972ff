"""What a step, or an item of a loop, left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cellrail.panels.rooms.outputs import pieces_of
from cellrail.panels.rooms.runs import clipped, shown
from cellrail.views import Run, StepView, VariableView
from cellrail_state.model import StepStatus


def detail_of(run: Run, step: StepView, address: str) -> dict[str, Any]:
    """Everything about it but the values of its variables.

    Args:
        run: the run.
        step: the step, or the item.
        address: how it was asked for.
    """
    done = step.seconds is not None
    variables = list(step.variables.values()) if done else []
    return {
        "address": address,
        "label": step.label,
        "number": step.number,
        "status": str(step.status),
        "words": step.status_words,
        "cause": step.cause,
        "why": step.why,
        "seconds": step.seconds,
        "source": step.source,
        "outputs": pieces_of(step.outputs) if step.job_id else [],
        "traceback": "\n".join(step.traceback),
        "attempts": _attempts(run, step),
        "variables": _variables(step, variables),
        # nothing of a step that failed is kept: what is shown stood before it
        "before": step.status is StepStatus.FAILED and not step.written,
        "not_restorable": step.not_restorable if done else "",
        "not_covered": list(step.not_covered) if done else [],
        "effects": list(step.effects) if done else [],
        "state": [[key, shown(value)] for key, value in step.user_state.items()] if done else [],
        "shared": list(step.shared_files) if done else [],
        "woke_by": step.woke_by or "",
        "resume_data": _json(step.resume_data),
        "waits_until": step.waits_until,
        "decided": _decided(run, step),
        "job": step.job_id,
        "kept_from": _kept_from(run, step),
        "execution_count": step.execution_count,
        "bytes": step.stored_bytes,
    }


def _attempts(run: Run, step: StepView) -> list[dict[str, Any]]:
    """The executions of a step that was tried, or asked for, more than once."""
    turns = getattr(step, "turns", ())
    found = [j for j in run.history.jobs if j.step == step.number and j.turns == turns]
    # the header of a loop has a job before its items, and where it collects another behind them
    jobs = {(job.runs, job.attempt): job for job in found}.values()
    if len(jobs) < 2:
        return []
    return [
        {
            "attempt": job.attempt,
            "runs": job.runs,
            "status": str(job.status),
            "started": job.started,
            "seconds": job.seconds,
            "error": f"{job.error.name}: {clipped(job.error.value, 300)}"
            if job.error
            else job.cause,
        }
        for job in jobs
    ]


def _variables(step: StepView, views: Sequence[VariableView]) -> list[dict[str, Any]]:
    """Variables, those first that the step wrote."""
    written = step.written
    told = [
        {
            "name": view.name,
            "type": view.record.type,
            "bytes": view.record.size,
            "verdict": str(view.verdict),
            "reason": view.record.reason,
            "preview": clipped(view.record.preview, 200),
            "not_covered": view.record.not_covered,
            "written": view.name in written,
        }
        for view in views
    ]
    return sorted(told, key=_place)


def _place(one: dict[str, Any]) -> tuple[bool, bool, bool, str]:
    """What the step wrote comes first; modules and what IPython keeps (`Out[3]`) come last."""
    return not one["name"].isidentifier(), not one["written"], one["type"] == "module", one["name"]


def _decided(run: Run, step: StepView) -> list[dict[str, Any]]:
    """The values of the expressions on the step's line."""
    turns = getattr(step, "turns", None)
    return [
        {"purpose": told.purpose, "expression": told.expression, "value": told.value,
         "keys": len(told.keys)}
        for (number, _, where), told in run.history.decided.items()
        if number == step.number and (turns is None or where == turns[: len(where)])
    ][-20:]  # fmt: skip


def _kept_from(run: Run, step: StepView) -> str:
    """The run that has executed it, where that is another one."""
    origin = step.job_id.rpartition("/")[0]
    return origin if origin != run.id else ""


def _json(value: Any) -> str:
    return "" if value is None else json.dumps(value, indent=1, ensure_ascii=False)
