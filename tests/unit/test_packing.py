"""What repeats is stored in less room, what does not is left alone; nothing comes back wrong."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellrail_state.errors import ObjectDamaged, StateError
from cellrail_state.objects import PART, PARTED, Objects
from cellrail_state.packing import pack, unpack

NOISE = random.Random(3).randbytes(PART)


@pytest.mark.parametrize(
    "data",
    [bytes(PART), b"north south " * 10_000, bytes(PARTED * 2 + 1), b"ab" * PARTED,
     NOISE + bytes(PART) + NOISE + bytes(PART)],
    ids=["zeros", "text", "zeros in parts", "pairs in parts", "some parts repeat"],
)  # fmt: skip
def test_repetitions_take_a_fifth_of_their_room_or_less(data, tmp_path):
    objects = Objects(tmp_path)
    ref = objects.put(data)

    assert (ref.size, objects.get(ref)) == (len(data), data)
    assert bytes(objects.buffer(ref)) == data
    assert objects.contains(ref)
    stored = sum(part.stored for part in ref.parts or (ref,))
    noise = data.count(NOISE) * len(NOISE)
    assert objects.size() <= stored <= noise + 0.2 * (len(data) - noise)
    assert Objects(tmp_path).put(data) == ref


@pytest.mark.parametrize("data", [NOISE, b"x" * 10_000, NOISE[:20_000]])
def test_what_does_not_repeat_or_is_short_is_stored_as_it_is(data, tmp_path):
    assert pack(memoryview(data)) is None
    assert not Objects(tmp_path).put(data).packed


def test_a_changed_byte_of_a_compressed_object_is_noticed(tmp_path):
    objects = Objects(tmp_path)
    chance = random.Random(1)
    data = b"".join(chance.randbytes(50) * 80 for _ in range(500))
    ref = objects.put(data)
    assert ref.packed
    assert objects.contains(ref)
    path = next(path for path in objects.files() if path.stat().st_size == ref.packed)
    stored = bytearray(path.read_bytes())
    stored[100] ^= 1
    path.write_bytes(stored)

    with pytest.raises(ObjectDamaged):
        objects.get(ref)
    os.truncate(path, 50)
    with pytest.raises(ObjectDamaged):
        objects.buffer(ref)
    assert not objects.contains(ref)


@given(st.binary(min_size=1, max_size=200), st.integers(1, 2000))
def test_what_was_packed_comes_back(data, times):
    whole = memoryview(data * times)
    packed = pack(whole)

    if packed is not None:
        assert unpack(packed, whole.nbytes) == whole
        for wrong in (whole.nbytes - 1, whole.nbytes + 1):
            with pytest.raises(StateError):
                unpack(packed, wrong)


@given(st.binary(max_size=300))
def test_what_nobody_packed_is_refused(data):
    with pytest.raises(StateError):
        unpack(data, 1000)
