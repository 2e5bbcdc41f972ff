"""What a store must be after whatever befell its writers; a front end that executes cells."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

from cellrail import App
from cellrail_state.doctor import examine, references
from cellrail_state.ingest import TABLES
from cellrail_state.model import JobFinished
from cellrail_state.testing import open_store

#: what a sudden end may leave: nothing that was committed is among it
LEFT_OVERS = ("orphan object", "temporary file")


def _steps_are_whole(folder: Path, committed: Mapping[str, Sequence[int]]) -> None:
    store = open_store(folder)
    listed = {row.run_id for row in store.catalog.runs(limit=1000)}
    for run_id in store.run_ids():
        assert not store.is_owned(run_id)
        assert store.started(run_id)
        assert run_id in listed
        jobs = [r for r in store.records(run_id, verify=True) if isinstance(r, JobFinished)]
        told = list(committed.get(run_id, ()))
        assert [job.step for job in jobs][: len(told)] == told
        for job in jobs:
            assert all(store.objects.get(ref) is not None for ref in references(job))
    missing = [run_id for run_id, steps in committed.items() if steps and run_id not in listed]
    assert not missing


@pytest.fixture
def assert_whole() -> Callable[..., None]:
    """Checks that a store opens, that what was told to be committed is whole, before and after a
    doctor has swept what is left over, and that then nothing is."""

    def check(
        folder: Path,
        committed: Mapping[str, Sequence[int]],
        *,
        harmless: Iterable[str] = LEFT_OVERS,
    ) -> None:
        _steps_are_whole(folder, committed)
        store, later = open_store(folder), time.time() + 10 * 86_400
        found = examine(store, fix=True, now=later).findings
        assert {finding.kind for finding in found} <= set(harmless), found
        assert not examine(store, now=later).findings
        _steps_are_whole(folder, committed)

    return check


def _everything(app: App) -> Iterator[tuple[str, bytes]]:
    """Every piece of content that the store holds, and where."""
    store = app.store
    for path in store.path.rglob("*"):
        if path.is_file():
            yield str(path), path.read_bytes()
    for run_id in store.run_ids():
        for record in store.records(run_id):
            for ref in references(record):
                yield f"an object of {run_id}: {type(record).__name__}", store.objects.get(ref)
    for table in TABLES:
        for row in store.catalog.query(f"SELECT * FROM {table}"):
            yield table, repr(row).encode()


def _disguises(secret: str) -> list[bytes]:
    """How a text may lie in a file."""
    plain = secret.encode()
    base64s = [base64.b64encode(b"\0" * lead + plain)[4:-4] for lead in range(3)]
    return [plain, secret.encode("utf-16-le"), plain[::-1], plain.hex().encode(), *base64s]


@pytest.fixture
def everything() -> Callable[[App], Iterator[tuple[str, bytes]]]:
    """Gives every piece of content that a store holds, and where."""
    return _everything


@pytest.fixture
def disguises() -> Callable[[str], list[bytes]]:
    """Tells how a text may lie in a file."""
    return _disguises


class Executed:
    """What a cell's execution sent to the front end."""

    def __init__(self) -> None:
        self.status = ""
        #: as nbformat has them, streams joined
        self.outputs: list[dict[str, Any]] = []
        self.execution_count: int | None = None

    @property
    def text(self) -> str:
        """What a person reads, without tracebacks."""
        said = []
        for output in self.outputs:
            if output["output_type"] == "stream":
                said.append(output["text"])
            elif output["output_type"] == "execute_result":
                said.append(output["data"]["text/plain"])
            elif output["output_type"] == "error":
                said.append(f"{output['ename']}: {output['evalue']}")
        return "".join(said)

    @property
    def error(self) -> dict[str, Any]:
        """The one error that was shown."""
        (found,) = [o for o in self.outputs if o["output_type"] == "error"]
        return found


