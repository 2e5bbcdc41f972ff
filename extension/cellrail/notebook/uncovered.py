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
}


def uncovered(body: str, modules: Collection[str] = ()) -> tuple[str, ...]:
    """What the cell may have left that a restart does not bring back, each said once.

    Args:
        body: the cell's code; what does not parse as plain Python is not looked at.
        modules: names that hold modules: what is assigned to their attributes is a patch.
    """
    try:
        tree = ast.parse(body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    return tuple(dict.fromkeys(_found(tree, modules)))


def _found(tree: ast.Module, modules: Collection[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            name = _dotted(node)
            if name.rpartition(".")[0] in modules:
                yield f"the patch of {name}"
        if isinstance(node, ast.Call):
            name = _dotted(node.func)
            for ending, what in _CALLS.items():
                if name == ending or name.endswith(f".{ending}"):
                    yield what


def _dotted(node: ast.expr) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    parts.append(node.id if isinstance(node, ast.Name) else "")
    return ".".join(reversed(parts))
