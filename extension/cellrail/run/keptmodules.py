"""Local modules as they were: a backfill keeps those of its start, whatever becomes of their files.

A module is found as ever, by the paths of the kernel; where what is found lies in the notebook's
folder and was kept, its code is what was kept. All else is as without: its `__file__`, its package,
files that lie beside it, and the text that tracebacks and `inspect` show.
"""

from __future__ import annotations

import importlib.util
import linecache
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import blake3


def told(
    folder: Path, kept: Path | None, modules: Mapping[int, Mapping[str, str]]
) -> dict[str, Any]:
    """What a kernel's hooks are told of modules that are to be as they were.

    Args:
        folder: the notebook's, where they lie.
        kept: the folder that holds them as they were; None where they are taken as they are.
        modules: their digests, by step number and name.
    """
    if kept is None:
        return {}
    digests = {name: digest for step in modules.values() for name, digest in step.items()}
    return {"modules": {"folder": str(folder), "kept": str(kept), "digests": digests}}


def install(modules: Mapping[str, Any]) -> None:
    """In a kernel: import these modules as they were (see `told`)."""
    sys.meta_path.insert(0, KeptFinder(modules))


class KeptFinder:
    """Finds modules that were kept."""

    def __init__(self, modules: Mapping[str, Any]) -> None:
        """Know them, as `told` tells them."""
        self._folder, self._kept = os.path.realpath(modules["folder"]), Path(modules["kept"])
        self._digests: Mapping[str, str] = modules["digests"]

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module, where it is one of them; None leaves it to the other finders."""
        if name not in self._digests:
            return None
        places = [f"{name.replace('.', os.sep)}.py", f"{name.replace('.', os.sep)}/__init__.py"]
        place = next((one for one in places if (self._kept / one).is_file()), None)
        if place is None:
            return None
        original = os.path.join(self._folder, place)  # noqa: PTH118 - as an import writes it
        found = PathFinder.find_spec(name, path, target)
        if found is not None and found.origin is not None:
            if os.path.realpath(found.origin) != os.path.realpath(original):
                return None  # another one comes first
            original = found.origin
        elif not self._looks_here(path):
            return None
        loader = KeptLoader(name, original, self._kept / place, self._digests[name])
        return importlib.util.spec_from_file_location(name, original, loader=loader)

    def _looks_here(self, path: Sequence[str] | None) -> bool:
        """Of a file that is gone: whether it would have been looked for there."""
        folders = {os.path.realpath(entry or os.curdir) for entry in path or sys.path}
        return any(folder.startswith(self._folder) for folder in folders)


class KeptLoader(SourceFileLoader):
    """Loads a module from its file's bytes as they were."""

    def __init__(self, name: str, path: str, kept: Path, digest: str) -> None:
        """Know where they are.

        Args:
            name: the module's.
            path: the file that it stands for.
            kept: the file that holds the bytes.
            digest: of the bytes.
        """
        super().__init__(name, path)
        self._kept, self._digest = kept, digest

    def get_code(self, fullname: str) -> CodeType:
        """Its code, compiled; no file of compiled code is read or written."""
        del fullname
        source = self._bytes()
        text = importlib.util.decode_source(source)
        # without a time it is not compared with the file
        linecache.cache[self.path] = (len(source), None, text.splitlines(keepends=True), self.path)
        code: CodeType = self.source_to_code(source, self.path)
        return code

    def get_source(self, fullname: str) -> str:
        """Its text."""
        del fullname
        return importlib.util.decode_source(self._bytes())

    def _bytes(self) -> bytes:
        source = self._kept.read_bytes()
        if blake3.blake3(source).hexdigest() != self._digest:
            message = f"{self._kept} is not the module that was kept"
            raise ImportError(message, name=self.name, path=self.path)
        return source
