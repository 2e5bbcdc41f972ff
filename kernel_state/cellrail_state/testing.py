"""For tests, of this project and of others: a clock, crash points that crash, doubles in memory.

* `FakeClock` is a clock that only moves when it is told to.
* `RaiseAt` and `KillAt` are crash points: the first raises `Crashed`, the second ends the process
  with SIGKILL, as a power switch would, each at a named point.
* `MemoryObjects` keeps what `Objects` keeps, in a dict, with the same errors.
* `open_store`, `first_record`, `finished`, `commit` and `a_run` make small runs without a notebook.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cellrail_state.crashpoints import CrashPoints
from cellrail_state.errors import ObjectMissing
from cellrail_state.journal import Journal
from cellrail_state.keys import KeyRing
from cellrail_state.model import (
    Component,
    Delta,
    JobFinished,
    JobStarted,
    ObjectRef,
    Owner,
    RunEnded,
    RunKind,
    RunStarted,
    RunStatus,
    StepInfo,
    StepStatus,
    Variable,
    Verdict,
)
from cellrail_state.objects import Bytes, checked, make_ref
from cellrail_state.store import Store

#: the points that the store passes, before and after whatever changes it, in the order of one
#: step's commit and its ingestion
CRASH_POINTS = (
    "objects.before_write",
    "objects.before_rename",
    "objects.after_rename",
    "journal.before_append",
    "journal.after_append",
    "catalog.before_ingest",
    "catalog.before_commit",
    "catalog.after_commit",
    "catalog.after_ingest",
)
#: the points that a step's commit passes besides, where it has set what outlives its run
LEDGER_POINTS = (
    "ledger.before_propose",
    "ledger.after_propose",
    "ledger.before_settle",
    "ledger.after_settle",
)
#: the points that a prune passes besides
PRUNE_POINTS = (
    "prune.before_delete",
    "prune.after_delete",
    "objects.before_delete",
    "objects.before_unlink",
    "objects.after_delete",
)


class FakeClock:
    """Seconds since the epoch that pass only when a test says so."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """The time."""
        return self.now

    def advance(self, seconds: float) -> float:
        """Let time pass; the new time."""
        self.now += seconds
        return self.now


class Crashed(BaseException):
    """Raised by `RaiseAt`. No `Exception`: code that catches those does not survive a crash."""


class RaiseAt:
    """Crash points that raise at one of them."""

    def __init__(self, name: str, *, after: int = 0) -> None:
        """Raise at the point `name`, when it has been passed `after` times."""
        self.name = name
        self.left = after
        #: every point that was passed, in order
        self.passed: list[str] = []

    def reach(self, name: str) -> None:
        """Execution is at this point.

        Raises:
            Crashed: it is the one.
        """
        self.passed.append(name)
        if name == self.name:
            if self.left == 0:
                raise Crashed(name)
            self.left -= 1


class KillAt(RaiseAt):
    """Crash points that kill this process at one of them; nothing is cleaned up."""

    def reach(self, name: str) -> None:
        """Execution is at this point; it may be the last thing it is."""
        try:
            super().reach(name)
        except Crashed:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
            raise


class MemoryObjects:
    """Objects in a dict."""

    def __init__(self, content: Iterable[bytes] = ()) -> None:
        self.content: dict[str, bytes] = {}
        #: how often `flush` was called
        self.flushes = 0
        for data in content:
            self.put(data)

    def put(self, data: Bytes) -> ObjectRef:
        """Store bytes; the reference to them."""
        ref = make_ref(data)
        if ref.inline is None:
            self.content.setdefault(ref.digest, memoryview(data).tobytes())
        return ref

    def put_all(self, parts: Sequence[Bytes]) -> list[ObjectRef]:
        """Store several; the references to them."""
        return [self.put(data) for data in parts]

    def flush(self) -> None:
        """Count the call."""
        self.flushes += 1

    def get(self, ref: ObjectRef) -> bytes:
        """The bytes behind a reference.

        Raises:
            ObjectMissing: they are not there.
            ObjectDamaged: they are not what the address says.
        """
        data = ref.inline if ref.inline is not None else self.content.get(ref.digest)
        if data is None:
            raise ObjectMissing(f"the object {ref.digest} is missing")
        checked(data, ref)
        return data

    def buffer(self, ref: ObjectRef) -> bytearray:
        """The bytes behind a reference in memory of their own.

        Raises:
            ObjectMissing: they are not there.
            ObjectDamaged: they are not what the address says.
        """
        return bytearray(self.get(ref))

    def contains(self, ref: ObjectRef) -> bool:
        """Whether the bytes are there."""
        return ref.inline is not None or ref.digest in self.content


#: the id of a sample run
RUN = "20260101-000000000-aaaa"


def open_store(folder: Path, *, points: CrashPoints | None = None, keys: str = "keys") -> Store:
    """The store of a folder, made if needed, with keys beside it."""
    ring = KeyRing(folder / keys)
    return Store.open_or_create(folder / ".cellrail", keyring=ring, points=points)


def first_record(run_id: str = RUN, *, steps: int = 3, **changes: Any) -> RunStarted:
    """The first record of a run whose steps are `step1`, `step2`, ..."""
    values: dict[str, Any] = {
        "run_id": run_id, "flow": "etl.ipynb", "kind": RunKind.RUN, "time": 1_700_000_000.0,
        "owner": Owner(pid=1, started=0.0, host="here"),
        "steps": tuple(
            StepInfo(number=n, name=f"step{n}", source=f"x{n} = {n}") for n in range(1, steps + 1)
        ),
    }  # fmt: skip
    return RunStarted(**(values | changes))


def finished(
    store: Store, run_id: str, step: int, *, data: bytes = b"", names: int = 1
) -> JobFinished:
    """A successful step that stores one object under some names."""
    ref = store.objects.put(data or f"{step}".encode() * 5000)
    store.objects.flush()
    cid = f"{step:064x}"
    names_ = tuple(f"v{step}_{n}" for n in range(names))
    return JobFinished(
        time=1_700_000_000.0 + step, step=step, job_id=f"{run_id}/{step}",
        status=StepStatus.SUCCESS, started=1_700_000_000.0 + step, seconds=0.5,
        delta=Delta(
            components={cid: Component(id=cid, names=names_, codec="test", stream=ref)},
            variables={
                name: Variable(name=name, verdict=Verdict.STORED, component=cid, type="bytes")
                for name in names_
            },
        ),
    )  # fmt: skip


def commit(store: Store, journal: Journal, run_id: str, step: int, **rest: Any) -> None:
    """Append the two records of a step."""
    journal.append(JobStarted(time=1_700_000_000.0, step=step, job_id=f"{run_id}/{step}"))
    journal.append(finished(store, run_id, step, **rest))


def a_run(
    store: Store, run_id: str = RUN, *, steps: int = 3, end: bool = True, **changes: Any
) -> None:
    """A run with that many committed steps, its owner gone."""
    journal = store.create_journal(first_record(run_id, steps=steps, **changes))
    for step in range(1, steps + 1):
        commit(store, journal, run_id, step)
    if end:
        journal.append(RunEnded(time=1_700_000_100.0, status=RunStatus.SUCCESS))
    journal.sync()
    journal.close()
