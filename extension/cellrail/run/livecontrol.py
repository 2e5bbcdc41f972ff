"""Control flow in an open notebook: a cell whose line says so is conducted by the control machine.

Before IPython runs such a cell, its code is replaced by a call of ours (an AST transformer, since
nothing else can skip or repeat a cell). Within that call the machine decides, and the cell's own
statements are executed as often as it says, the way IPython executes them.

What a person sees of it, a closed set of endings (`_Conducted._end`):

* the cell is done: its last turn went well, it was skipped (one line), or its failure is tolerated;
* the user's own traceback, and Run All stops;
* one line, and Run All stops: it stands behind a step that waits for somebody, or waits itself; an
  expression of the step's line failed, a loop had too many turns, `--stop-if` is true (a
  `SystemExit`, which papermill takes for a good end), a cell with `--in` is executed that its loop
  has not executed as it is now.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from cellrail.errors import CellrailError, UserError
from cellrail.notebook.actions import Action, Commit, End
from cellrail.notebook.blocks import Block
from cellrail.notebook.control import conduct
from cellrail.notebook.model import Step
from cellrail.run.cellcode import CellCode, Shown, code_of, show, wrapper
from cellrail.run.frontend import is_headless
from cellrail.run.live import LiveRun, LiveStep, StepBook
from cellrail.run.liveloops import loop_of
from cellrail.run.liveperformer import LivePerformer, may_rerun
from cellrail.run.livewaits import Gate
from cellrail.run.shellstate import ShellState
from cellrail.step_line import only_looks
from cellrail_state.ambient import Base
from cellrail_state.model import Delta, RunStatus, StepStatus
from cellrail_state.objects import Objects
from cellrail_state.turns import job_address
from cellrail_state.waits import CANCEL

#: waits before a retry vary by so much
_JITTER = (0.9, 1.1)
_CALL = "__cellrail_cell__"


def _jitter() -> float:
    # the notebook's own generator must not notice
    return random.SystemRandom().uniform(*_JITTER)


class Refused(UserError):
    """A cell is not executed."""


class _Executed(msgspec.Struct, frozen=True):
    """What a loop has executed of a cell below its header."""

    source: str
    #: label of the outermost header
    loop: str
    told: str


class LiveControl:
    """Decides for each cell of one shell whether it is conducted; knows what was decided before."""

    def __init__(self, shell: Any, base: Base, *, notebook: Callable[[], Path | None]) -> None:
        """Prepare.

        Args:
            shell: the IPython shell.
            base: the process as it was before any code of the user ran.
            notebook: the notebook that is open, where the front end tells.
        """
        self._shell, self._base, self._notebook = shell, base, notebook
        self._book = StepBook(None)
        #: the cells that run, outermost first
        self._open: list[_Conducted] = []
        #: which step of a group of branches was taken
        self._taken: dict[str, Step] = {}
        #: what loops have executed of cells with `--in`
        self._executed: dict[int, _Executed] = {}

    @property
    def is_busy(self) -> bool:
        """Whether a cell is being conducted."""
        return bool(self._open)

    def look_up(
        self, source: str, cell_id: str, metadata: dict[str, Any], live: LiveRun | None
    ) -> LiveStep:
        """The step that a cell is.

        Args:
            source: the cell's.
            cell_id: the cell's; "" where the front end does not tell.
            metadata: its tags and options, where the front end tells.
            live: what records it.
        """
        book = live.book if live is not None else self._book
        return book.look_up(source, cell_id, metadata)

    def before(self, info: Any, cell: LiveStep, live: LiveRun | None) -> bool:
        """A cell begins; whether it is conducted."""
        if is_headless(self._shell):  # the driver conducts
            return False
        options = cell.step.options
        asks = bool(options.control) or options.timeout is not None
        gate = live.waiter.holds(cell.info.number) if live is not None else None
        asks = asks or gate is not None
        asks = asks or (live is not None and may_rerun(cell.step, self._shell.user_ns))
        wrong = bool(cell.problem) and not cell.info.source.lstrip().startswith("%%")
        if not (asks or wrong) or only_looks(cell.info.source):
            return False
        conducted = _Conducted(self, self._shell, info, cell, live, gate=gate)
        self._open.append(conducted)
        conducted.prepare()
        return True

    def after(self, result: Any) -> tuple[bool, list[Delta]]:
        """A cell has ended; whether it was conducted, and what its checkpoints hold."""
        found = [c for c in self._open if result is None or c.info is result.info]
        if not found:
            return False, []
        conducted = found[-1]
        self._open.remove(conducted)
        conducted.close()
        if not conducted.began:  # no Python
            if conducted.live is not None:
                conducted.live.before(conducted.cell, conducted.info)
            return False, []
        self._shell.last_execution_succeeded = bool(result is not None and result.success)
        return True, conducted.deltas

    # --- what a cell has to know of others ---------------------------------------------------

    def block(self, cell: LiveStep, live: LiveRun | None) -> tuple[Block, dict[int, LiveStep]]:
        """What executing a cell means: the step, or the loop that it heads.

        Raises:
            Refused: the cells of the loop cannot be told.
        """
        book = live.book if live is not None else self._book
        try:
            return loop_of(cell, self._notebook(), book)
        except CellrailError as error:
            raise Refused(str(error)) from error

    def begins(self, cells: Iterable[int]) -> None:
        """These cells are executed anew: what a loop has told of them holds no more."""
        for number in cells:
            self._executed.pop(number, None)

    def awaits_inside(self, cell: LiveStep, live: LiveRun | None) -> bool:
        """Whether a cell below the header of a loop has a top-level `await`."""
        if not cell.step.options.loops or is_headless(self._shell):
            return False
        try:
            block, _ = self.block(cell, live)
        except Refused:
            return False
        return any(
            self._shell.should_run_async(
                step.source,
                transformed_cell=self._shell.transform_cell(step.source),
                preprocessing_exc_tuple=None,
            )
            for inner in block.body
            for step in inner.steps()
        )

    def looped(self, block: Block, cells: dict[int, LiveStep], told: str) -> None:
        """A loop has executed (or skipped) the cells below its header."""
        for step in block.steps():
            if step.number != block.step.number:
                source = cells[step.number].info.source
                self._executed[step.number] = _Executed(source, block.step.label, told)

    def inside(self, cell: LiveStep) -> str:
        """What is told where a cell with `--in` is executed.

        Raises:
            Refused: its loop has not executed it as it is now.
        """
        loop, label = cell.step.options.in_, cell.step.label
        done = self._executed.get(cell.step.number)
        if done is not None and done.source == cell.info.source:
            return done.told
        if done is not None:
            message = (
                f"{label} is not as it was when {done.loop} executed it: "
                f"save the notebook, then execute {done.loop}"
            )
        elif self._notebook() is None:
            message = (
                f"{label} runs in the turns of {loop}, which has to know the notebook: "
                f"%flow config notebook=PATH, then execute {loop}"
            )
        else:
            message = f"{label} runs in the turns of {loop}: save the notebook, then execute {loop}"
        raise Refused(message)

    def taken_above(self, step: Step) -> dict[str, str]:
        """The choice of the step's group, if a step above it was chosen; else it is open again."""
        branch = step.options.branch
        if branch is None:
            return {}
        chosen = self._taken.get(branch.group)
        if chosen is not None and chosen.number < step.number:
            return {branch.group: chosen.label}
        self._taken.pop(branch.group, None)
        return {}

    def take(self, step: Step) -> None:
        """A step of a group of branches was chosen."""
        if step.options.branch is not None:
            self._taken[step.options.branch.group] = step

    def scratch(self, folder: str) -> ShellState:
        """Captures for retries in a notebook that is not recorded."""
        return ShellState(self._shell, Objects(Path(folder)), base=self._base)


