"""A bar per run on a terminal; nothing where there is none."""

from __future__ import annotations

import sys
from typing import Any

from cellrail.cli.common import Context
from cellrail.run.session import Progress


class Bar:
    """A tqdm bar that counts steps and names the one that runs."""

    def __init__(self) -> None:
        self._bar: Any = None

    def total(self, steps: int) -> None:
        """So many steps will execute."""
        from tqdm import tqdm

        self._bar = tqdm(total=steps, unit="step", file=sys.stderr, leave=False)

    def step(self, label: str) -> None:
        """This step begins."""
        if self._bar is not None:
            self._bar.set_description(label)

    def done(self) -> None:
        """It has ended."""
        if self._bar is not None:
            self._bar.update()

    def close(self) -> None:
        """The run has ended."""
        if self._bar is not None:
            self._bar.close()


def bar(context: Context) -> Progress | None:
    """A bar where a person watches."""
    if context.quiet or context.as_json or not sys.stderr.isatty():
        return None
    return Bar()
