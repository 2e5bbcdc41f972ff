"""Use case of workers: execute one task of a backfill or a trigger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cellrail.app.running import Running
from cellrail.app.starting import Ticked
from cellrail.errors import CellrailError, NotWaiting, RestartRefused
from cellrail.executors import WAKE, Done, Task
from cellrail.notebook.parameters import from_json
from cellrail.notebook.plan import Plan
from cellrail.schedule.deciding import Todo
from cellrail.views import Run
from cellrail_state.errors import RunIsOwned, StateError
from cellrail_state.model import KeptReason, RunStatus


class Executing(Running):
    """Executes what was claimed."""

    def execute(self, task: Task) -> Done:
        """Execute a task; what became of it.

        A restart or rerun that is refused (what it would keep cannot be put back) becomes a run
        from the first step: the tick is wanted, and nobody is asked.
        """
        try:
            run = self._execute(task)
        except RunIsOwned as error:
            return Done(run_id=task.run_id, error=str(error), elsewhere=True)
        except NotWaiting as error:
            return Done(run_id=task.run_id, error=str(error), elsewhere=task.todo == WAKE)
        except (CellrailError, StateError) as error:
            return Done(run_id=task.run_id, error=str(error), hint=error.hint)
        return Done(run_id=run.id, status=str(run.status), cause=_cause(run))

    def _execute(self, task: Task) -> Run:
        if task.todo == Todo.RECOVER:
            return self._go_on(self._continuer(self._run_id(task.run_id), kernels=task.kernels))
        if task.todo == WAKE:
            return self.go_on(task.wait)
        result: Run | Plan
        common: dict[str, Any] = {
            "parameters": {name: from_json(value) for name, value in task.parameters.items()},
            "labels": task.labels,
            "plan": False,
            "kernels": task.kernels,
            "ticked": self._of_task(task),
            **task.options,
        }
        output = task.output or None
        try:
            if task.todo == Todo.RESTART and task.from_step:
                result = self._restart(
                    task.origin, output, from_step=task.from_step, state="current", **common
                )
            elif task.todo == Todo.RESTART:
                mend = {} if task.by_hand else {"widen": True}
                result = self._restart(task.origin, output, **{**mend, **common})
            elif task.todo == Todo.RERUN:
                result = self._rerun(task.origin, output, **common)
            else:
                upto = {"to": task.to} if task.to else {}
                result = self._run(
                    task.notebook, output, secrets=task.secrets, **{**upto, **common}
                )
        except RestartRefused:
            if task.by_hand:
                raise
            result = self._run(task.notebook, output, secrets=task.secrets, **common)
        assert isinstance(result, Run)
        return result

    @staticmethod
    def _of_task(task: Task) -> Ticked | None:
        if task.tick is None and not task.run_id:
            return None
        return Ticked(
            tick=task.tick, run_id=task.run_id,
            pinned=Path(task.pinned) if task.pinned else None,
            modules=Path(task.modules) if task.modules else None,
            hash_seed=task.hash_seed, scope=task.scope, watch=task.watch,
            kept_as=KeptReason.SHARED if task.from_step else KeptReason.ORIGIN,
        )  # fmt: skip


def _cause(run: Run) -> str:
    """Why a run is no success, with the step that says so."""
    if run.status is RunStatus.SUCCESS:
        return ""
    broken = next((s for s in run.steps if s.status in {"failed", "cancelled"} and s.cause), None)
    return f"step {broken.label}: {broken.cause}" if broken is not None else run.cause
