"""Carries out what the control machine asks for: in the kernel, in the journal, in the notebook."""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from cellrail.errors import InternalError
from cellrail.notebook import actions
from cellrail.notebook.collecting import error_name, nothing_binds
from cellrail.notebook.model import Step
from cellrail.notebook.options import NO_CHECKPOINT
from cellrail.run import orders
from cellrail.run.asking import told
from cellrail.run.caching import Cache, Found
from cellrail.run.client import CellResult, Ending
from cellrail.run.desk import Desk, Job
from cellrail.run.display import Display
from cellrail.run.limits import Deadline, RunLimits
from cellrail.run.recorder import Recorder
from cellrail_state import waits
from cellrail_state.model import (
    Checkpoint,
    Delta,
    JobFinished,
    StepStatus,
    Verdict,
    to_plain,
)
from cellrail_state.turns import job_address

_LOGGER = logging.getLogger(__name__)


class Client(Protocol):
    """Has a kernel execute cells and commands."""

    def start(self, source: str, *, cell_id: str, orders: dict[str, Any]) -> str:
        """Send a cell; its message's id."""

    def finish(self, message_id: str, cell: Any, index: int, timeout: float | None) -> CellResult:
        """Wait for its end."""

    def command(self, order: dict[str, Any]) -> dict[str, Any]:
        """Have the hooks do something between cells; their answer."""

    def hearing(self) -> contextlib.AbstractContextManager[None]:
        """What stands inside is carried out whole; Ctrl-C ends the cell that runs, if any."""

    def hear(self) -> None:
        """Begin nothing more where the run was interrupted."""


class ItemError(msgspec.Struct, frozen=True, kw_only=True):
    """What an item raised that the flow goes on with (`error_NAME`)."""

    #: the item's place
    item: int
    #: the exception in words, where it cannot be loaded
    told: str


class _Fired(msgspec.Struct, frozen=True, kw_only=True):
    """What was executed and waits for its verdict."""

    job_id: str
    fired: float
    result: CellResult
    #: digests of the files that `--reads` names
    files: dict[str, str] = {}
    #: `--cache`: what a job like it is found by, and the job that was kept instead
    cache_key: str = ""
    cached: str = ""
    #: why none was
    uncached: str = ""


