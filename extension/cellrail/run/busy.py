"""Whether code of the notebook can run beside its cells: then every variable can change.

Threads, asyncio tasks and IPython callbacks that were not there when the kernel started, and the
notebook's own functions and objects where Python calls them: signal handlers, handlers and filters
of loggers, hooks of `sys`, `warnings`, `threading`, `gc` and of imports, replaced builtins.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import builtins
import functools
import gc
import logging
import signal
import sys
import threading
import types
import warnings
from collections.abc import Iterator
from typing import Any

#: threads that run no code of the notebook
_HARMLESS = (
    "tqdm", "TMonitor", "IPythonHistorySavingThread", "cellrail-",
    # pyzmq's, from the first large message on; those of process pools
    "GarbageCollectorThread", "ExecutorManagerThread", "_ExecutorManagerThread",
    "QueueFeederThread", "QueueManagerThread",
)  # fmt: skip
_SIGNALS = tuple(map(int, signal.valid_signals()))
_BUILT_IN = frozenset({type, types.BuiltinFunctionType, bool, type(None), str})
_IDLE = frozenset({type(None), types.BuiltinFunctionType, int, signal.Handlers})
_EVENTS = ("pre_execute", "pre_run_cell", "post_execute", "post_run_cell")


class Bystanders:
    """Knows what was there at the start."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._threads = {thread.ident for thread in threading.enumerate()}

    def may_run(self) -> bool:
        """Whether anything of the notebook may have run beside the cell."""
        return (
            self._threads_run()
            or self._callbacks_run()
            or self._tasks_run()
            or any(self._is_mine(hook) for hook in _hooks())
        )

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

    def _is_mine(self, hook: Any) -> bool:
        """Whether something callable is the notebook's."""
        if type(hook) in _IDLE:
            return False
        while isinstance(hook, functools.partial):
            hook = hook.func
        hook = getattr(hook, "__func__", hook)
        space = getattr(hook, "__globals__", None)
        if space is not None:
            return space is self._shell.user_ns
        return type(hook).__module__ == "__main__"

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


def _hooks() -> Iterator[Any]:
    """What Python and its logging call without being told by a cell."""
    # below the module that makes enums of them, some sixty times before and after each cell
    yield from map(_signal.getsignal, _SIGNALS)
    yield from (sys.excepthook, sys.displayhook, sys.unraisablehook, threading.excepthook)
    yield from (sys.gettrace(), sys.getprofile(), warnings.showwarning, warnings.formatwarning)
    yield from (*gc.callbacks, *sys.meta_path, *sys.path_hooks)
    yield from (made for made in list(vars(builtins).values()) if type(made) not in _BUILT_IN)
    for logger in (logging.root, *list(logging.root.manager.loggerDict.values())):
        if isinstance(logger, logging.Logger) and (logger.handlers or logger.filters):
            yield from logger.filters
            for handler in logger.handlers:
                yield handler
                yield handler.formatter
                yield from handler.filters
