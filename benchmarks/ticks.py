"""What a backfill itself costs: `make bench-ticks`.

* the plan of 10,000 ticks, in a store that knows of some of them;
* what its driver adds to each tick: claiming it, giving it away, counting what came of it, with an
  executor that executes nothing; and whether the driver's memory grows meanwhile;
* runs a second with two workers against one, in turns, of the five-cell pandas notebook;
* seconds until a progress that is asked for, a pause and a cancel are there while runs execute.
"""

from __future__ import annotations

import argparse
import collections
import datetime as dt
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from bench import aim, machine
from warm import seconds_of, write_daily
from writing import write_notebook

from cellrail import App
from cellrail.executors import Done, Executor, Task
from cellrail_state.schedules import Backfill

_DAY = {"day": "{date}"}
_FEW = 50
_STALL_SECONDS = 120.0


class Idle:
    """An executor: every run is over at once, and nothing is executed."""

    def __init__(self) -> None:
        """Nothing is given yet; how much memory the driver takes is looked at as ticks pass."""
        self._given = collections.deque[str]()
        self.ended, self.memory = 0, list[int]()

    @property
    def free(self) -> int:
        """One, as a single worker would."""
        return 0 if self._given else 1

    @property
    def busy(self) -> list[str]:
        """What was given."""
        return list(self._given)

    def submit(self, task: Task) -> None:
        """Take it."""
        self._given.append(task.run_id)

    def wait(self, seconds: float) -> list[Done]:  # noqa: ARG002 - the protocol has it
        """All that was given is over."""
        done = [Done(run_id=run_id, status="success") for run_id in self._given]
        self._given.clear()
        self.ended += len(done)
        if self.ended % 500 == 0:
            self.memory.append(psutil.Process().memory_info().rss)
        return done

    def interrupt(self, run_id: str) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """Nothing runs."""


class Driven(App):
    """An application whose backfills execute nothing."""

    idle = Idle()

    def _executor(self, backfill: Backfill) -> Executor:  # noqa: ARG002 - nothing of it matters
        return self.idle


