"""Triggers and backfills, as a store keeps them: signed files that a person may list and delete.

* `triggers/ID.trigger` is a `Trigger`, `triggers/ID.looked` tells up to which moment its ticks have
  been decided on.
* `backfills/ID/backfill` is a `Backfill` and never changes; `state` is its `BackfillState`;
  `cancelled` is made once and ends it for good; `notebook.ipynb` is the notebook as it was at its
  start, and `modules` holds the local modules that it imports; the process that drives it holds
  the lock of `lock`.

Neither says what became of a tick: that is in the journals alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from cellrail_state import locks
from cellrail_state.errors import StoreError
from cellrail_state.keys import KeyRing
from cellrail_state.objects import sync_folder
from cellrail_state.signed import SignedFiles
from cellrail_state.tables import Shown

#: in a backfill's `share`: whichever steps can be shared
AUTO = "auto"
_TRIGGER, _LOOKED = ".trigger", ".looked"


class Missed(StrEnum):
    """Which ticks run that nobody looked at in time."""

    ALL = "all"
    LAST = "last"
    NONE = "none"


class Which(StrEnum):
    """Which ticks of its range a backfill runs."""

    MISSING = "missing"
    FAILED = "failed"
    STALE = "stale"
    ALL = "all"


class Filling(StrEnum):
    """What a backfill is told to do."""

    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    DONE = "done"


class _Struct(Shown, msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of the records."""


class Trigger(_Struct, frozen=True):
    """A schedule of a flow."""

    id: str
    flow: str
    cron: str
    zone: str = "UTC"
    missed: Missed = Missed.ALL
    #: so many of its runs are under way at most
    max_active: int = 1
    #: a tick that is later than so many seconds is skipped; None for never
    late_after: float | None = None
    #: values by parameter, some of them templates of the tick; secret ones encrypted
    inputs: dict[str, Any] = {}
    secrets: dict[str, str] = {}
    labels: dict[str, str] = {}
    #: where the executed notebook goes, a template of the parameters; "" for nowhere
    out: str = ""
    enabled: bool = True
    #: seconds since the epoch
    created: float = 0.0
    #: the user who made it
    user: str = ""

    def __repr__(self) -> str:
        able = "enabled" if self.enabled else "disabled"
        return f"<trigger {self.id} of {self.flow}: {self.cron} in {self.zone}, {able}>"


class _Looked(msgspec.Struct, frozen=True):
    """Up to which moment (seconds since the epoch) a trigger's ticks have been decided on."""

    until: float


class Triggers:
    """The triggers of one store."""

    def __init__(self, folder: Path, *, keyring: KeyRing) -> None:
        """Know the folder; it is made with the first trigger."""
        self._folder = folder
        self._files = SignedFiles(folder, keyring=keyring, what="a trigger")

    def add(self, trigger: Trigger) -> bool:
        """Add a trigger; False where one has its id.

        Raises:
            StoreNotWritable: there is no room or no permission.
        """
        return self._files.make(trigger.id + _TRIGGER, trigger)

    def change(self, trigger: Trigger) -> None:
        """Replace a trigger."""
        self._files.replace(trigger.id + _TRIGGER, trigger)

    def remove(self, trigger_id: str) -> bool:
        """Delete a trigger; whether it was there."""
        self._files.remove(trigger_id + _LOOKED)
        return self._files.remove(trigger_id + _TRIGGER)

    def get(self, trigger_id: str) -> Trigger | None:
        """A trigger; None where there is none."""
        return self._files.read(trigger_id + _TRIGGER, Trigger)

    def all(self) -> list[Trigger]:
        """Every trigger, by id."""
        found = [self.get(path.stem) for path in sorted(self._folder.glob(f"*{_TRIGGER}"))]
        return [trigger for trigger in found if trigger is not None]

    def adopt(self) -> None:
        """Take somebody else's triggers, disabled: none fires because a store was trusted."""
        self._files.adopt(
            f"*{_TRIGGER}", Trigger, lambda one: msgspec.structs.replace(one, enabled=False)
        )
        self._files.adopt(f"*{_LOOKED}", _Looked, lambda looked: looked)

    def looked(self, trigger: Trigger) -> float:
        """Up to which moment its ticks have been decided on."""
        found = self._files.read(trigger.id + _LOOKED, _Looked)
        return max(found.until, trigger.created) if found is not None else trigger.created

    def look(self, trigger: Trigger, until: float) -> None:
        """Its ticks up to this moment have been decided on."""
        self._files.replace(trigger.id + _LOOKED, _Looked(until))

    @contextlib.contextmanager
    def turn(self, trigger: Trigger) -> Iterator[bool]:
        """Decide on its ticks alone; yields False where another process does."""
        with locks.locked(self._folder / f".{trigger.id}.lock", seconds=0.0) as got:
            yield got


class Backfill(_Struct, frozen=True):
    """Runs for the ticks of a range. It never changes."""

    id: str
    flow: str
    #: the notebook's path at its start
    notebook: str
    cron: str
    zone: str
    #: ISO 8601, both inclusive
    start: str
    end: str
    #: no end was given: it was the moment of its start
    open_end: bool = False
    trigger: str = ""
    which: Which = Which.MISSING
    newest_first: bool = False
    parallel: int = 1
    #: it pauses when so many ticks have failed; 0 for never
    stop_after: int = 0
    #: failed and stale ticks are run from their first step
    from_start: bool = False
    inputs: dict[str, Any] = {}
    secrets: dict[str, str] = {}
    #: the user's own
    labels: dict[str, str] = {}
    out: str = ""
    created: float = 0.0
    user: str = ""
    #: digest of the notebook's bytes at its start; "" where every run takes it as it is then
    pinned: str = ""
    #: digests of the local modules that it imports, by name
    modules: dict[str, str] = {}
    #: digests of their files, where every run takes them as they were, by path below its folder
    kept: dict[str, str] = {}
    #: digest of what is run
    source: str = ""
    #: steps that are executed once for all runs; `AUTO` alone for those that can be
    share: tuple[str, ...] = ()
    #: ids of the runs that execute them begin so; one letter more tells the attempt
    base: str = ""
    #: processors that its runs use, and bytes of memory that they may take together; 0 for any
    cores: int = 0
    memory: int = 0
    #: how its kernels start: cold or warm
    kernels: str = "cold"
    #: the seed of string hashes that its kernels have in common; None for each its own
    hash_seed: int | None = None

    @property
    def name(self) -> str:
        """Who fires its runs."""
        return f"backfill:{self.id}"


