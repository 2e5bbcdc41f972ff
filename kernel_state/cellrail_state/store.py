"""A store: a folder with journals, objects and the catalog, and the keys that vouch for it.

Layout: `store.json` (format, id), `journals/` (by day), `objects/`, `catalog.duckdb` (an index of
the journals), `news/` (which runs the catalog may not know), `state/` (what outlives runs: the
ledger of resources and variables), `shared/` (the runs' shared folders), `waits/` (what
runs wait for, and the answers), `ticks/` (which run each tick has), `triggers/`, `backfills/`,
`renames.json` (flows under new names), `server/` (who serves it), `.gitignore`.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from blake3 import blake3

from cellrail_state import journal as journals
from cellrail_state import locks
from cellrail_state.claims import Claims
from cellrail_state.crashpoints import CrashPoints, NoCrash
from cellrail_state.errors import (
    JournalDamaged,
    StoreError,
    StoreNotFound,
    StoreNotWritable,
    StoreTooNew,
    Untrusted,
)
from cellrail_state.inbox import Inbox
from cellrail_state.keys import KeyRing, untrusted
from cellrail_state.ledger import Ledger
from cellrail_state.model import Record, RunKind, RunNamed, RunStarted
from cellrail_state.mounts import refuse_network
from cellrail_state.news import News
from cellrail_state.objects import Objects, sync_folder
from cellrail_state.schedules import Backfills, Triggers
from cellrail_state.signed import SignedFiles

if TYPE_CHECKING:
    from cellrail_state.catalog import Catalog

FORMAT = 1
#: characters of a run's id that tell its day: a folder of 100,000 names takes 50 ms to list
_DAY = 8
#: so many runs whose owner was killed at once may be in the way of a listing
_NEVER_BEGUN = 16
#: seconds that a new run waits for the end of a prune, and a prune for that of a run's beginning
_PRUNE_SECONDS = 30.0


class _Identity(msgspec.Struct, frozen=True):
    """What `store.json` holds."""

    format: int
    id: str


class Rename(msgspec.Struct, frozen=True, kw_only=True):
    """A flow has another id; `time` is when that was told (seconds since the epoch)."""

    old: str
    new: str
    time: float


class _Served(msgspec.Struct, frozen=True):
    """What `server/url` holds: where people and programs reach the server of the store."""

    url: str


class Store:
    """An open store."""

    def __init__(
        self, path: Path, identity: _Identity, keyring: KeyRing, points: CrashPoints
    ) -> None:
        self.path = path
        self.id = identity.id
        self.keyring = keyring
        self.points = points
        self.objects = Objects(path / "objects", points=points)
        self.news = News(path / "news")
        self.inbox = Inbox(path / "waits", keyring=keyring, points=points)
        self.claims = Claims(path / "ticks", keyring=keyring, points=points)
        self.triggers = Triggers(path / "triggers", keyring=keyring)
        self.backfills = Backfills(path / "backfills", keyring=keyring)
        self._server = SignedFiles(path / "server", keyring=keyring, what="a server")

    # --- opening -----------------------------------------------------------------------------

    @classmethod
    def open(cls, path: Path, *, keyring: KeyRing, points: CrashPoints | None = None) -> Store:
        """Open a store that exists.

        Raises:
            StoreNotFound: there is none.
            StoreTooNew: it was made by a newer version.
            StoreOnNetwork: it lies on a network file system.
        """
        identity = _identity(path)
        refuse_network(path)
        return cls(path, identity, keyring, points or NoCrash())

    @classmethod
    def open_or_create(
        cls, path: Path, *, keyring: KeyRing, points: CrashPoints | None = None
    ) -> Store:
        """Open a store, made if it is not there.

        Raises:
            StoreError: it cannot be made or used.
        """
        cls.check(path)
        try:
            for folder in (path, path / "journals", path / "objects"):
                folder.mkdir(parents=True, exist_ok=True)
            _make_once(path / ".gitignore", b"*\n")
            identity = _Identity(FORMAT, uuid.uuid4().hex)
            _make_once(path / "store.json", msgspec.json.encode(identity) + b"\n")
            sync_folder(path)
            News(path / "news").begin()
        except OSError as error:
            raise _not_writable(path, error) from error
        return cls.open(path, keyring=keyring, points=points)

    @staticmethod
    def check(path: Path) -> None:
        """Whether a store can be used, or made, at a path; changes nothing.

        Raises:
            StoreError: it cannot; the message says why.
        """
        if (path / "store.json").exists():
            _identity(path)
        elif path.exists() and not path.is_dir():
            raise StoreError(f"{path} is a file, not a store", hint="choose another with --store")
        nearest = path
        while not nearest.exists():
            nearest = nearest.parent
        refuse_network(nearest)
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise _not_writable(nearest, None)

    @functools.cached_property
    def catalog(self) -> Catalog:
        """The index of the journals."""
        from cellrail_state.catalog import Catalog

        return Catalog(self)

    @functools.cached_property
    def ledger(self) -> Ledger:
        """What outlives runs: resources, variables, and what was done once per flow."""
        return Ledger(self.path / "state", holds=self.holds, points=self.points)

    # --- runs --------------------------------------------------------------------------------

    def journal_path(self, run_id: str) -> Path:
        """A run's journal, in the folder of its day."""
        return self.path / "journals" / run_id[:_DAY] / f"{run_id}{journals.SUFFIX}"

    def run_ids(self) -> list[str]:
        """The ids of all runs, oldest first."""
        return sorted(self.journal_sizes())

    def journal_sizes(self) -> dict[str, int]:
        """The length of every run's journal, by run."""
        suffix, sizes = journals.SUFFIX, {}
        for day in self._days():
            with os.scandir(self.path / "journals" / day) as entries:
                sizes.update(
                    {e.name[: -len(suffix)]: _size(e) for e in entries if e.name.endswith(suffix)}
                )
        # where the owner was killed before the first record no run began
        return {run_id: size for run_id, size in sizes.items() if size > len(journals.MAGIC)}

    def _days(self) -> list[str]:
        with os.scandir(self.path / "journals") as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())

    def journal_size(self, run_id: str) -> int:
        """The length of a run's journal; 0 where there is no such run."""
        size = _size(self.journal_path(run_id))
        return size if size > len(journals.MAGIC) else 0

    def newest(self, prefix: str = "", *, limit: int) -> list[str]:
        """The ids of the newest runs that begin so, newest first; few others are looked at."""
        suffix, found = journals.SUFFIX, list[str]()
        for day in reversed(self._days()):
            if not day.startswith(prefix[:_DAY]):
                continue
            names = os.listdir(self.path / "journals" / day)  # noqa: PTH208 - ten times as fast
            fitting = [name for name in names if name.startswith(prefix)]
            # more than asked for: a few may be runs that never began
            some = heapq.nlargest(limit + _NEVER_BEGUN, fitting)
            run_ids = [name[: -len(suffix)] for name in some if name.endswith(suffix)]
            found += [run_id for run_id in run_ids if self.journal_size(run_id)]
            if len(found) >= limit:
                break
        return found[:limit]

    def create_journal(self, started: RunStarted) -> journals.Journal:
        """Begin a run's journal, and own it.

        Raises:
            StoreNotWritable: there is no room or no permission.
            JournalDamaged: a run that it starts on was deleted a moment ago.
        """
        run_id = started.run_id
        try:
            with self.pruning(shared=True):
                self._refuse_without_origin(started)
                told = self.news.tell(run_id)
                path = self.journal_path(run_id)
                if not path.parent.is_dir():
                    path.parent.mkdir(exist_ok=True)
                    sync_folder(path.parent.parent)
                journal = journals.Journal.create(
                    path,
                    started,
                    run_id=run_id,
                    key=self.keyring.key(),
                    points=self.points,
                )
                if not told:  # it may be that news are told since
                    self.news.tell(run_id)
        except OSError as error:
            raise _not_writable(self.path, error) from error
        return journal

    def reopen_journal(self, run_id: str) -> tuple[journals.Journal, list[Record]]:
        """Own a run whose owner is gone, to go on with it; what its journal tells.

        Raises:
            RunIsOwned: its owner lives.
            Untrusted: nobody whose key is here has signed it.
            JournalDamaged: a record before the end is torn or changed.
            StoreNotWritable: the journal cannot be written.
        """
        with self.pruning(shared=True):
            # what has ended is not looked at again unless that is told
            self.news.tell(run_id)
            journal, entries = journals.Journal.reopen(
                self.journal_path(run_id),
                run_id=run_id,
                keys=self.keyring.verifying_keys(),
                points=self.points,
            )
        try:
            return journal, [entry.record() for entry in entries]
        except BaseException:
            journal.close()
            raise

    def _refuse_without_origin(self, started: RunStarted) -> None:
        needed = {job_id.rpartition("/")[0] for job_id in started.chain}
        if started.origin is not None:
            needed.add(started.origin.run_id)
        for run_id in sorted(needed - {started.run_id}):
            if not self.journal_size(run_id):
                raise JournalDamaged(
                    f"the run {run_id} was deleted meanwhile; nothing was changed",
                    hint="`cellrail runs` lists those that can be restarted",
                )

    @contextlib.contextmanager
    def pruning(self, *, shared: bool = False) -> Iterator[None]:
        """Hold the lock under which runs are deleted; shared: under which none is.

        Raises:
            StoreError: another process holds it for too long.
        """
        path = self.path / "prune.lock"
        with locks.locked(path, seconds=_PRUNE_SECONDS, shared=shared) as got:
            if not got:
                raise StoreError("runs are being deleted; try again later")
            yield

    def shared_folder(self, run_id: str) -> Path:
        """Where a run's shared folder is."""
        return self.path / "shared" / run_id

    def holds(self, run_id: str, token: str) -> bool:
        """Whether a run's journal holds a record that bears this token.

        Raises:
            JournalDamaged: the journal cannot be read so far.
        """
        if not self.journal_size(run_id):
            return False
        sought = token.encode()
        return any(sought in entry.payload for entry in journals.read(self.journal_path(run_id)))

    def is_owned(self, run_id: str) -> bool:
        """Whether the run's owner lives."""
        return locks.is_locked(self.journal_path(run_id))

    def records(self, run_id: str, *, verify: bool = False) -> Iterator[Record]:
        """A run's records, in order.

        Args:
            run_id: the run.
            verify: refuse what nobody this user trusts has signed.

        Raises:
            JournalDamaged: the journal is missing, torn or changed.
            Untrusted: with `verify`.
        """
        entries = list(journals.read(self.journal_path(run_id)))
        if verify:
            self.verify(run_id, entries)
        for entry in entries:
            yield entry.record()

    def started(self, run_id: str) -> RunStarted:
        """A run's first record, with the name that a live run may have got since.

        Raises:
            JournalDamaged: the journal has no beginning.
        """
        found: RunStarted | None = None
        for entry in journals.read(self.journal_path(run_id)):
            record = entry.record()
            if found is None and not isinstance(record, RunStarted):
                break
            if isinstance(record, RunStarted):
                found = record
            elif isinstance(record, RunNamed) and found is not None:
                return record.of(found)
            if found is not None and (found.kind is not RunKind.LIVE or found.notebook_path):
                break
        if found is None:
            raise JournalDamaged(f"the journal of {run_id} has no beginning")
        return found

    def verify(self, run_id: str, entries: Sequence[journals.Entry]) -> None:
        """Refuse a journal that nobody this user trusts has signed.

        Raises:
            Untrusted: the chain of signatures does not hold, and the journal was not adopted.
        """
        listed = list(entries)
        if any(journals.chain_holds(listed, run_id, k) for k in self.keyring.verifying_keys()):
            return
        adopted = self.keyring.trusted(self.id).get(run_id)
        if adopted is not None and adopted == self._fingerprint(run_id):
            return
        raise untrusted(self.path)

    def trust(self) -> int:
        """Adopt every journal as it is now; their number."""
        found = {run_id: self._fingerprint(run_id) for run_id in self.run_ids()}
        self.keyring.trust(self.id, found)
        for signed in (self.claims, self.triggers, self.backfills):
            signed.adopt()
        return len(found)

    def _fingerprint(self, run_id: str) -> tuple[int, str]:
        data = self.journal_path(run_id).read_bytes()
        return len(data), blake3(data).hexdigest()

    # --- the server --------------------------------------------------------------------------

    def served(self) -> str:
        """The URL below which a server answers for this store; "" where none is known.

        One that somebody else has written does not count: links would lead to them.
        """
        with contextlib.suppress(StoreError, Untrusted, OSError):
            found = self._server.read("url", _Served)
            return found.url if found is not None else ""
        return ""

    def serve(self, url: str) -> None:
        """A server answers below this URL.

        Raises:
            StoreNotWritable: there is no room or no permission.
        """
        if self.served() != url:
            self._server.replace("url", _Served(url))

    def unserve(self, url: str) -> None:
        """It does no more, unless another one has come since."""
        if self.served() == url:
            self._server.remove("url")

    # --- flows under new names ---------------------------------------------------------------

    @functools.cached_property
    def renames(self) -> list[Rename]:
        """The renames of flows, in the order they were told."""
        path = self.path / "renames.json"
        if not path.exists():
            return []
        try:
            return msgspec.json.decode(path.read_bytes(), type=list[Rename])
        except msgspec.MsgspecError as error:
            raise StoreError(f"{path} cannot be read: {error}", hint="delete or mend it") from error

    def current_flow(self, started: RunStarted) -> str:
        """The id that a run's flow has today.

        A rename concerns the runs before it: a new notebook under the old name is another flow.
        """
        flow = started.flow
        for rename in self.renames:
            if rename.old == flow and started.time < rename.time:
                flow = rename.new
        return flow

    def rename_flow(self, old: str, new: str, *, now: float) -> int:
        """Have a flow's runs count as another flow's; how many runs that are.

        Args:
            old: the flow's id until now.
            new: its id from now on.
            now: seconds since the epoch.
        """
        runs = sum(self.current_flow(self.started(r)) == old for r in self.run_ids())
        if runs:
            renames = [*self.renames, Rename(old=old, new=new, time=now)]
            temporary = self.path / f".renames.{uuid.uuid4().hex}.tmp"
            try:
                temporary.write_bytes(msgspec.json.encode(renames))
                temporary.replace(self.path / "renames.json")
                sync_folder(self.path)
            except OSError as error:
                temporary.unlink(missing_ok=True)
                raise _not_writable(self.path, error) from error
            self.__dict__.pop("renames", None)
            self.claims.move(old, new)
        return runs

    def rename_schedules(self, old: str, new: str) -> int:
        """Have a flow's triggers and backfills be another flow's; how many those are."""
        triggers = [trigger for trigger in self.triggers.all() if trigger.flow == old]
        for trigger in triggers:
            self.triggers.change(msgspec.structs.replace(trigger, flow=new))
        backfills = [backfill for backfill in self.backfills.all() if backfill.flow == old]
        for backfill in backfills:
            notebook = str(self.path.parent / new)
            self.backfills.change(msgspec.structs.replace(backfill, flow=new, notebook=notebook))
        return len(triggers) + len(backfills)


