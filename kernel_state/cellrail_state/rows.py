"""Rows of the catalog: made from journals on the way in, records on the way out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from cellrail_state.errors import StateError
from cellrail_state.history import RunHistory
from cellrail_state.model import JobFinished, RunStatus, StepStatus, WaitInfo
from cellrail_state.steps import Sources, StepState
from cellrail_state.tables import Listing, Shown
from cellrail_state.texts import strict

if TYPE_CHECKING:
    from cellrail_state.ledgerlines import Entry
    from cellrail_state.store import Store
    from cellrail_state.stored import ObjectRef

#: larger outputs stay in the objects; the catalog then holds their address
_OUTPUTS_LIMIT = 256_000


class RunRow(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """A run as listings show it."""

    run_id: str
    flow: str
    kind: str
    status: str
    cause: str
    origin: str | None
    from_step: str | None
    #: seconds since the epoch
    started: float
    ended: float | None
    parameters: dict[str, Any]
    labels: dict[str, str]
    #: while a process drove it, without what passed while it was suspended; None where it runs
    seconds: float | None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> RunRow:
        """The record in a row of the query `newest_runs`."""
        return cls(
            **{
                **row,
                "parameters": msgspec.json.decode(row["parameters"]),
                "labels": msgspec.json.decode(row["labels"]),
            }
        )

    def __repr__(self) -> str:
        return f"<run {self.run_id} of {self.flow}: {self.status}>"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


class RunRows(Listing[RunRow]):
    """Runs as a listing."""

    title = "runs"
    headings = ("run", "status", "flow", "cause")
    empty = "no runs"

    def row(self, record: RunRow) -> tuple[str, ...]:
        """A run's line."""
        return record.run_id, record.status, record.flow, record.cause


class Rows:
    """Rows to insert, by table."""

    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []
        self.steps: list[dict[str, Any]] = []
        self.jobs: list[dict[str, Any]] = []
        self.variables: list[dict[str, Any]] = []
        self.waits: list[dict[str, Any]] = []
        self.journals: list[dict[str, Any]] = []


def rows_of(store: Store, run_id: str, size: int, known: int = 0, *, into: Rows) -> None:
    """Add the rows of one run. A journal that cannot be read has none (`doctor` tells why).

    Args:
        store: the store.
        run_id: the run.
        size: length of its journal, in bytes, before it is read.
        known: so many of its jobs have rows already.
        into: takes the rows.
    """
    into.journals.append({"run_id": run_id, "bytes": size, "ended": False})
    sources = Sources(
        records=store.records,
        # `interrupted` is derived when it is asked for, never written
        owned=lambda _: True,
        content=store.objects.get,
    )
    try:
        history = RunHistory(run_id, sources)
        states = history.states
    except StateError:
        return
    # a suspended run goes on in the same journal
    ended = history.ended is not None and history.ended.status is not RunStatus.SUSPENDED
    into.journals[-1]["ended"] = ended
    if ended:  # it may have grown up to its end while it was read; it does not any more
        into.journals[-1]["bytes"] = store.journal_size(run_id)
    into.runs.append(_run(store, history))
    into.steps += [_step(run_id, state) for state in states]
    into.waits += [_wait(history, wait) for wait in history.waits.values()]
    for job in history.jobs[known:]:
        into.jobs.append(_job(store, run_id, job))
        into.variables += _variables(job)


def _run(store: Store, history: RunHistory) -> dict[str, Any]:
    started, ended = history.started, history.ended
    origin, tick = started.origin, started.tick
    status = RunStatus.RUNNING if ended is None else ended.status
    row = {
        "run_id": started.run_id,
        "flow": store.current_flow(started),
        "kind": str(started.kind),
        "status": str(status),
        "cause": history.cause,
        "origin": origin.run_id if origin is not None else None,
        "from_step": origin.from_step if origin is not None else None,
        "started": started.time,
        "ended": ended.time if ended is not None else None,
        "parameters": started.parameters,
        "labels": started.labels,
        "notebook_hash": started.notebook_hash,
        "notebook_path": started.notebook_path,
        "kernel": started.kernel_name,
        "python": history.kernels[-1].python if history.kernels else "",
        "packages": history.packages,
        "host": started.owner.host,
        "command": started.command,
        "cwd": started.cwd,
        "tick": tick.stamp if tick is not None else None,
        "inputs": tick.inputs if tick is not None else None,
        "fired_by": tick.by if tick is not None else None,
        "claim": tick.number if tick is not None else None,
        "source": tick.source if tick is not None else None,
        "seconds": history.seconds,
    }
    return row | {"searched": _searched(row)}


