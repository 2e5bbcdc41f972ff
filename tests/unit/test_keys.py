"""Laws of keys: private, made once, moved as text; trust holds for what was there, no more."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from pathlib import Path

import pytest

from cellrail_state.errors import StateError, Untrusted
from cellrail_state.keys import KeyRing
from cellrail_state.testing import RUN, a_run, open_store


def _key(folder: Path) -> bytes:
    return KeyRing(folder).key()


def test_processes_that_need_the_key_at_once_get_the_same(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert len(set(pool.map(_key, [tmp_path / "keys"] * 16))) == 1


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_the_key_is_for_its_user_only(tmp_path: Path) -> None:
    KeyRing(tmp_path / "keys").key()
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "keys" / "signing.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_the_folder_is_private_where_a_key_is_imported_first(tmp_path: Path) -> None:
    text = KeyRing(tmp_path / "a").export()
    KeyRing(tmp_path / "b").import_(text)
    assert (tmp_path / "b").stat().st_mode & 0o077 == 0


def test_another_users_store_is_refused_until_it_is_trusted(tmp_path: Path) -> None:
    a_run(open_store(tmp_path))
    other = open_store(tmp_path, keys="other")
    assert list(other.records(RUN)), "metadata can be read"
    with pytest.raises(Untrusted) as caught:
        list(other.records(RUN, verify=True))
    assert f"cellrail trust {other.path}" in caught.value.hint
    assert other.trust() == 1
    assert list(other.records(RUN, verify=True))


def test_what_is_changed_after_trust_is_refused_again(tmp_path: Path) -> None:
    mine = open_store(tmp_path)
    a_run(mine)
    other = open_store(tmp_path, keys="other")
    other.trust()
    a_run(mine, RUN.replace("aaaa", "bbbb"))
    with pytest.raises(Untrusted):
        list(other.records(RUN.replace("aaaa", "bbbb"), verify=True))


def test_an_imported_key_verifies_and_decrypts_but_does_not_sign(tmp_path: Path) -> None:
    mine = open_store(tmp_path)
    a_run(mine)
    other = open_store(tmp_path, keys="other")
    token, own = mine.keyring.encrypt("s3cret"), other.keyring.key()
    other.keyring.import_(mine.keyring.export())
    assert list(other.records(RUN, verify=True))
    assert other.keyring.decrypt(token) == "s3cret"
    assert other.keyring.key() == own


@pytest.mark.parametrize("text", ["", "nonsense", "cellrail-key-1:", "cellrail-key-1:abc"])
def test_a_text_that_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(StateError, match="no exported key"):
        KeyRing(tmp_path).import_(text)


def test_reading_a_foreign_store_makes_no_key(tmp_path: Path) -> None:
    a_run(open_store(tmp_path))
    shutil.rmtree(tmp_path / "keys")
    with pytest.raises(Untrusted):
        list(open_store(tmp_path).records(RUN, verify=True))
    assert not (tmp_path / "keys" / "signing.key").exists()
