"""Laws of a capture.

Every name has a verdict; nothing the user's objects do ends it; only what changed is written, and
`written` names all that was bound or changed; secrets are never written; sharing is found.
"""

# ruff: noqa: E501

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from cellrail_state.capture import Capture, Limits
from cellrail_state.model import Verdict
from cellrail_state.namespace import user_names
from cellrail_state.restore import restore
from memory import Memory

TOKEN = "hunter2-hunter2"


class Session:
    """A notebook: cells run in one namespace, captured after each."""

    def __init__(self, **options: Any) -> None:
        self.ns: dict[str, Any] = {"__name__": "__main__"}
        self.store = Memory()
        self.capture = Capture(self.store, globals=self.ns, **options)

    def cell(self, source: str = "", **options: Any) -> Any:
        exec(compile(source, "<cell>", "exec", dont_inherit=True), self.ns)
        return self.capture.checkpoint(user_names(self.ns), **options)

    def fresh(self) -> dict[str, Any]:
        ns: dict[str, Any] = {"__name__": "__main__"}
        report = restore(self.capture.current, ns, self.store)
        assert not report.failed
        return ns

    def verdict(self, name: str) -> Verdict:
        return self.capture.current.variables[name].verdict

    def reason(self, name: str) -> str:
        return self.capture.current.variables[name].reason


@pytest.fixture
def session() -> Session:
    return Session()


def test_a_second_capture_of_the_same_namespace_is_empty(session: Session) -> None:
    session.cell("import numpy as np\na = [1]; b = {'x': a}; c = np.arange(9)\ndef f(): pass")
    delta = session.cell()
    assert (delta.components, delta.variables, delta.written) == ({}, {}, ())


def test_a_change_through_an_alias_is_seen_in_every_name_that_reaches_it(session: Session) -> None:
    session.cell("a = [1]; b = {'k': a}; c = (a,); other = [1]")
    delta = session.cell("a.append(2)")
    assert delta.written == ("a", "b", "c")
    assert session.fresh()["c"][0] == [1, 2]


def test_names_that_share_are_one_component_and_others_are_not(session: Session) -> None:
    session.cell("import numpy as np\na = [1]; b = [a]; c = [1]; x = np.arange(9); y = x[::2]")
    of = {n: v.component for n, v in session.capture.current.variables.items()}
    assert of["a"] == of["b"] != of["c"]
    assert of["x"] == of["y"]


def test_names_that_only_use_the_same_class_module_or_text_are_not_tied(session: Session) -> None:
    session.cell(
        "import numpy as np, pandas as pd, datetime, decimal\n"
        "class A: pass\n"
        "a = A(); b = A(); b.own = 1; a.t = b.t = 'text'; a.f = b.f = print; a.k = b.k = A; a.m = b.m = np\n"
        "t = datetime.datetime(2020, 1, 1); a.d = b.d = t; a.n = b.n = np.float64(3)\n"
        "p = pd.DataFrame({'s': ['x', 'y'], 'v': [1, 2]}); q = pd.DataFrame({'s': ['x'], 'v': [1]})\n"
        "u = np.arange(3); w = np.arange(4)"
    )
    of = {n: v.component for n, v in session.capture.current.variables.items()}
    for one, other in (("a", "b"), ("p", "q"), ("u", "w")):
        assert of[one] != of[other]


def test_sharing_that_ends_is_seen_though_no_value_changed(session: Session) -> None:
    session.cell("a = [1]; b = a")
    assert session.cell("b = [1]").written == ("b",)
    ns = session.fresh()
    assert ns["a"] is not ns["b"]


def test_deletion_is_told(session: Session) -> None:
    session.cell("a = 1; b = [2]")
    delta = session.cell("del a, b")
    assert delta.deleted == ("a", "b") == delta.written
    assert session.capture.current.variables == {}


def test_rebinding_to_an_equal_value_counts_as_written_but_writes_nothing(session: Session) -> None:
    session.cell("a = [1, 2]; keep = a")
    session.cell("keep = None")
    delta = session.cell("old = a; a = [1, 2]")
    assert "a" in delta.written
    assert session.cell("del old").stored_bytes == 0


def test_a_value_that_cannot_be_stored_is_rebuilt_with_a_reason_and_no_other_suffers(
    session: Session,
) -> None:
    session.cell("g = (i for i in ()); nested = [1, {'k': g}]; fine = [1]")
    assert session.verdict("g") is session.verdict("nested") is Verdict.REBUILT
    assert "generator" in session.reason("nested")
    assert session.verdict("fine") is Verdict.STORED
    assert session.cell().variables == {}
    assert session.cell("g = (i for i in ())").written == ("g",)


def test_sharing_with_a_value_that_is_not_stored_is_told(session: Session) -> None:
    session.cell("a = [1]; g = [a, (i for i in ())]")
    assert "`g`" in session.capture.current.variables["a"].not_covered


