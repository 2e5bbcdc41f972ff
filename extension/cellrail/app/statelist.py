"""What outlives runs, page by page, as people look at it: values shortened, secrets never told."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import msgspec

from cellrail.app.base import AppBase
from cellrail.errors import NotSet, UserError
from cellrail.run.jsontext import from_text
from cellrail.run.states import RESOURCE, STATE, VARIABLE, text_of
from cellrail_state.errors import JournalDamaged
from cellrail_state.ledgerlines import Entry
from cellrail_state.model import JobFinished, ObjectRef
from cellrail_state.tables import Shown
from cellrail_state.turns import job_address

#: what stands for a secret
HIDDEN = "***"
#: the kinds, in the order in which they are listed
KINDS = (STATE, RESOURCE, VARIABLE)
#: characters of a value that a listing shows
_SHORT = 160
#: characters of one that is looked at
_LONG = 200_000


class StateSearch(msgspec.Struct, frozen=True, kw_only=True):
    """Which states, resources and variables are looked for, and which page of them."""

    #: words that must all occur in the path, type, run, user, or in a short value
    text: str = ""
    #: state, resource or variable; "" for all
    kind: Literal["", "state", "resource", "variable"] = ""
    limit: Annotated[int, msgspec.Meta(ge=1)] = 50
    offset: Annotated[int, msgspec.Meta(ge=0)] = 0


class StateRow(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """One of them."""

    #: state, resource or variable
    kind: str
    path: str
    #: of a resource: the type that it was created with
    type: str
    version: int
    #: JSON; `***` where it is secret
    text: str
    #: `text` is the whole value
    whole: bool
    #: characters of the whole, about; 0 where it is secret
    size: int
    secret: bool
    #: the run that wrote it; "" where a person did
    run_id: str
    #: the user that wrote it
    by: str
    #: seconds since the epoch
    time: float


class StatePage(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """A page of them."""

    rows: tuple[StateRow, ...]
    #: so many fit, by kind
    counts: dict[str, int]
    #: so many of the kind that is looked for fit
    total: int


class StateList(AppBase):
    """Looks at what outlives runs."""

    def state_page(self, search: StateSearch) -> StatePage:
        """States, resources and variables that fit, by kind and path; large values are not read.

        Args:
            search: what is looked for.
        """
        words = search.text.lower().split()
        fitting = [entry for entry in self._entries() if _fits(entry, words)]
        counts = {kind: sum(_kind(entry) == kind for entry in fitting) for kind in KINDS}
        wanted = [entry for entry in fitting if search.kind in {"", _kind(entry)}]
        page = wanted[search.offset : search.offset + search.limit]
        return StatePage(
            rows=tuple(_row(entry) for entry in page), counts=counts, total=len(wanted)
        )

    def state_row(self, kind: str, path: str) -> StateRow:
        """One of them with its value, indented; of a very long one the beginning.

        Raises:
            NotSet: there is none (any more).
            UserError: there is no such kind.
        """
        entry = self._entry_of(kind, path)
        if entry.written.secret:
            return _row(entry)
        text = _readable(text_of(entry.written, self.store.objects) or "null", indent=2)
        whole = len(text) <= _LONG
        shown = text if whole else text[:_LONG]
        return msgspec.structs.replace(_row(entry), text=shown, whole=whole, size=len(text))

    def state_writer(self, kind: str, path: str) -> str:
        """The address of the step that wrote one of them last; "" where none is known.

        Raises:
            NotSet: there is none (any more).
        """
        entry = self._entry_of(kind, path)
        if not entry.run_id:
            return ""
        key = (entry.written.kind, path)
        try:
            history = self.history(entry.run_id)
            jobs = [r for r in self.store.records(entry.run_id) if isinstance(r, JobFinished)]
        except (UserError, JournalDamaged):  # it was pruned
            return ""
        for job in reversed(jobs):
            if job.effects is None or key not in {(w.kind, w.path) for w in job.effects.writes}:
                continue
            return job_address(history.label_of(job.step), job.turns)
        return ""

    def _entries(self) -> list[Entry]:
        ledger = self.store.ledger
        found = [*ledger.entries(RESOURCE), *ledger.entries(VARIABLE)]
        return sorted(found, key=lambda entry: (KINDS.index(_kind(entry)), entry.written.path))

    def _entry_of(self, kind: str, path: str) -> Entry:
        if kind not in KINDS:
            raise UserError(f"there is no kind {kind!r}", hint=f"there are: {', '.join(KINDS)}")
        entry = self.store.ledger.entry(VARIABLE if kind == VARIABLE else RESOURCE, path)
        if entry is None:
            raise NotSet(f"there is no {kind} {path!r} any more")
        return entry


def _kind(entry: Entry) -> str:
    written = entry.written
    return STATE if written.kind == RESOURCE and written.type == STATE else written.kind


def _row(entry: Entry) -> StateRow:
    written = entry.written
    text, size = _short(entry)
    return StateRow(
        kind=_kind(entry), path=written.path, type=written.type, version=written.version,
        text=text[:_SHORT], whole=len(text) <= _SHORT and not isinstance(written.value, ObjectRef),
        size=size, secret=written.secret, run_id=entry.run_id, by=entry.by, time=entry.time,
    )  # fmt: skip


def _short(entry: Entry) -> tuple[str, int]:
    """A value that is at hand, as text, and the length of the whole; "" for a large one."""
    value = entry.written.value
    if entry.written.secret:
        return HIDDEN, 0
    if isinstance(value, ObjectRef):
        return "", value.size
    text = _readable(value or "null")
    return text, len(text)


def _readable(text: str, *, indent: int | None = None) -> str:
    """JSON for people: letters of their language instead of escapes."""
    try:
        told = json.dumps(from_text(text), ensure_ascii=False, indent=indent)
    except ValueError:  # a number of more digits than Python reads
        return text
    # half a character cannot be sent
    return told.encode(errors="backslashreplace").decode()


def _fits(entry: Entry, words: list[str]) -> bool:
    if not words:
        return True
    written = entry.written
    # a search tells nothing of a secret
    value = "" if written.secret else _short(entry)[0]
    told = (written.path, written.type, _kind(entry), entry.run_id, entry.by, value)
    text = "\n".join(told).lower()
    return all(word in text for word in words)
