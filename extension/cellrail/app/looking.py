"""Use cases that look: listings, runs, journals, exports, comparisons, queries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellrail.app.base import AppBase
from cellrail.comparing import Diff, compare
from cellrail.errors import NotANotebook, UserError
from cellrail.exporting import export
from cellrail.locate import RunLocator, flow_id
from cellrail.looking import journal_lines
from cellrail.notebook.address import find_step
from cellrail.notebook.parameters import to_json
from cellrail.values import query_values
from cellrail.views import Run, RunList
from cellrail_state.model import Checkpoint
from cellrail_state.searching import RunSearch

if TYPE_CHECKING:
    from cellrail.notebook.model import Flow
    from cellrail_state.searching import RunPage


class Looking(AppBase):
    """Looks into what was run; changes nothing."""

    def runs(
        self,
        notebook: str | Path | None = None,
        *,
        status: str | None = None,
        labels: Mapping[str, str] | None = None,
        parameters: Mapping[str, Any] | None = None,
        since: float | None = None,
        limit: int = 20,
    ) -> RunList:
        """The newest runs as records, newest first.

        Args:
            notebook: only this notebook's.
            status: only these.
            labels: only runs that bear all of them.
            parameters: only runs with these values.
            since: only runs started after this moment (seconds since the epoch).
            limit: at most so many.

        Raises:
            NotANotebook: there is no such notebook, and no run of it is known.
        """
        if notebook is not None:
            self._store_for(notebook)
        flow = flow_id(Path(notebook).resolve(), self.store_path) if notebook is not None else None
        found = RunList(
            self.store.catalog.runs(
                flow=flow,
                status=status,
                labels=dict(labels or {}),
                parameters=to_json(dict(parameters or {})),
                since=since,
                limit=limit,
            )
        )
        found.behind = self.store.catalog.behind
        if notebook is not None and not found and not Path(notebook).is_file():
            raise NotANotebook(
                f"{notebook} does not exist, and no run of it is known",
                hint="`cellrail runs` lists every run of the store",
            )
        return found

    def runs_page(
        self, search: RunSearch | None = None, *, notebook: str | Path | None = None
    ) -> RunPage:
        """A page of the runs that fit a search, with how many there are of each status.

        Args:
            search: which; by default the newest.
            notebook: only this notebook's.
        """
        flow = flow_id(Path(notebook).resolve(), self.store_path) if notebook is not None else None
        return self.store.catalog.page(search or RunSearch(), flow=flow)

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
        run_id = RunLocator(self.store).find(run)
        return journal_lines(self.store, run_id, follow=follow)

    def export(self, run: str, output: str | Path) -> Path:
        """Rebuild a run's executed notebook (`.ipynb` or `.html`) from the store alone.

        Raises:
            UserError: another suffix, or `output` is the notebook that was run.
        """
        history = self.history(run)
        view = self._view(history)
        sources = (self.store_path.parent / view.flow, Path(history.started.notebook_path))
        if Path(output).resolve() in {path.resolve() for path in sources if path.is_file()}:
            raise UserError(
                f"{output} is the notebook itself; an export would overwrite it",
                hint="name another file",
            )
        return export(view, history, Path(output))

    def diff(self, run_a: str, run_b: str) -> Diff:
        """Compare two runs step by step: outputs, variables, row counts, timings."""
        return compare(self.history(run_a), self.history(run_b), self._load_values)

    def sql(
        self, query: str, *, run: str | None = None, step: str | None = None
    ) -> list[dict[str, Any]]:
        """Query the catalog; with a run (and step), its checkpointed DataFrames by name."""
        if run is None:
            rows: list[dict[str, Any]] = self.store.catalog.query(query)
            return rows
        history = self.history(run, verify=True)
        if step is None:
            checkpoint = Checkpoint.fold(job.delta for job in history.chain)
        else:
            info = find_step(step, [state.info for state in history.states])
            checkpoint = history.checkpoint_after(info.number)
        return query_values(self.store, checkpoint, query)
