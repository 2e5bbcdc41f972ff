"""One cell at a time through a kernel, with a true account of how it ended.

The loop waits on the kernel's sockets, on the channel and on the kernel's death at once, so a dead
kernel, a timeout and Ctrl-C are seen when they happen. What a cell prints and displays is turned
into outputs by nbclient's own message handling (display ids, `clear_output`, Output widgets).

How a cell can end (`Ending`), a closed set:

* ``ok``: it ran to its end.
* ``error``: the user's code raised; `CellResult.error` is the user's own traceback.
* ``timeout``: it outlived its limit; it was interrupted, and killed when that did not help.
* ``died``: the kernel's process ended.
* ``interrupted``: the person (or a signal) interrupted the run.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any

import msgspec
import zmq

from cellrail.kernels.channel import Channel, ChannelClosed, Message
from cellrail.kernels.kernel import Kernel
from cellrail.kernels.wire import OUTPUT, REPLY
from cellrail.run.interrupts import heard_by
from cellrail_state.model import StepError

#: seconds that an interrupted cell gets before its kernel is killed
GRACE_SECONDS = 5.0
#: seconds that an idle kernel's last words may take to arrive
_IDLE_SECONDS = 3.0
_TICK_MS = 500
#: the same where it may be told to stop meanwhile
_STOP_TICK_MS = 100


class Ending(StrEnum):
    """How a cell ended."""

    OK = "ok"
    ERROR = "error"
    TIMEOUT = "timeout"
    #: the time of the whole run was up
    OVERDUE = "overdue"
    DIED = "died"
    INTERRUPTED = "interrupted"


class CellResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one execution of a cell came to."""

    ending: Ending
    execution_count: int | None = None
    error: StepError | None = None
    #: what the hooks inside the kernel reported after the cell; None where they could not
    report: Message | None = None


_NO_ANSWER = StepError(
    name="KernelError",
    value="the kernel ended the cell without an answer (does its error's `__str__` raise?)",
)


class _Wait:
    """What is still to come of the request under way."""

    def __init__(self, message_id: str, deadline: float | None) -> None:
        self.message_id = message_id
        self.deadline = deadline
        #: seconds of the limit that are left while it is not counted
        self.left: float | None = None
        self.reply: dict[str, Any] | None = None
        self.idle = False
        self.report: Message | None = None
        self.cut_short: Ending | None = None
        self.kill_at: float | None = None
        #: the user's code is done
        self.ran = False
        #: an idle kernel has said all that it will say
        self.give_up_at: float | None = None

    def pause(self) -> None:
        """What the kernel does now, no limit counts."""
        if self.deadline is not None:
            self.left, self.deadline = self.deadline - time.monotonic(), None

    def go_on(self) -> None:
        """The cell's own time goes on."""
        if self.left is not None and self.cut_short is None:
            self.deadline, self.left = time.monotonic() + self.left, None

    def done(self, *, reported: bool) -> bool:
        if not self.idle:
            return False
        if self.reply is not None and (self.report is not None or not reported):
            return True
        if self.give_up_at is None:
            self.give_up_at = time.monotonic() + _IDLE_SECONDS
        return time.monotonic() >= self.give_up_at


