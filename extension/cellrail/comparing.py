"""Two runs side by side: `diff`.

Steps are matched by name, then cell id, then place. Outputs are compared as nbformat outputs
without execution counts, memory addresses (`<object at 0x7f…>`) and the ids that scikit-learn
numbers its diagrams with; variables by the content address of what is stored, and where that
differs by value: equal values pickle to different bytes when, say, equal strings are one object
or two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from cellrail_state.equality import differs
from cellrail_state.history import RunHistory
from cellrail_state.model import Checkpoint, Variable
from cellrail_state.namespace import WARNED
from cellrail_state.steps import StepState
from cellrail_state.tables import Shown, Table

_VOLATILE = ("execution_count",)
#: what differs from process to process: addresses (scikit-learn shortens them), ids, folders
_ADDRESS = re.compile(
    r"(?:\b0|\.\.\.)x(?:[0-9a-fA-F]{6,16}\b|[0-9a-fA-F]+\.\.\.)"
    r"|(?<=sk-container-id-)\d+|(?<=sk-estimator-id-)\d+|(?<=ipykernel_)\d+"
)


class StepDifference(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """How one step differs between two runs."""

    step: str
    #: in both runs, only in the first ("a"), only in the second ("b")
    where: str = "both"
    status: tuple[str, str] = ("", "")
    seconds: tuple[float | None, float | None] = (None, None)
    outputs_equal: bool = True
    source_equal: bool = True
    #: names whose values differ, with what each run holds
    variables: dict[str, tuple[str, str]] = {}

    @property
    def equal(self) -> bool:
        """Whether nothing but timings differs."""
        return (
            self.where == "both"
            and self.outputs_equal
            and not self.variables
            and _ended_alike(self.status)
        )

    @property
    def told(self) -> str:
        """What differs, in words."""
        if self.where != "both":
            return f"only in run {self.where}"
        told = [] if _ended_alike(self.status) else [f"status {' / '.join(self.status)}"]
        if not self.outputs_equal:
            told.append("outputs differ")
        return "; ".join([*told, *(f"{n}: {a} / {b}" for n, (a, b) in self.variables.items())])


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """How two runs differ."""

    run_a: str
    run_b: str
    steps: tuple[StepDifference, ...]

    @property
    def equal(self) -> bool:
        """Whether outputs, variables and endings are the same."""
        return all(step.equal for step in self.steps)

    def __repr__(self) -> str:
        found = [step.step for step in self.steps if not step.equal]
        told = f"{', '.join(found)} differ{'s' * (len(found) == 1)}" if found else "the same"
        return f"<{self.run_a} and {self.run_b}: {told}>"

    def _repr_html_(self) -> str:
        rows = tuple(
            (
                step.step,
                "the same" if step.equal else "differs",
                " / ".join(step.status),
                ", ".join(step.variables),
            )
            for step in self.steps
        )
        headings = ("step", "outputs and variables", "status", "variables that differ")
        return Table(title=f"{self.run_a} and {self.run_b}", headings=headings, rows=rows).html()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        steps = [{**msgspec.to_builtins(step), "equal": step.equal} for step in self.steps]
        return {"run_a": self.run_a, "run_b": self.run_b, "equal": self.equal, "steps": steps}


#: loads variables of a checkpoint of a run
Load = Callable[[str, Checkpoint, list[str]], dict[str, Any]]


def compare(a: RunHistory, b: RunHistory, load: Load) -> Diff:
    """Compare two runs step by step.

    Args:
        a: the first run.
        b: the second run.
        load: loads variables; asked only where stored bytes differ.
    """
    values = _Values(a.run_id, b.run_id, load)
    rest = {_key(state): state for state in b.states}
    steps = []
    for state in a.states:
        other = rest.pop(_key(state), None)
        if other is None:
            steps.append(StepDifference(step=state.info.label, where="a"))
        else:
            steps.append(_compare_step(a, state, b, other, values))
    steps += [StepDifference(step=state.info.label, where="b") for state in rest.values()]
    return Diff(run_a=a.run_id, run_b=b.run_id, steps=tuple(steps))


def _key(state: StepState) -> str:
    return state.info.name or state.info.cell_id or f"#{state.info.number}"


def _compare_step(
    a: RunHistory, state: StepState, b: RunHistory, other: StepState, values: _Values
) -> StepDifference:
    return StepDifference(
        step=state.info.label,
        status=(_status(state), _status(other)),
        seconds=(a.seconds_of(state.info.number), b.seconds_of(other.info.number)),
        outputs_equal=_outputs(a, state) == _outputs(b, other),
        source_equal=_source(a, state) == _source(b, other),
        variables=values.differing(_after(a, state), _after(b, other)),
    )


def _source(history: RunHistory, state: StepState) -> str:
    """Digest of the code that made what a step left."""
    if state.job is None:
        return state.info.source_hash
    return history.made_with(state.info.number, state.job).source_hash


def _status(state: StepState) -> str:
    """A step's status; of a kept step that failed, and the flow went on, that one."""
    failed = state.job is not None and state.job.accepted
    return "failed" if failed else str(state.status)


