"""Whether a condition on a step's line can do more than look.

What a condition comes to stands in the journal, and a run that is recovered or restarted does not
ask again. What it changes stands nowhere: no checkpoint lies between a condition and the cell
behind it. So conditions must only look; one that can do more is watched while it is evaluated.
"""

from __future__ import annotations

import ast

#: built-in functions that change nothing, whatever they are given (iterators are not used up)
_LOOKING = frozenset(
    {"abs", "bool", "callable", "float", "hasattr", "id", "int", "isinstance", "issubclass", "len",
     "repr", "round", "str", "type"}
)  # fmt: skip
#: attributes and items may be computed, operators overloaded: whose they are, the kernel knows
_HARMLESS = (
    ast.Expression, ast.Constant, ast.Name, ast.Load, ast.Attribute, ast.Subscript, ast.Slice,
    ast.BoolOp, ast.boolop, ast.UnaryOp, ast.unaryop, ast.BinOp, ast.operator, ast.IfExp,
    ast.Tuple, ast.List, ast.Set, ast.Dict, ast.JoinedStr, ast.FormattedValue, ast.Compare,
    ast.cmpop, ast.keyword,
)  # fmt: skip


def may_change(expression: str) -> bool:
    """Whether evaluating it can change the notebook's values, as far as its text tells.

    Args:
        expression: a Python expression; one that does not parse changes nothing.
    """
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError):
        return False
    return not all(map(_looks, ast.walk(tree)))


def _looks(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _LOOKING
    return isinstance(node, _HARMLESS)
