"""Goes on with a run that has lost its owner, under its own id.

The journal is locked first; everything else is looked at under that lock. Until the record that
the run goes on is appended, nothing of it is changed: whatever is refused, or fails, or is killed
before that leaves the run as it was.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from cellrail.conductor import clear_outputs, run_and_write
from cellrail.errors import NotWaiting, RecoverRefused, UserError
from cellrail.kernels.ahead import leading_imports
from cellrail.kernels.ending import end_kernels
from cellrail.kernels.kernel import Kernel
from cellrail.kernels.supply import Supplied, Wanted, cold
from cellrail.notebook.model import Flow
from cellrail.notebook.parameters import from_json
from cellrail.recovering import Continuation, plan_continuation
from cellrail.restarting import numbers_of
from cellrail.run import keptmodules, prepare
from cellrail.run.calls import CallRules, Calls, taken_over
from cellrail.run.desk import Desk
from cellrail.run.desks import Waiting, desk_of
from cellrail.run.eachs import inherited
from cellrail.run.folder import SharedLink
from cellrail.run.limits import RunLimits
from cellrail.run.masking import Masker
from cellrail.run.output import OutputFile
from cellrail.run.past import past_of
from cellrail.run.previously import Previously
from cellrail.run.recorded import Recorded, recorded_notebook
from cellrail.run.recorder import Recorder
from cellrail.run.replay import KERNEL_DIED
from cellrail.run.session import Outcome, Progress, Session
from cellrail.run.states import secrets_of
from cellrail.run.waits import WaitRules, in_vain, woken_of
from cellrail_state.errors import JournalError, RunIsOwned
from cellrail_state.history import RunHistory
from cellrail_state.journal import Journal
from cellrail_state.model import (
    Decided,
    EachStored,
    JobFinished,
    Record,
    RunContinued,
    RunKind,
    RunStarted,
    RunStatus,
    Woken,
)
from cellrail_state.mounts import is_on_network
from cellrail_state.steps import Sources
from cellrail_state.store import Store
from cellrail_state.waits import VOID, Answer

#: settings for a kernel's hooks, by the run's secrets
KernelSettings = Callable[[dict[str, Any]], dict[str, Any]]


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A run as it was found."""

    recorded: Recorded
    continuation: Continuation
    secrets: dict[str, Any]
    #: how the wait ended that the run was suspended for, where the journal does not tell yet
    woken: Woken | None = None
    #: the journal, with that
    records: list[Record] = []


