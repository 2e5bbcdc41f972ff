"""What is seen of a step, and of one turn of it in a loop."""

from __future__ import annotations

from typing import Any

import msgspec

from cellrail.notebook.uncovered import uncovered
from cellrail.run.folder import files_after
from cellrail.run.jsontext import from_text
from cellrail.views.variables import Loader, Variables, is_of_a_library
from cellrail_state.history import RunHistory
from cellrail_state.model import Checkpoint, JobFinished, KeptReason, StepStatus, Turn
from cellrail_state.steps import StepState
from cellrail_state.tables import facts
from cellrail_state.turns import job_address


class StepView:
    """A step in a run."""

    def __init__(self, history: RunHistory, state: StepState, load: Loader) -> None:
        self._history = history
        self._state = state
        self._load = load

    @property
    def number(self) -> int:
        """Its place among the code cells, from 1."""
        return self._state.info.number

    @property
    def name(self) -> str:
        """Its given name; "" for an untagged cell."""
        return self._state.info.name

    @property
    def label(self) -> str:
        """Its name, or `#28`."""
        return self._state.info.label

    @property
    def status(self) -> StepStatus:
        """What became of it."""
        return self._state.status

    @property
    def status_words(self) -> str:
        """Its status as listings show it: `kept (origin)`, `failed (accepted)`, both at once."""
        return status_words(self._state)

    @property
    def job_id(self) -> str:
        """The job that stands for it; "" while there is none."""
        return self._state.job_id

    @property
    def source(self) -> str:
        """Its source as executed, secrets masked; of a kept job, as it was when it was made."""
        job = self._state.job
        if job is None:
            return self._state.info.source
        return self._history.made_with(self.number, job).source

    @property
    def seconds(self) -> float | None:
        """Seconds its code took, of a loop that of its items; None where it has not ended."""
        return self._history.seconds_of(self.number) if self._state.job is not None else None

    @property
    def cause(self) -> str:
        """Why, where it is not success."""
        return self._state.cause

    @property
    def ended_inside(self) -> bool:
        """Whether it is a loop that did not end because something in it ended the run."""
        job = self._state.job
        own = job is not None and job.status in {StepStatus.FAILED, StepStatus.CANCELLED}
        return bool(self._history.ended_in(self.label)) and not own

    @property
    def fired(self) -> float | None:
        """When it began to execute in this run (seconds since the epoch); None where it did not."""
        return self._state.fired

    @property
    def options(self) -> str:
        """Its options as given, in one line."""
        return self._state.info.options

    @property
    def written(self) -> frozenset[str]:
        """The names that it bound or changed, as its checkpoint saw."""
        job = self._state.job
        return frozenset(job.delta.written) if job is not None else frozenset()

    @property
    def names(self) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
        """The names that it reads, those that it writes, and which of these are modules.

        As its code says and, once it was executed, as its checkpoint saw.
        """
        info, job = self._state.info, self._state.job
        found = job.delta.variables if job is not None else {}
        modules = frozenset(name for name, v in found.items() if v.type == "module")
        return frozenset(info.reads), frozenset(info.writes) | self.written, modules

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """Its outputs as plain nbformat outputs."""
        return self._history.step_outputs(self.number)

    @property
    def execution_count(self) -> int | None:
        """The number beside the cell."""
        return self._state.job.execution_count if self._state.job is not None else None

    @property
    def traceback(self) -> tuple[str, ...]:
        """The user's own traceback, coloured as the kernel sent it."""
        job = self._state.job
        return job.error.traceback if job is not None and job.error is not None else ()

    @property
    def variables(self) -> Variables:
        """The namespace right after it."""
        return Variables(self._checkpoint(), self._load)

    @property
    def turns_here(self) -> list[TurnView]:
        """Of a step in loops, its jobs in the order of items; else empty."""
        return [
            TurnView(self._history, self._state, self._load, turns=turns, job=job)
            for turns, job in self._history.turns_of(self.number)
        ]

    def _checkpoint(self) -> Checkpoint:
        return self._history.checkpoint_after(self.number)

    def load(self, names: list[str]) -> dict[str, Any]:
        """Several variables as they stood right after it, sharing what they shared.

        Raises:
            CannotRestore: one is not stored, or does not load here.
            Untrusted: the store was signed by somebody else.
        """
        return self._load(self._checkpoint(), names)

    @property
    def user_state(self) -> dict[str, Any]:
        """Flow user state as it stood right after it, by key."""
        jobs = self._history.chain_through(self.number)
        texts = [job.effects.user for job in jobs if job.effects is not None]
        return {key: from_text(text) for user in texts for key, text in user.items()}

    @property
    def shared_files(self) -> tuple[str, ...]:
        """Files of the shared folder as they stood right after it, by path."""
        return tuple(sorted(files_after(self._history.chain_through(self.number))))

    @property
    def effects(self) -> tuple[str, ...]:
        """What it did beyond its kernel, in words; it is never executed again for what it made."""
        return self._history.effects_of(self.number)

    @property
    def resume_data(self) -> Any:
        """The JSON that resumed the wait behind it; None where there was none.

        Data that holds a secret is kept encrypted, and not shown.
        """
        woken = self._history.woke(self.number)
        if woken is None or woken.data is None or woken.secret:
            return None
        return from_text(woken.data)

    @property
    def woke_by(self) -> str | None:
        """How the wait behind it ended: `resume`, `timeout` or `cancel`; None without one."""
        woken = self._history.woke(self.number)
        return woken.by if woken is not None else None

    @property
    def waits_until(self) -> float | None:
        """When the time of the wait behind it is up (seconds since the epoch); None without one."""
        pending = self._history.pending
        if self._state.status is not StepStatus.SUSPENDED or pending is None:
            return None
        return pending.until

    @property
    def stored_bytes(self) -> int:
        """Bytes that its checkpoint added to the store."""
        return self._state.job.delta.stored_bytes if self._state.job is not None else 0

    @property
    def why(self) -> str:
        """In a rerun: why it executed; "" elsewhere."""
        chosen = self._history.chosen.get(self.number)
        return chosen.reason if chosen is not None else ""

    @property
    def uncached(self) -> str:
        """With `--cache`: why it was executed, and why none will be kept instead; "" elsewhere."""
        return self._state.job.uncached if self._state.job is not None else ""

    @property
    def not_restorable(self) -> str:
        """Why the namespace after it cannot be put back; "" where it can."""
        return self._history.restorable_after(self.number)

    @property
    def unkept(self) -> str:
        """Why its checkpoint could not be written; "" where it was."""
        return self._state.job.delta.failure if self._state.job is not None else ""

    @property
    def not_covered(self) -> tuple[str, ...]:
        """What its code left in the process that no checkpoint covers, as far as code shows it."""
        names = self.variables.values()
        holders = {view.name for view in names if is_of_a_library(view.record)}
        return uncovered(self.source, holders)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        state, job = self._state, self._state.job
        return {
            "number": self.number,
            "name": self.name,
            "label": self.label,
            "cell_id": state.info.cell_id,
            "status": str(state.status),
            "kept": str(state.kept) if state.kept is not None else None,
            "accepted": state.accepted,
            "cause": state.cause,
            "job_id": state.job_id or None,
            "started": job.started if job is not None else state.fired,
            "seconds": self.seconds,
            "execution_count": self.execution_count,
            "stored_bytes": self.stored_bytes,
            "not_restorable": self.not_restorable if job is not None else "",
            "rebuilt": list(state.rebuilt),
            "effects": list(self.effects),
            "why": self.why,
            "uncached": self.uncached,
            "woke_by": self.woke_by,
            "resume_data": self.resume_data,
            "waits_until": self.waits_until,
            "first_line": first_line(self.source),
        }

    def __repr__(self) -> str:
        return f"<step {self.label} {status_words(self._state)}>"

    def _repr_html_(self) -> str:
        seconds = self.seconds
        known = {
            "status": status_words(self._state),
            "cause": self.cause,
            "time": "" if seconds is None else f"{seconds:.2f} s",
            "variables": ", ".join(self.variables),
            "source": self.source,
        }
        return facts(f"step {self.label}", known).html()


