"""The words behind a `%flow` command: positional ones, options, parameters and labels."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Collection, Iterator
from typing import Any

import msgspec

from cellrail.errors import UserError

#: options of parameters: papermill's spellings, and how many words follow
_PARAMETERS = {
    "-p": ("typed", 2), "--parameters": ("typed", 2), "-r": ("raw", 2),
    "--parameters_raw": ("raw", 2), "-f": ("files", 1), "--parameters_file": ("files", 1),
    "-y": ("yamls", 1), "--parameters_yaml": ("yamls", 1), "-b": ("encoded", 1),
    "--parameters_base64": ("encoded", 1),
}  # fmt: skip


#: where a word begins that may be JSON
_BRACKET = re.compile(r"(?<=\s)[\[{]")
#: the values of schedules are templates of the tick themselves: `{date:%Y-%m-%d}`
_TEMPLATES = (["backfill"], ["trigger"])


class Words(msgspec.Struct, kw_only=True):
    """What stands behind a command."""

    #: positional words
    given: list[str] = []
    #: options with their values ("" for a flag), by name; of one that is repeated, the last
    options: dict[str, str] = {}
    #: values of options that may be repeated, by name
    lists: dict[str, list[str]] = {}
    #: of `-p -r -f -y -b`
    parameters: dict[str, Any] = {}

    def __contains__(self, name: str) -> bool:
        """Whether an option was given."""
        return name in self.options or name in self.lists

    def at(self, place: int) -> str | None:
        """The positional word at a place, if there is one."""
        return self.given[place] if place < len(self.given) else None

    def seconds(self, name: str) -> float | None:
        """A duration, in seconds.

        Raises:
            UserError: it is none.
        """
        from cellrail.notebook.options import duration

        if name not in self.options:
            return None
        try:
            return duration(self.options[name])
        except ValueError as error:
            raise UserError(f"--{name}: {error}") from error

    def number(self, name: str, default: int) -> int:
        """A whole number.

        Raises:
            UserError: it is none.
        """
        text = self.options.get(name)
        if text is None:
            return default
        if not text.isdecimal():
            raise UserError(f"--{name} {text}: a number is needed")
        return int(text)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Names of `--secret`."""
        return tuple(self.lists.get("secret", ()))

    @property
    def all_parameters(self) -> dict[str, Any]:
        """With secrets that are not among them, from the environment.

        Raises:
            UserError: a secret is nowhere.
        """
        import os

        found = dict(self.parameters)
        for name in self.secrets:
            if name not in found and name not in os.environ:
                raise UserError(
                    f"--secret {name}: give it with -p, or in the environment variable {name}"
                )
            found.setdefault(name, os.environ.get(name))
        return found

    @property
    def labels(self) -> dict[str, str]:
        """Of `--label K=V`."""
        from cellrail.given import parse_labels

        return parse_labels(self.lists.get("label", ()))


def split_line(line: str, expanded: Callable[[str], str]) -> list[str]:
    """The words of a line, as in a shell; one that is a JSON object or list keeps its quotes.

    Args:
        line: what was typed.
        expanded: fills variables in; not in JSON.

    Raises:
        ValueError: a quote is not closed.
    """
    if line.split()[:1] in _TEMPLATES:
        return shlex.split(line)
    words, rest = list[str](), line
    while found := _json_in(rest):
        start, end = found
        words += [*_words(rest[:start], expanded), rest[start:end]]
        rest = rest[end:]
    return words + _words(rest, expanded)


def _words(text: str, expanded: Callable[[str], str]) -> list[str]:
    """Words without JSON; what a variable holds may be some."""
    told = expanded(text)
    return shlex.split(told) if told == text else split_line(f" {told}", lambda same: same)


def _json_in(line: str) -> tuple[int, int] | None:
    """Where the first word of a line lies that is a JSON object or list."""
    for bracket in _BRACKET.finditer(line):
        start = bracket.start()
        try:
            shlex.split(line[:start])
            _, end = json.JSONDecoder().raw_decode(line, start)
        except ValueError:  # it stands within quotes, or is none
            continue
        if end == len(line) or line[end].isspace():
            return start, end
    return None


def split(
    words: list[str],
    *,
    most: int | None = None,
    flags: Collection[str] = (),
    values: Collection[str] = (),
    lists: Collection[str] = (),
    parameters: bool = False,
) -> Words:
    """Tell positional words and options apart.

    Args:
        words: behind the command.
        most: so many positional words at most; None for any number.
        flags: options without a value.
        values: options with one.
        lists: options with one that may be repeated.
        parameters: `-p -r -f -y -b` are known, and `--label`.

    Raises:
        UserError: an option is unknown, or lacks its value.
    """
    lists = {*lists, "label"} if parameters else set(lists)
    found, typed = Words(), dict[str, list[Any]]()
    waiting = iter(words)
    for word in waiting:
        name = word.removeprefix("--")
        if parameters and word in _PARAMETERS:
            kind, count = _PARAMETERS[word]
            taken = tuple(_value(word, waiting) for _ in range(count))
            typed.setdefault(kind, []).append(taken if count > 1 else taken[0])
        elif not word.startswith("--"):
            found.given.append(word)
        elif name in flags:
            found.options[name] = ""
        elif name in values:
            found.options[name] = _value(word, waiting)
        elif name in lists:
            found.lists.setdefault(name, []).append(_value(word, waiting))
        else:
            known = ", ".join(f"--{n}" for n in sorted({*flags, *values, *lists})) or "none"
            raise UserError(f"unknown option --{name}", hint=f"known: {known}")
    if most is not None and len(found.given) > most:
        raise UserError(f"{' '.join(found.given[most:])!r} is one word too many")
    if typed:
        from cellrail.given import parameters_of

        found.parameters = parameters_of(**typed)
    return found


def _value(word: str, waiting: Iterator[str]) -> str:
    value = next(waiting, None)
    if value is None:
        raise UserError(f"{word} needs a value")
    return value
