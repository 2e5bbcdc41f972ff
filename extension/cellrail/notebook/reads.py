"""Names that a cell reads and writes, from its code.

Scopes are Python's: what a function or comprehension binds is its own; what is free in it is read
from the notebook. A function's body runs later, so its free names are kept apart in `definitions`
and count for every cell that reads the function's name (see `lineage`). Calling a method of a name,
or passing the name to a call, may change its value: such names are in `mutates`.
"""

from __future__ import annotations

import ast
import builtins
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from cellrail.notebook.foreach import split, targets
from cellrail.notebook.options import StepOptions
from cellrail.notebook.scopes import scope_names
from cellrail.notebook.shelllines import ShellLines, parsed
from cellrail_state.namespace import INSIDES, LOOK_UP, WHOLE

_MAIN = "__main__"
#: one of these alone in a cell is a magic, if no variable has its name
_AUTOMAGIC = frozenset({"reset", "store", "pylab", "recall", "rerun", "run", "who", "whos"})
_OUTPUT = re.compile(r"_(\d+)|(_{1,3})")
_WORD = re.compile(r"\b[^\W\d]\w*")
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
    #: words of its strings: queries and formulas name variables there
    mentions: frozenset[str] = frozenset()
    #: it calls what may look names up that its text does not tell
    looks_up: bool = False
    #: names that it surely binds before it uses what they held
    rebinds: frozenset[str] = frozenset()

    @property
    def touches(self) -> frozenset[str] | None:
        """Names that it uses when it runs, in strings that may be code, too; None for any."""
        return None if self.opaque else self.reads | self.writes | self.mentions


@functools.lru_cache(maxsize=1024)
def names_of(body: str) -> CellNames:
    """The names of a cell's code. Code that does not parse is opaque.

    A process that runs a notebook many times reads each cell's code once.
    """
    tree = parsed(body)
    if tree is None:
        return CellNames(opaque=True)
    shell, visitor = ShellLines(), _Visitor()
    try:
        tree = shell.visit(tree)
        visitor.visit(tree)
        names = scope_names(tree)
    except RecursionError:
        return CellNames(opaque=True)
    reads = names.reads
    return CellNames(
        reads=frozenset(reads | _output_history(reads)),
        writes=frozenset(names.writes),
        mutates=frozenset(visitor.mutated - _BUILTINS),
        deletes=frozenset(visitor.deleted),
        definitions=names.definitions,
        opaque=shell.opaque or visitor.opaque or bool(reads & WHOLE) or _is_automagic(body),
        imports=tuple(dict.fromkeys(visitor.imports)),
        mentions=frozenset(visitor.mentioned),
        looks_up=bool(visitor.called & LOOK_UP),
        rebinds=frozenset(_rebound(tree)),
    )


def option_names(options: StepOptions) -> CellNames:
    """The names that the expressions of a step's line use, and those that the line binds."""
    _, items = split(options.foreach)
    expressions = (options.when, items, options.key, options.while_, options.stop_if)
    code = [f"({text})" for text in (*expressions, options.retry_if) if text]
    bound = [*targets(options.foreach), *options.collect] if options.foreach else []
    code += [f"{name} = None" for name in bound]
    return names_of("\n".join(code))


def _rebound(tree: ast.Module) -> set[str]:
    """Names that statements of the cell itself bind before any uses them, be it in a string."""
    used, found = set[str](), set[str]()
    for statement in tree.body:
        bound = set[str]()
        plain = isinstance(statement, ast.Assign)
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and plain and isinstance(node.ctx, ast.Store):
                bound.add(node.id)
            elif isinstance(node, ast.Name):  # `x += 1` uses x, too
                used.add(node.id)
            elif isinstance(node, ast.Constant) and type(node.value) is str:
                used.update(_WORD.findall(node.value))
            elif isinstance(node, ast.comprehension | ast.NamedExpr | ast.Lambda):
                plain = False  # what these bind is not the notebook's, or not surely bound
        found |= (bound if plain else set()) - used
    return found


def _is_automagic(body: str) -> bool:
    words = body.split()
    return bool(words) and words[0] in _AUTOMAGIC and "\n" not in body.strip()


