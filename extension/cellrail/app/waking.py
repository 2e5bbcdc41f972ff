"""Use cases: what a suspended run waits for is answered, and the run goes on.

An answer is given once (`cellrail_state.inbox`), whatever the races; whoever gave it goes on with
the run, unless its owner still lives and does. Where that process is killed in between, `tick`,
`recover` and a second `resume` go on: an answer is not lost.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import getpass
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from cellrail.app.recovering import Recovered, Recovering
from cellrail.errors import (
    AlreadyAnswered,
    CellrailError,
    NotWaiting,
    StepNotFound,
    UserError,
)
from cellrail.kernels.ending import interrupt_owner
from cellrail.notebook.address import find_step
from cellrail.run.jsontext import to_text
from cellrail.run.session import Progress
from cellrail.views import Run
from cellrail_state import waits
from cellrail_state.errors import RunIsOwned, StateError
from cellrail_state.history import RunHistory
from cellrail_state.model import RunKind, RunStatus, StepStatus
from cellrail_state.waits import Answer, WaitInfo

_POLL_SECONDS = 0.1
#: a run that is cancelled while it runs ends within this
_CANCEL_SECONDS = 60.0


class Woke(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an answer that was given with a token."""

    run_id: str
    #: resume or cancel
    action: str
    #: the step's address
    step: str
    #: the answer was kept: the step that asked is still running
    early: bool = False


