"""Copies of pages ahead: forks copy what the first of them wrote to, and read what they would."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cellrail.kernels import pages as pages_module
from cellrail.kernels.pages import Pages
from forking import can_copy_ahead

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="kernels are forked on Linux only"
)

_PAGES, _PAGE = 512, 4096
copies_ahead = pytest.mark.skipif(
    not can_copy_ahead(), reason="the system copies pages ahead from Linux 5.14 on"
)


def _in_a_fork(act: Callable[[], bytes]) -> bytes:
    """What it gives, called in a fork."""
    source, target = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(target, act())
        finally:
            os._exit(0)
    os.close(target)
    with os.fdopen(source, "rb") as told:
        data = told.read()
    os.waitpid(pid, 0)
    return data


def _faults() -> int:
    # the tenth word of the line, counted from behind the program's name
    return int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[7])


def _write(memory: bytearray, value: int) -> int:
    """Write to each page of a memory; faults that came of it."""
    before = _faults()
    for place in range(0, len(memory), _PAGE):
        memory[place] = value
    return _faults() - before


@copies_ahead
def test_a_fork_has_the_pages_copied_that_the_first_one_wrote_to() -> None:
    memory = bytearray(b"\7" * (_PAGES * _PAGE))
    pages = Pages()

    def first() -> bytes:
        pages.copy(asked=lambda: False)
        faults = _write(memory, 1)
        pages.learn()
        return str(faults).encode()

    def second() -> bytes:
        pages.copy(asked=lambda: False)
        same = memory == b"\7" * (_PAGES * _PAGE)
        return f"{same} {_write(memory, 2)}".encode()

    assert int(_in_a_fork(first)) > _PAGES // 2
    same, faults = _in_a_fork(second).decode().split()
    assert same == "True"
    assert int(faults) < _PAGES // 10


def test_copying_stops_when_a_run_asks_for_the_kernel() -> None:
    memory = bytearray(b"\7" * (_PAGES * _PAGE))
    pages, looks = Pages(), []

    def first() -> bytes:
        pages.copy(asked=lambda: False)
        _write(memory, 1)
        pages.learn()
        return b"done"

    def asked() -> bool:
        looks.append(None)
        return True

    assert _in_a_fork(first) == b"done"
    assert _in_a_fork(lambda: (pages.copy(asked=asked), str(len(looks)).encode())[1]) == b"1"


def test_where_the_system_does_not_tell_of_pages_nothing_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pages_module, "_PAGEMAP", Path("/proc/self/nothing of the kind"))
    pages = Pages()
    pages.copy(asked=lambda: False)
    pages.learn()
    assert pages.known() == []


def test_more_ranges_than_the_table_holds_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages_module, "_RANGES", 3)
    memory = bytearray(_PAGES * _PAGE)
    pages = Pages()

    def scattered() -> bytes:
        pages.copy(asked=lambda: False)
        for place in range(0, len(memory), 3 * _PAGE):
            memory[place] = 1
        pages.learn()
        return b""

    _write(memory, 5)
    _in_a_fork(scattered)
    assert len(pages.known()) == 3
