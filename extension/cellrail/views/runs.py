"""What is seen of a run, and of a listing of runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from cellrail.errors import StepNotFound
from cellrail.step_line import only_looks
from cellrail.views.steps import StepView, TurnView, first_line, status_words
from cellrail.views.variables import Loader
from cellrail_state.history import RunHistory
from cellrail_state.model import RunStatus, StepStatus, Turn, to_plain
from cellrail_state.rows import RunRows
from cellrail_state.spans import busy_seconds
from cellrail_state.tables import Shown, Table
from cellrail_state.turns import job_address


class RunList(RunRows):
    """Runs as a listing: a table where it is shown, records where it is used."""

    #: how many runs' newest records it does not know, where the catalog was in use
    behind: int = 0
    #: interrupted live runs that are left out of a list of those to be recovered
    live: int = 0

    def __repr__(self) -> str:
        lines = [f"{r.run_id}  {r.status:<11}  {r.flow}" for r in self]
        return "\n".join(lines) or "no runs" + (f" ({self.live_told})" if self.live else "")

    @property
    def live_told(self) -> str:
        """What becomes of interrupted live runs, in words."""
        runs = "live run" if self.live == 1 else "live runs"
        return (
            f"{self.live} interrupted {runs}: a kernel's cannot be recovered; from a step of it: "
            "%flow restart RUN --from STEP, or cellrail restart RUN"
        )


class ItemView(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """An item of a loop: what became of all its jobs."""

    address: str
    #: as a step's; that of a job that failed, else of one that was executed
    status: str
    seconds: float
    cause: str = ""


class ChildView(Shown, msgspec.Struct, frozen=True, kw_only=True):
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
_TELLING = (
    StepStatus.CANCELLED, StepStatus.FAILED, StepStatus.SUSPENDED, StepStatus.SUCCESS,
    StepStatus.KEPT,
)  # fmt: skip


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
    def was_interrupted(self) -> bool:
        """Whether it has ended by Ctrl-C; False where somebody has cancelled it by a word."""
        return self.status is RunStatus.CANCELLED and self.cause == "interrupted"

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
        """Its steps in order; cells of an open notebook that only look (`%flow`) are none."""
        return [
            StepView(self._history, state, self._load)
            for state in self._history.states
            if not (
                self.is_live
                and state.status is StepStatus.PENDING
                and only_looks(state.info.source)
            )
        ]

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
            label = self._history.label_of(called.step)
            children.append(
                ChildView(
                    run_id=called.run_id, step=job_address(label, called.turns), key=called.key,
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
        known = self._history.turns_of(number)
        found = [
            # a key counts before a place that is written like it
            (tuple(turn.key != key for turn, (_, key) in zip(turns, wanted, strict=True)), place)
            for place, (turns, _) in enumerate(known)
            if len(turns) == len(wanted)
            and all(
                turn.loop == loop and key in {turn.key, f"#{turn.index}"}
                for turn, (loop, key) in zip(turns, wanted, strict=True)
            )
        ]
        if found:
            turns, job = known[min(found)[1]]
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
    work = [turn._state.job for turn in jobs if not turn.ends_a_loop]  # noqa: SLF001
    made = [job for job in work if job is not None]
    return ItemView(
        address=address,
        status=status_words(telling._state),  # noqa: SLF001
        seconds=busy_seconds(made) or 0.0,
        cause=telling.cause,
    )
