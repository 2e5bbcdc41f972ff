"""Leads the control machine to a cut inside a loop, by what the origin's journal tells.

Up to the cut conditions have their recorded values, and jobs that ended well are kept: the new run
points to them. At the cut, conditions are evaluated again.

Items of a parallel loop are independent: of each one what ended well is kept, whatever its place,
and it goes on where it did not. An item that was asked for is executed again from its beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from cellrail.errors import RestartRefused
from cellrail.notebook import actions, control
from cellrail.notebook.actions import Path
from cellrail.notebook.collecting import Collecting, Did, Mark
from cellrail.notebook.model import Step
from cellrail.notebook.underway import Going
from cellrail.run.client import CellResult
from cellrail_state.chains import is_good
from cellrail_state.errors import JournalDamaged
from cellrail_state.history import RunHistory
from cellrail_state.model import Checkpoint, JobFinished, StepError, StepKept, StepStatus, Turn
from cellrail_state.turns import job_address, lies_in

#: causes of jobs that have told nothing
KERNEL_DIED, REBUILD_FAILED = "the kernel died", "rebuild failed"


class _Cut(msgspec.Struct, frozen=True):
    """Where a replay ends."""

    #: the step that is executed next
    number: int
    turns: Path
    #: only the job that ends it is left: the step is a loop
    ends: bool = False


#: no action has this place: a replay with this target answers everything
_NOWHERE = _Cut(-1, ())


class Stage(Protocol):
    """Where it is shown what was done before."""

    #: the cell's result that was committed last
    result: CellResult | None

    def perform(self, action: actions.Action) -> Any:
        """Carry an action out."""

    def show(self, step: Step, outputs: Sequence[Mapping[str, Any]]) -> None:
        """Show the outputs of a kept turn."""

    def show_job(self, step: Step, job: JobFinished, outputs: Sequence[Mapping[str, Any]]) -> None:
        """Show a job that an earlier owner committed."""

    def settle(self) -> None:
        """What was to be done before the next cell is part of a checkpoint already."""


class Teller(Protocol):
    """Who is told of turns that are kept from an origin."""

    def kept_turn(self, step: int, job_id: str, turns: Path, forks: str = "") -> None:
        """A turn points to a job of an earlier run."""

    def skipped(self, step: int, reason: str, turns: Path = ()) -> None:
        """A step was not executed, on purpose."""

    def decided(self, ask: actions.Ask, told: actions.Told) -> None:
        """An expression has a value."""


class ItemPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of one item of a parallel loop."""

    #: answers until its cut; None for an item that is executed from its beginning
    replay: Replay | None = None
    #: nothing of it is executed
    kept: bool = False
    #: its kept jobs
    jobs: tuple[JobFinished, ...] = ()
    #: what a kept item left to be collected, where its jobs alone do not tell
    left: Checkpoint | None = None
    #: the run's own journal tells what is kept
    told: bool = False


