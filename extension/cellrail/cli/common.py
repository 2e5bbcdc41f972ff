"""What all commands share: the common options, JSON, errors and exit codes."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import json
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn

import click

from cellrail.app import App
from cellrail.errors import CellrailError, StillSuspended
from cellrail.notebook.options import duration
from cellrail.run.interrupts import hear_no_more, unheard
from cellrail_state.errors import StateError

SCHEMA = 1
INTERNAL_ERROR = 70
INTERRUPTED = 130
#: what the system says no to, and what to do
_REFUSED_BY_SYSTEM = {
    errno.EACCES: "this user may not write there",
    errno.EPERM: "this user may not write there",
    errno.EROFS: "the file system is mounted read-only",
    errno.ENOSPC: "free some space; `cellrail prune` deletes old runs",
    errno.EDQUOT: "free some space; `cellrail prune` deletes old runs",
}


_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*((?:[KMGT]i?)?B?)", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
#: by unit, in capitals; `8G` is `8GB`
_BYTES = {
    **{f"{unit}{end}": 1000**power for unit, power in _POWERS.items() for end in ("", "B")},
    **{
        f"{unit}I{end}": 1024**power for unit, power in _POWERS.items() for end in ("", "B") if unit
    },
}


class Context:
    """The common options of one command."""

    def __init__(self, *, store: str | None, as_json: bool, quiet: bool, verbose: int) -> None:
        self.store = store
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose
        #: the App of this command
        self.opened: App | None = None

    def app(self, notebook: str | None = None) -> App:
        """The App that the options ask for; its store is the one of `notebook`, where given."""
        self.opened = App(self.store, notebook=notebook)
        return self.opened

    def say(self, text: str) -> None:
        """Tell a person something; silent with `--json`."""
        if not self.as_json:
            click.echo(text)

    def note(self, text: str) -> None:
        """A remark on stderr; silent with `-q`."""
        if not self.quiet:
            click.echo(text, err=True)

    def json(self, data: Mapping[str, Any]) -> None:
        """The one object on stdout of `--json`."""
        if self.as_json:
            print_json(data)


def print_json(data: Mapping[str, Any]) -> None:
    """One JSON object with the schema's number."""
    click.echo(json.dumps({"schema": SCHEMA, **data}, ensure_ascii=False, default=str))


