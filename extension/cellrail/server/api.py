"""The API: each endpoint a few lines over `App`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from cellrail.app.fills import Fill
from cellrail.executors import Task
from cellrail.server import records
from cellrail.server.endpoints import Asked, Endpoint, Reply
from cellrail_state import waits
from cellrail_state.errors import StoreNotFound
from cellrail_state.schedules import Trigger

if TYPE_CHECKING:
    from cellrail.notebook.plan import Plan
    from cellrail.views import Run

_RUN = {"run": "[A-Za-z0-9_-]{1,64}"}
_TRIGGER = {"trigger": "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"}
_BACKFILL = {"backfill": "[A-Za-z0-9_-]{1,64}"}


# --- runs ------------------------------------------------------------------------------------


def list_runs(asked: Asked) -> Reply:
    """The newest runs that fit."""
    query, app = asked.query, asked.app
    labels = dict(label.split("=", 1) for label in query.label)
    notebook = app.notebook_at(query.notebook) if query.notebook is not None else None
    try:
        found = app.runs(
            notebook, status=query.status, labels=labels, since=query.since, limit=query.limit
        )
    except StoreNotFound:
        return Reply(data={"runs": []})
    behind = {"behind": found.behind} if found.behind else {}
    return Reply(data={"runs": [row.to_dict() for row in found], **behind})


def start_run(asked: Asked) -> Reply:
    """Start a run."""
    given, app = asked.body, asked.app
    app.check_values(given.parameters)
    task = app.task_of_run(
        app.notebook_at(given.notebook), parameters=given.parameters, labels=given.labels,
        secrets=given.secrets, to=given.to, timeout=given.timeout, kernels=given.kernels,
    )  # fmt: skip
    return _begun(asked, task)


def show_run(asked: Asked) -> Reply:
    """A run with its steps."""
    return Reply(data=asked.app.show(asked.path["run"]).to_dict())


def show_step(asked: Asked) -> Reply:
    """A step of a run: its outputs, and its variables with their verdicts, none of them loaded."""
    step = asked.app.show(asked.path["run"])[asked.path["step"]]
    variables = [view.to_dict() for view in step.variables.values()]
    return Reply(data={**step.to_dict(), "outputs": step.outputs, "variables": variables})


def journal(asked: Asked) -> Reply:
    """What happened in a run, in order."""
    lines = asked.app.journal(asked.path["run"])
    later = (line for line in lines if line["seq"] > asked.query.after)
    return Reply(data={"records": list(itertools.islice(later, asked.query.limit))})


def restart(asked: Asked) -> Reply:
    """Restart a run from a step, or tell what would happen."""
    return _begun_or_planned(asked, asked.app.restart, asked.app.task_of_restart)


def rerun(asked: Asked) -> Reply:
    """Execute what changed since a run, or tell what would happen."""
    return _begun_or_planned(asked, asked.app.rerun, asked.app.task_of_rerun)


def recover(asked: Asked) -> Reply:
    """Go on with a run that was interrupted."""
    return _begun(asked, asked.app.task_of_recover(asked.path["run"]))


def resume(asked: Asked) -> Reply:
    """Resume a suspended run; it goes on at once, in a worker."""
    given = asked.body
    woke = asked.app.answer(
        asked.path["run"], waits.RESUME, step=given.step, data=given.data, who=asked.who
    )
    return Reply(data=msgspec.to_builtins(woke), nudge=True)


def cancel(asked: Asked) -> Reply:
    """Cancel a run that is suspended, or running; the latter ends in a moment."""
    woke = asked.app.answer(asked.path["run"], waits.CANCEL, who=asked.who)
    return Reply(data=msgspec.to_builtins(woke), nudge=True)


def _options(asked: Asked) -> dict[str, Any]:
    options: dict[str, Any] = msgspec.structs.asdict(asked.body)
    asked.app.check_values(options["parameters"])
    return options


def _begun_or_planned(
    asked: Asked, plan: Callable[..., Run | Plan], task_of: Callable[..., Task]
) -> Reply:
    options, run = _options(asked), asked.path["run"]
    if options.pop("plan"):
        return Reply(data=plan(run, plan=True, **options).to_dict(), status=200)
    return _begun(asked, task_of(run, **options))


def _begun(asked: Asked, task: Task) -> Reply:
    url = f"{asked.root}/runs/{task.run_id}"
    return Reply(data={"run_id": task.run_id, "url": url}, task=task)


# --- triggers --------------------------------------------------------------------------------


def list_triggers(asked: Asked) -> Reply:
    """The triggers, by id."""
    app, name = asked.app, asked.query.notebook
    try:
        found = app.trigger_list(app.notebook_at(name) if name is not None else None)
    except StoreNotFound:
        return Reply(data={"triggers": []})
    return Reply(data={"triggers": [plain_trigger(one) for one in found]})


def add_trigger(asked: Asked) -> Reply:
    """Have a notebook run at the ticks of a schedule."""
    options: dict[str, Any] = msgspec.structs.asdict(asked.body)
    options["max_active"] = int(options["max_active"])
    asked.app.check_values(options["parameters"])
    made = asked.app.trigger_add(asked.app.notebook_at(options.pop("notebook")), **options)
    return _trigger(asked, made)


def show_trigger(asked: Asked) -> Reply:
    """A trigger, and its next ticks."""
    return _trigger(asked, asked.app.trigger_show(asked.path["trigger"]))


def enable_trigger(asked: Asked) -> Reply:
    """Enable a trigger, from its next tick on."""
    return _trigger(asked, asked.app.trigger_enable(asked.path["trigger"]))


def disable_trigger(asked: Asked) -> Reply:
    """Disable a trigger; runs that it has fired go on."""
    return _trigger(asked, asked.app.trigger_disable(asked.path["trigger"]))


def remove_trigger(asked: Asked) -> Reply:
    """Remove a trigger; its runs stay."""
    trigger = asked.path["trigger"]
    asked.app.trigger_remove(trigger)
    return Reply(data={"id": trigger, "removed": True})


def _trigger(asked: Asked, found: Trigger) -> Reply:
    following = [tick.isoformat() for tick in asked.app.trigger_next(found.id)]
    return Reply(data={**plain_trigger(found), "next": following})


def plain_trigger(found: Trigger) -> dict[str, Any]:
    """A trigger without its secrets."""
    plain: dict[str, Any] = {
        name: getattr(found, name) for name in found.__struct_fields__ if name != "secrets"
    }
    inputs = {**found.inputs, **dict.fromkeys(found.secrets, "***")}
    return {**msgspec.to_builtins(plain), "inputs": inputs}


# --- backfills -------------------------------------------------------------------------------


def list_backfills(asked: Asked) -> Reply:
    """The backfills, newest first."""
    try:
        found = asked.app.backfill_list()
    except StoreNotFound:
        return Reply(data={"backfills": []})
    return Reply(data={"backfills": [fill.to_dict() for fill in found]})


def start_backfill(asked: Asked) -> Reply:
    """Run a notebook for the ticks of a range, in the background, or tell what would happen."""
    options: dict[str, Any] = msgspec.structs.asdict(asked.body)
    options |= {name: int(options[name]) for name in ("parallel", "stop_after")}
    app, plan = asked.app, options.pop("plan")
    app.check_values(options["parameters"])
    notebook = app.notebook_at(options.pop("notebook"))
    if plan:
        told = app.backfill_start(notebook, plan=True, **options)
        return Reply(data=told.to_dict(), status=200)
    return Reply(data=app.backfill_start(notebook, detach=True, **options).to_dict())


def show_backfill(asked: Asked) -> Reply:
    """A backfill, and how the ticks of its range stand."""
    fill = asked.app.backfill_show(asked.path["backfill"])
    return Reply(data={**fill.to_dict(), "counts": fill.counts(), "failures": fill.failures()})


def pause_backfill(asked: Asked) -> Reply:
    """Begin no more runs of a backfill."""
    return _fill(asked.app.backfill_pause(asked.path["backfill"], now=asked.body.now))


def resume_backfill(asked: Asked) -> Reply:
    """Go on with a backfill that is paused, or whose process is gone."""
    return _fill(asked.app.backfill_resume(asked.path["backfill"], detach=True))


def cancel_backfill(asked: Asked) -> Reply:
    """End a backfill for good; runs that it has made stay."""
    return _fill(asked.app.backfill_cancel(asked.path["backfill"], now=asked.body.now))


def _fill(fill: Fill) -> Reply:
    return Reply(data=fill.to_dict())


# --- all of them -----------------------------------------------------------------------------


def endpoints() -> list[Endpoint]:
    """The endpoints, in the order in which people meet them."""
    return [*_of_runs(), *_of_triggers(), *_of_backfills()]


def _of_runs() -> list[Endpoint]:
    run: Mapping[str, Any] = {"patterns": _RUN, "errors": (404, 409)}
    begins: Mapping[str, Any] = {
        "method": "POST", "told": records.Begun, "status": 202, "catalog": True,
    }  # fmt: skip
    return [
        Endpoint(
            method="GET", path="/runs", summary="List runs", call=list_runs,
            query=records.RunsQuery, told=records.Runs, errors=(404,), catalog=True,
        ),
        Endpoint(
            path="/runs", summary="Start a run", call=start_run, body=records.NewRun,
            optional=False, errors=(404, 503), **begins,
        ),
        Endpoint(
            method="GET", path="/runs/{run}", summary="Show a run", call=show_run,
            told=records.RunDetails, **run,
        ),
        Endpoint(
            method="GET", path="/runs/{run}/steps/{step}", summary="Show a step of a run",
            call=show_step, told=records.StepTold, errors=(404, 409),
            patterns={**_RUN, "step": "[^/]{1,500}"},
        ),
        Endpoint(
            method="GET", path="/runs/{run}/journal", summary="What happened in a run",
            call=journal, query=records.JournalQuery, told=records.Journal, **run,
        ),
        Endpoint(
            path="/runs/{run}/restart", summary="Restart a run", call=restart,
            body=records.NewRestart, also={200: records.PlanTold}, patterns=_RUN,
            errors=(404, 409, 503), **begins,
        ),
        Endpoint(
            path="/runs/{run}/rerun", summary="Execute what changed since a run", call=rerun,
            body=records.NewRerun, also={200: records.PlanTold}, patterns=_RUN,
            errors=(404, 409, 503), **begins,
        ),
        Endpoint(
            path="/runs/{run}/recover", summary="Go on with an interrupted run", call=recover,
            patterns=_RUN, errors=(404, 409, 503), **begins,
        ),
        Endpoint(
            method="POST", path="/runs/{run}/resume", summary="Resume a suspended run",
            call=resume, body=records.NewResume, told=records.AnswerTold, **run,
        ),
        Endpoint(
            method="POST", path="/runs/{run}/cancel", summary="Cancel a run", call=cancel,
            told=records.AnswerTold, **run,
        ),
    ]  # fmt: skip


def _of_triggers() -> list[Endpoint]:
    one: Mapping[str, Any] = {
        "patterns": _TRIGGER, "errors": (404,), "told": records.TriggerTold,
    }  # fmt: skip
    return [
        Endpoint(
            method="GET", path="/triggers", summary="List triggers", call=list_triggers,
            query=records.NotebookQuery, told=records.TriggersTold, errors=(404,),
        ),
        Endpoint(
            method="POST", path="/triggers", summary="Add a trigger", call=add_trigger,
            body=records.NewTrigger, optional=False, told=records.TriggerTold, status=201,
            errors=(404,),
        ),
        Endpoint(
            method="GET", path="/triggers/{trigger}", summary="Show a trigger",
            call=show_trigger, **one,
        ),
        Endpoint(
            method="POST", path="/triggers/{trigger}/enable", summary="Enable a trigger",
            call=enable_trigger, **one,
        ),
        Endpoint(
            method="POST", path="/triggers/{trigger}/disable", summary="Disable a trigger",
            call=disable_trigger, **one,
        ),
        Endpoint(
            method="DELETE", path="/triggers/{trigger}", summary="Remove a trigger",
            call=remove_trigger, patterns=_TRIGGER, errors=(404,), told=records.Removed,
        ),
    ]  # fmt: skip


def _of_backfills() -> list[Endpoint]:
    one: Mapping[str, Any] = {
        "patterns": _BACKFILL, "errors": (404,), "told": records.BackfillTold,
    }  # fmt: skip
    return [
        Endpoint(
            method="GET", path="/backfills", summary="List backfills", call=list_backfills,
            told=records.BackfillsTold,
        ),
        Endpoint(
            method="POST", path="/backfills", summary="Start a backfill", call=start_backfill,
            body=records.NewBackfill, optional=False, told=records.BackfillTold, status=202,
            also={200: records.FillPlanTold}, errors=(404, 409), catalog=True,
        ),
        Endpoint(
            method="GET", path="/backfills/{backfill}", summary="Show a backfill",
            call=show_backfill, catalog=True, **one,
        ),
        Endpoint(
            method="POST", path="/backfills/{backfill}/pause", summary="Pause a backfill",
            call=pause_backfill, body=records.Stop, **one,
        ),
        Endpoint(
            method="POST", path="/backfills/{backfill}/resume", summary="Go on with a backfill",
            call=resume_backfill, **one,
        ),
        Endpoint(
            method="POST", path="/backfills/{backfill}/cancel", summary="Cancel a backfill",
            call=cancel_backfill, body=records.Stop, **one,
        ),
    ]  # fmt: skip
