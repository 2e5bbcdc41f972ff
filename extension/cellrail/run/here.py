"""A restart in the live kernel: the namespace goes back to a moment; nothing of it is committed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from cellrail.errors import RestartRefused
from cellrail.notebook.model import Flow, Step
from cellrail.notebook.plan import Fate, Plan
from cellrail.run import shellspace
from cellrail.run.again import answered
from cellrail.run.desk import Desk
from cellrail.run.putback import PutBack
from cellrail.run.shellstate import ShellState
from cellrail.run.together import tied_to
from cellrail_state.definitions import is_definition
from cellrail_state.model import Checkpoint, to_plain


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """A live kernel as it was."""

    checkpoint: Checkpoint
    execution_count: int
    #: what no checkpoint brings back, what shares objects with that, and definitions
    held: dict[str, Any]


class _Local:
    """Carries a put-back's orders out in this very kernel.

    Numbers of cells never go back in an open notebook: a person sees them, and IPython's history
    keeps each only once.
    """

    def __init__(self, state: ShellState, execution_count: int) -> None:
        self._state = state
        self._execution_count = execution_count

    def command(self, order: dict[str, Any]) -> dict[str, Any]:
        """Do it now."""
        return self._state.carry_out(
            {**order, "inputs": {}, "execution_count": self._execution_count}
        )


def moment(shell: Any, state: ShellState) -> Moment:
    """Checkpoint the present namespace, so that `undo` can bring it back."""
    delta = state.delta()
    if delta.failure:
        raise RestartRefused(
            f"the present namespace cannot be checkpointed: {delta.failure}",
            hint="a restart here could not be undone",
        )
    roots = shellspace.capture_roots(shell)
    unstored = _unstored(state.current)
    tied = tied_to(roots, unstored, roots.keys() - unstored)
    held = {
        name: value
        for name, value in roots.items()
        if name in unstored or name in tied or is_definition(value)
    }
    return Moment(checkpoint=state.current, execution_count=int(shell.execution_count), held=held)


def _unstored(checkpoint: Checkpoint) -> set[str]:
    return {name for name, variable in checkpoint.variables.items() if variable.component is None}


def go_back(shell: Any, state: ShellState, then: Moment, *, execution_count: int) -> list[str]:
    """Bring a moment back, but for the number of the next cell.

    Returns:
        What could not be brought back as it was, in words.
    """
    local = _Local(state, execution_count)
    checkpoint = to_plain(then.checkpoint)
    shellspace.place(shell, then.held)
    kept = sorted(_unstored(then.checkpoint) & then.held.keys())
    order = {"command": "restore", "checkpoint": checkpoint, "keep": kept, "magics": []}
    answer = local.command({**order, "ran": checkpoint})
    local.command({"command": "finish", "checkpoint": checkpoint})
    remarks: list[str] = answer["warnings"]
    return remarks


def restart_here(
    state: ShellState,
    putback: PutBack,
    *,
    flow: Flow,
    execution_count: int,
    run_cell: Callable[[str], bool],
    desk: Desk | None,
    keyed: Callable[[str], str],
) -> None:
    """Put the namespace before the cut back in this kernel.

    Args:
        state: this kernel's captures.
        putback: what to do.
        flow: the notebook's steps.
        execution_count: the number of the next cell.
        run_cell: executes a cell's source; whether it ended well.
        desk: answers what cells ask; None where nothing is recorded.
        keyed: a key of a loop's item as records have it.

    Raises:
        RestartRefused: a cell that had to run again failed.
    """
    local = _Local(state, execution_count)
    steps = {step.number: step for step in flow.steps}
    for segment in putback.segments:
        state.turns.perform(putback.before(local, segment))
        step = steps[segment.planned.number]
        # a job that is made again is one turn of its loop, and one attempt
        again = segment.planned.fate is Fate.REBUILDS
        source = _plain(step) if again else step.source
        with contextlib.ExitStack() as stack:
            if again and desk is not None:
                stack.enter_context(answered(desk, segment, step))
            ended_well = run_cell(source)
        if not ended_well and not segment.failed:
            raise RestartRefused(
                f"step {segment.planned.label!r} had to run again, and failed",
                hint="%flow undo brings the namespace back as it was",
            )
        putback.after(segment)
    putback.finish(local, keyed=keyed)


def _plain(step: Step) -> str:
    """A step's code, as a cell that is no step."""
    # a step's line may be a comment: only as a cell's first line it means anything
    return f"pass\n{step.body}" if step.body.lstrip().startswith("#") else step.body


def cells_to_run(plan: Plan, flow: Flow) -> list[Step]:
    """The steps from the cut on."""
    steps = {step.number: step for step in flow.steps}
    return [
        steps[planned.number]
        for planned in plan.steps
        # a cell of `%flow` lines would begin another restart
        if planned.fate is Fate.EXECUTES and not steps[planned.number].only_looks
    ]


def load_into(
    shell: Any, values: Mapping[str, Any], *, rename: str | None = None
) -> tuple[str, ...]:
    """Bring past values into the namespace; nothing is overwritten.

    Args:
        shell: the IPython shell.
        values: by name.
        rename: the name that a single value gets.

    Raises:
        RestartRefused: a name is taken.
    """
    names = {name: rename if rename is not None else name for name in values}
    taken = sorted(set(names.values()) & set(shellspace.user_names(shell)))
    if taken:
        raise RestartRefused(
            f"{', '.join(taken)} would be overwritten",
            hint="bring it in under another name: --as NAME",
        )
    for name, value in values.items():
        shell.user_ns[names[name]] = value
    return tuple(names.values())
