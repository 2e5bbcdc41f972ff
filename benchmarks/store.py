"""A store under load, and a very large one: `make bench-store`.

1. Eight processes commit steps at once (20 kB of objects each, made durable, one append) and ingest
   at the end of each run; meanwhile this process asks for listings, and for a while another program
   holds the catalog's file open, read-write.
2. A store of 100,000 runs of ten jobs is made (`store_synth`) and asked what people ask.

Latencies are measured in this process: the start of Python is not in them.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from store_synth import synthesize

from cellrail import App
from cellrail_state.model import RunEnded, RunStatus
from cellrail_state.testing import commit, first_record, open_store

WRITERS = 8
STEPS = 40
JOBS = 10
HOLDER = "import duckdb, sys\nc = duckdb.connect(sys.argv[1])\nprint(flush=True)\ninput()"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000, help="runs of the large store")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the writers write")
    parser.add_argument("--folder", type=Path, help="keep the large store there, and use it again")
    parser.add_argument("--writer", nargs=3, metavar="X", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.writer:
        write(Path(options.writer[0]), int(options.writer[1]), float(options.writer[2]))
        return
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="cellrail-bench-") as name:
        folder = Path(name)
        os.environ.setdefault("CELLRAIL_KEYS", str(folder / "keys"))
        load(folder / "load", options.seconds)
        large(options.folder or folder / "large", options.runs)


# --- many writers ------------------------------------------------------------------------------


def write(folder: Path, number: int, seconds: float) -> None:
    """A writer's life: runs of steps, one after the other; prints the seconds of each commit."""
    store, took, count = open_store(folder), [], 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        run_id = f"20260101-{number:03d}{count:06d}-aaaa"
        count += 1
        journal = store.create_journal(first_record(run_id, steps=STEPS))
        for step in range(1, STEPS + 1):
            began = time.perf_counter()
            commit(store, journal, run_id, step, data=os.urandom(20_000))
            took.append(time.perf_counter() - began)
            journal.sync()
            time.sleep(0.02)  # the user's code
        journal.append(RunEnded(time=time.time(), status=RunStatus.SUCCESS))
        journal.close()
        store.catalog.ingest()
    print(json.dumps({"runs": count, "took": took}))


def load(folder: Path, seconds: float) -> None:
    """Writers, and whoever looks on."""
    store = open_store(folder)
    store.catalog.ingest()
    script = [sys.executable, __file__, "--writer", str(folder)]
    writers = [
        subprocess.Popen([*script, str(n), str(seconds)], stdout=subprocess.PIPE, text=True)
        for n in range(WRITERS)
    ]
    time.sleep(seconds / 5)
    free = list(asked(store.catalog.runs, seconds / 3))
    with held(store.path / "catalog.duckdb"):
        while_held = list(asked(store.catalog.runs, seconds / 3))
    told = [json.loads(writer.communicate()[0]) for writer in writers]
    assert all(writer.returncode == 0 for writer in writers)
    took = [second for one in told for second in one["took"]]
    runs = sum(one["runs"] for one in told)
    jobs = store.catalog.query("SELECT count(*) AS n FROM jobs")[0]["n"]
    print(f"\n{WRITERS} writers: {runs} runs, {len(took)} commits; in the catalog: {jobs} jobs")
    assert jobs == len(took) == runs * STEPS
    aim("commit", took, 0.050)
    aim("listing meanwhile", free, 0.200)
    aim("listing while the catalog is held", while_held, 0.200)


def asked(ask: Callable[[], object], seconds: float) -> Iterator[float]:
    """The seconds of each answer, for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        ask()
        yield time.perf_counter() - began
        time.sleep(0.1)


@contextmanager
def held(catalog: Path) -> Iterator[None]:
    """Another program has the catalog's file open."""
    while True:  # it has no lock to wait for: it tries until nobody else has the file
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(catalog)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert holder.stdout is not None
        if holder.stdout.readline():
            break
        holder.communicate()
    try:
        yield
    finally:
        holder.communicate("\n", timeout=30)


# --- a large store -----------------------------------------------------------------------------


def large(folder: Path, runs: int) -> None:
    """Make it and ask it."""
    folder.mkdir(parents=True, exist_ok=True)
    app = App(folder / ".cellrail")
    if not app.store_path.exists():
        began = time.perf_counter()
        app = synthesize(folder, runs=runs, jobs=JOBS)
        print(f"\n{runs} runs of {JOBS} jobs, made in {time.perf_counter() - began:.0f} s", end="")
        began = time.perf_counter()
        app.store.catalog.ingest()
        print(f", ingested in {time.perf_counter() - began:.0f} s", end="")
    size = (app.store.path / "catalog.duckdb").stat().st_size
    print(f"; a catalog of {size / 1e6:.0f} MB")
    questions = asked_of(app, folder)
    for name, ask in questions.items():
        aim(name, times(ask), 0.100)
    with held(app.store.path / "catalog.duckdb"):
        aim("runs while the catalog is held, first", times(app.runs, rounds=1), 0.200)
        aim("runs while the catalog is held, then", times(app.runs), 0.200)


def asked_of(app: App, folder: Path) -> dict[str, Callable[[], object]]:
    """What people ask of a store."""
    ids = app.store.run_ids()
    middle, notebook = ids[len(ids) // 2], str(folder / "flow.ipynb")
    return {
        "runs": app.runs,
        "runs NOTEBOOK": lambda: app.runs(notebook),
        "runs --label": lambda: app.runs(labels={"team": "t3"}),
        "runs --status failed": lambda: app.runs(status="failed"),
        "show last": lambda: app.show("last").to_dict(),
        "show ID": lambda: app.show(middle).to_dict(),
        "show PREFIX": lambda: app.show(middle[:-2]).to_dict(),
        "show NOTEBOOK": lambda: app.show(notebook).to_dict(),
        "restart last --plan": lambda: app.restart("last", from_step="#5", plan=True),
        "restart ID --plan": lambda: app.restart(middle, from_step="#5", plan=True),
        "sql, a count": lambda: app.sql("SELECT status, count(*) FROM jobs GROUP BY 1"),
    }


def times(ask: Callable[[], object], rounds: int = 9) -> list[float]:
    """The seconds of each of several answers."""
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        ask()
        took.append(time.perf_counter() - began)
    return took


def aim(told: str, took: list[float], limit: float) -> None:
    """Median and slowest, and whether the slowest is within the aim."""
    median, slowest = statistics.median(took) * 1000, max(took) * 1000
    most = sorted(took)[int(len(took) * 0.99)] * 1000
    met = "ok    " if slowest < limit * 1000 else "MISSED"
    print(
        f"{met} {told:38} median {median:6.1f} ms, 99 % in {most:6.1f}, slowest {slowest:6.1f} "
        f"of {len(took):5} (aim: {limit * 1000:.0f})"
    )


if __name__ == "__main__":
    main()
