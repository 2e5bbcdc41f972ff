"""Who may do what: the base of all handlers.

* Everything but the links that waits hand out needs Jupyter's login: a token in the header
  `Authorization: token …` (or `?token=…`), or the cookie of somebody who has logged in, and then
  also XSRF's cookie and header. `JupyterHandler` checks that, and that the host is one of ours.
* A link needs no login: its token is the authority, for one thing, once. So XSRF and the origin are
  not looked at there: who knows the token can post it from anywhere.
* No body is longer than `BODY_BYTES`, and none is read before its sender was let in.
* A link's token never stands in a log, nor in the `Referer` of what follows its page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, TypeVar, cast

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado.httputil import HTTPServerRequest
from tornado.web import HTTPError, MissingArgumentError, authenticated, stream_request_body

from cellrail.errors import (
    AlreadyAnswered,
    AmbiguousRun,
    BackfillRuns,
    CellrailError,
    LinkUnknown,
    NoSuchBackfill,
    NoSuchTrigger,
    NotANotebook,
    NotWaiting,
    RecoverRefused,
    RestartRefused,
    RunNotFound,
    StepNotFound,
    TickIsTaken,
    UserError,
)
from cellrail.server.ticking import Full
from cellrail_state.errors import RunIsOwned, StateError, StoreNotFound, StoreNotWritable
from cellrail_state.texts import json_bytes

if TYPE_CHECKING:
    from cellrail.server.service import Service

F = TypeVar("F", bound=Callable[..., Any])
#: what authorizers are asked about (`Authorizer.is_authorized`)
RESOURCE = "cellrail"
#: no body of a request is longer
BODY_BYTES = 1 << 20
SCHEMA = 1
_TOKEN = re.compile(r"(/(?:resume|cancel)/[^/?.]+\.[^/?.]+\.)[^/?]+")

#: the first that fits
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (LinkUnknown, 404),
    (RunNotFound, 404),
    (StepNotFound, 404),
    (NoSuchTrigger, 404),
    (NoSuchBackfill, 404),
    (NotANotebook, 404),
    (StoreNotFound, 404),
    (AlreadyAnswered, 409),
    (AmbiguousRun, 409),
    (BackfillRuns, 409),
    (NotWaiting, 409),
    (RecoverRefused, 409),
    (RestartRefused, 409),
    (TickIsTaken, 409),
    (RunIsOwned, 409),
    (Full, 503),
    (UserError, 422),
    (StoreNotWritable, 507),
)
#: what a wrong request is told by, where the error is tornado's
_CODES = {
    400: "malformed", 401: "login", 403: "forbidden", 404: "not-found", 405: "method-not-allowed",
    413: "too-large", 415: "not-json", 422: "invalid",
}  # fmt: skip


def status_of(error: Exception) -> int:
    """The HTTP status that tells of an error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def told(code: str, message: str, hint: str = "") -> dict[str, Any]:
    """An error, as the command line's `--json` tells it."""
    return {"schema": SCHEMA, "error": {"code": code, "message": message, "hint": hint}}


def lets_in(action: str) -> Callable[[F], F]:
    """A method for who has logged in, and may do this: read, write or execute."""

    def wrap(method: F) -> F:
        guarded = authenticated(cast("Any", authorized)(action, RESOURCE)(method))
        return cast("F", guarded)

    return wrap


