"""Writes the notebooks that are measured."""

from __future__ import annotations

from pathlib import Path

import nbformat


def write_notebook(path: Path, *sources: str, parameters: int | None = None) -> Path:
    """Write a notebook with these cells.

    Args:
        path: where.
        sources: of its cells.
        parameters: index of the cell that holds its parameters; None for none.
    """
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])
    if parameters is not None:
        notebook.cells[parameters].metadata["tags"] = ["parameters"]
    notebook.metadata["kernelspec"] = {
        "name": "python3", "display_name": "Python 3", "language": "python",
    }  # fmt: skip
    nbformat.write(notebook, path)
    return path


def write_trivial(path: Path, cells: int) -> Path:
    """Write a notebook with so many trivial cells: numbers, prints, short lists and dicts."""
    sources = [
        (f"x_{i} = {i}", f"print({i})", f"y_{i} = [1, 2, {i}]", f"d_{i} = {{'a': {i}}}")[i % 4]
        for i in range(cells - 1)
    ]
    # the last one tells when it runs, for the latency of a restart
    sources.append("import pathlib, time\n_ = pathlib.Path('ran').write_text(str(time.time()))")
    return write_notebook(path, *sources)
