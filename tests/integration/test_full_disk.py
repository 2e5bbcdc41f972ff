"""A full disk: what was committed is whole, and what cannot be written is told by one clear error.

* Every write, every file that is made and every sync fails in turn; then there is room again, and
  the same store goes on.
* A small file system runs full for real (where one may be mounted), the catalog's files included.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cellrail_state import objects
from cellrail_state.errors import StateError, StoreNotWritable
from cellrail_state.testing import commit, first_record, open_store

SCRIPT = Path(__file__).with_name("disk_worker.py")
#: how the script says that it may not mount anything
NO_MOUNT = 77


class Full:
    """Has every call of one function of `os` fail from the n-th on, while it is asked to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.real = getattr(os, name)
        self.left = 0
        self.failed = False
        self.on = False
        monkeypatch.setattr(os, name, self)

    def __call__(self, first: int, *rest: object, **options: object) -> int:
        if self.on and self.counts(*rest):
            self.left -= 1
            if self.left < 0:
                self.failed = True
                if self.real.__name__ == "write":  # there is room for a part of it
                    self.real(first, memoryview(rest[0])[: len(memoryview(rest[0])) // 3])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        result: int = self.real(first, *rest, **options)
        return result

    def counts(self, *rest: object) -> bool:
        if self.real.__name__ == "open":
            return bool(rest and int(str(rest[0])) & os.O_CREAT)
        return True


def a_run_until_it_fails(folder: Path, run_id: str) -> list[int]:
    """The steps that were committed before the disk was full."""
    contents = [run_id.encode() * 300, run_id.encode() * 1000, b"small"]
    done: list[int] = []
    try:
        store = open_store(folder)
        journal = store.create_journal(first_record(run_id, steps=3))
    except StateError:
        return []
    try:
        for step, data in enumerate(contents, 1):
            commit(store, journal, run_id, step, data=data)
            done.append(step)
            journal.sync()
    except StoreNotWritable:
        return done
    finally:
        journal.close()
    return done


@pytest.mark.parametrize("call", ["write", "open", "fsync", "fdatasync"])
def test_a_disk_that_is_full_at_any_moment_costs_nothing_that_was_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, assert_whole: Callable[..., None], call: str
) -> None:
    if not hasattr(os, call):
        pytest.skip(f"no os.{call} here")
    monkeypatch.setattr(objects, "PART", 8192)
    monkeypatch.setattr(objects, "PARTED", 16384)
    open_store(tmp_path).catalog.ingest()
    full, committed = Full(monkeypatch, call), {}
    for number in range(60):
        run_id = f"20260101-{number:09d}-aaaa"
        full.on, full.left, full.failed = True, number, False
        committed[run_id] = a_run_until_it_fails(tmp_path, run_id)
        full.on = False
        if not full.failed:
            break
    assert not full.failed
    assert committed[run_id] == [1, 2, 3]
    assert_whole(tmp_path, committed)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[int]]]:
    """Stores on file systems of several sizes, as they were when these were full."""
    if not sys.platform.startswith("linux") or shutil.which("unshare") is None:
        pytest.skip("no file system of our own here")
    folder = tmp_path_factory.mktemp("disks")
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", sys.executable, str(SCRIPT), str(folder)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if done.returncode == NO_MOUNT or "unshare failed" in done.stderr:
        pytest.skip("no file system may be mounted here")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_file_system_that_is_full_leaves_a_whole_store(
    filled: dict[str, dict[str, list[int]]], assert_whole: Callable[..., None]
) -> None:
    assert any(filled.values())
    for folder, committed in filled.items():
        if committed:
            assert_whole(Path(folder), committed)
