"""A store of very many runs, made from one: `synthesize`.

One notebook is run in earnest. Its journal is then written again and again through the project's
own `Journal`, with another run's id, jobs and times, so that records are as long as real ones and
every run can be restarted. Nothing is made durable on the way: after a power cut, start over.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from writing import write_trivial

from cellrail import App
from cellrail_state import journal as journals
from cellrail_state.model import Record, RunStarted
from cellrail_state.store import Store

#: seconds between two synthetic runs
_APART = 60.0


def synthesize(folder: Path, *, runs: int, jobs: int) -> App:
    """An App on a store with so many runs of so many jobs each.

    Args:
        folder: takes the notebook and the store.
        runs: how many runs.
        jobs: jobs of each.
    """
    app = App(folder / ".cellrail")
    real = app.run(write_trivial(folder / "flow.ipynb", jobs), cwd=folder)
    records = list(app.store.records(real.id))
    with _nothing_durable():
        for number in range(1, runs):
            _again(app.store, records, real.id, number)
    return app


def _again(store: Store, records: list[Record], run_id: str, number: int) -> None:
    started = records[0]
    assert isinstance(started, RunStarted)
    earlier = number * _APART
    moment = time.gmtime(started.time - earlier)
    other = f"{time.strftime('%Y%m%d-%H%M%S', moment)}{number % 1000:03d}-aaaa"
    journal = store.create_journal(
        msgspec.structs.replace(
            started,
            run_id=other,
            time=started.time - earlier,
            flow=started.flow if number % 10 else "rare.ipynb",
            labels={"team": f"t{number % 7}"},
        )
    )
    for record in records[1:]:
        changes = {"time": record.time - earlier}
        if job_id := getattr(record, "job_id", ""):
            changes["job_id"] = job_id.replace(run_id, other)
        if hasattr(record, "started"):
            changes["started"] = record.started - earlier
        journal.append(msgspec.structs.replace(record, **changes))
    journal.close()


@contextlib.contextmanager
def _nothing_durable() -> Iterator[None]:
    sync_folder, sync = journals.sync_folder, journals.Journal.sync
    names = [name for name in ("fsync", "fdatasync") if hasattr(os, name)]
    real = {name: getattr(os, name) for name in names}
    journals.sync_folder = lambda _: None
    journals.Journal.sync = lambda _: None
    for name in names:
        setattr(os, name, lambda _: None)
    try:
        yield
    finally:
        journals.sync_folder, journals.Journal.sync = sync_folder, sync
        for name, function in real.items():
            setattr(os, name, function)
