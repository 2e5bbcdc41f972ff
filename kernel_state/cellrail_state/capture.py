"""The namespace after a job -> a `Delta`: only what changed.

Every name gets a verdict: `stored`, `rebuilt` (it cannot be stored; the reason in words) or
`lost` (a limit, `--outputs`). Nothing the user's objects do ends a capture.

How: the code of the cell tells which names it can have changed (`reach` says how far that goes);
only these are looked at (`looking`). Of them, a name that still holds the same immutable object is
skipped. Every other value is pickled by itself, which tells its content (digest of stream and
buffers) and its objects (the memo). Values that share objects are pickled again in one stream. A
stream is written only if its content differs from what the same names held before (`writing`).
Definitions are one component of their own. What all this is compared with is the `baseline`; after
a restore, `admission` makes one of what was restored.

An audit looks at everything. What it finds changed beyond what the code showed is `missed`: the
checkpoints since the audit before cannot be trusted with these names, and say so.

Here stands the life of one namespace: before a cell (`look_before`, `leads_to`), after it
(`checkpoint`; `missed` where it failed), between cells (`change`, `forget`) and after a restore
(`adopt`, `admit`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from .admission import admit
from .baseline import Baseline, Entry
from .definitions import Definitions
from .digests import digest_of_code
from .fresh import Fresh
from .inspection import Inspector
from .laying import is_same_record
from .looking import Limits, Looker
from .model import Checkpoint, Component, Delta, ObjectRef
from .piece import DEFINITIONS
from .reach import kept_in_modules
from .scanning import Scanner
from .writing import Made, Store, Writer

__all__ = ["Capture", "Limits"]


class Fingerprints(msgspec.Struct, frozen=True, kw_only=True):
    """What names hold, comparable between processes."""

    #: None for what cannot be stored
    digests: dict[str, str | None]
    #: modules whose classes and functions are in it
    modules: frozenset[str]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What is not as it was at the last capture."""

    #: names that were not there
    new: frozenset[str]
    #: names that changed, that are gone, and that share objects with them
    restored: frozenset[str]
    #: whether a function or class changed
    definitions: bool
    #: names that the code can have changed, and that cannot be stored: nobody can tell
    unknown: frozenset[str]


