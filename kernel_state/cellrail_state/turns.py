"""Turns of loops, as records name them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import msgspec

_PLAIN_KEY = re.compile(r"[\w.-]+|#\d+")


class Turn(msgspec.Struct, frozen=True, kw_only=False, omit_defaults=True):
    """One turn of one loop."""

    #: label of the loop's header
    loop: str
    #: place in the item list, or number of the turn, from 0
    index: int
    key: str

    def __str__(self) -> str:
        key = self.key if _PLAIN_KEY.fullmatch(self.key) else json.dumps(self.key)
        return f"{self.loop}[{key}]"


def lies_in(turns: tuple[Turn, ...], loop: str, around: tuple[Turn, ...]) -> bool:
    """Whether these turns are of a loop, or of what is in it.

    Args:
        turns: those of a job.
        loop: the loop's label.
        around: the turns that the loop itself is in.
    """
    depth = len(around)
    return len(turns) > depth and turns[depth].loop == loop and turns[:depth] == around


def job_address(label: str, turns: Sequence[Turn] = ()) -> str:
    """How a job is called: `load`, `score[north]`, `outer[k]/inner[0]/load`.

    Args:
        label: what its step is called.
        turns: those it is in, from the outermost; a loop's own job at one of them is called by it.
    """
    own = [] if turns and turns[-1].loop == label else [label]
    return "/".join([*map(str, turns), *own])