class Continuer(msgspec.Struct, kw_only=True):
    """Goes on with one run."""

    store: Store
    run_id: str
    #: where the notebook lies, or lay
    path: Callable[[RunStarted], Path]
    kernel_settings: KernelSettings
    lazy_above: int | None = None
    #: recover, resume or timer
    reason: str = "recover"
    #: go on from this wait, and from no other; "" for whatever it waits for
    expects: str = ""
    waits: WaitRules = WaitRules()
    progress: Progress | None = None
    #: is told what a person should know
    tell: Callable[[str], None] = lambda _: None
    clock: Callable[[], float] = time.time
    #: where its kernels come from
    supply: Callable[[Wanted], Supplied] = cold

    # --- looking -----------------------------------------------------------------------------

    def plan(self) -> Continuation:
        """What would happen; nothing is changed, nobody is stopped.

        Raises:
            RunIsOwned: its owner lives.
            RecoverRefused: it cannot go on.
        """
        records = list(self.store.records(self.run_id, verify=True))
        if self.store.is_owned(self.run_id):
            raise RunIsOwned(f"run {self.run_id} is still running")
        return self._find(records).continuation

    def _find(self, records: list[Record]) -> Found:
        history = self._history(self.run_id, records)
        woken = self._woken(history)
        if woken is not None:
            records = [*records, woken]
            history = self._history(self.run_id, records)
        self._check(history, woken)
        secrets = self._secrets(history)
        started = history.started
        given = {name: from_json(value) for name, value in started.parameters.items()}
        recorded = recorded_notebook(
            history, self.path(started), parameters={**given, **_of(secrets, given)},
            secrets=secrets,
        )  # fmt: skip
        origin = self._origin(started)
        continuation = plan_continuation(recorded.flow, history, origin, records)
        return Found(
            recorded=recorded, continuation=continuation, secrets=secrets, woken=woken,
            records=records,
        )  # fmt: skip

    def _woken(self, history: RunHistory) -> Woken | None:
        """How the wait has ended that the run is suspended for, where nobody has gone on since."""
        pending = history.pending
        if self.expects and (pending is None or pending.wait_id != self.expects):
            raise NotWaiting(f"run {self.run_id} has gone on already")
        if pending is None:
            return None
        answer = self.store.inbox.due(pending, self.clock())
        if answer is None or answer.by == VOID:
            return None
        masker = Masker(self._secrets(history))
        for secret in self._learnt(history):
            masker.learn(secret)
        return woken_of(pending, answer, masker, self.store.keyring)

    def _history(self, run_id: str, records: Iterable[Record] | None = None) -> RunHistory:
        def read(wanted: str) -> Iterable[Record]:
            if wanted == run_id and records is not None:
                return records
            return self.store.records(wanted, verify=True)

        # its owner is this process, or nobody
        return RunHistory(
            run_id, Sources(records=read, owned=lambda _: False, content=self.store.objects.get)
        )

    def _origin(self, started: RunStarted) -> RunHistory | None:
        if started.origin is None:
            return None
        with contextlib.suppress(JournalError):
            return self._history(started.origin.run_id)
        return None

    def _secrets(self, history: RunHistory) -> dict[str, Any]:
        decrypt = self.store.keyring.decrypt
        return {
            name: from_json(msgspec.json.decode(decrypt(token)))
            for name, token in history.started.secrets.items()
        }

    def _learnt(self, history: RunHistory) -> list[str]:
        """The secret variables that the run has read or set so far."""
        records: tuple[JobFinished | Decided, ...] = (
            *history.jobs, *history.chain, *history.branches(), *history.decided.values(),
        )  # fmt: skip
        return secrets_of(records, self.store.keyring, self.store.objects)

    def _check(self, history: RunHistory, woken: Woken | None) -> None:
        """Refuse what is no crashed run of ours.

        Raises:
            RecoverRefused: the message says what can be done instead.
        """
        instead = f"make a new run of it: cellrail restart {history.run_id}"
        if history.is_live:
            raise RecoverRefused(
                f"{history.run_id} is a live run: it ended with its kernel", hint=instead
            )
        ended = history.ended
        if ended is not None and ended.status is RunStatus.SUSPENDED and woken is None:
            raise RecoverRefused(
                f"run {history.run_id} is suspended: it {ended.cause}",
                hint=f"cellrail resume {history.run_id}, or cancel it",
            )
        if ended is not None and woken is None and not may_go_on(history):
            told = f" ({ended.cause})" if ended.cause else ""
            raise RecoverRefused(
                f"run {history.run_id} has ended: {ended.status}{told}",
                hint=instead if ended.status is not RunStatus.SUCCESS else "",
            )
        host = prepare.this_process().host
        if history.owner.host != host and is_on_network(self.store.path):
            raise RecoverRefused(
                f"run {history.run_id} was driven on {history.owner.host}, and its lock cannot "
                f"be seen from {host}",
                hint=f"recover it there, or {instead}",
            )

    # --- going on ----------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Go on with the run, to its end.

        Raises:
            RunIsOwned: its owner lives.
            Untrusted: somebody else has signed it.
            RecoverRefused: it cannot go on; nothing was changed.
            CellrailError: the kernel, the working directory or the output is no good; nothing was
                changed.
        """
        journal, records = self.store.reopen_journal(self.run_id)
        try:
            found = self._find(records)
            continuation = found.continuation
            continuation.check()
            history = continuation.history
            self._say_what_changed(found)
            if history.owner.host == prepare.this_process().host:
                end_kernels(history.kernels)
            output = _output(history.started)
            if continuation.done:
                return self._go_on(found, journal, records, None, output)
            return self._with_kernel(found, journal, records, output)
        finally:
            journal.close()

    def _with_kernel(
        self, found: Found, journal: Journal, records: list[Record], output: OutputFile | None
    ) -> Outcome:
        started, flow = found.continuation.history.started, found.recorded.flow
        kernel = self._kernel(started, flow, found.secrets)
        try:
            kernel.wait_ready_alike()
            outcome = self._go_on(found, journal, records, kernel, output)
            self.store.catalog.ingest()
        except BaseException:
            kernel.kill()
            raise
        finally:
            kernel.shutdown()
        return outcome

    def _kernel(self, started: RunStarted, flow: Flow, secrets: dict[str, Any]) -> Kernel:
        """A kernel of the run's kind, started."""
        cwd = Path(started.cwd)
        if not cwd.is_dir():
            raise UserError(f"the run's working directory {cwd} is gone", hint=f"mkdir -p {cwd}")
        wanted = Wanted(
            name=started.kernel_name, cwd=cwd, environment=prepare.kernel_environment(),
            hash_seed=started.hash_seed, lone_seed=started.tick is not None,
            imports=tuple(leading_imports(prepare.first_sources(flow))),
            settings=self.kernel_settings(secrets)
            | keptmodules.told(
                self.path(started).parent, flow.modules,
                {info.number: info.modules for info in started.steps},
            ),
        )  # fmt: skip
        return self.supply(wanted).kernel

    def _go_on(
        self,
        found: Found,
        journal: Journal,
        records: list[Record],
        kernel: Kernel | None,
        output: OutputFile | None,
    ) -> Outcome:
        link = self._link(found.continuation.history.started)
        try:
            return self._drive(found, journal, records, kernel, output)
        finally:
            if link is not None:
                link.remove()

    def _link(self, started: RunStarted) -> SharedLink | None:
        """`./shared`, where the run was started with it."""
        if not started.options.get("shared"):
            return None
        link = SharedLink(Path(started.cwd), self.store, own=self.run_id)
        link.make(self.run_id)
        return link

    def _take_waits(self, history: RunHistory) -> None:
        """Nobody waits for what the run has gone on from; its process may have died there."""
        inbox, pending = self.store.inbox, history.pending
        asked = inbox.wait(history.firing) if history.firing else None
        if asked is not None:
            # the step is executed again, and asks anew: what it asked for then is void
            void = Answer(by=VOID, time=self.clock())
            if told := in_vain(asked, inbox.answer(asked.wait_id, void)):
                self.tell(told)
        for wait_id in inbox.told(self.run_id):
            if pending is None or wait_id != pending.wait_id:
                inbox.done(wait_id)

    def _drive(
        self,
        found: Found,
        journal: Journal,
        records: list[Record],
        kernel: Kernel | None,
        output: OutputFile | None,
    ) -> Outcome:
        """Own the run, and conduct it to its end."""
        continuation = found.continuation
        history, flow = continuation.history, found.recorded.flow
        notebook, masker = found.recorded.notebook, Masker(found.secrets)
        learnt = self._learnt(history)
        for secret in learnt:
            masker.learn(secret)
        indices = [index for step in flow.steps for index in step.cell_indices]
        sources = prepare.mask_notebook(notebook, masker, indices) if masker else None
        clear_outputs(notebook, indices)
        notebook["metadata"]["cellrail"] = {"run": self.run_id, "flow": history.started.flow}
        recorder = Recorder(
            self.store, history.started, masker=masker, clock=self.clock,
            reopened=(journal, records),
        )  # fmt: skip
        recorder.continued(
            owner=prepare.this_process(), epoch=history.epoch + 1, reason=self.reason,
            command=prepare.command_line(masker),
        )  # fmt: skip
        if found.woken is not None:
            recorder.woken(found.woken)
        self._take_waits(history)
        if kernel is not None:
            recorder.kernel(
                pid=kernel.pid, started=kernel.started, python=kernel.hello["python"],
                implementation=kernel.hello["implementation"], packages=kernel.hello["packages"],
            )  # fmt: skip
        rules = msgspec.structs.replace(self.waits, parks=kernel is None)
        desk = self._desk(recorder, continuation, rules)
        for secret in learnt:
            # its kernel is told with the first answer: a checkpoint holds none
            desk.learn(secret)
        desk.facts["recovering"] = self.reason == "recover"
        session = Session(
            flow=flow,
            notebook=notebook,
            plan=continuation.whole,
            remaining=continuation.plan,
            recorder=recorder,
            kernel=kernel,
            origin=(continuation.origin or history) if history.started.kept else None,
            putback=continuation.putback(lazy_above=self.lazy_above, secrets=found.secrets),
            replay=continuation.answers(found.records, self.clock),
            limits=_limits(history.started, records),
            output=output,
            progress=self.progress,
            sources=sources,
            modules={info.number: info.modules for info in history.started.steps},
            desk=desk,
            spare=lambda: self._kernel(history.started, flow, found.secrets),
            clock=self.clock,
        )
        return run_and_write(session, output, notebook)

    def _desk(self, recorder: Recorder, continuation: Continuation, waits: WaitRules) -> Desk:
        """Answers what cells ask; what an attempt that was interrupted has set is gone."""
        history, origin, past = continuation.history, continuation.origin, None
        flow = self.store.current_flow(history.started)
        numbers = numbers_of(continuation.flow, origin.states) if origin is not None else {}
        if origin is not None and history.started.options.get("state") != "current":
            past = past_of(
                self.store, origin, numbers=numbers, flow=flow, began=history.started.time
            )
        # it may have been killed before it wrote down what it inherits
        once = {**(origin.once if origin is not None else {}), **history.once}
        jobs = continuation.jobs
        waiting = Waiting(
            rules=waits, woken=tuple(history.woken.values()), infos=history.waits,
            after=history.stepped_last(jobs),
        )  # fmt: skip
        desk = desk_of(
            recorder, flow=flow, scope=history.started.scope, past=past, once=once,
            tick=history.started.tick, waiting=waiting,
            each=_stored_in_cells(continuation, numbers),
        )  # fmt: skip
        desk.add(Previously(desk, origin=origin, numbers=numbers))
        here = {there: here for here, there in numbers.items()}
        known = [*(taken_over(origin, here) if origin is not None else ()), *history.calls]
        rules = CallRules(
            folder=self.path(history.started).parent,
            callers=(*history.started.options.get("callers", ()), flow),
            scope=history.started.scope,
        )
        desk.add(Calls(desk, rules=rules, known=known))
        desk.started_on(continuation.jobs)
        return desk

    def _say_what_changed(self, found: Found) -> None:
        for change in found.recorded.changed:
            self.tell(
                f"{change} since run {self.run_id} began; the run goes on with what it recorded "
                f"then. To run what is there now: cellrail restart {self.run_id}"
            )


