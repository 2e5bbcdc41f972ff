"""What a cell imports: `from cellrail import flow`.

State, waits, `once` and loops are specified and still to come; asking for them says so.
"""

from __future__ import annotations

from typing import Any

from cellrail.errors import NotAvailableYet

_LATER = frozenset(
    (
        "call", "callback_request", "context", "each", "error", "forced", "once", "previous",
        "recovering", "rerun", "resume_data", "runs", "shared", "step", "suspend", "tick",
        "woke_by",
    )
)  # fmt: skip


class FlowApi:
    """The flow that a cell runs in."""

    def __getattr__(self, name: str) -> Any:
        if name in _LATER:
            raise NotAvailableYet(f"flow.{name} is not available yet")
        message = f"flow has no attribute {name!r}"
        raise AttributeError(message)

    def __repr__(self) -> str:
        return "<cellrail flow>"


flow = FlowApi()
