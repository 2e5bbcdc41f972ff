"""Kernels for tests: forked in a test's folder from processes that the whole session shares.

A test makes a folder of its own, and often one run in it. A process to fork from for each of them
costs more than it saves, so these stand in a neutral folder, and a fork goes where it is wanted.
The product does not do that: libraries may read files of the working directory when they are
imported. That a forked kernel is as a cold one is the law of `tests/contract`.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from cellrail.kernels.ahead import shadows
from cellrail.kernels.forking import Blueprint, CannotFork, Fork, Zygote
from cellrail.kernels.supply import Wanted, WarmSupply

#: what differs from test to test, and no import looks at
_OF_A_TEST = frozenset({"PYTEST_CURRENT_TEST", "CELLRAIL_KEYS"})


def can_copy_ahead() -> bool:
    """Whether this system copies pages of memory when it is asked to: Linux 5.14."""
    release = os.uname().release.split(".")
    return tuple(int(re.sub(r"\D.*", "", part) or 0) for part in release[:2]) >= (5, 14)


class _Nowhere(Zygote):
    """A process to fork from that stands in a neutral folder."""

    code = (
        f"import sys; sys.path.append({str(Path(__file__).parent)!r}); import forked; "
        "del sys.path[-1]; forked.main()"
    )


class Shared(WarmSupply):
    """Forks kernels for any folder."""

    zygote = _Nowhere

    def __init__(self, home: Path) -> None:
        super().__init__()
        self._home = home

    def _blueprint(self, wanted: Wanted) -> Blueprint:
        # what is imported in no time is left to the forks
        slow = {top for top in _tops(wanted.imports) if top not in sys.stdlib_module_names}
        imports = tuple(sorted(slow - {"cellrail"}))
        made = super()._blueprint(msgspec.structs.replace(wanted, cwd=self._home, imports=imports))
        kept = tuple(pair for pair in made.environment if pair[0] not in _OF_A_TEST)
        return msgspec.structs.replace(made, environment=kept)

    def _zygote(self, wanted: Wanted) -> Any:
        # the seed of a run that another process has begun may not come again
        zygote = super()._zygote(msgspec.structs.replace(wanted, lone_seed=not wanted.any_seed))
        if zygote is None:
            return None
        if shadows(wanted.cwd, zygote.ahead):
            raise CannotFork("the folder has modules of its own with the names of installed ones")
        return _There(zygote, wanted.cwd, self._home)


def _tops(names: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


class _There:
    """A process to fork from whose kernels begin in a certain folder."""

    def __init__(self, zygote: Zygote, cwd: Path, home: Path) -> None:
        self._zygote, self._cwd, self._home = zygote, cwd, home

    def __getattr__(self, name: str) -> Any:
        return getattr(self._zygote, name)

    def fork(self) -> Fork:
        """A kernel that looks where it is wanted when it gets the word."""
        environment = {name: os.environ[name] for name in _OF_A_TEST if name in os.environ}
        place = {"cwd": str(self._cwd), "environment": environment}
        # whole or not at all: items of a parallel loop are forked by threads
        new = self._home / f"place.{threading.get_ident()}"
        new.write_text(json.dumps(place), "utf-8")
        new.replace(self._home / "place.json")
        return self._zygote.fork()
