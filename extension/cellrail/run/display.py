"""What the notebook that is being executed shows: outputs, turn by turn, and whose job they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cellrail.notebook.model import Step
from cellrail.run.masking import Masker
from cellrail.run.streams import coalesce
from cellrail_state.model import JobFinished, StepError


class Display:
    """The cells of the notebook; each shows its step's last job, and of a loop all its turns."""

    def __init__(self, cells: Sequence[Any], masker: Masker) -> None:
        """Nothing is shown yet.

        Args:
            cells: of the notebook; receive outputs.
            masker: hides secrets.
        """
        self._cells, self._masker = cells, masker
        #: outputs of earlier turns, by cell index
        self._earlier: dict[int, list[Any]] = {}

    def cells_of(self, step: Step) -> Sequence[tuple[int, Any]]:
        """A step's cells, with their places."""
        return [(index, self._cells[index]) for index in step.cell_indices]

    def clear(self, index: int, job_id: str, status: str, *, turns: bool) -> None:
        """A job begins in a cell; with `turns` what it showed comes back at the job's end."""
        cell = self._cells[index]
        if turns:
            self._earlier.setdefault(index, cell["outputs"])
        cell["outputs"], cell["execution_count"] = [], None
        stamp(cell, job_id, status)

    def show(self, step: Step, outputs: Sequence[Mapping[str, Any]]) -> None:
        """Show outputs below those that are there."""
        cell = self._last(step)
        cell["outputs"] = [*cell["outputs"], *nodes(outputs)]

    def show_job(self, step: Step, job: JobFinished, outputs: Sequence[Mapping[str, Any]]) -> None:
        """Show a job that an earlier owner of the run committed."""
        self.show(step, outputs)
        cell = self._last(step)
        cell["execution_count"] = job.execution_count
        stamp(cell, job.job_id, str(job.status))

    def show_error(self, step: Step, name: str, value: str) -> StepError:
        """Show under a cell what its own code has not raised."""
        error = StepError(name=name, value=value, traceback=(f"{name}: {value}",))
        output = {"output_type": "error", "ename": name, "evalue": value}
        self.show(step, [{**output, "traceback": [*error.traceback]}])
        return error

    def ended(self, step: Step, job_id: str, status: str) -> None:
        """A step's job has ended so."""
        stamp(self._last(step), job_id, status)

    def outputs(self, step: Step) -> list[dict[str, Any]]:
        """The step's outputs as they are kept, in the cells too: streams joined, secrets masked."""
        outputs: list[dict[str, Any]] = []
        for _, cell in self.cells_of(step):
            kept = self._masker.value(coalesce(cell["outputs"]))
            cell["outputs"] = nodes(kept)
            outputs += kept
        return outputs

    def show_earlier_turns(self, step: Step, *, final: bool) -> None:
        """Show what earlier turns did above a job's own outputs; `final`: no turn follows."""
        for index, cell in self.cells_of(step):
            cell["outputs"] = [*self._earlier.get(index, ()), *cell["outputs"]]
            if final:
                self._earlier.pop(index, None)

    def _last(self, step: Step) -> Any:
        return self._cells[step.cell_indices[-1]]


def nodes(outputs: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Outputs as nbformat nodes."""
    from nbformat import from_dict

    return [from_dict(dict(output)) for output in outputs]


def stamp(cell: Any, job_id: str, status: str) -> None:
    """Say in a cell's metadata which job it shows."""
    known = cell["metadata"].get("cellrail", {})
    cell["metadata"]["cellrail"] = {**known, "job": job_id, "status": status}
