"""A live run: what a person executes in an open notebook, recorded as it happens.

Each execution is a job with a sequence number; the run shows the latest one per step. The kernel
writes its own journal and objects. The run begins at the first cell behind `%load_ext cellrail` and
ends with the kernel.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cellrail.notebook.model import Flow, Step
from cellrail.notebook.options import NO_CHECKPOINT
from cellrail.notebook.parse import read_steps
from cellrail.run.asking import Direct
from cellrail.run.calls import Calls, taken_over
from cellrail.run.desk import Desk, Job
from cellrail.run.eachs import Eachs
from cellrail.run.kernel import PackageWatch
from cellrail.run.livewaits import LiveWaiter
from cellrail.run.onces import Onces
from cellrail.run.outputs import Outputs
from cellrail.run.previously import Previously
from cellrail.run.recorder import Recorder
from cellrail.run.setup import setup_lines
from cellrail.run.shellstate import ShellState
from cellrail.run.states import States
from cellrail.step_line import only_looks
from cellrail_state.history import RunHistory
from cellrail_state.model import (
    Delta,
    EachStored,
    JobFinished,
    RunStatus,
    StepError,
    StepInfo,
    StepStatus,
    WaitInfo,
    Woken,
)


class LiveStep(msgspec.Struct, frozen=True, kw_only=True):
    """A cell as it is executed now."""

    info: StepInfo
    #: its number is that of `info`
    step: Step
    #: what is wrong with its name and options, in words; "" where nothing is
    problem: str = ""


class StepBook:
    """The steps of a live run: the notebook's cells, and cells that the file does not have yet."""

    def __init__(self, flow: Flow | None) -> None:
        self._path = flow.path if flow is not None else None
        self._steps: list[Step] = list(flow.steps) if flow is not None else []
        #: as they were executed last
        self._known = {step.number: step for step in self._steps}
        self._numbers: dict[str, int] = {
            step.cell_id: step.number for step in self._steps if step.cell_id
        }
        self._names = {step.name: step.number for step in self._steps if step.name}
        self._hashes = {step.source_hash: step.number for step in self._steps}
        self._metadata = {s.cell_id: _metadata(s) for s in self._steps if s.cell_id and s.tags}
        self._last = max((step.number for step in self._steps), default=0)

    def learn(self, flow: Flow) -> None:
        """The notebook is known now; cells that were executed keep their numbers.

        Args:
            flow: the notebook as it is saved.
        """
        self._path = flow.path
        self._metadata |= {s.cell_id: _metadata(s) for s in flow.steps if s.cell_id and s.tags}
        for step in flow.steps:
            known = self._number(step)
            if known is None and not only_looks(step.source):
                self._last += 1
                mine = msgspec.structs.replace(step, number=self._last)
                self._steps.append(mine)
                self._known[mine.number] = mine
                self._remember(mine)

    def _number(self, step: Step) -> int | None:
        """The number that a cell has already."""
        return (
            self._numbers.get(step.cell_id)
            or (self._names.get(step.name) if step.name else None)
            or (self._hashes.get(step.source_hash) if not step.cell_id else None)
        )

    def _remember(self, step: Step) -> None:
        if step.name:
            self._names[step.name] = step.number
        if step.cell_id:
            self._numbers[step.cell_id] = step.number
        elif step.source_hash:
            self._hashes[step.source_hash] = step.number

    def look_up(
        self, source: str, cell_id: str, metadata: Mapping[str, Any] | None = None
    ) -> LiveStep:
        """The step that a cell is, as it is now, and what its code says.

        Args:
            source: the cell's.
            cell_id: the cell's; "" where the front end does not tell.
            metadata: the cell's tags and options, where the front end tells.
        """
        cell = {
            "cell_type": "code", "source": source, "id": cell_id,
            "metadata": metadata or self._metadata.get(cell_id, {}),
        }  # fmt: skip
        steps, problems = read_steps({"cells": [cell]})
        # a cell with a wrong line has none
        step = msgspec.structs.replace(steps[0], cell_id=cell_id)
        number = self._number(step)
        if number is None:
            self._last += 1
            number = self._last
        self._remember(msgspec.structs.replace(step, number=number))
        known = next((s for s in self._steps if s.number == number), None)
        name = step.name or (known.name if known is not None else "")
        step = msgspec.structs.replace(step, number=number, name=name)
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
        self._known[number] = step
        told = "; ".join(problem.message for problem in problems)
        return LiveStep(info=info, step=step, problem=told)

    @property
    def steps(self) -> list[Step]:
        """The steps of the notebook, and cells that were executed since."""
        return [step for _, step in sorted(self._known.items())]

    def is_behind(self, number: int, other: int) -> bool:
        """Whether a step stands behind another one: as the notebook is saved now.

        A cell that was executed before it was ever saved is behind all that were known before.
        """
        places = self._places()
        here, there = (self._known[n].cell_id if n in self._known else "" for n in (number, other))
        if here in places and there in places:
            return places[here] > places[there]
        return number > other

    def _places(self) -> dict[str, int]:
        """The places of the notebook's cells, by id."""
        try:
            cells = json.loads(self._path.read_text("utf-8"))["cells"] if self._path else []
            return {str(cell["id"]): place for place, cell in enumerate(cells) if "id" in cell}
        except (OSError, ValueError, LookupError, TypeError):  # it is being written, or gone
            return {}


