"""What a restart is planned from: the origin's steps, today's notebook beside them, the request."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import msgspec

from cellrail.notebook.address import find_step
from cellrail.notebook.match import match
from cellrail.notebook.model import Step
from cellrail.notebook.reads import lineage
from cellrail_state.model import StepInfo, StepStatus


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A job that stands for a step, made with other code than the origin's notebook has."""

    #: how the job is called: `score[north]`
    address: str
    #: the step as it was then
    info: StepInfo


class OriginStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step as the origin left it."""

    info: StepInfo
    status: StepStatus
    accepted: bool = False
    cause: str = ""
    job_id: str = ""
    seconds: float | None = None
    #: names its job bound or changed
    written: tuple[str, ...] = ()
    #: why the namespace after it cannot be put back; "" where it can
    failure: str = ""
    #: place of its last execution in a live run; 0 elsewhere
    sequence: int = 0
    #: what it did beyond its kernel, in words: it must not be executed again for what it made
    effects: tuple[str, ...] = ()
    #: jobs of it that other code made; of several made alike, the first
    made: tuple[Made, ...] = ()

    @property
    def number(self) -> int:
        """Its place among the code cells."""
        return self.info.number

    @property
    def name(self) -> str:
        """Its given name."""
        return self.info.name

    @property
    def cell_id(self) -> str:
        """Its cell's id."""
        return self.info.cell_id

    @property
    def source_hash(self) -> str:
        """Digest of its code."""
        return self.info.source_hash

    @property
    def ended_well(self) -> bool:
        """Whether a later step may be the cut."""
        good = {StepStatus.SUCCESS, StepStatus.KEPT, StepStatus.SKIPPED}
        return self.status in good or self.accepted


class RestartRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A restart as asked for."""

    cut: str | None = None
    to: str | None = None
    #: names of parameters with new values
    changed: tuple[str, ...] = ()
    force: bool = False
    widen: bool = False
    live: bool = False
    #: digests of the local modules each step imports today, by step number
    modules: dict[int, dict[str, str]] = {}
    #: packages whose versions differ, in words
    packages: tuple[str, ...] = ()


class SideBySide(msgspec.Struct, frozen=True, kw_only=True):
    """Today's notebook beside the origin that a restart keeps from.

    A *place* is an index of `steps`, from 0; a step's number is its place among the code cells of
    its own notebook, today's or the origin's.
    """

    #: today's steps
    steps: tuple[Step, ...]
    #: the origin's steps in order
    origin: Sequence[OriginStep]
    request: RestartRequest
    #: the origin's step for each of today's, by today's number
    pairs: dict[int, OriginStep]
    #: names that each of today's steps can reach, by place; None for any name
    reached: list[frozenset[str] | None]
    #: ids of the origin's jobs that made the namespace right before a step, by its number there
    made_before: Callable[[int], Collection[str]]

    @staticmethod
    def of(
        steps: Sequence[Step],
        origin: Sequence[OriginStep],
        request: RestartRequest,
        made_before: Callable[[int], Collection[str]] = lambda _: (),
    ) -> SideBySide:
        """Find out which step is which, and what each can reach."""
        return SideBySide(
            steps=tuple(steps),
            origin=origin,
            request=request,
            pairs=match(origin, steps),
            reached=lineage(steps),
            made_before=made_before,
        )

    def old(self, place: int) -> OriginStep | None:
        """The origin's step for the one at a place."""
        return self.pairs.get(self.steps[place].number)

    @property
    def behind(self) -> int:
        """A number behind those of all the origin's steps."""
        return max((old.number for old in self.origin), default=0) + 1

    def last_place(self) -> int:
        """Where the last step to be executed stands.

        Raises:
            StepNotFound: there is no step `to`.
        """
        if self.request.to is None:
            return len(self.steps) - 1
        return self.steps.index(find_step(self.request.to, self.steps))
