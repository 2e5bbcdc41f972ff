"""`App`: every use case once. The command line, the magics and the panels are thin over it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import msgspec

from cellrail import settings as settings_module
from cellrail.errors import RunNotFound, UserError
from cellrail.launch import Launcher
from cellrail.locate import RunLocator, flow_id
from cellrail.notebook.address import find_step
from cellrail.notebook.parameters import coerce, from_json, to_json
from cellrail.notebook.parse import load, parse
from cellrail.notebook.plan import Plan, plan_run
from cellrail.restarting import RestartPlan, plan_restart_of
from cellrail.run.session import Progress, SessionOptions
from cellrail.views import Run
from cellrail_state.history import RunHistory, Sources
from cellrail_state.keys import KeyRing
from cellrail_state.model import Checkpoint
from cellrail_state.store import Store

if TYPE_CHECKING:
    from cellrail.notebook.model import Flow
    from cellrail_state.model import ObjectRef, Record


class App:
    """The front door: runs, restarts and looks into what was run.

    Args:
        store: the store's folder; by default the one that belongs to `notebook`, or to the
            current folder.
        notebook: a notebook whose store is meant.
        keys: folder of the signing keys; by default in the user's Jupyter data folder.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: str | Path | None = None,
        *,
        notebook: str | Path | None = None,
        keys: str | Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        folder = Path(notebook).resolve().parent if notebook is not None else Path.cwd()
        self.settings = settings_module.load_settings(folder)
        if store is not None:
            self.settings = msgspec.structs.replace(self.settings, store=str(store))
        self._named = bool(self.settings.store)
        self.store_path = settings_module.find_store(folder, self.settings)
        keys_at = Path(keys) if keys is not None else settings_module.keys_folder(self.settings)
        self.keyring = KeyRing(keys_at)
        self.clock = clock
        self._store: Store | None = None

    # --- the store ---------------------------------------------------------------------------

    @property
    def store(self) -> Store:
        """The store, which must exist.

        Raises:
            StoreNotFound: there is none yet.
        """
        if self._store is None:
            self._store = Store.open(self.store_path, keyring=self.keyring)
        return self._store

    def _store_for(self, notebook: str | Path) -> None:
        """Where no store was named, use the one of the notebook."""
        if not self._named and self._store is None:
            folder = Path(notebook).resolve().parent
            self.store_path = settings_module.find_store(folder, self.settings)

    def _open_or_create(self) -> Store:
        if self._store is None:
            self._store = Store.open_or_create(self.store_path, keyring=self.keyring)
        return self._store

    def _sources(self, *, verify: bool) -> Sources:
        store = self.store

        def records(run_id: str) -> Iterator[Record]:
            return store.records(run_id, verify=verify)

        def content(ref: ObjectRef) -> bytes:
            return bytes(store.objects.get(ref))

        return Sources(records=records, owned=store.is_owned, content=content)

    def history(self, run: str, *, verify: bool = False) -> RunHistory:
        """The history of the run at this address (an id, a prefix, `last`, or a notebook).

        Raises:
            RunNotFound: there is none.
            AmbiguousRun: a prefix fits several.
            Untrusted: with `verify`: the store was signed by somebody else.
        """
        run_id = RunLocator(self.store).find(run)
        return RunHistory(run_id, self._sources(verify=verify))

    def _view(self, history: RunHistory) -> Run:
        return Run(history, functools.partial(self._load_values, history.run_id))

    def _load_values(self, run_id: str, checkpoint: Checkpoint, names: list[str]) -> dict[str, Any]:
        from cellrail.values import load_values

        # nothing is unpickled before the whole run is known to be signed by somebody trusted
        RunHistory(run_id, self._sources(verify=True)).chain  # noqa: B018
        return load_values(self.store, checkpoint, names)

    # --- running -----------------------------------------------------------------------------

    @overload
    def run(self, notebook: str | Path, output: str | Path | None = ..., *, plan: Literal[True], **options: Any) -> Plan: ...  # noqa: E501
    @overload
    def run(self, notebook: str | Path, output: str | Path | None = ..., *, plan: Literal[False] = ..., **options: Any) -> Run: ...  # noqa: E501

    def run(
        self,
        notebook: str | Path,
        output: str | Path | None = None,
        *,
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
        plan: bool = False,
        progress: Progress | None = None,
    ) -> Run | Plan:
        """Run a notebook as a flow.

        Args:
            notebook: the notebook's path. It is never written.
            output: where the executed notebook goes; a template of the parameters, as papermill's.
            parameters: values by name; dates may be dates or ISO strings.
            labels: the run's labels.
            secrets: names of parameters that are secret.
            to: the last step to execute; later ones stay pending.
            only: the one step to execute, on the namespace before it.
            base: with `only`: the run whose namespace it is (default: the newest of the notebook).
            cwd: the working directory; the notebook's folder by default.
            timeout: seconds for the whole run.
            kernel: the kernel's name; the notebook's by default.
            strict: a checkpoint that cannot be written fails its step.
            plan: return what would happen; run nothing.
            progress: who is told.

        Returns:
            The run, ended; with `plan`, the plan.

        Raises:
            CellrailError: the notebook, a parameter, the kernel or the store is no good; nothing
                was changed.
        """
        self._store_for(notebook)
        if only is not None:
            return self.restart(
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
            told={"to": to} if to else {},
        )  # fmt: skip

    def restart(
        self,
        run: str = "last",
        output: str | Path | None = None,
        *,
        from_step: str | None = None,
        to: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        force: bool = False,
        widen: bool = False,
        cwd: str | Path | None = None,
        timeout: float | None = None,
        plan: bool = False,
        progress: Progress | None = None,
    ) -> Run | Plan:
        """Restart a run from a step: a new run that keeps the jobs before the cut.

        Args:
            run: an id, a unique prefix, `last`, or a notebook's path (its newest run).
            output: where the executed notebook goes.
            from_step: the cut; by default the first step that is not success, kept or skipped.
            to: the last step to execute.
            parameters: changed parameters; the others are the origin's.
            labels: labels added to the origin's.
            force: keep stale steps as they were.
            widen: move the cut to the first stale step.
            cwd: the working directory; the origin's by default.
            timeout: seconds for the whole run.
            plan: return what would happen and why; run nothing.
            progress: who is told.

        Returns:
            The new run, ended; with `plan`, the plan (with the reasons of a refusal, if any).

        Raises:
            RestartRefused: the plan refuses; the message names the earliest legal cut.
            CellrailError: something else is no good; nothing was changed.
        """
        if str(run).endswith(".ipynb"):
            self._store_for(run)
        history = self.history(str(run), verify=True)
        path = self._notebook_of(history)
        _, flow = self._flow(path)
        values, changed = self._merged(history, flow, parameters)
        decided = plan_restart_of(
            flow, history, from_step=from_step, to=to, changed=changed, force=force, widen=widen
        )
        if plan:
            return decided.plan
        decided.plan.check()
        origin = history.started
        secret = {p.name for p in flow.parameters if p.secret} | set(origin.secrets)
        return self._launch(
            path, flow, decided.plan, values,
            secret={name: values[name] for name in secret if name in values},
            output=output, labels={**origin.labels, **(labels or {})},
            cwd=Path(cwd) if cwd is not None else Path(origin.cwd),
            options=self._options(timeout, None), kernel=origin.kernel_name or None,
            progress=progress, told={"to": to} if to else {}, restart=decided,
            changed=changed,
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
        options: SessionOptions,
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
        self.store.catalog.ingest()
        return self._view(RunHistory(run_id, self._sources(verify=False)))

    def _flow(self, notebook: str | Path) -> tuple[Path, Flow]:
        path = Path(notebook).resolve()
        return path, parse(load(Path(notebook)), path)

    def _options(self, timeout: float | None, strict: bool | None) -> SessionOptions:
        return SessionOptions(
            timeout=timeout,
            cell_timeout=self.settings.cell_timeout,
            strict=self.settings.strict if strict is None else strict,
        )

    def _secret_values(
        self, flow: Flow, given: Mapping[str, Any], names: set[str]
    ) -> dict[str, Any]:
        defaults = {p.name: p.default for p in flow.parameters}
        values = {name: given.get(name, defaults.get(name)) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    def _notebook_of(self, history: RunHistory) -> Path:
        path = self.store_path.parent / self.store.current_flow(history.started.flow)
        if path.exists():
            return path
        recorded = Path(history.started.notebook_path)
        if recorded.exists():
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

    # --- looking -----------------------------------------------------------------------------

    def runs(
        self,
        notebook: str | Path | None = None,
        *,
        status: str | None = None,
        labels: Mapping[str, str] | None = None,
        parameters: Mapping[str, Any] | None = None,
        since: float | None = None,
        limit: int = 20,
    ) -> list[Any]:
        """The newest runs as records, newest first.

        Args:
            notebook: only this notebook's.
            status: only these.
            labels: only runs that bear all of them.
            parameters: only runs with these values.
            since: only runs started after this moment (seconds since the epoch).
            limit: at most so many.
        """
        if notebook is not None:
            self._store_for(notebook)
        flow = flow_id(Path(notebook).resolve(), self.store_path) if notebook is not None else None
        return list(
            self.store.catalog.runs(
                flow=flow, status=status, labels=dict(labels or {}),
                parameters=to_json(dict(parameters or {})), since=since, limit=limit,
            )  # fmt: skip
        )

    def steps(self, notebook: str | Path) -> Flow:
        """A notebook's steps, checked; nothing runs.

        Raises:
            CellrailError: the notebook cannot be used as a flow; the message names the cell.
        """
        return self._flow(notebook)[1]

    def show(self, run: str = "last", *, verify: bool = False) -> Run:
        """A run with its steps, outputs and variables.

        Args:
            run: the run's address.
            verify: refuse a run that nobody this user trusts has signed.
        """
        return self._view(self.history(run, verify=verify))

    def journal(self, run: str = "last", *, follow: bool = False) -> Iterator[dict[str, Any]]:
        """What happened in a run, in order.

        Args:
            run: the run's address.
            follow: go on until the run has ended.
        """
        from cellrail.looking import journal_lines

        run_id = RunLocator(self.store).find(run)
        return journal_lines(self.store, run_id, follow=follow)

    def export(self, run: str, output: str | Path) -> Path:
        """Rebuild a run's executed notebook (`.ipynb` or `.html`) from the store alone."""
        from cellrail.exporting import export

        return export(self._view(self.history(run)), self.history(run), Path(output))

    def diff(self, run_a: str, run_b: str) -> Any:
        """Compare two runs step by step: outputs, variables, row counts, timings."""
        from cellrail.comparing import compare

        return compare(self.history(run_a), self.history(run_b))

    def sql(
        self, query: str, *, run: str | None = None, step: str | None = None
    ) -> list[dict[str, Any]]:
        """Query the catalog; with a run (and step), its checkpointed DataFrames by name."""
        if run is None:
            rows: list[dict[str, Any]] = self.store.catalog.query(query)
            return rows
        from cellrail.values import query_values

        history = self.history(run, verify=True)
        if step is None:
            checkpoint = Checkpoint.fold(job.delta for job in history.chain)
        else:
            info = find_step(step, [state.info for state in history.states])
            checkpoint = history.checkpoint_after(info.number)
        return query_values(self.store, checkpoint, query)

    # --- keeping -----------------------------------------------------------------------------

    def doctor(self, *, fix: bool = False) -> Any:
        """Check journals, rows and objects; with `fix`, mend what can be mended."""
        from cellrail_state.doctor import examine

        return examine(self.store, fix=fix)

    def prune(
        self, *, keep_last: int | None = None, older_than: float | None = None, plan: bool = False
    ) -> Any:
        """Delete old runs and free what no kept run points to.

        Args:
            keep_last: keep this many newest runs of each flow.
            older_than: delete only runs older than this, in seconds.
            plan: tell what would be freed; delete nothing.
        """
        from cellrail_state.prune import prune

        return prune(
            self.store, keep_last=keep_last, older_than=older_than, plan=plan, now=self.clock()
        )

    def trust(self) -> int:
        """Adopt this store as it is now; the number of journals that are trusted from here on."""
        return int(self.store.trust())

    def mv(self, old: str | Path, new: str | Path) -> int:
        """Follow a notebook's rename with its history; the number of runs that follow.

        Raises:
            RunNotFound: no run is known under the old name.
        """
        before = flow_id(Path(old).resolve(), self.store_path)
        after = flow_id(Path(new).resolve(), self.store_path)
        moved = int(self.store.rename_flow(before, after))
        if not moved:
            raise RunNotFound(f"no run of {before!r} is known", hint="cellrail runs lists them")
        return moved

    def key_export(self) -> str:
        """This user's signing key as text. Whoever has it can sign in this user's name."""
        return self.keyring.export()

    def key_import(self, text: str) -> None:
        """Accept stores that were signed with an exported key."""
        self.keyring.import_(text)
