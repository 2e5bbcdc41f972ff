"""What runs inside a headless kernel: hooks around each cell, and commands between cells.

Loaded as an IPython extension by a kernel that a driver of ours started; elsewhere loading it does
nothing. After each cell the namespace is captured, its objects are written to the store, and what
changed is reported to the driver, which commits the step. The reply to the cell's request leaves
the kernel after the report, so a driver that has the reply has the report as well.

The kernel never outlives its driver: when the channel closes it ends itself, and on Linux the
system ends it even in the middle of a C call.
"""

from __future__ import annotations

import atexit
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from cellrail.errors import CellrailError
from cellrail.kernels.channel import Channel, ChannelClosed, Message, connect_to_driver
from cellrail.run.asking import Asking, told
from cellrail.run.hearing import hear_interrupts
from cellrail.run.setup import setup_lines
from cellrail.step_line import install as install_step_line
from cellrail_state.ambient import Base, can_import
from cellrail_state.errors import StateError
from cellrail_state.model import to_plain

if TYPE_CHECKING:
    from cellrail.run.shellstate import ShellState
    from cellrail.run.watching import Watching

_ORDER_SECONDS = 60.0


def load_ipython_extension(shell: Any) -> None:
    """Install the hooks where a driver waits for them."""
    channel = _channel_of(getattr(shell, "kernel", None)) or connect_to_driver()
    if channel is None:
        return
    _die_with_parent()
    atexit.register(_exit_promptly)
    hooks = KernelHooks(shell, channel)
    shell.cellrail_hooks = hooks
    # whom `cellrail.api` asks
    shell.cellrail_desk = hooks.asking
    hooks.install()


def _channel_of(kernel: Any) -> Channel | None:
    """The channel that a kernel was forked with; only the first who asks gets it."""
    channel: Channel | None = getattr(kernel, "cellrail_channel", None)
    if channel is not None:
        kernel.cellrail_channel = None
    return channel


