"""Keeps what a program can see of a NaN: which object it is.

`np.nan in values`, `table.get(np.nan)` and `x is np.nan` ask for the object, because no NaN equals
another. Pickle writes a float as its eight bytes, so a stream that holds a NaN among its floats is
made once more, slower, with each NaN as a persistent id: NumPy's and `math`'s own by name, any
other by its bytes and a number, so that one at several places of the stream stays one.
"""

# ruff: noqa: PLW0177 - which NaN it is, is the question

from __future__ import annotations

import math
import re
import struct
import sys

#: pickle's opcode for a float, and the exponent and first bits of those that are none; the
#: infinities have that exponent, too, and nothing behind it: plots are full of them
_IN_STREAM = re.compile(rb"G[\x7f\xff](?!\xf0\0{6})[\xf0-\xff]", re.DOTALL)


def may_hold_nans(stream: bytes) -> bool:
    """Whether a NaN may be among a stream's floats (its bytes may be anything else, too)."""
    return _IN_STREAM.search(stream) is not None


class Names:
    """Persistent ids of NaNs, for one stream."""

    def __init__(self) -> None:
        #: by address; the objects are kept, so that no address is used anew
        self._known: dict[int, tuple[float, str]] = {}
        #: whether one was met
        self.met = False

    def of(self, value: object) -> str | None:
        """The id of a NaN; None for anything else."""
        if type(value) is not float or value == value:  # noqa: PLR0124 - only a NaN is not itself
            return None
        self.met = True
        if value is math.nan:
            return "math"
        if value is getattr(sys.modules.get("numpy"), "nan", None):
            return "numpy"
        known = self._known.get(id(value))
        if known is None:
            text = f"{len(self._known)}:{struct.pack('>d', value).hex()}"
            known = self._known[id(value)] = (value, text)
        return known[1]


class Values:
    """The NaNs of one stream by their ids."""

    def __init__(self) -> None:
        self._made: dict[str, float] = {}

    def of(self, name: str) -> float:
        """The NaN with this id."""
        if name == "math":
            return math.nan
        if name == "numpy":
            import numpy as np

            return np.nan
        if name not in self._made:
            (self._made[name],) = struct.unpack(">d", bytes.fromhex(name.partition(":")[2]))
        return self._made[name]
