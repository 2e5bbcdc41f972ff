"""The process that warm kernels are forked from. Started by `cellrail.kernels.warm`.

It is a kernel right before its first cell, with the notebook's imports done; it never runs a cell
itself. Over one socket its driver has it fork a kernel (and hands that kernel's channel over), or
asks how one has ended. It ends when its driver does, and its kernels end with it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cellrail.kernels.ahead import Finder
from cellrail.kernels.guard import UNFIT, Guard
from cellrail.kernels.pages import Pages

if TYPE_CHECKING:
    from cellrail.kernels.channel import PacketChannel

CONTROL = "CELLRAIL_ZYGOTE"
_LARGEST = 1 << 20
_HOOKS = ("cellrail.run.kernel", "cellrail.run.shellstate", "cellrail.api")
#: modules that a kernel imports on its way to the first cell, or the shell after its first cell
_OWN_WAY = (
    "pdb", "faulthandler", "IPython.core.debugger", "IPython.core.oinspect",
    "IPython.core.completerlib", "IPython.extensions.storemagic", "IPython.utils.wildcard",
)  # fmt: skip


def main() -> None:
    """Prepare, then fork whenever it is asked for."""
    # as ipykernel's launcher does: nothing of the working directory is imported by the kernel
    if sys.path and sys.path[0] in {"", str(Path.cwd())}:
        del sys.path[0]
    control = socket.socket(fileno=int(os.environ.pop(CONTROL)))
    order = json.loads(control.recv(_LARGEST))
    app, told = _prepared(order)
    control.sendall(json.dumps(told).encode())
    if app is None:
        os._exit(1)
    # the forks' collector has nothing to look for among what all of them have
    gc.collect()
    gc.freeze()
    pages = Pages()
    own = _Zygote(control).serve()
    if own is None:
        # nothing of the user's has run here
        os._exit(0)
    _be_kernel(app, own, pages)


def _prepared(order: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The kernel's application; and what the driver is told, `fault` where it cannot be forked."""
    for name in (*_OWN_WAY, *_HOOKS):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    import ipykernel

    from cellrail.kernels import inprocess
    from cellrail.kernels.rehearsal import rehearse

    # as the launcher is found: in the place of the first word
    launcher = str(Path(ipykernel.__file__).parent.parent / order["argv"][0])
    app = inprocess.prepare([launcher, *order["argv"][1:]])
    if app.configured:
        files = ", ".join(app.configured)
        return None, {"fault": f"IPython is configured by {files}", "module": ""}
    before = frozenset(sys.modules)
    left: dict[str, str] = dict(order["left"])
    with Guard() as guard:
        if fault := guard.fault():
            return None, {"fault": fault, "module": ""}
        for name in order["imports"]:
            if name not in left and (why := _why_not(name)):
                left[name] = why
            if name in left:
                # what comes after it may build on it
                break
            if fault := _import(name, guard):
                return None, {"fault": fault, "module": name}
        rehearse(app, {name.partition(".")[0] for name in sys.modules.keys() - before})
        if fault := guard.fault():
            return None, {"fault": fault, "module": ""}
    ahead = app.kernel.cellrail_ahead = frozenset(sys.modules) - before
    importlib.import_module(_HOOKS[0]).prepare(app.kernel)
    tops = sorted({name.partition(".")[0] for name in ahead})
    return app, {"left": left, "ahead": tops, "path": [str(entry) for entry in sys.path]}


def _why_not(name: str) -> str:
    top = name.partition(".")[0]
    return UNFIT.get(top, "") or Finder().why_not(name)


def _import(name: str, guard: Guard) -> str:
    """Import a module ahead; why that was no good, or ""."""
    finder, before, said = Finder(), set(sys.modules), _said()
    try:
        importlib.import_module(name)
    except BaseException as error:  # noqa: BLE001 - the kernel's own import shall show it
        return f"its import fails: {type(error).__name__}: {error}"
    if _said() != said:
        return "it prints when it is imported"
    local = [new for new in set(sys.modules) - before if not finder.is_installed(new)]
    if local:
        return f"it imports the local module {local[0]}"
    return _keeps_generator(set(sys.modules) - before) or guard.fault()


def _keeps_generator(names: Collection[str]) -> str:
    """Whether one of these modules has a generator whose copies would draw the same numbers."""
    import random

    kinds: list[type] = [random.Random]
    # these are seeded anew, or have no state
    known: list[Any] = [vars(random)["_inst"]]
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        kinds += [numpy.random.Generator, numpy.random.RandomState]
        known.append(numpy.random.mtrand._rand)  # noqa: SLF001
    for name in sorted(names):
        for held in list(vars(sys.modules[name]).values()):
            # asking some objects for their class imports what they stand for
            kind = type(held)
            drawn = issubclass(kind, tuple(kinds)) and not issubclass(kind, random.SystemRandom)
            if drawn and not any(held is one for one in known):
                return f"{name} keeps a generator of random numbers"
    return ""


