"""A run: its steps with what feeds what and when, and what each step left."""

from __future__ import annotations

import difflib
import time
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from cellrail.errors import UserError
from cellrail.locate import RunLocator
from cellrail.panels.base import Args, Room
from cellrail.panels.errand import Errand, Errands
from cellrail.panels.rooms.details import detail_of
from cellrail.panels.rooms.fields import json_of
from cellrail.panels.rooms.previews import Previews
from cellrail.panels.rooms.runs import clipped, shown
from cellrail.panels.rooms.steps import edges_of, row_of
from cellrail_state.searching import RunSearch

if TYPE_CHECKING:
    from cellrail.app import App
    from cellrail.views import Run

#: runs whose journals are kept in memory
_KEPT = 4
#: items of a loop on a page
_ITEMS = 50
#: records of a journal that are shown, at most
_RECORDS = 300
#: lines of a difference that are shown, at most
_LINES = 400
_ACTIONS = {"cancel", "resume", "recover"}


class RunRoom(Room):
    """Answers `view`, `items`, `step`, `variable`, `compare`, `journal`, `runs`, and acts."""

    slow = frozenset({"variable", "compare"})

    def __init__(self, app: App) -> None:
        """Look into a store.

        Args:
            app: the store's.
        """
        super().__init__(app)
        self._runs: dict[str, tuple[Hashable, Run]] = {}
        self._previews = Previews()
        self._errands = Errands(app)
        #: by run, what it was told to do last
        self._acted: dict[str, Errand] = {}

    # --- the run -----------------------------------------------------------------------------

    def ask_view(self, args: Args) -> dict[str, Any]:
        """The run and its steps.

        Args:
            args: `run`: its address.
        """
        run = self._run(args)
        steps = run.steps
        return {
            "run": self._head(run),
            "steps": [row_of(run, step) for step in steps],
            "edges": edges_of(steps),
            "now": time.time(),
        }

    def stamp(self, what: str, args: Args) -> Hashable:
        """Whether the run goes on, or another one is meant by now."""
        del what
        run_id = self._find(args)
        return run_id, self.pulse.of_run(run_id)

    def ask_items(self, args: Args) -> dict[str, Any]:
        """A page of the items of a loop.

        Args:
            args: `run`; `step`: the loop's header; `offset`; `failed`: only those.
        """
        run = self._run(args)
        items = run.items(run[str(args["step"])])
        if args.get("failed"):
            items = [item for item in items if item.status.startswith(("failed", "cancelled"))]
        offset = max(int(args.get("offset", 0)), 0)
        page = items[offset : offset + _ITEMS]
        return {
            "total": len(items),
            "offset": offset,
            "limit": _ITEMS,
            "items": [
                {
                    "address": item.address, "status": item.status.partition(" ")[0],
                    "words": item.status, "seconds": item.seconds,
                    "cause": clipped(item.cause, 200),
                }
                for item in page
            ],
        }  # fmt: skip

    def _head(self, run: Run) -> dict[str, Any]:
        history = run.history
        started = history.started
        pending = history.pending
        return {
            "id": run.id,
            "status": str(run.status),
            "cause": run.cause,
            "flow": run.flow,
            "kind": str(started.kind),
            "origin": run.origin or "",
            "from_step": started.origin.from_step if started.origin is not None else "",
            "started": run.started,
            "seconds": run.seconds,
            "parameters": [[name, shown(value)] for name, value in run.parameters.items()],
            "labels": [[name, value] for name, value in run.labels.items()],
            "facts": [
                ["notebook", run.flow], ["host", history.owner.host], ["folder", started.cwd],
                ["kernel", started.kernel_name],
                ["Python", history.kernels[-1].python if history.kernels else ""],
                ["command", started.command],
                ["owners", str(history.epoch) if history.epoch > 1 else ""],
            ],
            "children": [
                {"run": child.run_id, "step": child.step, "key": child.key,
                 "notebook": child.notebook, "status": child.status or "gone"}
                for child in run.children
            ],
            "waits": None if pending is None or history.owned else {
                "label": pending.label, "kind": pending.kind, "until": pending.until,
                "on_timeout": pending.on_timeout,
            },
            "live": run.is_live,
        }  # fmt: skip

    # --- a step ------------------------------------------------------------------------------

    def ask_step(self, args: Args) -> dict[str, Any]:
        """What a step, or an item of a loop, left.

        Args:
            args: `run`; `step`: its address.
        """
        run = self._run(args)
        step = run[str(args["step"])]
        return detail_of(run, step, str(args["step"]))

    def ask_variable(self, args: Args) -> dict[str, Any]:
        """A preview of a variable as it stood right after a step.

        Args:
            args: `run`, `step`, `name`; of a table `offset`, `sort`, `descending`, `where`;
                `anyway` loads a large one.
        """
        run = self._run(args)
        variables, name = run[str(args["step"])].variables, str(args["name"])
        if name not in variables:
            raise UserError(f"there was no variable {name!r} then")
        view = variables[name]
        return self._previews.preview((run.id, str(args["step"])), view, args)

    def ask_compare(self, args: Args) -> dict[str, Any]:
        """How this run differs from another one, step by step.

        Args:
            args: `run`, `other`; `step`: the one whose source is compared line by line.
        """
        run = self._run(args)
        other = self._run({"run": args["other"]})
        found = self.app.diff(other.id, run.id)
        return {
            "other": other.id,
            "steps": [
                {
                    "step": step.step, "where": step.where, "equal": step.equal,
                    "status": list(step.status), "seconds": list(step.seconds),
                    "outputs": step.outputs_equal, "source": step.source_equal,
                    "variables": [[name, *pair] for name, pair in step.variables.items()],
                }
                for step in found.steps
            ],
            "lines": _source_difference(other, run, str(args.get("step") or "")),
            "parameters": _parameter_difference(other, run),
        }  # fmt: skip

    def ask_runs(self, args: Args) -> list[list[str]]:
        """Runs that this one can be compared with: its origin, then others of its flow.

        Args:
            args: `run`.
        """
        run = self._run(args)
        # the flow's name today is a path beside the store
        path = self.app.store_path.parent / run.flow
        page = self.app.runs_page(RunSearch(limit=30), notebook=path)
        rows = [row for row in page.rows if row.run_id != run.id]
        rows.sort(key=lambda row: row.run_id != run.origin)
        return [[row.run_id, row.status] for row in rows]

    def ask_journal(self, args: Args) -> dict[str, Any]:
        """What happened in the run, in order; with a step, up to its end.

        Args:
            args: `run`, `step`.
        """
        run = self._run(args)
        lines = list(self.app.journal(run.id))
        if args.get("step"):
            number = run[str(args["step"])].number
            last = max(
                (i for i, line in enumerate(lines) if line.get("step") == number), default=-1
            )
            lines = lines[: last + 1]
        return {
            "total": len(lines),
            "records": [
                {"seq": line["seq"], "time": line.get("time"), "what": line.get("type", ""),
                 "text": _record_words(run, line)}
                for line in lines[-_RECORDS:]
            ],
        }  # fmt: skip

    # --- what can be done --------------------------------------------------------------------

    def ask_act(self, args: Args) -> dict[str, str]:
        """Cancel, resume or recover the run, in a process of its own.

        Args:
            args: `run`; `verb`; `data`: JSON text that a resume brings; empty for none.
        """
        verb = str(args["verb"])
        if verb not in _ACTIONS:
            raise UserError(f"a run cannot be told to {verb!r} here")
        run_id = self._find(args)
        text = str(args.get("data") or "") if verb == "resume" else ""
        options = {"data": json_of(text)} if text.strip() else {}
        self._acted[run_id] = self._errands.begin(verb, run_id, options)
        return {"run": run_id}

    def ask_acted(self, args: Args) -> dict[str, Any]:
        """What has come of it.

        Args:
            args: `run`.
        """
        errand = self._acted.get(self._find(args))
        if errand is None:
            return {"state": "ended", "error": None}
        state = errand.state()
        return {"state": state.state, "error": state.error}

    # --- runs by address ---------------------------------------------------------------------

    def _find(self, args: Args) -> str:
        return RunLocator(self.app.store).find(str(args.get("run") or "last"))

    def _run(self, args: Args) -> Run:
        """The run, read anew where it has gone on."""
        run_id = self._find(args)
        stamp = self.pulse.of_run(run_id)
        known = self._runs.pop(run_id, None)
        run = known[1] if known is not None and known[0] == stamp else self.app.show(run_id)
        self._runs[run_id] = stamp, run
        if len(self._runs) > _KEPT:
            del self._runs[next(iter(self._runs))]
        return run


