"""The notebook that is open in this kernel: its cells are followed, and recorded as a live run."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from cellrail import step_line
from cellrail.errors import CellrailError, UserError
from cellrail_state.errors import StateError


class OpenNotebook:
    """One shell, its live run, and what `%flow` needs of both."""

    def __init__(self, shell: Any) -> None:
        """Know the shell; `watch` begins to follow its cells.

        Args:
            shell: the IPython shell.
        """
        self.shell: Any = shell
        #: the live run; None where nothing is recorded
        self.live: Any = None
        #: the moment before the last restart here
        self.undo: Any = None
        #: the jobs that had made the namespace then
        self.left: list[Any] = []
        #: whether to record; None where nobody has said so
        self.wanted: bool | None = None
        #: the process as it was before any cell
        self.base: Any = None
        #: what `%flow config` was told: notebook and store
        self.options: dict[str, str] = {}
        self._control: Any = None
        self._asked: Any = None
        #: the live run was begun without a notebook
        self._nameless = False

    # --- recording ---------------------------------------------------------------------------

    def watch(self) -> None:
        """Follow the cells from now on."""
        from cellrail.run.frontend import has_person
        from cellrail_state.ambient import Base

        self.base = Base.now()
        if self.wanted is None:
            self.wanted = has_person(self.shell)
        self.shell.events.register("pre_run_cell", self._before)
        self.shell.events.register("post_run_cell", self._after)
        self._asked = self.shell.should_run_async
        self.shell.should_run_async = self._should_run_async
        atexit.register(self.end)

    def close(self) -> None:
        """Follow no more."""
        self.end()
        atexit.unregister(self.end)
        for name, callback in (("pre_run_cell", self._before), ("post_run_cell", self._after)):
            if callback in self.shell.events.callbacks[name]:
                self.shell.events.unregister(name, callback)
        vars(self.shell).pop("should_run_async", None)

    def _should_run_async(self, raw_cell: str, **named: Any) -> bool:
        """Whether the shell runs a cell in the event loop: also where one of its loop awaits."""
        if self._asked(raw_cell, **named):
            return True
        if not ("--foreach" in raw_cell or "--while" in raw_cell):
            return False
        from cellrail.run.frontend import cell_id_of, cell_metadata

        cell_id = cell_id_of(self.shell)
        control, metadata = self._controller(), cell_metadata(self.shell, cell_id)
        cell = control.look_up(raw_cell, cell_id, metadata, self.live)
        return bool(self.shell.autoawait and control.awaits_inside(cell, self.live))

    def _before(self, info: Any) -> None:
        from cellrail.run.frontend import cell_metadata

        # what a recorded cell executes itself is part of it
        inner = self._control is not None and self._control.is_busy
        inner = inner or (self.live is not None and not self.live.is_idle)
        if not inner:
            self.learn_name()
        live = None if inner else self.live
        metadata = {} if inner else cell_metadata(self.shell, str(info.cell_id or ""))
        if live is None and not step_line.may_be_step(info.raw_cell or "", metadata):
            return
        control = self._controller()
        cell = control.look_up(info.raw_cell or "", str(info.cell_id or ""), metadata, live)
        if not control.before(info, cell, live) and live is not None:
            live.before(cell, info)

    def _after(self, result: Any) -> None:
        conducted, deltas = False, []
        if self._control is not None:
            conducted, deltas = self._control.after(result)
            if self._control.is_busy:
                return
        if conducted:
            self._tell(deltas)
            self._stop_behind(result)
        elif self.live is not None and result is not None:
            delta = self.live.after(result)
            self._tell([] if delta is None else [delta])
            self._stop_behind(result)
        elif self.wanted and result is not None:
            self.begin()
            if self.live is not None:
                # the cell with `%load_ext cellrail` is a step of the notebook, too
                info = result.info
                cell = self.live.book.look_up(info.raw_cell or "", str(info.cell_id or ""))
                self.live.before(cell, info)
                self.live.after(result)

    def _stop_behind(self, result: Any) -> None:
        """A cell that waits ends with an error of one line, so that Run All stops there."""
        if self.live is None or result is None:
            return
        gate, self.live.waiter.made = self.live.waiter.made, None
        if gate is None:
            return
        from cellrail.errors import RunSuspended
        from cellrail.run.cellcode import Shown, show
        from cellrail.run.waits import in_words

        words = in_words(gate.info) if gate.closed is None else str(gate)
        line, error = f"cellrail: {words}", RunSuspended(words)
        show(self.shell, Shown(kind=RunSuspended, value=error, lines=[line]))
        result.error_in_exec = error
        self.shell.last_execution_succeeded = False
        if gate.closed is None:
            self.live.waiter.on_end(gate.info, self._offer(gate.info))

    def _offer(self, info: Any) -> Any:
        """Show buttons under this cell that answer a wait; what they are told when it is over."""
        from cellrail.buttons import offer

        live = self.live
        return offer(self.shell, info, live.waiter.press)

    def _controller(self) -> Any:
        if self._control is None:
            from cellrail.run.livecontrol import LiveControl

            self._control = LiveControl(self.shell, self.base, notebook=self.notebook)
        return self._control

    def begin(self) -> None:
        """Start the live run where one is wanted and there is none; a failure is told once."""
        if not self.wanted or self.live is not None:
            return
        notebook = self.notebook()
        try:
            self.live = self.app().begin_live(self.shell, self.base, notebook)
            self.live.offer, self._nameless = self._offer, notebook is None
        except (CellrailError, StateError, OSError) as error:
            self.wanted = False
            print(f"cellrail does not record this notebook: {error}", file=sys.stderr)

    def learn_name(self) -> None:
        """Where the live run was begun without a notebook, and that is known now: tell it."""
        notebook = self.notebook() if self._nameless and self.live is not None else None
        if notebook is None or not notebook.is_file():
            return
        self._nameless = False
        app = self.app()
        if app.store_path == self.live.recorder.store.path:
            app.name_live(self.live, notebook.resolve())
        else:  # the notebook has a store of its own: what follows belongs there
            self.end()
            self.begin()

    def end(self) -> None:
        """Record no more."""
        if self.live is not None:
            live, self.live = self.live, None
            live.end()

    def _tell(self, deltas: Sequence[Any]) -> None:
        """One quiet line, only where something was not stored."""
        lost = {
            v.name: f"{v.name} ({v.verdict}: {v.reason})"
            for delta in deltas
            for v in delta.variables.values()
            if v.verdict != "stored" and v.name.isidentifier() and not _is_panel(v.reason)
        }
        told = list(lost.values())
        if deltas and deltas[-1].failure:
            told.append(f"not restorable after this cell: {deltas[-1].failure}")
        if told:
            print("cellrail: " + ", ".join(told), file=sys.stderr)

    def notebook(self) -> Path | None:
        """The notebook that is open here, where the front end or a person tells."""
        from cellrail.run.frontend import notebook_of

        named = self.options.get("notebook")
        return Path(named) if named else notebook_of(self.shell)

    def app(self) -> Any:
        """The use cases of this notebook's store."""
        from cellrail.app import App

        return App(self.options.get("store"), notebook=self.notebook())

    def default_run(self) -> str:
        """The live run, else the newest run of the notebook that is open here."""
        if self.live is not None:
            return str(self.live.run_id)
        notebook = self.notebook()
        if notebook is None:
            message = "nothing is recorded here, and the front end does not tell the notebook"
            raise UserError(message, hint="name the run; %flow runs lists them")
        return str(notebook)

    # --- restarts here ---------------------------------------------------------------------

    def went_back(self, decided: Any, flow: Any) -> None:
        """A restart has put the namespace back: what is recorded goes on from there.

        Args:
            decided: the restart's plan.
            flow: the notebook's steps.
        """
        live = self.live
        if live is None:
            return
        places = {
            step.number: live.book.look_up(step.source, step.cell_id).info.number
            for step in flow.steps
            if not step.only_looks
        }
        stored = [
            msgspec.structs.replace(record, step=places[record.step])
            for record in decided.stored_in_cells(flow)
        ]
        if decided.history.run_id == live.run_id:
            live.went_back(decided.jobs, stored)
            return
        live.went_back_to(
            decided.history,
            decided.jobs,
            kept={places[n]: job for n, job in decided.kept.items() if n in places},
            here={there: places[n] for n, there in decided.numbers.items() if n in places},
            stored=stored,
        )

    def state(self, app: Any) -> Any:
        """This kernel's captures: the live run's, or some of their own."""
        if self.live is not None:
            return self.live.state
        return app.shell_state(self.shell, self.base)

    def run_silently(self, source: str) -> bool:
        """Execute a cell for what it makes: nothing is shown, nothing recorded."""
        from IPython.utils.capture import capture_output

        live, self.live = self.live, None
        wanted, self.wanted = self.wanted, False
        try:
            with capture_output():
                return bool(self.shell.run_cell(source, store_history=False).success)
        finally:
            self.live, self.wanted = live, wanted

    def run_as(self, step: Any) -> bool:
        """Execute a step under this cell; recorded as that step's, unless this cell is one."""
        if self.live is not None and not self.live.is_idle:
            return self.run_silently(step.source)
        cell_id = step.cell_id or None
        done = self.shell.run_cell(step.source, store_history=False, cell_id=cell_id)
        return bool(done.success)


def _is_panel(reason: str) -> bool:
    """Whether nobody misses a value that is not stored for this reason: a panel."""
    # panels are imported where there is one, and not with the extension
    panels: Any = sys.modules.get("cellrail.panels.plain")
    return panels is not None and reason == f"{panels.A_PANEL} cannot be stored"