def _said() -> tuple[int, ...]:
    """How much was written to the streams and their descriptors."""
    streams: Sequence[Any] = (sys.stdout, sys.stderr)
    shown = [buffer.tell() for stream in streams for buffer in stream._buffers.values()]  # noqa: SLF001
    return (sum(shown), os.fstat(1).st_size, os.fstat(2).st_size)


class _Zygote:
    """Answers the driver."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: set[int] = set()
        # a process that the driver forked may hold its end of the socket
        self._driver = os.pidfd_open(os.getppid())

    def serve(self) -> int | None:
        """Answer until the driver is gone (None), or in a fork: the descriptor of its channel."""
        while True:
            ready, _, _ = select.select([self._control.fileno(), self._driver], [], [])
            data, descriptors = b"", list[int]()
            if self._driver not in ready:
                data, descriptors, _, _ = socket.recv_fds(self._control, _LARGEST, 1)
            if not data:
                self._end_children()
                return None
            order = json.loads(data)
            if order["order"] == "fork":
                if self._fork(descriptors[0]):
                    return descriptors[0]
            else:
                self._wait(order["pid"])

    def _fork(self, channel: int) -> bool:
        """Fork a kernel; whether this is the fork."""
        origin = os.getpid()
        with warnings.catch_warnings():
            # Python 3.12 warns of any thread; what runs here is known to be fit
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            self._control.close()
            os.close(self._driver)
            os.setsid()
            _die_with_parent(origin)
            return True
        os.close(channel)
        self._children.add(pid)
        descriptor = os.pidfd_open(pid)
        socket.send_fds(self._control, [json.dumps({"pid": pid}).encode()], [descriptor])
        os.close(descriptor)
        return False

    def _wait(self, pid: int) -> None:
        """Tell how a kernel has ended; from now on its pid may be another process's."""
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            self._children.discard(pid)
        code = os.waitstatus_to_exitcode(status) if ended else None
        self._control.sendall(json.dumps({"code": code}).encode())

    def _end_children(self) -> None:
        for pid in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


# --- in the fork -----------------------------------------------------------------------------


def _be_kernel(app: Any, channel: int, pages: Pages) -> NoReturn:
    """What is left for a fork to become a kernel; then run it."""
    from cellrail.kernels import inprocess
    from cellrail.kernels.channel import PacketChannel
    from cellrail.kernels.packets import PacketConnection

    code = 1
    connection = PacketConnection(socket.socket(fileno=channel))
    own = PacketChannel(connection)
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in (1, 2):
            os.dup2(nowhere, standard)
        os.close(nowhere)
        _reseed()
        pages.copy(asked=connection.poll)
        _wait_for_word(own)
        app.go_on(own)
        inprocess.run(app)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except Exception as error:  # noqa: BLE001 - the driver tells it
        own.send({"kind": "failed", "why": f"{type(error).__name__}: {error}"})
    finally:
        pages.learn()
        _end(app, code)


def _wait_for_word(channel: PacketChannel) -> None:
    """Return when a run wants the kernel; where it was given up, end."""
    from cellrail.kernels.channel import ChannelClosed

    try:
        channel.receive()
    except ChannelClosed:
        # nothing of the user's has run here
        os._exit(0)


def _reseed() -> None:
    """Give the generators that a cold start would have seeded anew a seed of the fork's own."""
    import random

    random.seed()
    for name in ("numpy", "torch"):
        module = sys.modules.get(name)
        if module is not None:
            # as at its import: from the system's entropy
            (module.random if name == "numpy" else module).seed()


def _end(app: Any, code: int) -> NoReturn:
    """End as an interpreter does, as far as anybody can tell, without taking every module down."""
    import atexit
    import threading

    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - as the interpreter's end
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()  # noqa: SLF001
    with contextlib.suppress(BaseException):
        app.shell.user_ns.clear()
        gc.collect()
    _flush_files()
    os._exit(code)


def _flush_files() -> None:
    """Write what open files still hold back, as their end would."""
    import io

    kinds = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)
    for held in gc.get_objects():
        # not every object can be asked for its class
        if type(held) in kinds:
            with contextlib.suppress(Exception):
                held.flush()


def _die_with_parent(parent: int) -> None:
    """Have the system kill this process when its parent's main thread ends."""
    import ctypes

    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
    ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
