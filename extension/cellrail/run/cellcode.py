"""Executes a cell's code once more, within a cell that IPython runs already.

It goes the way that IPython itself goes (`run_ast_nodes`), so that line numbers, `await`, the
display of the last expression and the traceback are those of a plain cell. Only the traceback is
held back: whether it is shown is decided when it is known what the failure means.
"""

from __future__ import annotations

import ast
import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import msgspec

from cellrail.run.outputs import Output, Outputs
from cellrail_state.model import StepError


class CellCode(msgspec.Struct, frozen=True, kw_only=True):
    """A cell as IPython compiles it."""

    #: as written
    source: str
    #: as Python, magics transformed
    transformed: str
    #: statements; each execution compiles them anew
    nodes: list[Any]
    #: the file name that tracebacks know it by
    filename: str

    @property
    def raw_cell(self) -> str:
        """The source, by the name that IPython's records give it."""
        return self.source

    @property
    def transformed_cell(self) -> str:
        """The Python code, by the name that IPython's records give it."""
        return self.transformed


def code_of(shell: Any, source: str) -> CellCode:
    """The code of another cell, to be executed within the one that runs.

    Raises:
        SyntaxError: it is no Python.
    """
    transformed = shell.transform_cell(source)
    filename = shell.compile.cache(transformed, shell.execution_count - 1, raw_code=source)
    tree = shell.transform_ast(shell.compile.ast_parse(transformed, filename=filename))
    return CellCode(source=source, transformed=transformed, nodes=tree.body, filename=filename)


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A traceback as IPython shows it."""

    kind: Any
    value: BaseException
    lines: list[str]

    @property
    def error(self) -> StepError:
        """It as a record."""
        lines = tuple(str(line) for line in self.lines)
        return StepError(name=self.kind.__name__, value=_text(self.value), traceback=lines)

    @property
    def output(self) -> Output:
        """It as an nbformat output."""
        error = self.error
        return {
            "output_type": "error", "ename": error.name, "evalue": error.value,
            "traceback": list(error.traceback),
        }  # fmt: skip


class Executed(msgspec.Struct, frozen=True, kw_only=True):
    """What one execution came to."""

    #: what it raised; None where it ran to its end
    raised: BaseException | None = None
    #: its traceback, not shown yet; None where nothing was raised, or it is shown already
    shown: Shown | None = None
    outputs: list[Output] = []

    @property
    def error(self) -> StepError | None:
        """What it raised, as a record."""
        if self.shown is not None:
            return self.shown.error
        if self.raised is None:
            return None
        return StepError(name=type(self.raised).__name__, value=_text(self.raised))


def failed(error: BaseException, lines: list[str]) -> Executed:
    """An execution that did not begin."""
    shown = Shown(kind=type(error), value=error, lines=lines)
    return Executed(raised=error, shown=shown)


async def execute(shell: Any, code: CellCode, info: Any, execution_count: int | None) -> Executed:
    """Execute a cell's code. Raises nothing that the code raises.

    Args:
        shell: the IPython shell.
        code: what is executed.
        info: IPython's record of the cell that runs.
        execution_count: its number.
    """
    from IPython.core.interactiveshell import ExecutionResult

    result = ExecutionResult(info)
    held: list[Shown] = []
    outputs = Outputs(shell, execution_count)
    with outputs.gathering():
        try:
            with _holding_back(shell, result, held):
                await shell.run_ast_nodes(
                    list(code.nodes),
                    code.filename,
                    interactivity=shell.ast_node_interactivity,
                    compiler=shell.compile,
                    result=result,
                )
        finally:
            # inline figures are shown by a callback of it
            shell.events.trigger("post_execute")
    raised = result.error_before_exec or result.error_in_exec
    shown = held[-1] if held else None
    if raised is None and shown is not None:  # the display of a value raised
        raised = shown.value
    return Executed(raised=raised, shown=shown, outputs=outputs.taken())


def show(shell: Any, shown: Shown) -> None:
    """Show a traceback that was held back."""
    shell._showtraceback(shown.kind, shown.value, shown.lines)  # noqa: SLF001 - see _holding_back


@contextlib.contextmanager
def _holding_back(shell: Any, result: Any, held: list[Shown]) -> Iterator[None]:
    """Keep the traceback of what ends the code; others, that the code shows itself, are shown.

    `_showtraceback` is what front ends replace in IPython's shell to show tracebacks their way.
    """
    show_now, hook = shell._showtraceback, sys.excepthook  # noqa: SLF001
    crash_hook = getattr(shell, "sys_excepthook", hook)

    def hold(kind: Any, value: BaseException, lines: list[str]) -> None:
        ended = result.error_before_exec is not None or result.error_in_exec is not None
        if ended or getattr(shell.displayhook, "msg", None) is not None:
            held.append(Shown(kind=kind, value=value, lines=list(lines)))
        else:
            show_now(kind, value, lines)

    own = vars(shell).get("_showtraceback")
    shell._showtraceback = hold  # noqa: SLF001
    try:
        yield
    finally:
        if own is not None:
            shell._showtraceback = own  # noqa: SLF001
        else:
            del shell._showtraceback  # noqa: SLF001
        sys.excepthook, shell.sys_excepthook = hook, crash_hook


def syntax_error(shell: Any, error: SyntaxError) -> Executed:
    """An execution that did not begin, since the code is no Python."""
    lines = shell.SyntaxTB.structured_traceback(type(error), error, [])
    return failed(error, list(lines))


def wrapper(name: str, *, awaits: bool) -> ast.Module:
    """A cell that calls what is bound to this name, and displays nothing."""
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    call = f"if 1: {'await ' * awaits}{name}()"
    tree: ast.Module = compile(call, "<cellrail>", "exec", flags)
    return tree


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the user's own `__str__`
        return ""
