"""Panels, without a front end and without a store.

Laws: text never becomes markup, in tables here and in scripts there; the kernel only hands messages
on, and the widget's state holds nothing of what is shown; the desk answers each question once,
follows what is watched while somebody looks, and tells errors to who asked; a field of the form
gives the parameter's type or is refused; whatever a cell has shown comes as pieces that need no
script.
"""

from __future__ import annotations

import datetime as dt
import io
import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest

import cellrail.panels
from cellrail.errors import BadParameter, UserError
from cellrail.notebook.parameters import infer
from cellrail.panels.base import BUTTONS, ROOMS, Room, kind_of
from cellrail.panels.desk import UNSEEN_SECONDS, Desk, Question, serve
from cellrail.panels.plain import Plain
from cellrail.panels.rooms.fields import kind_of as field_kind
from cellrail.panels.rooms.fields import text_of, value_of
from cellrail.panels.rooms.frames import PAGE
from cellrail.panels.rooms.outputs import pieces_of
from cellrail.panels.rooms.previews import look_at
from cellrail_state.tables import Table

EVIL = """<script>alert('x')</script><img src=x onerror="alert(1)">&"""
JS = Path(cellrail.panels.__file__).parent / "js"


# --- text stays text -------------------------------------------------------------------------


def test_a_table_shows_whatever_it_holds_as_text():
    table = Table(title=EVIL, headings=(EVIL,), rows=((EVIL,), ("a\x1b[2Jb\nc",)))

    assert "<script" not in table.html()
    assert "<img" not in table.html()
    assert table.html().count("&lt;script&gt;") == 3
    assert "\x1b" not in table.text()
    assert len(table.text().splitlines()) == 4


def test_an_empty_table_says_so():
    assert Table(title="runs", headings=("run",), empty="none").text() == "runs: none"
    assert "<td colspan" in Table(title="runs", headings=("run",), empty="<none>").html()
    assert "&lt;none&gt;" in Table(title="runs", headings=("run",), empty="<none>").html()


def test_a_panel_without_a_front_end_tells_why_there_is_no_table():
    def broken():
        raise UserError("no <run>", hint="make one")

    plain = Plain("cellrail", broken)
    assert "no <run> (make one)" in repr(plain)
    assert "no &lt;run&gt; (make one)" in plain._repr_html_()
    assert not plain.has_front_end()


