"""A backfill of the flights notebook that is killed on the way, as `make bench-year` shows it.

The laws are the ones that `benchmarks/year.py` insists on.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

YEAR = Path(__file__).resolve().parents[2] / "benchmarks" / "year.py"


@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killed_twice_each_day_has_one_run_and_a_change_runs_only_what_it_touches():
    done = subprocess.run(
        [sys.executable, str(YEAR), "--days", "8", "--kills", "2", "--parallel", "2"],
        capture_output=True, text=True, check=False, timeout=880,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["runs"], figures["kills"], figures["hours again"]) == (8, 2, 8)
    # what was running at a kill was executed again, and nothing else was
    assert figures["executions"] == 8 * 9 + figures["interrupted"]
    assert 0 <= figures["interrupted"] <= 2 * 2
    assert 0 < figures["report again"] <= 8
