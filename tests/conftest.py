"""What tests share: notebooks made on the spot, a store and keys of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import HealthCheck, settings

from cellrail import App
from forking import Shared

Make = Callable[..., Path]

# started in the background by a script, a process ignores Ctrl-C, and so would those it starts
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# tests run side by side: how long an example takes says nothing
settings.register_profile("beside", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("beside")


@pytest.fixture(autouse=True)
def own_keys(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Signing keys of this test alone; no setting of the machine."""
    keys = tmp_path_factory.mktemp("keys")
    for name in [name for name in os.environ if name.startswith("CELLRAIL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CELLRAIL_KEYS", str(keys))
    return keys


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a notebook from sources, in the test's folder."""

    def build(
        *sources: str,
        name: str = "flow.ipynb",
        tags: Mapping[int, Sequence[str]] | None = None,
        ids: bool = True,
        kernel: str = "python3",
    ) -> Path:
        cells = []
        for place, source in enumerate(sources):
            cell = nbformat.v4.new_code_cell(source)
            cell["id"] = f"cell-{place + 1}"
            if tags and place + 1 in tags:
                cell.metadata["tags"] = list(tags[place + 1])
            cells.append(cell)
        notebook = nbformat.v4.new_notebook(cells=cells)
        notebook.metadata["kernelspec"] = {
            "name": kernel, "display_name": kernel, "language": "python",
        }  # fmt: skip
        if not ids:
            notebook.nbformat_minor = 4
            for cell in notebook.cells:
                del cell["id"]
        path = tmp_path / name
        path.write_text(json.dumps(notebook), "utf-8")
        return path

    return build


class Clock:
    """Time as a test has it."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:
    """The time of `app`: `clock.ahead` seconds from now."""
    return Clock()


@pytest.fixture
def app(tmp_path: Path, clock: Clock) -> App:
    """An App on a store in the test's folder."""
    return App(tmp_path / ".cellrail", clock=clock)


@pytest.fixture(scope="session")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    supply = Shared(tmp_path_factory.mktemp("forks"))
    yield supply
    supply.close()


@pytest.fixture(autouse=True)
def _forks(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, _shared: Shared
) -> None:
    """Runs of this process fork their kernels, unless a test is marked `cold`. That a forked kernel
    is as a cold one is the law of `tests/contract`."""
    if request.node.get_closest_marker("cold") is not None:
        return
    monkeypatch.setattr(App, "_supply", lambda _app, _kernels: _shared.start)


@pytest.fixture
def edit() -> Callable[[Path, str, str], None]:
    """Changes one cell of a notebook, as a person would."""

    def change(path: Path, old: str, new: str) -> None:
        notebook = json.loads(path.read_text("utf-8"))
        touched = [cell for cell in notebook["cells"] if old in "".join(cell["source"])]
        assert len(touched) == 1
        touched[0]["source"] = "".join(touched[0]["source"]).replace(old, new)
        path.write_text(json.dumps(notebook), "utf-8")

    return change


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cellrail(tmp_path: Path) -> Command:
    """Runs the command line in the test's folder."""

    def run(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cellrail", *map(str, words)],
            cwd=options.pop("cwd", tmp_path), capture_output=True, text=True, check=False,
            timeout=120, **options,
        )  # fmt: skip

    return run
