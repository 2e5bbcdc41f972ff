"""What a kernel knows of the front end that drives it. Imported by `%load_ext cellrail`: light."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def notebook_of(shell: Any) -> Path | None:
    """The notebook that this kernel's front end has open; None where it does not tell."""
    told = shell.user_ns.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME", "")
    path = Path(str(told))
    return path if path.suffix == ".ipynb" and path.is_file() else None


def has_person(shell: Any) -> bool:
    """Whether a front end with a person executes the cells.

    Front ends send the id of the cell with each request; nbclient (papermill, nbconvert) and nbval
    send none.
    """
    kernel = getattr(shell, "kernel", None)
    if kernel is None or hasattr(shell, "cellrail_hooks"):
        return False
    parent = kernel.get_parent("shell") or {}
    return bool((parent.get("metadata") or {}).get("cellId"))
