"""Carries out, in this very kernel, what the control machine asks for: an open notebook's driver.

The machine, the orders to the shell and the records are those of a headless run. What differs is
that the front end shows everything under the one cell that runs, and that a failure which the flow
goes on after must not reach it as one.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import time
import types
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from cellrail.errors import InternalError
from cellrail.notebook import actions
from cellrail.notebook.collecting import error_name, nothing_binds
from cellrail.notebook.model import Step
from cellrail.notebook.options import NO_CHECKPOINT
from cellrail.run import orders, shellspace
from cellrail.run.alarm import StepAlarm
from cellrail.run.cellcode import CellCode, Executed, execute, failed, show, syntax_error
from cellrail.run.countdown import Countdown
from cellrail.run.desk import Job
from cellrail.run.live import LiveRun, LiveStep
from cellrail.run.shellstate import ShellState
from cellrail.run.turns import Turns
from cellrail.run.waits import in_words
from cellrail_state import waits
from cellrail_state.model import Delta, JobFinished, StepError, StepStatus, Turn, WaitInfo
from cellrail_state.turns import job_address

#: seconds after which what was recorded is made durable, in a cell of many turns
_SYNC_SECONDS = 1.0
#: longest wait in the event loop
_NAP_SECONDS = 0.2


class _Fired(msgspec.Struct, frozen=True, kw_only=True):
    """What was executed and waits for its verdict."""

    job_id: str
    began: float
    ended: float
    executed: Executed


class LivePerformer:
    """Answers the actions of one cell's execution, one at a time."""

    def __init__(
        self,
        shell: Any,
        *,
        cells: Mapping[int, LiveStep],
        codes: Callable[[Step], CellCode],
        header: Step,
        info: Any,
        execution_count: int | None,
        awaits: bool,
        live: LiveRun | None,
        state: Callable[[], ShellState],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare.

        Args:
            shell: the IPython shell.
            cells: the cells that may be executed, by number.
            codes: the code of a step. Raises `SyntaxError`.
            header: the step whose cell the person executes.
            info: IPython's record of that cell.
            execution_count: its number.
            awaits: the cell may wait in the event loop.
            live: what records it; None where nothing does.
            state: captures, for retries, where nothing is recorded.
            clock: seconds since the epoch.
        """
        self._shell, self._cells, self._codes = shell, cells, codes
        self._header, self._info, self._count = header, info, execution_count
        self._awaits, self._live, self._clock = awaits, live, clock
        self._scratch = state
        self._turns = live.state.turns if live is not None else Turns(shell)
        self._alarm = StepAlarm()
        self._fired: _Fired | None = None
        #: why a loop's variable could not be bound
        self._unbound: Exception | None = None
        #: the loop whose variable was bound last, until its code runs
        self._entered: Step | None = None
        self._told: set[int] = set()
        self._synced = time.monotonic()
        #: turns of each loop that was entered, by root
        self._counts: dict[str, int] = {}
        #: the header was not skipped
        self.has_run = False
        #: what ended the cell, and is shown already
        self.fatal: Executed | None = None
        #: what a step's line ended with
        self.broken: StepError | None = None
        #: what the checkpoints hold
        self.deltas: list[Delta] = []

        self._methods: dict[type, Callable[[Any], Any]] = {
            actions.Ask: self._ask,
            actions.Commit: self._commit,
            actions.RollBack: self._roll_back,
            actions.Skip: self._skip,
            actions.Enter: self._enter,
            actions.Turned: self._turned,
            actions.Leave: self._leave,
        }

    async def perform(self, action: actions.Action) -> Any:
        """Carry an action out; its answer."""
        if isinstance(action, (actions.Fire, actions.Enter, actions.Leave)):
            self.has_run = True
        if isinstance(action, actions.Fire):
            return await self._fire(action)
        if isinstance(action, actions.Wait):
            return await self._wait(action)
        if isinstance(action, actions.Suspend):
            return await self._suspend(action)
        return self._methods[type(action)](action)

    @property
    def raised(self) -> BaseException | None:
        """What the expression that failed raised."""
        return self._turns.broken

    def close(self) -> None:
        """The cell ends: loops that it did not leave are over."""
        own = tuple(self._counts)
        roots = shellspace.loop_roots(self._shell)
        for name in [r for r in roots if r in own or r.startswith(tuple(f"{o}." for o in own))]:
            del roots[name]
        if self._live is not None:
            self._live.recorder.sync()

    # --- conditions, waits -------------------------------------------------------------------

    def _ask(self, action: actions.Ask) -> actions.Told:
        if self._live is None:
            told = self._evaluate(action)
        else:
            told = self._live.desk.condition(lambda: self._evaluate(action))
        self.broken = told.error
        if told.error is None and self._live is not None:
            told = self._live.recorder.keyed(told)
            self._live.recorder.decided(action, told)
        return told

    def _evaluate(self, action: actions.Ask) -> actions.Told:
        order = orders.ask(action)
        if action.purpose is actions.Purpose.FOREACH:
            self._counts[order["root"]] = 0
            return orders.told(self._turns.items(order))
        # nobody goes back to a notebook that is not recorded
        turns = self._live.state if self._live is not None else self._turns
        return orders.told(turns.evaluate(order))

    async def _wait(self, action: actions.Wait) -> actions.Woke | None:
        if self._live is not None and action.seconds > self._live.waiter.park_after:
            label = job_address(action.step.label, action.path)
            info = self._live.waiter.time(action, label)
            self._live.waiter.tell(info)
            return await self.wait_for(info)
        until = time.monotonic() + action.seconds
        while (left := until - time.monotonic()) > 0:
            await self._nap(left)
        return None

    async def _nap(self, seconds: float) -> None:
        if self._awaits:  # a loop that nothing wakes learns of no interrupt
            await asyncio.sleep(min(seconds, _NAP_SECONDS))
        else:
            time.sleep(min(seconds, _NAP_SECONDS))

    async def _suspend(self, action: actions.Suspend) -> actions.Woke:
        """Let the notebook wait as the last job has asked; in a loop, the cell."""
        waiter = self._live.waiter if self._live is not None else None
        info = waiter.of(action) if waiter is not None else None
        if waiter is None or info is None:
            message = f"{action.step.label} waits for nothing"
            raise InternalError(message)
        if info.kind == waits.SUSPEND and not action.path:
            return waiter.gate(info)
        waiter.tell(info)
        return await self.wait_for(info)

    async def wait_for(self, info: WaitInfo) -> actions.Woke:
        """Wait in this cell until somebody answers, or the time is up.

        An interrupt cancels the wait; time that passes behind an earlier cell is over then.
        """
        live = self._live
        if live is None:
            message = f"{info.label} waits, and nothing is recorded"
            raise InternalError(message)
        waiter = live.waiter
        said = live.offer(info) if info.kind == waits.SUSPEND else None
        with Countdown(self._shell, f"cellrail: {in_words(info)}") as countdown:
            try:
                while (left := waiter.left(info)) is not None:
                    countdown.show(left)
                    await self._nap(left)
            except (KeyboardInterrupt, asyncio.CancelledError):
                sleeps = info.kind == waits.SLEEP
                waiter.press(info, waits.RESUME if sleeps else waits.CANCEL)
                waiter.ended(info)
                raise
        if said is not None:
            said(waiter.told(info))
        return waiter.ended(info)

    def _roll_back(self, action: actions.RollBack) -> None:
        names = self._state.roll_back(action.step.touches)
        if self._live is not None:
            self._live.desk.roll_back()
            self._live.recorder.rolled_back(action.step.number, names, action.path)

    @property
    def _state(self) -> ShellState:
        return self._live.state if self._live is not None else self._scratch()

    # --- jobs --------------------------------------------------------------------------------

    async def _fire(self, action: actions.Fire) -> actions.Ended:
        step = action.step
        job_id = self._start(step, action.path, attempt=action.attempt, runs=action.runs)
        self._look_before(step, first=action.attempt == 1 and action.runs == 1)
        began = self._clock()
        executed, rang = await self._execute(step)
        self._fired = _Fired(job_id=job_id, began=began, ended=self._clock(), executed=executed)
        conflict = None
        if executed.raised is None and self._live is not None:
            conflict = self._live.desk.claim()
        if conflict is not None:
            # its code is done, and nothing is captured yet: it has failed like any other
            told = [f"{type(conflict).__name__}: {conflict}"]
            executed = msgspec.structs.replace(failed(conflict, told), outputs=executed.outputs)
            self._fired = msgspec.structs.replace(self._fired, executed=executed)
        raised = executed.raised
        if raised is None:
            asked = self._live.waiter.asked if self._live is not None else None
            again = asked is not None and asked.kind == waits.RERUN
            return actions.Ended(ending="ok", waits=asked is not None, again=again)
        self._turns.failed(raised, error_name(step))
        if rang:
            cause = f"timeout after {step.options.timeout:g} s"
            return actions.Ended(ending="timeout", error=executed.error, cause=cause)
        if isinstance(raised, (KeyboardInterrupt, asyncio.CancelledError)):
            return actions.Ended(ending="interrupted", error=executed.error)
        exited = isinstance(raised, SystemExit) and str(raised.code) in {"None", "0", ""}
        return actions.Ended(ending="error", error=executed.error, exited=exited)

    def _look_before(self, step: Step, *, first: bool) -> None:
        if self._live is not None and step != self._entered:
            self._live.state.look_before(step.touches, step.rebinds)
        self._entered = None
        again = self._live is not None and may_rerun(step, self._shell.user_ns)
        if first and (step.options.retry or again):
            self._state.baseline(step.touches)
        if self._live is not None and again:
            self._live.waiter.repeatable()

    async def _execute(self, step: Step) -> tuple[Executed, bool]:
        """Execute the step's code; and whether its time was up."""
        unbound, self._unbound = self._unbound, None
        if unbound is not None:
            return failed(unbound, [f"{type(unbound).__name__}: {unbound}"]), False
        try:
            code = self._codes(step)
        except SyntaxError as error:
            return syntax_error(self._shell, error), False
        rang = False
        try:
            self._alarm.set(step.options.timeout, self._cancel())
            try:
                executed = await execute(self._shell, code, self._info, self._count)
            finally:
                rang = self._alarm.clear()
        except (KeyboardInterrupt, asyncio.CancelledError) as error:
            executed = failed(error, [type(error).__name__])
        return executed, rang

    def _cancel(self) -> Callable[[], object] | None:
        """Ends this cell where the event loop runs it; None where it does not."""
        task = asyncio.current_task() if self._awaits else None
        if task is None:
            return None
        return functools.partial(task.get_loop().call_soon_threadsafe, task.cancel)

    def _commit(self, action: actions.Commit) -> None:
        fired, self._fired = self._fired, None
        if fired is None:  # nothing ran: an expression of its line is at fault, or a wait was cut
            now = self._clock()
            job_id = self._start(action.step, action.path, attempt=action.attempt)
            fired = _Fired(job_id=job_id, began=now, ended=now, executed=Executed())
        self._display(action, fired.executed)
        self._record(action, fired)

    def _display(self, action: actions.Commit, executed: Executed) -> None:
        """Show how it ended; what the flow goes on after is no error of the cell."""
        shown, error, step = executed.shown, executed.error, action.step
        if error is None:
            return
        if not action.final:
            told = f"{error.name}: {error.value}".rstrip(": ")
            tries = f"attempt {action.attempt} of {step.options.retry + 1}"
            print(f"cellrail: {tries} failed ({told})", file=sys.stderr)
        elif action.accepted:
            if shown is not None:
                print("\n".join(shown.lines), file=sys.stderr)
        else:
            if shown is not None:
                show(self._shell, shown)
            if action.cause and action.status is StepStatus.FAILED:
                print(f"cellrail: {action.cause}", file=sys.stderr)
            if action.status is not StepStatus.SUCCESS:
                self.fatal = executed

    def _record(self, action: actions.Commit, fired: _Fired) -> None:
        live, cell, executed = self._live, self._cells[action.step.number], fired.executed
        if live is None:
            return
        delta = self._delta(action)
        self.deltas.append(delta)
        outputs = [*executed.outputs, *([executed.shown.output] if executed.shown else ())]
        self._finish(
            JobFinished(
                time=self._clock(),
                step=action.step.number,
                job_id=fired.job_id,
                status=action.status,
                accepted=action.accepted,
                attempt=action.attempt,
                cause=action.cause,
                started=fired.began,
                seconds=fired.ended - fired.began,
                execution_count=self._count,
                outputs=live.recorder.put_outputs(outputs),
                error=executed.error,
                delta=delta,
                source_hash=cell.info.source_hash,
                turns=action.path,
                runs=action.runs,
                again=action.again,
                wait=live.waiter.take(success=action.status is StepStatus.SUCCESS),
            ),
            cell,
        )

    def _delta(self, action: actions.Commit) -> Delta:
        step, state = action.step, self._state
        if action.again:  # it will be put back to what it was before
            return Delta()
        if not action.final:
            missed = state.missed(step.touches)
            return Delta(failure="the step did not end well", audited=True, missed=missed)
        if step.options.no_checkpoint:
            return Delta(failure=NO_CHECKPOINT)
        return state.delta(only=step.options.outputs or None, touched=step.touches)

    def _start(self, step: Step, path: tuple[Turn, ...], *, attempt: int = 1, runs: int = 1) -> str:
        """Record that a job begins; its id."""
        if self._live is None:
            return ""
        recorder, number = self._live.recorder, step.number
        job_id = recorder.next_job_id()
        info = None if number in self._told else self._cells[number].info
        self._told.add(number)
        recorder.started(number, job_id, info, attempt=attempt, turns=path)
        self._live.desk.begin(Job.of(step, job_id, turns=path, attempt=attempt, runs=runs))
        return job_id

    def _finish(self, job: JobFinished, cell: LiveStep) -> None:
        if self._live is None:
            return
        if not job.turns:
            job = msgspec.structs.replace(job, source=cell.info.source)
        self._live.finished(job, _AsRun(cell.info.source))
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self._live.recorder.sync()
            self._synced = time.monotonic()

    # --- skipped steps, loops ----------------------------------------------------------------

    def _skip(self, action: actions.Skip) -> None:
        step = action.step
        if step is self._header and not action.path:
            print(f"cellrail: skipped, {action.reason}")
        if self._live is None:
            return
        if action.path:
            self._live.recorder.skipped(step.number, action.reason, action.path)
            return
        # a job, so that a cut before it is a moment of the live run
        now, cell = self._clock(), self._cells[step.number]
        job_id = self._start(step, ())
        self._finish(
            JobFinished(
                time=now, step=step.number, job_id=job_id, status=StepStatus.SKIPPED, started=now,
                cause=action.reason, source_hash=cell.info.source_hash,
            ),
            cell,
        )  # fmt: skip

    def _enter(self, action: actions.Enter) -> None:
        # before the variable is bound: that is no change unseen
        self._look_before(action.step, first=False)
        self._entered = action.step
        self._counts[orders.loop_root(action.step, action.path[:-1])] = action.path[-1].index + 1
        if (order := orders.enter(action)) is not None:
            try:
                self._turns.perform([order])
            except Exception as error:  # noqa: BLE001 - the turn's cell fails with it
                self._unbound = error

    def _turned(self, action: actions.Turned) -> None:
        if (order := orders.turned(action)) is not None:
            self._turns.perform([order])

    def _leave(self, action: actions.Leave) -> str | None:
        """The loop itself is a job: it holds what was collected."""
        step, began = action.step, self._clock()
        count = self._counts.pop(orders.loop_root(step, action.path), 0)
        order = orders.leave(action, count=count)
        if absent := self._turns.absent(order):
            return nothing_binds(absent)
        job_id = self._start(step, action.path)
        self._turns.leave(order)
        if self._live is None:
            return None
        cell = self._cells[step.number]
        delta = self._live.state.delta(touched=step.options.collect)
        self._finish(
            JobFinished(
                time=self._clock(),
                step=step.number,
                job_id=job_id,
                status=StepStatus.SUCCESS,
                started=began,
                seconds=self._clock() - began,
                delta=delta,
                source_hash=cell.info.source_hash,
                turns=action.path,
            ),
            cell,
        )
        return None


def may_rerun(step: Step, namespace: Mapping[str, Any]) -> bool:
    """Whether a step's code may call `flow.rerun`: itself, or in functions that it names."""
    if "rerun" in step.source:
        return True
    waiting, known = list(step.touches or ()), set[str]()
    while waiting:
        name = waiting.pop()
        code = getattr(namespace.get(name), "__code__", None)
        if name in known or not isinstance(code, types.CodeType):
            continue
        known.add(name)
        if "rerun" in (names := _names_in(code)):
            return True
        waiting += names
    return False


def _names_in(code: types.CodeType) -> set[str]:
    """Names that a function's code uses, with those of the functions inside it."""
    inner = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return set(code.co_names).union(*map(_names_in, inner))


class _AsRun(msgspec.Struct, frozen=True):
    """A cell's source, as IPython's records give it."""

    raw_cell: str
