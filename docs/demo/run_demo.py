"""The main job, on the real flights of 2013: run, fail, mend, restart, compare.

Everything is done with the command line, as a user would; every claim is checked, and a claim that
is false ends the demo with exit code 1.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OUT = Path(sys.argv[2]) if "--out" in sys.argv else ROOT / "out" / "demo"
DAY = "2013-02-09"  # the day after a blizzard: 393 of 684 flights were cancelled
CELLRAIL = [sys.executable, "-m", "cellrail"]

SOUND = 'flown["late"] = flown["arr_delay"] > late_minutes'
# a cancelled flight has no departure time, and NaN is no integer
BROKEN = 'picked["departed"] = picked["dep_time"].astype(int) // 100\n' + SOUND
MENDED = 'flown["departed"] = flown["dep_time"].astype(int) // 100\n' + SOUND


def say(text: str) -> None:
    """Tell the story."""
    print(f"\n== {text}", flush=True)


def cellrail(*words: str, expect: int = 0) -> dict[str, Any]:
    """Run a command, show it, and return its JSON."""
    print("$ cellrail", *words, flush=True)
    done = subprocess.run(
        [*CELLRAIL, *words, "--json"], cwd=OUT, capture_output=True, text=True, check=False
    )
    claim(done.returncode == expect, f"exit code {expect} (got {done.returncode}) {done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def claim(holds: bool, text: str) -> None:
    """Check a claim."""
    if not holds:
        print(f"FALSE: {text}", file=sys.stderr)
        sys.exit(1)


def edit(path: Path, old: str, new: str) -> None:
    """Change a cell of a notebook, as a person would."""
    notebook = json.loads(path.read_text("utf-8"))
    changed = 0
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if old in source:
            cell["source"] = source.replace(old, new)
            changed += 1
    claim(changed == 1, "the edit touched one cell")
    path.write_text(json.dumps(notebook, indent=1), "utf-8")


def show(run: dict[str, Any]) -> None:
    """The steps of a run."""
    for step in run["steps"]:
        took = "" if step["seconds"] is None else f"{step['seconds']:.2f} s"
        print(f"  #{step['number']:<3} {step['name']:<11} {step['status']:<8} {took:<8}", end="")
        print(step["cause"][:70])


def main() -> None:
    """Tell the story."""
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    os.environ.setdefault("CELLRAIL_KEYS", str(OUT / "keys"))
    notebook = OUT / "daily_delays.ipynb"
    shutil.copy(ROOT / "notebooks" / notebook.name, notebook)
    edit(notebook, SOUND, BROKEN)

    say(f"a daily pipeline over 336,776 real flights, for {DAY}; a column was added yesterday")
    failed = cellrail("run", notebook.name, "night.ipynb", "-p", "day", DAY, expect=1)
    show(failed)
    broken = next(step for step in failed["steps"] if step["status"] == "failed")
    claim(broken["name"] == "clean", "the step `clean` failed")

    say("why? cancelled flights have no departure time")
    print("  " + cellrail("show", failed["run_id"], "clean")["cause"])

    say("mend that cell, look at the plan, and go on from there")
    edit(notebook, BROKEN, MENDED)
    plan = cellrail("restart", notebook.name, "--plan")["plan"]
    for step in plan["steps"]:
        print(f"  {step['label']:<11} {step['fate']:<9} {step['reason']}")
    began = time.monotonic()
    mended = cellrail("restart", notebook.name, "morning.ipynb")
    took = time.monotonic() - began
    show(mended)
    claim(mended["status"] == "success", "the restarted run is a success")
    claim(mended["origin"]["run_id"] == failed["run_id"], "it knows where it comes from")

    jobs = {step["name"]: step["job_id"] for step in failed["steps"]}
    kept = [step for step in mended["steps"] if step["status"] == "kept"]
    claim([s["name"] for s in kept] == ["parameters", "load", "pick"], "three steps were kept")
    claim(all(s["job_id"] == jobs[s["name"]] for s in kept), "their jobs are the same")
    print(f"  kept: {', '.join(s['name'] for s in kept)} (the same jobs); {took:.1f} s in all")

    say("does it equal a run that never failed?")
    whole = cellrail("run", notebook.name, "witness.ipynb", "-p", "day", DAY)
    diff = cellrail("diff", mended["run_id"], whole["run_id"])
    claim(diff["equal"], f"outputs and variables are equal: {diff}")
    print("  equal: every output and every variable of every step")

    say("look into a DataFrame as it stood after a step")
    query = "SELECT count(*) AS flights, max(arr_delay) AS worst FROM flown"
    rows = cellrail("sql", query, "--run", mended["run_id"], "--step", "clean")["rows"]
    print(f"  {query}\n  {rows[0]}")
    claim(rows[0]["flights"] > 0, "the table has rows")
    print(f"\nthe notebooks and the store are in {os.path.relpath(OUT)}")


if __name__ == "__main__":
    main()
