"""Which notebook a loop's other cells are read from, where no front end tells it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cellrail.run.liveloops import _by_source

HEADER = "%%step score --foreach n in [1, 2]\na = n"


@pytest.mark.parametrize(
    ("beside", "found"),
    [
        ((), "flow.ipynb"),
        (("other = 1",), "flow.ipynb"),
        # papermill's output: the same loop below a cell that was injected
        (("# Parameters\nx = 2", HEADER, "%%step below --in score\nb = a"), "flow.ipynb"),
        # an older copy
        ((HEADER, "%%step below --in score\nb = a + 1"), None),
        ((HEADER,), None),
    ],
)
def test_of_several_notebooks_any_will_do_that_has_the_same_loop(
    make: Any, tmp_path: Path, beside: tuple[str, ...], found: str | None
) -> None:
    make("x = 1", HEADER, "%%step below --in score\nb = a")
    if beside:
        make(*beside, name="out.ipynb")

    path = _by_source(HEADER, tmp_path)

    assert (path.name if path is not None else None) == found
