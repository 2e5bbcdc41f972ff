"""Digests that tell whether a step is still what it was: its source and local modules.

A local module is one outside site-packages and the standard library that the step's imports reach,
directly or through other local modules.
"""

from __future__ import annotations

import ast
import glob
from collections.abc import Iterable, Mapping
from pathlib import Path

import blake3
import msgspec

from cellrail.notebook.model import Flow


def source_hash(body: str) -> str:
    """Digest of a cell's code; white space at the ends of lines and of the cell does not count."""
    lines = [line.rstrip() for line in body.strip("\n").splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    while lines and not lines[0]:
        lines.pop(0)
    return blake3.blake3("\n".join(lines).encode()).hexdigest()


def is_blank(body: str) -> bool:
    """Whether a cell holds nothing but white space and comments."""
    return all(line.lstrip().startswith("#") for line in body.splitlines() if line.strip())


def file_digests(globs: Iterable[str], folder: Path) -> dict[str, str]:
    """Digests of the files that globs name.

    Args:
        globs: patterns, relative to the folder or absolute; `**` reaches into folders.
        folder: the run's working directory.

    Returns:
        Hex digests by path as it was written, sorted; a pattern without a file is there with "".
    """
    found: dict[str, str] = {}
    for pattern in globs:
        # (unlike Path.glob, it takes absolute patterns, and tells paths as they were written)
        paths = sorted(glob.glob(pattern, root_dir=folder, recursive=True))  # noqa: PTH207
        files = [path for path in paths if folder.joinpath(path).is_file()]
        found |= {path: _digest(folder.joinpath(path)) for path in files} or {pattern: ""}
    return dict(sorted(found.items()))


def _digest(path: Path) -> str:
    try:
        return blake3.blake3(max_threads=blake3.blake3.AUTO).update_mmap(path).hexdigest()
    except OSError:  # gone meanwhile, or not to be read
        return "?"


def local_modules(imports: Iterable[str], folder: Path) -> dict[str, str]:
    """Digests of the local modules that imports reach.

    Args:
        imports: dotted module names.
        folder: the notebook's folder, where local modules lie.

    Returns:
        Hex digests by dotted module name, sorted.
    """
    found: dict[str, str] = {}
    waiting = list(imports)
    seen: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        # `import a.b` executes a, too
        parent = module.rpartition(".")[0]
        if parent:
            waiting.append(parent)
        path = _file_of(module, folder)
        if path is None:
            continue
        try:
            source = path.read_bytes()
        except OSError:
            continue
        found[module] = blake3.blake3(source).hexdigest()
        waiting += _imports_of(source, module, package=path.name == "__init__.py")
    return dict(sorted(found.items()))


def modules_of(flow: Flow) -> dict[int, dict[str, str]]:
    """Digests of the local modules that each step's imports reach, by step number."""
    return {
        step.number: local_modules(step.imports, flow.module_folder)
        for step in flow.steps
        if step.imports
    }


def module_files(flow: Flow) -> dict[str, bytes]:
    """The files of the local modules that a flow's imports reach, by path below its folder.

    None, where a cell names one of them in its text: it may write it, or read it as a file.
    """
    folder = flow.path.parent
    names = {name for step in modules_of(flow).values() for name in step}
    paths = [path for name in sorted(names) if (path := _file_of(name, folder)) is not None]
    text = "\n".join(step.source for step in flow.steps)
    if any(path.name in text for path in paths if path.name != "__init__.py"):
        return {}
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def source_digest(flow: Flow, modules: Mapping[int, Mapping[str, str]]) -> str:
    """Digest of all that is run for a flow: its steps in order, and the local modules they reach.

    Args:
        flow: the steps.
        modules: digests of their local modules, by step number.
    """
    parts = [
        (
            step.label,
            step.source_hash,
            str(step.options),
            sorted(modules.get(step.number, {}).items()),
        )
        for step in flow.steps
    ]
    return blake3.blake3(msgspec.json.encode(parts)).hexdigest()[:32]


def _file_of(module: str, folder: Path) -> Path | None:
    base = folder.joinpath(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _imports_of(source: bytes, module: str, *, package: bool) -> list[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    here = module.split(".") if package else module.split(".")[:-1]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            # what is imported may itself be a module
            found += [name, *(f"{name}.{alias.name}".lstrip(".") for alias in node.names)]
    return [name for name in found if name]
