"""Laws of looking only at what a cell's code can reach.

* Whatever a cell changes is found, by whatever path, though nothing else is looked at.
* What no code leads to is not looked at.
* An audit finds what changed beyond that, and names it.
"""

# ruff: noqa: E501 - a path is told in a line

from __future__ import annotations

import sys
import textwrap
import types
from functools import partial
from typing import Any

import pytest

from cellrail.notebook.reads import names_of
from cellrail_state.capture import Capture
from cellrail_state.equality import differs
from cellrail_state.namespace import user_names
from cellrail_state.restore import restore
from cellrail_state.testing import MemoryObjects

#: what -> (cells before, the cell that changes something)
PATHS = {
    "a name": ("a = [1]", "a.append(2)"),
    "an alias in a list": ("a = [1]; b = [a]", "b[0].append(2)"),
    "an alias of an alias": ("a = [1]; b = {'k': a}; c = (b,)", "c[0]['k'].append(2)"),
    "a function's global": ("a = [1]\ndef f(): a.append(2)", "f()"),
    "a global that it rebinds": ("a = [1]\ndef f():\n    global a\n    a = [a, 2]", "f()"),
    "a function in a dict": ("a = [1]\ndef f(): a.append(2)\nd = {'f': f}\ndel f", "d['f']()"),
    "a function called by another": (
        "a = [1]\ndef g(): a.append(2)\ndef f(): g()", "f()"),
    "a method": ("a = [1]\nclass C:\n    def m(self): a.append(2)\nc = C()\ndel C", "c.m()"),
    "an inherited method": (
        "a = [1]\nclass B:\n    def m(self): a.append(2)\nclass C(B): pass\nc = C()\ndel B, C",
        "c.m()"),
    "a property": (
        "a = [1]\nclass C:\n    @property\n    def p(self): a.append(2); return 1\nc = C()", "c.p"),
    "a class of a class": (
        "a = [1]\nclass M(type):\n    def m(cls): a.append(2)\nclass C(metaclass=M): pass", "C.m()"),
    "a closure": (
        "def make():\n    n = [0]\n    def up(): n.append(1)\n    def get(): return n\n"
        "    return up, get\nup, get = make()", "up()"),
    "a function in a closure": (
        "a = [1]\ndef deco(f):\n    def inner(): return f()\n    return inner\n"
        "@deco\ndef g(): a.append(2)", "g()"),
    "an object in a closure": (
        "a = [1]\nclass C:\n    def __call__(self): a.append(2)\ndef make(c):\n"
        "    def inner(): c()\n    return inner\nf = make(C())\ndel C", "f()"),
    "a default value": ("def f(x, into=[]): into.append(x)\n", "f(3)"),
    "a partial": (
        "import functools\na = [1]\ndef f(x): a.append(x)\np = functools.partial(f, 2)\ndel f", "p()"),
    "a callback of a library": (
        "a = []\ndef key(x): a.append(x); return x\n", "sorted([2, 1], key=key)"),
    "a lambda in a list": ("a = [1]\nfs = [lambda: a.append(2)]", "fs[0]()"),
    "a generator's frame": (
        "a = [1]\ndef g():\n    while True:\n        a.append(2)\n        yield\nit = g()\ndel g",
        "next(it)"),
    "exec": ("a = [1]\nsource = 'a.append(2)'", "exec(source)"),
    "globals()": ("a = [1]\nname = 'a'", "globals()[name].append(2)"),
    "a function with globals()": ("a = [1]\ndef f(n): globals()[n].append(2)", "f('a')"),
    "an array's view": ("import numpy as np\na = np.zeros(5000)\nv = a[10:]", "v[0] = 1"),
    "a memory view": ("a = bytearray(9000)\nv = memoryview(a)", "v[5] = 1"),
    "an array behind a frame": (
        "import pandas as pd, numpy as np\nx = np.zeros((100, 2))\n"
        "df = pd.DataFrame(x, copy=False)", "x[0] = 1"),
    "what a deleted object did": (
        "a = [1]\nclass C:\n    def __del__(self): a.append(2)\nc = C()\ndel C", "c = None"),
    "a weak reference": (
        "import weakref\nclass C: pass\nc = C()\nc.x = 1\nr = weakref.ref(c)", "r().x = 2"),
    "a context manager": (
        "a = [1]\nclass C:\n    def __enter__(self): a.append(2)\n    def __exit__(self, *e): pass\n"
        "c = C()", "with c: pass"),
    "an operator": (
        "a = [1]\nclass C:\n    def __add__(self, o): a.append(o); return 1\nc = C()", "z = c + 1"),
    "a display": ("a = [1]\nclass C:\n    def __repr__(self): a.append(2); return 'c'\nc = C()", "repr(c)"),
    "an iterator": ("a = [1, 2, 3]; it = iter(a)", "next(it)"),
    "a dict's view": ("d = {'a': [1]}; v = d.values()", "list(v)[0].append(2)"),
    "a bound method": ("class C:\n    n = 0\n    def m(self): self.n += 1\nc = C(); m = c.m", "m()"),
    "a class attribute": ("class C: n = []\nc = C()", "c.n.append(1)"),
    "a cached function's helper": (
        "import functools\na = [1]\n@functools.lru_cache\ndef f(x): a.append(x); return x", "f(7)"),
    "a module of one's own": ("import own\na = [1]\nown.keep(a)", "own.change()"),
    "a function of one's own module": (
        "from own import keep, change\na = [1]\nkeep(a)\ndel keep", "change()"),
    "a figure of pyplot": (
        "import matplotlib; matplotlib.use('agg')\nimport matplotlib.pyplot as plt\n"
        "fig, ax = plt.subplots()", "plt.title('later')"),
}  # fmt: skip


