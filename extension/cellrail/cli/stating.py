"""`state`, `resource` and `variable`: what outlives runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cellrail.app.stating import Stored
from cellrail.cli.common import Context, common_options, moment, table
from cellrail.run.jsontext import typed

_SHOWN = 60

_if_version = click.option(
    "--if-version",
    type=click.IntRange(min=0),
    metavar="N",
    help="Only if its version is N (0: it is not there); else exit 2.",
)


def _listing(context: Context, plural: str, found: list[Stored]) -> None:
    context.json({plural: [stored.to_dict() for stored in found]})
    if found:
        rows = [
            (s.path, s.type or ("secret" if s.secret else "string"), s.version, _short(s),
             f"run {s.run_id}" if s.run_id else s.by, moment(s.time))
            for s in found
        ]  # fmt: skip
        context.say(table(("path", "type", "version", "value", "written by", "at"), rows))
    elif not context.as_json:
        context.note(f"there are no {plural}")


def _short(stored: Stored) -> str:
    text = "***" if stored.secret else json.dumps(stored.value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _content(text: str) -> str:
    """A value as it was given: itself, `@FILE`, or `-` for standard input."""
    if text == "-":
        return sys.stdin.read()
    if text.startswith("@"):
        try:
            return Path(text[1:]).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise click.UsageError(f"{text[1:]} cannot be read: {error}") from error
    return text


def _json(text: str) -> Any:
    content = _content(text)
    try:
        return typed(content)
    except ValueError as error:
        raise click.UsageError(
            f"the value is no JSON: {error} (a string needs its quotes: '\"text\"')"
        ) from error


def _told(context: Context, stored: Stored) -> None:
    context.json(stored.to_dict())
    context.note(f"{stored.path}: version {stored.version}")


def _deleted(context: Context, path: str, delete: Callable[..., None], version: int | None) -> None:
    delete(path, if_version=version)
    context.json({"path": path, "deleted": True})
    context.note(f"{path} is deleted")


# --- state -----------------------------------------------------------------------------------


@click.group()
def state() -> None:
    """States that steps have kept from run to run (FLOW/STEP/user:NAME)."""


@state.command("list")
@common_options
def state_list(*, context: Context) -> None:
    """List the states."""
    _listing(context, "states", context.app().state_list())


@state.command("get")
@click.argument("path")
@common_options
def state_get(*, context: Context, path: str) -> None:
    """Print a state as JSON."""
    value = context.app().state_get(path)
    context.json({"path": path, "value": value})
    context.say(json.dumps(value, ensure_ascii=False))


@state.command("set")
@click.argument("path")
@click.argument("value", metavar="JSON|@FILE|-")
@_if_version
@common_options
def state_set(*, context: Context, path: str, value: str, if_version: int | None) -> None:
    """Set a state: the step's next run sees it."""
    _told(context, context.app().state_set(path, _json(value), if_version=if_version))


@state.command("delete")
@click.argument("path")
@_if_version
@common_options
def state_delete(*, context: Context, path: str, if_version: int | None) -> None:
    """Forget a state: the step's next run begins anew."""
    _deleted(context, path, context.app().state_delete, if_version)


# --- resources -------------------------------------------------------------------------------


@click.group()
def resource() -> None:
    """JSON values by path, across runs and flows; states are among them."""


@resource.command("list")
@common_options
def resource_list(*, context: Context) -> None:
    """List the resources."""
    _listing(context, "resources", context.app().resource_list())


@resource.command("get")
@click.argument("path")
@common_options
def resource_get(*, context: Context, path: str) -> None:
    """Print a resource as JSON."""
    value = context.app().resource_get(path)
    context.json({"path": path, "value": value})
    context.say(json.dumps(value, ensure_ascii=False))


@resource.command("set")
@click.argument("path")
@click.argument("value", metavar="JSON|@FILE|-")
@click.option("--type", "resource_type", metavar="NAME", help="What kind of thing it is.")
@_if_version
@common_options
def resource_set(
    *, context: Context, path: str, value: str, resource_type: str | None, if_version: int | None
) -> None:
    """Set a resource; its type is told when it is created."""
    app = context.app()
    _told(
        context,
        app.resource_set(path, _json(value), resource_type=resource_type, if_version=if_version),
    )


@resource.command("delete")
@click.argument("path")
@_if_version
@common_options
def resource_delete(*, context: Context, path: str, if_version: int | None) -> None:
    """Delete a resource."""
    _deleted(context, path, context.app().resource_delete, if_version)


# --- variables -------------------------------------------------------------------------------


@click.group()
def variable() -> None:
    """Strings by path, across runs and flows; secrets are kept encrypted."""


@variable.command("list")
@common_options
def variable_list(*, context: Context) -> None:
    """List the variables; secrets are masked."""
    _listing(context, "variables", context.app().variable_list())


@variable.command("get")
@click.argument("path")
@click.option("--reveal", is_flag=True, help="Print a secret, too.")
@common_options
def variable_get(*, context: Context, path: str, reveal: bool) -> None:
    """Print a variable; a secret only with --reveal."""
    app = context.app()
    secret = app.variable_is_secret(path)
    value = "***" if secret and not reveal else app.variable_get(path)
    context.json({"path": path, "value": value, "secret": secret})
    context.say(value)


@variable.command("set")
@click.argument("path")
@click.argument("value", metavar="[VALUE|@FILE|-]", required=False)
@click.option("--secret", is_flag=True, help="Keep it encrypted; mask it wherever it is shown.")
@_if_version
@common_options
def variable_set(
    *, context: Context, path: str, value: str | None, secret: bool, if_version: int | None
) -> None:
    """Set a variable. Without VALUE it is asked for, and is in no shell's history."""
    if value is None and not sys.stdin.isatty():
        raise click.UsageError("give the value, or - to read it from standard input")
    if value is None:
        text: str = click.prompt(path, hide_input=secret, err=True)
    else:
        text = _content(value).removesuffix("\n")
    _told(context, context.app().variable_set(path, text, secret=secret, if_version=if_version))


@variable.command("delete")
@click.argument("path")
@_if_version
@common_options
def variable_delete(*, context: Context, path: str, if_version: int | None) -> None:
    """Delete a variable."""
    _deleted(context, path, context.app().variable_delete, if_version)
