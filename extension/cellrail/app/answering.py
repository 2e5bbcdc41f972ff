"""Use cases: answers to what runs wait for. Whoever gives one has to see that the run goes on.

An answer is given once (`cellrail_state.inbox`), whatever the races. It changes no run by itself.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import getpass
from collections.abc import Mapping
from typing import Any

import msgspec

from cellrail.app.recovering import Recovering
from cellrail.errors import AlreadyAnswered, LinkUnknown, NotWaiting, StepNotFound, UserError
from cellrail.kernels.ending import interrupt_owner
from cellrail.notebook.address import find_step
from cellrail.run.jsontext import to_text
from cellrail_state import waits
from cellrail_state.errors import StateError
from cellrail_state.history import RunHistory
from cellrail_state.model import RunKind, RunStatus, StepStatus
from cellrail_state.tables import Shown
from cellrail_state.waits import Answer, WaitInfo


class Woke(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """What came of an answer that was given with a token."""

    run_id: str
    #: resume or cancel
    action: str
    #: the step's address
    step: str
    #: the answer was kept: the step that asked is still running
    early: bool = False


class Asked(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """What somebody who holds a link is asked."""

    run_id: str
    #: the flow, and the step's address
    flow: str
    step: str
    #: suspend or rerun
    kind: str
    #: what the link does: resume or cancel
    action: str
    #: when its time is up (seconds since the epoch), and what it comes to then
    until: float | None = None
    on_timeout: str = waits.RESUME
    #: why nobody can answer any more; "" while somebody can
    closed: str = ""


class Answering(Recovering):
    """Gives answers."""

    def wake(
        self,
        token: str,
        action: str = waits.RESUME,
        *,
        data: Any = None,
        request: Mapping[str, Any] | None = None,
        who: str = "",
        grants: str = "",
    ) -> Woke:
        """Answer a wait with a token of one of its URLs; whoever calls has to go on (`tick`).

        Args:
            token: what stands at the end of the URL.
            action: resume or cancel, as the URL says.
            data: JSON that came with it.
            request: the HTTP request (`method`, `headers`, `query`, `body`).
            who: where it came from.
            grants: what the token is for, where that is not the action: who may let a run go on may
                also cancel it.

        Raises:
            LinkUnknown: the token is none, or one for something else.
            NotWaiting: its step has failed, or its run has ended.
            AlreadyAnswered: it was used before, or is too late.
        """
        info = self._of_token(token, grants or action)
        early = self._check(info)
        text = None if data is None else to_text(data, f"{action}: the data")
        answer = Answer(
            by=action, time=self.clock(), who=who, data=text, request=waits.plain(request)
        )
        self._answer(info, answer)
        return Woke(run_id=info.run_id, action=action, step=info.label, early=early)

    def answer(
        self,
        run: str,
        action: str = waits.RESUME,
        *,
        step: str | None = None,
        data: Any = None,
        who: str = "",
    ) -> Woke:
        """Answer what a run waits for, or interrupt it; whoever calls has to go on (`tick`).

        Args:
            run: the run's address.
            action: resume or cancel.
            step: the step that it waits behind; by default whichever that is.
            data: JSON; the next step finds it as `flow.resume_data`.
            who: gives the answer; by default the user of this process.

        Raises:
            NotWaiting: it waits for nothing.
            AlreadyAnswered: somebody was first; the message says who, and when.
        """
        run_id, who = self._run_id(run), who or own_name()
        history = self.history(run_id)
        if action == waits.CANCEL and runs_now(history):
            self._interrupt(history, who=who)
            return Woke(run_id=run_id, action=action, step="", early=True)
        info = self._info(run_id, step)
        text = None if data is None else to_text(data, f"{action}: the data")
        early = self._check(info)
        self._answer(info, Answer(by=action, time=self.clock(), who=who, data=text))
        return Woke(run_id=run_id, action=action, step=info.label, early=early)

    def asked(self, token: str, action: str = waits.RESUME) -> Asked:
        """What the holder of a token is asked; looking answers nothing.

        Args:
            token: what stands at the end of the URL.
            action: resume or cancel, as the URL says.

        Raises:
            LinkUnknown: the token is none, or one for something else.
        """
        info = self._of_token(token, action)
        closed = ""
        answer = self.store.inbox.answered(info.wait_id)
        try:
            self._check(info)
        except NotWaiting as error:
            closed = str(error)
        if answer is not None and answer.by != waits.VOID:
            closed = _already(info, answer)
        elif not closed and info.until is not None and self.clock() >= info.until:
            closed = f"step {info.label!r}: its time is up"
        return Asked(
            run_id=info.run_id, flow=self.store.current_flow(self.store.started(info.run_id)),
            step=info.label, kind=info.kind, action=action, until=info.until,
            on_timeout=info.on_timeout, closed=closed,
        )  # fmt: skip

    # --- answers -----------------------------------------------------------------------------

    def _of_token(self, token: str, action: str) -> WaitInfo:
        """The wait that a token lets its holder end in this way.

        Raises:
            LinkUnknown: it does not.
        """
        wait_id, secret = waits.read(token)
        info = self.store.inbox.wait(wait_id) if wait_id else None
        if info is None or not info.fits(action, secret):
            raise LinkUnknown("this link is not known here", hint="it may be of a deleted run")
        return info

    def _interrupt(self, history: RunHistory, *, who: str) -> None:
        """Interrupt the process that drives a run.

        Raises:
            UserError: it is a notebook's kernel, or lives elsewhere.
        """
        if history.is_live:
            raise UserError(
                f"{history.run_id} is a live run: it is cancelled in its notebook",
                hint="interrupt the kernel there",
            )
        self.store.inbox.stop(history.run_id, who=who, now=self.clock())
        if not interrupt_owner(history.owner) and self.store.is_owned(history.run_id):
            # a container of the same name, whose processes are not ours
            raise UserError(
                f"the process {history.owner.pid} that drives the run is not to be seen from here",
                hint=f"cancel it in its own container: cellrail cancel {history.run_id}",
            )

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

    def _answer(self, info: WaitInfo, answer: Answer) -> None:
        inbox = self.store.inbox
        late = inbox.due(info, answer.time)
        won = late if late is not None else inbox.answer(info.wait_id, answer)
        if won is answer or won == answer:
            return
        if won.by == waits.VOID:
            raise NotWaiting(f"step {info.label!r} has failed: its links are void")
        raise AlreadyAnswered(
            _already(info, won),
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


def own_name() -> str:
    """Who answers by hand."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"


def runs_now(history: RunHistory) -> bool:
    """Whether a run executes, rather than waits in an open notebook."""
    return history.status is RunStatus.RUNNING and not (history.is_live and history.pending)


def _already(info: WaitInfo, answer: Answer) -> str:
    return f"step {info.label!r} was {_how(answer.by, answer.who)} at {_moment(answer.time)}"


def _how(by: str, who: str) -> str:
    told = {waits.RESUME: "resumed", waits.CANCEL: "cancelled", waits.TIMEOUT: "over"}[by]
    return f"{told} by {who}" if who else told


def _moment(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
