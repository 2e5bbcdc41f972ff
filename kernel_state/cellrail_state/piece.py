"""What pickling made of one variable, or of several together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .drawings import FIGURE
from .pickling import Pickler
from .slabs import Slabs

#: why a value is not written
HOLDS_A_SECRET = "holds a secret"  # noqa: S105 - it is what is said of a value
#: stands for the component of all definitions among the members of a group
DEFINITIONS = "\0definitions"


@dataclass(slots=True)
class Piece:
    """One variable, or the joint stream of several."""

    names: tuple[str, ...]
    values: list[Any]
    stream: bytes = b""
    buffers: list[memoryview] = field(default_factory=list)
    content: bytes = b""
    keys: tuple[str, ...] = ()
    definitions: tuple[str, ...] = ()
    kinds: Iterable[type] = ()
    modules: Iterable[str] = ()
    pickler: Pickler | None = None
    error: str | None = None
    over_limit: bool = False
    #: there are NaNs in the stream
    nans: bool = False
    #: the value, cut: it is a long flat container
    slabs: Slabs | None = None
    #: key of the definition that the variable is
    body_key: str = ""
    #: the piece of the figure that the values are parts of: they have no stream of their own
    figure: Piece | None = None

    @property
    def heads(self) -> tuple[str, ...]:
        """What stands in the stream, in order."""
        return self.names if self.figure is None else (FIGURE, *self.names)

    @property
    def group(self) -> tuple[str, ...]:
        """The members of its component."""
        return (DEFINITIONS, *self.names) if self.definitions else self.names

    @property
    def data(self) -> tuple[bytes | memoryview, ...]:
        """What is written: the stream and its buffers."""
        return (self.stream, *self.buffers)

    @property
    def draws(self) -> bool:
        """Whether something of matplotlib is in it."""
        return any(str(kind.__module__).startswith("matplotlib") for kind in self.kinds)
