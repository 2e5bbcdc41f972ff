"""`flow.once`: a recorded effect is not repeated."""

from __future__ import annotations

import json
import subprocess
import sys

from reading import printed


def test_once_is_not_repeated_by_retry_restart_or_restart_of_a_restart(make, app, tmp_path):
    path = make(
        "from cellrail import flow\n"
        "def send():\n    open('sent', 'a').write('x')\n    return {'id': 7}",
        "%%step mail --retry 2 --backoff 1ms\nprint(flow.once('mail', send))\n"
        "open('tries', 'a').write('x')\nif len(open('tries').read()) < 3: raise ValueError",
        "%%step end\nraise KeyError",
    )
    run = app.run(path)
    assert (tmp_path / "sent").read_text() == "x"
    again = app.restart(run.id, from_step="mail")
    third = app.restart(again.id, from_step="mail")
    assert printed(third, "mail") == "{'id': 7}\n"
    assert (tmp_path / "sent").read_text() == "x"
    # another run does it anew
    app.run(path)
    assert (tmp_path / "sent").read_text() == "xx"


def test_a_function_that_asks_for_itself_once_is_refused_and_does_not_wait(make, app):
    inner = "flow.once('n', lambda: flow.once('n', lambda: 2))"
    run = app.run(make("from cellrail import flow", inner, "print(flow.once('n', lambda: 3))"))

    assert run.status == "failed"
    assert run.cause == "BadState: flow.once('n'): its function waits for itself"


def test_once_per_flow_is_found_by_other_runs_and_waited_for(make, app, tmp_path):
    path = make(
        "from cellrail import flow\nimport time\ndef send():\n"
        "    open('sent', 'a').write('x'); time.sleep(1)\n    return 'done'",
        "%%step mail\nprint(flow.once('k', send, scope='flow'))",
    )
    app.resource_set("x", 1)
    command = [sys.executable, "-m", "cellrail", "run", str(path), "--json"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=tmp_path) for _ in range(2)]
    assert [json.loads(p.communicate(timeout=120)[0])["status"] for p in both] == ["success"] * 2
    assert printed(app.run(path), "mail") == "done\n"
    assert (tmp_path / "sent").read_text() == "x"


def test_a_result_of_once_that_is_no_json_is_told_and_the_function_does_not_run_again(
    make, app, tmp_path
):
    path = make(
        "from cellrail import flow\ndef send():\n    open('sent', 'a').write('x')\n    return {1}",
        "%%step mail\nflow.once('k', send)",
    )
    run = app.run(path)
    assert "flow.once('k'): it has run, and does not run again; but its result" in run.cause
    again = app.restart(run.id)
    assert f"it has run in run {run.id}, and does not run again" in again.cause
    assert (tmp_path / "sent").read_text() == "x"


def test_once_runs_again_where_the_function_raised(make, app, tmp_path):
    run = app.run(
        make(
            "from cellrail import flow\ndef send():\n    open('n', 'a').write('x')\n"
            "    if len(open('n').read()) < 3: raise OSError('down')\n    return 1",
            "%%step mail --retry 5 --backoff 1ms\nprint(flow.once('k', send))",
        )
    )
    assert printed(run, "mail") == "1\n"
