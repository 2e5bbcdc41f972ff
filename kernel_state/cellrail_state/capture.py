"""The namespace after a job -> a `Delta`: only what changed.

Every name gets a verdict: `stored`, `rebuilt` (it cannot be stored; the reason in words) or
`lost` (a limit, `--outputs`). Nothing the user's objects do ends a capture.

How: the code of the cell tells which names it can have changed (`reach` says how far that goes);
only these are looked at. Of them, a name that still holds the same immutable object is skipped.
Every other value is pickled by itself, which tells its content (digest of stream and buffers) and
its objects (the memo). Values that share objects are pickled again in one stream. A stream is
written only if its content differs from what the same names held before. Definitions are one
component of their own.

An audit looks at everything. What it finds changed beyond what the code showed is `missed`: the
checkpoints since the audit before cannot be trusted with these names, and say so.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from . import inspection, namespace
from .attention import Attention, leads_to
from .definitions import Definitions
from .digests import Hasher
from .loading import CODEC
from .model import Checkpoint, Component, Delta, ObjectRef, Variable, Verdict
from .pieces import DEFINITIONS, Entry, Piece, Pieces
from .reach import Reach
from .scanning import Scanner
from .sharing import snapshot

__all__ = ["Capture", "Limits"]

NOT_IN_OUTPUTS = "not in --outputs"


class Store(inspection.Source, Protocol):
    """Where objects go, and come from."""

    def put(self, data: Any) -> ObjectRef:
        """Keep bytes; returns their address."""
        ...


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a capture may cost."""

    #: bytes of one component
    max_value: int | None = None
    #: seconds of one capture
    max_seconds: float | None = None


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


