"""What the drivers of control flow ask of a shell, in one wording for headless and live runs.

An order is a plain dict: it travels to a kernel as it is, and `cellrail.run.turns` carries it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cellrail.notebook import actions
from cellrail.notebook.conditions import may_change
from cellrail.notebook.foreach import split
from cellrail.notebook.model import Step
from cellrail.notebook.reads import names_of
from cellrail_state.model import StepError, Turn

Order = dict[str, Any]


def ask(action: actions.Ask) -> Order:
    """Evaluate an expression, or take a loop's items."""
    step = action.step
    if action.purpose is actions.Purpose.FOREACH:
        return items(action.expression, step.options.key, root=loop_root(step, action.path))
    order = {
        "command": "evaluate",
        "source": action.expression,
        "purpose": str(action.purpose),
        "failed": action.purpose is actions.Purpose.RETRY_IF,
    }
    # behind a failed attempt the namespace is put back anyway
    if not order["failed"]:
        names = names_of(f"({action.expression})").touches
        order["watched"] = None if names is None else sorted(names)
        order["looks"] = names is not None and not may_change(action.expression)
    return order


def items(foreach: str, key: str, *, root: str) -> Order:
    """Take the items of `VARIABLE, … in EXPRESSION`."""
    target, source = split(foreach)
    return {
        "command": "items",
        "source": source,
        "target": target,
        "key": key,
        "root": root,
    }


def told(answer: Mapping[str, Any]) -> actions.Told:
    """What a shell answered to `ask`."""
    raised = answer.get("raised")
    error = msgspec.convert(raised, StepError) if raised is not None else None
    keys = tuple(answer.get("keys", ()))
    return actions.Told(value=bool(answer.get("value", keys)), keys=keys, error=error)


def enter(action: actions.Enter) -> Order | None:
    """Bind a loop's variable to its item; None where the loop has none."""
    step = action.step
    if not step.options.foreach:
        return None
    return {
        "what": "enter",
        "root": loop_root(step, action.path[:-1]),
        "index": action.path[-1].index,
        "target": split(step.options.foreach)[0],
    }


def turned(action: actions.Turned) -> Order | None:
    """Gather what a turn has made; None where nothing is collected."""
    step = action.step
    if not step.options.collect:
        return None
    return {
        "what": "turned",
        "root": loop_root(step, action.path[:-1]),
        "index": action.path[-1].index,
        "collect": list(step.options.collect),
        "missing": [*(step.options.collect if action.skipped else action.missing)],
    }


def leave(action: actions.Leave, *, count: int) -> Order:
    """Bind what a loop of so many turns has collected."""
    step = action.step
    return {
        "command": "leave",
        "root": loop_root(step, action.path),
        "collect": list(step.options.collect),
        "expects": list(action.expects),
        "count": count,
    }


def loop_root(step: Step, path: Sequence[Turn]) -> str:
    """The root of the checkpoint that holds a loop's items."""
    return root_of(step.label, path)


def root_of(label: str, path: Sequence[Turn]) -> str:
    """The same, by the loop's label."""
    return "Loop[" + "/".join([*map(str, path), label]) + "]"
