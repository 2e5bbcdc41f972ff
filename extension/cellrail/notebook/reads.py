"""Names that a cell reads and writes, from its code.

Scopes are Python's: what a function or comprehension binds is its own; what is free in it is read
from the notebook. A function's body runs later, so its free names are kept apart in `definitions`
and count for every cell that reads the function's name (see `lineage`). Calling a method of a name,
or passing the name to a call, may change its value: such names are in `mutates`.
"""

from __future__ import annotations

import ast
import builtins
import re
import symtable
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

_OPAQUE = frozenset({"exec", "eval", "globals", "locals", "vars", "get_ipython", "__import__"})
_INTERPOLATED = re.compile(r"\$\{?([A-Za-z_]\w*)|\{([A-Za-z_]\w*)[^{}]*\}")
_MAGIC_LINE = re.compile(r"^\s*(?:[\w, ]+=\s*)?[%!]|^\s*\S+\?{1,2}\s*$|^\s*\?", re.MULTILINE)
_OPAQUE_MAGICS = frozenset({"run", "store", "load", "reset", "reset_selective", "pylab", "recall"})
_BUILTINS = frozenset(dir(builtins))


class CellNames(msgspec.Struct, frozen=True, kw_only=True):
    """What a cell's code does with the notebook's names."""

    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()
    mutates: frozenset[str] = frozenset()
    deletes: frozenset[str] = frozenset()
    definitions: dict[str, frozenset[str]] = {}
    #: anything may be read or written
    opaque: bool = False
    imports: tuple[str, ...] = ()


def names_of(body: str) -> CellNames:
    """The names of a cell's code. Code that does not parse is opaque."""
    interpolated: set[str] = set()
    opaque = False
    try:
        tree = ast.parse(body)
        source = body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        if not _MAGIC_LINE.search(body):
            return CellNames(opaque=True)
        source = _transformed(body)
        interpolated = _interpolated(body)
        opaque = _has_opaque_magic(body)
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return CellNames(opaque=True)
    visitor = _Visitor()
    visitor.visit(tree)
    reads, writes, definitions = _scopes(source, tree)
    shell = "get_ipython" in reads and source is not body
    reads = reads - ({"get_ipython"} if shell else set())
    return CellNames(
        reads=frozenset(reads | interpolated | visitor.augmented),
        writes=frozenset(writes),
        mutates=frozenset(visitor.mutated - _BUILTINS),
        deletes=frozenset(visitor.deleted),
        definitions=definitions,
        opaque=opaque or visitor.star_import or bool(reads & _OPAQUE),
        imports=tuple(dict.fromkeys(visitor.imports)),
    )


def _transformed(body: str) -> str:
    """IPython's own translation of magics and shell lines; imported only where they occur."""
    from IPython.core.inputtransformer2 import TransformerManager

    return str(TransformerManager().transform_cell(body))


def _interpolated(body: str) -> set[str]:
    found: set[str] = set()
    for line in body.splitlines():
        if _MAGIC_LINE.match(line):
            found.update(a or b for a, b in _INTERPOLATED.findall(line))
    return found


def _has_opaque_magic(body: str) -> bool:
    magics = re.findall(r"^\s*(?:[\w, ]+=\s*)?%{1,2}(\w+)", body, re.MULTILINE)
    return bool(_OPAQUE_MAGICS.intersection(magics)) or body.lstrip().startswith("%%")


# --- scopes ----------------------------------------------------------------------------------


def _scopes(source: str, tree: ast.Module) -> tuple[set[str], set[str], dict[str, frozenset[str]]]:
    """Reads and writes at the cell's top level, and free names of what it defines."""
    wrapped = source if not _has_top_level_await(tree) else _as_function(source)
    try:
        table = symtable.symtable(wrapped, "<cell>", "exec")
    except (SyntaxError, ValueError, RecursionError):
        return _loose(tree)
    if wrapped is not source:
        table = table.get_children()[0]
        return _loose(tree)
    reads: set[str] = set()
    writes: set[str] = set()
    for symbol in table.get_symbols():
        if symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace():
            writes.add(symbol.get_name())
        if symbol.is_referenced():
            reads.add(symbol.get_name())
    definitions: dict[str, frozenset[str]] = {}
    for child in table.get_children():
        free = frozenset(_globals_of(child))
        kind = str(child.get_type()).rpartition(".")[2].lower()
        if kind == "class":
            definitions[child.get_name()] = definitions.get(child.get_name(), frozenset()) | free
            reads |= _read_at_definition(child)
        elif child.get_name() in {"lambda", "listcomp", "setcomp", "dictcomp", "genexpr"}:
            # a comprehension runs at once; a lambda may be called at once
            reads |= free
        else:
            definitions[child.get_name()] = definitions.get(child.get_name(), frozenset()) | free
        writes |= _declared_global(child)
    return reads, writes, definitions


