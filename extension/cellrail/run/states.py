"""The clerk of states: flow user state, states and resources, variables.

Flow user state belongs to the run. Its versions are the jobs of the run's chain, so a cut sees what
the jobs before it have set. Resources (a step's state is one, of type `state`) and variables
outlive runs and lie in the store's ledger.

A cell sees what it has set itself. Otherwise it sees what is there when it reads; its write is made
if nobody has written since it last read, or since it wrote where it did not read. What a step of a
restarted run sees instead, and which write is made then, tells `past`. Variables are settings: what
is there now is what is seen.

What an item of a parallel loop sets of the run's own state ends with the item. An item of a loop in
sequence that runs apart from it (`--failed-only`) can set nothing: items behind it, which are kept,
have not seen it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Set
from difflib import get_close_matches
from typing import Any

import msgspec

from cellrail.errors import BadState, HoldsSecret, NotSet
from cellrail.run.desk import Clerk, Desk, Handler, Job, Then
from cellrail.run.jsontext import from_text, to_text
from cellrail.run.past import Past
from cellrail_state.chains import names_of
from cellrail_state.errors import StateError
from cellrail_state.keys import KeyRing
from cellrail_state.ledger import Expected, Key, Ledger
from cellrail_state.ledgerlines import Entry, path_of
from cellrail_state.model import Decided, Effects, JobFinished, ObjectRef, Written
from cellrail_state.objects import INLINE_LIMIT, Objects
from cellrail_state.store import Store
from cellrail_state.texts import encodable

RESOURCE, VARIABLE = "resource", "variable"
#: the type of a step's state
STATE = "state"
#: the type of a resource whose maker named none
ANY = "any"
_PATH_LENGTH = 500


class States(Clerk):
    """Answers what cells ask about state."""

    def __init__(self, desk: Desk, *, flow: str, scope: str, past: Past | None = None) -> None:
        """Know whose states they are.

        Args:
            desk: the run's.
            flow: the flow's id.
            scope: `user:NAME`, `trigger:ID` or `backfill:ID`.
            past: what the steps saw in the run's origin.
        """
        store = desk.recorder.store
        self._desk, self._flow, self._scope = desk, flow, scope
        self._ledger: Ledger = store.ledger
        self._objects: Objects = store.objects
        self._keys: KeyRing = store.keyring
        self._past = past
        #: flow user state that each job of the chain has set
        self._chain: list[tuple[str, dict[str, str]]] = []
        self._upto = ""
        #: the ids of each job of the chain that the run began on
        self._stands: list[set[str]] = []
        #: ids of kept jobs that do not stand before what executes: of other items, and of what
        #: comes behind a cell that runs again
        self._beside: frozenset[str] = frozenset()
        self._behind: frozenset[str] = frozenset()
        #: it is for an item of a loop in sequence that runs apart from it
        self._apart = False
        #: both for the items that are carried out now
        self._of_items = (self._beside, self._apart)
        self._forget()

    def _forget(self) -> None:
        self.seen: dict[Key, Expected] = {}
        self._writes: dict[Key, Written] = {}
        self._reads: dict[Key, Written] = {}
        #: variables that were read
        self._settings: dict[Key, Written] = {}
        #: what was written without having been read, as it stood before
        self._replaced: dict[Key, Written] = {}
        #: flow user state that was set, and keys of it that were read
        self._user: dict[str, str] = {}
        self._asked: set[str] = set()

    def forked(self, kept: Iterable[JobFinished], *, in_sequence: bool) -> None:
        """Items of a loop are carried out beside these kept ones now."""
        known = list(kept)
        if self._past is not None:
            self._past.keep(known)
        self._of_items = (frozenset(n for job in known for n in names_of(job)), in_sequence)

    def another(self, desk: Desk) -> States:
        """What an item of a parallel loop sets of the run's own state ends with it."""
        made = States(desk, flow=self._flow, scope=self._scope, past=self._past)
        made._beside, made._apart = self._of_items
        return made

    def belongs_to(self, flow: str) -> None:
        """The flow has a name now."""
        self._flow = flow

    def handlers(self) -> Mapping[str, Handler]:
        """What cells can ask."""
        return {
            "state_path": self.state_path,
            "get_user_state": self.get_user_state,
            "set_user_state": self.set_user_state,
            "get_state": self.get_state,
            "set_state": self.set_state,
            "get_resource": self.get_resource,
            "set_resource": self.set_resource,
            "get_variable": self.get_variable,
            "set_variable": self.set_variable,
        }

    # --- flow user state ---------------------------------------------------------------------

    def get_user_state(self, job: Job | None, key: str) -> str | None:
        """The JSON text under a key of the run; None where there is none."""
        del job
        if key in self._user:
            return self._user[key]
        self._asked.add(key)
        found: str | None = None
        if (then := self._desk.then) is not None:
            for before in then.before:
                found = before.effects.user.get(key, found) if before.effects else found
            return found
        for job_id, values in self._chain:
            if job_id == self._upto:
                break
            found = values.get(key, found)
        return found

    def set_user_state(self, job: Job | None, key: str, value: str) -> None:
        """Set a key of the run, when the step succeeds."""
        del job
        self._may_set(f"the flow user state {key!r}", "set_flow_user_state()")
        if encodable(key) != key:
            raise BadState(f"the key {key!r} is no Unicode text", hint="use another one")
        self._refuse_secrets(f"the flow user state {key!r}", key, value)
        self._user[key] = value

    # --- states and resources ----------------------------------------------------------------

    def state_path(self, job: Job | None) -> str:
        """Where the state of the step that asks lies, as a resource."""
        then = self._desk.then
        job = then.job if then is not None else job or self._desk.current("a state")
        return f"{self._flow}/{job.step}/{self._scope}"

    def get_state(self, job: Job | None) -> str | None:
        """The JSON text of the step's state; None the first time."""
        return self._read(job, self.state_path(job))

    def set_state(self, job: Job | None, value: str) -> None:
        """Set the step's state, when the step succeeds."""
        self._write(job, self.state_path(job), value, STATE)

    def get_resource(self, job: Job | None, path: str, required: bool) -> str | None:
        """The JSON text of a resource.

        Raises:
            NotSet: it is required, and there is none.
        """
        checked_path(path)
        value = self._read(job, path)
        if value is None and required:
            raise not_set(RESOURCE, path, self._ledger.entries(RESOURCE))
        return value

    def set_resource(
        self, job: Job | None, value: str, path: str | None, resource_type: str | None
    ) -> None:
        """Set a resource, when the step succeeds; without a path, the step's state."""
        if path is None:
            self._write(job, self.state_path(job), value, resource_type or STATE)
        else:
            self._write(job, checked_path(path), value, resource_type)

    def _read(self, job: Job | None, path: str) -> str | None:
        key = (RESOURCE, path)
        if key in self._writes:
            return self._text(self._writes[key])
        self._reads[key], self.seen[key] = self._look(job, key)
        return self._text(self._reads[key])

    def _look(self, job: Job | None, key: Key) -> tuple[Written, Expected]:
        """What the job sees under a key, and what its write replaces."""
        if self._desk.then is not None and key[0] == RESOURCE:
            seen = self._saw(self._desk.then, key)
            return seen, Expected(version=seen.version)
        if self._past is not None and key[0] == RESOURCE:
            return self._past.sees(
                job,
                key,
                self._ledger,
                run_id=self._desk.recorder.run_id,
                beside=self._beside | self._behind,
            )
        entry = self._ledger.last(*key)
        now = entry.written if entry is not None else Written(kind=key[0], path=key[1], version=0)
        return now, Expected(version=now.version)

    def _saw(self, then: Then, key: Key) -> Written:
        """What a kept job saw under a key.

        Raises:
            BadState: it had not looked.
        """
        was, store = then.was, self._desk.recorder.store
        flow = store.started((was.lays or was.job_id).rpartition("/")[0]).flow
        for seen in was.effects.reads if was.effects is not None else ():
            if (seen.kind, path_of(seen, flow, self._flow)) == key:
                return msgspec.structs.replace(seen, path=key[1])
        raise BadState(
            f"{then.job.label} is executed again for what it made, and had not read the resource "
            f"{key[1]!r} before",
            hint="what it saw there is not known: restart from this step",
        )

    def _write(self, job: Job | None, path: str, value: str, kind: str | None) -> None:
        self._may_set(f"the resource {path!r}", "setting a state or a resource")
        key = (RESOURCE, path)
        self._refuse_secrets(f"the resource {path!r}", path, value)
        self._expect(job, key)
        there = self._writes.get(key)
        if there is None and (entry := self._ledger.entry(*key)) is not None:
            there = entry.written
        made = there.type if there is not None else kind or ANY
        if kind is not None and kind != made:
            raise BadState(
                f"the resource {path!r} was created with the type {made!r}, not {kind!r}",
                hint="leave the type out, or use another path",
            )
        self._writes[key] = Written(
            kind=RESOURCE, path=path, version=0, value=self._kept(value), type=made
        )

    def _expect(self, job: Job | None, key: Key) -> None:
        """Know what the write of a key replaces.

        Raises:
            StateConflict: somebody has written it since it was read.
        """
        if key not in self.seen:
            seen, expected = self._look(job, key)
            if key[0] == RESOURCE:
                self._replaced[key] = seen
            if self._past is not None and not self._past.looked(job, key):
                # whatever stood there: it would have been replaced in the origin, too
                expected = Expected(version=expected.version)
            self.seen[key] = expected
        self._ledger.check({key: self.seen[key]}, run_id=self._desk.recorder.run_id)

    # --- variables ---------------------------------------------------------------------------

    def get_variable(self, job: Job | None, path: str, required: bool) -> str | None:
        """A variable's value; a secret is known to the run from now on.

        Raises:
            NotSet: it is required, and there is none.
        """
        key = (VARIABLE, checked_path(path))
        written = self._writes.get(key)
        if written is None:
            written, self.seen[key] = self._look(job, key)
            self._settings[key] = written
        if written.value is None:
            if required:
                raise not_set(VARIABLE, path, self._ledger.entries(VARIABLE))
            return None
        value = variable_text(written, self._keys, self._objects)
        if written.secret:
            self._desk.learn(value)
        return value

    def set_variable(self, job: Job | None, path: str, value: str, secret: bool) -> None:
        """Set a variable, when the step succeeds; one that was secret stays it."""
        self._may_set(f"the variable {path!r}", "set_variable()")
        key = (VARIABLE, checked_path(path))
        self._expect(job, key)
        there = self._writes.get(key)
        if there is None and (entry := self._ledger.entry(*key)) is not None:
            there = entry.written
        secret = secret or (there is not None and there.secret)
        if secret:
            self._refuse_secrets(f"the variable's path {path!r}", path)
            self._desk.learn(value)
        else:
            self._refuse_secrets(f"the variable {path!r}", path, value, or_else="secret=True")
        self._writes[key] = Written(
            kind=VARIABLE, path=path, version=0, secret=secret,
            value=encrypted(value, self._keys) if secret else self._kept(to_text(value, path)),
        )  # fmt: skip

    # --- values ------------------------------------------------------------------------------

    def _may_set(self, what: str, asks: str) -> None:
        """Refuse what cannot be committed with the job.

        Raises:
            OutsideStep: there is none.
            BadState: its item runs behind others that should have seen it.
        """
        job = self._desk.current(asks)
        if self._apart:
            raise BadState(
                f"{what} cannot be set here: {job.turns[0]} runs behind the items that are kept, "
                "which have not seen it (--failed-only)",
                hint=f"restart from this item on: --from '{job.turns[0]}'",
            )

    def _refuse_secrets(self, what: str, *texts: str, or_else: str = "") -> None:
        if any(self._desk.recorder.masker.finds(text) for text in texts):
            hint = f"set it with {or_else}" if or_else else "keep it with set_variable(secret=True)"
            raise HoldsSecret(f"{what} holds a secret of this run", hint=hint)

    def _kept(self, text: str) -> str | ObjectRef:
        return kept(text, self._objects)

    def _text(self, written: Written) -> str | None:
        return text_of(written, self._objects)

    # --- the job -----------------------------------------------------------------------------

    def begin(self, job: Job) -> None:
        """Nothing has been read or set."""
        del job
        self._forget()

    def check(self) -> None:
        """Whether what was set can be committed.

        Raises:
            StateConflict: somebody else wrote it in the meantime.
        """
        if self._writes:
            seen = {key: self.seen[key] for key in self._writes}
            self._ledger.check(seen, run_id=self._desk.recorder.run_id)

    def expected(self) -> Mapping[Key, Expected]:
        """What was seen of each key."""
        return self.seen

    def asks(self) -> None:
        """Nothing has been read."""
        self._forget()

    def read(self, effects: Effects) -> Effects:
        """What was read."""
        reads, settings = _in_order(self._reads), _in_order(self._settings)
        self._flush(reads)
        return msgspec.structs.replace(
            effects, reads=reads, settings=settings, asked=tuple(sorted(self._asked))
        )

    def contribute(self, effects: Effects, *, success: bool) -> Effects:
        """What was set, where the job succeeded; what was read."""
        effects = self.read(effects)
        if not success:
            return effects
        done = {key: seen for key, seen in self._replaced.items() if key in self._writes}
        replaced, writes = _in_order(done), _in_order(self._writes)
        self._flush((*replaced, *writes))
        return msgspec.structs.replace(
            effects, replaced=replaced, writes=writes, user=dict(self._user)
        )

    def _flush(self, values: Iterable[Written]) -> None:
        if any(isinstance(written.value, ObjectRef) for written in values):
            self._objects.flush()

    def committed(self, job: Job, effects: Effects, *, replaces: str) -> None:
        """What the job set is the run's from now on."""
        place = next((n for n, (known, _) in enumerate(self._chain) if known == replaces), None)
        if replaces and place is not None:
            self._chain[place] = (job.job_id, effects.user)
        elif effects.user:
            self._chain.append((job.job_id, effects.user))
        self._forget()

    def started_on(self, jobs: Iterable[JobFinished]) -> None:
        """What these jobs have set is there."""
        known = list(jobs)
        self._chain = [
            (job.job_id, dict(job.effects.user) if job.effects is not None else {}) for job in known
        ]
        self._stands = [names_of(job) for job in known]
        self._beside = self._beside.difference(*self._stands)
        if self._past is not None:
            self._past.keep(known)

    def stands_before(self, job_id: str) -> None:
        """Cells see flow user state as it stood before this job."""
        self._upto = job_id
        place = next((n for n, names in enumerate(self._stands, 1) if job_id in names), None)
        behind = self._stands[place:] if place is not None else []
        self._behind = frozenset().union(*behind)


