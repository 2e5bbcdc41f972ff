"""Which names a cell reads before it has surely bound them, and which it surely binds. Pure.

Only plain assignments on a cell's top level are sure. A name that is bound before it is read holds
nothing of what was there when the cell began.
"""

from __future__ import annotations

import ast
from collections.abc import Collection


def first_uses(tree: ast.Module, bound: Collection[str] = ()) -> tuple[set[str], set[str]]:
    """Names that are read while they may be unbound, and names that are surely bound at the end.

    Args:
        tree: the cell's code.
        bound: names that are bound when it begins.
    """
    reads, binds = set[str](), set(bound)
    for statement in tree.body:
        nodes = list(ast.walk(statement))
        loads = {n.id for n in nodes if isinstance(n, ast.Name) and not _stores(n)}
        if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
            loads.add(statement.target.id)
        reads |= loads - binds
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value is not None:
            binds |= {n.id for n in nodes if isinstance(n, ast.Name) and _stores(n)}
    return reads, binds


def _stores(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store)
