"""The desk: what a cell asks for while it runs is answered here, by the process that drives it.

A cell's `get_state()` becomes a question with a name and arguments; the handler of that name
answers it. The desk knows the job that asks, and collects what is to be committed with it: the one
append of the job's record commits all of it, or nothing.

To add something that a cell can ask for, write a `Clerk`: its `handlers` are named functions that
take the current `Job` (None between jobs, where conditions are evaluated and cells are rebuilt) and
the question's arguments by name; what they return goes to the cell as JSON, what they raise is
raised in the cell. `begin`, `contribute` and `committed` tell the clerk when a job begins, let it
add to the job's `Effects` (`marks` names effects that must not be done twice: such a step is never
executed again for what it made), and tell it that these are in the journal; `asks` and `read` are
the same for a condition, which sets nothing. `goes_back` tells it that a kept job's cell is
executed again for what it made: it answers as it answered that job, or raises where it does not
know how (`Desk.then`). Register it with `Desk.add` in `cellrail.run.desks`, and put a function into
`cellrail.api` that asks by the handler's name.

A handler that waits would stop the run's clock: answer at once (`{"wait": True}`) and let the cell
ask again.

A plain fact about the run (`flow.recovering`) needs no clerk: put it into `Desk.facts`.

Whatever a cell asks for, the desk notes (`Desk.asked`): what came of it is not told by the cell's
code and values alone, so no other job can be kept instead of one that asked.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from cellrail.errors import InternalError, OutsideStep
from cellrail.kernels.channel import Message
from cellrail.notebook.actions import Told
from cellrail.notebook.model import Step
from cellrail.run.asking import told
from cellrail.run.formerly import facts_by_job
from cellrail.run.recorder import Recorder
from cellrail_state.errors import StateError
from cellrail_state.ledger import Claim, Expected, Key
from cellrail_state.model import Effects, JobFinished, Turn, Woken
from cellrail_state.turns import job_address
from cellrail_state.waits import RERUN

if TYPE_CHECKING:
    from cellrail.run.waits import Waiter


#: what no cell asks for, but the kernel around it: none has learnt anything of its run
_ASIDE = frozenset({"check", "shared_place"})
#: facts that are the same in whatever goes on with a run
_LASTING = frozenset({"tick"})
#: what a cell writes to ask, where that is not the question's name
_WRITTEN = {
    "get_user_state": "get_flow_user_state()", "set_user_state": "set_flow_user_state()",
    "state_path": "get_state_path()", "step_facts": "flow.step()", "shared": "flow.shared",
    "previous": "flow.previous", "suspend": "flow.suspend()", "rerun": "flow.rerun()",
}  # fmt: skip


def _as_written(name: str, arguments: Mapping[str, Any]) -> str:
    """A question as the cell has it."""
    if name == "fact":
        return f"flow.{arguments['name']}"
    of = next((of for of in ("call", "each", "once") if name.startswith(f"{of}_")), "")
    return f"flow.{of}()" if of else _WRITTEN.get(name, f"{name}()")


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """The job that asks."""

    number: int
    #: what identifies its step: its name, else its cell's id, else its source
    step: str
    job_id: str
    turns: tuple[Turn, ...] = ()
    attempt: int = 1
    #: which execution of the step it is (`flow.rerun`)
    runs: int = 1
    #: its address
    label: str = ""
    #: its step runs again whenever a new kernel goes on with the run
    always: bool = False
    #: digest of its step's source
    source_hash: str = ""

    @classmethod
    def of(
        cls,
        step: Step,
        job_id: str,
        *,
        turns: tuple[Turn, ...] = (),
        attempt: int = 1,
        runs: int = 1,
    ) -> Job:
        """The job of a step."""
        name = step.name or step.cell_id or step.source_hash[:16]
        return cls(
            number=step.number, step=name, job_id=job_id, turns=turns, attempt=attempt, runs=runs,
            label=job_address(step.label, turns), always=step.options.always,
            source_hash=step.source_hash,
        )  # fmt: skip


class Then(msgspec.Struct, frozen=True, kw_only=True):
    """A kept job whose cell is executed again for what it made."""

    #: as it asked
    job: Job
    was: JobFinished
    #: the chain of jobs before it
    before: tuple[JobFinished, ...] = ()
    #: how the wait right before it ended
    woken: Woken | None = None


Handler = Callable[..., Any]


class Clerk:
    """Answers some questions, and adds to what is committed."""

    def handlers(self) -> Mapping[str, Handler]:
        """Functions of the current job and a question's arguments, by name."""
        return {}

    def begin(self, job: Job) -> None:
        """A job begins: what an attempt before it has left is forgotten."""

    def asks(self) -> None:
        """A condition is evaluated between jobs: what one before it has read is forgotten."""

    def read(self, effects: Effects) -> Effects:
        """Add what was read since; a condition does nothing else."""
        return effects

    def contribute(self, effects: Effects, *, success: bool) -> Effects:
        """Add what the job did; of one that did not succeed, only what has happened anyway."""
        del success
        return effects

    def check(self) -> None:
        """Raise where what the job did cannot be committed; its cell has just ended."""

    def expected(self) -> Mapping[Key, Expected]:
        """What the job saw of the keys that it writes."""
        return {}

    def committed(self, job: Job, effects: Effects, *, replaces: str) -> None:
        """The job's record is in the journal."""

    def roll_back(self) -> None:
        """The job that has just failed is tried again: things are put back as before it."""

    def started_on(self, jobs: Iterable[JobFinished]) -> None:
        """The run goes on from what these jobs have left, in order."""

    def stands_before(self, job_id: str) -> None:
        """Cells see things as they stood before this job of the chain; "": as they stand now."""

    def goes_back(self, then: Then | None) -> None:
        """Cells see things as a kept job saw them; None: as they stand now."""

    def close(self) -> None:
        """The run has ended."""

    def forked(self, kept: Iterable[JobFinished], *, in_sequence: bool) -> None:
        """Items of a loop are carried out beside one another now; these jobs of theirs are kept."""

    def another(self, desk: Desk) -> Clerk:
        """A clerk of the same run for a kernel beside this one; both answer under one lock."""
        del desk
        return self


