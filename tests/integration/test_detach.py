"""`--detach`: a run, restart or rerun in a process of its own.

Laws: who begins it is told the run's id as soon as the run has begun, and a refusal as without
`--detach`; the run goes on when whoever began it is gone, and ends like any other; it can be
cancelled; no secret stands on a command line.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cellrail import App
from cellrail.errors import RestartRefused, UserError
from reading import printed, wait_for

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sessions")

SLOW = (
    "from datetime import date\nday: date = date(2013, 1, 1)\ntoken = ''",
    "%%step wait\nfrom pathlib import Path\nimport time\nPath('begun').touch()\n"
    "while not Path('go').exists(): time.sleep(0.01)\nprint(day, len(token))",
    "%%step after\nif Path('broken').exists(): raise ValueError('broken')\nprint('done')",
)
TAGS = {1: ["parameters"]}


def over(app: App, run_id: str) -> bool:
    return app.show(run_id).status not in {"running", "queued"}


def test_a_run_goes_on_without_whoever_began_it_and_can_be_restarted_so(
    make, cellrail, app, tmp_path
):
    make(*SLOW, tags=TAGS)

    done = cellrail(
        "run", "flow.ipynb", "out.ipynb", "-p", "day", "2013-05-01", "--label", "a=b", "--detach",
        "--json",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["status"] == "running"
    wait_for((tmp_path / "begun").exists)
    (tmp_path / "broken").touch()
    (tmp_path / "go").touch()
    wait_for(lambda: over(app, told["run_id"]))
    run = app.show(told["run_id"])
    assert (run.status, run.labels) == ("failed", {"a": "b"})
    assert printed(run, "wait") == "2013-05-01 0\n"
    wait_for((tmp_path / "out.ipynb").exists)

    (tmp_path / "broken").unlink()
    again = app.restart(run.id, detach=True)
    wait_for(lambda: over(app, again.id))
    after = app.show(again.id)
    assert (after.status, after.origin, after["wait"].status) == ("success", run.id, "kept")

    third = app.rerun(after.id, changed=["step:after"], detach=True)
    wait_for(lambda: over(app, third.id))
    assert app.show(third.id).to_dict()["kind"] == "rerun"


def test_a_secret_stands_on_no_command_line_and_the_run_can_be_cancelled(make, app, tmp_path):
    path = make(*SLOW, tags=TAGS)

    run = app.run(path, parameters={"token": "s3cret-value"}, secrets=["token"], detach=True)

    wait_for((tmp_path / "begun").exists)
    mine = psutil.Process().children(recursive=True)
    assert not any("s3cret-value" in word for process in mine for word in process.cmdline())
    assert app.cancel(run.id).status == "cancelled"
    assert b"s3cret-value" not in b"".join(
        p.read_bytes() for p in Path(tmp_path / ".cellrail").rglob("*") if p.is_file()
    )


def test_a_run_in_another_container_is_not_said_to_be_cancelled(make, app, tmp_path, monkeypatch):
    run = app.run(make(*SLOW, tags=TAGS), parameters={"token": "x"}, detach=True)
    wait_for((tmp_path / "begun").exists)

    def none(pid):  # as where the processes of a container are not ours, and its name is
        raise psutil.NoSuchProcess(pid)

    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(psutil, "Process", none)
        with pytest.raises(UserError, match="that drives the run is not to be seen from here"):
            app.cancel(run.id)
    assert app.show(run.id).status == "running"
    assert app.cancel(run.id).status == "cancelled"


def test_what_is_refused_is_told_at_once_and_nothing_changes(make, app, cellrail, tmp_path):
    path = make(*SLOW, tags=TAGS)

    with pytest.raises(UserError, match="'days'"):
        app.run(path, parameters={"days": 1}, detach=True)
    done = cellrail("run", "flow.ipynb", "-k", "no-such", "--detach")
    assert (done.returncode, "no kernel named 'no-such'" in done.stderr) == (2, True)
    assert not (tmp_path / ".cellrail").exists()

    (tmp_path / "go").touch()
    run = app.run(path)
    with pytest.raises(RestartRefused, match="nothing to repair") as refused:
        app.restart(run.id, detach=True)
    assert "--from" in refused.value.hint


def test_a_run_is_begun_by_a_terminal_that_closes(make, app, tmp_path):
    make(*SLOW, tags=TAGS)
    words = [sys.executable, "-m", "cellrail", "run", "flow.ipynb", "--detach", "--json"]
    done = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, check=True, start_new_session=True,
        timeout=120,
    )  # fmt: skip
    (tmp_path / "go").touch()
    run_id = json.loads(done.stdout)["run_id"]
    wait_for(lambda: over(app, run_id))
    assert app.show(run_id).status == "success"
