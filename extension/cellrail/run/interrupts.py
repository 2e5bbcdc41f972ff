"""Ctrl-C where it must not tear what is being done."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

#: `cellrail` takes all of them for Ctrl-C
_SIGNALS = tuple(
    number
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if (number := getattr(signal, name, None)) is not None
)


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """What stands inside is carried out whole, though somebody presses Ctrl-C again and again.

    For what a person has interrupted already, or what is over. It is not for what may take long.
    """
    with _instead(lambda _number, _frame: None):
        yield


@contextlib.contextmanager
def heard_afterwards() -> Iterator[None]:
    """What stands inside is carried out whole; a Ctrl-C that comes meanwhile is heard behind it."""
    missed: list[tuple[int, FrameType | None]] = []
    try:
        with _instead(lambda number, frame: missed.append((number, frame))):
            yield
    finally:
        for number, frame in missed[:1]:
            handler = signal.getsignal(number)
            if callable(handler):
                handler(number, frame)


@contextlib.contextmanager
def heard_by(note: Callable[[], object]) -> Iterator[None]:
    """What stands inside is carried out whole; each Ctrl-C is noted at once, and no more.

    Args:
        note: is called where the signal finds the program, between any two of its operations.
    """
    with _instead(lambda _number, _frame: note()):
        yield


def hear_no_more() -> None:
    """The process ends: nothing of it can be interrupted any more."""
    for number in _SIGNALS:
        # a handler in Python would be gone before the interpreter is
        signal.signal(number, signal.SIG_IGN)
    # CPython kills a process at its end where a Ctrl-C came in code made of a text (that of a
    # dataclass, say), though it was caught; it forgets that when it runs the next such code
    exec("")  # noqa: S102 - nothing is executed


@contextlib.contextmanager
def _instead(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Another handler hears these signals: a Python function, so that children inherit nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield  # no signal reaches it
        return
    # those that end the process, or that somebody has ignored, stay as they are
    before = {n: found for n in _SIGNALS if callable(found := signal.getsignal(n))}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, found in before.items():
            signal.signal(number, found)
