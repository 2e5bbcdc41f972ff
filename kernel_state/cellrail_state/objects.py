"""Bytes by content address, in files.

An object's address is the BLAKE3 digest of its bytes, so equal bytes are stored once, and bytes
that changed on disk are noticed when they are read. An object appears under its name whole or not
at all: it is written to a temporary file, made durable, and renamed. `flush` makes the names
durable; a journal record may point to an object only after that. Small objects are no files: they
travel inside the record that points to them. Large ones are cut into parts of `PART` bytes, each an
object of its own, written and read by several threads: a change of a few bytes writes one part.

Bytes that consist of repetitions are stored compressed (see `packing`), under the address of what
lies in the file.

Which bytes this process has put before is remembered by their XXH3 digest (25 GB/s, against
BLAKE3's 4): a wrong hit would need two contents of one process that collide in 128 bits.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import re
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
from blake3 import blake3
from xxhash import xxh3_128_digest

from cellrail_state.crashpoints import CrashPoints, NoCrash
from cellrail_state.errors import ObjectDamaged, ObjectMissing, StateError, StoreNotWritable
from cellrail_state.model import ObjectRef
from cellrail_state.packing import pack, unpack

#: up to this many bytes travel inside the record
INLINE_LIMIT = 4096
#: bytes of a part
PART = 4 << 20
#: objects of more bytes are cut into parts
PARTED = 2 * PART
_THREADS = 4
#: files that are made durable at the same time, and the fewest for which that pays
_WAITING, _FEW = 8, 4
_DIGEST_LENGTH = 64
_HEX = "0123456789abcdef"
_ADDRESS = re.compile(f"[0-9a-f]{{{_DIGEST_LENGTH}}}")
_RETIRED = ".retired"

Bytes = bytes | bytearray | memoryview
_T = TypeVar("_T")
_R = TypeVar("_R")


class ObjectStore(Protocol):
    """What a capture writes to and a restore reads from."""

    def put(self, data: Bytes) -> ObjectRef:
        """Store bytes; the reference to them."""

    def put_all(self, parts: Sequence[Bytes]) -> list[ObjectRef]:
        """Store several, each as an object of its own; the references to them, in order."""

    def flush(self) -> None:
        """Make all that was put durable."""

    def get(self, ref: ObjectRef) -> bytes:
        """The bytes behind a reference, checked."""

    def buffer(self, ref: ObjectRef) -> bytearray | mmap.mmap:
        """The bytes behind a reference in memory of their own, checked."""


def make_ref(data: Bytes) -> ObjectRef:
    """A reference to bytes, which it holds where they are few."""
    view = _flat(data)
    if view.nbytes > PARTED:
        return join([make_ref(part) for part in cut(view)])
    return ObjectRef(
        digest=blake3(view).hexdigest(),
        size=view.nbytes,
        inline=bytes(view) if view.nbytes <= INLINE_LIMIT else None,
    )


def _made(view: memoryview, packed: bytes) -> ObjectRef:
    """A reference to bytes that are stored compressed."""
    ref = make_ref(packed)
    return msgspec.structs.replace(ref, size=view.nbytes, packed=len(packed))


def cut(view: memoryview) -> list[memoryview]:
    """Large bytes in parts."""
    return [view[start : start + PART] for start in range(0, view.nbytes, PART)]


def join(parts: Sequence[ObjectRef]) -> ObjectRef:
    """The reference to what these parts make together."""
    digest = blake3(b"parts" + "".join(part.digest for part in parts).encode()).hexdigest()
    return ObjectRef(digest=digest, size=sum(part.size for part in parts), parts=tuple(parts))


def _pieces(view: memoryview, ref: ObjectRef) -> list[memoryview]:
    """The place of each part of a reference, however large its parts were cut."""
    ends = itertools.accumulate(part.size for part in ref.parts)
    return [view[end - part.size : end] for end, part in zip(ends, ref.parts, strict=True)]


def _flat(data: Bytes) -> memoryview:
    view = memoryview(data)
    if not view.contiguous or not view.nbytes:
        return memoryview(view.tobytes())
    return view.cast("B")


def checked(data: Bytes, ref: ObjectRef) -> None:
    """Compare bytes with their address.

    Raises:
        ObjectDamaged: they are not what the address says.
    """
    if ref.parts:
        view = memoryview(data)
        if len(data) == ref.size and join(ref.parts).digest == ref.digest:
            for part, piece in zip(ref.parts, _pieces(view, ref), strict=True):
                checked(piece, part)
            return
    elif len(data) == ref.stored and blake3(data).hexdigest() == ref.digest:
        return
    raise damaged(ref)


def _raw(data: Bytes, ref: ObjectRef) -> Bytes:
    """What was put, of bytes as they are stored; both checked."""
    checked(data, ref)
    if not ref.packed:
        return data
    try:
        return unpack(data, ref.size)
    except StateError as error:
        raise damaged(ref) from error


def damaged(ref: ObjectRef) -> ObjectDamaged:
    """What to raise where bytes are not what their address says."""
    return ObjectDamaged(
        f"the object {ref.digest} is damaged",
        hint="`cellrail doctor` tells which runs it hurts and which steps still restart",
    )


class Objects:
    """The objects of a store, as files."""

    def __init__(self, folder: Path, *, points: CrashPoints | None = None) -> None:
        self._folder = folder
        self._points = points or NoCrash()
        self._unflushed: set[Path] = set()
        self._lock = threading.Lock()
        self._known: dict[tuple[bytes, int], ObjectRef] = {}

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
        view = _flat(data)
        if view.nbytes <= PARTED:
            return self._put(view)
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="cellrail-objects") as pool:
            return join(list(pool.map(self._put, cut(view))))

    def put_all(self, parts: Sequence[Bytes]) -> list[ObjectRef]:
        """Store several, each as an object of its own; the references to them, in order.

        Raises:
            StoreNotWritable: there is no room or no permission.
        """
        views = [_flat(data) for data in parts]
        # what is there already makes nobody wait
        news = [n for n, view in enumerate(views) if self._is_news(view)]
        made = dict(zip(news, _at_once(self._put, [views[n] for n in news]), strict=True))
        return [made.get(n) or self.put(view) for n, view in enumerate(views)]

    def _is_news(self, view: memoryview) -> bool:
        """Whether bytes become a file of their own that this process has not put before."""
        size = view.nbytes
        return INLINE_LIMIT < size <= PARTED and (xxh3_128_digest(view), size) not in self._known

    def _put(self, view: memoryview) -> ObjectRef:
        if view.nbytes <= INLINE_LIMIT:
            return make_ref(view)
        fingerprint = (xxh3_128_digest(view), view.nbytes)
        ref, packed = self._known.get(fingerprint), None
        if ref is None:
            packed = pack(view)
            ref = self._known[fingerprint] = (
                make_ref(view) if packed is None else _made(view, packed)
            )
        if ref.inline is not None:
            return ref
        path = self.path(ref.digest)
        try:
            if self._touch(path, ref.stored):
                # another process may have renamed it a moment ago
                self._remember(path.parent)
            elif ref.packed:
                self._write(path, memoryview(packed or pack(view) or b""))
            else:
                self._write(path, view)
        except OSError as error:
            raise _not_writable(path.parent, error) from error
        return ref

    def _remember(self, folder: Path) -> None:
        with self._lock:
            self._unflushed.add(folder)

    def _touch(self, path: Path, size: int) -> bool:
        """Whether the object is there; marks it as new, so that no prune takes it now."""
        try:
            os.utime(path)
            # looked at afterwards: a prune that came in between has moved it away
            return path.stat().st_size == size
        except OSError:
            return False

    def _write(self, path: Path, view: memoryview) -> None:
        self._points.reach("objects.before_write")
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._remember(self._folder)
        temporary = path.parent / f".{uuid.uuid4().hex}.tmp"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            try:
                done = 0
                while done < view.nbytes:
                    done += os.write(descriptor, view[done:])
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
        self._remember(path.parent)

    def flush(self) -> None:
        """Make the names of all that was put durable: one fsync per folder.

        Raises:
            StoreNotWritable: they cannot be; the next flush tries again.
        """
        while folders := tuple(self._unflushed):
            for error in filter(None, _at_once(self._sync, folders)):
                raise error

    def _sync(self, folder: Path) -> StoreNotWritable | None:
        # before: a name that another thread makes meanwhile is flushed again
        self._unflushed.discard(folder)
        try:
            sync_folder(folder)
        except OSError as error:
            self._remember(folder)
            return _not_writable(folder, error)
        return None

    def get(self, ref: ObjectRef) -> bytes:
        """The bytes behind a reference.

        Raises:
            ObjectMissing: they are not there.
            ObjectDamaged: they are not what the address says.
        """
        if ref.inline is not None:
            return bytes(_raw(ref.inline, ref))
        return bytes(self.buffer(ref))

    def buffer(self, ref: ObjectRef) -> bytearray | mmap.mmap:
        """The bytes behind a reference in memory of their own.

        Raises:
            ObjectMissing: they are not there.
            ObjectDamaged: they are not what the address says.
        """
        if ref.inline is not None:
            return bytearray(_raw(ref.inline, ref))
        if ref.parts and join(ref.parts) != ref:
            raise damaged(ref)
        if not ref.parts:
            data = bytearray(ref.size)
            self._read(memoryview(data), ref)
            return data
        # memory that the system fills with zeros only where it is touched, so by the threads
        memory = _own_memory(ref.size)
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="cellrail-objects") as pool:
            list(pool.map(self._read, _pieces(memoryview(memory), ref), ref.parts))
        return memory

    def _read(self, view: memoryview, ref: ObjectRef) -> None:
        """Fill memory with an object's bytes, checked."""
        if ref.inline is not None:
            view[:] = _raw(ref.inline, ref)
        elif ref.packed:
            stored = bytearray(ref.packed)
            self._read_file(memoryview(stored), ref)
            view[:] = _raw(stored, ref)
        else:
            self._read_file(view, ref)
            checked(view, ref)

    def _read_file(self, view: memoryview, ref: ObjectRef) -> None:
        path = self.path(ref.digest)
        try:
            try:
                count = _fill(view, path)
            except FileNotFoundError:
                count = _fill(view, _recalled(path))
        except OSError as error:
            raise _missing(ref) from error
        if count != view.nbytes:
            raise damaged(ref)

    def contains(self, ref: ObjectRef) -> bool:
        """Whether the bytes are there (their size is looked at, not their content)."""
        try:
            paths = [(_recalled(self.path(f.digest)), f.stored) for f in ref.files()]
            return all(path.stat().st_size == size for path, size in paths)
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
        self._points.reach("objects.before_delete")
        try:
            path.rename(aside)
            self._points.reach("objects.before_unlink")
            found = aside.stat()
            if found.st_mtime >= before:
                aside.rename(path)
                return 0
            aside.unlink()
        except FileNotFoundError:
            return 0
        self._points.reach("objects.after_delete")
        return found.st_size

    def recall(self) -> None:
        """Put back what a prune that was killed had moved aside; it may have been needed again."""
        for path in list(self.files()):
            if path.name.endswith(_RETIRED):
                _recalled(path.with_name(path.name.removesuffix(_RETIRED)))
                path.unlink(missing_ok=True)

    def files(self, beginning: str = _HEX) -> Iterator[Path]:
        """Every file of the objects folder, temporary ones too.

        Args:
            beginning: first digits of their addresses, those of all files by default.
        """
        for folder in sorted(self._folder.glob(f"[{beginning}][{_HEX}]")):
            yield from sorted(folder.iterdir())

    def size(self, *, roughly: bool = False) -> int:
        """Bytes that the objects take.

        Args:
            roughly: look at one folder in sixteen: addresses are hashes, so that each holds about
                as much as any other.
        """
        total = 0
        for path in self.files("0" if roughly else _HEX):
            with contextlib.suppress(OSError):
                total += path.stat().st_size
        return total * 16 if roughly else total