class Waking(Recovering):
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
        if history.status is RunStatus.RUNNING and not (history.is_live and history.pending):
            return self._stop(history)
        info = self._info(run_id, None)
        self._first(info, waits.CANCEL, tell=tell)
        return self._go_on_from(info, tell=tell)

    def tick(self, now: float | None = None) -> list[Recovered]:
        """Fire what is due, once, and go on with the runs that have been answered.

        Any number of ticks may happen at the same time; each run is one's.

        Args:
            now: seconds since the epoch; by default this moment.

        Returns:
            The runs that this tick went on with, and those that are refused.
        """
        now = self.clock() if now is None else now
        done = []
        for info in self.store.inbox.waiting():
            if self.store.inbox.due(info, now) is None or self.store.is_owned(info.run_id):
                continue
            if self._is_live(info.run_id):
                # its kernel was killed: nothing goes on, and the wait is told of in its journal
                self.store.inbox.done(info.wait_id)
                continue
            with contextlib.suppress(RunIsOwned, NotWaiting):
                done.append(self._one(info))
        return done

    def wake(
        self,
        token: str,
        action: str = waits.RESUME,
        *,
        data: Any = None,
        request: Mapping[str, Any] | None = None,
        who: str = "",
    ) -> Woke:
        """Answer a wait with a token of one of its URLs; whoever calls has to go on (`tick`).

        Args:
            token: what stands at the end of the URL.
            action: resume or cancel, as the URL says.
            data: JSON that came with it.
            request: the HTTP request (`method`, `headers`, `query`, `body`).
            who: where it came from.

        Raises:
            NotWaiting: the token is none, or its step has failed.
            AlreadyAnswered: it was used before, or is too late.
        """
        wait_id, secret = waits.read(token)
        info = self.store.inbox.wait(wait_id) if wait_id else None
        if info is None or not info.fits(action, secret):
            raise NotWaiting("this link is not known here", hint="it may be of a deleted run")
        early = self._check(info)
        text = None if data is None else to_text(data, f"{action}: the data")
        answer = Answer(
            by=action, time=self.clock(), who=who, data=text, request=waits.plain(request)
        )
        self._answer(info, answer)
        return Woke(run_id=info.run_id, action=action, step=info.label, early=early)

    # --- answers -----------------------------------------------------------------------------

    def _info(self, run_id: str, step: str | None) -> WaitInfo:
        """What a run waits for, or will at the end of the step that runs."""
        history = self.history(run_id)
        self._check_kernel(history)
        info = history.pending
        if history.is_live and step is not None:
            info = self._of_step(history, step) or info
        if info is None and history.owned and history.firing:
            info = self.store.inbox.wait(history.firing)
        if info is None:
            told = f" ({history.cause})" if history.cause else ""
            raise NotWaiting(
                f"run {run_id} waits for nothing: it is {history.status}{told}"
                + self._last_answer(history),
                hint="`cellrail runs --status suspended` lists what waits",
            )
        infos = [state.info for state in history.states]
        if step not in {None, info.label} and find_step(str(step), infos).number != info.step:
            raise StepNotFound(f"run {run_id} does not wait behind {step!r}, but {info.label!r}")
        return info

    def _is_live(self, run_id: str) -> bool:
        with contextlib.suppress(StateError):
            return self.store.started(run_id).kind is RunKind.LIVE
        return False

    @staticmethod
    def _check_kernel(history: RunHistory) -> None:
        """Refuse what waits in a notebook whose kernel has ended.

        Raises:
            NotWaiting: nothing can go on; the hint says what can be done.
        """
        if not history.is_live or history.owned:
            return
        found = [s.info.label for s in history.states if s.status is StepStatus.SUSPENDED]
        if found:
            raise NotWaiting(
                f"{history.run_id} is a live run, and its kernel has ended: nothing goes on "
                f"behind {found[-1]!r}",
                hint="execute that cell again in the notebook, or make a new run: cellrail "
                f"restart {history.run_id} --from {found[-1]}",
            )

    @staticmethod
    def _of_step(history: RunHistory, step: str) -> WaitInfo | None:
        """What an open notebook waits for behind a step: it may wait behind several."""
        number = find_step(step, [state.info for state in history.states]).number
        return next((info for info in history.held if info.step == number), None)

    def _last_answer(self, history: RunHistory) -> str:
        own = [woken for woken in history.woken.values() if not woken.origin]
        if not own:
            return ""
        last = own[-1]
        return f"; {last.label} was {_how(last.by, last.who)} at {_moment(last.time)}"

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
        answer = Answer(by=by, time=self.clock(), who=_user(), data=data)
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

    def _answer(self, info: WaitInfo, answer: Answer) -> None:
        inbox = self.store.inbox
        late = inbox.due(info, answer.time)
        won = late if late is not None else inbox.answer(info.wait_id, answer)
        if won is answer or won == answer:
            return
        if won.by == waits.VOID:
            raise NotWaiting(f"step {info.label!r} has failed: its links are void")
        raise AlreadyAnswered(
            f"step {info.label!r} was {_how(won.by, won.who)} at {_moment(won.time)}",
            hint="its time is up: cellrail tick goes on with it"
            if won.by == waits.TIMEOUT
            else "a wait is answered once",
        )

    def _check(self, info: WaitInfo) -> bool:
        """Whether the step that asked still runs.

        Raises:
            NotWaiting: it has failed, or was interrupted, or the run has ended.
        """
        history = self.history(info.run_id)
        self._check_kernel(history)
        if info.wait_id in history.waits:
            over = history.ended is not None and history.ended.status is not RunStatus.SUSPENDED
            if over and info.wait_id not in history.woken:
                raise NotWaiting(f"run {info.run_id} has ended: {history.status}")
            return False
        if history.owned and history.firing == info.wait_id:
            return True
        answer = self.store.inbox.answered(info.wait_id)
        what = "failed" if answer is not None and answer.by == waits.VOID else "not ended well"
        raise NotWaiting(f"step {info.label!r} has {what}: its links are void")

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
        continuer = self._continuer(info.run_id, reason="timer", expects=info.wait_id)
        try:
            continuer.run()
            run = self._view(RunHistory(info.run_id, self._sources(verify=False)))
            return Recovered(run_id=info.run_id, run=run)
        except (RunIsOwned, NotWaiting):
            raise
        except (CellrailError, StateError) as error:
            return Recovered(run_id=info.run_id, refused=str(error), hint=error.hint)

    def _stop(self, history: RunHistory) -> Run:
        """Interrupt the process that drives a run."""
        run_id = history.run_id
        if history.is_live:
            raise UserError(
                f"{run_id} is a live run: it is cancelled in its notebook",
                hint="interrupt the kernel there",
            )
        self.store.inbox.stop(run_id, who=_user(), now=self.clock())
        interrupt_owner(history.owner)
        deadline = time.monotonic() + _CANCEL_SECONDS
        while self.store.is_owned(run_id) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return self._view(self.history(run_id))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"


def _how(by: str, who: str) -> str:
    told = {waits.RESUME: "resumed", waits.CANCEL: "cancelled", waits.TIMEOUT: "over"}[by]
    return f"{told} by {who}" if who else told


def _moment(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
