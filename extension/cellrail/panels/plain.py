"""Panels where no front end shows widgets: a table as text and as HTML. The one place that escapes.

The widgets need none of it: they get data, and their script makes text of it (`js/shared.js`).
"""

from __future__ import annotations

import html
import sys
from collections.abc import Callable
from typing import Any

import msgspec


def escape(value: object) -> str:
    """A value as HTML text, whatever it holds."""
    return html.escape(str(value), quote=True)


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of text under headings."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...] = ()
    #: what is said instead of rows
    empty: str = "nothing yet"

    def text(self) -> str:
        """As aligned columns."""
        if not self.rows:
            return f"{self.title}: {self.empty}"
        lines = [self.headings, *(tuple(_line(cell) for cell in row) for row in self.rows)]
        widths = [max(len(line[place]) for line in lines) for place in range(len(self.headings))]
        return "\n".join(
            [self.title, *("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)]
        )

    def html(self) -> str:
        """As a table."""
        head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in self.headings)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self.rows
        )
        if not self.rows:
            body = f'<tr><td colspan="{len(self.headings)}">{escape(self.empty)}</td></tr>'
        return (
            f"<table><caption>{escape(self.title)}</caption><thead><tr>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table>"
        )


def _line(cell: str) -> str:
    """A cell in one line, without what moves a terminal's cursor."""
    return "".join(c if c.isprintable() else " " for c in cell)


class Plain:
    """What stands for a panel without a front end; the table is made when it is shown."""

    def __init__(self, title: str, make: Callable[[], Table], *, hint: str = "") -> None:
        """Know what to show.

        Args:
            title: names the panel.
            make: makes the table.
            hint: why there is no panel, where there could be one.
        """
        self.title = title
        self._make, self._hint = make, hint
        #: what is chosen; there is nothing to choose with
        self.value = ""

    @staticmethod
    def has_front_end() -> bool:
        """Whether a person looks at what is displayed."""
        from cellrail.run.frontend import has_person

        # outside of IPython nobody has imported it
        module = sys.modules.get("IPython")
        shell: Any = module.get_ipython() if module is not None else None
        return getattr(shell, "kernel", None) is not None and has_person(shell)

    def table(self) -> Table:
        """The table as it is now; one that says why, where there is none."""
        from cellrail.errors import CellrailError
        from cellrail_state.errors import StateError

        try:
            return self._make()
        except (CellrailError, StateError) as error:
            hint = f" ({error.hint})" if error.hint else ""
            return Table(title=self.title, headings=("",), empty=f"{error}{hint}")

    def text(self) -> str:
        """For terminals."""
        return self.table().text() + (f"\n{self._hint}" if self._hint else "")

    def html(self) -> str:
        """For what shows HTML, but no widgets."""
        hint = f"<p>{escape(self._hint)}</p>" if self._hint else ""
        return self.table().html() + hint

    def _repr_html_(self) -> str:
        return self.html()

    def __repr__(self) -> str:
        return self.text()

    def close(self) -> None:
        """Nothing has to be taken away."""
