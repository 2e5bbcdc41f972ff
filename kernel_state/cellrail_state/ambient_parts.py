"""Two ambient states side by side, part by part. Pure: works on snapshots, touches no process.

A part is named by its path (`cwd`, `environment/MODE`, `generators/random`). Generators are told
apart from the rest: a cell that draws depends on them, a cell that does not, does not. Everything
else any cell may depend on. What merely comes with an import is no difference: the list of modules,
and the filters, loggers and options of a package that only one of the two has imported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_ABSENT: Any = object()
_WORD = re.compile(r"\b[^\W\d]\w*")
#: parts that grow by imports; what one cell adds does not concern another
_ADDED_TO = frozenset({"modules", "warnings", "logging"})
_OPTIONS = frozenset({"numpy", "pandas", "matplotlib", "matplotlib.colors", "sklearn"})
_GENERATORS = "generators"

Snapshot = Mapping[str, Any]


def generators_that_differ(now: Snapshot, then: Snapshot) -> set[str]:
    """Libraries whose generators stand elsewhere."""
    return {path.partition("/")[2] for path, *_ in _differing(now, then) if _is_generator(path)}


def generators_moved(before: Snapshot, after: Snapshot) -> set[str]:
    """Libraries whose generators a cell used; one that it was the first to import does not count.

    Args:
        before: the state right before the cell.
        after: the state right after it.
    """
    known = set(before.get(_GENERATORS, {}))
    return generators_that_differ(after, before) & known


def difference(now: Snapshot, then: Snapshot) -> str:
    """What differs beside generators and what imports bring, in words; "" where nothing does."""
    one_sided = _packages(now) ^ _packages(then)
    for path, here, there in _differing(now, then):
        if _is_generator(path) or _comes_with_import(path, here, there, one_sided):
            continue
        return _told(path)
    return ""


def conflict(now: Snapshot, before: Snapshot, after: Snapshot) -> str:
    """What a cell set that was another here already, in words; "" where the two can be merged.

    Args:
        now: the state that the cell would find.
        before: the one that it found.
        after: the one that it left.
    """
    moved = {path for path, *_ in _differing(after, before)}
    for path, here, _ in _differing(now, before):
        grows = path.partition("/")[0] in _ADDED_TO
        if path in moved and not grows and here != _at(after, path):
            return _told(path)
    return ""


def merged(now: Snapshot, before: Snapshot, after: Snapshot) -> dict[str, Any]:
    """The state here, with what a cell changed elsewhere.

    Args:
        now: the state here.
        before: the one that the cell found.
        after: the one that it left.
    """
    made: dict[str, Any] = _merge(now, before, after, "")
    return made


def encoded(snapshot: Snapshot) -> bytes:
    """A snapshot as it is stored."""
    return json.dumps(snapshot, sort_keys=True).encode()


def _merge(now: Any, before: Any, after: Any, path: str) -> Any:
    if after in (before, now):
        return now
    if now == before:
        return after
    if isinstance(now, Mapping) and isinstance(after, Mapping) and not _is_generator(path):
        old = before if isinstance(before, Mapping) else {}
        made = {}
        for key in {**now, **after}:
            value = _merge(
                now.get(key, _ABSENT), old.get(key, _ABSENT), after.get(key, _ABSENT),
                f"{path}/{key}" if path else key,
            )  # fmt: skip
            if value is not _ABSENT:
                made[key] = value
        return made
    if isinstance(now, list) and isinstance(after, list):
        was = before if isinstance(before, list) else []
        gone = [part for part in was if part not in after]
        new = [part for part in after if part not in was and part not in now]
        # filters of warnings: the newest stands first
        kept = [part for part in now if part not in gone]
        return [*new, *kept] if path == "warnings" else [*kept, *new]
    return after


def _differing(a: Any, b: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    if a == b:
        return
    if isinstance(a, Mapping) and isinstance(b, Mapping) and not _is_generator(path):
        for key in sorted({**a, **b}):
            inner = f"{path}/{key}" if path else key
            yield from _differing(a.get(key, _ABSENT), b.get(key, _ABSENT), inner)
    elif path == _GENERATORS:
        whole = a if isinstance(a, Mapping) else b
        yield from ((f"{path}/{key}", a, b) for key in whole)
    else:
        yield path, a, b


def _is_generator(path: str) -> bool:
    return path.startswith(f"{_GENERATORS}/")


def _at(snapshot: Any, path: str) -> Any:
    for key in path.split("/"):
        if not isinstance(snapshot, Mapping) or key not in snapshot:
            return _ABSENT
        snapshot = snapshot[key]
    return snapshot


def _packages(snapshot: Snapshot) -> set[str]:
    return {str(name).partition(".")[0] for name in snapshot.get("modules", ())}


def _comes_with_import(path: str, here: Any, there: Any, one_sided: set[str]) -> bool:
    part, _, rest = path.partition("/")
    if part == "modules":
        return True
    if part in _OPTIONS and part.partition(".")[0] in one_sided:
        return True
    if part == "logging":
        return rest.partition(".")[0] in one_sided
    if part == "warnings" and isinstance(here, list) and isinstance(there, list):
        others = [f for f in here if f not in there] + [f for f in there if f not in here]
        return all(_filter_packages(f) & one_sided for f in others)
    return False


def _filter_packages(entry: Any) -> set[str]:
    """Top-level packages that a filter of warnings names."""
    _, _, where, module, _ = entry
    pattern = module.get("pattern", "") if isinstance(module, Mapping) else module or ""
    found = {str(where).partition(":")[0].partition(".")[0]}
    return found | set(_WORD.findall(str(pattern))[:1])


def _told(path: str) -> str:
    part, _, rest = path.partition("/")
    if part == _GENERATORS:
        return f"the generator of {rest}"
    if part.startswith("environment"):
        return f"the environment variable {rest}" if rest else "the environment"
    words = {
        "cwd": "the working directory", "path": "sys.path", "decimal": "the decimal context",
        "recursion_limit": "the recursion limit", "warnings": "the filters of warnings",
        "logging": "the levels of loggers", "locale": "the locale",
    }  # fmt: skip
    return words.get(part, f"an option of {part} ({rest})" if rest else part)