class Replay:
    """Answers actions until the cut is reached."""

    def __init__(
        self,
        history: RunHistory,
        *,
        numbers: Mapping[int, int],
        step: int,
        turns: tuple[Turn, ...],
        ends: bool = False,
        again: Collection[str] | None = None,
        apart: str = "",
        reeval: bool = False,
        old: Callable[[actions.Path], actions.Path] | None = None,
    ) -> None:
        """Prepare.

        Args:
            history: the origin.
            numbers: the origin's number of each step of today's notebook.
            step: number of the step at the cut, today.
            turns: the turns that it belongs to.
            ends: it is a loop, and only the job that ends it is left.
            again: keys of items that are executed again, of the outermost loop of `turns`.
            apart: label of that loop, where its items ran one after another and run apart now.
            reeval: the items of the innermost loop of `turns` are evaluated anew.
            old: the turns as the origin has them; None where they are told here.
        """
        self._history, self._numbers = history, numbers
        self._target = _Cut(step, turns, ends)
        self._reached = False
        self._again = frozenset(again or ())
        self.apart = apart
        self._old = old or self._known_turns
        #: place in `turns` of the loop whose items are evaluated anew
        self._anew = len(turns) - 1 if reeval else None

    @property
    def target(self) -> actions.Path:
        """The turns that the cut lies in."""
        return self._target.turns

    @property
    def reached(self) -> bool:
        """Whether the cut was come to."""
        return self._reached

    def goes_on(self, fork: actions.Fork) -> Going:
        """Where an item of a parallel loop is gone on with: it leads there."""
        target = self._target
        label = next(s.label for s in fork.block.steps() if s.number == target.number)
        loops = tuple(turn.loop for turn in target.turns[len(fork.path) + 1 :])
        return Going(loops=loops, step=label, ends=target.ends)

    def numbers(self, fork: actions.Fork) -> dict[str, int]:
        """Today's number of the step of each of the origin's jobs in a loop."""
        today = {self._numbers.get(s.number, s.number): s.number for s in fork.block.steps()}
        known = self._history.turns.items()
        return {job_id: today[number] for (number, _), job_id in known if number in today}

    # --- up to the cut -----------------------------------------------------------------------

    def takes(self, action: actions.Action) -> bool:
        """Whether the action lies before the cut.

        Raises:
            RestartRefused: the items that were evaluated anew do not lead to it.
        """
        if isinstance(action, actions.Fork) and self._is_target(action):
            return False
        if self._is_cut(action):
            self._reached = True
        if self._reached:
            return False
        if self._anew is None:
            return True
        if isinstance(action, actions.Ask) and action.purpose is actions.Purpose.FOREACH:
            return not self._is_target(action)
        self._check_items(action)
        return True

    def forces(self, step: Step, path: actions.Path) -> bool:
        """Whether a job was asked for: it is at the cut, or of an item that is executed again."""
        depth = len(self.target)
        asked = depth and any(turn.key in self._again for turn in path[depth - 1 : depth])
        return self._is_at_cut(step, path) or bool(asked)

    def _is_cut(self, action: actions.Action) -> bool:
        """Whether everything before an action is told."""
        ends = not self._target.ends or isinstance(action, actions.Leave)
        return ends and self._is_at_cut(action.step, action.path)

    def _is_at_cut(self, step: Step, path: actions.Path) -> bool:
        """Whether something is of the step at the cut: of a loop that is cut whole, any turn."""
        if step.number != self._target.number:
            return False
        return path == self.target or lies_in(path, step.label, self.target)

    def _is_target(self, action: actions.Action) -> bool:
        """Whether the loop of the action is one that the cut lies in."""
        depth, turns = len(action.path), self.target
        inside = turns[:depth] == action.path and len(turns) > depth
        if not inside or turns[depth].loop != action.step.label or self._reached:
            return False
        return isinstance(action, actions.Fork) or depth == self._anew

    def _check_items(self, action: actions.Action) -> None:
        """Items before the cut of a loop that is no parallel one are what they were, in order."""
        place, turns = self._anew, self.target
        if place is None or turns[:place] != action.path[:place]:
            return
        loop = turns[place].loop
        left = isinstance(action, actions.Leave) and action.step.label == loop
        if len(action.path) <= place and not left:
            return
        now = action.path[place] if len(action.path) > place else None
        if now is None or now.index > turns[place].index or not self._is_known(action.path, place):
            told = f"{now} is new, or not where it was" if now is not None else "they end before it"
            raise RestartRefused(
                f"the items before {turns[place]} are not those of the origin: {told}",
                hint=from_loop(turns[: place + 1]),
            )

    def answered(self, action: actions.Action, told: Any) -> None:
        """An action was carried out that is not before the cut.

        Raises:
            RestartRefused: the items that were to be evaluated anew cannot be.
        """
        if not isinstance(action, actions.Ask) or action.purpose is not actions.Purpose.FOREACH:
            return
        if self._anew is not None and told.error is not None and self._is_target(action):
            raise not_evaluated(action.step, action.path, told.error)

    def _is_known(self, path: actions.Path, place: int) -> bool:
        keys = self._keys(path[place].loop, path[:place])
        turn = path[place]
        return turn.index < len(keys) and keys[turn.index] == turn.key

    def _keys(self, loop: str, around: actions.Path) -> tuple[str, ...]:
        """The origin's items of a loop."""
        for (_, purpose, turns), decided in self._history.decided.items():
            mine = purpose == actions.Purpose.FOREACH and turns == around
            if mine and self._history.label_of(decided.step) == loop:
                return decided.keys
        return ()

    def _number(self, action: actions.Action) -> int:
        return self._numbers.get(action.step.number, action.step.number)

    def _known_turns(self, turns: actions.Path) -> actions.Path:
        """The turns as the origin has them: an item is known by its key."""
        place = self._anew
        if place is None or len(turns) <= place or turns[:place] != self.target[:place]:
            return turns
        keys, turn = self._keys(turns[place].loop, turns[:place]), turns[place]
        if turn.key not in keys:
            return turns
        known = Turn(turn.loop, keys.index(turn.key), turn.key)
        return (*turns[:place], known, *turns[place + 1 :])

    def perform(self, action: actions.Action, stage: Stage, teller: Teller) -> Any:
        """What the origin's journal answers."""
        if isinstance(action, actions.Ask):
            return self._told(action, teller)
        if isinstance(action, actions.Fire):
            return self._ended(self._job(action))
        if isinstance(action, actions.Fork):
            return self.keep_items(action, stage, teller)
        if isinstance(action, actions.Commit):
            if action.accepted or action.status is StepStatus.SUCCESS:
                job = self._job(action)
                teller.kept_turn(action.step.number, job.job_id, action.path)
                self._show(stage, action.step, job)
            stage.settle()
        elif isinstance(action, actions.Leave):
            job = self._job(action)
            teller.kept_turn(action.step.number, job.job_id, action.path)
            stage.settle()
        elif isinstance(action, actions.Suspend):
            return actions.Woke(by="resume")
        elif not isinstance(action, (actions.RollBack, actions.Wait)):
            stage.perform(action)
        return None

    @staticmethod
    def _ended(job: JobFinished) -> actions.Ended:
        if job.status in {StepStatus.SUCCESS, StepStatus.KEPT}:
            return actions.Ended(ending="ok")
        if job.error is None and job.cause.startswith((KERNEL_DIED, REBUILD_FAILED)):
            return actions.Ended(ending="died", alive=False)
        return actions.Ended(ending="error", error=job.error)

    def _told(self, action: actions.Ask, teller: Teller) -> actions.Told:
        told = self._recorded(action)
        if told is None:
            raise JournalDamaged(
                f"the origin's journal does not tell --{action.purpose} of "
                f"{job_address(action.step.label, action.path)}",
                hint=from_loop(action.path, action.step),
            )
        teller.decided(action, told)
        return told

    def _recorded(self, action: actions.Ask) -> actions.Told | None:
        place = (self._number(action), str(action.purpose), self._old(action.path))
        known = self._history.decided.get(place)
        return actions.Told.of(known) if known is not None else None

    def _job(self, action: actions.Action) -> JobFinished:
        job_id = self._history.turns.get((self._number(action), self._old(action.path)))
        if job_id is None:
            where = job_address(action.step.label, action.path)
            raise RestartRefused(
                f"the origin has no job of {where}, which the restart would keep",
                hint=from_loop(action.path, action.step),
            )
        return self._history.job_by_id(job_id)

    def _show(self, stage: Stage, step: Step, job: JobFinished) -> None:
        stage.show(step, self._history.outputs(job))

    # --- items -------------------------------------------------------------------------------

    def items(self, fork: actions.Fork) -> list[ItemPlan] | None:
        """What becomes of each item of a parallel loop; None where nothing of it is kept.

        From here on everything that is not an item is executed.
        """
        if not self._is_target(fork):
            return None
        self._reached = True
        return self.item_plans(fork)

    def passes(self, fork: actions.Fork) -> None:
        """A parallel loop was carried out; if the cut lies in it, it is behind."""
        self._reached = self._reached or self._is_target(fork)

    def item_plans(self, fork: actions.Fork) -> list[ItemPlan]:
        """What becomes of each item of the loop that the cut lies in."""
        ends = self._sequential_ends(fork) if self.apart else {}
        plans = [self._item_plan(fork, path) for path in fork.items]
        if not self.apart:
            return plans
        # only whole items can be carried out behind the others
        return [
            msgspec.structs.replace(plan, left=ends.get(path)) if plan.kept else ItemPlan()
            for path, plan in zip(fork.items, plans, strict=True)
        ]

    def _item_plan(self, fork: actions.Fork, path: actions.Path) -> ItemPlan:
        old = self._old(path)
        known = old[-1].key in self._keys(fork.step.label, fork.path)
        here = _Cut(fork.step.number, path)
        if path[-1].key in self._again or self._target == here or not known:
            return ItemPlan()
        cut = self._target if self.target[: len(path)] == path else self._open_end(fork, path)
        if cut == here:
            return ItemPlan()
        if cut is None:
            jobs = self._history.item_jobs(old)
            if any(job.delta.failure for job in jobs):
                return ItemPlan()
            return ItemPlan(replay=self._up_to(_NOWHERE), kept=True, jobs=tuple(jobs))
        before = (self._numbers.get(cut.number, cut.number), self._old(cut.turns))
        jobs = self._history.item_jobs(old, None if cut.ends else before)
        if any(job.delta.failure for job in jobs[-1:]):
            return ItemPlan()
        return ItemPlan(replay=self._up_to(cut), jobs=tuple(jobs))

    def _up_to(self, target: _Cut) -> Replay:
        """A replay of one item."""
        return Replay(
            self._history, numbers=self._numbers, step=target.number, turns=target.turns,
            ends=target.ends, old=self._old,
        )  # fmt: skip

    def _open_end(self, fork: actions.Fork, path: actions.Path) -> _Cut | None:
        """Where an item did not end well in the origin; None where it did."""
        machine = control.conduct_item(fork, path)
        answer: Any = None
        while True:
            try:
                action = machine.send(answer)
            except StopIteration as stop:
                end = stop.value.end
                return None if end is None else _Cut(fork.step.number, path)
            here, answer = _Cut(action.step.number, action.path), None
            if isinstance(action, actions.Ask):
                answer = self._recorded(action)
                if answer is None or not self._has_items(action, answer):
                    return here
            elif isinstance(action, actions.Fire):
                job = self._good_job(action.step, action.path)
                if job is None:
                    return here
                answer = self._ended(job)
            elif isinstance(action, actions.Leave) and not self._good_job(action.step, action.path):
                return msgspec.structs.replace(here, ends=True)

    def _has_items(self, ask: actions.Ask, told: actions.Told) -> bool:
        """Whether a kept job holds the items that were evaluated: the loop's first one does."""
        if ask.purpose is not actions.Purpose.FOREACH:
            return True
        first = [(*ask.path, Turn(ask.step.label, 0, key)) for key in told.keys[:1]]
        return any(self._good_job(ask.step, path) is not None for path in (ask.path, *first))

    def _good_job(self, step: Step, path: actions.Path) -> JobFinished | None:
        """A job of the origin that the flow went on behind; None where it has none."""
        number = self._numbers.get(step.number, step.number)
        job_id = self._history.turns.get((number, self._old(path)))
        job = self._history.job_by_id(job_id) if job_id is not None else None
        return job if job is not None and is_good(job) else None

    def _sequential_ends(self, fork: actions.Fork) -> dict[actions.Path, Checkpoint]:
        """What each item of a loop that was not parallel left, by its turns."""
        collecting, checkpoint = Collecting(fork.block), Checkpoint()
        steps = {self._numbers.get(s.number, s.number): s for s in fork.block.steps()}
        numbers = {job_id: number for (number, _), job_id in self._history.turns.items()}
        ends: dict[actions.Path, Checkpoint] = {}
        did: dict[actions.Path, set[Mark]] = {}
        depth = len(fork.path) + 1
        for job in self._history.chain:
            checkpoint = Checkpoint.fold([job.delta], before=checkpoint)
            if len(job.turns) < depth or job.turns[depth - 1].loop != fork.step.label:
                continue
            item, step = job.turns[:depth], steps.get(numbers.get(job.lays or job.job_id, -1))
            if step is None:
                continue
            did.setdefault(item, set()).add((step.number, _did(step, job)))
            missing = collecting.missing(did[item])
            left = [name for name in collecting.names if name not in missing]
            passed = not_ended(job) and not (step.may_fail or step.options.on_error == "continue")
            ends[item] = Checkpoint() if passed else checkpoint.only(left)
        return ends

    def keep_items(self, fork: actions.Fork, stage: Stage, teller: Teller) -> actions.Joined:
        """Keep a parallel loop before the cut as it was."""
        number, depth = self._number(fork), len(fork.path)
        fork_id = self._history.forks.get((number, fork.path))
        if fork_id is None:
            raise JournalDamaged(
                f"the origin's journal does not tell the items of {fork.step.label}",
                hint=from_loop(fork.path, fork.step),
            )
        teller.kept_turn(fork.step.number, fork_id, fork.path, fork.step.label)
        numbers = {self._numbers.get(s.number, s.number): s for s in fork.block.steps()}
        label = fork.step.label
        for decided in self._history.decided.values():
            if decided.step in numbers and lies_in(decided.turns, label, fork.path):
                ask = actions.Ask(
                    step=numbers[decided.step], path=decided.turns,
                    purpose=actions.Purpose(decided.purpose), expression=decided.expression,
                )  # fmt: skip
                teller.decided(ask, actions.Told.of(decided))
        records = [
            record
            for record in self._history.turn_records
            if record.step in numbers and lies_in(record.turns, label, fork.path)
        ]
        records.sort(key=lambda record: [turn.index for turn in record.turns[: depth + 1]])
        for record in records:
            step = numbers[record.step]
            if not isinstance(record, (StepKept, JobFinished)):
                teller.skipped(step.number, record.reason, record.turns)
            elif self._history.turns.get((record.step, record.turns)) == record.job_id:
                teller.kept_turn(step.number, record.job_id, record.turns)
                self._show(stage, step, self._history.job_by_id(record.job_id))
        stage.settle()
        return actions.Joined(items=tuple(actions.ItemEnd() for _ in fork.items))


