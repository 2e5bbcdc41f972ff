"""Use cases of the server: what somebody asks for becomes a task for another process.

The server executes no notebook itself: what is asked for is checked here, gets the id of its run,
and is given to a worker. So nothing that a run does can hold up the server, and a server that stops
hinders no run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Unpack

from cellrail.app.backfilling import Backfilling
from cellrail.app.fills import Fill
from cellrail.app.restarting import RerunOptions, RestartOptions
from cellrail.app.wishing import BackfillOptions
from cellrail.errors import BackfillRuns, BadParameter, NoSuchTrigger, NotANotebook
from cellrail.executors import WAKE, Task
from cellrail.locate import flow_id
from cellrail.notebook.parameters import coerce, from_json, to_json
from cellrail.notebook.planner import plan_run
from cellrail.run import prepare
from cellrail.schedule.deciding import Todo
from cellrail_state.schedules import Trigger
from cellrail_state.waits import WaitInfo

_SUFFIX = ".ipynb"
_LONGEST_NAME = 255
#: so many notebooks are looked at for the nearest name
_MANY = 1000


class Serving(Backfilling):
    """What a server offers beyond what a person has."""

    @property
    def root(self) -> Path:
        """The folder whose notebooks are served: the store's parent."""
        return self.store_path.parent

    def begin_store(self) -> Path:
        """The store's folder, made if it is not there."""
        return self._open_or_create().path

    def notebook_at(self, name: str) -> Path:
        """The notebook of this name below the root, and nowhere else.

        Args:
            name: its path relative to the root, with forward slashes.

        Raises:
            NotANotebook: there is none; names the nearest. A name that leads elsewhere, or into a
                hidden folder, is none.
        """
        root = self.root.resolve()
        if _leads_below(name):
            path = (root / name).resolve()
            # (a link may lead elsewhere)
            if path.is_relative_to(root) and path.suffix == _SUFFIX and path.is_file():
                return path
        near = get_close_matches(name[:_LONGEST_NAME], self._notebooks(root), n=1)
        raise NotANotebook(
            f"there is no notebook {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
            hint="a path below the served folder, as in reports/daily.ipynb",
        )

    @staticmethod
    def _notebooks(root: Path) -> list[str]:
        found = []
        for number, path in enumerate(root.glob(f"**/[!.]*{_SUFFIX}")):
            if number >= _MANY:
                break
            name = path.relative_to(root).as_posix()
            if "/." not in f"/{name}":
                found.append(name)
        return found

    @staticmethod
    def check_values(values: Mapping[str, Any]) -> None:
        """Refuse values of parameters that came as JSON and cannot be kept.

        Raises:
            BadParameter: one looks like a date of ours, and is none.
        """
        for name, value in values.items():
            try:
                from_json(value)
            except (ValueError, TypeError, OverflowError) as error:
                raise BadParameter(f"parameter {name!r}: {error}") from error

    # --- tasks -------------------------------------------------------------------------------

    def task_of_run(
        self,
        notebook: Path,
        *,
        parameters: Mapping[str, Any],
        labels: Mapping[str, str],
        secrets: Sequence[str],
        to: str | None = None,
        timeout: float | None = None,
        kernels: Literal["cold", "warm"] = "cold",
    ) -> Task:
        """A run that somebody asks for, checked.

        Raises:
            CellrailError: it would be refused; nothing was changed.
        """
        _, flow = self._flow(notebook)
        given = coerce(flow.parameters, parameters)
        plan_run(flow, to=to)
        return Task(
            todo=Todo.RUN, run_id=self._new_id(), notebook=str(notebook), by_hand=True,
            parameters=to_json(given), secrets=tuple(secrets), labels=dict(labels),
            options=_given(to=to, timeout=timeout, kernels=kernels),
        )  # fmt: skip

    def task_of_restart(self, run: str, **options: Unpack[RestartOptions]) -> Task:
        """A restart that somebody asks for; its plan is checked.

        Raises:
            RestartRefused: the plan refuses.
            CellrailError: something else is no good; nothing was changed.
        """
        self.restart(run, plan=True, **options).check()
        return self._task_of(Todo.RESTART, run, dict(options))

    def task_of_rerun(self, run: str, **options: Unpack[RerunOptions]) -> Task:
        """A rerun that somebody asks for; its plan is checked.

        Raises:
            CellrailError: something is no good; nothing was changed.
        """
        self.rerun(run, plan=True, **options).check()
        return self._task_of(Todo.RERUN, run, dict(options))

    def task_of_recover(self, run: str) -> Task:
        """Going on with a run that was interrupted; its plan is checked.

        Raises:
            RecoverRefused: it has ended, or cannot go on.
            RunIsOwned: it is still running.
        """
        self.recover(run, plan=True).check()
        history = self.history(run)
        return Task(
            todo=Todo.RECOVER, run_id=history.run_id, by_hand=True,
            notebook=history.started.notebook_path,
        )  # fmt: skip

    def task_of_wait(self, wait: WaitInfo) -> Task:
        """Going on with a run whose wait is over."""
        started = self.store.started(wait.run_id)
        return Task(
            todo=WAKE, run_id=wait.run_id, wait=wait.wait_id, notebook=started.notebook_path
        )

    def _task_of(self, todo: Todo, run: str, options: dict[str, Any]) -> Task:
        history = self.history(run)
        parameters, labels = options.pop("parameters", None), options.pop("labels", None)
        return Task(
            todo=todo, run_id=self._new_id(), origin=history.run_id, by_hand=True,
            notebook=str(self._notebook_of(history)), parameters=to_json(dict(parameters or {})),
            labels=dict(labels or {}), options=_given(**options),
        )  # fmt: skip

    def _new_id(self) -> str:
        return prepare.new_run_id(self.clock())

    # --- triggers and backfills --------------------------------------------------------------

    def trigger_of(self, notebook: Path, trigger: str) -> Trigger:
        """A trigger of a notebook.

        Raises:
            NoSuchTrigger: the notebook has none of this id; names the nearest.
        """
        flow = flow_id(notebook, self.store_path)
        own = {one.id: one for one in self.store.triggers.all() if one.flow == flow}
        if trigger not in own:
            near = get_close_matches(trigger, own, n=1) or list(own)[:1]
            raise NoSuchTrigger(
                f"{flow} has no trigger {trigger!r}"
                + (f"; did you mean {near[0]!r}?" if near else ""),
                hint=f"cellrail trigger list {flow}",
            )
        return own[trigger]

    def backfill_put(
        self, notebook: Path, *, start: str, end: str | None, **options: Unpack[BackfillOptions]
    ) -> Fill:
        """Start a backfill in the background; asked for again while it runs, it is that one.

        Raises:
            CellrailError: something is no good; nothing was changed.
        """
        try:
            return self.backfill_start(notebook, start=start, end=end, detach=True, **options)
        except BackfillRuns as running:
            return self.backfill_show(running.backfill)


def _given(**options: Any) -> dict[str, Any]:
    """The options that differ from their defaults, as a task has them."""
    return {name: value for name, value in options.items() if value and value != "cold"}


def _leads_below(name: str) -> bool:
    """Whether a name is a path of plain names."""
    parts = name.split("/")
    odd = any(part.startswith(".") or not part for part in parts)
    long = any(len(part.encode("utf-8", "replace")) > _LONGEST_NAME for part in parts)
    return not (odd or long or "\\" in name or ":" in parts[0]) and name.isprintable()
