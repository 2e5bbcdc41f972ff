"""Work that a panel has begun and that goes on without it: a restart, a recovery, a resume.

`python -m cellrail.panels.errand` reads one use case of `App` as JSON from its standard input (no
value stands on a command line, where others could read it), carries it out, and says what came of
it in a line of JSON. It has a session of its own: it lives on when the panel, the notebook or its
kernel are closed. Whoever began it can follow it with `Errand.state`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import IO, TYPE_CHECKING, Any

import msgspec

from cellrail.errors import CellrailError
from cellrail.notebook.parameters import from_json, to_json
from cellrail.ownprocess import begin_quickly
from cellrail_state.errors import StateError, StoreNotFound
from cellrail_state.model import RunStarted

if TYPE_CHECKING:
    from cellrail.app import App

#: what may be asked for
VERBS = frozenset({"run", "restart", "rerun", "recover", "resume", "cancel", "tick"})
#: so many of the newest runs are looked at for the one that an errand has begun
_LATELY = 16
#: bytes of what an errand has printed that are told where it broke
_TAIL = 4000


class Wish(msgspec.Struct, kw_only=True):
    """What an errand is to do."""

    store: str
    verb: str
    #: "" for a tick: it is about all
    run: str = ""
    options: dict[str, Any] = {}


class State(msgspec.Struct, kw_only=True):
    """How far an errand has come."""

    #: starting, running or ended
    state: str
    #: the run that it is about, once there is one
    run: str = ""
    error: dict[str, str] | None = None
    #: somebody has stopped it
    stopped: bool = False


class Errand:
    """A process that carries a wish out."""

    def __init__(self, app: App, wish: Wish) -> None:
        """Begin.

        Args:
            app: the store's, with its keys.
            wish: what to do.
        """
        environment = {**os.environ, **({"CELLRAIL_KEYS": app.keys} if app.keys else {})}
        self._app, self._wish = app, wish
        # open as long as this object or the errand is: it may outlive us
        self._said, self._printed = _file(), _file()
        weakref.finalize(self, _close, self._said, self._printed)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cellrail.panels.errand"],
            stdin=subprocess.PIPE, stdout=self._said, stderr=self._printed, env=environment,
            start_new_session=True,
        )  # fmt: skip
        self._run = wish.run if wish.verb in {"recover", "resume", "cancel"} else ""
        self._stopped = False
        assert self._process.stdin is not None
        with contextlib.suppress(OSError), self._process.stdin as stdin:
            stdin.write(_encoded(wish))
        # the system wants to be asked once, whether or not anybody follows
        threading.Thread(target=self._process.wait, name="cellrail-errand", daemon=True).start()

    @property
    def pid(self) -> int:
        """The process that does it."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether its process has."""
        return self._process.poll() is not None

    def state(self) -> State:
        """How far it has come."""
        ended = self.ended
        if not self._run:
            self._run = self._begun()
        if not ended:
            state = "running" if self._run else "starting"
            return State(state=state, run=self._run, stopped=self._stopped)
        told = self._told()
        return State(
            state="ended", run=told.get("run") or self._run, error=told.get("error"),
            stopped=self._stopped,
        )  # fmt: skip

    def stop(self) -> None:
        """Interrupt it, as Ctrl-C does: the run is cancelled."""
        self._stopped = self._stopped or not self.ended
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)

    def wait(self, timeout: float) -> State:
        """Wait for its end."""
        self._process.wait(timeout)
        return self.state()

    def _begun(self) -> str:
        """The run that its process drives."""
        origin = self._wish.run if self._wish.verb in {"restart", "rerun"} else ""
        try:
            store = self._app.store
        except StoreNotFound:  # the first run makes it
            return ""
        for run_id in store.newest(limit=_LATELY):
            started: RunStarted = store.started(run_id)
            if started.owner.pid == self.pid and _origin(started) == origin:
                return run_id
        return ""

    def _told(self) -> dict[str, Any]:
        lines = _tail(self._said, _TAIL * 4).strip().splitlines()
        with contextlib.suppress(msgspec.DecodeError, IndexError):
            answer: dict[str, Any] = msgspec.json.decode(lines[-1])
            return answer
        if self._stopped:  # before it could say so
            return {"error": {"message": "it was cancelled", "hint": ""}}
        words = _tail(self._printed, _TAIL).strip()
        last = words.splitlines()[-1] if words else f"exit code {self._process.returncode}"
        return {"error": {"message": f"the work has broken off: {last}", "hint": ""}}


