"""What `--foreach VARIABLE in EXPRESSION` binds: one variable, or several as a `for` would.

Variables in brackets take an item apart further, and one with a star takes what is left over:
`i, (first, *rest)`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

_IN = " in "


def split(text: str) -> tuple[str, str]:
    """What is bound, and the expression of the items; the latter "" where there is none."""
    target, _, items = text.partition(_IN)
    return target.strip(), items.strip()


def targets(text: str) -> list[str]:
    """The variables that are bound, in order; none where it binds anything but variables."""
    target, _ = split(text)
    if target.isidentifier():
        return [target]
    try:
        (statement,) = ast.parse(f"{target} = 0").body
    except (SyntaxError, ValueError):
        return []
    if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
        return []
    try:
        return list(_names(statement.targets[0]))
    except TypeError:
        return []


def _names(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Tuple | ast.List):
        for part in node.elts:
            yield from _names(part)
    elif isinstance(node, ast.Starred):
        yield from _names(node.value)
    else:
        raise TypeError(ast.unparse(node))
