"""Use case: go on with runs that have lost their owner."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, overload

import msgspec

from cellrail.app.base import AppBase
from cellrail.continuing import Continuer
from cellrail.errors import CellrailError, NotWaiting, StillSuspended, TickIsTaken
from cellrail.launch import kernel_settings, wait_rules
from cellrail.notebook.plan import Plan
from cellrail.run import prepare
from cellrail.run.session import Progress
from cellrail.views import Run, RunList
from cellrail_state.errors import RunIsOwned, StateError
from cellrail_state.history import RunHistory
from cellrail_state.model import RunKind, RunStarted, RunStatus, WaitInfo
from cellrail_state.standing import Claimer, claim, stand
from cellrail_state.tables import Shown
from cellrail_state.waits import SUSPEND

#: of a store with more interrupted runs than this, the newest are recovered
_MANY = 1000
_POLL_SECONDS = 0.1


class Recovered(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """What became of one of several runs."""

    run_id: str
    #: the run, ended; None where it was refused, or only planned
    run: Run | None = None
    plan: Plan | None = None
    #: why it was refused, and what to do
    refused: str = ""
    hint: str = ""

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it: then nothing follows it."""
        return self.run is not None and self.run.was_interrupted


class Recovering(AppBase):
    """Goes on with runs under their own ids."""

    @overload
    def recover(
        self,
        run: str,
        *,
        plan: Literal[False] = False,
        progress: Progress | None = None,
        tell: Callable[[str], None] = ...,
    ) -> Run: ...

    @overload
    def recover(self, run: str, *, plan: Literal[True]) -> Plan: ...

    @overload
    def recover(self) -> RunList: ...

    @overload
    def recover(
        self,
        *,
        all: Literal[True],
        plan: bool = False,
        progress: Progress | None = None,
        tell: Callable[[str], None] = ...,
    ) -> list[Recovered]: ...

    def recover(
        self,
        run: str | None = None,
        *,
        all: bool = False,  # noqa: A002 - as on the command line
        plan: bool = False,
        progress: Progress | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> Run | Plan | RunList | list[Recovered]:
        """Go on with a run after a crash, from its first unfinished step.

        Args:
            run: the run's address. Without it, and without `all`: the runs that are interrupted.
            all: every run that is interrupted, oldest first; one that is refused stops no other,
                Ctrl-C stops all.
            plan: return what would happen; change nothing.
            progress: who is told how far a run has come.
            tell: is told what a person should know: that a notebook has changed since.

        Returns:
            The run, ended; the plan; or a list.

        Raises:
            RunIsOwned: it is still running.
            RecoverRefused: it has ended, or cannot go on; the hint says what would do.
        """
        if run is not None:
            continuer = self._continuer(self._run_id(run), progress=progress, tell=tell)
            return _told(continuer) if plan else self._go_on(continuer)
        if not all:
            return self._interrupted()
        done: list[Recovered] = []
        for row in reversed(self._interrupted()):
            # one before it may have gone on with it (`flow.call`)
            if self.history(row.run_id).status is RunStatus.INTERRUPTED:
                done.append(self._one_of_many(row.run_id, plan=plan, progress=progress, tell=tell))
                if done[-1].interrupted:
                    break
        return done

    def _run_id(self, run: str) -> str:
        if run.endswith(".ipynb"):
            self._store_for(run)
        return self.history(run).run_id

    def _interrupted(self) -> RunList:
        """Runs without an owner, newest first; a live run ended with its kernel."""
        catalog = self.store.catalog
        rows = catalog.runs(status=str(RunStatus.INTERRUPTED), limit=_MANY)
        found = RunList(row for row in rows if row.kind != RunKind.LIVE)
        found.behind, found.live = catalog.behind, len(rows) - len(found)
        return found

    def _one_of_many(
        self,
        run_id: str,
        *,
        plan: bool,
        progress: Progress | None,
        tell: Callable[[str], None],
    ) -> Recovered:
        continuer = self._continuer(run_id, progress=progress, tell=tell)
        try:
            if plan:
                return Recovered(run_id=run_id, plan=_told(continuer))
            return Recovered(run_id=run_id, run=self._go_on(continuer))
        except (CellrailError, StateError) as error:
            return Recovered(run_id=run_id, refused=str(error), hint=error.hint)

    def _go_on(self, continuer: Continuer) -> Run:
        with self._tick_of(continuer.run_id):
            continuer.run()
        return self._followed(continuer.run_id, progress=continuer.progress, tell=continuer.tell)

    @contextlib.contextmanager
    def _tick_of(self, run_id: str) -> Iterator[None]:
        """Of a run that has failed and can go on all the same: nobody else runs its tick meanwhile.

        Raises:
            TickIsTaken: another run is under way, or has come after it.
        """
        history = RunHistory(run_id, self._sources(verify=False))
        tick, ended = history.started.tick, history.ended
        if tick is None or ended is None or ended.status is not RunStatus.FAILED:
            yield  # it is under way: nobody begins another
            return
        flow = self.store.current_flow(history.started)
        with self.store.claims.owner() as lock:
            seen = stand(self.store, flow, tick.key)
            claimer = Claimer(owner=prepare.this_process(), lock=lock, by=tick.by)
            last = not seen.under_way and seen.ended == run_id
            if not last or not claim(
                self.store, flow, [seen], claimer, new_id=lambda: run_id, now=self.clock()
            ):
                raise TickIsTaken(
                    f"the tick {tick.moment.isoformat()} of run {run_id} has had another run "
                    f"since: {seen.run_id}"
                )
            yield

    def _followed(
        self,
        run_id: str,
        *,
        progress: Progress | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> Run:
        """The run, when it has ended or waits for somebody.

        What it waits for may have come while its step ran. And time alone ends some waits: until
        then this process stays, without a kernel and without owning the run.
        """
        while True:
            history = RunHistory(run_id, self._sources(verify=False))
            if self.store.is_owned(run_id):  # somebody else was faster
                time.sleep(_POLL_SECONDS)
                continue
            info = history.pending if history.status is RunStatus.SUSPENDED else None
            if info is None or not self._comes(info):
                return self._view(history)
            with contextlib.suppress(RunIsOwned, NotWaiting):
                self._continuer(
                    run_id, reason="timer", expects=info.wait_id, progress=progress, tell=tell
                ).run()

    def _comes(self, info: WaitInfo) -> bool:
        """Wait for the answer to a wait; whether there is one. Nobody stays for a suspension."""
        inbox = self.store.inbox
        try:
            while inbox.due(info, self.clock()) is None:
                if info.kind == SUSPEND:
                    return False
                left = (info.until or 0.0) - self.clock()
                time.sleep(min(_POLL_SECONDS, max(0.0, left)))
        except KeyboardInterrupt:
            raise _still_suspended(info) from None
        return True

    def _continuer(
        self,
        run_id: str,
        *,
        reason: str = "recover",
        expects: str = "",
        kernels: str = "cold",
        progress: Progress | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> Continuer:
        """What goes on with a run under its own id, whatever the reason."""
        return Continuer(
            store=self.store, run_id=run_id, path=self._path_of,
            kernel_settings=functools.partial(kernel_settings, self.settings, self.store_path),
            lazy_above=self.settings.lazy_above, reason=reason, expects=expects,
            waits=wait_rules(self.settings), progress=progress, tell=tell,
            clock=self.clock, supply=self._supply(kernels),
        )  # fmt: skip

    def _path_of(self, started: RunStarted) -> Path:
        """Where the notebook of a run lies today, or lay."""
        path = self.store_path.parent / self.store.current_flow(started)
        recorded = Path(started.notebook_path)
        return path if path.is_file() or not recorded.is_file() else recorded


def _still_suspended(info: WaitInfo) -> StillSuspended:
    """What a person should know who does not stay for a wait's end."""
    until = dt.datetime.fromtimestamp(info.until or 0.0).astimezone()
    run_id = info.run_id
    return StillSuspended(
        f"interrupted; run {run_id} stays suspended behind step {info.label!r} until {until:%F %T}",
        hint=f"`cellrail tick` then goes on with it; now: cellrail resume {run_id}; "
        f"not at all: cellrail cancel {run_id}",
    )


def _told(continuer: Continuer) -> Plan:
    found = continuer.plan()
    return msgspec.structs.replace(found.plan, refusals=found.refusals)
