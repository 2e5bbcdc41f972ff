"""Use cases of triggers: make them, list them, and fire what is due."""

from __future__ import annotations

import datetime as dt
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from cellrail.app.firing import Firing
from cellrail.app.recovering import Recovered
from cellrail.app.scheduling import Scheduling
from cellrail.errors import CellrailError, NoSuchTrigger, UserError
from cellrail.locate import flow_id
from cellrail.run import prepare
from cellrail.run.desks import own_user
from cellrail.schedule.cron import Cron
from cellrail.schedule.due import Due, due
from cellrail_state.errors import StateError
from cellrail_state.schedules import Missed, Trigger
from cellrail_state.standing import Claimer
from cellrail_state.tables import Listing

_ID = re.compile(r"[A-Za-z0-9_][\w.-]*")


class TriggerList(Listing[Trigger]):
    """Triggers as a listing."""

    title = "triggers"
    headings = ("trigger", "flow", "cron", "zone", "enabled")
    empty = "no triggers"

    def row(self, record: Trigger) -> tuple[str, ...]:
        """A trigger's line."""
        enabled = "yes" if record.enabled else "no"
        return record.id, record.flow, record.cron, record.zone, enabled


class TickList(Listing[dt.datetime]):
    """Ticks as a listing."""

    title = "ticks"
    headings = ("tick", "day")
    empty = "no tick"

    def row(self, record: dt.datetime) -> tuple[str, ...]:
        """A tick's line."""
        return record.isoformat(), f"{record:%A}"

    def __repr__(self) -> str:
        return "\n".join(tick.isoformat() for tick in self) or self.empty


