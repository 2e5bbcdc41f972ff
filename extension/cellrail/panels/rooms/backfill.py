"""The room of backfills: a calendar of ticks, what a backfill would do, and which there are."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import json
import zoneinfo
from collections.abc import Hashable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from cellrail.app.fills import INTERRUPTED, Fill, FillPlan, Progress
from cellrail.app.wishing import BackfillOptions
from cellrail.errors import CellrailError, UserError
from cellrail.panels import ticking
from cellrail.panels.base import Args
from cellrail.panels.rooms.fields import any_of
from cellrail.panels.rooms.pacing import PacedRoom
from cellrail.run.jsontext import typed
from cellrail.schedule.cron import EVERY, Cron
from cellrail.schedule.deciding import Todo
from cellrail.schedule.templates import is_template
from cellrail_state.errors import StateError, StoreNotFound
from cellrail_state.schedules import AUTO, Trigger, Which
from cellrail_state.sql import queries
from cellrail_state.standing import Standing

#: so many ticks are looked at for a calendar, so many are listed of a plan
_TICKS, _LISTED = 50_000, 400
_FILLS = 50
_DAY = "{date:%Y-%m-%d}"
_SECOND = "{date:%Y-%m-%dT%H:%M:%S}"
#: parameters of these names are taken to be the tick's day, where they hold one
_DAYS = frozenset(("day", "date", "ds", "when"))
_OVER = frozenset(("done", "cancelled"))
#: seconds in which the process that drives a backfill is taken to be about to begin
_STARTING_SECONDS = 20.0


class Wish(msgspec.Struct, kw_only=True):
    """What a person has chosen, as the browser sends it."""

    notebook: str = ""
    #: one of these; a trigger comes before the others
    trigger: str = ""
    cron: str = ""
    every: str = "day"
    tz: str = ""
    start: str = ""
    end: str = ""
    ticks: str = "missing"
    order: str = "asc"
    parallel: int = 1
    stop_after: int = 0
    from_start: bool = False
    #: leading steps that can be are executed once for all runs
    share: bool = False
    #: cold or warm; "" for whichever the system can
    kernels: Literal["", "cold", "warm"] = ""
    #: processors, and memory in units of 10^9 bytes, that its runs use together; 0 for all there is
    cores: Annotated[int, msgspec.Meta(ge=0)] = 0
    gigabytes: Annotated[float, msgspec.Meta(ge=0)] = 0
    #: as typed, by parameter; what is empty is not given
    parameters: dict[str, str] = {}
    #: as typed: `name=value`, parted by commas or lines
    labels: str = ""
    #: the first month of the calendar, and how many
    first: str = ""
    months: int = 3


class BackfillRoom(PacedRoom):
    """Answers for backfills."""

    def __init__(self, app: Any) -> None:
        """Look into a store."""
        super().__init__(app)
        self._fills: dict[str, Fill] = {}

    def now(self, what: str, args: Args) -> Hashable:
        """Changes when a run or a backfill does, or the notebook, and every minute."""
        minute = int(self.app.clock() // 60)
        try:
            beat: Hashable = (self.pulse.beat(), minute, self._filling())
        except StoreNotFound:
            beat = minute
        if what in {"calendar", "plan"}:
            return beat, _changed(self._path(_wish(args).notebook))
        return beat

    def _filling(self) -> Hashable:
        """What backfills are told to do, and which of them are driven."""
        store = self.app.store.backfills
        folders = [store.folder(record.id) for record in store.all()[-_FILLS:]]
        return tuple(
            (folder.name, _changed(folder), _changed(folder / "state"), store.driven(folder.name))
            for folder in folders
        )

    # --- what can be chosen ------------------------------------------------------------------

    def ask_form(self, args: Args) -> dict[str, Any]:
        """The notebooks, triggers and parameters that there are to choose from."""
        wish = _wish(args)
        triggers = self._triggers()
        chosen = next((one for one in triggers if one.id == wish.trigger), None)
        notebooks = self._notebooks(triggers)
        notebook = chosen.flow if chosen is not None else wish.notebook
        if not notebook and notebooks:
            notebook = notebooks[0]
        own = [one for one in triggers if one.flow == notebook]
        if chosen is None and len(own) == 1 and not wish.notebook:
            chosen = own[0]
        form: dict[str, Any] = {
            "notebook": notebook, "notebooks": notebooks,
            "trigger": chosen.id if chosen is not None else "",
            "triggers": [{"id": t.id, "cron": t.cron, "zone": t.zone} for t in own],
            "every": [*EVERY], "ticks": [str(which) for which in Which],
            "zones": sorted(zoneinfo.available_timezones()), "parameters": [], "problem": "",
            "first": self._today("UTC").isoformat()[:7],
        }  # fmt: skip
        try:
            form["parameters"] = self._parameters(notebook, chosen) if notebook else []
        except (CellrailError, StateError) as error:
            form["problem"] = str(error)
        return form

    def _triggers(self) -> list[Trigger]:
        try:
            return self.app.trigger_list()
        except StoreNotFound:
            return []

    def _notebooks(self, triggers: list[Trigger]) -> list[str]:
        """Flows that were run, and notebooks beside the store."""
        root = self.app.store_path.parent
        found = [one.flow for one in triggers]
        with contextlib.suppress(StoreNotFound):
            found += [row["flow"] for row in self.app.store.catalog.query(queries()["flows"])]
        found += [path.name for path in sorted(root.glob("*.ipynb"))]
        return [name for name in dict.fromkeys(found) if (root / name).is_file()]

    def _parameters(self, notebook: str, trigger: Trigger | None) -> list[dict[str, Any]]:
        given = trigger.inputs if trigger is not None else {}
        hidden = trigger.secrets if trigger is not None else {}
        found = []
        for one in self.app.steps(self._path(notebook)).parameters:
            value, says = "", f"default: {one.source or 'none'}"
            if one.name in given or one.name in hidden:
                says = f"trigger: {given.get(one.name, '***')}"
            elif _is_day(one.name, one.kind, one.default):
                value = _DAY if one.kind in {"date", ""} else _SECOND
            if one.secret:
                says = "secret"
            found.append(
                {"name": one.name, "kind": one.kind or type(one.default).__name__, "help": one.help,
                 "secret": one.secret, "value": value, "says": says}
            )  # fmt: skip
        return found

    # --- ticks -------------------------------------------------------------------------------

    def ask_calendar(self, args: Args) -> dict[str, Any]:
        """The days of some months, with the states of their ticks."""
        wish = _wish(args)
        cron = self._cron(wish)
        first, last = ticking.month_span(_month(wish.first), min(max(wish.months, 1), 12))
        start, end = _edges(cron, first, last)
        made: dict[str, Any] = {
            "first": first.isoformat()[:7], "months": wish.months, "zone": cron.zone.key,
            "cron": cron.expression, "today": self._today(cron.zone.key).isoformat(),
            "legend": [[str(s), s.letter, s.words] for s in ticking.State], "problem": "",
        }  # fmt: skip
        if sum(1 for _ in itertools.islice(cron.between(start, end), _TICKS + 1)) > _TICKS:
            made["problem"] = f"these months have over {_TICKS:,} ticks: look at fewer"
            states: list[tuple[dt.datetime, ticking.State]] = []
        else:
            options = _options(wish, self._kinds(wish), which="missing")
            plan = self.app.backfill_start(
                self._path(wish.notebook), start=first.isoformat(), end=last.isoformat(),
                plan=True, **options,
            )  # fmt: skip
            states = self._states(plan)
        days = ticking.days_of(states, cron.zone, first, last)
        made["days"] = {day.date.isoformat(): day.plain() for day in days}
        made["counts"] = _plain_counts(state for _, state in states)
        return made

    def ask_plan(self, args: Args) -> dict[str, Any]:
        """What would happen to each tick of the range."""
        wish = _wish(args)
        plan = self._plan(wish)
        states = dict(self._states(plan))
        wanted = [item for item in plan.items if item.decision.todo is not Todo.NOTHING]
        listed = wanted[:_LISTED] if len(plan.items) > _LISTED else plan.items
        known = self._known(plan)
        return {
            "ticks": len(plan.items), "counts": plan.counts, "wanted": len(wanted),
            "states": _plain_counts(states.values()), "start": plan.backfill.start,
            "end": plan.backfill.end, "zone": plan.backfill.zone, "cron": plan.backfill.cron,
            "same": known.id if known is not None else "",
            "same_status": known.status if known is not None else "",
            "rows": [
                {"tick": item.tick.isoformat(), "state": str(states[item.tick]),
                 "letter": states[item.tick].letter, "todo": str(item.decision.todo),
                 "why": item.decision.why, "run": item.stand.run_id}
                for item in listed
            ],
            "more": len(plan.items) - len(listed),
        }  # fmt: skip

    def ask_start(self, args: Args) -> dict[str, Any]:
        """Start a backfill, or go on with the same one, in a process of its own."""
        wish = _wish(args)
        said: list[str] = []
        fill = self.app.backfill_start(
            self._path(wish.notebook), start=_needed(wish.start), end=wish.end or None,
            detach=True, tell=said.append, **_options(wish, self._kinds(wish)),
        )  # fmt: skip
        return {"id": fill.id, "said": "; ".join(said)}

    def _plan(self, wish: Wish) -> FillPlan:
        return self.app.backfill_start(
            self._path(wish.notebook), start=_needed(wish.start), end=wish.end or None,
            plan=True, **_options(wish, self._kinds(wish)),
        )  # fmt: skip

    def _known(self, plan: FillPlan) -> Fill | None:
        """The backfill that a start would go on with; None where it would be a new one."""
        with contextlib.suppress(StoreNotFound):
            if self.app.store.backfills.get(plan.backfill.id) is not None:
                return Fill(self.app, plan.backfill)
        return None

    def _states(self, plan: FillPlan) -> list[tuple[dt.datetime, ticking.State]]:
        now, source = dt.datetime.fromtimestamp(self.app.clock(), dt.UTC), plan.backfill.source
        return [
            (item.tick, ticking.state_of(item.tick, item.stand, source=source, now=now))
            for item in plan.items
        ]

    def _cron(self, wish: Wish) -> Cron:
        if wish.trigger:
            trigger = self.app.trigger_show(wish.trigger)
            return Cron(trigger.cron, trigger.zone)
        if wish.cron:
            return Cron(wish.cron, wish.tz or "UTC")
        if wish.every not in EVERY:
            raise UserError(f"every {wish.every!r}: it is one of {', '.join(EVERY)}")
        return Cron(EVERY[wish.every], wish.tz or "UTC")

    def _kinds(self, wish: Wish) -> dict[str, bool]:
        """Whether each parameter holds text."""
        flow = self.app.steps(self._path(wish.notebook))
        return {one.name: isinstance(one.default, str) for one in flow.parameters}

    def _path(self, notebook: str) -> Path:
        return self.app.store_path.parent / notebook

    def _today(self, zone: str) -> dt.date:
        now = dt.datetime.fromtimestamp(self.app.clock(), dt.UTC)
        return now.astimezone(zoneinfo.ZoneInfo(zone)).date()

    # --- backfills ---------------------------------------------------------------------------

    def ask_fills(self, args: Args) -> list[dict[str, Any]]:
        """The backfills of the store, newest first."""
        del args
        try:
            found = self.app.backfill_list()[:_FILLS]
        except StoreNotFound:
            return []
        return [_row(fill, self.app.clock()) for fill in found]

    def ask_fill(self, args: Args) -> dict[str, Any]:
        """One of them, and how far it is."""
        fill = self._fill(str(args.get("id") or "last"))
        plan = fill.plan()
        progress = fill.progress(plan)
        record, told = fill.record, fill.to_dict()
        return {
            **_row(fill, self.app.clock()), "inputs": _texts(told["inputs"]),
            "labels": dict(record.labels), "parallel": record.parallel,
            "stop_after": record.stop_after, "share": list(record.share),
            "kernels": record.kernels, "cores": record.cores, "memory": record.memory,
            "order": "desc" if record.newest_first else "asc", "out": record.out,
            "pinned": record.pinned[:12], "ticks": len(plan.items),
            "months": _months(plan), "cursor": _cursor(plan), **_progress(progress),
        }  # fmt: skip

    def ask_pause(self, args: Args) -> dict[str, Any]:
        """Begin no more runs; `now`: cancel those that run."""
        fill = self.app.backfill_pause(_id(args), now=bool(args.get("now")))
        return _row(fill, self.app.clock())

    def ask_resume(self, args: Args) -> dict[str, Any]:
        """Go on, in a process of its own."""
        latest = bool(args.get("latest"))
        fill = self.app.backfill_resume(_id(args), latest=latest, detach=True)
        return _row(fill, self.app.clock())

    def ask_cancel(self, args: Args) -> dict[str, Any]:
        """End it for good."""
        fill = self.app.backfill_cancel(_id(args), now=bool(args.get("now")))
        return _row(fill, self.app.clock())

    def _fill(self, address: str) -> Fill:
        """A backfill that knows its ticks from the last time."""
        found = self.app.backfill_show(address)
        kept = self._fills.get(found.id)
        if kept is None or kept.record != found.record:
            self._fills = {**dict(list(self._fills.items())[-4:]), found.id: found}
        return self._fills[found.id]


# --- from the browser ----------------------------------------------------------------------------


def _wish(args: Args) -> Wish:
    try:
        return msgspec.convert(dict(args), Wish)
    except msgspec.ValidationError as error:
        raise UserError(f"this cannot be a backfill: {error}") from error


def _options(
    wish: Wish, texts: dict[str, bool], *, which: Literal["missing"] | None = None
) -> BackfillOptions:
    """What was chosen, as `App` takes it."""
    options: BackfillOptions = {
        "ticks": which or wish.ticks, "order": wish.order, "parallel": wish.parallel,
        "stop_after": wish.stop_after, "from_start": wish.from_start,
        "share": (AUTO,) if wish.share else (), "kernels": wish.kernels or None,
        "cores": wish.cores, "memory": int(wish.gigabytes * 1_000_000_000),
        "parameters": {
            name: _typed(name, text, is_text=texts.get(name, False))
            for name, text in wish.parameters.items()
            if text.strip()
        },
        "labels": _labels(wish.labels),
    }  # fmt: skip
    if wish.trigger:
        return {**options, "trigger": wish.trigger, "tz": wish.tz or None}
    if wish.cron:
        return {**options, "cron": wish.cron, "tz": wish.tz or None}
    return {**options, "every": wish.every, "tz": wish.tz or None}


def _typed(name: str, text: str, *, is_text: bool) -> Any:
    """A value as typed: text stays text where the parameter holds text, else JSON is read."""
    if is_text or is_template(text):
        return text
    found = any_of(text.strip())
    if not isinstance(found, str):
        return found
    try:
        return typed(text)
    except json.JSONDecodeError:
        return text
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error


def _labels(text: str) -> dict[str, str]:
    labels = {}
    for part in text.replace("\n", ",").split(","):
        name, equals, value = part.partition("=")
        if not part.strip():
            continue
        if not equals or not name.strip():
            raise UserError(f"{part.strip()!r} is no label", hint="write name=value")
        labels[name.strip()] = value.strip()
    return labels


def _month(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(f"{text}-01")
    except ValueError as error:
        raise UserError(f"{text!r} is no month", hint="as in 2025-03") from error


def _needed(start: str) -> str:
    if not start.strip():
        raise UserError("pick a range: drag over the calendar, or type when it starts")
    return start.strip()


def _id(args: Args) -> str:
    return str(args.get("id", ""))


# --- to the browser ------------------------------------------------------------------------------


def _row(fill: Fill, now: float) -> dict[str, Any]:
    record, state, status = fill.record, fill.state, fill.status
    if status == INTERRUPTED and now - state.time < _STARTING_SECONDS:
        status = "starting"
    return {
        "id": fill.id, "flow": record.flow, "status": status, "why": state.why,
        "which": str(record.which), "cron": record.cron, "zone": record.zone,
        "trigger": record.trigger, "start": record.start, "end": record.end,
        "created": record.created, "user": record.user,
        "can": {
            "pause": status in {"running", "starting", INTERRUPTED},
            "resume": status in {"paused", INTERRUPTED},
            "cancel": status not in _OVER,
        },
    }  # fmt: skip


def _progress(progress: Progress) -> dict[str, Any]:
    return {
        "total": progress.total, "ended": progress.ended, "running": progress.running,
        "left": progress.left, "done": progress.done, "rate": progress.rate,
        "seconds_left": progress.seconds_left,
        "failures": [
            {"tick": tick, "run": run_id, "why": why} for tick, run_id, why in progress.failures
        ],
    }  # fmt: skip


def _months(plan: FillPlan) -> dict[str, Any]:
    """Where a calendar would show it."""
    ticks = [item.tick for item in plan.items]
    if not ticks:
        return {}
    first, last = min(ticks).date(), max(ticks).date()
    return {"first": first.isoformat(), "last": last.isoformat()}


def _cursor(plan: FillPlan) -> str:
    """The tick that comes next; "" where none does."""
    begun = {Standing.RUNNING, Standing.INTERRUPTED}
    todo = (
        i
        for i in plan.items
        if i.decision.todo is not Todo.NOTHING and i.stand.standing not in begun
    )
    return next((item.tick.isoformat() for item in todo), "")


def _plain_counts(states: Any) -> dict[str, int]:
    return {str(state): number for state, number in ticking.counts_of(states).items()}


def _texts(values: dict[str, Any]) -> dict[str, str]:
    return {name: v if isinstance(v, str) else json.dumps(v) for name, v in values.items()}


def _is_day(name: str, kind: str, default: Any) -> bool:
    """Whether a parameter looks as if it were the day of the tick."""
    if kind:
        return True
    if name.lower() not in _DAYS or not isinstance(default, str):
        return False
    try:
        return default == "" or bool(dt.date.fromisoformat(default))
    except ValueError:
        return False


def _edges(cron: Cron, first: dt.date, last: dt.date) -> tuple[dt.datetime, dt.datetime]:
    """The first instant of a day, and that of the day after another."""
    after = last + dt.timedelta(days=1)
    start = dt.datetime(first.year, first.month, first.day, tzinfo=cron.zone)
    return start, dt.datetime(after.year, after.month, after.day, tzinfo=cron.zone)


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