@pytest.mark.parametrize("error", ["ValueError('no')", "RecursionError()", "MemoryError()"])
def test_an_exception_of_the_users_own_code_is_a_reason(session: Session, error: str) -> None:
    session.cell(f"class Bad:\n    def __reduce__(self): raise {error}\nbad = Bad()\nok = 1")
    assert session.verdict("bad") is Verdict.REBUILT
    assert session.reason("bad")
    assert session.verdict("ok") is Verdict.STORED


def test_a_copy_that_does_not_load_is_found_out_at_once(session: Session) -> None:
    session.cell(
        "class Bad:\n    def __getstate__(self): return {'a': 1}\n"
        "    def __setstate__(self, s): raise ValueError('never')\nbad = Bad()"
    )
    assert "does not load" in session.reason("bad")
    assert session.verdict("Bad") is Verdict.STORED


def test_deep_nesting_is_stored_or_refused_but_never_fatal(session: Session) -> None:
    session.cell("a = []\nfor _ in range(1500): a = [a]\nb = []\nfor _ in range(100_000): b = [b]")
    assert session.verdict("a") is Verdict.STORED
    assert "nested" in session.reason("b")
    session.ns["b"] = None


@pytest.mark.parametrize(
    "source",
    [
        "x = ['{t}']",
        "import numpy as np\nx = np.array(['{t}'] * 900)",
        "import pandas as pd\nx = pd.DataFrame({{'a': ['{t}', 'b'] * 2000}})",
        "x = {{'deep': ['a {t} b']}}",
        "x = b'{t}'",
        "x = '{t}'",
    ],
)
def test_a_secret_is_never_written_nor_shown(source: str) -> None:
    session = Session(secrets=[TOKEN])
    session.cell(source.format(t=TOKEN) + "\nother = 'fine'")
    assert session.verdict("x") is Verdict.REBUILT
    assert session.reason("x") == "holds a secret"
    assert session.verdict("other") is Verdict.STORED
    assert session.cell().variables == {}
    for codec in ("utf-8", "utf-32-le"):
        assert not any(TOKEN.encode(codec) in raw for raw in session.store.objects.values())
    assert TOKEN[:8] not in repr(session.capture.current)


def test_a_secret_in_one_function_leaves_the_others_stored() -> None:
    session = Session(secrets=[TOKEN])
    session.cell(f"def bad(): return '{TOKEN}'\ndef good(): return 1")
    assert session.verdict("bad") is Verdict.REBUILT
    assert session.fresh()["good"]() == 1
    assert not any(TOKEN.encode() in raw for raw in session.store.objects.values())


def test_a_definition_that_cannot_be_stored_takes_only_what_needs_it_along(
    session: Session,
) -> None:
    session.cell(
        "import threading\nclass Bad:\n    lock = threading.Lock()\nx = Bad()\n"
        "class Good: pass\ny = Good()\ndef f(): return Bad"
    )
    assert session.verdict("Bad") is session.verdict("x") is Verdict.REBUILT
    assert "Bad" in session.reason("x")
    ns = session.fresh()
    assert type(ns["y"]) is ns["Good"]


def test_limits_give_lost_with_the_limit() -> None:
    session = Session(limits=Limits(max_value=10_000))
    session.cell("import numpy as np\nbig = np.zeros(10_000); small = [1]; text = ['x'] * 100_000")
    assert session.verdict("big") is Verdict.LOST
    assert "max_value" in session.reason("big")
    assert session.verdict("text") is Verdict.LOST
    assert session.verdict("small") is Verdict.STORED
    late = Session(limits=Limits(max_seconds=0.0))
    late.cell("a = [1]")
    assert "max_seconds" in late.reason("a")


def test_a_full_store_takes_nothing_more_but_definitions() -> None:
    session = Session(limits=Limits(room=5_000))
    session.cell("a = list(range(900))\ndef f(): return a")
    assert session.verdict("a") is Verdict.STORED
    session.cell("b = bytes(9_000)")  # what fills it is still stored
    session.cell("c = [1]\ndef g(): return 2\na.append(1)")
    assert session.verdict("b") is session.verdict("g") is Verdict.STORED
    assert session.verdict("c") is session.verdict("a") is Verdict.LOST
    assert "max_store" in session.reason("c")


def test_outputs_names_what_is_stored_and_leaves_older_values_alone(session: Session) -> None:
    session.cell("old = [0]")
    session.cell("a = [1]; b = [2]", only=["a"])
    assert session.verdict("a") is session.verdict("old") is Verdict.STORED
    assert session.reason("b") == "not in --outputs"
    assert session.verdict("b") is Verdict.LOST
    session.cell("c = 1")
    assert session.verdict("b") is Verdict.LOST
    session.cell("b.append(1)")
    assert session.verdict("b") is Verdict.STORED


def test_a_changed_class_or_closure_is_told_under_its_name(session: Session) -> None:
    session.cell(
        "class A: n = 0\n"
        "def pair():\n    n = 0\n    def inc():\n        nonlocal n\n        n += 1\n        return n\n"
        "    return inc\n"
        "inc = pair(); other = pair(); a = A()"
    )
    assert session.cell("A.n = 1").written == ("A",)
    assert session.cell("inc()").written == ("inc",)
    assert session.cell("def inc(): return 5").written == ("inc",)


