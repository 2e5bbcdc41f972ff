"""ipykernel without ZMQ: its own shell, kernel and streams, whose one socket is the channel.

What a cell can see of its kernel stays ipykernel's: the application with its configuration, the
kernel that handles requests, the shell, the streams with their watch on descriptors 1 and 2. Only
what lies behind them is exchanged: a session that writes a message into the channel instead of
into a socket, and a publisher without a thread. A cell costs a few hundred microseconds that way,
where ZMQ's threads and sockets cost six milliseconds.

`prepare` makes everything that no code of the user takes part in, in a process that will be forked;
`begin` does the rest in the fork.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import contextvars
import os
import select
import sys
import threading
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ipykernel.iostream import IOPubThread, OutStream
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from IPython.core.application import ENV_CONFIG_DIRS, SYSTEM_CONFIG_DIRS
from jupyter_client.jsonutil import extract_dates
from jupyter_client.session import Session

from cellrail.kernels.channel import Message, PacketChannel
from cellrail.kernels.wire import OUTPUT, REPLY

#: what was printed is sent after so many seconds at most
_FLUSH_SECONDS = 0.05
_PIPE_BYTES = 1 << 16

Send = Callable[[Message], None]


class PacketSession(Session):
    """A session whose messages go into the channel."""

    #: set in the fork; until then there is nobody to tell
    give: Send | None = None
    hold: Send

    def send(  # noqa: PLR0917 - jupyter_client's signature
        self,
        stream: Any,
        msg_or_type: Any,
        content: Any = None,
        parent: Any = None,
        ident: Any = None,
        buffers: Any = None,
        track: bool = False,
        header: Any = None,
        metadata: Any = None,
    ) -> Any:
        """Build a message and send it, as `Session.send` does, whatever the stream."""
        del stream, ident, track
        message = msg_or_type
        if not isinstance(message, dict):
            message = self.msg(
                msg_or_type, content=content, parent=parent, header=header, metadata=metadata
            )
        buffers = buffers or message.get("buffers") or ()
        if self.give is not None:
            name = message["header"]["msg_type"]
            # a reply is followed by the idle, and the busy by the input
            busy = name == "status" and message["content"].get("execution_state") == "busy"
            kind = REPLY if name.endswith("_reply") else OUTPUT
            give = self.hold if busy or kind == REPLY else self.give
            told = {k: message[k] for k in ("header", "parent_header", "metadata", "content")}
            give(
                {
                    "kind": kind,
                    "jupyter": self.pack(told).decode("utf-8", "replace"),
                    "buffers": [base64.b64encode(buffer).decode() for buffer in buffers],
                }
            )
        return message

    def feed_identities(self, msg_list: Any, copy: bool = True) -> Any:
        """A message of ours has none."""
        del copy
        return [], msg_list

    def deserialize(self, msg_list: Any, content: bool = True, copy: bool = True) -> Any:
        """A message of ours is one already."""
        del content, copy
        return msg_list


class _NoThread:
    """Stands for ipykernel's publishing thread, which is not needed."""

    ident = None

    @staticmethod
    def is_alive() -> bool:
        return False


class Flusher:
    """Calls what was put off, a moment later; its thread starts when it is first needed.

    It is what streams take for an event loop.
    """

    def __init__(self) -> None:
        self._due: set[Callable[[], None]] = set()
        self._wake = threading.Event()
        self._process = 0

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        """Call it soon; twice before that is once."""
        del seconds
        self._due.add(function)
        if self._process != os.getpid():
            self._process, self._wake = os.getpid(), threading.Event()
            threading.Thread(target=self._work, name="cellrail-flush", daemon=True).start()
        self._wake.set()

    def _work(self) -> None:
        pause = threading.Event()
        while True:
            self._wake.wait()
            pause.wait(_FLUSH_SECONDS)
            self._wake.clear()
            while self._due:
                with contextlib.suppress(KeyError, OSError):
                    self._due.pop()()


class Publisher(IOPubThread):
    """What streams publish through: no thread and no socket of its own."""

    def __init__(self, session: PacketSession) -> None:
        self.session = session
        # each stands for something of ipykernel's
        parts: dict[str, Any] = {
            "thread": _NoThread(), "io_loop": Flusher(), "socket": self, "background_socket": self,
        }  # fmt: skip
        vars(self).update(parts)
        self._local = threading.local()

    def schedule(self, f: Callable[[], None]) -> None:
        """Call at once: there is no thread to wait for."""
        f()

    def send_multipart(self, *_: Any, **__: Any) -> None:
        """Nothing comes here: the session sends."""

    def start(self) -> None:
        """It has no thread."""

    def stop(self) -> None:
        """It has no thread."""

    def close(self) -> None:
        """It has no socket."""


