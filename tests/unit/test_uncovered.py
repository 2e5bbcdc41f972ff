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


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("textwrap.dedent = f\nobject_.x = 1\npd.options.display.width = 3", "textwrap.dedent"),
        ("pd.DataFrame.shout = f", "pd.DataFrame.shout"),
        ("mpl.axes.Axes.tell = f", "mpl.axes.Axes.tell"),
        ("Frame.shout = f", "Frame.shout"),
        ("del textwrap.dedent", "textwrap.dedent"),
        ("setattr(textwrap, 'dedent', f)", "textwrap.dedent"),
        ("setattr(pd.Series, 'shout', f)", "pd.Series.shout"),
        ("sys.excepthook = f", "sys.excepthook"),
    ],
)
def test_a_patched_module_or_class_of_a_library_is_named(code, told):
    names = {"textwrap", "pd", "mpl", "sys", "Frame"}

    assert uncovered(code, names) == (f"the patch of {told}",)


@pytest.mark.parametrize(
    "code",
    [
        "df.Total = 1",
        "Mine.shout = f",
        "x.y.Z.w = 1",
        "setattr(mine, 'a', 1)",
        "print(pd.DataFrame.x)",
    ],
)
def test_what_belongs_to_the_notebook_is_no_patch(code):
    assert uncovered(code, {"textwrap", "pd"}) == ()


def test_an_accessor_registered_with_a_library_is_named():
    code = "@pd.api.extensions.register_dataframe_accessor('geo')\nclass Geo: ..."

    assert uncovered(code) == ("an accessor of pandas",)
