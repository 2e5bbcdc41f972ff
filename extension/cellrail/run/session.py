"""One headless run, from its first record to its last.

The session carries a plan out: kept steps get their outputs, the namespace is put back as it stood
before the cut, the rest executes, and each step is committed before the next one is believed.

What comes next, and what an ending means, the machine of `cellrail.notebook.control` decides; the
`Performer` carries it out.
"""

from __future__ import annotations

import logging
import pathlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from cellrail.errors import InternalError, UserError
from cellrail.kernels.channel import ChannelClosed
from cellrail.kernels.kernel import Kernel
from cellrail.notebook.actions import (
    Action,
    Commit,
    End,
    Fire,
    Fork,
    Joined,
    Leave,
    Path,
    Skip,
)
from cellrail.notebook.beside import needed_behind
from cellrail.notebook.blocks import Block, blocks_of
from cellrail.notebook.control import conduct
from cellrail.notebook.fingerprint import file_digests, local_modules
from cellrail.notebook.model import Flow, Step
from cellrail.notebook.plan import Fate, Plan, PlannedStep
from cellrail.run import failing
from cellrail.run.again import Segment, execute_again, how_it_ended
from cellrail.run.answers import Answers
from cellrail.run.caching import Cache
from cellrail.run.client import CellClient, CellResult
from cellrail.run.desk import Desk
from cellrail.run.display import nodes, stamp
from cellrail.run.interrupts import unheard
from cellrail.run.items import Means, carry_out
from cellrail.run.limits import RunLimits
from cellrail.run.oneitem import NoClient
from cellrail.run.orders import Order
from cellrail.run.output import OutputFile
from cellrail.run.performer import Performer, signal_name
from cellrail.run.putback import PutBack
from cellrail.run.recorder import Recorder
from cellrail.run.replay import KERNEL_DIED, REBUILD_FAILED, Replay
from cellrail.run.rerun import Rerun, RerunPlan
from cellrail_state.errors import RunTakenOver, StateError
from cellrail_state.history import RunHistory
from cellrail_state.model import Delta, JobFinished, KeptReason, RunStatus, StepStatus, Woken
from cellrail_state.turns import job_address

#: waits before a retry vary by so much
_JITTER = (0.9, 1.1)


def _jitter() -> float:
    return random.uniform(*_JITTER)  # noqa: S311 - no secret


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


