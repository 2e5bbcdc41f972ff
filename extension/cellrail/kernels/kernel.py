"""What everybody who drives a kernel needs of it, whichever way it was started."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from cellrail.kernels.channel import Channel
from cellrail.kernels.wire import Wire

READY_SECONDS = 60.0


class Kernel(Protocol):
    """A started kernel: how to reach it, its life and its end."""

    name: str
    pid: int
    #: None until it is ready
    channel: Channel | None
    #: what its hooks told of themselves when it was ready
    hello: dict[str, Any]
    #: what nbclient's widgets call a client
    client: Any

    @property
    def wire(self) -> Wire:
        """Carries requests to its shell."""

    @property
    def death_fd(self) -> int | None:
        """A descriptor that becomes readable when the process ends, where the system has one."""

    @property
    def started(self) -> float:
        """When the process started, in seconds since the epoch; with the pid it names it."""

    def another(self) -> Kernel:
        """Start a further kernel of the same kind; `wait_ready_alike` waits for it."""

    def wait_ready(self, settings: Mapping[str, Any], timeout: float = READY_SECONDS) -> None:
        """Wait until cells can be sent."""

    def wait_ready_alike(self) -> None:
        """Wait until cells can be sent to it, with the settings of the kernel it is like."""

    def alive(self) -> bool:
        """Whether the process still runs."""

    def exit_code(self) -> int | None:
        """The process's exit code (negative: a signal); None while it runs."""

    def interrupt(self) -> None:
        """Interrupt the running cell."""

    def kill(self) -> None:
        """End the process and its children at once."""

    def ask_to_exit(self) -> None:
        """Ask it to exit, so that its `atexit` functions run; `shutdown` waits for that."""

    def shutdown(self) -> None:
        """Ask it to exit, and make sure that it has."""


def process_started(pid: int) -> float:
    """When a process started, in seconds since the epoch; 0 where there is none."""
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0
