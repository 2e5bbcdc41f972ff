"""What is dear to answer is answered again only so often, however much happens meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

import msgspec

from cellrail.panels.base import Args, Room
from cellrail_state.errors import StoreNotFound

if TYPE_CHECKING:
    from cellrail.app import App

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


class PacedRoom(Room):
    """A room whose answers are dear: each is made anew after a while at the soonest."""

    def __init__(self, app: App) -> None:
        """Look into a store.

        Args:
            app: the store's.
        """
        super().__init__(app)
        self._pace = Pace()

    def stamp(self, what: str, args: Args) -> Hashable:
        """Changes some time after `now` does; that there is no store yet is no error."""
        return self._pace.stamp((what, msgspec.json.encode(args)), lambda: self._now(what, args))

    def now(self, what: str, args: Args) -> Hashable:
        """The stamp as it is now.

        Raises:
            StoreNotFound: there is no store yet.
        """
        raise NotImplementedError

    def _now(self, what: str, args: Args) -> Hashable:
        try:
            return self.now(what, args)
        except StoreNotFound:
            return None
