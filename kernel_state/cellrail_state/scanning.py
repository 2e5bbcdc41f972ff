"""Finding a run's secrets in bytes that are about to be written, and hiding them in text."""

from __future__ import annotations

import base64
import pickle
from collections.abc import Sequence
from typing import Any

_MINIMUM = 8
_CHUNK = 1 << 24


class Scanner:
    """Knows the secrets of a run in the encodings that strings are held in.

    Found are exact occurrences: UTF-8 (pickle, Arrow), UTF-16 and UTF-32 (NumPy), and for a secret
    that is a whole number pickle's and NumPy's integers; and base64 and hex, as in the header of a
    request, wherever in the encoded text it stands. A secret that is compressed, split or otherwise
    derived is not found.
    """

    def __init__(self, secrets: Sequence[str | bytes] = ()) -> None:
        self._texts: list[str] = []
        self._needles: list[bytes] = []
        self.learn(secrets)

    def learn(self, secrets: Sequence[str | bytes]) -> None:
        """Know more secrets from now on."""
        needles = set(self._needles)
        for secret in secrets:
            if len(secret) < _MINIMUM:
                continue
            raw = secret if isinstance(secret, bytes) else secret.encode("utf-8", "surrogatepass")
            needles |= _encoded(raw)
            if isinstance(secret, bytes):
                needles.add(secret)
                continue
            self._texts.append(secret)
            for codec in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
                needles.add(secret.encode(codec, "surrogatepass"))
            if secret.lstrip("-").isdecimal():
                needles |= _number(int(secret))
        self._needles = sorted(needles, key=len)

    def __bool__(self) -> bool:
        return bool(self._needles)

    def hits(self, data: Any) -> bool:
        """Whether a secret is in these bytes."""
        if not self._needles:
            return False
        view = memoryview(data).cast("B")
        overlap = len(self._needles[-1])
        for start in range(0, max(1, len(view)), _CHUNK):
            chunk = bytes(view[start : start + _CHUNK + overlap])
            if any(needle in chunk for needle in self._needles):
                return True
        return False

    def mask(self, text: str) -> str:
        """The text, or nothing where it shows the beginning of a secret."""
        shown = any(secret[:_MINIMUM] in text for secret in self._texts)
        raw = any(needle[:_MINIMUM].decode("latin-1") in text for needle in self._needles)
        return "" if shown or raw else text


def _encoded(raw: bytes) -> set[bytes]:
    """What stands in the text wherever these bytes are part of what is encoded."""
    found = {raw.hex().encode(), raw.hex().upper().encode()}
    for lead in range(3):
        # characters that also hold bits of what stands before or behind
        first, bits = -(-lead * 4 // 3), (lead + len(raw)) * 8
        text = base64.b64encode(b"\0" * lead + raw)[first : bits // 6]
        found |= {text, text.replace(b"+", b"-").replace(b"/", b"_")}
    return found


def _number(value: int) -> set[bytes]:
    """A number of eight digits or more as pickle and NumPy write it."""
    pickled = pickle.dumps(value, 2)[2:-1]  # without the protocol and the stop
    fits = -(1 << 63) <= value < 1 << 63
    return {pickled, value.to_bytes(8, "little", signed=True)} if fits else {pickled}
