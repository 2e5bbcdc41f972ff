"""Whether code of the notebook can run beside its cells: then every variable can change.

Threads, asyncio tasks and IPython callbacks that were not there when the kernel started.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

#: threads that run no code of the notebook
_HARMLESS = ("tqdm", "TMonitor", "IPythonHistorySavingThread", "cellrail-")
_EVENTS = ("pre_execute", "pre_run_cell", "post_execute", "post_run_cell")


class Bystanders:
    """Knows what was there at the start."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._threads = {thread.ident for thread in threading.enumerate()}

    def may_run(self) -> bool:
        """Whether anything of the notebook may have run beside the cell."""
        return self._threads_run() or self._callbacks_run() or self._tasks_run()

    def _threads_run(self) -> bool:
        return any(
            thread.ident not in self._threads
            and not f"{type(thread).__name__} {thread.name}".startswith(_HARMLESS)
            and not thread.name.startswith(_HARMLESS)
            for thread in threading.enumerate()
        )

    def _callbacks_run(self) -> bool:
        space = self._shell.user_ns
        callbacks = self._shell.events.callbacks
        return any(
            getattr(callback, "__globals__", None) is space
            for event in _EVENTS
            for callback in callbacks.get(event, ())
        )

    def _tasks_run(self) -> bool:
        asyncio = sys.modules.get("asyncio")
        if asyncio is None:
            return False
        try:
            tasks = asyncio.all_tasks()
        except RuntimeError:  # no loop runs in this thread: tasks wait for one
            return False
        space = self._shell.user_ns
        frames = (getattr(task.get_coro(), "cr_frame", None) for task in tasks)
        return any(frame is not None and frame.f_globals is space for frame in frames)
