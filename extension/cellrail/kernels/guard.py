"""Whether a process can be forked: what an import may have left in it that a fork breaks.

A fork has the memory of its origin and one thread. Threads are gone in it, locks that they held
stay locked, and a library that has talked to a GPU or has a pool of workers is of no use there.
What is known to deal with that (OpenBLAS, as NumPy and SciPy bring it, and the allocators of Arrow
register handlers for forks) is on a list; every other thread, every socket or pipe, and the
libraries that say themselves that they cannot be forked, make their import one to leave to the
kernels.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Callable
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from typing import Any

#: libraries whose own documents, or makers, say that they must not be imported before a fork
UNFIT = {
    **dict.fromkeys(
        ("polars", "grpc", "ray", "pyspark", "distributed", "tensorflow", "jax", "jaxlib"),
        "its threads do not survive a fork",
    ),
    **dict.fromkeys(
        ("cupy", "cudf", "cuml", "cuda", "pycuda", "pyopencl", "rmm"), "it talks to a GPU"
    ),
}
#: whose extension modules start threads that are dealt with on a fork
_FIT_OWNERS = frozenset({"numpy", "scipy", "pandas", "pyarrow"})
_GPU_LIBRARIES = ("libcuda.so", "libcudart", "libnvidia", "libamdhip64", "libOpenCL")
_HELD = (stat.S_IFSOCK, stat.S_IFIFO)


class Guard:
    """Watches a process while modules are imported into it."""

    def __init__(self) -> None:
        self._known = self._threads()
        self._descriptors = set(_open_descriptors())
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> Guard:
        """Tell threads of libraries that deal with forks from others."""
        for method in ("create_module", "exec_module"):
            self._follow(method)
        return self

    def __exit__(self, *_: object) -> None:
        for undo in self._undo:
            undo()

    def fault(self) -> str:
        """Why the process must not be forked any more; empty where it may."""
        return (
            self._unfit()
            or self._python_threads()
            or self._native_threads()
            or self._held()
            or _gpu()
        )

    def _follow(self, method: str) -> None:
        original = getattr(ExtensionFileLoader, method)

        def followed(loader: Any, subject: Any) -> Any:
            before = self._threads()
            done = original(loader, subject)
            if loader.name.partition(".")[0] in _FIT_OWNERS:
                # what these start is dealt with where they were loaded
                self._known |= self._threads() - before
            return done

        def undo() -> None:
            setattr(ExtensionFileLoader, method, original)

        setattr(ExtensionFileLoader, method, followed)
        self._undo.append(undo)

    @staticmethod
    def _threads() -> set[str]:
        return {entry.name for entry in Path("/proc/self/task").iterdir()}

    @staticmethod
    def _unfit() -> str:
        found = [name for name in UNFIT if name in sys.modules]
        return f"{found[0]}: {UNFIT[found[0]]}" if found else ""

    @staticmethod
    def _python_threads() -> str:
        others = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
        return f"a thread runs ({', '.join(others)})" if others else ""

    def _native_threads(self) -> str:
        others = self._threads() - self._known
        return f"{len(others)} native threads of an unknown owner run" if others else ""

    def _held(self) -> str:
        new = set(_open_descriptors()) - self._descriptors
        return f"it holds {sorted(new)[0][1]} open" if new else ""


def _open_descriptors() -> list[tuple[int, str]]:
    """Sockets, pipes and the like, which two processes must not share."""
    found = []
    for entry in list(Path("/proc/self/fd").iterdir()):
        try:
            target = str(entry.readlink())
            kind = stat.S_IFMT(os.fstat(int(entry.name)).st_mode)
        except OSError:  # the listing's own
            continue
        if kind in _HELD or target.startswith("anon_inode:"):
            found.append((int(entry.name), target))
    return found


def _gpu() -> str:
    with Path("/proc/self/maps").open() as maps:
        for line in maps:
            if any(name in line for name in _GPU_LIBRARIES):
                return f"{Path(line.split()[-1]).name} is loaded"
    return ""
