"""One method's capture or restore of the namespace, in a process of its own."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from state_cells import CUTS, DEFINITIONS, EDITS, MAKE, MODULE, SMALL, setup
from state_methods import Cellrail, Dill, Limit, Method, Pickle
from state_shell import import_libraries, prints, shell, wrong

METHODS = {
    "bare": Method, "cellrail": Cellrail, "limit": Limit, "pickle": Pickle, "dill": Dill,
}  # fmt: skip


def made(name: str, folder: Path) -> Method:
    """The method, attached to a new shell."""
    if name == "kishu":
        from state_kishu import Kishu

        return Kishu(shell(), folder)
    return METHODS[name](shell(), folder)


def capture(method: Method, options: Any) -> dict[str, Any]:
    """Run all cells and keep the namespace after each."""
    method.run(setup(options.scale, importable=options.importable))
    base = method.memory.now()
    first = method.run(MAKE)
    held, kept, expected = [method.memory.now() - base], [], {}
    for number, source in enumerate(EDITS, 1):
        kept.append(method.run(source, last=number == len(EDITS)))
        held.append(method.memory.now() - base)
        if number in CUTS:
            method.mark(number)
            if options.method == "bare":
                expected[number] = prints(method.ip)
    started = time.perf_counter()
    method.finish()
    flush = time.perf_counter() - started
    seconds = [each.seconds for each in kept]
    return {
        "first": first.seconds, "first_bytes": first.stored, "edits": sum(seconds) + flush,
        "slowest": max(seconds), "slowest_cell": EDITS[seconds.index(max(seconds))],
        "flush": flush, "bytes": sum(each.stored for each in kept), "seconds": seconds,
        "held": held, "peaks": [each.peak - base for each in (first, *kept)],
        "expected": expected,
    }  # fmt: skip


def restore(method: Method, options: Any) -> dict[str, Any]:
    """Restore at a cut; check, then run the cells that follow and check again."""
    import_libraries()
    method.prepare(options.cut)
    started = time.perf_counter()
    method.restore(options.cut)
    seconds = time.perf_counter() - started
    if options.method == "limit":
        return {"seconds": seconds, "wrong": []}
    # neither pickle keeps modules; a notebook's imports would run again
    for line in ("import numpy as np", "import pandas as pd"):
        if line.split()[1] not in method.ip.user_ns and options.method == "pickle":
            method.ip.run_cell(line)
    expected = json.loads((options.folder.parent / "expected.json").read_text())
    found = wrong(method.ip, expected[str(options.cut)])
    method.release()
    for source in EDITS[options.cut :]:
        result = method.ip.run_cell(source, store_history=True)
        if not result.success:
            raised = result.error_in_exec or result.error_before_exec
            found.append(f"then {source.splitlines()[0]!r}: {type(raised).__name__}")
    if options.cut < len(EDITS):
        later = wrong(method.ip, expected[str(len(EDITS))])
        found += [f"then {told}" for told in later if told not in found]
    return {"seconds": seconds, "wrong": found}


def small(method: Method, options: Any) -> dict[str, Any]:
    """Until a cell that needs a small value has run."""
    import_libraries()
    method.prepare(options.cut)
    started = time.perf_counter()
    method.restore_small(options.cut, SMALL)
    return {"seconds": time.perf_counter() - started}


def main() -> None:
    """Run one phase; the last line on stdout is JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("method")
    parser.add_argument("phase", choices=("capture", "restore", "small"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cut", type=int, default=CUTS[-1])
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--importable", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.importable:
        (options.folder / f"{MODULE}.py").write_text(DEFINITIONS)
        sys.path.append(str(options.folder))
    method = made(options.method, options.folder)
    phases = {"capture": capture, "restore": restore, "small": small}
    print("\n" + json.dumps(phases[options.phase](method, options)))


if __name__ == "__main__":
    main()