class Errands:
    """Those of a room. Who wishes the same again while it is under way gets the first one.

    A double click, two views of a panel, and a message that is sent twice are one wish.
    """

    def __init__(self, app: App) -> None:
        """Nothing is begun yet.

        Args:
            app: the store's.
        """
        self._app = app
        self._begun: dict[bytes, Errand] = {}

    def begin(self, verb: str, run: str = "", options: dict[str, Any] | None = None) -> Errand:
        """Begin what is wished, unless it is under way.

        Args:
            verb: one of `VERBS`.
            run: the run's address.
            options: further arguments of that use case.
        """
        wish = Wish(store=str(self._app.store_path), verb=verb, run=run, options=options or {})
        name = _encoded(wish)
        known = self._begun.get(name)
        if known is None or known.ended:
            known = self._begun[name] = Errand(self._app, wish)
        return known


def _encoded(wish: Wish) -> bytes:
    """As JSON, which has no NaN and no dates: parameters that are one are not lost."""
    return msgspec.json.encode(_with_parameters(wish, to_json))


def _decoded(text: bytes) -> Wish:
    return _with_parameters(msgspec.json.decode(text, type=Wish), from_json)


def _with_parameters(wish: Wish, turned: Callable[[Any], Any]) -> Wish:
    name = "parameters"
    if not wish.options.get(name):
        return wish
    options = {**wish.options, name: turned(wish.options[name])}
    return msgspec.structs.replace(wish, options=options)


def _file() -> IO[bytes]:
    return tempfile.TemporaryFile()


def _close(*files: IO[bytes]) -> None:
    for file in files:
        file.close()


def _origin(started: RunStarted) -> str:
    return started.origin.run_id if started.origin is not None else ""


def _tail(file: IO[bytes], most: int) -> str:
    """The end of what a process that has ended has written (it shared our place in the file)."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - most))
    return file.read().decode(errors="replace")


def carry_out(app: App, wish: Wish) -> str:
    """Do what is wished; the id of the run that it was about.

    Raises:
        CellrailError: it cannot be done; of a tick, some of it could not.
    """
    if wish.verb not in VERBS:
        raise CellrailError(f"there is no errand {wish.verb!r}")
    about = [wish.run] if wish.run else []
    done = getattr(app, wish.verb)(*about, **wish.options)
    if wish.verb == "tick":
        refused = [(f"run {one.run_id}: " if one.run_id else "") + one.refused
                   for one in done if one.refused]  # fmt: skip
        if refused:
            raise CellrailError("; ".join(refused), hint=next(o.hint for o in done if o.refused))
    return str(getattr(done, "id", ""))


def main() -> int:
    """Carry out the wish on standard input."""
    from cellrail.app import App

    # what anything prints here is no answer
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    told: Mapping[str, Any]
    wish = _decoded(sys.stdin.buffer.read())
    try:
        told = {"run": carry_out(App(wish.store), wish)}
    except (CellrailError, StateError) as error:
        told = {"error": {"message": str(error), "hint": error.hint}}
    except KeyboardInterrupt:
        told = {"error": {"message": "it was cancelled", "hint": ""}}
    with contextlib.suppress(OSError):
        answers.write(msgspec.json.encode(told) + b"\n")
        answers.close()
    return 0


if __name__ == "__main__":
    begin_quickly()
    sys.exit(main())
