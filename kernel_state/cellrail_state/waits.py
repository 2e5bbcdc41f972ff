"""Waits: what a run waits for, and the answer that ends it. Plain records.

A wait is asked for by a step (`suspend`, `rerun`), or is time that has to pass (`sleep`, `retry`).
One answer ends it: somebody resumes or cancels, or its time is up.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import msgspec

from .turns import Turn

SUSPEND, RERUN, SLEEP, RETRY = "suspend", "rerun", "sleep", "retry"
RESUME, TIMEOUT, CANCEL = "resume", "timeout", "cancel"
#: no answer: the step that asked has failed, and its tokens have died with it
VOID = "void"


class _Struct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of the records."""


class WaitInfo(_Struct, frozen=True):
    """A wait."""

    #: names it in its store: the id of the job that asked for it, or `RUN/t1`, `RUN/t2`, …
    wait_id: str
    #: suspend, rerun, sleep or retry
    kind: str
    #: number of the step, the turns it is in, and its address
    step: int
    #: seconds since the epoch
    asked: float
    turns: tuple[Turn, ...] = ()
    label: str = ""
    #: which execution of the step (`flow.runs`), and which attempt, it stands behind
    runs: int = 1
    attempt: int = 1
    #: when its time is up; None while the step that asked for it has not ended
    until: float | None = None
    #: what it comes to then: resume, cancel or fail
    on_timeout: str = RESUME
    #: digests of its tokens; "" where it has none
    resume_hash: str = ""
    cancel_hash: str = ""
    #: of a rerun: what the next execution is given, as JSON text
    context: str | None = None

    @property
    def run_id(self) -> str:
        """The run that waits."""
        return self.wait_id.rpartition("/")[0]

    def fits(self, action: str, token: str) -> bool:
        """Whether a token lets its holder do this (compared in constant time)."""
        wanted = {RESUME: self.resume_hash, CANCEL: self.cancel_hash}.get(action, "")
        return bool(wanted) and hmac.compare_digest(wanted, digest(token))


class Answer(_Struct, frozen=True):
    """What ended a wait."""

    #: resume, timeout, cancel or void
    by: str
    #: seconds since the epoch
    time: float
    #: who gave it: a user, or an address
    who: str = ""
    #: JSON text that came with it
    data: str | None = None
    #: the HTTP request that it came with (method, headers, query, body), as JSON text
    request: str | None = None
    #: of one in the inbox: both are encrypted
    sealed: bool = False


def digest(token: str) -> str:
    """What is stored of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def written(wait_id: str, token: str) -> str:
    """A token as it is handed out: it tells which wait it is for."""
    run_id, _, number = wait_id.rpartition("/")
    return f"{run_id}.{number}.{token}"


def read(text: str) -> tuple[str, str]:
    """The wait and the token in what was handed out; two empty strings where it is neither."""
    run_id, _, rest = text.partition(".")
    number, _, token = rest.partition(".")
    safe = all(c.isalnum() or c == "-" for c in run_id + number)
    return (f"{run_id}/{number}", token) if run_id and number and token and safe else ("", "")


def plain(request: Mapping[str, Any] | None) -> str | None:
    """A request as JSON text."""
    return None if request is None else msgspec.json.encode(dict(request)).decode()
