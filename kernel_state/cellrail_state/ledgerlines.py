"""The lines of the ledger: its records, and how they stand in its file.

A line is the CRC-32 of a JSON record in eight hexadecimal digits, a space, the record, and a line
feed. The first line names the file, so that a reader notices when another one has taken its place.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from cellrail_state.errors import LedgerDamaged
from cellrail_state.model import Written


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a key holds now."""

    written: Written
    #: the run that wrote it; "" where a person did
    run_id: str = ""
    #: the user that wrote it
    by: str = ""
    #: seconds since the epoch
    time: float = 0.0

    @property
    def writer(self) -> str:
        """Who wrote it, in words."""
        return f"run {self.run_id}" if self.run_id else f"{self.by or 'a person'}, by hand"


class Proposed(msgspec.Struct, frozen=True, kw_only=True, tag="proposed"):
    """Writes that count if the run's journal holds the token."""

    token: str
    run_id: str
    by: str
    time: float
    writes: tuple[Written, ...]


class Settled(msgspec.Struct, frozen=True, kw_only=True, tag="settled"):
    """Whether the proposal before it counts."""

    token: str
    committed: bool


class Stated(msgspec.Struct, frozen=True, kw_only=True, tag="stated"):
    """Writes of a person, or of a rename."""

    by: str
    time: float
    writes: tuple[Written, ...]


class Begun(msgspec.Struct, frozen=True, kw_only=True, tag="begun"):
    """The first line of every file: tells it from the one that it replaces."""

    id: str


class Carried(msgspec.Struct, frozen=True, kw_only=True, tag="carried"):
    """An entry of the file before this one."""

    entry: Entry
    #: the writers of its last versions: version -> run
    writers: dict[int, str] = {}


Line = Begun | Proposed | Settled | Stated | Carried
_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


def moved(written: Written, old: str, new: str) -> Iterator[Written]:
    """The writes that give a value the path that it has under the flow's new id."""
    for mark in "/@":
        flows = written.kind == "once" or (mark == "/" and written.type == "state")
        if written.value is not None and flows and written.path.startswith(old + mark):
            path = new + written.path.removeprefix(old)
            yield msgspec.structs.replace(written, path=path)
            yield msgspec.structs.replace(written, value=None)


def path_of(written: Written, old: str, new: str) -> str:
    """The path that a resource has under the flow's new id."""
    of_flow = written.type == "state" and old and new and written.path.startswith(f"{old}/")
    return new + written.path.removeprefix(old) if of_flow else written.path


def moment(line: Line) -> float:
    """When a line was written (seconds since the epoch)."""
    return line.entry.time if isinstance(line, Carried) else getattr(line, "time", 0.0)


def framed(line: Line) -> bytes:
    """A line as it stands in the file."""
    payload = msgspec.json.encode(line)
    return b"%08x %s\n" % (zlib.crc32(payload), payload)


def begin() -> bytes:
    """A first line."""
    return framed(Begun(id=uuid.uuid4().hex))


#: bytes of a first line
HEAD = len(begin())


def lines_in(data: bytes, path: Path, offset: int) -> Iterator[tuple[Line, int]]:
    """The whole lines in these bytes, and where each ends.

    Raises:
        LedgerDamaged: a line before the last is torn or changed.
    """
    position = 0
    while (end := data.find(b"\n", position)) >= 0:
        line = read_line(data[position:end])
        if line is None:
            if end + 1 == len(data):
                return
            raise LedgerDamaged(
                f"{path} is damaged at byte {offset + position}",
                hint="`cellrail doctor --fix` makes it anew from what can be read and the journals",
            )
        yield line, offset + end + 1
        position = end + 1


def read_line(data: bytes) -> Line | None:
    """The record of a line; None where it is not what was written."""
    try:
        if zlib.crc32(data[9:]) != int(data[:8], 16):
            return None
        return _decoder.decode(data[9:])
    except (ValueError, msgspec.MsgspecError):
        return None
