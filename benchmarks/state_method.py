"""One method's capture or restore of the 1 GB namespace, in a process of its own."""

from __future__ import annotations

import json
import pickle
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

from state_cells import CHECK, EDITS, MAKE, SETUP

MB = 1e6


class Memory:
    """The most memory that this process held in between."""

    def __init__(self) -> None:
        self.base = self.peak = self.now()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="cellrail-bench", daemon=True)
        self._thread.start()

    @staticmethod
    def now() -> int:
        """Bytes of resident memory."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.peak = max(self.peak, self.now())

    def above(self) -> float:
        """Megabytes above what was there at the start."""
        self._stop.set()
        self._thread.join()
        return (self.peak - self.base) / MB


def shell() -> Any:
    """An IPython shell without a front end."""
    from IPython.core.interactiveshell import InteractiveShell

    made = InteractiveShell.instance()
    made.user_ns["__name__"] = "__main__"
    return made


def cell(ip: Any, source: str) -> None:
    """Execute a cell; its failure is ours."""
    ip.run_cell(source, store_history=True).raise_error()


# --- cellrail --------------------------------------------------------------------------------


def _ours(ip: Any, folder: Path) -> Any:
    from cellrail.run.shellstate import ShellState
    from cellrail_state.ambient import Base
    from cellrail_state.objects import Objects

    return ShellState(ip, Objects(folder / "objects"), base=Base.now())


def cellrail_capture(folder: Path) -> dict[str, Any]:
    """Capture as a run does: with the names that each cell's code uses."""
    import msgspec

    from cellrail.notebook.reads import names_of

    ip = shell()
    state = _ours(ip, folder)
    deltas = []

    def capture(source: str, *, last: bool = False) -> float:
        names = names_of(source)
        touched = None if names.opaque else names.reads | names.writes
        started = time.perf_counter()
        deltas.append(state.delta(touched=touched, last=last))
        assert not deltas[-1].failure, deltas[-1].failure
        return time.perf_counter() - started

    cell(ip, SETUP)
    capture(SETUP)
    cell(ip, MAKE)
    first = capture(MAKE)
    memory = Memory()
    took = []
    for place, source in enumerate(EDITS):
        cell(ip, source)
        took.append(capture(source, last=place == len(EDITS) - 1))
    above = memory.above()
    cell(ip, CHECK)
    (folder / "checkpoint.json").write_bytes(msgspec.json.encode(state.current))
    for source, seconds, delta in zip(EDITS, took, deltas[2:], strict=True):
        told = f"{seconds:7.3f} s {delta.stored_bytes / MB:8.2f} MB audited={delta.audited}"
        print(told, source.splitlines()[0], delta.missed or "", file=sys.stderr)
    return {
        "first": first, "first_bytes": deltas[1].stored_bytes / MB, "edits": sum(took),
        "slowest": max(took), "bytes": sum(d.stored_bytes for d in deltas[2:]) / MB, "peak": above,
    }  # fmt: skip


def _order(folder: Path) -> dict[str, Any]:
    checkpoint = json.loads((folder / "checkpoint.json").read_bytes())
    return {
        "command": "restore", "checkpoint": checkpoint, "keep": [], "magics": [], "inputs": {},
        "execution_count": 30, "python": "",
    }  # fmt: skip


def cellrail_restore(folder: Path) -> dict[str, Any]:
    """Until every name was touched."""
    ip = shell()
    state = _ours(ip, folder)
    order = _order(folder)
    started = time.perf_counter()
    state.carry_out(order)
    state.carry_out({"command": "finish", "checkpoint": order["checkpoint"]})
    seconds = time.perf_counter() - started
    cell(ip, CHECK)
    return {"restore": seconds, "wrong": "nothing"}


def cellrail_small(folder: Path) -> dict[str, Any]:
    """Until a cell that needs a small value has run."""
    ip = shell()
    state = _ours(ip, folder)
    order = _order(folder)
    started = time.perf_counter()
    state.carry_out(order)
    state.carry_out({"command": "finish", "checkpoint": order["checkpoint"]})
    cell(ip, "lookup['step'] += 1")
    return {"small": time.perf_counter() - started}


# --- plain pickle ----------------------------------------------------------------------------


def _names(ip: Any) -> dict[str, Any]:
    import types

    from cellrail.run.shellspace import user_names

    return {n: v for n, v in user_names(ip).items() if not isinstance(v, types.ModuleType)}


def pickle_capture(folder: Path) -> dict[str, Any]:
    """The whole namespace after each cell, as cloudpickle writes it."""
    import os

    import cloudpickle

    ip = shell()
    sizes = []

    def capture() -> float:
        started = time.perf_counter()
        path = folder / f"{len(sizes)}.pickle"
        with path.open("wb") as file:
            cloudpickle.dump(_names(ip), file, protocol=5)
            file.flush()
            os.fsync(file.fileno())
        sizes.append(path.stat().st_size)
        if len(sizes) > 2:
            (folder / f"{len(sizes) - 2}.pickle").unlink()
        return time.perf_counter() - started

    cell(ip, SETUP)
    cell(ip, MAKE)
    first = capture()
    memory = Memory()
    took = []
    for source in EDITS:
        cell(ip, source)
        took.append(capture())
    (folder / "last").write_text(str(len(sizes) - 1))
    return {
        "first": first, "first_bytes": sizes[0] / MB, "edits": sum(took), "slowest": max(took),
        "bytes": sum(sizes[1:]) / MB, "peak": memory.above(),
    }  # fmt: skip


def pickle_restore(folder: Path) -> dict[str, Any]:
    """Load the whole namespace."""
    ip = shell()
    started = time.perf_counter()
    with (folder / f"{(folder / 'last').read_text()}.pickle").open("rb") as file:
        ip.user_ns.update(pickle.load(file))
    seconds = time.perf_counter() - started
    cell(ip, "import numpy as np")
    ran = [ip.run_cell(line, silent=True) for line in CHECK.strip().splitlines()]
    wrong = [result for result in ran if not result.success]
    return {"restore": seconds, "wrong": f"{len(wrong)} checks" if wrong else "nothing"}


def pickle_small(folder: Path) -> dict[str, Any]:
    """There is no part of it that could be loaded alone."""
    figures = pickle_restore(folder)
    return {"small": figures["restore"]}


def main() -> None:
    """Run one phase; the last line on stdout is JSON."""
    method, phase, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    figures = globals()[f"{method}_{phase}"](folder)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