class CellClient:
    """Sends cells to a kernel that is ready, one after another."""

    def __init__(
        self,
        kernel: Kernel,
        notebook: Any,
        *,
        reply: Callable[[Message], Message] | None = None,
        stop: threading.Event | None = None,
        grace: float = GRACE_SECONDS,
    ) -> None:
        """Prepare the loop.

        Args:
            kernel: a kernel that is ready.
            notebook: the nbformat notebook whose cells receive the outputs.
            reply: answers what a cell asks; None where there is nobody to.
            stop: once it is set, what runs is interrupted (a thread hears no Ctrl-C itself).
            grace: seconds an interrupted cell gets before its kernel is killed.
        """
        from nbclient import NotebookClient

        if kernel.channel is None:
            message = "the kernel is not ready"
            raise RuntimeError(message)
        self._kernel = kernel
        self._channel: Channel = kernel.channel
        self._grace = grace
        self._reply = reply
        self._stop = stop
        #: messages of the channel that are to be taken
        self._unread = collections.deque[Message]()
        #: times that Ctrl-C came and nothing has been done about it yet
        self._presses = 0
        #: it raises: nothing can be torn
        self._polls = False
        #: Ctrl-C came when a cell's code was done: whatever is next does not begin
        self._interrupted = False
        self._outputs: Any = NotebookClient(notebook, record_timing=False, allow_errors=True)
        self._outputs.reset_execution_trackers()
        # nbclient sets it per cell in the method that we do without
        self._outputs.clear_before_next_output = False
        self._outputs.kc = kernel.client
        self._wire = kernel.wire
        self._poller = zmq.Poller()
        for source in (*self._wire.sources, self._channel.fileno(), kernel.death_fd):
            if source is not None:
                self._poller.register(source, zmq.POLLIN)

    # --- Ctrl-C ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def hearing(self) -> Iterator[None]:
        """What stands inside is carried out whole; Ctrl-C ends the cell that runs, if any.

        Where none runs, nothing further begins (`hear`).
        """
        with heard_by(self._press):
            yield

    def hear(self) -> None:
        """Begin nothing more where the run was interrupted.

        Raises:
            KeyboardInterrupt: it was.
        """
        if self._interrupted or self._presses:
            self._interrupted, self._presses = True, 0
            raise KeyboardInterrupt

    def _press(self) -> None:
        if self._polls:
            self._polls = False
            raise KeyboardInterrupt
        self._presses += 1

    # --- cells -------------------------------------------------------------------------------

    def start(self, source: str, *, cell_id: str, orders: Message) -> str:
        """Send a cell; `finish` waits for it.

        Between the two the caller has the kernel's whole running time for work of its own.

        Args:
            source: the code.
            cell_id: what the kernel gets as the cell's id.
            orders: what the hooks shall do after the cell.

        Returns:
            The request's message id.
        """
        self.hear()
        self._channel.send({"kind": "cell", **orders})
        return self._request(source, silent=False, cell_id=cell_id)

    def finish(self, message_id: str, cell: Any, index: int, timeout: float | None) -> CellResult:
        """Wait until a started cell has ended, filling its outputs.

        Args:
            message_id: what `start` returned.
            cell: the notebook cell that receives the outputs.
            index: its place in the notebook.
            timeout: seconds the user's code may take; None for no limit.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        wait = _Wait(message_id, deadline)
        ended = self._loop(wait, cell, index, reported=True)
        if ended is not None:
            return CellResult(ending=ended, report=wait.report)
        if wait.reply is None or wait.report is None:
            return self._without_answer(wait)
        content = wait.reply.get("content", {})
        if wait.cut_short is Ending.INTERRUPTED and content.get("status") == "ok":
            self._interrupted = True  # its code was done all the same
        return CellResult(
            ending=_ending(content, wait.cut_short),
            execution_count=content.get("execution_count"),
            error=_error(content) or _shown_error(content, cell),
            report=wait.report,
        )

    def _without_answer(self, wait: _Wait) -> CellResult:
        if wait.cut_short is not None:
            return CellResult(ending=wait.cut_short, report=wait.report)
        return CellResult(ending=Ending.ERROR, error=_NO_ANSWER, report=wait.report)

    def command(self, order: Message, *, timeout: float | None = None) -> Message:
        """Have the hooks inside the kernel do something, in its main thread, between cells.

        Returns:
            Their answer.

        Raises:
            ChannelClosed: the kernel ended before it answered.
            KeyboardInterrupt: the run was interrupted meanwhile.
        """
        self.hear()
        self._channel.send({"kind": "command", **order})
        message_id = self._request(
            "get_ipython().cellrail_hooks.serve()", silent=True, cell_id="cellrail"
        )
        wait = _Wait(message_id, None if timeout is None else time.monotonic() + timeout)
        ended = self._loop(wait, None, -1, reported=True)
        if wait.cut_short is Ending.INTERRUPTED and not _tells_interrupt(wait.report):
            # the kernel may have been ended for it: that is no death of its own
            raise KeyboardInterrupt
        if ended is not None or wait.report is None:
            raise ChannelClosed("the kernel ended while it was asked")
        return wait.report

    def _request(self, source: str, *, silent: bool, cell_id: str) -> str:
        content = {
            "code": source,
            "silent": silent,
            "store_history": not silent,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": False,
        }
        return self._wire.request(content, cell_id=cell_id)

    # --- waiting -----------------------------------------------------------------------------

    def _loop(self, wait: _Wait, cell: Any, index: int, *, reported: bool) -> Ending | None:
        """Wait for the request's end. Returns an ending only where the kernel is gone."""
        with self.hearing():
            while not wait.done(reported=reported):
                ready = self._ready(wait)
                if any(source in ready for source in self._wire.sources):
                    self._take_said(wait, cell, index)
                # before Ctrl-C is: it may have said that its code is done
                if self._presses or self._channel.fileno() in ready:
                    self._take_reports(wait, cell, index)
                if self._gone(ready):
                    self._take_last_words(wait, cell, index)
                    stopped = self._stop is not None and self._stop.is_set()
                    return wait.cut_short or (Ending.INTERRUPTED if stopped else Ending.DIED)
                self._watch_clock(wait)
                if self._stop is not None and self._stop.is_set() and wait.cut_short is None:
                    self._cut_short(wait, Ending.INTERRUPTED)
                while self._presses:
                    self._presses -= 1
                    self._cut_short(wait, Ending.INTERRUPTED)
        return None

    def _ready(self, wait: _Wait) -> dict[Any, int]:
        """What can be read, once something can, or Ctrl-C has come, or it is time to look."""
        try:
            self._polls = True
            ready = {} if self._presses else dict(self._poller.poll(self._patience(wait)))
            self._polls = False
        except KeyboardInterrupt:
            self._presses += 1
            ready = {}
        return ready

    def _patience(self, wait: _Wait) -> int:
        """Milliseconds until something must be looked at."""
        moments = [m for m in (wait.deadline, wait.kill_at) if m is not None]
        tick = _TICK_MS if self._stop is None else _STOP_TICK_MS
        if not moments:
            return tick
        return max(0, min(tick, int((min(moments) - time.monotonic()) * 1000) + 1))

    def _gone(self, ready: dict[Any, int]) -> bool:
        descriptor = self._kernel.death_fd
        if descriptor is not None:
            return descriptor in ready
        return not self._kernel.alive()

    def _watch_clock(self, wait: _Wait) -> None:
        now = time.monotonic()
        if wait.kill_at is not None and now >= wait.kill_at:
            wait.kill_at = None
            self._kernel.kill()
        elif wait.deadline is not None and now >= wait.deadline:
            self._cut_short(wait, Ending.TIMEOUT)

    def _cut_short(self, wait: _Wait, why: Ending) -> None:
        """Interrupt the cell; a second reason to does not wait any longer."""
        if wait.cut_short is not None:
            self._kernel.kill()
            return
        if wait.ran and why is Ending.INTERRUPTED and not self._interrupted:
            # what it left is being captured, and is committed; no further cell begins
            self._interrupted = True
            return
        wait.cut_short = why
        wait.deadline = None
        wait.kill_at = time.monotonic() + self._grace
        self._kernel.interrupt()

    # --- messages ----------------------------------------------------------------------------

    def _take_said(self, wait: _Wait, cell: Any, index: int) -> None:
        for kind, message in self._wire.said():
            self._take(kind, message, wait, cell, index)

    def _take(self, kind: str, message: dict[str, Any], wait: _Wait, cell: Any, index: int) -> None:
        mine = message["parent_header"].get("msg_id") == wait.message_id
        if kind == REPLY:
            if mine:
                wait.reply = message
            return
        if cell is None:
            state = message["content"].get("execution_state")
            wait.idle = wait.idle or (mine and state == "idle")
            return
        if message["msg_type"] in {"status", "execute_input"} and not mine:
            return
        from nbclient.exceptions import CellExecutionComplete

        # what a thread of an earlier cell prints is shown under the cell that runs
        try:
            self._outputs.process_message(message, cell, index)
        except CellExecutionComplete:
            wait.idle = True

    def _take_last_words(self, wait: _Wait, cell: Any, index: int) -> None:
        """What the kernel said before it ended."""
        self._take_said(wait, cell, index)
        with contextlib.suppress(ChannelClosed):
            self._take_channel(wait, cell, index)

    def _take_reports(self, wait: _Wait, cell: Any, index: int) -> None:
        try:
            self._take_channel(wait, cell, index)
        except ChannelClosed:
            # closed by its own end, or by code that closed every descriptor: without the hooks
            # nothing can be checkpointed, so the kernel is as good as dead
            with contextlib.suppress(KeyError):  # that was noticed before
                self._poller.unregister(self._channel.fileno())
            self._kernel.kill()

    def _take_channel(self, wait: _Wait, cell: Any, index: int) -> None:
        more = True
        while more:
            more = self._note(self._channel.receive(0), wait)
            while self._unread:
                self._take_unread(self._unread.popleft(), wait, cell, index)

    def _note(self, message: Message | None, wait: _Wait) -> bool:
        """Take a message as far as that takes no time; whether there was one."""
        kind = message["kind"] if message is not None else ""
        if message is None or kind in {REPLY, OUTPUT, "ask"}:
            self._unread.extend([message] if message is not None else [])
        elif kind == "loading":
            wait.pause()
        elif kind == "loaded":
            wait.go_on()
        elif kind == "ran":
            # the user's code is done: what follows is our capture, which no limit counts
            wait.deadline, wait.ran = None, True
            if wait.cut_short is None:
                wait.kill_at = None
        else:
            wait.report = message
        return message is not None

    def _take_unread(self, message: Message, wait: _Wait, cell: Any, index: int) -> None:
        if message["kind"] != "ask":
            self._take(message["kind"], message, wait, cell, index)
        elif self._reply is not None:
            # the channel's end is noticed where it is read
            with contextlib.suppress(ChannelClosed):
                self._channel.send(self._reply(message))


def _tells_interrupt(report: Message | None) -> bool:
    """Whether an answer says itself that the notebook's code was interrupted."""
    raised = (report or {}).get("raised")
    return raised is not None and raised["name"] == "KeyboardInterrupt"


def _ending(content: dict[str, Any], cut_short: Ending | None) -> Ending:
    if content.get("status") == "ok":
        return Ending.OK
    return cut_short or Ending.ERROR


def _error(content: dict[str, Any]) -> StepError | None:
    # IPython knows no error where the display of a value raised
    if content.get("status") != "error" or content.get("ename") == "NoneType":
        return None
    return StepError(
        name=str(content.get("ename", "")),
        value=str(content.get("evalue", "")),
        traceback=tuple(str(line) for line in content.get("traceback", ())),
    )


def _shown_error(content: dict[str, Any], cell: Any) -> StepError | None:
    """The traceback in the cell's outputs."""
    if content.get("status") != "error":
        return None
    shown = [output for output in cell["outputs"] if output["output_type"] == "error"]
    return _error({"status": "error", **shown[-1]}) if shown else None
