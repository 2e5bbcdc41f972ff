"""The namespace of an IPython shell as roots for a capture, and back.

The user's names are taken as they are. IPython's own (`In`, `Out`, `_`, `_3`, `exit`, ...) are left
out, but the values behind `Out` and `_` come along as the roots `Out[3]` and `Out[_]`, so that they
are restored and go on being the very objects that the user's names hold. So do the items of a loop
that is under way and what it has collected, as `Loop[…]`. A user who takes `_` for a
name of their own (`for _ in ...`, `_ = gettext`) has a variable `_`, and keeps it.
"""

from __future__ import annotations

import contextlib
import functools
import linecache
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

_MACHINERY = re.compile(r"_+\d*|_i{1,3}|_i\d+|_[ido]h|In|Out")
_HISTORY = re.compile(r"Out\[(\d+|_{1,3})\]")
_LAST = ("_", "__", "___")
_LOOP = "Loop["


def user_names(shell: Any) -> dict[str, object]:
    """The user's own variables by name."""
    hidden = shell.user_ns_hidden
    absent = object()
    return {
        name: value
        for name, value in list(shell.user_ns.items())
        if type(name) is str and name and _is_users(shell, name, value, hidden.get(name, absent))
    }


def _is_users(shell: Any, name: str, value: object, hidden: object) -> bool:
    if name in _LAST:
        return _is_taken(shell, name, value)
    return hidden is not value and not _is_machinery(name)


@functools.lru_cache(maxsize=1 << 16)
def _is_machinery(name: str) -> bool:
    return name[0] in "_IO" and _MACHINERY.fullmatch(name) is not None


def _is_taken(shell: Any, name: str, value: object) -> bool:
    """Whether `_` is the user's own: what IPython shows last lies elsewhere then."""
    own = shell.user_ns_hidden.get(name, getattr(shell.displayhook, name, value))
    return name in _LAST and own is not value and getattr(shell.displayhook, name) is not value


def loop_roots(shell: Any) -> dict[str, object]:
    """Items of the loops that are under way, and what they have collected, by root."""
    found: dict[str, object] = vars(shell).setdefault("cellrail_loops", {})
    return found


def capture_roots(shell: Any) -> dict[str, object]:
    """What a checkpoint looks at: the user's variables, values behind `Out` and `_`, loops."""
    roots = user_names(shell)
    roots.update(loop_roots(shell))
    for number, value in shell.user_ns.get("_oh", {}).items():
        roots[f"Out[{number}]"] = value
    for name in _LAST:
        value = getattr(shell.displayhook, name, "")
        if not (isinstance(value, str) and value == ""):
            roots[f"Out[{name}]"] = value
    return roots


def is_hidden(name: str) -> bool:
    """Whether a root stands for output history or a loop rather than for a user's variable."""
    return _HISTORY.fullmatch(name) is not None or name.startswith(_LOOP)


def place(shell: Any, values: Mapping[str, object]) -> None:
    """Put restored roots where they belong."""
    for name, value in values.items():
        found = _HISTORY.fullmatch(name)
        if name.startswith(_LOOP):
            loop_roots(shell)[name] = value
        elif found is None:
            shell.user_ns[name] = value
        elif found.group(1).isdecimal():
            number = int(found.group(1))
            shell.user_ns["_oh"][number] = value
            # as the display hook does it: not as a name of the user's
            shell.push({f"_{number}": value}, interactive=False)
        else:
            _set_last(shell, found.group(1), value)


def _set_last(shell: Any, name: str, value: object) -> None:
    taken = _is_taken(shell, name, shell.user_ns.get(name))
    setattr(shell.displayhook, name, value)
    # the display hook goes on updating `_` only while it finds its own value there
    if not taken:
        shell.push({name: value}, interactive=False)


