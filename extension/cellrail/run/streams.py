"""Outputs as they are kept: neighbouring pieces of one stream joined.

A kernel sends what a cell prints in pieces of any size. Joined, equal programs have equal outputs,
and a secret that was cut in two is found again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_REWRITTEN_LINE = re.compile(r"[^\n]*\r(?=[^\n])")


def coalesce(outputs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The outputs with neighbouring stream outputs of one name joined.

    A line that a carriage return rewrote (a progress bar) keeps its last state.
    """
    joined: list[dict[str, Any]] = []
    for output in outputs:
        plain = dict(output)
        last = joined[-1] if joined else None
        if (
            last is not None
            and plain.get("output_type") == "stream" == last.get("output_type")
            and plain.get("name") == last.get("name")
        ):
            last["text"] = _text(last["text"]) + _text(plain["text"])
        else:
            joined.append(plain)
    for output in joined:
        if output.get("output_type") == "stream":
            text = _text(output["text"])
            output["text"] = _REWRITTEN_LINE.sub("", text) if "\r" in text else text
    return joined


def _text(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)