class Rehearsal(Replay):
    """Leads there to see whether it can be done: nothing is shown."""

    def _show(self, stage: Stage, step: Step, job: JobFinished) -> None:
        """Read no outputs."""


def from_loop(turns: Sequence[Turn], step: Step | None = None) -> str:
    """What to do where nothing inside a loop can be kept.

    Args:
        turns: those that something is wrong in, the loop's last.
        step: the loop itself, where they are those around it.
    """
    if step is not None and step.options.loops and (not turns or turns[-1].loop != step.label):
        around, loop = turns, step.label
    else:
        around, loop = turns[:-1], turns[-1].loop if turns else step.label if step else ""
    found = "/".join([*map(str, around), loop])
    quoted = f"'{found}'" if around else found
    return f"restart from the loop itself: --from {quoted}"


def not_evaluated(step: Step, path: Path, error: StepError) -> RestartRefused:
    """The refusal of a restart whose items cannot be evaluated anew."""
    where, told = job_address(step.label, path), f"{error.name}: {error.value}"
    return RestartRefused(
        f"the items of {where!r} cannot be evaluated anew: {told}",
        hint="without --reeval the items of the origin are used",
    )


def not_ended(job: JobFinished) -> bool:
    """Whether a job failed, so that its item has nothing to be collected."""
    return job.status not in {StepStatus.SUCCESS, StepStatus.KEPT}


def _did(step: Step, job: JobFinished) -> Did:
    """What a job tells of its step."""
    if not_ended(job):
        return Did.FAILED
    ends_a_loop = step.options.loops and job.turns[-1].loop != step.label
    return Did.LEFT if ends_a_loop else Did.WELL
