"""Kernels that start at once: forked from a process that stands right before the first cell.

`WarmKernel` is a driver's end of one of its forks. A fork runs its cells in a shell of its own and
tells of them over its channel (`cellrail.kernels.inprocess`); it is used by one run and ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cellrail.errors import KernelProblem
from cellrail.kernels.channel import Channel, ChannelClosed, PacketChannel
from cellrail.kernels.forking import CannotFork, Zygote
from cellrail.kernels.kernel import READY_SECONDS, process_started
from cellrail.kernels.wire import Said

_CONTROL = "CELLRAIL_ZYGOTE"
_LARGEST = 1 << 20
_PREPARED_SECONDS = 120.0
_EXIT_SECONDS = 10.0


class PacketWire:
    """Requests go over the channel, and what the kernel says comes from there."""

    sources: Sequence[Any] = ()

    def __init__(self, channel: PacketChannel) -> None:
        self._channel = channel
        self._session = uuid.uuid4().hex
        self._number = 0

    def request(self, content: dict[str, Any], *, cell_id: str) -> str:
        """Send an execute request; its message id."""
        self._number += 1
        header = self._header("execute_request")
        self._channel.send(
            {
                "kind": "request",
                "header": header,
                "msg_id": header["msg_id"],
                "msg_type": "execute_request",
                "parent_header": {},
                "metadata": {"cellId": cell_id},
                "content": content,
                "buffers": [],
            }
        )
        return header["msg_id"]

    def _header(self, kind: str) -> dict[str, str]:
        return {
            "msg_id": f"{self._session}_{os.getpid()}_{self._number}",
            "msg_type": kind,
            "username": "cellrail",
            "session": self._session,
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "version": "5.4",
        }

    def said(self) -> Iterator[Said]:
        """It comes over the channel."""
        return iter(())


class PacketClient:
    """What nbclient's Output widgets need of a client."""

    def __init__(self, channel: PacketChannel) -> None:
        self._channel = channel
        self._session: Any = None

    @property
    def session(self) -> Any:
        """Builds messages."""
        if self._session is None:
            from jupyter_client.session import Session

            self._session = Session()
        return self._session

    @property
    def shell_channel(self) -> PacketClient:
        """Takes messages."""
        return self

    def send(self, message: dict[str, Any]) -> None:
        """Send a comm message to the kernel."""
        plain = json.loads(self.session.pack({k: v for k, v in message.items() if k != "buffers"}))
        self._channel.send({"kind": "request", "buffers": [], **plain})


class WarmKernel:
    """A kernel that was forked: its channel, its life and its end."""

    def __init__(
        self, name: str, zygote: Zygote, settings: Mapping[str, Any] | None = None
    ) -> None:
        """Fork it; `wait_ready` waits until it can be used.

        Args:
            name: the kernel specification's name.
            zygote: the process to fork from.
            settings: those that `wait_ready_alike` tells the hooks.

        Raises:
            CannotFork: the zygote is gone.
        """
        self.name = name
        self._zygote = zygote
        self._settings = dict(settings or {})
        fork = zygote.fork()
        self.pid = fork.pid
        self._pidfd: int | None = fork.pidfd
        self._packets = PacketChannel(fork.connection)
        with contextlib.suppress(ChannelClosed):  # `wait_ready` tells that it died
            self._packets.send({"kind": "begin"})
        self._code: int | None = None
        self._ended, self._asked = threading.Lock(), False
        self.channel: Channel | None = None
        self.wire = PacketWire(self._packets)
        self.client: Any = PacketClient(self._packets)
        self.hello: dict[str, Any] = {}

    def another(self) -> WarmKernel:
        """Fork a further kernel of the same kind; `wait_ready_alike` waits for it."""
        try:
            return WarmKernel(self.name, self._zygote, self._settings)
        except CannotFork as error:
            raise KernelProblem(f"no further kernel can be forked: {error.why}") from error

    # --- readiness ---------------------------------------------------------------------------

    def wait_ready(self, settings: Mapping[str, Any], timeout: float = READY_SECONDS) -> None:
        """Wait until cells can be sent.

        Args:
            settings: what the hooks inside the kernel are told first.
            timeout: seconds to wait at most.

        Raises:
            KernelProblem: it died while starting, or did not answer in time.
        """
        deadline = time.monotonic() + timeout
        self.hello = self._message(deadline, "hello")
        # what the start of a kernel prints is nobody's output
        while self._message(deadline, "output")["content"].get("execution_state") != "starting":
            continue
        self.channel = self._packets
        self._settings = dict(settings)
        self._packets.send({"kind": "settings", **settings})

    def _message(self, deadline: float, kind: str) -> dict[str, Any]:
        while (left := deadline - time.monotonic()) > 0:
            try:
                message = self._packets.receive(left)
            except ChannelClosed as error:
                raise KernelProblem(f"the kernel {self.name!r} died while it started") from error
            if message is not None and message["kind"] == "failed":
                raise KernelProblem(f"the kernel {self.name!r} did not start: {message['why']}")
            if message is not None and message["kind"] == kind:
                return message
        raise KernelProblem(f"the kernel {self.name!r} did not answer within its start-up time")

    def wait_ready_alike(self) -> None:
        """Wait until cells can be sent to it, with the settings of the kernel it is like.

        Raises:
            KernelProblem: as `wait_ready`.
        """
        self.wait_ready(self._settings)

    # --- life --------------------------------------------------------------------------------

    @property
    def death_fd(self) -> int | None:
        """A descriptor that becomes readable when the process ends."""
        return self._pidfd

    @property
    def started(self) -> float:
        """When the process started, in seconds since the epoch; with the pid it names it."""
        return process_started(self.pid)

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._pidfd is not None and not self._wait_exit(0)

    def exit_code(self) -> int | None:
        """The process's exit code (negative: a signal); None while it runs."""
        with self._ended:
            if self._code is None and not self.alive():
                code = self._zygote.wait(self.pid)
                # its origin takes its kernels with it
                self._code = -signal.SIGKILL if code is None else code
            return self._code

    def interrupt(self) -> None:
        """Interrupt the running cell."""
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """End the process and its children at once."""
        self._signal(signal.SIGKILL)
        if self._pidfd is not None:
            # before it leads a group of its own
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self._wait_exit(_EXIT_SECONDS)

    def _signal(self, number: int) -> None:
        """Send a signal to the kernel's group. The pid is its own until its end was asked for."""
        with self._ended:
            if self._code is None and self._pidfd is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, number)

    def ask_to_exit(self) -> None:
        """Ask it to exit, so that its `atexit` functions run; `shutdown` waits for that."""
        if self.alive() and not self._asked:
            self._asked = True
            with contextlib.suppress(ChannelClosed):
                self._packets.send({"kind": "shutdown"})

    def shutdown(self) -> None:
        """Ask it to exit, and make sure that it has."""
        self.ask_to_exit()
        self._wait_exit(_EXIT_SECONDS)
        self.kill()
        self.close()

    def _wait_exit(self, seconds: float) -> bool:
        """Whether it ends in this time."""
        if self._pidfd is None:
            return True
        waiting = select.poll()
        waiting.register(self._pidfd, select.POLLIN)
        return bool(waiting.poll(seconds * 1000))

    def close(self) -> None:
        """Give back channel and descriptor."""
        self.exit_code()
        self._packets.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
            self._zygote.released()
