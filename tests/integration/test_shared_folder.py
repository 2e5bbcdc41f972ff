"""`./shared`: the files of a run, as they stood at the cut of its restart."""

from __future__ import annotations

import pytest

from cellrail.errors import UserError
from reading import printed


def test_shared_files_are_put_back_as_they_stood_at_the_cut(make, app):
    path = make(
        "from cellrail import flow\nhere = flow.shared / 'data'\nhere.mkdir()\n"
        "(here / 'a.txt').write_text('one')\n(here / 'big.bin').write_bytes(b'x' * 9_000_000)",
        "%%step two\nprint(sorted(p.name for p in here.iterdir()), (here / 'a.txt').read_text())\n"
        "(here / 'a.txt').write_text('two'); (here / 'b.txt').write_text('new')",
        "%%step three\n"
        "print(sorted(p.name for p in here.iterdir()), (here / 'a.txt').read_text())\n"
        "(here / 'big.bin').unlink(); (here / 'a.txt').write_text('three')",
        "%%step four\nprint(sorted(p.name for p in here.iterdir()), (here / 'a.txt').read_text())",
    )
    run = app.run(path)
    assert run.status == "success", run.cause
    before = app.store.shared_folder(run.id)
    assert run["two"].shared_files == ("data/a.txt", "data/b.txt", "data/big.bin")
    told = {label: printed(run, label) for label in ("two", "three", "four")}
    assert told["four"] == "['a.txt', 'b.txt'] three\n"
    for cut in ("two", "three", "four"):
        again = app.restart(run.id, from_step=cut)
        assert again.status == "success", again.cause
        assert all(printed(again, label) == text for label, text in told.items())
        # the paths in the restored variables lead into the new run's folder
        assert (app.store.shared_folder(again.id) / "data/a.txt").read_text() == "three"
    assert (before / "data/a.txt").read_text() == "three"
    assert not app.doctor().findings


def test_a_retry_begins_on_the_shared_files_before_the_step(make, app):
    run = app.run(
        make(
            "from cellrail import flow\n(flow.shared / 'log').write_text('0')",
            "%%step flaky --retry 2 --backoff 1ms\nlog = flow.shared / 'log'\n"
            "log.write_text(log.read_text() + 'x'); (flow.shared / 'more').touch()\n"
            "open('tries', 'a').write('x')\nif len(open('tries').read()) < 3: raise ValueError",
            "print(log.read_text())",
        )
    )
    assert printed(run, "#3") == "0x\n"


def test_shared_is_in_the_working_directory_while_the_run_lasts(make, app, tmp_path):
    path = make("open('shared/x', 'w').write('1')\nimport os\nprint(os.path.islink('shared'))")
    run = app.run(path, shared=True)
    assert printed(run, "#1") == "True\n"
    assert not (tmp_path / "shared").exists()
    # a restart has it too
    assert app.restart(run.id, from_step="#1").status == "success"
    # what a killed run has left is taken over
    (tmp_path / "shared").symlink_to(app.store.shared_folder(run.id))
    assert app.run(path, shared=True).status == "success"
    assert not (tmp_path / "shared").is_symlink()
    # what is not ours is not touched
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "mine").write_text("mine")
    runs = len(app.store.run_ids())
    with pytest.raises(UserError, match="cellrail has not made it"):
        app.run(path, shared=True)
    assert (tmp_path / "shared" / "mine").read_text() == "mine"
    assert len(app.store.run_ids()) == runs


def test_shared_of_a_run_that_is_running_is_refused_to_another(make, app, tmp_path, cellrail):
    path = make(
        "import subprocess, sys\n"
        "r = subprocess.run([sys.executable, '-m', 'cellrail', 'run', 'other.ipynb', '--shared'],"
        " capture_output=True, text=True)\nprint(r.returncode, r.stderr)"
    )
    make("x = 1", name="other.ipynb")
    run = app.run(path, shared=True)
    assert printed(run, "#1").startswith("2 error: ")
    assert f"is held by run {run.id}, which is running" in printed(run, "#1")
