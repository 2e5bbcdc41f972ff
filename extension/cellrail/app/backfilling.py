"""Use cases of backfills: start, list, pause, go on, cancel."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Unpack, overload

import msgspec

from cellrail.app.fills import Fill, FillList, FillPlan
from cellrail.app.scheduling import Schedule, task_of
from cellrail.app.sharing import Shared, Sharing, behind
from cellrail.app.wishing import BackfillOptions, modules_by_name
from cellrail.errors import BackfillRuns, BadSchedule, NoSuchBackfill, UserError
from cellrail.executors import Executor, LocalProcesses, Task
from cellrail.filling import Counts, Driver, Item, Watch, plan
from cellrail.notebook.fingerprint import modules_of, source_digest
from cellrail.notebook.model import Flow
from cellrail.run import prepare
from cellrail.run.desks import own_user
from cellrail.schedule.cron import Cron
from cellrail.schedule.deciding import Todo, Wanted, decide
from cellrail_state.schedules import Backfill, BackfillState, Filling
from cellrail_state.standing import Claimer, Stand
from cellrail_state.ticks import Key

#: seconds between two looks at the local modules
_MODULES_SECONDS = 2.0
_PREFIX = 4


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """A backfill's ticks, and what is run for them."""

    flow: Flow
    schedule: Schedule
    #: with their keys, in the order in which they are run
    ticks: list[tuple[dt.datetime, Key]]
    wanted: Wanted
    pinned: Path | None