def _output_history(reads: Iterable[str]) -> set[str]:
    """What is read of IPython's `Out`: `_5` is `Out[5]`, `_` the newest."""
    found = (_OUTPUT.fullmatch(name) for name in reads)
    return {f"Out[{match.group(1) or match.group(2)}]" for match in found if match}


class _Visitor(ast.NodeVisitor):
    """Imports, deletions, names whose values may be changed in place, and ways around names."""

    def __init__(self) -> None:
        self.imports: list[str] = []
        self.deleted: set[str] = set()
        self.mutated: set[str] = set()
        self.mentioned: set[str] = set()
        #: names of what is called, and every attribute: it may be called elsewhere
        self.called: set[str] = set()
        #: the namespace is used in ways that name nothing
        self.opaque = False

    def visit_Import(self, node: ast.Import) -> None:
        self.imports += [alias.name for alias in node.names]
        self.opaque |= _MAIN in self.imports

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.module and not node.level:
            self.imports.append(node.module)
            self.imports += [f"{node.module}.{a.name}" for a in node.names if a.name != "*"]
        self.opaque |= node.module == _MAIN or any(alias.name == "*" for alias in node.names)

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
        elif isinstance(node.func, ast.Name):
            self.called.add(node.func.id)
        arguments: Iterable[ast.expr] = [*node.args, *(k.value for k in node.keywords)]
        for argument in arguments:
            self._mutate(argument)
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        self._mutate(node.iter)  # a generator is consumed
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if type(node.value) is str:
            self.mentioned.update(_WORD.findall(node.value))
            self.opaque |= node.value == _MAIN

    def visit_Compare(self, node: ast.Compare) -> None:
        # `if __name__ == "__main__":` is harmless
        plain = [part for part in node.comparators if not _is_main(part)]
        for part in (node.left, *plain):
            self.visit(part)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.opaque |= node.attr in INSIDES
        self.called.add(node.attr)
        if not isinstance(node.ctx, ast.Load):
            self._mutate(node)
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._mutate(node)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._mutate(node.target)
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


def _is_main(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value == _MAIN


# --- over the whole flow ---------------------------------------------------------------------


class _Cell(Protocol):
    """What `lineage` needs of a step."""

    @property
    def reads(self) -> frozenset[str]: ...
    @property
    def writes(self) -> frozenset[str]: ...
    @property
    def mutates(self) -> frozenset[str]: ...
    @property
    def definitions(self) -> Mapping[str, frozenset[str]]: ...
    @property
    def opaque(self) -> bool: ...


def lineage(
    cells: Sequence[_Cell],
    uses: Sequence[frozenset[str]] | None = None,
    late: Sequence[frozenset[str]] | None = None,
) -> list[frozenset[str] | None]:
    """For each cell the names it can reach: those it reads, and those that what it reads reads.

    A function's free names count where its name is read, and so do those of a class; a value made
    from them carries them on (`model = Model()` reads what `Model`'s methods read). None stands for
    a cell that may read anything.

    Args:
        cells: in order.
        uses: what each of them reads of the namespace as it finds it, where that is less than all.
        late: what lambdas and generators in each of them read when they are used.
    """
    carried: dict[str, frozenset[str]] = {}
    found: list[frozenset[str] | None] = []
    for place, cell in enumerate(cells):
        if cell.opaque:
            found.append(None)
        else:
            # what it defines may be called by it at once
            known = {**carried, **cell.definitions}
            reached = _closure(cell.reads if uses is None else uses[place], known)
            found.append(None if reached & WHOLE else reached)
        made = frozenset().union(*(carried.get(name, frozenset()) for name in cell.reads))
        for name in cell.writes:
            free = cell.definitions.get(name)
            # a function carries its own free names; any other value what it was made from
            carried[name] = free if free is not None else made | _defined_free(cell, cell.reads)
            if late is not None:
                carried[name] |= late[place]
        if late is not None:  # `handlers.append(f)`: what it holds now may read these, too
            more = made | late[place] | _defined_free(cell, cell.reads)
            for name in cell.mutates:
                carried[name] = carried.get(name, frozenset()) | more
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
