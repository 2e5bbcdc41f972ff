"""A server in this process, on a free port, and a store with a run that waits."""

from __future__ import annotations

import asyncio
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from cellrail import App
from cellrail.executors import Done, Task

TOKEN = "t0ken-of-the-tests"
GATE = "from cellrail import flow\nurls = flow.suspend('1d', approval=True)"


class NoWorkers:
    """An executor that executes nothing, and remembers what it was given."""

    def __init__(self, *given: Any, **options: Any) -> None:
        self.tasks: list[Task] = []
        self.done: list[Done] = []

    @property
    def busy(self) -> list[str]:
        return [task.run_id for task in self.tasks]

    def submit(self, task: Task) -> None:
        self.tasks.append(task)

    def wait(self, seconds: float) -> list[Done]:
        found, self.done = self.done, []
        return found

    def close(self) -> None:
        pass


class Served:
    """A server and how to talk to it."""

    def __init__(self, server: Any, folder: Path, url: str) -> None:
        self.server, self.folder, self.url = server, folder, url
        self.app = App(folder / ".cellrail")
        self.session = requests.Session()
        self.login = {"Authorization": f"token {TOKEN}"}

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        """Call the API, logged in."""
        headers = {**self.login, **options.pop("headers", {})}
        return requests.request(
            method, f"{self.url}/cellrail/api/v1{path}", headers=headers, timeout=30, **options
        )

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.call("GET", path, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        return self.call("POST", path, **options)

    @property
    def extension(self) -> Any:
        return self.server.extension_manager.extension_points["cellrail"].app

    @property
    def tasks(self) -> list[Task]:
        """What workers were given."""
        executor = self.extension._rounds._executor
        return executor.tasks if executor is not None else []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_keys: Path) -> Iterator[Serve]:
    """Serves the test's folder; what is to be executed is only noted, unless `works`."""
    from cellrail.server import app as server_module
    from cellrail.server import ticking

    # what Jupyter keeps for itself does not lie in the user's folders
    for name in ("RUNTIME", "CONFIG", "DATA"):
        monkeypatch.setenv(f"JUPYTER_{name}_DIR", str(tmp_path / f"jupyter-{name.lower()}"))
    monkeypatch.setenv("JUPYTER_TOKEN", TOKEN)
    # signals are for a main thread
    monkeypatch.setattr(server_module.CellrailServer, "init_signal", lambda self: None)
    running: list[tuple[Any, threading.Thread]] = []

    def start(*, works: bool = False, folder: Path = tmp_path, **options: Any) -> Served:
        if not works:
            monkeypatch.setattr(ticking, "LocalProcesses", NoWorkers)
        store = App(folder / ".cellrail").begin_store()
        ready, found = threading.Event(), dict[str, Any]()

        def run() -> None:
            asyncio.set_event_loop(asyncio.new_event_loop())
            try:
                given = server_module.ServeOptions(
                    store=store, port=options.pop("port", free_port()), **options
                )
                found["server"] = server = server_module.make(given)
                server.io_loop.add_callback(ready.set)
                server.start()
                server.io_loop.close(all_fds=True)
            except BaseException as error:
                found["error"] = error
                ready.set()

        thread = threading.Thread(target=run, name="server of a test")
        thread.start()
        assert ready.wait(30)
        if "error" in found:
            thread.join()
            raise found["error"]
        running.append((found["server"], thread))
        server = found["server"]
        rounds = server.extension_manager.extension_points["cellrail"].app._rounds
        for _ in range(500):  # links lead here once it has looked
            if rounds._served:
                break
            rounds._stopping.wait(0.01)
        return Served(server, folder, f"http://127.0.0.1:{server.port}")

    yield start
    for server, thread in running:
        server.stop()
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def served(serve: Serve) -> Served:
    """A server of the test's folder."""
    return serve()


@pytest.fixture(scope="session")
def waiting_store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with a run that waits, made once, and the keys that signed it."""
    import json

    import nbformat

    folder, keys = tmp_path_factory.mktemp("waiting"), tmp_path_factory.mktemp("waiting-keys")
    cells = [
        nbformat.v4.new_code_cell(source)
        for source in ("x = 1", GATE, "print(flow.resume_data, flow.woke_by)")
    ]
    (folder / "flow.ipynb").write_text(json.dumps(nbformat.v4.new_notebook(cells=cells)), "utf-8")
    environment = pytest.MonkeyPatch()
    environment.setenv("CELLRAIL_KEYS", str(keys))
    environment.setenv("CELLRAIL_BASE_URL", "http://links.test/cellrail")
    try:
        run = App(folder / ".cellrail", keys=keys).run(folder / "flow.ipynb")
    finally:
        environment.undo()
    assert run.status == "suspended"
    urls = App(folder / ".cellrail", keys=keys).show(run.id)["#2"].variables["urls"].load()
    (folder / "urls.json").write_text(json.dumps(dict(urls)), "utf-8")
    return folder, keys


class Waiting(Served):
    """A server, and the links of a run that waits."""

    run_id: str
    resume: str
    cancel: str

    def status(self) -> str:
        return str(self.app.show(self.run_id).status)

    def answer(self) -> Any:
        """The answer that counts; None while there is none."""
        (wait,) = self.app.store.inbox.run_ids()
        return self.app.store.inbox.answered(f"{wait}/{self.number}")

    number = "1"


@pytest.fixture
def waiting(
    serve: Serve, tmp_path: Path, waiting_store: tuple[Path, Path], own_keys: Path
) -> Waiting:
    """A server with a run that waits: a copy of its own."""
    import json

    folder, keys = waiting_store
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    shutil.copytree(keys, own_keys, dirs_exist_ok=True)
    served = serve()
    served.__class__ = Waiting
    assert isinstance(served, Waiting)
    urls = json.loads((tmp_path / "urls.json").read_text("utf-8"))
    for name in ("resume", "cancel"):
        url = urls[f"{name}_url"].replace("http://links.test", served.url)
        setattr(served, name, url)
    served.run_id = served.app.show("last").id
    (info,) = served.app.store.inbox.waiting()
    served.number = info.wait_id.rpartition("/")[2]
    return served
