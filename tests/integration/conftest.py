"""What a store must be after whatever befell the processes that wrote to it."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from cellrail import App
from cellrail_state.doctor import examine, references
from cellrail_state.ingest import TABLES
from cellrail_state.model import JobFinished
from cellrail_state.testing import open_store

#: what a sudden end may leave: nothing that was committed is among it
LEFT_OVERS = ("orphan object", "temporary file")


def _steps_are_whole(folder: Path, committed: Mapping[str, Sequence[int]]) -> None:
    store = open_store(folder)
    listed = {row.run_id for row in store.catalog.runs(limit=1000)}
    for run_id in store.run_ids():
        assert not store.is_owned(run_id)
        assert store.started(run_id)
        assert run_id in listed
        jobs = [r for r in store.records(run_id, verify=True) if isinstance(r, JobFinished)]
        told = list(committed.get(run_id, ()))
        assert [job.step for job in jobs][: len(told)] == told
        for job in jobs:
            assert all(store.objects.get(ref) is not None for ref in references(job))
    missing = [run_id for run_id, steps in committed.items() if steps and run_id not in listed]
    assert not missing


@pytest.fixture
def assert_whole() -> Callable[..., None]:
    """Checks that a store opens, that what was told to be committed is whole, before and after a
    doctor has swept what is left over, and that then nothing is."""

    def check(
        folder: Path,
        committed: Mapping[str, Sequence[int]],
        *,
        harmless: Iterable[str] = LEFT_OVERS,
    ) -> None:
        _steps_are_whole(folder, committed)
        store, later = open_store(folder), time.time() + 10 * 86_400
        found = examine(store, fix=True, now=later).findings
        assert {finding.kind for finding in found} <= set(harmless), found
        assert not examine(store, now=later).findings
        _steps_are_whole(folder, committed)

    return check


def _everything(app: App) -> Iterator[tuple[str, bytes]]:
    """Every piece of content that the store holds, and where."""
    store = app.store
    for path in store.path.rglob("*"):
        if path.is_file():
            yield str(path), path.read_bytes()
    for run_id in store.run_ids():
        for record in store.records(run_id):
            for ref in references(record):
                yield f"an object of {run_id}: {type(record).__name__}", store.objects.get(ref)
    for table in TABLES:
        for row in store.catalog.query(f"SELECT * FROM {table}"):
            yield table, repr(row).encode()


def _disguises(secret: str) -> list[bytes]:
    """How a text may lie in a file."""
    plain = secret.encode()
    base64s = [base64.b64encode(b"\0" * lead + plain)[4:-4] for lead in range(3)]
    return [plain, secret.encode("utf-16-le"), plain[::-1], plain.hex().encode(), *base64s]


@pytest.fixture
def everything() -> Callable[[App], Iterator[tuple[str, bytes]]]:
    """Gives every piece of content that a store holds, and where."""
    return _everything


@pytest.fixture
def disguises() -> Callable[[str], list[bytes]]:
    """Tells how a text may lie in a file."""
    return _disguises