def remove(shell: Any, names: Collection[str]) -> None:
    """Delete these roots, as far as they are there."""
    for name in names:
        found = _HISTORY.fullmatch(name)
        if name.startswith(_LOOP):
            loop_roots(shell).pop(name, None)
        elif found is None:
            shell.user_ns.pop(name, None)
        elif found.group(1).isdecimal():
            shell.user_ns.get("_oh", {}).pop(int(found.group(1)), None)
            shell.user_ns.pop(f"_{found.group(1)}", None)
        else:
            _set_last(shell, found.group(1), "")


def clear(shell: Any, *, keep: Collection[str]) -> None:
    """Delete the user's variables and the output history, except the names in `keep`."""
    for name in list(user_names(shell)):
        if name not in keep:
            del shell.user_ns[name]
            if name in _LAST:  # it is IPython's again
                shell.push({name: getattr(shell.displayhook, name, "")}, interactive=False)
    for name in loop_roots(shell).keys() - set(keep):
        del loop_roots(shell)[name]
    history = shell.user_ns.get("_oh", {})
    for number in list(history):
        if f"Out[{number}]" not in keep:
            del history[number]
            shell.user_ns.pop(f"_{number}", None)
    for name in _LAST:
        if f"Out[{name}]" not in keep:
            _set_last(shell, name, "")


@contextlib.contextmanager
def whole_or_not_at_all(shell: Any) -> Iterator[None]:
    """Where the block fails, every variable is the very object again that it was before."""
    space, history = dict(shell.user_ns), dict(shell.user_ns.get("_oh", {}))
    last = {name: getattr(shell.displayhook, name, "") for name in _LAST}
    loops = dict(loop_roots(shell))
    try:
        yield
    except BaseException:
        shell.user_ns.clear()
        shell.user_ns.update(space)
        for kept, now in ((history, shell.user_ns.get("_oh", {})), (loops, loop_roots(shell))):
            now.clear()
            now.update(kept)
        for name, value in last.items():
            setattr(shell.displayhook, name, value)
        raise


def set_history(shell: Any, inputs: Mapping[int, str], execution_count: int) -> None:
    """Put back `In` and the number of the next cell.

    Args:
        shell: the IPython shell.
        inputs: sources by execution count.
        execution_count: the number that the next cell gets.
    """
    manager = shell.history_manager
    for history in (manager.input_hist_parsed, manager.input_hist_raw):
        while len(history) < execution_count:
            history.append("")
        for number, source in inputs.items():
            if number < len(history):
                history[number] = source
    shell.execution_count = execution_count
    shell.push({f"_i{number}": source for number, source in inputs.items()}, interactive=False)
    _set_last_inputs(shell, [source for _, source in sorted(inputs.items())])


def set_sources(shell: Any, functions: Collection[Any], inputs: Mapping[int, str]) -> None:
    """Let restored functions find their source: tracebacks and `inspect.getsource` show it.

    Their code names the file that the kernel which compiled it made up for their cell: a folder
    of its own, and a name that only depends on the cell's text.

    Args:
        shell: the IPython shell.
        functions: what was restored of them.
        inputs: sources by execution count.
    """
    cells = {
        os.path.basename(shell.compile.get_code_name(source, source, number)): source  # noqa: PTH119 - a made-up path
        for number, source in inputs.items()
    }
    for function in functions:
        code = getattr(function, "__code__", None)
        name = getattr(code, "co_filename", "")
        source = cells.get(os.path.basename(name))  # noqa: PTH119 - a made-up path
        if source is not None and name not in linecache.cache:
            lines = [line + "\n" for line in source.splitlines()]
            # no time of change: nobody looks for it on disk
            linecache.cache[name] = (len(source), None, lines, name)


def _set_last_inputs(shell: Any, sources: Sequence[str]) -> None:
    """`_i`, `_ii` and `_iii` as they stand after the last of these cells."""
    if not sources:
        return
    manager = shell.history_manager
    # a cell sees as `_i` the one before it: the newest waits in `_i00`
    newest = [*reversed(sources), "", "", "", ""][:4]
    for name, source in zip(("_i00", "_i", "_ii", "_iii"), newest, strict=True):
        setattr(manager, name, source)
    last = {name: getattr(manager, name) for name in ("_i", "_ii", "_iii")}
    shell.push(last, interactive=False)
