"""Examine a store: journals, objects, catalog; mend what can be mended.

What it can find (`Finding.kind`), a closed set:

* ``torn journal``: a frame at the end was never committed (mended: nothing is lost).
* ``damaged journal``: a record inside was changed or torn; what stands behind it is lost.
* ``untrusted journal``: signed by somebody else.
* ``missing object``, ``damaged object``: which steps it hurts, and where a restart still works.
* ``orphan object``, ``temporary file``: nothing points to it (mended: deleted, when old enough).
* ``ledger``: what outlives runs is damaged, or lacks what a journal committed (mended: made anew).
* ``wait``: `waits/` lacks a wait that a run is suspended for, tells of one that nobody waits for,
  or holds a file that cannot be read (mended: told again, closed, deleted).
* ``catalog``: it cannot be used, or says other than the journals (mended: made anew).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from cellrail_state import journal as journals
from cellrail_state import locks
from cellrail_state.eachs import EachBook
from cellrail_state.errors import JournalDamaged, ObjectError, Untrusted
from cellrail_state.history import RunHistory
from cellrail_state.ledgerlines import Proposed
from cellrail_state.model import (
    Decided,
    Delta,
    EachStored,
    JobFinished,
    Laid,
    ObjectRef,
    OnceDone,
    Record,
    RunContinued,
    RunEnded,
    RunStarted,
    RunStatus,
)
from cellrail_state.objects import is_object
from cellrail_state.steps import Sources
from cellrail_state.store import Store
from cellrail_state.tables import Shown

#: younger files without an owner may belong to a step that is about to commit
GRACE_SECONDS = 3600.0


class Finding(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """Something that is not as it should be."""

    kind: str
    subject: str
    message: str
    fixable: bool = False
    fixed: bool = False


class Report(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """What an examination found."""

    findings: tuple[Finding, ...]
    journals: int
    objects: int

    @property
    def unmended(self) -> bool:
        """Whether something is still not as it should be."""
        return any(not finding.fixed for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


def examine(store: Store, *, fix: bool = False, now: float | None = None) -> Report:
    """Check a whole store.

    Args:
        store: the store.
        fix: mend what can be mended.
        now: seconds since the epoch.
    """
    moment = time.time() if now is None else now
    if fix:
        store.objects.recall()
    findings: list[Finding] = []
    pointed, suspended = set[str](), set[str]()
    checked: dict[str, str] = {}
    run_ids = store.run_ids()
    for run_id in run_ids:
        findings += _journal(store, run_id, fix=fix)
        findings += _objects(store, run_id, pointed, checked, suspended)
    findings += _ledger(store, run_ids, pointed, fix=fix)
    doubtful = {f.subject for f in findings if f.kind in {"damaged journal", "untrusted journal"}}
    findings += _waits(store, {*run_ids} - doubtful, suspended, moment, fix=fix)
    findings += _orphans(store, pointed, moment, fix=fix)
    findings += _catalog(store, fix=fix)
    return Report(findings=tuple(findings), journals=len(run_ids), objects=len(pointed))


def _journal(store: Store, run_id: str, *, fix: bool) -> Iterator[Finding]:
    path = store.journal_path(run_id)
    try:
        entries = list(journals.read(path))
        whole = entries[-1].end if entries else 0
        if whole < path.stat().st_size and not store.is_owned(run_id):
            if fix:
                _cut_off(path, whole)
            yield Finding(
                kind="torn journal",
                subject=run_id,
                message=f"{path.stat().st_size - whole or 'some'} bytes at the end were never "
                "committed",
                fixable=True,
                fixed=fix,
            )
        store.verify(run_id, entries)
    except JournalDamaged as error:
        yield Finding(kind="damaged journal", subject=run_id, message=str(error))
    except Untrusted as error:
        yield Finding(kind="untrusted journal", subject=run_id, message=str(error))


def _cut_off(path: Path, whole: int) -> None:
    """Cut a torn frame off, unless an owner has come meanwhile: then that is its own affair."""
    with path.open("r+b") as file:
        if locks.try_lock(file.fileno()):
            file.truncate(whole)
            os.fsync(file.fileno())


def references(record: Record) -> Iterator[ObjectRef]:
    """Every object that a record points to.

    What `flow.each` stored in mid-cell is needed as long as it can be gone on from: see `holding`.
    """
    if isinstance(record, RunStarted):
        if record.notebook is not None:
            yield record.notebook
    elif isinstance(record, JobFinished):
        if record.outputs is not None:
            yield record.outputs
        yield from _of_delta(record.delta)
        yield from record.effects.refs() if record.effects is not None else ()
    elif isinstance(record, Decided):
        yield from record.effects.refs() if record.effects is not None else ()
    elif isinstance(record, Laid):
        yield from _of_delta(record.delta)
    elif isinstance(record, OnceDone) and isinstance(record.value, ObjectRef):
        yield record.value
    elif isinstance(record, EachStored):
        yield from record.checkpoint.refs()


def _of_delta(delta: Delta) -> Iterator[ObjectRef]:
    if delta.ambient is not None:
        yield delta.ambient
    for component in delta.components.values():
        yield from component.refs()


def holding(records: Iterable[Record]) -> Iterator[Record]:
    """Of a run's records those whose objects are needed; the others need nothing."""
    book = EachBook()
    for record in records:
        book.see(record)
        if not isinstance(record, EachStored):
            yield record
    yield from book.records()


