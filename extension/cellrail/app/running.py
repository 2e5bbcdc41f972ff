"""Use cases that run: from the start, restarts, live notebooks, papermill's command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, overload

import msgspec

from cellrail.app.base import AppBase
from cellrail.errors import RunNotFound, UserError
from cellrail.launch import Launcher, kernel_settings
from cellrail.locate import flow_id
from cellrail.notebook.parameters import coerce, from_json, to_json
from cellrail.notebook.plan import Fate, Plan
from cellrail.notebook.planner import plan_run
from cellrail.restarting import RestartPlan, check_objects, plan_restart_of
from cellrail.run.desks import changed_since
from cellrail.run.performer import RunLimits
from cellrail.run.session import Progress
from cellrail.views import Run
from cellrail_state.history import RunHistory

if TYPE_CHECKING:
    from cellrail.notebook.model import Flow


class RunOptions(TypedDict, total=False):
    """How to run a notebook."""

    #: values by name; dates may be dates or ISO strings
    parameters: Mapping[str, Any] | None
    labels: Mapping[str, str] | None
    #: names of parameters that are secret
    secrets: Sequence[str]
    #: the last step to execute; later ones stay pending
    to: str | None
    #: the one step to execute, on the namespace before it
    only: str | None
    #: with `only`: the run whose namespace it is (default: the newest of the notebook)
    base: str | None
    #: the working directory; the notebook's folder by default
    cwd: str | Path | None
    #: seconds for the whole run
    timeout: float | None
    #: the kernel's name; the notebook's by default
    kernel: str | None
    #: a checkpoint that cannot be written fails its step
    strict: bool | None
    #: `./shared` in the working directory is the run's shared folder while it lasts
    shared: bool
    #: who is told how far the run has come
    progress: Progress | None


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
    #: of a loop with independent items, execute those that failed
    failed_only: bool
    #: evaluate the items of the loop that is cut anew
    reeval: bool
    #: the working directory; the origin's by default
    cwd: str | Path | None
    #: seconds for the whole run
    timeout: float | None
    #: who is told how far the run has come
    progress: Progress | None


class Running(AppBase):
    """Runs and restarts notebooks."""

    @overload
    def run(
        self,
        notebook: str | Path,
        output: str | Path | None = None,
        *,
        plan: Literal[False] = False,
        **options: Unpack[RunOptions],
    ) -> Run: ...

    @overload
    def run(
        self,
        notebook: str | Path,
        output: str | Path | None = None,
        *,
        plan: Literal[True],
        **options: Unpack[RunOptions],
    ) -> Plan: ...

    def run(
        self,
        notebook: str | Path,
        output: str | Path | None = None,
        *,
        plan: bool = False,
        **options: Unpack[RunOptions],
    ) -> Run | Plan:
        """Run a notebook as a flow.

        Args:
            notebook: the notebook's path. It is never written.
            output: where the executed notebook goes; a template of the parameters, as papermill's.
            plan: return what would happen; run nothing.
            options: see `RunOptions`.

        Returns:
            The run, ended; with `plan`, the plan.

        Raises:
            CellrailError: the notebook, a parameter, the kernel or the store is no good; nothing
                was changed.
        """
        return self._run(notebook, output, plan=plan, **options)

    def _run(
        self,
        notebook: str | Path,
        output: str | Path | None,
        *,
        plan: bool,
        parameters: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        secrets: Sequence[str] = (),
        to: str | None = None,
        only: str | None = None,
        base: str | None = None,
        cwd: str | Path | None = None,
        timeout: float | None = None,
        kernel: str | None = None,
        strict: bool | None = None,
        shared: bool = False,
        progress: Progress | None = None,
    ) -> Run | Plan:
        self._store_for(notebook)
        if only is not None:
            return self._restart(
                base or str(notebook), output, from_step=only, to=only, parameters=parameters,
                labels=labels, cwd=cwd, timeout=timeout, plan=plan, progress=progress,
            )  # fmt: skip
        if base is not None:
            raise UserError("--base goes with --only", hint="name the step with --only")
        path, flow = self._flow(notebook)
        given = coerce(flow.parameters, parameters or {})
        decided = plan_run(flow, to=to)
        if plan:
            return decided
        secret = {p.name for p in flow.parameters if p.secret} | set(secrets)
        return self._launch(
            path, flow, decided, given,
            secret=self._secret_values(flow, given, secret),
            output=output, labels=dict(labels or {}),
            cwd=Path(cwd) if cwd is not None else path.parent,
            options=self._options(timeout, strict), kernel=kernel, progress=progress,
            told=_told(to=to, shared=shared),
        )  # fmt: skip

    @overload
    def restart(
        self,
        run: str = "last",
        output: str | Path | None = None,
        *,
        plan: Literal[False] = False,
        **options: Unpack[RestartOptions],
    ) -> Run: ...

    @overload
    def restart(
        self,
        run: str = "last",
        output: str | Path | None = None,
        *,
        plan: Literal[True],
        **options: Unpack[RestartOptions],
    ) -> Plan: ...

    def restart(
        self,
        run: str = "last",
        output: str | Path | None = None,
        *,
        plan: bool = False,
        **options: Unpack[RestartOptions],
    ) -> Run | Plan:
        """Restart a run from a step: a new run that keeps the jobs before the cut.

        Args:
            run: an id, a unique prefix, `last`, or a notebook's path (its newest run).
            output: where the executed notebook goes.
            plan: return what would happen and why; run nothing.
            options: see `RestartOptions`.

        Returns:
            The new run, ended; with `plan`, the plan (with the reasons of a refusal, if any).

        Raises:
            RestartRefused: the plan refuses; the message names the earliest legal cut.
            CellrailError: something else is no good; nothing was changed.
        """
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
        failed_only: bool = False,
        reeval: bool = False,
        cwd: str | Path | None = None,
        timeout: float | None = None,
        progress: Progress | None = None,
    ) -> Run | Plan:
        if state not in {"origin", "current"}:
            raise UserError(f"state is origin or current, not {state!r}")
        if str(run).endswith(".ipynb"):
            self._store_for(run)
        history = self.history(str(run), verify=True)
        path = self._notebook_of(history)
        _, flow = self._flow(path)
        values, changed = self._merged(history, flow, parameters)
        decided = plan_restart_of(
            flow, history, from_step=from_step, to=to, changed=changed, force=force, widen=widen,
            failed_only=failed_only, reeval=reeval,
        )  # fmt: skip
        if state == "origin":
            decided = self._with_changes(decided, flow_id(path, self.store_path))
        if plan and reeval:
            return self._with_items(decided, flow, Path(cwd) if cwd is not None else None)
        if plan:
            return decided.plan
        decided.plan.check()
        check_objects(decided, self.store.objects.contains)
        origin = history.started
        secret = {p.name for p in flow.parameters if p.secret} | set(origin.secrets)
        return self._launch(
            path, flow, decided.plan, values,
            secret={name: values[name] for name in secret if name in values},
            output=output, labels={**origin.labels, **(labels or {})},
            cwd=Path(cwd) if cwd is not None else Path(origin.cwd),
            options=self._options(timeout, None), kernel=origin.kernel_name or None,
            progress=progress, restart=decided,
            told=_told(
                to=to, shared=origin.options.get("shared", False),
                state="" if state == "origin" else state,
            ),
            changed=changed,
        )  # fmt: skip

    def _with_changes(self, decided: RestartPlan, flow: str) -> RestartPlan:
        """The plan, with what its steps will see though it is no longer so."""
        labels = {
            decided.numbers[step.number]: step.label
            for step in decided.plan.steps
            if step.fate is Fate.EXECUTES and step.number in decided.numbers
        }
        told = changed_since(self.store, decided.history, labels, flow=flow)
        warnings = (*decided.plan.warnings, *told)
        plan = msgspec.structs.replace(decided.plan, warnings=warnings)
        return msgspec.structs.replace(decided, plan=plan)

    def _with_items(self, decided: RestartPlan, flow: Flow, cwd: Path | None) -> Plan:
        from cellrail.reevaluating import with_items

        started = decided.history.started
        return with_items(
            decided,
            flow,
            kernel=started.kernel_name or flow.kernel_name or "python3",
            cwd=cwd if cwd is not None else Path(started.cwd),
            settings=kernel_settings(self.settings, self.store_path, {}),
        )

    def launcher_for_papermill(
        self,
        notebook: Path,
        parameters: Mapping[str, Any],
        *,
        to: str | None,
        labels: Mapping[str, str],
        secrets: Sequence[str],
        cell_timeout: float | None,
        kernel: str,
        output: str | None,
    ) -> Launcher:
        """A run that papermill's own command asked for, decided and not started.

        Args:
            notebook: the notebook's path.
            parameters: papermill's.
            to: the last step to execute.
            labels: the run's labels.
            secrets: names of secret parameters.
            cell_timeout: seconds each cell may take.
            kernel: the kernel's name.
            output: where papermill writes.
        """
        path, flow = self._flow(notebook)
        given = coerce(flow.parameters, parameters)
        secret = {p.name for p in flow.parameters if p.secret} | set(secrets)
        limits = self._options(None, None)
        if cell_timeout is not None:
            limits = msgspec.structs.replace(limits, cell_timeout=float(cell_timeout))
        return Launcher(
            path=path, flow=flow, flow_id=flow_id(path, self.store_path),
            plan=plan_run(flow, to=to), values=given,
            secrets=self._secret_values(flow, given, secret), labels=dict(labels),
            options=limits, settings=self.settings, store_path=self.store_path,
            open_store=self._open_or_create, cwd=Path.cwd(), output=output, kernel=kernel,
            clock=self.clock,
        )  # fmt: skip

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

    def begin_live(self, shell: Any, base: Any, notebook: Path | None) -> Any:
        """Begin to record what a person executes in an open notebook.

        Args:
            shell: the IPython shell.
            base: the process as it was before.
            notebook: the notebook, where the front end tells.
        """
        from cellrail.live import begin

        return begin(
            shell, base, notebook, store=self._open_or_create(), settings=self.settings,
            clock=self.clock,
        )  # fmt: skip

    def shell_state(self, shell: Any, base: Any) -> Any:
        """Captures of a shell that is not recorded."""
        from cellrail.live import shell_state

        return shell_state(shell, base, store=self._open_or_create(), settings=self.settings)

    def _launch(
        self,
        path: Path,
        flow: Flow,
        plan: Plan,
        values: Mapping[str, Any],
        *,
        secret: Mapping[str, Any],
        labels: dict[str, str],
        options: RunLimits,
        restart: RestartPlan | None = None,
        changed: Sequence[str] = (),
        **rest: Any,
    ) -> Run:
        launcher = Launcher(
            path=path, flow=flow, flow_id=flow_id(path, self.store_path), plan=plan,
            values=dict(values), secrets=dict(secret), labels=labels, options=options,
            settings=self.settings, store_path=self.store_path, open_store=self._open_or_create,
            restart=restart, changed=tuple(changed), clock=self.clock, **rest,
        )  # fmt: skip
        run_id = launcher.run()
        return self._view(RunHistory(run_id, self._sources(verify=False)))

    def _options(self, timeout: float | None, strict: bool | None) -> RunLimits:
        return RunLimits(
            timeout=timeout,
            cell_timeout=self.settings.cell_timeout,
            strict=self.settings.strict if strict is None else strict,
            lazy_above=self.settings.lazy_above,
        )

    def _secret_values(
        self, flow: Flow, given: Mapping[str, Any], names: set[str]
    ) -> dict[str, Any]:
        defaults = {p.name: p.default for p in flow.parameters}
        values = {name: given.get(name, defaults.get(name)) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    def _notebook_of(self, history: RunHistory) -> Path:
        path = self.store_path.parent / self.store.current_flow(history.started)
        if path.is_file():
            return path
        recorded = Path(history.started.notebook_path)
        if recorded.is_file():
            return recorded
        raise RunNotFound(
            f"the notebook {history.started.flow!r} of run {history.run_id} is gone",
            hint="after a rename: cellrail mv OLD NEW; "
            f"or get it back: cellrail export {history.run_id} {path.name}",
        )

    def _merged(
        self, history: RunHistory, flow: Flow, parameters: Mapping[str, Any] | None
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The restarted run's parameters, and the names that differ from the origin's."""
        started = history.started
        old = {name: from_json(value) for name, value in started.parameters.items()}
        for name, token in started.secrets.items():
            old[name] = from_json(msgspec.json.decode(self.keyring.decrypt(token)))
        new = coerce(flow.parameters, parameters or {})
        defaults = {p.name: p.default for p in flow.parameters}
        changed = tuple(
            sorted(n for n, v in new.items() if to_json(v) != to_json(old.get(n, defaults.get(n))))
        )
        return {**old, **new}, changed


def _told(**options: Any) -> dict[str, Any]:
    """The options that were given, as the run's first record tells them."""
    return {name: value for name, value in options.items() if value}