def _searched(row: Mapping[str, Any]) -> str:
    """What searches look through of a run's row: labels and parameters as JSON, in lower case.

    Its flow is not among it, which can get another id.
    """
    texts = [row[name] or "" for name in ("run_id", "kind", "cause", "origin")]
    told = [msgspec.json.encode(row[name]).decode() for name in ("labels", "parameters")]
    return "\n".join([*texts, *told]).lower()


def _step(run_id: str, state: StepState) -> dict[str, Any]:
    info = state.info
    return {
        "run_id": run_id,
        "number": info.number,
        "name": info.name,
        "cell_id": info.cell_id,
        "status": str(StepStatus(state.status)),
        "kept": str(state.kept) if state.kept is not None else None,
        "accepted": state.accepted,
        "cause": state.cause,
        "job_id": state.job_id,
        "source": info.source,
        "source_hash": info.source_hash,
        "options": info.options,
    }


def _wait(history: RunHistory, wait: WaitInfo) -> dict[str, Any]:
    woken = history.woken.get(wait.wait_id)
    # an open notebook may wait behind several steps
    pending = history.held if history.is_live else [history.pending]
    waiting = any(one is not None and one.wait_id == wait.wait_id for one in pending)
    waiting = waiting and history.pending is not None
    return {
        "wait_id": wait.wait_id,
        "run_id": history.run_id,
        "step": wait.step,
        "label": wait.label,
        "kind": wait.kind,
        "asked": wait.asked,
        "until": wait.until,
        "on_timeout": wait.on_timeout,
        "status": woken.by if woken is not None else "waiting" if waiting else "void",
        "who": woken.who if woken is not None else "",
        "woken": woken.time if woken is not None else None,
        "data": woken.data if woken is not None and not woken.secret else None,
    }


def _job(store: Store, run_id: str, job: JobFinished) -> dict[str, Any]:
    error = job.error
    return {
        "job_id": job.job_id,
        "run_id": run_id,
        "step": job.step,
        "attempt": job.attempt,
        "status": str(job.status),
        "accepted": job.accepted,
        "cause": job.cause,
        "error": error.name if error is not None else None,
        "message": error.value if error is not None else None,
        "traceback": "\n".join(error.traceback) if error is not None else None,
        "started": job.started,
        "seconds": job.seconds,
        "capture_seconds": job.delta.seconds,
        "stored_bytes": job.delta.stored_bytes,
        "not_restorable": job.delta.failure,
        "execution_count": job.execution_count,
        "outputs": _outputs(store, job),
        "written": list(job.delta.written),
    }


def _outputs(store: Store, job: JobFinished) -> Any:
    if job.outputs is None:
        return []
    if job.outputs.size > _OUTPUTS_LIMIT:
        return {"object": job.outputs.digest, "bytes": job.outputs.size}
    try:
        return msgspec.json.decode(store.objects.get(job.outputs))
    except StateError as error:
        return {"object": job.outputs.digest, "error": str(error)}


def _variables(job: JobFinished) -> list[dict[str, Any]]:
    rows = [
        {
            "job_id": job.job_id,
            "name": v.name,
            "verdict": str(v.verdict),
            "reason": v.reason,
            "type": v.type,
            "bytes": v.size,
            "preview": v.preview,
            "component": v.component,
        }
        for v in job.delta.variables.values()
    ]
    rows += [
        {
            "job_id": job.job_id, "name": name, "verdict": "deleted", "reason": "", "type": "",
            "bytes": 0, "preview": "", "component": None,
        }
        for name in job.delta.deleted
    ]  # fmt: skip
    return rows


def state_rows(store: Store) -> list[dict[str, Any]]:
    """What outlives runs, as it is now. The value of a secret is not among it.

    Raises:
        LedgerDamaged: it cannot be read.
    """
    ledger = store.ledger
    return [_kept(store, e) for kind in ("resource", "variable") for e in ledger.entries(kind)]


def _kept(store: Store, entry: Entry) -> dict[str, Any]:
    written = entry.written
    return {
        "kind": "state" if written.type == "state" else written.kind,
        "path": written.path,
        "type": written.type,
        "version": written.version,
        "value": None if written.secret else _json(store, written.value),
        "secret": written.secret,
        "run_id": entry.run_id or None,
        "who": entry.by,
        "changed": entry.time,
    }


def _json(store: Store, value: str | ObjectRef | None) -> msgspec.Raw | None:
    if value is None:
        return None
    text = value.encode() if isinstance(value, str) else store.objects.get(value)
    return msgspec.Raw(strict(text))
