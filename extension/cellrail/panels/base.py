"""What a panel is made of: rooms, and the house that shows them.

A *room* is one thing that people look at: the runs, a run, a restart. It has two halves.

* In Python a `Room`: it answers what is asked of it with plain data (JSON), from an `App`, in a
  process of its own (`desk`), so that a cell that runs in the notebook's kernel is not held up and
  no checkpointed value is unpickled there. A method `ask_NAME(args)` answers `NAME`; `stamp` tells
  cheaply whether an answer that is followed may have changed.
* In the browser a plain ES function in `js/NAME.js`: `rooms.NAME = (ctx) => ({...})`. It draws with
  `ctx.h(tag, properties, ...children)`, which is the one place where text becomes a document:
  children are text, never markup, so that nothing a notebook prints or a parameter holds can inject
  anything. (HTML that a cell has displayed goes into a frame without scripts: `ctx.frame`.)

The `Panel` (`widget`) only passes messages on between the two. What is shown travels as messages
and not as the widget's state: a saved notebook holds none of it.

What is asked from the browser::

    const page = await ctx.ask("page", {limit: 50})           // once
    const stop = ctx.watch("page", {limit: 50}, draw)         // now, and whenever it changes
    await ctx.ask("restart", {...})                           // work: the room starts an errand

Work that takes time (`errand`) runs in a process that outlives the panel and the notebook.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cellrail.errors import UserError

if TYPE_CHECKING:
    from cellrail.app import App

#: what the browser sends with a question
Args = Mapping[str, Any]

_JS = Path(__file__).parent / "js"


class RoomKind(msgspec.Struct, frozen=True, kw_only=True):
    """A room that a panel may have."""

    #: its name in messages, and of its file in `js/`
    name: str
    #: what its tab says
    title: str
    #: `module:class` of its `Room`
    home: str
    #: further files in `js/` that it needs; rooms may share them
    parts: tuple[str, ...] = ()

    @property
    def scripts(self) -> tuple[str, ...]:
        """The files of its half in the browser, in their order."""
        return (*self.parts, self.name)

    def make(self, app: App) -> Room:
        """Its half in Python."""
        from importlib import import_module

        module, _, name = self.home.partition(":")
        room: Room = getattr(import_module(module), name)(app)
        return room


#: every room, in the order of the tabs
ROOMS = (
    RoomKind(name="runs", title="Runs", home="cellrail.panels.rooms.runs:RunsRoom"),
    RoomKind(
        name="run", title="Run", home="cellrail.panels.rooms.run:RunRoom",
        parts=("rails", "values", "detail"),
    ),
    RoomKind(name="restart", title="Restart", home="cellrail.panels.rooms.restart:RestartRoom"),
    RoomKind(
        name="backfill", title="Backfill", home="cellrail.panels.rooms.backfill:BackfillRoom",
        parts=("calendar",),
    ),
    RoomKind(name="waits", title="Waits", home="cellrail.panels.rooms.waits:WaitsRoom"),
    RoomKind(
        name="triggers", title="Triggers", home="cellrail.panels.rooms.triggers:TriggersRoom",
        parts=("calendar",),
    ),
    RoomKind(name="state", title="State", home="cellrail.panels.rooms.state:StateRoom"),
)  # fmt: skip
#: rooms that are a single button, for notebooks of one's own; no tabs
BUTTONS = (
    RoomKind(
        name="restart_button", title="Restart button", parts=("press",),
        home="cellrail.panels.rooms.buttons:RestartButtonRoom",
    ),
    RoomKind(
        name="backfill_button", title="Backfill button", parts=("press",),
        home="cellrail.panels.rooms.buttons:BackfillButtonRoom",
    ),
)  # fmt: skip


def kind_of(name: str) -> RoomKind:
    """The room of this name.

    Raises:
        UserError: there is none.
    """
    for kind in (*ROOMS, *BUTTONS):
        if kind.name == name:
            return kind
    known = ", ".join(kind.name for kind in ROOMS)
    raise UserError(f"there is no panel {name!r}", hint=f"there are: {known}")


class Room:
    """Answers for one room. Subclasses have `ask_NAME(args)` methods that return plain data."""

    #: questions that may take long (they load values): they do not hold up the others
    slow: frozenset[str] = frozenset()

    def __init__(self, app: App) -> None:
        """Look into a store.

        Args:
            app: the store's; this room's own.
        """
        self.app = app

    def answer(self, what: str, args: Args) -> Any:
        """Plain data that `msgspec.json` can write.

        Raises:
            CellrailError, StateError: it cannot be answered; the message is shown.
        """
        found: Callable[[Args], Any] | None = getattr(self, f"ask_{what}", None)
        if found is None:
            raise UserError(f"the panel does not know how to {what!r}")
        return found(args)

    def stamp(self, what: str, args: Args) -> Hashable:
        """Something that changes when a followed answer may have; is asked twice a second.

        By default whatever begins, ends or is written in the store's newest runs.
        """
        del what, args
        return self.pulse.beat()

    @cached_property
    def pulse(self) -> Pulse:
        """Whether anything happens in the store."""
        return Pulse(self.app)


class Pulse:
    """Tells cheaply whether anything happens in a store: few files are looked at, none is read."""

    #: so many of the newest runs are looked at
    newest = 24

    def __init__(self, app: App) -> None:
        """Know the store.

        Args:
            app: the store's.
        """
        self._app = app

    def beat(self) -> Hashable:
        """Changes when a run begins, goes on, ends or is deleted; when a schedule is changed."""
        store = self._app.store
        newest = store.newest(limit=self.newest)
        lately = tuple((run, store.journal_size(run), store.is_owned(run)) for run in newest)
        folders = ("journals", "triggers", "backfills", "claims", "renames.json")
        times = tuple(_changed(store.path / name) for name in folders)
        return lately, times

    def of_run(self, run_id: str) -> Hashable:
        """Changes when the run does."""
        store = self._app.store
        return store.journal_size(run_id), store.is_owned(run_id)


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
