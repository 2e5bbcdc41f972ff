"""`called`: drives a run that a cell of another one waits for. Not for people."""

from __future__ import annotations

import os
import signal
import sys
import threading

import click
import msgspec

from cellrail.cli.common import Context, common_options, print_json
from cellrail.cli.running import exit_code

_INPUT = 0
_CHUNK = 1 << 16


@click.command(hidden=True)
@common_options
def called(*, context: Context) -> int:
    """Carry out the request on standard input; end when that closes."""
    from cellrail.app.calling import Called
    from cellrail.run.children import Request

    del context
    request = msgspec.json.decode(_line(), type=Request)
    threading.Thread(target=_end_with_parent, name="cellrail-parent", daemon=True).start()
    app = Called(request)
    run = app.carry_out()
    print_json(
        {
            "run_id": run.id, "status": str(run.status), "cause": run.cause, "flow": run.flow,
            "store": str(app.store_path), "keys": str(app.keyring.folder),
        }
    )  # fmt: skip
    return exit_code(run)


def _line() -> bytes:
    """The request; without a buffer that the thread would have to share."""
    said = b""
    while not said.endswith(b"\n"):
        chunk = os.read(_INPUT, _CHUNK)
        if not chunk:
            sys.exit(1)
        said += chunk
    return said


def _end_with_parent() -> None:
    """End at once where nobody waits any more: as after a crash, the run can be gone on with."""
    while os.read(_INPUT, _CHUNK):
        continue
    if sys.platform == "win32":
        os._exit(1)
    os.kill(os.getpid(), signal.SIGKILL)
