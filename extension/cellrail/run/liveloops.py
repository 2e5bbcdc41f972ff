"""Loops over several cells in an open notebook: which cells the header's execution executes.

The kernel gets one cell at a time, and never those below it. So they are read from the notebook's
file, as it is saved, and only if the header is there as it is executed now.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from cellrail.errors import CellrailError, UserError
from cellrail.notebook.blocks import Block, blocks_of, mistakes
from cellrail.notebook.model import Step
from cellrail.notebook.parse import Problem, load, read_steps
from cellrail.run.live import LiveStep, StepBook


def loop_of(
    cell: LiveStep, notebook: Path | None, book: StepBook
) -> tuple[Block, dict[int, LiveStep]]:
    """What the execution of a cell executes, and the cells of that by number.

    Args:
        cell: the cell.
        notebook: its notebook, where the front end tells.
        book: numbers of steps.

    Raises:
        UserError: it heads a loop over several cells, which are not saved, or wrong.
    """
    alone = Block(step=cell.step), {cell.step.number: cell}
    if not cell.step.options.loops:
        return alone
    path = notebook if notebook is not None else _by_source(cell.info.source, Path.cwd())
    steps, problems = _read(path) if path is not None else ([], [])
    if path is None or not any(step.options.in_ == cell.step.name for step in steps):
        return alone
    wrong = [str(problem) for problem in problems]
    wrong += [f"cell #{step.number}: {told}" for step, told in mistakes(steps)]
    if wrong:
        raise UserError(f"{wrong[0]} (as saved in {path.name})")
    return _found(cell, steps, book)


def _read(path: Path) -> tuple[list[Step], list[Problem]]:
    """The notebook's steps as they are saved; none where it is not."""
    try:
        return read_steps(load(path))
    except CellrailError:
        return [], []


def _by_source(source: str, folder: Path) -> Path | None:
    """The notebook of a folder with this cell: nbval and nbconvert tell no name.

    Of several one will do if they are the same from that cell on: what papermill writes beside its
    source is.
    """
    found: list[tuple[Path, list[str]]] = []
    for path in sorted(folder.glob("*.ipynb")):
        try:
            cells: Sequence[Any] = load(path)["cells"]
        except CellrailError:
            continue
        codes = ["".join(c.get("source", "")) for c in cells if c["cell_type"] == "code"]
        if source in codes:
            found.append((path, codes[codes.index(source) :]))
    alike = bool(found) and all(codes == found[0][1] for _, codes in found)
    return found[0][0] if alike else None


def _found(
    cell: LiveStep, steps: Sequence[Step], book: StepBook
) -> tuple[Block, dict[int, LiveStep]]:
    name = cell.step.name
    saved = next((step for step in steps if step.name == name), None)
    if saved is None or saved.source != cell.info.source:
        raise UserError(
            f"the loop {name} is not saved as it is: save the notebook, then execute it"
        )
    place = steps.index(saved)
    block = blocks_of(steps[place:])[0]
    cells = {}
    for step in block.steps():
        known = book.look_up(step.source, step.cell_id)
        cells[step.number] = known if step is not saved else cell
    return _numbered(block, cells), {known.step.number: known for known in cells.values()}


def _numbered(block: Block, cells: dict[int, LiveStep]) -> Block:
    """The block with the numbers that its steps have in this run."""
    number = cells[block.step.number].step.number
    step = msgspec.structs.replace(block.step, number=number)
    return Block(step=step, body=tuple(_numbered(inner, cells) for inner in block.body))
