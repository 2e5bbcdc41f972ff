"""Steps by the addresses that people type: a name, a cell's id, or `#28`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Protocol, TypeVar

from cellrail.errors import NotAvailableYet, StepNotFound

_NUMBER = re.compile(r"#(\d+)")


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
        NotAvailableYet: it is the address of a loop's item.
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
    if "[" in address or "/" in address:
        raise NotAvailableYet(f"{address!r} is an item of a loop; loops are not available yet")
    names = [step.name for step in steps if step.name] + [s.cell_id for s in steps if s.cell_id]
    near = get_close_matches(address, names, n=1)
    suggestion = f"; did you mean {near[0]!r}?" if near else ""
    raise StepNotFound(
        f"there is no step {address!r}{suggestion}",
        hint="steps have a name, a cell id, or a number such as #3; `cellrail steps` lists them",
    )
