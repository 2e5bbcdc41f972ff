"""The clerk of waits: `flow.suspend`, `flow.rerun`, and what came of them.

At the call the wait is told to the store's inbox with the digests of its two tokens, so that they
count from then on. What the step asked for is committed with its job (`JobFinished.wait`); if the
job fails, the wait is answered `void`, and nobody else can answer it any more.

Behind the commit the control machine lets the run wait (`over`). A wait of a few seconds holds the
kernel; for any other nobody stays: the run ends as suspended, and whoever finds its answer goes on.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from cellrail.errors import HoldsSecret, RerunExceeded, UserError
from cellrail.notebook import actions
from cellrail.notebook.address import Addressed, find_step
from cellrail.run.desk import Clerk, Desk, Handler, Job, Then
from cellrail.run.jsontext import from_text
from cellrail.run.masking import Masker
from cellrail_state import waits
from cellrail_state.chains import place_of
from cellrail_state.keys import KeyRing
from cellrail_state.model import Effects, Turn, WaitInfo, Woken
from cellrail_state.waits import Answer

_LOGGER = logging.getLogger(__name__)
#: what else a step did (`Effects.marks`)
MARK = "suspend"
_POLL_SECONDS = 0.1
_TOKEN_BYTES = 32


class WaitRules(msgspec.Struct, frozen=True, kw_only=True):
    """How a run waits."""

    #: where the URLs begin that cells get; "" for the server that serves the store, if any
    base_url: str = ""
    #: seconds; a longer wait holds no kernel
    park_after: float = 5.0
    #: there is no kernel to go on with, whatever the answer
    parks: bool = False


class Waiter(Clerk):
    """Answers what cells ask about waits, and waits."""

    def __init__(
        self,
        desk: Desk,
        *,
        rules: WaitRules | None = None,
        woken: Iterable[Woken] = (),
        infos: Mapping[str, WaitInfo] | None = None,
        after: str = "",
    ) -> None:
        """Know what has been waited for.

        Args:
            desk: the run's.
            rules: how it waits.
            woken: the waits that are over, in order.
            infos: all waits of the run, by id.
            after: id of the last job before what executes next.
        """
        self._desk, self._rules = desk, rules or WaitRules()
        self._recorder, self._inbox = desk.recorder, desk.recorder.store.inbox
        self._base_url = self._rules.base_url or desk.recorder.store.served()
        self._infos = dict(infos or {})
        self._woken = list(woken)
        #: what the current job has asked for, and the URLs that it got
        self._asked: WaitInfo | None = None
        self._seconds, self._urls = 0.0, dict[str, str | None]()
        #: whether it has asked: that is told with its effects when the wait is taken already
        self._has_asked = False
        #: how often its `flow.rerun` lets it be executed, beside the first time
        self._most: int | None = None
        #: how the wait right before the current step ended
        self._here = next((w for w in self._woken if w.wait_id == after), None)
        #: why no job can wait any more; "" where it can
        self.refuses = ""
        #: how the current step's last execution was woken, by step and turns
        self._again: dict[tuple[int, tuple[Turn, ...]], Woken] = {}
        for record in self._woken:
            self._remember(record)

    def handlers(self) -> Mapping[str, Handler]:
        """What cells can ask."""
        return {"suspend": self.suspend, "rerun": self.rerun, "step_facts": self.step_facts}

    def another(self, desk: Desk) -> Waiter:
        """A clerk for an item of a parallel loop: it knows what woke the run, and cannot wait."""
        after = self._here.wait_id if self._here is not None else ""
        return ItemWaiter(
            desk, rules=self._rules, woken=self._woken, infos=self._infos, after=after
        )

    @property
    def steps(self) -> Sequence[Addressed]:
        """The steps that cells can name."""
        return self._recorder.steps

    # --- questions ---------------------------------------------------------------------------

    def suspend(self, job: Job | None, seconds: float, on_timeout: str) -> dict[str, Any]:
        """The run shall wait at the end of the step."""
        del job
        asked = {"kind": waits.SUSPEND, "seconds": seconds, "on_timeout": on_timeout}
        return self._ask("flow.suspend()", asked, None)

    def rerun(
        self,
        job: Job | None,
        seconds: float,
        context: str | None,
        max_retries: int,
        on_exceeded: str,
    ) -> dict[str, Any]:
        """The step shall be executed again after a while."""
        what, then = "flow.rerun()", self._desk.then
        job = then.job if then is not None else job or self._desk.current(what)
        if self._asked is not None and self._most not in {None, max_retries}:
            raise UserError(
                f"{what}: max_retries is {max_retries} here, and {self._most} in the call before",
                hint="calls of one execution agree; another execution may pass another limit",
            )
        if job.runs > max_retries:
            if on_exceeded == "raise":
                raise RerunExceeded(
                    f"{what}: the step has been executed {job.runs} times, and asks for more",
                    hint="max_retries bounds it; on_exceeded='continue' goes on with the next step",
                )
            return {"urls": {"resume_url": None, "cancel_url": None}, "exceeded": True}
        if context is not None and self._recorder.masker.finds(context):
            raise HoldsSecret(
                f"{what}: the context holds a secret, and would be kept in clear",
                hint="pass its name, and read it again with get_variable()",
            )
        told = self._ask(what, {"kind": waits.RERUN, "seconds": seconds}, context)
        self._most = max_retries
        return told

    def _ask(self, what: str, asked: dict[str, Any], context: str | None) -> dict[str, Any]:
        job = self._desk.current(what)
        if self.refuses:
            raise UserError(f"{what}: {self.refuses}")
        if job.always:
            raise UserError(
                f"{what}: a step with --always cannot wait: it runs again whenever the run goes on",
                hint="wait in a step of its own",
            )
        on_timeout = asked.get("on_timeout", waits.RESUME)
        if self._asked is not None:
            same = (self._asked.kind, self._seconds, self._asked.on_timeout, self._asked.context)
            if same != (asked["kind"], asked["seconds"], on_timeout, context):
                raise UserError(
                    f"{what}: the step has asked for another wait before (a {self._asked.kind})",
                    hint="a step waits once; calls that agree return the same URLs",
                )
            return {"urls": self._urls}
        tokens = {name: secrets.token_urlsafe(_TOKEN_BYTES) for name in ("resume", "cancel")}
        info = WaitInfo(
            wait_id=job.job_id, kind=asked["kind"], step=job.number, turns=job.turns,
            label=job.label, runs=job.runs, attempt=job.attempt, asked=self._recorder.clock(),
            on_timeout=on_timeout, resume_hash=waits.digest(tokens["resume"]),
            cancel_hash=waits.digest(tokens["cancel"]), context=context,
        )  # fmt: skip
        self._inbox.tell(info)
        self._asked, self._seconds, self._has_asked = info, asked["seconds"], True
        self._urls = {f"{name}_url": self._url(info, name, t) for name, t in tokens.items()}
        return {"urls": self._urls, "told": not self._base_url}

    def _url(self, info: WaitInfo, action: str, token: str) -> str | None:
        base = self._base_url.rstrip("/")
        return f"{base}/{action}/{waits.written(info.wait_id, token)}" if base else None

    def step_facts(self, job: Job | None, step: str) -> dict[str, Any]:
        """How the wait behind a step ended.

        Raises:
            StepNotFound: there is no such step.
        """
        del job
        number, then = find_step(step, self.steps).number, self._desk.then
        found = [
            w
            for w in self._woken
            if w.step == number and (then is None or w.time <= then.was.started)
        ]
        return self._facts(found[-1]) if found else {}

    def _facts(self, woken: Woken) -> dict[str, Any]:
        data, request = self._clear(woken, woken.data), self._clear(woken, woken.request)
        return {
            "resume_data": from_text(data) if data is not None else None,
            "callback_request": from_text(request) if request is not None else None,
            "woke_by": woken.by,
        }

    def _clear(self, woken: Woken, text: str | None) -> str | None:
        if text is None or not woken.secret:
            return text
        return self._recorder.store.keyring.decrypt(text)

    # --- jobs --------------------------------------------------------------------------------

    @property
    def asked(self) -> WaitInfo | None:
        """What the current job has asked for."""
        return self._asked

    def begin(self, job: Job) -> None:
        """A job begins: it is told which execution of its step it is, and what woke it."""
        self._void()
        self._has_asked = False
        facts = self._desk.facts
        facts["runs"] = job.runs
        for name in ("context", "resume_data", "callback_request", "woke_by"):
            facts.pop(name, None)
        woken = self._again.get((job.number, job.turns)) if job.runs > 1 else self._here
        if woken is not None:
            facts.update(self._facts(woken))
        info = self._infos.get(woken.wait_id) if woken is not None else None
        if job.runs > 1 and info is not None and info.context is not None:
            facts["context"] = from_text(info.context)

    def goes_back(self, then: Then | None) -> None:
        """A kept job's cell is told what the job was told."""
        if then is None:
            return
        facts = self._desk.facts
        facts["runs"] = then.was.runs
        if then.woken is None:
            return
        facts.update(self._facts(then.woken))
        asked = then.before[place_of(then.before, then.woken.wait_id) or 0].wait
        if then.was.runs > 1 and asked is not None and asked.context is not None:
            facts["context"] = from_text(asked.context)

    def contribute(self, effects: Effects, *, success: bool) -> Effects:
        """The job must not be executed again for what it made; a failed one waits for nothing."""
        if not (success and self._has_asked):
            return effects
        return msgspec.structs.replace(effects, marks=(*effects.marks, MARK))

    def take(self, *, success: bool) -> WaitInfo | None:
        """The wait that is committed with the job; a job that failed waits for nothing."""
        if not success:
            self._void()
        info, self._asked, self._most = self._asked, None, None
        if info is None:
            return None
        info = msgspec.structs.replace(info, until=self._recorder.clock() + self._seconds)
        self._infos[info.wait_id] = info
        return info

    def passed(self) -> None:
        """A step has ended: the next one is not the first behind the wait any more."""
        self._here = None

    def _void(self) -> None:
        """Nobody can answer what a job has asked for that did not end well."""
        self._most = None
        info, self._asked = self._asked, None
        if info is not None:
            void = Answer(by=waits.VOID, time=self._recorder.clock())
            if told := in_vain(info, self._inbox.answer(info.wait_id, void)):
                _LOGGER.warning("%s", told)
            self._inbox.done(info.wait_id)

    def close(self) -> None:
        """The run has ended."""
        self._void()

    # --- waiting -----------------------------------------------------------------------------

    def time(self, action: actions.Wait, label: str) -> WaitInfo:
        """Time has to pass, and nobody stays for it: that is recorded."""
        now = self._recorder.clock()
        info = WaitInfo(
            wait_id=self._recorder.next_wait_id(), kind=action.why, step=action.step.number,
            turns=action.path, label=label, runs=action.runs, attempt=action.attempt, asked=now,
            until=now + action.seconds,
        )  # fmt: skip
        self._recorder.waits(info)
        return info

    def of(self, action: actions.Suspend) -> WaitInfo | None:
        """What the job that was committed last has asked for."""
        place = (action.step.number, action.path, action.runs, action.attempt)
        for info in reversed(self._infos.values()):
            if info.kind in {waits.SUSPEND, waits.RERUN} and place == (
                info.step, info.turns, info.runs, info.attempt,
            ):  # fmt: skip
                return info
        return None

    @property
    def park_after(self) -> float:
        """Seconds; a longer wait holds no kernel."""
        return self._rules.park_after

    def take_over(self, woken: Sequence[Woken], after: str) -> None:
        """Jobs of another run are kept here.

        Args:
            woken: how waits of these ended, which cells can ask for from now on.
            after: id of the last of them; where it waited, the next job is told how that ended.
        """
        self._woken += woken
        self._here = next((w for w in reversed(self._woken) if w.wait_id == after), None)

    def is_answered(self, info: WaitInfo) -> bool:
        """Whether somebody has answered already, so that the kernel stays."""
        return self._inbox.answered(info.wait_id) is not None

    def over(self, info: WaitInfo, *, stay: bool = False) -> actions.Woke:
        """Wait.

        Args:
            info: for what.
            stay: until its time is up, however long that takes: a kernel that is given up could
                not be brought back.
        """
        self._inbox.tell(info)
        if self._rules.parks:
            return actions.Woke(by="parked", cause=in_words(info))
        clock, until = self._recorder.clock, info.until or 0.0
        patient = stay or (info.kind != waits.SUSPEND and until - clock() <= self._rules.park_after)
        while (answer := self._inbox.due(info, clock())) is None and patient:
            time.sleep(max(0.0, min(_POLL_SECONDS, until - clock())))
        if answer is None:
            return actions.Woke(by="parked", cause=in_words(info))
        record = self.settle(info, answer)
        if info.kind == waits.SUSPEND:
            self._here = record
        return woke(record)

    def settle(self, info: WaitInfo, answer: Answer) -> Woken:
        """A wait is over: record it."""
        recorder = self._recorder
        record = woken_of(info, answer, recorder.masker, recorder.store.keyring)
        recorder.woken(record)
        self._inbox.done(info.wait_id)
        self._woken.append(record)
        self._remember(record)
        return record

    def _remember(self, record: Woken) -> None:
        info = self._infos.get(record.wait_id)
        if info is not None and info.kind == waits.RERUN:
            self._again[record.step, record.turns] = record


