"""What has changed between a run and today's notebook: found by itself, or named. Pure.

A change concerns a step (it executes), a name, a package or a local module (the steps that read
a value of it execute). Each says why, in words that `rerun --plan` shows.

Named changes are selectors:

==================  =============================================================================
``step:GLOB``       steps by name or address
``var:GLOB``        variables: every step that reads one
``param:GLOB``      the same, of parameters only
``file:GLOB``       files: steps whose ``--reads`` names them, or whose code mentions them
``package:GLOB``    packages: steps that import one, or read a value of it
``@FILE``           JSON: a list of the above, or HyperFlow's entries
==================  =============================================================================

HyperFlow's file is ``{"modified": [{"selector": "process.name", "value": "foo"}]}``, in its
documentation ``changed`` in place of ``modified`` and an entry in place of a list; all of these are
read. ``process.name`` is a step, ``process.id`` the n-th one, ``data.name`` (or ``signal.name``) a
variable.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Any

import msgspec

from cellrail.errors import BadSelector
from cellrail.notebook.model import PARAMETERS, Flow, Step
from cellrail.notebook.options import OptionError, StepOptions, parse_options
from cellrail_state.model import StepInfo

KINDS = ("step", "var", "param", "file", "package")
_FORMS = "step:NAME, var:NAME, param:NAME, file:PATH, package:NAME or @FILE"
_HYPERFLOW = {
    "process.name": "step", "process.id": "step", "process": "step", "task.name": "step",
    "data.name": "var", "signal.name": "var", "data": "var", "signal": "var",
    "data.id": "var", "signal.id": "var", "file.name": "file", "file": "file",
}  # fmt: skip
#: options that decide what a step does
_DECIDING = (
    "when", "branch", "foreach", "key", "while_", "max_turns", "in_", "collect", "on_error",
    "stop_if",
)  # fmt: skip


class Selector(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is named as changed."""

    kind: str
    pattern: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.pattern}"

    def matches(self, name: str) -> bool:
        """Whether it selects this name."""
        return name == self.pattern or fnmatchcase(name, self.pattern)


class Changes(msgspec.Struct, kw_only=True):
    """What has changed; each with the reason in words."""

    #: steps that execute, by number
    steps: dict[int, str] = {}
    #: names whose readers execute
    names: dict[str, str] = {}
    #: top-level packages and local modules whose users execute
    packages: dict[str, str] = {}
    #: numbers of steps and names that a person has named, not found by itself
    forced_steps: set[int] = set()
    forced_names: set[str] = set()
    #: parameters with other values, and how the step that assigns them is told
    parameters: frozenset[str] = frozenset()
    parameters_told: str = ""
    #: everything executes
    everything: str = ""
    #: what was found and is not followed, since other changes were named
    left: list[str] = []


# --- selectors -------------------------------------------------------------------------------


def read_selectors(texts: Iterable[str], read: Callable[[str], str]) -> list[Selector]:
    """Selectors from what was given on a command line.

    Args:
        texts: `KIND:PATTERN` or `@FILE`.
        read: the text of a file.

    Raises:
        BadSelector: one of them is none.
    """
    found: list[Selector] = []
    for text in texts:
        if text.startswith("@"):
            found += _of_file(text[1:], read)
        else:
            found.append(_selector(text))
    return found


def _selector(text: str) -> Selector:
    kind, colon, pattern = text.strip().partition(":")
    if not colon:
        raise BadSelector(
            f"--changed {text!r} says not what changed", hint=f"write {_FORMS}: step:{text}?"
        )
    if kind not in KINDS:
        near = get_close_matches(kind, KINDS, n=1)
        told = f"did you mean {near[0]}:{pattern}?" if near else f"write {_FORMS}"
        raise BadSelector(f"--changed {text!r}: {kind!r} is no kind of change", hint=told)
    if not pattern.strip():
        raise BadSelector(f"--changed {text!r} names nothing", hint=f"write {_FORMS}")
    return Selector(kind=kind, pattern=pattern.strip())


