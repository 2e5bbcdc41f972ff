"""Starts a decided run: kernel and papermill at the same time, then the conductor.

A kernel takes longer to start than anything else, so it is started first, and papermill is
imported while it boots.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from cellrail.conductor import Request, RunConductor
from cellrail.errors import InternalError, UserError
from cellrail.kernels.ahead import leading_imports
from cellrail.kernels.supply import Supplied, Wanted, cold
from cellrail.notebook.fingerprint import modules_of, source_digest
from cellrail.notebook.model import Flow
from cellrail.notebook.parameters import expressions, plain_values, to_json
from cellrail.notebook.plan import Plan
from cellrail.rerunning import Rerunning
from cellrail.restarting import RestartPlan
from cellrail.run import keptmodules, prepare
from cellrail.run.desks import own_scope
from cellrail.run.interrupts import unheard
from cellrail.run.limits import RunLimits
from cellrail.run.putback import PutBack
from cellrail.run.rerun import RerunPlan
from cellrail.run.session import Progress
from cellrail.run.waits import WaitRules
from cellrail.settings import Settings
from cellrail_state.history import RunHistory
from cellrail_state.model import KeptReason, Origin, Tick
from cellrail_state.store import Store

_ENGINE = "cellrail"
_OUTPUT_SUFFIXES = (".ipynb", ".json", "")
_DEFAULT_KERNEL = "python3"


class Launcher(msgspec.Struct, kw_only=True):
    """One run, decided on; `run` carries it out."""

    path: Path
    flow: Flow
    flow_id: str
    plan: Plan
    values: dict[str, Any]
    secrets: dict[str, Any]
    labels: dict[str, str]
    options: RunLimits
    settings: Settings
    store_path: Path
    open_store: Callable[[], Store]
    cwd: Path
    output: str | Path | None = None
    kernel: str | None = None
    progress: Progress | None = None
    told: dict[str, Any] = {}
    restart: RestartPlan | None = None
    rerun: Rerunning | None = None
    changed: tuple[str, ...] = ()
    #: the file that holds the notebook as it is to be run, where that is not the notebook's own
    pinned: Path | None = None
    #: the tick that it is of
    tick: Tick | None = None
    #: the seed of string hashes, where it is not the origin's; None for any
    hash_seed: int | None = None
    #: what its cells do is watched, for others to share
    watch: bool = False
    #: why it keeps what it keeps
    kept_as: KeptReason = KeptReason.ORIGIN
    #: the run is made by `flow.call`, or was claimed for a tick: its id; whose states its steps see
    run_id: str = ""
    scope: str = ""
    #: where the kernel comes from
    supply: Callable[[Wanted], Supplied] = cold
    #: brings the catalog up to date at the run's end, or leaves that to later
    ingest: Callable[[Store], object] = lambda store: store.catalog.ingest()
    clock: Callable[[], float] = time.time

    def run(self) -> str:
        """Execute the run to its end, through papermill; its id.

        Raises:
            CellrailError: something is no good; nothing was changed.
        """
        return self._carry_out(self._execute).run_id

    def conduct(self, notebook: Any) -> RunConductor:
        """Execute a notebook that papermill has parameterised already."""

        def conduct(conductor: RunConductor, kernel_name: str) -> None:
            conductor.conduct(notebook, kernel_name=kernel_name)

        return self._carry_out(conduct)

    def _carry_out(self, execute: Callable[[RunConductor, str], None]) -> RunConductor:
        _check_folder(self.cwd)
        Store.check(self.store_path)
        name = self.kernel or self.flow.kernel_name or _DEFAULT_KERNEL
        restart = self.restart
        origin = self._origin()
        supplied = self.supply(self._wanted(name, origin))
        kernel, seed = supplied.kernel, supplied.hash_seed
        try:
            # behind the kernel's start: it imports papermill
            output = check_places(self.output, notebook=self.path, values=self.values, cwd=self.cwd)
            _import_in_background("duckdb")
            conductor = RunConductor(
                self._request(seed, output),
                store=self.open_store,
                kernel=kernel,
                settings=self._kernel_settings(),
                history=origin,
                putback=self._putback(restart) if restart is not None else None,
                replay=restart.replay() if restart is not None else None,
                rerun=self._rerun_plan(),
                output=output,
                progress=self.progress,
                clock=self.clock,
            )
            execute(conductor, name)
            # meanwhile the kernel ends
            self.ingest(self.open_store())
        except BaseException:
            with unheard():
                kernel.kill()
            raise
        finally:
            with unheard():
                kernel.shutdown()
        if conductor.outcome is None:
            raise InternalError("papermill did not hand the notebook to the engine")
        return conductor

    def _wanted(self, name: str, origin: RunHistory | None) -> Wanted:
        """The kernel for it."""
        seed = self.hash_seed
        if origin is not None:
            seed = origin.started.hash_seed
        elif seed is None:
            seed = prepare.new_hash_seed()
        return Wanted(
            name=name,
            cwd=self.cwd.resolve(),
            environment=prepare.kernel_environment(),
            hash_seed=seed,
            any_seed=origin is None and self.hash_seed is None,
            lone_seed=self.tick is not None and seed != self.hash_seed,
            imports=tuple(leading_imports(prepare.first_sources(self.flow))),
            meanwhile=lambda: _import_in_background("papermill"),
        )

    def _kernel_settings(self) -> dict[str, Any]:
        told = kernel_settings(self.settings, self.store_path, self.secrets)
        if self.watch:
            told["watch"] = True
        kept = self.flow.modules
        return told | keptmodules.told(self.flow.path.parent, kept, modules_of(self.flow))

    def _origin(self) -> RunHistory | None:
        """The run that it keeps steps of."""
        decided = self.restart or self.rerun
        return decided.history if decided is not None else None

    def _told_origin(self) -> Origin | None:
        """What the first record tells of it."""
        if self.rerun is not None:
            return Origin(run_id=self.rerun.history.run_id, from_step="")
        return self.restart.origin if self.restart is not None else None

    def _rerun_plan(self) -> RerunPlan | None:
        if self.rerun is None:
            return None
        plan = self.rerun.rerun
        plan.lazy_above = self.settings.lazy_above
        return plan

    def _numbers(self) -> dict[int, int]:
        if self.rerun is not None:
            return self.rerun.rerun.numbers
        return self.restart.numbers if self.restart is not None else {}

    def _execute(self, conductor: RunConductor, kernel_name: str) -> None:
        from papermill.exceptions import PapermillExecutionError
        from papermill.execute import execute_notebook

        # papermill raises on any error output, tolerated ones too; our record knows better
        with contextlib.suppress(PapermillExecutionError), _without_papermills_guess():
            execute_notebook(
                str(self.pinned or self.path).replace("{", "{{").replace("}", "}}"),
                None,
                parameters=plain_values(self.values),
                engine_name=_ENGINE,
                kernel_name=kernel_name,
                language="python",
                progress_bar=False,
                conductor=conductor,
            )

    def _request(self, seed: int | None, output: Path | None) -> Request:
        restart, history = self.restart, self._origin()
        modules = modules_of(self.flow)
        return Request(
            flow=self.flow,
            flow_id=self.flow_id,
            plan=self.plan,
            parameters=to_json(self.values),
            expressions=expressions(self.values),
            secrets=self.secrets,
            labels=self.labels,
            cwd=self.cwd,
            hash_seed=seed,
            origin=self._told_origin(),
            chain=restart.chain if restart is not None else (),
            kept=restart.kept if restart is not None else {},
            modules=modules,
            options=self.options,
            told=self._told(output),
            scope=self._scope(history),
            tick=self._tick(modules),
            run_id=self.run_id,
            numbers=self._numbers(),
            waits=wait_rules(self.settings),
            kept_as=self.kept_as,
        )

    def _scope(self, history: RunHistory | None) -> str:
        """Whose states its steps see."""
        if self.scope:
            return self.scope
        if history is not None:
            return history.started.scope
        by = self.tick.by if self.tick is not None else ""
        return by or own_scope()

    def _tick(self, modules: Mapping[int, Mapping[str, str]]) -> Tick | None:
        """The tick, with what is run for it."""
        if self.tick is None:
            return None
        return msgspec.structs.replace(self.tick, source=source_digest(self.flow, modules))

    def _told(self, output: Path | None) -> dict[str, Any]:
        """What the record tells of how to run: enough to go on with the run in another process."""
        told = {
            **self.told,
            **msgspec.to_builtins(self.options),
            "output": str(output) if output is not None else None,
            "changed": list(self.changed),
            "modules": str(self.flow.modules) if self.flow.modules is not None else None,
            "force": self.restart is not None and self.restart.force,
        }
        return {name: value for name, value in told.items() if value}

    def _putback(self, restart: RestartPlan) -> PutBack:
        assignment = prepare.assignments({name: self.values[name] for name in self.changed})
        # runs that share steps shall not draw the same numbers behind them
        spread = self.run_id if self.kept_as is KeptReason.SHARED else ""
        return restart.putback(assignment, lazy_above=self.settings.lazy_above, spread=spread)


def _check_folder(cwd: Path) -> None:
    if not cwd.is_dir():
        raise UserError(f"the working directory {cwd} does not exist", hint="see --cwd")


def check_places(
    output: str | Path | None, *, notebook: Path, values: Mapping[str, Any], cwd: Path
) -> Path | None:
    """Where the executed notebook goes; None for nowhere.

    Args:
        output: as it was given; papermill's templates of parameters are filled in.
        notebook: the notebook itself.
        values: the parameters.
        cwd: the working directory.

    Raises:
        UserError: the notebook cannot be written there, or there is no such working directory.
    """
    _check_folder(cwd)
    if output is None:
        return None
    from papermill.exceptions import PapermillException
    from papermill.parameterize import add_builtin_parameters, parameterize_path

    try:
        text = parameterize_path(str(output), add_builtin_parameters(dict(values)))
    except (PapermillException, IndexError, ValueError) as error:
        raise UserError(f"the output {output} cannot be filled in: {error}") from error
    output = Path(text).resolve()
    if text == "-" or output.is_dir() or output.suffix not in _OUTPUT_SUFFIXES:
        raise UserError(
            f"the output {text!r} is no notebook's name",
            hint="name a file that ends in .ipynb; `cellrail export RUN OUT.html` makes HTML",
        )
    if output == notebook.resolve():
        raise UserError("the output would overwrite the notebook itself", hint="name another file")
    if not output.parent.is_dir():
        raise UserError(
            f"the folder of the output {output} does not exist",
            hint=f"mkdir -p {output.parent}",
        )
    if not prepare.writable_parent(output):
        raise UserError(
            f"the folder of the output {output} cannot be written", hint="choose another"
        )
    return output


@contextlib.contextmanager
def _without_papermills_guess() -> Iterator[None]:
    """Its reading of the parameters cell knows no annotations; ours has checked every name."""
    import logging

    def keep(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Passed unknown parameter")

    logger = logging.getLogger("papermill")
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def _import_in_background(module: str) -> None:
    """It is needed soon; meanwhile this process mostly waits."""
    from importlib import import_module
    from threading import Thread

    if module not in sys.modules:
        name = f"import-{module}"
        Thread(target=import_module, args=(module,), name=name, daemon=True).start()


def wait_rules(settings: Settings) -> WaitRules:
    """How runs wait."""
    return WaitRules(base_url=settings.base_url, park_after=settings.park_after)


def kernel_settings(
    settings: Settings, store_path: Path, secrets: dict[str, Any]
) -> dict[str, Any]:
    """What the hooks inside the kernel are told."""
    limits = prepare.checkpoint_limits(settings, store_path)
    return {
        "objects": str(store_path / "objects"),
        "limits": {name: value for name, value in limits.items() if value is not None},
        "secrets": [str(value) for value in secrets.values()],
    }