class _Conducted:
    """One execution of one cell."""

    def __init__(
        self,
        control: LiveControl,
        shell: Any,
        info: Any,
        cell: LiveStep,
        live: LiveRun | None,
        *,
        gate: Gate | None,
    ) -> None:
        self.info = info
        #: what it waits for, or why it is not executed
        self._gate = gate
        #: its code began; otherwise IPython refused it
        self.began = False
        self._control, self._shell, self.cell, self.live = control, shell, cell, live
        self._codes: dict[int, CellCode] = {}
        self._result: Any = None
        self._performer: LivePerformer | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._state: ShellState | None = None

    @property
    def deltas(self) -> list[Delta]:
        """What its checkpoints hold."""
        return self._performer.deltas if self._performer is not None else []

    # --- around the call ---------------------------------------------------------------------

    def prepare(self) -> None:
        """Have IPython call `__call__` instead of the cell's code."""
        self._shell.ast_transformers.append(self)

    def visit(self, node: Any) -> Any:
        """Put the call in the code's place; IPython hands the code over, once."""
        self._shell.ast_transformers.remove(self)
        source = self.info.raw_cell
        self._codes[self.cell.info.number] = CellCode(
            source=source, transformed=self._transformed, nodes=node.body, filename=""
        )
        # hidden from whatever lists the user's variables
        self._shell.push({_CALL: self}, interactive=False)
        return wrapper(_CALL, awaits=bool(self._shell.autoawait))

    @property
    def _transformed(self) -> str:
        told = getattr(self.info, "transformed_cell", None)
        return (
            told if isinstance(told, str) else str(self._shell.transform_cell(self.info.raw_cell))
        )

    def __call__(self) -> Any:
        """Execute the cell: a coroutine, unless the shell takes none."""
        self.began = True
        self._forget_call()
        number = self.cell.info.number
        filename = sys._getframe(1).f_code.co_filename  # noqa: SLF001 - what tracebacks know it by
        self._codes[number] = msgspec.structs.replace(self._codes[number], filename=filename)
        self._result = self._shell.displayhook.exec_result
        running = self._run()
        if self._shell.autoawait:
            return running
        try:
            running.send(None)
        except StopIteration:
            return None
        raise AssertionError("a cell without await waits")  # pragma: no cover

    def close(self) -> None:
        """The cell has ended."""
        if self in self._shell.ast_transformers:
            self._shell.ast_transformers.remove(self)
        self._forget_call()
        if self._performer is not None:
            self._performer.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _forget_call(self) -> None:
        if self._shell.user_ns.get(_CALL) is self:
            del self._shell.user_ns[_CALL]
            self._shell.user_ns_hidden.pop(_CALL, None)

    # --- the call ----------------------------------------------------------------------------

    async def _run(self) -> None:
        """Execute the cell. Raises nothing: how it ended stands in IPython's result."""
        step = self.cell.step
        try:
            if self.cell.problem:
                raise Refused(self.cell.problem)
            if self._gate is not None and not self._gate.is_time:
                raise Refused(str(self._gate))
            if step.options.in_:
                print(f"cellrail: {self._control.inside(self.cell)}")
                return
            block, cells = self._control.block(self.cell, self.live)
            self._control.begins(cells)
            end = await self._conduct(block, cells)
            self._end(end, block, cells)
        except CellrailError as error:
            self._fail(error, f"cellrail: {error}")
        except (KeyboardInterrupt, asyncio.CancelledError) as error:
            self._fail(error, type(error).__name__)
        except Exception as error:  # noqa: BLE001 - a defect of ours, or a full disk
            self._fail(error, f"cellrail: {type(error).__name__}: {error}")

    async def _conduct(self, block: Block, cells: dict[int, LiveStep]) -> End:
        performer = self._performer = self._new_performer(cells)
        if self.live is not None:
            self.live.waiter.made = None
            self.live.next_execution()
        if self._gate is not None:
            await self._let_pass(performer, self._gate)
        taken = self._control.taken_above(block.step)
        if any(step.options.parallel for step in block.steps()):
            print("cellrail: in an open notebook items run one after another, not --parallel")
        machine = conduct((block,), taken=taken, parallel=False, jitter=_jitter)
        answer: Any = None
        while True:
            try:
                action: Action = machine.send(answer)
            except StopIteration as stop:
                if performer.has_run:
                    self._control.take(block.step)
                end: End = stop.value
                return end
            try:
                answer = await performer.perform(action)
            except (KeyboardInterrupt, asyncio.CancelledError):
                await performer.perform(_cancelled(action))
                raise

    async def _let_pass(self, performer: LivePerformer, gate: Gate) -> None:
        """Wait until the time is over that has to pass before this cell."""
        woke = await performer.wait_for(gate.info)
        closed = self.live.waiter.holds(self.cell.info.number) if self.live is not None else None
        if woke.by == CANCEL and closed is not None:
            raise Refused(str(closed))

    def _new_performer(self, cells: dict[int, LiveStep]) -> LivePerformer:
        awaits = self._shell.should_run_async(
            self.info.raw_cell, transformed_cell=self._transformed, preprocessing_exc_tuple=None
        )
        return LivePerformer(
            self._shell,
            cells=cells,
            codes=self._code,
            header=self.cell.step,
            info=self.info,
            execution_count=self._result.execution_count if self._result is not None else None,
            awaits=awaits,
            live=self.live,
            state=self._scratch,
        )

    def _code(self, step: Step) -> CellCode:
        code = self._codes.get(step.number)
        if code is None:
            code = self._codes[step.number] = code_of(self._shell, step.source)
        return code

    def _scratch(self) -> ShellState:
        if self._state is None:
            self._folder = tempfile.TemporaryDirectory(prefix="cellrail-")
            self._state = self._control.scratch(self._folder.name)
        return self._state

    # --- how it ended ------------------------------------------------------------------------

    def _end(self, end: End, block: Block, cells: dict[int, LiveStep]) -> None:
        performer = self._performer
        if performer is None:
            return
        label = block.step.label
        if self.live is not None and self.live.waiter.made is not None:
            return  # it waits: that is told behind it
        if self.live is not None and end.rest is not None:
            self.live.waiter.rest(end.rest, job_address(end.rest.step.label, end.rest.path))
        if end.status is RunStatus.SUCCESS and not end.step:
            told = f"ran in the turns of {label}" if performer.has_run else f"skipped with {label}"
            self._control.looped(block, cells, told)
        elif performer.fatal is not None:
            self._set_error(performer.fatal.raised)
        elif end.status is RunStatus.SUCCESS and end.cause == "exit":
            self._set_error(SystemExit(0))
        elif end.status is RunStatus.SUCCESS:
            self._fail(SystemExit(0), f"cellrail: the flow ends here: {end.cause}")
        elif performer.broken is not None and performer.raised is not None:
            self._fail(performer.raised, *performer.broken.traceback)
        else:
            self._fail(RuntimeError(end.cause), f"cellrail: {end.step}: {end.cause}")

    def _fail(self, error: BaseException, *lines: str) -> None:
        """End the cell with an error that is told in these lines."""
        shown = Shown(kind=type(error), value=error, lines=[line.rstrip("\n") for line in lines])
        show(self._shell, shown)
        self._set_error(error)

    def _set_error(self, error: BaseException | None) -> None:
        if self._result is not None:
            self._result.error_in_exec = error


def _cancelled(action: Action) -> Commit:
    """What is recorded where a person interrupts."""
    return Commit(
        step=action.step, path=action.path, status=StepStatus.CANCELLED, cause="interrupted"
    )
