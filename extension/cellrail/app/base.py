"""What every use case needs: settings, the store, histories."""

from __future__ import annotations

import datetime as dt
import functools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cellrail import settings as settings_module
from cellrail.errors import UserError
from cellrail.kernels.supply import CAN_FORK, KINDS, Supplied, Wanted, WarmSupply, cold
from cellrail.locate import RunLocator
from cellrail.notebook.parse import load, parse
from cellrail.views import Run
from cellrail_state.history import RunHistory
from cellrail_state.keys import KeyRing
from cellrail_state.model import Checkpoint
from cellrail_state.steps import Sources
from cellrail_state.store import Store

if TYPE_CHECKING:
    from cellrail.notebook.model import Flow
    from cellrail_state.model import ObjectRef, Record

#: runs with warm kernels bring the catalog up to date once in so many seconds
_INGEST_SECONDS = 5.0


class AppBase:
    """Settings, keys and the store of one `App`."""

    def __init__(
        self,
        store: str | Path | None = None,
        *,
        notebook: str | Path | None = None,
        keys: str | Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        folder = Path(notebook).resolve().parent if notebook is not None else Path.cwd()
        #: the settings are those of this folder
        self.folder = folder
        self.settings = settings_module.load_settings(folder)
        if store is not None:
            self.settings = msgspec.structs.replace(self.settings, store=str(store))
        self._named = bool(self.settings.store)
        self.store_path = settings_module.find_store(folder, self.settings)
        keys_at = Path(keys) if keys is not None else settings_module.keys_folder(self.settings)
        self.keyring = KeyRing(keys_at)
        #: the keys' folder, where it was named; processes of ours are told
        self.keys = str(keys_at.absolute()) if keys is not None else ""
        self.clock = clock
        self._store: Store | None = None
        self._warm: WarmSupply | None = None
        self._ingested = -math.inf

    def close(self) -> None:
        """Give back what is kept for further runs: the processes that warm kernels come from.

        They end with this process, or when the App is no longer used, anyway.
        """
        if self._warm is not None:
            self._warm.close()
            self._warm = None
            if self._store is not None:
                self._store.catalog.ingest()

    def moment(self, now: float | dt.datetime | None) -> float:
        """A time as seconds since the epoch; None is this moment, without a zone it is local."""
        if now is None:
            return self.clock()
        return now.timestamp() if isinstance(now, dt.datetime) else now

    def _supply(self, kernels: str) -> Callable[[Wanted], Supplied]:
        """Where kernels come from.

        Raises:
            UserError: there is no such kind.
        """
        if kernels not in KINDS:
            raise UserError(f"kernels are {' or '.join(KINDS)}, not {kernels!r}")
        if kernels == "cold":
            return cold
        if self._warm is None:
            self._warm = WarmSupply()
        return self._warm.start

    @staticmethod
    def _kind(kernels: str | None) -> str:
        """How the kernels of many runs start: as it is said, else warm where they can be forked.

        Raises:
            UserError: there is no such kind.
        """
        if kernels is not None and kernels not in KINDS:
            raise UserError(f"kernels are {' or '.join(KINDS)}, not {kernels!r}")
        return kernels or ("warm" if CAN_FORK else "cold")

    def _ingest(self, kernels: str) -> Callable[[Store], object]:
        """Brings the catalog up to date at a run's end.

        Runs that follow one another quickly leave it to the next in line: whoever asks the catalog
        brings it up to date first, and opening it takes longer than forking a kernel.
        """

        def now_and_then(store: Store) -> None:
            if time.monotonic() - self._ingested >= _INGEST_SECONDS:
                store.catalog.ingest()
                self._ingested = time.monotonic()

        def now(store: Store) -> None:
            store.catalog.ingest()

        return now_and_then if kernels == "warm" else now

    @property
    def store(self) -> Store:
        """The store, which must exist.

        Raises:
            StoreNotFound: there is none yet.
        """
        if self._store is None:
            self._store = Store.open(self.store_path, keyring=self.keyring)
        return self._store

    def _store_for(self, notebook: str | Path) -> None:
        """Where no store was named, use the one of the notebook."""
        if not self._named and self._store is None:
            folder = Path(notebook).resolve().parent
            self.store_path = settings_module.find_store(folder, self.settings)

    def _open_or_create(self) -> Store:
        if self._store is None:
            self._store = Store.open_or_create(self.store_path, keyring=self.keyring)
        return self._store

    def _sources(self, *, verify: bool) -> Sources:
        store = self.store

        def records(run_id: str) -> Iterator[Record]:
            return store.records(run_id, verify=verify)

        def content(ref: ObjectRef) -> bytes:
            return bytes(store.objects.get(ref))

        return Sources(records=records, owned=store.is_owned, content=content)

    def history(self, run: str, *, verify: bool = False) -> RunHistory:
        """The history of the run at this address (an id, a prefix, `last`, or a notebook).

        Raises:
            RunNotFound: there is none.
            AmbiguousRun: a prefix fits several.
            Untrusted: with `verify`: the store was signed by somebody else.
        """
        run_id = RunLocator(self.store).find(run)
        return RunHistory(run_id, self._sources(verify=verify))

    def _view(self, history: RunHistory) -> Run:
        return Run(
            history,
            functools.partial(self._load_values, history.run_id),
            flow=self.store.current_flow(history.started),
        )

    def _load_values(self, run_id: str, checkpoint: Checkpoint, names: list[str]) -> dict[str, Any]:
        from cellrail.values import load_values

        # nothing is unpickled before the whole run is known to be signed by somebody trusted
        RunHistory(run_id, self._sources(verify=True)).chain  # noqa: B018
        return load_values(self.store, checkpoint, names)

    def _flow(
        self, notebook: str | Path, *, pinned: Path | None = None, modules: Path | None = None
    ) -> tuple[Path, Flow]:
        """A notebook's path and steps.

        Args:
            notebook: the notebook's path.
            pinned: another file, which holds it as it was.
            modules: a folder that holds its local modules as they were.
        """
        path = Path(notebook).resolve()
        flow = parse(load(pinned if pinned is not None else Path(notebook)), path)
        return path, msgspec.structs.replace(flow, modules=modules)
