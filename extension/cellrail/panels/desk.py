"""The process behind the panels of a kernel: answers what they ask, and follows what they show.

`python -m cellrail.panels.desk STORE` reads questions and writes answers as lines of JSON; it ends
with its standard input, that is with the kernel. Questions are answered one after another; those
that a room calls slow have a thread and an `App` of their own, so that the rest goes on meanwhile.

A question is `{panel, n, room, what, args}`, with `watch: true` where its answer is to be followed;
`{panel, n, drop: true}` ends that, `{panel, alive: true}` says that somebody looks, and
`{panel, gone: true}` that nobody will any more. An answer is `{panel, n, data}` or
`{panel, n, error: {message, hint}}`. What nobody looks at is not followed.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import msgspec

from cellrail.errors import CellrailError
from cellrail.ownprocess import begin_quickly
from cellrail.panels.base import Room, kind_of
from cellrail_state.errors import StateError
from cellrail_state.texts import json_bytes

#: seconds between two looks at what is followed
LOOK_SECONDS = 0.5
#: seconds without a sign of life after which nobody is taken to look (a sign comes every 20)
UNSEEN_SECONDS = 60.0


class Question(msgspec.Struct, kw_only=True):
    """A line from the kernel."""

    panel: str
    n: int = 0
    room: str = ""
    what: str = ""
    args: dict[str, Any] = {}
    watch: bool = False
    drop: bool = False
    alive: bool = False
    gone: bool = False


class _Watch:
    """A question whose answer is followed."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.stamp: Hashable = None
        self.last = b""


class Desk:
    """Answers questions; `look` tells what has changed."""

    def __init__(
        self,
        make_room: Callable[[str], Room],
        tell: Callable[[bytes], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Answer with rooms.

        Args:
            make_room: makes a room, by name; each thread has its own.
            tell: takes an answer (JSON, without a newline).
            clock: seconds.
        """
        self._make_room = make_room
        self._tell, self._clock = tell, clock
        self._rooms: dict[str, Room] = {}
        self._slow_rooms: dict[str, Room] = {}
        self._slow = ThreadPoolExecutor(1, thread_name_prefix="cellrail-slow")
        self._watches: dict[tuple[str, int], _Watch] = {}
        self._seen: dict[str, float] = {}
        self._telling = threading.Lock()

    def take(self, question: Question) -> None:
        """Answer a question, or begin or end to follow one."""
        self._seen[question.panel] = self._clock()
        key = (question.panel, question.n)
        if question.gone:
            self._seen.pop(question.panel, None)
            self._watches = {k: w for k, w in self._watches.items() if k[0] != question.panel}
        elif question.drop:
            self._watches.pop(key, None)
        elif question.watch:
            self._watches[key] = watch = _Watch(question)
            self._follow(watch)
        elif not question.alive:
            self._ask(question)

    def look(self) -> None:
        """Answer again what is followed, where it has changed."""
        now = self._clock()
        for (panel, _), watch in list(self._watches.items()):
            if now - self._seen.get(panel, now) < UNSEEN_SECONDS:
                self._follow(watch)

    @property
    def follows(self) -> bool:
        """Whether anything is followed."""
        return bool(self._watches)

    def close(self, *, wait: bool = False) -> None:
        """Answer no more.

        Args:
            wait: first finish what is being answered.
        """
        self._slow.shutdown(wait=wait, cancel_futures=not wait)

    # --- answers -----------------------------------------------------------------------------

    def _ask(self, question: Question) -> None:
        try:
            slow = question.what in self._room(self._rooms, question.room).slow
        except Exception as error:  # noqa: BLE001 - told to who asked
            self._send(question, error=_told(error))
            return
        if slow:
            self._slow.submit(self._answer, question, self._slow_rooms)
        else:
            self._answer(question, self._rooms)

    def _answer(self, question: Question, rooms: dict[str, Room]) -> None:
        try:
            data = self._room(rooms, question.room).answer(question.what, question.args)
            self._send(question, data=data)
        except Exception as error:  # noqa: BLE001 - told to who asked
            self._send(question, error=_told(error))

    def _follow(self, watch: _Watch) -> None:
        question = watch.question
        try:
            room = self._room(self._rooms, question.room)
            stamp = room.stamp(question.what, question.args)
            if watch.last and stamp == watch.stamp:
                return
            watch.stamp = stamp
            told = {"data": room.answer(question.what, question.args)}
        except Exception as error:  # noqa: BLE001 - told to who asked
            watch.stamp = None  # it may be better the next time
            told = {"error": _told(error)}
        text = json_bytes(told)
        if text != watch.last:
            watch.last = text
            self._send(question, **told)

    def _room(self, rooms: dict[str, Room], name: str) -> Room:
        if name not in rooms:
            rooms[name] = self._make_room(name)
        return rooms[name]

    def _send(self, question: Question, **told: Any) -> None:
        line = json_bytes({"panel": question.panel, "n": question.n, **told})
        with self._telling:
            self._tell(line)


def _told(error: Exception) -> dict[str, str]:
    """An error for people; a defect of ours is also printed in full."""
    if isinstance(error, (CellrailError, StateError)):
        return {"message": str(error), "hint": error.hint}
    import traceback

    traceback.print_exception(error)
    return {"message": f"{type(error).__name__}: {error}", "hint": ""}


def serve(desk: Desk, lines: BinaryIO) -> None:
    """Answer questions until there are no more."""
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        for line in iter(lines.readline, b""):
            waiting.put(line)
        waiting.put(b"")

    threading.Thread(target=read, name="cellrail-questions", daemon=True).start()
    next_look = 0.0
    while True:
        try:
            line = waiting.get(timeout=LOOK_SECONDS if desk.follows else None)
        except queue.Empty:
            line = None
        if line == b"":
            break
        if line is not None:
            desk.take(msgspec.json.decode(line, type=Question))
        if desk.follows and time.monotonic() >= next_look:
            desk.look()
            # where looking is dear, it is done less often
            next_look = time.monotonic() + LOOK_SECONDS
    desk.close()


def main(store: str) -> None:
    """Serve the panels of one kernel."""
    from cellrail.app import App

    # what anything prints here is no answer
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def tell(line: bytes) -> None:
        with contextlib.suppress(OSError):  # the kernel is gone
            answers.write(line + b"\n")
            answers.flush()

    serve(Desk(lambda name: kind_of(name).make(App(store)), tell), sys.stdin.buffer)
    # a value that is still being loaded is for nobody
    os._exit(0)


if __name__ == "__main__":
    begin_quickly()
    main(sys.argv[1])
