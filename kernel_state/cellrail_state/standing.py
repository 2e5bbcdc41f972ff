"""How ticks stand: which are filled, failed, under way, or nobody's.

What runs came to is asked of the catalog; what it may not know yet, of the claims and journals: a
claim is durable before its run begins, so whoever finds no claim of a tick knows that nobody has
run it. How a tick stands is one of `Standing`, a closed set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from cellrail_state.claims import Claim
from cellrail_state.history import RunHistory
from cellrail_state.model import Owner, RunStatus
from cellrail_state.sql import queries
from cellrail_state.steps import Sources
from cellrail_state.store import Store
from cellrail_state.ticks import Key

_ENDED = frozenset((RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.CANCELLED))


class Standing(StrEnum):
    """How a tick stands."""

    #: nobody has run it
    MISSING = "missing"
    #: somebody is about to begin its run
    CLAIMED = "claimed"
    #: claimed by somebody who is gone; the run that was chosen has not begun
    ABANDONED = "abandoned"
    RUNNING = "running"
    SUSPENDED = "suspended"
    #: its run has begun, and lost its owner
    INTERRUPTED = "interrupted"
    #: it was filled: a run of it was a success
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Stand(msgspec.Struct, frozen=True, kw_only=True):
    """How one tick stands."""

    key: Key
    standing: Standing = Standing.MISSING
    #: the run that says so: of a filled one the newest success, else the newest; "" where none is
    run_id: str = ""
    #: how often it was claimed
    number: int = 0
    #: who fired that run
    by: str = ""
    #: the newest run that has ended, how it ended ("" where none has), and who fired it
    ended: str = ""
    outcome: str = ""
    ended_by: str = ""
    #: it was filled once, though another run is under way now
    filled: str = ""
    #: digest of the source that made that run
    source: str = ""

    @property
    def under_way(self) -> bool:
        """Whether a run of it is about to begin, or has begun and not ended."""
        return self.standing not in {
            Standing.MISSING, Standing.SUCCESS, Standing.FAILED, Standing.CANCELLED,
        }  # fmt: skip


class _Known(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a tick."""

    run_id: str
    status: RunStatus
    by: str
    source: str
    #: of its claim
    number: int


def stands(store: Store, flow: str, keys: Iterable[Key]) -> dict[Key, Stand]:
    """How ticks of a flow stand.

    Args:
        store: the store.
        flow: the flow's id.
        keys: of the ticks.
    """
    wanted = list(dict.fromkeys(keys))
    if not wanted:
        return {}
    # the claims first: a run that begins since is known by its claim
    numbers = store.claims.numbers(flow)
    rows = _rows(store, flow, min(k.stamp for k in wanted), max(k.stamp for k in wanted))
    unknown = [
        (key, number)
        for key in wanted
        for number in range(1, numbers.get(key, 0) + 1)
        if len(rows.get(key, ())) < numbers[key]
    ]
    claims: dict[Key, list[Claim]] = {}
    for claim in store.claims.read(flow, unknown):
        claims.setdefault(claim.key, []).append(claim)
    return {
        key: _stand(store, key, rows.get(key, []), claims.get(key, []), numbers.get(key, 0))
        for key in wanted
    }


def stand(store: Store, flow: str, key: Key) -> Stand:
    """How one tick stands, from its claims and journals alone."""
    newest = store.claims.newest(flow, key)
    if newest is None:
        return Stand(key=key)
    claims = store.claims.read(flow, [(key, n) for n in range(1, newest.number + 1)])
    return _stand(store, key, [], claims, newest.number)


class Claimer(msgspec.Struct, frozen=True, kw_only=True):
    """Who claims: this process, for somebody."""

    owner: Owner
    #: names the lock that it holds (`Claims.owner`)
    lock: str
    #: `trigger:ID`, `backfill:ID`, or "" for a person
    by: str = ""


