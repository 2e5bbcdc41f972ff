"""Leads the control machine to a cut inside a loop, by what the origin's journal tells.

Up to the cut conditions have their recorded values, and jobs that ended well are kept: the new run
points to them. At the cut, conditions are evaluated again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from cellrail.notebook import control
from cellrail.notebook.control import Path
from cellrail.notebook.model import Step
from cellrail.run.client import CellResult
from cellrail_state.errors import JournalDamaged
from cellrail_state.history import RunHistory
from cellrail_state.model import JobFinished, StepStatus, Turn


class Stage(Protocol):
    """Where it is shown what was done before."""

    #: the cell's result that was committed last
    result: CellResult | None

    def perform(self, action: control.Action) -> Any:
        """Carry an action out."""

    def show(self, step: Step, outputs: Sequence[Mapping[str, Any]]) -> None:
        """Show the outputs of a kept turn."""

    def show_job(self, step: Step, job: JobFinished, outputs: Sequence[Mapping[str, Any]]) -> None:
        """Show a job that an earlier owner committed."""

    def settle(self) -> None:
        """What was to be done before the next cell is part of a checkpoint already."""


class Teller(Protocol):
    """Who is told of turns that are kept from an origin."""

    def kept_turn(self, step: int, job_id: str, turns: Path) -> None:
        """A turn points to a job of an earlier run."""

    def decided(self, ask: control.Ask, told: control.Told) -> None:
        """An expression has a value."""


class Replay:
    """Answers actions until the cut is reached."""

    def __init__(
        self,
        history: RunHistory,
        *,
        numbers: Mapping[int, int],
        step: int,
        turns: tuple[Turn, ...],
    ) -> None:
        """Prepare.

        Args:
            history: the origin.
            numbers: the origin's number of each step of today's notebook.
            step: number of the step at the cut, today.
            turns: the turns that it belongs to.
        """
        self._history, self._numbers = history, numbers
        self._target = (step, turns)
        self._reached = False

    def takes(self, action: control.Action) -> bool:
        """Whether the action lies before the cut."""
        if (action.step.number, action.path) == self._target:
            self._reached = True
        return not self._reached

    def perform(self, action: control.Action, stage: Stage, teller: Teller) -> Any:
        """What the origin's journal answers."""
        number = self._numbers.get(action.step.number, action.step.number)
        if isinstance(action, control.Ask):
            return self._told(action, number, teller)
        if isinstance(action, control.Fire):
            job = self._job(number, action.path)
            well = job.status is StepStatus.SUCCESS
            return control.Ended(ending="ok" if well else "error", error=job.error)
        if isinstance(action, control.Commit):
            if action.accepted or action.status is StepStatus.SUCCESS:
                job = self._job(number, action.path)
                teller.kept_turn(action.step.number, job.job_id, action.path)
                stage.show(action.step, self._history.outputs(job))
            stage.settle()
        elif isinstance(action, control.Leave):
            job = self._job(number, action.path)
            teller.kept_turn(action.step.number, job.job_id, action.path)
            stage.settle()
        elif isinstance(action, control.Suspend):
            return control.Woke(by="resume")
        elif not isinstance(action, (control.RollBack, control.Wait)):
            stage.perform(action)
        return None

    def _told(self, action: control.Ask, number: int, teller: Teller) -> control.Told:
        known = self._history.decided.get((number, str(action.purpose), action.path))
        if known is None:
            raise JournalDamaged(
                f"the origin's journal does not tell --{action.purpose} of "
                f"{control.address(action.step, action.path)}",
                hint=f"restart from the loop itself: --from {action.step.label}",
            )
        told = control.Told(value=known.value, keys=known.keys)
        teller.decided(action, told)
        return told

    def _job(self, number: int, turns: tuple[Turn, ...]) -> JobFinished:
        return self._history.job_by_id(self._history.turns[number, turns])
