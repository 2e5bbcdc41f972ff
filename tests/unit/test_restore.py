"""Laws of a restore, each also in another process with another hash seed.

Equal values, same types, same sharing; functions see the live globals; pandas' lazily shared
blocks do not overwrite one another; one damaged value does not stop the others.
"""

# ruff: noqa: E501

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from blake3 import blake3

from cellrail_state.capture import Capture
from cellrail_state.errors import ObjectMissing
from cellrail_state.model import Checkpoint, ObjectRef
from cellrail_state.namespace import user_names
from cellrail_state.restore import incompatibilities, restore


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, data: Any) -> ObjectRef:
        raw = bytes(data)
        digest = blake3(raw).hexdigest()
        (self.path / digest).write_bytes(raw)
        return ObjectRef(digest=digest, size=len(raw))

    def put_all(self, parts: Sequence[Any]) -> list[ObjectRef]:
        return [self.put(data) for data in parts]

    def get(self, ref: ObjectRef) -> bytes:
        try:
            return (self.path / ref.digest).read_bytes()
        except FileNotFoundError:
            raise ObjectMissing(f"the object {ref.digest} is missing") from None

    def buffer(self, ref: ObjectRef) -> bytearray:
        return bytearray(self.get(ref))


CHILD = """
import sys, json, msgspec
from pathlib import Path
from cellrail_state.model import Checkpoint, ObjectRef
from cellrail_state.restore import restore
folder = Path(sys.argv[1])
class Folder:
    def get(self, ref): return (folder / ref.digest).read_bytes()
    def buffer(self, ref): return bytearray(self.get(ref))
checkpoint = msgspec.json.decode((folder / "checkpoint").read_bytes(), type=Checkpoint)
report = restore(checkpoint, globals(), Folder())
assert not report.failed, report.failed
exec(compile((folder / "check").read_text(), "<check>", "exec", dont_inherit=True), globals())
"""

