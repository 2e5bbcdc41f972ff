"""The clerk of `flow.once`: a function that runs once, whatever becomes of its step.

The cell asks for what the key holds (`once_find`); where there is nothing it runs the function and
has its result recorded (`once_keep`), at once and durably, as a record of the run's journal. Later
attempts, recovered runs and everything restarted from this run find it there: a restarted run
inherits the records of its origin. With `scope="flow"` (or where the run fills a tick) the record
is found through the store's ledger by other runs too, and a file's lock makes one of them wait
while the other runs the function; the lock ends with its process.

A result that is no JSON cannot be kept, and the function has run by then: the key counts as done,
without a value, and asking for it says so from then on.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

import msgspec
from blake3 import blake3

from cellrail.run.desk import Clerk, Desk, Handler, Job
from cellrail.run.jsontext import from_text
from cellrail.run.states import kept, text_of
from cellrail_state import locks
from cellrail_state.ledger import Expected
from cellrail_state.model import Effects, ObjectRef, OnceDone, Written

ONCE = "once"
_SHORTEST_SECRET = 8


class Onces(Clerk):
    """Knows what was done once."""

    def __init__(
        self, desk: Desk, *, flow: str, done: Mapping[str, OnceDone], tick: str = ""
    ) -> None:
        """Know what is done already.

        Args:
            desk: the run's.
            flow: the flow's id.
            done: by key, in this run and those that it was restarted from.
            tick: the tick that the run fills; "" where it fills none.
        """
        self._desk, self._flow, self._tick = desk, flow, tick
        self._store = desk.recorder.store
        self._done = dict(done)
        #: keys whose functions are running, with the lock's file where others may run them too
        self._running: dict[str, int] = {}
        self._asked = False

    def another(self, desk: Desk) -> Onces:
        """What one kernel has done, the others find."""
        made = Onces(desk, flow=self._flow, done={}, tick=self._tick)
        made._done, made._running = self._done, self._running
        return made

    def take_over(self, done: Mapping[str, OnceDone]) -> None:
        """What another run has done, this one does not do again."""
        self._done = {**done, **self._done}

    def belongs_to(self, flow: str) -> None:
        """The flow has a name now."""
        self._flow = flow

    def handlers(self) -> Mapping[str, Handler]:
        """What cells can ask."""
        return {"once_find": self.find, "once_keep": self.keep, "once_failed": self.failed}

    # --- questions ---------------------------------------------------------------------------

    def find(self, job: Job | None, key: str, scope: str) -> dict[str, Any]:
        """What a key holds; where nothing, the cell runs the function now, or waits."""
        del job
        self._asked, key = True, self._keyed(key)
        path = self._path(key, scope)
        known = self._known(key, path)
        if known is not None:
            return self._told(known)
        self._desk.current(f"flow.once({key!r})")
        if key in self._running:
            return {"wait": True}
        descriptor = -1
        if path:
            descriptor = self._try_lock(path)
            if descriptor < 0:
                return {"wait": True}
            # it may have been done while the lock was another's
            if (known := self._known(key, path)) is not None:
                os.close(descriptor)
                return self._told(known)
        self._running[key] = descriptor
        return {}

    def keep(self, job: Job | None, key: str, scope: str, value: str | None, lost: str) -> None:
        """The function has run: record it.

        Args:
            job: the current job.
            key: what identifies it.
            scope: run or flow.
            value: what it returned, as JSON text.
            lost: why there is no value, in words.
        """
        if job is None:  # the step is over, and a thread of it goes on
            job = self._desk.current(f"flow.once({key!r})")
        key = self._keyed(key)
        secret = value is not None and self._desk.recorder.masker.finds(value)
        stored: str | ObjectRef | None = value
        if value is not None:
            text = self._store.keyring.encrypt(value) if secret else value
            stored = kept(text, self._store.objects)
            self._store.objects.flush()
        done = OnceDone(
            time=self._desk.recorder.clock(), step=job.number, job_id=job.job_id, key=key,
            scope=scope, value=stored, secret=secret, lost=lost, turns=job.turns,
        )  # fmt: skip
        path = self._path(key, scope)
        try:
            if path:
                self._record_for_all(done, path)
            else:
                self._desk.recorder.once(done)
        finally:
            self._stop(key)
        self._done[key] = done

    def failed(self, job: Job | None, key: str) -> None:
        """The function raised: nothing was done."""
        del job
        self._stop(self._keyed(key))

    def _keyed(self, key: str) -> str:
        """The key as records have it."""
        return self._desk.recorder.lasting_key(key)

    # --- records -----------------------------------------------------------------------------

    def _path(self, key: str, scope: str) -> str:
        """Where the ledger has it; "" where it is of this run, and of what is restarted from it."""
        if scope == "flow":
            return f"{self._flow}/{key}"
        return f"{self._flow}@{self._tick}/{key}" if self._tick else ""

    def _known(self, key: str, path: str) -> OnceDone | None:
        if not path:
            return self._done.get(key)
        entry = self._store.ledger.entry(ONCE, path)
        if entry is None:
            return None
        text = text_of(entry.written, self._store.objects) or ""
        return msgspec.json.decode(text.encode(), type=OnceDone)

    def _record_for_all(self, done: OnceDone, path: str) -> None:
        """Record it in the run's journal, through the ledger."""
        ledger, recorder = self._store.ledger, self._desk.recorder
        text = kept(msgspec.json.encode(done).decode(), self._store.objects)
        self._store.objects.flush()
        written = Written(kind=ONCE, path=path, version=0, value=text)
        seen = Expected(version=ledger.version(ONCE, path))
        claim = ledger.claim([written], {(ONCE, path): seen})
        try:
            claim.propose(recorder.run_id, by=self._desk.user, now=done.time)
            recorder.once(msgspec.structs.replace(done, token=claim.token))
            claim.settle()
        finally:
            claim.release()

    def _told(self, done: OnceDone) -> dict[str, Any]:
        if done.lost:
            return {"found": True, "lost": done.lost, "run": done.origin or _run_of(done.job_id)}
        written = Written(kind=ONCE, path=done.key, version=0, value=done.value)
        text = text_of(written, self._store.objects) or "null"
        if done.secret:
            text = self._store.keyring.decrypt(text)
            for word in _strings(from_text(text)):
                self._desk.learn(word)
        return {"found": True, "value": text}

    # --- while it runs -----------------------------------------------------------------------

    def _try_lock(self, path: str) -> int:
        """Take the lock of what several runs may do; -1 where another has it."""
        folder = self._store.path / "state"
        folder.mkdir(exist_ok=True)
        name = blake3(path.encode()).hexdigest()[:32]
        descriptor = os.open(folder / f"once-{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        if locks.try_lock(descriptor):
            return descriptor
        os.close(descriptor)
        return -1

    def _stop(self, key: str) -> None:
        descriptor = self._running.pop(key, -1)
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def begin(self, job: Job) -> None:
        """A job begins; functions that an interrupt has ended run no more."""
        del job
        self._asked = False
        self.close()

    def contribute(self, effects: Effects, *, success: bool) -> Effects:
        """The job must not be executed again for what it made."""
        del success
        if not self._asked:
            return effects
        return msgspec.structs.replace(effects, marks=(*effects.marks, ONCE))

    def committed(self, job: Job, effects: Effects, *, replaces: str) -> None:
        """The next job has asked for nothing."""
        del job, effects, replaces
        self._asked = False

    def close(self) -> None:
        """Give the locks back."""
        for key in list(self._running):
            self._stop(key)


def _run_of(job_id: str) -> str:
    return job_id.rpartition("/")[0]


def _strings(value: Any) -> list[str]:
    """The texts in a value that holds a secret: nobody knows which of them it is."""
    if isinstance(value, str):
        return [value] if len(value) >= _SHORTEST_SECRET else []
    if isinstance(value, dict):
        return [word for item in value.values() for word in _strings(item)]
    if isinstance(value, list):
        return [word for item in value for word in _strings(item)]
    return []
