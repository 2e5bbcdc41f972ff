"""Laws of the house that no linter knows."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import cellrail
import cellrail_state

HEAVY = ("papermill", "pandas", "duckdb", "ipywidgets", "nbformat", "nbclient", "numpy")


def loaded_after(code: str) -> set[str]:
    told = f"{code}; import sys; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", told], check=True, capture_output=True, text=True, timeout=60
    )
    return set(done.stdout.split())


def test_importing_cellrail_imports_nothing_heavy():
    assert not loaded_after("import cellrail").intersection(HEAVY)


def test_loading_the_extension_imports_nothing_heavy():
    code = (
        "from IPython.core.interactiveshell import InteractiveShell as S; "
        "S.instance().run_line_magic('load_ext', 'cellrail')"
    )
    before = loaded_after("from IPython.core.interactiveshell import InteractiveShell")
    loaded = loaded_after(code) - before
    assert not loaded.intersection(HEAVY)
    assert "cellrail.panels" not in loaded


@pytest.mark.parametrize("package", [cellrail, cellrail_state], ids=["cellrail", "state"])
def test_every_module_can_be_imported_and_flow_stays_the_in_cell_api(package):
    names = [m.name for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    for name in names:
        if not name.endswith("__main__"):
            assert import_module(name).__doc__, name
    assert repr(cellrail.flow) == "<cellrail flow>"
    with pytest.raises(AttributeError):
        _ = cellrail.flow.nonsense


def test_nothing_of_the_product_names_the_machine_it_was_made_on():
    roots = [Path(p.__path__[0]) for p in (cellrail, cellrail_state)]
    for root in roots:
        for file in root.rglob("*.py"):
            assert "/home/" not in file.read_text("utf-8"), file
