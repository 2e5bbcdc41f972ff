"""What a plan says: the fate of each step of a run or a restart, and why. Pure.

`planner` makes plans; whoever carries one out, or shows it, reads these records.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import msgspec

from cellrail.errors import CellrailError, RestartRefused
from cellrail_state.errors import StateError
from cellrail_state.tables import Shown, Table


class Fate(StrEnum):
    """What happens to a step."""

    KEPT = "kept"
    EXECUTES = "executes"
    #: of a rerun: if what it reads comes out different
    MAY_EXECUTE = "may execute"
    #: an `--always` step before the cut
    RUNS_AGAIN = "runs again"
    #: kept, and its cell runs again for what cannot be stored
    REBUILDS = "rebuilds"
    PENDING = "pending"
    SKIPPED = "skipped"


class PlannedStep(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """One step's fate and the reason for it."""

    number: int
    label: str
    fate: Fate
    reason: str = ""
    #: seconds its last run took; of a loop its items', those only that execute again
    seconds: float | None = None
    #: label of the loop around it, whose seconds hold those of this step; "" where there is none
    within: str = ""
    #: the kept job
    job_id: str = ""
    #: names that its cell rebuilds
    names: tuple[str, ...] = ()


#: what makes a step's code run
_EXECUTES = frozenset({Fate.EXECUTES, Fate.RUNS_AGAIN, Fate.REBUILDS})


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What would happen."""

    steps: tuple[PlannedStep, ...]
    #: label of the step the cut stands before; "" for a run from the start
    cut: str = ""
    #: why the restart is refused; empty where it is not
    refusals: tuple[str, ...] = ()
    #: label of the latest step that a restart could legally begin at; "" where there is none
    earliest: str = ""
    #: whether `force` would lift the refusals
    by_force: bool = False
    warnings: tuple[str, ...] = ()
    #: the origin's number of the step at the cut, where it has one
    origin_cut: int | None = None
    #: the namespace is the one of the origin's moment, not the end of the last kept step
    as_it_was: bool = False
    #: what would do instead, where no earlier cut is named
    advice: str = ""
    #: items of a loop that were evaluated anew, by what they are: new, gone or kept
    items: dict[str, tuple[str, ...]] = {}

    def lines(self) -> list[str]:
        """The plan for people."""
        width = max([len(step.label) for step in self.steps], default=0)
        lines = []
        for step in self.steps:
            took = f" ({step.seconds:.2f} s last time)" if step.seconds is not None else ""
            why = f": {step.reason}" if step.reason else ""
            lines.append(f"{step.label.ljust(width)}  {step.fate.value}{why}{took}")
        lines += [f"items {kind}: {_few(keys)}" for kind, keys in self.items.items() if keys]
        lines += [f"warning: {warning}" for warning in self.warnings]
        lines += [f"refused: {refusal}" for refusal in self.refusals]
        if self.refusals and self.hint:
            lines.append(self.hint)
        return lines

    @property
    def executing(self) -> list[PlannedStep]:
        """The steps of which something executes."""
        return [step for step in self.steps if step.fate in _EXECUTES]

    @property
    def kept(self) -> list[PlannedStep]:
        """The steps that are kept."""
        return [step for step in self.steps if step.fate is Fate.KEPT]

    @staticmethod
    def seconds_of(steps: Sequence[PlannedStep]) -> float:
        """Seconds that steps took together last time: a loop's hold those of the steps in it."""
        labels = {step.label for step in steps}
        return sum(step.seconds or 0.0 for step in steps if step.within not in labels)

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        took = ["" if step.seconds is None else f"{step.seconds:.2f} s" for step in self.steps]
        rows = tuple(
            (step.label, step.fate.value, step.reason, seconds)
            for step, seconds in zip(self.steps, took, strict=True)
        )
        told = [*self.refusals, self.hint] if self.refusals else list(self.warnings)
        title = "; ".join(
            [f"from {self.cut}" if self.cut else "from the start", *filter(None, told)]
        )
        headings = ("step", "what happens", "why", "last time")
        return Table(title=title, headings=headings, rows=rows).html()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        told = {k: plain[k] for k in ("cut", "refusals", "earliest", "warnings", "steps")}
        return {**told, "items": plain["items"]} if self.items else told

    @property
    def hint(self) -> str:
        """What would do instead of a refused cut."""
        if self.earliest:
            return f"a restart from {self.earliest!r} would do (or --widen)"
        if self.by_force:
            return "--force cuts at that moment all the same"
        return self.advice

    def refused(self, error: CellrailError | StateError) -> Plan:
        """The plan, refused for this too."""
        refusals = tuple(dict.fromkeys((*self.refusals, str(error))))
        return msgspec.structs.replace(self, refusals=refusals, advice=self.advice or error.hint)

    def check(self) -> None:
        """Refuse what the plan refuses.

        Raises:
            RestartRefused: with every reason, and the cut that would do.
        """
        if self.refusals:
            raise RestartRefused("; ".join(self.refusals), hint=self.hint)


def _few(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - 10} more" if len(keys) > 10 else ""
    return ", ".join(keys[:10]) + more
