"""A real JupyterLab and a real Chromium: `lab.open(notebook)` gives a page with the notebook in it.

The browser is Debian's (`apt-get install chromium`), driven by Playwright for Python. Where one of
them is missing, these tests are skipped and say so; `.ci/run` installs them.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
import pytest

CHROMIUM = (
    os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
)
_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
]  # fmt: skip
#: the kernel is ready
_READY = """() => {
    const kernel = window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel;
    return kernel && kernel.connectionStatus === "connected" && kernel.status === "idle";
}"""
#: milliseconds that a page may take for anything
PATIENCE = 60_000


def _missing() -> str:
    """What is not installed here; "" where all is."""
    if CHROMIUM is None:
        return "no chromium here: apt-get install chromium"
    for module in ("playwright", "axe_playwright_python", "jupyterlab", "anywidget"):
        if find_spec(module) is None:
            return f"no {module} here: pip install {module}"
    return ""


class Lab:
    """A Jupyter server on a folder, and pages of a browser."""

    def __init__(self, folder: Path, url: str, token: str, browser: Any) -> None:
        self.folder, self._url, self._token, self._browser = folder, url, token, browser

    def notebook(self, *sources: str, name: str = "look.ipynb") -> str:
        """A notebook with these cells."""
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        notebook = nbformat.v4.new_notebook(cells=cells)
        notebook.metadata["kernelspec"] = {
            "name": "python3", "display_name": "Python 3", "language": "python",
        }  # fmt: skip
        (self.folder / name).write_text(json.dumps(notebook), "utf-8")
        return name

    def open(self, name: str, *, app: str = "lab", dark: bool = False) -> Page:
        """A page with the notebook in it, its kernel ready."""
        size = {"width": 1440, "height": 1000}
        page = self._browser.new_context(viewport=size, device_scale_factor=1).new_page()
        page.set_default_timeout(PATIENCE)
        path = f"lab/workspaces/{secrets.token_hex(4)}/tree" if app == "lab" else "notebooks"
        page.goto(f"{self._url}/{path}/{name}?token={self._token}")
        page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
        page.wait_for_function(_READY)
        if dark:
            self.theme(page, "JupyterLab Dark")
        return Page(page, self.folder / name, app=app)

    @staticmethod
    def theme(page: Any, name: str) -> None:
        """Change JupyterLab's theme, as its menu does."""
        page.evaluate(
            "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})",
            name,
        )
        page.wait_for_function("document.body.dataset.jpThemeLight === 'false'")


class Page:
    """A notebook in a browser."""

    def __init__(self, page: Any, path: Path, *, app: str = "") -> None:
        self.page, self.path, self._app = page, path, app

    def run(self, place: int) -> None:
        """Execute a cell, as Shift-Enter does."""
        cell = self.page.locator(".jp-Notebook .jp-CodeCell").nth(place)
        prompt = cell.locator(".jp-InputArea-prompt").first
        before = prompt.text_content()
        # a page that has just been opened on a busy machine may let the keys fall
        for _ in range(6):
            cell.locator(".cm-content").click()
            self.page.keyboard.press("Shift+Enter")
            with contextlib.suppress(TimeoutError):
                _until(lambda: prompt.text_content() != before, seconds=10)
                return
        raise AssertionError(f"the cell was not executed: {before}")

    def save(self) -> dict[str, Any]:
        """Save the notebook; what is in the file."""
        before = self.path.stat().st_mtime_ns
        self.page.keyboard.press("Control+s")
        saved: dict[str, Any] = {}

        def is_whole() -> bool:
            # it is written in place: what is read may be a part of it
            if self.path.stat().st_mtime_ns != before:
                with contextlib.suppress(ValueError):
                    saved.update(json.loads(self.path.read_text("utf-8")))
            return bool(saved)

        _until(is_whole, seconds=30)
        return saved

    @property
    def panel(self) -> Any:
        """The panel."""
        return self.page.locator(".cellrail").first

    def check(self) -> None:
        """What is seen now keeps nobody from using it, says axe-core."""
        from axe_playwright_python.sync_playwright import Axe

        # (which headings stand above a panel's is the notebook's affair)
        rules = {"heading-order": {"enabled": False}}
        told = Axe().run(self.page, ".cellrail", {"resultTypes": ["violations"], "rules": rules})
        wrong = [
            f"{found['id']}: {node['html'][:200]}: {node['failureSummary']}"
            for found in told.response["violations"]
            for node in found["nodes"]
        ]
        assert not wrong, "\n".join(wrong)

    def shoot(self, name: str) -> None:
        """Check what is seen, and take a picture of it where wanted (`make screenshots`)."""
        self.check()
        folder = os.environ.get("SCREENSHOTS")
        if folder and self._app == "lab":
            Path(folder).mkdir(parents=True, exist_ok=True)
            # all of it at once: what lies outside the window is no part of a picture
            size, height = self.page.viewport_size, self.panel.bounding_box()["height"]
            self.page.set_viewport_size({**size, "height": int(max(size["height"], height + 300))})
            self.panel.screenshot(path=str(Path(folder) / f"{name}.png"))


def _until(met: Callable[[], bool], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's Chromium."""
    if why := _missing():
        pytest.skip(why)
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS, headless=True)
        yield browser
        browser.close()


@pytest.fixture
def markup(tmp_path: Path, browser: Any) -> Callable[[str], Page]:
    """A page of a browser that holds what it is given, and no notebook."""

    def show(text: str) -> Page:
        page = browser.new_page()
        page.set_content(text)
        return Page(page, tmp_path)

    return show


@pytest.fixture
def lab(tmp_path: Path, browser: Any) -> Iterator[Lab]:
    """A Jupyter server of this test, on its folder."""
    with _server(tmp_path) as (url, token):
        yield Lab(tmp_path, url, token, browser)


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[tuple[str, str]]:
    port, token = _free_port(), secrets.token_hex(16)
    settings = folder / ".jupyter-config"
    told = settings / "settings" / "@jupyterlab" / "apputils-extension"
    told.mkdir(parents=True)
    (told / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}', "utf-8")
    environment = {
        **os.environ, "JUPYTER_CONFIG_DIR": str(settings),
        "JUPYTER_RUNTIME_DIR": str(settings / "run"),
        "JUPYTERLAB_WORKSPACES_DIR": str(settings / "workspaces"),
        "JUPYTERLAB_SETTINGS_DIR": str(settings / "settings"),
    }  # fmt: skip
    with (folder / "jupyter.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyter", "lab", "--allow-root", "--no-browser",
             "--expose-app-in-browser", f"--port={port}", f"--IdentityProvider.token={token}",
             "--ServerApp.port_retries=0", "--LabApp.news_url=",
             "--JupyterNotebookApp.expose_app_in_browser=True",
             "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
             # what is due is run when a test says so
             "--CellrailExtension.fires=False", f"--ServerApp.root_dir={folder}"],
            cwd=folder, stdout=log, stderr=log, env=environment,
        )  # fmt: skip
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_for(lambda: _answers(f"{url}/api/status?token={token}"), process, folder)
            yield url, token
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _wait_for(ready: Callable[[], bool], process: Any, folder: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if ready():
            return
        if process.poll() is not None:
            break
        time.sleep(0.2)
    raise RuntimeError((folder / "jupyter.log").read_text("utf-8")[-3000:])
