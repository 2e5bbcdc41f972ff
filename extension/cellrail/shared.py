"""Paths into the run's shared folder: a checkpoint keeps them relative to it.

The folder of a restarted run is another one than its origin's; a path that was kept in a variable
leads into the folder of the run that it is restored in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cellrail.errors import CellrailError


class SharedPath(type(Path())):  # type: ignore[misc]  # a Path of this system
    """A path that began at `flow.shared`."""

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            inside = self.relative_to(_folder())
        except (ValueError, CellrailError):
            return Path, (str(self),)
        return in_shared, (inside.parts,)


def in_shared(parts: tuple[str, ...]) -> Path:
    """A path into the shared folder of the run that is asked now."""
    try:
        return SharedPath(_folder(), *parts)
    except CellrailError:
        return Path("shared", *parts)


def _folder() -> str:
    from cellrail.api import shared_place

    return shared_place()
