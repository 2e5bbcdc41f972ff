"""Versions of packages in the environment of a kernel, without a kernel."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_SECONDS = 60.0
#: run by the kernel's Python: its version, and those of the packages named on the command line
_ASK = """
import contextlib, importlib, importlib.metadata as m, json, platform, sys
told = {}
for name in json.loads(sys.argv[1]):
    with contextlib.suppress(Exception):
        told[name] = str(importlib.import_module(name).__version__)
for name in json.loads(sys.argv[2]):
    with contextlib.suppress(Exception):
        told[name] = m.version(name)
print(json.dumps([platform.python_version(), told]))
"""


def python_of(kernel: str) -> str:
    """The Python that a kernel of this name runs in; this one where that is not known."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        command = KernelSpecManager().get_kernel_spec(kernel).argv[:1]
    except NoSuchKernel:
        return sys.executable
    # a bare `python` is taken for the one that starts the kernel
    return command[0] if command and Path(command[0]).is_absolute() else sys.executable


def versions_of(
    recorded: Mapping[str, str], executable: str, folder: Path
) -> tuple[str, dict[str, str]]:
    """The Python and the packages of an environment.

    Args:
        recorded: versions by import name, as a run has recorded them.
        executable: the environment's Python.
        folder: where it is asked.

    Returns:
        Python's version, and versions by import name of those packages that are installed there.
        A package that tells two versions is imported, to be asked as the run was.
    """
    if executable == sys.executable:
        python, found = platform.python_version(), _installed(recorded)
    else:
        python, found = _ask(executable, [], list(recorded), folder)
    doubtful = [name for name, version in found.items() if version != recorded[name]]
    if doubtful:
        found |= _ask(executable, doubtful, [], folder)[1]
    return python, found


def versions_when_imported(
    recorded: Mapping[str, str], executable: str, folder: Path
) -> tuple[str, dict[str, str]]:
    """As `versions_of`, and those that no package of their name tells are imported, to be asked."""
    python, found = versions_of(recorded, executable, folder)
    if unknown := sorted(recorded.keys() - found.keys()):
        found |= _ask(executable, unknown, [], folder)[1]
    return python, found


def _installed(names: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except (importlib.metadata.PackageNotFoundError, ValueError):
            continue
    return found


def _ask(
    executable: str, imported: list[str], looked_up: list[str], folder: Path
) -> tuple[str, dict[str, str]]:
    command = [executable, "-c", _ASK, json.dumps(imported), json.dumps(looked_up)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_SECONDS, cwd=folder
        )
        python, versions = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return "", {}
    return str(python), dict(versions)
