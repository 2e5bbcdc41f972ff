r"""What outlives runs: resources (states among them), variables, and what was done once per flow.

One append-only file of a store (`state/ledger`), written under one lock. A step's writes are
committed by the step's own record in its run's journal and by nothing else; the ledger makes them
visible to other runs, in an order, with versions. How a step commits writes:

1. take the lock; compare the version of each key with the one that the step saw, or refuse;
2. append `Proposed` (values, new versions, a random token) to the ledger, and make it durable;
3. append the step's record, which bears the token, to the run's journal, and make it durable;
4. append `Settled` to the ledger; give the lock back.

Why that is exact:

* A proposal counts if, and only if, the journal of its run holds its token. Whoever meets a
  proposal that is not settled takes the lock first. A writer holds it from 1 to 4 and the system
  takes it from a writer that is killed, so from then on the journal holds the token or never will,
  and a look at it settles the proposal (`committed` or not).
* Killed before 3 the write never happened: nobody sees it, and its version is given to the next.
  Killed after 3 it has happened: the values lie in the proposal, which was durable before.
* Nobody can compare versions between another writer's 1 and 4, so of two writers that saw the same
  version one is refused.
* A recovered run executes the step again under a new token: the old proposal stays void.
* A journal is deleted only after all proposals were settled (`settle`), so the ledger loses nothing
  with it.

A value that a person sets (`cellrail state set`) is one record, `Stated`: its append commits it. A
line is its CRC-32 and a JSON record; a torn line at the end was never committed and is cut off by
the next writer. When most lines are history the file is made anew, whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from cellrail_state import locks
from cellrail_state.crashpoints import CrashPoints, NoCrash
from cellrail_state.errors import LedgerDamaged, LedgerError, StateConflict, StoreNotWritable
from cellrail_state.ledgerlines import (
    HEAD,
    Carried,
    Entry,
    Line,
    Proposed,
    Settled,
    Stated,
    begin,
    framed,
    lines_in,
    moment,
    moved,
    read_line,
)
from cellrail_state.model import ObjectRef, Written
from cellrail_state.objects import sync_folder

#: seconds that a writer waits for the others
LOCK_SECONDS = 30.0
#: a smaller file is not made anew
COMPACT_BYTES = 4 << 20
#: so many times more lines than keys are history
_COMPACT_SHARE = 8
#: so many writers of a key are remembered when the file is made anew
_WRITERS = 100

Key = tuple[str, str]


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What a writer saw of a key."""

    version: int
    #: who wrote it in between already, in words; the write is refused
    spoilt_by: str = ""
    #: what to do about that, where it is nothing usual
    hint: str = ""


class Claim:
    """The lock, held, with writes that may be made now."""

    def __init__(
        self, ledger: Ledger, writes: tuple[Written, ...], stack: contextlib.ExitStack
    ) -> None:
        self.writes = writes
        self.token = uuid.uuid4().hex
        self._ledger, self._stack = ledger, stack

    def propose(self, run_id: str, *, by: str, now: float) -> None:
        """Write down what the run's journal is about to commit; durable when this returns."""
        self._ledger.points.reach("ledger.before_propose")
        self._ledger.append(
            Proposed(token=self.token, run_id=run_id, by=by, time=now, writes=self.writes)
        )
        self._ledger.points.reach("ledger.after_propose")

    def settle(self) -> None:
        """The journal has committed it."""
        self._ledger.points.reach("ledger.before_settle")
        self._ledger.append(Settled(token=self.token, committed=True), durable=False)
        self._ledger.points.reach("ledger.after_settle")

    def release(self) -> None:
        """Give the lock back; what was proposed and not settled is settled by the next."""
        self._stack.close()


