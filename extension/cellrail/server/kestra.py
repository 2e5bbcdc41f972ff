"""Kestra's call that starts a backfill: `PUT /api/v1/triggers`, as its users send it.

`namespace` a.b is the folder a/b below the served one, `flowId` the notebook without its suffix,
`triggerId` the trigger's id. What Kestra does otherwise, and why this does not:

* A call that is sent again while its backfill runs is that backfill, not a second one.
* Ticks that were a success are left alone (`"ticks": "all"` in the backfill runs them, too).
* The live schedule goes on, and a trigger that is disabled stays so.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from cellrail.app import App
from cellrail.app.fills import Fill
from cellrail.errors import UserError
from cellrail.server.endpoints import Asked, Endpoint, Reply
from cellrail.server.records import Told
from cellrail_state.schedules import Filling, Trigger

_Id = Annotated[str, Meta(pattern="^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=150)]


class Label(msgspec.Struct, frozen=True):
    """A label of the backfill's runs."""

    key: Annotated[str, Meta(min_length=1, max_length=200)]
    value: str | int | float | bool


class BackfillBody(msgspec.Struct, frozen=True):
    """Which ticks; no end means now."""

    start: Annotated[str, Meta(max_length=100, examples=["2024-03-28T06:30:00.000Z"])]
    end: Annotated[str, Meta(max_length=100)] | None = None
    inputs: dict[str, Any] | None = None
    labels: list[Label] | dict[str, str] | None = None
    #: ours: missing, failed, stale or all
    ticks: str = "missing"


class TriggerBody(msgspec.Struct, frozen=True, rename="camel"):
    """What Kestra's users send. Further fields of Kestra's triggers are passed over."""

    namespace: Annotated[str, Meta(pattern="^([A-Za-z0-9_][A-Za-z0-9_.-]*)?$", max_length=150)]
    flow_id: _Id
    trigger_id: _Id
    backfill: BackfillBody


class BackfillReply(Told, frozen=True, rename="camel"):
    """The backfill."""

    id: str
    start: str
    end: str
    paused: bool
    inputs: dict[str, Any]
    labels: list[Label]


class TriggerReply(Told, frozen=True, rename="camel"):
    """The trigger with its backfill, in Kestra's words."""

    namespace: str
    flow_id: str
    trigger_id: str
    next_execution_date: str | None
    disabled: bool
    backfill: BackfillReply


def put_trigger(asked: Asked) -> Reply:
    """Start a backfill, as Kestra's users do."""
    body, app = asked.body, asked.app
    folder = body.namespace.replace(".", "/")
    name = f"{folder}/{body.flow_id}.ipynb" if folder else f"{body.flow_id}.ipynb"
    notebook = app.notebook_at(name)
    trigger = app.trigger_of(notebook, body.trigger_id)
    wanted = body.backfill
    inputs = wanted.inputs or {}
    app.check_values(inputs)
    labels = _labels(wanted.labels)
    if own := [key for key in labels if key.startswith("system.")]:
        raise UserError(f"a label may not begin with system.: {own[0]!r}")
    fill = app.backfill_put(
        notebook, start=wanted.start, end=wanted.end, trigger=trigger.id, parameters=inputs,
        labels=labels, ticks=wanted.ticks,
    )  # fmt: skip
    return Reply(data=_told(app, body, trigger, fill))


def _labels(given: list[Label] | dict[str, str] | None) -> dict[str, str]:
    if isinstance(given, dict):
        return given
    return {label.key: _text(label.value) for label in given or ()}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _told(app: App, body: TriggerBody, trigger: Trigger, fill: Fill) -> dict[str, Any]:
    record, state = fill.record, fill.state
    following = app.trigger_next(trigger.id, 1)
    reply = TriggerReply(
        namespace=body.namespace, flow_id=body.flow_id, trigger_id=trigger.id,
        next_execution_date=following[0].isoformat() if following else None,
        disabled=not trigger.enabled,
        backfill=BackfillReply(
            id=fill.id, start=record.start, end=record.end,
            paused=state.filling is Filling.PAUSED,
            inputs={**record.inputs, **dict.fromkeys(record.secrets, "***")},
            labels=[Label(key=k, value=v) for k, v in record.labels.items()],
        ),
    )  # fmt: skip
    told: dict[str, Any] = msgspec.to_builtins(reply)
    return told


def endpoint() -> Endpoint:
    """The one endpoint."""
    return Endpoint(
        method="PUT", path="/api/v1/triggers", summary="Start a backfill, as in Kestra",
        call=put_trigger, body=TriggerBody, optional=False, told=TriggerReply,
        errors=(404, 409), catalog=True,
    )  # fmt: skip
