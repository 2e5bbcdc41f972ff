"""A step's `--timeout` in an open notebook: the code is interrupted, the kernel lives on."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Callable


class StepAlarm:
    """Interrupts a step's code when it has run for longer than it may."""

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None
        self._rang = False
        self._ring_bell: Callable[[], object] = _interrupt
        #: the code ends, or the bell rings: never both at once
        self._either = threading.Lock()

    def set(self, seconds: float | None, cancel: Callable[[], object] | None = None) -> None:
        """The code begins.

        Args:
            seconds: what it may take; None for no limit.
            cancel: ends code that the event loop runs; from any thread.
        """
        self._rang, self._ring_bell = False, cancel or _interrupt
        if seconds is None or threading.current_thread() is not threading.main_thread():
            return
        timer = threading.Timer(seconds, self._ring)
        # it runs no code of the notebook
        timer.name, timer.daemon = "cellrail-alarm", True
        self._timer = timer
        timer.start()

    def clear(self) -> bool:
        """The code has ended; whether it was this clock that ended it."""
        try:
            self._stop()
        except KeyboardInterrupt:  # it rang at the very end
            self._stop()
        return self._rang

    def _stop(self) -> None:
        with self._either:
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _ring(self) -> None:
        with self._either:
            if self._timer is None:
                return
            self._rang = True
            self._ring_bell()


def _interrupt() -> None:
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        # a signal also ends a wait in the system
        signal.pthread_kill(main, signal.SIGINT)
    else:
        _thread.interrupt_main()
