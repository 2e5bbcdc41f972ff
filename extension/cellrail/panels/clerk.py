"""The kernel's end of the line to the process that answers its panels (`desk`).

The process starts with the first question and ends with the kernel. If it dies, panels are told
(`{lost: true}`) and ask anew.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

#: takes a message for the browser
Tell = Callable[[dict[str, Any]], None]


class Clerk:
    """Carries questions to the process, and its answers back to the panels."""

    def __init__(self, store: Path, *, keys: str = "") -> None:
        """Know what the process is to look into.

        Args:
            store: the store's folder.
            keys: folder of the signing keys, where one was named.
        """
        self._store, self._keys = store, keys
        self._panels: dict[str, Tell] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def open(self, panel: str, tell: Tell) -> None:
        """A panel is there; `tell` gets its answers, from another thread."""
        self._panels[panel] = tell

    def leave(self, panel: str) -> None:
        """A panel is closed; the process ends with the last one."""
        if self._panels.pop(panel, None) is None:
            return
        if self._panels:
            self._send({"panel": panel, "gone": True}, start=False)
        else:
            self.close()

    def ask(self, panel: str, question: dict[str, Any]) -> None:
        """Carry a question; returns at once."""
        self._send({**question, "panel": panel}, start=not question.get("alive"))

    def close(self) -> None:
        """End the process."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
            # it ends by itself; the system wants to be asked once
            threading.Thread(target=process.wait, name="cellrail-panels-end", daemon=True).start()

    def _send(self, question: dict[str, Any], *, start: bool) -> None:
        line = msgspec.json.encode(question) + b"\n"
        with self._lock:
            if self._process is None and start:
                self._process = self._start()
            process = self._process
            if process is None or process.stdin is None:
                return
            # the reader of its answers finds out, too, and tells the panels
            with contextlib.suppress(OSError):
                process.stdin.write(line)
                process.stdin.flush()

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **({"CELLRAIL_KEYS": self._keys} if self._keys else {})}
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cellrail.panels.desk", str(self._store)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
            # Ctrl-C in the notebook is for its cells
            start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        reader = threading.Thread(
            target=self._read, args=(process, process.stdout), name="cellrail-panels", daemon=True
        )
        reader.start()
        return process

    def _read(self, process: subprocess.Popen[bytes], answers: BinaryIO) -> None:
        with contextlib.suppress(OSError, ValueError), answers:
            for line in iter(answers.readline, b""):
                answer = msgspec.json.decode(line)
                tell = self._panels.get(answer.pop("panel", ""))
                if tell is not None:
                    with contextlib.suppress(Exception):  # its front end is gone
                        tell(answer)
        process.wait()
        with self._lock:
            lost = self._process is process
            if lost:
                self._process = None
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()
        for tell in list(self._panels.values()) if lost else ():
            with contextlib.suppress(Exception):
                tell({"lost": True})
