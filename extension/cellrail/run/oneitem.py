"""Carries out one item of a parallel loop, in a kernel that it has for itself meanwhile.

What the item writes stays its own: only what the loop collects is taken from it. An item that has
no kernel, since its namespace cannot be had, fails with the reason (`NoClient.lacks`); a cell that
misses a name which no kernel but the loop's own can have is told why.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Collection
from typing import Any

import msgspec

from cellrail.notebook import actions
from cellrail.notebook.apart import forbidden, own_names
from cellrail.notebook.collecting import error_name
from cellrail.notebook.model import Step
from cellrail.run.crew import Ground
from cellrail.run.itemrest import Rest
from cellrail.run.performer import Performer
from cellrail_state.chains import is_good
from cellrail_state.model import Checkpoint, Delta, JobFinished, Verdict

_MISSING = re.compile(r"name '(\w+)' is not defined")


class NoClient:
    """The kernel of an item of which nothing is executed."""

    def __init__(self, lacks: str = "") -> None:
        """Know why it has none, where something of it would be executed."""
        self.lacks = lacks

    def command(self, order: dict[str, Any]) -> dict[str, Any]:
        """Do nothing: what would be done lies in a kept checkpoint."""
        del order
        return {}

    def hearing(self) -> contextlib.AbstractContextManager[None]:
        """Ctrl-C is heard as ever: there is no cell to end."""
        return contextlib.nullcontext()

    def hear(self) -> None:
        """Nothing begins here."""


class ItemPerformer(Performer):
    """Carries one item out; what it wrote stays its own."""

    def __init__(
        self,
        fork: actions.Fork,
        ground: Ground,
        *,
        stop: threading.Event,
        rest: Rest,
        **means: Any,
    ) -> None:
        """Prepare.

        Args:
            fork: the loop.
            ground: the namespace that it began on.
            stop: once it is set nothing is waited for.
            rest: what is kept of the item.
            means: as for `Performer`.
        """
        super().__init__(**means)
        self._fork, self._ground, self._stop = fork, ground.checkpoint, stop
        #: names that it may miss: why they are not there, and what to do
        self._lost = {**ground.lost, **rest.lost}
        #: why there is no kernel to execute anything in; "" where there is one
        self._lacks = self._client.lacks if isinstance(self._client, NoClient) else ""
        #: variables that the flow goes on with after an error
        self._error_names = {error_name(step) for step in fork.block.steps()} - {""}
        self._own = own_names(fork.block) | self._error_names
        self._deltas: list[Delta] = [job.delta for job in rest.kept]
        #: what it raised, and goes on with, in words
        self.errors: dict[str, str] = {}
        for job in rest.kept:
            self._note_error(job)
        #: every job ended well: its kernel may serve another item
        self.clean = True

    def _ask(self, action: actions.Ask) -> actions.Told:
        return actions.Told(lacks=self._without()) if self._lacks else super()._ask(action)

    def _fire(self, action: actions.Fire) -> actions.Ended:
        if self._lacks:
            return self._without()
        ended = self._with_cause(super()._fire(action))
        self.clean = self.clean and ended.ending == "ok"
        delta = (self.reported() or {}).get("delta", {})
        told = forbidden(delta.get("written", ()), self._ground.variables, self._own)
        return msgspec.structs.replace(ended, forbidden=told)

    def _without(self) -> actions.Ended:
        """How a job ends for want of a kernel."""
        if self.deadline.is_past():  # perhaps it is what cut short what its kernel needs
            cause = self.deadline.told_whole()
            return actions.Ended(ending="overdue", cause=cause, alive=False)
        return actions.Ended(ending="died", cause=self._lacks, alive=False)

    def _with_cause(self, ended: actions.Ended) -> actions.Ended:
        """A cell that misses what is lost is told why it is not there."""
        error = ended.error
        found = _MISSING.match(error.value) if error is not None else None
        if error is None or found is None or found.group(1) not in self._lost:
            return ended
        why = self._lost[found.group(1)]
        return msgspec.structs.replace(ended, cause=f"{error.name}: {error.value}: {why}")

    def _record(self, job: JobFinished, step: Step) -> None:
        super()._record(job, step)
        if is_good(job):
            self._deltas.append(job.delta)
            self._note_error(job)

    def _note_error(self, job: JobFinished) -> None:
        if job.accepted and job.error is not None:
            told = f"{job.error.name}: {job.error.value}"
            self.errors |= dict.fromkeys(self._error_names & {*job.delta.written}, told)

    def _wait(self, action: actions.Wait) -> None:
        # an item cannot be given up while it waits: it keeps its kernel
        self._stop.wait(action.seconds)
        self.deadline.waited(action.seconds)

    def _enter(self, action: actions.Enter) -> None:
        super()._enter(action)
        if action.step.number == self._fork.step.number:
            # items that draw random numbers draw different ones, the same ones each time
            self._before[-1]["spread"] = str(action.path[-1])

    def _turned(self, action: actions.Turned) -> str | None:
        if action.step.number != self._fork.step.number:
            return super()._turned(action)
        collect = action.step.options.collect
        if action.skipped or not collect:
            return None
        failures = [delta.failure for delta in self._deltas if delta.failure]
        if failures:
            return f"what it collects is lost with its checkpoint: {failures[0]}"
        for name, variable in self.left(action.missing).variables.items():
            if name in collect and variable.verdict is not Verdict.STORED:
                return f"`{name}` cannot be collected: {variable.reason}"
        return None

    def _leave(self, action: actions.Leave) -> str | None:
        return self._lacks or super()._leave(action)

    def left(self, missing: Collection[str]) -> Checkpoint:
        """What the loop collects of it but for some names, and the errors that it goes on with."""
        collected = [name for name in self._fork.step.options.collect if name not in missing]
        checkpoint = Checkpoint.fold(self._deltas, before=self._ground)
        return checkpoint.only([*collected, *(n for n in self.errors if n not in missing)])
