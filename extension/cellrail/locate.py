"""Runs and flows by the addresses that people type."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from cellrail.errors import AmbiguousRun, RunNotFound
from cellrail_state.store import Store

_MINIMUM_PREFIX = 4
_CANDIDATES = 8
#: so many of the newest journals are looked at before the catalog is asked
_LATELY = 32
_ID = re.compile(r"[\w-]+")
_RUN_ID = re.compile(r"\d{8}-\d{9}-\w{4}")


def flow_id(notebook: Path, store_path: Path) -> str:
    """A flow's id: the notebook's path relative to the store's parent, with forward slashes."""
    relative = os.path.relpath(notebook.resolve(), store_path.resolve().parent)
    return Path(relative).as_posix()


def is_run_id(text: str) -> bool:
    """Whether a text has the form of a run's id."""
    return _RUN_ID.fullmatch(text) is not None


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
        store = self._store
        if _ID.fullmatch(address) and store.journal_size(address):
            return address
        if address == "last":
            return self._last()
        if address.endswith(".ipynb"):
            return self._newest_of(address)
        fitting = store.newest(address, limit=_CANDIDATES + 1)
        if len(address) < _MINIMUM_PREFIX and fitting:
            raise RunNotFound(
                f"{address!r} is too short for a run's prefix",
                hint=f"give at least {_MINIMUM_PREFIX} characters",
            )
        if not fitting:
            raise RunNotFound(f"there is no run {address!r}", hint="cellrail runs lists them")
        if len(fitting) > 1:
            raise AmbiguousRun(
                f"{address!r} fits several runs: {', '.join(fitting[:_CANDIDATES])}"
                + (", …" if len(fitting) > _CANDIDATES else ""),
                hint="give more characters",
            )
        return fitting[0]

    def _last(self) -> str:
        """The newest run that no cell of another one has called."""
        store = self._store
        newest = store.newest(limit=_LATELY)
        if not newest:
            raise RunNotFound("the store has no run yet", hint="cellrail run NOTEBOOK")
        for run_id in self._newest_first(newest):
            if not store.started(run_id).options.get("callers"):
                return run_id
        return newest[0]

    def _newest_first(self, newest: list[str]) -> Iterator[str]:
        """All runs; those of a very large store are listed only where the newest do not do."""
        yield from newest
        if len(newest) == _LATELY:
            yield from reversed(self._store.run_ids())

    def _newest_of(self, notebook: str) -> str:
        store = self._store
        flow = flow_id(Path(notebook), store.path)
        # most ask for a flow that ran lately; a store has room for very many runs of others
        newest = store.newest(limit=_LATELY)
        found = self._first_of(flow, newest)
        if found is None and len(newest) == _LATELY:
            rows = store.catalog.runs(flow=flow, limit=1)
            found = rows[0].run_id if rows else None
            if store.catalog.behind:
                found = self._first_of(flow, reversed(store.run_ids()))
        if found is None:
            raise RunNotFound(f"{notebook} has no run yet", hint=f"cellrail run {notebook}")
        return found

    def _first_of(self, flow: str, run_ids: Iterable[str]) -> str | None:
        store = self._store
        for run_id in run_ids:
            if store.current_flow(store.started(run_id)) == flow:
                return run_id
        return None