CASES = {
    "names that held one object hold one object": (
        "a = [1]; b = a; c = {'k': a}; t = (1, 2); u = t",
        "assert a is b is c['k'] and t is u",
    ),
    "cycles come back": (
        "a = []; b = {'a': a}; a.append(b); c = [a]",
        "assert a[0] is b and b['a'] is a and c[0] is a",
    ),
    "a view shares its base's memory": (
        "import numpy as np\nx = np.arange(5000.); y = x[::-2]; z = [x[3:4]]",
        "x[-1] = 7; assert y[0] == 7; x[3] = 8; assert z[0][0] == 8 and x.flags.writeable",
    ),
    "a definition shares objects with variables": (
        (
            "log = []\n"
            "def outer(log):\n    def f(): log.append(1)\n    return f\n"
            "f = outer(log)\n"
            "class A:\n    items = log"
        ),
        "f(); assert log == [1] and A.items is log",
    ),
    "an instance has the class of the notebook": (
        "class Foo:\n    def hi(self): return 1\nx = Foo(); y = [Foo()]",
        "assert type(x) is Foo is type(y[0]) and x.hi() == 1",
    ),
    "functions see the live globals": (
        (
            "k = 1\ndef f(): return k\ndef g(): return f() + 1\n"
            "h = lambda: k\nclass A:\n    def m(self): return f()"
        ),
        (
            "k = 5; assert f() == 5 and g() == 6 and h() == 5 and A().m() == 5\n"
            "def f(): return 50\nassert g() == 51 and f.__globals__ is globals()"
        ),
    ),
    "closures go on sharing a cell": (
        (
            "def pair():\n    n = 0\n    def inc():\n        nonlocal n\n        n += 1\n        return n\n"
            "    def get(): return n\n    return inc, get\ninc, get = pair(); inc()"
        ),
        "assert inc() == 2 and get() == 2",
    ),
    "functions keep defaults, attributes and names": (
        (
            "def f(a, b=[1], *, c=3) -> int:\n    'doc'\n    return a\nf.tag = {'x': 1}\n"
            "def r(n): return 1 if n < 2 else n * r(n - 1)\n"
            "def rec():\n    def fact(n): return 1 if n < 2 else n * fact(n - 1)\n    return fact\n"
            "fact = rec()"
        ),
        (
            "assert f.__defaults__ == ([1],) and f.__kwdefaults__ == {'c': 3} and f.tag == {'x': 1}\n"
            "assert f.__doc__ == 'doc' and f.__annotations__['return'] is int and f.__name__ == 'f'\n"
            "assert f.__module__ == '__main__' and f.__code__.co_filename == '<cell>'\n"
            "assert r(5) == 120 == fact(5) and fact.__qualname__ == 'rec.<locals>.fact'"
        ),
    ),
    "an old instance keeps its old class": (
        "class Foo:\n    v = 1\nold = Foo()\nclass Foo:\n    v = 2\nnew = Foo()",
        "assert old.v == 1 and new.v == 2 and type(new) is Foo and type(old) is not Foo",
    ),
    "dataclasses, named tuples, new types and typed dicts work": (
        (
            "import dataclasses, collections, typing\n"
            "@dataclasses.dataclass(frozen=True, order=True)\nclass P:\n"
            "    x: int\n    y: list = dataclasses.field(default_factory=list, compare=False)\n"
            "@dataclasses.dataclass(slots=True)\nclass S:\n    x: int = 3\n"
            "p = P(1); s = S()\n"
            "N = collections.namedtuple('N', 'a b'); n = N(1, 2)\n"
            "class M(typing.NamedTuple):\n    a: int\n    b: str = 'z'\nm = M(1)\n"
            "Id = typing.NewType('Id', int); alias = Id\n"
            "T = typing.TypeVar('T')\nclass G(typing.Generic[T]): pass\ng = G[int]()\n"
            "class TD(typing.TypedDict):\n    a: int\n"
            "class Pr(typing.Protocol):\n    def go(self) -> int: ..."
        ),
        (
            "assert p == P(1) and p < P(2) and type(p) is P and P(3).y == [] and hash(p)\n"
            "@dataclasses.dataclass(frozen=True)\nclass Q(P):\n    z: int = 0\n"
            "assert Q(1).x == 1 and dataclasses.replace(p, x=5).x == 5\n"
            "assert s == S() and not hasattr(s, '__dict__')\n"
            "assert n == N(1, 2) and n.a == 1 and n._replace(a=4).a == 4 and N._fields == ('a', 'b')\n"
            "assert m == M(1) and m.b == 'z' and type(m) is M\n"
            "assert Id is alias and Id(3) == 3 and isinstance(g, G) and TD(a=1) == {'a': 1}"
        ),
    ),
    "enum members keep identity and state": (
        (
            "import enum\nclass C(enum.Enum):\n    R = (1, 2); G = (3, 4); ALSO = (1, 2)\n"
            "    def __init__(self, a, b): self.a, self.b = a, b\n"
            "    @property\n    def total(self): return self.a + self.b\n"
            "class F(enum.Flag):\n    A = enum.auto(); B = enum.auto()\n"
            "class I(enum.IntEnum):\n    X = 1\n"
            "class S(str, enum.Enum):\n    V = 'v'\n"
            "r = C.R; d = {C.G: 1}; ab = F.A | F.B; x = I.X"
        ),
        (
            "assert r is C.R is C.ALSO and d[C.G] == 1 and r.total == 3 and list(C) == [C.R, C.G]\n"
            "assert ab == F.A | F.B and F.A in ab and x is I.X and x + 1 == 2 and S('v') is S.V"
        ),
    ),
    "hierarchies, slots, metaclasses and abstract classes work": (
        (
            "import abc\n"
            "class Meta(type):\n    made = []\n"
            "    def __new__(m, n, b, ns):\n        c = super().__new__(m, n, b, ns)\n"
            "        m.made.append(n); c.extra = 1\n        return c\n"
            "class K(metaclass=Meta): pass\nk = K()\n"
            "class Reg:\n    seen = []\n"
            "    def __init_subclass__(cls, **kw): Reg.seen.append(cls)\n"
            "class R1(Reg): pass\nclass R2(R1): pass\n"
            "class B(abc.ABC):\n    @abc.abstractmethod\n    def f(self): ...\n"
            "class D(B):\n    __slots__ = ('s', '__p')\n    def f(self): return super().__hash__()\n"
            "    def __init__(self): self.s = 1; self.__p = 2\n    def p(self): return self.__p\n"
            "B.register(int)\nd = D()"
        ),
        (
            "assert Meta.made == ['K'] and K.extra == 1 and type(k) is K\n"
            "assert Reg.seen == [R1, R2] and R2.__mro__[1] is R1\n"
            "assert isinstance(d, B) and d.s == 1 and d.p() == 2 and d.f() and issubclass(int, B)\n"
            "try: B()\nexcept TypeError: pass\nelse: raise AssertionError"
        ),
    ),
    "decorated functions, caches, dispatch and bound methods work": (
        (
            "import functools\n"
            "def twice(f):\n    @functools.wraps(f)\n    def inner(*a): return 2 * f(*a)\n    return inner\n"
            "@twice\ndef one(): return 1\n"
            "@functools.lru_cache(maxsize=7)\ndef fib(n): return n if n < 2 else fib(n-1) + fib(n-2)\n"
            "@functools.singledispatch\ndef kind(x): return 'any'\n"
            "@kind.register\ndef _k(x: int): return 'int'\n"
            "class A:\n    def __init__(self): self.n = 0\n"
            "    def up(self): self.n += 1; return self.n\n"
            "    @staticmethod\n    def s(): return 's'\n    @classmethod\n    def c(cls): return cls\n"
            "    @property\n    def p(self): return self.n\n"
            "    @functools.cached_property\n    def cp(self): return self.n\n"
            "a = A(); up = a.up; part = functools.partial(one)"
        ),
        (
            "assert one() == 2 == part() and one.__wrapped__() == 1 and fib(20) == 6765\n"
            "assert fib.cache_parameters()['maxsize'] == 7 and kind(1) == 'int' and kind('') == 'any'\n"
            "assert up() == 1 == a.n == a.p and A.s() == 's' and A.c() is A and a.cp == 1"
        ),
    ),
    "instances as keys, defaults and class attributes find their class able to act": (
        (
            "class K:\n    def __init__(self, v): self.v = v\n"
            "    def __hash__(self): return hash(self.v)\n    def __eq__(self, o): return self.v == o.v\n"
            "    def __setstate__(self, s): self.v = s['v']; self.restored = True\n"
            "class H:\n    table = {K('x'): 1}\n    default = K('y')\n"
            "def f(k=K('z'), t={K('w'): 2}): return t[K('w')]\n"
            "s = {K('a')}; K.me = K('me')"
        ),
        (
            "assert H.table[K('x')] == 1 and H.default.restored and f() == 2 and K('a') in s\n"
            "assert type(K.me) is K and K.me.v == 'me'"
        ),
    ),
    "functions made by exec keep globals of their own": (
        (
            "space = {}\nexec('n = 1\\ndef f(): return n\\ndef up():\\n    global n; n += 1', space)\n"
            "f, up = space.pop('f'), space.pop('up'); del space"
        ),
        "up(); assert f() == 2 and 'n' not in globals()",
    ),
    "modules come back under their names": (
        "import numpy as what, os.path as p, collections.abc",
        "import numpy, os; assert what is numpy and p is os.path and collections.abc",
    ),
    "two frames that share blocks lazily do not overwrite one another": (
        (
            "import numpy as np, pandas as pd\n"
            "if pd.__version__ < '3': pd.options.mode.copy_on_write = True\n"
            "df = pd.DataFrame({'a': np.arange(900.), 'b': np.arange(900.)})\n"
            "v = df[:]; shallow = df.copy(deep=False); col = df['a']; idx = pd.Index(col)\n"
            "alone = pd.DataFrame({'a': [1, 2], 's': ['x', 'y']})"
        ),
        (
            "if pd.__version__ < '3': pd.options.mode.copy_on_write = True\n"
            "df.iloc[0, 0] = 99.; assert v.iloc[0, 0] == 0 == shallow.iloc[0, 0] == col.iloc[0]\n"
            "col.iloc[1] = 98.; assert df.iloc[1, 0] == 1 == v.iloc[1, 0] and idx[1] == 1\n"
            "shallow.loc[2, 'b'] = 5.; assert df.loc[2, 'b'] == 2 == v.loc[2, 'b']\n"
            "alone.loc[0, 's'] = 'new'; alone['c'] = 3; assert list(alone.s) == ['new', 'y']"
        ),
    ),
    "frames of every kind of column come back": (
        (
            "import numpy as np, pandas as pd\n"
            "df = pd.DataFrame({'i': pd.array([1, None], dtype='Int64'), 'c': pd.Categorical(['a', 'b']),\n"
            " 't': pd.to_datetime(['2020-01-01', None]).tz_localize('UTC'), 'o': [[1], {'x': 2}],\n"
            " 's': pd.array(['p', None], dtype='string'), 'b': [True, False]},\n"
            " index=pd.MultiIndex.from_tuples([(1, 'x'), (2, 'y')], names=['m', 'n']))\n"
            "df.attrs['k'] = 1; same = df.copy()"
        ),
        (
            "import pandas as pd; pd.testing.assert_frame_equal(df, same); assert df.attrs == {'k': 1}\n"
            "df.loc[(1, 'x'), 'i'] = 5; assert same.loc[(1, 'x'), 'i'] == 1"
        ),
    ),
    "a fitted model predicts the same": (
        (
            "import numpy as np\nfrom sklearn.pipeline import make_pipeline\n"
            "from sklearn.preprocessing import StandardScaler\n"
            "from sklearn.ensemble import RandomForestRegressor\n"
            "X = np.random.default_rng(0).normal(size=(200, 4)); y = X[:, 0] * 3\n"
            "model = make_pipeline(StandardScaler(), RandomForestRegressor(5, random_state=1)).fit(X, y)\n"
            "expected = model.predict(X)"
        ),
        "assert (model.predict(X) == expected).all()",
    ),
    "a generator object of NumPy goes on where it was": (
        (
            "import numpy as np, random\nrng = np.random.default_rng(1); rng.random(3)\n"
            "import copy; expected = copy.deepcopy(rng).random(); r = random.Random(3)\n"
            "e2 = copy.deepcopy(r).random()"
        ),
        "assert rng.random() == expected and r.random() == e2",
    ),
}


