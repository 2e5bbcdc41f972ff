"""Laws of the ambient state: what the module's docstring lists comes back; the rest is told.

Generators come back last; what cannot be put back is a warning; secrets are never values.
"""

# ruff: noqa: E501

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cellrail_state import ambient
from cellrail_state.model import ObjectRef

TAKE = """
import sys, json
from cellrail_state.ambient import Ambient, Base
base = Base.now()
import random, os, warnings, decimal, logging, xml.dom.minidom
import numpy as np, pandas as pd, matplotlib
random.seed(5); random.random(); random.gauss(0, 1)
np.random.seed(7); np.random.normal()
os.environ["SHOWN"] = "1"; os.environ["MY_TOKEN"] = "abc"; os.environ.pop("GONE")
os.environ["PLAIN"] = "x hunter2-hunter2"
os.chdir(sys.argv[1]); sys.path.append(sys.argv[1])
warnings.filterwarnings("ignore", message="some.*", category=FutureWarning)
decimal.getcontext().prec = 11
sys.setrecursionlimit(1234); logging.getLogger().setLevel(10)
pd.set_option("display.max_rows", 7); np.set_printoptions(precision=3); np.seterr(divide="ignore")
matplotlib.rcParams["figure.figsize"] = (3, 4)
state = Ambient(base, ["hunter2-hunter2"]).snapshot()
print(json.dumps({"state": state, "next": [random.random(), random.gauss(0, 1), np.random.normal()]}))
"""

PUT = """
import sys, json
from cellrail_state import ambient
data = json.loads(sys.stdin.read())
problems = ambient.apply(data["state"])
import random, os, warnings, decimal, logging
assert "xml.dom.minidom" in sys.modules
import numpy as np, pandas as pd, matplotlib
random.random(); np.random.normal()
problems += ambient.apply_generators(data["state"])
assert not problems, problems
assert [random.random(), random.gauss(0, 1), np.random.normal()] == data["next"]
assert os.environ["SHOWN"] == "1" and "GONE" not in os.environ and "MY_TOKEN" not in os.environ
assert os.getcwd() == sys.argv[1] == sys.path[-1]
assert warnings.filters[0][0] == "ignore" and warnings.filters[0][2] is FutureWarning
assert decimal.getcontext().prec == 11 and sys.getrecursionlimit() == 1234
assert logging.getLogger().level == 10 and pd.get_option("display.max_rows") == 7
assert np.get_printoptions()["precision"] == 3 and np.geterr()["divide"] == "ignore"
assert list(matplotlib.rcParams["figure.figsize"]) == [3, 4]
"""


def python(code: str, *args: str, text: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *args],
        input=text,
        env={**os.environ, "GONE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_documented_list_comes_back_in_another_process(tmp_path: Path) -> None:
    where = str(tmp_path.resolve())
    taken = python(TAKE, where)
    state = json.loads(taken)["state"]
    assert state["environment"] == {"SHOWN": "1"}
    assert state["environment_not_covered"] == ["MY_TOKEN", "PLAIN"]
    assert state["environment_removed"] == ["GONE"]
    assert "hunter2" not in taken
    python(PUT, where, text=taken)


def test_a_missing_directory_or_module_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    snapshot = {"cwd": "/no/such/folder", "modules": ["no_such_module_anywhere"]}
    problems = ambient.apply(snapshot)
    assert len(problems) == 2
    assert "/no/such/folder" in problems[0]


class Memory:
    def __init__(self) -> None:
        self.count = 0

    def put(self, data: Any) -> ObjectRef:
        self.count += 1
        return ObjectRef(digest=str(self.count), size=len(data))


def test_nothing_is_written_while_nothing_changes_and_looking_is_cheap() -> None:
    state, store = ambient.Ambient(ambient.Base.now()), Memory()
    assert state.capture(store) is not None
    best = 1.0
    for _ in range(20):
        start = time.perf_counter()
        assert state.capture(store) is None
        best = min(best, time.perf_counter() - start)
    assert best < 0.005
    random.random()
    assert state.capture(store) is not None
    assert store.count == 2


def test_redefined_colour_codes_come_back():
    colors = pytest.importorskip("matplotlib.colors")
    full = colors.colorConverter.colors
    before = dict(full)
    full["b"] = (0.25, 0.5, 0.75)
    full.cache.clear()
    try:
        taken = ambient.Ambient(ambient.Base.now()).snapshot()
        full["b"] = (0.0, 0.0, 1.0)
        colors.to_hex("b")
        ambient.apply({"matplotlib.colors": taken["matplotlib.colors"]})
        assert colors.to_hex("b") == "#4080bf"
    finally:
        full.update(before)
        full.cache.clear()
