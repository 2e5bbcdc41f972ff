"""Use cases: what a suspended run waits for is answered, and the run goes on.

An answer is given once (`cellrail_state.inbox`), whatever the races; whoever gave it goes on with
the run, unless its owner still lives and does. Where that process is killed in between, `tick`,
`recover` and a second `resume` go on: an answer is not lost.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Callable
from typing import Any

from cellrail.app.answering import Answering, own_name, runs_now
from cellrail.app.recovering import Recovered
from cellrail.errors import AlreadyAnswered, CellrailError, NotWaiting
from cellrail.run.jsontext import to_text
from cellrail.run.session import Progress
from cellrail.views import Run
from cellrail_state import waits
from cellrail_state.errors import RunIsOwned, StateError
from cellrail_state.history import RunHistory
from cellrail_state.waits import Answer, WaitInfo

_POLL_SECONDS = 0.1
#: a run that is cancelled while it runs ends within this
_CANCEL_SECONDS = 60.0


class Waking(Answering):
    """Resumes, cancels, and fires what is due."""

    def resume(
        self,
        run: str = "last",
        *,
        step: str | None = None,
        data: Any = None,
        progress: Progress | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> Run:
        """Resume a suspended run, and go on with it to its end, or to its next wait.

        A resume that comes while the step still runs is kept, and counts at its end.

        Args:
            run: the run's address.
            step: the step that it waits behind; by default whichever that is.
            data: JSON; the next step finds it as `flow.resume_data`.
            progress: who is told how far the run has come.
            tell: is told what a person should know.

        Returns:
            The run as it is now.

        Raises:
            NotWaiting: it waits for nothing.
            AlreadyAnswered: somebody was first; the message says who, and when.
        """
        run_id = self._run_id(run)
        info = self._info(run_id, step)
        text = None if data is None else to_text(data, "resume: the data")
        self._first(info, waits.RESUME, data=text, tell=tell)
        return self._go_on_from(info, progress=progress, tell=tell)

    def cancel(self, run: str = "last", *, tell: Callable[[str], None] = lambda _: None) -> Run:
        """Cancel a run that is suspended, or running on this machine.

        Args:
            run: the run's address.
            tell: is told what a person should know.

        Raises:
            NotWaiting: it is neither.
            AlreadyAnswered: somebody has resumed it before.
        """
        run_id = self._run_id(run)
        history = self.history(run_id)
        if runs_now(history):
            return self._stop(history)
        info = self._info(run_id, None)
        self._first(info, waits.CANCEL, tell=tell)
        return self._go_on_from(info, tell=tell)

    def tick(self, now: float | dt.datetime | None = None) -> list[Recovered]:
        """Fire what is due, once, and go on with the runs that have been answered.

        Any number of ticks may happen at the same time; each run is one's.

        Args:
            now: seconds since the epoch, or a time (local where it has no zone); by default this
                moment.

        Returns:
            The runs that this tick went on with, first those whose time was up first, and those
            that are refused; none follows one that Ctrl-C has ended.
        """
        done: list[Recovered] = []
        for info in self.waits_over(self.moment(now)):
            with contextlib.suppress(RunIsOwned, NotWaiting):
                done.append(self._one(info))
                if done[-1].interrupted:
                    break
        return done

    def waits_over(self, now: float, *, timers: bool = True) -> list[WaitInfo]:
        """The waits that somebody has to go on from, by when they were answered or due.

        Args:
            now: seconds since the epoch.
            timers: those whose time is up, too.
        """
        over: list[tuple[float, WaitInfo]] = []
        inbox = self.store.inbox
        for info in inbox.waiting():
            answer = inbox.due(info, now) if timers else inbox.answered(info.wait_id)
            if answer is None or self.store.is_owned(info.run_id):
                continue
            if self._is_live(info.run_id):
                # its kernel was killed: nothing goes on, and the wait is told of in its journal
                self.store.inbox.done(info.wait_id)
                continue
            over.append((answer.time, info))
        return [info for _, info in sorted(over, key=lambda one: one[0])]

    def go_on(self, wait_id: str) -> Run:
        """Go on with the run of a wait that is over, to its end or its next wait.

        Args:
            wait_id: names the wait in the store.

        Raises:
            RunIsOwned: another process does.
            NotWaiting: another process did.
        """
        run_id = wait_id.rpartition("/")[0]
        answer = self.store.inbox.answered(wait_id)
        timed = answer is None or answer.by == waits.TIMEOUT
        self._continuer(run_id, reason="timer" if timed else "resume", expects=wait_id).run()
        return self._view(RunHistory(run_id, self._sources(verify=False)))

    def _first(
        self,
        info: WaitInfo,
        by: str,
        *,
        data: str | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Answer a wait; where that was done before and nobody went on, that answer counts."""
        self._check(info)
        answer = Answer(by=by, time=self.clock(), who=own_name(), data=data)
        try:
            self._answer(info, answer)
        except AlreadyAnswered as error:
            history = self.history(info.run_id)
            behind = history.pending is not None and history.pending.wait_id == info.wait_id
            won = self.store.inbox.answered(info.wait_id)
            late = won is None or won.by == waits.TIMEOUT
            if late or not behind or not history.ended or self.store.is_owned(info.run_id):
                raise
            tell(f"{error}; nobody has gone on with it since, so that answer counts")

    # --- going on ----------------------------------------------------------------------------

    def _go_on_from(
        self,
        info: WaitInfo,
        *,
        progress: Progress | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> Run:
        """Go on with a run that was answered, unless somebody else does."""
        if (history := self.history(info.run_id)).is_live:
            tell(f"{info.label}: the open notebook is told when its next cell is executed")
            return self._view(history)
        try:
            continuer = self._continuer(
                info.run_id, reason="resume", expects=info.wait_id, progress=progress, tell=tell
            )
            return self._go_on(continuer)
        except RunIsOwned:
            # it looks for answers itself when it is done with its step
            tell(f"run {info.run_id} is running; its own process goes on with it")
        except NotWaiting:
            tell(f"run {info.run_id} has been gone on with by another process")
        return self._view(self.history(info.run_id))

    def _one(self, info: WaitInfo) -> Recovered:
        try:
            return Recovered(run_id=info.run_id, run=self.go_on(info.wait_id))
        except (RunIsOwned, NotWaiting):
            raise
        except (CellrailError, StateError) as error:
            return Recovered(run_id=info.run_id, refused=str(error), hint=error.hint)

    def _stop(self, history: RunHistory) -> Run:
        """Interrupt the process that drives a run, and wait for its end."""
        self._interrupt(history, who=own_name())
        deadline = time.monotonic() + _CANCEL_SECONDS
        while self.store.is_owned(history.run_id) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return self._view(self.history(history.run_id))
