"""What a cell's code needs of the namespace as it finds it, and what it binds in any case.

`reads` of a step are all names that its code uses; of these it needs only the ones that it may use
before it has bound them itself: `for i in rows: print(i)` does not depend on an `i` that was there.
Where it cannot be told, a name counts as needed, and as not bound.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from typing import TypeGuard

import msgspec

from cellrail.notebook.shelllines import ShellLines, parsed
from cellrail_state.namespace import LOOK_UP

#: what they load may be an object of a class or function of the notebook
_LOADERS = frozenset({"load", "loads", "read_pickle", "Unpickler"})
#: they evaluate the text that they are given
_EVALUATORS = frozenset({"query", "sql", "execute", "eval", "ex", "ev"})


class FirstUse(msgspec.Struct, frozen=True, kw_only=True):
    """How a cell's code meets the namespace."""

    #: names that it may use before it has bound them; None where it cannot be told
    uses: frozenset[str] | None = None
    #: names that it binds whenever it runs to its end
    binds: frozenset[str] = frozenset()
    #: names that lambdas and generators in it read whenever they are used
    late: frozenset[str] = frozenset()
    #: it loads what may need the notebook's functions and classes
    loads: bool = False
    #: it evaluates texts that do not stand in it
    evaluates: bool = False


def first_use(body: str) -> FirstUse:
    """What a cell's code uses first and what it binds."""
    tree = parsed(body)
    if tree is None:
        return FirstUse()
    try:
        tree = ShellLines().visit(tree)
        walk = _Walk()
        bound = walk.block(tree.body, frozenset())
        loads, evaluates = _looked_up(tree)
    except RecursionError:
        return FirstUse(evaluates=True)
    return FirstUse(
        uses=frozenset(walk.used), binds=bound, late=_late(tree), loads=loads, evaluates=evaluates
    )


def _late(tree: ast.AST) -> frozenset[str]:
    inside = (n for n in ast.walk(tree) if isinstance(n, ast.Lambda | ast.GeneratorExp))
    return frozenset[str]().union(*map(_loaded, inside))


def _looked_up(tree: ast.AST) -> tuple[bool, bool]:
    """Whether objects are loaded, and whether texts from elsewhere are evaluated."""
    loads = evaluates = False
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if name in _LOADERS:
            loads = True
        elif name in _EVALUATORS:
            first = node.args[:1] or [k.value for k in node.keywords[:1]]
            evaluates |= not all(isinstance(a, ast.Constant | ast.JoinedStr) for a in first)
        elif name in LOOK_UP:
            evaluates = True
    return loads, evaluates


class _Walk:
    """Goes through statements in the order in which they run."""

    def __init__(self) -> None:
        self.used: set[str] = set()

    def block(self, statements: Iterable[ast.stmt], bound: frozenset[str]) -> frozenset[str]:
        """What is bound after these statements, if it was so before."""
        for statement in statements:
            bound = self._statement(statement, bound)
        return bound

    def _use(self, nodes: Iterable[ast.AST | None], bound: frozenset[str]) -> None:
        for node in nodes:
            if node is not None:
                self.used |= _loaded(node) - bound

    def _statement(self, node: ast.stmt, bound: frozenset[str]) -> frozenset[str]:  # noqa: PLR0911
        if isinstance(node, ast.Assign):
            return self._assign(node.value, node.targets, bound)
        if isinstance(node, ast.AnnAssign):
            self._use([node.annotation], bound)
            return bound if node.value is None else self._assign(node.value, [node.target], bound)
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {a.asname or a.name.partition(".")[0] for a in node.names if a.name != "*"}
            return bound | names
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self._use([node], bound)
            return bound | {node.name}
        if isinstance(node, ast.With | ast.AsyncWith):
            for item in node.items:
                if item.optional_vars is not None:
                    bound = self._assign(item.context_expr, [item.optional_vars], bound)
                else:
                    self._use([item.context_expr], bound)
            inside = self.block(node.body, bound)
            return bound if _may_swallow(node) else inside
        if isinstance(node, ast.Delete):
            self._use(node.targets, bound)
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            self.used |= names - bound
            return bound - names
        if isinstance(node, ast.AugAssign):
            self._use([node.value, node.target], bound)
            if isinstance(node.target, ast.Name):
                self.used |= {node.target.id} - bound
            return bound
        return self._branching(node, bound)

    def _assign(
        self, value: ast.expr, targets: Sequence[ast.expr], bound: frozenset[str]
    ) -> frozenset[str]:
        self._use([value, *targets], bound)
        return bound.union(*map(_targets, targets))

    def _branching(self, node: ast.stmt, bound: frozenset[str]) -> frozenset[str]:
        """Statements whose parts may not run."""
        if isinstance(node, ast.If):
            self._use([node.test], bound)
            return self.block(node.body, bound) & self.block(node.orelse, bound)
        if isinstance(node, ast.For | ast.AsyncFor):
            self._use([node.iter, node.target], bound)
            self.block(node.body, bound | _targets(node.target))
            self.block(node.orelse, bound)
            return bound
        if isinstance(node, ast.While):
            self._use([node.test], bound)
            self.block(node.body, bound)
            self.block(node.orelse, bound)
            return bound
        if isinstance(node, ast.Try | ast.TryStar):
            self.block(node.orelse, self.block(node.body, bound))
            for handler in node.handlers:
                self._use([handler.type], bound)
                self.block(handler.body, bound | ({handler.name} if handler.name else set()))
            return self.block(node.finalbody, bound)
        self._use([node], bound)
        return bound


def _may_swallow(node: ast.With | ast.AsyncWith) -> bool:
    """Whether the body may end early and the cell goes on all the same."""
    calls = (item.context_expr for item in node.items)
    names = {getattr(c.func, "id", getattr(c.func, "attr", "")) for c in calls if _is_call(c)}
    return bool(names & {"suppress", "raises", "ExitStack"})


def _is_call(node: ast.expr) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call)


def _loaded(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def _targets(node: ast.expr) -> frozenset[str]:
    """Names that an assignment to this target binds."""
    stores = (n for n in ast.walk(node) if isinstance(n, ast.Name))
    return frozenset(n.id for n in stores if isinstance(n.ctx, ast.Store))