def readable_records(store: Store, run_id: str) -> Iterator[Record]:
    """A journal's records up to the first that cannot be read."""
    try:
        yield from store.records(run_id)
    except JournalDamaged:
        return


def _objects(
    store: Store, run_id: str, pointed: set[str], checked: dict[str, str], suspended: set[str]
) -> Iterator[Finding]:
    """Missing and damaged objects of a run.

    Notes in `pointed` what it points to, and in `suspended` that it is.
    """
    labels: dict[int, str] = {}
    for record in holding(readable_records(store, run_id)):
        if isinstance(record, RunEnded) and record.status is RunStatus.SUSPENDED:
            suspended.add(run_id)
        elif isinstance(record, RunContinued):
            suspended.discard(run_id)
        if isinstance(record, RunStarted):
            labels = {info.number: info.label for info in record.steps}
        for ref in references(record):
            pointed.update(file.digest for file in ref.files())
            for file in ref.files():
                if file.digest not in checked:
                    checked[file.digest] = _problem(store, file)
                if problem := checked[file.digest]:
                    yield _hurt(run_id, record, ref, problem, labels)
                    break


def _problem(store: Store, ref: ObjectRef) -> str:
    try:
        store.objects.get(ref)
    except ObjectError as error:
        return "missing object" if error.code == "object-missing" else "damaged object"
    return ""


def _hurt(
    run_id: str, record: Record, ref: ObjectRef, problem: str, labels: dict[int, str]
) -> Finding:
    if isinstance(record, EachStored):
        label = labels.get(record.step, f"#{record.step}")
        message = f"run {run_id}, step {label!r}: what flow.each({record.name!r}) stored"
        return Finding(kind=problem, subject=ref.digest, message=message)
    if not isinstance(record, JobFinished):
        return Finding(kind=problem, subject=ref.digest, message=f"the notebook of run {run_id}")
    label = labels.get(record.step, f"#{record.step}")
    names = [
        name
        for component in record.delta.components.values()
        if ref in component.refs()
        for name in component.variables or component.definitions
    ]
    what = "the variables " + ", ".join(names) if names else "outputs or ambient state"
    return Finding(
        kind=problem,
        subject=ref.digest,
        message=f"run {run_id}, step {label!r}: {what}; a restart from {label!r} or an earlier "
        "step still works",
    )


def _ledger(store: Store, run_ids: list[str], pointed: set[str], *, fix: bool) -> Iterator[Finding]:
    """What outlives runs; notes in `pointed` what it points to."""
    committed = [p for run_id in run_ids for p in _committed(store, run_id)]
    problem = store.ledger.problem()
    missing = [] if problem else store.ledger.missing(committed)
    if missing:
        first = missing[0]
        problem = f"it does not know what run {first.run_id} wrote to {first.writes[0].path!r}"
    if problem:
        if fix:
            store.ledger.rebuild(committed)
        yield Finding(
            kind="ledger", subject="state/ledger", message=problem, fixable=True, fixed=fix
        )
    if not problem or fix:
        pointed |= store.ledger.references()


