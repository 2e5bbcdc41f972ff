"""The records: what a journal holds and what crosses the border to `cellrail`.

Here stand the *journal records* (`Record`): what happened in a run, in order. A step commits with
one `JobFinished`; nothing else decides that a step happened. What they hold of the namespace is in
`stored`, what a job did beyond it in `effects`; both are imported from here.

All are frozen, keyword-only and JSON-able through `msgspec`. Times are seconds since the epoch
(UTC, float); durations are seconds; sizes are bytes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from .effects import Effects, SharedFile, Written
from .stored import Checkpoint, Component, Delta, ObjectRef, Variable, Verdict
from .texts import json_bytes
from .ticks import Tick
from .turns import Turn
from .waits import WaitInfo

__all__ = [
    "Called",
    "Checkpoint",
    "Component",
    "Decided",
    "Delta",
    "EachStored",
    "Effects",
    "JobFinished",
    "JobStarted",
    "KeptReason",
    "KernelStarted",
    "ObjectRef",
    "OnceDone",
    "Origin",
    "Owner",
    "Record",
    "RolledBack",
    "RunContinued",
    "RunEnded",
    "RunKind",
    "RunNamed",
    "RunStarted",
    "RunStatus",
    "SharedFile",
    "StepError",
    "StepInfo",
    "StepKept",
    "StepRebuilt",
    "StepSkipped",
    "StepStatus",
    "Tick",
    "Turn",
    "Variable",
    "Verdict",
    "WaitInfo",
    "Waits",
    "Woken",
    "Written",
    "decode",
    "encode",
    "from_plain",
    "to_plain",
]


class RunStatus(StrEnum):
    """What became of a run."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    SUSPENDED = "suspended"
    CANCELLED = "cancelled"
    #: derived, never written: running, but its owner is gone
    INTERRUPTED = "interrupted"


class StepStatus(StrEnum):
    """What became of a step in a run."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    KEPT = "kept"
    FAILED = "failed"
    SKIPPED = "skipped"
    SUSPENDED = "suspended"
    CANCELLED = "cancelled"


class KeptReason(StrEnum):
    """Why a step was kept instead of executed."""

    ORIGIN = "origin"
    CACHE = "cache"
    SHARED = "shared"
    UNCHANGED = "unchanged"


class RunKind(StrEnum):
    """How a run came to be."""

    RUN = "run"
    RESTART = "restart"
    RERUN = "rerun"
    LIVE = "live"


class _Struct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of the records."""


class StepInfo(_Struct, frozen=True):
    """A step as the run found it in its notebook."""

    #: place among the code cells of the run's notebook, from 1; the parameters step counts once
    number: int
    #: the step's given name, or "" for an untagged cell
    name: str = ""
    #: the cell's id; "" in notebooks older than 4.5
    cell_id: str = ""
    #: digest of the source the step's identity rests on
    source_hash: str = ""
    #: the source as executed, secrets masked
    source: str = ""
    #: names the cell reads and writes, from its code
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    #: the step's options as given, in one canonical line
    options: str = ""
    #: digests of the local modules (outside site-packages) its imports reach, by module name
    modules: dict[str, str] = {}

    @property
    def label(self) -> str:
        """How listings name it: its name, or `#28`."""
        return self.name or f"#{self.number}"


class Origin(_Struct, frozen=True):
    """Where a restarted run comes from."""

    run_id: str
    #: label of the step the cut stands before
    from_step: str
    #: its number in the restarted run
    step: int = 0
    #: inside a loop: the turns that the cut stands in, outermost first
    turns: tuple[Turn, ...] = ()
    #: of a parallel loop: keys of the items that are executed again
    again: tuple[str, ...] = ()
    #: its items ran one after another in the origin
    apart: bool = False
    #: the items of the innermost loop are evaluated anew
    reeval: bool = False


class Owner(_Struct, frozen=True):
    """The process that drives a run."""

    pid: int
    #: seconds since the epoch; with the pid it names a process for good
    started: float
    host: str