def common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--store --json -q -v`; the command gets them as `context`."""

    @click.option("--store", metavar="PATH", help="The store's folder (default: the nearest).")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
    @click.option("-q", "--quiet", is_flag=True, help="No progress and no remarks.")
    @click.option("-v", "--verbose", count=True, help="Say more (logs go to stderr).")
    @functools.wraps(function)
    def with_context(
        *args: Any, store: str | None, as_json: bool, quiet: bool, verbose: int, **options: Any
    ) -> Any:
        context = Context(store=store, as_json=as_json, quiet=quiet, verbose=verbose)
        if verbose:
            import logging

            logging.basicConfig(
                level=logging.DEBUG if verbose > 1 else logging.INFO, stream=sys.stderr
            )
        with _remarks_kept_back() if quiet else contextlib.nullcontext():
            return function(*args, context=context, **options)

    return with_context


@contextlib.contextmanager
def _remarks_kept_back() -> Iterator[None]:
    """Nothing but errors is logged meanwhile: in a notebook other commands follow this one."""
    import logging

    logger = logging.getLogger("cellrail")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def guarded(command: click.Command, arguments: list[str] | None) -> NoReturn:
    """Run a command and turn whatever it raises into a clear message and an exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        # what a terminal or a file cannot have (half a character) is told by its escape
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, _interrupt)
    # a script that starts this in the background has it ignored; `cellrail cancel` sends one
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # a closed terminal; `nohup` has it ignored, and that stays so
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) is signal.SIG_DFL:
        signal.signal(hangup, _interrupt)
    try:
        code = _carried_out(command, words)
        if arguments is None:  # the process ends: a further Ctrl-C changes no exit code
            hear_no_more()
    except KeyboardInterrupt:  # once more, while the first was told
        if arguments is None:
            hear_no_more()
        code = INTERRUPTED
    sys.exit(code)


def _carried_out(command: click.Command, words: list[str]) -> int:
    """The exit code of a command, when everything has been told."""
    as_json = "--json" in words
    code: object
    try:
        code = command.main(args=words, prog_name="cellrail", standalone_mode=False)
    except (CellrailError, StateError) as error:
        code = getattr(error, "exit_code", 2)
        _tell(error.code, str(error), error.hint, as_json=as_json)
    except click.exceptions.Abort as error:
        code = INTERRUPTED
        _tell_interrupted(error.__cause__, as_json=as_json)
    except KeyboardInterrupt as error:
        code = INTERRUPTED
        with unheard():
            _tell_interrupted(error, as_json=as_json)
    except click.ClickException as error:
        code = error.exit_code
        if as_json:
            _tell("usage", error.format_message(), "", as_json=True)
        else:
            error.show()
    except click.exceptions.Exit as error:
        code = error.exit_code
    except BrokenPipeError:
        code = 0
        sys.stderr.close()
    except Exception as error:  # noqa: BLE001 - a defect of ours: say so, keep the traceback
        if _is_interrupt(error):
            code = INTERRUPTED
            _tell("interrupted", "interrupted", "", as_json=as_json)
        else:
            code = _unexpected(error, as_json=as_json)
    return code if isinstance(code, int) else 0


def _tell_interrupted(error: BaseException | None, *, as_json: bool) -> None:
    if isinstance(error, StillSuspended):
        _tell("interrupted", str(error), error.hint, as_json=as_json)
    else:
        _tell("interrupted", "interrupted", "", as_json=as_json)


def _is_interrupt(error: Exception) -> bool:
    """Whether this is how DuckDB tells of a Ctrl-C that came in a query."""
    return type(error) is RuntimeError and str(error) == "Query interrupted"


def _unexpected(error: Exception, *, as_json: bool) -> int:
    if isinstance(error, OSError) and error.errno in _REFUSED_BY_SYSTEM:
        where = f" ({error.filename})" if error.filename else ""
        _tell(
            "system", f"{error.strerror}{where}", _REFUSED_BY_SYSTEM[error.errno], as_json=as_json
        )
        return 2
    import traceback

    traceback.print_exc()
    _tell("internal", f"{type(error).__name__}: {error}", "please report this", as_json=as_json)
    return INTERNAL_ERROR


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt


def _tell(code: str, message: str, hint: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"error": {"code": code, "message": message, "hint": hint}})
        return
    click.secho(f"error: {message}", err=True, fg="red")
    if hint:
        click.echo(f"hint: {hint}", err=True)


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns for people; numbers and text as they come."""
    cells = [tuple(str(cell) for cell in row) for row in rows]
    widths = [max([len(h), *(len(row[i]) for row in cells)]) for i, h in enumerate(headers)]

    def line(values: Sequence[str]) -> str:
        return "  ".join(v.ljust(w) for v, w in zip(values, widths, strict=True)).rstrip()

    return "\n".join([line(tuple(h.upper() for h in headers)), *(line(row) for row in cells)])


def count(number: int, what: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def moment(seconds: float | None) -> str:
    """A time for people, local."""
    import datetime as dt

    if seconds is None:
        return ""
    return dt.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def span(seconds: float | None) -> str:
    """A duration for people."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def size(count: int) -> str:
    """A number of bytes for people."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def seconds(text: str) -> float:
    """`90`, `90s`, `10m`, `2h`: seconds unless a unit is given."""
    try:
        return duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def byte_count(text: str) -> int:
    """`500MB`, `8 GB`, `8GiB`: bytes unless a unit is given."""
    found = _SIZE.fullmatch(str(text).strip())
    if found is None:
        raise click.BadParameter(f"{text!r} is no size: write 500MB or 8GB")
    return int(float(found[1]) * _BYTES[found[2].upper()])
