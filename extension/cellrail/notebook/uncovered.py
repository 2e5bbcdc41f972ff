"""What a cell's code does to its process that no checkpoint covers, as far as the code shows it."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator

#: last parts of a called name, and what the call leaves in the process
_CALLS = {
    "signal.signal": "signal handlers",
    "atexit.register": "exit handlers",
    "logging.basicConfig": "handlers of loggers",
    "dictConfig": "handlers of loggers",
    "addHandler": "handlers of loggers",
    "Thread": "threads",
    "Timer": "threads",
    "Process": "child processes",
    "Popen": "child processes",
    "ThreadPoolExecutor": "threads",
    "ProcessPoolExecutor": "child processes",
    "create_task": "running tasks",
    "ensure_future": "running tasks",
    "ContextVar": "context variables",
    "settrace": "trace functions",
    "setprofile": "trace functions",
    "cuda.manual_seed": "GPU generators",
    "cuda.manual_seed_all": "GPU generators",
    "register_dataframe_accessor": "an accessor of pandas",
    "register_series_accessor": "an accessor of pandas",
    "register_index_accessor": "an accessor of pandas",
    "register_dataframe_namespace": "a namespace of polars",
    "register_lazyframe_namespace": "a namespace of polars",
    "register_series_namespace": "a namespace of polars",
    "register_expr_namespace": "a namespace of polars",
}


def uncovered(body: str, holders: Collection[str] = ()) -> tuple[str, ...]:
    """What the cell may have left that a restart does not bring back, each said once.

    Args:
        body: the cell's code; what does not parse as plain Python is not looked at.
        holders: names that hold modules and classes of libraries: what is assigned to their
            attributes, or to those of a class in such a module, is a patch.
    """
    try:
        tree = ast.parse(body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    return tuple(dict.fromkeys(_found(tree, holders)))


def _found(tree: ast.Module, holders: Collection[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            name = _dotted(node)
            if _is_of_a_library(name.rpartition(".")[0], holders):
                yield f"the patch of {name}"
        if isinstance(node, ast.Call):
            name = _dotted(node.func)
            if name in {"setattr", "delattr"} and len(node.args) > 1:
                owner, attribute = map(_dotted, node.args[:2])
                if _is_of_a_library(owner, holders):
                    yield f"the patch of {owner}.{attribute}"
            for ending, what in _CALLS.items():
                if name == ending or name.endswith(f".{ending}"):
                    yield what


def _is_of_a_library(owner: str, holders: Collection[str]) -> bool:
    """Whether a dotted name is a module or class that the notebook did not make.

    Of `pd.DataFrame` only the spelling says that it is a class; `pd.options.display` is none.
    """
    first, _, rest = owner.partition(".")
    return owner in holders or (first in holders and rest.rpartition(".")[2][:1].isupper())


def _dotted(node: ast.expr) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Constant):
        parts.append(str(node.value))
    else:
        parts.append(node.id if isinstance(node, ast.Name) else "")
    return ".".join(reversed(parts))
