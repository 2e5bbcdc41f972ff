"""How a cell asks: the kernel's end of the `Desk`.

A question goes over the channel while the cell runs, from any thread of the kernel's process, and
the driver answers it at once. In a live notebook kernel and driver are one process, and the desk is
called directly (`Direct`).
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from cellrail import errors
from cellrail.errors import CellrailError, InternalError, OutsideStep
from cellrail.kernels.channel import Message
from cellrail_state import errors as state_errors
from cellrail_state.errors import StateError

if TYPE_CHECKING:
    from cellrail.run.midway import Midway

#: a wait without end cannot be interrupted everywhere
_PATIENCE_SECONDS = 1.0

Learn = Callable[[Sequence[str]], None]


class Backend(Protocol):
    """Whom the functions of `cellrail.api` ask."""

    def ask(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Ask for something by name; its JSON-able answer. Raises what the handler raised."""


class Asking:
    """Asks over the channel."""

    def __init__(
        self,
        send: Callable[[Message], None],
        learn: Learn,
        midway: Callable[[], Midway] | None = None,
    ) -> None:
        """Know the way.

        Args:
            send: to the driver.
            learn: is told of secrets before the cell gets them.
            midway: stores names of this kernel in mid-cell.
        """
        self._send, self._learn = send, learn
        self.midway = midway
        self._process = os.getpid()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[threading.Event, list[Message]]] = {}
        self._outgoing: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._sender: threading.Thread | None = None
        #: whether something was asked since this was last set to False
        self.asked = False
        #: whether the cell is to be executed again, from the namespace before it; the same
        self.again = False
        #: whether the run waits behind the cell, and its kernel may be given up; the same
        self.suspends = False

    def ask(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Ask the driver.

        Raises:
            CellrailError: what the driver's handler raised.
        """
        if os.getpid() != self._process:
            raise OutsideStep(
                "a forked process cannot ask for state; only the kernel's own can",
                hint="read it before the fork, and set it in the kernel from what comes back",
            )
        self.asked = True
        self.suspends = self.suspends or name == "suspend"
        number = next(self._numbers)
        arrived, answer = threading.Event(), list[Message]()
        self._waiting[number] = (arrived, answer)
        try:
            self._post({"kind": "ask", "id": number, "name": name, "arguments": dict(arguments)})
            while not arrived.wait(_PATIENCE_SECONDS):
                pass
        finally:
            self._waiting.pop(number, None)
        reply = answer[0]
        if reply.get("secrets"):
            self._learn(reply["secrets"])
        self.again = self.again or bool(reply.get("again"))
        if "error" in reply:
            raise revived(reply["error"])
        return reply.get("value")

    def _post(self, message: Message) -> None:
        # by a thread of its own: an interrupt in the midst of a message would garble the channel
        with self._starting:
            if self._sender is None:
                self._sender = threading.Thread(target=self._work, name="cellrail-ask", daemon=True)
                self._sender.start()
        self._outgoing.put(message)

    def _work(self) -> None:
        while True:
            self._send(self._outgoing.get())

    def take(self, message: Message) -> None:
        """A reply has come (called by the thread that listens)."""
        waiting = self._waiting.get(message["id"])
        if waiting is not None:
            arrived, answer = waiting
            answer.append(message)
            arrived.set()


class Direct:
    """Asks a desk of this very process."""

    def __init__(
        self,
        reply: Callable[[Message], Message],
        learn: Learn,
        midway: Callable[[], Midway] | None = None,
    ) -> None:
        """Know the desk.

        Args:
            reply: the desk's.
            learn: is told of secrets before the cell gets them.
            midway: stores names of this kernel in mid-cell.
        """
        self._reply, self._learn = reply, learn
        self.midway = midway
        self._process = os.getpid()

    def ask(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Ask the desk.

        Raises:
            CellrailError: what its handler raised.
        """
        if os.getpid() != self._process:
            raise OutsideStep("a forked process cannot ask for state; only the kernel's own can")
        reply = self._reply({"id": 0, "name": name, "arguments": dict(arguments)})
        if reply.get("secrets"):
            self._learn(reply["secrets"])
        if "error" in reply:
            raise revived(reply["error"])
        return reply.get("value")


def told(error: BaseException) -> dict[str, str]:
    """An error as a message tells it."""
    if isinstance(error, (CellrailError, StateError)):
        return {"type": type(error).__name__, "message": str(error), "hint": error.hint}
    return {
        "type": "InternalError",
        "message": f"{type(error).__name__}: {error}",
        "hint": "please report this",
    }


def revived(plain: Mapping[str, str]) -> Exception:
    """The error that a message tells of."""
    for home in (errors, state_errors):
        kind = getattr(home, plain["type"], None)
        if isinstance(kind, type) and issubclass(kind, (CellrailError, StateError)):
            message, hint = plain["message"], plain.get("hint", "")
            # a traceback shows the message only
            return kind(f"{message} ({hint})" if hint else message, hint=hint)
    return InternalError(plain["message"])