class RunStarted(_Struct, frozen=True, tag="run"):
    """First record of every journal."""

    run_id: str
    flow: str
    kind: RunKind
    time: float
    owner: Owner
    epoch: int = 1
    origin: Origin | None = None
    #: JSON-able, secrets masked; dates as {"$date": ISO} or {"$datetime": ISO}, what JSON has no
    #: number for as {"$float": "nan"}
    parameters: dict[str, Any] = {}
    #: names of secret parameters -> their encrypted values
    secrets: dict[str, str] = {}
    labels: dict[str, str] = {}
    steps: tuple[StepInfo, ...] = ()
    #: the source notebook (JSON), outputs stripped, secrets masked
    notebook: ObjectRef | None = None
    notebook_path: str = ""
    notebook_hash: str = ""
    command: str = ""
    cwd: str = ""
    kernel_name: str = ""
    #: PYTHONHASHSEED of the kernel; None where it is not known (live runs)
    hash_seed: int | None = None
    #: jobs of earlier runs whose deltas, folded in this order, are the namespace at the cut
    chain: tuple[str, ...] = ()
    #: jobs of earlier runs that stand for steps before the cut, by step
    kept: dict[int, str] = {}
    #: run options (`to`, `timeout`, `output`, ...) in JSON
    options: dict[str, Any] = {}
    #: whose states its steps see: `user:NAME`, `trigger:ID` or `backfill:ID`
    scope: str = ""
    #: the tick that it is of; None where it was started by hand
    tick: Tick | None = None
    cellrail: str = ""


class RunContinued(_Struct, frozen=True, tag="continued"):
    """The same run goes on under another owner: after a crash, or when what it waited for came."""

    time: float
    owner: Owner
    #: continuations so far, and one
    epoch: int
    #: recover, resume or timer
    reason: str
    command: str = ""


class RunNamed(_Struct, frozen=True, tag="named"):
    """A live run whose front end did not tell its notebook has learnt which one it is."""

    time: float
    flow: str
    notebook_path: str

    def of(self, started: RunStarted) -> RunStarted:
        """The run's first record, as if that had been known."""
        return msgspec.structs.replace(started, flow=self.flow, notebook_path=self.notebook_path)


class KernelStarted(_Struct, frozen=True, tag="kernel"):
    """A kernel is ready."""

    time: float
    pid: int
    started: float
    python: str
    implementation: str
    packages: dict[str, str] = {}


class StepKept(_Struct, frozen=True, tag="kept"):
    """A step points to a job of an earlier run instead of executing."""

    time: float
    step: int
    job_id: str
    reason: KeptReason = KeptReason.ORIGIN
    turns: tuple[Turn, ...] = ()
    #: kept in mid-run: what stands at this place of the run's chain, jobs or `Laid` records
    chain: tuple[str, ...] = ()
    #: label of the loop that forks behind this job (see `JobFinished.forks`)
    forks: str = ""


class WentBack(_Struct, frozen=True, tag="back"):
    """In an open notebook the namespace has gone back to a moment: the run goes on from there."""

    time: float
    #: jobs of this run and of earlier ones whose deltas, folded in this order, are the namespace
    chain: tuple[str, ...] = ()
    #: jobs of another run that stand for steps from now on, by step
    kept: dict[int, str] = {}


class StepChosen(_Struct, frozen=True, tag="chosen"):
    """A step of a rerun executes, and why."""

    time: float
    step: int
    reason: str
    #: a person has named it
    forced: bool = False


class Laid(_Struct, frozen=True, tag="laid"):
    """What a job that is kept in mid-run leaves here, where that is not what it left there."""

    time: float
    step: int
    #: names it in a `StepKept.chain`
    job_id: str
    #: the job that is kept
    lays: str
    delta: Delta


class StepSkipped(_Struct, frozen=True, tag="skipped"):
    """A step was not executed, on purpose (`skip-execution`, `--only`, `--when`)."""

    time: float
    step: int
    reason: str
    turns: tuple[Turn, ...] = ()


class Decided(_Struct, frozen=True, tag="decided"):
    """An expression of a step's line was evaluated."""

    time: float
    step: int
    #: when, foreach, while, retry-if or stop-if
    purpose: str
    expression: str
    #: whether it was true; of a loop's items, whether there were any
    value: bool
    #: of a loop's items, in order
    keys: tuple[str, ...] = ()
    turns: tuple[Turn, ...] = ()
    #: what it has read beyond its kernel; None where that was nothing
    effects: Effects | None = None


