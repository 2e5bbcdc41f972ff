"""Laws of object files: one file per content, no half file under a digest, durable after flush."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cellrail_state import objects as module
from cellrail_state.errors import ObjectDamaged, ObjectError, ObjectMissing, StoreNotWritable
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


def test_many_at_once_are_what_they_are_one_by_one(tmp_path: Path) -> None:
    parts = [bytes([n % 7]) * (n * 700) + os.urandom(n % 3) for n in range(60)]
    together = Objects(tmp_path / "together").put_all(parts)
    single = Objects(tmp_path / "single")
    assert together == [single.put(part) for part in parts]
    files = {path.name for path in Objects(tmp_path / "together").files()}
    assert files == {path.name for path in single.files()}
    fresh = Objects(tmp_path / "together")
    assert [fresh.get(ref) for ref in together] == parts


@pytest.mark.parametrize("count", [2, 40])
def test_what_could_not_be_made_durable_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    objects = Objects(tmp_path)
    refs = objects.put_all([os.urandom(9000) for _ in range(count)])
    folders = {objects.path(ref.digest).parent for ref in refs} | {tmp_path}
    bad, broken, synced = objects.path(refs[-1].digest).parent, [True], list[Path]()

    def sync(folder: Path) -> None:
        if folder == bad and broken:
            raise OSError(errno.EIO, "Input/output error")
        synced.append(folder)

    monkeypatch.setattr(module, "sync_folder", sync)
    with pytest.raises(StoreNotWritable, match="Input/output error"):
        objects.flush()
    broken.clear()
    objects.flush()
    assert folders <= {*synced}
    assert bad in synced
    done = len(synced)
    objects.flush()
    assert len(synced) == done


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


SHARES = """
import os, sys
from pathlib import Path
from cellrail_state.objects import PARTED, Objects

objects = Objects(Path(sys.argv[1]))
memory = objects.buffer(objects.put(bytes(PARTED + 1)))
child = os.fork()
if not child:
    memory[0] = 1
    os._exit(0)
os.waitpid(child, 0)
sys.exit(memory[0])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes fork on POSIX systems only")
def test_what_a_forked_child_writes_into_read_bytes_does_not_show_here(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SHARES, str(tmp_path)], check=False)

    assert done.returncode == 0


@pytest.mark.parametrize("call", ["readv", "read"])
def test_bytes_are_read_whole_or_told_as_damaged(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if call == "read":  # as on Windows
        monkeypatch.delattr(os, "readv", raising=False)
    data = os.urandom(3 * module.PART + 5)
    objects = Objects(tmp_path)
    refs = [objects.put(data), objects.put(data[:10_000])]
    assert bytes(objects.buffer(refs[0])) == data
    assert objects.get(refs[1]) == data[:10_000]

    path = objects.path(refs[1].digest)
    for spoiled in (data[:9_999], data[:10_001], data[1:10_001], b""):
        path.write_bytes(spoiled)
        with pytest.raises(ObjectDamaged):
            objects.get(refs[1])
    path.unlink()
    with pytest.raises(ObjectMissing):
        objects.get(refs[1])