class Capture:
    """Captures one live namespace, job after job."""

    def __init__(
        self,
        objects: Store,
        *,
        globals: dict[str, Any],  # noqa: A002 - that is what it is
        limits: Limits | None = None,
        secrets: Sequence[str | bytes] = (),
        ambient: Callable[[Store], ObjectRef | None] | None = None,
        definitions: Definitions | None = None,
    ) -> None:
        """Prepare to capture.

        Args:
            objects: where values are written.
            globals: the namespace that functions of the notebook see.
            limits: what a capture may cost.
            secrets: what must not be written.
            ambient: writes what is beside the variables; None where nothing of it changed.
            definitions: those of another capture of this namespace: both know them by the same
                keys.
        """
        self.definitions = definitions or Definitions(globals)
        #: the fold of everything captured so far
        self.current = Checkpoint()
        self._objects, self._ambient = objects, ambient
        self._scanner, inspector = Scanner(secrets), Inspector(self.definitions)
        self._baseline = Baseline()
        self._looker = Looker(
            self.definitions,
            self._baseline,
            objects=objects,
            inspector=inspector,
            scanner=self._scanner,
            limits=limits or Limits(),
        )
        self._writer = Writer(
            objects,
            self._baseline,
            inspector=inspector,
            scanner=self._scanner,
            room=limits.room if limits is not None else None,
        )
        #: names that the last capture looked at
        self._looked_at: set[str] = set()
        #: names that were found changed since, before any code that names them ran
        self._found: tuple[str, ...] = ()

    def checkpoint(
        self,
        roots: Mapping[str, object],
        *,
        only: Collection[str] | None = None,
        touched: Collection[str] | None = None,
        audit: bool = True,
    ) -> Delta:
        """What changed since the checkpoint before; changed values are written.

        Args:
            roots: the user's names and what else is to be kept (`Out[5]`, `_`).
            only: names of `--outputs`: a changed name that is not among them is `lost`.
            touched: names that the job's code uses; None where it may use any.
            audit: look at everything else, too.
        """
        started = time.perf_counter()
        delta = self._checkpoint(roots, only, touched, audit=audit)
        delta = msgspec.structs.replace(delta, seconds=time.perf_counter() - started)
        self.current = self.current.after(delta)
        return delta

    def missed(
        self, roots: Mapping[str, object], touched: Collection[str] | None
    ) -> tuple[str, ...]:
        """Names that changed since the last capture, though nothing shows that code reached them.

        Args:
            roots: as for `checkpoint`.
            touched: names that the code used that ran since; what they lead to does not count.
        """
        with self._looker.pieces() as pieces:
            reached = self._looker.look(pieces, roots, touched, audit=True)
            changed, _ = self._looker.changed(pieces)
            return self._looker.missed(pieces, changed - reached, self.current)

    def look_before(
        self,
        roots: Mapping[str, object],
        touched: Collection[str] | None,
        rebinds: Collection[str] = (),
    ) -> tuple[str, ...]:
        """Before a cell runs: names that it can reach and that changed since they were looked at.

        What the last capture looked at is as it left it. The rest could have been changed by code
        that named nothing; after the cell it would pass for the cell's own doing. The next delta
        tells what was found as missed.

        Args:
            roots: as for `checkpoint`.
            touched: names that the cell's code uses; None where it may use any.
            rebinds: of these, names that it binds before it uses what they held.
        """
        if touched is not None:
            # the cell cannot reach what they hold, unless by another name
            company, gone = self._baseline.group_of, {*rebinds}
            touched = {*touched} - {n for n in gone if gone.issuperset(company.get(n, ()))}
        reached = None if touched is None else self.leads_to(roots, touched)
        known = self._baseline.entries.keys()
        idle = (known if reached is None else reached) & known
        idle -= self._looked_at
        if not idle:
            return ()
        with self._looker.pieces() as pieces:
            looked_at = self._looker.look(pieces, roots, idle)
            changed, _ = self._looker.changed(pieces)
            found = self._looker.missed(pieces, changed & known, self.current)
        self._looked_at |= looked_at - set(found)
        self._found = tuple(sorted({*self._found, *found}))
        return found

    def knows_of(self, names: Collection[str]) -> None:
        """These were bound anew since the last capture, and not unseen: a loop's variables.

        Args:
            names: whose change `look_before` does not tell.
        """
        self._looked_at.update(names)

    def change(self, roots: Mapping[str, object], touched: Collection[str] | None) -> Change:
        """What is not as it was at the last capture.

        Args:
            roots: as for `checkpoint`.
            touched: names that the code used that ran since; None where it may have used any.
        """
        known = self.current.variables
        with self._looker.pieces() as pieces:
            self._looker.look(pieces, roots, touched)
            before = self._baseline.groups.get((DEFINITIONS,))
            defined = pieces.defined is not None and pieces.defined.content != before
            changed, _ = self._looker.changed(pieces)
            unknown = {n for n, p in pieces.all.items() if p.error is not None and n in known}
        gone = {name for name in known if name in self._baseline.entries and name not in roots}
        together = {known[n].component for n in changed | gone if n in known} - {None}
        restored = {n for n, v in known.items() if v.component in together or n in changed | gone}
        return Change(
            new=frozenset(name for name in roots if name not in known),
            restored=frozenset(restored),
            definitions=defined,
            unknown=frozenset(unknown),
        )

    def equal(self, components: Iterable[Component], roots: Mapping[str, object]) -> set[str]:
        """Names of these components whose live values are what is stored.

        Args:
            components: of any checkpoint.
            roots: the namespace. A component counts as a whole, or not at all.
        """
        return self._looker.equal(components, roots)

    def fingerprints(self, roots: Mapping[str, object], names: Collection[str]) -> Fingerprints:
        """What these names hold, so that it can be compared with another process's.

        Args:
            roots: as for `checkpoint`.
            names: some of them.
        """
        digests: dict[str, str | None] = {}
        modules: set[str] = set()
        with self._looker.pieces() as pieces:
            for name in sorted(names):
                pieces.add(name, roots[name])
            keys = {key for piece in pieces.all.values() for key in (*piece.keys, piece.body_key)}
            pieces.define(sorted(keys - {""}))
            for name, piece in pieces.all.items():
                content = piece.content if piece.error is None else None
                shared = "+".join(self._baseline.group_of.get(name, ()))
                digests[name] = None if content is None else f"{content.hex()} {shared}"
                modules.update(piece.modules)
            if pieces.defined is not None:
                fit = pieces.defined.error is None
                digests["\0definitions"] = digest_of_code(pieces.defined.stream) if fit else None
                modules.update(pieces.defined.modules)
        return Fingerprints(digests=digests, modules=frozenset(modules))

    def seen(self, roots: Mapping[str, object], names: Collection[str]) -> dict[str, bytes | None]:
        """What can be seen of these names now, to be compared with a moment later.

        Of what cannot be stored, too (see `sight`). Under a name that no variable has, of the
        functions and classes that they lead to.

        Args:
            roots: as for `checkpoint`.
            names: some of them.

        Returns:
            By name a digest; None where nothing can be told: it is over a limit, or too deep.
        """
        return self._looker.seen(roots, names)

    def forget(self, names: Collection[str]) -> None:
        """These names are gone, and were not in the last checkpoint."""
        for name in names:
            if name in self._baseline.entries:
                self._baseline.forget(name)

    def leads_to(self, roots: Mapping[str, object], names: Collection[str]) -> set[str] | None:
        """The names that code which uses these can reach, as far as is known; None for any.

        Args:
            roots: as for `checkpoint`; what waits to be restored is not among them.
            names: names that the code uses, and words of its strings.
        """
        return self._looker.leads_to(roots, names)

    def learn(self, secrets: Sequence[str | bytes]) -> None:
        """Nothing that is written from now on holds these secrets."""
        self._scanner.learn(secrets)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the namespace in the store."""
        return sum(component.size for component in self.current.components.values())

    def adopt(
        self,
        checkpoint: Checkpoint,
        roots: Mapping[str, object],
        definitions: Mapping[str, Any] | None = None,
    ) -> None:
        """After a restore: the restored state is the checkpoint before the next delta.

        Args:
            checkpoint: what was restored.
            roots: what is in the namespace now.
            definitions: `RestoreReport.definitions`; they keep their keys.
        """
        known = dict(definitions or {})
        stored = [key for c in checkpoint.components.values() for key in c.definitions]
        self.definitions.adopt(known, stored)
        missing = [n for n, v in checkpoint.variables.items() if v.component and n not in roots]
        self._looker.pinned = known if missing else {}
        self.current = checkpoint
        self._baseline.clear()
        self._looked_at, self._found = set(), ()
        self.admit(roots)

    def differs_from(self, checkpoint: Checkpoint) -> set[str]:
        """Names whose values are other ones in a checkpoint than at the last capture."""
        before, after = self.current.variables, checkpoint.variables
        names = {*before, *after}
        return {n for n in names if not is_same_record(before.get(n), after.get(n))}

    def move_to(self, checkpoint: Checkpoint, definitions: Mapping[str, Any]) -> None:
        """Another checkpoint is the one before the next delta; most of it is there already.

        What differs is forgotten, until `admit` gets what took its place.

        Args:
            checkpoint: it.
            definitions: functions and classes by key that live in the namespace.
        """
        moved, known, baseline = self.differs_from(checkpoint), checkpoint.variables, self._baseline
        held = {i: c for i, c in checkpoint.components.items() if c.definitions}
        self.definitions.adopt(dict(definitions), [k for c in held.values() for k in c.definitions])
        if not held.keys() <= self.current.components.keys():
            baseline.drop_group(DEFINITIONS)
        self.current = checkpoint
        for name in moved & baseline.entries.keys():
            baseline.forget(name)
        self._looked_at -= moved
        waiting = any(v.component and n not in baseline.entries for n, v in known.items())
        self._looker.pinned = {**self._looker.pinned, **definitions} if waiting else {}

    def reserve(self, keys: Iterable[str]) -> None:
        """Definitions to come get other keys than these."""
        self.definitions.adopt({}, keys)

    def admit(self, roots: Mapping[str, object], fresh: Fresh | None = None) -> None:
        """Restored values are in the namespace now: remember them as they are.

        Args:
            roots: what was restored, by name; whole components.
            fresh: what its load told of it, where it is one plain value that nobody used since.
        """
        known = {n: v for n, v in roots.items() if n in self.current.variables}
        admit(self._looker, self.current, known, fresh)
        self._looked_at |= known.keys()

    def _checkpoint(
        self,
        roots: Mapping[str, object],
        only: Collection[str] | None,
        touched: Collection[str] | None,
        *,
        audit: bool,
    ) -> Delta:
        baseline, before = self._baseline, self.current.variables
        deleted = [name for name in baseline.entries if name not in roots]
        if touched is not None:
            # what shared objects with a deleted name no longer does
            touched = {*touched, *(n for name in deleted for n in baseline.group_of.get(name, ()))}
        for name in deleted:
            baseline.forget(name)
        with self._looker.pieces() as pieces:
            reached = self._looker.look(pieces, roots, touched, audit=audit)
            self._looked_at = set(roots) if audit else reached
            changed, baseline.bodies = self._looker.changed(pieces)
            for name, piece in pieces.all.items():
                baseline.entries[name] = Entry.of(piece)
            late = self._looker.missed(pieces, changed - reached, self.current)
            missed = {*late, *self._found}
            self._found = ()
            made = Made(before=before, written={*deleted, *changed}, only=only)
            for piece in pieces.groups():
                self._writer.commit(piece, made, pieces)
            made.note({n: _noted(note, roots[n]) for n, note in pieces.notes().items()})
        return Delta(
            components=made.components,
            variables=made.news(),
            deleted=tuple(sorted(name for name in deleted if name in before)),
            written=tuple(sorted(made.written)),
            ambient=self._ambient(self._objects) if self._ambient is not None else None,
            stored_bytes=made.size,
            audited=audit or touched is None,
            missed=tuple(sorted(missed)),
        )


def _noted(note: str, value: object) -> str:
    """A note of what the guarantee does not cover, with what modules of the user's own keep."""
    kept = [f"what the module `{name}` keeps is not kept" for name in kept_in_modules(value)]
    return "; ".join(filter(None, (note, *kept)))
