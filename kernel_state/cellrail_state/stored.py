"""Stored values: what a job left in the namespace, and where its bytes are.

`ObjectRef` (bytes by content address), `Component` (variables that share objects, pickled
together), `Variable` (a name and its verdict), `Delta` (what one job changed) and `Checkpoint` (the
fold of all deltas up to a job). Durations are seconds; sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import StrEnum

import msgspec


class _Struct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of the records."""


class Verdict(StrEnum):
    """What a checkpoint can promise for a name."""

    #: its value comes back from the store
    STORED = "stored"
    #: it cannot be stored; the cells that made it run again
    REBUILT = "rebuilt"
    #: it does not come back; `Variable.reason` says why
    LOST = "lost"


class ObjectRef(_Struct, frozen=True):
    """Bytes by content address. Small ones travel inside the record that points to them."""

    #: lower-case hex BLAKE3 digest (64 characters) of the bytes as they are stored, or of the
    #: digests of the parts
    digest: str
    #: length in bytes
    size: int
    #: length as they are stored, where they are compressed; 0 where they are not
    packed: int = 0
    #: the bytes themselves, where they are small; otherwise they lie in the store's objects
    inline: bytes | None = None
    #: large bytes lie there in parts, so that a change of a few bytes costs one of them
    parts: tuple[ObjectRef, ...] = ()

    @property
    def stored(self) -> int:
        """Length as they are stored."""
        return self.packed or self.size

    def files(self) -> tuple[ObjectRef, ...]:
        """What lies in the store's objects: the parts, or the whole, or nothing."""
        return tuple(ref for ref in self.parts or (self,) if ref.inline is None)


class Component(_Struct, frozen=True):
    """Variables that share objects, pickled in one stream, so that they share them again."""

    #: digest over stream and buffers: equal ids mean equal content
    id: str
    #: the variables in the stream, in order
    names: tuple[str, ...]
    #: name and version of the codec that wrote it
    codec: str
    stream: ObjectRef
    #: out-of-band buffers of the pickle, in order
    buffers: tuple[ObjectRef, ...] = ()
    #: top-level packages whose classes the stream names, with their versions
    packages: dict[str, str] = {}
    #: a component that holds definitions is loaded before the others
    definitions: tuple[str, ...] = ()
    #: definitions of other components that the stream refers to, by key
    uses: tuple[str, ...] = ()
    #: top-level modules without a version (the user's own) whose contents the stream names
    modules: tuple[str, ...] = ()

    @property
    def variables(self) -> tuple[str, ...]:
        """The names that are variables: a figure stands in its stream without a name."""
        return tuple(name for name in self.names if not name.startswith("\0"))

    @property
    def size(self) -> int:
        """Bytes of the stream and its buffers."""
        return self.stream.size + sum(ref.size for ref in self.buffers)

    def refs(self) -> tuple[ObjectRef, ...]:
        """Every object the component needs."""
        return (self.stream, *self.buffers)


class Variable(_Struct, frozen=True):
    """One name of the namespace and what the checkpoint promises for it."""

    name: str
    verdict: Verdict
    #: why it is not stored, in words
    reason: str = ""
    #: the component that holds it, where it is stored
    component: str | None = None
    #: module-qualified name of its type
    type: str = ""
    #: bytes it takes in the store (its component's), 0 where not stored
    size: int = 0
    #: one short line a person can read; never a secret
    preview: str = ""
    #: what the guarantee does not cover about it (`lru_cache` contents and the like)
    not_covered: str = ""