@stream_request_body
class Base(APIHandler):
    """A handler with a bounded body, and errors as JSON."""

    def initialize(self, service: Service, **given: Any) -> None:
        """Know the service, and what the rule of the path gives."""
        del given
        self.service = service
        self._received, self._let_in = bytearray(), False

    async def prepare(self) -> None:  # type: ignore[override]  # as APIHandler has it
        """Let the sender in, or not; only then is the body read."""
        await super().prepare()
        length = self.request.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > BODY_BYTES:
            raise HTTPError(413, f"a body has at most {BODY_BYTES} bytes")
        self._let_in = True
        if self.request.method == "GET" and self.current_user and not self.token_authenticated:
            self.xsrf_token  # noqa: B018 - gives a browser the cookie that its next request needs

    def get_login_url(self) -> str:
        """Nobody is sent to a form: a program asks."""
        raise HTTPError(401, "log in first: Authorization: token TOKEN")

    def check_xsrf_cookie(self) -> None:
        """As Jupyter does; where nobody has logged in that is said first."""
        if getattr(self, "_jupyter_current_user", self) is None:
            self.get_login_url()
        super().check_xsrf_cookie()

    def data_received(self, chunk: bytes) -> None:
        """A part of the body; what is too much is let pass, and refused later."""
        if len(self._received) <= BODY_BYTES:
            self._received += chunk

    @property
    def body(self) -> bytes:
        """The body.

        Raises:
            HTTPError: it is too long.
        """
        if len(self._received) > BODY_BYTES:
            raise HTTPError(413, f"a body has at most {BODY_BYTES} bytes")
        return bytes(self._received)

    # --- replies -----------------------------------------------------------------------------

    def reply(self, data: Any, status: int = 200) -> None:
        """Tell something as JSON."""
        self.set_status(status)
        self.finish(json_bytes(data, enc_hook=str))

    def refuse(self, error: Exception) -> None:
        """Tell that something was refused, or went wrong."""
        status = status_of(error)
        if status == 503:
            self.set_header("Retry-After", "10")
        if status == 500:
            self.log.error("%s: %s", self.safe_uri, error, exc_info=error)
        if isinstance(error, (CellrailError, StateError)):
            self.reply(told(error.code, str(error), error.hint), status)
        else:
            self.reply(told("internal", "something went wrong; the server's log tells more"), 500)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Tornado's own errors look as ours do."""
        if not self._let_in:  # a body that was not read is in the way of the next request
            self.set_header("Connection", "close")
        error = kwargs.get("exc_info", (None, None, None))[1]
        message = self._reason
        if isinstance(error, MissingArgumentError):
            message = str(error.log_message)
        elif isinstance(error, HTTPError) and error.log_message and status_code < 500:
            # (without arguments tornado has doubled each percent sign)
            message = error.log_message % error.args
        if status_code == 401:
            self.set_header("WWW-Authenticate", 'token realm="cellrail"')
        if status_code == 405:
            self.set_header("Allow", ", ".join(sorted(self.methods)))
        self.reply(told(_CODES.get(status_code, "error"), message), status_code)

    @property
    def methods(self) -> Collection[str]:
        """The methods that are here."""
        return ("GET",)

    def set_default_headers(self) -> None:
        """Replies are for nobody's cache, and lead nowhere."""
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")
        self.set_header("Referrer-Policy", "no-referrer")

    # --- logs --------------------------------------------------------------------------------

    @property
    def safe_uri(self) -> str:
        """What was asked for, without a link's token."""
        return _TOKEN.sub(r"\1[secret]", self.request.uri or "")

    def _log(self) -> None:
        """Log the request without a link's token (tornado leaves this to be overridden)."""
        self.request.uri = self.safe_uri
        referer = self.request.headers.get("Referer")
        if referer is not None:
            self.request.headers["Referer"] = _TOKEN.sub(r"\1[secret]", referer)
        super()._log()

    def _request_summary(self) -> str:
        """What tornado logs of a request that was refused."""
        return f"{self.request.method} {self.safe_uri} ({self.request.remote_ip})"

    @property
    def who(self) -> str:
        """Who asks: a user where the login knows one, and the address."""
        user, request = self.current_user, self.request
        assert isinstance(request, HTTPServerRequest)
        name = getattr(user, "username", "")
        anonymous = not name or getattr(user, "display_name", "").startswith("Anonymous ")
        return str(request.remote_ip) if anonymous else f"{name} ({request.remote_ip})"