def capture(source: str, folder: Path) -> Checkpoint:
    ns: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, "<cell>", "exec", dont_inherit=True), ns)
    made = Capture(Folder(folder), globals=ns)
    made.checkpoint(user_names(ns))
    return made.current


@pytest.mark.parametrize("law", CASES)
def test_in_a_fresh_namespace(law: str, tmp_path: Path) -> None:
    source, check = CASES[law]
    checkpoint = capture(source, tmp_path)
    bad = {n: v.reason for n, v in checkpoint.variables.items() if v.reason}
    assert not bad
    ns: dict[str, Any] = {"__name__": "__main__"}
    report = restore(checkpoint, ns, Folder(tmp_path))
    assert not report.failed
    exec(compile(check, "<check>", "exec", dont_inherit=True), ns)


@pytest.mark.parametrize("law", CASES)
def test_in_another_process_with_another_hash_seed(law: str, tmp_path: Path) -> None:
    source, check = CASES[law]
    checkpoint = capture(source, tmp_path)
    (tmp_path / "checkpoint").write_bytes(msgspec.json.encode(checkpoint))
    (tmp_path / "check").write_text(check)
    env = {**os.environ, "PYTHONHASHSEED": "4242"}
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("law", CASES)
def test_a_restored_namespace_is_adopted_without_a_change(law: str, tmp_path: Path) -> None:
    source, _ = CASES[law]
    checkpoint = capture(source, tmp_path)
    ns: dict[str, Any] = {"__name__": "__main__"}
    report = restore(checkpoint, ns, Folder(tmp_path))
    again = Capture(Folder(tmp_path), globals=ns)
    again.adopt(checkpoint, user_names(ns), report.definitions)
    delta = again.checkpoint(user_names(ns))
    assert delta.written == ()
    assert delta.variables == {}
    assert delta.components == {}


