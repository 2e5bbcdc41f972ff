"""An interrupt ends a cell that awaits, too.

ipykernel answers SIGINT in such a cell by a callback on its event loop. A loop that sleeps does not
see the callback before something else wakes it up, so the signal itself has to.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading


def hear_interrupts() -> None:
    """Have signals wake up the event loop that runs in the main thread, if one does."""
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        return
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # cells run without one
        return
    heard, signalled = os.pipe()
    os.set_blocking(heard, False)
    os.set_blocking(signalled, False)

    def awake() -> None:
        try:
            os.read(heard, 1 << 10)
        except BlockingIOError:
            return
        except OSError:  # code of the notebook has closed it
            loop.remove_reader(heard)

    loop.add_reader(heard, awake)
    signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
