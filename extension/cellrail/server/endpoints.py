"""An endpoint: a declaration that serves requests and the OpenAPI document alike."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec
from tornado.web import HTTPError, authenticated

from cellrail.app import App
from cellrail.executors import Task
from cellrail.server.auth import Base, lets_in
from cellrail.server.service import Service

#: parameters of every URL that are Jupyter's
_JUPYTERS = frozenset(("token", "_xsrf"))


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request, checked."""

    app: App
    path: dict[str, str]
    query: Any
    body: Any
    who: str
    #: where the API begins, as the client sees it
    root: str


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What is told, and what is to be done."""

    data: Mapping[str, Any]
    #: for a worker
    task: Task | None = None
    #: something was answered: somebody has to go on
    nudge: bool = False
    #: 0 for the endpoint's
    status: int = 0


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path."""

    method: str
    #: with its parameters in braces
    path: str
    summary: str
    call: Callable[[Asked], Reply]
    #: records; None where there is none
    query: type | None = None
    body: type | None = None
    #: the body may be left out
    optional: bool = True
    told: type
    status: int = 200
    #: what else it tells, by status
    also: Mapping[int, type] = {}
    #: statuses of its errors, beside those that all have
    errors: tuple[int, ...] = ()
    #: it asks the catalog
    catalog: bool = False
    #: the pattern of each parameter of the path
    patterns: Mapping[str, str] = {}


class Api(Base):
    """The endpoints of one path. Each needs a login."""

    def initialize(self, service: Service, **given: Any) -> None:
        """Know what is here.

        Args:
            service: the service.
            given: the endpoints by method, and where the API begins (`root`).
        """
        super().initialize(service)
        self._endpoints: Mapping[str, Endpoint] = given["endpoints"]
        self._root: str = given["root"]

    @lets_in("read")
    async def get(self, **path: str) -> None:
        """Tell something."""
        await self._serve(path)

    @lets_in("execute")
    async def post(self, **path: str) -> None:
        """Have something done."""
        await self._serve(path)

    @lets_in("execute")
    async def put(self, **path: str) -> None:
        """Have something done."""
        await self._serve(path)

    @lets_in("write")
    async def delete(self, **path: str) -> None:
        """Remove something."""
        await self._serve(path)

    @authenticated
    async def head(self, **path: str) -> None:
        """Not here."""
        await self._serve(path)

    @authenticated
    async def patch(self, **path: str) -> None:
        """Not here."""
        await self._serve(path)

    @property
    def methods(self) -> Collection[str]:
        """The methods that are here."""
        return self._endpoints.keys()

    async def _serve(self, path: dict[str, str]) -> None:
        endpoint = self._endpoints.get(self.request.method or "")
        if endpoint is None:
            raise HTTPError(405)
        query, body, who = self._query(endpoint), self._record(endpoint), self.who

        def work(app: App) -> Reply:
            asked = Asked(app=app, path=path, query=query, body=body, who=who, root=self._root)
            return endpoint.call(asked)

        try:
            reply = await self.service.call(work, catalog=endpoint.catalog)
            if reply.task is not None:
                await self.service.take(reply.task)
        except Exception as error:  # noqa: BLE001 - what is ours is logged, and told as an error
            self.refuse(error)
            return
        if reply.nudge:
            self.service.rounds.nudge()
        self.reply({"schema": 1, **reply.data}, reply.status or endpoint.status)

    def _query(self, endpoint: Endpoint) -> Any:
        """The URL's parameters, as the endpoint's record."""
        given: dict[str, Any] = {}
        for name in self.request.query_arguments:
            if name not in _JUPYTERS:
                given[name] = self.get_query_arguments(name, strip=False)
        if endpoint.query is None:
            if given:
                raise HTTPError(422, "there is no parameter %r here", min(given))
            return None
        for field in msgspec.structs.fields(endpoint.query):
            if field.name in given and field.default_factory is not list:
                given[field.name] = self._single(field.name, given[field.name])
        try:
            return msgspec.convert(given, endpoint.query, strict=False)
        except msgspec.ValidationError as error:
            raise HTTPError(422, "%s", str(error)) from error

    @staticmethod
    def _single(name: str, values: list[str]) -> str:
        if len(values) > 1:
            raise HTTPError(422, "%s is given more than once", name)
        if values[0].lower() == "null":  # msgspec takes it for None
            raise HTTPError(422, "%s is null", name)
        return values[0]

    def _record(self, endpoint: Endpoint) -> Any:
        """The body, as the endpoint's record."""
        body = self.body
        if endpoint.body is None:
            if body.strip():
                raise HTTPError(422, "nothing is sent here")
            return None
        if not body.strip() and endpoint.optional:
            return endpoint.body()
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind not in {"", "application/json"} and not kind.endswith("+json"):
            raise HTTPError(415, "the body is JSON (Content-Type: application/json)")
        return decoded(body, endpoint.body)


def decoded(body: bytes, kind: type) -> Any:
    """JSON as a record.

    Raises:
        HTTPError: it is malformed (400), or not what it has to be (422).
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise HTTPError(422, "%s", str(error)[:500]) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise HTTPError(400, "the body is no JSON: %s", str(error)[:200]) from error
