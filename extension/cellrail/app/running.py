"""Use cases that run: from the start, live notebooks, papermill's command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, overload

import msgspec

from cellrail.app.restarting import Restarting
from cellrail.app.starting import Ticked, options_told
from cellrail.errors import UserError
from cellrail.launch import Launcher
from cellrail.locate import flow_id
from cellrail.notebook.parameters import coerce
from cellrail.notebook.plan import Plan
from cellrail.notebook.planner import plan_run
from cellrail.run.session import Progress
from cellrail.views import Run

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
    #: kernels start cold (default), or are forked from a process that has the imports done
    kernels: Literal["cold", "warm"]
    #: a checkpoint that cannot be written fails its step
    strict: bool | None
    #: `./shared` in the working directory is the run's shared folder while it lasts
    shared: bool
    #: who is told how far the run has come
    progress: Progress | None


class Running(Restarting):
    """Runs notebooks."""

    @overload
    def run(
        self,
        notebook: str | Path,
        output: str | Path | None = None,
        *,
        plan: Literal[False] = False,
        detach: bool = False,
        **options: Unpack[RunOptions],
    ) -> Run: ...

    @overload
    def run(
        self,
        notebook: str | Path,
        output: str | Path | None = None,
        *,
        plan: Literal[True],
        detach: bool = False,
        **options: Unpack[RunOptions],
    ) -> Plan: ...

    def run(
        self,
        notebook: str | Path,
        output: str | Path | None = None,
        *,
        plan: bool = False,
        detach: bool = False,
        **options: Unpack[RunOptions],
    ) -> Run | Plan:
        """Run a notebook as a flow.

        Args:
            notebook: the notebook's path. It is never written.
            output: where the executed notebook goes; a template of the parameters, as papermill's.
            plan: return what would happen; run nothing.
            detach: run it in a process of its own; return as soon as it has begun.
            options: see `RunOptions`.

        Returns:
            The run, ended, or begun with `detach`; with `plan`, the plan.

        Raises:
            CellrailError: the notebook, a parameter, the kernel or the store is no good; nothing
                was changed.
        """
        if detach and not plan:
            self._store_for(notebook)
            return self._detached("run", notebook, output, options)
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
        kernels: Literal["cold", "warm"] = "cold",
        strict: bool | None = None,
        shared: bool = False,
        progress: Progress | None = None,
        ticked: Ticked | None = None,
    ) -> Run | Plan:
        self._check_timeout(timeout)
        self._store_for(notebook)
        if only is not None:
            return self._restart(
                base or str(notebook), output, from_step=only, to=only, parameters=parameters,
                labels=labels, cwd=cwd, timeout=timeout, plan=plan, progress=progress,
                kernels=kernels,
            )  # fmt: skip
        if base is not None:
            raise UserError("--base goes with --only", hint="name the step with --only")
        path, flow = self._flow_of(notebook, ticked)
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
            options=self._options(timeout, strict), kernel=kernel, kernels=kernels,
            progress=progress, told=options_told(to=to, shared=shared),
            ticked=ticked,
        )  # fmt: skip

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
        # as nbclient reads it: 0 and less are no limit
        if cell_timeout is not None and cell_timeout > 0:
            limits = msgspec.structs.replace(limits, cell_timeout=float(cell_timeout))
        return Launcher(
            path=path, flow=flow, flow_id=flow_id(path, self.store_path),
            plan=plan_run(flow, to=to), values=given,
            secrets=self._secret_values(flow, given, secret), labels=dict(labels),
            options=limits, settings=self.settings, store_path=self.store_path,
            open_store=self._open_or_create, cwd=Path.cwd(), output=output, kernel=kernel,
            clock=self.clock,
        )  # fmt: skip

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

    def name_live(self, run: Any, notebook: Path) -> None:
        """A live run that was begun without one has got its notebook."""
        from cellrail.live import name_it

        name_it(run, notebook)

    def shell_state(self, shell: Any, base: Any) -> Any:
        """Captures of a shell that is not recorded."""
        from cellrail.live import shell_state

        return shell_state(shell, base, store=self._open_or_create(), settings=self.settings)

    def _secret_values(
        self, flow: Flow, given: Mapping[str, Any], names: set[str]
    ) -> dict[str, Any]:
        defaults = {p.name: p.default for p in flow.parameters}
        values = {name: given.get(name, defaults.get(name)) for name in names}
        return {name: value for name, value in values.items() if value is not None}
