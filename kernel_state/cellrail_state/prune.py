"""Delete old runs and free what no kept run points to.

A run goes only if every condition that is given holds, it bears no label, and it is not running,
suspended, or interrupted. A run whose jobs a kept run points to stays as long as that one does, and
so does a run that a kept one has called. An
object goes if no journal that stays points to it and it is older than a grace time, so a step that
is about to commit (its objects are written, or touched, before) loses nothing.

No run begins while it is decided what goes and journals are deleted (`Store.pruning`): a restart
that began before is seen, with the run it starts on; one that comes after is refused before it has
changed anything.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from cellrail_state.doctor import GRACE_SECONDS, holding, readable_records, references
from cellrail_state.model import (
    Called,
    JobFinished,
    RunContinued,
    RunEnded,
    RunKind,
    RunNamed,
    RunStarted,
    RunStatus,
    StepKept,
    WentBack,
)
from cellrail_state.objects import is_object
from cellrail_state.store import Store
from cellrail_state.tables import Shown

#: the label of a run that another one has called
PARENT = "parent"
#: so many live runs of a notebook are kept
LIVE_RUNS = 5


class PruneReport(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """What was freed, or would be."""

    runs: tuple[str, ...]
    objects: int
    #: bytes of journals and objects
    freed_bytes: int
    #: runs that fit, but that kept runs point to
    needed: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


class _Known(msgspec.Struct, kw_only=True):
    """What a run's journal tells a prune."""

    run_id: str
    #: length of the journal when it was read
    size: int
    flow: str = ""
    live: bool = False
    started: float = 0.0
    labelled: bool = False
    ended: bool = False
    points_to: set[str] = msgspec.field(default_factory=set)
    objects: set[str] = msgspec.field(default_factory=set)


def prune(
    store: Store,
    *,
    keep_last: int | None = None,
    older_than: float | None = None,
    plan: bool = False,
    now: float,
) -> PruneReport:
    """Delete old runs.

    Args:
        store: the store.
        keep_last: keep this many newest runs of each flow.
        older_than: delete only runs older than this, in seconds.
        plan: tell what would be freed; delete nothing.
        now: seconds since the epoch.
    """

    def choose(known: list[_Known]) -> set[str]:
        ranks = _ranks(known)
        return {
            run.run_id
            for run in known
            if _may_go(run)
            and (keep_last is None or ranks[run.run_id] >= keep_last)
            and (older_than is None or now - run.started > older_than)
        }

    return _prune(store, choose, plan=plan, now=now)


def prune_live(store: Store, flow: str, *, keep: int = LIVE_RUNS, now: float) -> PruneReport:
    """Delete the live runs of a flow but the newest."""

    def choose(known: list[_Known]) -> set[str]:
        mine = sorted((r.run_id for r in known if r.live and r.flow == flow), reverse=True)
        old = set(mine[keep:])
        doomed = {run.run_id for run in known if run.run_id in old and not run.labelled}
        return {run_id for run_id in doomed if not store.is_owned(run_id)}

    return _prune(store, choose, plan=False, now=now)


def _may_go(run: _Known) -> bool:
    return run.ended and not run.labelled


def _known(store: Store, before: Iterable[_Known] = ()) -> list[_Known]:
    """What all journals tell; those that have not grown since are not read again."""
    read = {(run.run_id, run.size): run for run in before}
    return [
        read.get((run_id, size)) or _read(store, run_id, size)
        for run_id, size in sorted(store.journal_sizes().items())
    ]


