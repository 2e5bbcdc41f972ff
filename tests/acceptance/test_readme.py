"""The README's commands are run, and every command has help."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from cellrail.cli import _COMMANDS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def test_the_first_ten_lines_work_as_written(cellrail, tmp_path):
    shutil.copy(ROOT / "notebooks" / "plain_weather.ipynb", tmp_path / "weather.ipynb")
    block = README.split("```console\n")[1].split("```")[0]
    lines = [line[2:].partition("  #")[0] for line in block.splitlines()]
    commands = [shlex.split(line) for line in lines]
    assert len(commands) == 8

    for command in commands[1:]:
        done = cellrail(*command[1:])
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert (tmp_path / "executed.html").exists()


@pytest.mark.parametrize("command", [*_COMMANDS, "key export", "key import"])
def test_every_command_has_help(cellrail, command):
    done = cellrail(*command.split(), "--help")

    assert done.returncode == 0
    assert len(done.stdout.splitlines()) > 5


def test_the_commands_of_the_readme_are_the_commands_there_are():
    listed = re.search(r"^`(run restart [a-z ]+)`", README, re.MULTILINE)
    assert listed is not None
    assert set(listed.group(1).split()) == set(_COMMANDS)
