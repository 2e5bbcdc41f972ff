"""Use case of backfills: the leading steps are executed once, for all runs (`--share`).

A run without a tick, the *base*, executes them, watched. Each tick's run is a restart of it behind
the last step that did nothing but compute and read, with the tick's own parameters.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from cellrail.app.wishing import Wishing
from cellrail.errors import UserError
from cellrail.executors import Done, Executor, Task
from cellrail.notebook.address import find_step
from cellrail.notebook.model import PARAMETERS, Flow, Step
from cellrail.notebook.sharing import leading
from cellrail.schedule.templates import is_template
from cellrail_state.model import RunStatus, StepStatus
from cellrail_state.schedules import AUTO, Backfill, BackfillState, Filling

_POLL_SECONDS = 0.1
#: last letters of the ids of runs that are to execute the shared steps
_ATTEMPTS = "abcdefghijkl"
#: what nobody looks for while the base runs
NOT_SEEN = "not seen: the clock, files that change later, what a library sends past Python"


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """What the runs of a backfill share."""

    #: the base
    run_id: str = ""
    #: labels of the steps
    steps: tuple[str, ...] = ()
    #: the first step that each run executes itself; "" where all are shared, or none is
    cut: str = ""
    #: why the next step is not shared, or none is
    why: str = ""


class Sharing(Wishing):
    """Has steps executed once for all runs of a backfill."""

    def _candidates(self, backfill: Backfill, flow: Flow) -> tuple[list[Step], str]:
        """The steps that may be shared as far as their code tells, and why the next is not.

        Raises:
            UserError: a step that was named is none, or reads what a tick gives.
        """
        found, why = leading(flow, _ticked(backfill))
        if backfill.share == (AUTO,):
            return found, why
        named = [find_step(name, flow.steps) for name in backfill.share]
        for step in named:
            if step not in found:
                raise UserError(
                    f"step {step.label!r} cannot be shared: "
                    + (why or "the notebook begins with its parameters"),
                    hint="--share auto shares what can be",
                )
        last = max(found.index(step) for step in named)
        return found[: last + 1], "it is not named"

    def _planned_share(self, backfill: Backfill, flow: Flow) -> tuple[str, ...]:
        """For a plan: what would be shared, in words."""
        if not backfill.share:
            return ()
        found, why = self._candidates(backfill, flow)
        labels = _labels(found)
        if not labels:
            return (f"nothing is shared: {why}",)
        told = f"executed once for all: {', '.join(labels)}" + (f" ({why})" if why else "")
        if backfill.share != (AUTO,):
            return (told,)
        return (f"{told}, as far as no write, socket, process or draw is seen", NOT_SEEN)

    def _bases(self, backfill: Backfill) -> tuple[str, str]:
        """The newest run that was to execute its shared steps, and the id of the next attempt.

        (Journals are asked, not the catalog: another program may hold that.) "" for none.
        """
        newest = ""
        for letter in _ATTEMPTS:
            run_id = backfill.base + letter
            if not self.store.journal_size(run_id):
                return newest, run_id
            newest = run_id
        return newest, ""

    def _shared(self, backfill: Backfill, flow: Flow) -> Shared:
        """What its base has shown."""
        if not backfill.share:
            return Shared()
        found, why = self._candidates(backfill, flow)
        base, _ = self._bases(backfill)
        if not found or not base:
            return Shared(why=why if not found else "it was not executed yet")
        history = self.history(base, verify=True)
        if history.status is not RunStatus.SUCCESS:
            return Shared(why=f"run {base}, which was to execute it, is {history.status}")
        shared: list[Step] = []
        for step in found:
            state = history.state(step.number)
            if state.status is not StepStatus.SUCCESS or state.job is None:
                why = f"step {step.label!r} was not executed"
                break
            seen = state.job.seen if backfill.share == (AUTO,) else ()
            if seen:
                why = f"step {step.label!r} {', '.join(seen)}"
                break
            shared.append(step)
        labels = _labels(shared)
        if not labels:
            return Shared(run_id=base, why=why)
        later = [s for s in flow.steps if s.number > shared[-1].number and not s.options.on_failure]
        return Shared(
            run_id=base, steps=labels, cut=later[0].label if later else "",
            why=why or "no step is left",
        )  # fmt: skip

    def _share(self, backfill: Backfill, flow: Flow, executor: Executor, task: Task) -> Shared:
        """Have the base executed where that was not done yet; what is shared.

        Args:
            backfill: the backfill.
            flow: the notebook's steps.
            executor: executes the base.
            task: of the first tick's run, which the base is like.
        """
        if not backfill.share:
            return Shared()
        found, _ = self._candidates(backfill, flow)
        base, attempt = self._bases(backfill)
        done = base and self.history(base).status is RunStatus.SUCCESS
        if found and attempt and not done:
            labels = {k: v for k, v in task.labels.items() if k != "tick"}
            executor.submit(
                msgspec.structs.replace(
                    task, todo="share", run_id=attempt, tick=None,
                    labels=labels, output="", to=found[-1].label, scope=backfill.name, watch=True,
                )
            )  # fmt: skip
            self._await(backfill, executor)
        return self._shared(backfill, flow)

    def _await(self, backfill: Backfill, executor: Executor) -> None:
        """Wait for the base; what the backfill is told meanwhile is heeded."""
        store, told = self.store.backfills, False
        done: list[Done] = []
        while not done:
            try:
                done = executor.wait(_POLL_SECONDS)
            except KeyboardInterrupt:
                state = BackfillState(
                    filling=Filling.PAUSED, time=self.clock(), why="interrupted", now=True,
                    modules=store.state(backfill.id).modules,
                )  # fmt: skip
                store.tell(backfill.id, state)
            if not told and not done and store.state(backfill.id).now:
                told = True
                for run_id in executor.busy:
                    executor.interrupt(run_id)


def behind(task: Task, shared: Shared, *, scope: str) -> Task:
    """The task of a tick's run, where it shares steps."""
    if not shared.steps or not shared.cut or task.todo != "run":
        return task
    return msgspec.structs.replace(
        task, todo="restart", origin=shared.run_id, from_step=shared.cut, scope=scope
    )


def _ticked(backfill: Backfill) -> set[str]:
    """Names of the parameters that a tick gives a value of its own."""
    from cellrail.notebook.parameters import from_json

    inputs: dict[str, Any] = {name: from_json(v) for name, v in backfill.inputs.items()}
    return {name for name, value in inputs.items() if is_template(value)}


def _labels(steps: Collection[Step]) -> tuple[str, ...]:
    return tuple(step.label for step in steps if step.name != PARAMETERS)
