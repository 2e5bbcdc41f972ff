"""DuckDB in this process: an instance is made once, which takes longer than most queries do.

A file is attached while it is used, and in between nobody holds it. An instance serves one use at a
time; one is kept for the next. What went wrong in an instance is not looked into: it is given up.
"""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_NAME = "store"
#: instances that nobody uses, one at most
_idle: list[Any] = []


@contextlib.contextmanager
def attached(path: Path | None) -> Iterator[Any]:
    """A connection to a database, which is ours alone as long as it is used.

    Args:
        path: its file, which is made where there is none; None for one in memory.

    Raises:
        duckdb.Error: another program holds the file, or it is damaged.
    """
    import duckdb

    instance = _idle.pop() if _idle else duckdb.connect(":memory:")
    with contextlib.ExitStack() as broken:
        connection = instance.cursor()
        broken.callback(instance.close)
        broken.callback(connection.close)
        # a table that does not exist is not looked for among the variables of this program
        connection.execute("SET python_enable_replacements = false")
        quoted = ":memory:" if path is None else str(path).replace("'", "''")
        try:
            connection.execute(f"ATTACH '{quoted}' AS {_NAME}")
        except duckdb.IOException:  # somebody has the file; the instance is sound
            broken.pop_all()
            connection.close()
            _keep(instance)
            raise
        connection.execute(f"USE {_NAME}")
        yield connection
        try:
            connection.execute("USE memory")
            connection.execute(f"DETACH {_NAME}")
        except duckdb.Error:  # what was committed is in its log
            return
        broken.pop_all()
    connection.close()
    _keep(instance)


def _keep(instance: Any) -> None:
    _idle.append(instance)
    while len(_idle) > 1:
        _idle.pop(0).close()


def _let_go() -> None:
    while _idle:
        _idle.pop().close()


atexit.register(_let_go)
if hasattr(os, "register_at_fork"):
    # its threads would not be there in the child
    os.register_at_fork(before=_let_go)
