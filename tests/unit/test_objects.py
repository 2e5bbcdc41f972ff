"""Laws of object files: one file per content, no half file under a digest, durable after flush."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cellrail_state import objects as module
from cellrail_state.errors import ObjectError, StoreNotWritable
from cellrail_state.model import ObjectRef
from cellrail_state.objects import Objects
from cellrail_state.testing import Crashed, RaiseAt

LARGE = b"x" * 10_000


def test_equal_content_is_written_once_and_its_age_renewed(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    path = objects.path(objects.put(LARGE).digest)
    os.utime(path, (1, 1))
    inode = path.stat().st_ino
    objects.put(LARGE)
    assert path.stat().st_ino == inode
    assert path.stat().st_mtime > 1


@pytest.mark.parametrize("point", ["objects.before_write", "objects.before_rename"])
def test_a_crash_before_the_name_leaves_no_object(tmp_path: Path, point: str) -> None:
    with pytest.raises(Crashed):
        Objects(tmp_path, points=RaiseAt(point)).put(LARGE)
    assert not [p for p in Objects(tmp_path).files() if module.is_object(p)]


def test_several_objects_of_one_folder_cost_one_directory_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(module, "sync_folder", synced.append)
    objects = Objects(tmp_path)
    for _ in range(3):
        ref = objects.put(LARGE)
    objects.flush()
    assert synced.count(objects.path(ref.digest).parent) == 1


def test_a_new_folder_of_objects_is_made_durable_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(module, "sync_folder", synced.append)
    objects = Objects(tmp_path)
    objects.put(LARGE)
    objects.flush()
    assert tmp_path in synced


def test_no_space_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreNotWritable, match="No space"):
        Objects(tmp_path).put(LARGE)
    assert not list(Objects(tmp_path).files())


def test_an_address_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(LARGE)
    opened: list[str] = []
    objects = Objects(tmp_path / "objects")
    for digest in (str(outside), "../../outside"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "read_bytes", lambda self: opened.append(str(self)) or b"")
            with pytest.raises(ObjectError):
                objects.get(ObjectRef(digest=digest, size=len(LARGE)))
    assert not opened
