"""The clerk of waits in an open notebook, where the kernel drives and a person executes cells.

A step that suspends is a gate: the cells behind it are refused until it is answered, those above it
go on being executed. `--sleep` is a gate of time: the next cell behind it waits. What came of a
gate is looked at when the next cell begins; buttons under the cell, `cellrail resume` and the time
that is up all answer in the store's inbox, where the first counts.

What becomes of a gate, a closed set:

* open: it was resumed, or its time is up and that means going on; it is forgotten;
* closed: cancelled, or its time is up and that means so; it stays until its step is executed again;
* void: its step is executed again, or the kernel ends.

Waits in a cell (`flow.rerun`, before a retry, in a loop) hold the kernel, as the cell does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from cellrail.errors import NotWaiting, UserError
from cellrail.notebook import actions
from cellrail.notebook.address import Addressed
from cellrail.run.desk import Desk, Job
from cellrail.run.waits import Waiter, WaitRules, in_words, woke
from cellrail_state import waits
from cellrail_state.model import Turn, WaitInfo, Woken
from cellrail_state.waits import Answer

#: what buttons say that nobody has pressed in time
_VOID = "this wait is over: its cell was executed again, or its kernel has ended"


class Places(Protocol):
    """Which cells stand where in the notebook."""

    @property
    def steps(self) -> Sequence[Addressed]:
        """The steps that are known."""

    def is_behind(self, number: int, other: int) -> bool:
        """Whether a step stands behind another one."""


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """A wait behind a step, that holds the cells behind that."""

    info: WaitInfo
    #: how it was closed; None while it may open
    closed: Woken | None = None

    @property
    def is_time(self) -> bool:
        """Time alone has to pass."""
        return self.closed is None and self.info.kind != waits.SUSPEND

    def __str__(self) -> str:
        """Why a cell behind it is not executed."""
        label, closed = self.info.label, self.closed
        if closed is None:
            return f"this cell {in_words(self.info)}: %flow resume, or %flow cancel"
        return (
            f"{label} was {how(closed.by, closed.who)}: execute it again before what is behind it"
        )


class LiveWaiter(Waiter):
    """Answers what cells ask about waits, and knows which cells are held."""

    def __init__(self, desk: Desk, *, rules: WaitRules, places: Places) -> None:
        """Nothing has been waited for yet.

        Args:
            desk: the live run's.
            rules: how it waits.
            places: which cells stand where.
        """
        super().__init__(desk, rules=rules)
        self._places = places
        self._gates: dict[int, Gate] = {}
        #: the gate that the cell which runs, or ran last, has made
        self.made: Gate | None = None
        #: how the last wait ended, until a job begins that is told so: the next one behind it,
        #: and the next one of the cell that runs
        self._fresh: Woken | None = None
        self._inside: Woken | None = None
        #: who was told, and what; executed again, a cell is told the same
        self._readers: dict[tuple[int, tuple[Turn, ...]], Woken] = {}
        #: the current job can be executed again, on the namespace before it
        self._repeatable = False
        # a button's callback may run in another thread than the cells
        self._looking = threading.RLock()
        #: who wants to know what became of a gate, by wait
        self._watching: dict[str, Callable[[str], None]] = {}

    @property
    def steps(self) -> Sequence[Addressed]:
        """The cells executed so far, and those of the notebook as it was saved."""
        return self._places.steps

    # --- questions ---------------------------------------------------------------------------

    def rerun(
        self,
        job: Job | None,
        seconds: float,
        context: str | None,
        max_retries: int,
        on_exceeded: str,
    ) -> dict[str, Any]:
        """The step shall be executed again after a while."""
        if not self._repeatable:
            raise UserError(
                "flow.rerun() is hidden here: before a cell begins an open notebook has to know "
                "that it may be executed again",
                hint="call flow.rerun() in the cell itself, or in a function that the cell names",
            )
        return super().rerun(job, seconds, context, max_retries, on_exceeded)

    # --- jobs --------------------------------------------------------------------------------

    def begin(self, job: Job) -> None:
        """A job begins; what it waited for when it was executed before is void."""
        with self._looking:
            self._repeatable, self.made = False, None
            place = (job.number, job.turns)
            if job.runs == 1 and job.attempt == 1:
                self._forget(job)
                self._tell(place)
            self._here = self._readers.get(place)
        super().begin(job)

    def repeatable(self) -> None:
        """The job that has begun can be executed again: what is before it is known."""
        self._repeatable = True

    def _tell(self, place: tuple[int, tuple[Turn, ...]]) -> None:
        """The first job behind a wait is told how that ended."""
        inside, self._inside = self._inside, None
        fresh = self._fresh
        if inside is not None:
            self._readers[place] = inside
        elif fresh is not None and self._places.is_behind(place[0], fresh.step):
            self._readers[place], self._fresh = fresh, None

    def _forget(self, job: Job) -> None:
        """A step is executed again: what was behind it is over."""
        gate = self._gates.pop(job.number, None)
        if gate is not None and gate.closed is None:
            self._end_wait(gate.info)
        mine = (job.number, job.turns)
        self._readers = {p: w for p, w in self._readers.items() if (w.step, w.turns) != mine}
        if self._fresh is not None and (self._fresh.step, self._fresh.turns) == mine:
            self._fresh = None

    def _end_wait(self, info: WaitInfo) -> None:
        """Nobody can answer it any more."""
        self._inbox.answer(info.wait_id, Answer(by=waits.VOID, time=self._recorder.clock()))
        self._inbox.done(info.wait_id)
        self._say(info, _VOID)

    @property
    def unanswered(self) -> str:
        """A step that was suspended, and that nobody has resumed or cancelled; "" for none."""
        with self._looking:
            self.look()
            found = [g.info for g in self._gates.values() if g.closed is None]
        return next((info.label for info in found if info.kind == waits.SUSPEND), "")

    def close(self) -> None:
        """The kernel ends, and nothing goes on behind its gates."""
        super().close()
        with self._looking:
            gates, self._gates = self._gates, {}
            for gate in gates.values():
                if gate.closed is None:
                    self._end_wait(gate.info)

    def went_back(self, woken: Sequence[Woken], after: str) -> None:
        """The namespace is as it was behind a job.

        Args:
            woken: how waits of another run ended, which cells can ask for from now on.
            after: the job's id; where it waited, the next one behind it is told how that ended.
        """
        with self._looking:
            self._woken += woken
            self._fresh = next((w for w in reversed(self._woken) if w.wait_id == after), None)

    # --- gates -------------------------------------------------------------------------------

    def gate(self, info: WaitInfo) -> actions.Woke:
        """The cells behind a step wait from now on, unless the answer is there already."""
        with self._looking:
            self._inbox.tell(info)
            self._gates[info.step] = Gate(info=info)
            self.look()
            gate = self.made = self._gates.get(info.step)
            if gate is None:
                return actions.Woke(by=waits.RESUME)
            if gate.closed is not None:
                return woke(gate.closed)
            return actions.Woke(by="parked", cause=in_words(info))

    def on_end(self, info: WaitInfo, told: Callable[[str], None]) -> None:
        """Have somebody told what becomes of a gate, in words."""
        self._watching[info.wait_id] = told

    def _say(self, info: WaitInfo, words: str) -> None:
        told = self._watching.pop(info.wait_id, None)
        if told is not None:
            told(words)

    def rest(self, action: actions.Wait, label: str) -> None:
        """Time has to pass before a cell behind the step begins."""
        info = self.time(action, label)
        with self._looking:
            self._inbox.tell(info)
            self._gates[info.step] = Gate(info=info)

    def look(self) -> None:
        """Take the answers that have come."""
        with self._looking:
            now = self._recorder.clock()
            for number, gate in list(self._gates.items()):
                if gate.closed is not None:
                    continue
                answer = self._inbox.due(gate.info, now)
                if answer is not None:
                    self._take(number, gate, answer)

    def _take(self, number: int, gate: Gate, answer: Answer) -> None:
        record = self.settle(gate.info, answer)
        self._say(gate.info, f"{record.label} was {how(record.by, record.who)}")
        if record.goes_on:
            del self._gates[number]
            if gate.info.kind == waits.SUSPEND:
                self._fresh = record
        else:
            self._gates[number] = Gate(info=gate.info, closed=record)

    def holds(self, number: int) -> Gate | None:
        """The gate that a cell stands behind; of several one that does not open by itself."""
        with self._looking:
            if not self._gates:
                return None
            self.look()
            found = [
                gate
                for step, gate in self._gates.items()
                if step != number and self._places.is_behind(number, step)
            ]
            return min(found, key=lambda gate: gate.is_time, default=None)

    # --- answers -----------------------------------------------------------------------------

    def press(self, info: WaitInfo, by: str, *, data: str | None = None) -> str:
        """Answer a wait; what came of it, in words.

        Args:
            info: the wait.
            by: resume or cancel.
            data: JSON text.
        """
        with self._looking:
            now = self._recorder.clock()
            given = Answer(by=by, time=now, who=self._desk.user, data=data)
            won = self._inbox.due(info, now) or self._inbox.answer(info.wait_id, given)
            self.look()
        if won.by == waits.VOID:
            return _VOID
        told = f"{info.label} was {how(won.by, won.who)}"
        return told if won == given else f"{told}, before this"

    def left(self, info: WaitInfo) -> float | None:
        """Seconds until a wait in a cell is over; None where it is answered."""
        now = self._recorder.clock()
        if self._inbox.due(info, now) is not None:
            return None
        return max(0.0, (info.until or now) - now)

    def told(self, info: WaitInfo) -> str:
        """How a wait was answered, in words."""
        answer = self._inbox.answered(info.wait_id)
        return f"{info.label} was {how(answer.by, answer.who)}" if answer is not None else ""

    def tell(self, info: WaitInfo) -> None:
        """A cell waits."""
        self._inbox.tell(info)

    def ended(self, info: WaitInfo) -> actions.Woke:
        """A wait in a cell is over.

        Raises:
            NotWaiting: nobody has answered it.
        """
        with self._looking:
            self.look()
            record = next((w for w in reversed(self._woken) if w.wait_id == info.wait_id), None)
            answer = self._inbox.answered(info.wait_id)
            if record is None and answer is None:
                raise NotWaiting(f"{info.label} has not been answered")
            if record is None and answer is not None:
                record = self.settle(info, answer)
                if info.kind == waits.SUSPEND:
                    self._inside = record
        assert record is not None
        return woke(record)


def how(by: str, who: str) -> str:
    """How a wait ended, in words."""
    told = {
        waits.RESUME: "resumed", waits.CANCEL: "cancelled", waits.TIMEOUT: "not resumed in time",
    }[by]  # fmt: skip
    return f"{told} by {who}" if who else told
