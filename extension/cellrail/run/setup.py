"""Lines of a cell that set the kernel up beyond its variables; they run again before a restart.

Line magics such as `%matplotlib inline`, and `from __future__ import …`, which IPython goes on
compiling later cells with.
"""

from __future__ import annotations
import __future__

import contextlib
import io
import re
from typing import Any

_LINE_MAGIC = re.compile(r"get_ipython\(\)\.run_line_magic\('(\w+)', '((?:[^'\\]|\\.)*)'\)")
_MAGICS = frozenset(
    (
        "aimport", "alias", "alias_magic", "autoreload", "autoawait", "colors", "config", "gui",
        "load_ext", "matplotlib", "precision", "pylab", "xmode",
    )
)  # fmt: skip
_FUTURE = "from __future__ import "


def setup_lines(shell: Any, info: Any) -> tuple[str, ...]:
    """The lines of an executed cell that set the kernel up, magics as typed without the `%`."""
    raw = info.raw_cell or ""
    lines = tuple(
        f"{name} {arguments}".strip()
        for name, arguments in _LINE_MAGIC.findall(_transformed(shell, info, raw))
        if name in _MAGICS
    )
    features = _future_features(shell) if "__future__" in raw else ()
    return lines + tuple(_FUTURE + feature for feature in features)


def run_setup_line(shell: Any, line: str) -> str:
    """Set the kernel up as this line did; what went wrong, in words, or ""."""
    if line.startswith(_FUTURE):
        feature = getattr(__future__, line.removeprefix(_FUTURE))
        shell.compile.flags |= feature.compiler_flag
        return ""
    name, _, arguments = line.partition(" ")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            shell.run_line_magic(name, arguments)
    except Exception as error:  # noqa: BLE001 - told, and the restart goes on
        return f"%{line} did not run again: {type(error).__name__}: {error}"
    return ""


def _transformed(shell: Any, info: Any, raw: str) -> str:
    """The cell as IPython compiled it; only looked at where it can hold a magic."""
    if "%" not in raw:
        return ""
    transformed = getattr(info, "transformed_cell", None)
    return transformed if isinstance(transformed, str) else str(shell.transform_cell(raw))


def _future_features(shell: Any) -> tuple[str, ...]:
    return tuple(
        name
        for name in __future__.all_feature_names
        if shell.compile.flags & getattr(__future__, name).compiler_flag
    )
