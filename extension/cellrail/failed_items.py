"""Restarts of the failed items of a loop (`--failed-only`), where its items are independent.

Items of a parallel loop are, unless the journal shows that they share a resource (`state_since`).
Items that ran one after another are where the journal shows that they wrote nothing but the loop's
variable and what it collects, set no state, resource, variable or flow user state, and changed
nothing else of the process, and where the code shows that they read nothing that an item before
them may have collected.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from cellrail.errors import RestartRefused
from cellrail.inside import InnerCut, block_of, in_fork, items_fork, keys_of, origin_number
from cellrail.notebook.address import find_step
from cellrail.notebook.apart import is_variable, own_names
from cellrail.notebook.blocks import Block
from cellrail.notebook.firsts import first_uses
from cellrail.notebook.model import Flow
from cellrail.notebook.shelllines import parsed
from cellrail.run.states import STATE
from cellrail_state.history import RunHistory
from cellrail_state.model import Effects, JobFinished, ObjectRef, StepStatus, Turn


def failed_items(
    flow: Flow, history: RunHistory, wanted: str | None, *, reeval: bool
) -> InnerCut | str:
    """The cut that executes the failed items of a loop; the loop's label where none ended well.

    Args:
        flow: the notebook as it is now.
        history: the origin.
        wanted: the loop; None for the first one that has failed items.
        reeval: evaluate the items anew.

    Raises:
        RestartRefused: no item failed, or the items depend on one another.
    """
    if wanted is not None and "[" in wanted:
        raise RestartRefused(
            f"--failed-only: {wanted!r} is one item", hint="name the loop, or no step at all"
        )
    for step in [find_step(wanted, flow.steps)] if wanted is not None else flow.steps:
        if not step.options.foreach or step.options.in_:
            continue
        number, block = origin_number(history, step), block_of(flow, step)
        _refuse_given_up(history, block)
        keys, failed = keys_of(history, number), _failed_keys(history, block)
        if not failed:
            continue
        first = next(n for n, key in enumerate(keys) if key in failed)
        cut = in_fork(
            flow,
            history,
            InnerCut(
                step=step, number=number, turns=(Turn(step.label, first, keys[first]),),
                reeval=reeval,
            ),
        )  # fmt: skip
        if cut.fork is not None:
            return msgspec.structs.replace(cut, again=failed)
        if not any(job.turns and job.turns[0].loop == step.label for job in history.chain):
            return step.label
        why = next(_ties(history, block), "")
        if why:
            raise RestartRefused(
                f"--failed-only: the items of {step.label!r} depend on one another: {why}",
                hint=f"restart from the first failed one: --from '{cut.label}'",
            )
        fork = items_fork(flow, history, step, ())
        return msgspec.structs.replace(cut, fork=fork, again=failed, sequential=True)
    where = f"of {wanted!r}" if wanted is not None else "of any loop"
    raise RestartRefused(
        f"--failed-only: no item {where} failed", hint="without it: cellrail restart RUN"
    )


def _refuse_given_up(history: RunHistory, block: Block) -> None:
    """Refuse a loop that the run ended in, behind a wait: an item that runs apart cannot wait.

    Raises:
        RestartRefused: it did.
    """
    for (_, turns), job_id in history.turns.items():
        if not turns or turns[0].loop != block.step.label:
            continue
        job = history.job_by_id(job_id)
        came_to = history.given_up(job)
        if came_to is not None:
            status, why = came_to
            raise RestartRefused(
                f"--failed-only: the run ended behind {history.address_of(job)} ({why}: {status}), "
                "and items that run apart cannot wait",
                hint=f"without it the run goes on there: cellrail restart {history.run_id}",
            )


def _failed_keys(history: RunHistory, block: Block) -> frozenset[str]:
    """Keys of the items in which something failed that the item did not go on after."""
    failed = set[str]()
    goes_on = {
        origin_number(history, step)
        for step in block.steps()
        if step.options.on_error == "continue"
    }
    for (number, turns), job_id in history.turns.items():
        if not turns or turns[0].loop != block.step.label:
            continue
        job = history.job_by_id(job_id)
        ended_badly = job.status in {StepStatus.FAILED, StepStatus.CANCELLED}
        if ended_badly and not (job.accepted and number in goes_on):
            failed.add(turns[0].key)
    return frozenset(failed)


def _ties(history: RunHistory, block: Block) -> Iterator[str]:
    """Why an item can see what another one did, in words."""
    own, before = own_names(block), None
    for job in history.chain:
        ambient, before = before, job.delta.ambient or before
        if not job.turns or job.turns[0].loop != block.step.label:
            continue
        for what in _set(job.effects):
            yield f"{job.turns[0]} set the {what}"
        written = [n for n in job.delta.written if n not in own and _counts(n, job)]
        if written:
            names = ", ".join(f"`{name}`" for name in written)
            yield f"{job.turns[0]} wrote {names}"
        for what in _changes(history, ambient, before):
            yield f"{job.turns[0]} changed {what}"
    yield from _carried(block)


def _set(effects: Effects | None) -> Iterator[str]:
    """What a job has set beyond its kernel that another item may see."""
    if effects is None:
        return
    for written in effects.writes:
        yield f"{STATE if written.type == STATE else written.kind} {written.path!r}"
    for key in sorted(effects.user):
        yield f"flow user state {key!r}"


def _counts(name: str, job: JobFinished) -> bool:
    """Whether another item can tell that a name was written: a module is the same again."""
    variable = job.delta.variables.get(name)
    return is_variable(name) and (variable is None or variable.type != "module")


def _changes(
    history: RunHistory, before: ObjectRef | None, after: ObjectRef | None
) -> Iterator[str]:
    """Parts of the process beside the namespace that differ."""
    if before is None or after is None or before == after:
        return
    old, new = (msgspec.json.decode(history.content(ref)) for ref in (before, after))
    for name in sorted(old.keys() | new.keys()):
        if name != "modules" and old.get(name) != new.get(name):
            yield f"the process's {name.replace('_', ' ')}"


def _carried(block: Block) -> Iterator[str]:
    """Collected names that the code may read before the item has bound them."""
    collected, bound = set(block.step.options.collect), set[str]()
    for step in block.steps():
        tree = parsed(step.body)
        if tree is None or step.opaque:
            yield f"step {step.label!r} may read anything"
            return
        reads, binds = first_uses(tree, bound)
        for name in sorted(reads & collected):
            yield f"step {step.label!r} reads `{name}`, maybe of the item before"
        if not (step.options.when or step.options.branch or step.options.on_error != "stop"):
            bound |= binds
