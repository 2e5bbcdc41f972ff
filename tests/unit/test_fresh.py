"""Laws of values that were just restored and not pickled since.

A plain value is known without being pickled; it counts as unchanged until it changes, whatever its
bytes are; each change is found; what the notebook has a say in is pickled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from cellrail_state.capture import Capture
from cellrail_state.fresh import Fresh
from cellrail_state.namespace import user_names
from cellrail_state.pieces import Pieces
from cellrail_state.restore import restore
from cellrail_state.testing import MemoryObjects

CLASSES = """
import dataclasses
@dataclasses.dataclass
class Trade:
    number: int
    tags: object
class Other(Trade):
    pass
class Own(Trade):
    def __getstate__(self):
        return dict(self.__dict__)
"""
N = 10_000
#: a large value, and a change of it
PLAIN = {
    "x = [Trade(i, [i]) for i in range(N)]": "x[7].tags.append(1)",
    "x = [Other(i, 'text') for i in range(N)]": "x[7].number = 0",
    "x = {i: Trade(i, None) for i in range(N)}": "x[7] = x[8]",
    "x = Trade(0, [[i] for i in range(N * 3)])": "x.tags[-1][0] = 5",
    "x = [(i, 'row %d' % i, i / 7) for i in range(N)]": "x[7] = (7, 'row', 1.0)",
    "x = {'row %d' % i: i for i in range(N)}": "x['row 7'] = 0",
    "x = [(i, 'row %d' % i, [i]) for i in range(N)]": "x[7][2].append(1)",
    # equal strings that are several before and one afterwards
    "x = [Trade(i, None) for i in range(N)]\n"
    "for i, t in enumerate(x): t.__dict__[''.join(['na', 'me'])] = i\n"
    "del i, t": "x[7].name = 'new'",
    # and some that are too short to make fewer bytes
    "x = [Trade(i, None) for i in range(N)]\n"
    "for i, t in enumerate(x): t.__dict__[''.join(['n', 'a'])] = i\n"
    "del i, t": "x[7].na = 'new'",
    # sets of texts, and of what is hashed by its address
    "x = [{'text %d' % i, 'a', i} for i in range(N)]": "x[7].add('b')",
    "class Key: pass\nx = [{Key(), Key(), Key()} for i in range(N)]": "x[7].pop()",
}
HOOKED = (
    "x = [Own(i, [i]) for i in range(N)]",
    "import decimal, fractions\nx = [fractions.Fraction(i, 7) for i in range(N)]",
    "x = [Trade(i, len) for i in range(N)] + [lambda: 1]",
)


class Again:
    """A captured namespace, restored as a lazy restart does it."""

    def __init__(self, source: str) -> None:
        objects = MemoryObjects()
        before: dict[str, Any] = {"__name__": "__main__", "N": N}
        self.run(CLASSES + source, before)
        first = Capture(objects, globals=before)
        first.checkpoint(user_names(before))
        assert not [n for n, v in first.current.variables.items() if v.reason]
        self.ns: dict[str, Any] = {"__name__": "__main__"}
        self.fresh: dict[str, Fresh] = {}
        others = first.current.variables.keys() - {"x"}
        report = restore(first.current, self.ns, objects, names=others)
        self.capture = Capture(objects, globals=self.ns)
        self.capture.adopt(first.current, user_names(self.ns), report.definitions)

        def take(values: Mapping[str, Any], known: Fresh | None) -> None:
            self.ns.update(values)
            self.fresh |= dict.fromkeys(values, known) if known is not None else {}
            self.capture.admit(values, known)

        report = restore(
            first.current, self.ns, objects, names=["x"], place={}, each=take,
            definitions=report.definitions, defined=True,
        )  # fmt: skip
        assert report.restored == ("x",)

    def run(self, source: str, ns: dict[str, Any]) -> None:
        exec(compile(source, "<cell>", "exec", dont_inherit=True), ns)

    def written(self, source: str = "", *, touched: set[str] | None = None) -> tuple[str, ...]:
        self.run(source, self.ns)
        delta = self.capture.checkpoint(user_names(self.ns), touched=touched)
        assert not delta.missed
        assert bool(delta.components) == bool(delta.written)
        return delta.written


@pytest.fixture
def pickled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the variables that were pickled."""
    found: list[str] = []
    add: Callable[..., None] = Pieces.add

    def spy(pieces: Pieces, name: str, value: object) -> None:
        found.append(name)
        add(pieces, name, value)

    monkeypatch.setattr(Pieces, "add", spy)
    return found


@pytest.mark.parametrize("source", PLAIN)
def test_a_plain_value_is_unchanged_until_it_changes(source: str, pickled: list[str]) -> None:
    again = Again(source)
    assert again.fresh.keys() == {"x"}
    assert pickled.count("x") == 1  # before it was restored

    assert again.written() == ()
    assert again.written() == ()
    assert again.written(PLAIN[source], touched={"x"}) == ("x",)
    assert again.written() == ()


@pytest.mark.parametrize("source", PLAIN)
def test_a_change_by_the_first_cell_is_found(source: str) -> None:
    assert Again(source).written(PLAIN[source], touched={"x"}) == ("x",)


@pytest.mark.parametrize("source", PLAIN)
def test_a_change_that_no_code_shows_is_told_as_missed(source: str) -> None:
    again = Again(source)
    again.run(PLAIN[source], again.ns)

    assert again.capture.missed(user_names(again.ns), {"N"}) == ("x",)


@pytest.mark.parametrize("source", HOOKED)
def test_what_the_notebook_or_a_library_has_a_say_in_is_pickled(
    source: str, pickled: list[str]
) -> None:
    again = Again(source)
    assert not again.fresh
    assert pickled.count("x") == 2
    assert again.written() == ()


def test_the_definitions_of_a_plain_value_are_known() -> None:
    again = Again("def use(): return y\nTrade.use = lambda self: use()\n"
                  "x = [Trade(i, [i]) for i in range(N)]\ny = 1")  # fmt: skip

    assert "y" in (again.capture.leads_to(user_names(again.ns), {"x"}) or ())


def test_what_is_stored_after_a_change_loads_back() -> None:
    again = Again("x = [Trade(i, [i]) for i in range(N)]")
    again.written("x[7].number = 'new'", touched={"x"})
    final: dict[str, Any] = {"__name__": "__main__"}

    assert not restore(again.capture.current, final, again.capture._objects).failed
    assert final["x"][7].number == "new"
    assert final["x"][8] == final["Trade"](8, [8])
