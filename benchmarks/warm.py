"""What a warm kernel saves: `make bench-warm`.

Papermill and cellrail take turns on the same machine, so that whatever else it does befalls both:
the aims are ratios. Three measures:

* runs of a five-cell pandas notebook with the day as a parameter, one worker, recorded and
  checkpointed, against `papermill.execute_notebook` in a process that stays;
* seconds from asking for a kernel to the moment when cells can be sent;
* a recorded trivial cell: what each further cell adds to a run.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import aim, machine
from writing import write_notebook, write_trivial

from cellrail import App
from cellrail.kernels.supply import Wanted, WarmSupply
from cellrail.run import prepare

CELLS = (
    "import pandas as pd\nimport numpy as np",
    "day = '2013-01-01'",
    "visits = pd.DataFrame({'shop': np.arange(5000) % 7, 'spent': np.arange(5000) % 97})\n"
    "visits['day'] = pd.Timestamp(day)",
    "by_shop = visits.groupby('shop').spent.agg(['sum', 'mean'])",
    "by_shop.describe()",
)


def write_daily(folder: Path) -> Path:
    """Write the five-cell notebook."""
    return write_notebook(folder / "daily.ipynb", *CELLS, parameters=1)


def seconds_of(act: Callable[[], object]) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def rates(folder: Path, rounds: int, each: int) -> tuple[list[float], list[float]]:
    """Seconds of a run: papermill's, and cellrail's with warm kernels, in turns.

    Args:
        folder: where to work.
        rounds: turns of each.
        each: runs of cellrail in a turn.
    """
    import papermill

    path, app = write_daily(folder), App(folder / ".cellrail")
    logging.getLogger("papermill").setLevel(logging.ERROR)
    theirs: list[float] = []
    ours: list[float] = []

    def execute(number: int) -> None:
        papermill.execute_notebook(
            str(path), str(folder / "out.ipynb"), parameters={"day": f"2013-02-{number % 28 + 1}"},
            progress_bar=False, log_output=False,
        )  # fmt: skip

    def run(number: int) -> None:
        day = f"2013-03-{number % 28 + 1:02}"
        done = app.run(path, parameters={"day": day}, kernels="warm")
        if done.status != "success":
            message = f"the run failed: {done.cause}"
            raise RuntimeError(message)

    try:
        run(0)
        execute(0)
        for number in range(rounds):
            theirs.append(seconds_of(lambda n=number: execute(n)))  # type: ignore[misc]
            ours += [seconds_of(lambda n=n: run(n)) for n in range(each)]  # type: ignore[misc]
    finally:
        app.close()
    return theirs, ours


def readiness(folder: Path, rounds: int) -> list[float]:
    """Seconds from asking for a kernel to its being ready, the process to fork from being there."""
    supply, seconds = WarmSupply(), []
    wanted = Wanted(
        name="python3", cwd=folder, environment=prepare.kernel_environment(), imports=("pandas",)
    )
    settings = {"objects": str(folder / "objects"), "limits": {}, "secrets": []}
    try:
        for _ in range(rounds + 1):
            began = time.perf_counter()
            kernel = supply.start(wanted).kernel
            kernel.wait_ready(settings)
            seconds.append(time.perf_counter() - began)
            kernel.shutdown()
    finally:
        supply.close()
    return seconds[1:]


def cell_seconds(folder: Path, rounds: int) -> list[float]:
    """Seconds that a recorded trivial cell adds: the difference of 20 and 220 of them."""
    app, seconds = App(folder / ".cellrail"), []
    small = write_trivial(folder / "small.ipynb", 20)
    large = write_trivial(folder / "large.ipynb", 220)
    try:
        app.run(small, kernels="warm")
        for _ in range(rounds):
            few = seconds_of(lambda: app.run(small, kernels="warm"))
            many = seconds_of(lambda: app.run(large, kernels="warm"))
            seconds.append((many - few) / 200)
    finally:
        app.close()
    return seconds


def main() -> None:
    """Measure, and hold the figures against the aims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    print(machine())
    folder = Path(tempfile.mkdtemp(prefix="cellrail-warm-"))
    try:
        theirs, ours = map(statistics.median, rates(folder, rounds, 5))
        print(f"a run: papermill {theirs:.3f} s, cellrail warm {ours:.3f} s")
        aim(f"{theirs / ours:.1f} times papermill's rate", theirs / ours >= 15, "15 times")
        ready = statistics.median(readiness(folder, rounds))
        aim(f"a kernel is ready within {ready * 1000:.0f} ms", ready <= 0.1, "100 ms")
        cell = statistics.median(cell_seconds(folder, max(1, rounds // 3)))
        aim(f"a recorded trivial cell takes {cell * 1000:.1f} ms", cell < 0.004, "4 ms")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