def _of_file(path: str, read: Callable[[str], str]) -> list[Selector]:
    try:
        data = json.loads(read(path))
    except OSError as error:
        raise BadSelector(f"--changed @{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BadSelector(f"--changed @{path} is no JSON: {error}") from error
    return [_entry(entry, path) for entry in _entries(data, path)]


def _entries(data: Any, path: str) -> list[Any]:
    if isinstance(data, Mapping) and "selector" not in data:
        lists = [data[key] for key in ("modified", "changed") if key in data]
        if not lists:
            raise BadSelector(
                f"--changed @{path} holds neither `modified` nor `changed`",
                hint='write {"modified": [{"selector": "process.name", "value": "NAME"}]}',
            )
        return [entry for found in lists for entry in _as_list(found)]
    return _as_list(data)


def _as_list(data: Any) -> list[Any]:
    return data if isinstance(data, list) else [data]


def _entry(entry: Any, path: str) -> Selector:
    if isinstance(entry, str):
        return _selector(entry)
    if not isinstance(entry, Mapping) or "selector" not in entry or "value" not in entry:
        raise BadSelector(
            f"--changed @{path}: {json.dumps(entry)} is no entry",
            hint='write {"selector": "process.name", "value": "NAME"}, or "step:NAME"',
        )
    named, value = str(entry["selector"]), entry["value"]
    kind = _HYPERFLOW.get(named) or (named if named in KINDS else None)
    if kind is None:
        near = get_close_matches(named, [*_HYPERFLOW, *KINDS], n=1)
        told = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(_HYPERFLOW)}"
        raise BadSelector(f"--changed @{path}: the selector {named!r} is not known", hint=told)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise BadSelector(f"--changed @{path}: {json.dumps(value)} is no name of a {kind}")
    return Selector(kind=kind, pattern=f"#{value}" if named == "process.id" else str(value))


