"""What is dear to answer is answered again only so often, however much happens meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

#: seconds between two answers
PACE_SECONDS = 1.5


class Pace:
    """Holds stamps back for a while, never for good."""

    def __init__(
        self, seconds: float = PACE_SECONDS, *, timer: Callable[[], float] = time.monotonic
    ) -> None:
        """Let stamps through.

        Args:
            seconds: at most one new stamp of a key in this time.
            timer: seconds since any moment.
        """
        self._seconds, self._timer = seconds, timer
        self._told: dict[Hashable, tuple[float, Hashable]] = {}

    def stamp(self, key: Hashable, make: Callable[[], Hashable]) -> Hashable:
        """The stamp of a question; the one before it where that is young.

        Args:
            key: the question.
            make: makes the stamp as it is now.
        """
        now = self._timer()
        at, old = self._told.get(key, (float("-inf"), None))
        if now - at < self._seconds:
            return old
        new = make()
        self._told[key] = (now, new)
        return new
