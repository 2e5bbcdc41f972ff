"""A local connection whose messages arrive whole or not at all, whoever sends them.

A kernel that runs its cells in a shell of its own sends everything over one socket: outputs from
any of its threads and of the processes that a cell forks, reports, questions. Each packet goes out
in one system call (`SOCK_SEQPACKET`), so neither a second writer nor an interrupt in the midst of a
message can garble it. A long message is a row of packets of one writer; a row that was broken off
is dropped when the writer begins another.
"""

from __future__ import annotations

import itertools
import os
import select
import socket
import struct

#: bytes of a message in one packet: well below what any Linux takes at once
PACKET_BYTES = 1 << 16
_HEAD = struct.Struct("<IQB")  # the writer's process, its message, whether more follows
_MORE, _LAST = 1, 0


def packet_pair() -> tuple[PacketConnection, socket.socket]:
    """A connection, and the other end's socket, which another process is to get."""
    mine, others = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return PacketConnection(mine), others


class PacketConnection:
    """One end. Any thread may send, one at a time may receive.

    It has the methods of `multiprocessing.connection.Connection` that a `Channel` uses.
    """

    def __init__(self, own: socket.socket) -> None:
        own.setblocking(True)
        self._socket = own
        self._numbers = itertools.count()
        self._parts: dict[tuple[int, int], bytearray] = {}

    def send_bytes(self, data: bytes) -> None:
        """Send a message.

        Raises:
            OSError: the other side is gone.
        """
        process, number = os.getpid(), next(self._numbers)
        view = memoryview(data)
        while True:
            part, view = view[:PACKET_BYTES], view[PACKET_BYTES:]
            head = _HEAD.pack(process, number, _MORE if view else _LAST)
            self._socket.sendmsg((head, part))
            if not view:
                return

    def recv_bytes(self) -> bytes:
        """The next message that is whole.

        Raises:
            EOFError: the other side is gone.
        """
        while True:
            packet = self._socket.recv(PACKET_BYTES + _HEAD.size)
            if not packet:
                raise EOFError("the other side is gone")
            message = self._taken(packet)
            if message is not None:
                return message

    def _taken(self, packet: bytes) -> bytes | None:
        process, number, more = _HEAD.unpack_from(packet)
        part = self._parts.setdefault((process, number), bytearray())
        part += memoryview(packet)[_HEAD.size :]
        if more:
            return None
        return bytes(self._parts.pop((process, number)))

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Whether something arrives within so many seconds, the other side's end included."""
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        return bool(waiting.poll(None if timeout is None else max(0, int(timeout * 1000))))

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close this end."""
        self._socket.close()
