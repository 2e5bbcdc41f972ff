"""A connection of packets.

* messages of any length arrive whole and in their order, whoever sends them;
* a message that was broken off never arrives, and does not disturb the next.
"""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from cellrail.kernels.channel import ChannelClosed, PacketChannel
from cellrail.kernels.packets import PACKET_BYTES, PacketConnection, packet_pair


@pytest.mark.parametrize("size", [1, PACKET_BYTES - 1, PACKET_BYTES, PACKET_BYTES + 1, 3_000_001])
def test_a_message_arrives_whole(size: int) -> None:
    mine, others = packet_pair()
    data = bytes(range(256)) * (size // 256 + 1)
    sender = threading.Thread(target=mine.send_bytes, args=(data[:size],))
    sender.start()
    theirs = PacketConnection(others)
    assert theirs.recv_bytes() == data[:size]
    sender.join()
    mine.close()
    with pytest.raises(EOFError):
        theirs.recv_bytes()
    theirs.close()


def test_many_senders_do_not_garble_one_another() -> None:
    mine, others = packet_pair()
    theirs = PacketConnection(others)
    senders = [
        threading.Thread(
            target=lambda n=number: [mine.send_bytes(bytes([n]) * (n * 40_000)) for _ in range(9)]
        )
        for number in range(1, 6)
    ]
    for sender in senders:
        sender.start()
    got = Counter(
        (data[0], len(data), len(set(data))) for data in (theirs.recv_bytes() for _ in range(45))
    )
    for sender in senders:
        sender.join()
    assert got == {(n, n * 40_000, 1): 9 for n in range(1, 6)}
    mine.close()
    theirs.close()


def test_a_message_that_was_broken_off_is_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, others = packet_pair()
    theirs = PacketConnection(others)

    class Broken:
        """Sends one packet, then is interrupted."""

        def __init__(self) -> None:
            self.sent = 0

        def sendmsg(self, parts: tuple[bytes, ...]) -> int:
            if self.sent:
                raise KeyboardInterrupt
            self.sent += 1
            return own.sendmsg(parts)

    own = mine._socket
    monkeypatch.setattr(mine, "_socket", Broken())
    with pytest.raises(KeyboardInterrupt):
        mine.send_bytes(b"a" * (2 * PACKET_BYTES))
    monkeypatch.undo()
    mine.send_bytes(b"whole")
    assert theirs.recv_bytes() == b"whole"
    mine.close()
    theirs.close()


def test_what_is_held_goes_out_with_the_next_message() -> None:
    mine, others = packet_pair()
    here, there = PacketChannel(mine), PacketChannel(PacketConnection(others))
    here.send({"kind": "cell", "number": 1})
    here.hold({"kind": "output", "number": 2})
    assert there.receive(0) is None
    here.send({"kind": "ran", "number": 3})
    assert [there.receive(0) for _ in range(4)] == [
        {"kind": "cell", "number": 1}, {"kind": "output", "number": 2},
        {"kind": "ran", "number": 3}, None,
    ]  # fmt: skip
    here.close()
    with pytest.raises(ChannelClosed):
        there.receive(0)
    there.close()


def test_a_lone_surrogate_arrives_as_it_was_sent() -> None:
    mine, others = packet_pair()
    here, there = PacketChannel(mine), PacketChannel(PacketConnection(others))
    message = {"kind": "reply", "value": {"\udcff": ["caf\xe9 \ud800", 10**40]}}
    here.send({"kind": "cell", "number": 1})
    here.send(message)
    assert [there.receive(0), there.receive(0)] == [{"kind": "cell", "number": 1}, message]
    here.close()
    there.close()
