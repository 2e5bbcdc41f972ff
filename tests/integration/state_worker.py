"""Commits one step that sets a resource and flow user state, and is killed at a point of it.

Arguments: folder, point, run id, value. "none" for no death. Prints what the commit came to.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cellrail.run.desk import Job
from cellrail.run.desks import desk_of
from cellrail.run.recorder import Recorder
from cellrail_state.errors import StateConflict
from cellrail_state.model import JobFinished, StepStatus
from cellrail_state.testing import KillAt, first_record, open_store


def main(folder: str, point: str, run_id: str, value: str) -> None:
    # the journal's first append is the run's beginning
    points = None if point == "none" else KillAt(point, after=point.startswith("journal"))
    store = open_store(Path(folder), points=points)
    recorder = Recorder(store, first_record(run_id, steps=1))
    desk = desk_of(recorder, flow="etl.ipynb")
    desk.begin(Job(number=1, step="load", job_id=f"{run_id}/1"))
    for question in (
        {"name": "get_resource", "arguments": {"path": "f/x", "required": False}},
        {
            "name": "set_resource",
            "arguments": {"path": "f/x", "value": value, "resource_type": None},
        },
    ):
        answer = desk.reply({"id": 1, **question})
        assert "error" not in answer, answer
    try:
        with desk.committing(success=True) as effects:
            recorder.finished(
                JobFinished(time=1.0, step=1, job_id=f"{run_id}/1", status=StepStatus.SUCCESS,
                            started=1.0, effects=effects)
            )  # fmt: skip
    except StateConflict as error:
        print(error)
        return
    print("committed")


if __name__ == "__main__":
    main(*sys.argv[1:])
