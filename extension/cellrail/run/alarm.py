"""A step's `--timeout` in an open notebook: the cell is interrupted, the kernel lives on."""

from __future__ import annotations

import _thread
import threading


class StepAlarm:
    """Interrupts the main thread when a cell has run for longer than its step may."""

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None
        self._limit: float | None = None
        self._rang = threading.Event()

    def set(self, source: str) -> None:
        """A cell begins."""
        self._rang.clear()
        self._limit = _timeout(source)
        if self._limit is not None:
            self._timer = threading.Timer(self._limit, self._ring)
            self._timer.daemon = True
            self._timer.start()

    def clear(self) -> str:
        """The cell has ended; the cause where it was this clock that ended it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return f"timeout after {self._limit:g} s" if self._rang.is_set() else ""

    def _ring(self) -> None:
        self._rang.set()
        _thread.interrupt_main()


def _timeout(source: str) -> float | None:
    if "--timeout" not in source:
        return None
    from cellrail.notebook.parse import read_steps

    steps, _ = read_steps({"cells": [{"cell_type": "code", "source": source, "metadata": {}}]})
    return steps[0].options.timeout
