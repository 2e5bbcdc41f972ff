"""Which imports of a notebook are done ahead.

* those before the first statement that can have any effect, in their order;
* of installed distributions and the standard library only.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cellrail.kernels.ahead import Finder, leading_imports, shadows, site_stamp


def test_imports_at_the_beginning_are_found_in_their_order() -> None:
    sources = [
        '"""About."""\nimport numpy as np, os.path\nfrom __future__ import annotations',
        "day = '2013-01-01'\nlimit: int = -3\n%matplotlib inline\ndef f(x=1):\n    return x",
        "from sklearn.linear_model import Ridge\nimport numpy",
    ]
    assert leading_imports(sources) == ["numpy", "os.path", "sklearn.linear_model"]


@pytest.mark.parametrize(
    "effect",
    [
        "os.environ['A'] = '1'",
        "%env A=1",
        "!pip install x",
        "x = f()",
        "x = [f()]",
        "if x:\n    import torch",
        "@decorated\ndef f(): ...",
        "def f(x=g()): ...",
        "class A: ...",
        "try:\n    import a\nexcept ImportError:\n    a = None",
        "from . import a",
        "x = f'{g()}'",
        "x.y = 1",
        "this is no Python",
    ],
)
def test_nothing_behind_an_effect_is_imported_ahead(effect: str) -> None:
    assert "pandas" not in leading_imports([effect, "import pandas"])
    assert "pandas" not in leading_imports([f"{effect}\nimport pandas"])


def test_modules_of_ones_own_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("")
    (tmp_path / "colorsys.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)  # another test may have used it
    finder = Finder()
    assert finder.why_not("mine") == "it is local"
    assert finder.why_not("colorsys") == "it is local"
    assert finder.why_not("no_such_module") == "it is not installed"
    assert finder.why_not("sqlite3") == ""
    assert finder.why_not("pandas.tseries.offsets") == ""


def test_a_folder_can_stand_before_an_installed_module(tmp_path: Path) -> None:
    (tmp_path / "pandas").mkdir()
    (tmp_path / "numpy.py").write_text("")
    assert shadows(tmp_path, ["numpy", "pandas", "six"]) == ["numpy", "pandas"]
    assert shadows(tmp_path / "none", ["numpy"]) == []


def test_an_installation_is_noticed(tmp_path: Path) -> None:
    before = site_stamp([str(tmp_path)])
    (tmp_path / "new-1.0.dist-info").mkdir()
    assert site_stamp([str(tmp_path)]) != before
