"""Which runs the catalog may not know: so that nobody looks at every journal to find the new ones.

`news/` holds an empty file for each run that has begun, or whose journal was deleted (`ID.gone`),
since the catalog was last brought up to date. It is told before the journal is made and after it is
deleted, durably, and forgotten once the catalog's file says the same. Too much news costs a look;
too little would hide a run, so while `.scan` lies there, or the folder is missing (a store of
another version), every journal is looked at.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection
from pathlib import Path

import msgspec

from cellrail_state.objects import sync_folder

_SCAN = ".scan"
_GONE = ".gone"
#: news of a run that was never begun (its owner was killed) is forgotten after this
_STALE_SECONDS = 3600.0


class Told(msgspec.Struct, frozen=True):
    """What there is to know."""

    #: begun, or about to begin
    begun: frozenset[str]
    #: deleted, or about to be
    gone: frozenset[str]


class News:
    """The news of one store."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self) -> None:
        """Have news from now on; until `scanned`, every journal is looked at."""
        if not self._folder.is_dir():
            with contextlib.suppress(FileExistsError):
                self._folder.mkdir()
            (self._folder / _SCAN).touch()
            sync_folder(self._folder)
            sync_folder(self._folder.parent)

    def scanned(self) -> None:
        """Every journal was looked at: what comes now is told."""
        (self._folder / _SCAN).unlink(missing_ok=True)

    def tell(self, *run_ids: str, gone: bool = False) -> bool:
        """Runs begin, or are gone; whether there was a folder to tell it in."""
        try:
            for run_id in run_ids:
                (self._folder / (run_id + _GONE * gone)).touch()
            sync_folder(self._folder)
        except FileNotFoundError:
            return False
        return True

    def told(self) -> Told | None:
        """The runs to look at; None: all."""
        try:
            names = {path.name for path in self._folder.iterdir()}
        except OSError:
            return None
        if _SCAN in names:
            return None
        gone = {name.removesuffix(_GONE) for name in names if name.endswith(_GONE)}
        begun = {name for name in names if not name.endswith(_GONE)}
        return Told(frozenset(begun), frozenset(gone))

    def forget(self, known: Collection[str], gone: Collection[str]) -> None:
        """The catalog's file says the same now.

        Args:
            known: runs that it has rows of.
            gone: runs without a journal: deleted, or not quite begun.
        """
        # a store that can only be read is told nothing either
        with contextlib.suppress(OSError):
            for path in list(self._folder.iterdir()):
                old = time.time() - path.stat().st_mtime > _STALE_SECONDS
                run_id = path.name.removesuffix(_GONE)
                deleted = run_id != path.name
                if (run_id in known and not deleted) or (run_id in gone and (deleted or old)):
                    path.unlink(missing_ok=True)
