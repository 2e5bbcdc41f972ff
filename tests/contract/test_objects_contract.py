"""What every implementation of `ObjectStore` does, files and double alike.

* what was put comes back, equal and of its own;
* equal bytes have one address; small ones travel in it;
* missing and damaged bytes are refused by name, never returned.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cellrail_state.errors import ObjectDamaged, ObjectMissing
from cellrail_state.model import ObjectRef
from cellrail_state.objects import INLINE_LIMIT, PARTED, Objects, ObjectStore
from cellrail_state.testing import MemoryObjects

LARGE = random.Random(0).randbytes(1 << 14)


class ObjectsContract:
    def make(self, folder: Path) -> Any:
        raise NotImplementedError

    def spoil(self, objects: Any, ref: ObjectRef, change: Callable[[bytes], bytes]) -> None:
        raise NotImplementedError

    @pytest.fixture
    def objects(self, tmp_path: Path) -> Any:
        return self.make(tmp_path / "objects")

    @pytest.mark.parametrize(
        "size", [0, 1, INLINE_LIMIT, INLINE_LIMIT + 1, 3_000_000, PARTED, 2 * PARTED + 9]
    )
    def test_what_was_put_comes_back(self, objects: ObjectStore, size: int) -> None:
        data = (bytes(range(251)) * (size // 251 + 1))[:size]
        ref = objects.put(data)
        objects.flush()
        assert ref.size == size
        assert objects.get(ref) == data
        assert bytes(objects.buffer(ref)) == data

    def test_a_buffer_can_be_written_without_changing_what_is_stored(self, objects: Any) -> None:
        for data in (b"small", LARGE):
            ref = objects.put(data)
            buffer = objects.buffer(ref)
            buffer[:] = b"\0" * len(buffer)
            assert objects.get(ref) == data

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_any_kind_of_buffer_has_the_address_of_its_bytes(self, objects: Any, kind: Any) -> None:
        assert objects.put(kind(LARGE)) == objects.put(LARGE)

    def test_a_buffer_of_wider_items_is_stored_as_its_bytes(self, objects: Any) -> None:
        wide = memoryview(LARGE).cast("d")
        assert objects.get(objects.put(wide)) == LARGE

    def test_large_bytes_are_parts_of_which_a_small_change_renews_one(self, objects: Any) -> None:
        data = bytearray(random.Random(1).randbytes(3 * PARTED))
        before = objects.put(data)
        data[PARTED] ^= 255
        after = objects.put(data)

        assert len(before.parts) == 6
        assert [a == b for a, b in zip(before.parts, after.parts, strict=True)].count(False) == 1
        assert objects.buffer(after) == data
        assert objects.get(before) != data
        assert objects.contains(after)

    def test_a_reference_whose_parts_were_swapped_is_refused(self, objects: Any) -> None:
        ref = objects.put(random.Random(2).randbytes(2 * PARTED))
        swapped = msgspec.structs.replace(ref, parts=(*ref.parts[1:], ref.parts[0]))
        for read in (objects.get, objects.buffer):
            with pytest.raises(ObjectDamaged):
                read(swapped)

    def test_small_bytes_travel_inside_the_reference(self, objects: Any) -> None:
        assert objects.put(b"x" * INLINE_LIMIT).inline is not None
        assert objects.put(b"x" * (INLINE_LIMIT + 1)).inline is None

    def test_it_knows_what_it_contains(self, objects: Any) -> None:
        ref = objects.put(LARGE)
        assert objects.contains(ref)
        assert not objects.contains(msgspec.structs.replace(ref, digest="0" * 64))

    def test_missing_bytes_are_named(self, objects: Any) -> None:
        ref = ObjectRef(digest="ab" * 32, size=5000)
        for read in (objects.get, objects.buffer):
            with pytest.raises(ObjectMissing, match="ab" * 32):
                read(ref)

    @pytest.mark.parametrize(
        "change", [lambda b: b[:-1] + b"?", lambda b: b[:-1], lambda b: b + b"?", lambda _: b""]
    )
    def test_damaged_bytes_are_refused(self, objects: Any, change: Any) -> None:
        ref = objects.put(LARGE)
        self.spoil(objects, ref, change)
        for read in (objects.get, objects.buffer):
            with pytest.raises(ObjectDamaged, match=ref.digest):
                read(ref)

    def test_inline_bytes_that_do_not_fit_their_address_are_refused(self, objects: Any) -> None:
        ref = msgspec.structs.replace(objects.put(b"abc"), inline=b"abd")
        for read in (objects.get, objects.buffer):
            with pytest.raises(ObjectDamaged):
                read(ref)


class TestFiles(ObjectsContract):
    def make(self, folder: Path) -> Objects:
        return Objects(folder)

    def spoil(self, objects: Objects, ref: ObjectRef, change: Callable[[bytes], bytes]) -> None:
        path = objects.path(ref.digest)
        path.write_bytes(change(path.read_bytes()))


class TestMemory(ObjectsContract):
    def make(self, folder: Path) -> MemoryObjects:
        return MemoryObjects()

    def spoil(
        self, objects: MemoryObjects, ref: ObjectRef, change: Callable[[bytes], bytes]
    ) -> None:
        objects.content[ref.digest] = change(objects.content[ref.digest])
