"""A year of daily runs, killed on the way: `make bench-year`.

    python benchmarks/year.py [--days 365] [--kills 3] [--kernels warm] [--parallel 2]

`notebooks/daily_delays.ipynb` is run for each day of 2013 by `cellrail backfill start`. On the way
the command is killed (-9): alone, with its workers, or with every process below it; then the same
command is given again. Each step tells a file outside the store that it is executed. Then the
source of one step is changed, and `--ticks stale` runs what that touches. Held against the file and
the journals:

* every tick has exactly one successful run;
* no step was executed again after it was committed, and no run committed a step twice;
* of the stale ticks only the changed step executes, and what reads what came out differently.

Exit code 1 where one of these does not hold.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import datetime as dt
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from cellrail import App
from cellrail_state.model import JobFinished, RunStatus

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "daily_delays.ipynb"
STEPS = ("load", "pick", "clean", "join", "carriers", "hours", "routes", "check", "report")
#: the step that is changed, and the only one that reads what it makes
CHANGED, READER = "hours", "report"
OLD, NEW = '["arr_delay"].median()', '["arr_delay"].mean().round(1)'
_FIRST = dt.date(2013, 1, 1)
_STALL_SECONDS = 300.0


class Broken(Exception):
    """Something that must hold does not."""


def hold(holds: object, told: str) -> None:
    """Insist."""
    if not holds:
        raise Broken(told)


class Year:
    """The backfill, in a folder of its own."""

    def __init__(self, folder: Path, *, days: int, kernels: str, parallel: int) -> None:
        """Write the notebook, each of whose steps is a witness."""
        self.folder, self.days = folder, days
        self.witness, self.notebook = folder / "witness.txt", folder / "daily.ipynb"
        last = _FIRST + dt.timedelta(days=days - 1)
        self.words = (
            "backfill", "start", "daily.ipynb", "--start", str(_FIRST), "--end", str(last),
            "--every", "day", "-p", "day", "{date:%Y-%m-%d}", "--parallel", str(parallel),
            "--kernels", kernels, "--json",
        )  # fmt: skip
        self.peak, self.kills = 0, 0
        plain = json.loads(NOTEBOOK.read_text("utf-8"))
        for cell in plain["cells"]:
            if cell["cell_type"] == "code":
                cell["outputs"], cell["execution_count"] = [], None
            if cell.get("id") in STEPS:
                cell["source"] = self._witnessed(cell["id"], "".join(cell["source"]))
        self.notebook.write_text(json.dumps(plain), "utf-8")

    def _witnessed(self, step: str, source: str) -> str:
        """The source with a line that tells the file; behind its imports, which stay the first."""
        lines = source.splitlines()
        leading = [
            n for n, ln in enumerate(lines) if ln.startswith(("import ", "from ", "# step:"))
        ]
        file = f"open({str(self.witness)!r}, 'a')"
        told = f"import time\nprint('{step}', day, time.time(), file={file})"
        place = leading[-1] + 1 if leading else 0
        return "\n".join([*lines[:place], told, *lines[place:]])

    def edit(self) -> None:
        """Change one step's source, as a person would."""
        plain = json.loads(self.notebook.read_text("utf-8"))
        (cell,) = [cell for cell in plain["cells"] if cell.get("id") == CHANGED]
        hold(OLD in cell["source"], "the step to change is another one")
        cell["source"] = cell["source"].replace(OLD, NEW)
        self.notebook.write_text(json.dumps(plain), "utf-8")

    # --- processes ---------------------------------------------------------------------------

    def start(self, *more: str) -> subprocess.Popen[str]:
        """Give the command."""
        return subprocess.Popen(
            [sys.executable, "-m", "cellrail", *self.words, *more], cwd=self.folder,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def told(self) -> list[tuple[str, str, float]]:
        """Step, day and time of each execution."""
        if not self.witness.exists():
            return []
        rows = [line.split() for line in self.witness.read_text().splitlines()]
        return [(step, day, float(moment)) for step, day, moment in rows]

    def follow(self, driver: subprocess.Popen[str], until: Callable[[], bool]) -> None:
        """Wait for something, or for the command's end; look how much memory it takes."""
        seen, moved = -1, time.monotonic()
        while driver.poll() is None and not until():
            with contextlib.suppress(psutil.Error):
                self.peak = max(self.peak, psutil.Process(driver.pid).memory_info().rss)
            executed = len(self.told())
            if executed != seen:
                seen, moved = executed, time.monotonic()
            if time.monotonic() - moved > _STALL_SECONDS:
                driver.kill()
                raise Broken(f"nothing has happened for {_STALL_SECONDS:.0f} seconds")
            time.sleep(0.05)

    def run(self, kills: int) -> float:
        """Start it, kill it on the way, start it again; seconds to its end."""
        began = time.monotonic()
        for number in range(kills):
            goal = self.days * (number + 1) // (kills + 1) * len(STEPS) + number
            driver = self.start()
            self.follow(driver, lambda goal=goal: len(self.told()) >= goal)  # type: ignore[misc]
            if driver.poll() is not None:
                raise Broken(f"it ended before it was killed: {driver.communicate()}")
            self._kill(driver, how=number % 3)
        driver = self.start()
        self._end(driver)
        return time.monotonic() - began

    def again(self) -> dict[str, Any]:
        """`--ticks stale`; what the command told."""
        return self._end(self.start("--ticks", "stale"))

    def _end(self, driver: subprocess.Popen[str]) -> dict[str, Any]:
        self.follow(driver, lambda: False)
        said, wrong = driver.communicate()
        hold(driver.returncode == 0, f"exit code {driver.returncode}: {said}{wrong}")
        told: dict[str, Any] = json.loads(said)
        return told

    def _kill(self, driver: subprocess.Popen[str], how: int) -> None:
        """Kill the command alone, with its workers, or with all that is below it."""
        victims = [psutil.Process(driver.pid)]
        if how:
            victims += victims[0].children(recursive=how == 2)
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.send_signal(signal.SIGKILL)
        driver.communicate()
        self.kills += 1

    # --- what must hold ----------------------------------------------------------------------

    def app(self) -> App:
        """The store."""
        return App(self.folder / ".cellrail")

    def check_runs(self) -> dict[str, int]:
        """Every tick has one successful run, and nothing committed was executed again."""
        app = self.app()
        days = {str(_FIRST + dt.timedelta(days=n)) for n in range(self.days)}
        runs = [app.history(row.run_id) for row in app.runs(limit=10 * self.days)]
        hold(all(run.status is RunStatus.SUCCESS for run in runs), "a run is no success")
        filled = {run.run_id: run.started.tick.moment.date().isoformat() for run in runs}
        hold(len(runs) == self.days, f"{len(runs)} runs of {self.days} ticks")
        hold({*filled.values()} == days, f"left out: {sorted(days - {*filled.values()})}")
        executed = collections.defaultdict(list)
        for step, day, moment in self.told():
            executed[step, day].append(moment)
        for run in runs:
            day = filled[run.run_id]
            labels = {info.number: info.name for info in run.started.steps}
            jobs = [r for r in app.store.records(run.run_id) if isinstance(r, JobFinished)]
            hold(len({job.step for job in jobs}) == len(jobs), f"{day}: a step committed twice")
            hold(len(jobs) == len(labels), f"{day}: {len(jobs)} steps of {len(labels)} committed")
            for job in jobs:
                moments = executed.get((labels[job.step], day), [])
                hold(moments or labels[job.step] not in STEPS, f"{day}: a step did not execute")
                late = [m for m in moments if m > job.started + job.seconds]
                hold(not late, f"{day}: {labels[job.step]} was executed after its commit")
        again = len(self.told()) - self.days * len(STEPS)
        return {"runs": len(runs), "executions": len(self.told()), "interrupted": again}

    def check_stale(self, before: int, told: dict[str, Any]) -> dict[str, int]:
        """Only what the change touches was executed, once for each tick."""
        counted = collections.Counter((step, day) for step, day, _ in self.told()[before:])
        hold(set(counted.values()) <= {1}, "a stale tick executed a step twice")
        steps = collections.Counter(step for step, _ in counted)
        hold(set(steps) <= {CHANGED, READER}, f"the change touched {sorted(steps)}")
        hold(
            steps[CHANGED] == self.days, f"{CHANGED} ran for {steps[CHANGED]} of {self.days} ticks"
        )
        hold(told["counts"] == {"success": self.days}, f"stale ticks came to {told['counts']}")
        over = self.again()
        hold(over["total"] == 0, f"{over['total']} ticks are stale still")
        return {f"{name} again": steps[name] for name in (CHANGED, READER)}


def measure(folder: Path, *, days: int, kills: int, kernels: str, parallel: int) -> dict[str, Any]:
    """The demonstration; its figures.

    Raises:
        Broken: something that must hold does not.
    """
    year = Year(folder, days=days, kernels=kernels, parallel=parallel)
    seconds = year.run(kills)
    figures: dict[str, Any] = {"seconds": round(seconds, 1), **year.check_runs()}
    before, began = len(year.told()), time.monotonic()
    year.edit()
    told = year.again()
    figures["seconds of stale"] = round(time.monotonic() - began, 1)
    figures |= year.check_stale(before, told)
    size = sum(f.stat().st_size for f in (folder / ".cellrail").rglob("*") if f.is_file())
    return {
        **figures, "kills": year.kills, "store MB": round(size / 1e6, 1),
        "coordinator MB": round(year.peak / 1e6, 1),
    }  # fmt: skip


def main() -> int:
    """Measure, check and print."""
    parser = argparse.ArgumentParser(description="a year of daily runs, killed on the way")
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--kernels", choices=["cold", "warm"], default="warm")
    parser.add_argument("--parallel", type=int, default=os.cpu_count() or 1)
    given = vars(parser.parse_args())
    with tempfile.TemporaryDirectory(prefix="cellrail-year-") as folder:
        try:
            print(json.dumps(measure(Path(folder), **given)))
        except Broken as broken:
            print(f"BROKEN: {broken}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
