"""What a checkpoint costs on a namespace of 1 GB: `make bench-state`.

Each method runs in a process of its own: the namespace is made, captured whole, then captured after
each of twenty small edits; at last the state after the 5th, 10th and 20th is restored into fresh
processes and checked there, before and after the cells that follow have run. The limit is what
writing and reading just the changed bytes takes on the same disk.

Files that were just written are read from memory by every method alike. Peak memory is what a
method holds above the same cells without it (`bare`), the first capture included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from state_cells import CUTS

METHODS = ("cellrail", "limit", "pickle")
MINUTES = ("dill",)
MB = 1e6
HEAD = (
    "method", "20 cells + flush", "slowest cell", "stored by 20", "first capture",
    "restore 5 / 10 / 20", "small value", "peak memory", "wrong after restore",
)  # fmt: skip


class Failed(RuntimeError):
    """A method's process ended badly."""


def phase(python: str, words: list[str], options: Any) -> dict[str, Any]:
    """One phase of one method: its figures."""
    script = str(Path(__file__).with_name("state_method.py"))
    command = [python, script, *words, "--scale", str(options.scale)]
    command += ["--importable"] if options.importable else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr[-3000:], file=sys.stderr)
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise Failed(f"{words[1]} failed: {lines[-1][:90]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def run(method: str, python: str, options: Any, bare: dict[str, Any]) -> dict[str, Any]:
    """All figures of one method."""
    figures: dict[str, Any] = {"restore": {}, "wrong": {}}
    with tempfile.TemporaryDirectory(prefix="cellrail-bench-") as name:
        Path(name, "expected.json").write_text(json.dumps(bare["expected"]))
        folder = str(Path(name, method))
        try:
            figures |= phase(python, [method, "capture", folder], options)
            pairs = zip(figures["peaks"], bare["held"], strict=True)
            figures["peak"] = max(peak - held for peak, held in pairs)
            for cut in CUTS:
                found = phase(python, [method, "restore", folder, "--cut", str(cut)], options)
                figures["restore"][cut] = found["seconds"]
                figures["wrong"][cut] = found["wrong"]
            figures["small"] = phase(python, [method, "small", folder], options)["seconds"]
        except Failed as error:
            figures["failed"] = str(error)
    return figures


def median(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of the numbers; the rest as in the last round."""
    told = dict(rounds[-1])
    for key, value in told.items():
        if isinstance(value, (int, float)):
            told[key] = statistics.median(each[key] for each in rounds if key in each)
    told["restore"] = {
        cut: statistics.median(each["restore"][cut] for each in rounds if cut in each["restore"])
        for cut in told["restore"]
    }
    return told


def row(method: str, found: dict[str, Any]) -> list[str]:
    """A line of the table."""
    restored = " / ".join(f"{found['restore'][c]:.2f}" if c in found["restore"] else "-"
                          for c in CUTS)  # fmt: skip
    return [
        method, _seconds(found, "edits"), _seconds(found, "slowest"), _size(found, "bytes"),
        _seconds(found, "first"), f"{restored} s", _seconds(found, "small"), _size(found, "peak"),
        _wrong(found) if method != "limit" else "-",
    ]  # fmt: skip


def _seconds(found: dict[str, Any], key: str) -> str:
    return f"{found[key]:.2f} s" if key in found else "-"


def _size(found: dict[str, Any], key: str) -> str:
    return f"{found[key] / MB:,.1f} MB" if key in found else "-"


def _wrong(found: dict[str, Any]) -> str:
    texts = [f"after {cut}: {'; '.join(told)}" for cut, told in found["wrong"].items() if told]
    if "failed" in found:
        texts.append(found["failed"])
    return " | ".join(texts) or "nothing"


def table(results: dict[str, dict[str, Any]]) -> None:
    """All methods side by side; what is wrong stands last, however long it is."""
    lines = [list(HEAD), *(row(method, found) for method, found in results.items())]
    widths = [max(len(line[place]) for line in lines) for place in range(len(HEAD) - 1)]
    for line in lines:
        cells = [f"{text:>{width}}" for text, width in zip(line[1:], widths[1:], strict=False)]
        print(" | ".join([f"{line[0]:{widths[0]}}", *cells, line[-1]]))


def main() -> None:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", default=",".join(METHODS), help="%(default)s")
    parser.add_argument("--all", action="store_true", help="those that need minutes, too")
    parser.add_argument("--kishu", metavar="PYTHON", help="a Python that has Kishu 0.3.4")
    parser.add_argument("--scale", type=float, default=1.0, help="so many times 1 GB")
    parser.add_argument(
        "--importable", action="store_true",
        help="class and function come from a module: what a cell defines, Kishu cannot store",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=1, help="medians of so many")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    pythons = dict.fromkeys(options.methods.split(","), sys.executable)
    if options.all:
        pythons |= dict.fromkeys(MINUTES, sys.executable)
    if options.kishu:
        pythons["kishu"] = options.kishu
    bare: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="cellrail-bench-") as folder:
        for python in dict.fromkeys(pythons.values()):
            bare[python] = phase(python, ["bare", "capture", folder], options)
    rounds: dict[str, list[dict[str, Any]]] = {}
    for _ in range(options.rounds):
        for method, python in pythons.items():
            print(f"{method} ...", file=sys.stderr)
            rounds.setdefault(method, []).append(run(method, python, options, bare[python]))
    results = {method: median(found) for method, found in rounds.items()}
    table(results)
    if options.json:
        for found in results.values():
            found.pop("expected", None)
        text = json.dumps({"methods": results, "scale": options.scale, "at": time.time()})
        Path(options.json).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