def _committed(store: Store, run_id: str) -> Iterator[Proposed]:
    """What a run's journal has committed for others to see."""
    for record in readable_records(store, run_id):
        if isinstance(record, JobFinished) and record.effects is not None and record.effects.writes:
            effects = record.effects
            yield Proposed(
                token=effects.token, run_id=run_id, by="", time=record.time, writes=effects.writes
            )


def _waits(
    store: Store, known: set[str], suspended: set[str], now: float, *, fix: bool
) -> Iterator[Finding]:
    """What runs wait for, as the inbox tells it, against their journals.

    Args:
        store: the store.
        known: the runs whose journals can be believed.
        suspended: those that wait.
        now: seconds since the epoch.
        fix: mend it.
    """
    inbox = store.inbox
    for run_id in sorted({*inbox.run_ids(), *suspended}):
        if not store.journal_path(run_id).exists():
            if fix:
                inbox.forget(run_id)
            yield _wait(run_id, "its run is gone", fixed=fix)
        elif run_id in known:
            yield from _waits_of(store, run_id, fix=fix)
    for path in inbox.half_made():
        age = _age(path, now)
        if age is not None and age >= GRACE_SECONDS:
            if fix:
                path.unlink(missing_ok=True)
            yield Finding(
                kind="temporary file", subject=path.name, message="nothing points to it",
                fixable=True, fixed=fix,
            )  # fmt: skip


def _waits_of(store: Store, run_id: str, *, fix: bool) -> Iterator[Finding]:
    """The waits of a run without an owner; an owner tells and takes its own."""
    inbox = store.inbox
    faults, told = inbox.faults(run_id), inbox.told(run_id)
    sources = Sources(records=store.records, owned=lambda _: False, content=store.objects.get)
    history = RunHistory(run_id, sources)
    if store.is_owned(run_id):
        return
    for path, problem in faults:
        if fix:
            path.unlink(missing_ok=True)
        yield _wait(f"{run_id}/{path.name}", problem, fixed=fix)
    pending = None if history.is_live else history.pending
    for wait_id in told:
        if pending is None or wait_id != pending.wait_id:
            if fix:
                inbox.done(wait_id)
            yield _wait(wait_id, "nobody waits for it", fixed=fix)
    ended = history.ended is not None
    if pending is not None and ended and not inbox.is_told(pending.wait_id):
        if fix:
            inbox.tell(pending)
        yield _wait(pending.wait_id, "tick does not know that its run waits", fixed=fix)


def _wait(subject: str, message: str, *, fixed: bool) -> Finding:
    return Finding(kind="wait", subject=subject, message=message, fixable=True, fixed=fixed)


def _orphans(store: Store, pointed: set[str], now: float, *, fix: bool) -> Iterator[Finding]:
    for path in [*store.objects.files(), *_unbegun(store)]:
        if is_object(path) and path.name in pointed:
            continue
        age = _age(path, now)
        if age is None or age < GRACE_SECONDS:
            continue
        if fix and is_object(path):
            # a step may have put it again this very moment
            store.objects.retire(path, before=now - GRACE_SECONDS)
        elif fix:
            path.unlink(missing_ok=True)
        kind = "orphan object" if is_object(path) else "temporary file"
        yield Finding(
            kind=kind, subject=path.name, message="nothing points to it", fixable=True, fixed=fix
        )


def _unbegun(store: Store) -> Iterator[Path]:
    """Journals whose owner was killed before it wrote anything; files half made."""
    yield from store.path.glob(".*.tmp")
    for pattern in ("journals/*/.*.tmp", "ticks/*/.*.tmp", "triggers/.*.tmp", "backfills/*/.*.tmp"):
        yield from store.path.glob(pattern)
    for path in (store.path / "journals").glob(f"*/*{journals.SUFFIX}"):
        if path.stat().st_size <= len(journals.MAGIC) and not store.is_owned(path.stem):
            yield path


def _age(path: Path, now: float) -> float | None:
    try:
        return now - path.stat().st_mtime
    except OSError:
        return None


def _catalog(store: Store, *, fix: bool) -> Iterator[Finding]:
    problem = store.catalog.problem() or store.catalog.difference()
    if not problem:
        return
    if fix:
        store.catalog.rebuild()
    yield Finding(
        kind="catalog", subject="catalog.duckdb", message=problem, fixable=True, fixed=fix
    )