def test_an_lru_cache_says_that_its_contents_are_not_kept(session: Session) -> None:
    session.cell("import functools\n@functools.lru_cache\ndef f(x): return x\nf(1)")
    assert "lru_cache" in session.capture.current.variables["f"].not_covered
    ns = session.fresh()
    assert ns["f"].cache_info().currsize == 0
    assert ns["f"](2) == 2


def test_adding_a_column_writes_about_that_column(session: Session) -> None:
    session.cell(
        "import numpy as np, pandas as pd\n"
        "df = pd.DataFrame({'a': np.arange(50_000.), 'b': np.arange(50_000)})"
    )
    delta = session.cell("df['new'] = df['a'] * 2")
    assert 400_000 <= delta.stored_bytes < 420_000


def test_packages_of_a_component_are_recorded(session: Session) -> None:
    session.cell("import pandas as pd\ndf = pd.DataFrame({'a': [1]}); x = [1]")
    current = session.capture.current
    packages = current.components[current.variables["df"].component or ""].packages
    assert packages["pandas"] == pd.__version__
    assert packages["numpy"] == np.__version__
    assert current.components[current.variables["x"].component or ""].packages == {}


def test_equal_content_has_equal_ids(session: Session) -> None:
    first, other = Session(), Session()
    source = "import numpy as np\na = {'k': [1, np.arange(3000)]}\ndef f(): return a\nb = f"
    first.cell(source)
    other.cell(source)
    assert first.capture.current == other.capture.current


ADOPTED = """
import numpy as np, pandas as pd, functools, dataclasses, enum
a = [1, 'x']; b = {'k': a}; x = np.arange(5000.); y = x[::2]
df = pd.DataFrame({'v': x, 's': ['p'] * 5000}); df2 = df[:]; col = df['v']
@dataclasses.dataclass
class P:
    n: int
    items: list = dataclasses.field(default_factory=list)
p = P(3)
class E(enum.Enum):
    A = 1
e = E.A
def f(z=a): return p
g = (i for i in ())
text = 'word'
"""


def test_after_a_restore_nothing_counts_as_changed_until_it_changes(session: Session) -> None:
    session.cell(ADOPTED)
    checkpoint = session.capture.current
    ns: dict[str, Any] = {"__name__": "__main__"}
    report = restore(checkpoint, ns, session.store)
    again = Capture(session.store, globals=ns)
    again.adopt(checkpoint, user_names(ns), report.definitions)
    delta = again.checkpoint(user_names(ns))
    assert (delta.components, delta.variables, delta.written, delta.deleted) == ({}, {}, (), ())
    ns["a"].append(3)
    ns["new"] = ns["P"](4)
    assert again.checkpoint(user_names(ns)).written == ("a", "b", "f", "new")
    final: dict[str, Any] = {"__name__": "__main__"}
    assert not restore(again.current, final, session.store).failed
    assert final["b"]["k"] is final["a"] is final["f"].__defaults__[0]
    assert type(final["new"]) is final["P"] is type(final["p"])


def test_definitions_of_values_that_were_not_restored_stay_in_the_store(session: Session) -> None:
    session.cell("class A: pass\nclass B: pass\na = A(); b = B()")
    checkpoint = session.capture.current
    ns: dict[str, Any] = {"__name__": "__main__"}
    report = restore(checkpoint, ns, session.store, names=["a", "A"])
    again = Capture(session.store, globals=ns)
    again.adopt(checkpoint, user_names(ns), report.definitions)
    exec("class C: pass\nc = C()", ns)
    again.checkpoint(user_names(ns))
    final: dict[str, Any] = {"__name__": "__main__"}
    assert not restore(again.current, final, session.store).failed
    assert type(final["b"]) is final["B"]
    assert type(final["c"]) is final["C"]


def test_names_that_are_skipped_keep_working_after_many_cells(session: Session) -> None:
    for n in range(30):
        session.cell(f"v{n} = {n}; l{n} = [{n}]\ndef f{n}(): return v{n}")
    ns = session.fresh()
    assert [ns[f"f{n}"]() for n in range(30)] == list(range(30))


def test_a_capture_keeps_nothing_alive(session: Session) -> None:
    import gc
    import weakref

    session.cell("class C: pass\nc = C(); c.me = [C()]; d = [c]")
    ref = weakref.ref(session.ns["c"])
    gc.disable()
    try:
        session.cell("c = None; d = None")
        assert ref() is None
    finally:
        gc.enable()


def test_nothing_is_collected_while_a_namespace_is_looked_at(session: Session) -> None:
    """What pickling remembers of a hundred thousand objects is no garbage."""
    import gc

    session.cell("many = {n: [str(n)] for n in range(20_000)}; box = [many]")
    session.capture.checkpoint(user_names(session.ns), touched=(), audit=False)
    session.ns["many"][5].append("unseen")
    collected = []
    gc.callbacks.append(lambda phase, told: collected.append(phase))
    try:
        assert session.capture.look_before(user_names(session.ns), {"box"}) == ("box", "many")
    finally:
        gc.callbacks.pop()
    assert not collected
    assert gc.isenabled()
