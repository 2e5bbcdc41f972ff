"""Which of a notebook's imports can be done ahead, before its kernel is forked.

Those at its very beginning: up to the first statement that does more than import, name a constant
or define a function, because what comes later may depend on what such a statement did (a variable
of the environment, a setting, a path). And only modules of installed distributions: a module of
one's own may be another one tomorrow.
"""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path

_CONSTANTS = (ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.UnaryOp, ast.Load)
#: line magics that change nothing that an import looks at
_HARMLESS_MAGICS = ("%matplotlib inline", "%load_ext cellrail")
_OURS = ("cellrail", "cellrail_state")


def leading_imports(sources: Iterable[str]) -> list[str]:
    """Names of modules that a notebook imports before it does anything else, in order.

    Args:
        sources: of its cells, in the order of execution.
    """
    names: list[str] = []
    for source in sources:
        lines = source.splitlines()
        if lines and lines[0].lstrip().startswith("%%step"):
            lines = lines[1:]
        plain = "\n".join("" if ln.strip().startswith(_HARMLESS_MAGICS) else ln for ln in lines)
        try:
            statements = ast.parse(plain).body
        except (SyntaxError, ValueError):
            break
        found, goes_on = _imports(statements)
        names += [name for name in found if name not in names]
        if not goes_on:
            break
    return names


def _imports(statements: Sequence[ast.stmt]) -> tuple[list[str], bool]:
    names: list[str] = []
    for statement in statements:
        if isinstance(statement, ast.Import):
            names += [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            if statement.level or statement.module is None:
                return names, False
            if statement.module != "__future__":
                names.append(statement.module)
        elif not _is_harmless(statement):
            return names, False
    return names, True


def _is_harmless(statement: ast.stmt) -> bool:
    """Whether it only names a constant or defines a function."""
    if isinstance(statement, ast.Pass):
        return True
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        defaults = [*statement.args.defaults, *filter(None, statement.args.kw_defaults)]
        return not statement.decorator_list and all(map(_is_constant, defaults))
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    if isinstance(statement, ast.Assign):
        plain = all(isinstance(target, ast.Name) for target in statement.targets)
        return plain and _is_constant(statement.value)
    if isinstance(statement, ast.AnnAssign):
        given = statement.value
        return isinstance(statement.target, ast.Name) and (given is None or _is_constant(given))
    return False


def _is_constant(value: ast.expr) -> bool:
    return all(isinstance(n, (*_CONSTANTS, ast.unaryop)) for n in ast.walk(value))


class Finder:
    """Tells installed modules from others, with the paths of this very process."""

    def __init__(self) -> None:
        paths = sysconfig.get_paths()
        own = (paths["purelib"], paths["platlib"], *site_folders(sys.path))
        self._installed = _real(own)
        self._library = _real((paths["stdlib"], paths["platstdlib"]))

    def why_not(self, name: str) -> str:
        """Why a module is not imported ahead; empty where it can be."""
        top = name.partition(".")[0]
        if top in sys.modules and self.is_installed(top):
            return ""
        spec = importlib.machinery.PathFinder.find_spec(top)
        if top in sys.builtin_module_names or top in sys.stdlib_module_names:
            return "" if spec is None or self._lies(spec.origin, self._library) else "it is local"
        if spec is None:
            return "it is not installed"
        return "" if self._lies(spec.origin, self._installed) else "it is local"

    def is_installed(self, name: str) -> bool:
        """Whether a module that is imported came with Python, a distribution or cellrail."""
        if name.partition(".")[0] in _OURS:
            return True
        module = sys.modules[name]
        spec = getattr(module, "__spec__", None)
        origin = getattr(spec, "origin", None)
        if origin in {None, "built-in", "frozen"} or not isinstance(origin, str):
            return True
        return self._lies(origin, (*self._installed, *self._library)) or not Path(origin).exists()

    @staticmethod
    def _lies(origin: str | None, folders: tuple[str, ...]) -> bool:
        if origin is None:  # a namespace package: any folder may add to it
            return False
        return origin in {"built-in", "frozen"} or os.path.realpath(origin).startswith(folders)


def _real(folders: Iterable[str]) -> tuple[str, ...]:
    return tuple({os.path.realpath(folder) + os.sep for folder in folders})


def site_folders(path: Iterable[str]) -> list[str]:
    """The folders of a search path that distributions are installed in."""
    return [entry for entry in path if Path(entry).name in {"site-packages", "dist-packages"}]


def shadows(folder: Path, tops: Iterable[str]) -> list[str]:
    """Modules of a folder that stand before installed ones of the same name."""
    try:
        here = {entry.name.partition(".")[0] for entry in os.scandir(folder)}
    except OSError:
        return []
    return sorted(here & set(tops))


def site_stamp(folders: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """A value that changes when something is installed, upgraded or removed there."""
    stamps = []
    for folder in sorted(set(folders)):
        try:
            stamps.append((folder, Path(folder).stat().st_mtime_ns))
        except OSError:
            stamps.append((folder, 0))
    return tuple(stamps)
