"""Laws of sameness: equal bytes, or equal values of equal classes; parts of ambient states."""

# ruff: noqa: E501

from __future__ import annotations

from typing import Any

import pytest

from cellrail_state import ambient_parts
from cellrail_state.capture import Capture
from cellrail_state.equality import differs
from cellrail_state.model import Checkpoint
from cellrail_state.namespace import user_names
from cellrail_state.sameness import Sameness
from memory import Memory


def _checkpoint(store: Memory, source: str, *, after: int = 0) -> Checkpoint:
    """A namespace of its own, whose definitions have keys of their own."""
    space: dict[str, Any] = {"__name__": "__main__"}
    capture = Capture(store, globals=space)
    names = ("P", "f", "C", "<lambda>", "E")
    capture.reserve([f"{name}#{after}" for name in names] if after else [])
    exec(compile(source, "<cell>", "exec", dont_inherit=True), space)
    capture.checkpoint(user_names(space))
    return capture.current


_CLASS = "class P:\n    k = {k}\n    def m(self):\n        return {m}\np = P()"
_ARROW = "import pyarrow as pa\na = pa.array(['a', 'bb'] * 40_000)"
_BITMAP = "\na = pa.Array.from_buffers(a.type, len(a), [pa.py_buffer(b'\\x{}' * 10_000), *a.buffers()[1:]])"
PAIRS = {
    "equal strings, one object or two": ("s = ['ab', 'ab']", "a = 'ab'\ns = [a, 'a' + str('b')]\ndel a", "s", True),
    "other strings": ("s = ['ab', 'ab']", "s = ['ab', 'ac']", "s", False),
    "a function with the same code": ("def f(x):\n    return x + 1", "\n\ndef f(x):\n    return x + 1", "f", True),
    "a function with another constant": ("def f(x):\n    return x + 1", "def f(x):\n    return x + 2", "f", False),
    "1 and True": ("def f():\n    return 1", "def f():\n    return True", "f", False),
    "other defaults": ("def f(x=1):\n    return x", "def f(x=2):\n    return x", "f", False),
    "an instance of the same class": (_CLASS.format(k=1, m=1), _CLASS.format(k=1, m=1), "p", True),
    "another method": (_CLASS.format(k=1, m=1), _CLASS.format(k=1, m=2), "p", False),
    "another attribute of the class": (_CLASS.format(k=1, m=1), _CLASS.format(k=2, m=1), "p", False),
    "another base": ("class P: a = 1\nclass C(P): pass\nc = C()", "class P: a = 2\nclass C(P): pass\nc = C()", "c", False),
    "a property": ("class P:\n    @property\n    def x(self): return 1\np = P()", "class P:\n    @property\n    def x(self): return 2\np = P()", "p", False),
    "an enum": ("import enum\nclass E(enum.Enum):\n    A = 1\ne = E.A", "import enum\nclass E(enum.Enum):\n    A = 2\ne = E.A", "e", False),
    "a dataclass": ("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int = 1\np = P()", "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int = 1\np = P()", "p", True),
    "a lambda in a list": ("l = [lambda: 1]", "l = [lambda: 2]", "l", False),
    "shared with another name": ("a = [1]\nb = a", "a = [1]\nb = [1]", "a", False),
    "what cannot be stored": ("import threading\na = threading.Lock()", "import threading\na = threading.Lock()", "a", True),
    "gone": ("a = 1", "b = 1", "a", False),
    "an Arrow column with a bitmap of its nulls": (_ARROW, _ARROW + _BITMAP.format("ff"), "a", True),
    "an Arrow column with a null": (_ARROW, _ARROW + _BITMAP.format("fe"), "a", False),
}  # fmt: skip


@pytest.mark.parametrize("case", PAIRS)
def test_names_are_the_same_where_values_and_classes_are(case: str) -> None:
    left, right, name, expected = PAIRS[case]
    store = Memory()
    a, b = _checkpoint(store, left), _checkpoint(store, right, after=9)

    assert Sameness(store).same(name, a, b) is expected
    assert Sameness(store).same(name, a, a)


def test_code_is_compared_wherever_constants_and_names_differ() -> None:
    def made(source: str) -> Any:
        space: dict[str, Any] = {"__name__": "__main__"}
        exec(source, space)
        return space["f"]

    assert not differs(made("def f(): return 1"), made("\n\ndef f(): return 1"))
    assert differs(made("def f(): return 1"), made("def f(): return 2"))
    assert differs(made("def f(): return a"), made("def f(): return b"))
    assert differs(made("def f(): return lambda: 1"), made("def f(): return lambda: 2"))


BASE: dict[str, Any] = {
    "cwd": "/a", "environment": {"X": "1"}, "modules": ["numpy"], "warnings": [],
    "logging": {"": [30, False, True]}, "generators": {"random": {"state": "s", "gauss": None}},
}  # fmt: skip


def _with(**changes: Any) -> dict[str, Any]:
    return {**BASE, **changes}


def test_ambient_states_are_merged_part_by_part() -> None:
    now = _with(cwd="/b", modules=["numpy", "mine"])
    after = _with(environment={"X": "2", "Y": "3"}, modules=["numpy", "theirs"])

    made = ambient_parts.merged(now, BASE, after)

    assert made["cwd"] == "/b"
    assert made["environment"] == {"X": "2", "Y": "3"}
    assert made["modules"] == ["numpy", "mine", "theirs"]
    assert not ambient_parts.conflict(now, BASE, after)
    assert ambient_parts.conflict(_with(cwd="/b"), BASE, _with(cwd="/c")) == (
        "the working directory"
    )


def test_what_an_import_brings_is_no_difference() -> None:
    brought = _with(
        modules=["numpy", "sklearn.base"], logging={**BASE["logging"], "sklearn": [10, False, True]},
        warnings=[["always", None, "builtins:Warning", {"pattern": "^sklearn", "flags": 0}, 0]],
    )  # fmt: skip

    assert not ambient_parts.difference(brought, BASE)
    assert "MODE" in ambient_parts.difference(_with(environment={"MODE": "x"}), BASE)
    assert ambient_parts.difference(_with(logging={"": [10, False, True]}), BASE)


def test_generators_count_for_those_that_draw() -> None:
    drawn = _with(generators={"random": {"state": "t", "gauss": None}})

    assert not ambient_parts.difference(drawn, BASE)
    assert ambient_parts.generators_moved(BASE, drawn) == {"random"}
    assert ambient_parts.generators_that_differ(drawn, BASE) == {"random"}
    # a library that was imported meanwhile
    first = _with(generators={**BASE["generators"], "numpy": {"state": "n"}})
    assert ambient_parts.generators_moved(BASE, first) == set()
