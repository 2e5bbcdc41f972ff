"""Carries one headless run out, between papermill's parameterised notebook and its last record.

Everything that can refuse a run is asked before its journal is created, so that bad input changes
nothing: the plan, the parameters, the kernel, the store; of a restart also the items that are
evaluated anew, and whether the checkpoint loads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cellrail.kernels.kernel import Kernel
from cellrail.notebook.model import Flow
from cellrail.notebook.parameters import to_json
from cellrail.notebook.parse import parse
from cellrail.notebook.plan import Plan
from cellrail.run import prepare
from cellrail.run.calls import CallRules, Calls, taken_over
from cellrail.run.desk import Desk
from cellrail.run.desks import Waiting, desk_of
from cellrail.run.eachs import inherited
from cellrail.run.folder import SharedLink
from cellrail.run.interrupts import unheard
from cellrail.run.limits import RunLimits
from cellrail.run.masking import Masker
from cellrail.run.output import OutputFile
from cellrail.run.past import past_of
from cellrail.run.previously import Previously
from cellrail.run.putback import PutBack
from cellrail.run.recorder import Recorder
from cellrail.run.replay import Replay
from cellrail.run.rerun import RerunPlan
from cellrail.run.session import Outcome, Progress, Session
from cellrail.run.waits import WaitRules
from cellrail_state.errors import RunTakenOver
from cellrail_state.history import RunHistory
from cellrail_state.model import (
    EachStored,
    KeptReason,
    Origin,
    RunKind,
    RunStarted,
    RunStatus,
    Tick,
)
from cellrail_state.store import Store


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One run, decided on but not started."""

    flow: Flow
    flow_id: str
    plan: Plan
    #: parameters as the record tells them (JSON-able), secrets in clear
    parameters: dict[str, Any] = {}
    #: Python expressions of typed parameters that papermill cannot write
    expressions: dict[str, str] = {}
    secrets: dict[str, object] = {}
    labels: dict[str, str] = {}
    cwd: Path = Path()
    hash_seed: int | None = None
    origin: Origin | None = None
    chain: tuple[str, ...] = ()
    kept: dict[int, str] = {}
    modules: dict[int, dict[str, str]] = {}
    options: RunLimits = RunLimits()
    #: told in the record
    told: dict[str, Any] = {}
    #: whose states the steps see: `user:NAME`, `trigger:ID` or `backfill:ID`
    scope: str = ""
    #: the origin's number of each step
    numbers: dict[int, int] = {}
    #: how it waits
    waits: WaitRules = WaitRules()
    #: the tick that it is of
    tick: Tick | None = None
    #: its id; "" for a new one
    run_id: str = ""
    #: why it keeps what it keeps
    kept_as: KeptReason = KeptReason.ORIGIN

    @property
    def calls(self) -> CallRules:
        """How it calls other notebooks."""
        return CallRules(
            folder=self.flow.path.parent, callers=(*self.told.get("callers", ()), self.flow_id),
            scope=self.scope,
        )  # fmt: skip


