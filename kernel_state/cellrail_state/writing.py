"""Writes what a capture found changed, and gives each name its verdict.

A group of names whose joint content is the one that was written for them before is not written
again. What cannot be pickled, what holds a secret and what does not come back as a copy is
`rebuilt`, with the reason; what is beyond a limit, or not among `--outputs`, is `lost`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from . import inspection, namespace
from .baseline import Baseline
from .digests import Hasher
from .loading import CODEC
from .model import Component, ObjectRef, Variable, Verdict
from .piece import HOLDS_A_SECRET, Piece
from .pieces import Pieces
from .scanning import Scanner

NOT_IN_OUTPUTS = "not in --outputs"
NO_ROOM = "over the limit: the store is full (max_store)"


class Store(inspection.Source, Protocol):
    """Where objects go, and come from."""

    def put(self, data: Any) -> ObjectRef:
        """Keep bytes; returns their address."""
        ...

    def put_all(self, parts: Sequence[Any]) -> list[ObjectRef]:
        """Keep several; returns their addresses, in order."""
        ...


class Made:
    """What one capture has made so far."""

    def __init__(
        self,
        *,
        before: Mapping[str, Variable],
        written: Collection[str],
        only: Collection[str] | None,
    ) -> None:
        """Begin.

        Args:
            before: the records that the names had.
            written: names that the job wrote.
            only: names of `--outputs`, where it is given.
        """
        self.before, self.written, self.only = before, written, only
        self.components: dict[str, Component] = {}
        self.variables: dict[str, Variable] = {}
        self.size = 0

    def is_unwanted(self, name: str) -> bool:
        """Whether the job wrote it and `--outputs` does not name it."""
        return self.only is not None and name not in self.only and name in self.written

    def note(self, notes: Mapping[str, str]) -> None:
        """Record by name what the guarantee does not cover."""
        for name, note in notes.items():
            record = self.variables.get(name) or self.before.get(name)
            if record is not None and record.not_covered != note:
                self.variables[name] = msgspec.structs.replace(record, not_covered=note)

    def news(self) -> dict[str, Variable]:
        """The records that are not as they were."""
        return {n: v for n, v in self.variables.items() if self.before.get(n) != v}


class Writer:
    """Writes components into one store."""

    def __init__(
        self,
        objects: Store,
        baseline: Baseline,
        *,
        inspector: inspection.Inspector,
        scanner: Scanner,
        room: int | None = None,
    ) -> None:
        """Prepare to write.

        Args:
            objects: where it is written.
            baseline: learns which groups are written.
            inspector: tells what would not load.
            scanner: finds secrets.
            room: bytes that may still be written; None for any number.
        """
        self._objects, self._baseline = objects, baseline
        self._inspector, self._scanner = inspector, scanner
        self._room = room
        #: what this process has written, which counts once
        self._digests: set[str] = set()

    def commit(self, piece: Piece, made: Made, pieces: Pieces) -> None:
        """Write a group that changed; its names get their records.

        Args:
            piece: the group.
            made: receives the component and the records.
            pieces: where it comes from.
        """
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
            self._baseline.keep_group(piece)
            return
        # without definitions no other value loads
        if self._is_full() and not (piece.definitions or piece.body_key):
            self._refuse(piece, piece.names, made, Verdict.LOST, NO_ROOM)
            return
        secret = any(map(self._scanner.hits, piece.data))
        reason = HOLDS_A_SECRET if secret else self._inspector.check(piece)
        if reason:
            self._refuse(piece, piece.names, made, Verdict.REBUILT, reason)
            return
        component = self._write(piece, made)
        for name, value in zip(piece.names, piece.values, strict=True):
            made.variables[name] = self._record(name, value, component)
        self._refuse(piece, unwanted, made, Verdict.LOST, NOT_IN_OUTPUTS)
        self._baseline.keep_group(piece)

    def _refuse(
        self, piece: Piece, names: Collection[str], made: Made, verdict: Verdict, reason: str
    ) -> None:
        for name, value in zip(piece.names, piece.values, strict=True):
            if name in names:
                record = self._record(name, value)
                masked = self._scanner.mask(reason) or HOLDS_A_SECRET
                shown = "" if HOLDS_A_SECRET in masked else record.preview
                made.variables[name] = msgspec.structs.replace(
                    record, verdict=verdict, reason=masked, preview=shown
                )
                self._baseline.drop_group(name)

    def _is_full(self) -> bool:
        return self._room is not None and self._room <= 0

    def _is_stored(self, piece: Piece, made: Made) -> bool:
        """Whether the same content was written for these names before."""
        if self._baseline.groups.get(piece.group) != piece.content:
            return False
        for name in piece.names:
            record = made.before.get(name)
            if record is None:
                return False
            if record.verdict is not Verdict.STORED and name in made.written:
                return False
        return True

    def _write(self, piece: Piece, made: Made) -> Component:
        refs = self._objects.put_all(piece.data)
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
            uses=tuple(sorted(set(piece.keys) - set(piece.definitions))),
            modules=self._inspector.own_modules(piece),
        )
        made.components[ident] = component
        for file in (file for ref in refs for file in ref.parts or (ref,)):
            if file.digest not in self._digests:
                self._digests.add(file.digest)
                made.size += file.stored
                if self._room is not None:
                    self._room -= file.stored
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
