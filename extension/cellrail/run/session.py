"""One headless run, from its first record to its last.

The session carries a plan out: kept steps get their outputs, the namespace is put back as it stood
before the cut, the rest executes, and each step is committed before the next one is believed.

What a step's ending means for step and run is decided in one place, `_judge`:

================  ==================  =======================  ==========================
ending            step                run                      cause
================  ==================  =======================  ==========================
ok                success             goes on
``sys.exit(0)``   success             success, ends here       exit
error             failed              failed                   the user's error
error, tolerated  failed (accepted)   goes on
timeout           failed              failed                   timeout after N s
kernel died       failed              failed                   the kernel died
interrupted       cancelled           cancelled                interrupted
================  ==================  =======================  ==========================
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from cellrail.kernels.cold import ColdKernel
from cellrail.notebook.model import Flow, Step
from cellrail.notebook.options import NO_CHECKPOINT
from cellrail.notebook.plan import Fate, Plan, PlannedStep
from cellrail.run.client import CellClient, CellResult, Ending
from cellrail.run.output import OutputFile
from cellrail.run.putback import PutBack
from cellrail.run.recorder import Recorder
from cellrail.run.streams import coalesce
from cellrail_state.history import RunHistory
from cellrail_state.model import (
    Delta,
    JobFinished,
    RunStatus,
    StepStatus,
)


class Progress(Protocol):
    """Is told how far a run has come (a bar on a terminal)."""

    def total(self, steps: int) -> None:
        """So many steps will execute."""

    def step(self, label: str) -> None:
        """This step begins."""

    def done(self) -> None:
        """It has ended."""

    def close(self) -> None:
        """The run has ended."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to."""

    status: RunStatus
    cause: str = ""
    step: str = ""
    #: the result that decided it, where a cell did
    result: CellResult | None = None


class SessionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to run."""

    #: seconds for the whole run; None for no limit
    timeout: float | None = None
    #: seconds for each cell; None for no limit
    cell_timeout: float | None = None
    #: a checkpoint that cannot be written fails its step
    strict: bool = False


class Session:
    """Executes one run's steps in a kernel and records them."""

    def __init__(
        self,
        *,
        flow: Flow,
        notebook: Any,
        plan: Plan,
        recorder: Recorder,
        kernel: ColdKernel,
        origin: RunHistory | None = None,
        putback: PutBack | None = None,
        options: SessionOptions | None = None,
        output: OutputFile | None = None,
        progress: Progress | None = None,
        sources: Mapping[int, str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare the run.

        Args:
            flow: the steps of `notebook`.
            notebook: the parameterised nbformat notebook; receives the outputs.
            plan: what happens to each step.
            recorder: the run's journal.
            kernel: a kernel that is starting or ready.
            origin: the run that kept steps come from.
            putback: how the namespace before the cut comes back; None for a run from the start.
            options: limits.
            output: where the executed notebook is written meanwhile.
            progress: who is told.
            sources: what is executed where the notebook's own source is masked, by cell index.
            clock: seconds since the epoch.
        """
        self._flow = flow
        self._notebook = notebook
        self._plan = plan
        self._recorder = recorder
        self._kernel = kernel
        self._origin = origin
        self._putback = putback
        self._options = options or SessionOptions()
        self._output = output
        self._progress = progress
        self._sources = sources or {}
        self._clock = clock
        self._deadline: float | None = None
        self._steps: Mapping[int, Step] = {step.number: step for step in flow.steps}

    def run(self) -> Outcome:
        """Carry the plan out and end the run, whatever happens.

        Raises:
            BaseException: only what is no fault of the user's code; the run is recorded as failed.
        """
        try:
            outcome = self._run()
        except KeyboardInterrupt:
            outcome = Outcome(status=RunStatus.CANCELLED, cause="interrupted")
        except BaseException as error:
            self._recorder.end(RunStatus.FAILED, cause=f"cellrail: {type(error).__name__}: {error}")
            raise
        finally:
            if self._progress is not None:
                self._progress.close()
        self._recorder.end(outcome.status, cause=outcome.cause, step=outcome.step)
        return outcome

    # --- the plan ----------------------------------------------------------------------------

    def _run(self) -> Outcome:
        if self._options.timeout is not None:
            self._deadline = time.monotonic() + self._options.timeout
        self._keep()
        executing = [p for p in self._plan.steps if p.fate is Fate.EXECUTES]
        if self._progress is not None:
            self._progress.total(len(executing))
        client = CellClient(self._kernel, self._notebook)
        if self._putback is not None:
            failure = self._put_back(client)
            if failure is not None:
                return failure
        for planned in executing:
            outcome = self._step(client, planned, last=planned is executing[-1])
            if outcome is not None:
                return outcome
        return Outcome(status=RunStatus.SUCCESS)

    def _keep(self) -> None:
        """Point to the kept jobs and show their outputs."""
        kept = [p for p in self._plan.steps if p.job_id and p.fate in {Fate.KEPT, Fate.REBUILDS}]
        self._recorder.kept((p.number, p.job_id) for p in kept)
        for planned in self._plan.steps:
            if planned.fate is Fate.SKIPPED:
                self._recorder.skipped(planned.number, planned.reason)
        if self._origin is None:
            return
        for planned in kept:
            job = self._origin.job_by_id(planned.job_id)
            cell = self._cells(self._steps[planned.number])[-1][1]
            cell["outputs"] = _nodes(self._origin.outputs(job))
            cell["execution_count"] = job.execution_count
            self._stamp(cell, job.job_id, "kept")

    def _put_back(self, client: CellClient) -> Outcome | None:
        """Bring the namespace before the cut back; an outcome only where that failed."""
        putback = self._putback
        if putback is None:
            return None
        for segment in putback.segments:
            putback.before(client, segment)
            planned = segment.planned
            if planned.fate is Fate.RUNS_AGAIN:
                outcome = self._step(client, planned, replaces=segment.replaces)
            else:
                outcome = self._rebuild(client, planned)
            if outcome is not None:
                return outcome
            putback.after(segment)
        delta = putback.finish(client, self._ahead())
        if delta is not None:
            self._record_assignment(delta, putback)
        return None

    def _ahead(self) -> list[str] | None:
        """Names that the steps to come use, in order; None where one may use any."""
        names: dict[str, None] = {}
        for planned in self._plan.steps:
            if planned.fate is Fate.EXECUTES:
                needs = self._steps[planned.number].needs
                if needs is None:
                    return None
                names.update(dict.fromkeys(sorted(needs)))
        return list(names)

    def _rebuild(self, client: CellClient, planned: PlannedStep) -> Outcome | None:
        """Run a kept step's cell again for what cannot be stored; nothing of it is committed."""
        import copy

        step = self._steps[planned.number]
        began = time.monotonic()
        for index, cell in self._cells(step):
            scratch = copy.deepcopy(cell)
            message_id = client.start(
                self._sources.get(index, cell["source"]),
                cell_id=step.cell_id or step.label,
                orders={"checkpoint": False, "on_error": False},
            )
            result = client.finish(message_id, scratch, index, self._limit(step))
            if result.ending is not Ending.OK and "raises-exception" not in step.tags:
                return self._fail_rebuild(planned, result)
        self._recorder.rebuilt(planned.number, planned.names, time.monotonic() - began)
        return None

    def _fail_rebuild(self, planned: PlannedStep, result: CellResult) -> Outcome:
        error = result.error
        told = f"{error.name}: {error.value}" if error is not None else result.ending.value
        cause = f"step {planned.label} ran again to rebuild {', '.join(planned.names)}: {told}"
        job_id = self._recorder.next_job_id()
        now = self._clock()
        self._recorder.started(planned.number, job_id)
        self._recorder.finished(
            JobFinished(
                time=now,
                step=planned.number,
                job_id=job_id,
                status=StepStatus.FAILED,
                started=now,
                error=error,
                cause="rebuild failed",
            )
        )
        return Outcome(status=RunStatus.FAILED, cause=cause, step=planned.label, result=result)

    def _record_assignment(self, delta: Delta, putback: PutBack) -> None:
        """Parameters that were assigned anew are a job of this run's `parameters` step."""
        now = self._clock()
        job_id = self._recorder.next_job_id()
        self._recorder.started(putback.parameters_step, job_id)
        self._recorder.finished(
            JobFinished(
                time=now,
                step=putback.parameters_step,
                job_id=job_id,
                status=StepStatus.SUCCESS,
                started=now,
                delta=delta,
                follows=putback.parameters_job,
            )
        )

    # --- one step ----------------------------------------------------------------------------

    def _step(
        self, client: CellClient, planned: PlannedStep, *, replaces: str = "", last: bool = False
    ) -> Outcome | None:
        """Execute and commit one step; an outcome where the run ends with it."""
        step = self._steps[planned.number]
        if self._progress is not None:
            self._progress.step(step.label)
        job_id = self._recorder.next_job_id()
        self._recorder.started(step.number, job_id)
        fired = self._clock()
        result = self._execute(client, step, job_id, last=last)
        job, outcome = self._judge(step, job_id, result, fired)
        if replaces:
            job = msgspec.structs.replace(job, replaces=replaces)
        self._recorder.finished(job)
        if self._output is not None:
            self._output.refresh(self._notebook)
        if self._progress is not None:
            self._progress.done()
        return outcome

    def _execute(self, client: CellClient, step: Step, job_id: str, *, last: bool) -> CellResult:
        """Send the step's cells (the parameters step has two) and wait for each."""
        cells = self._cells(step)
        lazy = self._putback is not None and self._putback.lazy_above is not None
        needs = {"needs": _sorted(step.needs)} if lazy else {}
        result = CellResult(ending=Ending.OK)
        for place, (index, cell) in enumerate(cells):
            cell["outputs"] = []
            cell["execution_count"] = None
            self._stamp(cell, job_id, "running")
            if not cell["source"].strip():
                continue
            final = place == len(cells) - 1
            message_id = client.start(
                self._sources.get(index, cell["source"]),
                cell_id=step.cell_id or step.label,
                orders={
                    "checkpoint": final and not step.options.no_checkpoint,
                    "only": list(step.options.outputs) or None,
                    "touched": _sorted(step.touches),
                    "last": last,
                    "on_error": "raises-exception" in step.tags,
                    **needs,
                },
            )
            # the commit before becomes durable while this cell already runs
            self._recorder.sync()
            result = client.finish(message_id, cell, index, self._limit(step))
            if result.ending is not Ending.OK:
                break
        return result

    def _limit(self, step: Step) -> float | None:
        """Seconds the step's code may take."""
        limits = [step.options.timeout, self._options.cell_timeout]
        if self._deadline is not None:
            limits.append(max(0.0, self._deadline - time.monotonic()))
        known = [limit for limit in limits if limit is not None]
        return min(known) if known else None

    def _judge(
        self, step: Step, job_id: str, result: CellResult, fired: float
    ) -> tuple[JobFinished, Outcome | None]:
        """What an ending means for the step and for the run: the only place that decides it."""
        report = result.report or {}
        delta = _delta(step, report)
        status, accepted, cause = StepStatus.SUCCESS, False, ""
        outcome: Outcome | None = None
        if result.ending is Ending.OK:
            if delta.failure and self._options.strict:
                status, cause = StepStatus.FAILED, f"not restorable after: {delta.failure}"
                outcome = Outcome(status=RunStatus.FAILED, cause=cause, step=step.label)
        elif _is_clean_exit(result):
            outcome = Outcome(status=RunStatus.SUCCESS, cause="exit", step=step.label)
        elif result.ending is Ending.ERROR and "raises-exception" in step.tags:
            status, accepted = StepStatus.FAILED, True
        else:
            status, cause = self._failure(step, result)
            ended = RunStatus.CANCELLED if status is StepStatus.CANCELLED else RunStatus.FAILED
            outcome = Outcome(status=ended, cause=cause, step=step.label, result=result)
        now = self._clock()
        # a kernel that died has told nothing
        began = float(report.get("started") or fired)
        cell = self._cells(step)[-1][1]
        self._stamp(cell, job_id, "failed" if status is StepStatus.FAILED else str(status))
        job = JobFinished(
            time=now,
            step=step.number,
            job_id=job_id,
            status=status,
            accepted=accepted,
            cause="" if result.ending is Ending.ERROR else cause,
            started=began,
            seconds=max(0.0, float(report.get("ended") or now) - began),
            execution_count=result.execution_count,
            outputs=self._recorder.put_outputs(self._outputs(step)),
            error=result.error,
            delta=delta,
            magics=tuple(report.get("magics", ())),
            packages=dict(report.get("packages", {})),
        )
        return job, outcome

    def _failure(self, step: Step, result: CellResult) -> tuple[StepStatus, str]:
        if result.ending is Ending.INTERRUPTED:
            return StepStatus.CANCELLED, "interrupted"
        if result.ending is Ending.TIMEOUT:
            whole = self._deadline is not None and time.monotonic() >= self._deadline
            limit = self._options.timeout if whole else self._step_limit(step)
            return StepStatus.FAILED, f"timeout after {limit:g} s" + (" (whole run)" * whole)
        if result.ending is Ending.DIED:
            return StepStatus.FAILED, f"the kernel died{_signal_name(self._kernel.exit_code())}"
        error = result.error
        return StepStatus.FAILED, f"{error.name}: {error.value}" if error is not None else "error"

    def _step_limit(self, step: Step) -> float:
        known = [s for s in (step.options.timeout, self._options.cell_timeout) if s is not None]
        return min(known) if known else 0.0

    # --- cells -------------------------------------------------------------------------------

    def _cells(self, step: Step) -> Sequence[tuple[int, Any]]:
        return [(index, self._notebook["cells"][index]) for index in step.cell_indices]

    def _outputs(self, step: Step) -> list[dict[str, Any]]:
        """The step's outputs as they are kept, in the cells too: streams joined, secrets masked."""
        outputs: list[dict[str, Any]] = []
        for _, cell in self._cells(step):
            kept = self._recorder.masker.value(coalesce(cell["outputs"]))
            cell["outputs"] = _nodes(kept)
            outputs += kept
        return outputs

    def _stamp(self, cell: Any, job_id: str, status: str) -> None:
        cell["metadata"]["cellrail"] = {
            **cell["metadata"].get("cellrail", {}),
            "job": job_id,
            "status": status,
        }


def _sorted(names: frozenset[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)


def _delta(step: Step, report: Mapping[str, Any]) -> Delta:
    """The step's checkpoint, or why there is none."""
    if "delta" in report:
        delta: Delta = msgspec.convert(report["delta"], Delta)
        return delta
    if step.options.no_checkpoint:
        return Delta(failure=NO_CHECKPOINT)
    if not step.body.strip():
        return Delta()
    missed = tuple(report.get("missed", ()))
    return Delta(failure="the step did not end well", audited="missed" in report, missed=missed)


def _is_clean_exit(result: CellResult) -> bool:
    error = result.error
    return error is not None and error.name == "SystemExit" and error.value in {"", "0", "None"}


def _signal_name(code: int | None) -> str:
    if code is None or code >= 0:
        return "" if code is None else f" (exit code {code})"
    try:
        return f" ({signal.Signals(-code).name})"
    except ValueError:
        return f" (signal {-code})"


def _nodes(outputs: Sequence[Mapping[str, Any]]) -> list[Any]:
    from nbformat import from_dict

    return [from_dict(dict(output)) for output in outputs]
