"""Use case: a run that was begun with `--detach`, in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cellrail.app.detaching import Request
from cellrail.app.running import Running
from cellrail.app.starting import Ticked
from cellrail.errors import InternalError
from cellrail.notebook.parameters import from_json
from cellrail.views import Run


class Detached(Running):
    """Carries one request out."""

    def __init__(self, request: Request, *, begins: Callable[[str], None]) -> None:
        """Know the request.

        Args:
            request: what to do.
            begins: is told the run's id when nothing but its kernel can refuse it any more.
        """
        # settings are found by the folder of a notebook; the store is named
        super().__init__(
            request.store, notebook=Path(request.folder) / "any.ipynb", keys=request.keys or None
        )
        self._asked, self._begins = request, begins

    def carry_out(self) -> Run:
        """Do what is asked for; the run as it is then.

        Raises:
            CellrailError: it is refused; nothing was changed.
        """
        asked = self._asked
        options: dict[str, Any] = dict(asked.options)
        if options.get("parameters"):
            told = options["parameters"]
            options["parameters"] = {name: from_json(value) for name, value in told.items()}
        actions: dict[str, Callable[..., Run]] = {
            "run": self.run, "restart": self.restart, "rerun": self.rerun,
        }  # fmt: skip
        if asked.action not in actions:
            message = f"a detached process is asked to {asked.action!r}"
            raise InternalError(message)
        return actions[asked.action](asked.subject, asked.output, **options)

    def _launch(self, *decided: Any, ticked: Ticked | None = None, **rest: Any) -> Run:
        run_id = ticked.run_id if ticked is not None else self._asked.run_id
        self._begins(run_id)
        if ticked is None:
            rest["run_id"] = run_id
        return super()._launch(*decided, ticked=ticked, **rest)
