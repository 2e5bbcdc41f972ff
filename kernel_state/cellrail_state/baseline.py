"""What is remembered of a namespace from one capture to the next, and told apart from what is now.

* An `Entry` of each name: the object that it held (by address, so that nothing is kept alive) and a
  digest of its content. Of what is small and immutable, and of flat containers, it tells at a
  glance that nothing changed.
* The *groups*: which names share objects, with the digest of their joint stream. A group is a
  component as it was written or restored.
* The *bodies* of functions and classes: digests of all that they reach.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

from .fresh import Fresh
from .piece import Piece
from .sharing import are_flat, is_as_in, is_still, items_of, snapshot
from .slabs import Slabs


@dataclass(slots=True)
class Entry:
    """What is remembered of a name until the next capture."""

    #: the object itself, where it is small and immutable
    root: Any
    still: bool
    ident: int
    ref: weakref.ref[Any] | None
    content: bytes | None
    keys: tuple[str, ...]
    error: str | None
    #: what a flat container held
    flat: Any = None
    #: a long flat container as it was cut, so that its slabs need not be pickled again
    slabs: Slabs | None = None
    #: it is a function or class of the notebook
    defines: bool = False
    #: something of matplotlib is in it
    drawn: bool = False
    #: there were NaNs in its stream
    nans: bool = False
    #: it was loaded and not pickled since: the content is that of the stored stream
    fresh: Fresh | None = None
    #: whether what a container held is flat was not looked at yet
    unsure: bool = False

    @staticmethod
    def of(piece: Piece) -> Entry:
        """What to remember of a piece."""
        value = piece.values[0]
        still = piece.error is None and is_still(value)
        ref = None
        if not still:
            try:
                ref = weakref.ref(value)
            except TypeError:  # a list: its address has to do
                ref = None
        return Entry(
            root=value if still else None,
            still=still,
            ident=id(value),
            ref=ref,
            content=piece.content if piece.error is None else None,
            keys=piece.keys,
            error=piece.error,
            flat=_flat(piece) if piece.error is None and not still else None,
            slabs=piece.slabs.kept if piece.error is None and piece.slabs is not None else None,
            defines=bool(piece.body_key),
            drawn=piece.draws,
            nans=piece.nans,
        )

    @staticmethod
    def of_flat(value: object, kept: object) -> Entry:
        """What to remember of a flat container that was not pickled."""
        return Entry(
            root=None, still=False, ident=id(value), ref=None, content=None, keys=(), error=None,
            flat=kept,
        )  # fmt: skip

    @staticmethod
    def of_fresh(value: object, fresh: Fresh) -> Entry:
        """What to remember of a plain value that was just loaded."""
        kept = items_of(value) if fresh.builtin else None
        try:
            ref = weakref.ref(value)
        except TypeError:
            ref = None
        return Entry(
            root=None, still=False, ident=id(value), ref=ref, content=fresh.content,
            keys=fresh.keys, error=None, flat=kept, fresh=fresh, unsure=kept is not None,
        )  # fmt: skip

    def is_object(self, value: object) -> bool:
        """Whether this is the object that the name held before, as far as can be told."""
        if self.ident != id(value):
            return False
        return self.ref is None or self.ref() is value

    def is_settled(self, value: object) -> bool:
        """Whether the name holds the same value as before, as far as can be told at a glance."""
        if self.still:
            return self.root is value
        if self.unsure:
            self.unsure = False
            self.flat = self.flat if all(map(are_flat, self.flat)) else None
        return self.flat is not None and self.ident == id(value) and is_as_in(value, self.flat)

    def same(self, piece: Piece) -> bool:
        """Whether the name still holds the same object with the same content."""
        value = piece.values[0]
        if not self.is_object(value):
            return False
        return self.content == (piece.content if piece.error is None else None)


def _flat(piece: Piece) -> Any:
    """What a flat container held."""
    return snapshot(piece.values[0]) if piece.slabs is None else piece.slabs.columns


class Baseline:
    """The namespace as the last capture, or a restore, left it."""

    def __init__(self) -> None:
        #: by name
        self.entries: dict[str, Entry] = {}
        #: digest of the joint stream by the names in it
        self.groups: dict[tuple[str, ...], bytes] = {}
        #: the group of each name
        self.group_of: dict[str, tuple[str, ...]] = {}
        #: digest by key of the function or class
        self.bodies: dict[str, bytes] = {}

    def clear(self) -> None:
        """Remember nothing."""
        self.entries, self.groups, self.group_of, self.bodies = {}, {}, {}, {}

    def forget(self, name: str) -> None:
        """The name is gone."""
        del self.entries[name]
        self.drop_group(name)

    def keep_group(self, piece: Piece) -> None:
        """These names are a component with this content."""
        self.set_group(piece.group, piece.content)

    def set_group(self, group: tuple[str, ...], content: bytes) -> None:
        """The members of a group are a component with this content."""
        for name in group:
            self.drop_group(name)
        self.groups[group] = content
        for name in group:
            self.group_of[name] = group

    def drop_group(self, name: str) -> None:
        """The component that the name was in is no longer what the names hold."""
        group = self.group_of.pop(name, None)
        if group is not None:
            self.groups.pop(group, None)