class ItemWaiter(Waiter):
    """Refuses waits in an item of a parallel loop: the run cannot be given up beside others."""

    def _ask(self, what: str, asked: dict[str, Any], context: str | None) -> dict[str, Any]:
        del asked, context
        raise UserError(
            f"{what}: an item of a parallel loop cannot wait, other items run beside it",
            hint="wait in a step before or behind the loop, or leave --parallel out",
        )


def woken_of(info: WaitInfo, answer: Answer, masker: Masker, keyring: KeyRing) -> Woken:
    """The record that a wait is over. What holds a secret is encrypted."""
    secret = any(masker.finds(t) for t in (answer.data, answer.request) if t is not None)

    def kept(text: str | None) -> str | None:
        return keyring.encrypt(text) if secret and text is not None else text

    return Woken(
        time=answer.time, step=info.step, wait_id=info.wait_id, by=answer.by, label=info.label,
        turns=info.turns, on_timeout=info.on_timeout, who=answer.who, data=kept(answer.data),
        request=kept(answer.request), secret=secret,
    )  # fmt: skip


def in_vain(info: WaitInfo, answer: Answer) -> str:
    """That an answer does not count: it came to a step that did not end well then; else "".

    Args:
        info: what the step had asked for.
        answer: the one that counts since the wait is void.
    """
    if answer.by == waits.VOID:
        return ""
    how = {waits.RESUME: "resumed", waits.CANCEL: "cancelled"}.get(answer.by, answer.by)
    who = f" by {answer.who}" if answer.who else ""
    return (
        f"step {info.label!r} was {how}{who} while it ran, and it has not ended well: that answer "
        "does not count; where the step asks again, answer again"
    )


def woke(record: Woken) -> actions.Woke:
    """The machine's word for it."""
    return actions.Woke(by=record.by, on_timeout=record.on_timeout, who=record.who)


def in_words(info: WaitInfo) -> str:
    """What a run waits for."""
    told = {
        waits.SUSPEND: "until it is resumed",
        waits.RERUN: "to execute it again",
        waits.SLEEP: "(--sleep)",
        waits.RETRY: "to try it again",
    }
    return f"waits behind {info.label} {told[info.kind]}"
