"""A run's executed notebook, rebuilt from the store alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cellrail.errors import UserError
from cellrail.notebook.parse import parse
from cellrail.run.output import write_atomically, write_notebook
from cellrail.views import Run, StepView, status_words
from cellrail_state.history import RunHistory
from cellrail_state.model import StepStatus

_SUFFIXES = (".ipynb", ".html")


def export(run: Run, history: RunHistory, output: Path) -> Path:
    """Write the executed notebook of a run.

    Kept cells bear a badge that names the run their outputs come from.

    Args:
        run: the run.
        history: its history.
        output: a file that ends in `.ipynb` or `.html`.

    Raises:
        UserError: another suffix.
    """
    if output.suffix not in _SUFFIXES:
        raise UserError(
            f"cannot export to {output.name!r}", hint="name a file that ends in .ipynb or .html"
        )
    notebook = executed_notebook(run, history)
    try:
        if output.suffix == ".html":
            from nbconvert import HTMLExporter

            body, _ = HTMLExporter().from_notebook_node(notebook)
            write_atomically(output, body.encode())
        else:
            write_notebook(notebook, output)
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}") from error
    return output


def executed_notebook(run: Run, history: RunHistory) -> Any:
    """The run's notebook as an nbformat node, with outputs and badges."""
    import nbformat

    plain = history.notebook()
    if plain is not None:
        notebook = nbformat.from_dict(plain)
        steps = parse(notebook, Path(run.flow)).steps
        indices = {step.number: step.cell_indices for step in steps}
    else:
        notebook, indices = _from_cells(run)
    notebook.metadata["cellrail"] = {"run": run.id, "flow": run.flow, "status": str(run.status)}
    for step in run.steps:
        cells = indices.get(step.number)
        if cells:
            _fill(notebook.cells[cells[-1]], step, history)
    return notebook


def _from_cells(run: Run) -> tuple[Any, dict[int, tuple[int, ...]]]:
    """A live run has no file of its own: its cells are what was executed, in the file's order."""
    import nbformat

    done = [step for step in run.steps if step.job_id]
    cells = [nbformat.v4.new_code_cell(step.source) for step in done]
    indices: dict[int, tuple[int, ...]] = {step.number: (place,) for place, step in enumerate(done)}
    return nbformat.v4.new_notebook(cells=cells), indices


def _fill(cell: Any, step: StepView, history: RunHistory) -> None:
    import nbformat

    outputs = [nbformat.from_dict(output) for output in step.outputs]
    if step.status is StepStatus.KEPT:
        outputs.insert(0, _badge(step.job_id.rpartition("/")[0]))
    cell["outputs"] = outputs
    cell["execution_count"] = step.execution_count
    state = history.state(step.number)
    cell["metadata"]["cellrail"] = {"job": step.job_id, "status": status_words(state)}


def _badge(run_id: str) -> Any:
    import nbformat

    text = f"kept from run {run_id}"
    style = (
        "display:inline-block;padding:0 .6em;border:1px solid currentColor;border-radius:.8em;"
        "font-size:.8em;opacity:.7"
    )
    return nbformat.v4.new_output(
        "display_data",
        data={"text/plain": text, "text/html": f'<span style="{style}">{text}</span>'},
        metadata={"cellrail": {"badge": "kept"}},
    )
