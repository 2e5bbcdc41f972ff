"""`pytest --cellrail-against RUN notebooks/x.ipynb`: a notebook still does what a run of it did.

Each notebook that pytest is given is a test: it is executed from its first step with the run's
parameters, secrets and seed, and fails where outputs, variables or endings differ from the run's.
Without the option nothing of cellrail is imported.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from cellrail.comparing import Diff

_OPTION = "--cellrail-against"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    group = parser.getgroup("cellrail", "notebooks, compared with an earlier run of them")
    group.addoption(
        _OPTION, metavar="RUN",
        help="execute each notebook and compare it with this run (an id, or `last`: its last one)",
    )  # fmt: skip


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> NotebookFile | None:
    """A notebook is a file of one test."""
    if parent.config.getoption(_OPTION) is None or file_path.suffix != ".ipynb":
        return None
    return NotebookFile.from_parent(parent, path=file_path)


class Differs(Exception):
    """The notebook does something else than the run did."""

    def __init__(self, found: Diff) -> None:
        super().__init__(f"run {found.run_b} differs from run {found.run_a}")
        self.found = found


class NotebookFile(pytest.File):
    """A notebook."""

    def collect(self) -> Iterable[pytest.Item]:
        """Its one test."""
        yield NotebookItem.from_parent(self, name="against")


class NotebookItem(pytest.Item):
    """Executes a notebook and compares the runs."""

    def runtest(self) -> None:
        """Run it.

        Raises:
            Differs: they differ.
        """
        from cellrail.app import App
        from cellrail.notebook.parse import load, parse

        app, wanted = App(notebook=self.path), self.config.getoption(_OPTION)
        before = app.show(str(self.path) if wanted == "last" else wanted)
        first = parse(load(self.path), self.path).steps[0]
        run = app.restart(before.id, from_step=first.label, force=True)
        found = app.diff(before.id, run.id)
        if not found.equal:
            raise Differs(found)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """What differs, step by step."""
        if not isinstance(excinfo.value, Differs):
            return super().repr_failure(excinfo, style)
        found = excinfo.value.found
        lines = [f"  {step.step}: {step.told}" for step in found.steps if not step.equal]
        return "\n".join(
            [str(excinfo.value), *lines, f"  cellrail diff {found.run_a} {found.run_b}"]
        )

    def reportinfo(self) -> tuple[Path, None, str]:
        """What reports call it."""
        return self.path, None, f"{self.path.name} against {self.config.getoption(_OPTION)}"
