"""Keys and trust. Nothing here lies in a store.

A user has one signing key (0600, made when it is first needed). Keys of other machines can be
imported; they verify, and never sign. A foreign store can be adopted as it is (`trust`): for each
of its journals the length and digest are remembered, so that what is added or changed later is
refused again.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from cellrail_state.errors import StateError, Untrusted

_KEY_BYTES = 32
_EXPORT_PREFIX = "cellrail-key-1:"


class KeyRing:
    """The keys of one user.

    Args:
        folder: where they lie; made 0700 when the first one is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own: bytes | None = None

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self._folder

    def key(self) -> bytes:
        """This user's signing key (32 bytes); made when first needed.

        Raises:
            StateError: the folder cannot be used.
        """
        if self._own is None:
            self._own = self._read_or_make()
        return self._own

    def _read_or_make(self) -> bytes:
        path = self._folder / "signing.key"
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not path.exists():
                # linked whole under its name: of two processes one wins, and both read its key
                temporary = self._folder / f".{secrets.token_hex(8)}.tmp"
                _write_private(temporary, secrets.token_bytes(_KEY_BYTES))
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    pass
                finally:
                    temporary.unlink()
            key = path.read_bytes()
        except OSError as error:
            raise StateError(
                f"the signing key cannot be read or made: {error}",
                hint="set CELLRAIL_KEYS to a folder of your own",
            ) from error
        if len(key) != _KEY_BYTES:
            raise StateError(f"{path} is no signing key", hint="restore it from a `key export`")
        return key

    def verifying_keys(self) -> list[bytes]:
        """The user's own key and the imported ones."""
        imported = [path.read_bytes() for path in sorted((self._folder / "imported").glob("*.key"))]
        own = self._folder / "signing.key"
        # whoever only reads needs no key
        return [*([self.key()] if own.exists() else []), *imported]

    def _make(self, folder: Path) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
        return folder

    def export(self) -> str:
        """The user's key as text."""
        return _EXPORT_PREFIX + base64.urlsafe_b64encode(self.key()).decode()

    def import_(self, text: str) -> None:
        """Accept what was signed with an exported key.

        Raises:
            StateError: the text is no exported key.
        """
        try:
            if not text.startswith(_EXPORT_PREFIX):
                raise ValueError
            key = base64.urlsafe_b64decode(text[len(_EXPORT_PREFIX) :].encode())
            if len(key) != _KEY_BYTES:
                raise ValueError
        except ValueError as error:
            raise StateError(
                "this is no exported key", hint="`cellrail key export` prints one"
            ) from error
        folder = self._make(self._folder / "imported")
        name = hashlib.sha256(key).hexdigest()[:16]
        _write_private(folder / f"{name}.key", key)

    # --- secrets of runs ---------------------------------------------------------------------

    def encrypt(self, text: str) -> str:
        """A secret as a token that only this user's keys read."""
        self.key()
        return str(self._fernets()[0].encrypt(text.encode()).decode())

    def decrypt(self, token: str) -> str:
        """The secret in a token.

        Raises:
            StateError: it was encrypted with a key that is not here.
        """
        from cryptography.fernet import InvalidToken

        for fernet in self._fernets():
            try:
                return str(fernet.decrypt(token.encode()).decode())
            except InvalidToken:
                continue
        raise StateError(
            "a secret of this run was encrypted with another key",
            hint="give it anew with -p and --secret, or `cellrail key import` that key",
        )

    def _fernets(self) -> list[Any]:
        from cryptography.fernet import Fernet
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        def derived(key: bytes) -> bytes:
            kdf = HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=b"cellrail secrets")
            return base64.urlsafe_b64encode(kdf.derive(key))

        return [Fernet(derived(key)) for key in self.verifying_keys()]

    # --- adopted stores ----------------------------------------------------------------------

    def trust(self, store_id: str, journals: Mapping[str, tuple[int, str]]) -> None:
        """Remember a store's journals as they are: run id -> (length, hex digest)."""
        folder = self._make(self._folder / "trusted")
        known = self.trusted(store_id)
        known.update(journals)
        temporary = folder / f".{secrets.token_hex(8)}.tmp"
        _write_private(temporary, msgspec.json.encode(known))
        temporary.replace(folder / f"{store_id}.json")

    def trusted(self, store_id: str) -> dict[str, tuple[int, str]]:
        """The journals of a store that were adopted: run id -> (length, hex digest)."""
        path = self._folder / "trusted" / f"{store_id}.json"
        if not path.exists():
            return {}
        return msgspec.json.decode(path.read_bytes(), type=dict[str, tuple[int, str]])


def signature(key: bytes, previous: bytes, payload: bytes) -> bytes:
    """The MAC of a record, chained to the one before it (HMAC-SHA256, 32 bytes)."""
    return hmac.digest(key, previous + payload, "sha256")


def untrusted(store: Path) -> Untrusted:
    """The error for a store that somebody else signed."""
    return Untrusted(
        f"the store {store} was signed by somebody else, or changed; nothing was unpickled",
        hint=f"if you trust where it comes from: cellrail trust {store}",
    )


def _write_private(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
