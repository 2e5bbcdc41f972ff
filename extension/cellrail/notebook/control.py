"""Control flow as one pure state machine: what is to be done next, and what an ending means.

`conduct` is a generator. It yields actions, one at a time; whoever carries them out (the driver of
a headless run, the shell of a live one) sends the answer in and gets the next. It reads no clock
and draws no number: the jitter of a backoff is an argument.

What a job's ending means is decided here and nowhere else (`_Machine._verdict`):

=========================  ==================  =======================  =====================
ending                     step                run                      cause
=========================  ==================  =======================  =====================
ok                         success             goes on
``sys.exit(0)``            success             success, ends here       exit
ok, not restorable         failed (--strict)   failed                   not restorable after
error                      failed              failed                   the user's error
error, tolerated           failed (accepted)   goes on
timeout                    failed              failed                   timeout after N s
overdue                    failed              failed                   ... (whole run)
the kernel died            failed              failed                   the kernel died
interrupted                cancelled           cancelled                interrupted
=========================  ==================  =======================  =====================

A job that ended well can ask for a wait (`flow.suspend`), or to be executed again after one
(`flow.rerun`). What the answer means for the run is decided here, too (`_Machine._over`):

=========================  =======================  =============================
answer                     run                      cause
=========================  =======================  =============================
resume                     goes on
timeout, resume            goes on
timeout, cancel            cancelled                nobody resumed it in time
timeout, fail              failed                   nobody resumed it in time
cancel                     cancelled                cancelled by ...
none yet                   suspended                what it waits for
=========================  =======================  =============================

The order behind a job: its commit, `--stop-if`, the wait it asked for, and, before anything else is
looked at or executed, its `--sleep`.

What a step has set and cannot be committed, since somebody wrote it meanwhile, is an error of its
code.

A failure is tolerated by the tag `raises-exception` (an error of the user's code only) and by
`--on-error continue|skip`; a failed attempt that `--retry` tries again decides nothing. What a
parallel item wrote beyond its own is `failed`, and never tolerated. Nor is what is not the code's
doing: where the time of the whole run is up (`overdue`), or somebody has interrupted it, the run
ends there, and nothing is tried again.

Items of a parallel loop are conducted apart (`conduct_item`), each by a machine of its own; there a
dead kernel is the item's failure and no more, and so is one that cannot be had. The first machine
waits for all of them (`Fork`); where none of them can begin, the loop itself has failed.

A step with `--on-failure` is skipped. Once a headless run has failed each of them is conducted by a
machine of its own (`conduct_handler`); what becomes of it changes nothing of what the run came to.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from typing import Any

import msgspec

from cellrail.notebook.actions import (
    Action,
    Ask,
    Commit,
    End,
    Ended,
    Enter,
    Fire,
    Fork,
    ItemEnd,
    Joined,
    Leave,
    Path,
    Purpose,
    RollBack,
    Skip,
    Suspend,
    Told,
    Turned,
    Wait,
    Woke,
)
from cellrail.notebook.blocks import Block
from cellrail.notebook.collecting import Collecting, Did, Mark
from cellrail.notebook.model import Step
from cellrail_state.model import RunStatus, StepError, StepStatus, Turn
from cellrail_state.turns import job_address


class _Stop(Exception):
    """The run ends here."""

    def __init__(self, end: End) -> None:
        self.end = end


class _ItemFailed(Exception):
    """A loop goes on with its next item."""

    def __init__(self, loop: Step) -> None:
        self.loop = loop


def conduct(
    blocks: Sequence[Block],
    *,
    taken: Mapping[str, str] | None = None,
    apart: Collection[str] = (),
    parallel: bool = True,
    jitter: Callable[[], float] = lambda: 1.0,
    path: Path = (),
) -> Generator[Action, Any, End]:
    """Conduct a run through these blocks.

    Args:
        blocks: what is to be executed, in order.
        taken: groups of branches that were decided before the first block: group -> step.
        apart: loops whose items are conducted apart though they are not parallel.
        parallel: items of parallel loops are conducted apart; else one after another.
        jitter: a factor for each wait before a retry.
        path: the turns that the blocks are executed in.

    Yields:
        What is to be done; `Ask` and `Fire` are answered, everything else by None.

    Returns:
        What the run came to.
    """
    machine = _Machine(jitter, apart, parallel=parallel)
    try:
        yield from machine.sequence(blocks, path, dict(taken or {}))
    except _Stop as stop:
        return stop.end
    return End(status=RunStatus.SUCCESS, rest=machine.rest)


def conduct_item(
    fork: Fork, path: Path, *, jitter: Callable[[], float] = lambda: 1.0
) -> Generator[Action, Any, ItemEnd]:
    """Conduct one item of a parallel loop.

    Args:
        fork: the loop.
        path: one of its items.
        jitter: a factor for each wait before a retry.

    Yields:
        What is to be done; `Ask` and `Fire` are answered, everything else by None.

    Returns:
        What the item came to.
    """
    machine = _Machine(jitter, around=fork.around, item=True)
    try:
        return (yield from machine.turn(fork.block, path))
    except _Stop as stop:
        return ItemEnd(end=stop.end)
    except _ItemFailed as failed:
        return ItemEnd(leaves=failed.loop.label)


#: why a step with `--on-failure` is skipped
ON_FAILURE = "it runs when a headless run fails"


def conduct_handler(
    step: Step, *, jitter: Callable[[], float] = lambda: 1.0
) -> Generator[Action, Any, None]:
    """Conduct a step with `--on-failure` of a run that has failed.

    Args:
        step: the step.
        jitter: a factor for each wait before a retry.

    Yields:
        What is to be done; `Ask` and `Fire` are answered, everything else by None.
    """
    with contextlib.suppress(_Stop):
        yield from _Machine(jitter, item=True).handler(step)


_Steps = Generator[Action, Any, None]


class _Machine:
    def __init__(
        self,
        jitter: Callable[[], float],
        apart: Collection[str] = (),
        *,
        parallel: bool = True,
        around: Sequence[Step] = (),
        item: bool = False,
    ) -> None:
        self._jitter, self._apart, self._parallel = jitter, apart, parallel
        #: what has to pass before anything else happens
        self.rest: Wait | None = None
        #: the loops around, outermost first
        self._loops: list[Step] = list(around)
        #: it conducts one item apart: the flow goes on without its kernel
        self._item = item
        #: who binds what loops collect, by the loop's number
        self._collecting: dict[int, Collecting] = {}
        #: what the steps of each turn that is under way did, outermost first
        self._did: list[set[Mark]] = []

    def sequence(self, blocks: Sequence[Block], path: Path, taken: dict[str, str]) -> _Steps:
        """The blocks of one level, in order."""
        for block in blocks:
            yield from self._rest()
            step = block.step
            skipped = yield from self._skips(step, path, taken)
            if skipped:
                yield from self._skip(block, path, skipped)
            elif block.is_loop:
                yield from self._loop(block, path)
            else:
                yield from self._job(step, path)

    def handler(self, step: Step) -> _Steps:
        """A step with `--on-failure`, of a run that has failed."""
        when = step.options.when
        if when and not (yield from self._ask(step, (), Purpose.WHEN, when)).value:
            yield Skip(step=step, reason=f"{when} is false")
            return
        yield from self._job(step, ())

    # --- conditions --------------------------------------------------------------------------

    def _skips(self, step: Step, path: Path, taken: dict[str, str]) -> Generator[Action, Any, str]:
        """Why a step is skipped; empty where it is not."""
        options = step.options
        if options.on_failure:
            return ON_FAILURE
        if options.branch is not None and options.branch.group in taken:
            return f"branch {options.branch.group}: {taken[options.branch.group]} was taken"
        if options.when:
            told = yield from self._ask(step, path, Purpose.WHEN, options.when)
            if not told.value:
                return f"{options.when} is false"
        if options.branch is not None:
            taken[options.branch.group] = step.label
        return ""

    def _skip(self, block: Block, path: Path, reason: str) -> _Steps:
        yield Skip(step=block.step, path=path, reason=reason)
        for inner in block.body:
            yield from self._skip(inner, path, f"{block.step.label} is skipped")

    def _ask(
        self,
        step: Step,
        path: Path,
        purpose: Purpose,
        expression: str,
        error: StepError | None = None,
    ) -> Generator[Action, Any, Told]:
        told: Told = yield Ask(
            step=step, path=path, purpose=purpose, expression=expression, error=error
        )
        if told.lacks is not None:
            yield from self._settle(step, path, 1, 1, told.lacks)
        if told.error is not None:
            yield from self._broken(step, path, purpose, expression, told.error)
        return told

    def _broken(
        self, step: Step, path: Path, purpose: Purpose, expression: str, error: StepError
    ) -> _Steps:
        status, ended = StepStatus.FAILED, RunStatus.FAILED
        cause = f"--{purpose} {expression}: {error.name}: {error.value}"
        if error.name == "KeyboardInterrupt":
            status, ended, cause = StepStatus.CANCELLED, RunStatus.CANCELLED, "interrupted"
        yield Commit(step=step, path=path, status=status, cause=cause)
        raise _Stop(End(status=ended, cause=cause, step=job_address(step.label, path)))

    # --- one job -----------------------------------------------------------------------------

    def _job(self, step: Step, path: Path) -> _Steps:
        runs = 1
        while True:
            attempt, ended = yield from self._attempts(step, path, runs)
            if not (ended.again and _ended_well(ended)):
                break
            yield Commit(
                step=step, path=path, attempt=attempt, runs=runs, status=StepStatus.SUCCESS,
                final=False, again=True,
            )  # fmt: skip
            woke: Woke = yield Suspend(step=step, path=path, attempt=attempt, runs=runs)
            self._over(step, path, woke)
            yield RollBack(step=step, path=path)
            runs += 1
        yield from self._settle(step, path, attempt, runs, ended)
        yield from self._afterwards(step, path, attempt, runs, ended)

    def _attempts(
        self, step: Step, path: Path, runs: int
    ) -> Generator[Action, Any, tuple[int, Ended]]:
        """Execute the step until it ended well, or is not tried again."""
        options, attempt = step.options, 1
        while True:
            passed_over = self._skipping_loop() is not None
            ended: Ended = yield Fire(
                step=step, path=path, attempt=attempt, passed_over=passed_over, runs=runs
            )
            if self._item:  # it cannot be given up while it waits: it was refused at the call
                ended = msgspec.structs.replace(ended, waits=False, again=False)
            again = attempt <= options.retry and _may_go_on(ended)
            again = again and not (ended.exited or ended.forbidden)
            if again and options.retry_if:
                told = yield from self._ask(
                    step, path, Purpose.RETRY_IF, options.retry_if, ended.error
                )
                again = told.value
            if not again:
                return attempt, ended
            yield Commit(
                step=step,
                path=path,
                attempt=attempt,
                runs=runs,
                status=StepStatus.FAILED,
                cause=ended.cause,
                final=False,
            )
            yield RollBack(step=step, path=path)
            seconds = options.backoff.seconds(attempt) * self._jitter()
            woke = yield Wait(step=step, path=path, seconds=seconds, attempt=attempt, runs=runs)
            self._over(step, path, woke)
            attempt += 1

    def _settle(self, step: Step, path: Path, attempt: int, runs: int, ended: Ended) -> _Steps:
        commit, end = self._verdict(step, path, ended)
        loop = self._skipping_loop()
        if loop is not None and self._passes(step, commit, ended):
            yield msgspec.structs.replace(commit, attempt=attempt, runs=runs, accepted=True)
            raise _ItemFailed(loop)
        yield msgspec.structs.replace(commit, attempt=attempt, runs=runs)
        if end is not None:
            raise _Stop(end)
        self._mark(step, Did.WELL if commit.status is StepStatus.SUCCESS else Did.FAILED)

    def _mark(self, step: Step, did: Did) -> None:
        for marks in self._did:
            marks.add((step.number, did))

    def _passes(self, step: Step, commit: Commit, ended: Ended) -> bool:
        """Whether a loop that skips failed items passes this failure."""
        if commit.status is not StepStatus.FAILED or ended.forbidden:
            return False
        if _may_go_on(ended):
            return step.options.on_error != "continue"
        return self._item and ended.ending in _FAILURES

    def _verdict(self, step: Step, path: Path, ended: Ended) -> tuple[Commit, End | None]:
        """What an ending means for the step and for the run."""
        where = job_address(step.label, path)
        status, accepted, cause, end = StepStatus.SUCCESS, False, ended.cause, None
        if ended.forbidden:
            status, cause = StepStatus.FAILED, ended.forbidden
            end = End(status=RunStatus.FAILED, cause=cause, step=where)
        elif ended.exited:
            end = End(status=RunStatus.SUCCESS, cause="exit", step=where)
        elif ended.ending == "ok":
            if ended.refused:
                status, cause = StepStatus.FAILED, ended.refused
                end = End(status=RunStatus.FAILED, cause=cause, step=where)
        elif ended.ending == "interrupted":
            status, cause = StepStatus.CANCELLED, "interrupted"
            end = End(status=RunStatus.CANCELLED, cause=cause, step=where)
        else:
            status, accepted = StepStatus.FAILED, _tolerates(step, ended)
            if not accepted:
                error = ended.error
                told = cause or (f"{error.name}: {error.value}" if error is not None else "error")
                end = End(status=RunStatus.FAILED, cause=told, step=where)
        commit = Commit(step=step, path=path, status=status, accepted=accepted, cause=cause)
        return commit, end

    def _afterwards(self, step: Step, path: Path, attempt: int, runs: int, ended: Ended) -> _Steps:
        options = step.options
        if options.stop_if:
            told = yield from self._ask(step, path, Purpose.STOP_IF, options.stop_if)
            if told.value:
                cause = f"{options.stop_if} is true"
                raise _Stop(
                    End(status=RunStatus.SUCCESS, cause=cause, step=job_address(step.label, path))
                )
        if ended.waits and _ended_well(ended):
            woke: Woke = yield Suspend(step=step, path=path, attempt=attempt, runs=runs)
            self._over(step, path, woke)
        if options.sleep is not None:
            self.rest = Wait(
                step=step, path=path, seconds=options.sleep, why="sleep", attempt=attempt,
                runs=runs,
            )  # fmt: skip

    # --- waits -------------------------------------------------------------------------------

    def _rest(self) -> _Steps:
        """Sleep, where the step before says so: there is something behind it."""
        wait, self.rest = self.rest, None
        if wait is not None:
            woke: Woke | None = yield wait
            self._over(wait.step, wait.path, woke)

    @staticmethod
    def _over(step: Step, path: Path, woke: Woke | None) -> None:
        """Go on behind a wait, or end the run."""
        if woke is None or woke.by == "resume":
            return
        if woke.by == "parked":
            status, cause = RunStatus.SUSPENDED, woke.cause
        elif woke.by == "cancel":
            status = RunStatus.CANCELLED
            cause = f"cancelled by {woke.who}" if woke.who else "cancelled"
        elif woke.on_timeout == "resume":
            return
        else:
            failed = woke.on_timeout == "fail"
            status = RunStatus.FAILED if failed else RunStatus.CANCELLED
            cause = "nobody resumed it in time"
        raise _Stop(End(status=status, cause=cause, step=job_address(step.label, path)))

    # --- loops -------------------------------------------------------------------------------

    def _loop(self, block: Block, path: Path) -> _Steps:
        step, options = block.step, block.step.options
        if options.foreach:
            told = yield from self._ask(step, path, Purpose.FOREACH, options.foreach)
            items = tuple((*path, Turn(step.label, n, key)) for n, key in enumerate(told.keys))
            if (options.parallel and self._parallel) or step.label in self._apart:
                ends = yield from self._fork(block, path, items)
            else:
                ends = []
                for inside in items:
                    yield from self._rest()
                    ends.append((yield from self.turn(block, inside)))
        else:
            ends = yield from self._while(block, path)
        expects = expected(options.collect, ends)
        refused: str | None = yield Leave(step=step, path=path, expects=expects)
        if refused:
            yield from self._refuse(step, path, refused)
        self._mark(step, Did.LEFT)

    def _refuse(self, step: Step, path: Path, cause: str) -> _Steps:
        """What a loop's items need, or leave, cannot be had: the loop itself has failed."""
        yield Commit(step=step, path=path, status=StepStatus.FAILED, cause=cause)
        raise _Stop(End(status=RunStatus.FAILED, cause=cause, step=job_address(step.label, path)))

    def _while(self, block: Block, path: Path) -> Generator[Action, Any, list[ItemEnd]]:
        step, options = block.step, block.step.options
        index, ends = 0, list[ItemEnd]()
        while True:
            yield from self._rest()
            inside = (*path, Turn(step.label, index, str(index)))
            told = yield from self._ask(step, inside, Purpose.WHILE, options.while_)
            if not told.value:
                return ends
            if index == options.max_turns:
                cause = f"{options.while_} is still true after {index} turns (--max-turns)"
                yield Commit(step=step, path=inside, status=StepStatus.FAILED, cause=cause)
                raise _Stop(
                    End(status=RunStatus.FAILED, cause=cause, step=job_address(step.label, path))
                )
            ends.append((yield from self.turn(block, inside)))
            index += 1

    def _fork(
        self, block: Block, path: Path, items: tuple[Path, ...]
    ) -> Generator[Action, Any, list[ItemEnd]]:
        joined: Joined = yield Fork(
            step=block.step, path=path, block=block, items=items, around=tuple(self._loops)
        )
        if joined.refused:
            yield from self._refuse(block.step, path, joined.refused)
        ended = [item for item in joined.items if item is not None]
        ends = [item.end for item in ended if item.end is not None]
        # what was interrupted counts before what failed, and that before an early end
        for status in (RunStatus.CANCELLED, RunStatus.FAILED, RunStatus.SUCCESS):
            for end in ends:
                if end.status is status:
                    raise _Stop(end)
        for loop in reversed(self._loops):
            if any(item.leaves == loop.label for item in ended):
                raise _ItemFailed(loop)
        return ended

    def turn(self, block: Block, path: Path) -> Generator[Action, Any, ItemEnd]:
        """One turn of a loop."""
        yield Enter(step=block.step, path=path)
        skipped, did = False, set[Mark]()
        self._loops.append(block.step)
        self._did.append(did)
        try:
            yield from self._job(block.step, path)
            yield from self.sequence(block.body, path, {})
        except _ItemFailed as failed:
            if failed.loop is not block.step:
                raise
            skipped = True
        finally:
            self._loops.pop()
            self._did.pop()
        missing = () if skipped else self._missing(block, did)
        refused: str | None = yield Turned(
            step=block.step, path=path, skipped=skipped, missing=missing
        )
        if refused:
            yield from self._refuse(block.step, path, refused)
        return ItemEnd(skipped=skipped, missing=missing)

    def _missing(self, block: Block, did: Collection[Mark]) -> tuple[str, ...]:
        """The names of which a turn has left nothing."""
        if not block.step.options.collect:
            return ()
        number = block.step.number
        if number not in self._collecting:
            self._collecting[number] = Collecting(block)
        return self._collecting[number].missing(did)

    def _skipping_loop(self) -> Step | None:
        """The innermost loop around that goes on past failed items."""
        return next((s for s in reversed(self._loops) if s.options.on_error == "skip"), None)


def expected(names: Sequence[str], ends: Sequence[ItemEnd]) -> tuple[str, ...]:
    """The names that some turn of a loop must have bound."""
    turns = [end for end in ends if not end.skipped]
    return tuple(n for n in names if any(n not in end.missing for end in turns))


#: endings of a job that its code is to blame for
_FAILURES = frozenset({"error", "timeout", "died"})


def _ended_well(ended: Ended) -> bool:
    refused = ended.refused or ended.forbidden
    return ended.ending == "ok" and not refused and not ended.exited


def _may_go_on(ended: Ended) -> bool:
    """Whether a failure of the code leaves a kernel to go on with."""
    return ended.ending in {"error", "timeout"} and ended.alive


def _tolerates(step: Step, ended: Ended) -> bool:
    """Whether the flow goes on after a failure of this step."""
    if ended.ending == "error" and step.may_fail:
        return True
    return step.options.on_error in {"continue", "skip"} and _may_go_on(ended)
