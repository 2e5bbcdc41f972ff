"""Begins runs in processes of their own that nobody waits for: `--detach`.

Such a process is `cellrail detached`; what it shall do is told on its standard input, so that no
secret stands on a command line. Whoever begins it waits until its run's journal is there, or until
it is refused: bad input is told at once, as without `--detach`.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec

from cellrail import errors
from cellrail.errors import CellrailError, InternalError
from cellrail.notebook.parameters import to_json
from cellrail_state import errors as state_errors
from cellrail_state.errors import StateError

if TYPE_CHECKING:
    from cellrail.app.base import AppBase

_POLL_SECONDS = 0.05
_TAIL = 2000


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a detached process shall do."""

    #: run, restart or rerun
    action: str
    #: the notebook, or the origin's address
    subject: str
    output: str | None = None
    #: keyword arguments; parameters as `notebook.parameters.to_json` has them
    options: dict[str, Any] = {}
    store: str
    #: settings are those of this folder
    folder: str
    #: the folder of the signing keys; "" for the user's own
    keys: str = ""
    #: of the run, unless a tick gives it one
    run_id: str


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """What a detached process says before it begins its run."""

    begins: str


def request_of(
    app: AppBase,
    action: str,
    subject: str | Path,
    output: str | Path | None,
    options: Mapping[str, Any],
    *,
    run_id: str,
) -> Request:
    """What a process shall do that has this app's store, settings and keys.

    Args:
        app: the app.
        action: run, restart or rerun.
        subject: the notebook, or the origin's address.
        output: where the executed notebook goes.
        options: keyword arguments; who is told of progress is left out.
        run_id: the run's id, unless a tick gives it one.
    """
    told = {name: value for name, value in options.items() if name != "progress"}
    for name, value in told.items():
        if isinstance(value, Path):
            told[name] = str(value)
    if told.get("parameters"):
        told["parameters"] = to_json(dict(told["parameters"]))
    return Request(
        action=action, subject=str(subject), output=str(output) if output is not None else None,
        options=told, store=str(app.store_path), folder=str(app.folder), keys=app.keys,
        run_id=run_id,
    )  # fmt: skip


def begin(app: AppBase, request: Request) -> str:
    """Have a process do it, and wait until its run has begun; the run's id.

    Raises:
        CellrailError: it is refused; nothing was changed.
    """
    words = [sys.executable, "-P", "-m", "cellrail", "detached", "--json", "-q"]
    # no pipes: nobody would empty them
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=out, stderr=err,
            start_new_session=sys.platform != "win32",
        )  # fmt: skip
        assert process.stdin is not None
        with contextlib.suppress(OSError), process.stdin as pipe:
            pipe.write(msgspec.json.encode(request) + b"\n")
        # nobody waits for its end, but the system wants to be asked once
        threading.Thread(target=process.wait, name="cellrail-detached", daemon=True).start()
        while True:
            ended = process.poll() is not None
            lines = _lines(out)
            run_id = _begun(lines)
            if run_id and _is_there(app, run_id):
                return run_id
            if ended:
                raise _refusal(lines, _tail(err))
            time.sleep(_POLL_SECONDS)


def _is_there(app: AppBase, run_id: str) -> bool:
    """Whether a run has begun."""
    exists = (app.store_path / "store.json").exists()
    return exists and app.store.journal_size(run_id) > 0


def _lines(out: IO[bytes]) -> list[bytes]:
    out.seek(0)
    return out.read().splitlines()


def _tail(err: IO[bytes]) -> str:
    err.seek(0)
    return err.read()[-_TAIL:].decode(errors="replace").strip()


def _begun(lines: list[bytes]) -> str:
    for line in lines:
        with contextlib.suppress(msgspec.MsgspecError):
            return msgspec.json.decode(line, type=Begun).begins
    return ""


def _refusal(lines: list[bytes], last: str) -> CellrailError | StateError:
    """The error that a process has ended with."""
    for line in reversed(lines):
        with contextlib.suppress(msgspec.MsgspecError, KeyError, TypeError):
            told = msgspec.json.decode(line)["error"]
            error: CellrailError | StateError = _kind(told["code"])(
                told["message"], hint=told["hint"]
            )
            return error
    words = last.splitlines()[-1] if last else "it said nothing"
    return InternalError(f"the process of the run ended before it began: {words}")


def _kind(code: str) -> Any:
    """The error that has this code."""
    for home in (errors, state_errors):
        for kind in vars(home).values():
            ours = isinstance(kind, type) and issubclass(kind, (CellrailError, StateError))
            if ours and kind.code == code:
                return kind
    return InternalError if code == "internal" else errors.UserError
