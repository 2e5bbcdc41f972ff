"""The magics themselves: `%%step` for help and completion, `%flow` finds the command."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand

from cellrail.errors import CellrailError
from cellrail.magics.opened import OpenNotebook
from cellrail.magics.words import split_line
from cellrail.notebook.options import SPECS, OptionError, parse_line
from cellrail.run.frontend import is_headless
from cellrail_state.errors import StateError

#: where each command lives; modules are imported when their command is used
_COMMANDS = {
    "backfill": "scheduling",
    "cancel": "going",
    "config": "setting",
    "diff": "looking",
    "doctor": "keeping",
    "export": "looking",
    "help": "setting",
    "journal": "looking",
    "key": "keeping",
    "load": "looking",
    "mv": "keeping",
    "panel": "looking",
    "prune": "keeping",
    "record": "setting",
    "recover": "going",
    "rerun": "going",
    "resource": "keeping",
    "restart": "restarting",
    "resume": "going",
    "run": "going",
    "runs": "looking",
    "show": "looking",
    "sql": "looking",
    "state": "keeping",
    "steps": "looking",
    "tick": "going",
    "trigger": "scheduling",
    "trust": "keeping",
    "undo": "restarting",
    "variable": "keeping",
}
#: commands about this very kernel: a notebook that is saved with one runs headless all the same
_OF_OPEN_NOTEBOOKS = frozenset({"record", "restart", "undo"})


@magics_class
class FlowMagics(Magics):
    """The magics of one shell."""

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self.here = OpenNotebook(shell)

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

    @no_var_expand
    @line_magic
    def flow(self, line: str) -> Any:
        """Look at runs, restart in this kernel, record. `%flow help` lists the commands."""
        try:
            words = split_line(line, self._expanded)
        except ValueError as error:
            raise UsageError(f"%flow: {error}") from error
        command, rest = (words[0], words[1:]) if words else ("help", [])
        home = _COMMANDS.get(command)
        if home is None:
            self._unknown(command)
        if command in _OF_OPEN_NOTEBOOKS and is_headless(self.here.shell):
            print(f"cellrail: %flow {command} is for an open notebook; a headless run goes on")
            return None
        try:
            module = import_module(f"cellrail.magics.{home}")
            return getattr(module, f"flow_{command}")(self.here, rest)
        except (CellrailError, StateError) as error:
            hint = f" ({error.hint})" if error.hint else ""
            raise UsageError(f"%flow {command}: {error}{hint}") from error

    def _expanded(self, line: str) -> str:
        """The line with `$name` and `{name}` filled in, as in any magic's.

        What stands there as JSON is meant as it is (`split_line`).
        """
        from IPython.utils.text import DollarFormatter

        try:
            return str(
                DollarFormatter().vformat(line, args=(), kwargs=dict(self.here.shell.user_ns))
            )
        except Exception:  # noqa: BLE001 - what cannot be filled in stays as it is, as in IPython
            return line

    def _unknown(self, command: str) -> None:
        from difflib import get_close_matches

        if command == "serve":
            raise UsageError("%flow serve: it is served from a terminal: cellrail serve")
        near = get_close_matches(command, _COMMANDS, n=1)
        suggestion = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"%flow: unknown command {command!r}{suggestion} (%flow help lists them)")

    def complete_flow(self, magics: Any, event: Any) -> list[str]:
        """Commands, then run ids and step names."""
        del magics
        words = str(event.line).split()
        done = len(words) - (0 if str(event.line).endswith(" ") else 1)
        if done <= 1:
            return list(_COMMANDS)
        try:
            app = self.here.app()
            if done > 2 or "--from" in words:
                return [step.label for step in app.show(self.here.default_run()).steps]
            return [row.run_id for row in app.runs(limit=20)]
        except (CellrailError, StateError):
            return []
