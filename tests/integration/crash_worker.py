"""Does what processes do to a store, and is killed at it: the other half of `test_crash_points`.

Each line of stdin asks for one death (JSON: folder, work, point, after). A fork of this process
does the work, so that none has to import anything; its wait status is answered. Committed steps are
told in the file `told`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import duckdb  # noqa: F401 - imported once for all forks

from cellrail_state import objects
from cellrail_state.doctor import examine
from cellrail_state.model import Origin, Owner, RunContinued
from cellrail_state.prune import prune
from cellrail_state.testing import RUN, KillAt, commit, first_record, open_store

#: a run whose owner died
GONE = "20260303-000000000-gone"
# parts so small that a test has many
objects.PART, objects.PARTED = 8192, 16384


def steps(folder: Path, points: KillAt) -> None:
    """A run on jobs of another: small objects, objects in parts, the same object again."""
    store = open_store(folder, points=points)
    # an id is never used again, even of a run that died before it began, or was pruned
    new, chain = f"20260202-{time.time_ns() // 10**6 % 10**9:09d}-aaaa", (f"{RUN}/1",)
    first = first_record(new, steps=6, chain=chain, origin=Origin(run_id=RUN, from_step="step2"))
    journal = store.create_journal(first)
    contents = [b"", b"parts" * 9000, b"2" * 5000, b"parts" * 9000, b"x" * 100, b"more" * 10_000]
    for step, data in enumerate(contents, 1):
        commit(store, journal, new, step, data=data)
        with (folder / "told").open("a") as told:
            told.write(f"{new} {step}\n")
        if step % 2:
            store.catalog.ingest()
    journal.close()


def sweep(folder: Path, points: KillAt) -> None:
    """A prune of everything that may go, then a doctor."""
    store = open_store(folder, points=points)
    later = time.time() + 86_400
    prune(store, keep_last=1, now=later)
    examine(store, fix=True, now=later)


def go_on(folder: Path, points: KillAt) -> None:
    """A run whose owner died goes on, twice."""
    store = open_store(folder, points=points)
    for step in (2, 3):
        journal, records = store.reopen_journal(GONE)
        epoch = 2 + sum(isinstance(record, RunContinued) for record in records)
        owner = Owner(pid=os.getpid(), started=0.0, host="here")
        journal.append(RunContinued(time=1.0, owner=owner, epoch=epoch, reason="recover"))
        commit(store, journal, GONE, step)
        with (folder / "told").open("a") as told:
            told.write(f"{GONE} {step}\n")
        journal.close()
        store.catalog.ingest()


class TearWrites(KillAt):
    """Kills in the middle of a write, whatever is written."""

    def __init__(self, name: str, *, after: int) -> None:
        super().__init__(name, after=after)
        real = os.write

        def tear(descriptor: int, data: bytes) -> int:
            if self.left == 0:
                real(descriptor, memoryview(data)[: len(data) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
            return real(descriptor, data)

        os.write = tear

    def reach(self, name: str) -> None:
        """Only writes are counted."""


WORKS = {
    "go on": (go_on, KillAt),
    "torn go on": (go_on, TearWrites),
    "steps": (steps, KillAt),
    "sweep": (sweep, KillAt),
    "torn": (steps, TearWrites),
}


def main() -> None:
    """Answer one request after the other."""
    for line in sys.stdin:
        folder, work, point, after = json.loads(line)
        child = os.fork()
        if not child:
            act, points = WORKS[work]
            try:
                act(Path(folder), points(point, after=after))
                os._exit(0)
            except BaseException:
                import traceback

                traceback.print_exc()
                sys.stderr.flush()
                os._exit(1)
        print(os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    main()