class Backfilling(Sharing):
    """Keeps backfills, and drives them."""

    @overload
    def backfill_start(
        self, notebook: str | Path, *, start: str, end: str | None = None,
        plan: Literal[False] = False, detach: bool = False, watch: Watch | None = None,
        tell: Callable[[str], None] = ..., **options: Unpack[BackfillOptions],
    ) -> Fill: ...  # fmt: skip

    @overload
    def backfill_start(
        self, notebook: str | Path, *, start: str, end: str | None = None,
        plan: Literal[True], tell: Callable[[str], None] = ...,
        **options: Unpack[BackfillOptions],
    ) -> FillPlan: ...  # fmt: skip

    def backfill_start(
        self,
        notebook: str | Path,
        *,
        start: str,
        end: str | None = None,
        plan: bool = False,
        detach: bool = False,
        watch: Watch | None = None,
        tell: Callable[[str], None] = lambda _: None,
        **options: Unpack[BackfillOptions],
    ) -> Fill | FillPlan:
        """Run a notebook for the ticks of a range. The same call again goes on after a crash.

        Args:
            notebook: the notebook's path.
            start: a date or time; inclusive where it is a tick.
            end: the same; by default this moment.
            plan: return what would happen to each tick; run nothing.
            detach: drive it in a process of its own, and return at once.
            watch: is told how far it is.
            tell: is told what a person should know.
            options: see `BackfillOptions`.

        Returns:
            The backfill, when it is done, paused or cancelled; with `plan`, the plan.

        Raises:
            UserError: something is no good, or the same backfill is running; nothing was changed.
        """
        self._store_for(notebook)
        asked = self._wished(notebook, start, end, **options)
        wished, flow = asked.record, asked.flow
        told = self._planned_share(wished, flow)
        if plan and not (self.store_path / "store.json").exists():
            items = self._never_run(self._range(wished, content=flow))
            return FillPlan(backfill=wished, items=items, shared=told)
        self._open_or_create()
        same = self._same(wished)
        if same is not None:
            wished = same
        found = self._range(wished, content=flow if same is None else None)
        if plan:
            return FillPlan(backfill=wished, items=self._planned(wished, found), shared=told)
        if same is not None:
            if self.store.backfills.driven(same.id):
                running = BackfillRuns(
                    f"the same backfill is running: {same.id}",
                    hint=f"cellrail backfill show {same.id}",
                )
                running.backfill = same.id
                raise running
            tell(f"goes on with backfill {same.id}, as it began")
            return self.backfill_resume(same.id, detach=detach, watch=watch, tell=tell)
        if not found.ticks:
            raise BadSchedule(
                f"no tick of {wished.cron!r} lies between {wished.start} and {wished.end}",
                hint="cellrail backfill start … --plan shows the ticks",
            )
        self.store.backfills.add(wished, asked.content, asked.modules)
        tell(f"backfill {wished.id}: {len(found.ticks)} ticks from {wished.start} to {wished.end}")
        return self._go(wished, detach=detach, watch=watch)

    def backfill(
        self, notebook: str | Path, *, start: str, end: str | None = None,
        **options: Unpack[BackfillOptions],
    ) -> Fill:  # fmt: skip
        """Run a notebook for the ticks of a range, in the background; see `backfill_start`."""
        return self.backfill_start(notebook, start=start, end=end, detach=True, **options)

    def backfill_list(self) -> FillList:
        """The backfills of the store, newest first."""
        return FillList(Fill(self, asked) for asked in reversed(self.store.backfills.all()))

    def backfill_show(self, backfill: str = "last") -> Fill:
        """A backfill, by its id, a unique prefix, or `last`.

        Raises:
            NoSuchBackfill: there is none, or there are several.
        """
        if len(backfill) < _PREFIX:
            raise NoSuchBackfill(f"{backfill!r} is too short for a backfill's prefix")
        known = self.store.backfills.all()
        fitting = (
            known[-1:] if backfill == "last" else [b for b in known if b.id.startswith(backfill)]
        )
        if len(fitting) == 1:
            return Fill(self, fitting[0])
        told = f"{backfill!r} fits several: {', '.join(b.id for b in fitting)}"
        raise NoSuchBackfill(
            told if fitting else f"there is no backfill {backfill!r}",
            hint="cellrail backfill list",
        )

    def backfill_pause(self, backfill: str = "last", *, now: bool = False) -> Fill:
        """Begin no more runs; those that run go on to their end, or are cancelled with `now`."""
        return self._tell(backfill, Filling.PAUSED, now=now)

    def backfill_cancel(self, backfill: str = "last", *, now: bool = False) -> Fill:
        """End a backfill for good; runs that it has made stay."""
        return self._tell(backfill, Filling.CANCELLED, now=now)

    def backfill_resume(
        self,
        backfill: str = "last",
        *,
        latest: bool = False,
        detach: bool = False,
        watch: Watch | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> Fill:
        """Go on with a backfill that is paused, or whose process is gone.

        Args:
            backfill: its address.
            latest: take local modules that it does not keep, and that have changed, as they are.
            detach: drive it in a process of its own, and return at once.
            watch: is told how far it is.
            tell: is told what a person should know.

        Raises:
            UserError: it is over.
        """
        record = self.backfill_show(backfill).record
        store = self.store.backfills
        state = store.state(record.id)
        if state.filling in {Filling.DONE, Filling.CANCELLED}:
            raise UserError(f"backfill {record.id} is {state.filling}", hint="start another one")
        modules = state.modules
        if latest and record.kept:
            tell("it keeps the local modules of its start; another backfill takes those of today")
        elif latest:
            _, flow = self._flow(record.notebook, pinned=store.pinned(record))
            modules = modules_by_name(flow)
        if state.filling is not Filling.RUNNING or latest:
            store.tell(record.id, BackfillState(time=self.clock(), modules=modules))
        if store.driven(record.id):
            tell(f"backfill {record.id} goes on in its own process")
            return Fill(self, record)
        return self._go(record, detach=detach, watch=watch)

    def _tell(self, backfill: str, filling: Filling, *, now: bool) -> Fill:
        record = self.backfill_show(backfill).record
        before = self.store.backfills.state(record.id)
        if before.filling in {Filling.DONE, Filling.CANCELLED}:
            raise UserError(f"backfill {record.id} is {before.filling}")
        state = BackfillState(
            filling=filling, time=self.clock(), why=f"by {own_user()}", now=now,
            modules=before.modules,
        )  # fmt: skip
        self.store.backfills.tell(record.id, state)
        return Fill(self, record)

    # --- driving -----------------------------------------------------------------------------

    def _range(self, backfill: Backfill, *, content: Flow | None = None) -> Range:
        """The ticks of a backfill; `content`: the notebook's steps, where they are known."""
        pinned = modules = None
        if content is None:
            store = self.store.backfills
            pinned, modules = store.pinned(backfill), store.modules(backfill)
        flow = content or self._flow(backfill.notebook, pinned=pinned, modules=modules)[1]
        cron = Cron(backfill.cron, backfill.zone)
        schedule = self._schedule(flow, cron, backfill.inputs, backfill.secrets)
        first, last = map(dt.datetime.fromisoformat, (backfill.start, backfill.end))
        ticks = list(schedule.keys(list(cron.between(first, last))))
        wanted = Wanted(
            which=backfill.which, name=backfill.name, from_start=backfill.from_start,
            source=source_digest(flow, modules_of(flow)),
        )  # fmt: skip
        if backfill.newest_first:
            ticks.reverse()
        return Range(flow=flow, schedule=schedule, ticks=ticks, wanted=wanted, pinned=pinned)

    def _planned(self, backfill: Backfill, found: Range) -> list[Item]:
        return plan(self.store, backfill.flow, found.ticks, found.wanted)

    @staticmethod
    def _never_run(found: Range) -> list[Item]:
        """The plan where there is no store yet."""
        stands = [(tick, Stand(key=key)) for tick, key in found.ticks]
        return [
            Item(tick=tick, key=stand.key, stand=stand, decision=decide(found.wanted, stand))
            for tick, stand in stands
        ]

    def _go(self, backfill: Backfill, *, detach: bool, watch: Watch | None) -> Fill:
        if detach:
            self._detach(backfill)
            return Fill(self, backfill)
        fill = Fill(self, backfill)
        with self.store.backfills.driving(backfill.id) as got:
            if not got:
                raise UserError(f"backfill {backfill.id} is driven by another process")
            fill.driven = self._drive(backfill, watch)
            # who has resumed it while its workers were ending has left it to this process
            while fill.state.filling is Filling.RUNNING:
                fill.driven = self._drive(backfill, watch)
        self.store.catalog.ingest()
        return fill

    def _drive(self, backfill: Backfill, watch: Watch | None) -> Counts:
        """Drive it until it is done, paused or cancelled; this process holds its lock."""
        found = self._range(backfill)
        executor = self._executor(backfill)
        try:
            shared = self._shared_by(backfill, found, executor)
            with self.store.claims.owner() as lock:
                driver = self._driver(
                    backfill, found, executor, lock=lock, watch=watch, shared=shared
                )
                driver.run()
                return driver.counts
        finally:
            executor.close()

    def _shared_by(self, backfill: Backfill, found: Range, executor: Executor) -> Shared:
        """What its runs share; executed now where that was not done yet."""
        new = [item for item in self._planned(backfill, found) if item.decision.todo is Todo.RUN]
        if not backfill.share or not new:
            return Shared()
        first = self._task(backfill, found, new[0], "", 0)
        return self._share(backfill, found.flow, executor, first)

    @staticmethod
    def _task(backfill: Backfill, found: Range, item: Item, run_id: str, number: int) -> Task:
        return task_of(
            found.schedule, item.tick, item.key, todo=item.decision.todo, run_id=run_id,
            number=number, by=backfill.name, notebook=backfill.notebook,
            labels=backfill.labels, secrets=backfill.secrets, out=backfill.out,
            origin=item.decision.origin, pinned=found.pinned, modules=found.flow.modules,
            kernels=backfill.kernels, hash_seed=backfill.hash_seed,
        )  # fmt: skip

    def _executor(self, backfill: Backfill) -> Executor:
        """Who executes its runs."""
        log = self.store.backfills.folder(backfill.id) / "log"
        return LocalProcesses(
            self.store_path, count=backfill.parallel, log=log, keys=self.keys,
            cores=backfill.cores, memory=backfill.memory,
        )  # fmt: skip

    def _driver(
        self, backfill: Backfill, found: Range, executor: Executor, *, lock: str,
        watch: Watch | None, shared: Shared,
    ) -> Driver:  # fmt: skip
        def task(item: Item, run_id: str, number: int) -> Task:
            made = self._task(backfill, found, item, run_id, number)
            return behind(made, shared, scope=backfill.name)

        return Driver(
            backfill,
            self._planned(backfill, found),
            store=self.store,
            wanted=found.wanted,
            executor=executor,
            claimer=Claimer(owner=prepare.this_process(), lock=lock, by=backfill.name),
            task=task,
            changed=_ModuleWatch(backfill, found.flow),
            new_id=_Ids(self.clock),
            clock=self.clock,
            timer=time.monotonic,
            watch=watch,
        )

    def _detach(self, backfill: Backfill) -> None:
        """Drive it in a process of its own."""
        words = ["backfill", "resume", backfill.id, "--store", str(self.store_path), "-q"]
        environment = {**os.environ, **({"CELLRAIL_KEYS": self.keys} if self.keys else {})}
        with (self.store.backfills.folder(backfill.id) / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "cellrail", *words],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                start_new_session=True,
            )  # fmt: skip
        # nobody waits for it, but the system wants to be asked once
        threading.Thread(target=process.wait, name="cellrail-backfill", daemon=True).start()


class _Ids:
    """Ids of runs that sort as they were made, also where many are made at once."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._last = clock, 0.0

    def __call__(self) -> str:
        """The next."""
        self._last = max(self._clock(), self._last + 0.001)
        return prepare.new_run_id(self._last)


class _ModuleWatch:
    """Tells whether the local modules are as they were when a backfill began."""

    def __init__(self, backfill: Backfill, flow: Flow) -> None:
        self._backfill, self._flow = backfill, flow
        self._looked = float("-inf")

    def __call__(self, state: BackfillState) -> str:
        """What has changed, in words; "" for nothing."""
        now = time.monotonic()
        if (
            self._backfill.kept
            or not self._backfill.modules
            or now - self._looked < _MODULES_SECONDS
        ):
            return ""
        today = modules_by_name(self._flow)
        for name, digest in self._backfill.modules.items():
            if today.get(name) not in {digest, state.modules.get(name)}:
                return (
                    f"the module {name} is not as it was when the backfill began: put it back, "
                    f"or take it as it is: cellrail backfill resume {self._backfill.id} --latest"
                )
        self._looked = now
        return ""
