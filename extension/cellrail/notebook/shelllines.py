"""What magics and shell lines of a cell do with the notebook's names.

IPython turns them into calls of `get_ipython()`; here each such call is replaced by code that uses
the same names: `%time x = f(y)` by `x = f(y)`, `!ls {folder}` by `folder`. A magic that is not
known to leave the namespace alone may do anything with it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

#: magics that run the code behind them, and their options that take a value
_RUN_CODE = {"time": "", "timeit": "nrpv", "prun": "lsTD", "memit": "rt"}
#: line magics that bind none of the notebook's names and change no value
_QUIET = frozenset(
    (
        "aimport", "alias", "alias_magic", "autoawait", "autocall", "automagic", "autoreload",
        "bookmark", "cat", "cd", "clear", "code_wrap", "colors", "conda", "config", "cp", "dhist",
        "dirs", "doctest_mode", "env", "gui", "hist", "history", "killbgscripts", "ldir", "less",
        "lf", "lk", "ll", "load_ext", "logoff", "logon", "logstart", "logstate", "logstop", "ls",
        "lsmagic", "lx", "magic", "mamba", "man", "matplotlib", "micromamba", "mkdir", "more",
        "mv", "notebook", "page", "pastebin", "pdb", "pdef", "pdoc", "pfile", "pinfo", "pinfo2",
        "pip", "popd", "pprint", "precision", "psearch", "psource", "pushd", "pwd", "pycat",
        "quickref", "rehashx", "reload_ext", "rep", "rm", "rmdir", "sc", "set_env", "sx",
        "system", "tb", "unalias", "unload_ext", "uv", "xmode",
    )
)  # fmt: skip
#: of these the ones whose arguments are expressions, or names to look at
_EVALUATING = frozenset({"config", "pdef", "pdoc", "pfile", "pinfo", "pinfo2", "psource"})
#: cell magics whose body is no code of the notebook
_OTHER_LANGUAGE = frozenset(
    (
        "!", "HTML", "SVG", "bash", "cmd", "file", "html", "javascript", "js", "latex", "markdown",
        "perl", "pypy", "python", "python2", "python3", "ruby", "script", "sh", "svg", "sx",
        "system", "writefile",
    )
)  # fmt: skip
_IDENTIFIER = re.compile(r"[^\W\d]\w*")
_INTERPOLATED = re.compile(r"\$([^\W\d]\w*)|\{([^{}]+)\}")
_STORED_IN = re.compile(r"--(?:out|err|proc)[ =]+(\w+)")


class ShellLines(ast.NodeTransformer):
    """Replaces a cell's calls of the shell by code that uses the same names."""

    def __init__(self) -> None:
        #: whether a magic may read and write anything
        self.opaque = False

    def visit_Expr(self, node: ast.Expr) -> ast.AST | list[ast.stmt]:
        """A line of its own: what it runs takes its place."""
        call = _shell_call(node.value)
        return self.generic_visit(node) if call is None else self._code(*call) or [ast.Pass()]

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """`x = !ls`, `x = %timeit -o f(y)`."""
        call = _shell_call(node)
        if call is None:
            return self.generic_visit(node)
        code = self._code(*call)
        values = [line.value for line in code if isinstance(line, ast.Expr)]
        self.opaque |= len(values) < len(code)
        return ast.Tuple(elts=values, ctx=ast.Load())

    def _code(self, method: str, arguments: list[str]) -> list[ast.stmt]:
        if method in {"system", "getoutput"} and len(arguments) == 1:
            return _reads(_interpolated(arguments[0]))
        if method == "run_line_magic" and len(arguments) == 2:
            return self._line_magic(*arguments)
        if method == "run_cell_magic" and len(arguments) == 3:
            return self._cell_magic(*arguments)
        self.opaque = True
        return []

    def _line_magic(self, name: str, line: str) -> list[ast.stmt]:
        if name in _RUN_CODE:
            return self._parsed(_without_options(line, _RUN_CODE[name]))
        if name not in _QUIET:
            self.opaque = True
            return []
        evaluated = _IDENTIFIER.findall(line) if name in _EVALUATING else []
        return _reads([*_interpolated(line), *evaluated])

    def _cell_magic(self, name: str, line: str, body: str) -> list[ast.stmt]:
        if name == "capture":
            bound = [word for word in line.split() if not word.startswith("-")]
            return [*_writes(bound), *self._parsed(body)]
        if name in _RUN_CODE:
            setup = self._parsed(_without_options(line, _RUN_CODE[name]))
            return [*setup, *self._parsed(body)]
        if name in _OTHER_LANGUAGE:
            read = line if name not in {"!", "sx", "system"} else f"{line}\n{body}"
            return [*_reads(_interpolated(read)), *_writes(_STORED_IN.findall(line))]
        self.opaque = True
        return []

    def _parsed(self, code: str) -> list[ast.stmt]:
        tree = parsed(code)
        if tree is None:
            self.opaque = True
            return []
        return list(self.visit(tree).body)


def parsed(code: str) -> ast.Module | None:
    """The syntax tree of a cell as IPython would compile it; None for what is no code."""
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass
    # imported only where a magic may be meant
    from IPython.core.inputtransformer2 import TransformerManager

    try:
        return ast.parse(TransformerManager().transform_cell(code))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _shell_call(node: ast.expr) -> tuple[str, list[str]] | None:
    """Method and arguments of `get_ipython().method('…', …)`."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return None
    shell = node.func.value
    if not isinstance(shell, ast.Call) or not isinstance(shell.func, ast.Name):
        return None
    texts = [a.value for a in node.args if isinstance(a, ast.Constant) and type(a.value) is str]
    plain = len(texts) == len(node.args) and not node.keywords
    return (node.func.attr, texts) if shell.func.id == "get_ipython" and plain else None


def _without_options(line: str, with_value: str) -> str:
    line = line.strip()
    while line.startswith("-"):
        option, _, line = line.partition(" ")
        if len(option) == 2 and option[1] in with_value:
            line = line.strip().partition(" ")[2]
        line = line.strip()
    return line


def _interpolated(text: str) -> list[str]:
    """Names in `$name` and `{expression}`."""
    found = [name or inside for name, inside in _INTERPOLATED.findall(text)]
    return [name for part in found for name in _IDENTIFIER.findall(part)]


def _reads(names: Iterable[str]) -> list[ast.stmt]:
    return [ast.Expr(value=ast.Name(id=name, ctx=ast.Load())) for name in dict.fromkeys(names)]


def _writes(names: Iterable[str]) -> list[ast.stmt]:
    value = ast.Constant(value=None)
    return [ast.Assign(targets=[ast.Name(id=n, ctx=ast.Store())], value=value) for n in names]
