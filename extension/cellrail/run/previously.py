"""The clerk of `flow.previous`: what a step left the last time that it ended.

That is its newest earlier job: in this run (the turn before, in a loop; the attempt that was
committed before the run was recovered), else in the run that it was restarted from (of the same
item, where it is in a loop and that run had it). Items of a parallel loop stand beside one another:
none has what another one left. Values are not loaded here: the cell gets the checkpoint of what it
asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from cellrail.notebook.match import match
from cellrail.run.desk import Clerk, Desk, Handler, Job, Then
from cellrail_state.chains import is_good, names_of, place_of
from cellrail_state.history import RunHistory
from cellrail_state.model import Checkpoint, JobFinished, Turn, Verdict, to_plain
from cellrail_state.steps import Sources


class _Left(msgspec.Struct, frozen=True, kw_only=True):
    """A job that a step has ended with."""

    job_id: str
    #: those that it has in the run
    turns: tuple[Turn, ...]
    #: the run's own, not one that it keeps
    own: bool


class Previously(Clerk):
    """Knows what was before."""

    def __init__(
        self,
        desk: Desk,
        *,
        origin: RunHistory | None = None,
        numbers: Mapping[int, int] | None = None,
    ) -> None:
        """Know where to look.

        Args:
            desk: the run's.
            origin: the run that it was restarted from.
            numbers: that run's number of each step.
        """
        self._desk, self._origin, self._numbers = desk, origin, numbers or {}

    def handlers(self) -> Mapping[str, Handler]:
        """What cells can ask."""
        return {"previous": self.find}

    def take_over(self, origin: RunHistory, numbers: Mapping[int, int]) -> None:
        """An open notebook has gone back to a moment of another run.

        Args:
            origin: the other run.
            numbers: its number of each step.
        """
        self._origin, self._numbers = origin, numbers

    def find(self, job: Job | None) -> dict[str, Any] | None:
        """The newest earlier job of the step: its values' checkpoint and its outputs."""
        if self._desk.then is not None:
            return self._find_then(self._desk.then)
        if job is None:
            return None
        here = self._history(self._desk.recorder.run_id)
        item = _place_of_item(here, job.turns)
        mine = _left(here, job.number, job.turns, item)
        before: list[_Left] = []
        if self._origin is not None and job.number in self._numbers:
            before = _left(self._origin, self._numbers[job.number], job.turns, item)
        return self._first_of(here, mine, self._origin, before, job.turns)

    def _find_then(self, then: Then) -> dict[str, Any] | None:
        """What a kept job was told, whose cell is executed again."""
        job_id = then.was.lays or then.was.job_id
        here = self._history(job_id.rpartition("/")[0])
        was = here.job_by_id(job_id)
        item = _place_of_item(here, was.turns)
        mine = _left(here, was.step, was.turns, item, until=here.jobs.index(was))
        origin, before = here.started.origin, list[_Left]()
        if origin is None:
            return self._first_of(here, mine, None, before, was.turns)
        there = self._history(origin.run_id)
        pairs = match([state.info for state in there.states], here.started.steps)
        if was.step in pairs:
            before = _left(there, pairs[was.step].number, was.turns, item)
        return self._first_of(here, mine, there, before, was.turns)

    def _first_of(
        self,
        here: RunHistory,
        mine: list[_Left],
        origin: RunHistory | None,
        before: list[_Left],
        turns: tuple[Turn, ...],
    ) -> dict[str, Any] | None:
        for history, found, same in (
            (here, [left for left in mine if left.own], None),
            # of what it keeps, its origin tells more: the other items, too
            (origin, before, turns),
            (here, mine, turns),
        ):
            if history is not None and (told := self._newest(history, found, same)):
                return told
        return None

    def _newest(
        self, history: RunHistory, found: list[_Left], turns: tuple[Turn, ...] | None
    ) -> dict[str, Any] | None:
        """What the newest job left; of these turns, where some are given and it is there."""

        def rank(place: int) -> tuple[bool, bool, int]:
            left = found[place]
            same = turns is not None and _keys(left.turns) == _keys(turns)
            return same, left.own, place  # what the run did itself is newer

        for left in (found[n] for n in sorted(range(len(found)), key=rank, reverse=True)):
            chain = history.chain_around(left.job_id, left.turns)
            place = place_of(chain, left.job_id)
            if place is not None and is_good(chain[place]):
                return self._told(history, chain[: place + 1])
        return None

    def _told(self, history: RunHistory, chain: list[JobFinished]) -> dict[str, Any]:
        """What the last job of a chain left."""
        job, checkpoint = chain[-1], Checkpoint.fold(job.delta for job in chain)
        names = [name for name in job.delta.written if name.isidentifier()]
        variables = {n: checkpoint.variables[n] for n in names if n in checkpoint.variables}
        needed = {v.component for v in variables.values() if v.verdict is Verdict.STORED}
        part = Checkpoint(
            variables=variables,
            components={
                cid: c for cid, c in checkpoint.components.items() if cid in needed or c.definitions
            },
        )
        return {
            "checkpoint": to_plain(part),
            "outputs": history.outputs(job),
            "objects": str(self._desk.recorder.store.path / "objects"),
            "defined": sorted(self._defined(history, chain)),
        }

    def _defined(self, history: RunHistory, chain: list[JobFinished]) -> set[str]:
        """Keys of classes and functions that are known by them in this run, too.

        Of another run, those of the jobs that this one keeps: what it executes again counts keys
        up anew, and may give the same one to something else.
        """
        run_id = self._desk.recorder.run_id
        if history.run_id != run_id:
            kept = {name for job in self._history(run_id).chain for name in names_of(job)}
            chain = [job for job in chain if names_of(job) & kept]
        deltas = [job.delta for job in chain]
        return {key for d in deltas for c in d.components.values() for key in c.definitions}

    def _history(self, run_id: str) -> RunHistory:
        store = self._desk.recorder.store
        sources = Sources(records=store.records, owned=lambda _: True, content=store.objects.get)
        return RunHistory(run_id, sources)