def driving(folder: Path, ticks: int, rounds: int) -> tuple[float, float, float]:
    """Seconds of the plan, seconds that the driver adds to a tick, and growth of its memory.

    Args:
        folder: where to work.
        ticks: so many, an hour apart.
        rounds: so many plans.

    Returns:
        Medians; the growth is that of the second half of the ticks, in bytes.
    """
    path = write_daily(folder)
    hours: dict[str, Any] = {"start": "2001-01-01", "every": "hour", "parameters": _DAY}
    last = time.strftime("%Y-%m-%dT%H:00", time.gmtime(978_307_200 + 3600 * (ticks - 1)))
    with closing(App(folder / ".cellrail")) as app:
        app.backfill_start(path, end="2001-01-01T03:00", **hours)
    with closing(Driven(folder / ".cellrail")) as app:
        planned, plans = 0, list[float]()
        for _ in range(rounds):
            began = time.perf_counter()
            planned = len(app.backfill_start(path, end=last, plan=True, **hours).items)
            plans.append(time.perf_counter() - began)
        if planned != ticks:
            message = f"{planned} ticks were planned, not {ticks}"
            raise RuntimeError(message)
        took = seconds_of(lambda: app.backfill_start(path, end=last, **hours))
        memory, per_tick = app.idle.memory, took / app.idle.ended
    return statistics.median(plans), per_tick, memory[-1] - memory[len(memory) // 2]


def rates(folder: Path, rounds: int, days: int) -> dict[int, float]:
    """Runs a second with one worker and with two, in turns; medians.

    The start of the workers counts: of few runs it takes a large share.
    """
    path, seen = write_daily(folder), dict[int, list[float]]()
    first = dt.date(2013, 1, 1)
    with closing(App(folder / ".cellrail")) as app:
        for _ in range(rounds):
            for parallel in (1, 2):
                fill = app.backfill_start(
                    path, start=str(first), every="day", end=str(first + dt.timedelta(days - 1)),
                    parameters=_DAY, kernels="warm", parallel=parallel, ticks="all",
                )  # fmt: skip
                if fill.driven.ended != {"success": days}:
                    message = f"the backfill failed: {fill.driven}"
                    raise RuntimeError(message)
                seen.setdefault(parallel, []).append(fill.driven.rate)
    return {parallel: statistics.median(found) for parallel, found in seen.items()}


def _until(fits: Callable[[], object]) -> None:
    """Wait for something."""
    late = time.monotonic() + _STALL_SECONDS
    while not fits():
        if time.monotonic() > late:
            message = f"nothing came in {_STALL_SECONDS:.0f} seconds"
            raise RuntimeError(message)
        time.sleep(0.01)


def _look(app: App) -> None:
    """What `backfill show` tells."""
    app.backfill_show().counts()


def responses(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds until progress is told, and until a pause or cancel has ended what executes."""
    cells = ("day = ''", "import time; time.sleep(600)")
    write_notebook(folder / "long.ipynb", *cells, parameters=0)
    words = (
        "backfill start long.ipynb --start 2013-01-01 --end 2013-01-09 --every day "
        "-p day {date} --parallel 2 --ticks all -q"
    )
    seconds: dict[str, list[float]] = {"progress": [], "pause": [], "cancel": []}
    for number in range(rounds):
        for kernels in ("cold", "warm"):
            driver = subprocess.Popen(
                [sys.executable, "-m", "cellrail", *words.split(), "--kernels",
                 kernels], cwd=folder,
            )  # fmt: skip
            with closing(App(folder / ".cellrail")) as app:
                _until(partial(_executing, app, 2))
                seconds["progress"].append(seconds_of(partial(_look, app)))
                word = ("pause", "cancel")[number % 2]
                began = time.perf_counter()
                getattr(app, f"backfill_{word}")(now=True)
                _until(partial(_executing, app, 0))
                seconds[word].append(time.perf_counter() - began)
                driver.wait(_STALL_SECONDS)
                if word == "pause":
                    app.backfill_cancel()
    return seconds


def _executing(app: App, wanted: int) -> bool:
    """Whether so many runs are there that have not ended, all of them in their long cell."""
    if not (app.store_path / "store.json").exists():
        return False
    runs = app.runs(status="running")
    return len(runs) == wanted and all(app.show(r.run_id)["#2"].status == "running" for r in runs)


def main() -> None:
    """Measure, and hold the figures against the aims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ticks", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(machine())
    home = Path(tempfile.mkdtemp(prefix="cellrail-ticks-"))
    os.environ["CELLRAIL_KEYS"] = str(home / "keys")
    try:
        folders = [home / name for name in ("driving", "quarter", "year", "responses")]
        for folder in folders:
            folder.mkdir()
        plan, tick, growth = driving(folders[0], options.ticks, options.rounds)
        aim(f"the plan of {options.ticks} ticks takes {plan:.2f} s", plan <= 2, "2 s")
        aim(f"the driver adds {tick * 1000:.2f} ms to a tick", tick < 0.005, "5 ms")
        aim(f"its memory grows by {growth / 1e6:.1f} MB in the second half", growth < 1e7, "10 MB")
        for days, place in ((90, folders[1]), (365, folders[2])):
            found = rates(place, options.rounds, days)
            gain = found[2] / found[1]
            told = f"{found[1]:.1f} runs a second with one worker, {found[2]:.1f} with two"
            aim(f"{days} days: {told}: {gain:.2f} times", gain >= 1.4, "1.4 times")
        for word, seconds in responses(folders[3], 2 * options.rounds).items():
            told = f"{word}: {statistics.median(seconds):.3f} s, {max(seconds):.3f} at most"
            aim(told, statistics.median(seconds) < 1, "1 s")
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
