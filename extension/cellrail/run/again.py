"""Cells that run again before a cut: which jobs of them, and on what.

A plain cell runs again once. Of a loop each item's job does, in order, on the namespace right
before it and with the loop's variable bound to the item; only the last one where the cell binds in
any case what it runs again for. What the first run tolerated (`--on-error continue`) is tolerated
again.
"""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from cellrail.errors import RestartRefused
from cellrail.notebook.collecting import error_name
from cellrail.notebook.firstuse import first_use
from cellrail.notebook.foreach import split, targets
from cellrail.notebook.model import Step
from cellrail.notebook.options import OptionError, StepOptions, parse_options
from cellrail.notebook.plan import Fate, PlannedStep
from cellrail.notebook.reads import lineage, names_of
from cellrail.run.client import CellClient, CellResult, Ending
from cellrail.run.desk import Desk, Job, Then
from cellrail.run.orders import Order, items, root_of
from cellrail.step_line import blank_step_line
from cellrail_state.chains import names_of as names_of_job
from cellrail_state.history import RunHistory
from cellrail_state.model import (
    Checkpoint,
    JobFinished,
    StepInfo,
    StepStatus,
    Turn,
    Variable,
    Verdict,
    Woken,
)

#: a place, or what stands for a secret: it does not tell which item it is of
_SILENT = re.compile(r"^#\d+$|\*\*\*|secret-[0-9a-f]{16}")


class Entering(msgspec.Struct, frozen=True, kw_only=True):
    """A loop's variable and the item that it has in a turn."""

    root: str
    foreach: str
    key: str
    turn: Turn
    #: the turn was entered before the job: what is stored of the variable is there
    entered: bool

    @property
    def names(self) -> list[str]:
        """The variables."""
        return targets(self.foreach)


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A cell that runs again before the cut, and the namespace it runs on."""

    planned: PlannedStep
    checkpoint: Checkpoint
    #: the namespace after it, as it ran first
    ran: Checkpoint
    #: jobs of the chain before it
    jobs: tuple[JobFinished, ...]
    #: of a rebuilding cell, its job as it ran first
    was: JobFinished | None = None
    #: how the wait right before that ended
    woken: Woken | None = None
    #: the origin's job that an `--always` cell's new job stands for
    replaces: str = ""
    #: the turns that the cell belongs to
    turns: tuple[Turn, ...] = ()
    #: names of it that stay when the next checkpoint is laid over
    protects: frozenset[str] = frozenset()
    #: variables of the loops around a rebuilding cell, outermost first
    entering: tuple[Entering, ...] = ()
    #: it failed when it ran first, and the flow went on with what it left
    failed: bool = False


class Again:
    """Binds loops' variables for cells that run again."""

    def __init__(self) -> None:
        #: items that had to be evaluated anew, since no checkpoint holds them
        self._taken: set[str] = set()
        #: the turn of each loop that a cell ran again in last
        self._turns: dict[str, Turn] = {}

    def has(self, root: str) -> bool:
        """Whether a loop's items were evaluated anew, and are there for what comes."""
        return root in self._taken

    def enter(
        self,
        segment: Segment,
        ask: Callable[[Order], dict[str, Any]],
        made: Collection[str] = (),
    ) -> list[Order]:
        """What is to be done right before the cell.

        Args:
            segment: the cell; the kernel has the namespace before it.
            ask: has the kernel carry out an order.
            made: names that cells which ran again before it have made, and that stay.

        Raises:
            RestartRefused: the items are others by now.
        """
        before: list[Order] = []
        variables = segment.checkpoint.variables
        for entering in segment.entering:
            # what cells of the turn have made of its item is no longer the item as it was
            there = made if self._turns.get(entering.root) == entering.turn else ()
            self._turns[entering.root] = entering.turn
            if entering.entered and all(
                name in there or _is_stored(variables.get(name)) for name in entering.names
            ):
                continue
            if not self._is_there(entering.root, variables):
                answer = ask(
                    {**items(entering.foreach, entering.key, root=entering.root), "before": before}
                )
                before = []
                self._taken.add(entering.root)
                _check(entering, answer, segment.planned.label)
            before.append(
                {
                    "what": "enter", "root": entering.root, "index": entering.turn.index,
                    "target": split(entering.foreach)[0],
                }
            )  # fmt: skip
        return before

    def _is_there(self, root: str, variables: Mapping[str, Variable]) -> bool:
        return _is_stored(variables.get(root)) or (root in self._taken and root in variables)


def _check(entering: Entering, answer: Mapping[str, Any], label: str) -> None:
    keys, turn = answer.get("keys", ()), entering.turn
    if raised := answer.get("raised"):
        why = f"{raised['name']}: {raised['value']}"
    elif turn.index >= len(keys) or (keys[turn.index] != turn.key and not _SILENT.search(turn.key)):
        why = f"{turn} is no longer among them"
    else:
        return
    raise RestartRefused(
        f"step {label!r} had to run again, and its items cannot be had as they were: {why}",
        hint="restart from this step or an earlier one",
    )


