"""`cellrail serve` as a process: it fires, it stops in good order, and hinders no run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from cellrail import App

TOKEN = "t0ken-of-the-tests"
#: the wheel brings it to where Jupyter Server looks for its extensions
SHIPPED = Path(__file__).resolve().parents[2] / "extension/jupyter-config/cellrail.json"


class Process:
    """`cellrail serve`, and what it says."""

    def __init__(self, folder: Path, *words: str, environment: dict[str, str]) -> None:
        self.log = folder / "serve.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cellrail", "serve", str(folder), *words],
                stdout=log, stderr=log, env={**os.environ, **environment},
            )  # fmt: skip
        self.url = ""

    def wait(self, condition: Callable[[], Any], *, seconds: float = 60.0) -> Any:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            assert self.process.poll() is None, self.said
            time.sleep(0.05)
        raise AssertionError(self.said)

    @property
    def said(self) -> str:
        return self.log.read_text("utf-8")

    def begun(self) -> None:
        told = self.wait(lambda: re.search(r"cellrail serves .* at (http[^\s;]+)", self.said))
        self.url = told[1]

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []
    environment = {
        "JUPYTER_TOKEN": TOKEN,
        **{f"JUPYTER_{n}_DIR": str(tmp_path / f"j-{n}") for n in ("RUNTIME", "CONFIG", "DATA")},
    }

    def start(*words: str, **options: Any) -> Process:
        from contextlib import closing
        from socket import socket

        with closing(socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environment.update(options)
        made = Process(tmp_path, "--port", str(port), *words, environment=environment)
        started.append(made)
        made.begun()
        return made

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait(30)


def login(**more: str) -> dict[str, str]:
    return {"Authorization": f"token {TOKEN}", **more}


def ended(app: App, run_id: str) -> str:
    return str(app.show(run_id).status)


def test_a_link_resumes_a_run_which_goes_on_to_its_end(process, make, app):
    make("from cellrail import flow", "u = flow.suspend('1h')", "print(flow.resume_data)")
    server = process()
    app.run(make("1", name="first.ipynb"))
    server.wait(lambda: app.store.served() == server.url)
    run = app.run(
        make("from cellrail import flow", "u = flow.suspend('1h')", "y = flow.resume_data")
    )
    link = run["#2"].variables["u"].load()["resume_url"]
    assert link.startswith(server.url)
    assert requests.get(link, timeout=30).status_code == 200
    assert ended(app, run.id) == "suspended"
    assert requests.post(link, json={"n": 1}, timeout=30).status_code == 200
    server.wait(lambda: ended(app, run.id) == "success")
    assert app.show(run.id)["#3"].variables["y"].load() == {"n": 1}
    assert server.stop() == 0
    assert app.store.served() == ""


def test_a_trigger_fires_and_each_tick_has_one_run(process, make, app):
    app.trigger_add(make("x = 1"), cron="* * * * * */2", id="often", max_active=2)
    server = process("--workers", "2")
    server.wait(lambda: sum(r.status == "success" for r in app.runs(limit=50)) >= 3)
    assert server.stop() == 0
    ticks = [row.labels["tick"] for row in app.runs(limit=50)]
    assert len(ticks) == len(set(ticks))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_at_once_and_what_runs_goes_on_to_its_end(process, make, app, number):
    make("import time", "time.sleep(8)", "x = 1")
    server = process()
    started = requests.post(
        f"{server.url}/api/v1/runs", json={"notebook": "flow.ipynb"}, headers=login(), timeout=30
    )
    run_id = started.json()["run_id"]
    server.wait(lambda: any(row.run_id == run_id for row in app.runs()))
    assert server.stop(number) == 0
    assert ended(app, run_id) == "running"
    deadline = time.monotonic() + 60
    while ended(app, run_id) == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ended(app, run_id) == "success"


def test_a_server_that_is_killed_loses_nothing_that_was_answered(process, make, app):
    run = app.run(
        make("from cellrail import flow", "u = flow.suspend('1h')", "y = flow.resume_data")
    )
    first = process("--no-fire")
    answered = requests.post(
        f"{first.url}/api/v1/runs/{run.id}/resume", json={"data": 7}, headers=login(), timeout=30
    )
    first.process.kill()
    first.process.wait(30)
    assert answered.status_code == 200
    second = process()
    second.wait(lambda: ended(app, run.id) == "success")
    assert app.show(run.id)["#3"].variables["y"].load() == 7


def test_it_makes_a_token_and_prints_it_where_none_was_set(process, make):
    server = process(JUPYTER_TOKEN="")
    token = server.wait(lambda: re.search(r"token=([0-9a-f]{48})", server.said))[1]
    found = requests.get(f"{server.url}/api/v1/runs?token={token}", timeout=30)
    assert found.json() == {"schema": 1, "runs": []}


def test_a_token_file_may_end_with_a_newline(process, tmp_path):
    path = tmp_path / "token"
    path.write_text("from-a-file\n")
    server = process(JUPYTER_TOKEN="", JUPYTER_TOKEN_FILE=str(path))
    headers = {"Authorization": "token from-a-file"}
    assert requests.get(f"{server.url}/api/v1/runs", headers=headers, timeout=30).status_code == 200


def test_jupyters_own_server_serves_it_as_an_extension(tmp_path, make, app, cellrail):
    import contextlib
    import socket

    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # where an installed wheel puts what it ships, here in a folder of the test
    config = tmp_path / "j-config" / "jupyter_server_config.d"
    config.mkdir(parents=True)
    shutil.copy(SHIPPED, config)
    environment = {
        **os.environ, "JUPYTER_TOKEN": TOKEN, "JUPYTER_CONFIG_DIR": str(config.parent),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "j-runtime"), "JUPYTER_NO_CONFIG": "",
    }  # fmt: skip
    run = app.run(
        make("from cellrail import flow", "u = flow.suspend('1h')", "y = flow.resume_data")
    )
    log = tmp_path / "jupyter.log"
    with log.open("wb") as out:
        jupyter = subprocess.Popen(
            [sys.executable, "-m", "jupyter", "server", "--no-browser", "--allow-root",
             f"--port={port}", f"--ServerApp.root_dir={tmp_path}"],
            env=environment, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}/cellrail/api/v1/runs"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(requests.ConnectionError):
                found = requests.get(url, headers=login(), timeout=30)
                break
            time.sleep(0.1)
        assert [row["run_id"] for row in found.json()["runs"]] == [run.id], log.read_text()
        assert requests.get(url, timeout=30).status_code == 401
        assert (
            requests.post(f"{url}/{run.id}/resume", headers=login(), timeout=30).status_code == 200
        )
        while ended(app, run.id) != "success" and time.monotonic() < deadline:
            time.sleep(0.1)
        assert ended(app, run.id) == "success"
    finally:
        jupyter.send_signal(signal.SIGTERM)
        jupyter.wait(30)
