"""Texts that are no Unicode: halves of surrogate pairs, as in names of files that are no UTF-8.

They cannot be encoded. What is only read by people is written with their escapes instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def encodable(text: str) -> str:
    r"""The text, with an escape (`\ud800`) for each half of a surrogate pair."""
    return text.encode("utf-8", "backslashreplace").decode()


def is_unicode(value: object) -> bool:
    """Whether every text in what JSON knows can be encoded."""
    try:
        msgspec.json.encode(value)
    except UnicodeEncodeError:
        return False
    return True


def json_bytes(value: object, *, enc_hook: Callable[[Any], Any] | None = None) -> bytes:
    """JSON of records, or of what JSON knows, in UTF-8; of any text.

    Args:
        value: what to encode.
        enc_hook: what stands for a value that JSON does not know.
    """
    try:
        return msgspec.json.encode(value, enc_hook=enc_hook)
    except UnicodeEncodeError:
        plain = msgspec.to_builtins(value, enc_hook=enc_hook)
        return msgspec.json.encode(_encodable(plain))


def strict(text: bytes | memoryview) -> bytes | memoryview:
    """A JSON text as strict readers take it: escapes of halves of a pair are text."""
    if _SURROGATE.search(text) is None:
        return text
    return json_bytes(json.loads(bytes(text)))


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    return value
