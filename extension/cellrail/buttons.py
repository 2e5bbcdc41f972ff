"""Resume and Cancel under a cell that waits: ipywidgets where a front end shows them, else a line.

Nothing of it is imported before a cell waits. What stays in the notebook is a line of text without
ids and times. Labels are shown as text, whatever they hold.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from cellrail.errors import CellrailError
from cellrail.run.jsontext import to_text, typed
from cellrail.run.waits import in_words
from cellrail_state.errors import StateError
from cellrail_state.tables import escape
from cellrail_state.waits import CANCEL, RESUME, WaitInfo

#: answers a wait (`wait, "resume" or "cancel", data=JSON text`); what came of it, in words
Press = Callable[..., str]
_HOW = "%flow resume [--data JSON] or %flow cancel here; cellrail resume RUN in a terminal"


def offer(shell: Any, info: WaitInfo, press: Press) -> Callable[[str], None]:
    """Let a person answer a wait.

    Args:
        shell: the IPython shell.
        info: the wait.
        press: answers it.

    Returns:
        Is to be told, in words, when it is over.
    """
    line = f"cellrail: {info.label} waits: {_HOW}"
    widgets = _widgets() if getattr(shell, "kernel", None) is not None else None
    if widgets is None:
        print(line)
        return lambda _: None
    made = Buttons(widgets, info, press)
    data, metadata = made.shown(line)
    shell.display_pub.publish(data=data, metadata=metadata)
    return made.over


def _widgets() -> Any:
    """ipywidgets; None where it is not installed, or is broken."""
    try:
        import ipywidgets
    except Exception:  # noqa: BLE001 - the line will do
        return None
    return ipywidgets


class Buttons:
    """A field for JSON, Resume, Cancel, and a line that says what came of them."""

    def __init__(self, widgets: Any, info: WaitInfo, press: Press) -> None:
        """Make the widgets.

        Args:
            widgets: the module `ipywidgets`.
            info: the wait.
            press: answers it.
        """
        self._info, self._press = info, press
        wide = widgets.Layout(width="24em")
        self._data = widgets.Text(
            placeholder="JSON for flow.resume_data", description="Data",
            tooltip="JSON that the next cell finds as flow.resume_data", layout=wide,
        )  # fmt: skip
        self._resume = widgets.Button(
            description="Resume", icon="play", tooltip="Let the cells behind this one run"
        )
        self._cancel = widgets.Button(
            description="Cancel", icon="stop", tooltip="Keep the cells behind this one from running"
        )
        self._said = widgets.HTML()
        self._resume.on_click(lambda _: self._answer(RESUME))
        self._cancel.on_click(lambda _: self._answer(CANCEL))
        row = widgets.HBox([self._data, self._resume, self._cancel])
        self._box = widgets.VBox([row, self._said])
        self._say(in_words(info))

    def shown(self, line: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """What is displayed, and its metadata; a front end without widgets shows the line."""
        bundle = self._box._repr_mimebundle_()
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**data, "text/plain": line}, dict(metadata)

    def over(self, words: str) -> None:
        """The wait has ended."""
        # the front end may be gone
        with contextlib.suppress(Exception):
            for part in (self._data, self._resume, self._cancel):
                part.disabled = True
            self._say(words)

    def _say(self, words: str) -> None:
        self._said.value = escape(words)

    def _answer(self, by: str) -> None:
        text = str(self._data.value).strip() if by == RESUME else ""
        try:
            data = to_text(typed(text), "the data") if text else None
            self.over(self._press(self._info, by, data=data))
        except ValueError as error:
            self._say(f'this is no JSON ({error}); a text needs quotes: "yes"')
        except (CellrailError, StateError) as error:
            self._say(f"{error}" + (f" ({error.hint})" if error.hint else ""))
