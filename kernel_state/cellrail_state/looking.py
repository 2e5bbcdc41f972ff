"""Looks at a namespace for one capture: pickles what can have changed, and tells what did.

`Attention` says which names the code can have changed; only these are looked at, by an audit
everything. What was pickled is compared with the `Baseline`, in two steps: other bytes than before
mean that a name *changed* (`changed`); of names that no code can have changed, only those whose
values differ are *missed* (`missed`), because some values pickle to other bytes each time.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from .attention import Attention, leads_to
from .baseline import Baseline, Entry
from .definitions import Definitions
from .fresh import Fresh
from .inspection import Inspector, Source
from .model import Checkpoint, Component
from .piece import DEFINITIONS, Piece
from .pieces import Pieces
from .reach import Reach
from .scanning import Scanner
from .sight import Sight


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a capture may cost."""

    #: bytes of one component
    max_value: int | None = None
    #: seconds of one capture
    max_seconds: float | None = None
    #: bytes that may still be written to the store; what changes once they are is not stored
    room: int | None = None


class Looker:
    """Looks at one namespace, capture after capture."""

    def __init__(
        self,
        definitions: Definitions,
        baseline: Baseline,
        *,
        objects: Source,
        inspector: Inspector,
        scanner: Scanner,
        limits: Limits,
    ) -> None:
        """Prepare to look.

        Args:
            definitions: the functions and classes of the notebook, by key.
            baseline: what is remembered of the namespace.
            objects: where stored values are read for comparison.
            inspector: compares a value with its stored copy.
            scanner: finds secrets.
            limits: what a capture may cost.
        """
        self.baseline = baseline
        #: definitions that are written though nothing in the namespace leads to them: values that
        #: need them wait to be restored
        self.pinned: dict[str, Any] = {}
        self.reach = Reach(definitions)
        self._definitions, self._objects, self._inspector = definitions, objects, inspector
        self._scanner, self._limits = scanner, limits
        self._drawing = False

    @contextlib.contextmanager
    def pieces(self) -> Iterator[Pieces]:
        """Nothing pickled yet; what is pickled inside the block is let go of at its end."""
        deadline = None
        if self._limits.max_seconds is not None:
            deadline = time.monotonic() + self._limits.max_seconds
        pieces = Pieces(
            self._definitions,
            scanner=self._scanner,
            entries=self.baseline.entries,
            check=self._inspector.check,
            max_value=self._limits.max_value,
            deadline=deadline,
        )
        # the memos of a hundred thousand objects are no garbage
        collecting = gc.isenabled()
        gc.disable()
        try:
            yield pieces
        finally:
            pieces.close()
            if collecting:
                gc.enable()

    def look(
        self,
        pieces: Pieces,
        roots: Mapping[str, object],
        touched: Collection[str] | None,
        *,
        audit: bool = False,
    ) -> set[str]:
        """Pickle what can have changed.

        Args:
            pieces: receives it.
            roots: the namespace.
            touched: names that the code used; None where it may have used any.
            audit: pickle everything else, too.

        Returns:
            The names that the code can have changed.
        """
        drawing, self._drawing = self._drawing, _figures_are_open()
        attention = Attention(
            pieces,
            roots,
            baseline=self.baseline,
            reach=self.reach,
            drawing=drawing or self._drawing,
        )
        attention.follow(roots if touched is None else touched)
        reached = set(attention.seen)
        if audit:
            attention.look_at_all()
        if attention.needs_definitions or self.pinned:
            known = [key for entry in self.baseline.entries.values() for key in entry.keys]
            pieces.define([*self.pinned, *known])
        attention.settle()
        self._tell_fresh(pieces)
        pieces.connect()
        return reached

    def _tell_fresh(self, pieces: Pieces) -> None:
        """Of values that were not pickled since they were loaded: what they pickled to then."""
        for name, piece in pieces.all.items():
            entry = self.baseline.entries.get(name)
            if entry is None or entry.fresh is None:
                continue
            if piece.error is None and self._is_as_loaded(piece, entry, entry.fresh, pieces):
                entry.content = piece.content
                self.baseline.set_group((name,), piece.content)
            entry.fresh = None

    def _is_as_loaded(self, piece: Piece, entry: Entry, fresh: Fresh, pieces: Pieces) -> bool:
        value = piece.values[0]
        if piece.content == entry.content or not entry.is_object(value):
            return piece.content == entry.content
        if entry.is_settled(value) or entry.flat is not None:
            return entry.is_settled(value)
        doubtful = pieces.doubtful(piece)
        return self._inspector.is_as_loaded(piece, fresh.component, self._objects, doubtful)

    def leads_to(self, roots: Mapping[str, object], names: Collection[str]) -> set[str] | None:
        """The names that code which uses these can reach, as far as is known; None for any."""
        return leads_to(names, roots, baseline=self.baseline, reach=self.reach)

    def seen(self, roots: Mapping[str, object], names: Collection[str]) -> dict[str, bytes | None]:
        """What can be seen of these names now, and of the functions and classes they lead to."""
        limits = self._limits
        sight = Sight(self._definitions, max_value=limits.max_value, max_seconds=limits.max_seconds)
        found: dict[str, bytes | None] = {}
        with self.pieces() as pieces:
            for name in sorted(names):
                pieces.add(name, roots[name])
                piece = pieces.all[name]
                hidden = not (piece.content or piece.over_limit)
                found[name] = sight.of(roots[name]) if hidden else piece.content or None
            keys = {key for piece in pieces.all.values() for key in (*piece.keys, piece.body_key)}
            keys = {*keys, *sight.keys} - {""}
            defined = pieces.closure(keys)
            found[DEFINITIONS] = defined.content or sight.of_definitions(keys)
        return found

    def changed(self, pieces: Pieces) -> tuple[set[str], dict[str, bytes]]:
        """Names bound to another object, or to one that changed; the definitions' bodies now."""
        defined, before = pieces.defined, self.baseline.groups.get((DEFINITIONS,))
        same = defined is not None and defined.content == before
        bodies = pieces.bodies(self.baseline.bodies if same else None)
        if defined is None:
            bodies = {**self.baseline.bodies, **bodies}
        changed = set()
        for name, piece in pieces.all.items():
            entry, key = self.baseline.entries.get(name), piece.body_key
            other_body = bool(key) and bodies.get(key) != self.baseline.bodies.get(key)
            if entry is None or not entry.same(piece) or other_body:
                changed.add(name)
        return changed, bodies

    def missed(
        self, pieces: Pieces, names: Collection[str], current: Checkpoint
    ) -> tuple[str, ...]:
        """Of names with other bytes than before those that hold another value."""
        return tuple(
            n for n in sorted(names) if not self._is_as_before(pieces.all[n], pieces, current)
        )

    def equal(self, components: Iterable[Component], roots: Mapping[str, object]) -> set[str]:
        """Names of these components whose live values are what is stored."""
        found: set[str] = set()
        for component in components:
            names = component.variables
            if component.definitions or not roots.keys() >= {*names}:
                continue
            with self.pieces() as pieces:
                for name in names:
                    pieces.add(name, roots[name])
                piece = pieces.joint(names)
                pieces.write_out(piece)
                same = piece.error is None and piece.heads == component.names
                if same and self._inspector.is_same(piece, component, self._objects):
                    found.update(names)
        return found

    def _is_as_before(self, piece: Piece, pieces: Pieces, current: Checkpoint) -> bool:
        variable = current.variables.get(piece.names[0])
        pieces.write_out(piece)
        if variable is None or piece.error is not None:
            return variable is not None and variable.reason == piece.error
        stored = current.components.get(variable.component or "")
        return stored is not None and self._inspector.is_same(piece, stored, self._objects)


def _figures_are_open() -> bool:
    helpers = sys.modules.get("matplotlib._pylab_helpers")
    return helpers is not None and bool(helpers.Gcf.figs)