class RolledBack(_Struct, frozen=True, tag="rolled back"):
    """The namespace was put back to what it was before a step that is tried again."""

    time: float
    step: int
    #: names that cannot be stored, and stayed as the attempt left them
    not_restored: tuple[str, ...] = ()
    turns: tuple[Turn, ...] = ()


class StepRebuilt(_Struct, frozen=True, tag="rebuilt"):
    """A kept step's cell ran again to make what cannot be stored."""

    time: float
    step: int
    names: tuple[str, ...] = ()
    seconds: float = 0.0


class JobStarted(_Struct, frozen=True, tag="started"):
    """A step fired."""

    time: float
    step: int
    job_id: str
    attempt: int = 1
    #: the step as it is now (live runs meet their steps as they are executed)
    info: StepInfo | None = None
    #: the turns of loops that it belongs to, outermost first
    turns: tuple[Turn, ...] = ()


class StepError(_Struct, frozen=True):
    """The user's own error, as the kernel reported it."""

    name: str
    value: str
    #: lines as the kernel coloured them (ANSI)
    traceback: tuple[str, ...] = ()


class OnceDone(_Struct, frozen=True, tag="once"):
    """`flow.once` has run its function; recorded at once, whatever becomes of the step."""

    time: float
    step: int
    job_id: str
    key: str
    #: run, or flow: whatever run of the flow asks next finds it too
    scope: str = "run"
    #: what the function returned: JSON text, encrypted where it is secret; None where it is lost
    value: str | ObjectRef | None = None
    secret: bool = False
    #: why there is no value, in words
    lost: str = ""
    turns: tuple[Turn, ...] = ()
    #: the run that ran it, where this one has only inherited it
    origin: str = ""
    #: names it in the ledger of what outlives runs; "" where it is of this run alone
    token: str = ""


class EachStored(_Struct, frozen=True, tag="each"):
    """`flow.each` has stored names in mid-cell; until its step succeeds, it can go on from here."""

    time: float
    step: int
    job_id: str
    name: str
    #: the `flow.each` around it, outermost first, each with the index of its item
    path: tuple[tuple[str, int], ...] = ()
    #: so many items are done
    position: int = 0
    #: so many items there were; None where they cannot be counted
    total: int | None = None
    #: digest of the items that are done, as far as one can tell at little cost; "" where not
    seen: str = ""
    #: no item is left
    ended: bool = False
    #: the names as they stood then, and the ambient state
    checkpoint: Checkpoint = msgspec.field(default_factory=Checkpoint)
    turns: tuple[Turn, ...] = ()
    #: of the step that was executed
    source_hash: str = ""
    #: the run that stored it, where this one has only inherited it
    origin: str = ""


class Called(_Struct, frozen=True, tag="called"):
    """A cell has another notebook run (`flow.call`); recorded before anything of that begins.

    Of several records of one call (a retry, a run that goes on) the newest holds.
    """

    time: float
    step: int
    job_id: str
    #: what identifies the step: its name, its cell's id, or its source
    caller: str
    #: what identifies the call in its step
    key: str
    #: the run that answers it
    run_id: str
    #: the flow that was called
    notebook: str
    #: of the flow and its parameters; keyed
    digest: str = ""
    turns: tuple[Turn, ...] = ()
    #: which execution of the step it belongs to (`flow.rerun`)
    runs: int = 1


