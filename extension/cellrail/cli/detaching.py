"""`detached`: drives a run that was begun with `--detach`. Not for people."""

from __future__ import annotations

import sys

import click
import msgspec

from cellrail.cli.common import Context, common_options
from cellrail.cli.running import exit_code


@click.command(hidden=True)
@common_options
def detached(*, context: Context) -> int:
    """Carry out the request on standard input."""
    from cellrail.app.detached import Detached
    from cellrail.app.detaching import Begun, Request

    del context
    request = msgspec.json.decode(sys.stdin.buffer.readline(), type=Request)

    def begins(run_id: str) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(Begun(begins=run_id)) + b"\n")
        sys.stdout.buffer.flush()

    return exit_code(Detached(request, begins=begins).carry_out())
