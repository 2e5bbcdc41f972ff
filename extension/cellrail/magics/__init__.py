"""`%%step`, `%flow` and the live run: what `%load_ext cellrail` gives a notebook.

`%%step` itself is no magic that runs anything: its line is blanked before the cell is compiled (see
`step_line`). The magic of that name is there for help, completion, and for the cases in which the
line cannot be the cell's first.

`opened` follows the cells and records them. Each `%flow` command is a function of the open notebook
and the words behind the command; they lie in a file per group, imported when it is used (`lines`).
"""

from __future__ import annotations

from typing import Any

from cellrail import step_line
from cellrail.magics.lines import FlowMagics
from cellrail.notebook.options import OptionError, parse_line


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
    magics.here.watch()


def unload(shell: Any) -> None:
    """Leave the shell as it was before."""
    magics = getattr(shell, "cellrail_live", None)
    if magics is None:
        return
    magics.here.close()
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