class BackfillState(_Struct, frozen=True):
    """What a backfill is told to do, since when, and why."""

    filling: Filling = Filling.RUNNING
    time: float = 0.0
    why: str = ""
    #: its running runs are cancelled, too
    now: bool = False
    #: modules that may differ from those at its start, by name
    modules: dict[str, str] = {}


class Backfills:
    """The backfills of one store."""

    def __init__(self, folder: Path, *, keyring: KeyRing) -> None:
        """Know the folder; it is made with the first backfill."""
        self._folder = folder
        self._files = SignedFiles(folder, keyring=keyring, what="a backfill")

    def folder(self, backfill_id: str) -> Path:
        """Where one lies."""
        return self._folder / backfill_id

    def pinned(self, backfill: Backfill) -> Path | None:
        """The notebook as it was at its start; None where it was not pinned.

        Raises:
            StoreError: the file was changed.
        """
        if not backfill.pinned:
            return None
        path = self.folder(backfill.id) / "notebook.ipynb"
        _check(path, backfill.pinned, f"the notebook that the backfill {backfill.id} began with")
        return path

    def modules(self, backfill: Backfill) -> Path | None:
        """The folder of its local modules as they were at its start; None where it keeps none.

        Raises:
            StoreError: a file was changed.
        """
        if not backfill.kept:
            return None
        folder = self.folder(backfill.id) / "modules"
        for name, digest in backfill.kept.items():
            _check(folder / name, digest, f"the {name} that the backfill {backfill.id} began with")
        return folder

    def add(
        self, backfill: Backfill, content: bytes, modules: Mapping[str, bytes] | None = None
    ) -> None:
        """Add a backfill, with its notebook as it is now.

        Args:
            backfill: the backfill.
            content: the notebook's bytes.
            modules: those of the files that it keeps, by path.

        Raises:
            StoreNotWritable: there is no room or no permission.
        """
        folder = self.folder(backfill.id)
        folder.mkdir(parents=True)
        sync_folder(self._folder)
        sync_folder(self._folder.parent)
        if backfill.pinned:
            _write(folder / "notebook.ipynb", content)
        for name, source in (modules or {}).items():
            _write(folder / "modules" / name, source)
        state = BackfillState(time=backfill.created)
        self._files.replace(f"{backfill.id}/state", state)
        # last: a backfill is there with all of it
        self._files.make(f"{backfill.id}/backfill", backfill)

    def get(self, backfill_id: str) -> Backfill | None:
        """A backfill; None where there is none."""
        return self._files.read(f"{backfill_id}/backfill", Backfill)

    def all(self) -> list[Backfill]:
        """Every backfill, oldest first."""
        if not self._folder.is_dir():
            return []
        found = [self.get(path.name) for path in sorted(self._folder.iterdir())]
        return [backfill for backfill in found if backfill is not None]

    def change(self, backfill: Backfill) -> None:
        """Replace the record of a backfill whose flow has another name."""
        self._files.replace(f"{backfill.id}/backfill", backfill)

    def remove(self, backfill_id: str) -> None:
        """Forget a backfill; its runs stay."""
        shutil.rmtree(self.folder(backfill_id), ignore_errors=True)

    def adopt(self) -> None:
        """Take somebody else's backfills."""
        self._files.adopt("*/backfill", Backfill, lambda backfill: backfill)
        self._files.adopt("*/state", BackfillState, lambda state: state)
        self._files.adopt("*/cancelled", BackfillState, lambda state: state)

    # --- states ------------------------------------------------------------------------------

    def state(self, backfill_id: str) -> BackfillState:
        """What it is told to do."""
        over = self._files.read(f"{backfill_id}/cancelled", BackfillState)
        if over is not None:
            return over
        return self._files.read(f"{backfill_id}/state", BackfillState) or BackfillState()

    def tell(self, backfill_id: str, state: BackfillState) -> None:
        """Tell it what to do; once it is cancelled it stays so."""
        if state.filling is Filling.CANCELLED:
            self._files.make(f"{backfill_id}/cancelled", state)
        else:
            self._files.replace(f"{backfill_id}/state", state)

    def driven(self, backfill_id: str) -> bool:
        """Whether a living process drives it."""
        return locks.is_locked(self.folder(backfill_id) / "lock")

    @contextlib.contextmanager
    def driving(self, backfill_id: str, *, seconds: float = 1.0) -> Iterator[bool]:
        """Drive it; yields False where another process does."""
        with locks.locked(self.folder(backfill_id) / "lock", seconds=seconds) as got:
            yield got


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def _check(path: Path, digest: str, what: str) -> None:
    """Refuse a file that was changed.

    Raises:
        StoreError: it is not what it was.
    """
    import blake3

    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    if blake3.blake3(content).hexdigest() != digest:
        raise StoreError(f"{path} is not {what}", hint="start another one")
