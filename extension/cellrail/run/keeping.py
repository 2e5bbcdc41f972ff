"""The driver's side of laying kept jobs over a living namespace (`cellrail.run.layover`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cellrail.errors import RestartRefused
from cellrail.run.putback import Commander, setup_magics
from cellrail_state.model import Checkpoint, JobFinished, to_plain


def lay_over(
    client: Commander,
    target: Checkpoint,
    kept: Sequence[JobFinished],
    *,
    inputs: Mapping[int, str],
    execution_count: int,
    python: str = "",
    force: bool = False,
    lazy_above: int | None = None,
    ahead: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Make a kernel's namespace what a checkpoint says.

    Args:
        client: the kernel's.
        target: the fold of all deltas so far: those captured in this kernel, and those of jobs that
            were kept since (`cellrail_state.laying.laid` tells what a kept job leaves here).
        kept: the jobs that were kept since a cell ran in this kernel last.
        inputs: their sources by execution count.
        execution_count: what the next cell gets.
        python: version of the Python that wrote the kept values.
        force: load them under another Python, or another major of a package, too.
        lazy_above: bytes; larger values wait, if the driver tells what each cell needs.
        ahead: names that the cells to come use, in order; None where they may use any.

    Returns:
        `restored`, `waiting` and `removed` names, and `warnings`.

    Raises:
        RestartRefused: a value could not be put there.
    """
    answer = client.command(
        {
            "command": "lay over",
            "checkpoint": to_plain(target),
            "magics": setup_magics(kept),
            "inputs": {str(count): source for count, source in inputs.items()},
            "execution_count": execution_count,
            "python": python,
            "force": force,
            "lazy_above": lazy_above,
            "ahead": ahead,
        }
    )
    if "error" in answer:
        raise RestartRefused(
            f"what kept steps left could not be put back: {answer['error']}",
            hint="run the notebook from its start, or ask `cellrail doctor`",
        )
    return answer


def reserve(
    client: Commander,
    jobs: Sequence[JobFinished],
    *,
    first: Mapping[str, Any] | None = None,
) -> None:
    """Before the first cell: definitions of this kernel get other keys than those of these jobs.

    A function or class is known by a key that its process counts up. Where values of two processes
    meet in one namespace, no two definitions may have the same.

    Args:
        client: the kernel's.
        jobs: all that may be kept.
        first: states of generators to begin with, by library.
    """
    deltas = [job.delta for job in jobs]
    keys = {key for d in deltas for c in d.components.values() for key in c.definitions}
    order = {"command": "reserve", "keys": sorted(keys), "generators": dict(first or {})}
    client.command(order)
