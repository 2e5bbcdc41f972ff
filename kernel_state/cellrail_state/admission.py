"""Makes restored values the state that the next capture is compared with.

Each value is pickled once, as a capture would, so that the next one finds it unchanged. Long flat
containers that stand alone are not: their items are kept instead, and tell a change as well. Nor
are plain values that were just loaded: their stored bytes are known (see `fresh`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .baseline import Entry
from .fresh import Fresh
from .looking import Looker
from .model import Checkpoint, Component
from .pieces import Pieces
from .sharing import snapshot


def admit(
    looker: Looker,
    current: Checkpoint,
    values: Mapping[str, object],
    fresh: Fresh | None = None,
) -> None:
    """Remember restored values as they are.

    Args:
        looker: pickles them; its baseline learns of them.
        current: the checkpoint that they were restored from.
        values: what was restored, by name; whole components, and names of the checkpoint only.
        fresh: what its load told of it, where it is one plain value that nobody used since.
    """
    baseline = looker.baseline
    with looker.pieces() as pieces:
        for name, value in values.items():
            if fresh is not None and _are_stored(fresh.keys, current):
                baseline.entries[name] = Entry.of_fresh(value, fresh)
                baseline.set_group((name,), fresh.content)
                continue
            kept = snapshot(value) if _stands_alone(name, current) else None
            if kept is None or isinstance(kept, bytes):
                pieces.add(name, value)
            else:  # it is long: what tells a change is enough
                baseline.entries[name] = Entry.of_flat(value, kept)
        holders = [c for c in current.components.values() if c.definitions]
        leads = fresh is not None and bool(fresh.keys)
        if leads or any(piece.keys for piece in pieces.all.values()):
            pieces.define([key for component in holders for key in component.definitions])
        for name, piece in pieces.all.items():
            baseline.entries[name] = Entry.of(piece)
        for component in current.components.values():
            if all(_is_held(name, component, current, pieces) for name in component.variables):
                _keep(component, pieces, looker)
        baseline.bodies |= pieces.bodies()


def _are_stored(keys: Collection[str], current: Checkpoint) -> bool:
    stored = {key for c in current.components.values() for key in c.definitions}
    return stored.issuperset(keys)


def _stands_alone(name: str, current: Checkpoint) -> bool:
    component = current.components.get(current.variables[name].component or "")
    return component is not None and component.names == (name,) and not component.definitions


def _is_held(name: str, component: Component, current: Checkpoint, pieces: Pieces) -> bool:
    variable, piece = current.variables.get(name), pieces.all.get(name)
    if variable is None or piece is None:
        return False
    return variable.component == component.id and piece.error is None


def _keep(component: Component, pieces: Pieces, looker: Looker) -> None:
    """What a component's names held when they were restored."""
    if component.definitions:
        keys = {key for piece in pieces.all.values() for key in piece.keys}
        if pieces.defined is None or not keys <= {*component.definitions}:
            return
    piece = pieces.joint(component.variables, component.definitions)
    if piece.error is None:
        looker.baseline.keep_group(piece)
