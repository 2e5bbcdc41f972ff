"""A restart: where from, with which parameters, what would happen; and how it goes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

from cellrail.errors import BadParameter, CellrailError, UserError
from cellrail.notebook.plan import Plan
from cellrail.panels.base import Args, Room
from cellrail.panels.errand import Errand, Errands
from cellrail.panels.rooms.fields import field_of, value_of
from cellrail.panels.rooms.runs import clipped
from cellrail.views import first_line
from cellrail_state.errors import StateError

if TYPE_CHECKING:
    from cellrail.app import App
    from cellrail.notebook.model import Flow
    from cellrail.views import Run

#: items of loops that are offered as cuts, at most; those that failed come first
_ITEMS = 40
_FLAGS = ("force", "widen", "failed_only", "reeval", "cancel_origin", "keep_waiting")


class RestartRoom(Room):
    """Answers `form`, `plan`, `start`, `progress`, `stop`."""

    slow = frozenset({"plan"})

    def __init__(self, app: App) -> None:
        """Look into a store.

        Args:
            app: the store's.
        """
        super().__init__(app)
        self._errands = Errands(app)
        self._known: dict[str, Errand] = {}

    def ask_form(self, args: Args) -> dict[str, Any]:
        """What can be chosen: the cut, and the parameters with the origin's values.

        Args:
            args: `run`: the origin's address.
        """
        run, flow = self.app.restartable(str(args.get("run") or "last"))
        return {
            "run": run.id,
            "flow": run.flow,
            "status": str(run.status),
            "cause": clipped(run.cause, 300),
            "cuts": _cuts(run, flow),
            "cut": self._default_cut(run),
            "parameters": [field_of(parameter, run) for parameter in flow.parameters],
            "failed_items": any("failed" in cut["status"] for cut in _items(run)),
        }

    def ask_plan(self, args: Args) -> dict[str, Any]:
        """What would happen, and why; or `wrong`: what is wrong with which field.

        Args:
            args: as of `start`.
        """
        if wrong := self._wrong(args):
            return {"wrong": wrong}
        run, options = self._wish(args)
        options = {n: v for n, v in options.items() if n not in {"cancel_origin", "keep_waiting"}}
        plan: Plan = self.app.restart(run.id, plan=True, **options)
        return {
            "steps": [
                {"label": step.label, "fate": step.fate.value, "reason": step.reason,
                 "seconds": step.seconds, "names": list(step.names)}
                for step in plan.steps
            ],
            "cut": plan.cut,
            "refusals": list(plan.refusals),
            "earliest": plan.earliest,
            "by_force": plan.by_force,
            "warnings": list(plan.warnings),
            "items": {kind: list(keys[:20]) for kind, keys in plan.items.items()},
            "executes": len(plan.executing),
            "kept": len(plan.kept),
            "seconds": plan.seconds_of(plan.executing),
            "saved": plan.seconds_of(plan.kept),
        }  # fmt: skip

    def ask_start(self, args: Args) -> dict[str, str]:
        """Start the run, in a process of its own; what names the errand.

        The same restart, asked for again while it is under way, is that one.

        Args:
            args: `run`, `step` (the cut), `parameters` (what differs, as text), `labels`, and what
                `App.restart` knows as `force`, `widen`, `failed_only`, `reeval`, `cancel_origin`
                and `keep_waiting`.
        """
        run, options = self._wish(args)
        errand = self._errands.begin("restart", run.id, options)
        self._known[str(errand.pid)] = errand
        return {"errand": str(errand.pid)}

    def ask_progress(self, args: Args) -> dict[str, Any]:
        """How far an errand has come, and the run that it has started.

        Args:
            args: `errand`.
        """
        state = self._errand(args).state()
        told = {"state": state.state, "run": state.run, "error": state.error}
        if not state.run:
            status = "cancelled" if state.stopped else "failed"
            status = status if state.state == "ended" else ""
            return {**told, "steps": [], "status": status, "cause": ""}
        run = self.app.show(state.run)
        steps = [
            {"label": step.label, "status": str(step.status), "words": step.status_words,
             "seconds": step.seconds}
            for step in run.steps
        ]  # fmt: skip
        return {**told, "steps": steps, "status": str(run.status), "cause": clipped(run.cause, 300)}

    def ask_stop(self, args: Args) -> dict[str, str]:
        """Cancel what an errand has begun.

        Args:
            args: `errand`.
        """
        self._errand(args).stop()
        return {}

    def stamp(self, what: str, args: Args) -> Hashable:
        """Whether an errand goes on; whether the notebook or its run is another by now."""
        if what != "progress":
            return super().stamp(what, args)
        state = self._errand(args).state()
        return state.state, state.run, self.pulse.of_run(state.run) if state.run else None

    # --- what is wished ----------------------------------------------------------------------

    def _wish(self, args: Args) -> tuple[Run, dict[str, Any]]:
        run, flow = self.app.restartable(str(args.get("run") or "last"))
        options: dict[str, Any] = {flag: True for flag in _FLAGS if args.get(flag)}
        if args.get("step"):
            options["from_step"] = str(args["step"])
        given: Mapping[str, Any] = args.get("parameters") or {}
        known = {parameter.name: parameter for parameter in flow.parameters}
        if given:
            options["parameters"] = {
                name: value_of(known[name], value) if name in known else value
                for name, value in given.items()
            }
        if args.get("labels"):
            options["labels"] = {str(k): str(v) for k, v in dict(args["labels"]).items()}
        return run, options

    def _wrong(self, args: Args) -> dict[str, str]:
        """By parameter, why what its field holds is no value of it."""
        if not args.get("parameters"):
            return {}
        _, flow = self.app.restartable(str(args.get("run") or "last"))
        wrong = {}
        for parameter in flow.parameters:
            if parameter.name in args["parameters"]:
                try:
                    value_of(parameter, args["parameters"][parameter.name])
                except BadParameter as error:
                    wrong[parameter.name] = str(error).removeprefix(f"{parameter.name}: ")
        return wrong

    def _default_cut(self, run: Run) -> str:
        """The cut where none is named; "" where there is none to offer."""
        try:
            return str(self.app.restart(run.id, plan=True).cut)
        except (CellrailError, StateError):
            return ""

    def _errand(self, args: Args) -> Errand:
        errand = self._known.get(str(args.get("errand")))
        if errand is None:
            raise UserError("nobody knows this errand any more", hint="the list of runs shows all")
        return errand


def _cuts(run: Run, flow: Flow) -> list[dict[str, Any]]:
    """The notebook's steps, with what became of them in the run; behind a loop some items."""
    known = {step.label: step for step in run.steps}
    items = _items(run)
    cuts = []
    for step in flow.steps:
        old = known.get(step.label)
        status = str(old.status) if old is not None else "new"
        cuts.append(
            {
                "address": step.label,
                "status": status,
                "line": first_line(step.source),
                "item": False,
            }
        )
        own = [item for item in items if item["address"].startswith(f"{step.label}[")]
        cuts += own
        left = len(run.items(old)) - len(own) if old is not None else 0
        if left:
            cuts.append({"address": "", "status": "", "line": "", "item": True, "left": left})
    return cuts


def _items(run: Run) -> list[dict[str, Any]]:
    """Items of loops, those that failed first."""
    found = [
        {"address": item.address, "status": item.status.partition(" ")[0],
         "line": clipped(item.cause, 80), "item": True}
        for step in run.steps
        for item in run.items(step)
    ]  # fmt: skip
    return sorted(found, key=lambda item: item["status"] != "failed")[:_ITEMS]
