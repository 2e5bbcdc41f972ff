"""`pytest --cellrail-against RUN`: a notebook that does what it did passes, and one that does not
fails with what differs; without the option pytest knows nothing of notebooks.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

# a tree that is not installed has no entry points
HERE = entry_points(group="pytest11", name="cellrail")
PLUGIN = ("-p", "cellrail.pytest_plugin")


@pytest.fixture
def against(tmp_path: Path):
    """Runs pytest on notebooks in the test's folder, by default with our plugin alone."""

    def run(*words: str, alone: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **({"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} if alone else {})}
        loaded = PLUGIN if alone or not HERE else ()
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *loaded, *words],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
            timeout=120,
        )  # fmt: skip

    return run


def test_a_notebook_is_compared_with_a_run_of_it(make, app, edit, against):
    path = make(
        "n = 1\ntoken = ''  # secret",
        "%%step draw\nimport random\nrandom.seed(n)\nx = [random.random(), len(token)]",
        "%%step order\nprint(sorted({'a', 'b', 'c'}) + [n])",
        tags={1: ["parameters"]},
    )
    run = app.run(path, parameters={"n": 7, "token": "hunter2-hunter2"})

    same = against("--cellrail-against", run.id, "flow.ipynb")
    last = against("--cellrail-against", "last", "flow.ipynb", alone=False)
    edit(path, "random.seed(n)", "random.seed(n + 1)")
    other = against("--cellrail-against", run.id, "flow.ipynb")

    for passed in (same, last):
        assert (passed.returncode, "1 passed" in passed.stdout) == (0, True), passed.stdout
    assert other.returncode == 1
    assert f"differs from run {run.id}" in other.stdout
    assert "  draw: x: " in other.stdout
    assert f"  cellrail diff {run.id} " in other.stdout
    assert "hunter2" not in other.stdout


def test_a_notebook_that_fails_now_or_has_no_run_fails_the_test(make, app, edit, against):
    path = make("x = 1", "%%step use\ny = x")
    none = against("--cellrail-against", "last", "flow.ipynb")
    run = app.run(path)
    edit(path, "y = x", "y = z")
    broken = against("--cellrail-against", run.id, "flow.ipynb")

    assert (none.returncode, broken.returncode) == (1, 1)
    assert "RunNotFound" in none.stdout
    assert "use: status success / failed" in broken.stdout


def test_without_the_option_notebooks_are_no_tests(make, against):
    make("1 / 0")
    assert "no tests ran" in against().stdout
