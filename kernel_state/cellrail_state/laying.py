"""What a kept job leaves on a namespace that is not the one it was made on. Pure.

Of a kept job come the values of the names that it wrote, and of those that it bound without
changing them; names that its record merely regrouped come only where they are what they were.
Definitions of the kept job stand beside those that are there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from .model import Checkpoint, Component, Delta, ObjectRef, Variable

__all__ = ["is_same_record", "laid"]


def is_same_record(a: Variable | None, b: Variable | None) -> bool:
    """Whether two records promise the very same value."""
    if a is None or b is None:
        return a is b
    return a.component == b.component and a.verdict == b.verdict and a.type == b.type


def laid(
    now: Checkpoint,
    before: Checkpoint,
    delta: Delta,
    *,
    bound: Collection[str] = (),
    ambient: ObjectRef | None = None,
) -> Delta:
    """The delta of a kept job here; the very delta where it was made on what is here.

    Args:
        now: the namespace that the job is laid over.
        before: the one that it was made on.
        delta: what it changed there.
        bound: names that its code binds in any case, whatever they held before.
        ambient: the ambient state after it here, where that is not the one it left there.
    """
    after = before.after(delta)
    here, old, new = now.variables, before.variables, after.variables
    same = {name for name in delta.variables if is_same_record(here.get(name), old.get(name))}
    names = {*delta.written, *bound} | same
    variables = {
        name: new[name]
        for name in sorted(names & new.keys())
        if name in delta.variables or not is_same_record(here.get(name), new[name])
    }
    deleted = tuple(sorted(name for name in names - new.keys() if name in here))
    components = _components(now, after, delta, variables.values())
    ours, theirs = _definitions(now), _definitions(before)
    made = msgspec.structs.replace(
        delta,
        components=components,
        variables=variables,
        deleted=deleted,
        written=tuple(sorted({*delta.written, *(n for n in bound if n in variables)})),
        ambient=ambient or delta.ambient,
        beside=ours != theirs and any(c.definitions for c in components.values()),
    )
    return delta if made == delta else made


def _components(
    now: Checkpoint, after: Checkpoint, delta: Delta, variables: Iterable[Variable]
) -> dict[str, Component]:
    """The components of these variables, and the definitions that they need."""
    wanted = [v.component for v in variables if v.component is not None]
    found = {ident: after.components[ident] for ident in dict.fromkeys(wanted)}
    found |= {ident: c for ident, c in delta.components.items() if c.definitions}
    there = {key for c in (*now.components.values(), *found.values()) for key in c.definitions}
    missing = {key for c in found.values() for key in c.uses} - there
    for ident, component in after.components.items():
        if missing & set(component.definitions):
            found[ident] = component
    # in the order of the delta, which may be the very same
    order = [*delta.components, *found]
    return {ident: found[ident] for ident in dict.fromkeys(order) if ident in found}


def _definitions(checkpoint: Checkpoint) -> set[str]:
    return {ident for ident, c in checkpoint.components.items() if c.definitions}
