"""The duplex channel between a driving process and the hooks inside its kernel.

Jupyter's own protocol carries the cells and their outputs. Everything else goes here: what a cell
left behind (kernel to driver) and what to do before and after the next one (driver to kernel).
A comm would not do: its messages wait for the running cell.

Messages are JSON objects (never pickles), each with a `kind`. The kernel connects to a local
socket in a private folder and proves itself with a key that it got in its environment and removes
from there before any code of the user runs.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import sys
import threading
from collections import deque
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

import msgspec

from cellrail.kernels.packets import PacketConnection

#: how a kernel learns where its driver listens
ADDRESS = "CELLRAIL_CHANNEL"
KEY = "CELLRAIL_CHANNEL_KEY"

#: messages that are always followed by another: a request, or a request's end
FOLLOWED = frozenset({"cell", "command", "report", "answer"})

Message = dict[str, Any]


class ChannelClosed(Exception):
    """The other side is gone."""


class Channel:
    """One end of the channel.

    `send` may be used by any thread, `receive` by one at a time.
    """

    def __init__(self, connection: Connection | PacketConnection) -> None:
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, message: Message) -> None:
        """Send a JSON-able message.

        Raises:
            ChannelClosed: the other side is gone.
        """
        try:
            data = _encoded(message)
            with self._sending:
                self._connection.send_bytes(data)
        except (OSError, ValueError) as error:
            raise ChannelClosed(str(error)) from error

    def receive(self, timeout: float | None = None) -> Message | None:
        """The next message; None when `timeout` seconds pass without one.

        Raises:
            ChannelClosed: the other side is gone.
        """
        try:
            if timeout is not None and not self._connection.poll(timeout):
                return None
            message: Message = _decoded(self._connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise ChannelClosed(str(error)) from error
        return message

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._connection.fileno()

    def close(self) -> None:
        """Close this end."""
        self._connection.close()


class PacketChannel(Channel):
    """A channel that carries Jupyter's messages as well. Processes that a cell forks send, too.

    What is followed at once by more waits for it: each packet wakes the other side up.
    """

    def __init__(self, connection: PacketConnection) -> None:
        super().__init__(connection)
        self._held: deque[bytes] = deque()
        self._arrived: deque[Message] = deque()

    def send(self, message: Message) -> None:
        """Send a JSON-able message; it goes out whole, so there is nothing to lock.

        Raises:
            ChannelClosed: the other side is gone.
        """
        self._held.append(_encoded(message))
        if message["kind"] not in FOLLOWED:
            self._flush()

    def hold(self, message: Message) -> None:
        """Send it together with the next one."""
        self._held.append(_encoded(message))

    def _flush(self) -> None:
        together = []
        with contextlib.suppress(IndexError):  # another thread took the last one
            while self._held:
                together.append(self._held.popleft())
        try:
            if together:
                self._connection.send_bytes(b"[" + b",".join(together) + b"]")
        except (OSError, ValueError) as error:
            raise ChannelClosed(str(error)) from error

    def receive(self, timeout: float | None = None) -> Message | None:
        """The next message, one of Jupyter's with its parts; None as in `Channel`.

        Raises:
            ChannelClosed: the other side is gone.
        """
        if not self._arrived:
            together: Any = super().receive(timeout)
            if together is None:
                return None
            self._arrived.extend(together)
        message = self._arrived.popleft()
        if "jupyter" in message:
            message |= json.loads(message.pop("jupyter"))
            message["msg_type"] = message["header"]["msg_type"]
            message["buffers"] = [base64.b64decode(text) for text in message["buffers"]]
        return message


def _encoded(message: Message) -> bytes:
    """A message as JSON; texts may hold lone surrogates, as names of files do."""
    try:
        return msgspec.json.encode(message)
    except UnicodeEncodeError:
        return json.dumps(message).encode()


def _decoded(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        return json.loads(data)


class ChannelListener:
    """The driver's end before the kernel has called."""

    def __init__(self, folder: Path) -> None:
        self._key = secrets.token_bytes(32)
        address = None if sys.platform == "win32" else str(folder / "channel")
        self._listener = Listener(address, authkey=self._key)
        self._accepted: Channel | None = None
        self._arrived = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="cellrail-accept", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except AuthenticationError:
                continue
            except (OSError, EOFError):
                return
            self._accepted = Channel(connection)
            self._arrived.set()
            return

    def environment(self) -> dict[str, str]:
        """What the kernel needs to find and convince us."""
        return {ADDRESS: str(self._listener.address), KEY: self._key.hex()}

    def wait(self, timeout: float) -> Channel | None:
        """The channel, once the kernel has called; None when it has not in `timeout` seconds."""
        self._arrived.wait(timeout)
        return self._accepted

    def close(self) -> None:
        """Stop listening (an accepted channel stays open)."""
        self._listener.close()


def connect_to_driver() -> Channel | None:
    """Inside a kernel: the channel to the driver that started it, or None where there is none.

    Takes address and key out of the environment, so that neither the user's code nor its
    subprocesses see them.
    """
    address, key = os.environ.pop(ADDRESS, None), os.environ.pop(KEY, None)
    if address is None or key is None:
        return None
    return Channel(Client(address, authkey=bytes.fromhex(key)))
