"""Checkpoints on notebooks as people write them: `make bench-exploring`.

Two notebooks, one that explores a table with many plots (33 cells) and one that prepares data and
fits models (83 cells), are executed in turn: by cellrail, by cellrail with `--no-checkpoint` on
every cell (the same driver and the same kernel, bare), and by nbclient. Whole processes; medians.
Then the run is restarted at several cuts and compared with the uninterrupted one. What differs
between two uninterrupted runs as well (times that a grid search measures) is not held against it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import exploring_houses
import exploring_housing
import nbformat

NOTEBOOKS = {"exploring, 33 cells": exploring_houses, "models, 83 cells": exploring_housing}
AIM = 1.10
_CELLRAIL = [sys.executable, "-m", "cellrail"]
#: executes a notebook in a folder with a kernel of this very Python; with Kishu where asked for
_NBCLIENT = """
import os, sys, nbformat
from nbclient import NotebookClient
os.chdir(sys.argv[1])
nb = nbformat.read("notebook.ipynb", 4)
if sys.argv[2:]:
    path = os.path.abspath("kishu.ipynb")
    nbformat.write(nbformat.v4.new_notebook(), path)
    os.environ |= {"KISHU_PATH_ROOT": os.getcwd(), "ENV_KISHU_TEST_MODE": "1",
                   "TEST_NOTEBOOK_PATH": path}
    attach = nbformat.v4.new_code_cell(f"import kishu\\nkishu.init_kishu({path!r})")
    nb.cells.insert(0, attach)
