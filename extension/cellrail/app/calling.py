"""Use case: one run that a cell of another one waits for (`flow.call`), in a process of its own."""

from __future__ import annotations

from typing import Any

from cellrail.app.running import Running
from cellrail.errors import InternalError
from cellrail.notebook.parameters import from_json
from cellrail.run.children import Request
from cellrail.views import Run


class Called(Running):
    """Carries one request out."""

    def __init__(self, request: Request) -> None:
        """Know the request; its store and keys are those of the run that called."""
        super().__init__(
            request.store or None, notebook=request.notebook, keys=request.keys or None
        )
        self._asked = request

    def carry_out(self) -> Run:
        """Do what is asked for; the run as it is then.

        Raises:
            CellrailError: it is refused; nothing was changed.
        """
        asked = self._asked
        if asked.action == "run":
            made = self.run(
                asked.notebook,
                parameters={name: from_json(value) for name, value in asked.parameters.items()},
                secrets=asked.secrets, labels=asked.labels, timeout=asked.timeout,
            )  # fmt: skip
        elif asked.action == "restart":
            # an edited step is executed again, and so is what depends on it
            made = self.restart(asked.of, labels=asked.labels, timeout=asked.timeout, widen=True)
        elif asked.action == "recover":
            made = self.recover(asked.of)
        elif asked.action == "wake":
            pending = self.history(asked.of).pending
            made = self._go_on_from(pending) if pending is not None else self._now(asked.of)
        else:
            message = f"a call that asks to {asked.action!r}"
            raise InternalError(message)
        return made

    def _now(self, run_id: str) -> Run:
        return self._view(self.history(run_id))

    def _launch(self, *decided: Any, **rest: Any) -> Run:
        asked = self._asked
        rest["told"] = {**rest.get("told", {}), "callers": list(asked.callers)}
        return super()._launch(*decided, **rest, run_id=asked.run_id, scope=asked.scope)
