"""Cells to steps, and hostile files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cellrail.errors import BadNotebook, NotANotebook
from cellrail.notebook.parse import load, parse


def cell(source, *tags, kind="code", id="", options=None):  # noqa: A002
    metadata = {"tags": list(tags)} if tags else {}
    if options is not None:
        metadata["cellrail"] = {"options": options}
    made = {"cell_type": kind, "source": source, "metadata": metadata}
    return {**made, "id": id} if id else made


def flow(*cells):
    return parse({"nbformat": 4, "nbformat_minor": 5, "cells": list(cells)}, Path("nb.ipynb"))


def test_every_code_cell_is_a_step_numbered_among_code_cells():
    steps = flow(cell("# title", kind="markdown"), cell("a = 1"), cell("b = 2", id="b")).steps

    assert [(s.number, s.label, s.cell_id) for s in steps] == [(1, "#1", ""), (2, "#2", "b")]
    assert steps[1].cell_indices == (2,)


def test_three_spellings_mean_the_same():
    steps = flow(
        cell("%%step one --timeout 5\nx = 1"),
        cell("x = 1", "step:two", options="--timeout 5"),
        cell("# step: three --timeout 5\nx = 1"),
        cell(["\n", "%%step four --timeout 5\n", "x = 1"]),
    ).steps

    assert [s.name for s in steps] == ["one", "two", "three", "four"]
    assert {s.options.timeout for s in steps} == {5.0}
    assert steps[0].body == "\nx = 1"


def test_options_do_not_change_a_steps_identity_but_code_does():
    a, b, c = flow(
        cell("%%step a --timeout 5\nx = 1"), cell("%%step b\nx = 1  \n\n"), cell("x = 2")
    ).steps

    assert a.source_hash == b.source_hash != c.source_hash


def test_parameters_and_papermills_injected_cell_are_one_step():
    steps = flow(cell("a = 1", "parameters"), cell("a = 2", "injected-parameters"), cell("a")).steps

    assert [(s.number, s.name, s.cell_indices) for s in steps] == [
        (1, "parameters", (0, 1)), (2, "", (2,)),
    ]  # fmt: skip


def test_another_cell_magic_below_the_step_line_belongs_to_the_body():
    (step,) = flow(cell("%%step timed\n%%time\nx = 1")).steps

    assert step.body == "%%time\nx = 1"


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ([cell("%%step a\n1"), cell("%%step a\n2")],
         "cell #2: the step name 'a' is already that of cell #1"),
        ([cell("%%time\n%%step a\n1")], "%%step must stand above %%time"),
        ([cell("%%step a\n1", "step:b")], "the cell has several names: a, b"),
        ([cell("# step: parameters\n1")], "the name 'parameters' is the parameters cell's"),
        ([cell("%%step x --bogus\n1", id="c7")], "cell #1 (id c7): unknown option --bogus"),
    ],
)  # fmt: skip
def test_mistakes_name_the_cell(cells, told):
    with pytest.raises(BadNotebook, match=r".") as error:
        flow(*cells)
    assert told in str(error.value)


def test_every_problem_of_a_notebook_is_named_at_once():
    with pytest.raises(BadNotebook) as error:
        flow(cell("%%step 1\n"), cell("%%step b --zz\n"))
    assert str(error.value).count("\n") == 1


def test_misplaced_loop_steps_are_named():
    with pytest.raises(BadNotebook, match="cell #1: --in b: no step above"):
        flow(cell("%%step a --in b\nx"))


def test_a_step_reads_what_its_line_uses_and_writes_what_it_binds():
    step = flow(
        cell("%%step a --foreach x, y in xs --key k(x) --collect s --stop-if z\ns = x")
    ).steps[0]

    assert {"xs", "k", "z"} <= step.reads
    assert {"x", "y", "s"} <= step.writes


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "it is not JSON"),
        (b"\xff\xfe", "it is not UTF-8"),
        (b"[]", "it has no nbformat"),
        (b"{}", "it has no nbformat"),
        (b'{"nbformat": 3, "worksheets": []}', "a notebook of version 3"),
        (b'{"nbformat": 99, "cells": []}', "a notebook of version 99"),
        (b'{"nbformat": 4}', "its cells are missing or broken"),
        (b'{"nbformat": 4, "cells": [1]}', "its cells are missing or broken"),
        (b"[" * 100_000, "it is not JSON"),
    ],
)
def test_files_that_are_no_notebooks_are_told_apart(tmp_path, content, told):
    path = tmp_path / "x.ipynb"
    path.write_bytes(content)

    with pytest.raises(NotANotebook) as error:
        load(path)
    assert told in str(error.value)


def test_a_missing_file_suggests_the_nearest(tmp_path):
    (tmp_path / "report.ipynb").write_text(json.dumps({}))

    with pytest.raises(NotANotebook) as error:
        load(tmp_path / "reprot.ipynb")
    assert "report.ipynb" in error.value.hint
    with pytest.raises(NotANotebook, match="is a folder"):
        load(tmp_path)
