"""A driver's end of the process that warm kernels are forked from (`cellrail.kernels.zygote`).

Once it has been asked twice, one more kernel is always forked ahead. It waits right behind its fork
and gets on with what costs most there, the copying of memory (`cellrail.kernels.pages`), while
the run before it is still busy. Nothing of the user's has run in it by then.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import msgspec

from cellrail.kernels.kernel import READY_SECONDS
from cellrail.kernels.packets import PacketConnection, packet_pair

_CONTROL = "CELLRAIL_ZYGOTE"
_LARGEST = 1 << 20
_PREPARED_SECONDS = 120.0
_EXIT_SECONDS = 10.0


class CannotFork(Exception):
    """No kernel can be forked; `module` is the import to leave out, where that would help."""

    def __init__(self, why: str, module: str = "") -> None:
        super().__init__(why)
        self.why, self.module = why, module


class Blueprint(msgspec.Struct, frozen=True, kw_only=True):
    """All that a zygote depends on."""

    #: the interpreter with its options
    program: tuple[str, ...]
    #: a kernel's command line, from its launcher on
    argv: tuple[str, ...]
    cwd: str
    environment: tuple[tuple[str, str], ...]
    imports: tuple[str, ...]


class Fork(msgspec.Struct, frozen=True, kw_only=True):
    """A process that waits for the word to become a kernel."""

    #: its own until `Zygote.wait` has told how it ended
    pid: int
    #: becomes readable when it ends
    pidfd: int
    #: its channel
    connection: PacketConnection

    def alive(self) -> bool:
        """Whether it still waits."""
        waiting = select.poll()
        waiting.register(self.pidfd, select.POLLIN)
        return not waiting.poll(0)

    def close(self) -> None:
        """Give it up: it ends when nobody can give it the word any more."""
        self.connection.close()
        os.close(self.pidfd)


class Zygote:
    """A process that kernels are forked from. Any thread may ask it."""

    #: what it runs
    code: ClassVar[str] = "from cellrail.kernels.zygote import main; main()"

    def __init__(
        self,
        blueprint: Blueprint,
        left: Mapping[str, str],
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        """Start it, and wait until it can fork.

        Args:
            blueprint: what it is made of.
            left: imports not to be done ahead, and why.
            meanwhile: called when it is on its way.

        Raises:
            CannotFork: it must not, or it ended.
        """
        self.blueprint = blueprint
        self._asking = threading.Lock()
        self._counting = threading.Lock()
        self._kernels, self._retired, self._closed = 0, False, False
        self._asked, self._making = False, False
        self._spare: Fork | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        self._control, others = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with others:
            environment = {
                **dict(blueprint.environment),
                _CONTROL: str(others.fileno()),
                "JPY_PARENT_PID": str(os.getpid()),
            }
            self._process = subprocess.Popen(
                [*blueprint.program, "-c", self.code, *blueprint.argv[1:]],
                cwd=blueprint.cwd, env=environment, pass_fds=(others.fileno(),),
                stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
                start_new_session=True,
            )  # fmt: skip
        try:
            meanwhile()
            told = self._prepared(left)
        except BaseException:
            self.close()
            raise
        #: imports that are left to the kernels, and why
        self.left: dict[str, str] = told["left"]
        #: top-level modules that were imported ahead
        self.ahead: frozenset[str] = frozenset(told["ahead"])
        #: where it looks for modules
        self.path: tuple[str, ...] = tuple(told["path"])

    def _prepared(self, left: Mapping[str, str]) -> dict[str, Any]:
        order = {
            "argv": self.blueprint.argv, "imports": self.blueprint.imports, "left": dict(left),
        }  # fmt: skip
        self._control.settimeout(_PREPARED_SECONDS)
        try:
            self._control.sendall(json.dumps(order).encode())
            data = self._control.recv(_LARGEST)
        except TimeoutError:
            raise CannotFork(f"it was not ready in {_PREPARED_SECONDS:.0f} seconds") from None
        except OSError:
            data = b""
        if not data:
            raise CannotFork(f"its process ended: {self._last_words()}")
        told: dict[str, Any] = json.loads(data)
        if "fault" in told:
            raise CannotFork(told["fault"], told["module"])
        self._control.settimeout(READY_SECONDS)
        return told

    def _last_words(self) -> str:
        if self._log.closed:
            return "it was given up"
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    # --- forks -------------------------------------------------------------------------------

    def fork(self) -> Fork:
        """A process that becomes a kernel when it gets the word.

        Raises:
            CannotFork: the zygote is gone.
        """
        with self._counting:
            fork, self._spare = self._spare, None
            self._kernels += 1
            more = self._asked and not self._making
            self._asked, self._making = True, self._making or more
        try:
            fork = self._living(fork) or self._fork()
        except BaseException:
            self.released()
            raise
        finally:
            if more:
                threading.Thread(target=self._fork_ahead, name="cellrail-fork", daemon=True).start()
        return fork

    def _living(self, fork: Fork | None) -> Fork | None:
        if fork is None or fork.alive():
            return fork
        self.wait(fork.pid)
        fork.close()
        return None

    def _fork(self) -> Fork:
        connection, others = packet_pair()
        try:
            with others, self._asking:
                socket.send_fds(self._control, [b'{"order": "fork"}'], [others.fileno()])
                data, descriptors, _, _ = socket.recv_fds(self._control, _LARGEST, 1)
            if not data or not descriptors:
                raise CannotFork(f"the process to fork from is gone: {self._last_words()}")
        except OSError as error:
            connection.close()
            raise CannotFork(f"the process to fork from is gone: {error}") from error
        except BaseException:
            connection.close()
            raise
        return Fork(pid=json.loads(data)["pid"], pidfd=descriptors[0], connection=connection)

    def _fork_ahead(self) -> None:
        fork = None
        with contextlib.suppress(CannotFork):  # whoever asks for the next is told
            fork = self._fork()
        with self._counting:
            self._making = False
            if not self._closed:
                self._spare, fork = fork, None
        if fork is not None:
            fork.close()

    def wait(self, pid: int) -> int | None:
        """How a kernel that has ended did so; None where that cannot be known."""
        try:
            with self._asking:
                self._control.sendall(json.dumps({"order": "wait", "pid": pid}).encode())
                data = self._control.recv(_LARGEST)
        except OSError:
            return None
        code: int | None = json.loads(data)["code"] if data else None
        return code

    # --- its end -----------------------------------------------------------------------------

    def alive(self) -> bool:
        """Whether it can still fork."""
        return self._process.poll() is None

    def released(self) -> None:
        """One of its kernels has been given back."""
        with self._counting:
            self._kernels -= 1
            last = self._retired and not self._kernels
        if last:
            self.close()

    def retire(self) -> None:
        """No run asks for it any more: end it when its last kernel is given back."""
        with self._counting:
            self._retired = True
            last = not self._kernels
        if last:
            self.close()

    def close(self) -> None:
        """End it, and its kernels."""
        with self._counting:
            self._closed = True
            spare, self._spare = self._spare, None
        if spare is not None:
            spare.close()
        with contextlib.suppress(OSError):  # wakes whoever waits for an answer
            self._control.shutdown(socket.SHUT_RDWR)
        with self._asking:
            self._control.close()
        try:
            self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
