"""What a step does that others must not share is seen, whichever way it does it.

Each snippet runs in a process of its own: an audit hook stays for good.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_FRAME = """
import json, os, random, sys, threading
from pathlib import Path
import numpy as np
from cellrail.run.watching import Watching
out = os.dup(1)
watching = Watching(counts_bytes=sys.platform.startswith("linux"))
watching.begin()
{code}
seen = watching.end(asked={asked}, beside=False)
os.write(out, json.dumps(seen).encode())
"""


def seen(code: str, folder: Path, *, asked: bool = False) -> str:
    (folder / "there.txt").write_text("a,b\n1,2\n")
    (folder / "mine.py").write_text("x = 1")
    script = _FRAME.format(code=code, asked=asked)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "code",
    [
        "x = sum(range(1000))",
        "open('there.txt').read(); os.listdir('.'); os.stat('there.txt')",
        "import pandas as pd; frame = pd.read_csv('there.txt')",
        "import mine, tomllib",
        "rng = np.random.default_rng(7); x = rng.normal(size=5); y = random.Random(3).random()",
        "t = threading.Thread(target=sum, args=([1],)); t.start(); t.join()",
    ],
)
def test_what_only_computes_and_reads_is_let_through(code, tmp_path):
    assert seen(code, tmp_path) == "[]"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("open('out.txt', 'w').close()", "writes (out.txt)"),
        ("open('there.txt', 'r+').close()", "writes (there.txt)"),
        ("os.close(os.open('o', os.O_WRONLY | os.O_CREAT))", "writes (o)"),
        ("Path('made').mkdir()", "writes (made)"),
        ("os.rename('there.txt', 'here.txt')", "writes (there.txt)"),
        ("Path('there.txt').unlink()", "writes (there.txt)"),
        ("os.utime('there.txt')", "writes (there.txt)"),
        ("import sqlite3; sqlite3.connect('a.db').close()", "writes (a.db)"),
        ("import threading; t = threading.Thread(target=lambda: open('o', 'w').close())\n"
         "t.start(); t.join()", "writes (o)"),
        ("import socket; socket.socket().connect_ex(('127.0.0.1', 9))", "opens a connection"),
        ("import socket; socket.getaddrinfo('localhost', 80)", "opens a connection"),
        ("import subprocess; subprocess.run(['true'])", "starts a process"),
        ("os.system('true')", "starts a process"),
        ("random.random()", "draws random numbers (random)"),
        ("np.random.rand(312)", "draws random numbers (numpy)"),
        ("random.seed(1)", "draws random numbers (random)"),
        ("np.random.default_rng().random()", "asks the system for random numbers"),
        ("random.Random().random()", "asks the system for random numbers"),
        ("import uuid; uuid.uuid4()", "asks the system for random numbers"),
        ("import secrets; secrets.token_hex()", "asks the system for random numbers"),
        ("import tempfile; tempfile.mkdtemp()", "writes"),
    ],
)  # fmt: skip
def test_what_must_be_done_again_is_seen(code, told, tmp_path):
    assert told in seen(code, tmp_path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the account of Linux")
def test_bytes_that_a_library_writes_past_python_are_seen(tmp_path):
    native = "import duckdb; duckdb.sql(\"COPY (SELECT 1) TO 'x.csv'\")"
    assert "writes (past Python)" in seen(native, tmp_path)


def test_what_asks_its_run_is_told(tmp_path):
    assert seen("pass", tmp_path, asked=True) == '["uses the run"]'