class Notebook:
    """Cells in one namespace, captured after each as their code says."""

    def __init__(self) -> None:
        self.ns: dict[str, Any] = {"__name__": "__main__"}
        self.store = MemoryObjects()
        self.capture = Capture(self.store, globals=self.ns)

    def cell(self, source: str, *, audit: bool = False) -> Any:
        exec(compile(source, "<cell>", "exec", dont_inherit=True), self.ns)
        names = names_of(source)
        touched = None if names.opaque else names.reads | names.writes
        return self.capture.checkpoint(user_names(self.ns), touched=touched, audit=audit)

    def restored(self) -> dict[str, Any]:
        ns: dict[str, Any] = {"__name__": "__main__"}
        report = restore(self.capture.current, ns, self.store)
        assert not report.failed
        return user_names(ns)


@pytest.fixture(autouse=True)
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(
        "_kept = []\ndef keep(x):\n    _kept.append(x)\ndef change():\n    _kept[-1].append(2)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("own", None)
    if plt := sys.modules.get("matplotlib.pyplot"):
        plt.close("all")


@pytest.mark.parametrize("path", PATHS)
def test_a_change_is_found_by_every_path(path):
    before, change = PATHS[path]
    book = Notebook()
    for source in before.split("\n---\n"):
        book.cell(source)
    book.cell(change)

    assert book.capture.missed(user_names(book.ns), ()) == ()
    live, back = user_names(book.ns), book.restored()
    for name, value in back.items():
        if book.capture.current.variables[name].verdict == "stored":
            assert not differs(live[name], value), name


def test_what_no_code_leads_to_is_not_looked_at(monkeypatch):
    book = Notebook()
    book.cell("big = [[i] for i in range(9)]; other = {'k': [1]}\ndef f(x): return x")
    looked: list[str] = []
    from cellrail_state.pieces import Pieces

    add = Pieces.add
    monkeypatch.setattr(Pieces, "add", lambda self, n, v: (looked.append(n), add(self, n, v))[1])
    book.cell("y = f(other)")

    assert "big" not in looked
    assert {"other", "f", "y"} <= set(looked)


def test_an_audit_names_what_a_library_changed_behind_the_code():
    library = types.ModuleType("library")
    library.held = []
    book = Notebook()
    book.cell("a = [1]; b = 0")
    library.held.append(book.ns["a"])
    book.cell("b = 1")
    library.held[0].append(2)
    delta = book.cell("b = 2", audit=True)

    assert delta.audited
    assert delta.missed == ("a",)
    assert book.restored()["a"] == [1, 2]


def test_definitions_that_are_not_looked_at_stay_whole():
    book = Notebook()
    book.cell(
        textwrap.dedent("""
        class A: pass
        class B: pass
        a, b = A(), B()
        def f(): return b
    """)
    )
    book.cell("a.x = 1")
    book.cell("z = 3")
    book.cell("class C(A): pass\nc = C()")
    back = book.restored()

    assert type(back["b"]) is back["B"]
    assert back["f"]() is back["b"]
    assert isinstance(back["c"], back["A"])


def test_a_name_leaves_its_group_without_taking_the_others_along():
    book = Notebook()
    book.cell("shared = [1]; a = [shared]; b = [shared]; c = [shared]")
    book.cell("del a")
    book.cell("b = 2")
    back = book.restored()

    assert back["c"][0] is back["shared"]
    assert back["b"] == 2
    assert "a" not in back


@pytest.mark.parametrize(
    "body",
    [
        "def m(self): return 1",
        "kinds = ['a', 'b']\n    names = {'x': (1, 2)}",
        "x: int = 0\n    y: list[str] | None = None",
    ],
)
@pytest.mark.parametrize(
    "decorator", ["", "@dataclasses.dataclass\n", "@functools.total_ordering\n"]
)
def test_a_class_of_plain_parts_reaches_nothing_beyond_its_code(body, decorator):
    import copyreg

    book = Notebook()
    book.cell("import dataclasses, functools, enum")
    book.cell("def everything(): return globals()")
    less = "    def __lt__(self, other): return True" if "order" in decorator else ""
    book.cell(f"{decorator}class C:\n    {body}\n{less}")
    # pickle keeps what it finds on the class
    copyreg._slotnames(book.ns["C"])  # type: ignore[attr-defined]
    reach = book.capture._looker.reach
    found = reach.names([book.capture.definitions.key(book.ns["C"])])

    assert found is not None
    assert "everything" not in found


def test_a_class_that_holds_a_function_reaches_what_it_uses():
    book = Notebook()
    book.cell("def f(): return used\nclass C:\n    table = {'k': [f]}")
    reach = book.capture._looker.reach

    assert "used" in (reach.names([book.capture.definitions.key(book.ns["C"])]) or ())


def test_what_leaves_a_group_that_a_lost_definition_held_together_is_stored_anew():
    book = Notebook()
    book.cell(
        "def counter(seen):\n    def up():\n        return seen\n    return up\n"
        "class Box: pass\na = [1]; c = Box(); c.v = a; d = counter(a)"
    )
    book.cell("b = counter([1])")
    held = book.ns["b"]  # somebody keeps the function until the capture is over
    book.cell("b = b()")
    del held
    book.cell("a = [2]")
    back = book.restored()

    assert back["d"]() is back["c"].v
    assert book.capture.current.variables["b"].component not in {
        c.id for c in book.capture.current.components.values() if c.definitions
    }


def test_a_change_that_no_code_showed_is_found_before_the_next_cell_that_uses_the_name():
    library = types.ModuleType("library")
    library.held = []
    book = Notebook()
    book.cell("a = [1]; c = 1")
    library.held.append(book.ns["a"])
    book.cell("b = 1")
    library.held[0].append(2)
    book.cell("b = 2")

    names = names_of("print(a)")
    found = book.capture.look_before(user_names(book.ns), names.reads | names.writes)
    delta = book.cell("print(a)")

    assert found == ("a",)
    assert delta.missed == ("a",)
    assert "a" in delta.written
    assert book.restored()["a"] == [1, 2]
    # what was looked at just now is not looked at again
    assert book.capture.look_before(user_names(book.ns), {"a"}) == ()
    assert book.cell("c = 2").missed == ()


def test_before_a_cell_what_it_only_binds_anew_is_not_looked_at():
    """Unless another name would still have it."""
    library = types.ModuleType("library")
    book = Notebook()
    book.cell("a = [1]; b = [2]; c = b")
    library.held = [book.ns["a"], book.ns["b"]]
    book.cell("x = 1")
    for held in library.held:
        held.append(3)
    book.cell("x = 2")
    look = partial(book.capture.look_before, user_names(book.ns), {"a", "b"})
    assert look(rebinds={"a", "b"}) == ("b", "c")
    assert look(rebinds={"b"}) == ("a", "b", "c")


def test_words_of_a_docstring_are_no_calls():
    book = Notebook()
    book.cell("""def f():
    'the main instance: load, eval, vars'
    return used
def g():
    return loads(used)
""")
    reach, key = book.capture._looker.reach, book.capture.definitions.key

    found = reach.names([key(book.ns["f"])], spoken=True)
    assert found is not None
    assert {"used", "instance"} <= found
    assert reach.names([key(book.ns["g"])], spoken=True) is None
    assert reach.names([key(book.ns["g"])]) is not None