_LOGGER = logging.getLogger(__name__)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to."""

    status: RunStatus
    cause: str = ""
    step: str = ""
    #: the result that decided it, where a cell did
    result: CellResult | None = None
    #: names that changed unseen since the last look at everything
    missed: tuple[str, ...] = ()


class _NoKernel(NoClient):
    """The kernel of a run that has nothing left to execute."""

    def start(self, source: str, *, cell_id: str, orders: dict[str, Any]) -> str:
        del source, cell_id, orders
        raise self._error()

    def finish(self, message_id: str, cell: Any, index: int, timeout: float | None) -> CellResult:
        del message_id, cell, index, timeout
        raise self._error()

    def command(self, order: dict[str, Any]) -> dict[str, Any]:
        del order
        raise self._error()

    @staticmethod
    def _error() -> InternalError:
        return InternalError("something is left to execute after all")


class Session:
    """Executes one run's steps in a kernel and records them."""

    def __init__(
        self,
        *,
        flow: Flow,
        notebook: Any,
        plan: Plan,
        recorder: Recorder,
        kernel: Kernel | None,
        origin: RunHistory | None = None,
        putback: PutBack | None = None,
        replay: Replay | Answers | None = None,
        remaining: Plan | None = None,
        rerun: RerunPlan | None = None,
        limits: RunLimits | None = None,
        output: OutputFile | None = None,
        progress: Progress | None = None,
        sources: Mapping[int, str] | None = None,
        modules: Mapping[int, Mapping[str, str]] | None = None,
        folder: pathlib.Path | None = None,
        desk: Desk | None = None,
        spare: Callable[[], Kernel] | None = None,
        kept_as: KeptReason = KeptReason.ORIGIN,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare the run.

        Args:
            flow: the steps of `notebook`.
            notebook: the parameterised nbformat notebook; receives the outputs.
            plan: what happens to each step.
            recorder: the run's journal.
            kernel: a kernel that is ready; None where nothing is left to execute.
            origin: the run that kept steps come from.
            putback: how the namespace before the cut comes back; None for a run from the start.
            replay: leads to a cut inside a loop, or to where the journal of a run that goes on
                ends; None where there is neither.
            remaining: of a run that goes on, what is still to happen.
            rerun: what changed since the origin, where only that is to execute.
            limits: how long things may take.
            output: where the executed notebook is written meanwhile.
            progress: who is told.
            sources: what is executed where the notebook's own source is masked, by cell index.
            folder: the working directory that the run begins in.
            modules: digests of the local modules that steps import, as the run begins.
            desk: answers what cells ask.
            spare: starts a further kernel (needed where `kernel` is None).
            kept_as: why kept steps are kept.
            clock: seconds since the epoch.
        """
        self._spare, self._kept_as = spare, kept_as
        #: carries the run out
        self._conducts: Performer | None = None
        self._modules = modules or {}
        self._folder = folder or flow.path.parent
        self._desk = desk or Desk(recorder)
        self._flow = flow
        self._notebook = notebook
        self._plan = plan
        self._recorder = recorder
        self._kernel = kernel
        self._origin = origin
        self._putback = putback
        self._replay, self._rerun = replay, rerun
        #: what knows the jobs that were asked for
        self._leads: Replay | Answers | Rerun | None = replay
        self._remaining = remaining or plan
        self._limits = limits or RunLimits()
        self._output = output
        self._progress = progress
        self._sources = sources or {}
        self._clock = clock
        self._client: CellClient | None = None
        self._steps: Mapping[int, Step] = {step.number: step for step in flow.steps}

    def run(self) -> Outcome:
        """Carry the plan out and end the run, whatever happens.

        Raises:
            KeyboardInterrupt: Ctrl-C came when nothing was left to execute; the run has ended well.
            BaseException: only what is no fault of the user's code; the run is recorded as failed,
                or not at all where it is refused before anything of it was executed.
        """
        try:
            outcome = self._cancelled(self._carried_out())
            if outcome.status is RunStatus.FAILED:
                self._handle(outcome)
        except RunTakenOver:
            raise  # what happens in it now is another process's to tell
        except KeyboardInterrupt:  # while it was brought to its end
            outcome = Outcome(status=RunStatus.CANCELLED, cause="interrupted")
        except BaseException as error:
            if self._refuses(error):
                self._recorder.forget()
            else:
                cause = f"cellrail: {type(error).__name__}: {error}"
                self._recorder.end(RunStatus.FAILED, cause=cause)
            raise
        finally:
            with unheard():
                self._desk.close()
                if self._progress is not None:
                    self._progress.close()
        with unheard():
            # its end takes its time, and so does the last record's way to the disk
            if self._kernel is not None:
                self._kernel.ask_to_exit()
            self._recorder.end(
                outcome.status, cause=outcome.cause, step=outcome.step, missed=outcome.missed
            )
        if self._client is not None and outcome.status is RunStatus.SUCCESS:
            # the run is complete; what would follow it is not to begin
            self._client.hear()
        return outcome

    @property
    def has_begun(self) -> bool:
        """Whether the run is recorded."""
        return not self._recorder.is_held

    def _refuses(self, error: BaseException) -> bool:
        """Whether an error refuses a run of which nothing has happened."""
        known = isinstance(error, UserError | StateError)
        return known and self._recorder.is_held

    def _carried_out(self) -> Outcome:
        try:
            return self._run()
        except KeyboardInterrupt:
            return Outcome(status=RunStatus.CANCELLED, cause="interrupted")
        except ChannelClosed:
            # between cells: no step is to blame
            return Outcome(status=RunStatus.FAILED, cause=self._kernel_death())

    def _handle(self, outcome: Outcome) -> None:
        """Carry out the steps with `--on-failure`; the run has failed, whatever they come to."""
        if not any(step.options.on_failure for step in self._flow.steps):
            return
        kernel, start = self._kernel, self._spare
        if start is None:
            if kernel is None:
                raise InternalError("there is no kernel to begin another like it")
            start = kernel.another
        means = failing.Means(
            flow=self._flow, recorder=self._recorder, notebook=self._notebook, desk=self._desk,
            limits=self._limits, sources=self._sources, start=start, jitter=_jitter,
            rest={
                "refresh": self._refresh, "news": self._module_news, "digests": self._digests,
                "clock": self._clock,
            },
            tell=self._tell_handler,
        )  # fmt: skip
        try:
            failing.carry_out(
                means, self._conducts if kernel is not None else None, step=outcome.step,
                cause=outcome.cause, alive=lambda: kernel is not None and kernel.alive(),
            )  # fmt: skip
        except RunTakenOver:
            raise
        except KeyboardInterrupt:
            _LOGGER.warning("interrupted while it ran what runs when the run has failed")
        except Exception as error:  # noqa: BLE001 - it must not hide why the run has failed
            told = f"{type(error).__name__}: {error}"
            _LOGGER.warning("what runs when the run has failed could not be run: %s", told)

    def _tell_handler(self, action: Action) -> None:
        if self._progress is not None and isinstance(action, Fire):
            self._progress.step(action.step.label)

    def _cancelled(self, outcome: Outcome) -> Outcome:
        """Somebody has cancelled the run: that is why it was interrupted."""
        if outcome.status is not RunStatus.CANCELLED or outcome.cause != "interrupted":
            return outcome
        stop = self._recorder.store.inbox.stopped(self._recorder.run_id)
        if stop is None:
            return outcome
        return msgspec.structs.replace(outcome, cause=f"cancelled by {stop.who}")

    def _kernel_death(self) -> str:
        return KERNEL_DIED + signal_name(self._kernel.exit_code() if self._kernel else None)

    # --- the plan ----------------------------------------------------------------------------

    def _run(self) -> Outcome:
        performer = self._conducts = self._performer()
        if self._rerun is not None:
            return self._run_what_changed(performer, self._rerun)
        self._keep()
        numbers = {p.number for p in self._plan.steps if p.fate is Fate.EXECUTES}
        steps = [step for step in self._flow.steps if step.number in numbers]
        blocks = blocks_of(steps)
        if self._progress is not None:
            self._progress.total(len(blocks))
        if self._putback is not None:
            failure = self._put_back(performer)
            if failure is not None:
                return failure
        final = blocks[-1].step if blocks else None
        performer.is_last = lambda step, path: step is final and not path
        taken = branches_taken(self._flow, self._plan) if self._origin is not None else {}
        outcome = self._conduct(performer, blocks, taken=taken, replay=self._replay)
        return self._audited(outcome, performer)

    def _run_what_changed(self, performer: Performer, plan: RerunPlan) -> Outcome:
        """Conduct the whole notebook; steps are kept where nothing that they read has changed."""
        for planned in self._plan.steps:
            step = self._steps[planned.number]
            if planned.fate is Fate.SKIPPED and (step.skips or step.options.on_failure):
                self._recorder.skipped(planned.number, planned.reason)
        numbers = {number for unit in plan.units for number in unit.numbers}
        blocks = blocks_of([step for step in self._flow.steps if step.number in numbers])
        if self._progress is not None:
            self._progress.total(len(blocks))
        final = blocks[-1].step if blocks else None
        performer.is_last = lambda step, path: step is final and not path
        if self._client is None:
            message = "there is no kernel"
            raise InternalError(message)
        rerun = self._leads = Rerun(
            plan, recorder=self._recorder, client=self._client, stage=self,
            lazy_above=plan.lazy_above,
        )  # fmt: skip
        return self._audited(self._conduct(performer, blocks, replay=rerun), performer)

    @staticmethod
    def _audited(outcome: Outcome, performer: Performer) -> Outcome:
        """A run that did not end with its last step has not looked at everything yet."""
        if outcome.status is not RunStatus.SUCCESS:
            return outcome
        try:
            return msgspec.structs.replace(outcome, missed=performer.audit())
        except (ChannelClosed, KeyboardInterrupt):  # its steps are committed all the same
            _LOGGER.warning("what changed unseen was not looked for: the kernel was stopped")
            return outcome

    # --- what a rerun has done for it --------------------------------------------------------

    def show_kept(self, step: int, origin_step: int) -> None:
        """Show the outputs of a kept step."""
        if self._origin is None:
            return
        state = self._origin.state(origin_step)
        cell = self._cells(self._steps[step])[-1][1]
        cell["outputs"] = nodes(self._origin.step_outputs(origin_step))
        cell["execution_count"] = state.job.execution_count if state.job is not None else None
        stamp(cell, state.job_id, "kept")

    def fact(self, name: str, value: object) -> None:
        """Cells can ask for this fact."""
        self._desk.facts[name] = value

    def started_on(self, jobs: Sequence[JobFinished]) -> None:
        """The run goes on from what these jobs have left."""
        self._desk.started_on(jobs)

    def waited(self, woken: Sequence[Woken], after: str) -> None:
        """So the waits of kept jobs ended, of which this was the last."""
        if self._desk.waiter is not None:
            self._desk.waiter.take_over(woken, after)

    # --- conducting --------------------------------------------------------------------------

    def _performer(self) -> Performer:
        kernel = self._kernel
        if kernel is not None:
            self._client = CellClient(kernel, self._notebook, reply=self._desk.reply)
        performer = Performer(
            client=self._client or _NoKernel(),
            recorder=self._recorder,
            cells=self._notebook["cells"],
            sources=self._sources,
            limits=self._limits,
            lazy=self._is_lazy(),
            exit_code=kernel.exit_code if kernel is not None else lambda: None,
            refresh=self._refresh,
            news=self._module_news,
            digests=self._digests,
            desk=self._desk,
            cache=self._cache(),
            clock=self._clock,
        )
        performer.needed_behind = lambda step, path: needed_behind(
            self._flow, step, tuple(turn.loop for turn in path)
        )
        return performer

    def _is_lazy(self) -> bool:
        """Whether restored values may wait until a cell can reach them."""
        lazy = [source.lazy_above for source in (self._putback, self._rerun) if source is not None]
        return any(above is not None for above in lazy)

    def _cache(self) -> Cache | None:
        """Jobs that need not be executed again, where a step's line has `--cache`."""
        if not any(step.options.cache for step in self._flow.steps):
            return None
        at_cut = [p.number for p in self._plan.steps if p.fate is Fate.EXECUTES][:1]

        def forced(step: Step, path: Path) -> bool:
            if self._leads is not None:
                return self._leads.forces(step, path)
            return self._origin is not None and step.number in at_cut

        def modules(step: Step) -> dict[str, str]:
            return local_modules(step.imports, self._flow.module_folder) if step.imports else {}

        return Cache(
            self._recorder.store, self._flow, modules=modules, forced=forced, clock=self._clock
        )

    def _digests(self, globs: Sequence[str]) -> dict[str, str]:
        """Digests of the files that globs name."""
        return file_digests(globs, self._folder)

    def _module_news(self, step: Step) -> dict[str, str]:
        """Digests of its local modules, where a cell has written them since the run began."""
        if not step.imports:
            return {}
        now = local_modules(step.imports, self._flow.module_folder)
        return now if now != self._modules.get(step.number, {}) else {}

    def _refresh(self) -> None:
        if self._output is not None:
            self._output.refresh(self._notebook)

    def _conduct(
        self,
        performer: Performer,
        blocks: Sequence[Block],
        *,
        taken: Mapping[str, str] | None = None,
        replay: Replay | Answers | Rerun | None = None,
        path: Path = (),
    ) -> Outcome:
        """Let the machine conduct these blocks."""
        apart = (replay.apart,) if replay is not None else ()
        machine = conduct(blocks, taken=taken, apart=apart, jitter=_jitter, path=path)
        answer: Any = None
        while True:
            try:
                action = machine.send(answer)
            except StopIteration as stop:
                end: End = stop.value
                return Outcome(
                    status=end.status, cause=end.cause, step=end.step, result=performer.result
                )
            if replay is not None and replay.takes(action):
                answer = replay.perform(action, performer, self._recorder)
                if self._progress is not None and not isinstance(action, Fire):
                    self._tell(self._progress, action)
                continue
            if isinstance(replay, Answers | Rerun):
                replay.live(action)
            if isinstance(replay, Answers) and isinstance(action, Fire | Fork):
                self.fact("forced", action.step.number in replay.forced)
            if isinstance(action, Fork):
                answer = self._carry_out_items(performer, action, replay)
                continue
            if self._progress is not None:
                self._tell(self._progress, action)
            answer = performer.perform(action)
            if isinstance(replay, Replay):
                replay.answered(action, answer)
            if isinstance(replay, Answers) and isinstance(action, Commit) and action.final:
                # the first step that executes has ended
                self._desk.facts.pop("recovering", None)

    def _carry_out_items(
        self, performer: Performer, fork: Fork, replay: Replay | Answers | Rerun | None
    ) -> Joined:
        """The items of a parallel loop, each in a kernel of its own."""
        plans = replay.items(fork) if replay is not None else None
        return carry_out(fork, plans, performer, self._means(performer))

    def _means(self, performer: Performer) -> Means:
        kernel = self._kernel
        if kernel is None:
            raise InternalError("items cannot be carried out without a kernel")

        def tell(action: Action) -> None:
            if self._progress is not None:
                self._tell(self._progress, action)

        return Means(
            flow=self._flow,
            recorder=self._recorder,
            notebook=self._notebook,
            kernel=kernel,
            limits=self._limits,
            desk=self._desk,
            cache=self._cache(),
            sources=self._sources,
            news=self._module_news,
            digests=self._digests,
            clock=self._clock,
            jitter=_jitter,
            tell=tell,
            refresh=self._refresh,
            deadline=performer.deadline.moment,
        )

    def _tell(self, progress: Progress, action: Action) -> None:
        if isinstance(action, Fire) and action.attempt == 1:
            progress.step(job_address(action.step.label, action.path))
        else:
            self._tell_end(progress, action)

    def _tell_end(self, progress: Progress, action: Action) -> None:
        if isinstance(action, (Commit, Skip, Leave)) and self._ends_a_block(action):
            progress.done()

    @staticmethod
    def _ends_a_block(action: Commit | Skip | Leave) -> bool:
        again = isinstance(action, Commit) and not action.final
        return not (again or action.path or action.step.options.in_)

    def _keep(self) -> None:
        """Point to the kept jobs and show their outputs."""
        kept = [p for p in self._plan.steps if p.job_id and p.fate in {Fate.KEPT, Fate.REBUILDS}]
        self._recorder.kept(((p.number, p.job_id) for p in kept), self._kept_as)
        for planned in self._plan.steps:
            if planned.fate is Fate.SKIPPED:
                self._recorder.skipped(planned.number, planned.reason)
        if self._origin is None:
            return
        numbers = {state.job_id: state.info.number for state in self._origin.states}
        mapped = {numbers[planned.job_id]: planned.number for planned in kept}
        self._recorder.kept_turns(self._origin, mapped)
        for planned in kept:
            job = self._origin.job_by_id(planned.job_id)
            number = numbers[planned.job_id]
            cell = self._cells(self._steps[planned.number])[-1][1]
            cell["outputs"] = nodes(self._origin.step_outputs(number))
            cell["execution_count"] = job.execution_count
            stamp(cell, job.job_id, "kept")

    def _put_back(self, performer: Performer) -> Outcome | None:
        """Bring the namespace before the cut back; an outcome only where that failed."""
        putback, client = self._putback, self._client
        if putback is None or client is None:
            return None
        self._desk.started_on(putback.jobs)
        for segment in putback.segments:
            planned = segment.planned
            self._desk.stands_before(planned.job_id)
            orders = putback.before(client, segment)
            if planned.fate is Fate.RUNS_AGAIN:
                outcome = self._run_again(performer, segment)
            else:
                outcome = self._rebuild(client, segment, orders, performer.deadline.seconds)
            if outcome is not None:
                return outcome
            putback.after(segment)
        self._desk.stands_before("")
        delta = putback.finish(client, self._ahead(), keyed=self._recorder.key)
        for remark in putback.remarks:
            _LOGGER.warning("%s", remark)
        if delta is not None:
            self._record_assignment(delta, putback)
        return None

    def _ahead(self) -> list[str] | None:
        """Names that the steps to come use, in order; None where one may use any."""
        names: dict[str, None] = {}
        for planned in self._remaining.steps:
            if planned.fate is Fate.EXECUTES:
                needs = self._steps[planned.number].needs
                if needs is None:
                    return None
                names.update(dict.fromkeys(sorted(needs)))
        return list(names)

    def _rebuild(
        self,
        client: CellClient,
        segment: Segment,
        before: list[Order],
        limit: Callable[[Step], float | None],
    ) -> Outcome | None:
        """Run a kept step's cell again for what cannot be stored; nothing of it is committed."""
        planned = segment.planned
        step = self._steps[planned.number]
        began = time.monotonic()
        self._recorder.begin()
        result = execute_again(
            client, self._desk, segment, step, self._notebook["cells"], sources=self._sources,
            before=before, seconds=limit(step),
        )  # fmt: skip
        if result is not None:
            return self._fail_rebuild(planned, result)
        self._recorder.rebuilt(planned.number, planned.names, time.monotonic() - began)
        return None

    def _fail_rebuild(self, planned: PlannedStep, result: CellResult) -> Outcome:
        told = how_it_ended(result)
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
                error=result.error,
                cause=REBUILD_FAILED,
            )
        )
        return Outcome(status=RunStatus.FAILED, cause=cause, step=planned.label, result=result)

    def _record_assignment(self, delta: Delta, putback: PutBack) -> None:
        """Parameters that were assigned anew are a job of this run's `parameters` step."""
        now = self._clock()
        job_id = self._recorder.next_job_id()
        self._recorder.started(putback.parameters_step, job_id, executes=False)
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

    def _run_again(self, performer: Performer, segment: Segment) -> Outcome | None:
        """Execute an `--always` step before the cut; an outcome where the run ends with it."""
        performer.replaces = segment.replaces
        step = self._steps[segment.planned.number]
        outcome = self._conduct(performer, [Block(step=step)], path=segment.turns)
        performer.replaces = ""
        return None if outcome.status is RunStatus.SUCCESS and not outcome.step else outcome

    def _cells(self, step: Step) -> Sequence[tuple[int, Any]]:
        return [(index, self._notebook["cells"][index]) for index in step.cell_indices]


def branches_taken(flow: Flow, plan: Plan) -> dict[str, str]:
    """Groups of branches that the kept steps of a plan decided: group -> step."""
    kept = {p.number for p in plan.steps if p.fate in {Fate.KEPT, Fate.REBUILDS}}
    return {
        step.options.branch.group: step.label
        for step in flow.steps
        if step.number in kept and step.options.branch is not None
    }