def test_only_the_wanted_names_are_placed_and_skipped_ones_left_alone(tmp_path: Path) -> None:
    checkpoint = capture("a = 1; b = [2]; c = [3]; g = (i for i in ())", tmp_path)
    ns: dict[str, Any] = {"c": "mine"}
    report = restore(checkpoint, ns, Folder(tmp_path), names=["b", "c", "g"], skip=["c"])
    assert report.restored == ("b",)
    assert list(report.not_stored) == ["g"]
    assert ns == {"b": [2], "c": "mine"}


def test_a_missing_object_names_itself_and_the_variables_and_stops_nothing_else(
    tmp_path: Path,
) -> None:
    checkpoint = capture("a = [1]; b = a; c = [3]", tmp_path)
    component = checkpoint.components[checkpoint.variables["a"].component or ""]
    (tmp_path / component.stream.digest).unlink()
    ns: dict[str, Any] = {}
    report = restore(checkpoint, ns, Folder(tmp_path))
    assert set(report.failed) == {"a", "b"}
    assert component.stream.digest in report.failed["a"]
    assert "`a`, `b`" in report.failed["a"]
    assert ns == {"c": [3]}


def test_another_major_of_a_package_or_another_python_is_told(tmp_path: Path) -> None:
    checkpoint = capture("import pandas as pd\ndf = pd.DataFrame({'a': [1]}); x = 1", tmp_path)
    current = {"pandas": "999.0", "numpy": sys.modules["numpy"].__version__}
    found = incompatibilities(checkpoint, "3.11.7", current, stored_python="3.12.1")
    assert found[0].startswith("stored under Python 3.12.1")
    assert any(line.startswith("df: stored with pandas") and "999.0" in line for line in found)
    assert incompatibilities(checkpoint, "3.11.7", current, names=["x"]) == []