class FrontEnd:
    """Executes cells as JupyterLab does: with the cell's id and metadata."""

    def __init__(self, folder: Path) -> None:
        self.manager, self.client = start_new_kernel(kernel_name="python3", cwd=str(folder))
        #: states of the widgets that the kernel has made, by comm
        self.widgets: dict[str, dict[str, Any]] = {}

    def run(self, code: str, cell_id: str = "c") -> str:
        """Execute a cell; what a person reads."""
        return self.execute(code, cell_id).text

    def execute(
        self,
        code: str,
        cell_id: str = "c",
        metadata: Mapping[str, Any] | None = None,
        *,
        interrupt_at: str = "",
        interrupt_on: str = "",
    ) -> Executed:
        """Execute a cell; interrupt it as soon as it says something, or shows such an output."""
        content = {
            "code": code, "silent": False, "store_history": True, "user_expressions": {},
            "allow_stdin": False, "stop_on_error": True,
        }  # fmt: skip
        told = {**(metadata or {}), **({"cellId": cell_id} if cell_id else {})}
        session = self.client.session
        message = session.msg("execute_request", content, metadata=told)
        session.send(self.client.shell_channel.socket, message)
        done, mine = Executed(), message["header"]["msg_id"]
        while True:
            reply = self.client.get_iopub_msg(timeout=60)
            kind, content = reply["msg_type"], reply["content"]
            self._follow(kind, content)
            if reply["parent_header"].get("msg_id") != mine:
                continue
            if kind == "status" and content["execution_state"] == "idle":
                break
            if kind in {"stream", "execute_result", "display_data", "error"}:
                self._take(done, {"output_type": kind, **content})
            if interrupt_at and interrupt_at in done.text:
                interrupt_at = ""
                self.manager.interrupt_kernel()
            if interrupt_on == kind:
                interrupt_on = ""
                self.manager.interrupt_kernel()
        while (reply := self.client.get_shell_msg(timeout=60))["parent_header"]["msg_id"] != mine:
            continue
        done.status = reply["content"]["status"]
        done.execution_count = reply["content"]["execution_count"]
        return done

    def _follow(self, kind: str, content: Mapping[str, Any]) -> None:
        """Keep the widgets as a front end does."""
        if kind == "comm_open" and content["target_name"] == "jupyter.widget":
            self.widgets[content["comm_id"]] = dict(content["data"]["state"])
        elif kind == "comm_msg" and content["data"].get("method") == "update":
            self.widgets.setdefault(content["comm_id"], {}).update(content["data"]["state"])

    def widget(self, description: str) -> str:
        """The newest widget with this description."""
        return [c for c, state in self.widgets.items() if state.get("description") == description][
            -1
        ]

    def said(self) -> str:
        """What the newest line of HTML says."""
        model = "HTMLModel"
        return [s["value"] for s in self.widgets.values() if s.get("_model_name") == model][-1]

    def click(self, description: str) -> None:
        """Press a button, and wait until the kernel is done with that."""
        self._send(description, {"method": "custom", "content": {"event": "click"}})

    def type(self, description: str, text: str) -> None:
        """Type into a field."""
        state = {"value": text}
        self._send(description, {"method": "update", "state": state, "buffer_paths": []})

    def _send(self, description: str, data: dict[str, Any]) -> None:
        content = {"comm_id": self.widget(description), "data": data}
        session = self.client.session
        message = session.msg("comm_msg", content)
        session.send(self.client.shell_channel.socket, message)
        while True:
            reply = self.client.get_iopub_msg(timeout=60)
            kind, content = reply["msg_type"], reply["content"]
            self._follow(kind, content)
            mine = reply["parent_header"].get("msg_id") == message["header"]["msg_id"]
            if mine and kind == "status" and content["execution_state"] == "idle":
                return

    @staticmethod
    def _take(done: Executed, output: dict[str, Any]) -> None:
        output.pop("transient", None)
        last = done.outputs[-1] if done.outputs else {}
        if output["output_type"] == "stream" and last.get("name") == output["name"]:
            last["text"] += output["text"]
        else:
            done.outputs.append(output)

    def close(self) -> None:
        """End the kernel, as a person does."""
        self.client.stop_channels()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel(now=False)


@pytest.fixture
def front(tmp_path: Path) -> Iterator[FrontEnd]:
    """A kernel in the test's folder."""
    made = FrontEnd(tmp_path)
    yield made
    made.close()


@pytest.fixture
def another_front(tmp_path: Path) -> Iterator[Callable[[], FrontEnd]]:
    """Starts another kernel in the test's folder."""
    made: list[FrontEnd] = []

    def start() -> FrontEnd:
        made.append(FrontEnd(tmp_path))
        return made[-1]

    yield start
    for front in made:
        front.close()
