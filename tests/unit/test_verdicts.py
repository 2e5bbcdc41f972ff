"""The page of verdicts says what is found: one specimen of each type is captured, and restored."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
SCRIPT = TESTS / "verdicts" / "read_verdicts.py"


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What the script finds, in a process of its own: its specimens open files and start loops."""
    made = subprocess.run(
        [sys.executable, str(SCRIPT)],
        capture_output=True, text=True, encoding="utf-8", check=False, timeout=200,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return dict(json.loads(made.stdout.splitlines()[-1]))


def test_what_is_stored_comes_back_equal_and_what_depends_on_it_holds(found):
    assert found["problems"] == {}


def test_the_page_of_verdicts_says_what_is_found(found):
    page = (TESTS.parent / "docs" / "verdicts.md").read_text("utf-8")

    assert page == found["page"], f"run `python {SCRIPT.relative_to(TESTS.parent)} --write`"
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert len(rows) >= 150
    assert not any("| ? |" in row for row in rows)
