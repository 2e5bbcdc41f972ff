"""A kernel process of its own, started cold through `jupyter_client`.

On POSIX it talks over ipc sockets in a private folder with a short name: TCP ports race when
several kernels start at once, and so do ipc kernels that share a folder. Its death is seen at once
(the process is waited for through a pidfd where the system has one), not at the next poll.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellrail.errors import KernelLacksCellrail, KernelNotInstalled, KernelNotIPython, KernelProblem
from cellrail.kernels.channel import Channel, ChannelListener
from cellrail.kernels.kernel import READY_SECONDS, process_started
from cellrail.kernels.wire import ZmqWire

#: loads the hooks into the kernel, before any code of the user runs
EXTENSION_FLAG = "--IPKernelApp.extra_extensions=cellrail.run.kernel"
#: what every kernel of ours is started with
ARGUMENTS = (EXTENSION_FLAG, "--HistoryManager.enabled=False")
_EXIT_SECONDS = 10.0


class ColdKernel:
    """A started kernel: its sockets, its channel, its life and its end."""

    def __init__(
        self,
        name: str,
        *,
        cwd: Path,
        environment: Mapping[str, str],
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Start the process; `wait_ready` waits until it can be used.

        Args:
            name: a kernel specification's name.
            cwd: the working directory.
            environment: variables added to this process's own.
            settings: those that `wait_ready_alike` tells the hooks.

        Raises:
            KernelNotInstalled: there is no kernel of that name, or its program is missing.
            KernelNotIPython: it is no IPython kernel.
        """
        from jupyter_client.kernelspec import NoSuchKernel
        from jupyter_client.manager import KernelManager

        self.name = name
        self._cwd, self._environment = cwd, dict(environment)
        self._settings = dict(settings or {})
        self._folder = Path(tempfile.mkdtemp(prefix="cellrail-"))
        transport: dict[str, str] = {}
        if sys.platform != "win32":
            transport = {"transport": "ipc", "ip": str(self._folder / "k")}
        self._manager: Any = KernelManager(kernel_name=name, **transport)
        self._manager.connection_file = str(self._folder / "connection.json")
        try:
            spec: Any = self._manager.kernel_spec
        except NoSuchKernel as error:
            self._clean()
            raise _not_installed(name) from error
        self._program = spec.argv[0] if spec.argv else "python"
        if not any("ipykernel" in word for word in spec.argv):
            self._clean()
            raise KernelNotIPython(
                f"the kernel {name!r} ({spec.display_name}) is not an IPython kernel",
                hint="choose one with --kernel; cellrail checkpoints Python kernels only",
            )
        self._listener = ChannelListener(self._folder)
        env = {
            **os.environ,
            **environment,
            **self._listener.environment(),
            # a death signal follows the thread that started the process: only the main one lasts
            "CELLRAIL_DRIVER_PID": str(os.getpid()),
            "CELLRAIL_DEATH_SIGNAL": "1"
            if threading.current_thread() is threading.main_thread()
            else "",
        }
        # what the process itself prints (not its cells) is nobody's output
        self._log = self._folder / "log"
        try:
            with self._log.open("wb") as log:
                self._manager.start_kernel(
                    extra_arguments=list(ARGUMENTS), env=env, cwd=str(cwd), stdout=log, stderr=log
                )
        except OSError as error:
            self._listener.close()
            self._clean()
            raise KernelNotInstalled(
                f"the kernel {name!r} cannot be started: {error}",
                hint=f"reinstall it: {self._program} -m ipykernel install --user --name {name}",
            ) from error
        provisioner: Any = self._manager.provisioner
        self.pid: int = provisioner.pid
        self._pidfd = os.pidfd_open(self.pid) if hasattr(os, "pidfd_open") else None
        self.client: Any = self._manager.client()
        # no heartbeat: the process itself is watched
        self.client.start_channels(hb=False, stdin=False)
        self.wire = ZmqWire(self.client)
        self.channel: Channel | None = None
        self._asked = False
        self.hello: dict[str, Any] = {}

    def another(self) -> ColdKernel:
        """Start a further kernel of the same kind; `wait_ready_alike` waits for it."""
        return ColdKernel(
            self.name, cwd=self._cwd, environment=self._environment, settings=self._settings
        )

    # --- readiness ---------------------------------------------------------------------------

    def wait_ready(self, settings: Mapping[str, Any], timeout: float = READY_SECONDS) -> None:
        """Wait until cells can be sent.

        Args:
            settings: what the hooks inside the kernel are told first.
            timeout: seconds to wait at most.

        Raises:
            KernelNotIPython: it answers, but is another kind of kernel.
            KernelLacksCellrail: it answers, but our hooks did not load there.
            KernelProblem: it died while starting, or did not answer in time.
        """
        deadline = time.monotonic() + timeout
        message_id = self.client.kernel_info()
        info = self._kernel_info(message_id, deadline)
        if info.get("implementation") != "ipython":
            raise KernelNotIPython(
                f"the kernel {self.name!r} is {info.get('implementation')!r}, not IPython",
                hint="choose an IPython kernel with --kernel",
            )
        # the hooks connect while the kernel starts: by now they have, or never will
        channel = self._listener.wait(5.0)
        if channel is None:
            raise self._lacks()
        hello = channel.receive(max(0.1, deadline - time.monotonic()))
        if hello is None or hello.get("kind") != "hello":
            raise KernelProblem(f"the kernel {self.name!r} started, but its hooks do not answer")
        self.channel, self.hello = channel, hello
        from cellrail.version import __version__

        if hello.get("cellrail") != __version__:
            raise self._lacks(str(hello.get("cellrail")))
        self._settings = dict(settings)
        channel.send({"kind": "settings", **settings})
        self._drain_iopub()

    def wait_ready_alike(self) -> None:
        """Wait until cells can be sent to it, with the settings of the kernel it is like.

        Raises:
            KernelProblem: as `wait_ready`.
        """
        self.wait_ready(self._settings)

    def _kernel_info(self, message_id: str, deadline: float) -> dict[str, Any]:
        import queue

        while time.monotonic() < deadline:
            if not self.alive():
                raise KernelProblem(
                    f"the kernel {self.name!r} died while it started: {self._last_words()}",
                    hint=f"try it by hand: {self._program} -m ipykernel_launcher",
                )
            with contextlib.suppress(queue.Empty):
                reply = self.client.get_shell_msg(timeout=0.5)
                if reply["parent_header"].get("msg_id") == message_id:
                    content: dict[str, Any] = reply["content"]
                    return content
        raise KernelProblem(f"the kernel {self.name!r} did not answer within its start-up time")

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def _drain_iopub(self) -> None:
        """Wait for the idle of our kernel_info, so that the next cell's messages stand alone."""
        import queue

        with contextlib.suppress(queue.Empty):
            while True:
                message = self.client.get_iopub_msg(timeout=0.2)
                if (
                    message["msg_type"] == "status"
                    and message["content"]["execution_state"] == "idle"
                ):
                    return

    def _lacks(self, found: str = "") -> KernelLacksCellrail:
        from cellrail.version import __version__

        what = f"has cellrail {found}, not {__version__}" if found else "lacks cellrail"
        return KernelLacksCellrail(
            f"the environment of the kernel {self.name!r} {what}",
            hint=f"install it there: {self._program} -m pip install cellrail=={__version__}",
        )

    # --- life --------------------------------------------------------------------------------

    @property
    def death_fd(self) -> int | None:
        """A descriptor that becomes readable when the process ends, where the system has one."""
        return self._pidfd

    @property
    def started(self) -> float:
        """When the process started, in seconds since the epoch; with the pid it names it."""
        return process_started(self.pid)

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._manager.provisioner.process.poll() is None

    def exit_code(self) -> int | None:
        """The process's exit code (negative: a signal); None while it runs."""
        code: int | None = self._manager.provisioner.process.poll()
        return code

    def interrupt(self) -> None:
        """Interrupt the running cell."""
        if sys.platform == "win32":
            self._manager.interrupt_kernel()
        elif self.alive():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(os.getpgid(self.pid), signal.SIGINT)

    def kill(self) -> None:
        """End the process and its children at once."""
        if sys.platform == "win32":
            self._manager.provisioner.process.kill()
        else:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(os.getpgid(self.pid), signal.SIGKILL)
        with contextlib.suppress(Exception):
            self._manager.provisioner.process.wait(_EXIT_SECONDS)

    def ask_to_exit(self) -> None:
        """Ask it to exit, so that its `atexit` functions run; `shutdown` waits for that."""
        if self.alive() and not self._asked:
            self._asked = True
            with contextlib.suppress(Exception):
                self.client.shutdown()

    def shutdown(self) -> None:
        """Ask it to exit, and make sure that it has."""
        self.ask_to_exit()
        if self.alive():
            self._wait_exit(_EXIT_SECONDS)
        self.kill()
        self.close()

    def _wait_exit(self, seconds: float) -> None:
        import select

        if self._pidfd is not None:
            select.select([self._pidfd], [], [], seconds)
            return
        deadline = time.monotonic() + seconds
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.01)

    def close(self) -> None:
        """Give back sockets, descriptors and the private folder."""
        with contextlib.suppress(Exception):
            self.client.stop_channels()
        if self.channel is not None:
            self.channel.close()
        with contextlib.suppress(OSError):
            self._listener.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        with contextlib.suppress(Exception):
            self._manager.context.destroy(linger=0)
        self._clean()

    def _clean(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def close_thread() -> None:
    """A thread that has used kernels ends: give back what `jupyter_client` keeps for it."""
    import asyncio

    from jupyter_core.utils import ensure_event_loop

    ensure_event_loop().close()
    asyncio.set_event_loop(None)


def _not_installed(name: str) -> KernelNotInstalled:
    from jupyter_client.kernelspec import KernelSpecManager

    known = ", ".join(sorted(KernelSpecManager().find_kernel_specs())) or "none"
    return KernelNotInstalled(
        f"there is no kernel named {name!r}; installed: {known}",
        hint="choose one with --kernel, or install it: "
        f"python -m ipykernel install --user --name {name}",
    )
