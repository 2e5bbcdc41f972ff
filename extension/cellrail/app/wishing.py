"""What a person wishes of a backfill: from the words of a command to its record."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

import msgspec

from cellrail.app.triggering import Triggering
from cellrail.errors import BadSchedule, UserError
from cellrail.locate import flow_id
from cellrail.notebook.fingerprint import module_files, modules_of, source_digest
from cellrail.notebook.model import Flow
from cellrail.run import prepare
from cellrail.run.desks import own_user
from cellrail.schedule.cron import EVERY, Cron
from cellrail.schedule.spans import moment_of
from cellrail_state.errors import StateError
from cellrail_state.schedules import Backfill, Filling, Trigger, Which

#: two commands that differ in nothing else ask for the same backfill
_OWN = (
    "id", "created", "user", "end", "secrets", "pinned", "modules", "kept", "source", "hash_seed",
    "base",
)  # fmt: skip


class BackfillOptions(TypedDict, total=False):
    """Which ticks a backfill runs, and how."""

    #: the schedule: one of these three; by default the flow's only trigger
    trigger: str | None
    cron: str | None
    every: str | None
    #: the zone of dates and of the schedule; the trigger's, or UTC
    tz: str | None
    #: missing, failed, stale or all
    ticks: str
    #: asc or desc
    order: str
    #: so many runs at the same time
    parallel: int
    #: it pauses when so many ticks have failed; 0 for never
    stop_after: int
    #: failed and stale ticks run from their first step
    from_start: bool
    #: every run takes the notebook as it is then
    latest: bool
    #: values by name, some of them templates of the tick; added to the trigger's
    parameters: Mapping[str, Any] | None
    labels: Mapping[str, str] | None
    secrets: Sequence[str]
    #: where the executed notebooks go, a template of the parameters
    out: str | Path | None
    #: kernels start cold, or are forked (by default warm, where the system can)
    kernels: Literal["cold", "warm"] | None
    #: processors that its runs use; 0 for those of the machine
    cores: int
    #: bytes of memory that its runs may take together; 0 for no bound
    memory: int
    #: steps that are executed once for all runs; `("auto",)` for those that can be
    share: Sequence[str]


class Wished(msgspec.Struct, frozen=True, kw_only=True):
    """A backfill that somebody wishes."""

    record: Backfill
    flow: Flow
    #: the notebook's bytes, and those of the local modules that it keeps
    content: bytes
    modules: dict[str, bytes]


class Wishing(Triggering):
    """Makes records of backfills."""

    def _wished(
        self,
        notebook: str | Path,
        start: str,
        end: str | None,
        *,
        trigger: str | None = None,
        cron: str | None = None,
        every: str | None = None,
        tz: str | None = None,
        ticks: str = "missing",
        order: str = "asc",
        parallel: int = 1,
        stop_after: int = 0,
        from_start: bool = False,
        latest: bool = False,
        parameters: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        secrets: Sequence[str] = (),
        out: str | Path | None = None,
        kernels: str | None = None,
        cores: int = 0,
        memory: int = 0,
        share: Sequence[str] = (),
    ) -> Wished:
        """A backfill as it was asked for."""
        if ticks not in {*Which} or order not in {"asc", "desc"}:
            raise UserError("ticks is missing, failed, stale or all; order is asc or desc")
        if parallel < 1 or min(stop_after, cores, memory) < 0:
            raise UserError("parallel is at least 1; stop_after, cores and memory at least 0")
        path, flow = self._flow(notebook)
        schedule, source = self._cron(path, trigger, cron, every, tz)
        zone, now = schedule.zone.key, self.clock()
        first = moment_of(start, tz or zone)
        last = (
            moment_of(end, tz or zone, ends=True)
            if end is not None
            else dt.datetime.fromtimestamp(now, schedule.zone)
        )
        if last < first:
            raise BadSchedule(
                f"the range ends ({last.isoformat(timespec='seconds')}) before it begins"
            )
        plain, hidden = self._parted(flow, parameters or {}, secrets)
        content = path.read_bytes()
        import blake3

        modules = modules_of(flow)
        files = {} if latest else module_files(flow)
        if source is not None:
            plain = {n: v for n, v in source.inputs.items() if n not in hidden} | plain
            hidden = {n: v for n, v in source.secrets.items() if n not in plain} | hidden
        record = Backfill(
            id=prepare.new_run_id(now), flow=flow_id(path, self.store_path), notebook=str(path),
            cron=schedule.expression, zone=zone, start=first.isoformat(), end=last.isoformat(),
            open_end=end is None, trigger=source.id if source is not None else "",
            which=Which(ticks), newest_first=order == "desc", parallel=parallel,
            stop_after=stop_after, from_start=from_start, inputs=plain, secrets=hidden,
            labels={**(source.labels if source is not None else {}), **(labels or {})},
            out=str(Path(out).absolute()) if out is not None else source.out if source else "",
            created=now, user=own_user(),
            pinned="" if latest else blake3.blake3(content).hexdigest(),
            modules={} if latest else modules_by_name(flow), source=source_digest(flow, modules),
            kept={name: blake3.blake3(data).hexdigest() for name, data in files.items()},
            share=() if tuple(share) == ("none",) else tuple(share),
            base=prepare.new_run_id(now)[:-1],
            kernels=self._kind(kernels), hash_seed=prepare.new_hash_seed(), cores=cores,
            memory=memory,
        )  # fmt: skip
        return Wished(record=record, flow=flow, content=content, modules=files)

    def _cron(
        self,
        path: Path,
        trigger: str | None,
        cron: str | None,
        every: str | None,
        tz: str | None,
    ) -> tuple[Cron, Trigger | None]:
        """The schedule, and the trigger that it is of."""
        if sum(word is not None for word in (trigger, cron, every)) > 1:
            raise UserError("a schedule is one of trigger, cron and every")
        if cron is not None or every is not None:
            if every is not None and every not in EVERY:
                raise BadSchedule(f"every {every!r}: it is one of {', '.join(EVERY)}")
            return Cron(cron or EVERY[str(every)], tz or "UTC"), None
        flow = flow_id(path, self.store_path)
        if trigger is not None:
            found = self.trigger_show(trigger)
            if found.flow != flow:
                raise UserError(f"trigger {trigger!r} is of {found.flow}, not of {flow}")
            return Cron(found.cron, found.zone), found
        own = []
        if (self.store_path / "store.json").exists():
            own = [one for one in self.store.triggers.all() if one.flow == flow]
        if len(own) == 1:
            return Cron(own[0].cron, own[0].zone), own[0]
        raise UserError(
            "which ticks?" + (f" {len(own)} triggers are of this notebook" if own else ""),
            hint="--every day, --cron EXPR, or --trigger ID",
        )

    def _same(self, wished: Backfill) -> Backfill | None:
        """The unfinished backfill that the same command has started."""
        store = self.store.backfills
        for known in reversed(store.all()):
            over = {Filling.DONE, Filling.CANCELLED}
            if self._likeness(known) == self._likeness(wished) and (
                store.state(known.id).filling not in over
            ):
                return known
        return None

    def _clear(self, token: str) -> str:
        """A secret; one that somebody else has encrypted is like no other."""
        try:
            return self.keyring.decrypt(token)
        except StateError:
            return token

    def _likeness(self, backfill: Backfill) -> dict[str, Any]:
        names = [name for name in Backfill.__struct_fields__ if name not in _OWN]
        return {
            **{name: getattr(backfill, name) for name in names},
            "end": "" if backfill.open_end else backfill.end,
            "latest": not backfill.pinned,
            "secrets": {n: self._clear(t) for n, t in backfill.secrets.items()},
        }


def modules_by_name(flow: Flow) -> dict[str, str]:
    """Digests of the local modules of a flow, by name."""
    return {name: digest for step in modules_of(flow).values() for name, digest in step.items()}