NotebookClient(nb, kernel_name="python3").execute()
nbformat.write(nb, "out.ipynb")
"""


class Took(NamedTuple):
    """Time on the clock, and of processors: the latter suffers less from a busy machine."""

    seconds: float
    cpu: float


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Bench:
    """One notebook in a folder of its own."""

    def __init__(self, source: ModuleType, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        source.write_data(folder)
        self.cells = len(source.CELLS)
        _write(folder / "notebook.ipynb", source.CELLS)
        _write(folder / "bare.ipynb", source.CELLS, options="--no-checkpoint")
        self.runs: list[dict[str, Any]] = []

    def take(self, command: list[str]) -> Took:
        """What a contestant's process takes."""
        began, before = time.perf_counter(), _cpu()
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        took = Took(time.perf_counter() - began, _cpu() - before)
        if done.returncode:
            raise RuntimeError(f"{command[:4]}: {(done.stderr or done.stdout)[-1500:]}")
        if "--json" in command:
            self.runs.append(json.loads(done.stdout))
        return took

    def contestants(self, kishu: str | None) -> dict[str, list[str]]:
        """Name -> command."""
        here = str(self.folder)
        found = {
            "bare": [*_CELLRAIL, "run", "bare.ipynb", "out-bare.ipynb", "-q"],
            "cellrail": [*_CELLRAIL, "run", "notebook.ipynb", "out-cellrail.ipynb", "--json"],
            "nbclient": [sys.executable, "-c", _NBCLIENT, here],
        }
        if kishu:
            found["kishu's nbclient"] = [kishu, "-c", _NBCLIENT, here]
            found["kishu"] = [kishu, "-c", _NBCLIENT, here, "kishu"]
        return found

    def captures(self) -> list[tuple[float, str, str]]:
        """What the checkpoints of the last run took, the dearest first."""
        command = [*_CELLRAIL, "journal", self.runs[-1]["run_id"]]
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, check=True
        )  # fmt: skip
        found = []
        for line in done.stdout.splitlines():
            record = json.loads(line)
            delta = record.get("delta") or {}
            if delta:
                names = ", ".join(sorted(delta.get("variables", {})))
                found.append((delta.get("seconds", 0.0), f"#{record['step']}", names))
        return sorted(found, reverse=True)

    def diff(self, run: str, other: str) -> dict[str, set[str]]:
        """Step -> what differs there between two runs."""
        done = subprocess.run(
            [*_CELLRAIL, "diff", run, other, "--json"],
            cwd=self.folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode > 1:
            raise RuntimeError(done.stderr[-1500:])
        found = {}
        for step in json.loads(done.stdout)["steps"]:
            if not step["equal"]:
                what = set(step["variables"])
                what |= set() if step["outputs_equal"] else {"its outputs"}
                found[step["step"]] = what or {"its status"}
        return found

    def restart(self, cut: int) -> tuple[float, dict[str, set[str]]]:
        """Restart there: seconds of the whole process, and what differs from the first run."""
        command = [*_CELLRAIL, "restart", self.runs[0]["run_id"], "out-restart.ipynb"]
        seconds = self.take([*command, "--from", f"#{cut}", "--json"]).seconds
        new = self.runs.pop()
        statuses = [step["status"] for step in new["steps"]]
        if statuses[: cut - 1] != ["kept"] * (cut - 1):
            return seconds, {"all": {f"{statuses.count('kept')} steps were kept"}}
        return seconds, self.diff(self.runs[0]["run_id"], new["run_id"])


def _write(path: Path, cells: tuple[str, ...], *, options: str = "") -> None:
    made = []
    for number, source in enumerate(cells, 1):
        cell = nbformat.v4.new_code_cell(source.strip(), id=f"cell-{number}")
        if options:
            cell.metadata["tags"] = [f"step:cell{number}"]
            cell.metadata["cellrail"] = {"options": options}
        made.append(cell)
    notebook = nbformat.v4.new_notebook(cells=made)
    notebook.metadata["kernelspec"] = {
        "name": "python3", "display_name": "Python 3", "language": "python",
    }  # fmt: skip
    nbformat.write(notebook, path)


def measure(bench: Bench, options: Any) -> dict[str, Any]:
    """Run the contestants in turn, then restart."""
    contestants = bench.contestants(options.kishu)
    bench.take(contestants["bare"])  # warms the caches of the file system up
    times: dict[str, list[Took]] = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for name, command in contestants.items():
            times[name].append(bench.take(command))
    while len(bench.runs) < 2:
        bench.take(contestants["cellrail"])
    figures: dict[str, Any] = {
        name: statistics.median(each.seconds for each in took) for name, took in times.items()
    }
    figures["ratio"] = figures["cellrail"] / figures["bare"]
    figures["cpu"] = {
        name: statistics.median(each.cpu for each in took) for name, took in times.items()
    }
    figures["captures"] = bench.captures()
    noise = bench.diff(bench.runs[0]["run_id"], bench.runs[1]["run_id"])
    figures["noise"] = {step: sorted(what) for step, what in noise.items()}
    figures["restarts"] = {}
    cuts = {round(bench.cells * (place + 1) / options.cuts) for place in range(options.cuts)}
    for cut in sorted(cuts):
        took, found = bench.restart(cut)
        wrong = {step: sorted(what - noise.get(step, set())) for step, what in found.items()}
        wrong = {step: what for step, what in wrong.items() if what}
        figures["restarts"][cut] = {"seconds": took, "wrong": wrong}
    return figures


def report(name: str, figures: dict[str, Any], dearest: int) -> None:
    """What was found, a line each."""
    print(f"\n{name}")
    ratio = figures["ratio"]
    told = f"bare {figures['bare']:.2f} s, cellrail {figures['cellrail']:.2f} s: {ratio:.3f}"
    print(f"{'ok    ' if ratio <= AIM else 'MISSED'} {told} (aim: at most {AIM:.2f})")
    cpu = figures["cpu"]
    told = f"bare {cpu['bare']:.2f} s, cellrail {cpu['cellrail']:.2f} s"
    print(f"       of processors {told}: {cpu['cellrail'] / cpu['bare']:.3f}")
    print(f"       nbclient {figures['nbclient']:.2f} s")
    if "kishu" in figures:
        alone, kept = figures["kishu's nbclient"], figures["kishu"]
        print(f"       its Python alone {alone:.2f} s, Kishu {kept:.2f} s: {kept / alone:.3f}")
    captures = figures["captures"]
    print(f"       all captures {sum(each[0] for each in captures):.2f} s; the dearest:")
    for seconds, step, names in captures[:dearest]:
        print(f"         {seconds:6.3f} s {step:4} {names[:70]}")
    if figures["noise"]:
        print(f"       differs between uninterrupted runs: {figures['noise']}")
    for cut, found in figures["restarts"].items():
        verdict = f"differs: {found['wrong']}" if found["wrong"] else "outputs and variables equal"
        word = "MISSED" if found["wrong"] else "ok    "
        print(f"{word} restart from #{cut}, {found['seconds']:.2f} s: {verdict}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="measured runs of each contestant")
    parser.add_argument("--cuts", type=int, default=4, help="restart at so many places")
    parser.add_argument("--only", default="", help="notebooks whose name contains this")
    parser.add_argument("--dearest", type=int, default=5, help="tell so many captures")
    parser.add_argument("--kishu", metavar="PYTHON", help="a Python that has Kishu 0.3.4")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    if importlib.util.find_spec("seaborn") is None:
        parser.error("the notebooks draw with seaborn: pip install seaborn")
    results = {}
    with tempfile.TemporaryDirectory(prefix="cellrail-bench-") as folder:
        os.environ["CELLRAIL_KEYS"] = str(Path(folder, "keys"))
        for number, (name, source) in enumerate(NOTEBOOKS.items()):
            if options.only in name:
                bench = Bench(source, Path(folder, f"notebook{number}"))
                results[name] = measure(bench, options)
                report(name, results[name], options.dearest)
    if options.json:
        text = json.dumps({"notebooks": results, "at": time.time()})
        Path(options.json).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
