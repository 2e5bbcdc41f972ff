"""Ends kernels whose driver is gone, by what their run's journal tells of them.

A process is named by its pid and the time it started: the pid alone may be a stranger's by now.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable
from typing import Any

from cellrail.errors import RecoverRefused, UserError
from cellrail.kernels.cold import EXTENSION_FLAG
from cellrail_state.model import KernelStarted, Owner

#: the clock that start times are counted from may have been set since
_TOLERANCE_SECONDS = 2.0
_PATIENCE_SECONDS = 10.0
_POLL_SECONDS = 0.01


def end_kernels(kernels: Iterable[KernelStarted]) -> list[int]:
    """End those that still live; their pids.

    Raises:
        RecoverRefused: one cannot be ended.
    """
    import psutil

    ended = []
    for kernel in kernels:
        try:
            process = psutil.Process(kernel.pid)
            if not _is(process, kernel):
                continue
            _kill(process)
        except psutil.NoSuchProcess:
            continue
        except (psutil.Error, OSError) as error:
            raise RecoverRefused(
                f"the run's kernel (process {kernel.pid}) lives and cannot be ended: {error}",
                hint=f"end it first: kill -9 {kernel.pid}",
            ) from error
        ended.append(kernel.pid)
    return ended


def interrupt_owner(owner: Owner) -> bool:
    """Interrupt the process that drives a run, as Ctrl-C would; False where it is not to be seen.

    Raises:
        UserError: it lives on another machine, or cannot be interrupted.
    """
    import socket

    import psutil

    if owner.host != socket.gethostname():
        raise UserError(
            f"the run is driven on {owner.host}; it can be cancelled there only",
            hint=f"on {owner.host}: cellrail cancel RUN",
        )
    try:
        process = psutil.Process(owner.pid)
        if abs(process.create_time() - owner.started) > _TOLERANCE_SECONDS:
            return False
        process.send_signal(signal.SIGINT)
    except psutil.NoSuchProcess:
        return False
    except (psutil.Error, OSError, ValueError) as error:
        raise UserError(
            f"the run's process {owner.pid} cannot be interrupted: {error}",
            hint="interrupt it where it runs",
        ) from error
    return True


def _is(process: Any, kernel: KernelStarted) -> bool:
    """Whether a process is the kernel, and not another one that has its pid."""
    if not kernel.started or abs(process.create_time() - kernel.started) > _TOLERANCE_SECONDS:
        return False
    return _lives(process) and EXTENSION_FLAG in process.cmdline()


def _kill(process: Any) -> None:
    # it leads a group of its own: what its cells started goes with it
    if sys.platform != "win32" and os.getpgid(process.pid) == process.pid:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while _lives(process):
        if time.monotonic() > deadline:
            message = "it does not end"
            raise OSError(message)
        time.sleep(_POLL_SECONDS)


def _lives(process: Any) -> bool:
    import psutil

    try:
        # in a container nobody may take the dead away
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
