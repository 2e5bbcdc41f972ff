"""How a driver's requests reach a kernel's shell, and how what it says comes back.

What a kernel says is either a `reply` to a request or an `output` (Jupyter's shell and iopub
channels); both are messages as Jupyter's protocol has them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

Said = tuple[str, dict[str, Any]]

REPLY, OUTPUT = "reply", "output"


class Wire(Protocol):
    """Carries requests to a kernel."""

    @property
    def sources(self) -> Sequence[Any]:
        """What to wait on for what the kernel says; empty where it comes over the channel."""

    def request(self, content: dict[str, Any], *, cell_id: str) -> str:
        """Send an execute request; its message id."""

    def said(self) -> Iterator[Said]:
        """What has arrived from the sources: replies first."""


class ZmqWire:
    """Jupyter's own way: ZMQ sockets."""

    def __init__(self, client: Any) -> None:
        self._session = client.session
        self._shell = client.shell_channel.socket
        self._iopub = client.iopub_channel.socket

    @property
    def sources(self) -> Sequence[Any]:
        """The shell's and the iopub socket."""
        return (self._shell, self._iopub)

    def request(self, content: dict[str, Any], *, cell_id: str) -> str:
        """Send an execute request; its message id."""
        message = self._session.msg("execute_request", content, metadata={"cellId": cell_id})
        self._session.send(self._shell, message)
        message_id: str = message["header"]["msg_id"]
        return message_id

    def said(self) -> Iterator[Said]:
        """What has arrived."""
        for kind, source in ((REPLY, self._shell), (OUTPUT, self._iopub)):
            while (message := self._receive(source)) is not None:
                yield kind, message

    def _receive(self, source: Any) -> dict[str, Any] | None:
        import zmq

        try:
            parts = zmq.Socket.recv_multipart(source, zmq.NOBLOCK)
        except zmq.Again:
            return None
        _, frames = self._session.feed_identities(parts)
        message: dict[str, Any] = self._session.deserialize(frames)
        return message
