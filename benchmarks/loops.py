"""What loops cost: small iterations, restarts in their midst, and parallel items.

    python benchmarks/loops.py [--items 1000] [--rounds 3]

* *an iteration*: a loop of small iterations, each a job of its own, against the same loop as plain
  Python in one cell. Aim: under 15 ms an iteration.
* *a restart* nine tenths through the loop: its seconds, and what it executed (told by a file that
  the body appends to) and recorded. Aim: nothing before the cut.
* *parallel items*: seconds for an item in a kernel that serves several, and in a fresh kernel.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat

from cellrail import App

_BODY = (
    "score = sum(k * k for k in range(item, item + 50))\nwith open('w.txt', 'a') as f: f.write('x')"
)
_LOOP = "%%step loop --foreach item in items --collect score\n" + _BODY
_BARE = (
    "import time\nstarted, scores = time.perf_counter(), []\nfor item in items:\n"
    + "".join(f"    {line}\n" for line in _BODY.splitlines())
    + "    scores.append(score)\nprint(time.perf_counter() - started)"
)
_AIM_MS = 15.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="what loops cost")
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = [measure(given.items) for _ in range(given.rounds)]
    told = {key: statistics.median(round_[key] for round_ in found) for key in found[0]}
    told |= parallel()
    if given.json:
        print(json.dumps(told))
        return
    print(f"loop of {given.items} items, medians of {given.rounds} rounds")
    for key, value in told.items():
        print(f"  {key:42} {value:10.3f}" if isinstance(value, float) else f"  {key:42} {value:6d}")
    verdict = "met" if told["ms an iteration above the bare loop"] < _AIM_MS else "MISSED"
    print(f"aim: under {_AIM_MS:g} ms an iteration: {verdict}")


def measure(items: int) -> dict[str, Any]:
    """One round."""
    with tempfile.TemporaryDirectory() as folder:
        home, os_cwd = Path(folder), Path.cwd()
        app = App(home / ".cellrail")
        os.chdir(home)
        try:
            return _measure(app, home, items)
        finally:
            os.chdir(os_cwd)


def _measure(app: App, home: Path, items: int) -> dict[str, Any]:
    bare = app.run(_notebook(home / "bare.ipynb", f"items = range({items})", _BARE))
    own = float("".join(o.get("text", "") for o in bare["#2"].outputs))
    _count(home)
    path = _notebook(home / "loop.ipynb", f"items = range({items})", _LOOP, "print(len(score))")
    run = app.run(path)
    assert run.status == "success", run.cause
    assert _count(home) == items
    looped = _span(app, run.id)
    cut = items * 9 // 10
    began = time.perf_counter()
    again = app.restart(run.id, from_step=f"loop[{cut}]")
    restart = time.perf_counter() - began
    assert again.status == "success", again.cause
    executed = _count(home)
    jobs = sum(line["type"] == "finished" for line in app.journal(again.id))
    return {
        "ms an iteration of the bare loop": 1000 * own / items,
        "ms an iteration above the bare loop": 1000 * (looped - own) / items,
        "restart at nine tenths, s": restart,
        "restart: ms an executed iteration": 1000 * _span(app, again.id) / (items - cut),
        "restart: executed before the cut": executed - (items - cut),
        "restart: jobs beside the items'": jobs - (items - cut),
    }


def _span(app: App, run_id: str) -> float:
    """Seconds from the first job of the loop that was executed to its last."""
    jobs = [
        line for line in app.journal(run_id) if line["type"] == "finished" and line["step"] == 2
    ]
    return float(jobs[-1]["time"] - jobs[0]["started"])


def parallel(items: int = 12) -> dict[str, Any]:
    """What an item of a parallel loop costs in a kernel that serves several, and in its own."""
    found = {}
    bodies = {
        "s an item, kernel put back": "score = item",
        # what it leaves in the process makes its kernel unfit for another
        "s an item, fresh kernel": "import os\nos.environ['LEFT'] = str(item)\nscore = item",
    }
    for name, body in bodies.items():
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            loop = "%%step loop --foreach item in items --collect score --parallel 1\n" + body
            app = App(home / ".cellrail")
            path = _notebook(home / "p.ipynb", f"items = range({items})\nbase = [0] * 1000", loop)
            run = app.run(path)
            assert run.status == "success", run.cause
            found[name] = _span(app, run.id) / items
    return found


def _count(home: Path) -> int:
    """How often the body ran since this was last asked."""
    file = home / "w.txt"
    count = file.stat().st_size if file.exists() else 0
    file.unlink(missing_ok=True)
    return count


def _notebook(path: Path, *sources: str) -> Path:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])
    notebook.metadata["kernelspec"] = {
        "name": "python3", "display_name": "Python 3", "language": "python",
    }  # fmt: skip
    nbformat.write(notebook, path)
    return path


if __name__ == "__main__":
    main()