class PacketStream(OutStream):
    """A stream of ipykernel's whose watched descriptor is read to its end before a cell is done."""

    _fid: Any
    _process = 0
    _turn: Any

    def begin(self) -> None:
        """The process is the kernel's own now."""
        self._master_pid = os.getpid()

    def watch(self) -> None:
        """What is written to the descriptor becomes output."""
        shown, original = getattr(sys, self.name), getattr(sys, f"__{self.name}__")
        # where its constructor looks for the descriptor
        setattr(sys, self.name, original)
        try:
            self._should_watch = True
            self._setup_stream_redirects(self.name)
        finally:
            setattr(sys, self.name, shown)

    def _setup_stream_redirects(self, name: str) -> None:
        super()._setup_stream_redirects(name)
        self.watch_fd_thread.name = f"cellrail-{name}"

    def _own_turn(self) -> Any:
        # a fork does not inherit who holds it
        if self._process != os.getpid():
            self._process, self._turn = os.getpid(), threading.RLock()
        return self._turn

    def _watch_pipe_fd(self) -> None:
        source = self._fid
        os.set_blocking(source, False)
        waiting = select.poll()
        waiting.register(source, select.POLLIN)
        while self._should_watch:
            waiting.poll()
            if not self._read_on(source):
                return

    def _read_on(self, source: int) -> bool:
        """Take what the descriptor has; whether more can come."""
        with self._own_turn():
            try:
                while data := os.read(source, _PIPE_BYTES):
                    self.write(data.decode(errors="replace"))
            except BlockingIOError:
                return True
            except OSError:
                return False
        return False

    def flush(self) -> None:
        """Send what was printed, here or by a subprocess."""
        if self._should_watch and self._is_master_process():
            self._read_on(self._fid)
        super().flush()

    def _flush(self) -> None:
        with self._own_turn():
            super()._flush()


class _MainThread:
    """Stands for ipykernel's shell channel: cells run in the main thread."""

    def __init__(self) -> None:
        self.parent_thread = threading.main_thread()


