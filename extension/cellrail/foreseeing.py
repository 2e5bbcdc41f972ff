"""What else would refuse a restart: its plan says so, in the words of the restart itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from cellrail.errors import CellrailError
from cellrail.restarting import RestartPlan
from cellrail.run.putback import not_put_back
from cellrail.versions import python_of, versions_when_imported
from cellrail_state.errors import StateError
from cellrail_state.model import Checkpoint
from cellrail_state.restore import incompatible


def foreseen(decided: RestartPlan, check: Callable[[], object]) -> RestartPlan:
    """The restart, refused in its plan where it would be refused when it is started.

    Args:
        decided: the restart.
        check: raises what would be raised then.
    """
    if decided.plan.refusals:
        return decided
    try:
        check()
    except (CellrailError, StateError) as error:
        return msgspec.structs.replace(decided, plan=decided.plan.refused(error))
    return decided


def check_versions(decided: RestartPlan, kernel: str, folder: Path) -> None:
    """Refuse what a kernel would refuse to load: values of another Python, or another major.

    Args:
        decided: the restart.
        kernel: the name of the kernel that would run it.
        folder: the working directory.

    Raises:
        RestartRefused: names what differs.
    """
    if decided.force or not decided.jobs:
        return
    history = decided.history
    checkpoint = Checkpoint.fold(job.delta for job in decided.jobs)
    used = {p: v for c in checkpoint.components.values() for p, v in c.packages.items()}
    python, packages = versions_when_imported(used, python_of(kernel), folder)
    if not python:  # nobody could be asked
        return
    # of what tells no version only a kernel knows more
    packages = {**used, **packages}
    stored = history.kernels[-1].python if history.kernels else ""
    found = incompatible(checkpoint, python, packages, stored_python=stored)
    if found is not None:
        raise not_put_back(f"{type(found).__name__}: {found}")