class RunConductor:
    """papermill's engine hands the notebook to this one."""

    def __init__(
        self,
        request: Request,
        *,
        store: Callable[[], Store],
        kernel: Kernel,
        settings: Mapping[str, Any],
        history: RunHistory | None = None,
        putback: PutBack | None = None,
        replay: Replay | None = None,
        rerun: RerunPlan | None = None,
        output: Path | None = None,
        progress: Progress | None = None,
        clock: Callable[[], float],
    ) -> None:
        """Know the run.

        Args:
            request: what to run.
            store: opens the store, or creates it; called when nothing can refuse the run any more.
            kernel: the kernel, started.
            settings: what the kernel's hooks are told.
            history: the origin.
            putback: how its namespace comes back.
            replay: leads to a cut inside a loop.
            rerun: what changed since the origin, where only that is to execute.
            output: where the executed notebook goes; None for nowhere.
            progress: who is told.
            clock: seconds since the epoch.
        """
        self._request = request
        self._open_store = store
        self._kernel = kernel
        self._settings = settings
        self._history = history
        self._putback = putback
        self._replay, self._rerun = replay, rerun
        self._output = output
        self._progress = progress
        self._clock = clock
        self.run_id = ""
        self.outcome: Outcome | None = None
        self._notebook: Any = None

    def conduct(self, notebook: Any, *, kernel_name: str) -> Any:
        """Execute the notebook and record the run.

        Returns:
            An empty notebook: papermill looks for errors in what it gets, and writes it as text
            even where no output was asked for. The executed one is written here.
        """
        request = self._request
        kernel = self._kernel
        self._notebook = notebook
        executed = parse(notebook, request.flow.path)
        flow = prepare.bind_cells(request.flow, executed)
        prepare.type_dates(notebook, request.expressions)
        masker = Masker(request.secrets)
        indices = [index for step in flow.steps for index in step.cell_indices]
        sources = prepare.mask_notebook(notebook, masker, indices) if masker else None
        clear_outputs(notebook, indices)
        kernel.wait_ready(self._settings)
        store = self._open_store()
        link = SharedLink(request.cwd, store) if request.told.get("shared") else None
        first = self._first_record(notebook, flow, masker, kernel_name, store)
        if link is not None:
            link.make(first.run_id)
        try:
            # a restart begins when it has its namespace: until then it can be refused. The name
            # ./shared is held by a run that is there
            held = first.kind is RunKind.RESTART and link is None
            recorder = Recorder(store, first, masker=masker, clock=self._clock, held=held)
            try:
                self._record(recorder, flow, sources)
            except KeyboardInterrupt:
                with unheard():
                    # nothing of it has been executed, or it is over
                    recorder.end(RunStatus.CANCELLED, cause="interrupted")
                raise
        finally:
            if link is not None:
                link.remove()
        from nbformat.v4 import new_notebook

        return new_notebook()

    def _record(self, recorder: Recorder, flow: Flow, sources: Mapping[int, str] | None) -> None:
        """Execute the notebook under a recorder's eyes."""
        request, kernel, notebook = self._request, self._kernel, self._notebook
        self.run_id = recorder.run_id
        notebook["metadata"]["cellrail"] = {"run": recorder.run_id, "flow": request.flow_id}
        hello = kernel.hello
        recorder.kernel(
            pid=kernel.pid,
            started=kernel.started,
            python=hello["python"],
            implementation=hello["implementation"],
            packages=hello["packages"],
        )
        if self._history is not None and request.origin is not None:
            recorder.once_inherited(self._history)
            back = {there: here for here, there in request.numbers.items()}
            recorder.woken_inherited(self._history, back, request.chain)
            recorder.called(*taken_over(self._history, back))
        each = self._goes_on_in_cells()
        for stored in each:
            recorder.each(stored)
        output = OutputFile(self._output) if self._output is not None else None
        session = Session(
            flow=flow,
            notebook=notebook,
            plan=request.plan,
            recorder=recorder,
            kernel=kernel,
            origin=self._history,
            putback=self._putback,
            replay=self._replay,
            rerun=self._rerun,
            folder=request.cwd,
            limits=request.options,
            output=output,
            progress=self._progress,
            sources=sources,
            modules=request.modules,
            desk=open_desk(recorder, request, self._history, each),
            kept_as=request.kept_as,
            clock=self._clock,
        )
        self.outcome = run_and_write(session, output, notebook)

    def _goes_on_in_cells(self) -> list[EachStored]:
        """What `flow.each` has stored in the step that a restart goes on at."""
        request, history = self._request, self._history
        if history is None or request.origin is None or self._rerun is not None:
            return []
        return inherited(
            history, request.origin, request.flow, numbers=request.numbers,
            changed=request.told.get("changed", ()),
        )  # fmt: skip

    def for_papermill(self) -> Any:
        """The executed notebook, errors that a step tolerates shown as text.

        papermill takes every error output for the failure of the notebook.
        """
        import copy

        import nbformat

        notebook = copy.deepcopy(self._notebook)
        for cell in notebook["cells"]:
            if "raises-exception" in cell["metadata"].get("tags", ()):
                cell["outputs"] = [
                    nbformat.v4.new_output(
                        "stream", name="stderr", text="\n".join(output["traceback"]) + "\n"
                    )
                    if output["output_type"] == "error"
                    else output
                    for output in cell["outputs"]
                ]
        return notebook

    def _kind(self) -> RunKind:
        if self._rerun is not None:
            return RunKind.RERUN
        return RunKind.RUN if self._request.origin is None else RunKind.RESTART

    def _first_record(
        self, notebook: Any, flow: Flow, masker: Masker, kernel_name: str, store: Store
    ) -> RunStarted:
        import blake3

        from cellrail.version import __version__

        request = self._request
        now = self._clock()
        content = prepare.without_outputs(notebook, masker)
        ref = store.objects.put(content)
        store.objects.flush()
        return RunStarted(
            run_id=request.run_id or prepare.new_run_id(now),
            flow=request.flow_id,
            kind=self._kind(),
            time=now,
            owner=prepare.this_process(),
            origin=request.origin,
            parameters=masker.parameters(request.parameters),
            secrets={
                name: store.keyring.encrypt(msgspec.json.encode(to_json(value)).decode())
                for name, value in request.secrets.items()
            },
            labels=request.labels,
            steps=prepare.step_infos(flow, masker, request.modules),
            notebook=ref,
            notebook_path=str(request.flow.path),
            notebook_hash=blake3.blake3(content).hexdigest(),
            command=prepare.command_line(masker),
            cwd=str(request.cwd.resolve()),
            kernel_name=kernel_name,
            hash_seed=request.hash_seed,
            chain=request.chain,
            kept=request.kept,
            options=request.told,
            scope=request.scope,
            tick=request.tick,
            cellrail=__version__,
        )


