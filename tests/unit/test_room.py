"""How many runs have room: the first alone, then as many as fit of the largest, at least one."""

from __future__ import annotations

import os

import click
import pytest

from cellrail.cli.common import byte_count
from cellrail.room import Room, bytes_below


def test_the_first_run_is_alone_and_the_largest_seen_decides_from_then_on():
    taken = {1: 300, 2: 100}
    room = Room(1000, taken.__getitem__)
    assert room.holds([]) == 1
    assert room.holds([1]) == 1
    room.ended()
    assert room.holds([1, 2]) == 3
    taken[2] = 400
    assert room.holds([1, 2]) == 2
    assert room.holds([]) == 2  # it may grow so large again
    taken[1] = 5000
    assert room.holds([1]) == 1


def test_what_a_process_takes_is_measured_and_one_that_is_gone_takes_nothing():
    assert bytes_below(os.getpid()) > 1_000_000
    assert bytes_below(2**22 + 1) == 0


def test_sizes_are_read_as_people_write_them():
    texts = ("7", "500MB", "1.5 gb", "8GiB", "2k")
    assert [byte_count(t) for t in texts] == [7, 500_000_000, 1_500_000_000, 8 * 2**30, 2000]
    for wrong in ("", "GB", "-1", "8 X", "1 i"):
        with pytest.raises(click.BadParameter, match="is no size"):
            byte_count(wrong)
