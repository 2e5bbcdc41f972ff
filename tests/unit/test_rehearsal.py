"""What is rehearsed before kernels are forked leaves nothing that a cell could see."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import json, os, random, sys, tempfile, threading
import numpy as np, pandas as pd
from cellrail.kernels.rehearsal import capture_scratch
def late():
    return "pandas.io.formats.html" in sys.modules
assert not late()
random.seed(1); np.random.seed(1)
tasks = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
before = random.getstate(), np.random.get_state()[1].tolist(), dict(os.environ), os.getcwd()
capture_scratch()
after = random.getstate(), np.random.get_state()[1].tolist(), dict(os.environ), os.getcwd()
now = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
names = sorted(set(vars(sys.modules["__main__"])) & {"frame", "numbers", "count", "text"})
print(json.dumps([before == after, now - tasks, threading.active_count(), names,
                  os.listdir(tempfile.gettempdir()), late()]))
"""


def test_a_rehearsal_imports_what_a_display_needs_and_leaves_no_thread_file_or_draw(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True,
        env={"PATH": "", "TMPDIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert json.loads(done.stdout) == [True, 0, 1, [], [], True]
    assert not done.stderr