def _is_stored(variable: Variable | None) -> bool:
    return variable is not None and variable.verdict is Verdict.STORED


def execute_again(
    client: CellClient,
    desk: Desk,
    segment: Segment,
    step: Step,
    cells: Sequence[Any],
    *,
    sources: Mapping[int, str],
    before: list[Order],
    seconds: float | None,
) -> CellResult | None:
    """Execute a step's cells once more, for what they make: nothing of it is shown or committed.

    Args:
        client: the kernel's; it has the namespace before the step.
        desk: answers what they ask: as it answered them first, where they rebuild what they made.
        segment: what they are executed for.
        step: the step.
        cells: of the notebook.
        sources: what is executed where a cell's own source is masked, by cell index.
        before: what is to be done right before the first of them.
        seconds: that each of them may take; None for no limit.

    Returns:
        How one ended that did not end well, nor as it did when the flow went on; None for none.
    """
    with answered(desk, segment, step):
        for index in step.cell_indices:
            cell = copy.deepcopy(cells[index])
            message_id = client.start(
                sources.get(index, cell["source"]),
                cell_id=step.cell_id or step.label,
                orders={
                    "before": before, "checkpoint": False, "on_error": False,
                    "binds_error": error_name(step),
                },
            )  # fmt: skip
            before = []
            result = client.finish(message_id, cell, index, seconds)
            tolerated = (segment.failed or step.may_fail) and result.ending is Ending.ERROR
            if not (result.ending is Ending.OK or tolerated):
                return result
        return None


def answered(desk: Desk, segment: Segment, step: Step) -> contextlib.AbstractContextManager[None]:
    """How is answered what a cell asks meanwhile that is executed again.

    Args:
        desk: it answers.
        segment: what the cell is executed for.
        step: the cell's.
    """
    was = segment.was
    if was is None:  # an `--always` cell: it sees what is there now
        return desk.in_vain(Job.of(step, segment.planned.job_id, turns=segment.turns))
    job = Job.of(step, was.job_id, turns=was.turns, attempt=was.attempt, runs=was.runs)
    return desk.as_then(Then(job=job, was=was, before=segment.jobs, woken=segment.woken))


def how_it_ended(result: CellResult) -> str:
    """How a cell that was executed again ended, in words."""
    if result.ending is Ending.ERROR and result.error is not None:
        return f"{result.error.name}: {result.error.value}"
    return "the kernel died" if result.ending is Ending.DIED else str(result.ending)


# --- which jobs ------------------------------------------------------------------------------


def segments_of(
    steps: Sequence[PlannedStep],
    jobs: Sequence[JobFinished],
    history: RunHistory,
    turns: Mapping[int, PlannedStep] | None = None,
) -> list[Segment]:
    """The cells that run again before the cut.

    Args:
        steps: the plan's steps in order.
        jobs: the chain of jobs before the cut.
        history: the run that the plan keeps jobs of.
        turns: of a loop that is gone on with in its midst, what its jobs rebuild, by their places.
    """
    return _Segments(steps, jobs, history).all(turns or {})