class PackageWatch:
    """Versions of the top-level packages that were imported since one last asked."""

    def __init__(self, ahead: Collection[str] = ()) -> None:
        """Begin.

        Args:
            ahead: modules that were imported ahead of the first cell; not told the first time.
        """
        self._modules = 0
        self._seen: set[str] = set(sys.stdlib_module_names)
        known = {name.partition(".")[0] for name in sys.modules.keys() - set(ahead)}
        self._later = {name.partition(".")[0] for name in ahead} - known

    def news(self) -> dict[str, str]:
        """Versions by name, each told once."""
        if len(sys.modules) == self._modules:
            return {}
        self._modules = len(sys.modules) if not self._later else 0
        # (most modules lie in packages, whose names are there, too)
        names = {name for name in list(sys.modules) if "." not in name} - self._seen - self._later
        self._later = set()
        self._seen |= names
        versions = {
            name: getattr(sys.modules.get(name), "__version__", None)
            for name in names
            if not name.startswith("_")
        }
        return {name: v for name, v in sorted(versions.items()) if isinstance(v, str)}


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What hooks know of their process; of a kernel that is forked, made before the fork."""

    base: Base
    packages: PackageWatch
    #: packages that are told when the kernel is ready
    first: dict[str, str]
    #: and those that were imported ahead: when the first cell has run
    then: dict[str, str] = {}

    @staticmethod
    def now(ahead: Collection[str] = ()) -> Prepared:
        """The process as it is.

        Args:
            ahead: modules that were imported ahead of the first cell.
        """
        ahead = frozenset(ahead)
        base, packages = Base.now(), PackageWatch(ahead)
        return Prepared(
            base=Base(
                environment=base.environment,
                modules=base.modules - ahead,
                importable={name: can_import(name) for name in sorted(ahead)},
            ),
            packages=packages,
            first=packages.news(),
            then=packages.news(),
        )


def prepare(kernel: Any) -> None:
    """Before kernels are forked: do what each would do of the same."""
    kernel.cellrail_prepared = Prepared.now(kernel.cellrail_ahead)


class KernelHooks:
    """The hooks of one kernel and the state behind them."""

    def __init__(self, shell: Any, channel: Channel) -> None:
        self._shell = shell
        self._channel = channel
        self._orders: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._running: list[Any] = []
        self._cell_order: Message = {}
        self._started = 0.0
        self._hears = False
        made = getattr(getattr(shell, "kernel", None), "cellrail_prepared", None)
        prepared: Prepared = made or Prepared.now()
        self._packages, self._news = prepared.packages, prepared.then
        self._first = prepared.first
        self._base = msgspec.structs.replace(prepared.base, environment=dict(os.environ))
        self._state: ShellState | None = None
        #: of a run whose steps others may share
        self._watching: Watching | None = None
        self._counts_bytes = made is not None
        #: what the first cells of a step did that has several
        self._seen_before: list[str] = []
        self.asking = Asking(channel.send, self._learn, lambda: self.state.midway)

    def install(self) -> None:
        """Register with the shell, greet the driver and begin to listen."""
        from cellrail.version import __version__

        install_step_line(self._shell)
        self._shell.events.register("pre_run_cell", self._before)
        self._shell.events.register("post_run_cell", self._after)
        self._channel.send(
            {
                "kind": "hello",
                "cellrail": __version__,
                "python": ".".join(map(str, sys.version_info[:3])),
                "implementation": sys.implementation.name,
                "packages": self._first,
            }
        )
        threading.Thread(target=self._listen, name="cellrail-channel", daemon=True).start()

    def _listen(self) -> None:
        try:
            while (message := self._channel.receive()) is not None:
                if message["kind"] == "reply":
                    self.asking.take(message)
                elif message["kind"] in {"request", "shutdown"}:
                    # of a kernel without sockets: what others get through theirs
                    self._shell.kernel.take(message)
                else:
                    self._orders.put(message)
        except ChannelClosed:
            # the driver is gone: whatever this kernel would still do, nobody records
            if sys.platform == "win32":
                os._exit(1)
            os.kill(os.getpid(), signal.SIGKILL)

    def _order(self) -> Message:
        """The driver's next order; its settings, which come first, are taken on the way."""
        message = self._orders.get(timeout=_ORDER_SECONDS)
        if message["kind"] == "settings":
            from cellrail.run.shellstate import ShellState

            self._state = ShellState.from_settings(self._shell, self._base, message)
            if "modules" in message:
                from cellrail.run import keptmodules

                keptmodules.install(message["modules"])
            if message.get("watch"):
                from cellrail.run.watching import Watching

                # sockets of a kernel that was not forked write through pipes
                self._watching = Watching(counts_bytes=self._counts_bytes)
            return self._order()
        return message

    @property
    def state(self) -> ShellState:
        """Capture and restore for this shell."""
        if self._state is None:
            message = "the driver has sent no settings"
            raise RuntimeError(message)
        return self._state

    def _learn(self, secrets: Sequence[str]) -> None:
        self.state.learn(secrets)

    # --- around a cell -----------------------------------------------------------------------

    def _before(self, info: Any) -> None:
        self._running.append(info)
        if len(self._running) > 1:
            return
        self._cell_order = self._order()
        if not self._hears:
            self._hears = True
            hear_interrupts()
        if "needs" in self._cell_order:
            self._bring(self._cell_order["needs"])
        if self._cell_order.get("checkpoint"):
            self.state.look_before(self._cell_order["touched"], self._cell_order["rebinds"])
        # behind the look: a loop's variable does not change unseen
        self._perform(self._cell_order.get("before", ()))
        if self._cell_order.get("baseline"):
            self.state.baseline(self._cell_order["touched"], last=self._cell_order["parks"])
        self.asking.asked = self.asking.again = self.asking.suspends = False
        if self._watching is not None:
            self._watching.begin()
        self._started = time.time()

    def _bring(self, names: list[str] | None) -> None:
        """Put back what the cell can reach; without it the cell must not run."""
        try:
            if not self.state.needs(names):
                return
            # no limit of the cell counts this
            self._channel.send({"kind": "loading"})
            self.state.bring(names)
        except BaseException as error:  # noqa: BLE001 - the shell swallows what a callback raises
            self._refuse(error)
        self._channel.send({"kind": "loaded"})

    def _perform(self, orders: Sequence[Message]) -> None:
        """Bind a loop's variable and the like; without it the cell must not run."""
        try:
            if orders:
                self.state.turns.perform(orders)
        except BaseException as error:  # noqa: BLE001 - the shell swallows what a callback raises
            self._refuse(error)

    def _refuse(self, error: BaseException) -> None:
        from cellrail.run.waiting import Refusal

        transformers = self._shell.ast_transformers
        why = str(error) or type(error).__name__
        transformers.insert(0, Refusal(transformers.remove, why))

    def _after(self, result: Any) -> None:
        # code of a cell may run cells of its own: only the outermost one is a step
        if self._running and self._running[-1] is result.info:
            self._running.pop()
        if self._running:
            return
        ended = time.time()
        seen = [*self._seen_before, *self._seen()]
        self._channel.send({"kind": "ran"})
        order = self._cell_order
        report: Message = {
            "kind": "report",
            "success": bool(result.success),
            "started": self._started,
            "ended": ended,
            "magics": setup_lines(self._shell, result.info),
            "packages": self._news | self._packages.news(),
        }
        self._news = {}
        self._seen_before = [] if order["checkpoint"] else seen
        if seen:
            report["seen"] = seen
        success, raised = bool(result.success), result.error_in_exec or result.error_before_exec
        if success and (refusal := self._refusal()) is not None:
            success, raised = False, refusal
            report["refused"] = told(refusal)
        if not success:
            self.state.turns.failed(raised, order["binds_error"])
        well = success or isinstance(result.error_in_exec, SystemExit) or order["on_error"]
        if success and self.asking.again:
            report |= {"again": True, "missed": list(self.state.missed_before)}
        elif order["checkpoint"] and well:
            last = order["last"] or order["parks"] or self.asking.suspends
            delta = self.state.delta(only=order["only"], touched=order["touched"], last=last)
            report["delta"] = to_plain(delta)
        elif order["checkpoint"]:
            missed = {*self.state.missed(order["touched"]), *self.state.missed_before}
            report["missed"] = sorted(missed)
        self._channel.send(report)

    def _seen(self) -> list[str]:
        """What the cell did that must not be shared, where that is watched."""
        if self._watching is None:
            return []
        return self._watching.end(asked=self.asking.asked, beside=self.state.beside)

    def _refusal(self) -> Exception | None:
        """Why what the cell set cannot be committed, where the driver knows already."""
        if not self.asking.asked:
            return None
        try:
            self.asking.ask("check", {})
        except (CellrailError, StateError) as error:
            return error
        return None

    # --- between cells -----------------------------------------------------------------------

    def serve(self) -> None:
        """Carry out the driver's next command and answer it. Called by a silent request."""
        order = self._order()
        try:
            self.state.turns.perform(order.get("before", ()))
            if "needs" in order:
                self.state.bring(order["needs"])
            answer = self.state.carry_out(order)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the driver decides what it means
            import traceback

            answer = {
                "error": f"{type(error).__name__}: {error}",
                "traceback": traceback.format_exc(),
            }
        self._channel.send({"kind": "answer", **answer})


def _exit_promptly() -> None:
    """Runs after the user's exit functions and before ipykernel's own.

    ipykernel closes its sockets by joining a thread that may wait for one of those sockets: then it
    hangs until it is killed. All that this kernel had to say has been said; the process's end
    closes the rest.
    """
    from ipykernel.kernelapp import IPKernelApp

    if IPKernelApp.initialized():
        atexit.unregister(IPKernelApp.instance().close)


def _die_with_parent() -> None:
    """On Linux: have the system kill this process when the thread that started it ends."""
    driver = os.environ.pop("CELLRAIL_DRIVER_PID", "")
    if not sys.platform.startswith("linux") or os.environ.pop("CELLRAIL_DEATH_SIGNAL", "") != "1":
        return
    import ctypes

    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
    ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL)
    if driver and os.getppid() != int(driver):
        os.kill(os.getpid(), signal.SIGKILL)