def claim(
    store: Store,
    flow: str,
    seen: Sequence[Stand],
    claimer: Claimer,
    *,
    new_id: Callable[[], str],
    now: float,
) -> list[Claim]:
    """Take ticks whose newest run has ended, or that have none; those that were got.

    Of a tick that was claimed by somebody who is gone, the run is the one that was chosen then.

    Args:
        store: the store.
        flow: the flow's id.
        seen: how they stand.
        claimer: who claims.
        new_id: makes ids of runs.
        now: seconds since the epoch.
    """
    left = [(s.key, s.number) for s in seen if s.standing is Standing.ABANDONED]
    wanted = [
        Claim(
            flow=flow, stamp=s.key.stamp, inputs=s.key.inputs, run_id=new_id(), time=now,
            owner=claimer.owner, lock=claimer.lock, by=claimer.by, number=s.number + 1,
        )
        for s in seen
        if not s.under_way
    ]  # fmt: skip
    counting = store.claims.claim(wanted)
    mine = [claim for claim, made in zip(wanted, counting, strict=True) if claim == made]
    return [*store.claims.read(flow, left), *mine]


def run_status(store: Store, run_id: str) -> RunStatus | None:
    """What a run has come to; None where it has not begun."""
    if not store.journal_size(run_id):
        return None
    return _history(store, run_id).status


def _rows(store: Store, flow: str, first: str, last: str) -> dict[Key, list[_Known]]:
    values = {"flow": flow, "first": first, "last": last}
    found: dict[Key, list[_Known]] = {}
    for row in store.catalog.query(queries()["runs_of_ticks"], values):
        known = _known_of(store, row)
        found.setdefault(Key(row["tick"], row["inputs"]), []).append(known)
    return found


def _known_of(store: Store, row: Mapping[str, Any]) -> _Known:
    status = RunStatus(row["status"])
    if status not in _ENDED:
        # the catalog may be behind: another program can hold it
        status = run_status(store, row["run_id"]) or status
    return _Known(run_id=row["run_id"], status=status, by=row["fired_by"], source=row["source"],
        number=row["claim"],
    )  # fmt: skip


def _history(store: Store, run_id: str) -> RunHistory:
    return RunHistory(
        run_id, Sources(records=store.records, owned=store.is_owned, content=store.objects.get)
    )


def _stand(store: Store, key: Key, rows: list[_Known], claims: list[Claim], number: int) -> Stand:
    runs = {known.run_id: known for known in rows}
    begins: Claim | None = None
    for claim_ in claims:
        if claim_.run_id in runs:
            continue
        if not store.journal_size(claim_.run_id):
            begins = claim_ if claim_.number == number else None
            continue
        history = _history(store, claim_.run_id)
        tick = history.started.tick
        runs[claim_.run_id] = _Known(
            run_id=claim_.run_id, status=history.status,
            by=tick.by if tick is not None else claim_.by,
            source=tick.source if tick is not None else "", number=claim_.number,
        )  # fmt: skip
    return _decided(store, key, list(runs.values()), begins, number)


def _order(run: _Known) -> tuple[int, str]:
    """By claims, not by ids: the clock that ids are made of may have been set back."""
    return run.number, run.run_id


def _decided(
    store: Store, key: Key, runs: list[_Known], begins: Claim | None, number: int
) -> Stand:
    filled = [run for run in runs if run.status is RunStatus.SUCCESS]
    going = [run for run in runs if run.status not in _ENDED]
    over = [run for run in runs if run.status in _ENDED]
    made = max(filled, key=_order, default=None)
    last = max(over, key=_order, default=None)
    known = Stand(
        key=key, number=number, filled=made.run_id if made is not None else "",
        source=made.source if made is not None else "",
        ended=last.run_id if last is not None else "",
        outcome=str(last.status) if last is not None else "",
        ended_by=last.by if last is not None else "",
    )  # fmt: skip
    if begins is not None:
        found = Standing.CLAIMED if store.claims.lives(begins) else Standing.ABANDONED
        return msgspec.structs.replace(known, standing=found, run_id=begins.run_id, by=begins.by)
    chosen = going or filled or over
    if not chosen:
        return known
    run = max(chosen, key=_order)
    status = RunStatus.RUNNING if run.status is RunStatus.QUEUED else run.status
    return msgspec.structs.replace(
        known, standing=Standing(str(status)), run_id=run.run_id, by=run.by
    )
