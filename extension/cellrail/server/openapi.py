"""The OpenAPI 3.1 document, made of the declarations that serve the requests."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import msgspec

from cellrail.server.endpoints import Endpoint
from cellrail.server.records import ErrorTold
from cellrail.version import __version__

_REFS = "#/components/schemas/{name}"
#: what every endpoint may answer, beside what it declares
_COMMON = (400, 401, 403, 422)
_WITH_BODY = (413, 415)
_LINK = (
    "A link that `flow.suspend` or `flow.rerun` has handed out; its token is the authority, once. "
)
_ANY_JSON: dict[str, Any] = {}


def document(
    prefix: str, under: Iterable[Endpoint], beside: Iterable[Endpoint], links: str
) -> dict[str, Any]:
    """The document.

    Args:
        prefix: path below which the API lies.
        under: endpoints below it.
        beside: endpoints whose paths are whole.
        links: path below which the links of waits lie.
    """
    placed = [(prefix + one.path, one) for one in under] + [(one.path, one) for one in beside]
    kinds: set[type] = {ErrorTold}
    for _, one in placed:
        kinds |= {kind for kind in (one.body, one.told, *one.also.values()) if kind is not None}
    ordered = sorted(kinds, key=lambda kind: kind.__name__)
    schemas, components = msgspec.json.schema_components(ordered, ref_template=_REFS)
    known = dict(zip(ordered, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for path, one in placed:
        paths.setdefault(path, {})[one.method.lower()] = _operation(path, one, known)
    paths.update(_links(links))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "cellrail", "version": __version__,
            "description": "Runs, restarts, waits, triggers and backfills of notebooks.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {
                    "type": "apiKey", "in": "header", "name": "Authorization",
                    "description": "`token TOKEN`, as in all of Jupyter",
                }
            },
        },
    }  # fmt: skip


def _operation(path: str, one: Endpoint, known: dict[type, Any]) -> dict[str, Any]:
    statuses = {one.status: one.told, **one.also}
    errors = {*_COMMON, *one.errors, *(_WITH_BODY if one.body is not None else ())}
    operation: dict[str, Any] = {
        "operationId": one.call.__name__,
        "summary": one.summary,
        "description": (one.call.__doc__ or "").strip(),
        "tags": [path.rstrip("/").split("/v1/")[-1].split("/")[0]],
        "parameters": [*_of_path(one), *_of_query(one)],
        "responses": {
            **{str(s): _response(s, known[kind]) for s, kind in sorted(statuses.items())},
            **{str(s): _response(s, known[ErrorTold]) for s in sorted(errors)},
            "default": {"description": "Something went wrong.", **_json(known[ErrorTold])},
        },
    }
    if one.body is not None:
        operation["requestBody"] = {"required": not one.optional, **_json(known[one.body])}
    return operation


def _of_path(one: Endpoint) -> list[dict[str, Any]]:
    return [
        {
            "name": name, "in": "path", "required": True,
            "schema": {"type": "string", "pattern": f"^{pattern}$", "minLength": 1},
        }
        for name, pattern in one.patterns.items()
    ]  # fmt: skip


def _of_query(one: Endpoint) -> list[dict[str, Any]]:
    if one.query is None:
        return []
    (_,), components = msgspec.json.schema_components([one.query])
    properties = components[one.query.__name__]["properties"]
    return [
        {"name": name, "in": "query", "required": False, "schema": _not_null(schema)}
        for name, schema in properties.items()
    ]


def _not_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter of a URL is there or not; it is never null."""
    plain = {k: v for k, v in schema.items() if k != "default" or v is not None}
    kinds = [kind for kind in plain.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        del plain["anyOf"]
        plain |= kinds[0]
    if "enum" in plain:
        plain["enum"] = [value for value in plain["enum"] if value is not None]
    return plain


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _response(status: int, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": HTTPStatus(status).phrase, **_json(schema)}


def _links(prefix: str) -> dict[str, Any]:
    """The links of waits: HTML for people, JSON for programs; no login."""
    either = {
        "content": {"application/json": {"schema": _ANY_JSON}, "text/html": {"schema": _ANY_JSON}}
    }
    refused = {
        str(status): {"description": HTTPStatus(status).phrase, **either}
        for status in (400, 403, 404, 409, 413, 415, 422)
    }
    token = {
        "name": "token", "in": "path", "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,200}$"},
    }  # fmt: skip
    paths: dict[str, Any] = {}
    for action, what in (("resume", "Resume"), ("cancel", "Cancel")):
        answer = {
            "tags": ["links"], "parameters": [token], "security": [],
            "requestBody": {
                "required": False,
                "content": {
                    "application/json": {"schema": _ANY_JSON},
                    "application/x-www-form-urlencoded": {"schema": {"type": "object"}},
                },
            },
            "responses": {"200": {"description": "Answered, once.", **either}, **refused},
        }  # fmt: skip
        paths[f"{prefix}/{action}/{{token}}"] = {
            "get": {
                "operationId": f"{action}_page", "tags": ["links"], "security": [],
                "summary": "Show what is asked", "description": _LINK + "Changes nothing.",
                "parameters": [token],
                "responses": {
                    "200": {
                        "description": "A page with buttons.",
                        "content": {"text/html": {"schema": {"type": "string"}}},
                    },
                    "410": {"description": "Nothing to answer any more.", **either},
                    **refused,
                },
            },
            "post": {
                "operationId": f"{action}_by_link", "summary": f"{what} by a link",
                "description": _LINK, **answer,
            },
            "put": {
                "operationId": f"{action}_by_link_put", "summary": f"{what} by a link",
                "description": _LINK, **answer,
            },
        }  # fmt: skip
    return paths
