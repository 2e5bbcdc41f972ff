"""What a panel does in the notebook's own kernel: put its variables back to before a step."""

from __future__ import annotations

import shlex
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any


def restart_here(wish: Mapping[str, Any]) -> dict[str, Any]:
    """`%flow restart RUN --from STEP`; what it said, or why it was refused.

    Args:
        wish: `restart`: the run; `step`: the cut.
    """
    from IPython.core.error import UsageError
    from IPython.utils.capture import capture_output

    module = sys.modules.get("IPython")
    shell: Any = module.get_ipython() if module is not None else None
    if getattr(shell, "cellrail_live", None) is None:
        return {"error": {"message": "this kernel has no %flow", "hint": "%load_ext cellrail"}}
    line = shlex.join(["restart", str(wish["restart"]), "--from", str(wish["step"])])
    try:
        with capture_output() as said:
            shell.cellrail_live.flow(line)
    except UsageError as error:
        return {"error": {"message": str(error), "hint": ""}}
    return {"text": said.stdout.strip()}


def between_cells(do: Callable[[], object]) -> None:
    """Do something in the thread that executes cells, when none is executed."""
    module = sys.modules.get("IPython")
    shell: Any = module.get_ipython() if module is not None else None
    kernel = getattr(shell, "kernel", None)
    if kernel is None or threading.current_thread() is threading.main_thread():
        do()
    else:  # newer front ends have widgets answered by a thread of their own
        kernel.io_loop.add_callback(do)