class Delta(_Struct, frozen=True):
    """What one job changed in the namespace, relative to the checkpoint before it."""

    #: new or changed components by id
    components: dict[str, Component] = {}
    #: new or changed names
    variables: dict[str, Variable] = {}
    #: names that are gone
    deleted: tuple[str, ...] = ()
    #: names bound or changed by the job (stored or not), sorted
    written: tuple[str, ...] = ()
    #: the ambient state after the job, as a pickle-free JSON object; None where unchanged
    ambient: ObjectRef | None = None
    #: why there is no checkpoint after this job; empty where there is one
    failure: str = ""
    #: seconds the capture took
    seconds: float = 0.0
    #: bytes newly written to the store by it
    stored_bytes: int = 0
    #: every name was looked at, not only those that the code can reach
    audited: bool = False
    #: names that changed since the audit before, though no code showed it
    missed: tuple[str, ...] = ()
    #: its definitions are not all there are: those before it stay beside them
    beside: bool = False

    def then(self, later: Delta) -> Delta:
        """This delta and the one after it as one."""
        gone = set(later.deleted)
        variables = {name: v for name, v in self.variables.items() if name not in gone}
        deleted = [name for name in self.deleted if name not in later.variables]
        return Delta(
            components={**self.components, **later.components},
            variables={**variables, **later.variables},
            deleted=tuple(sorted({*deleted, *gone})),
            written=tuple(sorted({*self.written, *later.written})),
            ambient=later.ambient or self.ambient,
            failure=later.failure or self.failure,
            seconds=self.seconds + later.seconds,
            stored_bytes=self.stored_bytes + later.stored_bytes,
            audited=self.audited or later.audited,
            missed=tuple(sorted({*self.missed, *later.missed})),
        )


class Checkpoint(_Struct, frozen=True):
    """The namespace as it stood right after a job: the fold of all deltas up to it."""

    components: dict[str, Component] = {}
    variables: dict[str, Variable] = {}
    ambient: ObjectRef | None = None

    def after(self, delta: Delta) -> Checkpoint:
        """The checkpoint after a further job."""
        variables = {**self.variables, **delta.variables}
        for name in delta.deleted:
            variables.pop(name, None)
        needed = {v.component for v in variables.values() if v.component is not None}
        known = {**self.components, **delta.components}
        # definitions are needed by whatever refers to them, not only by a name
        components = {
            cid: c
            for cid, c in known.items()
            if cid in needed or (c.definitions and cid in delta.components)
        }
        if delta.beside or not any(c.definitions for c in delta.components.values()):
            components.update({i: c for i, c in self.components.items() if c.definitions})
        return Checkpoint(
            components=components,
            variables=variables,
            ambient=delta.ambient or self.ambient,
        )

    @staticmethod
    def fold(deltas: Iterable[Delta], before: Checkpoint | None = None) -> Checkpoint:
        """The checkpoint after all of these jobs, in order.

        Args:
            deltas: of the jobs.
            before: the checkpoint before the first of them; None for an empty one.
        """
        start = before or Checkpoint()
        # one pass: `after` copies everything, and a loop has thousands of jobs
        components, variables = {**start.components}, {**start.variables}
        # in the order that `after` gives them: they are loaded in it
        defining = [cid for cid, c in components.items() if c.definitions]
        ambient = start.ambient
        for delta in deltas:
            variables.update(delta.variables)
            for name in delta.deleted:
                variables.pop(name, None)
            components.update(delta.components)
            defined = [cid for cid, c in delta.components.items() if c.definitions]
            if defined:
                old, new = set(defining), set(defined)
                again = [cid for cid in defining if cid in new]
                beside = [cid for cid in defining if cid not in new] if delta.beside else []
                defining = [*again, *(cid for cid in defined if cid not in old), *beside]
            ambient = delta.ambient or ambient
        needed = {v.component for v in variables.values()} - set(defining)
        held = [cid for cid in components if cid in needed]
        return Checkpoint(
            components={cid: components[cid] for cid in (*held, *defining)},
            variables=variables,
            ambient=ambient,
        )

    def only(self, names: Collection[str]) -> Checkpoint:
        """These names of it, and what they need."""
        variables = {n: v for n, v in self.variables.items() if n in names}
        needed = {v.component for v in variables.values()}
        components = {
            cid: c for cid, c in self.components.items() if cid in needed or c.definitions
        }
        return Checkpoint(components=components, variables=variables)

    def refs(self) -> tuple[ObjectRef, ...]:
        """Every object the checkpoint needs."""
        refs = [ref for component in self.components.values() for ref in component.refs()]
        return (*refs, self.ambient) if self.ambient is not None else tuple(refs)
