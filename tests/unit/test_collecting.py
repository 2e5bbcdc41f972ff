"""What a turn of a loop leaves to be collected.

Laws: a turn leaves nothing of a name where each cell that binds or changes it failed or was
skipped; where the code does not tell, what is there counts; a name that no step of the loop can
bind is a mistake.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cellrail.errors import BadNotebook
from cellrail.notebook.blocks import blocks_of
from cellrail.notebook.collecting import Collecting, Did
from cellrail.notebook.parse import parse, read_steps


def notebook(*sources: str) -> dict:
    cells = [{"cell_type": "code", "source": source, "metadata": {}} for source in sources]
    return {"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": cells}


def collecting(*sources: str) -> Collecting:
    steps, problems = read_steps(notebook(*sources))
    assert problems == []
    return Collecting(blocks_of(steps)[0])


HEADER = "%%step L --foreach x in items --collect r\npass"


@pytest.mark.parametrize(
    ("body", "did", "missing"),
    [
        ("%%step K --in L\nr = x", [(2, Did.WELL)], ()),
        ("%%step K --in L\nr = x", [], ("r",)),
        ("%%step K --in L --on-error continue\nr = x", [(2, Did.FAILED)], ("r",)),
        ("%%step K --in L\nr.append(x)", [(2, Did.WELL)], ()),
        ("%%step K --in L\nr.append(x)", [], ("r",)),
        ("%%step K --in L\nexec('r = x')", [], ()),
        ("%%step K --in L\nf(x)", [], ()),
        ("%%step K --in L --foreach y in x --collect r\nr = y", [], ("r",)),
        ("%%step K --in L --foreach y in x --collect r\nr = y", [(2, Did.LEFT)], ()),
        ("%%step K --in L --foreach y in x --parallel 2\nr = y", [(2, Did.WELL)], ()),
    ],
)
def test_a_turn_leaves_a_name_if_a_cell_that_binds_it_ended_well(body, did, missing):
    assert collecting(HEADER, body).missing([(1, Did.WELL), *did]) == missing


def test_a_cell_that_may_bind_anything_may_have_bound_the_name():
    found = collecting(HEADER, "%%step K --in L\nr = x", "%%step N --in L\nexec(code)")
    assert found.missing([(1, Did.WELL), (3, Did.WELL)]) == ()
    assert found.missing([(1, Did.WELL)]) == ("r",)


def test_a_cell_that_shows_the_name_has_not_bound_it():
    found = collecting(HEADER, "%%step K --in L\nr = x", "%%step N --in L\nprint(r)")
    assert found.missing([(1, Did.WELL), (3, Did.WELL)]) == ("r",)


def test_an_error_that_is_collected_is_left_by_the_step_that_failed():
    found = collecting(
        "%%step L --foreach x in items --collect error_K\npass",
        "%%step K --in L --on-error continue\n1 / x",
    )
    assert found.missing([(1, Did.WELL), (2, Did.WELL)]) == ("error_K",)
    assert found.missing([(1, Did.WELL), (2, Did.FAILED)]) == ()


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        (
            ["%%step L --foreach x in items --collect r\nrr = x"],
            "--collect r: no turn of the loop binds it; did you mean 'rr'?",
        ),
        (["%%step L --foreach x in items --collect r\nq = r"], "--collect r: no turn"),
        (
            [
                "%%step O --foreach x in items",
                "%%step L --in O --foreach y in x --collect r\nq = y",
                "%%step M --in O\nr = x",
            ],
            "cell #2: --collect r: no turn",
        ),
        (
            [
                "%%step L --foreach x in items --collect r",
                "%%step M --in L --foreach y in x --parallel 2\nr = y",
            ],
            "cell #1: --collect r: no turn",
        ),
    ],
)
def test_a_name_that_no_step_of_the_loop_binds_is_a_mistake(cells, told):
    with pytest.raises(BadNotebook) as error:
        parse(notebook(*cells), Path("flow.ipynb"))
    assert told in str(error.value)


@pytest.mark.parametrize(
    "cells",
    [
        ["%%step L --foreach x in items --collect x\npass"],
        ["%%step L --foreach x in items --collect r\nr.append(x)"],
        ["%%step L --foreach x in items --collect r\nfill(r)"],
        ["%%step L --foreach x in items --collect r\n%run other.py"],
        ["%%step L --foreach x in items --collect r\nr = !ls"],
        ["%%step L --while x < 3 --collect r", "%%step K --in L --foreach y in x --collect r\nr=y"],
        ["%%step L --foreach x in items --collect error_L --on-error continue\n1 / x"],
        [
            "def f(x):\n    global q, r\n    q = r = x",
            "%%step L --foreach x in items --collect r\nf(x)",
        ],
    ],
)
def test_what_may_be_bound_in_ways_that_the_code_does_not_show_is_none(cells):
    assert parse(notebook(*cells), Path("flow.ipynb")).steps