class Performer:
    """Answers actions, one at a time."""

    def __init__(
        self,
        *,
        client: Client,
        recorder: Recorder,
        cells: Sequence[Any],
        sources: Mapping[int, str],
        limits: RunLimits,
        lazy: bool,
        exit_code: Callable[[], int | None],
        refresh: Callable[[], None] = lambda: None,
        news: Callable[[Step], dict[str, str]] = lambda _: {},
        digests: Callable[[Sequence[str]], dict[str, str]] = lambda _: {},
        desk: Desk | None = None,
        cache: Cache | None = None,
        clock: Callable[[], float] = time.time,
        deadline: float | None = None,
    ) -> None:
        """Prepare.

        Args:
            client: the kernel's.
            recorder: the run's journal.
            cells: of the notebook; receive outputs.
            sources: what is executed where a cell's own source is masked, by cell index.
            limits: how long things may take.
            lazy: restored values wait until a cell can reach them.
            exit_code: how the kernel's process ended.
            refresh: is called after each commit: the notebook shows more.
            news: digests of the local modules that a step imports, where they are not as they were
                when the run began.
            digests: of the files that globs name.
            desk: what cells ask is answered there.
            cache: jobs that need not be executed again.
            clock: seconds since the epoch.
            deadline: `time.monotonic()` at which the whole run has to end, where that is known.
        """
        self._client, self._recorder = client, recorder
        self._display = Display(cells, recorder.masker)
        self._sources, self._limits, self._lazy = sources, limits, lazy
        self._exit_code, self._refresh, self._clock = exit_code, refresh, clock
        self._news, self._digests = news, digests
        self._desk, self._cache = desk or Desk(recorder), cache
        self.deadline = Deadline(limits, deadline)
        self._fired: _Fired | None = None
        #: the cell's result that was committed last
        self.result: CellResult | None = None
        #: what the kernel shall do before the next cell or command
        self._before: list[dict[str, Any]] = []
        #: turns of each loop that is under way, by root
        self._counts: dict[str, int] = {}
        #: the namespace is what it was before the step that is tried again
        self._rolled_back = False
        #: what the items of a parallel loop left to be collected, in order, by root
        self.branches: dict[str, list[Checkpoint]] = {}
        #: and the errors that the flow goes on with, by name, with the items that they are of
        self._errors: dict[str, dict[str, ItemError]] = {}
        #: id of the origin's job that the next commit stands for
        self.replaces = ""
        #: the run has failed, and what is committed now handles that
        self.handles = False
        #: why the namespace as it is now is nowhere but in this kernel; "" where it is stored
        self._not_restorable = ""
        #: whether the cell that runs is the run's last
        self.is_last: Callable[[Step, actions.Path], bool] = lambda *_: False
        #: names that the flow can use behind a step as it leaves them; None for any
        self.needed_behind: Callable[[Step, actions.Path], frozenset[str] | None] = lambda *_: None
        #: whether the last capture did not look at everything, and steps that ran without one since
        self._unaudited = False
        self._uncaptured: dict[int, Step] = {}

        self._methods: dict[type, Callable[[Any], Any]] = {
            actions.Ask: self._ask,
            actions.Fire: self._fire,
            actions.Commit: self._commit,
            actions.RollBack: self._roll_back,
            actions.Wait: self._wait,
            actions.Suspend: self._suspend,
            actions.Skip: self._skip,
            actions.Enter: self._enter,
            actions.Turned: self._turned,
            actions.Leave: self._leave,
        }

    def perform(self, action: actions.Action) -> Any:
        """Carry an action out; its answer.

        Raises:
            KeyboardInterrupt: the run was interrupted, and nothing further begins.
        """
        if isinstance(action, actions.Commit):  # what has ended is told, whatever comes
            with self._client.hearing():
                return self._commit(action)
        self._client.hear()
        return self._methods[type(action)](action)

    def show(self, step: Step, outputs: Sequence[Mapping[str, Any]]) -> None:
        """Show the outputs of a kept turn."""
        self._display.show(step, outputs)

    def show_job(self, step: Step, job: JobFinished, outputs: Sequence[Mapping[str, Any]]) -> None:
        """Show a job that an earlier owner of the run committed."""
        self._display.show_job(step, job, outputs)

    def reported(self) -> Mapping[str, Any] | None:
        """What the kernel reported of the job that waits for its verdict."""
        return self._fired.result.report if self._fired is not None else None

    def settle(self) -> None:
        """What was to be done before the next cell is part of a kept checkpoint already."""
        self._before.clear()

    # --- conditions and items ----------------------------------------------------------------

    def _ask(self, action: actions.Ask) -> actions.Told:
        order = orders.ask(action)
        told = self._recorder.keyed(
            self._desk.condition(lambda: orders.told(self._command(order, action.step)))
        )
        if told.error is None:
            self._recorder.decided(action, told)
        return told

    def _command(self, order: dict[str, Any], step: Step) -> dict[str, Any]:
        before, self._before = self._before, []
        needs = {"needs": _sorted(step.needs)} if self._lazy else {}
        answer = self._client.command({**order, "before": before, **needs})
        if "error" in answer:
            message = f"the kernel could not {order['command']}: {answer['error']}"
            raise InternalError(message)
        return answer

    # --- jobs --------------------------------------------------------------------------------

    def _fire(self, action: actions.Fire) -> actions.Ended:
        step = action.step
        job_id = self._recorder.next_job_id()
        self._recorder.started(step.number, job_id, attempt=action.attempt, turns=action.path)
        fired = self._clock()
        files = self._digests(step.options.reads) if step.options.reads else {}
        self._desk.begin(
            Job.of(step, job_id, turns=action.path, attempt=action.attempt, runs=action.runs)
        )
        found = self._look_up(action, files) if step.options.cache else Found()
        with self._client.hearing():  # what is done, no Ctrl-C undoes
            result, cached, uncached = self._taken_or_executed(action, job_id, found)
            self._fired = _Fired(
                job_id=job_id, fired=fired, result=result, files=files, cache_key=found.key,
                cached=cached, uncached=uncached,
            )  # fmt: skip
            return self._ended(action, self._fired)

    def _taken_or_executed(
        self, action: actions.Fire, job_id: str, found: Found
    ) -> tuple[CellResult, str, str]:
        """The result, the job that it was taken of, and why it was not taken of one."""
        kept, uncached = found.job, found.why
        result = self._take(action, job_id, kept) if kept is not None else None
        if kept is not None and result is not None:
            return result, kept.job_id, uncached
        uncached = uncached or ("the equal job cannot be loaded" if kept is not None else "")
        result = self._or_refused(action.step, self._execute(action, job_id))
        if result.ending in {Ending.OVERDUE, Ending.INTERRUPTED}:
            # its line may accept a failure of the code, and its kernel knew of no other
            result = _not_captured(result)
        return result, "", uncached

    def _ended(self, action: actions.Fire, fired: _Fired) -> actions.Ended:
        """What the machine is told of a step's end."""
        step, result = action.step, fired.result
        refused = ""
        if result.ending is Ending.OK and self._limits.strict:
            failure = _delta(step, result.report or {}).failure
            refused = f"not restorable after: {failure}" if failure else ""
        waiter = self._desk.waiter
        asked = waiter.asked if waiter is not None else None
        suspends = asked is not None and asked.kind == waits.SUSPEND
        if result.ending is Ending.OK and waiter is not None and asked is not None and suspends:
            stays = waiter.is_answered(asked)
            refused = self._lost_in_the_wait(action, result, stays=stays) or refused
        if result.ending is Ending.OK and not refused:
            result = self._claimed(action, result)
            self._fired = msgspec.structs.replace(fired, result=result)
        return actions.Ended(
            ending=str(result.ending),
            error=result.error,
            cause="" if result.ending is Ending.ERROR else self._cause(step, result),
            exited=_is_clean_exit(result),
            refused=refused,
            waits=asked is not None,
            again=asked is not None and asked.kind == waits.RERUN,
            # where the code has raised and its kernel dies right behind it, that is no part of it:
            # whatever comes next finds the kernel dead, and the run can be recovered
            alive=result.ending is Ending.ERROR or self._exit_code() is None,
        )

    def _lost_in_the_wait(self, action: actions.Fire, result: CellResult, *, stays: bool) -> str:
        """Why the flow could not go on after a wait, in another kernel; "" where it could."""
        delta = _delta(action.step, result.report or {})
        if delta.failure:
            return f"nothing could be put back after the wait: {delta.failure}"
        made = [n for n, v in delta.variables.items() if v.verdict is Verdict.REBUILT]
        # the kernel stays, or the step is executed again whatever it did
        if not made or stays or action.step.options.always:
            return ""
        needed = self.needed_behind(action.step, action.path) or frozenset()
        names = ", ".join(f"`{name}`" for name in made if name in needed)
        return names and (
            f"a step behind the wait needs {names}, which cannot be stored, and this one does not "
            "run again for it: make it in a cell of its own"
        )

    def _claimed(self, action: actions.Fire, result: CellResult) -> CellResult:
        """The result of a cell that ran to its end: an error where what it set cannot be committed.

        Mostly the kernel has asked before it captured (`_or_refused`). This is what somebody else
        has written since: what was captured counts only where the flow goes on with it.
        """
        conflict, step = self._desk.claim(), action.step
        if conflict is None:
            return result
        name = type(conflict).__name__
        error = self._display.show_error(step, name, str(conflict))
        report = dict(result.report or {})
        goes_on = _tolerates(action) and action.attempt > step.options.retry
        order = {
            "command": "refuse", "error": told(conflict), "on_error": goes_on,
            "captured": "delta" in report,
            "binds_error": error_name(step), "last": self.is_last(step, action.path),
        }  # fmt: skip
        answer = self._command(order, step)
        if "delta" in report and goes_on:
            late = msgspec.convert(answer["delta"], Delta)
            report["delta"] = to_plain(msgspec.convert(report["delta"], Delta).then(late))
        result = msgspec.structs.replace(result, ending=Ending.ERROR, error=error, report=report)
        return result if goes_on else _not_captured(result)

    def _look_up(self, action: actions.Fire, files: Mapping[str, str]) -> Found:
        """The key of a step that may be kept, and the equal job."""
        cache, step = self._cache, action.step
        if cache is None or action.attempt > 1:
            return Found()
        answer = self._command(cache.order(step), step)
        key = cache.key(step, answer, files=files)
        if not key:
            return Found(why=str(answer["why"]))
        made = self._digests(step.options.writes) if step.options.writes else {}
        return cache.find(step, action.path, key, made=made)

    def _take(self, action: actions.Fire, job_id: str, job: JobFinished) -> CellResult | None:
        """Have the namespace of an equal job; None where it cannot be loaded."""
        cache, step, began = self._cache, action.step, self._clock()
        if cache is None:
            return None
        last = self.is_last(step, action.path)
        answer = self._client.command({**cache.take(job), "last": last})
        if "error" in answer:
            return None
        for index in step.cell_indices:
            self._display.clear(index, job_id, "kept", turns=bool(action.path))
        self._display.show(step, cache.outputs(job))
        report = {"delta": answer["delta"], "started": began, "ended": self._clock()}
        return CellResult(ending=Ending.OK, report=report)

    def _execute(self, action: actions.Fire, job_id: str) -> CellResult:
        """Send the step's cells (the parameters step has two) and wait for each."""
        step = action.step
        cells = self._display.cells_of(step)
        needs = {"needs": _sorted(step.needs)} if self._lazy else {}
        before, self._before = self._before, []
        result = CellResult(ending=Ending.OK)
        # of a run that goes on, the first attempt in this kernel may be the step's third
        baseline, self._rolled_back = _may_roll_back(step) and not self._rolled_back, False
        for place, (index, cell) in enumerate(cells):
            self._display.clear(index, job_id, "running", turns=bool(action.path))
            if not cell["source"].strip():
                continue
            if self.deadline.is_past():
                # it would be interrupted at once, and a quick cell would get through
                result = CellResult(ending=Ending.OVERDUE)
                break
            final = place == len(cells) - 1
            message_id = self._client.start(
                self._sources.get(index, cell["source"]),
                cell_id=step.cell_id or step.label,
                orders={
                    "before": before,
                    "baseline": place == 0 and baseline,
                    "checkpoint": final and not step.options.no_checkpoint,
                    "only": list(step.options.outputs) or None,
                    "touched": _sorted(step.touches),
                    "rebinds": sorted(step.rebinds),
                    "last": self.is_last(step, action.path),
                    "parks": self._may_park(step),
                    "binds_error": error_name(step),
                    # what may be rolled back is no checkpoint yet
                    "on_error": _tolerates(action) and action.attempt > step.options.retry,
                    **needs,
                },
            )
            before = []
            # the commit before becomes durable while this cell already runs
            self._recorder.sync()
            # not when it has ended: it may have taken a while to
            overdue = self.deadline.comes_first(step)
            result = self._client.finish(message_id, cell, index, self.deadline.seconds(step))
            if overdue and result.ending is Ending.TIMEOUT:
                result = msgspec.structs.replace(result, ending=Ending.OVERDUE)
            if result.ending is not Ending.OK:
                break
        return result

    def _or_refused(self, step: Step, result: CellResult) -> CellResult:
        """A cell whose writes cannot be committed has failed, though it ran to its end."""
        refused = (result.report or {}).get("refused")
        if result.ending is not Ending.OK or refused is None:
            return result
        error = self._display.show_error(step, refused["type"], refused["message"])
        return msgspec.structs.replace(result, ending=Ending.ERROR, error=error)

    def _cause(self, step: Step, result: CellResult) -> str:
        """Why the step's code ended, where its own error does not tell."""
        if result.ending is Ending.TIMEOUT:
            return self.deadline.told(step)
        if result.ending is Ending.OVERDUE:
            return self.deadline.told_whole()
        if result.ending is Ending.DIED:
            return f"the kernel died{signal_name(self._exit_code())}"
        return ""

    def _commit(self, action: actions.Commit) -> None:
        step, fired, self._fired = action.step, self._fired, None
        now = self._clock()
        if fired is None:  # nothing ran: an expression of its line is at fault
            job_id = self._recorder.next_job_id()
            self._recorder.started(step.number, job_id, turns=action.path)
            result, began = CellResult(ending=Ending.OK), now
        else:
            job_id, result, began = fired.job_id, fired.result, fired.fired
        self.result = result
        report = dict(result.report or {})
        if action.accepted and fired is not None and self._exit_code() is None:
            self._capture_late(step, report)
        # a kernel that died has told nothing
        began = float(report.get("started") or began)
        failed = action.status is StepStatus.FAILED
        status = "kept" if fired is not None and fired.cached else str(action.status)
        self._display.ended(step, job_id, "failed" if failed else status)
        job = JobFinished(
            time=now,
            step=step.number,
            job_id=job_id,
            status=StepStatus.KEPT if fired is not None and fired.cached else action.status,
            accepted=action.accepted,
            attempt=action.attempt,
            cause=action.cause,
            started=began,
            seconds=max(0.0, float(report.get("ended") or now) - began),
            execution_count=result.execution_count,
            outputs=self._recorder.put_outputs(self._display.outputs(step)) if fired else None,
            error=result.error,
            delta=_delta(step, report) if fired else Delta(failure=action.cause),
            magics=tuple(report.get("magics", ())),
            packages=dict(report.get("packages", {})),
            seen=tuple(report.get("seen", ())),
            replaces=self.replaces,
            handles=self.handles,
            turns=action.path,
            modules=self._news(step) if fired else {},
            files=fired.files if fired else {},
            made=self._digests(step.options.writes) if fired and step.options.writes else {},
            runs=action.runs,
            again=action.again,
            cache_key=fired.cache_key if fired is not None else "",
            cached=fired.cached if fired is not None else "",
            uncached=fired.uncached if fired is not None else "",
        )
        success = action.status is StepStatus.SUCCESS
        if self._desk.waiter is not None and fired:
            wait = self._desk.waiter.take(success=success)
            job = msgspec.structs.replace(job, wait=wait)
        cache = self._cache if success and job.cache_key and not job.cached else None
        drift = self._drift(step) if cache is not None and job.delta.ambient is not None else []
        with self._desk.committing(success=success, replaces=self.replaces) as effects:
            job = msgspec.structs.replace(job, effects=effects)
            unfit = cache.unfit(job, drift, self._desk.asked) if cache is not None else ""
            if unfit:
                told = [job.uncached, f"no later job can be kept instead: {unfit}"]
                job = msgspec.structs.replace(job, uncached="; ".join(filter(None, told)))
            self._record(job, step)
        if action.final and self._desk.waiter is not None and not self.replaces:
            self._desk.waiter.passed()
        if (success or action.accepted) and not action.again:
            self._not_restorable = job.delta.failure
        elif job.delta.missed:
            self._not_restorable = f"{', '.join(job.delta.missed)} changed unseen"
        if cache is not None and not unfit:
            cache.remember(job)
        self._display.show_earlier_turns(step, final=action.final)
        self._refresh()

    def _drift(self, step: Step) -> list[str]:
        """What a job changed of the process beside variables and imports."""
        changed: list[str] = self._command({"command": "drift"}, step)["changed"]
        return changed

    def _capture_late(self, step: Step, report: dict[str, Any]) -> None:
        """Checkpoint what a failed attempt left: the flow goes on with it after all."""
        if "delta" in report or step.options.no_checkpoint or not step.options.retry:
            return
        order = {"command": "fork", "touched": _sorted(step.touches), "last": False}
        report["delta"] = self._command(order, step)["delta"]

    def _record(self, job: JobFinished, step: Step) -> None:
        self._unaudited = not job.delta.audited
        if not job.delta.failure:
            self._uncaptured = {}
        elif not job.delta.audited:
            self._uncaptured[step.number] = step
        self._recorder.finished(job)

    def audit(self) -> tuple[str, ...]:
        """No cell follows: names that changed unseen since the last look at everything.

        Nothing is looked at where the last capture did so.
        """
        if not self._unaudited:
            return ()
        used = [step.touches for step in self._uncaptured.values()]
        touched = None if None in used else sorted({name for names in used for name in names or ()})
        answer = self._client.command(
            {"command": "audit", "before": self._before, "touched": touched}
        )
        if "error" in answer:
            _LOGGER.warning("what changed unseen was not looked for: %s", answer["error"])
        return tuple(answer.get("missed", ()))

    # --- between jobs ------------------------------------------------------------------------

    def _may_park(self, step: Step) -> bool:
        """Whether the kernel may be given up while time passes behind the step's code."""
        if self._desk.waiter is None:
            return False
        options = step.options
        waits = [options.sleep or 0.0, *map(options.backoff.seconds, range(1, options.retry + 1))]
        return max(waits) > self._desk.waiter.park_after or "rerun" in step.source

    def _roll_back(self, action: actions.RollBack) -> None:
        answer = self._command(
            {"command": "roll back", "touched": _sorted(action.step.touches)}, action.step
        )
        self._desk.roll_back()
        self._rolled_back = True
        self._recorder.rolled_back(action.step.number, answer["not_restored"], action.path)

    def _wait(self, action: actions.Wait) -> actions.Woke | None:
        waiter = self._desk.waiter
        stays = waiter is None or action.seconds <= waiter.park_after
        if waiter is None or stays or self._not_restorable:
            time.sleep(action.seconds)
            self.deadline.waited(action.seconds)
            return None
        return waiter.over(waiter.time(action, job_address(action.step.label, action.path)))

    def _suspend(self, action: actions.Suspend) -> actions.Woke:
        """Let the run wait as its last job has asked; the kernel stays for a moment only."""
        waiter = self._desk.waiter
        info = waiter.of(action) if waiter is not None else None
        if waiter is None or info is None:
            message = f"{action.step.label} waits for nothing"
            raise InternalError(message)
        began = time.monotonic()
        # the namespace before a step that is executed again may be in this kernel only
        woke = waiter.over(info, stay=bool(self._not_restorable) and info.kind == waits.RERUN)
        self.deadline.waited(time.monotonic() - began)
        return woke

    def _skip(self, action: actions.Skip) -> None:
        self._recorder.skipped(action.step.number, action.reason, action.path)

    # --- loops -------------------------------------------------------------------------------

    def _enter(self, action: actions.Enter) -> None:
        step, turn = action.step, action.path[-1]
        self._counts[orders.loop_root(step, action.path[:-1])] = turn.index + 1
        if (order := orders.enter(action)) is not None:
            self._before.append(order)

    def _turned(self, action: actions.Turned) -> str | None:
        if (order := orders.turned(action)) is not None:
            self._before.append(order)
        return None

    def fork(self, action: actions.Fork) -> Delta:
        """Checkpoint the namespace that the loop's items begin on, each in its own kernel."""
        step, began = action.step, self._clock()
        job_id = self._recorder.next_job_id()
        self._recorder.started(step.number, job_id, turns=action.path)
        # the items' kernels have nothing but what is captured
        order = {"command": "fork", "touched": _sorted(step.touches), "last": True}
        delta = msgspec.convert(self._command(order, step)["delta"], Delta)
        now = self._clock()
        self._record(
            JobFinished(
                time=now, step=step.number, job_id=job_id, status=StepStatus.SUCCESS,
                started=began, seconds=now - began, delta=delta, turns=action.path,
                forks=step.label,
            ),
            step,
        )  # fmt: skip
        return delta

    def take(
        self,
        fork: actions.Fork,
        left: Sequence[Checkpoint],
        errors: Mapping[str, ItemError],
        result: CellResult | None,
    ) -> None:
        """The items have ended: what they left, and the result that ends the run."""
        root = orders.loop_root(fork.step, fork.path)
        self.branches[root], self._errors[root] = list(left), dict(errors)
        if left and self._desk.waiter is not None:
            self._desk.waiter.passed()
        self.result = result or self.result

    def _leave(self, action: actions.Leave) -> str | None:
        """The loop itself is a job: it holds what was collected."""
        step, root = action.step, orders.loop_root(action.step, action.path)
        job_id, began = self._recorder.next_job_id(), self._clock()
        self._recorder.started(step.number, job_id, turns=action.path)
        order: dict[str, Any] = {
            **orders.leave(action, count=self._counts.pop(root, 0)),
            "last": self.is_last(step, action.path),
        }
        branches = self.branches.pop(root, None)
        if branches is not None:
            order |= {"count": len(branches), "branches": to_plain(branches)}
        if errors := self._errors.pop(root, None):
            order["errors"] = {name: to_plain(error) for name, error in errors.items()}
        answer = self._command(order, step)
        if absent := answer.get("absent"):
            return nothing_binds(absent)
        job = JobFinished(
            time=self._clock(),
            step=step.number,
            job_id=job_id,
            status=StepStatus.SUCCESS,
            started=began,
            seconds=self._clock() - began,
            delta=msgspec.convert(answer["delta"], Delta),
            turns=action.path,
        )
        if branches is None:
            self._record(job, step)
            return None
        # what the items made of the shared folder is the run's from now on
        self._desk.begin(Job.of(step, job_id, turns=action.path))
        with self._desk.committing(success=True) as effects:
            self._record(msgspec.structs.replace(job, effects=effects), step)
        return None


