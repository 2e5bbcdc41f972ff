"""The `%%step` line as an input transformation.

A cell magic that runs its body itself breaks tracebacks, `await` and Run All's stop at the first
failure. So the line is blanked before IPython compiles the cell, which then runs as a plain cell
with its line numbers intact. The transformer has no effects: IPython calls it several times a cell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_STEP = re.compile(r"^%%step(?:[ \t][^\n]*)?$")


def blank_step_line(lines: list[str]) -> list[str]:
    """The cell's lines with a leading `%%step …` line blanked; `%%step?` is left alone."""
    for number, line in enumerate(lines):
        text = line.rstrip("\r\n")
        if not text.strip():
            continue
        if _STEP.match(text) and not text.rstrip().endswith("?"):
            return [*lines[:number], *_below(lines[number + 1 :])]
        return lines
    return lines


def _below(lines: list[str]) -> list[str]:
    """What stands below the line: code keeps its line numbers; a cell magic must come first."""
    first = next((place for place, line in enumerate(lines) if line.strip()), None)
    if first is not None and lines[first].startswith("%%"):
        return lines[first:]
    return ["\n", *lines]


def step_line(source: str) -> str | None:
    """What stands behind `%%step` in the first line that is not blank; None without one."""
    for line in source.splitlines():
        if line.strip():
            text = line.rstrip()
            return text[len("%%step") :].strip() if _STEP.match(text) else None
    return None


def may_be_step(source: str, metadata: Mapping[str, Any]) -> bool:
    """Whether a cell can have a name and options, by a first look."""
    return "step" in source or any("step:" in tag for tag in metadata.get("tags", ()))


def only_looks(source: str) -> bool:
    """Whether a cell holds nothing but `%flow` lines: it is about the flow, no part of it."""
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    return bool(lines) and all(line.split()[0] == "%flow" for line in lines)


def install(shell: Any) -> None:
    """Let `%%step` be the first line of a cell in this IPython shell."""
    if blank_step_line not in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.append(blank_step_line)


def remove(shell: Any) -> None:
    """Undo `install`."""
    if blank_step_line in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.remove(blank_step_line)