def _in_order(values: Mapping[Key, Written]) -> tuple[Written, ...]:
    return tuple(values[key] for key in sorted(values))


# --- what cells, the command line and an unrecorded notebook share ---------------------------


def checked_path(path: object) -> str:
    """A path of a resource or a variable.

    Raises:
        BadState: it is none.
    """
    if not isinstance(path, str) or not path or path != path.strip() or not path.isprintable():
        raise BadState(f"{path!r} is no path of a resource or variable", hint="f/db/main is one")
    if len(path) > _PATH_LENGTH:
        raise BadState(f"a path of {len(path)} characters is too long ({_PATH_LENGTH} at most)")
    return path


def not_set(kind: str, path: str, there: Iterable[Entry]) -> NotSet:
    """The error for a path that holds nothing, with the nearest that does."""
    return nothing_there(kind, path, [entry.written.path for entry in there])


def nothing_there(kind: str, path: str, there: Iterable[str]) -> NotSet:
    """The error for a path that holds nothing, with the nearest of those that do."""
    near = get_close_matches(path, list(there), n=1)
    told = f"; did you mean {near[0]!r}?" if near else ""
    return NotSet(f"there is no {kind} {path!r}{told}")


def kept(text: str, objects: Objects) -> str | ObjectRef:
    """A text as records hold it: large ones lie in the objects."""
    return text if len(text) <= INLINE_LIMIT else objects.put(text.encode())


