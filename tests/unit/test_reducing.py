"""Laws of what pickle alone would lose: a copy is no less than the original, nor cut off from it.

Each law is told by the code of a notebook and by what has to hold once it was put back.
"""

# ruff: noqa: E501

from __future__ import annotations

import types
from typing import Any

import pandas as pd
import pytest

from cellrail_state.capture import Capture
from cellrail_state.equality import differs
from cellrail_state.namespace import user_names
from cellrail_state.restore import restore
from cellrail_state.testing import MemoryObjects


def put_back(code: str) -> tuple[dict[str, Any], dict[str, Any], Capture]:
    """The namespace that the code makes, and the one that comes back."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, "<cell>", "exec", dont_inherit=True), space)
    objects = MemoryObjects()
    capture = Capture(objects, globals=space)
    capture.checkpoint(user_names(space))
    assert capture.checkpoint(user_names(space)).written == ()
    fresh: dict[str, Any] = {"__name__": "__main__"}
    assert not restore(capture.current, fresh, objects).failed
    return space, fresh, capture


LAWS = {
    "a singleton comes back though its class makes it by a __new__ of its own": (
        "class One:\n    _it = None\n    def __new__(cls):\n        if cls._it is None:\n            cls._it = super().__new__(cls)\n            cls._it.d = {}\n        return cls._it\no = One()\no.d['k'] = o",
        "assert One() is o and o.d['k'] is o",
    ),
    "a __new__ that counts does not count the copies": (
        "class C:\n    made = 0\n    def __new__(cls, n):\n        cls.made += 1\n        return super().__new__(cls)\n    def __init__(self, n):\n        self.n = n\nc = [C(1), C(2)]",
        "assert C.made == 2 and [x.n for x in c] == [1, 2]",
    ),
    "a __new__ with other arguments than its builtin type is not called again": (
        "class P(int):\n    def __new__(cls, v, unit):\n        o = super().__new__(cls, abs(v))\n        o.unit = unit\n        return o\np = P(-3, 'm')\nclass D(dict):\n    __slots__ = ('s',)\n    def __new__(cls, s):\n        o = super().__new__(cls)\n        o.s = s\n        return o\n    def __init__(self, s):\n        pass\nd = D(4)\nd['k'] = d",
        "assert (p, p.unit, type(p)) == (3, 'm', P) and d.s == 4 and d['k'] is d",
    ),
    "an exception whose __init__ takes other arguments is not made by it": (
        "class E(Exception):\n    def __init__(self, code):\n        super().__init__(f'code {code}')\n        self.code = code\ne = E(3)",
        "assert str(e) == 'code 3' and e.code == 3 and type(e) is E",
    ),
    "an exception without its arguments' __init__ comes back, too": (
        "class E(KeyError):\n    def __init__(self, *, key, why):\n        super().__init__(key)\n        self.why = why\ne = E(key='k', why='w')",
        "assert e.args == ('k',) and e.why == 'w'",
    ),
    "an exception keeps cause, context, notes": (
        "try:\n    try:\n        1 / 0\n    except ZeroDivisionError as e:\n        raise KeyError('k') from e\nexcept KeyError as e:\n    e.add_note('n')\n    x, cause = e, e.__cause__",
        "assert x.__cause__ is x.__context__ is cause and x.__suppress_context__ and x.__notes__ == ['n']",
    ),
    "an error of the system keeps number and file": (
        "class Mine(OSError):\n    def __init__(self, name):\n        super().__init__(2, 'gone', name)\ntry:\n    open('/no/such/file')\nexcept OSError as e:\n    x = e\ny = Mine('f')",
        "assert type(x) is FileNotFoundError and x.errno == 2 and x.filename == '/no/such/file'\nassert (y.errno, y.filename) == (2, 'f') and type(y) is Mine",
    ),
    "an exit keeps its code, an iteration's end its value": (
        "class Quit(SystemExit):\n    def __init__(self):\n        super().__init__(7)\nx = Quit()\ny = StopIteration(5)",
        "assert x.code == 7 and y.value == 5",
    ),
    "an exception keeps what is in its slots, a name error its name": (
        "class E(Exception):\n    __slots__ = ('v',)\nx = E('m')\nx.v = 3\ntry:\n    print(nothing)\nexcept NameError as e:\n    y = e\ntry:\n    [].nothing\nexcept AttributeError as e:\n    z = e",
        "assert x.v == 3 and y.name == z.name == 'nothing'",
    ),
    "a cycle of exceptions comes back": (
        "a, b = ValueError('a'), ValueError('b')\na.__context__ = b\nb.other = a",
        "assert a.__context__ is b and b.other is a",
    ),
    "a group of exceptions holds what other names hold": (
        "a = ValueError(1)\ng = ExceptionGroup('g', [a])",
        "assert g.exceptions[0] is a and g.message == 'g'",
    ),
    "a builtin's method belongs to its object": (
        "rows = [1]\nadd = rows.append\nsize = rows.__len__",
        "add(2)\nassert rows == [1, 2] and size() == 2",
    ),
    "functions of random draw from the one generator": (
        "import random\nfrom random import randint, random as draw, seed",
        "seed(4); a = draw(); b = randint(1, 10**9)\nrandom.seed(4)\nassert (a, b) == (random.random(), random.randint(1, 10**9))",
    ),
    "functions of numpy.random draw from the one generator": (
        "import numpy as np\nfrom numpy.random import rand, seed",
        "seed(4); a = rand()\nnp.random.seed(4)\nassert a == np.random.rand()",
    ),
    "a generator of one's own is no other": (
        "import random\nmine = random.Random(5)\ndraw = mine.random",
        "import random\na = draw()\nmine.seed(5)\nassert mine.random() == a and mine is not random._inst",
    ),
    "the environment is the environment": (
        "import os, os as same\nfrom os import environ as env",
        "assert env is os.environ",
    ),
    "the decimal context in force is in force": (
        "import decimal\ncontext = decimal.getcontext()\nother = decimal.Context(prec=3)",
        "assert context is decimal.getcontext() and other.prec == 3",
    ),
    "a compiled struct comes back": (
        "import struct\nx = struct.Struct('<ih')",
        "assert x.unpack(x.pack(1, 2)) == (1, 2)",
    ),
    "an array on a bytearray shows its memory, from an offset, read-only or not": (
        "import numpy as np\nraw = bytearray(range(100))\na = np.frombuffer(raw, dtype='<i4', offset=4, count=5)\nb = np.frombuffer(memoryview(raw).toreadonly(), 'u1')[10:20:3]\nv = a[1:]",
        "raw[8] = 255\nassert v[0] & 255 == 255 and np.shares_memory(a, v) and not b.flags.writeable\nraw[13] = 77\nassert b[1] == 77\na[0] = 0\nassert raw[4] == 0",
    ),
    "an array on an array.array shows its memory": (
        "import array, numpy as np\nraw = array.array('d', [1, 2, 3])\na = np.frombuffer(raw)",
        "raw[1] = 9\nassert a.tolist() == [1, 9, 3]",
    ),
    "a memory view of bytes shows the part that it showed": (
        "raw = b'abcdef'\nx = memoryview(raw)[2:4]\ny = memoryview(raw)",
        "assert bytes(x) == b'cd' and bytes(x.obj) == raw and y.readonly",
    ),
    "an array of a class of the notebook keeps its attributes and its memory": (
        "import numpy as np\nclass Tagged(np.ndarray):\n    pass\nbase = np.arange(6.0)\nx = base[2:].view(Tagged)\nx.tag = ['t']\ny = x[1:]\nowner = np.arange(3).view(Tagged).copy()\npart = np.asarray(owner)[1:]",
        "base[2] = 9\nassert type(x) is Tagged and x.tag == ['t'] and x[0] == 9\nassert np.shares_memory(x, y) and type(y) is Tagged\nowner[1] = 8\nassert part[0] == 8",
    ),
    "records share the memory of their table": (
        "import numpy as np\nt = np.zeros(3, dtype=[('a', 'i4')])\nr = t.view(np.recarray)",
        "t['a'][1] = 5\nassert r.a[1] == 5 and type(r) is np.recarray and r.dtype.type is np.record",
    ),
}


@pytest.mark.parametrize("law", LAWS)
def test_nothing_is_lost(law: str) -> None:
    code, check = LAWS[law]
    _, fresh, _ = put_back(code)

    exec(compile(check, law, "exec", dont_inherit=True), fresh)


def test_a_class_that_hides_its_module_does_not_end_a_capture() -> None:
    code = "class Odd: pass\nx = [Odd()]\nOdd.__module__ = property(id)\ny = [1]"
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(code, space)
    capture = Capture(MemoryObjects(), globals=space)
    capture.checkpoint(user_names(space))

    assert capture.current.variables["y"].verdict.value == "stored"
    assert "x" in capture.current.variables


def test_what_is_drawn_from_the_one_generator_does_not_change_a_function_of_it() -> None:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("from random import random\nfrom numpy.random import rand", space)
    capture = Capture(MemoryObjects(), globals=space)
    capture.checkpoint(user_names(space))
    exec("random(), rand()", space)

    assert capture.checkpoint(user_names(space)).written == ()


def test_slices_of_arrow_memory_share_it_again_across_variables_and_frames() -> None:
    pytest.importorskip("pyarrow")
    _, fresh, _ = put_back(
        "import pyarrow as pa, pandas as pd\nwhole = pa.array(range(10_000))\n"
        "part = whole.slice(10, 5)\ntable = pa.table({'n': whole, 's': list(map(str, range(10_000)))})\n"
        "rest = table.slice(7)\nother = pa.array(range(1, 10_001))",
    )
    address = [fresh[name].buffers()[1].address for name in ("whole", "part")]
    texts = [fresh[name]["s"].chunk(0).buffers()[2].address for name in ("table", "rest")]

    assert len({*address, fresh["table"]["n"].chunk(0).buffers()[1].address}) == 1
    assert texts[0] == texts[1]
    assert fresh["other"][0].as_py() == 1
    assert fresh["part"].to_pylist() == [10, 11, 12, 13, 14]


def test_arrow_memory_that_nobody_holds_is_gone() -> None:
    pytest.importorskip("pyarrow")
    from cellrail_state import memory

    before = len(memory._arrow)
    _, fresh, _ = put_back("import pyarrow as pa\nx = pa.array(range(9_000))")
    assert len(memory._arrow) == before + 1
    fresh.clear()
    assert len(memory._arrow) == before


def test_a_plan_of_polars_is_stored_unless_it_holds_a_function_of_the_notebook() -> None:
    pl = pytest.importorskip("polars")
    space: dict[str, Any] = {"__name__": "__main__", "pl": pl}
    exec(
        "plan = pl.LazyFrame({'a': [1]}).with_columns(b=pl.col('a') + 1)\nk = 2\n"
        "own = plan.map_batches(lambda frame: frame * k)\n"
        "def named(frame): return frame * k\nother = plan.map_batches(named)",
        space,
    )
    capture = Capture(MemoryObjects(), globals=space)
    capture.checkpoint(user_names(space))
    verdicts = {name: v.verdict.value for name, v in capture.current.variables.items()}

    assert (verdicts["plan"], verdicts["own"], verdicts["other"]) == (
        "stored",
        "rebuilt",
        "rebuilt",
    )


def test_a_bunch_of_scikit_learn_comes_back_whole() -> None:
    pytest.importorskip("sklearn")
    space, fresh, _ = put_back("from sklearn.utils import Bunch\nx = Bunch(a=1)")

    assert vars(fresh["x"]) == vars(space["x"])


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("[].append", "[].append", True),
        ("[1].append", "[2].append", False),
        ("print", "len", False),
        ("list[int]", "list[int]", True),
        ("int | None", "int | str", False),
        ("__import__('re').compile('a')", "__import__('re').compile('a', 2)", False),
        ("type('', (), {}).__dict__", "{}", False),
        ("compile('1', 'f', 'eval')", "compile('1', 'f', 'eval')", True),
        ("compile('1', 'f', 'eval')", "compile('2', 'f', 'eval')", False),
        ("map(str, [1])", "map(str, [2])", False),
        ("map(str, [1])", "map(str, [1])", True),
        ("__import__('struct').Struct('i')", "__import__('struct').Struct('h')", False),
    ],
)
def test_values_are_compared_by_what_they_are_made_of(one: str, other: str, equal: bool) -> None:
    assert (differs(eval(one), eval(other)) == "") is equal


def test_sets_of_what_looks_alike_are_compared_item_by_item() -> None:
    class Node:
        def __init__(self, value: object) -> None:
            self.value = value

    def flock(*values: object) -> set[Any]:
        return {Node(value) for value in values} | {frozenset([Node(9)])}

    assert differs(flock(1, 2, 3, 4, 5), flock(5, 4, 3, 2, 1)) == ""
    assert differs(flock(1, 2, 3), flock(1, 2, 4)) != ""
    assert differs({1, "a"}, {1, "a"}) == ""
    assert differs({1, "a"}, {1, "b"}) != ""
    shared = Node(1)
    assert differs([{shared, Node(1)}, shared], [{shared, Node(1)}, shared]) == ""


def test_the_order_in_which_attributes_were_set_does_not_matter_that_of_a_dict_does() -> None:
    one, other = types.SimpleNamespace(a=1, b=[2]), types.SimpleNamespace(b=[2], a=1)

    assert differs(one, other) == ""
    assert differs(one, types.SimpleNamespace(b=[3], a=1)) != ""
    assert differs(vars(one), vars(other)) != ""


def test_indexes_are_compared_by_values_names_and_frequency() -> None:
    days = pd.date_range("2024-01-01", periods=3)
    months = pd.period_range("2024-01", periods=3, freq="M")
    months.is_monotonic_increasing  # noqa: B018 - it remembers the answer

    assert differs(months, pd.period_range("2024-01", periods=3, freq="M")) == ""
    assert differs(days, days._with_freq(None)) != ""
    assert differs(days, days.rename("day")) != ""
    assert differs(days, days + pd.Timedelta(1)) != ""


def test_long_chains_are_compared() -> None:
    def chain() -> list[Any]:
        made: list[Any] = []
        for _ in range(5_000):
            made = [made]
        return made

    assert differs(chain(), chain()) == ""
    assert differs(chain(), [chain()]) != ""
