"""A run's journal as lines that people and programs read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from cellrail_state.model import RunContinued, RunEnded, to_plain
from cellrail_state.store import Store

_POLL_SECONDS = 0.2


def journal_lines(store: Store, run_id: str, *, follow: bool) -> Iterator[dict[str, Any]]:
    """The records of a run as plain data, in the order things happened.

    Stored bytes are told by address and size only.

    Args:
        store: the store.
        run_id: the run.
        follow: wait for more until the run has ended (or its owner is gone).
    """
    seen = 0
    while True:
        owned = store.is_owned(run_id)
        ended = False
        for number, record in enumerate(store.records(run_id)):
            if number < seen:
                continue
            seen = number + 1
            if isinstance(record, (RunEnded, RunContinued)):
                ended = isinstance(record, RunEnded)
            yield {"seq": number, **_without_bytes(to_plain(record))}
        if not follow or ended or not owned:
            return
        time.sleep(_POLL_SECONDS)


def _without_bytes(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_bytes(v) for k, v in value.items() if k != "inline"}
    if isinstance(value, list):
        return [_without_bytes(item) for item in value]
    return value
