"""Ctrl-C where it must not tear what is being done.

Laws: inside `unheard` nothing is heard, inside `heard_afterwards` the first is heard behind it,
inside `heard_by` each is noted; afterwards the handlers are what they were; in another thread
nothing changes.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from cellrail.run.interrupts import heard_afterwards, heard_by, unheard


@pytest.fixture(autouse=True)
def handlers():
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_what_is_over_is_not_interrupted():
    done = []
    with unheard():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done.append(1)
    assert done == [1]


def test_what_must_be_whole_is_interrupted_behind_its_end():
    done = []

    def write():
        with heard_afterwards():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            done.append(1)
        done.append(2)

    with pytest.raises(KeyboardInterrupt):
        write()
    assert done == [1]


def test_one_inside_the_other_tells_it_when_the_outer_one_ends():
    done = []

    def write():
        with heard_afterwards():
            with heard_afterwards():
                signal.raise_signal(signal.SIGINT)
            done.append(1)

    with pytest.raises(KeyboardInterrupt):
        write()
    assert done == [1]


def test_each_is_noted_where_it_finds_the_program_and_tears_nothing():
    done = []
    with heard_by(lambda: done.append("Ctrl-C")):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done.append("work")
    assert done == ["Ctrl-C", "Ctrl-C", "work"]


def test_a_signal_that_is_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with heard_afterwards():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_another_thread_leaves_the_handlers_alone():
    found = []

    def look():
        with unheard(), heard_afterwards():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


def test_the_exit_code_is_130_though_it_came_in_code_made_of_a_text(tmp_path):
    """As that of a dataclass is: CPython would end the process by a signal of its own."""
    script = tmp_path / "interrupted.py"
    script.write_text(
        "import click\nfrom cellrail.cli.common import guarded\n"
        "@click.command()\ndef work():\n    exec('raise KeyboardInterrupt')\n"
        "guarded(work, None)\n"
    )
    words = [sys.executable, "-m", script.stem]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (130, "error: interrupted")