class TurnView(StepView):
    """A step in one turn of a loop."""

    def __init__(
        self,
        history: RunHistory,
        state: StepState,
        load: Loader,
        *,
        turns: tuple[Turn, ...],
        job: JobFinished,
    ) -> None:
        kept = job.job_id.rpartition("/")[0] != history.run_id
        cause = job.cause or (f"{job.error.name}: {job.error.value}" if job.error else "")
        reason = KeptReason.CACHE if job.cached else KeptReason.ORIGIN
        pending, status = history.pending, StepStatus.KEPT if kept else job.status
        if pending is not None and job.wait is not None and pending.wait_id == job.wait.wait_id:
            status, cause = StepStatus.SUSPENDED, history.cause
        elif (came_to := history.given_up(job)) is not None:
            status, cause = came_to
        state = msgspec.structs.replace(
            state,
            status=status,
            kept=reason if kept or job.cached else None,
            job_id=job.job_id,
            job=job,
            cause=cause,
            rebuilt=(),
        )
        super().__init__(history, state, load)
        self.turns = turns

    @property
    def address(self) -> str:
        """How it is called: `score[north]`, `score[north]/inner[0]`."""
        return job_address(self.label, self.turns)

    @property
    def seconds(self) -> float | None:
        """Seconds its code took in this turn; of a loop within the turn, that of its items."""
        if self.ends_a_loop:
            return self._history.seconds_of(self.number, self.turns)
        return self._state.job.seconds if self._state.job is not None else None

    @property
    def ends_a_loop(self) -> bool:
        """Whether it is the job that holds what a loop within the turn collected."""
        options = self._state.info.options
        loops = "--foreach" in options or "--while" in options
        return loops and self.turns[-1].loop != self.label

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """Its outputs as plain nbformat outputs."""
        job = self._state.job
        return self._history.outputs(job) if job is not None else []

    def _checkpoint(self) -> Checkpoint:
        return self._history.checkpoint_after_turn(self.number, self.turns)

    @property
    def not_restorable(self) -> str:
        """Why the namespace after it cannot be put back; "" where it can."""
        return self._state.job.delta.failure if self._state.job is not None else ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {"address": self.address, **super().to_dict()}

    def __repr__(self) -> str:
        return f"<step {self.address} {status_words(self._state)}>"


def status_words(state: StepState) -> str:
    """A step's status as listings show it."""
    if state.status is StepStatus.KEPT and state.kept is not None:
        failed = state.job is not None and state.job.status is StepStatus.FAILED
        return f"kept ({state.kept}; failed)" if failed else f"kept ({state.kept})"
    if state.accepted:
        return f"{state.status} (accepted)"
    return str(state.status)


def first_line(source: str) -> str:
    """The first line of a source that holds code."""
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    for line in lines:
        if not line.startswith(("%%step", "#")):
            return line[:80]
    return lines[0][:80] if lines else ""