class _Made:
    """What one capture has made so far."""

    def __init__(self, *, written: Collection[str], only: Collection[str] | None) -> None:
        self.written, self.only = written, only
        self.components: dict[str, Component] = {}
        self.variables: dict[str, Variable] = {}
        self.size = 0

    def is_unwanted(self, name: str) -> bool:
        """Whether the job wrote it and `--outputs` does not name it."""
        return self.only is not None and name not in self.only and name in self.written


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
    ) -> None:
        self._objects = objects
        self._limits = limits or Limits()
        self._scanner = Scanner(secrets)
        self._ambient = ambient
        self.definitions = Definitions(globals)
        #: the fold of everything captured so far
        self.current = Checkpoint()
        self._entries: dict[str, Entry] = {}
        self._groups: dict[tuple[str, ...], bytes] = {}
        self._group_of: dict[str, tuple[str, ...]] = {}
        self._bodies: dict[str, bytes] = {}
        self._pinned: dict[str, Any] = {}
        self._digests: set[str] = set()
        self._inspector = inspection.Inspector(self.definitions)
        self._reach = Reach(self.definitions)
        self._drawing = False
        #: names that the last capture looked at
        self._looked_at: set[str] = set()
        #: names that were found changed since, before any code that names them ran
        self._found: tuple[str, ...] = ()

    # --- public ------------------------------------------------------------------------------

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
        collecting = gc.isenabled()
        gc.disable()
        try:
            delta = self._checkpoint(roots, only, touched, audit=audit)
        finally:
            if collecting:
                gc.enable()
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
        with self._pieces() as pieces:
            reached = self._look(pieces, roots, touched, audit=True)
            return self._missed(pieces, self._changed(pieces)[0] - reached)

    def look_before(
        self, roots: Mapping[str, object], touched: Collection[str] | None
    ) -> tuple[str, ...]:
        """Before a cell runs: names that it can reach and that changed since they were looked at.

        What the last capture looked at is as it left it. The rest could have been changed by code
        that named nothing; after the cell it would pass for the cell's own doing. The next delta
        tells what was found as missed.

        Args:
            roots: as for `checkpoint`.
            touched: names that the cell's code uses; None where it may use any.
        """
        reached = None if touched is None else self.leads_to(roots, touched)
        idle = (self._entries.keys() if reached is None else reached) & self._entries.keys()
        idle -= self._looked_at
        if not idle:
            return ()
        with self._pieces() as pieces:
            looked_at = self._look(pieces, roots, idle)
            changed, _ = self._changed(pieces)
            found = self._missed(pieces, changed & self._entries.keys())
        self._looked_at |= looked_at - set(found)
        self._found = tuple(sorted({*self._found, *found}))
        return found

    def change(self, roots: Mapping[str, object], touched: Collection[str] | None) -> Change:
        """What is not as it was at the last capture.

        Args:
            roots: as for `checkpoint`.
            touched: names that the code used that ran since; None where it may have used any.
        """
        known = self.current.variables
        with self._pieces() as pieces:
            self._look(pieces, roots, touched)
            before = self._groups.get((DEFINITIONS,))
            defined = pieces.defined is not None and pieces.defined.content != before
            changed, _ = self._changed(pieces)
            unknown = {n for n, p in pieces.all.items() if p.error is not None and n in known}
        gone = {name for name in known if name in self._entries and name not in roots}
        together = {known[n].component for n in changed | gone if n in known} - {None}
        restored = {n for n, v in known.items() if v.component in together or n in changed | gone}
        return Change(
            new=frozenset(name for name in roots if name not in known),
            restored=frozenset(restored),
            definitions=defined,
            unknown=frozenset(unknown),
        )

    def forget(self, names: Collection[str]) -> None:
        """These names are gone, and were not in the last checkpoint."""
        for name in names:
            if name in self._entries:
                self._forget(name)

    def _missed(self, pieces: Pieces, names: Collection[str]) -> tuple[str, ...]:
        """Of names with other bytes than before those that hold another value."""
        return tuple(n for n in sorted(names) if not self._is_as_before(pieces.all[n], pieces))

    def _is_as_before(self, piece: Piece, pieces: Pieces) -> bool:
        variable = self.current.variables.get(piece.names[0])
        pieces.write_out(piece)
        if variable is None or piece.error is not None:
            return variable is not None and variable.reason == piece.error
        stored = self.current.components.get(variable.component or "")
        return stored is not None and self._inspector.is_same(piece, stored, self._objects)

    def leads_to(self, roots: Mapping[str, object], names: Collection[str]) -> set[str] | None:
        """The names that code which uses these can reach, as far as is known; None for any.

        Args:
            roots: as for `checkpoint`; what waits to be restored is not among them.
            names: names that the code uses, and words of its strings.
        """
        return leads_to(
            names, roots, entries=self._entries, groups=self._group_of, reach=self._reach
        )

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
        self._pinned = known if missing else {}
        self.current = checkpoint
        self._entries, self._groups, self._group_of, self._bodies = {}, {}, {}, {}
        self._looked_at, self._found = set(), ()
        self.admit(roots)

    def admit(self, roots: Mapping[str, object]) -> None:
        """Restored values are in the namespace now: remember them as they are.

        Args:
            roots: what was restored, by name; whole components.
        """
        known = {n: v for n, v in roots.items() if n in self.current.variables}
        with self._pieces() as pieces:
            for name, value in known.items():
                kept = snapshot(value) if self._stands_alone(name) else None
                if kept is None or isinstance(kept, bytes):
                    pieces.add(name, value)
                else:  # it is long: what tells a change is enough
                    self._entries[name] = Entry.of_flat(value, kept)
            holders = [c for c in self.current.components.values() if c.definitions]
            if any(piece.keys for piece in pieces.all.values()):
                pieces.define([key for component in holders for key in component.definitions])
            for name, piece in pieces.all.items():
                self._entries[name] = Entry.of(piece)
            for component in self.current.components.values():
                if all(self._is_held(name, component, pieces) for name in component.variables):
                    self._remember(component, pieces)
            self._bodies |= pieces.bodies()
        self._looked_at |= known.keys()

    def _stands_alone(self, name: str) -> bool:
        component = self.current.components.get(self.current.variables[name].component or "")
        return component is not None and component.names == (name,) and not component.definitions

    def _is_held(self, name: str, component: Component, pieces: Pieces) -> bool:
        variable, piece = self.current.variables.get(name), pieces.all.get(name)
        if variable is None or piece is None:
            return False
        return variable.component == component.id and piece.error is None

    def _remember(self, component: Component, pieces: Pieces) -> None:
        """What a component's names held when they were restored."""
        if component.definitions:
            keys = {key for piece in pieces.all.values() for key in piece.keys}
            if pieces.defined is None or not keys <= {*component.definitions}:
                return
        piece = pieces.joint(component.variables, component.definitions)
        if piece.error is None:
            self._keep_group(piece)

    # --- looking -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _pieces(self) -> Iterator[Pieces]:
        deadline = None
        if self._limits.max_seconds is not None:
            deadline = time.monotonic() + self._limits.max_seconds
        pieces = Pieces(
            self.definitions,
            hasher=Hasher(),
            scanner=self._scanner,
            entries=self._entries,
            check=self._inspector.check,
            max_value=self._limits.max_value,
            deadline=deadline,
        )
        try:
            yield pieces
        finally:
            pieces.close()

    def _look(
        self,
        pieces: Pieces,
        roots: Mapping[str, object],
        touched: Collection[str] | None,
        *,
        audit: bool = False,
    ) -> set[str]:
        """Pickle what can have changed; the names that the code can have changed."""
        drawing, self._drawing = self._drawing, _figures_are_open()
        attention = Attention(
            pieces,
            roots,
            entries=self._entries,
            groups=self._group_of,
            reach=self._reach,
            drawing=drawing or self._drawing,
        )
        attention.follow(roots if touched is None else touched)
        reached = set(attention.seen)
        if audit:
            attention.look_at_all()
        if attention.needs_definitions or self._pinned:
            known = [key for entry in self._entries.values() for key in entry.keys]
            pieces.define([*self._pinned, *known])
        attention.settle()
        pieces.connect()
        return reached

    def _checkpoint(
        self,
        roots: Mapping[str, object],
        only: Collection[str] | None,
        touched: Collection[str] | None,
        *,
        audit: bool,
    ) -> Delta:
        before = self.current.variables
        deleted = [name for name in self._entries if name not in roots]
        if touched is not None:
            # what shared objects with a deleted name no longer does
            touched = {*touched, *(n for name in deleted for n in self._group_of.get(name, ()))}
        for name in deleted:
            self._forget(name)
        with self._pieces() as pieces:
            reached = self._look(pieces, roots, touched, audit=audit)
            self._looked_at = set(roots) if audit else reached
            changed, self._bodies = self._changed(pieces)
            for name, piece in pieces.all.items():
                self._entries[name] = Entry.of(piece)
            missed = (*self._missed(pieces, changed - reached), *self._found)
            self._found = ()
            made = _Made(written={*deleted, *changed}, only=only)
            for piece in pieces.groups():
                self._commit(piece, made, pieces)
            for name, note in pieces.notes().items():
                record = made.variables.get(name) or before.get(name)
                if record is not None and record.not_covered != note:
                    made.variables[name] = msgspec.structs.replace(record, not_covered=note)
        return Delta(
            components=made.components,
            variables={n: v for n, v in made.variables.items() if before.get(n) != v},
            deleted=tuple(sorted(name for name in deleted if name in before)),
            written=tuple(sorted(made.written)),
            ambient=self._ambient(self._objects) if self._ambient is not None else None,
            stored_bytes=made.size,
            audited=audit or touched is None,
            missed=tuple(sorted(set(missed))),
        )

    def _changed(self, pieces: Pieces) -> tuple[set[str], dict[str, bytes]]:
        """Names bound to another object, or to one that changed; the definitions' bodies now."""
        defined = pieces.defined
        same = defined is not None and defined.content == self._groups.get((DEFINITIONS,))
        bodies = pieces.bodies(self._bodies if same else None)
        if defined is None:
            bodies = {**self._bodies, **bodies}
        changed = set()
        for name, piece in pieces.all.items():
            entry, key = self._entries.get(name), piece.body_key
            other_body = bool(key) and bodies.get(key) != self._bodies.get(key)
            if entry is None or not entry.same(piece) or other_body:
                changed.add(name)
        return changed, bodies

    # --- writing -----------------------------------------------------------------------------

    def _commit(self, piece: Piece, made: _Made, pieces: Pieces) -> None:
        """Write a group that changed; its names get their records."""
        if piece.error is not None:
            verdict = Verdict.LOST if piece.over_limit else Verdict.REBUILT
            self._refuse(piece, piece.names, made, verdict, piece.error)
            return
        if self._is_stored(piece, made):
            return
        pieces.write_out(piece)
        unwanted = [n for n in piece.names if made.is_unwanted(n)]
        if unwanted and len(unwanted) == len(piece.names) and not piece.definitions:
            self._refuse(piece, piece.names, made, Verdict.LOST, NOT_IN_OUTPUTS)
            self._keep_group(piece)
            return
        reason = "holds a secret" if self._holds_secret(piece) else self._inspector.check(piece)
        if reason:
            self._refuse(piece, piece.names, made, Verdict.REBUILT, reason)
            return
        component = self._write(piece, made)
        for name, value in zip(piece.names, piece.values, strict=True):
            made.variables[name] = self._record(name, value, component)
        self._refuse(piece, unwanted, made, Verdict.LOST, NOT_IN_OUTPUTS)
        self._keep_group(piece)

    def _holds_secret(self, piece: Piece) -> bool:
        return any(map(self._scanner.hits, (piece.stream, *piece.buffers)))

    def _refuse(
        self, piece: Piece, names: Collection[str], made: _Made, verdict: Verdict, reason: str
    ) -> None:
        for name, value in zip(piece.names, piece.values, strict=True):
            if name in names:
                record = self._record(name, value)
                made.variables[name] = msgspec.structs.replace(
                    record, verdict=verdict, reason=self._scanner.mask(reason) or "holds a secret"
                )
                self._drop_group(name)

    def _is_stored(self, piece: Piece, made: _Made) -> bool:
        """Whether the same content was written for these names before."""
        if self._groups.get(_group(piece)) != piece.content:
            return False
        for name in piece.names:
            record = self.current.variables.get(name)
            if record is None:
                return False
            if record.verdict is not Verdict.STORED and name in made.written:
                return False
        return True

    def _write(self, piece: Piece, made: _Made) -> Component:
        refs = [self._objects.put(data) for data in (piece.stream, *piece.buffers)]
        ident = Hasher.parts(
            CODEC.encode(),
            *(name.encode("utf-8", "surrogatepass") for name in piece.heads),
            b"|",
            *(key.encode("utf-8", "surrogatepass") for key in piece.definitions),
            b"|",
            *(ref.digest.encode() for ref in refs),
        ).hex()
        component = Component(
            id=ident,
            names=piece.heads,
            codec=CODEC,
            stream=refs[0],
            buffers=tuple(refs[1:]),
            packages=self._inspector.packages(piece),
            definitions=piece.definitions,
        )
        made.components[ident] = component
        for file in (file for ref in refs for file in ref.parts or (ref,)):
            if file.digest not in self._digests:
                self._digests.add(file.digest)
                made.size += file.stored
        return component

    def _record(self, name: str, value: object, component: Component | None = None) -> Variable:
        mask = self._scanner.mask
        return Variable(
            name=name,
            verdict=Verdict.STORED if component is not None else Verdict.REBUILT,
            component=component.id if component is not None else None,
            type=mask(namespace.type_name(type(value))),
            size=component.size if component is not None else 0,
            preview=mask(namespace.preview(value)),
        )

    # --- the baseline ------------------------------------------------------------------------

    def _keep_group(self, piece: Piece) -> None:
        group = _group(piece)
        for name in group:
            self._drop_group(name)
        self._groups[group] = piece.content
        for name in group:
            self._group_of[name] = group

    def _drop_group(self, name: str) -> None:
        group = self._group_of.pop(name, None)
        if group is not None:
            self._groups.pop(group, None)

    def _forget(self, name: str) -> None:
        del self._entries[name]
        self._drop_group(name)


def _group(piece: Piece) -> tuple[str, ...]:
    return (DEFINITIONS, *piece.names) if piece.definitions else piece.names


def _figures_are_open() -> bool:
    helpers = sys.modules.get("matplotlib._pylab_helpers")
    return helpers is not None and bool(helpers.Gcf.figs)
