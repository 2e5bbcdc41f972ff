"""What panels cost on a very large store: `make bench-panels`.

A store of 100,000 runs of ten jobs is made (`store_synth`). Then, in this process as in a
notebook, a panel is opened and followed while cells run: how long the kernel is busy with
opening it, with handing an update on, and by how much a cell that computes is held up. What the
process beside the kernel takes for a page is what a person waits.
"""

from __future__ import annotations

import argparse
import os
import platform
import queue
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from store_synth import synthesize

from cellrail import App

PAGE = {"room": "runs", "what": "page"}
QUESTIONS: dict[str, dict[str, Any]] = {
    "the newest": {},
    "page 1,000": {"offset": 50_000},
    "failed ones": {"status": "failed"},
    "by a label": {"text": "team=t3"},
    "by seconds": {"sort": "seconds"},
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="keep the store there, and use it again")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {options.runs:,} runs")
    with tempfile.TemporaryDirectory(prefix="cellrail-bench-") as name:
        folder = options.folder or Path(name)
        os.environ.setdefault("CELLRAIL_KEYS", str(folder / "keys"))
        app = App(folder / ".cellrail")
        if not (folder / ".cellrail").is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            app = synthesize(folder, runs=options.runs, jobs=10)
            app.store.catalog.ingest(seconds=600)
        measure(app, folder)


def measure(app: App, folder: Path) -> None:
    """Open a panel on a store, ask it, follow it."""
    from cellrail.panels import panel
    from cellrail.panels.plain import Plain
    from cellrail.panels.widget import Panel

    # nobody looks at this process
    Plain.has_front_end = staticmethod(lambda: True)  # type: ignore[method-assign]
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
    took: list[float] = []

    class Heard(Panel):
        def send(self, content: Any, buffers: Any = None) -> None:
            begin = time.perf_counter()
            super().send(content, buffers)
            took.append(time.perf_counter() - begin)
            if "heard" not in content:  # that somebody is there is no answer yet
                heard.put(content)

    import cellrail.panels.widget as home

    home.Panel = Heard  # type: ignore[misc]
    begin = time.perf_counter()
    shown = panel(app)
    shown.heard(shown, {**PAGE, "n": 1, "args": {}, "watch": True}, [])
    print(f"opening: the kernel is busy for {(time.perf_counter() - begin) * 1e3:.0f} ms")
    heard.get(timeout=120)
    print(f"         the first page is there after {(time.perf_counter() - begin) * 1e3:.0f} ms")
    for words, args in QUESTIONS.items():
        times = [ask(shown, heard, args) for _ in range(7)]
        print(f"page, {words}: {statistics.median(times) * 1e3:.0f} ms")

    alone = halts(10.0)
    stop = threading.Event()
    asks = threading.Thread(target=keep_asking, args=(shown, stop))
    asks.start()
    asked = halts(10.0)
    stop.set()
    asks.join()
    pages, before = drained(heard), len(took)
    runs = threading.Thread(target=keep_running, args=(app.store_path, folder, stop))
    stop.clear()
    runs.start()
    followed = halts(10.0)
    updates = len(took) - before
    shown.close()
    time.sleep(1.0)
    without = halts(10.0)
    stop.set()
    runs.join()
    print(f"handing an answer on: {max(took) * 1e3:.2f} ms at most")
    print("halts of a cell that computes, the longest and 99.9 %:")
    print(f"  by itself: {told(alone)}; while {pages} pages are asked for: {told(asked)}")
    print(f"  beside processes that run flows, without a panel: {told(without)}")
    print(f"  the same with a panel that shows them, {updates} updates: {told(followed)}")


def drained(heard: queue.SimpleQueue[Any]) -> int:
    """How many answers there were."""
    found = 0
    while not heard.empty():
        heard.get()
        found += 1
    return found


def keep_asking(shown: Any, stop: threading.Event) -> None:
    """A person who leafs through the pages."""
    while not stop.wait(0.25):
        shown.heard(shown, {**PAGE, "n": 2, "args": {"offset": 50}}, [])


def told(gaps: list[float]) -> str:
    """The longest halt, and one that is longer than nearly all."""
    ranked = sorted(gaps)
    return f"{ranked[-1] * 1e3:.1f} and {ranked[int(len(ranked) * 0.999)] * 1e3:.1f} ms"


def ask(shown: Any, heard: Any, args: dict[str, Any]) -> float:
    """Seconds until an answer is there."""
    begin = time.perf_counter()
    shown.heard(shown, {**PAGE, "n": 2, "args": args}, [])
    while heard.get(timeout=120).get("n") != 2:
        pass
    return time.perf_counter() - begin


def halts(seconds: float) -> list[float]:
    """The times in which a loop in this thread came to nothing, of a tenth of a millisecond on."""
    found, before = [0.0], time.perf_counter()
    end = before + seconds
    while before < end:
        now = time.perf_counter()
        if now - before > 1e-4:
            found.append(now - before)
        before = now
    return found


def keep_running(store: Path, folder: Path, stop: threading.Event) -> None:
    """Short runs, one after another, in other processes."""
    import subprocess
    import sys

    while not stop.is_set():
        subprocess.run(
            [sys.executable, "-m", "cellrail", "run", str(folder / "flow.ipynb"), "-q",
             "--store", str(store)],
            check=False, capture_output=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
