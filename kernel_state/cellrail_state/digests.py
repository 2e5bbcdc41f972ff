"""Digests that tell change within a process: XXH3 of streams and buffers, each buffer hashed once.

What leaves the process bears cryptographic addresses (see `objects`).
"""

from __future__ import annotations

import io
import pickletools
import re
import sys
from collections.abc import Iterable

from blake3 import blake3
from xxhash import xxh3_128_digest


class Hasher:
    """Hashes, and remembers buffers by their place in memory."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[bytes, memoryview]] = {}

    @staticmethod
    def parts(*parts: bytes) -> bytes:
        """One cryptographic digest over parts, each with its length."""
        state = blake3()
        for part in parts:
            state.update(len(part).to_bytes(8, "little"))
            state.update(part)
        return state.digest()

    def buffer(self, data: memoryview) -> bytes:
        """The digest of a buffer."""
        np = sys.modules.get("numpy")
        place = None
        if np is not None:
            place = (np.frombuffer(data, np.uint8).__array_interface__["data"][0], data.nbytes)
            if (known := self._known.get(place)) is not None:
                return known[0]
        digest = xxh3_128_digest(data)
        if place is not None:
            self._known[place] = (digest, data)  # the view keeps the memory from being used anew
        return digest

    def content(self, stream: bytes, buffers: Iterable[memoryview]) -> bytes:
        """The digest of a component's content."""
        digests = [self.buffer(data) for data in buffers]
        return b"".join((xxh3_128_digest(stream), *digests))


#: where a kernel says that a cell's code is from: its process's number, and a hash of the source
_CELL = re.compile(r".*ipykernel_\d+[/\\](?=\d+\.py$)", re.DOTALL)


def digest_of_code(stream: bytes) -> str:
    """A digest of pickled definitions that is the same in each process.

    Args:
        stream: pickles one behind the other: code, methods, and what functions and classes hold.
    """
    state, rest = blake3(), io.BytesIO(stream)
    while rest.tell() < len(stream):
        for opcode, argument, _ in pickletools.genops(rest):
            if opcode.name != "FRAME":
                told = _CELL.sub("", argument) if isinstance(argument, str) else argument
                state.update(f"{opcode.name} {told!r}\n".encode("utf-8", "surrogatepass"))
    return state.hexdigest()
