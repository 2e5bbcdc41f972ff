"""The widget: it carries messages between the browser and the process that answers (`clerk`).

Imported only where a panel is made: it needs anywidget (the extra `cellrail[panels]`).
"""

from __future__ import annotations

import contextlib
import functools
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from cellrail.panels.base import RoomKind
from cellrail.panels.clerk import Clerk
from cellrail.panels.here import between_cells, here
from cellrail.panels.plain import A_PANEL, Plain
from cellrail_state.errors import CannotStore

_JS = Path(__file__).parent / "js"


@functools.cache
def clerk_of(store: Path, keys: str) -> Clerk:
    """The one of this process for a store; panels share it."""
    return Clerk(store, keys=keys)


def script_of(kinds: Sequence[RoomKind]) -> str:
    """The browser's half of a panel with these rooms: one ES module."""
    rooms = dict.fromkeys(name for kind in kinds for name in kind.scripts)
    return "\n".join(
        (_JS / f"{name}.js").read_text("utf-8") for name in ("shared", *rooms, "house")
    )


def style_of() -> str:
    """The style of every panel."""
    return "\n".join((_JS / f"{name}.css").read_text("utf-8") for name in ("panel", "calendar"))


class Panel(anywidget.AnyWidget):
    """A panel in a notebook: one room, or several with tabs.

    `value` is what is chosen in it: a run's id, a step's address, a backfill's id. It can be read,
    set and observed::

        panel = cellrail.runs_panel()
        panel.observe(lambda change: print(change.new), "value")

    What is shown is not part of the widget's state: a saved notebook holds none of it. Where nobody
    looks (papermill, nbconvert) there is no widget at all, but what has a value and a table.
    """

    _css = style_of()

    value = traitlets.Unicode("", help="what is chosen; empty for nothing").tag(sync=True)
    #: the rooms, as `[name, title]`, and with what they open
    _rooms: Any = traitlets.List().tag(sync=True)
    _start: Any = traitlets.Dict().tag(sync=True)

    def __init__(
        self, kinds: Sequence[RoomKind], plain: Plain, *, store: Path, keys: str = "",
        start: dict[str, Any] | None = None, value: str = "", own: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Show rooms.

        Args:
            kinds: the rooms.
            plain: what is shown where there is no front end.
            store: the store's folder.
            keys: folder of the signing keys, where one was named.
            start: with what the first room opens.
            value: what is chosen at first.
            own: what its room is told with every question, and the browser never is.
        """
        self._plain, self._clerk, self._own = plain, clerk_of(store, keys), own or {}
        self._unseen = secrets.token_hex(16)
        super().__init__(
            _esm=script_of(kinds), _rooms=[[kind.name, kind.title] for kind in kinds],
            _start=start or {}, value=value,
        )  # fmt: skip
        self.on_msg(self.heard)

    def open(self) -> None:
        """Tell the front end of the widget, where somebody looks; else no notebook keeps it."""
        if self.comm is None and self._plain.has_front_end():
            super().open()
            self._clerk.open(self.model_id, self._tell)

    @property
    def model_id(self) -> str:
        """Names the widget; a box may hold one that nobody has opened."""
        return self._unseen if self.comm is None else str(super().model_id)

    def heard(self, _: Any, content: Any, buffers: Any) -> None:
        """A message from the browser: it is only handed on."""
        del buffers
        if not isinstance(content, dict):
            return
        # work takes its time; that somebody is there is told at once
        self._tell({"heard": True})
        if "here" in content:
            between_cells(lambda: self._tell({"here": here(content["here"])}))
        elif self._own and "room" in content:
            args = {**content.get("args", {}), **self._own}
            self._clerk.ask(self.model_id, {**content, "args": args})
        else:
            self._clerk.ask(self.model_id, content)

    def _tell(self, answer: dict[str, Any]) -> None:
        self.send(answer)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A window is not stored: a copy would open another one."""
        del protocol
        raise CannotStore(A_PANEL)

    def close(self) -> None:
        """Take the panel away, and the layout that ipywidgets has made for it."""
        if self.comm is not None:
            # the interpreter may be ending
            with contextlib.suppress(Exception):
                self._clerk.leave(self.model_id)
                self.layout.close()
        super().close()

    def _repr_mimebundle_(self, **named: Any) -> Any:
        """The widget where a person looks at a notebook, else a table."""
        if not self._plain.has_front_end():
            return {"text/plain": self._plain.text(), "text/html": self._plain.html()}
        self.open()
        bundle: Any = super()._repr_mimebundle_(**named)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        # what stays in a saved notebook: no ids, no times
        return {**data, "text/plain": f"{self._plain.title}: run this cell to open it"}, metadata

    def __repr__(self) -> str:
        return self._plain.text()
