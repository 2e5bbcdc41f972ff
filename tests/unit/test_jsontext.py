"""What a cell may keep is JSON, and comes back equal; everything else is refused by its place."""

from __future__ import annotations

import datetime as dt
import math

import numpy as np
import pytest

from cellrail.errors import NotJson
from cellrail.run.jsontext import from_text, to_text, typed


@pytest.mark.parametrize(
    "value",
    [None, True, 0, 10**40, 1.5, "", "tür \ud800", [], [1, [2, {"a": None}]], {"": {"x": [0.1]}}],
)
def test_json_comes_back_equal(value):
    assert from_text(to_text(value, "it")) == value


def test_a_tuple_comes_back_as_a_list():
    assert from_text(to_text({"a": (1, (2,))}, "it")) == {"a": [1, [2]]}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({1, 2}, "the value is a set"),
        ({"a": [0, b"x"]}, r"\['a'\]\[1\] is a bytes"),
        ({1: 2}, "a dictionary with the key 1"),
        (math.nan, "the value is nan"),
        ([math.inf], r"\[0\] is inf"),
        (dt.date(2020, 1, 1), "a datetime date"),
        (np.int64(3), "a numpy int64"),
        (np.zeros(2), "a numpy ndarray"),
    ],
)
def test_what_is_no_json_is_refused_by_its_place(value, told):
    with pytest.raises(NotJson, match=told):
        to_text(value, "set_state()")


def test_a_value_that_holds_itself_is_refused():
    value: list[object] = []
    value.append(value)
    with pytest.raises(NotJson, match="nested too deeply"):
        to_text(value, "set_state()")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' comes twice"),
        ("NaN", "NaN is no number of JSON"),
        ('{"a": [-Infinity]}', "-Infinity is no number of JSON"),
        ("[1e999]", "1e999 is too large a number"),
        ("yes", "Expecting value"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_json_has_not_is_refused_where_a_person_types_it(text, told):
    with pytest.raises(ValueError, match=told):
        typed(text)


@pytest.mark.parametrize(
    "text",
    ['{"a": {"a": [1, 2]}, "b": {"a": 1}}', " 12345678901234567890\n", '"NaN: 1e999"', "-1e-9"],
)
def test_what_is_json_is_taken_as_it_was_typed(text):
    assert typed(text) == from_text(text)