class PacketKernel(IPythonKernel):
    """ipykernel's kernel, fed from the channel."""

    #: names of modules that were imported ahead of the user's code
    cellrail_ahead: frozenset[str] = frozenset()
    #: what the hooks have made of that before the fork
    cellrail_prepared: Any = None
    #: the way to the driver, until the hooks take it
    cellrail_channel: PacketChannel | None = None
    _supports_kernel_subshells = False
    _loop: asyncio.AbstractEventLoop | None = None
    shell: Any

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take requests from now on."""
        self._loop = loop
        self._context = contextvars.copy_context()
        self._tasks: set[asyncio.Task[None]] = set()
        self._one_by_one = asyncio.Lock()
        self.shell.exit_now = False
        # its own start would look for a debugger's socket
        super(IPythonKernel, self).start()

    def take(self, message: Message) -> None:
        """The driver has sent a request (called by the thread that listens)."""
        if self._loop is not None:
            begin = self._stop if message["kind"] == "shutdown" else self._handle
            self._loop.call_soon_threadsafe(begin, message)

    def _stop(self, _: Message) -> None:
        # cells that were sent before run first
        task = self._task(self._stop_in_turn())
        self._tasks.add(task)

    async def _stop_in_turn(self) -> None:
        async with self._one_by_one:
            self.io_loop.stop()

    def _handle(self, message: Message) -> None:
        request = {k: v for k, v in message.items() if k != "kind"}
        request["header"] = extract_dates(request["header"])
        task = self._task(self._in_turn(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _task(self, coroutine: Any) -> asyncio.Task[None]:
        assert self._loop is not None
        return self._loop.create_task(coroutine, context=self._context)

    async def _in_turn(self, request: Message) -> None:
        if self._one_by_one.locked() and request["header"]["msg_type"].startswith("comm"):
            # the running cell may wait for a widget's answer
            await self.dispatch_shell(request)
            return
        async with self._one_by_one:
            await self.dispatch_shell(request)


class PacketApp(IPKernelApp):
    """ipykernel's application without sockets."""

    profile_dir: Any
    #: files of the user that say how kernel and shell are made
    configured: list[str]

    def __init__(self, **options: Any) -> None:
        self.configured = []
        super().__init__(**options)

    #: whether descriptors 1 and 2 are watched, once the process is the kernel's own
    _watches: bool = True

    def parse_command_line(self, argv: Any = None) -> None:
        """It was parsed ahead: it is the same for each fork."""
        if not self.cli_config:
            super().parse_command_line(argv)

    def load_config_file(  # type: ignore[override]
        self, suppress_errors: bool | None = True
    ) -> None:
        """Look for files that configure kernel and shell: code of the user, which is not run."""
        del suppress_errors
        names = ("ipython_config", Path(str(self.config_file_name)).stem)
        for folder in self.config_file_paths:
            files = [Path(folder, name + suffix) for name in names for suffix in (".py", ".json")]
            self.configured += [str(file) for file in files if file.exists()]

    def init_connection_file(self) -> None:
        """There is nothing to connect to."""

    def init_poller(self) -> None:
        """The channel tells of the driver's end."""

    def init_heartbeat(self) -> None:
        """The process itself is watched."""

    def write_connection_file(self, **_: Any) -> None:
        """There is nothing to connect to."""

    def log_connection_info(self) -> None:
        """There is nothing to connect to."""
        self._ports = {}

    def init_sockets(self) -> None:
        """A session and a publisher, and no socket."""
        self.session = PacketSession(parent=self)
        self.iopub_thread = Publisher(self.session)
        self.iopub_socket = self.iopub_thread
        self.shell_channel_thread = _MainThread()
        self.configure_tornado_logger()

    def init_io(self) -> None:
        """Streams and display hook; the descriptors are watched from `go_on` on."""
        self._watches, self.capture_fd_output = bool(self.capture_fd_output), False
        self.outstream_class = f"{__name__}.{PacketStream.__name__}"
        super().init_io()

    def init_kernel(self) -> None:
        """The kernel, without sockets."""
        kernel = PacketKernel.instance(
            parent=self,
            session=self.session,
            iopub_thread=self.iopub_thread,
            iopub_socket=self.iopub_socket,
            shell_channel_thread=self.shell_channel_thread,
            log=self.log,
            profile_dir=self.profile_dir,
            user_ns=self.user_ns,
        )
        kernel._execute_sleep = 0.0  # noqa: SLF001 - what is sent first arrives first
        self.kernel = kernel
        self.displayhook.get_execution_count = lambda: kernel.execution_count

    # --- what may run code of the user -------------------------------------------------------

    #: whether the process is a fork already, and whether `init_code` has run
    _forked = _coded = False

    def init_extensions(self) -> None:
        """IPython's own extensions ahead, ours in the fork."""
        unset = "default_extensions" if self._forked else "extra_extensions"
        kept = getattr(self, unset)
        setattr(self, unset, [])
        try:
            super().init_extensions()
        finally:
            setattr(self, unset, kept)

    def init_code(self) -> None:
        """Startup files, where there are any, in the fork; what there is to do without, ahead."""
        if self._has_startup() if self._coded else self._forked or not self._has_startup():
            self._coded = True
            super().init_code()

    def _has_startup(self) -> bool:
        """Whether code of the user runs when a kernel starts."""
        folders = [self.profile_dir.startup_dir]
        folders += [str(Path(p, "startup")) for p in (*ENV_CONFIG_DIRS, *SYSTEM_CONFIG_DIRS)]
        files = (file for folder in folders for file in Path(folder).glob("*.*py"))
        return bool(os.environ.get("PYTHONSTARTUP")) or any(files)

    def go_on(self, channel: PacketChannel) -> None:
        """In the fork: tell the driver, and run what the user has for the start of a kernel."""
        self._forked = True
        self.session.pid = os.getpid()
        self.session.give, self.session.hold = channel.send, channel.hold
        self.kernel.cellrail_channel = channel
        self.session.session = uuid.uuid4().hex
        self.capture_fd_output = self._watches
        for stream in (sys.stdout, sys.stderr):
            assert isinstance(stream, PacketStream)
            stream.begin()
            if self._watches:
                stream.watch()
        self.init_extensions()
        self.init_code()
        sys.stdout.flush()
        sys.stderr.flush()


def prepare(argv: Sequence[str]) -> PacketApp:
    """An application whose shell is made, in a process that will be forked.

    Args:
        argv: the command line of a kernel, from its program on.
    """
    sys.argv = list(argv)
    app = PacketApp.instance()
    app.initialize(list(argv)[1:])
    return app


def run(app: PacketApp) -> None:
    """Run requests until the driver says that it is enough."""
    from tornado import ioloop

    app.io_loop = ioloop.IOLoop.current()
    loop: Any = app.io_loop.asyncio_loop  # type: ignore[attr-defined]
    app.kernel.begin(loop)
    with contextlib.suppress(KeyboardInterrupt):
        app.io_loop.start()
