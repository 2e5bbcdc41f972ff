"""Delete old runs and free what no kept run points to.

A run goes only if every condition that is given holds, it bears no label, and it is not running,
suspended, or interrupted. A run whose jobs a kept run points to stays as long as that one does. An
object goes if no journal that stays points to it and it is older than a grace time, so a step that
is about to commit (its objects are written, or touched, before) loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from cellrail_state.doctor import GRACE_SECONDS, readable_records, references
from cellrail_state.model import (
    JobFinished,
    RunEnded,
    RunKind,
    RunStarted,
    RunStatus,
    StepKept,
)
from cellrail_state.objects import is_object
from cellrail_state.store import Store

#: so many live runs of a notebook are kept
LIVE_RUNS = 5


class PruneReport(msgspec.Struct, frozen=True, kw_only=True):
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
    known = _known(store)
    ranks = _ranks(known)
    doomed = {
        run.run_id
        for run in known
        if _may_go(run)
        and (keep_last is None or ranks[run.run_id] >= keep_last)
        and (older_than is None or now - run.started > older_than)
    }
    return _delete(store, known, doomed, plan=plan, now=now)


def prune_live(store: Store, flow: str, *, keep: int = LIVE_RUNS, now: float) -> PruneReport:
    """Delete the live runs of a flow but the newest."""
    known = _known(store)
    mine = sorted((r.run_id for r in known if r.live and r.flow == flow), reverse=True)
    old = set(mine[keep:])
    doomed = {run.run_id for run in known if run.run_id in old and not run.labelled}
    doomed = {run_id for run_id in doomed if not store.is_owned(run_id)}
    return _delete(store, known, doomed, plan=False, now=now)


def _may_go(run: _Known) -> bool:
    return run.ended and not run.labelled


def _known(store: Store) -> list[_Known]:
    return [_read(store, run_id) for run_id in store.run_ids()]


def _read(store: Store, run_id: str) -> _Known:
    known = _Known(run_id=run_id)
    for record in readable_records(store, run_id):
        known.objects |= {f.digest for ref in references(record) for f in ref.files()}
        if isinstance(record, RunStarted):
            known.flow = store.current_flow(record)
            known.live = record.kind is RunKind.LIVE
            known.started = record.time
            known.labelled = bool(record.labels)
            known.points_to |= {_run_of(job_id) for job_id in record.chain}
        elif isinstance(record, StepKept):
            known.points_to.add(_run_of(record.job_id))
        elif isinstance(record, RunEnded):
            known.ended = record.status is not RunStatus.SUSPENDED
        elif isinstance(record, JobFinished):
            known.ended = False
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


def _delete(
    store: Store, known: list[_Known], doomed: set[str], *, plan: bool, now: float
) -> PruneReport:
    needed: set[str] = set()
    while True:
        kept = [run for run in known if run.run_id not in doomed]
        held = {run_id for run in kept for run_id in run.points_to} & doomed
        if not held:
            break
        needed |= held
        doomed = doomed - held
    freed = 0
    for run_id in sorted(doomed):
        path = store.journal_path(run_id)
        freed += path.stat().st_size
        if not plan:
            store.points.reach("prune.before_delete")
            path.unlink()
    # a run that began meanwhile points to what it needs
    if not plan:
        kept = _known(store)
    still = {digest for run in kept for digest in run.objects}
    objects = 0
    for path in store.objects.files():
        if is_object(path) and path.name not in still and _old(path.stat().st_mtime, now):
            size = path.stat().st_size
            if not plan:
                size = store.objects.retire(path, before=now - GRACE_SECONDS)
            objects += bool(size)
            freed += size
    if not plan:
        store.catalog.ingest()
    return PruneReport(
        runs=tuple(sorted(doomed)), objects=objects, freed_bytes=freed, needed=tuple(sorted(needed))
    )


def _old(mtime: float, now: float) -> bool:
    return now - mtime > GRACE_SECONDS