C = TypeVar("C", bound=Clerk)


class Desk:
    """Answers the questions of one run's cells."""

    def __init__(self, recorder: Recorder, *, user: str = "") -> None:
        """Open the desk.

        Args:
            recorder: the run's journal.
            user: who runs it.
        """
        self.recorder = recorder
        self.user = user
        #: the job that is being executed
        self.job: Job | None = None
        #: the kept job whose cell is executed again; nothing is committed with it
        self.then: Then | None = None
        #: what its cell has asked for, as the cell has it
        self.asked: list[str] = []
        #: plain facts that cells can ask for, by name
        self.facts: dict[str, Any] = {}
        #: facts that kept jobs were told, by their ids
        self._formerly: dict[str, dict[str, Any]] = {}
        #: the clerk of waits, where the run can wait
        self.waiter: Waiter | None = None
        #: secrets that the run has learnt, and the kernel has not been told yet
        self._news: list[str] = []
        self._clerks: list[Clerk] = []
        self._handlers: dict[str, Handler] = {
            "fact": lambda job, name: self.facts.get(name),  # noqa: ARG005 - a fact is the run's
            "check": lambda job: self._check(),  # noqa: ARG005
        }
        self._claim: Claim | None = None
        #: gives back what is held with it
        self._held = contextlib.ExitStack()
        # threads of an open notebook ask while its cell ends
        self._lock = threading.RLock()

    def another(self) -> Desk:
        """A desk for a kernel beside this one, as things stand now."""
        made = Desk(self.recorder, user=self.user)
        # what its jobs are told (which execution, what woke it) is its own
        made.facts, made._lock = dict(self.facts), self._lock
        for clerk in self._clerks:
            if clerk is not self.waiter:
                made.add(clerk.another(made))
        if self.waiter is not None:
            made.waiter = self.waiter.another(made)
            made.add(made.waiter)
        return made

    def add(self, clerk: Clerk) -> None:
        """Let a clerk answer."""
        self._clerks.append(clerk)
        self._handlers.update(clerk.handlers())

    def clerks(self, kind: type[C]) -> list[C]:
        """The clerks of this kind."""
        return [clerk for clerk in self._clerks if isinstance(clerk, kind)]

    def learn(self, secret: str) -> None:
        """The run knows a secret from now on; the kernel is told with the answer."""
        self.recorder.masker.learn(secret)
        self._news.append(secret)

    def current(self, what: str) -> Job:
        """The job that something can be committed with.

        Raises:
            OutsideStep: there is none.
        """
        if self.job is None:
            raise OutsideStep(
                f"{what} is for the cell of a step: here nothing would be committed with it",
                hint="move it out of the condition, or into a step of its own",
            )
        return self.job

    # --- questions ---------------------------------------------------------------------------

    def reply(self, question: Message) -> Message:
        """Answer a question; what goes wrong is part of the answer."""
        answer: Message = {"kind": "reply", "id": question["id"]}
        with self._lock:
            try:
                answer["value"] = self.answer(question["name"], question["arguments"])
            except Exception as error:  # noqa: BLE001 - it is the cell's
                answer["error"] = told(error)
            waiter = self.waiter
            if waiter is not None and waiter.asked is not None and waiter.asked.kind == RERUN:
                # the namespace is put back to before the cell: it is not captured
                answer["again"] = True
            if self._news:
                answer["secrets"], self._news = self._news, []
        return answer

    def answer(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """What the handler of this name answers to the current job."""
        handler = self._handlers.get(name)
        if handler is None:
            message = f"nobody answers {name!r}"
            raise InternalError(message)
        # before it is answered: what is not there is an answer, too
        self._note(name, arguments)
        return handler(self.job, **arguments)

    def _note(self, name: str, arguments: Mapping[str, Any]) -> None:
        if self.job is None or name in _ASIDE:
            return
        written = _as_written(name, arguments)
        if written not in self.asked:
            self.asked.append(written)

    # --- jobs --------------------------------------------------------------------------------

    def begin(self, job: Job) -> None:
        """A job begins."""
        with self._lock:
            self._release()
            self.job, self.asked = job, []
            for clerk in self._clerks:
                clerk.begin(job)

    @contextlib.contextmanager
    def in_vain(self, job: Job) -> Iterator[None]:
        """A job's cell runs once more, for what it makes in a kernel: what it sets is dropped."""
        self.begin(job)
        try:
            yield
        finally:
            with self._lock:
                self._release()
                self.job = None

    def condition(self, evaluate: Callable[[], Told]) -> Told:
        """Have a condition evaluated; what it comes to, with what it has read.

        That of a failed attempt (`--retry-if`) is told with what the attempt itself had read.
        """
        with self._lock:
            if self.job is None:
                for clerk in self._clerks:
                    clerk.asks()
        found = evaluate()
        effects = Effects()
        with self._lock:
            for clerk in self._clerks:
                effects = clerk.read(effects)
        return msgspec.structs.replace(found, effects=effects if effects != Effects() else None)

    @contextlib.contextmanager
    def as_then(self, then: Then) -> Iterator[None]:
        """A kept job's cell is executed again, and sees what the job saw."""
        facts = self.facts
        with self._lock:
            # what the run is now (it recovers, it has failed) it was not then
            self.facts = {name: facts[name] for name in _LASTING & facts.keys()}
            self.facts |= self._facts_then(then.was.lays or then.was.job_id)
            self.then = then
        try:
            for clerk in self._clerks:
                clerk.goes_back(then)
            yield
        finally:
            with self._lock:
                self.then, self.facts = None, facts
            for clerk in self._clerks:
                clerk.goes_back(None)

    def _facts_then(self, job_id: str) -> dict[str, Any]:
        if job_id not in self._formerly:
            records = self.recorder.store.records(job_id.rpartition("/")[0])
            self._formerly |= facts_by_job(records)
        return self._formerly.get(job_id, {})

    def _effects(self, *, success: bool) -> Effects:
        effects = Effects()
        for clerk in self._clerks:
            effects = clerk.contribute(effects, success=success)
        return effects

    def _check(self) -> None:
        for clerk in self._clerks:
            clerk.check()

    def claim(self) -> StateError | None:
        """Make sure that what the job wrote can be committed; why not, or None.

        Until it is, or the next job begins, nobody else writes: no other run, and no item beside.
        """
        with self._lock:
            try:
                self._take_claim(self._effects(success=True))
            except StateError as error:
                return error
        return None

    def _take_claim(self, effects: Effects) -> Claim | None:
        if self._claim is None and effects.writes:
            seen = {key: e for clerk in self._clerks for key, e in clerk.expected().items()}
            with contextlib.ExitStack() as stack:
                # one of us who waits for the ledger must not keep from the desk who has it
                stack.enter_context(self._lock)
                self._claim = self.recorder.store.ledger.claim(
                    effects.writes, seen, run_id=self.recorder.run_id
                )
                stack.callback(self._claim.release)
                self._held = stack.pop_all()
        return self._claim

    @contextlib.contextmanager
    def committing(self, *, success: bool, replaces: str = "") -> Iterator[Effects | None]:
        """Commit the job: the body appends its record, with the effects that this yields.

        Args:
            success: whether the job succeeded; if not, what it wrote is dropped.
            replaces: the job of the chain that it stands for.

        Raises:
            StateConflict: somebody else wrote a key in the meantime, and `claim` was not asked.
        """
        with self._lock, contextlib.ExitStack() as stack:
            stack.callback(self._release)
            job, effects = self.job, self._effects(success=success)
            claim = self._take_claim(effects) if success else None
            if claim is not None:
                recorder = self.recorder
                claim.propose(recorder.run_id, by=self.user, now=recorder.clock())
                effects = msgspec.structs.replace(effects, token=claim.token, writes=claim.writes)
            yield effects if effects != Effects() else None
            if claim is not None:
                # durable before anybody builds on it
                self.recorder.sync()
                claim.settle()
            if job is not None:
                for clerk in self._clerks:
                    clerk.committed(job, effects, replaces=replaces)
            self.job = None

    def _release(self) -> None:
        held, self._claim, self._held = self._held, None, contextlib.ExitStack()
        held.close()

    def give_up(self) -> None:
        """Nothing more is committed by who worked here: others need not wait for it."""
        with self._lock:
            self._release()

    def roll_back(self) -> None:
        """The job that has just failed is tried again: things are put back as before it."""
        for clerk in self._clerks:
            clerk.roll_back()

    # --- the run -----------------------------------------------------------------------------

    def started_on(self, jobs: Iterable[JobFinished]) -> None:
        """The run goes on from what these jobs have left, in order."""
        known = list(jobs)
        for clerk in self._clerks:
            clerk.started_on(known)

    def stands_before(self, job_id: str) -> None:
        """Cells see things as they stood before this job of the chain; "": as they stand now."""
        for clerk in self._clerks:
            clerk.stands_before(job_id)

    def forked(self, kept: Iterable[JobFinished], *, in_sequence: bool) -> None:
        """Items of a loop are carried out beside one another now.

        Args:
            kept: their jobs that are kept, in the order in which they ended.
            in_sequence: those of a loop that runs its items one after another.
        """
        known = list(kept)
        for clerk in self._clerks:
            clerk.forked(known, in_sequence=in_sequence)

    def close(self) -> None:
        """The run has ended."""
        with self._lock:
            self._release()
            self.job = None
            for clerk in self._clerks:
                clerk.close()
