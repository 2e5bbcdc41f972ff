"""Names that a cell reads and writes, and what it can reach through functions."""

from __future__ import annotations

import pytest

from cellrail.notebook.reads import CellNames, lineage, names_of


@pytest.mark.parametrize(
    ("code", "reads", "writes"),
    [
        ("x = y", {"y"}, {"x"}),
        ("x += 1", {"x"}, {"x"}),
        ("z = [a for a in b if c]", {"b", "c"}, {"z"}),
        ("f = lambda q: q + w", {"w"}, {"f"}),
        ("import a.b as c, d.e", set(), {"c", "d"}),
        ("from m import n as o", set(), {"o"}),
        ("with open(p) as h:\n    t = h.read()", {"p", "h", "open"}, {"h", "t"}),
        ("try:\n    f()\nexcept E as err:\n    print(err)", {"f", "E", "err", "print"}, {"err"}),
        ("for i, (j, *k) in rows:\n    pass", {"rows"}, {"i", "j", "k"}),
        ("if (n := len(xs)) > 1:\n    pass", {"xs", "len"}, {"n"}),
        ("match v:\n    case {'k': got, **rest}:\n        pass", {"v"}, {"got", "rest"}),
        ("print(f'{name!r:>{width}}')", {"name", "width", "print"}, set()),
        ("x: int = base", {"base", "int"}, {"x"}),
        ("class A(B):\n    c = d\n    def m(self):\n        return e", {"B", "d"}, {"A"}),
        ("def f(p=default):\n    global g\n    g = h", {"default"}, {"f", "g"}),
        ("t = [[a * b for a in row] for row in m]", {"b", "m"}, {"t"}),
        ("t = [hit for v in vs if (hit := look(v))]", {"vs", "look", "hit"}, {"t", "hit"}),
        ("k = max(vs, key=lambda v, s=scale: v * s + o)", {"vs", "max", "scale", "o"}, {"k"}),
        ("async with lock as l:\n    r = await get(u)", {"lock", "get", "u"}, {"l", "r"}),
    ],
)
def test_scopes_are_pythons(code, reads, writes):
    names = names_of(code)

    assert names.reads == reads
    assert names.writes == writes


def test_what_an_inner_function_rebinds_is_its_owners():
    names = names_of(
        "def f():\n    n = 0\n    def g():\n        nonlocal n\n        n += k\n    return g"
    )

    assert names.definitions == {"f": frozenset({"k"})}


def test_code_too_deep_to_follow_is_opaque():
    assert names_of("x = " + "(" * 5000 + ")" * 5000).opaque


def test_a_functions_free_names_are_kept_apart():
    names = names_of("def f(a):\n    b = a\n    return [b, c, (lambda: d)]")

    assert names.definitions == {"f": frozenset({"c", "d"})}


@pytest.mark.parametrize(
    ("code", "mutated"),
    [("df['x'] = 1", "df"), ("a.append(b)", "a"), ("f(a)", "a"), ("a.b.c = 1", "a"),
     ("del a[0]", "a"), ("for x in a: pass", "a"), ("a += b", "a")],
)  # fmt: skip
def test_what_may_change_a_value_in_place_is_seen(code, mutated):
    assert mutated in names_of(code).mutates


def test_magics_and_shell_lines_read_what_they_interpolate():
    names = names_of("%matplotlib inline\nfiles = !ls {folder}/*.csv $other\nx = files")

    assert {"folder", "other", "files"} <= names.reads
    assert {"files", "x"} <= names.writes
    assert not names.opaque


@pytest.mark.parametrize(
    "code",
    ["exec(code)", "globals()['x'] = 1", "from m import *", "%run other.py", "this is no python",
     "%%sql\nSELECT * FROM df", "%pylab", "%unheard_of", "%%unheard_of\nx", "x = %store -r y",
     "reset", "import __main__ as m", "sys.modules['__main__'].x = 1", "sys._getframe().f_globals",
     "%time exec(code)", "get_ipython().user_ns['x'] = 1", "%cd here\nget_ipython().push(x)"],
)  # fmt: skip
def test_code_that_may_touch_anything_is_opaque(code):
    assert names_of(code).opaque


