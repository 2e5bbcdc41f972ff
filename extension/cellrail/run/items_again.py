"""Items of loops that no checkpoint holds (one of them is a secret, or a connection).

Where a loop that is under way is gone on with in another kernel, its expression is evaluated again,
on the namespace that the loop goes on with. That gives the same items only where nothing that the
expression reads has changed in the loop, and where the keys come out as they were: else it is
refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from cellrail.errors import RestartRefused
from cellrail.notebook.actions import Ask, Path, Purpose
from cellrail.notebook.address import find_step
from cellrail.notebook.foreach import split, targets
from cellrail.notebook.model import Flow, Step
from cellrail.notebook.reads import names_of
from cellrail.run import orders
from cellrail_state.history import RunHistory
from cellrail_state.model import Checkpoint, JobFinished, Variable, Verdict
from cellrail_state.turns import job_address, lies_in


class ItemsAgain(msgspec.Struct, frozen=True, kw_only=True):
    """The items of one loop, to be evaluated again."""

    #: what the kernel is asked
    order: dict[str, Any]
    #: keys that have to come out
    keys: tuple[str, ...]
    #: the loop's address
    where: str
    #: why that would give other items; "" where it does not
    refusal: str = ""

    @property
    def binds(self) -> frozenset[str]:
        """The loop's variables, where a turn is under way."""
        names = targets(f"{self.order['target']} in ()") if "bind" in self.order else ()
        return frozenset(names)

    def check(self, answer: Mapping[str, Any], keyed: Callable[[str], str]) -> None:
        """Refuse other items.

        Args:
            answer: the kernel's.
            keyed: a key as records have it.

        Raises:
            RestartRefused: they are not those of the loop.
        """
        raised = answer.get("raised")
        if raised is not None:
            raise self._refused(f"{raised['name']}: {raised['value']}")
        if tuple(map(keyed, answer["keys"])) != self.keys:
            raise self._refused("they are others now")

    def _refused(self, why: str) -> RestartRefused:
        return RestartRefused(
            f"the items of {self.where!r} cannot be stored, nor evaluated again: {why}",
            hint=f"restart from the loop itself: --from {self.where!r}",
        )


def items_again(
    flow: Flow,
    history: RunHistory,
    loops: Iterable[tuple[Step, Path, int | None]],
    *,
    checkpoint: Checkpoint,
    jobs: Sequence[JobFinished],
    numbers: Mapping[int, int] | None = None,
) -> list[ItemsAgain]:
    """Of loops that are under way those whose items the checkpoint does not hold.

    Args:
        flow: the notebook's steps.
        history: the run that evaluated them.
        loops: each with the turns around it, and the place of the item that it is at (None where
            it begins one), from the outermost.
        checkpoint: the namespace that they go on with.
        jobs: the chain of jobs that made it.
        numbers: the run's number of each step, where they are others.
    """
    found = []
    for step, around, index in loops:
        if not step.options.foreach:
            continue
        ask = Ask(step=step, path=around, purpose=Purpose.FOREACH, expression=step.options.foreach)
        order = orders.ask(ask)
        stored = [checkpoint.variables.get(name) for name in targets(step.options.foreach)]
        if index is not None and any(v is None or v.verdict is not Verdict.STORED for v in stored):
            order["bind"] = index
        variable = checkpoint.variables.get(order["root"])
        if variable is None or variable.verdict is Verdict.STORED:
            continue
        number = (numbers or {}).get(step.number, step.number)
        decided = history.decided.get((number, str(Purpose.FOREACH), around))
        where = job_address(step.label, around)
        inside = [job for job in jobs if lies_in(job.turns, step.label, around)]
        found.append(
            ItemsAgain(
                order=order, keys=decided.keys if decided is not None else (), where=where,
                refusal=_changed(flow, step, variable, where, inside),
            )
        )  # fmt: skip
    return found


def _changed(
    flow: Flow, loop: Step, variable: Variable, where: str, inside: Sequence[JobFinished]
) -> str:
    options = loop.options
    bound = set(targets(options.foreach))
    reads = set(names_of(f"({split(options.foreach)[1]})").reads)
    if options.key:
        reads |= names_of(f"({options.key})").reads - bound
    steps = [loop, *(step for step in flow.steps if _lies_in(flow, step, loop))]
    written = {name for job in inside for name in job.delta.written}
    others = sorted((reads & written) | {n for s in steps for n in names_of(s.body).writes & bound})
    if not inside or not others:
        return ""
    return (
        f"the items of {where!r} cannot be stored ({variable.reason}), and cannot be evaluated "
        f"again: the loop changes `{others[0]}`"
    )


def _lies_in(flow: Flow, step: Step, loop: Step) -> bool:
    while step.options.in_:
        if step.options.in_ == loop.name:
            return True
        step = find_step(step.options.in_, flow.steps)
    return False