@pytest.mark.parametrize("script", sorted(JS.glob("*.js")), ids=lambda path: path.name)
def test_no_script_makes_markup_of_text(script):
    code = script.read_text("utf-8")

    for way in (
        "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "eval(",
        "new Function", "createContextualFragment", "setHTML", "importScripts", "fetch(",
    ):  # fmt: skip
        assert way not in code, way
    # frames are the one place that takes markup, and they run nothing
    if "srcdoc" in code.replace("|srcdoc|", ""):
        assert script.name == "shared.js"
        assert re.findall(r'setAttribute\("sandbox", "([^"]*)"\)', code) == ["allow-same-origin"]
        assert "default-src 'none'" in code


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed here")
@pytest.mark.parametrize("kinds", [ROOMS, BUTTONS], ids=["rooms", "buttons"])
def test_the_scripts_of_a_panel_are_one_module(tmp_path, kinds):
    from cellrail.panels.widget import script_of

    module = tmp_path / "panel.mjs"
    module.write_text(script_of(kinds), "utf-8")
    done = subprocess.run(
        ["node", "--check", str(module)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# --- the widget ------------------------------------------------------------------------------


@pytest.fixture
def widget(tmp_path):
    from cellrail.panels.widget import Panel

    sent = []

    class Heard(Panel):
        def send(self, content, buffers=None):
            sent.append(content)

    table = Table(title="cellrail", headings=("run",), rows=((EVIL,),))
    panel = Heard([kind_of("runs")], Plain("cellrail", lambda: table), store=tmp_path)
    panel.sent = sent
    yield panel
    panel.close()


def test_the_state_of_a_widget_holds_nothing_of_what_is_shown(widget):
    state = {k: v for k, v in widget.get_state().items() if k not in {"_esm", "_css", "layout"}}

    widget._tell({"n": 1, "data": {"rows": [EVIL]}})
    assert widget.sent == [{"n": 1, "data": {"rows": [EVIL]}}]
    after = {k: v for k, v in widget.get_state().items() if k in state}
    assert after == state
    of_widgets = ("_model", "_view", "_dom", "_any")
    assert {k: v for k, v in state.items() if not k.startswith(of_widgets)} == {
        "value": "", "_rooms": [["runs", "Runs"]], "_start": {}, "tabbable": None, "tooltip": None,
    }  # fmt: skip


def test_a_panel_that_is_closed_leaves_no_widget(tmp_path):
    from ipywidgets.widgets.widget import _instances

    from cellrail.panels.widget import Panel

    before = set(_instances)
    plain = Plain("cellrail", lambda: Table(title="cellrail", headings=("run",)))
    panel = Panel([kind_of("runs")], plain, store=tmp_path)
    panel.close()
    panel.close()
    assert set(_instances) == before


def test_a_value_is_read_set_and_observed(widget):
    seen = []
    widget.observe(lambda change: seen.append(change["new"]), "value")
    widget.value = "20130101-run"
    assert seen == ["20130101-run"]


def test_what_a_button_does_stays_in_the_kernel(tmp_path, monkeypatch):
    from cellrail.panels.widget import Panel

    asked, told = [], []
    wish = {"run": "r", "options": {"parameters": {"token": EVIL}}}
    panel = Panel(
        [kind_of("restart_button")], Plain("button", lambda: Table(title="", headings=())),
        store=tmp_path, start={"words": "Again"}, own={"wish": wish, "button": "b"},
    )  # fmt: skip
    monkeypatch.setattr(panel._clerk, "ask", lambda _, question: asked.append(question))
    monkeypatch.setattr(panel, "_tell", told.append)
    forged = {"run": "another", "options": {}}
    panel.heard(None, {"n": 1, "room": "restart_button", "what": "press",
                       "args": {"id": "old", "wish": forged}}, [])  # fmt: skip
    panel.heard(None, {"alive": True}, [])
    assert told == [{"heard": True}, {"heard": True}]
    assert asked == [
        {"n": 1, "room": "restart_button", "what": "press",
         "args": {"id": "old", "wish": wish, "button": "b"}},
        {"alive": True},
    ]  # fmt: skip
    assert EVIL not in str(panel.get_state())
    panel.close()


def test_without_a_front_end_a_widget_is_a_table(widget):
    shown = widget._repr_mimebundle_()
    assert set(shown) == {"text/plain", "text/html"}
    assert "<script" not in shown["text/html"]


def test_with_a_front_end_no_row_stays_in_the_notebook(widget, monkeypatch):
    monkeypatch.setattr(Plain, "has_front_end", staticmethod(lambda: True))
    data, _ = widget._repr_mimebundle_()
    assert data["text/plain"] == "cellrail: run this cell to open it"
    assert "application/vnd.jupyter.widget-view+json" in data
    assert "text/html" not in data


# --- the desk --------------------------------------------------------------------------------


class Counting(Room):
    """Answers with what it was asked, and counts."""

    slow = frozenset({"load"})

    def __init__(self):
        self.beat, self.asked = 0, 0

    def ask_echo(self, args):
        self.asked += 1
        return [args.get("word"), self.beat // 2]

    def ask_load(self, args):
        return "loaded"

    def ask_break(self, args):
        raise UserError("it <broke>", hint="mend it")

    def stamp(self, what, args):
        return self.beat


@pytest.fixture
def desk():
    made = Counting()
    told, now = [], [0.0]
    desk = Desk(
        lambda _: made, lambda line: told.append(msgspec.json.decode(line)), clock=lambda: now[0]
    )
    desk.room, desk.told, desk.now = made, told, now
    yield desk
    desk.close()


def test_each_question_gets_its_answer(desk):
    desk.take(Question(panel="p", n=7, room="runs", what="echo", args={"word": EVIL}))
    desk.take(Question(panel="p", n=8, room="runs", what="load"))
    desk.close(wait=True)
    assert desk.told == [
        {"panel": "p", "n": 7, "data": [EVIL, 0]}, {"panel": "p", "n": 8, "data": "loaded"},
    ]  # fmt: skip


def test_an_error_is_told_to_who_asked(desk):
    desk.take(Question(panel="p", n=1, room="runs", what="break"))
    desk.take(Question(panel="p", n=2, room="runs", what="dance"))
    assert desk.told[0]["error"] == {"message": "it <broke>", "hint": "mend it"}
    assert "dance" in desk.told[1]["error"]["message"]


def test_what_is_watched_is_told_again_only_where_it_has_changed(desk):
    desk.take(Question(panel="p", n=1, room="runs", what="echo", watch=True))
    desk.look()
    assert (len(desk.told), desk.room.asked) == (1, 1)
    desk.room.beat = 1  # something happened, the answer is the same
    desk.look()
    assert (len(desk.told), desk.room.asked) == (1, 2)
    desk.room.beat = 2
    desk.look()
    assert [line["data"] for line in desk.told] == [[None, 0], [None, 1]]


def test_a_watch_ends_when_it_is_dropped_or_the_panel_is_gone(desk):
    for n in (1, 2):
        desk.take(Question(panel="p", n=n, room="runs", what="echo", watch=True))
    desk.take(Question(panel="q", n=1, room="runs", what="echo", watch=True))
    desk.take(Question(panel="p", n=1, drop=True))
    desk.take(Question(panel="q", gone=True))
    desk.told.clear()
    desk.room.beat = 2
    desk.look()
    assert [(line["panel"], line["n"]) for line in desk.told] == [("p", 2)]
    desk.take(Question(panel="p", n=2, drop=True))
    assert not desk.follows


def test_nothing_is_followed_while_nobody_looks(desk):
    desk.take(Question(panel="p", n=1, room="runs", what="echo", watch=True))
    desk.now[0], desk.room.beat = UNSEEN_SECONDS + 1, 2
    desk.look()
    assert len(desk.told) == 1
    desk.take(Question(panel="p", alive=True))
    desk.look()
    assert len(desk.told) == 2


def test_a_desk_ends_with_its_input(desk):
    line = msgspec.json.encode(Question(panel="p", n=1, room="runs", what="echo"))
    serve(desk, io.BytesIO(line + b"\n"))
    assert [answer["n"] for answer in desk.told] == [1]


# --- what cells have shown -------------------------------------------------------------------


def test_outputs_come_as_pieces_that_need_no_script():
    def shown(**data):
        return {
            "output_type": "display_data",
            "data": {k.replace("_", "/"): v for k, v in data.items()},
        }

    pieces = pieces_of([
        {"output_type": "stream", "name": "stderr", "text": ["a", "b"]},
        shown(text_html=[EVIL], text_plain="t"),
        {"output_type": "display_data", "data": {"image/svg+xml": EVIL, "text/plain": "svg"}},
        {"output_type": "display_data", "data": {"image/png": "iVBO\n"}},
        {"output_type": "display_data", "data": {"application/javascript": "alert(1)"}},
        {"output_type": "display_data", "data": {
            "application/vnd.jupyter.widget-view+json": {}, "text/html": EVIL, "text/plain": "w"}},
        {"output_type": "error", "traceback": ["\x1b[31mE", EVIL]},
    ])  # fmt: skip

    assert [piece["kind"] for piece in pieces] == [
        "text", "html", "picture", "picture", "note", "text", "error",
    ]  # fmt: skip
    assert pieces[0] == {"kind": "text", "name": "stderr", "text": "ab"}
    assert pieces[2]["src"].startswith("data:image/svg+xml;base64,")
    assert pieces[3]["src"] == "data:image/png;base64,iVBO"
    assert pieces[5]["text"] == "w"
    assert EVIL in pieces[6]["text"]


def test_markdown_is_shown_as_a_notebook_does_and_its_scripts_go_where_those_of_html_go():
    text = ["# Late\n", "\n", "| a | *b* |\n", "|---|---|\n", f"| 1 | {EVIL} |\n"]
    data = {"text/markdown": text, "text/plain": "<Markdown object>"}
    (piece,) = pieces_of([{"output_type": "display_data", "data": data}])

    # the browser shows it in a frame without scripts
    assert piece["kind"] == "html"
    assert "<h1>Late</h1>" in piece["html"]
    assert "<th><em>b</em></th>" in piece["html"]


def test_a_very_long_text_loses_its_middle():
    (piece,) = pieces_of(
        [{"output_type": "stream", "name": "stdout", "text": "x" * 500_000 + "end"}]
    )
    assert len(piece["text"]) < 70_000
    assert piece["text"].endswith("end")
    assert "left out" in piece["text"]


# --- previews --------------------------------------------------------------------------------


@pytest.fixture
def frame():
    return pd.DataFrame({"a": range(100), EVIL: [EVIL] * 100, "when": pd.Timestamp("2013-01-01")})


def test_a_table_is_shown_page_by_page(frame):
    page = look_at(frame, {"offset": 25})
    assert (page["kind"], page["total"], len(page["rows"])) == ("table", 100, PAGE)
    assert page["rows"][0] == ["25", "25", EVIL, "2013-01-01 00:00:00"]
    assert [(name, number) for name, _, number in page["columns"]] == [
        ("a", True), (EVIL, False), ("when", False),
    ]  # fmt: skip


def test_a_table_is_sorted_and_filtered_in_sql(frame):
    page = look_at(frame, {"sort": 0, "descending": True, "where": "a < 40"})
    assert (page["total"], page["rows"][0][1]) == (40, "39")
    column = '"' + EVIL.replace('"', '""') + '"'
    assert look_at(frame, {"where": f"{column} IS NULL"})["total"] == 0
    assert look_at(frame, {"sort": 1})["total"] == 100
    with pytest.raises(UserError, match="no column 3"):
        look_at(frame, {"sort": 3})


@pytest.mark.parametrize(
    "where", ["nonsense here", "1) --", "a = (SELECT count(*) FROM '/etc/passwd')", "frame2.a = 1"]
)
def test_a_wrong_filter_is_refused_with_what_to_write(frame, where):
    with pytest.raises(UserError, match="the filter is wrong") as caught:
        look_at(frame, {"where": where})
    assert "WHERE" in caught.value.hint


def _frames_of(columns):
    """A table of each library, of columns by name."""
    import polars as pl
    import pyarrow as pa

    return [pd.DataFrame(columns), pl.DataFrame(columns), pa.table(columns)]


@pytest.mark.parametrize("library", [0, 1, 2], ids=["pandas", "polars", "arrow"])
def test_columns_that_differ_in_case_only_keep_their_values_and_have_names_for_the_filter(library):
    frame = _frames_of({"A": [1, 2, 3], "b": [7, 8, 9], "a": [6, 5, 4]})[library]

    page = look_at(frame, {"sort": 2})
    assert [row[-3:] for row in page["rows"]] == [
        ["3", "9", "4"], ["2", "8", "5"], ["1", "7", "6"],
    ]  # fmt: skip
    assert [name for name, *_ in page["columns"]] == ["A", "b", "a"]
    assert page["called"] == ["A_1", "", "a_2"]
    assert look_at(frame, {"where": "a_2 = 4"})["rows"][0][-3:] == ["3", "9", "4"]
    assert look_at(frame, {"where": "A_1 = 1 AND B = 7"})["rows"][0][-3:] == ["1", "7", "6"]
    # which of both is meant is not guessed
    with pytest.raises(UserError, match=r"a.*not found"):
        look_at(frame, {"where": "a = 4"})


def test_columns_of_one_name_are_sorted_and_filtered_too():
    import pyarrow as pa

    frame = pd.DataFrame([[1, 2, 0], [0, 3, 1]], columns=["a", "a", ""])
    assert look_at(frame, {})["rows"] == [["0", "1", "2", "0"], ["1", "0", "3", "1"]]
    assert look_at(frame, {"sort": 0})["rows"] == [["1", "0", "3", "1"], ["0", "1", "2", "0"]]
    assert look_at(frame, {"where": "a_2 > 2"})["rows"] == [["1", "0", "3", "1"]]
    assert look_at(frame, {"where": "column_1 = 0"})["total"] == 1
    twice = pa.table([pa.array([1]), pa.array([2])], names=["x", "x"])
    assert look_at(twice, {})["rows"] == [["1", "2"]]


def test_an_index_without_a_name_can_be_filtered_by():
    frame = pd.DataFrame({"a": [1, 2, 3]}, index=[10, 20, 30])
    page = look_at(frame, {"where": "index > 15"})
    assert (page["index"], page["rows"]) == ("index", [["20", "2"], ["30", "3"]])
    frame = pd.DataFrame({"index": [1, 2]}, index=[10, 20])  # the column counts
    assert look_at(frame, {"where": "index = 2"})["rows"] == [["20", "2"]]
    levels = pd.MultiIndex.from_tuples([(1, "x"), (2, "y")], names=[None, "b"])
    page = look_at(pd.DataFrame({"a": [1, 2]}, index=levels), {"where": "level_0 = 2"})
    assert (page["index"], page["rows"][0][-1]) == ("level_0, b", "2")


def test_a_frame_that_is_sorted_or_filtered_keeps_its_index_types_and_alignment():
    frame = pd.DataFrame(
        {"n": [3, 1, 2], "kind": pd.Categorical(["x", "y", "x"]), "f": [0.5, float("nan"), 2]},
        index=pd.Index(["c", "a", "b"], name="id"),
    )
    plain = look_at(frame, {})
    page = look_at(frame, {"sort": 0, "where": "kind = 'x'"})

    assert page["columns"] == plain["columns"] == [
        ["n", "int64", True], ["kind", "category", False], ["f", "float64", True],
    ]  # fmt: skip
    assert page["index"] == plain["index"] == "id"
    assert page["rows"] == [["b", "2", "x", "2"], ["c", "3", "x", "0.5"]]
    assert look_at(frame, {"where": "id = 'a'"})["rows"] == [["a", "1", "y", "nan"]]
    # of two levels; an index without a name
    assert look_at(frame.set_index("kind", append=True), {"sort": 1})["index"] == "id, kind"
    assert look_at(frame.reset_index(drop=True), {"sort": 0})["index"] == "index"
    # what the index is called is no column's name in the filter
    frame.index.name = "N"
    assert look_at(frame, {"where": "n = 1"})["rows"] == [["a", "1", "y", "nan"]]


@pytest.mark.parametrize("library", [0, 1, 2], ids=["pandas", "polars", "arrow"])
def test_a_wide_table_is_shown_column_by_column(library):
    frame = _frames_of({f"c{n}": [n, -n] for n in range(150)})[library]

    page = look_at(frame, {"column": 60, "sort": 149})
    assert (page["columns_total"], page["column"], len(page["columns"])) == (150, 60, 60)
    assert page["columns"][0][0] == "c60"
    assert page["rows"][0][-60:] == [str(-n) for n in range(60, 120)]
    assert [name for name, *_ in look_at(frame, {"column": 120})["columns"]][-1] == "c149"
    # a page behind the last is the last column
    assert look_at(frame, {"column": 1000})["columns"][0][0] == "c149"


def test_a_column_that_sql_knows_nothing_of_keeps_no_other_from_being_sorted_or_filtered():
    periods = pd.period_range("2013-01", periods=3, freq="M", name="month")
    frame = pd.DataFrame({"n": [3, 1, 2], "span": periods}, index=periods)

    assert look_at(frame, {"sort": 0, "where": "n < 3"})["rows"] == [
        ["2013-02", "1", "2013-02"], ["2013-03", "2", "2013-03"],
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"type period\[M\] cannot be sorted"):
        look_at(frame, {"sort": 1})


def test_a_table_without_columns_or_rows_is_shown():
    assert look_at(pd.DataFrame(index=[1, 2]), {})["rows"] == [["1"], ["2"]]
    for frame in _frames_of({"a": [1, 2]}):
        assert look_at(frame, {"where": "a > 2"})["rows"] == []


def test_arrays_and_other_values_are_told_in_short():
    shown = look_at(np.array([[1.0, np.nan], [3.0, 2.0]]), {})
    assert shown["kind"] == "array"
    assert dict(shown["facts"]) == {
        "shape": "2 by 2", "type": "float64", "least": "1", "greatest": "3", "mean": "2",
        "not finite": "1",
    }  # fmt: skip
    assert look_at({"a": EVIL}, {})["kind"] == "text"
    assert len(look_at("x" * 10**6, {})["text"]) < 30_000


def test_a_value_whose_repr_fails_is_told():
    class Broken:
        def __repr__(self):
            raise ValueError(EVIL)

    assert "whose repr fails: ValueError" in look_at(Broken(), {})["text"]


# --- the form of a restart -------------------------------------------------------------------

CELL = """\
import datetime as dt
from typing import Literal
day = dt.date(2013, 1, 1)
at: dt.datetime = None
count = 3
ratio = 0.5
really = True
name = "x"
regions = ["a", "b"]
mode: Literal["fast", "slow"] = "fast"
size: int = compute()
anything = None
limit: int | None = 5
share: Optional[float] = None
note: None|str = "x"
"""
PARAMETERS = {parameter.name: parameter for parameter in infer(CELL)}


def test_each_parameter_gets_the_field_of_its_type():
    assert {name: field_kind(parameter) for name, parameter in PARAMETERS.items()} == {
        "day": "date", "at": "datetime", "count": "int", "ratio": "float", "really": "bool",
        "name": "text", "regions": "json", "mode": "choice", "size": "int", "anything": "any",
        "limit": "int", "share": "float", "note": "text",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("day", "2013-02-01", "2013-02-01"), ("at", "2013-02-01T12:00", "2013-02-01T12:00:00"),
        ("count", "12345678901234567890", 12345678901234567890), ("ratio", "1e-3", 0.001),
        ("really", "false", False), ("name", "12", "12"), ("regions", '["c"]', ["c"]),
        ("mode", "slow", "slow"), ("anything", "12", 12), ("anything", "True", True),
        ("anything", EVIL, EVIL), ("anything", "", None),
        ("limit", "7", 7), ("limit", "", None), ("share", "", None), ("share", "7", 7.0),
        ("note", "5", "5"), ("note", "", None), ("at", "", None), ("name", "", ""),
    ],
)  # fmt: skip
def test_the_text_of_a_field_becomes_a_value_of_its_type(name, text, value):
    made = value_of(PARAMETERS[name], text)
    assert (made, type(made)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("day", "tomorrow"),
        ("count", "1.5"),
        ("regions", "[a]"),
        ("regions", "[NaN]"),
        ("regions", '[{"a": 1, "a": 2}]'),
        ("mode", "other"),
        ("really", "x"),
        ("limit", "seven"),
        ("day", ""),
    ],
)
def test_a_text_that_is_no_such_value_is_refused_by_name(name, text):
    with pytest.raises(BadParameter, match=f"^{name}: "):
        value_of(PARAMETERS[name], text)


def test_values_become_the_text_of_their_fields():
    nan = float("nan")
    assert [text_of(v) for v in (None, 1.5, nan, True, "a", ["b"], dt.date(2013, 1, 1))] == [
        "", "1.5", "nan", "true", "a", '["b"]', "2013-01-01",
    ]  # fmt: skip
