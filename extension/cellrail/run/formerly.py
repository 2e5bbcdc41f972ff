"""What was so of a run while each of its jobs was executed, as its journal tells."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from cellrail_state.model import JobFinished, Record, RunContinued, RunStarted, StepChosen


def facts_by_job(records: Iterable[Record]) -> dict[str, dict[str, Any]]:
    """`flow.forced` and `flow.recovering` as each job was told, by its id.

    Args:
        records: of the run that made the jobs.
    """
    found: dict[str, dict[str, Any]] = {}
    forced = recovering = False
    named: Collection[int] = ()
    #: the step that executes first since the run was recovered
    first: tuple[Any, ...] | None = None
    for record in records:
        if isinstance(record, RunStarted):
            named = record.options.get("forced", ())
        elif isinstance(record, StepChosen):
            forced = record.forced
        elif isinstance(record, RunContinued):
            recovering, first = record.reason == "recover", None
        elif isinstance(record, JobFinished):
            place = record.step, record.turns
            # an `--always` step that runs again is none of what the run goes on with
            first = first or (None if record.replaces else place)
            found[record.job_id] = {
                "forced": forced or record.step in named,
                "recovering": recovering and first in {None, place},
            }
    return found
