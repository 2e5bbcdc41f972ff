"""The one parser of a step's options, for `%%step` lines, tags and comments alike.

A line is `NAME --option value … --flag`. An option's value runs to the next ` --word` outside
quotes and brackets, or to the end of the line, so an expression needs no quotes. Durations are a
number with a unit (`ms s m h d w`); a plain number is seconds.
"""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Callable, Collection, Iterator
from difflib import get_close_matches
from typing import Any

import msgspec

from cellrail.notebook.foreach import split, targets

NAME = re.compile(r"[A-Za-z_][\w.-]*")
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|m|h|d|w)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_BACKOFF = re.compile(r"([^*.]+(?:\.\d+)?[^*.]*?)(?:\s*\*\s*(\d+(?:\.\d+)?))?(?:\s*\.\.\s*(.+))?")
_OPTION = re.compile(r"--([A-Za-z][\w-]*)")
_OPENING = {"(": ")", "[": "]", "{": "}"}


#: why nothing can be restarted right after such a step
NO_CHECKPOINT = "--no-checkpoint"


class Backoff(msgspec.Struct, frozen=True):
    """How long to wait between attempts: `base * factor ** (attempt - 1)`, at most `limit`."""

    base: float = 1.0
    factor: float = 2.0
    limit: float = 60.0

    def seconds(self, attempt: int) -> float:
        """Seconds to wait after this attempt, from 1."""
        try:
            return min(self.base * self.factor ** (attempt - 1), self.limit)
        except OverflowError:
            return self.limit

    def __str__(self) -> str:
        return f"{_seconds_text(self.base)}*{self.factor:g}..{_seconds_text(self.limit)}"


class Branch(msgspec.Struct, frozen=True):
    """A step's place in a group of which one runs."""

    group: str
    default: bool = False

    def __str__(self) -> str:
        return self.group + ":default" * self.default


class StepOptions(msgspec.Struct, frozen=True, kw_only=True):
    """A step's options."""

    #: the cell runs whenever a new kernel continues a run
    always: bool = False
    #: seconds the step's code may take; None for no limit
    timeout: float | None = None
    #: only these names are stored; empty for all
    outputs: tuple[str, ...] = ()
    #: no checkpoint right after this step
    no_checkpoint: bool = False
    #: attempts after the first
    retry: int = 0
    backoff: Backoff = Backoff()
    #: only where this is true of `error`
    retry_if: str = ""
    #: skipped where this is false
    when: str = ""
    branch: Branch | None = None
    #: `VARIABLE in EXPRESSION`
    foreach: str = ""
    key: str = ""
    while_: str = ""
    max_turns: int = 1000
    #: the loop that the step belongs to
    in_: str = ""
    collect: tuple[str, ...] = ()
    #: so many items at a time, each in a kernel of its own; 0 for one after another in this one
    parallel: int = 0
    #: seconds that an equal job may be kept instead of executed; 0 for never
    cache: float = 0.0
    #: stop, continue or skip
    on_error: str = "stop"
    #: the cell runs when a headless run has failed, and never otherwise
    on_failure: bool = False
    stop_if: str = ""
    #: files that the step reads and writes, as globs
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    #: seconds to wait after it, where anything follows
    sleep: float | None = None

    @property
    def loops(self) -> bool:
        """Whether the step runs once per item or turn."""
        return bool(self.foreach or self.while_)

    @property
    def control(self) -> tuple[str, ...]:
        """The options that decide whether and how often the step runs."""
        fields = (
            "retry", "when", "branch", "foreach", "while_", "in_", "parallel", "on_error",
            "on_failure", "stop_if", "sleep",
        )  # fmt: skip
        given = (f for f in fields if getattr(self, f) != getattr(_DEFAULTS, f))
        return tuple(f"--{field.strip('_').replace('_', '-')}" for field in given)

    def __str__(self) -> str:
        words = []
        for spec in SPECS:
            value = getattr(self, spec.field)
            if value is None or value is False or value == getattr(_DEFAULTS, spec.field):
                continue
            told = "" if value is True else f" {spec.text(value)}"
            words.append(f"--{spec.name}{told}")
        return " ".join(words)


class OptionSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One option: how it is written."""

    name: str
    #: what a person reads behind the option; "" for a flag
    value: str = ""
    help: str
    read: Callable[[str], Any] | None = None
    text: Callable[[Any], str] = str

    @property
    def field(self) -> str:
        """Its attribute of `StepOptions`."""
        name = self.name.replace("-", "_")
        return f"{name}_" if keyword.iskeyword(name) else name


_DEFAULTS = StepOptions()


def duration_told(seconds: float) -> str:
    """A duration as one writes it: `7d`, `90s`, `500ms`."""
    for unit, size in sorted(_SECONDS.items(), key=lambda item: -item[1]):
        if unit != "w" and seconds and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def duration(text: str) -> float:
    """Seconds of a duration.

    Raises:
        ValueError: it is none; the message says what one looks like.
    """
    found = _DURATION.fullmatch(text.strip())
    if not found:
        message = f"{text!r} is no duration; write a number with ms, s, m, h, d or w, as in 10m"
        raise ValueError(message)
    return float(found.group(1)) * _SECONDS[found.group(2) or "s"]


def _limit(text: str) -> float:
    """Seconds of a limit.

    Raises:
        ValueError: it is none; 0 would stop everything at once.
    """
    seconds = duration(text)
    if not seconds > 0:
        message = f"{text!r}: a limit is more than 0 seconds; leave it out for none"
        raise ValueError(message)
    return seconds


def _expression(text: str) -> str:
    try:
        ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or str(error)
        message = f"{text.strip()!r} is no Python expression ({reason})"
        raise ValueError(message) from error
    return text.strip()


def _names(text: str) -> tuple[str, ...]:
    names = tuple(word.strip() for word in text.split(","))
    for name in names:
        if not name.isidentifier():
            message = f"{name!r} is no variable name; write names with commas between them"
            raise ValueError(message)
    return names


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _positive(text: str) -> int:
    if not text.strip().isdigit() or int(text) < 1:
        message = f"{text.strip()!r} is no whole number above 0"
        raise ValueError(message)
    return int(text)


def _foreach(text: str) -> str:
    _, items = split(text)
    if not items or not targets(text):
        message = f"{text.strip()!r}: write VARIABLE in EXPRESSION"
        raise ValueError(message)
    _expression(items)
    return text.strip()


def _on_error(text: str) -> str:
    if text.strip() not in {"stop", "continue", "skip"}:
        message = f"{text.strip()!r} is none of stop, continue, skip"
        raise ValueError(message)
    return text.strip()


def _backoff(text: str) -> Backoff:
    found = _BACKOFF.fullmatch(text.strip())
    if not found:
        message = (
            f"{text.strip()!r}: write BASE, BASE*FACTOR or BASE*FACTOR..LIMIT, as in 2s*2..60s"
        )
        raise ValueError(message)
    base, factor, limit = found.groups()
    first = duration(base)
    longest = duration(limit) if limit else (first if factor is None else Backoff().limit)
    return Backoff(first, float(factor or 1), max(first, longest))


def _branch(text: str) -> Branch:
    group, found, word = text.strip().partition(":")
    if not NAME.fullmatch(group) or (found and word != "default"):
        message = f"{text.strip()!r}: write GROUP, or GROUP:default"
        raise ValueError(message)
    return Branch(group, bool(found))


def _step_name(text: str) -> str:
    if not NAME.fullmatch(text.strip()):
        message = f"{text.strip()!r} is no step name"
        raise ValueError(message)
    return text.strip()


def _seconds_text(seconds: float) -> str:
    return f"{repr(seconds).removesuffix('.0')}s"


SPECS: tuple[OptionSpec, ...] = (
    OptionSpec(name="always", help="run again whenever a new kernel continues a run"),
    OptionSpec(name="timeout", value="DUR", help="limit of the step's code", read=_limit,
               text=_seconds_text),
    OptionSpec(name="outputs", value="NAME,…", help="store only these names", read=_names,
               text=",".join),
    OptionSpec(name="no-checkpoint", help="no checkpoint right after this step"),
    OptionSpec(name="retry", value="N", help="try again after a failure", read=_positive),
    OptionSpec(name="backoff", value="SPEC", help="how long to wait between tries", read=_backoff),
    OptionSpec(name="retry-if", value="EXPR", help="try again only if", read=_expression),
    OptionSpec(name="when", value="EXPR", help="skip the step when false", read=_expression),
    OptionSpec(name="branch", value="GROUP[:default]", help="first true step of a group",
               read=_branch),
    OptionSpec(name="foreach", value="VAR in EXPR", help="once per item", read=_foreach),
    OptionSpec(name="key", value="EXPR", help="an item's key", read=_expression),
    OptionSpec(name="while", value="EXPR", help="as long as true", read=_expression),
    OptionSpec(name="max-turns", value="N", help="bound of --while", read=_positive),
    OptionSpec(name="in", value="LOOP", help="belongs to this loop", read=_step_name),
    OptionSpec(name="collect", value="NAME", help="gather a name into a list", read=_names,
               text=",".join),
    OptionSpec(name="parallel", value="N", help="so many items at a time", read=_positive),
    OptionSpec(name="on-error", value="stop|continue|skip", help="after a failure", read=_on_error),
    OptionSpec(name="on-failure", help="runs when a headless run fails"),
    OptionSpec(name="stop-if", value="EXPR", help="end the run as success", read=_expression),
    OptionSpec(name="cache", value="DUR", help="keep an equal job instead", read=duration,
               text=_seconds_text),
    OptionSpec(name="reads", value="GLOB,…", help="files the step reads", read=_words,
               text=",".join),
    OptionSpec(name="writes", value="GLOB,…", help="files the step writes", read=_words,
               text=",".join),
    OptionSpec(name="sleep", value="DUR", help="wait after the step", read=duration,
               text=_seconds_text),
)  # fmt: skip
_BY_NAME = {spec.name: spec for spec in SPECS}


class OptionError(ValueError):
    """A step line is wrong."""


def parse_line(line: str) -> tuple[str, StepOptions]:
    """A step's name and options.

    Args:
        line: what stands behind `%%step`, `step:` or `# step:`.

    Raises:
        OptionError: the line is wrong; the message names the mistake and the nearest right name.
    """
    pieces = list(_pieces(line))
    name = pieces[0].strip() if pieces else ""
    if not NAME.fullmatch(name):
        raise OptionError(_bad_name(name))
    return name, _options(pieces[1:])


def parse_options(text: str) -> StepOptions:
    """Options without a name.

    Raises:
        OptionError: the text is wrong.
    """
    pieces = list(_pieces(" " + text))
    if pieces and pieces[0].strip():
        message = f"{pieces[0].strip()!r} stands before the first option"
        raise OptionError(message)
    return _options(pieces[1:])


def _bad_name(name: str) -> str:
    if not name:
        return "the step has no name: write %%step NAME"
    fixed = re.sub(r"[^\w.-]+", "_", name).strip("_")
    if fixed and not NAME.match(fixed):
        fixed = f"step_{fixed}"
    hint = f"; {fixed!r} would do" if NAME.fullmatch(fixed) else ""
    return f"{name!r} is no step name (letters, digits, _ . -, not first a digit){hint}"


def _options(pieces: list[str]) -> StepOptions:
    values: dict[str, Any] = {}
    for piece in pieces:
        found = _OPTION.match(piece)
        word = found.group(1) if found else piece.strip()
        spec = _BY_NAME.get(word)
        if spec is None:
            near = get_close_matches(word, _BY_NAME, n=1)
            suggestion = f"; did you mean --{near[0]}?" if near else ""
            message = f"unknown option --{word}{suggestion}"
            raise OptionError(message)
        value = _value(spec, piece[found.end() :].strip() if found else "")
        if spec.field in values:
            message = f"--{word} is given twice"
            raise OptionError(message)
        values[spec.field] = value
    options = StepOptions(**values)
    _check_together(options, values)
    return options


#: an option that means nothing without another
_NEEDS = {
    "backoff": ("retry",), "retry_if": ("retry",), "key": ("foreach",), "max_turns": ("while_",),
    "collect": ("foreach", "while_"), "parallel": ("foreach",),
}  # fmt: skip
_EXCLUDES = (
    ("foreach", "while_"), ("always", "foreach"), ("always", "while_"), ("always", "in_"),
    *(("on_failure", other) for other in (
        "always", "foreach", "while_", "in_", "branch", "stop_if", "sleep", "cache"
    )),
)  # fmt: skip


def _check_together(options: StepOptions, given: Collection[str]) -> None:
    told = {spec.field: f"--{spec.name}" for spec in SPECS}
    for field, others in _NEEDS.items():
        if field in given and not any(other in given for other in others):
            message = f"{told[field]} needs {' or '.join(told[other] for other in others)}"
            raise OptionError(message)
    for one, other in _EXCLUDES:
        if one in given and other in given:
            message = f"{told[one]} and {told[other]} exclude each other"
            raise OptionError(message)
    if options.branch is not None and options.branch.default == bool(options.when):
        message = (
            f"--branch {options.branch}: the default takes no --when"
            if options.when
            else f"--branch {options.branch} needs --when (or write {options.branch.group}:default)"
        )
        raise OptionError(message)


def _value(spec: OptionSpec, text: str) -> Any:
    if spec.read is None:
        if text:
            message = f"--{spec.name} takes no value, but {text!r} follows"
            raise OptionError(message)
        return True
    if not text:
        message = f"--{spec.name} needs a value: {spec.value}"
        raise OptionError(message)
    try:
        return spec.read(text)
    except ValueError as error:
        message = f"--{spec.name}: {error}"
        raise OptionError(message) from error


def _pieces(line: str) -> Iterator[str]:
    """The line cut before each ` --word` outside quotes and brackets."""
    start, position = 0, 0
    quote = ""
    open_brackets: list[str] = []
    while position < len(line):
        character = line[position]
        if quote:
            if character == "\\":
                position += 1
            elif character == quote:
                quote = ""
        elif character in "'\"" and _closes(line, position):
            quote = character
        elif character in _OPENING:
            open_brackets.append(_OPENING[character])
        elif open_brackets and character == open_brackets[-1]:
            open_brackets.pop()
        elif (
            character == "-"
            and not open_brackets
            and (position == 0 or line[position - 1].isspace())
            and _OPTION.match(line, position)
        ):
            yield line[start:position]
            start = position
        position += 1
    yield line[start:]


def _closes(line: str, position: int) -> bool:
    """Whether a quote opens a string that ends on this line (an apostrophe does not)."""
    return line.find(line[position], position + 1) != -1
