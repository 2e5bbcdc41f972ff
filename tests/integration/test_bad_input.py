"""Bad input: a clear message, exit code 2, and nothing changed."""

from __future__ import annotations

import json
import os
import sys

import pytest


def tree(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "nowhere.ipynb"], "does not exist"),
        (["run", "text.ipynb"], "is no notebook"),
        (["run", "old.ipynb"], "notebook of version 3"),
        (["run", "twice.ipynb"], "is already that of cell #1"),
        (["run", "option.ipynb"], "unknown option --tiemout; did you mean --timeout?"),
        (["run", "handler.ipynb"], "--on-failure and --in exclude each other"),
        (["run", "good.ipynb", "-p", "dya", "1"], "did you mean 'day'?"),
        (["run", "good.ipynb", "-p", "day", "soon"], "parameter 'day' is a date; 'soon' is none"),
        (["run", "good.ipynb", "--to", "nope"], "there is no step 'nope'"),
        (["run", "good.ipynb", "-k", "no-such"], "there is no kernel named 'no-such'"),
        (["run", "good.ipynb", "good.ipynb"], "would overwrite the notebook itself"),
        (["run", "good.ipynb", "no/folder/out.ipynb"], "does not exist"),
        (["run", "good.ipynb", "."], "is no notebook's name"),
        (["run", "good.ipynb", "-"], "is no notebook's name"),
        (["run", "good.ipynb", "out.html"], "is no notebook's name"),
        (["run", "good.ipynb", "--cwd", "nowhere"], "does not exist"),
        (["run", "good.ipynb", "--secret", "day"], "--secret day: give it with -p"),
        (["run", "good.ipynb", "--timeout", "0"], "timeout is more than 0 seconds, not 0"),
        (["run", "good.ipynb", "--timeout", "-5"], "'-5' is no duration"),
        (["run", "good.ipynb", "--timeout", "0", "--plan"], "timeout is more than 0 seconds"),
        (["run", "never.ipynb"], "a limit is more than 0 seconds"),
        (["restart", "last"], "there is no store"),
        (["runs", "nowhere.ipynb"], "there is no store"),
        (["runs", "--status", "nope"], "is not one of"),
        (["runs", "--limit", "-1"], "-1 is not in the range"),
        (["mv", "good.ipynb", "nowhere.ipynb"], "nowhere.ipynb does not exist"),
        (["rerun"], "Missing argument 'RUN'"),
        (["rerun", "good.ipynb"], "there is no store"),
        (
            ["backfill", "start", "good.ipynb", "--start", "2025", "--every", "day"],
            "neither a date nor a time",
        ),
        (["backfill", "start", "good.ipynb", "--start", "2025-01-01"], "which ticks?"),
        (["rnu", "good.ipynb"], "Did you mean 'run'?"),
        (["runs", "--label", "nonsense"], "a label is KEY=VALUE"),
    ],
)
def test_it_is_refused_and_nothing_changes(make, cellrail, tmp_path, words, told):
    (tmp_path / "text.ipynb").write_text("hello")
    (tmp_path / "old.ipynb").write_text('{"nbformat": 3, "worksheets": []}')
    make("%%step a\n1", "%%step a\n2", name="twice.ipynb")
    make("%%step a --tiemout 3\n1", name="option.ipynb")
    make("%%step a --on-failure --in b\n1", name="handler.ipynb")
    make("%%step a --timeout 0s\n1", name="never.ipynb")
    make(
        "from datetime import date\nday: date = date(2013, 1, 1)", "day",
        name="good.ipynb", tags={1: ["parameters"]},
    )  # fmt: skip
    before = tree(tmp_path)

    done = cellrail(*words, "--json")

    assert done.returncode == 2, done.stderr
    error = json.loads(done.stdout)["error"]
    assert told in error["message"], error
    assert "Traceback" not in done.stderr
    assert tree(tmp_path) == before


def test_a_kernel_that_is_not_ipython_is_refused(make, cellrail, tmp_path):
    folder = tmp_path / "data" / "kernels" / "bash"
    folder.mkdir(parents=True)
    spec = {"argv": ["bash", "{connection_file}"], "display_name": "Bash", "language": "bash"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    path = make("1", kernel="bash")

    done = cellrail("run", path, env={**os.environ, "JUPYTER_PATH": str(tmp_path / "data")})

    assert done.returncode == 2
    assert "is not an IPython kernel" in done.stderr
    assert not (tmp_path / ".cellrail").exists()


def test_a_kernel_without_cellrail_names_its_own_install_command(make, cellrail, tmp_path):
    folder = tmp_path / "data" / "kernels" / "bare"
    folder.mkdir(parents=True)
    # an IPython kernel in which our package cannot be imported
    hide = "import sys; sys.modules['cellrail'] = None; import runpy, ipykernel_launcher; "
    hide += "from ipykernel import kernelapp; kernelapp.launch_new_instance()"
    spec = {
        "argv": [sys.executable, "-c", hide, "-f", "{connection_file}", "ipykernel"],
        "display_name": "Bare",
        "language": "python",
    }
    (folder / "kernel.json").write_text(json.dumps(spec))
    path = make("1", kernel="bare")

    done = cellrail("run", path, env={**os.environ, "JUPYTER_PATH": str(tmp_path / "data")})

    assert done.returncode == 2, done.stderr
    assert "lacks cellrail" in done.stderr
    assert f"{sys.executable} -m pip install cellrail==" in done.stderr
    assert not (tmp_path / ".cellrail").exists()


def test_a_store_of_a_newer_version_is_refused(make, cellrail, tmp_path):
    store = tmp_path / ".cellrail"
    store.mkdir()
    (store / "store.json").write_text('{"format": 99, "id": "x"}')

    done = cellrail("run", make("1"))

    assert done.returncode == 2
    assert "has format 99; this cellrail reads 1" in done.stderr


def test_a_store_that_cannot_be_written_is_refused(make, cellrail, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")

    done = cellrail("run", make("1"), "--store", blocked)

    assert done.returncode == 2
    assert "is a file, not a store" in done.stderr


def test_an_ambiguous_run_names_the_candidates(make, cellrail, tmp_path):
    path = make("1")
    ids = [json.loads(cellrail("run", path, "--json").stdout)["run_id"] for _ in range(2)]

    done = cellrail("show", ids[0][:8], "--json")

    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "ambiguous-run"
    assert all(run_id in error["message"] for run_id in ids)
    assert cellrail("show", "2099").returncode == 2


def test_a_catalog_held_open_by_another_program_stops_nobody(make, cellrail, tmp_path):
    import duckdb

    path = make("1")
    assert cellrail("run", path).returncode == 0
    with duckdb.connect(str(tmp_path / ".cellrail" / "catalog.duckdb")):
        run = cellrail("run", path, "--json")
        assert run.returncode == 0, run.stderr
        listed = json.loads(cellrail("runs", "--json").stdout)["runs"]
    assert json.loads(run.stdout)["run_id"] in [row["run_id"] for row in listed]
    assert len(listed) == 2


def test_a_damaged_catalog_is_answered_from_the_journals_and_mended(make, cellrail, tmp_path):
    assert cellrail("run", make("1")).returncode == 0
    (tmp_path / ".cellrail" / "catalog.duckdb").write_bytes(b"not a database" * 1000)

    assert len(json.loads(cellrail("runs", "--json").stdout)["runs"]) == 1
    assert cellrail("doctor").returncode == 1
    assert cellrail("doctor", "--fix").returncode == 0
    assert cellrail("doctor").returncode == 0
