"""Bytes by content address, in files.

An object's address is the BLAKE3 digest of its bytes, so equal bytes are stored once, and bytes
that changed on disk are noticed when they are read. An object appears under its name whole or not
at all: it is written to a temporary file, made durable, and renamed. `flush` makes the names
durable; a journal record may point to an object only after that. Small objects are no files: they
travel inside the record that points to them.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from blake3 import blake3

from cellrail_state.crashpoints import CrashPoints, NoCrash
from cellrail_state.errors import ObjectDamaged, ObjectMissing, StoreNotWritable
from cellrail_state.model import ObjectRef

#: up to this many bytes travel inside the record
INLINE_LIMIT = 4096
_DIGEST_LENGTH = 64
_ADDRESS = re.compile(f"[0-9a-f]{{{_DIGEST_LENGTH}}}")
_RETIRED = ".retired"

Bytes = bytes | bytearray | memoryview


class ObjectStore(Protocol):
    """What a capture writes to and a restore reads from."""

    def put(self, data: Bytes) -> ObjectRef:
        """Store bytes; the reference to them."""

    def flush(self) -> None:
        """Make all that was put durable."""

    def get(self, ref: ObjectRef) -> bytes:
        """The bytes behind a reference, checked."""

    def buffer(self, ref: ObjectRef) -> bytearray:
        """The bytes behind a reference in memory of their own, checked."""


def make_ref(data: Bytes) -> ObjectRef:
    """A reference to bytes, which it holds where they are few."""
    view = _flat(data)
    size = view.nbytes
    return ObjectRef(
        digest=blake3(view).hexdigest(),
        size=size,
        inline=bytes(view) if size <= INLINE_LIMIT else None,
    )


def _flat(data: Bytes) -> memoryview:
    view = memoryview(data)
    if not view.contiguous or not view.nbytes:
        return memoryview(view.tobytes())
    return view.cast("B")


def checked(data: bytes | bytearray, ref: ObjectRef) -> None:
    """Compare bytes with their address.

    Raises:
        ObjectDamaged: they are not what the address says.
    """
    if len(data) != ref.size or blake3(data).hexdigest() != ref.digest:
        raise ObjectDamaged(
            f"the object {ref.digest} is damaged",
            hint="`cellrail doctor` tells which runs it hurts and which steps still restart",
        )


class Objects:
    """The objects of a store, as files."""

    def __init__(self, folder: Path, *, points: CrashPoints | None = None) -> None:
        self._folder = folder
        self._points = points or NoCrash()
        self._unflushed: set[Path] = set()

    def path(self, digest: str) -> Path:
        """Where an object lies.

        Raises:
            ObjectDamaged: this is no address; it would lead out of the folder.
        """
        if not _ADDRESS.fullmatch(digest):
            raise ObjectDamaged(f"{digest[:80]!r} is no object's address")
        return self._folder / digest[:2] / digest

    def put(self, data: Bytes) -> ObjectRef:
        """Store bytes; the reference to them. Durable after `flush`.

        Raises:
            StoreNotWritable: there is no room or no permission.
        """
        ref = make_ref(data)
        if ref.inline is not None:
            return ref
        path = self.path(ref.digest)
        try:
            if self._touch(path, ref.size):
                # another process may have renamed it a moment ago
                self._unflushed.add(path.parent)
                return ref
            self._write(path, memoryview(data))
        except OSError as error:
            raise StoreNotWritable(
                f"the store cannot be written ({error.strerror}): {path.parent}",
                hint="make room or choose another store with --store",
            ) from error
        return ref

    def _touch(self, path: Path, size: int) -> bool:
        """Whether the object is there; marks it as new, so that no prune takes it now."""
        try:
            os.utime(path)
            # looked at afterwards: a prune that came in between has moved it away
            return path.stat().st_size == size
        except OSError:
            return False

    def _write(self, path: Path, data: memoryview) -> None:
        self._points.reach("objects.before_write")
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._unflushed.add(self._folder)
        temporary = path.parent / f".{uuid.uuid4().hex}.tmp"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            try:
                flat = _flat(data)
                done = 0
                while done < flat.nbytes:
                    done += os.write(descriptor, flat[done:])
                _datasync(descriptor)
            finally:
                os.close(descriptor)
            self._points.reach("objects.before_rename")
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        self._points.reach("objects.after_rename")
        self._unflushed.add(path.parent)

    def flush(self) -> None:
        """Make the names of all that was put durable: one fsync per folder."""
        while self._unflushed:
            sync_folder(self._unflushed.pop())

    def get(self, ref: ObjectRef) -> bytes:
        """The bytes behind a reference.

        Raises:
            ObjectMissing: they are not there.
            ObjectDamaged: they are not what the address says.
        """
        if ref.inline is not None:
            checked(ref.inline, ref)
            return ref.inline
        try:
            data = self.path(ref.digest).read_bytes()
        except OSError as error:
            raise _missing(ref) from error
        checked(data, ref)
        return data

    def buffer(self, ref: ObjectRef) -> bytearray:
        """The bytes behind a reference in memory of their own.

        Raises:
            ObjectMissing: they are not there.
            ObjectDamaged: they are not what the address says.
        """
        if ref.inline is not None:
            data = bytearray(ref.inline)
        else:
            data = bytearray(ref.size)
            try:
                with self.path(ref.digest).open("rb", buffering=0) as file:
                    view = memoryview(data)
                    done = 0
                    while done < ref.size and (count := file.readinto(view[done:])):
                        done += count
                    if done < ref.size or file.read(1):
                        data = bytearray()
            except OSError as error:
                raise _missing(ref) from error
        checked(data, ref)
        return data

    def contains(self, ref: ObjectRef) -> bool:
        """Whether the bytes are there (their size is looked at, not their content)."""
        if ref.inline is not None:
            return True
        try:
            return self.path(ref.digest).stat().st_size == ref.size
        except OSError:
            return False

    def retire(self, path: Path, *, before: float) -> int:
        """Delete an object that was last put before a moment (seconds since the epoch).

        It is moved aside first and its time is read then: one that a step put again in between goes
        back, and a `put` that comes later does not find it and writes it anew.

        Returns:
            The bytes freed; 0 where it is gone already or too young.
        """
        aside = path.with_name(path.name + _RETIRED)
        try:
            path.rename(aside)
            found = aside.stat()
            if found.st_mtime >= before:
                aside.rename(path)
                return 0
            aside.unlink()
        except FileNotFoundError:
            return 0
        return found.st_size

    def files(self) -> Iterator[Path]:
        """Every file of the objects folder, temporary ones too."""
        for folder in sorted(self._folder.glob("[0-9a-f][0-9a-f]")):
            yield from sorted(folder.iterdir())

    def size(self) -> int:
        """Bytes that the objects take."""
        total = 0
        for path in self.files():
            with contextlib.suppress(OSError):
                total += path.stat().st_size
        return total


def is_object(path: Path) -> bool:
    """Whether a file of the folder is an object (not a temporary file)."""
    return len(path.name) == _DIGEST_LENGTH and not path.name.startswith(".")


def sync_folder(folder: Path) -> None:
    """Make a folder's names durable."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _datasync(descriptor: int) -> None:
    if hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)


def _missing(ref: ObjectRef) -> ObjectMissing:
    return ObjectMissing(
        f"the object {ref.digest} is missing",
        hint="`cellrail doctor` tells which runs it hurts and which steps still restart",
    )