class World(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to select from."""

    flow: Flow
    #: names of variables that the origin had
    variables: frozenset[str] = frozenset()
    #: packages that it used
    packages: frozenset[str] = frozenset()
    #: files that its steps read, by path, with the step
    files: tuple[tuple[str, int], ...] = ()


def select(selectors: Sequence[Selector], world: World) -> Changes:
    """What selectors name.

    Raises:
        BadSelector: one selects nothing; the nearest name is suggested.
    """
    changes = Changes()
    for selector in selectors:
        _SELECT[selector.kind](selector, world, changes)
    return changes


def _select_steps(selector: Selector, world: World, changes: Changes) -> None:
    steps = world.flow.steps
    found = [
        step
        for step in steps
        if selector.matches(step.label) or selector.pattern in {step.cell_id, f"#{step.number}"}
    ]
    _check(selector, found, [step.name for step in steps if step.name], "step")
    for step in found:
        changes.steps[step.number] = f"forced by {selector}"
        changes.forced_steps.add(step.number)


def _select_names(selector: Selector, world: World, changes: Changes) -> None:
    written = {name for step in world.flow.steps for name in step.writes}
    known = {n for n in world.variables | written if n.isidentifier()}
    _force_names(selector, known, "variable", changes)


def _select_parameters(selector: Selector, world: World, changes: Changes) -> None:
    _force_names(selector, {p.name for p in world.flow.parameters}, "parameter", changes)


def _force_names(selector: Selector, known: set[str], what: str, changes: Changes) -> None:
    found = sorted(name for name in known if selector.matches(name))
    _check(selector, found, known, what)
    for name in found:
        changes.names[name] = f"{what} `{name}` was named as changed"
        changes.forced_names.add(name)


def _select_files(selector: Selector, world: World, changes: Changes) -> None:
    found = {
        number: path
        for path, number in world.files
        if selector.matches(path) or _is_path_end(path, selector.pattern)
    }
    name = PurePath(selector.pattern).name
    for step in world.flow.steps:
        if name and name in step.body and not any(c in name for c in "*?["):
            found.setdefault(step.number, selector.pattern)
    _check(selector, list(found), [path for path, _ in world.files], "file that a step reads")
    for number, path in found.items():
        changes.steps[number] = f"file {path} was named as changed"
        changes.forced_steps.add(number)


def _is_path_end(path: str, pattern: str) -> bool:
    """Whether a path ends like this one: `data/x.csv` is `/disk/data/x.csv`."""
    ours, theirs = PurePath(path).parts, PurePath(pattern).parts
    return bool(theirs) and ours[-len(theirs) :] == theirs


def _select_packages(selector: Selector, world: World, changes: Changes) -> None:
    imported = {m.partition(".")[0] for step in world.flow.steps for m in step.imports}
    known = world.packages | imported
    found = sorted(name for name in known if selector.matches(name))
    _check(selector, found, known, "package")
    for name in found:
        changes.packages[name] = f"package {name} was named as changed"


_SELECT: dict[str, Callable[[Selector, World, Changes], None]] = {
    "step": _select_steps,
    "var": _select_names,
    "param": _select_parameters,
    "file": _select_files,
    "package": _select_packages,
}


def _check(selector: Selector, found: Sequence[Any], known: Iterable[str], what: str) -> None:
    if found:
        return
    names = sorted(set(known))
    near = get_close_matches(selector.pattern, names, n=1)
    hint = f"did you mean {selector.kind}:{near[0]}?" if near else ""
    if not hint and names:
        hint = f"there are: {', '.join(names[:10])}" + ", …" * (len(names) > 10)
    raise BadSelector(f"--changed {selector}: there is no such {what}", hint=hint)


# --- what is found ---------------------------------------------------------------------------


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The origin and today, side by side."""

    flow: Flow
    #: the origin's step of each step, by today's number
    pairs: Mapping[int, StepInfo]
    #: digests of local modules today, by step number
    modules: Mapping[int, Mapping[str, str]] = {}
    #: names of parameters with other values than in the origin
    parameters: Sequence[str] = ()
    #: version in the origin and today, by package
    packages: Mapping[str, tuple[str, str]] = {}
    #: in the origin and today
    python: tuple[str, str] = ("", "")


def detect(found: Found) -> Changes:
    """Everything that differs."""
    changes = Changes()
    was, now = found.python
    if was and now and was.split(".")[:2] != now.split(".")[:2]:
        changes.everything = f"Python {was} -> {now}"
    for step in found.flow.steps:
        info = found.pairs.get(step.number)
        if info is None:
            continue
        reason = why_changed(step, info)
        if reason:
            changes.steps[step.number] = reason
        today = found.modules.get(step.number, {})
        for module in sorted(set(today) | set(info.modules)):
            if today.get(module) != info.modules.get(module):
                changes.packages[module.partition(".")[0]] = f"module {module} changed"
    for package, (before, after) in sorted(found.packages.items()):
        changes.packages[package] = f"package {package} {before} -> {after}"
    if found.parameters:
        listed = ", ".join(f"`{name}`" for name in found.parameters)
        many = "s" * (len(found.parameters) > 1)
        changes.parameters = frozenset(found.parameters)
        changes.parameters_told = f"parameter{many} {listed} changed"
        for step in found.flow.steps:
            if step.name == PARAMETERS:
                changes.steps.setdefault(step.number, changes.parameters_told)
    return changes


def why_changed(step: Step, info: StepInfo) -> str:
    """What of a step is not as the origin has it; "" where nothing is."""
    if info.source_hash != step.source_hash:
        return "source changed"
    if info.options == str(step.options):
        return ""
    try:
        before = parse_options(info.options) if info.options else StepOptions()
    except OptionError:
        return "options changed"
    for field in _DECIDING:
        if getattr(before, field) != getattr(step.options, field):
            return f"--{field.strip('_').replace('_', '-')} changed"
    return ""


def told(changes: Changes, flow: Flow) -> list[str]:
    """What was found, a line each, for a plan that follows named changes instead."""
    labels = {step.number: step.label for step in flow.steps}
    lines = [f"step {labels[number]}: {why}" for number, why in sorted(changes.steps.items())]
    lines += [why for _, why in sorted(changes.packages.items())]
    return [*lines, *([changes.everything] if changes.everything else [])]