def _tolerates(action: actions.Fire) -> bool:
    """Whether the flow goes on after a failure of the code."""
    return action.passed_over or action.step.may_fail or action.step.options.on_error != "stop"


def _sorted(names: frozenset[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)


def _may_roll_back(step: Step) -> bool:
    """Whether the namespace may be put back to what it was right before the step."""
    return step.options.retry > 0 or "rerun" in step.source


def _delta(step: Step, report: Mapping[str, Any]) -> Delta:
    """The step's checkpoint, or why there is none."""
    if report.get("again"):  # it will be put back to what it was before
        return Delta(missed=tuple(report["missed"]))
    if "delta" in report:
        delta: Delta = msgspec.convert(report["delta"], Delta)
        return delta
    if step.options.no_checkpoint:
        return Delta(failure=NO_CHECKPOINT)
    if not step.body.strip():
        return Delta()
    missed = tuple(report.get("missed", ()))
    return Delta(failure="the step did not end well", audited="missed" in report, missed=missed)


def _not_captured(result: CellResult) -> CellResult:
    """The result of a cell of which the flow keeps nothing, though it was captured."""
    report = dict(result.report or {})
    if "delta" not in report:
        return result
    captured = msgspec.convert(report.pop("delta"), Delta)
    if captured.audited:
        report["missed"] = list(captured.missed)
    return msgspec.structs.replace(result, report=report)


def _is_clean_exit(result: CellResult) -> bool:
    error = result.error
    return error is not None and error.name == "SystemExit" and error.value in {"", "0", "None"}


def signal_name(code: int | None) -> str:
    """How a process ended, in brackets; "" where it is not known."""
    if code is None or code >= 0:
        return "" if code is None else f" (exit code {code})"
    try:
        return f" ({signal.Signals(-code).name})"
    except ValueError:
        return f" (signal {-code})"
