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


def cell_id_of(shell: Any) -> str:
    """The id of the cell that the front end has executed; "" where it does not tell."""
    return str(_request(shell).get("cellId") or "")


def cell_metadata(shell: Any, cell_id: str) -> dict[str, Any]:
    """The notebook's metadata of the cell that is executed, as far as the front end tells.

    JupyterLab and Notebook send it with each request.
    """
    told = _request(shell)
    if not cell_id or told.get("cellId") != cell_id:
        return {}
    tags, ours = told.get("tags"), told.get("cellrail")
    found: dict[str, Any] = {}
    if isinstance(tags, list):
        found["tags"] = [tag for tag in tags if isinstance(tag, str)]
    if isinstance(ours, dict) and isinstance(ours.get("options"), str):
        found["cellrail"] = {"options": ours["options"]}
    return found


def has_person(shell: Any) -> bool:
    """Whether a front end with a person executes the cells.

    Front ends send the id of the cell with each request; nbclient (papermill, nbconvert) and nbval
    send none. What a person does to a widget comes as a message without a cell.
    """
    return not is_headless(shell) and bool(cell_id_of(shell) or _of_widget(shell))


def is_headless(shell: Any) -> bool:
    """Whether a headless run of ours drives the kernel."""
    return hasattr(shell, "cellrail_hooks")


def _request(shell: Any) -> dict[str, Any]:
    """The metadata of the request that is executed."""
    return dict(_parent(shell).get("metadata") or {})


def _of_widget(shell: Any) -> bool:
    """Whether it is not a cell that is executed, but what a widget in the browser asked for."""
    header = _parent(shell).get("header") or {}
    return str(header.get("msg_type") or "").startswith("comm_")


def _parent(shell: Any) -> dict[str, Any]:
    """The message that the kernel is answering."""
    kernel = getattr(shell, "kernel", None)
    return dict(kernel.get_parent("shell") or {}) if kernel is not None else {}
