"""`%%step`, `%flow` and the live run: what `%load_ext cellrail` gives a notebook.

`%%step` itself is no magic that runs anything: its line is blanked before the cell is compiled (see
`step_line`). The magic of that name is there for help, completion, and for the cases in which the
line cannot be the cell's first.
"""

from __future__ import annotations

import atexit
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class

from cellrail import step_line
from cellrail.errors import CellrailError, NotAvailableYet, UserError
from cellrail.notebook.options import SPECS, OptionError, parse_line
from cellrail_state.errors import StateError

_COMMANDS = (
    "cancel", "config", "diff", "export", "help", "journal", "load", "panel", "record", "recover",
    "rerun", "resource", "restart", "resume", "runs", "show", "state", "steps", "tick", "undo",
    "variable",
)  # fmt: skip
_LATER = frozenset(
    {
        "backfill", "trigger",
    }
)  # fmt: skip
_HELP = """\
%flow runs [NB] [--limit N]           the newest runs
%flow show [RUN [STEP]] [--vars]      a run, or a step of it
%flow steps [NB]                      the steps of a notebook
%flow load RUN STEP [NAME…] [--as N]  bring past values in; nothing is overwritten
%flow restart [RUN] [--from STEP] [--plan] [--force|--widen] [--run]
                                      put the namespace back to before a step
%flow recover [RUN | --all] [--plan]  go on with a run after a crash; without RUN: list them
%flow rerun RUN [OUT] [--changed WHAT,…] [--plan]
                                      execute what changed since a run, as a new headless run
%flow resume [RUN] [--step STEP] [--data JSON|@FILE]
                                      resume a suspended run, without RUN this notebook;
                                      cancel [RUN] cancels it
%flow tick                            fire what is due: runs that wait for time go on
%flow undo                            take the last restart back
%flow panel [RUN]                     look at runs, and restart them, in a panel
%flow record [on|off]                 record this notebook, or not
%flow config [NAME=VALUE]             show or set the settings of this kernel
%flow state|resource|variable list|get|set|delete …
                                      what outlives runs, as on the command line
%flow journal|diff|export …           as on the command line"""


def load(shell: Any) -> None:
    """Install everything; loading twice changes nothing."""
    if hasattr(shell, "cellrail_live"):
        return
    shell.input_transformers_cleanup.append(blank_good_step_line)
    magics = FlowMagics(shell)
    shell.register_magics(magics)
    shell.cellrail_live = magics
    shell.set_hook("complete_command", magics.complete_flow, str_key="%flow")
    shell.set_hook("complete_command", magics.complete_step, str_key="%%step")
    magics.watch()


def unload(shell: Any) -> None:
    """Leave the shell as it was before."""
    magics = getattr(shell, "cellrail_live", None)
    if magics is None:
        return
    magics.close()
    shell.input_transformers_cleanup.remove(blank_good_step_line)
    for kind, name in (("line", "flow"), ("cell", "step")):
        shell.magics_manager.magics[kind].pop(name, None)
    shell.magics_manager.registry.pop("FlowMagics", None)
    for key in ("%flow", "%%step"):
        commands = shell.strdispatchers["complete_command"].strs
        commands.pop(key, None)
    del shell.cellrail_live


def blank_good_step_line(lines: list[str]) -> list[str]:
    """Blank a `%%step` line that is right; a wrong one reaches the magic, which says what it is."""
    line = step_line.step_line("".join(lines))
    if line is None:
        return lines
    try:
        parse_line(line)
    except OptionError:
        return lines
    return step_line.blank_step_line(lines)


