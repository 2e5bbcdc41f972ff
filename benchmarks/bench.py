"""cellrail against papermill, nbclient and nbconvert: `make bench`.

Whole processes on the same machine in the same run, interleaved, after a warm-up; medians of
several runs. The aims are ratios against the peers of this very run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from peers import PEERS, restart_latency, run_peer
from startup import import_seconds, load_ext_seconds
from writing import write_trivial

SIZES = (50, 200, 400)


def machine() -> str:
    """One line about where this was measured."""
    versions = ", ".join(f"{n} {version(n)}" for n in ("papermill", "nbclient", "ipykernel"))
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def measure(folder: Path, rounds: int) -> dict[str, dict[int, float]]:
    """Median seconds of whole processes, by peer and number of cells."""
    seconds: dict[str, dict[int, list[float]]] = {name: {} for name in PEERS}
    for size in SIZES:
        notebook = write_trivial(folder / f"cells{size}.ipynb", size)
        for number in range(rounds + 1):
            for name in PEERS:
                took = run_peer(name, notebook, folder)
                if number:  # the first round warms caches up
                    seconds[name].setdefault(size, []).append(took)
    return {
        name: {size: statistics.median(times) for size, times in by_size.items()}
        for name, by_size in seconds.items()
    }


def report(medians: dict[str, dict[int, float]]) -> None:
    """The table, and the aims."""
    print(f"{'':12}" + "".join(f"{size:>7} cells" for size in SIZES) + f"{'ms a cell at 200':>20}")
    for name, by_size in medians.items():
        row = "".join(f"{by_size[size]:>11.2f} s" for size in SIZES)
        print(f"{name:12}{row}{by_size[200] / 200 * 1000:>20.1f}")
    ratio = medians["cellrail"][200] / medians["papermill"][200]
    growth = medians["cellrail"][400] / medians["cellrail"][200]
    aim(f"at 200 cells {ratio:.3f} of papermill's wall time", ratio <= 0.25, "a quarter")
    aim(f"400 cells take {growth:.2f} times the time of 200", growth < 2.2, "less than 2.2 times")


def aim(told: str, met: bool, limit: str) -> None:
    """An aim, and whether it was met."""
    print(f"{'ok    ' if met else 'MISSED'} {told} (aim: {limit})")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="measured runs of each peer")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory(prefix="cellrail-bench-") as name:
        folder = Path(name)
        os.environ["CELLRAIL_KEYS"] = str(folder / "keys")
        medians = measure(folder, options.rounds)
        report(medians)
        latencies = [restart_latency(folder, 200) for _ in range(options.rounds)]
        latency = statistics.median(latencies)
        aim(f"restart of the last of 200 cells: it runs after {latency:.2f} s", latency <= 1.5,
            "1.5 s")  # fmt: skip
        fsyncs = count_fsyncs(folder)
        imported = import_seconds(options.rounds)
        aim(f"import cellrail: {imported * 1000:.0f} ms", imported < 0.05, "under 50 ms")
        loaded = load_ext_seconds(options.rounds)
        aim(f"%load_ext cellrail: {loaded * 1000:.0f} ms", loaded < 0.1, "under 100 ms")
        print(f"fsyncs a step: {fsyncs}")
    if options.json:
        figures = {"seconds": medians, "restart": latency, "import": imported, "load_ext": loaded}
        Path(options.json).write_text(json.dumps({**figures, "at": time.time()}), "utf-8")


def count_fsyncs(folder: Path) -> str:
    """Calls of fsync and fdatasync by the driving process for each of 200 steps (with strace)."""
    log = folder / "strace"
    command = ["strace", "-f", "-c", "-e", "trace=fsync,fdatasync", "-o", str(log)]
    run = [sys.executable, "-m", "cellrail", "run", "cells200.ipynb", "-q"]
    try:
        subprocess.run([*command, *run], cwd=folder, check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "not counted (strace is not installed)"
    calls = [int(line.split()[3]) for line in log.read_text().splitlines() if "sync" in line]
    return f"{sum(calls) / 200:.2f}"


if __name__ == "__main__":
    main()
