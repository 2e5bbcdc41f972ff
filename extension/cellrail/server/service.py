"""What the handlers of one server share: the way to `App`, in threads, and who is told of tasks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from cellrail.app import App
from cellrail.executors import Task
from cellrail.server.ticking import Rounds

T = TypeVar("T")
_THREADS = 8


class Service:
    """One store, served."""

    def __init__(self, make_app: Callable[[], App], rounds: Rounds) -> None:
        """Know where the store is.

        Args:
            make_app: makes an `App`: each request has its own, that no other thread uses.
            rounds: who executes tasks.
        """
        self._make_app, self.rounds = make_app, rounds
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="cellrail-server")
        #: the catalog is one file with one lock: requests make no copies of it beside each other
        self._catalog = threading.Lock()

    async def call(self, work: Callable[[App], T], *, catalog: bool = False) -> T:
        """Have something done in a thread.

        Args:
            work: is given an App.
            catalog: it asks the catalog.
        """

        def done() -> T:
            if not catalog:
                return work(self._make_app())
            with self._catalog:
                return work(self._make_app())

        return await asyncio.get_running_loop().run_in_executor(self._threads, done)

    async def take(self, task: Task) -> None:
        """Have a task executed.

        Raises:
            Full: there are too many.
        """
        await asyncio.wrap_future(self.rounds.take(task))

    def close(self) -> None:
        """No more requests are coming."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Which store is served."""

    store: Path
    keys: str = ""

    def app(self) -> App:
        """An App on it."""
        return App(self.store, notebook=self.store.parent / "any", keys=self.keys or None)