class Ledger:
    """The ledger of one store."""

    def __init__(
        self,
        folder: Path,
        *,
        holds: Callable[[str, str], bool],
        points: CrashPoints | None = None,
    ) -> None:
        """Know where it lies; nothing is made before something is written.

        Args:
            folder: of the ledger and its lock.
            holds: whether a run's journal holds a token.
            points: where tests crash.
        """
        self.points = points or NoCrash()
        self.path = folder / "ledger"
        self._lock_path = folder / "lock"
        self._holds = holds
        # threads of an open notebook ask too; the file's lock is between processes
        self._mutex = threading.RLock()
        self._forget()

    def _forget(self) -> None:
        self._offset, self._head, self._lines = 0, b"", 0
        self._entries: dict[Key, Entry] = {}
        self._writers: dict[Key, dict[int, str]] = {}
        self._pending: Proposed | None = None

    # --- reading -----------------------------------------------------------------------------

    def entry(self, kind: str, path: str) -> Entry | None:
        """What a key holds; None where there is nothing."""
        found = self.last(kind, path)
        return found if found is not None and found.written.value is not None else None

    def last(self, kind: str, path: str) -> Entry | None:
        """The last write of a key, a deletion too; None where it was never written."""
        with self._mutex:
            self._look()
            return self._entries.get((kind, path))

    def version(self, kind: str, path: str) -> int:
        """The version of a key; 0 where it was never written."""
        found = self.last(kind, path)
        return found.written.version if found is not None else 0

    def entries(self, kind: str) -> list[Entry]:
        """Everything of a kind that is there, by path."""
        with self._mutex:
            self._look()
            found = sorted(self._entries.items())
        return [e for (k, _), e in found if k == kind and e.written.value is not None]

    def writers_since(self, kind: str, path: str, version: int) -> list[str]:
        """The runs ("" for a person) that wrote a key after a version, oldest first.

        A write that is no longer remembered counts as a person's.
        """
        with self._mutex:
            self._look()
            writers = self._writers.get((kind, path), {})
            return [writers.get(v, "") for v in range(version + 1, self.version(kind, path) + 1)]

    def has_written(self, run_id: str, kind: str, path: str) -> bool:
        """Whether a run has written a key, as far as that is remembered."""
        with self._mutex:
            self._look()
            return run_id in self._writers.get((kind, path), {}).values()

    def references(self) -> set[str]:
        """The digests of the object files that it points to."""
        with self._mutex:
            self._look()
            values = [entry.written.value for entry in self._entries.values()]
        return {f.digest for v in values if isinstance(v, ObjectRef) for f in v.files()}

    def _look(self) -> None:
        """Know what is written; what nobody has settled is settled now."""
        self._refresh()
        if self._pending is None:
            return
        try:
            with self._locked():
                pass
        except (PermissionError, StoreNotWritable):
            # a store that can only be read: nobody writes to it
            self._decide(self._pending)

    def _refresh(self) -> None:
        """Read what was appended since."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            self._forget()
            return
        except OSError as error:
            raise LedgerError(f"{self.path} cannot be read: {error.strerror}") from error
        with file:
            head = file.read(HEAD)
            if head != self._head or os.fstat(file.fileno()).st_size < self._offset:
                self._forget()  # another one has taken its place
            if len(head) < HEAD:
                return
            self._head = head
            file.seek(self._offset)
            data = file.read()
        for line, end in lines_in(data, self.path, self._offset):
            self._apply(line)
            self._offset = end

    def _apply(self, line: Line) -> None:
        self._lines += 1
        if isinstance(line, Proposed):
            self._pending = line
        elif isinstance(line, Settled):
            if line.committed and self._pending is not None and self._pending.token == line.token:
                proposed = self._pending
                self._set(proposed.writes, run_id=proposed.run_id, by=proposed.by, at=proposed.time)
            self._pending = None
        elif isinstance(line, Stated):
            self._set(line.writes, run_id="", by=line.by, at=line.time)
        elif isinstance(line, Carried):
            key = (line.entry.written.kind, line.entry.written.path)
            self._entries[key] = line.entry
            self._writers[key] = dict(line.writers)

    def _set(self, writes: Iterable[Written], *, run_id: str, by: str, at: float) -> None:
        for written in writes:
            key = (written.kind, written.path)
            self._entries[key] = Entry(written=written, run_id=run_id, by=by, time=at)
            self._writers.setdefault(key, {})[written.version] = run_id

    def _decide(self, proposed: Proposed) -> Settled:
        """Whether a proposal counts: its run's journal tells."""
        committed = self._holds(proposed.run_id, proposed.token)
        settled = Settled(token=proposed.token, committed=committed)
        self._apply(settled)
        return settled

    # --- writing -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock; everything is known and settled."""
        try:
            made = self.path.parent.is_dir()
            self.path.parent.mkdir(exist_ok=True)
            if not made:
                sync_folder(self.path.parent.parent)
            lock = locks.locked(self._lock_path, seconds=LOCK_SECONDS)
            with contextlib.ExitStack() as stack:
                if not stack.enter_context(lock):
                    raise LedgerError(
                        "another process has been writing state for too long; nothing was changed",
                        hint="try again later",
                    )
                self._refresh()
                if self._pending is not None:
                    pending = self._pending
                    self.append(self._decided(pending), durable=False)
                yield
        except OSError as error:
            if isinstance(error, PermissionError):
                raise
            raise self._not_writable(error) from error

    def _decided(self, proposed: Proposed) -> Settled:
        committed = self._holds(proposed.run_id, proposed.token)
        return Settled(token=proposed.token, committed=committed)

    def append(self, line: Line, *, durable: bool = True) -> None:
        """Append a line. Only for who holds the lock.

        Raises:
            StoreNotWritable: there is no room; the ledger is as it was.
        """
        data, new = framed(line), not self._offset
        if new:
            self._head = begin()
            data = self._head + data
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            if os.fstat(descriptor).st_size > self._offset:
                os.ftruncate(descriptor, self._offset)  # what a writer that was killed left
            try:
                done = os.write(descriptor, data)
                while done < len(data):
                    done += os.write(descriptor, data[done:])
                if durable:
                    os.fsync(descriptor)
                if new:
                    sync_folder(self.path.parent)
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, self._offset)
                raise self._not_writable(error) from error
        finally:
            os.close(descriptor)
        self._offset += len(data)
        self._apply(line)

    def claim(
        self, writes: Sequence[Written], seen: Mapping[Key, Expected], *, run_id: str = ""
    ) -> Claim:
        """Take the lock for writes whose keys are as they were seen.

        Args:
            writes: what is to be written; their versions are given here.
            seen: what the writer saw of each key.
            run_id: the writer's run.

        Raises:
            StateConflict: somebody wrote one of them since; names the key and who it was.
            LedgerError: the lock cannot be had.
        """
        stack = contextlib.ExitStack()
        with contextlib.ExitStack() as on_error:
            on_error.push(stack.__exit__)
            stack.enter_context(self._mutex)
            stack.enter_context(self._locked())
            self._compact()
            fresh = self._fresh(writes, seen, run_id)
            on_error.pop_all()
        return Claim(self, fresh, stack)

    def check(self, seen: Mapping[Key, Expected], *, run_id: str = "") -> None:
        """Refuse writes of keys that are not as they were seen.

        Args:
            seen: what the writer saw of each key.
            run_id: the writer's run.

        Raises:
            StateConflict: somebody wrote one of them since.
        """
        with self._mutex:
            self._look()
            for key, expected in seen.items():
                self._check(key, expected, run_id)

    def _check(self, key: Key, expected: Expected, run_id: str = "") -> None:
        kind, path = key
        entry = self._entries.get(key)
        version = entry.written.version if entry is not None else 0
        if version == expected.version and not expected.spoilt_by:
            return
        who = expected.spoilt_by or (entry.writer if entry is not None else "somebody")
        if run_id and entry is not None and entry.run_id == run_id and not expected.spoilt_by:
            # of one run only the items of a parallel loop write at the same time
            who = f"another item of this run ({run_id})"
        what = entry.written.type if entry is not None and entry.written.type == "state" else kind
        seen = f", {expected.version} was seen" if version != expected.version else ""
        raise StateConflict(
            f"the {what} {path!r} was written by {who} in the meantime (version {version}{seen}); "
            "nothing was written",
            hint=expected.hint
            or "read it again and decide anew: restart the step (--state current), or --retry it",
        )

    def state(
        self, writes: Sequence[Written], seen: Mapping[Key, Expected], *, by: str, now: float
    ) -> tuple[Written, ...]:
        """Write what a person sets.

        Args:
            writes: what is to be written.
            seen: the version of each key that it is to replace; the others are overwritten.
            by: the user.
            now: seconds since the epoch.

        Returns:
            The writes, with their versions.

        Raises:
            StateConflict: a key is not as it was seen.
        """
        with self._mutex, self._locked():
            expected = {
                (w.kind, w.path): seen.get((w.kind, w.path))
                or Expected(version=self.version(w.kind, w.path))
                for w in writes
            }
            fresh = self._fresh(writes, expected)
            self.append(Stated(by=by, time=now, writes=fresh))
            return fresh

    def _fresh(
        self, writes: Sequence[Written], seen: Mapping[Key, Expected], run_id: str = ""
    ) -> tuple[Written, ...]:
        fresh = []
        for written in writes:
            key = (written.kind, written.path)
            self._check(key, seen[key], run_id)
            fresh.append(msgspec.structs.replace(written, version=seen[key].version + 1))
        return tuple(fresh)

    def move(self, old: str, new: str, *, by: str, now: float) -> None:
        """A flow has another id: its states, and what it has done once, follow it.

        Args:
            old: the flow's id until now.
            new: its id from now on.
            by: the user.
            now: seconds since the epoch.
        """
        with self._mutex:
            self._look()
            writes = [w for e in self._entries.values() for w in moved(e.written, old, new)]
        if writes:
            self.state(writes, {}, by=by, now=now)

    def settle(self) -> None:
        """Settle what is not, durably: from now on no journal is needed for what is written."""
        with self._mutex:
            if not self.path.exists():
                return
            with self._locked():
                descriptor = os.open(self.path, os.O_RDWR)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def _compact(self) -> None:
        """Make the file anew where most of it is history. Only for who holds the lock."""
        if self._offset < COMPACT_BYTES or self._lines < _COMPACT_SHARE * len(self._entries):
            return
        self.replace(
            Carried(entry=entry, writers=dict(sorted(self._writers[key].items())[-_WRITERS:]))
            for key, entry in sorted(self._entries.items())
        )

    def replace(self, lines: Iterable[Line]) -> None:
        """Make the file anew of these lines, whole or not at all. Only for who holds the lock."""
        new = self.path.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            with new.open("wb") as file:
                file.write(begin())
                for line in lines:
                    file.write(framed(line))
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
            sync_folder(self.path.parent)
        finally:
            new.unlink(missing_ok=True)
        self._forget()
        self._refresh()

    # --- mending -----------------------------------------------------------------------------

    def problem(self) -> str:
        """Why the file cannot be read; "" where it can."""
        try:
            with self._mutex:
                self._forget()
                self._look()
        except LedgerDamaged as error:
            return str(error)
        return ""

    def missing(self, committed: Iterable[Proposed]) -> list[Proposed]:
        """Those of the journals' writes that it does not know."""
        with self._mutex:
            self._look()
            return [p for p in committed if any(not self._knows(w) for w in p.writes)]

    def _knows(self, written: Written) -> bool:
        there = self._entries.get((written.kind, written.path))
        if there is None or there.written.version < written.version:
            return False
        return there.written.version > written.version or there.written == written

    def rebuild(self, committed: Iterable[Proposed]) -> None:
        """Make the file anew from the lines that can be read and what the journals have committed.

        Args:
            committed: the writes of each job of each journal.
        """
        with self._mutex, self._held():
            data = self.path.read_bytes() if self.path.exists() else b""
            lines = [line for part in data.split(b"\n") if (line := read_line(part)) is not None]
            self._forget()
            sure = {s.token for s in lines if isinstance(s, Settled) and s.committed}
            known = {proposed.token for proposed in committed}
            merged: list[Line] = [x for x in lines if isinstance(x, (Stated, Carried))]
            proposals = [p for p in lines if isinstance(p, Proposed) and p.token not in known]
            merged += [p for p in proposals if p.token in sure or self._holds(p.run_id, p.token)]
            for line in sorted([*merged, *committed], key=moment):
                self._merge(line)
            self.replace(
                Carried(entry=entry, writers=self._writers[key])
                for key, entry in sorted(self._entries.items())
            )

    def _merge(self, line: Line) -> None:
        """Take what a line tells, unless something later is known of it."""
        if isinstance(line, Carried):
            written = line.entry.written
            self._writers.setdefault((written.kind, written.path), {}).update(line.writers)
            self._take(line.entry)
        elif isinstance(line, (Proposed, Stated)):
            run_id = line.run_id if isinstance(line, Proposed) else ""
            for written in line.writes:
                self._take(Entry(written=written, run_id=run_id, by=line.by, time=line.time))

    def _take(self, entry: Entry) -> None:
        key = (entry.written.kind, entry.written.path)
        there = self._entries.get(key)
        self._writers.setdefault(key, {})[entry.written.version] = entry.run_id
        if there is None or there.written.version <= entry.written.version:
            self._entries[key] = entry

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """Hold the lock of a file that may be damaged."""
        self.path.parent.mkdir(exist_ok=True)
        with locks.locked(self._lock_path, seconds=LOCK_SECONDS) as got:
            if not got:
                raise LedgerError("another process is writing state; try again later")
            yield

    def _not_writable(self, error: OSError) -> StoreNotWritable:
        return StoreNotWritable(
            f"state cannot be written ({error.strerror}): {self.path}",
            hint="make room, or check the store's permissions",
        )