def open_desk(
    recorder: Recorder,
    request: Request,
    history: RunHistory | None,
    each: Sequence[EachStored] = (),
) -> Desk:
    """The desk of a run, with everybody who answers there."""
    past = None
    if history is not None and request.told.get("state") != "current":
        past = past_of(
            recorder.store, history, numbers=request.numbers, flow=request.flow_id,
            began=recorder.began,
        )  # fmt: skip
    once = history.once if history is not None else {}
    desk = desk_of(
        recorder, flow=request.flow_id, scope=request.scope, past=past, once=once,
        tick=request.tick, waiting=_waiting(request, history), each=each,
    )  # fmt: skip
    desk.add(Previously(desk, origin=history, numbers=request.numbers))
    here = {there: here for here, there in request.numbers.items()}
    known = taken_over(history, here) if history is not None else ()
    desk.add(Calls(desk, rules=request.calls, known=known))
    return desk


def _waiting(request: Request, history: RunHistory | None) -> Waiting:
    """How a run waits; of a restart, what its kept jobs have waited for."""
    woken = history.woken.values() if history is not None else ()
    here = {there: here for here, there in request.numbers.items()}
    return Waiting(
        rules=request.waits,
        woken=tuple(
            msgspec.structs.replace(w, step=here[w.step])
            for w in woken
            if w.wait_id in request.chain and w.step in here and w.goes_on
        ),
        after=history.stepped_last([history.job_by_id(job_id) for job_id in request.chain])
        if history is not None
        else "",
    )


def run_and_write(session: Session, output: OutputFile | None, notebook: Any) -> Outcome:
    """Carry a session out, and write its notebook, unless that is another process's by now."""
    try:
        outcome = session.run()
    except RunTakenOver:
        raise
    except BaseException:
        if output is not None and session.has_begun:
            with unheard():
                output.finish(notebook)
        raise
    if output is not None:
        with unheard():
            output.finish(notebook)
    return outcome


def clear_outputs(notebook: Any, indices: Sequence[int]) -> None:
    """No output of an earlier execution stays beside a cell that has not run."""
    for index in indices:
        notebook["cells"][index]["outputs"] = []
        notebook["cells"][index]["execution_count"] = None
