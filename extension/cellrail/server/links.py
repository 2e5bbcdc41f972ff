"""The links that waits hand out: `resume/TOKEN` and `cancel/TOKEN`.

A GET shows a page and answers nothing, so that a preview of a link approves nothing; POST and PUT
answer. `resume/TOKEN/cancel` is the page's second button: who may let a run go on may also stop it.
A token of one kind opens no link of the other.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from urllib.parse import parse_qs

import msgspec
from jupyter_server.auth.decorator import allow_unauthenticated
from tornado.httputil import HTTPServerRequest
from tornado.web import HTTPError

from cellrail.errors import CellrailError
from cellrail.server import pages
from cellrail.server.auth import Base, status_of
from cellrail.server.service import Service
from cellrail_state import waits
from cellrail_state.errors import StateError

#: what `flow.callback_request` does not tell: who logged in where
_KEPT_BACK = frozenset(
    ("authorization", "cookie", "proxy-authorization", "x-xsrftoken", "x-forwarded-access-token")
)
_FORM, _JSON = "application/x-www-form-urlencoded", "application/json"


class Link(Base):
    """A link of a wait; needs no login."""

    def initialize(self, service: Service, **given: Any) -> None:
        """Know what the link is for.

        Args:
            service: the service.
            given: what its token is for (`action`: resume or cancel), and what an answer does,
                where that is another thing (`does`).
        """
        super().initialize(service)
        self._action: str = given["action"]
        self._does: str = given.get("does", self._action)

    def check_xsrf_cookie(self) -> None:
        """The token is the authority; who knows it needs no cookie."""

    def check_origin(self, origin_to_satisfy_tornado: str = "") -> bool:
        """From anywhere, for the same reason."""
        del origin_to_satisfy_tornado
        return True

    @property
    def content_security_policy(self) -> str:
        """Nothing but the page itself."""
        return pages.POLICY

    @property
    def methods(self) -> Collection[str]:
        """The methods that are here."""
        return ("GET", "HEAD", "POST", "PUT") if self._does == self._action else ("POST", "PUT")

    @allow_unauthenticated
    async def get(self, token: str) -> None:
        """Show what is asked. Changes nothing."""
        if self._does != self._action:
            raise HTTPError(405)
        try:
            asked = await self.service.call(lambda app: app.asked(token, self._action))
        except (CellrailError, StateError) as error:
            self._page(pages.refused(str(error)), status_of(error))
            return
        self._page(pages.asking(asked, self.request.path), 410 if asked.closed else 200)

    @allow_unauthenticated
    async def head(self, token: str) -> None:
        """Like GET, without the page."""
        await self.get(token)

    @allow_unauthenticated
    async def post(self, token: str) -> None:
        """Answer, once."""
        await self._answer(token)

    @allow_unauthenticated
    async def put(self, token: str) -> None:
        """Answer, once."""
        await self._answer(token)

    async def _answer(self, token: str) -> None:
        data, form = self._data()
        given = {"data": data, "request": _told(self.request, data), "who": self.who}
        try:
            woke = await self.service.call(
                lambda app: app.wake(token, self._does, grants=self._action, **given)
            )
        except (CellrailError, StateError) as error:
            if form and status_of(error) != 500:
                self._page(pages.refused(str(error), error.hint), status_of(error))
            else:
                self.refuse(error)
            return
        self.service.rounds.nudge()
        if form:
            self._page(pages.answered(woke), 200)
        else:
            self.reply({"schema": 1, **msgspec.to_builtins(woke)})

    def _data(self) -> tuple[Any, bool]:
        """The JSON that came, and whether a person has sent it with the page."""
        body, kind = self.body, self.request.headers.get("Content-Type", "")
        kind = kind.partition(";")[0].strip().lower()
        if not body.strip():
            return None, self._is_page
        if kind == _FORM and not body.lstrip().startswith((b"{", b"[")):
            return self._form(body)
        # (curl says of all that it is a form)
        if kind in {_JSON, _FORM, ""} or kind.endswith("+json"):
            return _json(body), False
        raise HTTPError(415, "the body is JSON, a form, or empty")

    def _form(self, body: bytes) -> tuple[Any, bool]:
        try:
            fields = parse_qs(
                body.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=1000
            )
        except ValueError as error:
            raise HTTPError(400, "the form cannot be read") from error
        if set(fields) == {pages.FIELD}:
            text = fields[pages.FIELD][0].strip()
            return (_json(text.encode()) if text else None), True
        plain = {name: v[0] if len(v) == 1 else v for name, v in fields.items()}
        return plain, self._is_page

    @property
    def _is_page(self) -> bool:
        """Whether a browser has sent it: a page is shown, not JSON."""
        return "text/html" in self.request.headers.get("Accept", "")

    def _page(self, text: str, status: int) -> None:
        self.set_status(status)
        self.finish(text, set_content_type="text/html; charset=UTF-8")


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise HTTPError(400, "the body is no JSON: %s", str(error)[:200]) from error


def _told(request: HTTPServerRequest, data: Any) -> dict[str, Any]:
    """What a cell is told of the request (`flow.callback_request`)."""
    query = {
        name: [value.decode("utf-8", "replace") for value in values]
        for name, values in request.query_arguments.items()
    }
    return {
        "method": request.method,
        "headers": {k: v for k, v in request.headers.items() if k.lower() not in _KEPT_BACK},
        "query": {name: v[0] if len(v) == 1 else v for name, v in query.items()},
        "body": data,
    }


def links_of(prefix: str, service: Service) -> list[tuple[Any, ...]]:
    """The handlers of links, as tornado's rules.

    Args:
        prefix: where the server's URLs begin, as a pattern.
        service: the service.
    """
    one, given = r"(?P<token>[^/]+)", {"service": service}
    may = {**given, "action": waits.RESUME}
    return [
        (rf"{prefix}/resume/{one}", Link, may),
        (rf"{prefix}/cancel/{one}", Link, {**given, "action": waits.CANCEL}),
        (rf"{prefix}/resume/{one}/cancel", Link, {**may, "does": waits.CANCEL}),
    ]
