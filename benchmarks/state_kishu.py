"""Kishu (0.3.4), as its JupyterLab extension starts it: attached to the shell by a silent cell.

Its two hooks around each cell are what it adds. It runs in its test mode: without it, it waits for
a notebook's front end to save and to reload, which is not there.
"""

# ruff: noqa: ARG002 - a method need not use all that it is given

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from state_methods import Kept, Method
from state_shell import cell


class Kishu(Method):
    """Incremental commits into SQLite."""

    def __init__(self, ip: Any, folder: Path) -> None:
        super().__init__(ip, folder)
        self._notebook = folder / "notebook.ipynb"
        os.environ["KISHU_PATH_ROOT"] = str(folder)
        os.environ["ENV_KISHU_TEST_MODE"] = "1"
        os.environ["TEST_NOTEBOOK_PATH"] = str(self._notebook)
        if not self._notebook.exists():
            import nbformat

            nbformat.write(nbformat.v4.new_notebook(), self._notebook)
        from kishu.jupyterint import KishuForJupyter

        self._added, self._peak = 0.0, 0
        for hook in ("pre_run_cell", "post_run_cell"):
            setattr(KishuForJupyter, hook, self._timed(getattr(KishuForJupyter, hook)))
        source = f"import kishu\nkishu.init_kishu({str(self._notebook)!r})"
        ip.run_cell(source, silent=True, store_history=False).raise_error()
        self._kishu = ip.user_ns["_kishu"]

    def _timed(self, hook: Any) -> Any:
        def timed(session: Any, info: Any) -> None:
            self.memory.forget()
            started = time.perf_counter()
            hook(session, info)
            self._added += time.perf_counter() - started
            self._peak = max(self._peak, self.memory.peak())

        return timed

    def run(self, source: str, *, last: bool = False) -> Kept:
        self._added, self._peak = 0.0, 0
        before, head = self._size(), self._head()
        cell(self.ip, source)
        # IPython prints what a hook raises and goes on
        assert self._head() != head, "Kishu made no commit"
        return Kept(self._added, self._size() - before, self._peak)

    def _size(self) -> int:
        return sum(path.stat().st_size for path in self.folder.glob("*.kishudb*"))

    def _head(self) -> Any:
        return self._kishu._kishu_branch.get_head().commit_id  # noqa: SLF001 - not public

    def mark(self, cut: int) -> None:
        (self.folder / str(cut)).write_text(str(self._head()))

    def restore(self, cut: int) -> None:
        self._kishu.checkout((self.folder / str(cut)).read_text(), skip_notebook=True)

    def release(self) -> None:
        self._kishu.uninstall_kishu_hooks()
