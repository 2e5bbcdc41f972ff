"""The clerk of `flow.each`: what its loops have stored in mid-cell, and where they go on.

A loop asks what it has stored last (`each_find`) and has each further storing recorded
(`each_keep`), at once and durably, as a record of the run's journal. Later attempts find it there,
recovered runs as well, and a restart at this very step takes it over (`inherited`). The step's
commit makes it void; which records count is told by `cellrail_state.eachs`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from cellrail.errors import BadState
from cellrail.run.desk import Clerk, Desk, Handler, Job
from cellrail_state.eachs import EachBook
from cellrail_state.model import (
    Checkpoint,
    EachStored,
    Effects,
    Origin,
    from_plain,
    to_plain,
)

if TYPE_CHECKING:
    from cellrail.notebook.model import Flow
    from cellrail_state.history import RunHistory


class Eachs(Clerk):
    """Knows what loops in cells have stored."""

    def __init__(self, desk: Desk, book: EachBook) -> None:
        """Know what was stored.

        Args:
            desk: the run's.
            book: what was stored so far.
        """
        self._desk, self._book = desk, book
        self._success = False
        #: loops that the current job has begun: what one has done is not done for another
        self._begun: set[tuple[str, tuple[tuple[str, int], ...], str]] = set()

    def handlers(self) -> Mapping[str, Handler]:
        """What cells can ask."""
        return {"each_job": self.job, "each_find": self.find, "each_keep": self.keep}

    # --- questions ---------------------------------------------------------------------------

    def job(self, job: Job | None) -> str:
        """Id of the job that stores; "" where nothing could be committed with it."""
        return job.job_id if job is not None else ""

    def find(self, job: Job | None, name: str, path: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """What a loop has stored last; nothing where it begins.

        Raises:
            BadState: the job has had a loop of this name before, in this place.
        """
        if job is None:
            return {}
        name, around = self._keyed(name), self._path(path)
        place = (job.job_id, around, name)
        if place in self._begun:
            raise BadState(
                f"flow.each({name!r}): the cell has had a loop of this name before",
                hint="each loop of a cell has a name of its own, as in flow.each(f'fit-{k}', …)",
            )
        self._begun.add(place)
        found = self._book.find(job.number, job.turns, around, name)
        if found is None:
            return {}
        return {
            "position": found.position,
            "total": found.total,
            "seen": found.seen,
            "ended": found.ended,
            "checkpoint": to_plain(found.checkpoint),
            "edited": found.source_hash != job.source_hash,
        }

    def keep(
        self,
        job: Job | None,
        name: str,
        path: Sequence[Sequence[Any]],
        stored: Mapping[str, Any],
    ) -> None:
        """A loop has stored its names.

        Args:
            job: the current job.
            name: the loop's.
            path: the loops around it.
            stored: `position`, `total`, `seen`, `ended` and `checkpoint`.
        """
        if job is None:  # the step is over, and a thread of it goes on
            job = self._desk.current(f"flow.each({name!r})")
        record = EachStored(
            time=self._desk.recorder.clock(), step=job.number, job_id=job.job_id,
            name=self._keyed(name), path=self._path(path), position=stored["position"],
            total=stored["total"], seen=stored["seen"], ended=stored["ended"],
            checkpoint=from_plain(stored["checkpoint"], Checkpoint), turns=job.turns,
            source_hash=job.source_hash,
        )  # fmt: skip
        self._desk.recorder.each(record)
        self._book.take(record)

    def _keyed(self, name: str) -> str:
        return self._desk.recorder.lasting_key(name)

    def _path(self, plain: Sequence[Sequence[Any]]) -> tuple[tuple[str, int], ...]:
        return tuple((self._keyed(str(name)), int(index)) for name, index in plain)

    def take_over(self, records: Iterable[EachStored]) -> None:
        """An open notebook goes back to before a step that has stored these (and no others)."""
        self._book.take_back()
        for record in records:
            self._desk.recorder.each(record)
            self._book.take(record)

    # --- jobs --------------------------------------------------------------------------------

    def begin(self, job: Job) -> None:
        """A job begins."""
        self._begun.clear()
        self._book.begin(job.number, job.turns, job.attempt)

    def contribute(self, effects: Effects, *, success: bool) -> Effects:
        """Nothing: what was stored is no effect."""
        self._success = success
        return effects

    def committed(self, job: Job, effects: Effects, *, replaces: str) -> None:
        """What a step that succeeded has stored is not needed any more."""
        del effects, replaces
        if self._success:
            self._book.done(job.number, job.turns)


# --- restarts --------------------------------------------------------------------------------


def inherited(
    history: RunHistory,
    cut: Origin,
    flow: Flow,
    *,
    numbers: Mapping[int, int],
    changed: Collection[str] = (),
) -> list[EachStored]:
    """What loops in cells have stored in a run, and go on from in a restart of it.

    Only where the restart goes on right at their step: what executes behind a step that is executed
    again, or behind another parameter that it reads, begins anew.

    Args:
        history: the origin.
        cut: where the restart goes on.
        flow: the notebook's steps.
        numbers: the origin's number of each step.
        changed: parameters with other values.
    """
    here = {there: here for here, there in numbers.items()}
    steps = {step.number: step for step in flow.steps}
    found = []
    for record in history.each.records():
        number = here.get(record.step)
        if number is None or number not in steps:
            continue
        touches = steps[number].touches
        reads = touches is None or not touches.isdisjoint(changed)
        if (changed and reads) or not _goes_on(history, record, cut, number, steps[number].label):
            continue
        origin = record.origin or history.run_id
        found.append(msgspec.structs.replace(record, step=number, origin=origin))
    return found


def _goes_on(history: RunHistory, record: EachStored, cut: Origin, number: int, label: str) -> bool:
    """Whether a restart goes on with the very job that has stored the record."""
    if history.is_anew(record.step):  # it was stored on another namespace
        return False
    around, inside = record.turns[: len(cut.turns)], record.turns[len(cut.turns) :]
    # a loop's own cell is the first of its first item
    first = all(turn.index == 0 and turn.loop == label for turn in inside)
    at_cut = number == cut.step and around == cut.turns and first
    fork = history.fork_of(record.turns)
    if not cut.turns or (fork is None and not cut.apart):
        return at_cut
    # of a parallel loop each item goes on by itself; one that failed is executed from its beginning
    depth = len(fork[1]) if fork is not None else len(cut.turns) - 1
    if record.turns[:depth] != cut.turns[:depth] or len(record.turns) <= depth:
        return False
    item = record.turns[depth]
    if cut.again:
        return item.key not in cut.again or (len(record.turns) == depth + 1 and item.loop == label)
    return at_cut or item != cut.turns[depth]
