"""Use cases that start a new run from an earlier one: restarts and reruns."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, overload

from cellrail.app.starting import Starting, Ticked, options_told
from cellrail.errors import RestartRefused, StepNotFound, UserError
from cellrail.foreseeing import check_versions, foreseen
from cellrail.launch import check_places, kernel_settings
from cellrail.locate import flow_id
from cellrail.notebook.address import find_step
from cellrail.notebook.changes import read_selectors
from cellrail.notebook.plan import Plan
from cellrail.rerunning import plan_rerun_of
from cellrail.restarting import RestartPlan, check_objects, plan_restart_of
from cellrail.run import prepare
from cellrail.run.calls import PARENT
from cellrail.run.past import past_of
from cellrail.run.session import Progress
from cellrail.state_since import with_state_since
from cellrail.views import Run
from cellrail_state.history import RunHistory
from cellrail_state.model import RunStarted, RunStatus

if TYPE_CHECKING:
    from cellrail.notebook.model import Flow


_LOGGER = logging.getLogger(__name__)
#: so many of the newest runs are looked at for one that has a step
_LATELY = 32


class RestartOptions(TypedDict, total=False):
    """How to restart a run."""

    #: the cut; by default the first step that is not success, kept or skipped
    from_step: str | None
    #: the last step to execute; later ones stay pending
    to: str | None
    #: changed parameters; the others are the origin's
    parameters: Mapping[str, Any] | None
    #: labels added to the origin's
    labels: Mapping[str, str] | None
    #: keep stale steps as they were
    force: bool
    #: move the cut to the first stale step
    widen: bool
    #: what its steps see of states and resources: what they saw in the origin, or what is there now
    state: Literal["origin", "current"]
    #: a suspended origin is cancelled, or goes on waiting; one of both is needed
    cancel_origin: bool
    keep_waiting: bool
    #: of a loop with independent items, execute those that failed
    failed_only: bool
    #: evaluate the items of the loop that is cut anew
    reeval: bool
    #: the working directory; the origin's by default
    cwd: str | Path | None
    #: seconds for the whole run
    timeout: float | None
    #: kernels start cold (default), or are forked from a process that has the imports done
    kernels: Literal["cold", "warm"]
    #: who is told how far the run has come
    progress: Progress | None


class RerunOptions(TypedDict, total=False):
    """How to rerun a run."""

    #: what changed: `step:NAME`, `var:NAME`, `param:NAME`, `file:PATH`, `package:NAME` or `@FILE`;
    #: none for everything that is found to differ
    changed: Sequence[str]
    #: changed parameters; the others are the origin's
    parameters: Mapping[str, Any] | None
    #: labels added to the origin's
    labels: Mapping[str, str] | None
    #: the working directory; the origin's by default
    cwd: str | Path | None
    #: seconds for the whole run
    timeout: float | None
    #: kernels start cold (default), or are forked from a process that has the imports done
    kernels: Literal["cold", "warm"]
    #: who is told how far the run has come
    progress: Progress | None


class Restarting(Starting):
    """Restarts and reruns runs."""

    @overload
    def restart(
        self,
        run: str = "last",
        output: str | Path | None = None,
        *,
        plan: Literal[False] = False,
        detach: bool = False,
        **options: Unpack[RestartOptions],
    ) -> Run: ...

    @overload
    def restart(
        self,
        run: str = "last",
        output: str | Path | None = None,
        *,
        plan: Literal[True],
        detach: bool = False,
        **options: Unpack[RestartOptions],
    ) -> Plan: ...

    def restart(
        self,
        run: str = "last",
        output: str | Path | None = None,
        *,
        plan: bool = False,
        detach: bool = False,
        **options: Unpack[RestartOptions],
    ) -> Run | Plan:
        """Restart a run from a step: a new run that keeps the jobs before the cut.

        Args:
            run: an id, a unique prefix, `last`, or a notebook's path (its newest run).
            output: where the executed notebook goes.
            plan: return what would happen and why; run nothing.
            detach: run it in a process of its own; return as soon as it has begun.
            options: see `RestartOptions`.

        Returns:
            The new run, ended, or begun with `detach`; with `plan`, the plan (with the reasons of a
            refusal, if any).

        Raises:
            RestartRefused: the plan refuses; the message names the earliest legal cut.
            CellrailError: something else is no good; nothing was changed.
        """
        if detach and not plan:
            return self._detached("restart", self._run_id(str(run)), output, options)
        return self._restart(run, output, plan=plan, **options)

    def _restart(
        self,
        run: str,
        output: str | Path | None,
        *,
        plan: bool,
        from_step: str | None = None,
        to: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        force: bool = False,
        widen: bool = False,
        state: Literal["origin", "current"] = "origin",
        cancel_origin: bool = False,
        keep_waiting: bool = False,
        failed_only: bool = False,
        reeval: bool = False,
        cwd: str | Path | None = None,
        timeout: float | None = None,
        kernels: Literal["cold", "warm"] = "cold",
        progress: Progress | None = None,
        ticked: Ticked | None = None,
    ) -> Run | Plan:
        if state not in {"origin", "current"}:
            raise UserError(f"state is origin or current, not {state!r}")
        self._check_timeout(timeout)
        if str(run).endswith(".ipynb"):
            self._store_for(run)
        history = self.history(str(run), verify=True)
        path = self._notebook_of(history)
        _, flow = self._flow_of(path, ticked)
        values, changed = self._merged(history, flow, parameters)
        decided = plan_restart_of(
            flow, history, from_step=from_step, to=to, changed=changed, force=force, widen=widen,
            failed_only=failed_only, reeval=reeval,
        )  # fmt: skip
        if state == "origin":
            past = past_of(
                self.store, decided.history, numbers={}, flow=flow_id(path, self.store_path)
            )
            decided = with_state_since(decided, past, self.store.ledger, failed_only=failed_only)
        origin = history.started
        folder = Path(cwd) if cwd is not None else Path(origin.cwd)
        secret = {p.name for p in flow.parameters if p.secret} | set(origin.secrets)

        def check() -> None:
            check_objects(decided, self.store.objects.contains)
            check_let_go(history, cancel=cancel_origin, keep=keep_waiting)

        if plan:

            def check_more() -> None:
                check()
                if not cancel_origin:
                    self._check_tick(ticked, history, values, secret)
                check_versions(decided, self._kernel_of(history, flow), folder)

            check_places(output, notebook=path, values=values, cwd=folder)
            decided = foreseen(decided, check_more)
            if not reeval:
                return decided.plan
            assignment = prepare.assignments({name: values[name] for name in changed})
            hidden = {name: values[name] for name in secret if name in values}
            return self._with_items(decided, flow, folder, assignment, hidden)
        decided.plan.check()
        check()
        for warning in decided.plan.warnings:
            _LOGGER.warning("%s", warning)
        if history.status is RunStatus.SUSPENDED and cancel_origin:
            self.cancel(history.run_id)
        with self._ticked(ticked, history, values, secret) as claimed:
            return self._launch(
                path, flow, decided.plan, values,
                secret={name: values[name] for name in secret if name in values},
                output=output, labels={**own_labels(origin), **(labels or {})}, cwd=folder,
                options=self._options(timeout, None), kernel=origin.kernel_name or None,
                kernels=kernels, progress=progress, restart=decided,
                told=options_told(
                    to=to, shared=origin.options.get("shared", False),
                    state="" if state == "origin" else state,
                ),
                changed=changed, ticked=claimed,
            )  # fmt: skip

    @overload
    def rerun(
        self,
        run: str = "last",
        output: str | Path | None = None,
        *,
        plan: Literal[False] = False,
        detach: bool = False,
        **options: Unpack[RerunOptions],
    ) -> Run: ...

    @overload
    def rerun(
        self,
        run: str = "last",
        output: str | Path | None = None,
        *,
        plan: Literal[True],
        detach: bool = False,
        **options: Unpack[RerunOptions],
    ) -> Plan: ...

    def rerun(
        self,
        run: str = "last",
        output: str | Path | None = None,
        *,
        plan: bool = False,
        detach: bool = False,
        **options: Unpack[RerunOptions],
    ) -> Run | Plan:
        """Execute what changed since a run, and what depends on it, as a new run.

        Args:
            run: the origin: an id, a prefix, `last`, or a notebook's path (its newest run).
            output: where the executed notebook goes.
            plan: return what would happen; run nothing.
            detach: run it in a process of its own; return as soon as it has begun.
            options: see `RerunOptions`.

        Returns:
            The new run, ended, or begun with `detach`; with `plan`, the plan.

        Raises:
            BadSelector: `changed` names nothing that is there.
            CellrailError: something is no good; nothing was changed.
        """
        if detach and not plan:
            return self._detached("rerun", self._run_id(str(run)), output, options)
        return self._rerun(run, output, plan=plan, **options)

    def _rerun(
        self,
        run: str,
        output: str | Path | None,
        *,
        plan: bool,
        changed: Sequence[str] = (),
        parameters: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        timeout: float | None = None,
        kernels: Literal["cold", "warm"] = "cold",
        progress: Progress | None = None,
        ticked: Ticked | None = None,
    ) -> Run | Plan:
        self._check_timeout(timeout)
        if str(run).endswith(".ipynb"):
            self._store_for(run)
        history = self.history(str(run), verify=True)
        path = self._notebook_of(history)
        _, flow = self._flow_of(path, ticked)
        values, differing = self._merged(history, flow, parameters)
        words = [changed] if isinstance(changed, str) else list(changed)
        selectors = read_selectors(words, lambda file: Path(file).read_text("utf-8"))
        origin = history.started
        folder = Path(cwd) if cwd is not None else Path(origin.cwd)
        decided = plan_rerun_of(
            flow, history, self.store, selectors=selectors, parameters=differing, folder=folder,
            kernel=origin.kernel_name or flow.kernel_name or "python3",
        )  # fmt: skip
        if plan:
            return decided.plan
        decided.plan.check()
        secret = {p.name for p in flow.parameters if p.secret} | set(origin.secrets)
        with self._ticked(ticked, history, values, secret) as claimed:
            return self._launch(
                path, flow, decided.plan, values,
                secret={name: values[name] for name in secret if name in values},
                output=output, labels={**own_labels(origin), **(labels or {})}, cwd=folder,
                options=self._options(timeout, None), kernel=origin.kernel_name or None,
                kernels=kernels, progress=progress, rerun=decided,
                told=options_told(
                    to=origin.options.get("to"), shared=origin.options.get("shared", False),
                    selectors=words, forced=list(decided.forced),
                ),
                ticked=claimed,
            )  # fmt: skip

    def restartable(self, run: str = "last") -> tuple[Run, Flow]:
        """A run that may be restarted, and the steps and parameters of its notebook as it is now.

        Args:
            run: the run's address.

        Raises:
            RunNotFound: there is no such run, or its notebook is gone.
        """
        history = self.history(run)
        return self._view(history), self._flow(self._notebook_of(history))[1]

    def plan_here(
        self,
        run: str,
        *,
        notebook: Path | None,
        from_step: str | None,
        to: str | None = None,
        force: bool = False,
        widen: bool = False,
    ) -> tuple[RestartPlan, Flow]:
        """The plan of a restart in a live kernel, and the notebook's steps.

        Args:
            run: the origin's address.
            notebook: the notebook that the front end has open, where it tells.
            from_step: the cut.
            to: the last step to execute.
            force: keep stale steps as they were.
            widen: move the cut to the first stale step.
        """
        history = self.history(run, verify=True)
        flow = self._flow(notebook if notebook is not None else self._notebook_of(history))[1]
        decided = plan_restart_of(
            flow, history, from_step=from_step, to=to, changed=(), force=force, widen=widen
        )
        return decided, flow

    def has_executed(self, run: str, step: str) -> bool:
        """Whether a run has a job of a step.

        Args:
            run: the run's address.
            step: the step's.
        """
        states = {state.info.number: state for state in self.history(run).states}
        try:
            found = find_step(step, [state.info for state in states.values()])
        except StepNotFound:
            return False
        return bool(states[found.number].job_id)

    def newest_with(self, notebook: Path, step: str) -> str:
        """The newest run of a notebook that has a job of a step; "" where none of the newest has.

        Args:
            notebook: the notebook.
            step: the step's address.
        """
        store, flow = self.store, flow_id(notebook, self.store_path)
        for run_id in store.newest(limit=_LATELY):
            if store.current_flow(store.started(run_id)) == flow and self.has_executed(
                run_id, step
            ):
                return run_id
        return ""

    def _with_items(
        self, decided: RestartPlan, flow: Flow, cwd: Path, assignment: str, secrets: dict[str, Any]
    ) -> Plan:
        from cellrail.reevaluating import with_items

        return with_items(
            decided,
            flow,
            kernel=self._kernel_of(decided.history, flow),
            cwd=cwd,
            settings=kernel_settings(self.settings, self.store_path, secrets),
            keyring=self.keyring,
            assignment=assignment,
        )

    @staticmethod
    def _kernel_of(history: RunHistory, flow: Flow) -> str:
        return history.started.kernel_name or flow.kernel_name or "python3"


def own_labels(started: RunStarted) -> dict[str, str]:
    """The labels that a restart takes over: of a run that a cell called, not its caller's id."""
    called = started.options.get("callers")
    return {name: v for name, v in started.labels.items() if not (called and name == PARENT)}


def check_let_go(history: RunHistory, *, cancel: bool, keep: bool) -> None:
    """Refuse a restart of a suspended origin where it was not said what becomes of that.

    Raises:
        RestartRefused: it was not, or both.
    """
    if history.status is RunStatus.SUSPENDED and cancel == keep:
        raise RestartRefused(
            f"run {history.run_id} is suspended: it {history.cause}",
            hint="--cancel-origin cancels it, --keep-waiting leaves it as it is; "
            f"to go on with it: cellrail resume {history.run_id}",
        )
