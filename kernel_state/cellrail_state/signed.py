"""Small signed files in a folder: made once, or replaced, whole and durable.

A file is a MAC and a JSON record; it is signed for its name, so that it stands for no other. Making
one that is there already fails for all but the first: that decides races between processes, and
holds whoever is killed in between.
"""

from __future__ import annotations

import hmac
import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from cellrail_state.errors import StoreError, StoreNotWritable, Untrusted
from cellrail_state.keys import KeyRing, signature, untrusted
from cellrail_state.objects import sync_folder
from cellrail_state.texts import json_bytes

_MAC_BYTES = 32
T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)


class SignedFiles:
    """The signed files below one folder of a store."""

    def __init__(self, folder: Path, *, keyring: KeyRing, what: str) -> None:
        """Know the folder.

        Args:
            folder: made when the first file is.
            keyring: signs, and tells whose signatures count.
            what: what a file is, in an error's words: "a claim".
        """
        self.folder = folder
        self._keyring, self._what = keyring, what

    def make(self, name: str, record: msgspec.Struct) -> bool:
        """Make a file that is not there; whether this call has made it. Durable.

        Args:
            name: relative to the folder.
            record: its content.

        Raises:
            StoreNotWritable: there is no room or no permission.
        """
        return self.make_all([name], record, signed_as=name)[0]

    def make_all(
        self, names: Sequence[str], record: msgspec.Struct, *, signed_as: str
    ) -> list[bool]:
        """Make files of one content, those that are not there; which this call has made. Durable.

        It takes no longer than making one: the content is written once, and linked.

        Args:
            names: relative to the folder, all in one.
            record: their content.
            signed_as: what they stand for.

        Raises:
            StoreNotWritable: there is no room or no permission.
        """
        paths = [self.folder / name for name in names]
        try:
            temporary = self._written(paths[0], record, signed_as)
            try:
                made = [_linked(temporary, path) for path in paths]
            finally:
                temporary.unlink(missing_ok=True)
            sync_folder(paths[0].parent)
        except OSError as error:
            raise self._not_writable(paths[0], error) from error
        return made

    def replace(self, name: str, record: msgspec.Struct, *, signed_as: str = "") -> None:
        """Make a file, or make it anew. Durable.

        Args:
            name: relative to the folder.
            record: its content.
            signed_as: what it stands for, where that is not its name.

        Raises:
            StoreNotWritable: there is no room or no permission.
        """
        path = self.folder / name
        try:
            self._written(path, record, signed_as or name).replace(path)
            sync_folder(path.parent)
        except OSError as error:
            raise self._not_writable(path, error) from error

    def remove(self, name: str) -> bool:
        """Delete a file; whether it was there."""
        try:
            (self.folder / name).unlink()
        except FileNotFoundError:
            return False
        return True

    def read(
        self, name: str, kind: type[T], *, signed_as: str = "", keys: Sequence[bytes] | None = None
    ) -> T | None:
        """A file's record; None where there is none.

        Args:
            name: relative to the folder.
            kind: of the record.
            signed_as: what it stands for, where that is not its name.
            keys: the keys that may have signed it, where they are known already.

        Raises:
            Untrusted: nobody whose key is here has signed it for this name.
            StoreError: it is damaged.
        """
        path = self.folder / name
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        mac, payload = data[:_MAC_BYTES], data[_MAC_BYTES:]
        signed = (signed_as or name).encode()
        found = self._keyring.verifying_keys() if keys is None else keys
        if not any(hmac.compare_digest(mac, signature(key, signed, payload)) for key in found):
            raise untrusted(self.folder.parent)
        try:
            return msgspec.json.decode(payload, type=kind)
        except msgspec.MsgspecError as error:
            raise StoreError(f"{path} is damaged: {error}") from error

    def adopt(
        self, pattern: str, kind: type[S], change: Callable[[S], S | None], *, signed_as: str = ""
    ) -> None:
        """Sign what somebody else has signed, for whoever trusts where it comes from.

        Args:
            pattern: of the files, below the folder.
            kind: of their records.
            change: what is adopted of a record; None for nothing.
            signed_as: what they stand for, where that is not their names.
        """
        for path in list(self.folder.glob(pattern)):
            name = path.relative_to(self.folder).as_posix()
            try:
                self.read(name, kind, signed_as=signed_as)
                continue
            except Untrusted:
                payload = path.read_bytes()[_MAC_BYTES:]
            try:
                record = change(msgspec.json.decode(payload, type=kind))
            except msgspec.MsgspecError:
                continue
            if record is not None:
                self.replace(name, record, signed_as=signed_as)

    def keys(self) -> Sequence[bytes]:
        """The keys that may have signed, for whoever reads many files."""
        return self._keyring.verifying_keys()

    def _written(self, path: Path, record: msgspec.Struct, signed: str) -> Path:
        """A file beside `path` that holds this, signed, durably."""
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            for parent in (path.parent, self.folder):
                sync_folder(parent.parent)
        payload = json_bytes(record)
        mac = signature(self._keyring.key(), signed.encode(), payload)
        temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
        with temporary.open("wb") as file:
            file.write(mac + payload)
            file.flush()
            os.fsync(file.fileno())
        return temporary

    def _not_writable(self, path: Path, error: OSError) -> StoreNotWritable:
        return StoreNotWritable(
            f"{self._what} cannot be written ({error.strerror}): {path}",
            hint="make room in the store",
        )


def _linked(file: Path, path: Path) -> bool:
    try:
        os.link(file, path)
    except FileExistsError:
        return False
    return True
