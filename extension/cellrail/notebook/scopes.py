"""Python's scopes over the syntax tree of a cell: which names of the notebook it reads and binds.

What a function binds is its own; what is free in its body is read when it is called, so it is kept
apart under the function's name. A class body runs at once, its methods later. Comprehensions and
lambdas count as run at once. (The standard library's `symtable` differs between versions in what it
tells of comprehensions, and does not know top-level `await`.)
"""

from __future__ import annotations

import ast
from collections.abc import Iterable

import msgspec


class ScopeNames(msgspec.Struct):
    """Names of the cell's top level."""

    reads: set[str]
    writes: set[str]
    #: free names of the functions and classes it defines, by their name
    definitions: dict[str, frozenset[str]]


def scope_names(tree: ast.Module) -> ScopeNames:
    """The names that a cell reads and binds."""
    module = _Scope()
    visitor = _Scopes(module)
    for statement in tree.body:
        visitor.visit(statement)
    return ScopeNames(reads=module.loads, writes=module.stores, definitions=visitor.definitions)


class _Scope:
    """Names of one scope so far."""

    def __init__(self, stores: Iterable[str] = (), *, of_comprehension: bool = False) -> None:
        self.loads: set[str] = set()
        self.stores: set[str] = set(stores)
        #: declared `global`: they are the notebook's
        self.outer: set[str] = set()
        #: free names of functions within, read when these are called
        self.later: set[str] = set()
        self.of_comprehension = of_comprehension

    def free(self) -> set[str]:
        """What is looked up outside when the scope's code runs."""
        own = self.stores - self.outer
        return (self.loads | self.later) - own


class _Scopes(ast.NodeVisitor):
    """Walks a cell, scope by scope."""

    def __init__(self, module: _Scope) -> None:
        self._module = module
        self._scopes = [module]
        self.definitions: dict[str, frozenset[str]] = {}

    @property
    def _now(self) -> _Scope:
        return self._scopes[-1]

    def _bind(self, name: str) -> None:
        self._now.stores.add(name)
        if name in self._now.outer:
            self._module.stores.add(name)

    def _visit_all(self, nodes: Iterable[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)

    # --- names -------------------------------------------------------------------------------

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._now.loads.add(node.id)
        else:
            self._bind(node.id)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self._now.loads.add(node.target.id)
        self.generic_visit(node)

    def visit_Delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                self._now.loads.add(target.id)
            self.visit(target)

    def visit_alias(self, node: ast.alias) -> None:
        if node.name != "*":
            self._bind(node.asname or node.name.partition(".")[0])

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self._bind(node.name)
        self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        if node.name:
            self._bind(node.name)
        self.generic_visit(node)

    def visit_MatchStar(self, node: ast.MatchStar) -> None:
        if node.name:
            self._bind(node.name)

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        if node.rest:
            self._bind(node.rest)
        self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> None:
        self._now.outer.update(node.names)

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        self._now.loads.update(node.names)
        self._now.outer.update(node.names)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        # inside a comprehension it binds in the scope around it
        for scope in reversed(self._scopes):
            if not scope.of_comprehension:
                scope.stores.add(node.target.id)
                break

    def visit_Call(self, node: ast.Call) -> None:
        # of an object: only without one they tell of the namespace
        if isinstance(node.func, ast.Name) and node.func.id in {"vars", "dir"} and node.args:
            self._visit_all([*node.args, *node.keywords])
        else:
            self.generic_visit(node)

    # --- scopes ------------------------------------------------------------------------------

    def _function(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, body: list[ast.AST]
    ) -> set[str]:
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        every += [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
        self._visit_all([*arguments.defaults, *arguments.kw_defaults])
        self._visit_all(a.annotation for a in every)
        return self._inside(_Scope(a.arg for a in every), body)

    def _inside(self, scope: _Scope, body: Iterable[ast.AST]) -> set[str]:
        self._scopes.append(scope)
        self._visit_all(body)
        self._scopes.pop()
        return scope.free()

    def _define(self, name: str, free: set[str]) -> None:
        if self._now is self._module:
            self.definitions[name] = self.definitions.get(name, frozenset()) | free
        else:
            self._now.later |= free

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._visit_all([*node.decorator_list, node.returns])
        self._bind(node.name)
        self._define(node.name, self._function(node, list(node.body)))

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._now.loads |= self._function(node, [node.body])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._visit_all([*node.decorator_list, *node.bases, *(k.value for k in node.keywords)])
        self._bind(node.name)
        scope = _Scope()
        free = self._inside(scope, list(node.body))
        # the body runs at once; its names are no scope for its methods
        self._now.loads |= scope.loads - scope.stores
        self._define(node.name, free | scope.later)

    def visit_ListComp(
        self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp
    ) -> None:
        first, *others = node.generators
        self.visit(first.iter)
        scope = _Scope(of_comprehension=True)
        parts: list[ast.AST] = [first.target, *first.ifs, *others]
        parts += [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        self._now.loads |= self._inside(scope, parts)

    def visit_SetComp(self, node: ast.SetComp) -> None:
        self.visit_ListComp(node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        self.visit_ListComp(node)

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self.visit_ListComp(node)
