"""Figures are pickled once for all variables that hold parts of them, and come back whole."""

from __future__ import annotations

import sys
import types
from importlib.machinery import ModuleSpec
from typing import Any

import pytest

from cellrail_state import pickling
from cellrail_state.capture import Capture
from cellrail_state.namespace import user_names
from cellrail_state.restore import restore
from cellrail_state.testing import MemoryObjects

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("agg")


class Notebook:
    def __init__(self) -> None:
        self.ns: dict[str, Any] = {"__name__": "__main__"}
        self.store = MemoryObjects()
        self.capture = Capture(self.store, globals=self.ns)

    def cell(self, source: str) -> Any:
        exec(source, self.ns)
        return self.capture.checkpoint(user_names(self.ns))

    def restored(self) -> dict[str, Any]:
        ns: dict[str, Any] = {"__name__": "__main__"}
        report = restore(self.capture.current, ns, self.store)
        assert not report.failed
        return ns


SETUP = "from matplotlib.figure import Figure\nfig = Figure(); axes = fig.subplots(2)"


def test_parts_of_a_figure_come_back_as_parts_of_it():
    book = Notebook()
    book.cell(f"{SETUP}\nline, = axes[0].plot([1, 2]); pair = [axes[1], line]; same = axes")
    back = book.restored()

    assert back["axes"][0] is back["fig"].axes[0]
    assert back["line"] is back["fig"].axes[0].lines[0]
    assert back["pair"][0] is back["axes"][1]
    assert back["same"] is back["axes"]


def test_a_figure_is_pickled_once_for_all_that_hold_it(monkeypatch):
    book = Notebook()
    book.cell("import matplotlib")
    met: list[object] = []
    dump = pickling.Pickler.dump

    def count(self, value):
        met.append(value)
        return dump(self, value)

    monkeypatch.setattr(pickling.Pickler, "dump", count)
    book.cell(f"{SETUP}\nax = axes[0]; other = axes[1]")

    fig = book.ns["fig"]
    assert [type(value).__name__ for value in met].count("Figure") == 2  # itself, and as `fig`
    assert sum(getattr(value, "figure", None) is fig for value in met) <= 4


def test_an_untouched_figure_is_not_written_again():
    book = Notebook()
    book.cell(SETUP)
    delta = book.cell("x = 1")

    assert set(delta.written) == {"x"}
    assert "fig" not in delta.variables


def test_a_change_of_a_part_is_a_change_of_all_that_hold_the_figure():
    book = Notebook()
    book.cell(SETUP)
    delta = book.cell("axes[1].set_title('new')")

    assert set(delta.written) >= {"fig", "axes"}
    assert book.restored()["fig"].axes[1].get_title() == "new"


def test_figures_that_share_nothing_of_the_notebooks_are_stored_apart():
    book = Notebook()
    book.cell(
        f"{SETUP}\n[a.plot([1, 2], 'o', color='red') for a in axes]\n"
        "fig2 = Figure(); ax2 = fig2.subplots(); ax2.plot([1, 2], 'o', color='red')"
    )
    components = {book.capture.current.variables[n].component for n in ("fig", "fig2")}
    assert len(components) == 2
    delta = book.cell("ax2.set_title('new')")

    assert {"fig2", "ax2"} == set(delta.written)


@pytest.mark.parametrize("colours", ["'viridis'", "None", "cm.rocket"])
def test_figures_of_one_map_of_colours_are_stored_apart(monkeypatch, colours):
    """Each has a copy of it, and every copy shows the library's own list."""
    of_seaborn(monkeypatch)
    book = Notebook()
    made = f"subplots(); ax.imshow([[1, 2], [3, 4]], cmap={colours})"
    book.cell(
        "from matplotlib.figure import Figure\nimport seaborn.cm as cm\n"
        f"a = Figure(); ax = a.{made}\nb = Figure(); ax = b.{made}\ndel ax"
    )
    variables = book.capture.current.variables
    assert variables["a"].component != variables["b"].component
    back = book.restored()
    assert back["a"].axes[0].images[0].cmap == book.ns["a"].axes[0].images[0].cmap


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_a_map_of_colours_of_seaborn_is_that_one_again_unless_it_was_changed(monkeypatch):
    seaborn = of_seaborn(monkeypatch)
    book = Notebook()
    book.cell("import seaborn.cm as cm\nkept = [cm.rocket]")
    assert book.restored()["kept"][0] is seaborn.rocket
    book.cell("cm.rocket.set_bad('black')")
    other = book.restored()["kept"][0]
    assert other is not seaborn.rocket
    assert other == seaborn.rocket


def of_seaborn(monkeypatch):
    """What `seaborn.cm` holds."""
    from matplotlib.colors import ListedColormap

    package, module = types.ModuleType("seaborn"), types.ModuleType("seaborn.cm")
    package.cm = module
    module.rocket = ListedColormap([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], "rocket")
    for one in (package, module):
        one.__spec__ = ModuleSpec(one.__name__, None)
        monkeypatch.setitem(sys.modules, one.__name__, one)
    return module


def test_a_figure_that_shares_with_other_variables_shares_again():
    book = Notebook()
    book.cell(f"{SETUP}\nnote = ['a']; fig.note = note; holder = {{'ax': axes[0]}}")
    back = book.restored()

    assert back["fig"].note is back["note"]
    assert back["holder"]["ax"] is back["axes"][0]


def test_a_restored_figure_is_no_change():
    book = Notebook()
    book.cell(SETUP)
    ns: dict[str, Any] = {"__name__": "__main__"}
    report = restore(book.capture.current, ns, book.store)
    again = Capture(book.store, globals=ns)
    again.adopt(book.capture.current, user_names(ns), report.definitions)
    delta = again.checkpoint(user_names(ns))

    assert delta.written == ()
    ns["axes"][0].set_title("new")
    assert set(again.checkpoint(user_names(ns)).written) == {"fig", "axes"}


def test_a_part_that_left_its_figure_is_stored_by_itself():
    book = Notebook()
    book.cell(f"{SETUP}\nline, = axes[0].plot([1, 2])")
    book.cell("line.remove()")
    back = book.restored()

    assert list(back["line"].get_xdata()) == [0, 1]
    assert not back["fig"].axes[0].lines
