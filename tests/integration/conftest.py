"""What a store must be after whatever befell the processes that wrote to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from cellrail_state.doctor import examine, references
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