def _place_of_item(history: RunHistory, turns: tuple[Turn, ...]) -> int | None:
    """Place in these turns of the item of a parallel loop; None where they lie in none."""
    fork = history.fork_of(turns)
    return len(fork[1]) if fork is not None else None


def _left(
    history: RunHistory,
    number: int,
    turns: tuple[Turn, ...],
    item: int | None,
    *,
    until: int | None = None,
) -> list[_Left]:
    """The jobs that a step has ended with, in order, but for those of items beside it.

    Args:
        history: the run.
        number: its number of the step.
        turns: those that the step is in now.
        item: place in them of the item of a parallel loop.
        until: so many jobs of the run were before; None for all.
    """
    own = {
        job.job_id: job.turns
        for job in history.jobs[:until]
        if job.step == number and not (job.follows or job.forks)
    }
    stands = history.state(number).job_id
    known = ({stands: ()} if stands else {}) | {
        job_id: path for (step, path), job_id in history.turns.items() if step == number
    }
    since = {job.job_id for job in history.jobs} - own.keys()
    kept = {j: path for j, path in known.items() if j not in own and j not in since}
    found = list[_Left]()
    for job_id, path in (*kept.items(), *own.items()):
        apart = [n for n in (item, _place_of_item(history, path)) if n is not None]
        if all(_keys(path)[n : n + 1] in {_keys(turns)[n : n + 1], ()} for n in apart):
            found.append(_Left(job_id=job_id, turns=path, own=job_id in own))
    # the job that ends a loop has a turn less than what is executed
    return [left for left in found if len(left.turns) == len(turns)] or found


def _keys(turns: tuple[Turn, ...]) -> tuple[str, ...]:
    """An item is known by its key: its place may be another one by now."""
    return tuple(turn.key for turn in turns)
