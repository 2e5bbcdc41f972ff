"""A run under papermill's own command: `papermill --engine cellrail`.

Options come from `CELLRAIL_*` (`CELLRAIL_TO`, `CELLRAIL_LABELS`, `CELLRAIL_SECRET`, ...). The run
is recorded like any other; the exit code and the last write of the output are papermill's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellrail.app import App
from cellrail.errors import RunSuspended, UserError
from cellrail.run.client import Ending
from cellrail_state.model import RunStatus


class PapermillConductor:
    """Carries out a run that papermill's command asked for."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """Take papermill's own arguments (`input_path`, `execution_timeout`, ...)."""
        self._input = options.get("input_path")
        self._output = options.get("output_path")
        self._timeout = options.get("execution_timeout")

    def conduct(self, notebook: Any, *, kernel_name: str) -> Any:
        """Execute the notebook as papermill parameterised it.

        Raises:
            DeadKernelError: the kernel died.
            CellTimeoutError: a cell outlived `execution_timeout`.
            RunSuspended: the run waits, and is not done.
            KeyboardInterrupt: the run was interrupted.
        """
        if not isinstance(self._input, str) or "://" in self._input:
            message = f"cellrail runs notebooks from files, not {str(self._input)[:60]!r}"
            raise UserError(message)
        path = Path(self._input)
        app = App(notebook=path)
        launcher = app.launcher_for_papermill(
            path,
            notebook["metadata"].get("papermill", {}).get("parameters", {}),
            to=os.environ.get("CELLRAIL_TO"),
            labels=_labels(os.environ.get("CELLRAIL_LABELS", "")),
            secrets=tuple(filter(None, os.environ.get("CELLRAIL_SECRET", "").split(","))),
            cell_timeout=self._timeout,
            kernel=kernel_name,
            output=self._output,
        )
        conductor = launcher.conduct(notebook)
        outcome = conductor.outcome
        if outcome is not None:
            self._raise(outcome)
        return conductor.for_papermill()

    def _raise(self, outcome: Any) -> None:
        from nbclient.exceptions import CellTimeoutError, DeadKernelError

        if outcome.status is RunStatus.CANCELLED:
            raise KeyboardInterrupt
        if outcome.status is RunStatus.SUSPENDED:
            raise RunSuspended(
                f"the run is suspended: it {outcome.cause}",
                hint="`cellrail runs --status suspended` lists it; cellrail resume RUN",
            )
        ending = outcome.result.ending if outcome.result is not None else None
        if ending is Ending.DIED:
            raise DeadKernelError(outcome.cause)
        if ending in {Ending.TIMEOUT, Ending.OVERDUE}:
            raise CellTimeoutError(outcome.cause)
        if outcome.status is RunStatus.FAILED and ending is not Ending.ERROR:
            raise UserError(outcome.cause)


def _labels(text: str) -> dict[str, str]:
    pairs = [word.partition("=") for word in text.split(",") if word]
    return {key: value for key, _, value in pairs}
