"""What cells that ran again made, and the checkpoint that is laid over it.

A cell runs again for a value that cannot be stored: a generator, an object with a lock. That value
holds what the cell gave it (a list, a random generator, its class), and these came back from the
store as well: as other objects. Where the two are equal, the cell's own stay, so that the value and
the names go on sharing them. Where they are not (a later cell changed it), the stored one comes
back, and it is said that the value is cut off from it.
"""

from __future__ import annotations

import types
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from cellrail_state.capture import Capture
from cellrail_state.definitions import is_definition
from cellrail_state.model import Checkpoint
from cellrail_state.restore import Source, restore
from cellrail_state.sharing import is_still, reachable, shared_between

_FEW = 10_000


def made_again(
    ran: Checkpoint, now: Mapping[str, object], known: Mapping[str, Any], objects: Source
) -> dict[str, Any]:
    """Classes and functions that a cell has just defined again, by the keys of the stored ones.

    Args:
        ran: the checkpoint after the cell, as it ran first.
        now: the namespace after it ran again.
        known: definitions by key that came from the store: a cell did not make them.
        objects: where the bytes are.
    """
    old = {id(obj) for obj in known.values()}
    names = [
        name
        for name, value in now.items()
        if name in ran.variables and _can_stand_for_another(value) and id(value) not in old
    ]
    if not names:
        return {}
    stored: dict[str, Any] = {}
    report = restore(ran, {"__name__": "__main__"}, objects, names=names, place=stored)
    keys = {id(obj): key for key, obj in report.definitions.items()}
    return {
        keys[id(stored[name])]: now[name]
        for name in names
        if id(stored.get(name)) in keys and _are_alike(stored[name], now[name])
    }


def _can_stand_for_another(value: Any) -> bool:
    """Whether it takes on the state of the stored one: a closure has variables of its own."""
    if type(value) is types.FunctionType and value.__closure__:
        return False
    return isinstance(value, (type, types.FunctionType)) and is_definition(value)


def _are_alike(one: Any, other: Any) -> bool:
    if type(one) is not type(other) or one.__qualname__ != other.__qualname__:
        return False
    if isinstance(one, type):
        names = [base.__qualname__ for base in one.__mro__]
        return names == [base.__qualname__ for base in other.__mro__]
    return bool(one.__code__ == other.__code__)


def tied_to(
    now: Mapping[str, object], made: Collection[str], names: Iterable[str]
) -> dict[str, str]:
    """Of these names those that share an object with what was made again: with which of it."""
    within = {name: reachable([now[name]]) for name in made if name in now}
    tied: dict[str, str] = {}
    for name in names:
        if name not in now or is_still(now[name]):
            continue
        mine = reachable([now[name]], limit=_FEW)
        for other, objects in within.items():
            if shared_between(mine, objects):
                tied[name] = other
                break
    return tied


def stay(
    checkpoint: Checkpoint,
    now: Mapping[str, object],
    made: Collection[str],
    capture: Capture,
    *,
    kept: Collection[str],
) -> tuple[set[str], list[str]]:
    """Names whose objects stay where they are, and what is to be said of others.

    Args:
        checkpoint: what is about to be laid over the namespace.
        now: the namespace.
        made: names of it that cells made again, and that stay.
        capture: knows the definitions that are there.
        kept: names that stay anyhow.
    """
    stored = {n for n, v in checkpoint.variables.items() if v.component is not None} - set(kept)
    tied = tied_to(now, made, stored)
    idents = {checkpoint.variables[name].component for name in tied}
    equal = capture.equal(
        [part for ident, part in checkpoint.components.items() if ident in idents], now
    )
    cut_off = [
        f"`{other}` was made again by its cell, and is cut off from `{name}`: "
        "they shared an object, which was changed since"
        for name, other in sorted(tied.items())
        if name not in equal
    ]
    return equal, cut_off
