"""Leads the control machine to a cut inside a loop, by what the origin's journal tells.

Up to the cut conditions have their recorded values, and jobs that ended well are kept: the new run
points to them. At the cut, conditions are evaluated again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cellrail.notebook import control
from cellrail.run.performer import Performer
from cellrail.run.recorder import Recorder
from cellrail_state.errors import JournalDamaged
from cellrail_state.history import RunHistory
from cellrail_state.model import JobFinished, StepStatus, Turn


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

    def perform(self, action: control.Action, performer: Performer, recorder: Recorder) -> Any:
        """What the origin's journal answers."""
        number = self._numbers.get(action.step.number, action.step.number)
        if isinstance(action, control.Ask):
            return self._told(action, number, recorder)
        if isinstance(action, control.Fire):
            job = self._job(number, action.path)
            well = job.status is StepStatus.SUCCESS
            return control.Ended(ending="ok" if well else "error", error=job.error)
        if isinstance(action, control.Commit):
            if action.accepted or action.status is StepStatus.SUCCESS:
                job = self._job(number, action.path)
                recorder.kept_turn(action.step.number, job.job_id, action.path)
                performer.show(action.step, self._history.outputs(job))
            performer.settle()
        elif isinstance(action, control.Leave):
            job = self._job(number, action.path)
            recorder.kept_turn(action.step.number, job.job_id, action.path)
            performer.settle()
        elif not isinstance(action, (control.RollBack, control.Wait)):
            performer.perform(action)
        return None

    def _told(self, action: control.Ask, number: int, recorder: Recorder) -> control.Told:
        known = self._history.decided.get((number, str(action.purpose), action.path))
        if known is None:
            raise JournalDamaged(
                f"the origin's journal does not tell --{action.purpose} of "
                f"{control.address(action.step, action.path)}",
                hint=f"restart from the loop itself: --from {action.step.label}",
            )
        told = control.Told(value=known.value, keys=known.keys)
        recorder.decided(action, told)
        return told

    def _job(self, number: int, turns: tuple[Turn, ...]) -> JobFinished:
        return self._history.job_by_id(self._history.turns[number, turns])