def _own_memory(size: int) -> mmap.mmap:
    """Memory of this process: what a forked child writes into it does not show here."""
    if not hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, size)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _fill(view: memoryview, path: Path) -> int:
    """Read a file into memory; how long it is, or one byte more than the memory where it is longer.

    With few calls: while values are loaded, each has to wait until another thread may run.
    """
    file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        spare, done = bytearray(1), 0
        while done < view.nbytes and (count := _read_into(file, view[done:], spare)):
            done += count
    finally:
        os.close(file)
    return done


def _read_into(file: int, view: memoryview, spare: bytearray) -> int:
    if hasattr(os, "readv"):
        return os.readv(file, [view, spare])
    data = os.read(file, view.nbytes + 1)
    view[: len(data)] = data[: view.nbytes]
    return len(data)


def _recalled(path: Path) -> Path:
    """An object's path; the object is put back where a prune that was killed had moved it aside."""
    if not path.exists():
        with contextlib.suppress(OSError):
            path.with_name(path.name + _RETIRED).rename(path)
    return path


def _at_once(act: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
    """What comes of each, in order; where there are many, several threads wait for the disk."""
    if len(items) < _FEW:
        return [act(item) for item in items]
    with ThreadPoolExecutor(_WAITING, thread_name_prefix="cellrail-objects") as pool:
        return list(pool.map(act, items))


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


def _not_writable(folder: Path, error: OSError) -> StoreNotWritable:
    return StoreNotWritable(
        f"the store cannot be written ({error.strerror}): {folder}",
        hint="make room or choose another store with --store",
    )


def _missing(ref: ObjectRef) -> ObjectMissing:
    return ObjectMissing(
        f"the object {ref.digest} is missing",
        hint="`cellrail doctor` tells which runs it hurts and which steps still restart",
    )
