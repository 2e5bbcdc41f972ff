"""Which steps could be executed once for all ticks of a backfill. Pure."""

from __future__ import annotations

from collections.abc import Collection

from cellrail.notebook.model import PARAMETERS, Flow, Step
from cellrail.notebook.reads import lineage


def leading(flow: Flow, ticked: Collection[str]) -> tuple[list[Step], str]:
    """The steps at a notebook's beginning that no tick makes another.

    The parameters cell is among them: what a tick gives is assigned behind it.

    Args:
        flow: the notebook's steps.
        ticked: names of the parameters that each tick gives a value of its own.

    Returns:
        The steps (none, where only the parameters cell would be), and why the next is not one.
    """
    steps = [step for step in flow.steps if not step.options.on_failure]
    found: list[Step] = []
    why = ""
    for step, reached in zip(steps, lineage(steps), strict=True):
        why = "" if step.name == PARAMETERS else _why_not(step, reached, ticked)
        if why:
            why = f"step {step.label!r} {why}"
            break
        found.append(step)
    return ([] if all(step.name == PARAMETERS for step in found) else found), why


def _why_not(step: Step, reached: frozenset[str] | None, ticked: Collection[str]) -> str:
    options = step.options
    if step.skips or options.control or options.always or options.cache or options.no_checkpoint:
        return "is more than a cell that is executed once"
    if reached is None:
        return "may read anything"
    read = sorted(reached & set(ticked))
    return f"reads {', '.join(f'`{name}`' for name in read)}" if read else ""