@pytest.mark.parametrize(
    ("code", "reads", "writes"),
    [
        ("%time x = f(y)", {"f", "y"}, {"x"}),
        ("%timeit -n 10 -r3 f(y)", {"f", "y"}, set()),
        ("t = %timeit -qo f(y)", {"f", "y"}, {"t"}),
        ("%%time\nx = f(y)", {"f", "y"}, {"x"}),
        ("%%timeit -n 5 z = 1\nx = f(z)", {"f", "z"}, {"x", "z"}),
        ("%%capture --no-stderr out\nx = f(y)", {"f", "y"}, {"x", "out"}),
        ("%%time\n%matplotlib inline\nx = !ls {folder}", {"folder"}, {"x"}),
        ("%prun -s cumtime -l 5 f(y)", {"f", "y"}, set()),
        ("%%bash --out text\necho $HOME", set(), {"text"}),
        ("%%writefile $where\nx = y", {"where"}, set()),
        ("if a:\n    %cd {b.c}", {"a", "b", "c"}, set()),
        ("df.head??", {"df", "head"}, set()),
        ("!pip install x", set(), set()),
        ("print(vars(a), dir(b))", {"print", "a", "b"}, set()),
    ],
)
def test_magics_count_for_what_they_run(code, reads, writes):
    names = names_of(code)

    assert (names.reads, names.writes, names.opaque) == (reads, writes, False)


def test_strings_mention_what_queries_and_formulas_name():
    names = names_of("df.query('age > @limit')\nx = f'{y:>{z}} {df.eval(\"a b\")}'")

    assert {"limit", "a", "b"} <= names.mentions
    # a format names nothing
    assert "f" not in names_of("show(x, fmt='.2f')").mentions


@pytest.mark.parametrize(
    ("code", "rebinds"),
    [
        ("a, (b, *c) = make()\na.x = b", {"a", "b", "c"}),
        ("x = 1\na = b = x\nb = 2", {"x", "a", "b"}),
        ("a = a + 1\nb += 1", set()),
        ("print(a)\na = 1", set()),
        ("df.query('a > 1')\na = 1", set()),
        ("def f(): return a\na = f()", set()),
        ("if x: a = 1\nfor b in y: c = 1", set()),
        ("a = [b for b in (c := y)]", set()),
        ("a[0] = b.c = 1\ndel d", set()),
        ("with x as a: b = 1", set()),
    ],
)
def test_names_that_are_bound_before_anything_uses_them(code, rebinds):
    assert names_of(code).rebinds == rebinds


def test_a_function_that_looks_at_everything_makes_its_callers_opaque():
    cells = [names_of("def f():\n    return globals()"), names_of("x = f()"), names_of("y = 1")]

    assert [reached is None for reached in lineage(cells)] == [False, True, False]


def test_the_main_guard_is_no_look_at_the_namespace():
    assert not names_of("if __name__ == '__main__':\n    main()").opaque


def test_top_level_await_is_understood():
    names = names_of("async def g():\n    return y\nx = await g()")

    assert "g" in names.reads
    assert {"g", "x"} <= names.writes


def test_lineage_follows_functions_classes_and_what_is_made_from_them():
    cells = [
        names_of("day = 1"),
        names_of("def label():\n    return day"),
        names_of("class M:\n    def run(self):\n        return limit"),
        names_of("m = M()"),
        names_of("title = label()"),
        names_of("m.run()"),
        names_of("print(title)"),
        CellNames(opaque=True),
    ]

    reached = lineage(cells)

    assert "day" in reached[4]
    assert "limit" in reached[5]
    # a plain value made by a function is no function
    assert reached[7] is None
    assert "day" not in reached[1]
