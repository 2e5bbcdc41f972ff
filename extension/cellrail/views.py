"""What a person or a program sees of a run: `Run`, `StepView`, `VariableView`.

Views read the run's journal, so they are right at any moment, also while the run goes on. They load
nothing until asked: only `VariableView.load` unpickles, and only from a store that the user trusts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from cellrail.errors import StepNotFound
from cellrail.notebook.uncovered import uncovered
from cellrail.run.folder import files_after
from cellrail.run.jsontext import from_text
from cellrail.tables import Table
from cellrail_state.history import RunHistory
from cellrail_state.model import (
    Checkpoint,
    JobFinished,
    KeptReason,
    RunStatus,
    StepStatus,
    Turn,
    Variable,
    Verdict,
    to_plain,
)
from cellrail_state.rows import RunRow
from cellrail_state.steps import StepState

#: loads variables of a checkpoint
Loader = Callable[[Checkpoint, list[str]], dict[str, Any]]


class RunList(list[RunRow]):
    """Runs as a listing: a table where it is shown, records where it is used."""

    #: how many runs' newest records it does not know, where the catalog was in use
    behind: int = 0

    def __repr__(self) -> str:
        lines = [f"{r.run_id}  {r.status:<11}  {r.flow}" for r in self]
        return "\n".join(lines) or "no runs"

    def _repr_html_(self) -> str:
        rows = tuple((r.run_id, r.status, r.flow, r.cause) for r in self)
        headings = ("run", "status", "flow", "cause")
        return Table(title="runs", headings=headings, rows=rows, empty="no runs").html()


class VariableView:
    """A variable as it stood right after a step."""

    def __init__(self, variable: Variable, checkpoint: Checkpoint, load: Loader) -> None:
        self.record = variable
        self._checkpoint = checkpoint
        self._load = load

    @property
    def name(self) -> str:
        """The variable's name."""
        return self.record.name

    @property
    def verdict(self) -> Verdict:
        """`stored`, `rebuilt` or `lost`."""
        return self.record.verdict

    def load(self) -> object:
        """The value, as a new object in this process.

        Raises:
            CannotRestore: it is not stored, or does not load here.
            Untrusted: the store was signed by somebody else.
        """
        return self._load(self._checkpoint, [self.record.name])[self.record.name]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        plain: dict[str, Any] = to_plain(self.record)
        return {
            "name": plain["name"],
            "verdict": plain["verdict"],
            "reason": plain.get("reason", ""),
            "type": plain.get("type", ""),
            "bytes": plain.get("size", 0),
            "preview": plain.get("preview", ""),
            "not_covered": plain.get("not_covered", ""),
        }

    def __repr__(self) -> str:
        record = self.record
        told = record.preview or record.type
        return f"<variable {record.name} ({record.verdict}): {told}>"


class Variables(Mapping[str, VariableView]):
    """The variables right after a step, by name."""

    def __init__(self, checkpoint: Checkpoint, load: Loader) -> None:
        self._checkpoint = checkpoint
        self._load = load

    def __getitem__(self, name: str) -> VariableView:
        variable = self._checkpoint.variables[name]
        return VariableView(variable, self._checkpoint, self._load)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._checkpoint.variables))

    def __len__(self) -> int:
        return len(self._checkpoint.variables)

    def __repr__(self) -> str:
        return f"<variables {', '.join(self)}>"

    def _repr_html_(self) -> str:
        records = [self[name].record for name in self]
        rows = tuple((r.name, r.type, f"{r.size:,}", _verdict(r), r.preview) for r in records)
        headings = ("variable", "type", "bytes", "verdict", "value")
        return Table(title="variables", headings=headings, rows=rows, empty="none").html()