def _globals_of(table: symtable.SymbolTable) -> Iterator[str]:
    for symbol in table.get_symbols():
        if symbol.is_global() or (symbol.is_free() and symbol.is_referenced()):
            yield symbol.get_name()
    for child in table.get_children():
        yield from _globals_of(child)


def _read_at_definition(table: symtable.SymbolTable) -> set[str]:
    """A class body runs when the class is defined."""
    return {s.get_name() for s in table.get_symbols() if s.is_global() and s.is_referenced()}


def _declared_global(table: symtable.SymbolTable) -> set[str]:
    found = {
        s.get_name() for s in table.get_symbols() if s.is_declared_global() and s.is_assigned()
    }
    for child in table.get_children():
        found |= _declared_global(child)
    return found


def _loose(tree: ast.AST) -> tuple[set[str], set[str], dict[str, frozenset[str]]]:
    """Every name that occurs, without scopes: more than there is, never less."""
    reads: set[str] = set()
    writes: set[str] = set()
    definitions: dict[str, frozenset[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (reads if isinstance(node.ctx, ast.Load) else writes).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            writes.add(node.name)
            inner = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            definitions[node.name] = frozenset(inner)
        elif isinstance(node, ast.alias):
            writes.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            writes.add(node.name)
    return reads, writes, definitions


def _has_top_level_await(tree: ast.Module) -> bool:
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.Await, ast.AsyncFor, ast.AsyncWith)):
            return True
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            waiting += ast.iter_child_nodes(node)
    return False


def _as_function(source: str) -> str:
    return "async def __cell__():\n" + "".join(
        f" {line}" for line in source.splitlines(keepends=True)
    )


class _Visitor(ast.NodeVisitor):
    """Imports, deletions, and names whose values may be changed in place."""

    def __init__(self) -> None:
        self.imports: list[str] = []
        self.deleted: set[str] = set()
        self.mutated: set[str] = set()
        self.star_import = False
        #: `x += 1` reads x, though symbol tables tell only of the assignment
        self.augmented: set[str] = set()

    def visit_Import(self, node: ast.Import) -> None:
        self.imports += [alias.name for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.module and not node.level:
            self.imports.append(node.module)
            self.imports += [f"{node.module}.{a.name}" for a in node.names if a.name != "*"]
        self.star_import |= any(alias.name == "*" for alias in node.names)

    def visit_Delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.deleted.add(target.id)
            else:
                self._mutate(target)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute):
            self._mutate(node.func)
        arguments: Iterable[ast.expr] = [*node.args, *(k.value for k in node.keywords)]
        for argument in arguments:
            self._mutate(argument)
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        self._mutate(node.iter)  # a generator is consumed
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._mutate(node)
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._mutate(node)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._mutate(node.target)
        if isinstance(node.target, ast.Name):
            self.augmented.add(node.target.id)
        self.generic_visit(node)

    def visit_With(self, node: ast.With) -> None:
        for item in node.items:
            self._mutate(item.context_expr)
        self.generic_visit(node)

    def _mutate(self, node: ast.expr) -> None:
        """The name at the root of an expression."""
        while isinstance(node, (ast.Attribute, ast.Subscript, ast.Starred)):
            node = node.value
        if isinstance(node, ast.Name):
            self.mutated.add(node.id)


# --- over the whole flow ---------------------------------------------------------------------


class _Cell(Protocol):
    """What `lineage` needs of a step."""

    @property
    def reads(self) -> frozenset[str]: ...
    @property
    def writes(self) -> frozenset[str]: ...
    @property
    def definitions(self) -> Mapping[str, frozenset[str]]: ...
    @property
    def opaque(self) -> bool: ...


def lineage(cells: Sequence[_Cell]) -> list[frozenset[str] | None]:
    """For each cell the names it can reach: those it reads, and those that what it reads reads.

    A function's free names count where its name is read, and so do those of a class; a value made
    from them carries them on (`model = Model()` reads what `Model`'s methods read). None stands for
    a cell that may read anything.
    """
    carried: dict[str, frozenset[str]] = {}
    found: list[frozenset[str] | None] = []
    for cell in cells:
        if cell.opaque:
            found.append(None)
        else:
            # what it defines may be called by it at once
            known = {**carried, **cell.definitions}
            found.append(_closure(cell.reads, known))
        made = frozenset().union(*(carried.get(name, frozenset()) for name in cell.reads))
        for name in cell.writes:
            free = cell.definitions.get(name)
            # a function carries its own free names; any other value what it was made from
            carried[name] = free if free is not None else made | _defined_free(cell, cell.reads)
    return found


def _defined_free(cell: _Cell, reads: Iterable[str]) -> frozenset[str]:
    return frozenset().union(*(cell.definitions.get(name, frozenset()) for name in reads))


def _closure(names: Iterable[str], carried: Mapping[str, frozenset[str]]) -> frozenset[str]:
    reached: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += carried.get(name, ())
    return frozenset(reached)
