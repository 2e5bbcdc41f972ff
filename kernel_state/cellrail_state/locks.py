"""Operating-system locks on files: they end with the process that holds them."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_POLL_SECONDS = 0.002

if sys.platform == "win32":
    import msvcrt

    # a byte far behind any content: Windows locks are mandatory for the bytes they cover
    _OFFSET = 2**40

    def try_lock(descriptor: int, *, shared: bool = False) -> bool:
        """Take the lock of an open file; whether it was free."""
        del shared
        os.lseek(descriptor, _OFFSET, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def unlock(descriptor: int) -> None:
        """Give the lock back."""
        os.lseek(descriptor, _OFFSET, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def try_lock(descriptor: int, *, shared: bool = False) -> bool:
        """Take the lock of an open file; whether it was free."""
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(descriptor: int) -> None:
        """Give the lock back."""
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock of a file."""
    try:
        # read only: a store on read-only media has living owners too
        descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    except OSError:
        return False
    try:
        # shared: two processes that look at once do not take each other for the owner
        free = try_lock(descriptor, shared=True)
        if free:
            unlock(descriptor)
        return not free
    finally:
        os.close(descriptor)


def wait_lock(descriptor: int, seconds: float, *, shared: bool = False) -> bool:
    """Take the lock of an open file, waiting for it; whether it was got in time."""
    deadline = time.monotonic() + seconds
    while not (got := try_lock(descriptor, shared=shared)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return got


@contextlib.contextmanager
def locked(path: Path, *, seconds: float, shared: bool = False) -> Iterator[bool]:
    """Hold the lock of a file, made if it is not there; yields whether it was got in time."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    got = False
    try:
        got = wait_lock(descriptor, seconds, shared=shared)
        yield got
    finally:
        if got:
            unlock(descriptor)
        os.close(descriptor)
