"""Processes that drive the runs which a cell has asked for (`flow.call`).

A child is `cellrail called` in a process of its own. What it shall do is told on its standard
input, so that no secret stands on a command line; the input stays open as long as somebody waits
for it, and when it closes the child ends itself: nobody would record what comes of it. It is in a
session of its own, so that Ctrl-C reaches it through its parent, and once.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

import msgspec

#: seconds that an interrupted child may take to end, and how often it is looked at meanwhile
GRACE_SECONDS = 15.0
_POLL_SECONDS = 0.05
#: so much of its last words is told where it ended without an answer
_TAIL = 2000


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a child shall do."""

    #: run, restart, recover, or wake: go on where what it waited for has come
    action: str
    notebook: str
    #: the store, and the folder of the signing keys; "" for those that belong to the notebook
    store: str = ""
    keys: str = ""
    #: the id of the run that is made; "" for a new one
    run_id: str = ""
    #: the run that is restarted or gone on with
    of: str = ""
    #: JSON, as `notebook.parameters.to_json` has it
    parameters: dict[str, Any] = {}
    #: names of secret parameters
    secrets: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    #: whose states its steps see
    scope: str = ""
    #: the flows that wait for it, outermost first
    callers: tuple[str, ...] = ()
    #: seconds for the whole run
    timeout: float | None = None


class Child:
    """One process."""

    def __init__(self, request: Request) -> None:
        """Start it."""
        # no pipes: nobody would empty them
        self._out = tempfile.TemporaryFile()  # noqa: SIM115 - `_close` does
        self._err = tempfile.TemporaryFile()  # noqa: SIM115 - the same
        # -P: no module of the working directory stands in for one of ours
        words = [sys.executable, "-P", "-m", "cellrail", "called", "--json", "-q"]
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=self._out, stderr=self._err,
            start_new_session=sys.platform != "win32",
        )  # fmt: skip
        self._stopped = False
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.write(msgspec.json.encode(request) + b"\n")
                self._process.stdin.flush()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ended(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def told(self) -> dict[str, Any]:
        """What it has said in the end: `{"error": ...}`, or the run; then it is done with."""
        self._out.seek(0)
        said, code = self._out.read(), self._process.returncode
        self._err.seek(0)
        last = self._err.read()[-_TAIL:].decode(errors="replace").strip()
        self._close()
        with contextlib.suppress(msgspec.DecodeError):
            answer: dict[str, Any] = msgspec.json.decode(said)
            return answer
        words = last.splitlines()[-1] if last else "it said nothing"
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return {"error": {"code": "died", "message": f"its process ended ({how}): {words}"}}

    def interrupt(self) -> None:
        """Interrupt it, as Ctrl-C would; only once."""
        if self._stopped or self.ended():
            return
        self._stopped = True
        with contextlib.suppress(OSError):
            if sys.platform == "win32":
                self._process.terminate()
            else:
                self._process.send_signal(signal.SIGINT)

    def end(self, seconds: float = GRACE_SECONDS) -> None:
        """Interrupt it, and see to it that it ends."""
        self.interrupt()
        deadline = time.monotonic() + seconds
        try:
            while not self.ended() and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
        finally:
            if not self.ended():
                self._process.kill()
                self._process.wait()
            self._close()

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._out.close()
        self._err.close()
