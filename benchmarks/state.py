"""What a checkpoint costs on a namespace of 1 GB: `make bench-state`.

Each method runs in a process of its own: the namespace is made, captured whole, then captured after
each of twenty small edits; at last the state is restored into a fresh process and checked. The
limit is what writing and reading just the changed bytes takes on the same disk.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

METHODS = ("cellrail", "pickle")
ROWS = (
    ("first", "first capture of the whole state, s"),
    ("first_bytes", "bytes it stores, MB"),
    ("edits", "time added to the 20 cells, sum, s"),
    ("slowest", "slowest cell, s"),
    ("bytes", "bytes stored by the 20 cells, MB"),
    ("restore", "restore into a fresh kernel, every name, s"),
    ("small", "until a cell that needs a small value runs, s"),
    ("peak", "peak memory above the namespace, MB"),
    ("wrong", "wrong after the restore"),
)


def run(method: str, folder: Path, python: str) -> dict[str, object]:
    """The figures of one method."""
    script = str(Path(__file__).with_name("state_method.py"))
    figures: dict[str, object] = {}
    for phase in ("capture", "restore", "small"):
        done = subprocess.run(
            [python, script, method, phase, str(folder)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            print(done.stderr[-3000:], file=sys.stderr)
            figures["wrong"] = f"{phase} failed: {done.stderr.strip().splitlines()[-1][:60]}"
            break
        figures |= json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def main() -> None:
    """Run, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--kishu", help="a Python that has Kishu")
    options = parser.parse_args()
    methods = options.methods.split(",") + (["kishu"] if options.kishu else [])
    results = {}
    for method in methods:
        with tempfile.TemporaryDirectory() as folder:
            python = options.kishu if method == "kishu" else sys.executable
            results[method] = run(method, Path(folder), python)
    width = max(len(text) for _, text in ROWS)
    print(" " * width + "".join(f"{method:>14}" for method in methods))
    for key, text in ROWS:
        cells = "".join(f"{_told(results[m].get(key)):>14}" for m in methods)
        print(f"{text:{width}}{cells}")


def _told(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value if value is not None else "-")


if __name__ == "__main__":
    main()
