"""Whether looking at a value can execute code of the notebook."""

from __future__ import annotations

import datetime as dt
import sys
import types
import weakref
from collections import Counter, OrderedDict, defaultdict, deque

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

from cellrail.run.inert import are_inert


class Own:
    """Of a module that is not installed, as the notebook's classes are."""


KEPT = Own()


@pytest.mark.parametrize(
    "value",
    [
        3, "x", None, [1, [2, {"a": (3,)}]], {"a": {1, 2}}, np.arange(3), pd.DataFrame({"a": [1]}),
        dt.date(2013, 1, 1), LinearRegression(), types.SimpleNamespace(a=1),
        np.array(["a", 1, None], dtype=object), OrderedDict(a=1), sys, len, Own,
        list(range(100_000)),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_built_in_or_installed_only_looks(value):
    assert are_inert([value])


def test_a_value_that_holds_itself_is_looked_at_once():
    ring: list[object] = [1]
    ring.append(ring)
    assert are_inert([ring])


@pytest.mark.parametrize(
    "value",
    [
        Own(), [1, (Own(),)], {"a": Own()}, types.SimpleNamespace(inner=Own()), defaultdict(list),
        Counter("ab"), [[] for _ in range(10_000)], weakref.proxy(KEPT), np.array([[1, Own()]]),
        types.MappingProxyType({"a": Own()}),
    ],
    ids=[
        "own", "list", "dict", "namespace", "defaultdict", "counter", "more than is looked at",
        "proxy", "array", "view of a dict",
    ],
)  # fmt: skip
def test_what_can_execute_code_of_the_notebook_is_alive(value):
    assert not are_inert([value])


def test_a_container_of_a_library_is_looked_into():
    assert are_inert([deque([1])])
    assert not are_inert([deque([Own()])])
