"""What the API takes and tells: records, from which the OpenAPI document is made.

What is taken is checked here, before anything is called; a field that is none is refused. What is
told may have more fields than are written here: those that are, stay.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

#: an id, a prefix of it, or `last`
RunAddress = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
#: a trigger's
TriggerId = Annotated[str, Meta(pattern="^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]
#: a path below the served folder
NotebookName = Annotated[
    str,
    Meta(
        pattern=r"^[^/\\.:\x00-\x1f\x7f][^\\:\x00-\x1f\x7f]*\.ipynb$", max_length=1000,
        description="A notebook's path below the served folder.",
        examples=["reports/daily.ipynb"],
    ),
]  # fmt: skip
_Short = Annotated[str, Meta(max_length=1000)]
_Name = Annotated[str, Meta(min_length=1, max_length=200)]
_Labels = dict[_Name, _Short]
_Values = Annotated[dict[_Name, Any], Meta(description="Values by parameter.")]
_Seconds = Annotated[float, Meta(gt=0, le=1e9)]
#: JSON's `2.0` is a whole number, too
_Whole = Annotated[float, Meta(multiple_of=1)]
_Kernels = Literal["cold", "warm"]


class Taken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what is taken."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what is told."""


# --- runs ------------------------------------------------------------------------------------


class RunsQuery(Taken, frozen=True):
    """Which runs are listed."""

    notebook: NotebookName | None = None
    status: (
        Literal["queued", "running", "success", "failed", "suspended", "cancelled", "interrupted"]
        | None
    ) = None
    label: Annotated[
        list[Annotated[str, Meta(pattern="^[^=]+=", max_length=1000)]],
        Meta(description="`NAME=VALUE`; only runs that bear all of them."),
    ] = []
    since: Annotated[float, Meta(description="Seconds since the epoch.")] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 20


class JournalQuery(Taken, frozen=True):
    """Which records are told."""

    after: Annotated[int, Meta(ge=-1, le=10**9, description="Only later ones.")] = -1
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1000


class NewRun(Taken, frozen=True):
    """A run to be started."""

    notebook: NotebookName
    parameters: _Values = {}
    labels: _Labels = {}
    secrets: Annotated[list[_Name], Meta(description="Parameters that are secret.")] = []
    to: Annotated[_Short | None, Meta(description="The last step to execute.")] = None
    timeout: _Seconds | None = None
    kernels: _Kernels = "cold"


class NewRestart(Taken, frozen=True):
    """How a run is restarted."""

    from_step: _Short | None = None
    to: _Short | None = None
    parameters: _Values = {}
    labels: _Labels = {}
    force: bool = False
    widen: bool = False
    state: Literal["origin", "current"] = "origin"
    cancel_origin: bool = False
    keep_waiting: bool = False
    failed_only: bool = False
    reeval: bool = False
    timeout: _Seconds | None = None
    kernels: _Kernels = "cold"
    plan: Annotated[bool, Meta(description="Tell what would happen; run nothing.")] = False


class NewRerun(Taken, frozen=True):
    """How a run is rerun."""

    changed: Annotated[
        list[Annotated[str, Meta(pattern="^(step|var|param|file|package):", max_length=1000)]],
        Meta(description="What has changed; none for all that is found to differ."),
    ] = []
    parameters: _Values = {}
    labels: _Labels = {}
    timeout: _Seconds | None = None
    plan: bool = False


class NewResume(Taken, frozen=True):
    """What a suspended run is resumed with."""

    step: _Short | None = None
    data: Annotated[Any, Meta(description="JSON for the next step.")] = None


class RunTold(Told, frozen=True):
    """A run of a list."""

    run_id: str
    flow: str
    kind: str
    status: str
    cause: str
    origin: str | None
    started: float
    ended: float | None
    seconds: float | None
    parameters: dict[str, Any]
    labels: dict[str, str]


class Runs(Told, frozen=True):
    """Runs, newest first."""

    schema: int
    runs: list[RunTold]


class StepTold(Told, frozen=True):
    """A step of a run."""

    number: int
    name: str
    label: str
    status: str
    cause: str
    seconds: float | None
    first_line: str