def _stored_in_cells(continuation: Continuation, numbers: Mapping[int, int]) -> list[EachStored]:
    """What `flow.each` has stored in mid-cell, and what it has of the origin."""
    history, origin = continuation.history, continuation.origin
    found, started = history.each.records(), history.started
    if found or history.jobs or origin is None or started.origin is None:
        return found
    if started.kind is RunKind.RERUN:
        return found
    # it may have been killed before it wrote down what it inherits
    return inherited(
        origin, started.origin, continuation.flow, numbers=numbers,
        changed=started.options.get("changed", ()),
    )  # fmt: skip


def may_go_on(history: RunHistory) -> bool:
    """Whether a run can be recovered: its owner is gone, or its kernel died."""
    ended = history.ended
    return ended is None or (
        ended.status is RunStatus.FAILED and ended.cause.startswith(KERNEL_DIED)
    )


def _of(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _output(started: RunStarted) -> OutputFile | None:
    path = started.options.get("output")
    if not path:
        return None
    if not prepare.writable_parent(Path(path)):
        raise UserError(
            f"the run's output {path} cannot be written any more",
            hint=f"mkdir -p {Path(path).parent}",
        )
    return OutputFile(Path(path))


def _limits(started: RunStarted, records: Iterable[Record]) -> RunLimits:
    """The run's limits; of the limit for the whole run, what its owners have left."""
    options = started.options
    timeout = options.get("timeout")
    if timeout is not None:
        timeout = max(0.0, timeout - _seconds(records))
    return RunLimits(
        timeout=timeout,
        cell_timeout=options.get("cell_timeout"),
        strict=bool(options.get("strict")),
    )


def _seconds(records: Iterable[Record]) -> float:
    """Seconds that the run was driven."""
    total, began, last = 0.0, None, 0.0
    for record in records:
        moment = getattr(record, "time", last)
        if began is None or isinstance(record, RunContinued):
            total += last - began if began is not None else 0.0
            began = moment
        last = moment
    return total + (last - began if began is not None else 0.0)
