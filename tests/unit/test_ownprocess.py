"""In a process of ours `jsonschema` comes without its slowest part, which stays there to be had."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from cellrail.ownprocess import begin_quickly
sys.path.insert(0, {folder!r})
begin_quickly()
import nbformat, jsonschema
assert "rfc3987_syntax" not in sys.modules
assert not [f for f in sys.meta_path if type(f).__name__ == '_WithoutSlow']
jsonschema.validate(1, {{"type": "integer"}})
import rfc3987_syntax
print(rfc3987_syntax.is_valid_syntax)
"""


def test_a_slow_module_is_left_out_and_can_be_imported_all_the_same(tmp_path):
    (tmp_path / "rfc3987_syntax.py").write_text("is_valid_syntax = 'mine'\n")

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(folder=str(tmp_path))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.stdout == "mine\n", done.stderr


@pytest.mark.parametrize("words", [["--version"], ["runs", "--help"]])
def test_commands_begin_all_the_same(words):
    done = subprocess.run(
        [sys.executable, "-m", "cellrail", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
