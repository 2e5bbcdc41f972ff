"""How long a cell of an open notebook still waits, shown under it; nothing of it stays."""

from __future__ import annotations

import uuid
from typing import Any

#: a shorter wait is not shown
_LEAST_SECONDS = 2.0


class Countdown:
    """One line that counts down; when the wait is over it says only that there was one."""

    def __init__(self, shell: Any, words: str) -> None:
        """Show nothing yet.

        Args:
            shell: the IPython shell.
            words: what is waited for. What stays in the notebook holds no time.
        """
        self._shell, self._words = shell, words
        self._id = uuid.uuid4().hex
        self._shown = ""

    def __enter__(self) -> Countdown:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """The wait is over."""
        if self._shown:
            self._publish(self._words)

    def show(self, seconds: float) -> None:
        """So many seconds are left."""
        if not self._shown and seconds < _LEAST_SECONDS:
            return
        self._publish(f"{self._words}: {_clock(seconds)} left; interrupt the kernel to stop")

    def _publish(self, text: str) -> None:
        if text == self._shown:
            return
        if getattr(self._shell, "kernel", None) is None:  # a terminal takes nothing back
            if not self._shown:
                print(text)
            self._shown = text
            return
        update, self._shown = bool(self._shown), text
        self._shell.display_pub.publish(
            data={"text/plain": text}, metadata={}, transient={"display_id": self._id},
            update=update,
        )  # fmt: skip


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
