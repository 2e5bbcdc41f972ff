"""A store of objects for one test: a dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from blake3 import blake3

from cellrail_state.model import ObjectRef


class Memory:
    """Every object is one of its own, however small."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put(self, data: Any) -> ObjectRef:
        """Keep bytes."""
        raw = bytes(data)
        digest = blake3(raw).hexdigest()
        self.objects[digest] = raw
        return ObjectRef(digest=digest, size=len(raw))

    def put_all(self, parts: Sequence[Any]) -> list[ObjectRef]:
        """Keep several."""
        return [self.put(data) for data in parts]

    def get(self, ref: ObjectRef) -> bytes:
        """The bytes."""
        return self.objects[ref.digest]

    def buffer(self, ref: ObjectRef) -> bytearray:
        """The bytes in memory of their own."""
        return bytearray(self.objects[ref.digest])
