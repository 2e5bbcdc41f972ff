"""Named points where a test may end the process; nothing at all in production."""

from __future__ import annotations

from typing import Protocol


class CrashPoints(Protocol):
    """Is told when execution passes a named point."""

    def reach(self, name: str) -> None:
        """Execution is at this point."""


class NoCrash:
    """The crash points of production: none."""

    def reach(self, name: str) -> None:
        """Go on."""
