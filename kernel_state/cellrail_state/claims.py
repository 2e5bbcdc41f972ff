"""Claims: which run a tick has, decided before that run begins.

`ticks/FLOW/STAMP-INPUTS.N` is the N-th claim of a tick (`FLOW` is a digest of the flow's id): it
names the run that is to execute the tick. A claim is made by linking a whole file under its name,
which succeeds once, so of everybody who wants the tick one decides what its run is called.

Why a tick starts at most one run at a time, whatever crashes or races happen:

* A run is begun by making its journal under the claimed id, which succeeds once (`Journal.create`).
  Whoever finds a claim whose run has not begun, and whose owner is gone, begins *that* run. Where
  the owner was only slow, one of both is refused before any cell has run. So nothing hangs on
  whether an owner was rightly taken for dead.
* A run that has begun and lost its owner is recovered under its id, by whoever gets its lock.
* The next claim (N+1: a failed tick is tried again) is made only by who has read in the journal
  that the run of claim N has ended.

Many ticks are claimed at the cost of one: their claims are written as one file, which is linked
under each name. No clock decides anything. An owner lives as long as it holds the lock of its file
in `ticks/owners/`, which the system takes from it when it ends, however it does.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from cellrail_state import locks
from cellrail_state.crashpoints import CrashPoints, NoCrash
from cellrail_state.keys import KeyRing, untrusted
from cellrail_state.model import Owner
from cellrail_state.signed import SignedFiles
from cellrail_state.ticks import Key

_OWNERS = "owners"
_SIGNED_AS = "claims"
#: ids of runs name files
_ID = re.compile(r"[\w-]+")
#: a file of an owner that is gone is swept after this
_SWEEP_SECONDS = 86_400.0


class Claim(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody has decided which run a tick has."""

    flow: str
    stamp: str
    inputs: str
    #: the run, chosen before it begins
    run_id: str
    #: seconds since the epoch
    time: float
    #: the process that begins it, and the name of the lock that it holds while it lives
    owner: Owner
    lock: str
    #: `trigger:ID`, `backfill:ID`, or "" for a person
    by: str = ""
    #: place among the claims of its tick, from 1
    number: int = 1

    @property
    def key(self) -> Key:
        """What names its tick."""
        return Key(self.stamp, self.inputs)


class _Batch(msgspec.Struct, frozen=True):
    """What a file holds: claims that were made at once, one for each of its names."""

    claims: tuple[Claim, ...]


class Claims:
    """The claims of one store."""

    def __init__(
        self, folder: Path, *, keyring: KeyRing, points: CrashPoints | None = None
    ) -> None:
        """Know the folder.

        Args:
            folder: made when the first tick is claimed.
            keyring: signs, and tells whose signatures count.
            points: where a test may end the process.
        """
        self._folder = folder
        self._files = SignedFiles(folder, keyring=keyring, what="a claim")
        self._points = points or NoCrash()

    # --- owners ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def owner(self) -> Iterator[str]:
        """Be an owner of claims; yields the name of the lock that tells so."""
        folder = self._folder / _OWNERS
        folder.mkdir(parents=True, exist_ok=True)
        self._sweep(folder)
        name = uuid.uuid4().hex
        path = folder / name
        # (the lock is held by nobody for a moment: nobody knows of the name yet)
        with locks.locked(path, seconds=1.0):
            try:
                yield name
            finally:
                with contextlib.suppress(OSError):  # Windows deletes no open file
                    path.unlink()

    def lives(self, claim: Claim) -> bool:
        """Whether the owner of a claim lives."""
        return locks.is_locked(self._folder / _OWNERS / claim.lock)

    @staticmethod
    def _sweep(folder: Path) -> None:
        """Delete the files of owners that were killed."""
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                old = time.time() - path.stat().st_mtime > _SWEEP_SECONDS
                if old and not locks.is_locked(path):
                    path.unlink()

    # --- claims ------------------------------------------------------------------------------

    def claim(self, claims: Sequence[Claim]) -> list[Claim]:
        """Claim ticks of a flow, those that nobody has at these numbers; the claims that count.

        Only for who knows that the run of the claim before each has ended. Durable.

        Raises:
            StoreNotWritable: there is no room or no permission.
        """
        if not claims:
            return []
        folder = _of(claims[0].flow)
        names = [f"{folder}/{_name(claim.key, claim.number)}" for claim in claims]
        self._points.reach("claims.before_claim")
        made = self._files.make_all(names, _Batch(tuple(claims)), signed_as=_SIGNED_AS)
        self._points.reach("claims.after_claim")
        return [
            claim if mine else self._first(claim) for claim, mine in zip(claims, made, strict=True)
        ]

    def _first(self, claim: Claim) -> Claim:
        """The claim that was there before this one."""
        return next(iter(self.read(claim.flow, [(claim.key, claim.number)])), claim)

    def newest(self, flow: str, key: Key) -> Claim | None:
        """The last claim of a tick; None where nobody has claimed it."""
        found: Claim | None = None
        while there := self.read(flow, [(key, found.number + 1 if found is not None else 1)]):
            found = there[0]
        return found

    def numbers(self, flow: str) -> dict[Key, int]:
        """How often each tick of a flow was claimed."""
        found: dict[Key, int] = {}
        try:
            names = os.listdir(self._folder / _of(flow))  # noqa: PTH208 - there may be very many
        except FileNotFoundError:
            return found
        for name in names:
            rest, dot, number = name.rpartition(".")
            stamp, dash, inputs = rest.partition("-")
            if dot and dash and number.isdigit():
                key = Key(stamp, inputs)
                found[key] = max(found.get(key, 0), int(number))
        return found

    def read(self, flow: str, numbers: Iterable[tuple[Key, int]]) -> list[Claim]:
        """The claims of these numbers."""
        keys, known = self._files.keys(), dict[int, dict[tuple[Key, int], Claim]]()
        folder, found = self._folder / _of(flow), []
        for key, number in numbers:
            path = folder / _name(key, number)
            try:
                inode = path.stat().st_ino
            except FileNotFoundError:
                continue
            if inode not in known:
                name = f"{folder.name}/{path.name}"
                batch = self._files.read(name, _Batch, signed_as=_SIGNED_AS, keys=keys)
                claims = batch.claims if batch is not None else ()
                known[inode] = {(claim.key, claim.number): claim for claim in claims}
            if (key, number) not in known[inode]:
                raise untrusted(self._folder.parent)
            found.append(known[inode][key, number])
        return found

    def adopt(self) -> None:
        """Take somebody else's claims for true."""

        def known(batch: _Batch) -> _Batch | None:
            return batch if all(_ID.fullmatch(claim.run_id) for claim in batch.claims) else None

        self._files.adopt("*/*-*.*", _Batch, known, signed_as=_SIGNED_AS)

    def move(self, old: str, new: str) -> None:
        """A flow has another id: its claims follow it."""
        source, target = self._folder / _of(old), self._folder / _of(new)
        if not source.is_dir():
            return
        target.mkdir(parents=True, exist_ok=True)
        for path in source.iterdir():
            with contextlib.suppress(FileExistsError):
                os.link(path, target / path.name)
            path.unlink()
        source.rmdir()


def _of(flow: str) -> str:
    """The folder of a flow."""
    return hashlib.sha256(flow.encode()).hexdigest()[:32]


def _name(key: Key, number: int) -> str:
    return f"{key.stamp}-{key.inputs}.{number}"