def _verdict(record: Variable) -> str:
    return f"{record.verdict}: {record.reason}" if record.reason else str(record.verdict)


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
        """Its status as listings show it: `kept (origin)`, `failed (accepted)`."""
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
        """Seconds its code took; None where it has not ended."""
        return self._state.job.seconds if self._state.job is not None else None

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
        holders = {view.name for view in names if _is_of_a_library(view.record)}
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
            "woke_by": self.woke_by,
            "resume_data": self.resume_data,
            "waits_until": self.waits_until,
            "first_line": first_line(self.source),
        }

    def __repr__(self) -> str:
        return f"<step {self.label} {status_words(self._state)}>"


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
        state = msgspec.structs.replace(
            state,
            status=StepStatus.KEPT if kept else job.status,
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
        inside = [str(turn) for turn in self.turns]
        own = [] if self.turns[-1].loop == self.label else [self.label]
        return "/".join([*inside, *own])

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


class ItemView(msgspec.Struct, frozen=True, kw_only=True):
    """An item of a loop: what became of all its jobs."""

    address: str
    #: as a step's; that of a job that failed, else of one that was executed
    status: str
    seconds: float
    cause: str = ""


class ChildView(msgspec.Struct, frozen=True, kw_only=True):
    """A run that a step has called (`flow.call`)."""

    run_id: str
    #: address of the step, and what identifies the call in it
    step: str
    key: str
    #: the flow that was called
    notebook: str
    #: None where the run is gone, or never began
    status: str | None


#: of an item's jobs the one with the first of these tells
_TELLING = (StepStatus.CANCELLED, StepStatus.FAILED, StepStatus.SUCCESS, StepStatus.KEPT)


class Run:
    """A run: its status, its steps, where it comes from."""

    def __init__(self, history: RunHistory, load: Loader, *, flow: str) -> None:
        self._history = history
        self._load = load
        self._flow = flow

    @property
    def history(self) -> RunHistory:
        """The records that it is read from."""
        return self._history

    @property
    def id(self) -> str:
        """The run's id."""
        return self._history.run_id

    @property
    def status(self) -> RunStatus:
        """What became of it."""
        return self._history.status

    @property
    def cause(self) -> str:
        """Why, where it is not success."""
        return self._history.cause

    @property
    def ended_at(self) -> str:
        """Address of the step that it ended with; "" where that was the last one."""
        return self._history.ended.step if self._history.ended is not None else ""

    @property
    def is_live(self) -> bool:
        """Whether a person executes it, or did, in an open notebook."""
        return self._history.is_live

    @property
    def flow(self) -> str:
        """The flow's id today: the notebook's path relative to the store's parent."""
        return self._flow

    @property
    def parameters(self) -> dict[str, Any]:
        """Its parameters, secrets masked."""
        from cellrail.notebook.parameters import from_json

        return {n: from_json(value) for n, value in self._history.started.parameters.items()}

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return dict(self._history.started.labels)

    @property
    def origin(self) -> str | None:
        """The run it was restarted from."""
        origin = self._history.started.origin
        return origin.run_id if origin is not None else None

    @property
    def epoch(self) -> int:
        """How many owners it has had: one more than it was continued."""
        return self._history.epoch

    @property
    def started(self) -> float:
        """Seconds since the epoch."""
        return self._history.started.time

    @property
    def seconds(self) -> float | None:
        """Seconds that it was driven, without what passed while it waited; None: it runs."""
        return self._history.seconds

    @property
    def steps(self) -> list[StepView]:
        """Its steps in order."""
        return [StepView(self._history, state, self._load) for state in self._history.states]

    def items(self, step: StepView) -> list[ItemView]:
        """The items, or turns, of a loop's header, in order; empty for another step."""
        jobs: dict[tuple[Turn, ...], list[TurnView]] = {}
        for turn in (turn for view in self.steps for turn in view.turns_here):
            for depth, place in enumerate(turn.turns, 1):
                if place.loop == step.label:
                    jobs.setdefault(turn.turns[:depth], []).append(turn)
        return [
            _item("/".join(map(str, turns)), jobs[turns])
            for turns in sorted(jobs, key=lambda turns: [turn.index for turn in turns])
        ]

    @property
    def children(self) -> list[ChildView]:
        """The runs that its steps have called, those of kept steps too, in order."""
        children = []
        for called in self._history.called():
            status = self._history.status_of(called.run_id)
            inside = [str(turn) for turn in called.turns]
            label = self._history.label_of(called.step)
            own = [] if called.turns and called.turns[-1].loop == label else [label]
            children.append(
                ChildView(
                    run_id=called.run_id, step="/".join([*inside, *own]), key=called.key,
                    notebook=called.notebook, status=str(status) if status is not None else None,
                )
            )  # fmt: skip
        return children

    def __getitem__(self, address: str) -> StepView:
        """A step by name, cell id or `#28`; in a loop by item, too: `score[north]`, `score[#2]`.

        Raises:
            StepNotFound: it has no such step, or item.
        """
        from cellrail.notebook.address import find_step

        if "[" in address:
            return self._turn(address)
        states = self._history.states
        found = find_step(address, [state.info for state in states])
        for state in states:
            if state.info.number == found.number:
                return StepView(self._history, state, self._load)
        raise StepNotFound(f"run {self.id} has no step {address!r}")

    def _turn(self, address: str) -> StepView:
        from cellrail.notebook.address import find_step, split_address

        wanted, rest = split_address(address)
        label = rest or wanted[-1][0]
        number = find_step(label, [state.info for state in self._history.states]).number
        for turns, job in self._history.turns_of(number):
            pairs = zip(turns, wanted, strict=False)
            if len(turns) == len(wanted) and all(
                turn.loop == loop and key in {turn.key, f"#{turn.index}"}
                for turn, (loop, key) in pairs
            ):
                state = self._history.state(number)
                return TurnView(self._history, state, self._load, turns=turns, job=job)
        raise StepNotFound(
            f"run {self.id} has no job {address!r}", hint=f"cellrail show {self.id} {label} lists"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        from cellrail.notebook.parameters import to_json

        started = self._history.started
        return {
            "run_id": self.id,
            "status": str(self.status),
            "cause": self.cause,
            "flow": self.flow,
            "kind": str(started.kind),
            "origin": to_plain(started.origin) if started.origin is not None else None,
            "parameters": to_json(self.parameters),
            "labels": self.labels,
            "started": self.started,
            "seconds": self.seconds,
            "cwd": started.cwd,
            "kernel": started.kernel_name,
            "python": self._history.kernels[-1].python if self._history.kernels else "",
            "packages": self._history.packages,
            "host": self._history.owner.host,
            "epoch": self._history.epoch,
            "command": started.command,
            "steps": [step.to_dict() for step in self.steps],
            "children": [to_plain(child) for child in self.children],
        }

    def __repr__(self) -> str:
        return f"<run {self.id} of {self.flow}: {self.status}>"

    def _repr_html_(self) -> str:
        rows = tuple(
            (
                f"#{step.number}",
                step.name,
                step.status_words,
                "" if step.seconds is None else f"{step.seconds:.2f} s",
                first_line(step.source),
            )
            for step in self.steps
        )
        title = f"run {self.id} of {self.flow}: {self.status} {self.cause}".strip()
        headings = ("step", "name", "status", "time", "source")
        return Table(title=title, headings=headings, rows=rows).html()


def _item(address: str, jobs: Sequence[TurnView]) -> ItemView:
    order = {status: place for place, status in enumerate(_TELLING)}
    telling = min(jobs, key=lambda job: order.get(job.status, len(order)))
    # the job that ends a loop within is no work of its own
    seconds = sum(j.seconds or 0.0 for j in jobs if not j.ends_a_loop)
    return ItemView(
        address=address, status=status_words(telling._state), seconds=seconds,  # noqa: SLF001
        cause=telling.cause,
    )  # fmt: skip


def status_words(state: StepState) -> str:
    """A step's status as listings show it."""
    if state.status is StepStatus.KEPT and state.kept is not None:
        return f"kept ({state.kept})"
    if state.accepted:
        return f"{state.status} (accepted)"
    return str(state.status)


def _is_of_a_library(variable: Variable) -> bool:
    """Whether a name held a module, or a class that the notebook did not make."""
    kind, _, where = variable.preview.partition(" ")
    return variable.type == "module" or (kind == "class" and "." in where)


def first_line(source: str) -> str:
    """The first line of a source that holds code."""
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    for line in lines:
        if not line.startswith(("%%step", "#")):
            return line[:80]
    return lines[0][:80] if lines else ""
