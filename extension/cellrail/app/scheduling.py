"""What triggers and backfills share: inputs of ticks, their keys, and the tasks of their runs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cellrail.app.executing import Executing
from cellrail.executors import Task
from cellrail.notebook.parameters import coerce, from_json, to_json
from cellrail.schedule.cron import Cron
from cellrail.schedule.inputs import Inputs, inputs_digest
from cellrail_state.ticks import Key, Tick, stamp_of

if TYPE_CHECKING:
    from cellrail.notebook.model import Flow


class Schedule:
    """A flow at the ticks of a cron expression."""

    def __init__(
        self,
        flow: Flow,
        cron: Cron,
        given: Mapping[str, Any],
        secrets: Mapping[str, Any],
    ) -> None:
        """Check that these inputs are the flow's.

        Args:
            flow: the notebook's steps and parameters.
            cron: when.
            given: values by parameter, some of them templates.
            secrets: values of those that are secret.

        Raises:
            UserError: a template is none, or the flow has no such parameter.
        """
        self.cron = cron
        self._flow, self._inputs, self._secrets = flow, Inputs(given), dict(secrets)
        coerce(flow.parameters, {**dict.fromkeys(given), **secrets})

    def keys(self, ticks: Sequence[dt.datetime]) -> Iterator[tuple[dt.datetime, Key]]:
        """The key of each of some neighbouring ticks, in order of time.

        Raises:
            UserError: a value is none that its parameter takes.
        """
        secret = self._secrets.keys()
        hidden = dict.fromkeys(secret)
        for tick, values in self._inputs.along(ticks, self.cron):
            plain = to_json(coerce(self._flow.parameters, values))
            yield tick, Key(stamp_of(tick), inputs_digest({**plain, **hidden}, secret))

    def parameters(self, tick: dt.datetime) -> dict[str, Any]:
        """The values at a tick, secrets in clear, as a task has them."""
        values = self._inputs.at(
            tick,
            previous=lambda: self.cron.before(tick),
            following=lambda: next(self.cron.after(tick), None),
        )
        told: dict[str, Any] = to_json(coerce(self._flow.parameters, {**values, **self._secrets}))
        return told


class Scheduling(Executing):
    """Makes schedules of records."""

    def _schedule(
        self, flow: Flow, cron: Cron, inputs: Mapping[str, Any], secrets: Mapping[str, str]
    ) -> Schedule:
        clear = {
            name: from_json(msgspec.json.decode(self.keyring.decrypt(token)))
            for name, token in secrets.items()
        }
        return Schedule(flow, cron, {k: from_json(v) for k, v in inputs.items()}, clear)

    def _parted(
        self, flow: Flow, given: Mapping[str, Any], named: Iterable[str]
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Inputs as a record keeps them: those that are not secret, and the others encrypted."""
        secret = {p.name for p in flow.parameters if p.secret} | set(named)
        plain = {name: to_json(v) for name, v in given.items() if name not in secret}
        hidden = {
            name: self.keyring.encrypt(msgspec.json.encode(to_json(value)).decode())
            for name, value in given.items()
            if name in secret and value is not None
        }
        return plain, hidden


def task_of(
    schedule: Schedule,
    tick: dt.datetime,
    key: Key,
    *,
    todo: str,
    run_id: str,
    number: int,
    by: str,
    notebook: Path | str,
    labels: Mapping[str, str],
    secrets: Iterable[str],
    out: str = "",
    origin: str = "",
    pinned: Path | None = None,
    modules: Path | None = None,
    kernels: str = "cold",
    hash_seed: int | None = None,
) -> Task:
    """The task of a tick's run: as `Task` has it, for `trigger:ID` or `backfill:ID`."""
    kind, _, name = by.partition(":")
    return Task(
        todo=todo, run_id=run_id, notebook=str(notebook), origin=origin,
        pinned=str(pinned) if pinned is not None else "",
        modules=str(modules) if modules is not None else "", kernels=kernels,
        hash_seed=hash_seed,
        parameters=schedule.parameters(tick), secrets=tuple(secrets),
        labels={**labels, kind: name, "tick": tick.isoformat()}, output=out,
        tick=Tick(
            stamp=key.stamp, inputs=key.inputs, zone=schedule.cron.zone.key, by=by,
            number=number,
        ),
    )  # fmt: skip