class RunDetails(Told, frozen=True):
    """A run with its steps."""

    schema: int
    run_id: str
    status: str
    cause: str
    flow: str
    kind: str
    parameters: dict[str, Any]
    labels: dict[str, str]
    started: float
    seconds: float | None
    steps: list[StepTold]


class Journal(Told, frozen=True):
    """What happened in a run, in order."""

    schema: int
    records: list[dict[str, Any]]


class Begun(Told, frozen=True):
    """A run that a worker begins in a moment (until then it is not listed)."""

    schema: int
    run_id: str
    url: str


class PlanTold(Told, frozen=True):
    """What would happen."""

    schema: int
    cut: str
    refusals: list[str]
    warnings: list[str]
    steps: list[dict[str, Any]]


class AnswerTold(Told, frozen=True):
    """What came of an answer."""

    schema: int
    run_id: str
    action: str
    step: str
    #: it was kept: the step that asked is still running
    early: bool


# --- triggers and backfills ------------------------------------------------------------------


class NotebookQuery(Taken, frozen=True):
    """Of which notebook."""

    notebook: NotebookName | None = None


class NewTrigger(Taken, frozen=True):
    """A trigger to be added."""

    notebook: NotebookName
    cron: Annotated[str, Meta(max_length=200, examples=["30 6 * * mon-fri"])]
    id: TriggerId | None = None
    tz: Annotated[str, Meta(max_length=100)] = "UTC"
    missed: Literal["all", "last", "none"] = "all"
    max_active: Annotated[_Whole, Meta(ge=1, le=1000)] = 1
    late_after: _Seconds | None = None
    parameters: _Values = {}
    labels: _Labels = {}
    secrets: list[_Name] = []


class TriggerInList(Told, frozen=True):
    """A trigger of a list."""

    id: str
    flow: str
    cron: str
    zone: str
    enabled: bool


class TriggerTold(TriggerInList, frozen=True):
    """A trigger."""

    schema: int
    next: list[str]


class TriggersTold(Told, frozen=True):
    """Triggers, by id."""

    schema: int
    triggers: list[TriggerInList]


class Removed(Told, frozen=True):
    """What was removed."""

    schema: int
    id: str
    removed: bool


class NewBackfill(Taken, frozen=True):
    """A backfill to be started."""

    notebook: NotebookName
    start: Annotated[str, Meta(max_length=100, examples=["2025-03-01"])]
    end: Annotated[str, Meta(max_length=100)] | None = None
    trigger: TriggerId | None = None
    cron: Annotated[str, Meta(max_length=200)] | None = None
    every: Annotated[str, Meta(max_length=20)] | None = None
    tz: Annotated[str, Meta(max_length=100)] | None = None
    ticks: Literal["missing", "failed", "stale", "all"] = "missing"
    order: Literal["asc", "desc"] = "asc"
    parallel: Annotated[_Whole, Meta(ge=1, le=64)] = 1
    stop_after: Annotated[_Whole, Meta(ge=0, le=10**6)] = 0
    from_start: bool = False
    latest: bool = False
    parameters: _Values = {}
    labels: _Labels = {}
    secrets: list[_Name] = []
    plan: bool = False


class Stop(Taken, frozen=True):
    """How a backfill is paused or cancelled."""

    now: Annotated[bool, Meta(description="Its running runs are cancelled, too.")] = False


class BackfillInList(Told, frozen=True):
    """A backfill of a list."""

    backfill_id: str
    status: str
    flow: str
    cron: str
    zone: str
    start: str
    end: str


class BackfillTold(BackfillInList, frozen=True):
    """A backfill, and how the ticks of its range stand."""

    schema: int


class BackfillsTold(Told, frozen=True):
    """Backfills, newest first."""

    schema: int
    backfills: list[BackfillInList]


class FillPlanTold(Told, frozen=True):
    """What would happen to each tick."""

    schema: int
    flow: str
    counts: dict[str, int]
    ticks: list[dict[str, Any]]


class ErrorDetails(Told, frozen=True):
    """Which error, and what to do."""

    code: str
    message: str
    hint: str


class ErrorTold(Told, frozen=True):
    """An error."""

    schema: int
    error: ErrorDetails
