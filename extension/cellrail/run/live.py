"""A live run: what a person executes in an open notebook, recorded as it happens.

Each execution is a job with a sequence number; the run shows the latest one per step. The kernel
writes its own journal and objects. The run begins at the first cell behind `%load_ext cellrail` and
ends with the kernel.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from cellrail.notebook.model import Flow, Step
from cellrail.notebook.options import NO_CHECKPOINT
from cellrail.notebook.parse import read_steps
from cellrail.run.asking import Direct
from cellrail.run.desk import Desk, Job
from cellrail.run.kernel import PackageWatch
from cellrail.run.recorder import Recorder
from cellrail.run.setup import setup_lines
from cellrail.run.shellstate import ShellState
from cellrail_state.model import (
    Delta,
    JobFinished,
    RunStatus,
    StepError,
    StepInfo,
    StepStatus,
)

#: outputs as IPython's history tells them -> as nbformat does
_STREAMS = {"out_stream": "stdout", "err_stream": "stderr"}


class StepBook:
    """The steps of a live run: the notebook's cells, and cells that the file does not have yet."""

    def __init__(self, flow: Flow | None) -> None:
        self._steps: list[Step] = list(flow.steps) if flow is not None else []
        self._numbers: dict[str, int] = {
            step.cell_id: step.number for step in self._steps if step.cell_id
        }
        self._names = {step.name: step.number for step in self._steps if step.name}
        self._hashes = {step.source_hash: step.number for step in self._steps}
        self._last = max((step.number for step in self._steps), default=0)

    def info(self, source: str, cell_id: str) -> tuple[StepInfo, Step]:
        """The step that a cell is, as it is now, and what its code says."""
        cell = {"cell_type": "code", "source": source, "id": cell_id, "metadata": {}}
        steps, _ = read_steps({"cells": [cell]})
        step = steps[0]
        number = (
            self._numbers.get(cell_id)
            or (self._names.get(step.name) if step.name else None)
            or (self._hashes.get(step.source_hash) if not cell_id else None)
        )
        if number is None:
            self._last += 1
            number = self._last
        if cell_id:
            self._numbers[cell_id] = number
        elif step.source_hash:
            self._hashes[step.source_hash] = number
        known = next((s for s in self._steps if s.number == number), None)
        name = step.name or (known.name if known is not None else "")
        info = StepInfo(
            number=number,
            name=name,
            cell_id=cell_id,
            source=source,
            source_hash=step.source_hash,
            reads=tuple(sorted(step.reads)),
            writes=tuple(sorted(step.writes)),
            options=str(step.options),
        )
        return info, step


class LiveRun:
    """Records one kernel's cells."""

    def __init__(
        self,
        shell: Any,
        *,
        recorder: Recorder,
        state: ShellState,
        book: StepBook,
        desk: Desk | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.recorder = recorder
        self.state = state
        self.desk = desk or Desk(recorder)
        # whom `cellrail.api` asks
        shell.cellrail_desk = Direct(self.desk.reply, state.learn)
        self._shell = shell
        self._book = book
        self._clock = clock
        self._packages = PackageWatch()
        self._sequence = 0
        self._open: tuple[StepInfo, Step, str, float] | None = None

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.recorder.run_id

    @property
    def is_idle(self) -> bool:
        """Whether no cell is being recorded."""
        return self._open is None

    def before(self, info: Any) -> None:
        """A cell begins."""
        if _only_looks(info.raw_cell or ""):
            return
        cell_id = str(getattr(info, "cell_id", "") or "")
        step, cell = self._book.info(info.raw_cell or "", cell_id)
        job_id = self.recorder.next_job_id()
        if cell.options.control:
            told = ", ".join(cell.options.control)
            print(f"cellrail: {told}: only `cellrail run` does this; here the cell runs once")
        self.state.look_before(cell.touches)
        self._open = (step, cell, job_id, self._clock())
        self.recorder.started(step.number, job_id, step)
        named = msgspec.structs.replace(cell, name=step.name, number=step.number, cell_id=cell_id)
        self.desk.begin(Job.of(named, job_id))

    def after(self, result: Any, cause: str = "") -> Delta | None:
        """A cell has ended; what its checkpoint holds, None where it was not recorded.

        Args:
            result: IPython's.
            cause: why it ended, where its own error does not tell.
        """
        if self._open is None:
            return None
        step, cell, job_id, began = self._open
        self._open = None
        ended = self._clock()
        self._sequence += 1
        delta = self._delta(cell)
        success = bool(result.success)
        if success and (refused := self.desk.claim()):
            success, cause = False, refused
            print(f"cellrail: what this cell set is not kept: {refused}", file=sys.stderr)
        with self.desk.committing(success=success) as effects:
            self.recorder.finished(
                JobFinished(
                    time=self._clock(),
                    step=step.number,
                    job_id=job_id,
                    status=StepStatus.SUCCESS if success else StepStatus.FAILED,
                    cause=cause,
                    effects=effects,
                    started=began,
                    seconds=ended - began,
                    execution_count=result.execution_count,
                    outputs=self.recorder.put_outputs(self._outputs(result.execution_count)),
                    error=_error(result),
                    delta=delta,
                    source=step.source,
                    source_hash=step.source_hash,
                    sequence=self._sequence,
                    magics=setup_lines(self._shell, result.info),
                    packages=self._packages.news(),
                )
            )
        self.recorder.sync()
        return delta

    def _delta(self, cell: Step) -> Delta:
        if cell.options.no_checkpoint:
            return Delta(failure=NO_CHECKPOINT)
        return self.state.delta(only=cell.options.outputs or None, touched=cell.touches)

    def _outputs(self, count: int | None) -> list[Mapping[str, Any]]:
        """The cell's outputs, as far as this IPython keeps them."""
        kept = getattr(self._shell.history_manager, "outputs", None)
        if kept is None or count is None:
            return []
        outputs: list[Mapping[str, Any]] = []
        for output in list(kept.get(count, ())):
            if output.output_type in _STREAMS:
                text = output.bundle.get("stream", "")
                text = text if isinstance(text, str) else "".join(text)
                name = _STREAMS[output.output_type]
                outputs.append({"output_type": "stream", "name": name, "text": text})
            else:
                entry: dict[str, Any] = {
                    "output_type": output.output_type,
                    "data": dict(output.bundle),
                    "metadata": {},
                }
                if output.output_type == "execute_result":
                    entry["execution_count"] = count
                outputs.append(entry)
        return outputs

    def end(self) -> None:
        """The kernel ends, or recording was switched off."""
        self.desk.close()
        del self._shell.cellrail_desk
        self.recorder.end(RunStatus.SUCCESS)


def _error(result: Any) -> StepError | None:
    error = result.error_before_exec or result.error_in_exec
    if error is None or isinstance(error, bool):
        return None
    import traceback

    lines = traceback.format_exception(type(error), error, error.__traceback__)
    own = [line for line in lines if "IPython/core" not in line]
    return StepError(name=type(error).__name__, value=str(error), traceback=tuple(own))


def _only_looks(source: str) -> bool:
    """Whether a cell holds nothing but `%flow` lines: it is about the flow, no part of it."""
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    return bool(lines) and all(line.split()[0] == "%flow" for line in lines)
