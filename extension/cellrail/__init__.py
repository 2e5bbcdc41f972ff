"""Turns a plain Jupyter notebook into a durable flow.

`%load_ext cellrail` records a notebook and gives it `%%step` and `%flow`; `App` runs and restarts
notebooks from Python; `flow`, `get_state`, `set_state` and the like are what a cell imports.
Nothing heavy is imported until it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cellrail.version import __version__

if TYPE_CHECKING:
    from cellrail.api import (
        flow,
        get_flow_user_state,
        get_resource,
        get_state,
        get_state_path,
        get_variable,
        set_flow_user_state,
        set_resource,
        set_state,
        set_variable,
    )
    from cellrail.app import App
    from cellrail.errors import CellrailError
    from cellrail.panels import (
        backfill_button,
        backfill_panel,
        panel,
        restart_button,
        restart_panel,
        run_panel,
        runs_panel,
        state_panel,
        triggers_panel,
        waits_panel,
    )

__all__ = [
    "App",
    "CellrailError",
    "__version__",
    "backfill_button",
    "backfill_panel",
    "flow",
    "get_flow_user_state",
    "get_resource",
    "get_state",
    "get_state_path",
    "get_variable",
    "load_ipython_extension",
    "panel",
    "restart_button",
    "restart_panel",
    "run_panel",
    "runs_panel",
    "set_flow_user_state",
    "set_resource",
    "set_state",
    "set_variable",
    "state_panel",
    "triggers_panel",
    "waits_panel",
]

_HOMES = {
    "App": "cellrail.app",
    "CellrailError": "cellrail.errors",
    "backfill_button": "cellrail.panels",
    "backfill_panel": "cellrail.panels",
    "flow": "cellrail.api",
    "get_flow_user_state": "cellrail.api",
    "get_resource": "cellrail.api",
    "get_state": "cellrail.api",
    "get_state_path": "cellrail.api",
    "get_variable": "cellrail.api",
    "panel": "cellrail.panels",
    "restart_button": "cellrail.panels",
    "restart_panel": "cellrail.panels",
    "run_panel": "cellrail.panels",
    "runs_panel": "cellrail.panels",
    "set_flow_user_state": "cellrail.api",
    "set_resource": "cellrail.api",
    "set_state": "cellrail.api",
    "set_variable": "cellrail.api",
    "state_panel": "cellrail.panels",
    "triggers_panel": "cellrail.panels",
    "waits_panel": "cellrail.panels",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        message = f"module 'cellrail' has no attribute {name!r}"
        raise AttributeError(message)
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext cellrail`: `%%step`, `%flow`, and a live run where a person is at work."""
    from cellrail.magics import load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """`%unload_ext cellrail`: everything is as it was before."""
    from cellrail.magics import unload

    unload(shell)


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """How Jupyter Server finds the extension."""
    from cellrail.server.extension import CellrailExtension

    return [{"module": "cellrail", "app": CellrailExtension}]
