"""Laws of changes:

* a selector is one of five kinds, or a file of them; a wrong one is refused with the nearest right;
* HyperFlow's entries are read as its users write them, as `modified` or `changed`, one or many;
* what is found is told in words, and of a step that is as it was nothing is.
"""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest

from cellrail.errors import BadSelector
from cellrail.notebook.changes import (
    Found,
    Selector,
    World,
    detect,
    read_selectors,
    select,
)
from cellrail.notebook.firstuse import first_use
from cellrail.notebook.parse import parse
from cellrail_state.model import StepInfo


def _flow(*sources, parameters=""):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    if parameters:
        cells.insert(0, nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    return parse(nbformat.v4.new_notebook(cells=cells), Path("flow.ipynb"))


def _info(step, **changes):
    told = {"options": str(step.options), "source_hash": step.source_hash, **changes}
    return StepInfo(number=step.number, name=step.name, **told)


HYPERFLOW = {
    "as its code reads it": {"modified": [{"selector": "process.name", "value": "foo"}]},
    "as its documentation says": {"changed": {"selector": "process.name", "value": "foo"}},
    "without a key": [{"selector": "process.name", "value": "foo"}],
    "a single entry": {"selector": "process.name", "value": "foo"},
    "our own words": ["step:foo"],
    "our own kinds": [{"selector": "step", "value": "foo"}],
}


@pytest.mark.parametrize("form", HYPERFLOW)
def test_hyperflows_entries_are_read_as_its_users_write_them(form):
    found = read_selectors(["@recovery.cfg"], lambda path: json.dumps(HYPERFLOW[form]))

    assert found == [Selector(kind="step", pattern="foo")]


def test_processes_by_place_and_data_by_name_are_read_too():
    entries = [
        {"selector": "process.id", "value": 3},
        {"selector": "data.name", "value": "df"},
        {"selector": "signal.name", "value": "sum"},
    ]

    found = read_selectors(["@f", "var:x_*"], lambda _: json.dumps({"modified": entries}))

    assert [str(s) for s in found] == ["step:#3", "var:df", "var:sum", "var:x_*"]


BAD_FILES = {
    "not json": ("{", "is no JSON"),
    "no list": ('{"modifed": []}', "neither `modified` nor `changed`"),
    "no value": ('[{"selector": "process.name"}]', "is no entry"),
    "a number": ("[3]", "is no entry"),
    "an unknown selector": ('[{"selector": "proces.name", "value": "x"}]', "not known"),
    "true for a name": ('[{"selector": "process.name", "value": true}]', "no name of a step"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_is_wrong_is_refused(case):
    text, message = BAD_FILES[case]
    with pytest.raises(BadSelector, match=message):
        read_selectors(["@f"], lambda _: text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [("stp:x", "step:x"), ("load", "step:load"), ("var:", "step:NAME"), (":x", "step:NAME")],
)
def test_what_is_no_selector_is_refused_with_the_nearest(text, hint):
    with pytest.raises(BadSelector) as refused:
        read_selectors([text], lambda _: "")

    assert hint in refused.value.hint


def test_selectors_name_steps_names_and_packages():
    flow = _flow(
        "# step: load_a\nimport pandas as pd\na = 1", "# step: load_b\nb = 2", "c = a + b",
        parameters="day = 1",
    )  # fmt: skip
    world = World(flow=flow, variables=frozenset({"a", "b", "c"}), packages=frozenset({"numpy"}))

    changes = select(
        read_selectors(["step:load_*", "step:#4", "var:a", "param:day", "package:pandas"], str),
        world,
    )

    assert changes.forced_steps == {2, 3, 4}
    assert changes.forced_names == {"a", "day"}
    assert changes.packages == {"pandas": "package pandas was named as changed"}
    with pytest.raises(BadSelector, match="no such package") as refused:
        select([Selector(kind="package", pattern="panda")], world)
    assert refused.value.hint == "did you mean package:pandas?"


def test_files_are_named_as_options_or_code_name_them():
    flow = _flow("x = open('data/a.csv')", "# step: b --reads data/*.csv\ny = 1", "z = 2")
    world = World(flow=flow, files=(("data/b.csv", 2),))

    assert set(select([Selector(kind="file", pattern="data/a.csv")], world).steps) == {1}
    assert set(select([Selector(kind="file", pattern="b.csv")], world).steps) == {2}
    assert set(select([Selector(kind="file", pattern="data/*.csv")], world).steps) == {2}
    with pytest.raises(BadSelector, match="no such file that a step reads"):
        select([Selector(kind="file", pattern="gone.csv")], world)


def test_what_is_found_is_told_and_nothing_else():
    flow = _flow("a = 1", "# step: s --when a > 0 --retry 3\nb = 2", "c = 3", parameters="p = 1")
    same, edited, other, moved = flow.steps
    infos = {
        same.number: _info(same),
        edited.number: _info(edited, source_hash="other"),
        other.number: _info(other, options="--when a > 1"),
        moved.number: _info(moved, modules={"mine": "1"}),
    }

    changes = detect(
        Found(
            flow=flow, pairs=infos, modules={moved.number: {"mine": "2"}}, parameters=["p"],
            packages={"pandas": ("2.1", "3.0")}, python=("3.11.7", "3.11.9"),
        )
    )  # fmt: skip

    assert changes.steps == {
        1: "parameter `p` changed", 2: "source changed", 3: "--when changed",
    }  # fmt: skip
    assert changes.packages == {
        "mine": "module mine changed", "pandas": "package pandas 2.1 -> 3.0",
    }  # fmt: skip
    assert not changes.everything
    assert detect(Found(flow=flow, pairs=infos, python=("3.11.7", "3.12.0"))).everything


def test_other_retries_and_limits_are_no_change():
    flow = _flow("%%step s --retry 3 --timeout 5s\nb = 2")
    infos = {1: _info(flow.steps[0], options="--retry 1")}

    assert detect(Found(flow=flow, pairs=infos)).steps == {}


USES = {
    "for i in y:\n  print(i)\nx = 1\nprint(x)": ({"y", "print"}, {"x"}),
    "x += 1": ({"x"}, set()),
    "if c:\n  x = 1\nelse:\n  x = 2\ny = x": ({"c"}, {"x", "y"}),
    "if c:\n  x = 1\ny = x": ({"c", "x"}, {"y"}),
    "with open('f') as h:\n  d = h.read()\nd": ({"open"}, {"h", "d"}),
    "with suppress(E):\n  d = f()\nd": ({"suppress", "E", "f", "d"}, set()),
    "import a.b\nfrom c import d as e\na, e": (set(), {"a", "e"}),
    "del q": ({"q"}, set()),
    "x[0] = y": ({"x", "y"}, set()),
    "def f(): return z\nf()": ({"z"}, {"f"}),
    "try:\n  a = 1\nexcept E:\n  pass\na": ({"E", "a"}, set()),
    "for i, (j, k) in z:\n  i, j, k": ({"z"}, set()),
}


@pytest.mark.parametrize("code", USES)
def test_a_cell_needs_what_it_may_use_before_it_binds_it(code):
    found = first_use(code)

    assert (found.uses, found.binds) == tuple(map(frozenset, USES[code]))


def test_lambdas_and_generators_read_when_they_are_used():
    assert first_use("d = {'f': lambda x: x + k}\ng = (a for b in c)").late >= {"k", "a"}