@magics_class
class FlowMagics(Magics):
    """The magics of one shell, and its live run."""

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self._shell: Any = shell
        self._live: Any = None
        self._undo: Any = None
        self._wanted: bool | None = None
        self._base: Any = None
        self._options: dict[str, str] = {}
        self._control: Any = None
        self._asked: Any = None

    # --- recording ---------------------------------------------------------------------------

    def watch(self) -> None:
        """Follow the cells from now on."""
        from cellrail.run.frontend import has_person
        from cellrail_state.ambient import Base

        self._base = Base.now()
        if self._wanted is None:
            self._wanted = has_person(self._shell)
        self._shell.events.register("pre_run_cell", self._before)
        self._shell.events.register("post_run_cell", self._after)
        self._asked = self._shell.should_run_async
        self._shell.should_run_async = self._should_run_async
        atexit.register(self._end)

    def close(self) -> None:
        """Follow no more."""
        self._end()
        atexit.unregister(self._end)
        for name, callback in (("pre_run_cell", self._before), ("post_run_cell", self._after)):
            if callback in self._shell.events.callbacks[name]:
                self._shell.events.unregister(name, callback)
        vars(self._shell).pop("should_run_async", None)

    def _should_run_async(self, raw_cell: str, **named: Any) -> bool:
        """Whether the shell runs a cell in the event loop: also where one of its loop awaits."""
        if self._asked(raw_cell, **named):
            return True
        if not ("--foreach" in raw_cell or "--while" in raw_cell):
            return False
        from cellrail.run.frontend import cell_id_of, cell_metadata

        cell_id = cell_id_of(self._shell)
        control, metadata = self._controller(), cell_metadata(self._shell, cell_id)
        cell = control.look_up(raw_cell, cell_id, metadata, self._live)
        return bool(self._shell.autoawait and control.awaits_inside(cell, self._live))

    def _before(self, info: Any) -> None:
        from cellrail.run.frontend import cell_metadata

        # what a recorded cell executes itself is part of it
        inner = self._control is not None and self._control.is_busy
        inner = inner or (self._live is not None and not self._live.is_idle)
        live = None if inner else self._live
        metadata = {} if inner else cell_metadata(self._shell, str(info.cell_id or ""))
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
        elif self._live is not None and result is not None:
            delta = self._live.after(result)
            self._tell([] if delta is None else [delta])
            self._stop_behind(result)
        elif self._wanted and result is not None:
            self._begin()
            if self._live is not None:
                # the cell with `%load_ext cellrail` is a step of the notebook, too
                info = result.info
                cell = self._live.book.look_up(info.raw_cell or "", str(info.cell_id or ""))
                self._live.before(cell, info)
                self._live.after(result)

    def _stop_behind(self, result: Any) -> None:
        """A cell that waits ends with an error of one line, so that Run All stops there."""
        if self._live is None or result is None:
            return
        gate, self._live.waiter.made = self._live.waiter.made, None
        if gate is None:
            return
        from cellrail.errors import RunSuspended
        from cellrail.run.cellcode import Shown, show
        from cellrail.run.waits import in_words

        words = in_words(gate.info) if gate.closed is None else str(gate)
        line, error = f"cellrail: {words}", RunSuspended(words)
        show(self._shell, Shown(kind=RunSuspended, value=error, lines=[line]))
        result.error_in_exec = error
        self._shell.last_execution_succeeded = False
        if gate.closed is None:
            self._live.waiter.on_end(gate.info, self._offer(gate.info))

    def _offer(self, info: Any) -> Any:
        """Show buttons under this cell that answer a wait; what they are told when it is over."""
        from cellrail.buttons import offer

        live = self._live
        return offer(self._shell, info, live.waiter.press)

    def _controller(self) -> Any:
        if self._control is None:
            from cellrail.run.livecontrol import LiveControl

            self._control = LiveControl(self._shell, self._base, notebook=self._notebook)
        return self._control

    def _begin(self) -> None:
        """Start the live run; where that fails, say so once and go on unrecorded."""
        try:
            self._live = self._app().begin_live(self._shell, self._base, self._notebook())
            self._live.offer = self._offer
        except (CellrailError, StateError, OSError) as error:
            self._wanted = False
            print(f"cellrail does not record this notebook: {error}", file=sys.stderr)

    def _end(self) -> None:
        if self._live is not None:
            live, self._live = self._live, None
            live.end()

    def _tell(self, deltas: Sequence[Any]) -> None:
        """One quiet line, only where something was not stored."""
        lost = {
            v.name: f"{v.name} ({v.verdict}: {v.reason})"
            for delta in deltas
            for v in delta.variables.values()
            if v.verdict != "stored" and v.name.isidentifier()
        }
        told = list(lost.values())
        if deltas and deltas[-1].failure:
            told.append(f"not restorable after this cell: {deltas[-1].failure}")
        if told:
            print("cellrail: " + ", ".join(told), file=sys.stderr)

    @property
    def notebook(self) -> Path | None:
        """The notebook that is open here; None where the front end does not tell."""
        return self._notebook()

    @property
    def app(self) -> Any:
        """The store of this notebook."""
        return self._app()

    def _notebook(self) -> Path | None:
        from cellrail.run.frontend import notebook_of

        named = self._options.get("notebook")
        return Path(named) if named else notebook_of(self._shell)

    def _app(self) -> Any:
        from cellrail.app import App

        return App(self._options.get("store"), notebook=self._notebook())

    # --- %%step ------------------------------------------------------------------------------

    @cell_magic
    def step(self, line: str, cell: str) -> None:
        """Make this cell a step of the flow.

        Usage, as the cell's first line::

            %%step NAME [options]

        --when EXPR skips the cell; --branch GROUP --when EXPR and --branch GROUP:default run one
        of a group; --retry N tries again, on the namespace before; --foreach VAR in EXPR and
        --while EXPR run it in turns; --on-error continue|skip goes on; --stop-if EXPR ends the
        flow; --timeout DUR interrupts it. Without them the cell runs as without the line.
        --always, --outputs a,b and --no-checkpoint are for checkpoints and restarts. DUR is a
        number with ms, s, m, h, d or w; a plain number is seconds.
        """
        del cell
        try:
            parse_line(line)
        except OptionError as error:
            raise UsageError(f"%%step: {error}") from error
        message = "%%step must be the cell's first line, above any other cell magic"
        raise UsageError(message)

    def complete_step(self, magics: Any, event: Any) -> list[str]:
        """Options, and the names of the notebook's steps."""
        del magics, event
        return [f"--{spec.name}" for spec in SPECS]

    # --- %flow -------------------------------------------------------------------------------

    @line_magic
    def flow(self, line: str) -> Any:
        """Look at runs, restart in this kernel, record. `%flow help` lists the commands."""
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise UsageError(f"%flow: {error}") from error
        command, rest = (words[0], words[1:]) if words else ("help", [])
        if command not in _COMMANDS:
            self._unknown(command)
        try:
            return getattr(self, f"_flow_{command}")(rest)
        except (CellrailError, StateError) as error:
            hint = f" ({error.hint})" if error.hint else ""
            raise UsageError(f"%flow {command}: {error}{hint}") from error

    def _unknown(self, command: str) -> None:
        from difflib import get_close_matches

        near = get_close_matches(command, _COMMANDS, n=1)
        suggestion = f"; did you mean {near[0]}?" if near else ""
        if command == "serve":
            raise UsageError("%flow serve: it is served from a terminal: cellrail serve")
        if command in _LATER:
            message = f"%flow {command} is not available yet"
            raise UsageError(message)
        raise UsageError(f"%flow: unknown command {command!r}{suggestion} (%flow help lists them)")

    def _flow_help(self, words: list[str]) -> None:
        del words
        print(_HELP)

    def _flow_runs(self, words: list[str]) -> Any:
        given, options = _split(words, values={"limit", "status"})
        return self._app().runs(
            given[0] if given else None,
            status=options.get("status"),
            limit=int(options.get("limit", 20)),
        )

    def _flow_show(self, words: list[str]) -> Any:
        given, options = _split(words, flags={"vars"})
        run = self._app().show(given[0] if given else self._default_run())
        step = run[given[1]] if len(given) > 1 else run.steps[-1]
        if "vars" in options:
            return step.variables
        return step if len(given) > 1 else run

    def _flow_panel(self, words: list[str]) -> Any:
        from cellrail.panels import panel

        given, _ = _split(words)
        if len(given) > 1:
            message = "one run, or none"
            raise UserError(message)
        return panel(self._app(), run=given[0] if given else "")

    def _flow_steps(self, words: list[str]) -> Any:
        given, _ = _split(words)
        notebook = given[0] if given else self._notebook()
        if notebook is None:
            message = "this front end does not tell which notebook it has open"
            raise UserError(message, hint="%flow steps NOTEBOOK, or %flow config notebook=PATH")
        return [
            (f"#{step.number}", step.name, str(step.options))
            for step in self._app().steps(notebook).steps
        ]

    def _flow_journal(self, words: list[str]) -> list[dict[str, Any]]:
        given, _ = _split(words)
        return list(self._app().journal(given[0] if given else self._default_run()))

    def _flow_diff(self, words: list[str]) -> Any:
        given, _ = _split(words)
        if len(given) != 2:
            message = "two runs are needed"
            raise UserError(message)
        return self._app().diff(*given)

    def _flow_export(self, words: list[str]) -> Any:
        given, _ = _split(words)
        if len(given) != 2:
            message = "a run and a file are needed"
            raise UserError(message)
        return self._app().export(*given)

    def _flow_load(self, words: list[str]) -> None:
        from cellrail.run.here import load_into

        given, options = _split(words, values={"as"})
        if len(given) < 2:
            message = "a run and a step are needed, then names"
            raise UserError(message)
        run, step, *names = given
        rename = options.get("as")
        if rename is not None and len(names) != 1:
            message = "--as goes with one name"
            raise UserError(message)
        view = self._app().show(run, verify=True)[step]
        wanted = names or [n for n in view.variables if n.isidentifier()]
        values = view.load(wanted)
        print("loaded " + ", ".join(load_into(self._shell, values, rename=rename)))

    def _flow_state(self, words: list[str]) -> Any:
        return self._stored("state", words)

    def _flow_resource(self, words: list[str]) -> Any:
        return self._stored("resource", words)

    def _flow_variable(self, words: list[str]) -> Any:
        return self._stored("variable", words)

    def _stored(self, kind: str, words: list[str]) -> Any:
        """List, get, set or delete what outlives runs."""
        from cellrail.stored import StoredCommand

        given, options = _split(words, flags={"secret", "reveal"}, values={"type", "if-version"})
        return StoredCommand(self._app(), kind, options).carry_out(given)

    def _default_run(self) -> str:
        """The live run, else the newest run of the notebook that is open here."""
        if self._live is not None:
            return str(self._live.run_id)
        notebook = self._notebook()
        if notebook is None:
            message = "nothing is recorded here, and the front end does not tell the notebook"
            raise UserError(message, hint="name the run; %flow runs lists them")
        return str(notebook)

    # --- restart in this kernel --------------------------------------------------------------

    def _flow_restart(self, words: list[str]) -> Any:
        from cellrail.run import here

        given, options = _split(
            words, flags={"plan", "force", "widen", "run"}, values={"from", "to"}
        )
        app = self._app()
        run = given[0] if given else self._default_run()
        decided, flow = app.plan_here(
            run,
            notebook=self._notebook(),
            from_step=options.get("from"),
            to=options.get("to"),
            force="force" in options,
            widen="widen" in options,
        )
        if "plan" in options:
            print("\n".join(decided.plan.lines()))
            return None
        decided.plan.check()
        if decided.inner is not None:
            message = f"{decided.inner.label} lies inside a loop, which a cell executes as a whole"
            raise UserError(
                message,
                hint=f"--from {decided.inner.turns[0].loop} here, or cellrail restart {run}",
            )
        state = self._state(app)
        self._undo = here.moment(self._shell, state)
        putback = decided.putback("")
        try:
            here.restart_here(
                state,
                putback,
                flow=flow,
                execution_count=self._shell.execution_count,
                run_cell=self._run_silently,
            )
            self._went_back(decided.jobs)
            if self._live is not None:
                self._live.goes_on_with(decided.stored_in_cells(flow), flow.steps)
        except BaseException:
            here.go_back(
                self._shell, state, self._undo, execution_count=self._shell.execution_count
            )
            raise
        print("".join(f"{remark}\n" for remark in putback.remarks), end="")
        cells = here.cells_to_run(decided.plan, flow)
        if "run" not in options:
            label = cells[0].label if cells else "the end"
            print(f"the namespace is as it was right before {label!r}; run on from there")
            return None
        for step in cells:
            print(f"-- {step.label}")
            if not self._run_as(step):
                break
        return None

    def _flow_recover(self, words: list[str]) -> Any:
        given, options = _split(words, flags={"plan", "all"})
        app = self._app()
        if "all" in options:
            return app.recover(all=True, plan="plan" in options, tell=print)
        if not given:
            return app.recover()
        if "plan" in options:
            print("\n".join(app.recover(given[0], plan=True).lines()))
            return None
        return app.recover(given[0], tell=print)

    def _flow_rerun(self, words: list[str]) -> Any:
        given, options = _split(words, flags={"plan"}, values={"changed"})
        if not given:
            message = "%flow rerun needs a run"
            raise UserError(message, hint="%flow rerun etl.ipynb: its newest run; %flow runs")
        app, output = self._app(), given[1] if len(given) > 1 else None
        changed = [word for word in str(options.get("changed", "")).split(",") if word]
        if "plan" in options:
            print("\n".join(app.rerun(given[0], plan=True, changed=changed).lines()))
            return None
        return app.rerun(given[0], output, changed=changed)

    def _flow_resume(self, words: list[str]) -> Any:
        from cellrail.run.jsontext import given_value

        given, options = _split(words, values={"step", "data"})
        data = given_value(options.get("data"), "--data")
        run = self._run_or_here(given)
        done = self._app().resume(run, step=options.get("step"), data=data, tell=print)
        return self._unless_here(done)

    def _flow_cancel(self, words: list[str]) -> Any:
        given, _ = _split(words)
        run = self._run_or_here(given)
        return self._unless_here(self._app().cancel(run, tell=print))

    def _run_or_here(self, given: list[str]) -> str:
        """The run that is named; without a name this notebook, never another run of it."""
        if len(given) == 1 or (not given and self._live is not None):
            return given[0] if given else str(self._live.run_id)
        message = "a run is needed: %flow runs lists them"
        raise UserError(message)

    def _unless_here(self, run: Any) -> Any:
        """A run that was answered; None where this notebook is what goes on."""
        if self._live is None or run.id != self._live.run_id:
            return run
        self._live.waiter.look()
        return None

    def _flow_tick(self, words: list[str]) -> Any:
        _split(words)
        return [one.run or one.refused for one in self._app().tick()]

    def _flow_undo(self, words: list[str]) -> None:
        from cellrail.run import here

        del words
        if self._undo is None:
            message = "there is no restart to take back"
            raise UserError(message)
        app = self._app()
        state = self._state(app)
        then, self._undo = self._undo, None
        count = self._shell.execution_count
        remarks = here.go_back(self._shell, state, then, execution_count=count)
        if self._live is not None:
            self._went_back(app.history(self._live.run_id).chain)
            self._live.goes_on_with((), ())
        print("".join(f"{remark}\n" for remark in remarks), end="")
        print("the namespace is as it was before the restart")

    def _went_back(self, jobs: Any) -> None:
        """Flow user state and shared files are what these jobs have left, too."""
        if self._live is not None:
            self._live.desk.started_on(jobs)

    def _state(self, app: Any) -> Any:
        """This kernel's captures: the live run's, or some of their own."""
        if self._live is not None:
            return self._live.state
        return app.shell_state(self._shell, self._base)

    def _run_silently(self, source: str) -> bool:
        """Execute a cell for what it makes: nothing is shown, nothing recorded."""
        from IPython.utils.capture import capture_output

        live, self._live = self._live, None
        wanted, self._wanted = self._wanted, False
        try:
            with capture_output():
                return bool(self._shell.run_cell(source, store_history=False).success)
        finally:
            self._live, self._wanted = live, wanted

    def _run_as(self, step: Any) -> bool:
        """Execute a step under this cell; recorded as that step's, unless this cell is one."""
        if self._live is not None and not self._live.is_idle:
            return self._run_silently(step.source)
        cell_id = step.cell_id or None
        done = self._shell.run_cell(step.source, store_history=False, cell_id=cell_id)
        return bool(done.success)

    # --- settings ----------------------------------------------------------------------------

    def _flow_record(self, words: list[str]) -> None:
        given, _ = _split(words)
        if given == ["on"]:
            self._wanted = True
        elif given == ["off"]:
            self._wanted = False
            self._end()
        elif given:
            message = f"record on or off, not {' '.join(given)!r}"
            raise UserError(message)
        on = self._live is not None or self._wanted
        print(f"recording is {'on' if on else 'off'}")

    def _flow_config(self, words: list[str]) -> None:
        for word in words:
            name, equals, value = word.partition("=")
            if name not in {"notebook", "store"}:
                raise UserError(
                    f"{name!r} cannot be set here",
                    hint="notebook=PATH and store=PATH can; the others stand in [tool.cellrail]",
                )
            if equals:
                self._options[name] = value
        app = self._app()
        print(f"notebook = {self._notebook() or 'unknown'}")
        print(f"store = {app.store_path}")
        for name in app.settings.__struct_fields__:
            if name != "store":
                print(f"{name} = {getattr(app.settings, name)!r}")

    def complete_flow(self, magics: Any, event: Any) -> list[str]:
        """Commands, then run ids and step names."""
        del magics
        words = str(event.line).split()
        done = len(words) - (0 if str(event.line).endswith(" ") else 1)
        if done <= 1:
            return list(_COMMANDS)
        try:
            app = self._app()
            if done > 2 or "--from" in words:
                return [step.label for step in app.show(self._default_run()).steps]
            return [row.run_id for row in app.runs(limit=20)]
        except (CellrailError, StateError):
            return []


def _split(
    words: list[str], *, flags: set[str] | None = None, values: set[str] | None = None
) -> tuple[list[str], dict[str, str]]:
    """Positional words and options."""
    flags, values = flags or set(), values or set()
    given: list[str] = []
    options: dict[str, str] = {}
    waiting = iter(words)
    for word in waiting:
        if not word.startswith("--"):
            given.append(word)
            continue
        name = word[2:]
        if name in flags:
            options[name] = ""
        elif name in values:
            value = next(waiting, None)
            if value is None:
                raise UserError(f"--{name} needs a value")
            options[name] = value
        elif name in {"failed-only", "reeval", "detach"}:
            raise NotAvailableYet(f"--{name} is not available yet")
        else:
            known = ", ".join(f"--{n}" for n in sorted(flags | values)) or "none"
            raise UserError(f"unknown option --{name}", hint=f"known: {known}")
    return given, options
