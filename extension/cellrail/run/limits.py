"""How long a run and its steps may take."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from cellrail.notebook.model import Step

#: how the cause of a job begins that a limit has ended, and how it ends where that was the run's
_TOLD, _WHOLE = "timeout after ", " (whole run)"


class RunLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How long things may take, and what fails a step."""

    #: seconds for the whole run; None for no limit
    timeout: float | None = None
    #: seconds for each cell; None for no limit
    cell_timeout: float | None = None
    #: a checkpoint that cannot be written fails its step
    strict: bool = False
    #: bytes; where a kernel goes on from a checkpoint larger values may wait until a cell can reach
    #: them. None: everything is put back at once
    lazy_above: int | None = None


class Deadline:
    """When the whole run has to end."""

    def __init__(self, limits: RunLimits, moment: float | None = None) -> None:
        """Begin to count.

        Args:
            limits: the run's.
            moment: `time.monotonic()` at which the run has to end, where that is known.
        """
        self._limits = limits
        #: `time.monotonic()` then; None for never
        self.moment = moment
        if moment is None and limits.timeout is not None:
            self.moment = time.monotonic() + limits.timeout

    def lift(self) -> None:
        """The run may take as long as it likes from now on."""
        self.moment = None

    def waited(self, seconds: float) -> None:
        """No limit counts the time that is spent waiting."""
        if self.moment is not None:
            self.moment += seconds

    def is_past(self) -> bool:
        """Whether the whole run should have ended by now."""
        return self.moment is not None and time.monotonic() >= self.moment

    def seconds(self, step: Step) -> float | None:
        """Seconds that a step's code may take; None for no limit."""
        return seconds_of(step, self._limits, self.moment)

    def comes_first(self, step: Step) -> bool:
        """Whether the whole run has to end before a step's own time is up, if it begins now."""
        own = _own_seconds(step, self._limits)
        return self.moment is not None and (own is None or self.moment - time.monotonic() < own)

    def told(self, step: Step) -> str:
        """That a step's own limit has ended its code."""
        return f"{_TOLD}{_own_seconds(step, self._limits) or 0.0:g} s"

    def told_whole(self) -> str:
        """That the limit of the whole run has ended it."""
        return f"{_TOLD}{self._limits.timeout or 0.0:g} s{_WHOLE}"


def ending_told(cause: str) -> str:
    """How the code of a job ended that failed by a cause: what a `Deadline` told, or an error."""
    if not cause.startswith(_TOLD):
        return "error"
    return "overdue" if cause.endswith(_WHOLE) else "timeout"


def seconds_of(step: Step, limits: RunLimits, deadline: float | None) -> float | None:
    """Seconds that a step's code may take; None for no limit.

    Args:
        step: the step.
        limits: the run's.
        deadline: `time.monotonic()` at which the whole run has to end.
    """
    found = [_own_seconds(step, limits)]
    if deadline is not None:
        found.append(max(0.0, deadline - time.monotonic()))
    return _least(found)


def _own_seconds(step: Step, limits: RunLimits) -> float | None:
    """Seconds that a step's code may take, however many the run has left."""
    return _least([step.options.timeout, limits.cell_timeout])


def _least(limits: Sequence[float | None]) -> float | None:
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else None
