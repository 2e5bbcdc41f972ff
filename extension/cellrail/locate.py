"""Runs and flows by the addresses that people type."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

from cellrail.errors import AmbiguousRun, RunNotFound
from cellrail_state.store import Store

_MINIMUM_PREFIX = 4
_CANDIDATES = 8


def flow_id(notebook: Path, store_path: Path) -> str:
    """A flow's id: the notebook's path relative to the store's parent, with forward slashes."""
    relative = os.path.relpath(notebook.resolve(), store_path.resolve().parent)
    return Path(relative).as_posix()


class RunLocator:
    """Finds runs in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def find(self, address: str) -> str:
        """The id of the run at an address: an id, a unique prefix, `last`, or a notebook's path.

        Raises:
            RunNotFound: there is none.
            AmbiguousRun: the prefix fits several runs.
        """
        ids = self._store.run_ids()
        if address in ids:
            return address
        if address == "last":
            if not ids:
                raise RunNotFound("the store has no run yet", hint="cellrail run NOTEBOOK")
            return ids[-1]
        if address.endswith(".ipynb"):
            return self._newest_of(address, ids)
        fitting = [run_id for run_id in ids if run_id.startswith(address)]
        if len(address) < _MINIMUM_PREFIX and fitting:
            raise RunNotFound(
                f"{address!r} is too short for a run's prefix",
                hint=f"give at least {_MINIMUM_PREFIX} characters",
            )
        if not fitting:
            raise RunNotFound(f"there is no run {address!r}", hint="cellrail runs lists them")
        if len(fitting) > 1:
            newest = list(islice(reversed(fitting), _CANDIDATES))
            raise AmbiguousRun(
                f"{address!r} fits {len(fitting)} runs: {', '.join(newest)}"
                + (", …" if len(fitting) > len(newest) else ""),
                hint="give more characters",
            )
        return fitting[0]

    def _newest_of(self, notebook: str, ids: list[str]) -> str:
        flow = flow_id(Path(notebook), self._store.path)
        for run_id in reversed(ids):
            if self._store.current_flow(self._store.started(run_id)) == flow:
                return run_id
        raise RunNotFound(f"{notebook} has no run yet", hint=f"cellrail run {notebook}")