def _size(entry: os.DirEntry[str] | Path) -> int:
    try:
        return entry.stat().st_size
    except FileNotFoundError:
        return 0


def _identity(path: Path) -> _Identity:
    try:
        data = (path / "store.json").read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreNotFound(
            f"there is no store at {path}", hint="run a notebook first, or name one with --store"
        ) from error
    except OSError as error:
        raise StoreError(f"the store at {path} cannot be read: {error.strerror}") from error
    try:
        identity = msgspec.json.decode(data, type=_Identity)
    except msgspec.MsgspecError as error:
        raise StoreError(f"{path / 'store.json'} is damaged: {error}") from error
    if identity.format > FORMAT:
        raise StoreTooNew(
            f"the store at {path} has format {identity.format}; this cellrail reads {FORMAT}",
            hint="upgrade: pip install -U cellrail",
        )
    return identity


def _make_once(path: Path, content: bytes) -> None:
    """Make a file whole unless it is there: of several processes one wins."""
    if path.exists():
        return
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content)
        os.link(temporary, path)
    except FileExistsError:
        return
    finally:
        temporary.unlink(missing_ok=True)


def _not_writable(path: Path, error: OSError | None) -> StoreNotWritable:
    why = f" ({error.strerror})" if error is not None else ""
    return StoreNotWritable(
        f"the store cannot be written{why}: {path}",
        hint="check its permissions, or choose another with --store",
    )
