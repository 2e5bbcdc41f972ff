"""Which environment variables a cell's code reads, as far as it shows."""

from __future__ import annotations

import ast
import re

from cellrail.notebook.shelllines import parsed

#: methods of `os.environ` whose first argument is a variable's name
_BY_NAME = frozenset({"get", "pop", "setdefault", "__getitem__", "__contains__"})
_WHOLE = frozenset({"environ", "environb"})
_ONE = frozenset({"getenv", "getenvb"})
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


def environment_of(body: str) -> frozenset[str] | None:
    """Names of the environment variables that code reads; None where it may read any.

    Args:
        body: the cell's code. Of what does not parse nothing is known.
    """
    tree = parsed(body)
    if tree is None:
        return None
    visitor = _Visitor()
    try:
        visitor.visit(tree)
    except RecursionError:
        return None
    return None if visitor.any else frozenset(visitor.names)


class _Visitor(ast.NodeVisitor):
    """Follows `os.environ`, `os.getenv` and `os.path.expandvars`, however `os` is called."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.any = False

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if _last(node.value) in _WHOLE:
            self._name(node.slice)
            self.visit(node.slice)
        else:
            self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        asks = len(node.ops) == 1 and isinstance(node.ops[0], (ast.In, ast.NotIn))
        if asks and _last(node.comparators[0]) in _WHOLE:
            self._name(node.left)
            self.visit(node.left)
        else:
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        called = _last(function)
        of_environ = isinstance(function, ast.Attribute) and _last(function.value) in _WHOLE
        if (of_environ and called in _BY_NAME) or called in _ONE:
            self._name(node.args[0] if node.args else None)
        elif called == "expandvars":
            self._expanded(node.args[0] if node.args else None)
        elif called == "run_line_magic" and _text(node.args[:1]) == "env":
            self._magic(_text(node.args[1:2]))
        else:
            self.generic_visit(node)
            return
        for argument in (*node.args, *(k.value for k in node.keywords)):
            self.visit(argument)

    def visit_Name(self, node: ast.Name) -> None:
        self.any = self.any or node.id in _WHOLE | _ONE

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.any = self.any or node.attr in _WHOLE | _ONE
        self.generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        # under another name it is not followed
        renamed = [
            a for a in node.names if a.name in _WHOLE | _ONE and a.asname not in {None, a.name}
        ]
        self.any = self.any or (node.module == "os" and bool(renamed))

    def _name(self, node: ast.expr | None) -> None:
        value = node.value if isinstance(node, ast.Constant) else None
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        if isinstance(value, str):
            self.names.add(value)
        else:
            self.any = True

    def _expanded(self, node: ast.expr | None) -> None:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            self.names |= {a or b for a, b in _VARIABLE.findall(node.value)}
        else:
            self.any = True

    def _magic(self, text: str) -> None:
        words = text.replace("=", " ").split()
        if words:
            self.names.add(words[0])
        else:
            self.any = True


def _last(node: ast.expr) -> str:
    """The last part of a dotted name; "" for anything else."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _text(nodes: list[ast.expr]) -> str:
    node = nodes[0] if nodes else None
    found = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return str(node.value) if found and isinstance(node, ast.Constant) else ""
