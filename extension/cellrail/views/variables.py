"""What is seen of a variable as it stood right after a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cellrail_state.model import Checkpoint, Variable, Verdict, to_plain
from cellrail_state.tables import Table, facts

#: loads variables of a checkpoint
Loader = Callable[[Checkpoint, list[str]], dict[str, Any]]


class VariableView:
    """A variable as it stood right after a step."""

    def __init__(self, variable: Variable, checkpoint: Checkpoint, load: Loader) -> None:
        self.record = variable
        self._checkpoint = checkpoint
        self._load = load

    @property
    def name(self) -> str:
        """The variable's name."""
        return self.record.name

    @property
    def verdict(self) -> Verdict:
        """`stored`, `rebuilt` or `lost`."""
        return self.record.verdict

    def load(self) -> object:
        """The value, as a new object in this process.

        Raises:
            CannotRestore: it is not stored, or does not load here.
            Untrusted: the store was signed by somebody else.
        """
        return self._load(self._checkpoint, [self.record.name])[self.record.name]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        plain: dict[str, Any] = to_plain(self.record)
        return {
            "name": plain["name"],
            "verdict": plain["verdict"],
            "reason": plain.get("reason", ""),
            "type": plain.get("type", ""),
            "bytes": plain.get("size", 0),
            "preview": plain.get("preview", ""),
            "not_covered": plain.get("not_covered", ""),
        }

    def __repr__(self) -> str:
        record = self.record
        told = record.preview or record.type
        return f"<variable {record.name} ({record.verdict}): {told}>"

    def _repr_html_(self) -> str:
        record = self.record
        known = {
            "type": record.type, "bytes": f"{record.size:,}", "verdict": _verdict(record),
            "value": record.preview,
        }  # fmt: skip
        return facts(f"variable {record.name}", known).html()


class Variables(Mapping[str, VariableView]):
    """The variables right after a step, by name."""

    def __init__(self, checkpoint: Checkpoint, load: Loader) -> None:
        self._checkpoint = checkpoint
        self._load = load

    def __getitem__(self, name: str) -> VariableView:
        variable = self._checkpoint.variables[name]
        return VariableView(variable, self._checkpoint, self._load)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._checkpoint.variables))

    def __len__(self) -> int:
        return len(self._checkpoint.variables)

    def __repr__(self) -> str:
        return f"<variables {', '.join(self)}>"

    def _repr_html_(self) -> str:
        records = [self[name].record for name in self]
        rows = tuple((r.name, r.type, f"{r.size:,}", _verdict(r), r.preview) for r in records)
        headings = ("variable", "type", "bytes", "verdict", "value")
        return Table(title="variables", headings=headings, rows=rows, empty="none").html()


def _verdict(record: Variable) -> str:
    return f"{record.verdict}: {record.reason}" if record.reason else str(record.verdict)


def is_of_a_library(variable: Variable) -> bool:
    """Whether a name held a module, or a class that the notebook did not make."""
    kind, _, where = variable.preview.partition(" ")
    return variable.type == "module" or (kind == "class" and "." in where)
