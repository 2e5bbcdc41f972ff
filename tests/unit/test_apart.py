"""What an item of a parallel loop may write, from code and from what a job wrote."""

from __future__ import annotations

import ast

import pytest

from cellrail.errors import BadNotebook
from cellrail.notebook.apart import forbidden, own_names
from cellrail.notebook.blocks import blocks_of
from cellrail.notebook.firsts import first_uses
from cellrail.notebook.parse import parse


def flow(tmp_path, *sources):
    cells = [{"cell_type": "code", "source": s, "metadata": {}, "id": str(n)}
             for n, s in enumerate(sources)]  # fmt: skip
    return parse({"cells": cells, "metadata": {}, "nbformat": 4}, tmp_path / "x.ipynb")


HEADER = "%%step s --foreach x in items --parallel 2 --collect y"


@pytest.mark.parametrize(
    "body",
    ["y = x", "import numpy as np\ny = 1", "own = 1\ny = own", "y = [seen for k in seen]",
     "def f():\n    seen = 2\ny = f()", "y = seen.copy()"],
)  # fmt: skip
def test_code_may_write_what_is_the_items_own(body, tmp_path):
    flow(tmp_path, "import numpy as np\nseen = [1]; items = [1]", f"{HEADER}\n{body}")


@pytest.mark.parametrize(
    "body",
    ["seen = 2", "for seen in x: pass", "with x as seen: pass", "def seen(): pass",
     "class seen: pass", "seen += 1", "(seen := 1)", "def f():\n    global seen\n    seen = 2"],
)  # fmt: skip
def test_code_that_binds_a_name_of_the_notebook_is_refused(body, tmp_path):
    with pytest.raises(BadNotebook, match="cell #2: `seen` is bound in step '#1' already"):
        flow(tmp_path, "seen = items = [1]", f"{HEADER}\n{body}\ny = 1")


def test_names_bound_below_the_loop_or_in_it_are_no_matter(tmp_path):
    flow(tmp_path, "items = [1]", f"{HEADER}\ntmp = x", "%%step t --in s\ntmp = 2\ny = tmp",
         "tmp = 3")  # fmt: skip


def test_a_parallel_loop_in_a_parallel_one_is_refused(tmp_path):
    with pytest.raises(BadNotebook, match="the loop 's' around it is parallel already"):
        flow(tmp_path, "items = [1]", f"{HEADER}\ny = 1",
             "%%step t --in s --foreach k in y --parallel 2\nz = k")  # fmt: skip


def test_a_parallel_loop_that_collects_needs_checkpoints(tmp_path):
    with pytest.raises(BadNotebook, match="what a parallel loop collects comes through"):
        flow(tmp_path, "items = [1]", f"{HEADER} --no-checkpoint\ny = 1")


@pytest.mark.parametrize("line", [f"{HEADER} --sleep 1s", "%%step t --in s --sleep 1s"])
def test_an_item_of_a_parallel_loop_cannot_sleep(line, tmp_path):
    cells = [line] if line.startswith(HEADER) else [HEADER + "\ny = 1", line]
    with pytest.raises(BadNotebook, match="--sleep: an item of a parallel loop cannot wait"):
        flow(tmp_path, "items = [1]", *cells[:-1], f"{cells[-1]}\ny = 1")


def test_names_written_are_compared_with_those_that_were_there(tmp_path):
    steps = flow(tmp_path, "items = [1]", f"{HEADER}\ny = x",
                 "%%step t --in s --foreach k, v in y\nz = k").steps  # fmt: skip
    own = own_names(blocks_of(steps)[1])

    assert own == {"x", "y", "k", "v"}
    assert (
        forbidden(("Out[3]", "__warningregistry__", "k", "new", "x", "y"), {*own, "a"}, own) == ""
    )
    assert forbidden(("a", "y"), {"a", "y"}, own).startswith("`a` was there before the parallel")
    assert forbidden(("b", "a"), {"a", "b"}, own).startswith("`a`, `b` were there")


@pytest.mark.parametrize(
    ("code", "reads", "binds"),
    [
        ("a = 1\nb = a", set(), {"a", "b"}),
        ("a = a", {"a"}, {"a"}),
        ("a += 1", {"a"}, set()),
        ("if c: a = 1\nb = a", {"c", "a"}, {"b"}),
        ("a: int\nb = a", {"int", "a"}, {"b"}),
        ("x, (y, *z) = f()\nw = z", {"f"}, {"x", "y", "z", "w"}),
        ("a = lambda: b\nb = 1", {"b"}, {"a", "b"}),
    ],
)
def test_first_uses_tell_what_is_read_before_it_is_bound(code, reads, binds):
    assert first_uses(ast.parse(code)) == (reads, binds)
