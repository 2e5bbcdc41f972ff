"""No secret on the way to the front end: what an open notebook shows is what it saves.

Everything that a kernel tells goes through its session's `send`, from whatever thread. What is
shown there (streams, displayed values, tracebacks, and the reply that repeats a traceback) is
masked. A secret that is printed in pieces is not found, nor is what widgets hold.
"""

from __future__ import annotations

from typing import Any

from cellrail.run.masking import Masker

_SHOWN = frozenset({
    "stream", "display_data", "update_display_data", "execute_result", "error", "execute_reply",
})  # fmt: skip


class FrontMask:
    """Sends as a session does, without secrets."""

    def __init__(self, send: Any) -> None:
        self._send = send
        #: of the runs that this kernel has recorded: what one has read stays secret
        self.maskers: list[Masker] = []

    def __call__(
        self, stream: Any, msg_or_type: Any, content: Any = None, *rest: Any, **named: Any
    ) -> Any:
        """As `jupyter_client.session.Session.send`."""
        if isinstance(msg_or_type, str):
            if msg_or_type in _SHOWN:
                content = self._masked(content)
        elif msg_or_type.get("msg_type", msg_or_type["header"]["msg_type"]) in _SHOWN:
            msg_or_type = {**msg_or_type, "content": self._masked(msg_or_type["content"])}
        return self._send(stream, msg_or_type, content, *rest, **named)

    def _masked(self, content: Any) -> Any:
        for masker in self.maskers:
            content = masker.value(content)
        return content


def mask_front_end(shell: Any, masker: Masker) -> None:
    """From now on the front end is told no secret that this masker knows."""
    session = getattr(getattr(shell, "kernel", None), "session", None)
    if session is None:  # IPython in a terminal
        return
    if not isinstance(session.send, FrontMask):
        session.send = FrontMask(session.send)
    session.send.maskers.append(masker)
