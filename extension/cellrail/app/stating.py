"""Use cases of what outlives runs: states, resources and variables, set and looked at by a person.

A write here belongs to no run. It is recorded with the user's name in the store's ledger, it has a
version like any other, and it can be made to replace a certain version only.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cellrail.app.base import AppBase
from cellrail.errors import BadState
from cellrail.run.desks import own_user
from cellrail.run.jsontext import from_text, to_text
from cellrail.run.states import (
    ANY,
    RESOURCE,
    STATE,
    VARIABLE,
    checked_path,
    encrypted,
    kept,
    nothing_there,
    text_of,
    variable_text,
)
from cellrail_state.ledger import Expected
from cellrail_state.ledgerlines import Entry
from cellrail_state.model import Written
from cellrail_state.tables import Listing, Shown

#: characters of a value that a listing shows
_SHOWN = 60


class Stored(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """What lies at a path."""

    path: str
    #: of a resource (a state is one)
    type: str = ""
    version: int
    #: None where it is secret
    value: Any = None
    secret: bool = False
    #: the run that wrote it; "" where a person did
    run_id: str = ""
    #: the user that wrote it
    by: str = ""
    #: seconds since the epoch
    time: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


class StoredList(Listing[Stored]):
    """What lies at paths as a listing."""

    title = "stored"
    headings = ("path", "type", "version", "value", "written by")
    empty = "nothing is kept"

    def row(self, record: Stored) -> tuple[str, ...]:
        """A path's line."""
        value = "***" if record.secret else repr(record.value)
        by = f"run {record.run_id}" if record.run_id else record.by
        short = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…"
        return record.path, record.type, str(record.version), short, by


class Stating(AppBase):
    """Looks at and sets what outlives runs."""

    # --- states and resources ----------------------------------------------------------------

    def state_list(self) -> StoredList:
        """The states that steps have kept, by path."""
        return StoredList(stored for stored in self.resource_list() if stored.type == STATE)

    def state_get(self, path: str) -> Any:
        """A step's state.

        Raises:
            NotSet: there is none.
        """
        entry = self.store.ledger.entry(RESOURCE, checked_path(path))
        if entry is None or entry.written.type != STATE:
            raise nothing_there(STATE, path, [stored.path for stored in self.state_list()])
        return self._stored(entry).value

    def state_set(self, path: str, value: Any, *, if_version: int | None = None) -> Stored:
        """Set a step's state; see `resource_set`."""
        return self.resource_set(path, value, resource_type=STATE, if_version=if_version)

    def state_delete(self, path: str, *, if_version: int | None = None) -> None:
        """Forget a step's state: the step sees None, as the first time."""
        self.state_get(path)
        self.resource_delete(path, if_version=if_version)

    def resource_list(self) -> StoredList:
        """The resources, states among them, by path."""
        return StoredList(map(self._stored, self.store.ledger.entries(RESOURCE)))

    def resource_get(self, path: str) -> Any:
        """The JSON value of a resource.

        Raises:
            NotSet: there is none.
        """
        return self._stored(self._entry(RESOURCE, path)).value

    def resource_set(
        self,
        path: str,
        value: Any,
        *,
        resource_type: str | None = None,
        if_version: int | None = None,
    ) -> Stored:
        """Set a resource.

        Args:
            path: `a/b/c`.
            value: JSON.
            resource_type: what kind of thing it is, told when it is created.
            if_version: replace this version only (0: create it).

        Raises:
            NotJson: the value is no JSON.
            BadState: the resource was created with another type.
            StateConflict: it has another version.
        """
        text = to_text(value, f"the resource {path!r}")
        store = self._open_or_create()
        there = store.ledger.entry(RESOURCE, checked_path(path))
        made = there.written.type if there is not None else resource_type or ANY
        if resource_type is not None and resource_type != made:
            raise BadState(
                f"the resource {path!r} was created with the type {made!r}, not {resource_type!r}",
                hint="delete it first, or use another path",
            )
        stored = kept(text, store.objects)
        store.objects.flush()
        written = Written(kind=RESOURCE, path=path, version=0, value=stored, type=made)
        return self._write(written, if_version)

    def resource_delete(self, path: str, *, if_version: int | None = None) -> None:
        """Delete a resource.

        Raises:
            NotSet: there is none.
            StateConflict: it has another version.
        """
        self._entry(RESOURCE, path)
        self._write(Written(kind=RESOURCE, path=path, version=0), if_version)

    # --- variables ---------------------------------------------------------------------------

    def variable_list(self) -> StoredList:
        """The variables by path; the values of secrets are not among them."""
        return StoredList(map(self._stored, self.store.ledger.entries(VARIABLE)))

    def variable_get(self, path: str) -> str:
        """A variable's value, of a secret too.

        Raises:
            NotSet: there is none.
        """
        written = self._entry(VARIABLE, path).written
        return variable_text(written, self.keyring, self.store.objects)

    def variable_is_secret(self, path: str) -> bool:
        """Whether a variable is to be shown to nobody.

        Raises:
            NotSet: there is none.
        """
        return self._entry(VARIABLE, path).written.secret

    def variable_set(
        self, path: str, value: str, *, secret: bool = False, if_version: int | None = None
    ) -> Stored:
        """Set a variable; one that was secret stays it.

        Args:
            path: `a/b/c`.
            value: a string.
            secret: keep it encrypted, and mask it wherever it is shown.
            if_version: replace this version only (0: create it).

        Raises:
            BadState: the value is no string.
            StateConflict: it has another version.
        """
        if not isinstance(value, str):
            raise BadState(f"a variable is a string, not a {type(value).__name__}")
        store = self._open_or_create()
        there = store.ledger.entry(VARIABLE, checked_path(path))
        secret = secret or (there is not None and there.written.secret)
        if secret:
            stored: Any = encrypted(value, self.keyring)
        else:
            stored = kept(to_text(value, path), store.objects)
            store.objects.flush()
        written = Written(kind=VARIABLE, path=path, version=0, value=stored, secret=secret)
        return self._write(written, if_version)

    def variable_delete(self, path: str, *, if_version: int | None = None) -> None:
        """Delete a variable.

        Raises:
            NotSet: there is none.
            StateConflict: it has another version.
        """
        self._entry(VARIABLE, path)
        self._write(Written(kind=VARIABLE, path=path, version=0), if_version)

    # --- records -----------------------------------------------------------------------------

    def _entry(self, kind: str, path: str) -> Entry:
        ledger = self.store.ledger
        entry = ledger.entry(kind, checked_path(path))
        if entry is None:
            raise nothing_there(kind, path, [e.written.path for e in ledger.entries(kind)])
        return entry

    def _write(self, written: Written, if_version: int | None) -> Stored:
        key = (written.kind, written.path)
        seen = {key: Expected(version=if_version)} if if_version is not None else {}
        by, now = own_user(), self.clock()
        fresh = self.store.ledger.state([written], seen, by=by, now=now)
        return self._stored(Entry(written=fresh[0], by=by, time=now))

    def _stored(self, entry: Entry) -> Stored:
        written = entry.written
        text = None if written.secret else text_of(written, self.store.objects)
        return Stored(
            path=written.path, type=written.type, version=written.version, secret=written.secret,
            value=None if text is None else from_text(text),
            run_id=entry.run_id, by=entry.by, time=entry.time,
        )  # fmt: skip
