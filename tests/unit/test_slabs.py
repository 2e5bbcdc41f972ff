"""Laws of slabs: a long flat container comes back as it was, and of it only slabs that changed are
pickled and written; what is not flat is never cut; limits count, whatever is cut.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

from cellrail_state import slabs
from cellrail_state.capture import Capture, Limits
from cellrail_state.equality import differs
from cellrail_state.errors import CannotRestore
from cellrail_state.loading import from_slabs
from cellrail_state.namespace import user_names
from cellrail_state.restore import restore
from cellrail_state.testing import MemoryObjects

N = 1000


@pytest.fixture(autouse=True)
def short() -> Iterator[None]:
    """A hundred items are many."""
    with mock.patch.multiple(slabs, LONG=100, SLAB=64):
        yield


def cut(value: object, before: slabs.Slabs | None = None) -> slabs.Slabs | None:
    return slabs.cut(value, before, lambda size: None)


def again(found: slabs.Slabs) -> Any:
    return from_slabs(found.kind.__name__, *found.slabs)


FLAT = {
    "tuples": [(i, f"row {i}", i / 7) for i in range(N)],
    "texts and nothing": ["a", None, "b", True] * N,
    "bytes": [bytes([i % 256]) * i for i in range(N)],
    "by number": {i: (i, "x") for i in range(N)},
    "by tuple": {(i, str(i)): -i for i in range(N, 0, -1)},
}


@pytest.mark.parametrize("value", FLAT.values(), ids=FLAT)
def test_a_long_flat_container_comes_back_as_it_was(value):
    found = cut(value)

    assert found is not None
    back = again(found)
    assert not differs([value], [back])
    assert list(back) == list(value)


@pytest.mark.parametrize(
    "value",
    [
        [1] * 100,
        [*range(N), []],
        [(i, [i]) for i in range(N)],
        [((i,), 1) for i in range(N)],
        {i: {} for i in range(N)},
        tuple(range(N)),
        set(range(N)),
        type("Own", (list,), {})(range(N)),
        "x" * N,
    ],
    ids=range(9),
)
def test_what_is_short_or_not_flat_is_not_cut(value):
    assert cut(value) is None


def test_only_slabs_with_other_items_are_pickled_again():
    rows = [(i, f"row {i}") for i in range(N)]
    first = cut(rows)
    rows[70] = (70, "other")
    rows.append((N, "last"))

    second = cut(rows, first)

    kept = [a is b for a, b in zip(first.slabs, second.slabs, strict=True)]
    assert kept == [place not in {1, N // 64} for place in range(len(kept))]
    assert again(second) == rows
    rows[3] = [3]
    assert cut(rows, second) is None


def test_where_it_grows_shrinks_or_becomes_a_dict_it_is_still_right():
    value: Any = list(range(N))
    found = cut(value)
    for change in (lambda v: v[:500], lambda v: v * 3, lambda v: v[1:], dict.fromkeys, list):
        value = change(value)
        found = cut(value, found)
        assert again(found) == value


def test_slabs_beyond_what_may_be_kept_are_let_go():
    found = cut([f"text {i}" for i in range(N)])
    assert found.kept is found
    with mock.patch.object(slabs, "KEPT", 1000):
        assert found.kept.slabs == ()
        assert cut(list(found.columns[0]), found.kept).slabs == found.slabs


def test_a_slab_that_names_something_is_refused():
    with pytest.raises(CannotRestore, match=r"names builtins\.len"):
        from_slabs("list", pickle.dumps(([len],), 5))


class Book:
    """Cells run in one namespace, captured after each."""

    def __init__(self, **limits: Any) -> None:
        self.ns: dict[str, Any] = {"__name__": "__main__"}
        self.objects = MemoryObjects()
        self.capture = Capture(self.objects, globals=self.ns, limits=Limits(**limits))

    def cell(self, source: str) -> Any:
        exec(source, self.ns)
        return self.capture.checkpoint(user_names(self.ns))

    def assert_comes_back(self) -> None:
        back: dict[str, Any] = {"__name__": "__main__"}
        assert not restore(self.capture.current, back, self.objects).failed
        live, found = user_names(self.ns), user_names(back)
        assert sorted(live) == sorted(found)
        assert not differs([live[n] for n in sorted(live)], [found[n] for n in sorted(live)])


def test_a_change_writes_its_slab_and_no_change_writes_nothing():
    book = Book()
    whole = book.cell("rows = [(i, 'row %d' % i * 20, i / 7) for i in range(5000)]").stored_bytes
    assert book.cell("rows[7] = (7, 'other', 0.5)").stored_bytes < whole / 20
    assert book.cell("rows = rows[:]").stored_bytes == 0
    assert book.cell("pass").written == ()
    book.assert_comes_back()


@pytest.mark.parametrize(
    "source",
    ["other = rows", "other = {'rows': rows}", "def other(): return held\nheld = rows",
     "rows.append([])", "rows.append(rows)", "rows.clear()", "rows[:] = map(str, rows)"],
)  # fmt: skip
def test_a_long_container_may_be_shared_or_cease_to_be_flat_and_long(source):
    book = Book()
    book.cell("rows = list(range(1000))")
    book.cell(source)
    book.assert_comes_back()
    book.cell("rows.append(5)")
    book.assert_comes_back()
    assert book.cell("pass").written == ()


def test_a_restored_container_is_as_it_was_until_it_changes():
    book = Book()
    book.cell("rows = [(i, 'row %d' % i) for i in range(20_000)]; table = dict(rows)")
    back = Book()
    back.objects, back.ns = book.objects, {"__name__": "__main__"}
    back.capture = Capture(back.objects, globals=back.ns)
    assert not restore(book.capture.current, back.ns, back.objects).failed
    back.capture.adopt(book.capture.current, user_names(back.ns))

    assert back.cell("pass").written == ()
    assert back.cell("rows[5] = (5, 'row 5!')").written == ("rows",)
    assert back.cell("table[5] = 'row 5!'").written == ("table",)
    back.assert_comes_back()


def test_limits_count_what_is_cut():
    book = Book(max_value=10_000)
    delta = book.cell("rows = list(range(10_000)); few = list(range(200))")
    assert {n: str(v.verdict) for n, v in delta.variables.items()} == {
        "rows": "lost", "few": "stored",
    }  # fmt: skip
    assert "max_value" in delta.variables["rows"].reason
