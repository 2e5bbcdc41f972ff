"""Fills small file systems with runs: the other half of `test_full_disk`.

Runs in a mount namespace of its own. Each store is copied out as it was when nothing fitted any
more, and examined and queried in place: neither may raise anything but our own errors.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

from cellrail_state.doctor import examine
from cellrail_state.errors import StateError
from cellrail_state.testing import commit, first_record, open_store

NO_MOUNT = 77
#: kB; the smallest hold no store, the largest a catalog
SIZES = (16, 48, 200, 600, 1500, 3000)


def fill(folder: Path) -> dict[str, list[int]]:
    """Runs until one cannot begin; what was committed."""
    committed: dict[str, list[int]] = {}
    with contextlib.suppress(StateError):
        for number in range(1000):
            store = open_store(folder)
            run_id = f"20260101-{number:09d}-aaaa"
            journal = store.create_journal(first_record(run_id))
            committed[run_id] = []
            try:
                for step in (1, 2, 3):
                    data = run_id.encode() * (1000 * step)
                    commit(store, journal, run_id, step, data=data)
                    committed[run_id].append(step)
                    store.catalog.ingest()
            finally:
                journal.close()
    return committed


def main() -> None:
    """Fill one after the other."""
    told = {}
    for size in SIZES:
        disk = Path(sys.argv[1]) / f"disk{size}"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(disk)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            sys.exit(NO_MOUNT)
        committed = fill(disk)
        copy = Path(sys.argv[1]) / f"copy{size}"
        shutil.copytree(disk, copy)
        if committed:
            store = open_store(disk)
            assert len(store.catalog.runs(limit=1000)) == len(store.run_ids())
            with contextlib.suppress(StateError):
                examine(store, fix=True)
            assert len(store.catalog.runs(limit=1000)) == len(store.run_ids())
        told[str(copy)] = committed
    print(json.dumps(told))


if __name__ == "__main__":
    main()
