"""Records: a notebook seen as a flow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from cellrail.notebook.options import OptionError, StepOptions, parse_options
from cellrail.step_line import only_looks
from cellrail_state.model import StepInfo
from cellrail_state.tables import Shown, Table

#: the step that papermill's `parameters` and `injected-parameters` cells make together
PARAMETERS = "parameters"


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A name that the parameters cell assigns."""

    name: str
    #: its default where it is a literal (or a date), else None
    default: Any = None
    #: the default as written
    source: str = ""
    annotation: str = ""
    help: str = ""
    secret: bool = False
    #: "date", "datetime" or "timestamp" where it is typed so, else ""
    kind: str = ""


class Step(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """A code cell as a step."""

    #: place among the code cells, from 1
    number: int
    name: str = ""
    cell_id: str = ""
    #: the cell's source
    source: str = ""
    #: the code: a `%%step` line blanked
    body: str = ""
    source_hash: str = ""
    options: StepOptions = StepOptions()
    tags: tuple[str, ...] = ()
    #: names its code reads, writes (or may change) and deletes
    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()
    mutates: frozenset[str] = frozenset()
    #: free names of the functions and classes that it defines, by their name
    definitions: dict[str, frozenset[str]] = {}
    #: its code may read or write anything (`exec`, `globals`, `%run`, a star import)
    opaque: bool = False
    #: modules it imports
    imports: tuple[str, ...] = ()
    #: words of its strings, which may name variables
    mentions: frozenset[str] = frozenset()
    #: it calls what may look names up that its text does not tell
    looks_up: bool = False
    #: names that it surely binds before it uses what they held
    rebinds: frozenset[str] = frozenset()
    #: the cells it stands for, by place in the notebook
    cell_indices: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """How listings name it: its name, or `#28`."""
        return self.name or f"#{self.number}"

    @property
    def only_looks(self) -> bool:
        """Whether it holds nothing but `%flow` lines: an open notebook does not record it."""
        return only_looks(self.source)

    @property
    def touches(self) -> frozenset[str] | None:
        """Names that its code uses when it runs, in strings that may be code, too; None for any."""
        if self.opaque or self.name == PARAMETERS:
            return None
        return self.reads | self.writes | self.mentions

    @property
    def needs(self) -> frozenset[str] | None:
        """Names that have to be there when it runs, and words that may be names."""
        touched = self.touches
        if touched is None or self.looks_up:
            return None
        return touched.union(*self.definitions.values())

    @property
    def skips(self) -> bool:
        """Whether it is never executed (`skip-execution`)."""
        return "skip-execution" in self.tags

    @property
    def may_fail(self) -> bool:
        """Whether the flow tolerates its failure (`raises-exception`)."""
        return "raises-exception" in self.tags

    def __repr__(self) -> str:
        return f"<step {self.label}>"


def handles_failures(info: StepInfo) -> bool:
    """Whether a step of a run had `--on-failure`."""
    if "--on-failure" not in info.options:
        return False
    try:
        return parse_options(info.options).on_failure
    except OptionError:  # another version wrote it
        return False


class Flow(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """A notebook as an ordered list of steps."""

    path: Path
    steps: tuple[Step, ...]
    kernel_name: str = ""
    language: str = ""
    parameters: tuple[Parameter, ...] = ()
    #: a folder that holds its local modules as they were; None for its own
    modules: Path | None = None

    @property
    def module_folder(self) -> Path:
        """Where its local modules are read."""
        return self.modules if self.modules is not None else self.path.parent

    def __repr__(self) -> str:
        return self._table().text()

    def _repr_html_(self) -> str:
        return self._table().html()

    def _table(self) -> Table:
        rows = tuple(
            (
                f"#{step.number}", step.name, str(step.options),
                ", ".join(sorted(step.reads)), ", ".join(sorted(step.writes)),
            )
            for step in self.steps
        )  # fmt: skip
        headings = ("step", "name", "options", "reads", "writes")
        return Table(title=f"steps of {self.path}", headings=headings, rows=rows)
