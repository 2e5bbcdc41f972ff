"""Compression where it pays: only of bytes that a disk would take longer to write as they are.

Numbers seldom do: Zstandard packs a column of them at 100 to 300 MB/s, no faster than a disk takes
them. What does are long repetitions: constant and sparse columns, zeros, repeated text, which pack
at gigabytes a second. A few samples tell them apart.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from .errors import StateError

#: fewer bytes are never packed
_LEAST = 64 << 10
_SAMPLE, _SAMPLES = 4 << 10, 3
#: a level at which only long repetitions are found, at over a gigabyte a second
_QUICK, _LEVEL = -50, 1
#: what a sample, and then the whole, may take of its length
_WORTH = 0.2


def _zstd() -> Any:
    """The standard library's module from Python 3.14 on, its backport before."""
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    return importlib.import_module(name)


def ready() -> None:
    """Import what compresses, in a process whose forks will."""
    _zstd()


def pack(view: memoryview) -> bytes | None:
    """The bytes compressed; None where that does not pay."""
    if view.nbytes < _LEAST or not _repeats(view):
        return None
    packed: bytes = _zstd().compress(view, _LEVEL)
    return packed if len(packed) <= _WORTH * view.nbytes else None


def _repeats(view: memoryview) -> bool:
    last = view.nbytes - _SAMPLE
    starts = [last * number // (_SAMPLES - 1) for number in range(_SAMPLES)]
    # each by itself: what repeats only from one to the next is no sign
    quick = _zstd().compress
    sizes = [len(quick(view[start : start + _SAMPLE], _QUICK)) for start in starts]
    return max(sizes) <= _WORTH * _SAMPLE


def unpack(data: bytes | bytearray | memoryview, size: int) -> bytes:
    """The bytes that were packed.

    Args:
        data: what `pack` made.
        size: how many bytes it must give.

    Raises:
        StateError: it is nothing that `pack` made, or gives another number of bytes.
    """
    library = _zstd()
    try:
        # no more than that, whatever the data promise
        unpacked: bytes = library.ZstdDecompressor().decompress(data, max_length=size + 1)
    except library.ZstdError as error:
        message = f"packed bytes are damaged: {error}"
        raise StateError(message) from error
    if len(unpacked) != size:
        message = f"packed bytes give {len(unpacked)} bytes instead of {size}"
        raise StateError(message)
    return unpacked
