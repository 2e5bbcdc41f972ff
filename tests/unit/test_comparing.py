"""Laws of comparing: what differs from process to process is no difference, everything else is."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from cellrail.comparing import readable
from cellrail_state.equality import differs


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("<function f at 0x7f1234567890>", "<function f at 0x7f0987654321>"),
        ("f=<function ratio_name at 0x7f1...", "f=<function ratio_name at 0x7f4..."),
        ("...x7f1234567890>", "...x7f0987654321>"),
        ("sk-container-id-3", "sk-container-id-1"),
    ],
)
def test_addresses_and_ids_of_a_process_are_no_difference(one, other):
    assert readable({"text/plain": [one]}) == readable({"text/plain": [other]})


@pytest.mark.parametrize(
    ("one", "other"), [("0x10", "0x11"), ("0xff...", "0xff"), ("x...", "y...")]
)
def test_numbers_that_a_cell_prints_are(one, other):
    assert readable(one) != readable(other)


def test_a_dtype_is_its_kind_and_not_its_object():
    array = np.arange(3.0)
    loaded = pickle.loads(pickle.dumps(array))
    assert differs([array, array.dtype, np.dtype("f8")], [loaded, loaded.dtype, loaded.dtype]) == ""
    assert differs([np.dtype("f8")], [np.dtype("f4")])
    told = np.dtype("f8", metadata={"unit": "m"})
    assert differs([told], [np.dtype("f8")])
