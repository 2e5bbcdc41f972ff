"""Whether a cell did what another run of it would have to do again.

A step that is executed once for many runs must have done nothing but compute and read. While it
runs, an audit hook of Python sees files that are opened for writing, changed or removed, sockets,
and processes that are started; generators of random numbers are compared, and what asks the system
for entropy is noted. Bytes that a library writes past Python show in the system's account of the
process.

Not seen: the clock, files that other runs would find changed, and what a library sends past Python.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cellrail_state import randomness

WRITES, SOCKET, PROCESS = "writes", "opens a connection", "starts a process"
DRAWS, ENTROPY, ASKS = "draws random numbers", "asks the system for random numbers", "uses the run"
BESIDE = "leaves code running"
_CHANGES = frozenset(
    (
        "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.chown",
        "os.link", "os.symlink", "os.utime", "os.setxattr", "os.removexattr", "sqlite3.connect",
    )
)  # fmt: skip
_CONNECTS = frozenset(
    (
        "socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo",
        "socket.gethostbyname", "socket.gethostbyaddr",
    )
)  # fmt: skip
_STARTS = frozenset(
    (
        "subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "os.fork", "os.forkpty",
        "os.spawn", "os.startfile", "os.kill",
    )
)  # fmt: skip
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
#: of the generators, in the order of `randomness.cheap`
_KEEPERS = ("random", "numpy", "torch")


class Watching:
    """Watches one kernel's cells; once it is made, it stays."""

    def __init__(self, *, counts_bytes: bool) -> None:
        """Begin to listen; nothing is noted before `begin`.

        Args:
            counts_bytes: nothing of ours writes to files or pipes while a cell runs.
        """
        self._counts_bytes = counts_bytes
        # ipykernel asks for it when it compiles a cell; the first who does tries it out
        tempfile.gettempdir()
        # an import keeps nothing then
        sys.dont_write_bytecode = True
        self._seen: dict[str, str] = {}
        self._on = False
        self._before: tuple[Any, ...] = ()
        self._written = 0
        sys.addaudithook(self._hear)
        self._follow_entropy()

    def begin(self) -> None:
        """A cell begins."""
        self._seen = {}
        self._before, self._written = randomness.cheap(), self._bytes()
        self._on = True

    def end(self, *, asked: bool, beside: bool) -> list[str]:
        """It has ended; what it did that must not be shared, in words.

        Args:
            asked: it has asked its run for something.
            beside: it may have left code running.
        """
        self._on = False
        for name, before, after in zip(_KEEPERS, self._before, randomness.cheap(), strict=True):
            if before is None and after is not None:
                self._note(DRAWS, f"or not: {name} was imported by it")
            elif before != after:
                self._note(DRAWS, name)
        if self._bytes() != self._written:
            self._note(WRITES, "past Python")
        if asked:
            self._note(ASKS, "")
        if beside:
            self._note(BESIDE, "")
        return [f"{what} ({of})" if of else what for what, of in sorted(self._seen.items())]

    def _bytes(self) -> int:
        return _bytes_written() if self._counts_bytes else 0

    def _note(self, what: str, of: str) -> None:
        self._seen.setdefault(what, of)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit event, of any thread."""
        if not self._on:
            return
        if event == "open":
            path, mode, flags = arguments
            if _is_writing(mode, flags) and not _is_harmless(path):
                self._note(WRITES, _told(path))
        elif event in _CHANGES:
            if not any(map(_is_harmless, arguments[:2])):
                self._note(WRITES, _told(arguments[0]))
        elif event == "mmap.__new__":
            if arguments[0] != -1 and arguments[2] not in {1, 3}:  # neither read nor copy
                self._note(WRITES, "memory of a file")
        elif event in _CONNECTS:
            self._note(SOCKET, "")
        elif event in _STARTS:
            self._note(PROCESS, "")

    def _follow_entropy(self) -> None:
        """Note what asks the system for random numbers: a generator without a seed, a uuid."""
        for module, name in ((os, "urandom"), (random, "_urandom")):
            setattr(module, name, self._noting(getattr(module, name)))
        seed = random.Random.seed

        def followed(own: random.Random, a: Any = None, version: int = 2) -> None:
            if a is None:
                self._note(ENTROPY, "")
            seed(own, a, version)

        random.Random.seed = followed  # type: ignore[method-assign,assignment]

    def _noting(self, function: Callable[[int], bytes]) -> Callable[[int], bytes]:
        def noting(size: int) -> bytes:
            if self._on:
                self._note(ENTROPY, "")
            return function(size)

        return noting


def _is_writing(mode: Any, flags: Any) -> bool:
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & _WRITE_FLAGS)


def _is_harmless(path: object) -> bool:
    """Whether it is compiled code, which an import keeps, or no file at all."""
    if not isinstance(path, str | bytes | os.PathLike):
        return False
    text = os.fsdecode(path)
    return text == ":memory:" or "__pycache__" in text


def _told(path: object) -> str:
    return Path(os.fsdecode(path)).name if isinstance(path, str | bytes | os.PathLike) else ""


def _bytes_written() -> int:
    """Bytes that this process has written to files and pipes, whoever wrote them; 0 unknown."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("wchar:")), 0)
