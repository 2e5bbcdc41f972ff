"""Laws of DuckDB's instances: one is made, files are held while they are used and no longer."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import duckdb
import pytest

from cellrail_state import instances
from cellrail_state.instances import attached


@pytest.fixture
def made():
    """Counts the instances that are made."""
    instances._let_go()
    with mock.patch.object(duckdb, "connect", side_effect=duckdb.connect) as connect:
        yield connect
    instances._let_go()


def rows(path: Path) -> str:
    """What another process reads there."""
    code = "import duckdb, sys; print(duckdb.connect(sys.argv[1]).execute('FROM t').fetchall())"
    command = [sys.executable, "-c", code, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr


def test_an_instance_serves_one_use_after_the_other_and_holds_no_file_between(made, tmp_path):
    path = tmp_path / "it's.duckdb"
    for n in range(3):
        with attached(path) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS t(n INT)")
            connection.execute("INSERT INTO t VALUES ($n)", {"n": n})
        assert rows(path) == str([(k,) for k in range(n + 1)])
    assert made.call_count == 1
    with attached(None) as connection, pytest.raises(duckdb.CatalogException):
        connection.execute("FROM t")
    assert made.call_count == 1


def test_two_uses_at_once_have_an_instance_each_and_one_is_kept(made, tmp_path):
    with attached(tmp_path / "a") as a, attached(tmp_path / "b") as b:
        a.execute("CREATE TABLE t(n INT)")
        b.execute("CREATE TABLE t(n INT)")
    assert (made.call_count, len(instances._idle)) == (2, 1)


@pytest.mark.parametrize("error", [duckdb.IOException("disk"), KeyboardInterrupt(), ValueError()])
def test_an_instance_in_which_something_went_wrong_is_given_up_with_its_file(made, tmp_path, error):
    path = tmp_path / "a.duckdb"
    with attached(path) as connection:
        connection.execute("CREATE TABLE t(n INT)")

    def go_wrong() -> None:
        with attached(path) as connection:
            connection.execute("BEGIN")
            connection.execute("INSERT INTO t VALUES (1)")
            raise error

    with pytest.raises(type(error)):
        go_wrong()
    assert not instances._idle
    assert rows(path) == "[]"


def test_a_file_that_cannot_be_had_costs_no_instance(made, tmp_path):
    damaged = tmp_path / "damaged.duckdb"
    damaged.write_bytes(b"no database" * 1000)
    for _ in range(2):
        with pytest.raises(duckdb.Error), attached(damaged):
            pytest.fail("it was attached")
    with attached(tmp_path / "good.duckdb"):
        pass
    assert made.call_count == 1


def test_a_query_that_leaves_the_database_is_no_worse_than_that(made, tmp_path):
    path = tmp_path / "a.duckdb"
    with attached(path) as connection:
        connection.execute("CREATE TABLE t(n INT)")
        connection.execute("BEGIN")
        connection.execute("INSERT INTO t VALUES (1)")
    assert rows(path) == "[]"
    with attached(path) as connection, contextlib.suppress(duckdb.Error):
        connection.execute("USE memory")
        connection.execute("DETACH store")
    assert rows(path) == "[]"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_has_no_instance_of_its_parent(made, tmp_path):
    with attached(tmp_path / "a"):
        pass
    assert instances._idle
    child = os.fork()
    if not child:
        os._exit(len(instances._idle))
    assert os.waitpid(child, 0)[1] == 0
