"""Notebooks in the ways people write them: a restart at every cut equals the uninterrupted run.

Each file of `tests/corpus` is a notebook (cells parted by `# %%`), run once without interruption
and then restarted from each of its cells; outputs and variables are compared as object graphs.
A first line `# needs: torch` skips it where that library is not installed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

#: some of the cuts will do, fewer in kernels of their own; `make corpus-test` takes every one
EVERY_CUT = bool(os.environ.get("CELLRAIL_TEST_EVERY_CUT"))
CORPUS = sorted((Path(__file__).parents[1] / "corpus").glob("*.ipy"))


def cells_of(path: Path) -> list[str]:
    """The sources of a corpus file's cells."""
    _, *cells = ("\n" + path.read_text("utf-8")).split("\n# %%\n")
    return [cell.strip("\n") for cell in cells]


def needs_of(path: Path) -> list[str]:
    """The libraries that a corpus file cannot do without: its first line, if it says so."""
    first = path.read_text("utf-8").partition("\n")[0]
    _, found, needs = first.partition("# needs: ")
    return needs.split(", ") if found else []


def test_the_corpus_is_there():
    assert len(CORPUS) >= 20
    assert all(len(cells_of(path)) >= 4 for path in CORPUS)


@pytest.mark.parametrize(
    ("lazy_above", "kernels"),
    [
        pytest.param("0", "warm", id="lazy, in forks"),
        pytest.param("1000000000", "cold", id="at once", marks=pytest.mark.cold),
    ],
)
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_at_every_cut_a_restart_equals_the_uninterrupted_run(
    path, lazy_above, kernels, make, app, monkeypatch
):
    for library in needs_of(path):
        pytest.importorskip(library, reason=f"this notebook needs {library}")
    monkeypatch.setenv("CELLRAIL_LAZY_ABOVE", lazy_above)
    cells = cells_of(path)
    notebook = make(*cells)
    whole = app.run(notebook)
    assert whole.status == "success", whole.cause

    differing = {}
    cuts = range(2, len(cells) + 1)
    if not EVERY_CUT:
        cuts = cuts[:: -4 if kernels == "cold" else -2]
    for number in cuts:
        again = app.restart(whole.id, from_step=f"#{number}", kernels=kernels)
        assert again.status == "success", (number, again.cause)
        difference = app.diff(whole.id, again.id)
        if not difference.equal:
            differing[number] = [step for step in difference.steps if not step.equal]
    app.close()
    assert not differing