class _Segments:
    def __init__(
        self, steps: Sequence[PlannedStep], jobs: Sequence[JobFinished], history: RunHistory
    ) -> None:
        self._jobs, self._history = jobs, history
        self._places = {
            job_id: place for place, job in enumerate(jobs) for job_id in sorted(names_of_job(job))
        }
        again = {Fate.RUNS_AGAIN, Fate.REBUILDS}
        self._planned = [s for s in steps if s.fate in again and s.job_id in self._places]
        self._checkpoints = [Checkpoint()]
        self._infos = {state.job_id: state.info for state in history.states}
        self._loops = {state.info.label: state.info for state in history.states}

    def all(self, turns: Mapping[int, PlannedStep]) -> list[Segment]:
        found = {p: self._again(planned, p, self._jobs[p].turns) for p, planned in turns.items()}
        for planned in self._planned:
            if planned.fate is Fate.REBUILDS:
                found |= self._rebuilding(planned)
        for planned in self._planned:
            if planned.fate is Fate.RUNS_AGAIN:
                place, always = self._always(planned)
                for_it = found[place].protects if place in found else frozenset()
                found[place] = msgspec.structs.replace(always, protects=always.protects | for_it)
        return [segment for _, segment in sorted(found.items())]

    def _always(self, planned: PlannedStep) -> tuple[int, Segment]:
        place = self._places[planned.job_id]
        return place, Segment(
            planned=planned,
            replaces=planned.job_id,
            turns=self._jobs[place].turns,
            protects=_protects(self._jobs, place),
            **self._around(place),
        )

    def _around(self, place: int) -> dict[str, Any]:
        return {
            "checkpoint": self._before(place),
            "ran": self._before(place + 1),
            "jobs": tuple(self._jobs[:place]),
        }

    def _before(self, place: int) -> Checkpoint:
        known = self._checkpoints
        while len(known) <= place:
            known.append(known[-1].after(self._jobs[len(known) - 1].delta))
        return known[place]

    def _rebuilding(self, planned: PlannedStep) -> Iterator[tuple[int, Segment]]:
        info = self._infos.get(planned.job_id)
        turns = self._turns(planned, info)
        places = sorted(turns)
        if places and self._last_will_do(planned, info, places[-1], turns[places[-1]]):
            places = places[-1:]
        for place in places:
            yield place, self._again(planned, place, turns[place])

    def _again(self, planned: PlannedStep, place: int, turns: Sequence[Turn]) -> Segment:
        """The cell of a job, for what its step rebuilds."""
        entering = tuple(self._entering(place, turns))
        after = self._before(place + 1).variables
        # items that no checkpoint holds stay for the items behind
        roots = [each.root for each in entering if not _is_stored(after.get(each.root))]
        return Segment(
            planned=planned,
            protects=frozenset((*planned.names, *roots)),
            entering=entering,
            failed=self._jobs[place].status is StepStatus.FAILED,
            was=self._jobs[place],
            woken=self._woken(place),
            **self._around(place),
        )

    def _woken(self, place: int) -> Woken | None:
        """How the wait ended that a job stands right behind."""
        if not self._history.woken:
            return None
        # items begin behind the job that their loop forks from, and are told of a wait before it
        while place and self._jobs[place - 1].forks:
            place -= 1
        return self._history.woken.get(self._history.stepped_last(self._jobs[:place]))

    def _turns(self, planned: PlannedStep, info: StepInfo | None) -> dict[int, tuple[Turn, ...]]:
        """The jobs that executed a step's cell, by place, with the turns that each belongs to."""
        place = self._places[planned.job_id]
        if info is None:
            return {place: ()}
        found = {
            self._places[job.job_id]: turns
            for turns, job in self._history.turns_of(info.number)
            if job.job_id in self._places and self._is_of_execution(job, self._jobs[place])
        }
        found.setdefault(place, ())
        if not _options(info).loops:
            return found
        # the job that ends a loop executed nothing
        return {p: turns for p, turns in found.items() if turns and turns[-1].loop == info.label}

    def _is_of_execution(self, job: JobFinished, last: JobFinished) -> bool:
        """Whether both are of one execution: a person may have executed the loop before."""
        return not self._history.is_live or job.sequence == last.sequence

    def _last_will_do(
        self, planned: PlannedStep, info: StepInfo | None, place: int, turns: Sequence[Turn]
    ) -> bool:
        """Whether the last job alone makes all of it again, whatever earlier ones made."""
        if info is None or not turns or self._jobs[place].status is StepStatus.FAILED:
            return False
        mates = [
            other
            for other in self._planned
            if self._loops.get(turns[0].loop) is self._infos.get(other.job_id)
            or any(t.loop == turns[0].loop for t in self._jobs[self._places[other.job_id]].turns)
        ]
        if any(other is not planned for other in mates):
            return False
        variables = self._before(place).variables
        known = (_is_stored(variables.get(each.root)) for each in self._entering(place, turns))
        if not (all(known) and first_use(_body(info)).binds.issuperset(planned.names)):
            return False
        reached = self._reached_first(info)
        # what it makes of the value that it finds, it makes of what all the earlier ones made
        return reached is not None and reached.isdisjoint(planned.names)

    def _reached_first(self, info: StepInfo) -> frozenset[str] | None:
        """Names that a step's code can reach before it has bound them; None for any name."""
        infos = [state.info for state in self._history.states]
        names, uses = [names_of(_body(i)) for i in infos], [first_use(_body(i)).uses for i in infos]
        reads = [n.reads if u is None else n.reads & u for n, u in zip(names, uses, strict=True)]
        return lineage(names, reads)[infos.index(info)]

    def _entering(self, place: int, turns: Sequence[Turn]) -> Iterator[Entering]:
        before = self._jobs[place - 1].turns if place else ()
        shared = 0
        while shared < min(len(turns), len(before)) and turns[shared] == before[shared]:
            shared += 1
        for depth, turn in enumerate(turns):
            loop = self._loops.get(turn.loop)
            options = _options(loop) if loop is not None else StepOptions()
            if options.foreach:
                yield Entering(
                    root=root_of(turn.loop, turns[:depth]),
                    foreach=options.foreach,
                    key=options.key,
                    turn=turn,
                    entered=depth < shared,
                )


def _body(info: StepInfo) -> str:
    return "".join(blank_step_line(info.source.splitlines(keepends=True)))


def _options(info: StepInfo) -> StepOptions:
    try:
        return parse_options(info.options)
    except OptionError:  # of another version of cellrail
        return StepOptions()


def _protects(jobs: Sequence[JobFinished], place: int) -> frozenset[str]:
    """What an `--always` cell wrote and no later kept step wrote again."""
    later: set[str] = set()
    for job in jobs[place + 1 :]:
        later |= set(job.delta.written)
    return frozenset(set(jobs[place].delta.written) - later)
