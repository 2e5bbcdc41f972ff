"""Laws of one component: what shares memory shares it again; what would be mis-pickled is refused.

Nothing is loaded by reference to the notebook; definitions are made once, in four passes.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import pickle
import sys
import tempfile
import types
import weakref
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cellrail_state import pickling
from cellrail_state.definitions import Definitions
from cellrail_state.errors import CannotRestore, CannotStore
from cellrail_state.loading import Context
from cellrail_state.pickling import dump, explain, load


def copy(*values: Any) -> list[Any]:
    made = dump(Definitions({}), values)
    buffers = [bytearray(b) for b in made.buffers]
    return load(made.sink.bytes(), buffers, Context(globals={}), count=len(values))


@pytest.mark.parametrize(
    "make",
    [
        lambda a: a[2:5],
        lambda a: a[::-1],
        lambda a: a.reshape(20, 50).T,
        lambda a: a.reshape(20, 50)[::2, ::-3],
        lambda a: a[3:4].reshape(()),
        lambda a: a.view("i4"),
        lambda a: np.lib.stride_tricks.sliding_window_view(a, 3),
        lambda a: np.lib.stride_tricks.as_strided(a, (3, 3), (8, 8)),
    ],
)
@pytest.mark.parametrize("view_first", [False, True])
def test_a_view_shares_its_owners_memory_again(make: Any, view_first: bool) -> None:
    a = np.arange(1000)
    v = make(a)
    if view_first:
        v2, a2 = copy(v, a)
    else:
        a2, v2 = copy(a, v)
    assert np.shares_memory(a2, v2)
    assert np.array_equal(v, v2)
    assert (v2.strides, v2.dtype, v2.flags.writeable) == (v.strides, v.dtype, v.flags.writeable)
    a[:], a2[:] = 7, 7
    assert np.array_equal(v, v2)


def test_views_survive_a_second_capture_of_what_was_restored() -> None:
    a = np.arange(1000)
    a2, v2 = copy(*copy(a, a[5:10]))
    a2[5] = -1
    assert v2[0] == -1


def test_field_views_of_structured_arrays_share_memory() -> None:
    a = np.zeros(500, dtype=[("x", "f8"), ("y", "i4")])
    a2, v2 = copy(a, a["y"])
    a2["y"] = 3
    assert (v2 == 3).all()


def test_views_of_object_arrays_share_their_elements() -> None:
    a = np.array([[1], "b", None, 4.5], dtype=object)
    a2, v2 = copy(a, a[::-2])
    a2[3] = "new"
    assert v2[0] == "new"
    assert list(v2) == ["new", "b"]


#: of NumPy 2; NumPy 1 has no such type
variable_length_strings = (
    [np.array(["a", "bb"], dtype=np.dtypes.StringDType())]
    if hasattr(np.dtypes, "StringDType")
    else []
)


@pytest.mark.parametrize(
    "a",
    [
        np.asfortranarray(np.arange(600.0).reshape(20, 30)),
        np.arange(600).reshape(2, 300).transpose().copy(order="K"),
        np.array("2020-01-01", dtype="M8[ns]"),
        np.array([1 + 2j, 3]),
        np.array(["a", "bcd"]),
        np.array([], dtype="f4").reshape(0, 3),
        np.array([b"x"], dtype="S5"),
        np.arange(6).astype(">i4"),
        np.array([True]),
        np.array([1, "a", None], dtype=object),
        *variable_length_strings,
    ],
    ids=str,
)
def test_arrays_of_every_kind_come_back_equal(a: Any) -> None:
    (b,) = copy(a)
    assert (b.dtype, b.shape, type(b)) == (a.dtype, a.shape, type(a))
    assert np.array_equal(a, b)
    assert b.nbytes == 0 or b.flags.writeable


def test_a_read_only_array_stays_so_and_a_writable_view_of_it_too() -> None:
    a = np.arange(1000)
    v = a[:10]
    a.flags.writeable = False
    a2, v2 = copy(a, v)
    assert not a2.flags.writeable
    assert v2.flags.writeable == v.flags.writeable


def test_masked_arrays_share_their_data() -> None:
    a = np.arange(500)
    m = np.ma.array(a, mask=a % 2 == 0, copy=False, fill_value=-9)
    a2, m2 = copy(a, m)
    a2[1] = 77
    assert m2[1] == 77
    assert m2.fill_value == -9
    assert (m2.mask == m.mask).all()


def test_array_subclasses_come_back() -> None:
    frame = pd.DataFrame({"a": [1]})
    with pytest.warns(PendingDeprecationWarning):
        a = np.matrix([[1, 2]])
    (b, _) = copy(a, frame)
    assert type(b) is np.matrix


def test_memory_views_show_their_owners_memory() -> None:
    raw = bytearray(range(24))
    grid = memoryview(raw).cast("i", [2, 3])
    part, fixed = memoryview(raw)[4:9], memoryview(raw).toreadonly()
    raw2, grid2, part2, fixed2 = copy(raw, grid, part, fixed)

    raw2[5] = 99
    assert part2[1] == 99
    assert fixed2[5] == 99
    assert fixed2.readonly
    assert grid2.shape == (2, 3)
    assert grid2.format == "i"
    assert len(part2) == 5
    part2[0] = 7
    assert raw2[4] == 7


def test_weak_references_point_to_what_came_along() -> None:
    target, gone = collections.Counter("a"), collections.Counter()
    alive, dead = weakref.ref(target), weakref.ref(gone)
    del gone
    target2, alive2, dead2 = copy(target, alive, dead)

    assert alive2() is target2
    assert dead2() is None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: (i for i in ()), "a generator"),
        (lambda: tempfile.TemporaryFile("w+"), "an open file"),  # noqa: SIM115
        (lambda: memoryview(b"xyz")[::2], "a memoryview"),
        (lambda: weakref.ref(Definitions, print), "a weak reference with a callback"),
        (lambda: types.ModuleType("made"), "cannot be imported"),
        (lambda: __import__("threading").Lock(), "a lock"),
        (lambda: __import__("sqlite3").connect(":memory:"), "a sqlite3.Connection"),
        (lambda: __import__("socket").socket(), "a socket"),
    ],
)
def test_what_cannot_be_copied_is_refused_in_words(make: Any, words: str) -> None:
    value = make()
    with pytest.raises(Exception) as caught:  # noqa: PT011
        copy([value])
    if hasattr(value, "close"):
        value.close()
    assert words in explain(caught.value)


def test_a_memory_map_is_refused(tmp_path: Any) -> None:
    a: Any = np.memmap(tmp_path / "m", dtype="u1", mode="w+", shape=10)
    with pytest.raises(CannotStore, match="memory-mapped"):
        copy(a)


def test_streams_in_memory_and_standard_streams_are_kept() -> None:
    text, out = copy(io.StringIO("abc"), sys.stdout)
    assert text.getvalue() == "abc"
    assert out is sys.stdout


def test_a_view_of_a_dict_stays_live() -> None:
    d = {"a": 1}
    d2, keys = copy(d, d.keys())
    d2["b"] = 2
    assert list(keys) == ["a", "b"]


def test_sentinels_keep_their_identity() -> None:
    assert copy(dataclasses.MISSING)[0] is dataclasses.MISSING


def test_nothing_is_loaded_by_reference_to_the_notebook() -> None:
    with pytest.raises(CannotRestore):
        load(b"c__main__\nx\n.", [], Context(globals={}), count=1)


def test_a_missing_definition_is_named() -> None:
    stream = pickle.dumps(None)
    assert load(stream, [], Context(globals={}), count=1) == [None]
    with pytest.raises(CannotRestore, match="Foo#1"):
        load(
            b"ccellrail_state.loading\ndefinition\n(VFoo#1\ntR.",
            [],
            Context(globals={}),
            count=1,
        )


def test_large_buffers_leave_the_stream_and_small_ones_stay() -> None:
    made = dump(Definitions({}), [np.zeros(10_000), np.zeros(3)])
    assert [b.nbytes for b in made.buffers] == [80_000]
    assert len(made.sink.bytes()) < 2_000


def test_a_sink_stops_a_value_that_is_too_large() -> None:
    sink = pickling.Sink(max_value=1000)
    with pytest.raises(pickling.OverLimit, match="max_value"):
        dump(Definitions({}), [np.zeros(10_000)], sink=sink)
