"""Steps by the addresses that people type: a name, a cell's id, or `#28`.

A job inside loops is addressed through its turns: `score[north]`, `score[#2]` (the third item),
`outer[a]/inner[#0]/load`; a key with other characters than letters, digits, `_`, `.` and `-` is
quoted as in JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Protocol, TypeVar

from cellrail.errors import StepNotFound

_NUMBER = re.compile(r"#(\d+)")
_TURN = re.compile(r'([^\[\]/]+)\[("(?:[^"\\]|\\.)*"|[^\[\]]*)\](/|$)')


def split_address(address: str) -> tuple[tuple[tuple[str, str], ...], str]:
    """An address as turns (loop, key) and the step within; "" where it ends with a turn.

    Raises:
        StepNotFound: it is no address.
    """
    turns: list[tuple[str, str]] = []
    place = 0
    while found := _TURN.match(address, place):
        key = found.group(2)
        try:
            turns.append((found.group(1), json.loads(key) if key.startswith('"') else key))
        except ValueError:
            break
        place = found.end()
    rest = address[place:]
    if "[" in rest or (turns and "/" in rest) or (not rest and not turns):
        raise StepNotFound(
            f"{address!r} is no step's address",
            hint='write NAME, #3, or LOOP[key]/NAME; quote unusual keys: LOOP["a/b"]',
        )
    return tuple(turns), rest


class Addressed(Protocol):
    """What has a step's addresses."""

    @property
    def number(self) -> int:
        """Its place among the code cells."""

    @property
    def name(self) -> str:
        """Its given name."""

    @property
    def cell_id(self) -> str:
        """Its cell's id."""


Found = TypeVar("Found", bound=Addressed)


def find_step(address: str, steps: Sequence[Found]) -> Found:
    """The step at an address.

    Raises:
        StepNotFound: there is none; the nearest name is suggested.
    """
    number = _NUMBER.fullmatch(address)
    if number:
        for step in steps:
            if step.number == int(number.group(1)):
                return step
        raise StepNotFound(f"there is no step {address}; the notebook has {len(steps)} code cells")
    for attribute in ("name", "cell_id"):
        for step in steps:
            if getattr(step, attribute) == address:
                return step
    names = [step.name for step in steps if step.name] + [s.cell_id for s in steps if s.cell_id]
    near = get_close_matches(address, names, n=1)
    suggestion = f"; did you mean {near[0]!r}?" if near else ""
    raise StepNotFound(
        f"there is no step {address!r}{suggestion}",
        hint="steps have a name, a cell id, or a number such as #3; `cellrail steps` lists them",
    )
