r"""A run's journal: one file, appended to by its owner alone.

Layout: the magic `CRJ1\n`, then frames. A frame is length (u32), CRC-32 of the payload (u32), MAC
(32 bytes) and payload (a JSON record). The MAC is chained: HMAC-SHA256 over the MAC before it and
the payload, beginning with the run's id, so a record that is changed, moved, or of another run does
not verify.

A frame is one `write`. A torn frame at the end was never committed: readers stop before it, and an
owner that takes the journal over cuts it off. The owner holds an operating-system lock on the file
for as long as it lives; a run whose lock is free and whose journal has no end is interrupted.

A lock can be lost without its owner's knowing (a file system that was away, a machine that slept).
So an owner appends only to the file as it left it: where another one has written since, it is of an
older epoch, and refused.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import threading
import uuid
import weakref
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from cellrail_state import locks
from cellrail_state.crashpoints import CrashPoints, NoCrash
from cellrail_state.errors import (
    JournalDamaged,
    RunBegun,
    RunIsOwned,
    RunTakenOver,
    StoreNotWritable,
    Untrusted,
)
from cellrail_state.keys import signature
from cellrail_state.model import Record, decode, encode
from cellrail_state.objects import sync_folder

MAGIC = b"CRJ1\n"
SUFFIX = ".journal"
_HEAD = struct.Struct("<II32s")
#: every record begins so; finds whole frames behind a damaged length
_RECORD = b'{"type":"'
#: whoever looks whether a run is owned holds its lock for a moment
_PATIENCE_SECONDS = 0.5


class Entry(msgspec.Struct, frozen=True):
    """A record as it stands in its journal."""

    #: where its frame begins and ends
    offset: int
    end: int
    mac: bytes
    payload: bytes

    def record(self) -> Record:
        """The record.

        Raises:
            JournalDamaged: the payload is no record of ours.
        """
        try:
            return decode(self.payload)
        except msgspec.MsgspecError as error:
            raise JournalDamaged(f"a record cannot be read: {error}") from error


def first_mac(run_id: str) -> bytes:
    """What the first record's MAC is chained to."""
    return run_id.encode()


