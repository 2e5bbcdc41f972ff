"""Laws of NaNs: the object that a program asks for comes back as that object."""

# ruff: noqa: PLW0177 - which NaN it is, is the question

from __future__ import annotations

import math
from typing import Any
from unittest import mock

import numpy as np
import pytest

from cellrail_state import dumping, slabs
from cellrail_state.capture import Capture
from cellrail_state.namespace import user_names
from cellrail_state.restore import restore
from cellrail_state.testing import MemoryObjects

SOURCE = """
import math
import numpy as np
own = float('-nan')
small = [1.0, np.nan, math.nan]
table = {np.nan: 1, math.nan: 2, own: 3}
twice = [own, 2.0, own]
deep = {'a': ({'b': [np.nan]},)}
frame = __import__('pandas').DataFrame({'x': ['a', np.nan]}, dtype=object)
many = [(i, np.nan if i % 3 else math.nan, 1j) for i in range(300)]
class Box:
    empty = np.nan
    def get(self, default=np.nan): return default
box = Box()
x = np.nan
"""


@pytest.mark.parametrize("long", [100_000, 100])
def test_nans_are_the_objects_they_were(long):
    ns: dict[str, Any] = {"__name__": "__main__"}
    exec(SOURCE, ns)
    objects = MemoryObjects()
    capture = Capture(objects, globals=ns)
    with mock.patch.multiple(slabs, LONG=long, SLAB=64):
        capture.checkpoint(user_names(ns))
        assert capture.checkpoint(user_names(ns)).written == ()
    back: dict[str, Any] = {"__name__": "__main__"}
    assert not restore(capture.current, back, objects).failed

    assert back["small"][1] is np.nan
    assert back["small"][2] is math.nan
    assert (back["table"][np.nan], back["table"][math.nan]) == (1, 2)
    first, _, last = back["twice"]
    assert first is last
    assert math.copysign(1, first) == -1
    assert back["deep"]["a"][0]["b"][0] is np.nan
    assert back["frame"]["x"][1] is np.nan
    assert back["many"][1][1] is np.nan
    assert back["many"][3][1:] == (math.nan, 1j)
    assert back["box"].empty is back["box"].get() is back["x"] is np.nan
    again = Capture(objects, globals=back)
    again.adopt(capture.current, user_names(back))
    assert again.checkpoint(user_names(back)).written == ()


def test_a_value_that_held_nans_is_pickled_once_from_then_on():
    ns: dict[str, Any] = {"__name__": "__main__", "plot": [math.inf, -math.inf], "x": [math.nan]}
    objects = MemoryObjects()
    capture, dumper = Capture(objects, globals=ns), dumping.Dumper
    with mock.patch.object(dumper, "_made", autospec=True, side_effect=dumper._made) as made:

        def pickled() -> list[str]:
            made.reset_mock()
            capture.checkpoint(user_names(ns))
            return sorted(call.args[2][0] for call in made.mock_calls)

        # where nothing is known yet, it is found out; an infinity is a number
        assert pickled() == ["plot", "x", "x"]
        ns["x"].append(1)
        ns["plot"].append(1)
        assert pickled() == ["plot", "x"]
        # nor does a hint that is out of date do harm
        ns["x"][:] = [2.0]
        assert pickled() == ["x"]
        ns["x"].append(math.nan)
        assert pickled() == ["x", "x"]

    back: dict[str, Any] = {"__name__": "__main__"}
    assert not restore(capture.current, back, objects).failed
    assert (back["plot"], back["x"]) == ([math.inf, -math.inf, 1], [2.0, math.nan])