def text_of(written: Written, objects: Objects) -> str | None:
    """The text of a value in clear; None where there is none."""
    if isinstance(written.value, ObjectRef):
        return objects.get(written.value).decode()
    return written.value


def encrypted(value: str, keys: KeyRing) -> str:
    """A secret as it is kept."""
    return keys.encrypt(to_text(value, "a secret"))


def variable_text(written: Written, keys: KeyRing, objects: Objects) -> str:
    """A variable's value."""
    text = text_of(written, objects) or '""'
    value: Any = from_text(keys.decrypt(text) if written.secret else text)
    return str(value)


def secrets_of(
    records: Iterable[JobFinished | Decided], keys: KeyRing, objects: Objects
) -> list[str]:
    """The secret variables that jobs and conditions have read or set; none without their key."""
    found: dict[str, None] = {}
    for record in records:
        effects = record.effects or Effects()
        for written in (*effects.settings, *effects.writes):
            if written.kind == VARIABLE and written.secret and written.value is not None:
                with contextlib.suppress(StateError):
                    found[variable_text(written, keys, objects)] = None
    return list(found)


def is_set_otherwise(seen: Written, store: Store, own: Set[str]) -> bool:
    """Whether a variable is not what was seen, and others than these runs have set it since."""
    entry = store.ledger.last(seen.kind, seen.path)
    if set(store.ledger.writers_since(seen.kind, seen.path, seen.version)) <= own:
        return False
    if entry is None or entry.written.value is None or seen.value is None:
        return (entry is not None and entry.written.value is not None) or seen.value is not None
    try:
        was, now = (variable_text(w, store.keyring, store.objects) for w in (seen, entry.written))
    except StateError:  # another's key: who knows
        return True
    return was != now
