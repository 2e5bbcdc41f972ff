"""How long a run and its steps may take."""

from __future__ import annotations

import time

import msgspec

from cellrail.notebook.model import Step


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

    def told(self, step: Step) -> str:
        """Which limit has ended a step's code."""
        whole = self.is_past()
        known = [s for s in (step.options.timeout, self._limits.cell_timeout) if s is not None]
        limit = self._limits.timeout if whole else min(known, default=0.0)
        return f"timeout after {limit:g} s" + (" (whole run)" * whole)


def seconds_of(step: Step, limits: RunLimits, deadline: float | None) -> float | None:
    """Seconds that a step's code may take; None for no limit.

    Args:
        step: the step.
        limits: the run's.
        deadline: `time.monotonic()` at which the whole run has to end.
    """
    found = [step.options.timeout, limits.cell_timeout]
    if deadline is not None:
        found.append(max(0.0, deadline - time.monotonic()))
    known = [limit for limit in found if limit is not None]
    return min(known) if known else None
