"""Random programs over shared structures: after each cell, what is stored equals what lives.

Only what a cell's code can reach is looked at; the whole namespace is then restored into a fresh
one and compared as an object graph: values, types, and who shares what with whom.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellrail.notebook.reads import names_of
from cellrail_state import slabs
from cellrail_state.capture import Capture
from cellrail_state.equality import differs
from cellrail_state.namespace import user_names
from cellrail_state.restore import restore
from cellrail_state.testing import MemoryObjects

NAMES = "abcd"
PRELUDE = """
import numpy as np
class Box:
    made = []
    def __init__(self, v): self.v = v
    def put(self, x): self.v = [x, self.v][:2]
def touch():
    if isinstance(globals().get('a'), list): a.append(0)
def counter(seen):
    def up(x):
        seen.append(x)
        return seen
    return up
a = [1]; b = {'k': a}; c = Box(a); d = counter(a)
"""
#: cells; {x} {y} stand for names. They never fail: a wrong type does nothing.
CELLS = (
    "{x} = [1]", "{x} = {{'k': 2}}", "{x} = {y}", "{x} = [{y}, {y}]", "{x} = {{'k': {y}}}",
    "{x} = ({y}, 'end')", "{x} = Box({y})", "{x} = np.arange(700.0)", "{x} = counter([])",
    "{x} = {{1, 2}}", "{x} = bytearray(b'abc')", "del {x}\n{x} = 0", "{x} = lambda: {y}",
    "if isinstance({x}, list): {x}.append({y})",
    "if isinstance({x}, list) and len({x}) > 1: {x}.pop(0)",
    "if isinstance({x}, list): {x}.append({x})",
    "if isinstance({x}, dict): {x}['n'] = {y}",
    "if isinstance({x}, dict): {x}.pop('k', None)",
    "if isinstance({x}, Box): {x}.put({y})",
    "if isinstance({x}, Box): Box.made.append({x})",
    "if isinstance({x}, Box): {x}.v = {y}",
    "if isinstance({x}, np.ndarray) and {x}.size: {x}[0] += 1",
    "if isinstance({x}, np.ndarray): {y} = {x}[1:]",
    "if isinstance({x}, bytearray): {x}.append(1)",
    "if isinstance({x}, set): {x}.add(9)",
    "if callable({x}) and {x}.__name__ == 'up': {x}({y})",
    "if callable({x}) and {x}.__name__ == 'up': {y} = {x}(1)",
    "touch()",
)  # fmt: skip

#: in long containers one tuple at two places comes back as two that are equal
PLAIN = [form for form in CELLS if "end" not in form]


def cells_of(forms: Sequence[str]) -> st.SearchStrategy[str]:
    """Cells of these forms."""
    names = st.sampled_from(NAMES)
    return st.builds(lambda form, x, y: form.format(x=x, y=y), st.sampled_from(forms), names, names)


cells, plain_cells = cells_of(CELLS), cells_of(PLAIN)


def programs(forms: st.SearchStrategy[str]) -> st.SearchStrategy[list[tuple[str, bool]]]:
    """Cells, and which of them are followed by an audit."""
    audits = st.integers(0, 9).map(lambda n: n == 9)
    return st.lists(st.tuples(forms, audits), min_size=3, max_size=14)


def restored(capture: Capture, store: MemoryObjects) -> dict[str, Any]:
    ns: dict[str, Any] = {"__name__": "__main__"}
    report = restore(capture.current, ns, store)
    assert not report.failed, report.failed
    return user_names(ns)


@settings(
    max_examples=int(os.environ.get("CELLRAIL_TEST_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(programs(cells))
def test_at_every_cut_what_comes_back_is_what_was_there(program):
    follow(program)


@settings(
    max_examples=int(os.environ.get("CELLRAIL_TEST_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(programs(plain_cells))
def test_so_it_is_where_every_flat_container_counts_as_long(program):
    with mock.patch.multiple(slabs, LONG=1, SLAB=2):
        follow(program)


def follow(program: list[tuple[str, bool]]) -> None:
    """Run the cells, with a capture after each, and restore each of these."""
    ns: dict[str, Any] = {"__name__": "__main__"}
    store = MemoryObjects()
    capture = Capture(store, globals=ns)
    for source, exact in [(PRELUDE, True), *program]:
        exec(compile(source, "<cell>", "exec", dont_inherit=True), ns)
        names = names_of(source)
        touched = None if names.opaque else names.reads | names.writes
        delta = capture.checkpoint(user_names(ns), touched=touched, audit=exact)
        assert not delta.missed, source
        stored = {n for n, v in capture.current.variables.items() if v.verdict == "stored"}
        live, back = user_names(ns), restored(capture, store)
        assert stored == set(back) == set(live), source
        order = sorted(live)
        found = differs([live[n] for n in order], [back[n] for n in order])
        assert not found, (source, found)
