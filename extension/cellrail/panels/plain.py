"""Panels where no front end shows widgets: a table as text and as HTML."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from cellrail_state.errors import CannotStore
from cellrail_state.tables import Table, escape

#: what a panel in a variable is called where it is told why it is not stored
A_PANEL = "a panel, which its cell opens again,"


class Plain:
    """What stands for a panel without a front end; the table is made when it is shown."""

    def __init__(self, title: str, make: Callable[[], Table], *, hint: str = "") -> None:
        """Know what to show.

        Args:
            title: names the panel.
            make: makes the table.
            hint: what else there is to do: why there is no panel, what to call in a terminal.
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
            return Table(title=self.title, headings=("what is wrong",), empty=f"{error}{hint}")

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

    def __reduce_ex__(self, protocol: Any) -> Any:
        """What it shows is read when it is shown."""
        del protocol
        raise CannotStore(A_PANEL)

    def close(self) -> None:
        """Nothing has to be taken away."""
