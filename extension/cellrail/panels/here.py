"""What a panel does in the notebook's own kernel: put its variables back to before a step."""

from __future__ import annotations

import shlex
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

_NO_FLOW = {"message": "this kernel has no %flow", "hint": "%load_ext cellrail"}


def here(wish: Mapping[str, Any]) -> dict[str, Any]:
    """What the browser asks of this kernel: whether it may restart, or to do so.

    Args:
        wish: as of `why_not_here` where it has `flow`, else as of `restart_here`.
    """
    return why_not_here(wish) if "flow" in wish else restart_here(wish)


def why_not_here(wish: Mapping[str, Any]) -> dict[str, Any]:
    """Why the variables of a flow's run cannot be put back here, in words; "" where they can.

    Args:
        wish: `flow`: the run's, as the store calls it.
    """
    from cellrail.locate import flow_id

    flow = str(wish["flow"])
    magics = getattr(_shell(), "cellrail_live", None)
    if magics is None:
        return {"flow": flow, "why": f"{_NO_FLOW['message']}: {_NO_FLOW['hint']}"}
    notebook = magics.here.notebook()
    # where the front end does not tell which notebook it has open, nobody knows better
    other = notebook is not None and flow_id(notebook, magics.here.app().store_path) != flow
    return {"flow": flow, "why": f"this run is of {flow}" if other else ""}


def restart_here(wish: Mapping[str, Any]) -> dict[str, Any]:
    """`%flow restart RUN --from STEP`; what it said, or why it was refused.

    Args:
        wish: `restart`: the run; `step`: the cut.
    """
    from IPython.core.error import UsageError
    from IPython.utils.capture import capture_output

    shell = _shell()
    if getattr(shell, "cellrail_live", None) is None:
        return {"error": _NO_FLOW}
    line = shlex.join(["restart", str(wish["restart"]), "--from", str(wish["step"])])
    try:
        with capture_output() as said:
            shell.cellrail_live.flow(line)
    except UsageError as error:
        return {"error": {"message": str(error), "hint": ""}}
    return {"text": said.stdout.strip()}


def between_cells(do: Callable[[], object]) -> None:
    """Do something in the thread that executes cells, when none is executed."""
    kernel = getattr(_shell(), "kernel", None)
    if kernel is None or threading.current_thread() is threading.main_thread():
        do()
    else:  # newer front ends have widgets answered by a thread of their own
        kernel.io_loop.add_callback(do)


def _shell() -> Any:
    module = sys.modules.get("IPython")
    return module.get_ipython() if module is not None else None