class Journal:
    """The owner's end of a run's journal."""

    def __init__(
        self,
        descriptor: int,
        path: Path,
        key: bytes,
        mac: bytes,
        points: CrashPoints,
        *,
        length: int = 0,
    ) -> None:
        self._descriptor = descriptor
        self._path = path
        self._key = key
        self._mac = mac
        self._points = points
        #: of the file, as this owner left it
        self._length = length
        self._closing = threading.Lock()
        _close_in_forks(self)

    @classmethod
    def create(
        cls,
        path: Path,
        first: Record,
        *,
        run_id: str,
        key: bytes,
        points: CrashPoints | None = None,
    ) -> Journal:
        """Create a run's journal with its first record, and own it.

        It appears under its name with that record or not at all: a kill leaves no run that cannot
        be read.

        Raises:
            StoreNotWritable: the file cannot be made.
            RunBegun: somebody else has begun this run.
        """
        # Windows gives no open file another name
        named = sys.platform == "win32"
        made = path if named else path.with_name(f".{path.stem}.{uuid.uuid4().hex}.tmp")
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND
            descriptor = os.open(made, flags, 0o600)
        except FileExistsError as error:
            raise _begun(run_id) from error
        except OSError as error:
            raise StoreNotWritable(
                f"a journal cannot be made ({error.strerror}): {path}",
                hint="check permissions and room, or choose another store with --store",
            ) from error
        if not locks.wait_lock(descriptor, _PATIENCE_SECONDS):
            os.close(descriptor)
            raise RunIsOwned(f"run {run_id} is already running")
        journal = cls(descriptor, path, key, first_mac(run_id), points or NoCrash())
        try:
            journal._append(MAGIC, journal._frame(first))
            journal.sync()
            if not named:
                # of several processes that begin the same run one succeeds
                os.link(made, path)
                named = True
            sync_folder(path.parent)
        except BaseException as error:
            # a run that could not begin is none
            journal.close()
            if named:
                with contextlib.suppress(OSError):
                    path.unlink()
            if isinstance(error, FileExistsError):
                raise _begun(run_id) from error
            if isinstance(error, OSError):
                raise journal._not_writable(error) from error
            raise
        finally:
            if made != path:
                with contextlib.suppress(OSError):
                    made.unlink()
        return journal

    @classmethod
    def reopen(
        cls,
        path: Path,
        *,
        run_id: str,
        keys: Sequence[bytes],
        points: CrashPoints | None = None,
    ) -> tuple[Journal, list[Entry]]:
        """Own a run whose owner is gone; what its journal holds.

        A torn frame at the end is cut off: it was never committed.

        Args:
            path: the journal.
            run_id: the run.
            keys: the keys that may have signed it; its own signs what is appended.
            points: where a test may end the process.

        Raises:
            RunIsOwned: its owner lives.
            Untrusted: it was signed with none of the keys.
            JournalDamaged: a record before the end is torn or changed.
            StoreNotWritable: the file cannot be written.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
        except OSError as error:
            raise StoreNotWritable(
                f"the journal cannot be written ({error.strerror}): {path}",
                hint="check its permissions",
            ) from error
        try:
            if not locks.wait_lock(descriptor, _PATIENCE_SECONDS):
                raise RunIsOwned(
                    f"run {run_id} is still running",
                    hint="wait for its end, or stop it (Ctrl-C where it runs) first",
                )
            entries = list(read(path))
            key = next((key for key in keys if chain_holds(entries, run_id, key)), None)
            if key is None or not entries:
                raise Untrusted(
                    f"run {run_id} was signed by somebody else; only who has that key goes on "
                    "with it",
                    hint=f"`cellrail key import` that key, or make a new run of it: "
                    f"cellrail restart {run_id}",
                )
            length = entries[-1].end
            if length < os.fstat(descriptor).st_size:
                os.ftruncate(descriptor, length)
                os.fsync(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        mac = entries[-1].mac
        return cls(descriptor, path, key, mac, points or NoCrash(), length=length), entries

    def append(self, record: Record) -> None:
        """Append a record in one write. It survives this process; `sync` makes it durable.

        Raises:
            StoreNotWritable: there is no room; the journal is as it was.
            RunTakenOver: another owner has written; nothing was.
        """
        self._append(b"", self._frame(record))

    def _frame(self, record: Record) -> bytes:
        payload = encode(record)
        self._next = signature(self._key, self._mac, payload)
        return _HEAD.pack(len(payload), zlib.crc32(payload), self._next) + payload

    def _append(self, magic: bytes, frame: bytes) -> None:
        data = magic + frame
        self._points.reach("journal.before_append")
        before = os.fstat(self._descriptor).st_size
        if before != self._length:
            raise RunTakenOver(
                f"run {self._path.stem} was continued by another process; this one stops",
                hint=f"cellrail show {self._path.stem}",
            )
        try:
            written = os.write(self._descriptor, data)
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, before)
            raise self._not_writable(error) from error
        self._mac, self._length = self._next, before + len(data)
        self._points.reach("journal.after_append")

    def sync(self) -> None:
        """Make all that was appended durable.

        Raises:
            StoreNotWritable: the disk refuses.
        """
        with self._closing:  # another thread may close it now
            if self._descriptor < 0:
                return
            try:
                if hasattr(os, "fdatasync"):
                    os.fdatasync(self._descriptor)
                else:
                    os.fsync(self._descriptor)
            except OSError as error:
                raise self._not_writable(error) from error

    def _not_writable(self, error: OSError) -> StoreNotWritable:
        return StoreNotWritable(
            f"the journal cannot be written ({error.strerror}): {self._path}",
            hint="make room; the run can then be restarted",
        )

    def close(self) -> None:
        """Give the run's ownership back."""
        with self._closing:
            self.drop()

    def drop(self) -> None:
        """Close this process's handle; in a forked child the owner keeps its lock."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _close_in_forks(journal: Journal) -> None:
    # a child that inherits the open file would keep a dead owner's run owned
    if not hasattr(os, "register_at_fork"):
        return
    known = weakref.ref(journal)

    def drop() -> None:
        here = known()
        if here is not None:
            here.drop()

    os.register_at_fork(after_in_child=drop)


def read(path: Path, offset: int = 0) -> Iterator[Entry]:
    """The whole records of a journal, in order, from an offset on.

    Args:
        path: the journal.
        offset: 0, or the `end` of an entry.

    Raises:
        JournalDamaged: a record before the end is torn or changed, or the file is no journal.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
    except OSError as error:
        raise JournalDamaged(f"the journal {path} cannot be read: {error.strerror}") from error
    position = 0
    if offset == 0:
        if data[: len(MAGIC)] != MAGIC:
            if MAGIC.startswith(data[: len(MAGIC)]):
                return
            raise JournalDamaged(f"{path} is no journal")
        position = len(MAGIC)
    view = memoryview(data)
    while position + _HEAD.size <= len(data):
        length, crc, mac = _HEAD.unpack_from(data, position)
        end = position + _HEAD.size + length
        if not length and not any(view[position:]):
            return  # the room was made, the bytes were never written
        if end > len(data):
            if _frame_behind(data, position):
                raise _damaged(path, offset + position)
            return
        payload = bytes(view[position + _HEAD.size : end])
        if zlib.crc32(payload) != crc:
            if end == len(data):
                return
            raise _damaged(path, offset + position)
        yield Entry(offset + position, offset + end, mac, payload)
        position = end


def _frame_behind(data: bytes, position: int) -> bool:
    """Whether a whole frame stands further on: then this one is damaged, not torn."""
    found = data.find(_RECORD, position + _HEAD.size + 1)
    while found >= 0:
        length, crc, _ = _HEAD.unpack_from(data, found - _HEAD.size)
        payload = data[found : found + length]
        if len(payload) == length and zlib.crc32(payload) == crc:
            return True
        found = data.find(_RECORD, found + 1)
    return False


def _damaged(path: Path, offset: int) -> JournalDamaged:
    return JournalDamaged(
        f"{path.name} is damaged at byte {offset}", hint="`cellrail doctor` tells what it hurts"
    )


def _begun(run_id: str) -> RunBegun:
    return RunBegun(f"run {run_id} was begun by another process", hint=f"cellrail show {run_id}")


def whole_length(path: Path) -> int:
    """Length of the journal without a torn frame at its end."""
    end = 0
    for entry in read(path):
        end = entry.end
    return end


def chain_holds(entries: list[Entry], run_id: str, key: bytes) -> bool:
    """Whether every record was signed with this key, in this order, for this run."""
    import hmac

    mac = first_mac(run_id)
    for entry in entries:
        mac = signature(key, mac, entry.payload)
        if not hmac.compare_digest(mac, entry.mac):
            return False
    return True
