"""What cellrail adds to the start of a process and of a kernel."""

from __future__ import annotations

import statistics
import subprocess
import sys

_IMPORT = "import time; t = time.perf_counter(); import cellrail; print(time.perf_counter() - t)"
_LOAD_EXT = """
import time, os
os.environ["IPYTHONDIR"] = os.environ.get("TMPDIR", "/tmp")
import ipykernel.zmqshell
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
t = time.perf_counter()
shell.run_line_magic("load_ext", "cellrail")
print(time.perf_counter() - t)
"""


def import_seconds(rounds: int) -> float:
    """Median seconds of `import cellrail` in a fresh process."""
    return _median(_IMPORT, rounds)


def load_ext_seconds(rounds: int) -> float:
    """Median seconds of `%load_ext cellrail` in a fresh shell with ipykernel's imports."""
    return _median(_LOAD_EXT, rounds)


def _median(code: str, rounds: int) -> float:
    times = []
    for _ in range(rounds + 1):
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
        times.append(float(done.stdout.split()[-1]))
    return statistics.median(times[1:])
