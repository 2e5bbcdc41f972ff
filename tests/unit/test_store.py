"""Laws of a store folder: made whole, opened by whoever can read it, refused with advice."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellrail_state.errors import StoreError, StoreNotFound, StoreOnNetwork, StoreTooNew
from cellrail_state.keys import KeyRing
from cellrail_state.mounts import Mount, refuse_network
from cellrail_state.store import Store
from cellrail_state.testing import RUN, Crashed, RaiseAt, a_run, first_record, open_store


def test_a_new_store_has_an_identity_and_is_ignored_by_git(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert (store.path / ".gitignore").read_text() == "*\n"
    assert open_store(tmp_path).id == store.id


def test_no_store_is_told_with_advice(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound) as caught:
        Store.open(tmp_path / "none", keyring=KeyRing(tmp_path))
    assert "run a notebook" in caught.value.hint
    assert not (tmp_path / "none").exists()


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    (store.path / "store.json").write_text('{"format": 99, "id": "x"}')
    with pytest.raises(StoreTooNew):
        open_store(tmp_path)


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".cellrail").write_text("")
    with pytest.raises(StoreError):
        open_store(tmp_path)


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "lustre", "ceph"])
def test_a_network_file_system_is_refused_by_its_longest_mount(kind: str) -> None:
    mounts = [Mount("/", "ext4"), Mount("/mnt", kind), Mount("/mnt/local", "ext4")]
    with pytest.raises(StoreOnNetwork, match=kind):
        refuse_network(Path("/mnt/data"), mounts)
    refuse_network(Path("/mnt/local/data"), mounts)
    refuse_network(Path("/mntother"), mounts)


def test_a_crash_while_a_run_begins_does_not_hide_the_other_runs(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    a_run(store)
    crashing = open_store(tmp_path, points=RaiseAt("journal.before_append"))
    with pytest.raises(Crashed):
        crashing.create_journal(first_record(RUN.replace("aaaa", "zzzz")))
    assert store.run_ids() == [RUN]


def test_a_renamed_flow_keeps_its_runs_in_listings(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    a_run(store)
    assert store.catalog.runs(flow="etl.ipynb")
    assert store.rename_flow("etl.ipynb", "new.ipynb", now=3e9) == 1
    assert [row.run_id for row in store.catalog.runs(flow="new.ipynb")] == [RUN]


def test_a_new_notebook_under_an_old_name_has_runs_of_its_own(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    a_run(store)
    store.rename_flow("etl.ipynb", "new.ipynb", now=3e9)
    later = RUN.replace("aaaa", "bbbb")
    a_run(store, later, time=4_000_000_000.0)
    assert [row.run_id for row in store.catalog.runs(flow="etl.ipynb")] == [later]
