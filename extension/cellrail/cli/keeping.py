"""`prune`, `doctor`, `trust`, `mv` and `key`."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import click

from cellrail.cli.common import Context, common_options, count, seconds, size, table


@click.command()
@click.option(
    "--keep-last",
    type=click.IntRange(min=0),
    metavar="N",
    help="Keep the N newest runs of each flow.",
)
@click.option("--older-than", type=seconds, metavar="DUR", help="Delete only older runs (30d).")
@click.option("--plan", is_flag=True, help="Show what would be freed; delete nothing.")
@common_options
def prune(*, context: Context, keep_last: int | None, older_than: float | None, plan: bool) -> None:
    """Delete old runs and free what no kept run points to."""
    if keep_last is None and older_than is None:
        raise click.UsageError("say what may go: --keep-last N, --older-than 30d, or both")
    report = context.app().prune(keep_last=keep_last, older_than=older_than, plan=plan)
    context.json(report.to_dict())
    verb = "would free" if plan else "freed"
    context.say(
        f"{verb} {size(report.freed_bytes)}: {count(len(report.runs), 'run')}, "
        + count(report.objects, "object")
    )


@click.command()
@click.option("--fix", is_flag=True, help="Mend what can be mended.")
@common_options
def doctor(*, context: Context, fix: bool) -> int:
    """Check journals, rows and objects; exit 1 where something is found."""
    report = context.app().doctor(fix=fix)
    context.json(report.to_dict())
    if report.findings:
        context.say(
            table(
                ("finding", "what", "told"),
                [(f.kind, f.subject, f.message) for f in report.findings],
            )
        )
    else:
        context.say("all well")
    return 1 if report.unmended else 0


@click.command()
@click.argument("folder", metavar="STORE")
@common_options
def trust(*, context: Context, folder: str) -> None:
    """Adopt STORE as it is now: what it holds may be unpickled from here on."""
    from cellrail.app import App

    journals = App(Path(folder)).trust()
    context.json({"store": folder, "journals": journals})
    context.say(f"trusted {count(journals, 'journal')} of {folder}, as they are now")


@click.command()
@click.argument("old")
@click.argument("new")
@common_options
def mv(*, context: Context, old: str, new: str) -> None:
    """Follow the rename of a notebook from OLD to NEW with its history."""
    moved = context.app(new).mv(old, new)
    context.json({"old": old, "new": new, "runs": moved})
    context.say(f"{count(moved, 'run')} of {old}: now {new}'s")


@click.group()
def key() -> None:
    """Move a store between machines: export or import the signing key."""


@key.command("export")
@common_options
def export_key(*, context: Context) -> None:
    """Print this user's signing key; keep it as secret as a password."""
    text = context.app().key_export()
    context.json({"key": text})
    context.say(text)


@key.command("import")
@click.argument("file", type=click.File("r"), default="-")
@common_options
def import_key(*, context: Context, file: TextIO) -> None:
    """Accept stores that were signed with an exported key (from FILE or standard input)."""
    context.app().key_import(file.read().strip())
    context.json({"imported": True})
    context.note("imported")