def _read(store: Store, run_id: str, size: int) -> _Known:
    known = _Known(run_id=run_id, size=size)
    origin, first = "", None
    for record in holding(readable_records(store, run_id)):
        known.objects |= {f.digest for ref in references(record) for f in ref.files()}
        if isinstance(record, RunStarted):
            known.flow, first = store.current_flow(record), record
            known.live = record.kind is RunKind.LIVE
            known.started = record.time
            # a run that was called is kept as long as the one that called it
            known.labelled = bool(record.labels.keys() - {PARENT})
            known.points_to |= {_run_of(job_id) for job_id in record.chain}
            origin = record.origin.run_id if record.origin is not None else ""
        elif isinstance(record, RunNamed) and first is not None:
            known.flow = store.current_flow(record.of(first))
        elif isinstance(record, WentBack):
            found = (*record.chain, *record.kept.values())
            known.points_to |= {_run_of(job_id) for job_id in found}
        elif isinstance(record, StepKept):
            known.points_to |= {_run_of(job_id) for job_id in (record.job_id, *record.chain)}
        elif isinstance(record, Called):
            known.points_to.add(record.run_id)
        elif isinstance(record, RunEnded):
            known.ended = record.status is not RunStatus.SUSPENDED
        elif isinstance(record, (JobFinished, RunContinued)):
            known.ended = False
    if origin and not known.ended:
        # it may not have said yet which of its jobs it keeps
        known.points_to.add(origin)
    return known


def _run_of(job_id: str) -> str:
    return job_id.rpartition("/")[0]


def _ranks(known: Iterable[_Known]) -> dict[str, int]:
    """Place of each run among its flow's, newest first."""
    counts: dict[str, int] = {}
    ranks = {}
    for run in sorted(known, key=lambda run: run.run_id, reverse=True):
        ranks[run.run_id] = counts.get(run.flow, 0)
        counts[run.flow] = ranks[run.run_id] + 1
    return ranks


def _prune(
    store: Store, choose: Callable[[list[_Known]], set[str]], *, plan: bool, now: float
) -> PruneReport:
    known = _known(store)
    with contextlib.nullcontext() if plan else store.pruning():
        if not plan:  # runs that began meanwhile point to what they need
            known = _known(store, known)
        doomed, needed = _without_needed(known, choose(known))
        freed = sum(run.size for run in known if run.run_id in doomed)
        if not plan:
            # what a run that ended has written for others needs its journal no more
            store.ledger.settle()
            _delete(store, sorted(doomed))
    # what a run that began since points to was put since, or belongs to a run that it starts on
    still = _pointed_to(known, doomed) if plan else _pointed_to(_known(store, known), set())
    still |= store.ledger.references()
    objects = 0
    for size in _free(store, still, plan=plan, now=now):
        objects += bool(size)
        freed += size
    if not plan:
        store.catalog.ingest()
    return PruneReport(
        runs=tuple(sorted(doomed)), objects=objects, freed_bytes=freed, needed=tuple(sorted(needed))
    )


def _without_needed(known: list[_Known], doomed: set[str]) -> tuple[set[str], set[str]]:
    """The runs that can go, and those that cannot since kept runs point to them."""
    needed: set[str] = set()
    while True:
        kept = [run for run in known if run.run_id not in doomed]
        held = {run_id for run in kept for run_id in run.points_to} & doomed
        if not held:
            return doomed, needed
        needed |= held
        doomed = doomed - held


def _delete(store: Store, doomed: list[str]) -> None:
    store.news.tell(*doomed, gone=True)
    for run_id in doomed:
        store.points.reach("prune.before_delete")
        store.journal_path(run_id).unlink()
        store.inbox.forget(run_id)
        store.points.reach("prune.after_delete")
        shutil.rmtree(store.shared_folder(run_id), ignore_errors=True)


def _pointed_to(known: list[_Known], doomed: set[str]) -> set[str]:
    return {digest for run in known if run.run_id not in doomed for digest in run.objects}


def _free(store: Store, still: set[str], *, plan: bool, now: float) -> Iterator[int]:
    """Delete the old objects that nothing points to; the bytes of each."""
    if not plan:
        store.objects.recall()
    for path in store.objects.files():
        if not is_object(path) or path.name in still:
            continue
        with contextlib.suppress(FileNotFoundError):  # another prune was here first
            found = path.stat()
            if _old(found.st_mtime, now):
                before = now - GRACE_SECONDS
                yield found.st_size if plan else store.objects.retire(path, before=before)


def _old(mtime: float, now: float) -> bool:
    return now - mtime > GRACE_SECONDS
