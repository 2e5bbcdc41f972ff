"""What code shows of things that no checkpoint covers."""

from __future__ import annotations

import pytest

from cellrail.notebook.uncovered import uncovered


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import logging\nlogging.basicConfig(level=10)", ("handlers of loggers",)),
        ("log.addHandler(h); log.addHandler(g)", ("handlers of loggers",)),
        ("t = threading.Thread(target=f)\nsignal.signal(2, f)", ("threads", "signal handlers")),
        ("x = 1", ()),
        ("%%bash\nsleep 1", ()),
    ],
)
def test_what_a_cell_leaves_behind_is_named_once(code, told):
    assert uncovered(code) == told


def test_a_patched_module_is_named():
    code = "textwrap.dedent = f\nobject_.x = 1\npd.options.display.width = 3"

    assert uncovered(code, {"textwrap", "pd"}) == ("the patch of textwrap.dedent",)
