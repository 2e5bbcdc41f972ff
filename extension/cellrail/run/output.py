"""The executed notebook on disk: written whole or not at all, and not once per cell.

Each write replaces the file atomically. While a run goes on it is refreshed so rarely that writing
takes a small share of the time, however large the notebook grows.
"""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import Any

_SHARE = 20.0
_INTERVAL_SECONDS = 2.0


def write_notebook(notebook: Any, path: Path) -> None:
    """Write an nbformat notebook to `path`, atomically and durably.

    Raises:
        OSError: the folder cannot be written.
    """
    import nbformat

    write_atomically(path, nbformat.writes(notebook).encode() + b"\n")


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file whole: a reader, or a crash, sees the old content or the new."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class OutputFile:
    """Keeps a file up to date with a notebook that is being executed."""

    def __init__(self, path: Path, *, interval: float = _INTERVAL_SECONDS) -> None:
        self._path = path
        self._interval = interval
        self._due = time.monotonic() + interval

    def refresh(self, notebook: Any) -> None:
        """Write if it is time to."""
        started = time.monotonic()
        if started < self._due:
            return
        write_notebook(notebook, self._path)
        ended = time.monotonic()
        self._due = ended + max(self._interval, _SHARE * (ended - started))

    def finish(self, notebook: Any) -> None:
        """Write the last state."""
        write_notebook(notebook, self._path)
