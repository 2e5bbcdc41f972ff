"""`%flow` commands about what outlives runs, and about the store itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cellrail.errors import UserError
from cellrail.magics.opened import OpenNotebook
from cellrail.magics.words import split


def flow_state(here: OpenNotebook, words: list[str]) -> Any:
    """States that steps have kept from run to run."""
    return _stored(here, "state", words)


def flow_resource(here: OpenNotebook, words: list[str]) -> Any:
    """JSON values by path."""
    return _stored(here, "resource", words)


def flow_variable(here: OpenNotebook, words: list[str]) -> Any:
    """Strings by path."""
    return _stored(here, "variable", words)


def _stored(here: OpenNotebook, kind: str, words: list[str]) -> Any:
    """List, get, set or delete what outlives runs."""
    from cellrail.stored import StoredCommand

    line = split(words, flags={"secret", "reveal"}, values={"type", "if-version"})
    return StoredCommand(here.app(), kind, line.options).carry_out(line.given)


def flow_prune(here: OpenNotebook, words: list[str]) -> Any:
    """Delete old runs and free what no kept run points to; what that was."""
    line = split(words, most=0, flags={"plan"}, values={"keep-last", "older-than"})
    if "keep-last" not in line and "older-than" not in line:
        raise UserError("say what may go: --keep-last N, --older-than 30d, or both")
    keep = line.number("keep-last", 0) if "keep-last" in line else None
    report = here.app().prune(
        keep_last=keep, older_than=line.seconds("older-than"), plan="plan" in line
    )
    return report.to_dict()


def flow_doctor(here: OpenNotebook, words: list[str]) -> Any:
    """Check journals, rows and objects; what was found."""
    line = split(words, most=0, flags={"fix"})
    return here.app().doctor(fix="fix" in line).to_dict()


def flow_trust(here: OpenNotebook, words: list[str]) -> None:
    """Adopt a store as it is now."""
    from cellrail.app import App

    del here
    given = split(words).given
    if len(given) != 1:
        raise UserError("the store's folder is needed", hint="%flow trust other/.cellrail")
    journals = App(Path(given[0])).trust()
    print(f"trusted {journals} journals of {given[0]}, as they are now")


def flow_mv(here: OpenNotebook, words: list[str]) -> None:
    """Follow the rename of a notebook with its history."""
    given = split(words).given
    if len(given) != 2:
        raise UserError("the notebook's old and its new path are needed")
    moved = here.app().mv(*given)
    print(f"{moved} runs of {given[0]}: now {given[1]}'s")


def flow_key(here: OpenNotebook, words: list[str]) -> None:
    """Accept stores that were signed with an exported key."""
    given = split(words).given
    if given == ["export"]:
        raise UserError(
            "a notebook would keep the key among its outputs",
            hint="in a terminal: cellrail key export",
        )
    if len(given) != 2 or given[0] != "import":
        raise UserError(f"key import FILE; not {' '.join(words)!r}")
    try:
        text = Path(given[1]).read_text("utf-8")
    except OSError as error:
        raise UserError(f"{given[1]}: {error.strerror}") from error
    here.app().key_import(text.strip())
    print("imported")