def _ended_alike(status: tuple[str, str]) -> bool:
    """A kept step ended well, as a successful one did."""
    a, b = ("success" if word == "kept" else word for word in status)
    return a == b


def _outputs(history: RunHistory, state: StepState) -> list[dict[str, Any]]:
    if state.job is None:
        return []
    return [
        {key: readable(value) for key, value in output.items() if key not in _VOLATILE}
        for output in history.step_outputs(state.info.number)
    ]


def readable(value: Any) -> Any:
    """An output's part without addresses."""
    if isinstance(value, str):
        return _ADDRESS.sub("…", value)
    if isinstance(value, Mapping):
        return {key: readable(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [readable(part) for part in value]
    return value


def _after(history: RunHistory, state: StepState) -> Checkpoint:
    if state.job is None:
        return Checkpoint()
    return history.checkpoint_after(state.info.number)


class _Values:
    """Compares variables of two runs; each pair of components is looked at once."""

    def __init__(self, run_a: str, run_b: str, load: Load) -> None:
        self._runs = run_a, run_b
        self._load = load
        self._known: dict[tuple[str, str, str], bool] = {}

    def differing(self, a: Checkpoint, b: Checkpoint) -> dict[str, tuple[str, str]]:
        """Names whose values differ, with what each run holds."""
        found = {}
        for name in sorted((set(a.variables) | set(b.variables)) - {WARNED}):
            left, right = a.variables.get(name), b.variables.get(name)
            if not self._equal(name, a, left, b, right):
                found[name] = (_told(left), _told(right))
        return found

    def _equal(
        self, name: str, a: Checkpoint, left: Variable | None, b: Checkpoint, right: Variable | None
    ) -> bool:
        if left is None or right is None:
            return False
        if left.component is None or right.component is None:
            return left.verdict == right.verdict and left.type == right.type
        if left.component == right.component:
            return True
        key = (name, left.component, right.component)
        if key not in self._known:
            self._compare(a, left.component, b, right.component)
        return self._known[key]

    def _compare(self, a: Checkpoint, left: str, b: Checkpoint, right: str) -> None:
        """Load both components and compare what they have in common."""
        names = sorted(set(a.components[left].names) & set(b.components[right].names))
        names = [n for n in names if n in a.variables and n in b.variables]
        mine = [n for n in names if a.variables[n].component == left]
        mine = [n for n in mine if b.variables[n].component == right]
        x = self._load(self._runs[0], a, mine)
        y = self._load(self._runs[1], b, mine)
        for name in mine:
            self._known[name, left, right] = not differs(x[name], y[name])


def _told(variable: Variable | None) -> str:
    if variable is None:
        return "absent"
    return f"{variable.type} {variable.preview}".strip() or str(variable.verdict)
