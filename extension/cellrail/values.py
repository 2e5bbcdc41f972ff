"""Values out of a checkpoint, in this process.

Loading runs code that pickles name, so it is done only for stores whose signatures this user
trusts (the callers read their histories verified).
"""

from __future__ import annotations

from typing import Any

from cellrail.errors import UserError
from cellrail_state.errors import CannotRestore
from cellrail_state.model import Checkpoint, Verdict
from cellrail_state.restore import restore
from cellrail_state.store import Store


def load_values(store: Store, checkpoint: Checkpoint, names: list[str]) -> dict[str, Any]:
    """Several variables, sharing what they shared.

    Raises:
        CannotRestore: one is not stored, or does not load here.
    """
    for name in names:
        variable = checkpoint.variables.get(name)
        if variable is None:
            raise CannotRestore(f"there is no variable {name!r} in this checkpoint")
        if variable.verdict is not Verdict.STORED:
            raise CannotRestore(f"{name!r} is {variable.verdict}: {variable.reason}")
    namespace: dict[str, Any] = {}
    report = restore(checkpoint, namespace, store.objects, names=names)
    if report.failed:  # code that runs while one is loaded may use any other
        namespace = {}
        report = restore(checkpoint, namespace, store.objects)
    for name in names:
        if name in report.failed:
            raise CannotRestore(f"{name!r} does not load here: {report.failed[name]}")
    return {name: namespace[name] for name in names}


def query_values(store: Store, checkpoint: Checkpoint, query: str) -> list[dict[str, Any]]:
    """An SQL query over the DataFrames of a checkpoint, by variable name.

    Raises:
        UserError: the query is wrong, or names no DataFrame of the checkpoint.
    """
    import duckdb

    frames = [
        name
        for name, variable in checkpoint.variables.items()
        if variable.verdict is Verdict.STORED and _is_table(variable.type) and name in query
    ]
    values = load_values(store, checkpoint, frames) if frames else {}
    connection = duckdb.connect(":memory:")
    try:
        # a name that is no frame of the checkpoint is not looked for in this program
        connection.execute("SET python_enable_replacements = false")
        for name, value in values.items():
            connection.register(name, value)
        cursor = connection.execute(query)
        columns = [column[0] for column in cursor.description]
        return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
    except duckdb.Error as error:
        tables = sorted(n for n, v in checkpoint.variables.items() if _is_table(v.type))
        raise UserError(
            f"the query failed: {error}",
            hint="tables here: " + (", ".join(tables) or "none"),
        ) from error
    finally:
        connection.close()


def _is_table(type_name: str) -> bool:
    package, _, kind = type_name.partition(".")
    return (package == "pandas" and kind.endswith("DataFrame")) or (
        package in {"polars", "pyarrow"} and kind.endswith(("DataFrame", "Table"))
    )