class JobFinished(_Struct, frozen=True, tag="finished"):
    """The commit of a step: status, outputs and checkpoint in one append."""

    time: float
    step: int
    job_id: str
    status: StepStatus
    started: float
    attempt: int = 1
    execution_count: int | None = None
    #: the cell's outputs: a JSON list of nbformat outputs
    outputs: ObjectRef | None = None
    error: StepError | None = None
    #: what ended it, where it is not the code: "timeout", "kernel died", "interrupted"
    cause: str = ""
    #: a failure that the flow tolerates (`raises-exception`)
    accepted: bool = False
    delta: Delta = msgspec.field(default_factory=Delta)
    #: where it differs from the step's (live runs): the source that was executed
    source: str | None = None
    source_hash: str = ""
    #: place in a live run's order of executions, from 1
    sequence: int = 0
    #: line magics the cell ran that set the kernel up (`%matplotlib inline`), in order
    magics: tuple[str, ...] = ()
    #: seconds between start and end of the user's code
    seconds: float = 0.0
    #: versions of top-level packages that the job was the first to import
    packages: dict[str, str] = {}
    #: the job of the chain that this one stands for (an `--always` cell that ran again)
    replaces: str = ""
    #: the job of the chain behind which this one stands (parameters assigned anew)
    follows: str = ""
    #: the job for which this one stands in the chain of a run that kept it in mid-run
    lays: str = ""
    #: it ran since the run had failed (`--on-failure`): nothing is built on what it left
    handles: bool = False
    #: the turns of loops that it belongs to, outermost first
    turns: tuple[Turn, ...] = ()
    #: of a run that was watched: what it did that other runs would have to do again, in words
    seen: tuple[str, ...] = ()
    #: digests of the local modules it imported, where the run wrote them after it began
    modules: dict[str, str] = {}
    #: digests of the files that `--reads` names, as they were when it began, by path
    files: dict[str, str] = {}
    #: digests of the files that `--writes` names, as it left them, by path
    made: dict[str, str] = {}
    #: label of the loop whose items begin on the namespace after this job, each in a kernel of its
    #: own: their jobs are branches, and only what the loop's last job says comes back
    forks: str = ""
    #: `--cache`: names the code and all that it can reach; "" where nothing can be said
    cache_key: str = ""
    #: it was not executed: the equal job whose outputs and values it has
    cached: str = ""
    #: `--cache`: why it was executed all the same, and why no later job can be kept instead of it
    uncached: str = ""
    #: what it did beyond its kernel; None where nothing was asked for
    effects: Effects | None = None
    #: which execution of the step in its run it is (`flow.rerun`), from 1
    runs: int = 1
    #: the step is executed again: the namespace is put back to before it, its delta is empty
    again: bool = False
    #: what the run waits for right after it
    wait: WaitInfo | None = None


class Waits(_Struct, frozen=True, tag="waits"):
    """Time has to pass: `--sleep`, or the wait before a retry."""

    time: float
    step: int
    wait: WaitInfo


class Woken(_Struct, frozen=True, tag="woken"):
    """A wait is over."""

    time: float
    step: int
    wait_id: str
    #: resume, timeout or cancel
    by: str
    #: address of the step that asked for it
    label: str = ""
    turns: tuple[Turn, ...] = ()
    #: what it comes to where its time was up: resume, cancel or fail
    on_timeout: str = "resume"
    #: who resumed or cancelled it
    who: str = ""
    #: JSON text that came with it, and the HTTP request; encrypted where `secret`
    data: str | None = None
    request: str | None = None
    secret: bool = False
    #: the run that was woken, where this one has only inherited it
    origin: str = ""

    @property
    def goes_on(self) -> bool:
        """Whether the run goes on behind it."""
        return self.by == "resume" or (self.by == "timeout" and self.on_timeout == "resume")


class RunEnded(_Struct, frozen=True, tag="end"):
    """Last record of a run whose owner was alive to write it."""

    time: float
    status: RunStatus
    #: why, where it is not success
    cause: str = ""
    #: label of the step that decided it
    step: str = ""
    #: names that the look at everything at its end found changed, though no code showed it
    missed: tuple[str, ...] = ()


Record = (
    RunStarted
    | RunContinued
    | RunNamed
    | KernelStarted
    | StepKept
    | Laid
    | WentBack
    | StepChosen
    | StepSkipped
    | StepRebuilt
    | Decided
    | RolledBack
    | JobStarted
    | OnceDone
    | EachStored
    | Called
    | JobFinished
    | Waits
    | Woken
    | RunEnded
)

_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


def encode(record: Record) -> bytes:
    """A record as UTF-8 JSON; texts that are no Unicode have escapes."""
    return json_bytes(record)


def decode(data: bytes | memoryview) -> Record:
    """The record in these bytes.

    Raises:
        msgspec.ValidationError: the bytes are JSON but no record of ours.
        msgspec.DecodeError: the bytes are no JSON.
    """
    return _decoder.decode(data)


def to_plain(value: object) -> Any:
    """A record (or anything made of records) as plain dicts, lists and strings."""
    return msgspec.to_builtins(value)


def from_plain(data: object, kind: type[Any]) -> Any:
    """The inverse of `to_plain` for a known type."""
    return msgspec.convert(data, kind)