class Triggering(Scheduling):
    """Keeps triggers, and fires their ticks."""

    def trigger_add(
        self,
        notebook: str | Path,
        *,
        cron: str,
        id: str | None = None,  # noqa: A002 - as on the command line
        tz: str = "UTC",
        missed: str = "all",
        max_active: int = 1,
        late_after: float | None = None,
        out: str | Path | None = None,
        parameters: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        secrets: Sequence[str] = (),
    ) -> Trigger:
        """Have a notebook run at the ticks of a schedule. Its first tick is the next one.

        Args:
            notebook: the notebook's path.
            cron: five fields, or six with seconds at the end.
            id: names it; the notebook's name by default.
            tz: the zone of the schedule.
            missed: of ticks that nobody looked at in time, run `all`, the `last` or `none`.
            max_active: so many of its runs are under way at most.
            late_after: a tick that is later than so many seconds is skipped.
            out: where the executed notebook goes, a template of the parameters.
            parameters: values by name, some of them templates of the tick.
            labels: of its runs.
            secrets: names of parameters that are secret.

        Raises:
            UserError: something is no good; nothing was changed.
        """
        self._store_for(notebook)
        path, flow = self._flow(notebook)
        name = path.stem.replace(" ", "-") if id is None else id
        if not _ID.fullmatch(name):
            raise UserError(
                f"{name!r} is no id of a trigger", hint="letters, digits and _ . - as in daily-eu"
            )
        if max_active < 1 or (late_after is not None and late_after <= 0):
            raise UserError("max_active is at least 1, and late_after more than 0 seconds")
        if missed not in {*Missed}:
            raise UserError(f"missed is all, last or none, not {missed!r}")
        schedule = Cron(cron, tz)
        plain, hidden = self._parted(flow, parameters or {}, secrets)
        trigger = Trigger(
            id=name, flow=flow_id(path, self.store_path), cron=schedule.expression,
            zone=schedule.zone.key, missed=Missed(missed), max_active=max_active,
            late_after=late_after, inputs=plain, secrets=hidden, labels=dict(labels or {}),
            out=str(Path(out).absolute()) if out is not None else "", created=self.clock(),
            user=own_user(),
        )  # fmt: skip
        first = next(schedule.after(self._moment(self.clock())))
        # the first tick's values are made: a value that its parameter does not take is told now
        list(self._schedule(flow, schedule, plain, hidden).keys([first]))
        if not self._open_or_create().triggers.add(trigger):
            raise UserError(
                f"there is a trigger {name!r} already",
                hint=f"choose another --id, or remove that one: cellrail trigger remove {name}",
            )
        return trigger

    def trigger_list(self, notebook: str | Path | None = None) -> TriggerList:
        """The triggers of the store, or of a notebook, by id."""
        if notebook is not None:
            self._store_for(notebook)
        found = self.store.triggers.all()
        if notebook is None:
            return TriggerList(found)
        flow = flow_id(Path(notebook).resolve(), self.store_path)
        return TriggerList(trigger for trigger in found if trigger.flow == flow)

    def trigger_show(self, id: str) -> Trigger:  # noqa: A002 - as on the command line
        """A trigger.

        Raises:
            NoSuchTrigger: there is none; names the nearest.
        """
        found = self.store.triggers.get(id) if _ID.fullmatch(id) else None
        if found is None:
            known = [trigger.id for trigger in self.store.triggers.all()]
            near = get_close_matches(id, known, n=1)
            raise NoSuchTrigger(
                f"there is no trigger {id!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
                hint="cellrail trigger list",
            )
        return found

    def trigger_next(self, id: str, count: int = 5) -> TickList:  # noqa: A002
        """The next ticks of a trigger, in its zone."""
        trigger = self.trigger_show(id)
        cron = Cron(trigger.cron, trigger.zone)
        return TickList(itertools.islice(cron.after(self._moment(self.clock())), count))

    def trigger_due(self, id: str) -> Due:  # noqa: A002 - as on the command line
        """The ticks of a trigger that nobody has decided on yet: due, missed, and too late."""
        trigger, now = self.trigger_show(id), self.clock()
        return due(
            Cron(trigger.cron, trigger.zone), self.store.triggers.looked(trigger), now,
            missed=trigger.missed, late_after=trigger.late_after, created=trigger.created,
        )  # fmt: skip

    def trigger_enable(self, id: str) -> Trigger:  # noqa: A002
        """Enable a trigger, from its next tick on: what it has missed meanwhile is not run."""
        trigger = self.trigger_show(id)
        if not trigger.enabled:
            self.store.triggers.look(trigger, self.clock())
            trigger = msgspec.structs.replace(trigger, enabled=True)
            self.store.triggers.change(trigger)
        return trigger

    def trigger_disable(self, id: str) -> Trigger:  # noqa: A002
        """Disable a trigger: it fires no more. Runs that it has fired go on."""
        trigger = msgspec.structs.replace(self.trigger_show(id), enabled=False)
        self.store.triggers.change(trigger)
        return trigger

    def trigger_remove(self, id: str) -> None:  # noqa: A002
        """Remove a trigger; its runs stay."""
        self.store.triggers.remove(self.trigger_show(id).id)

    # --- firing ------------------------------------------------------------------------------

    def tick(
        self,
        now: float | dt.datetime | None = None,
        *,
        tell: Callable[[str], None] = lambda _: None,
    ) -> list[Recovered]:
        """Fire what is due, once: runs that wait for time or were answered, then triggers.

        Any number of ticks may happen at the same time; each run is one's.

        Args:
            now: seconds since the epoch, or a time (local where it has no zone); by default this
                moment.
            tell: is told which ticks were missed, before they run.

        Returns:
            The runs that this tick went on with or started, and what was refused; none follows one
            that Ctrl-C has ended.
        """
        now = self.moment(now)
        done = super().tick(now)
        for trigger in self.store.triggers.all():
            if done and done[-1].interrupted:
                break
            if trigger.enabled:
                done += self._fire(trigger, now, tell)
        return done

    def _fire(self, trigger: Trigger, now: float, tell: Callable[[str], None]) -> list[Recovered]:
        """Run a trigger's due ticks, one after another, as far as it may."""
        fired: list[Recovered] = []
        tried: set[str] = set()
        try:
            with self.store.claims.owner() as lock:
                firing = self.firing(trigger, lock)
                for line in firing.missed(now):
                    tell(line)
                while (task := firing.next(now, tried)) is not None:
                    tried.add(task.run_id)
                    result = self.execute(task)
                    if result.elsewhere:
                        continue
                    if not result.status:
                        fired.append(_refused(trigger, result.error, result.hint))
                        break  # the next would do no better
                    run = self._view(self.history(result.run_id))
                    fired.append(Recovered(run_id=run.id, run=run))
                    if run.was_interrupted:
                        break
        except (CellrailError, StateError) as error:
            fired.append(_refused(trigger, str(error), error.hint))
        return fired

    def firing(self, trigger: Trigger, lock: str) -> Firing:
        """What claims the due ticks of a trigger, one after another.

        Args:
            trigger: the trigger.
            lock: the lock that this process holds as an owner of claims (`Claims.owner`).

        Raises:
            CellrailError: its notebook is gone, or does not take its inputs any more.
        """
        path = self.store_path.parent / trigger.flow
        _, flow = self._flow(path)
        cron = Cron(trigger.cron, trigger.zone)
        schedule = self._schedule(flow, cron, trigger.inputs, trigger.secrets)
        claimer = Claimer(owner=prepare.this_process(), lock=lock, by=f"trigger:{trigger.id}")
        return Firing(
            trigger, schedule, store=self.store, claimer=claimer, notebook=path, clock=self.clock
        )

    def is_due(self, trigger: Trigger, now: float) -> bool:
        """Whether ticks of a trigger are to be decided on; takes no look at the catalog.

        Args:
            trigger: the trigger.
            now: seconds since the epoch.
        """
        looked = self.store.triggers.looked(trigger)
        following = next(Cron(trigger.cron, trigger.zone).after(self._moment(looked)), None)
        return looked > now or (following is not None and following.timestamp() <= now)

    @staticmethod
    def _moment(seconds: float) -> dt.datetime:
        return dt.datetime.fromtimestamp(seconds, dt.UTC)


def _refused(trigger: Trigger, why: str, hint: str) -> Recovered:
    return Recovered(run_id="", refused=f"trigger {trigger.id}: {why}", hint=hint)