def _metadata(step: Step) -> dict[str, Any]:
    """A cell's metadata as far as it makes the step."""
    tagged = any(tag.startswith("step:") for tag in step.tags)
    ours = {"cellrail": {"options": str(step.options)}} if tagged else {}
    return {"tags": list(step.tags), **ours}


class _Open(msgspec.Struct, frozen=True, kw_only=True):
    """A cell that is being recorded."""

    cell: LiveStep
    info: Any
    job_id: str
    began: float
    outputs: Outputs
    gathering: contextlib.ExitStack


class LiveRun:
    """Records one kernel's cells."""

    def __init__(
        self,
        shell: Any,
        *,
        recorder: Recorder,
        state: ShellState,
        book: StepBook,
        desk: Desk,
        waiter: LiveWaiter,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.recorder = recorder
        self.state = state
        self.desk = desk
        self.waiter = waiter
        #: shows a person how to answer a wait in a cell, and is told what came of it
        self.offer: Callable[[WaitInfo], Callable[[str], None]] = lambda _: lambda _: None
        # whom `cellrail.api` asks
        shell.cellrail_desk = Direct(self.desk.reply, state.learn, lambda: state.midway)
        self.book = book
        self._shell = shell
        self._clock = clock
        self._packages = PackageWatch()
        self._sequence = 0
        self._open: _Open | None = None

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.recorder.run_id

    @property
    def is_idle(self) -> bool:
        """Whether no cell is being recorded."""
        return self._open is None

    def belongs_to(self, flow_id: str, path: Path, flow: Flow | None) -> None:
        """The run has learnt which notebook it is of.

        Args:
            flow_id: the flow's id.
            path: the notebook's.
            flow: its steps; None where its file is not (yet) a flow.
        """
        self.recorder.named(flow_id, str(path))
        for clerk in self.desk.clerks(States):
            clerk.belongs_to(flow_id)
        for once in self.desk.clerks(Onces):
            once.belongs_to(flow_id)
        for calls in self.desk.clerks(Calls):
            calls.belongs_to(flow_id, path.parent)
        if flow is not None:
            self.book.learn(flow)

    def went_back(self, jobs: Sequence[JobFinished], stored: Iterable[EachStored] = ()) -> None:
        """The namespace is as these jobs of the run have left it.

        Args:
            jobs: in order.
            stored: what `flow.each` has stored in the step that comes next.
        """
        self._go_back(jobs, {}, stored)

    def went_back_to(
        self,
        origin: RunHistory,
        jobs: Sequence[JobFinished],
        *,
        kept: Mapping[int, str],
        here: Mapping[int, int],
        stored: Iterable[EachStored],
    ) -> None:
        """The namespace is as these jobs of another run have left it; what it knows, this one does.

        Args:
            origin: the other run.
            jobs: in order.
            kept: its jobs that stand for steps here.
            here: the step's number here, by its number there.
            stored: what `flow.each` has stored in the step that comes next.
        """
        self.recorder.once_inherited(origin)
        woken = self.recorder.woken_inherited(origin, here, {job.job_id for job in jobs})
        called = taken_over(origin, here)
        self.recorder.called(*called)
        self._go_back(jobs, kept, stored, woken)
        self.recorder.kept_turns(origin, {there: n for there, n in here.items() if n in kept})
        for once in self.desk.clerks(Onces):
            once.take_over(origin.once)
        for calls in self.desk.clerks(Calls):
            calls.take_over(called)
        for previously in self.desk.clerks(Previously):
            previously.take_over(origin, {number: there for there, number in here.items()})

    def _go_back(
        self,
        jobs: Sequence[JobFinished],
        kept: Mapping[int, str],
        stored: Iterable[EachStored],
        woken: Sequence[Woken] = (),
    ) -> None:
        self.recorder.went_back(jobs, kept)
        self.desk.started_on(jobs)
        self.waiter.went_back(woken, after=jobs[-1].job_id if jobs else "")
        for clerk in self.desk.clerks(Eachs):
            clerk.take_over(list(stored))

    def next_execution(self) -> None:
        """A cell begins: its jobs have the next place in the order of executions."""
        self._sequence += 1

    def before(self, cell: LiveStep, info: Any) -> None:
        """A cell begins that is one job; a cell that it executes itself is part of it.

        Args:
            cell: the cell.
            info: IPython's record of it.
        """
        if self._open is not None or only_looks(cell.info.source):
            return
        job_id = self.recorder.next_job_id()
        self.state.look_before(cell.step.touches, cell.step.rebinds)
        outputs, gathering = Outputs(self._shell, None), contextlib.ExitStack()
        gathering.enter_context(outputs.gathering())
        self._open = _Open(
            cell=cell, info=info, job_id=job_id, began=self._clock(), outputs=outputs,
            gathering=gathering,
        )  # fmt: skip
        self.recorder.started(cell.info.number, job_id, cell.info)
        self.desk.begin(Job.of(cell.step, job_id))

    def after(self, result: Any) -> Delta | None:
        """A cell has ended; what its checkpoint holds, None where it was not recorded.

        Args:
            result: IPython's.
        """
        opened = self._open
        if opened is None or opened.info is not result.info:
            return None
        self._open = None
        opened.gathering.close()
        cell, job_id, began = opened.cell, opened.job_id, opened.began
        outputs = opened.outputs.taken()
        for output in outputs:
            if output["output_type"] == "execute_result":
                output["execution_count"] = result.execution_count
        ended = self._clock()
        self.next_execution()
        delta = self._delta(cell.step)
        conflict = self.desk.claim() if result.success else None
        refused = str(conflict or "")
        if refused:
            print(f"cellrail: what this cell set is not kept: {refused}", file=sys.stderr)
        success = result.success and not refused
        wait = self.waiter.take(success=success)
        self.finished(
            JobFinished(
                time=self._clock(),
                step=cell.info.number,
                job_id=job_id,
                status=StepStatus.SUCCESS if success else StepStatus.FAILED,
                cause=refused,
                started=began,
                seconds=ended - began,
                execution_count=result.execution_count,
                outputs=self.recorder.put_outputs(outputs),
                error=_error(result),
                delta=delta,
                source=cell.info.source,
                source_hash=cell.info.source_hash,
                wait=wait,
            ),
            result.info,
        )
        self.recorder.sync()
        if wait is not None:
            self.waiter.gate(wait)
        return delta

    def finished(self, job: JobFinished, code: Any) -> None:
        """Commit a job, with its place in the order of executions, what it set and set up.

        Args:
            job: the job.
            code: what was executed, as IPython records it.
        """
        with self.desk.committing(success=job.status is StepStatus.SUCCESS) as effects:
            self.recorder.finished(
                msgspec.structs.replace(
                    job,
                    effects=effects,
                    sequence=self._sequence,
                    magics=setup_lines(self._shell, code),
                    packages=self._packages.news(),
                )
            )

    def _delta(self, cell: Step) -> Delta:
        if cell.options.no_checkpoint:
            return Delta(failure=NO_CHECKPOINT)
        return self.state.delta(only=cell.options.outputs or None, touched=cell.touches)

    def end(self) -> None:
        """The kernel ends, or recording was switched off."""
        if self._open is not None:
            self._open.gathering.close()
        gate = self.waiter.unanswered
        self.desk.close()
        del self._shell.cellrail_desk
        if gate:
            cause = f"it ended while {gate} waited to be resumed"
            self.recorder.end(RunStatus.CANCELLED, cause=cause, step=gate)
        else:
            self.recorder.end(RunStatus.SUCCESS)


def _error(result: Any) -> StepError | None:
    error = result.error_before_exec or result.error_in_exec
    if error is None or isinstance(error, bool):
        return None
    import traceback

    lines = traceback.format_exception(type(error), error, error.__traceback__)
    own = [line for line in lines if "IPython/core" not in line]
    return StepError(name=type(error).__name__, value=str(error), traceback=tuple(own))