def _source_difference(a: Run, b: Run, address: str) -> list[str]:
    """The lines in which a step's source differs."""
    if not address:
        return []
    label = b[address].label
    old = next((step.source for step in a.steps if step.label == label), "")
    lines = difflib.unified_diff(
        old.splitlines(), b[address].source.splitlines(), a.id, b.id, lineterm="", n=2
    )
    return [*lines][:_LINES]


def _parameter_difference(a: Run, b: Run) -> list[list[str]]:
    """Parameters whose values differ."""
    names = sorted({*a.parameters, *b.parameters})
    pairs = [(name, _given(a, name), _given(b, name)) for name in names]
    return [[name, x, y] for name, x, y in pairs if x != y]


def _given(run: Run, name: str) -> str:
    return shown(run.parameters[name]) if name in run.parameters else "not given"


#: what a record of a journal is told by
_TOLD = (
    "status", "cause", "kind", "reason", "attempt", "seconds", "purpose", "expression", "value",
    "by", "key", "name", "wait_id", "run_id", "command", "python",
)  # fmt: skip


def _record_words(run: Run, line: dict[str, Any]) -> str:
    number = line.get("step")
    words = [run.history.label_of(number)] if isinstance(number, int) and number else []
    words += [f"{name}={clipped(str(line[name]), 80)}" for name in _TOLD if line.get(name)]
    return "  ".join(words)
