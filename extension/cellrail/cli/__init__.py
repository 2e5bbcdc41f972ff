"""The command line: each command a few lines over `App`.

Exit codes: 0 success, 1 a step failed (or `doctor`, `diff` found something), 2 bad input or
refused, 3 suspended or paused, 4 cancelled, 70 cellrail itself failed, 130 interrupted.
"""

from __future__ import annotations

from typing import Any

import click

#: where each command lives; modules are imported when their command is used
_COMMANDS = {
    "run": "running",
    "restart": "running",
    "recover": "recovering",
    "rerun": "running",
    "resume": "waking",
    "cancel": "waking",
    "tick": "waking",
    "serve": "serving",
    "steps": "looking",
    "runs": "looking",
    "show": "looking",
    "journal": "looking",
    "diff": "looking",
    "export": "looking",
    "sql": "looking",
    "trigger": "triggering",
    "backfill": "backfilling",
    "state": "stating",
    "resource": "stating",
    "variable": "stating",
    "prune": "keeping",
    "doctor": "keeping",
    "trust": "keeping",
    "mv": "keeping",
    "key": "keeping",
}
#: commands that we start ourselves
_HIDDEN = {"called": "calling", "detached": "detaching"}


class CommandGroup(click.Group):
    """Finds its commands lazily, and suggests the nearest name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command there is, in the order people meet them."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command of this name."""
        del ctx
        home = _COMMANDS.get(name) or _HIDDEN.get(name)
        if home is not None:
            from importlib import import_module

            module = import_module(f"cellrail.cli.{home}")
            command: click.Command = getattr(module, name)
            return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Like click's, with the nearest name in the error."""
        from difflib import get_close_matches

        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = get_close_matches(args[0], _COMMANDS, n=1)
            if near and "No such command" in error.message:
                ctx.fail(f"{error.message} Did you mean {near[0]!r}?")
            raise


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cellrail", prog_name="cellrail")
def commands() -> None:
    """Run a notebook as a flow, checkpoint every cell, restart from any of them."""


def main(arguments: list[str] | None = None) -> Any:
    """The console script."""
    import sys

    try:
        from cellrail.ownprocess import begin_quickly

        begin_quickly()
        from cellrail.cli.common import guarded
    except KeyboardInterrupt:  # before anything was begun
        sys.exit(130)
    return guarded(commands, arguments)
