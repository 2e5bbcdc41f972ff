"""Laws: only the user's names count; a preview is one short line and never runs user code."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cellrail_state.namespace import preview, type_name, user_names


def test_hidden_names_dunders_and_names_that_are_no_strings_are_not_the_users() -> None:
    assert user_names({"a": 1, "In": [], "__name__": "x", 3: 4}, {"In"}) == {"a": 1}


def test_a_type_is_told_by_its_shortest_public_name() -> None:
    assert type_name(int) == "int"
    assert type_name(pd.DataFrame) == "pandas.DataFrame"
    assert type_name(np.ndarray) == "numpy.ndarray"
    assert type_name(type("Mine", (), {"__module__": "__main__"})) == "Mine"


def test_previews_tell_shape_length_or_value() -> None:
    assert preview(np.zeros((2, 3))) == "2 x 3 float64"
    assert preview(pd.DataFrame({"a": [1]})) == "1 x 1 table"
    assert preview([1, 2]) == "2 items"
    assert preview("x") == "'x'"
    assert preview(10**5000) == "16610 bits"
    assert len(preview("x" * 1000)) == 80


def test_a_preview_never_runs_code_of_the_notebook_nor_raises() -> None:
    class Loud:
        __module__ = "__main__"

        def __repr__(self) -> str:
            raise AssertionError

        def __len__(self) -> int:
            raise AssertionError

        def __getattr__(self, name: str) -> object:
            raise AssertionError

    assert preview(Loud()) == ""
