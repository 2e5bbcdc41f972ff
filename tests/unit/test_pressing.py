"""What a button does at its press.

Laws: it is plain data, or the button is not made; days and paths come as parameters take them; a
value that may be a secret is shown nowhere; an option that there is not is refused as Python
refuses it.
"""

from __future__ import annotations

import datetime as dt
import shlex
from pathlib import Path

import pytest

from cellrail.cli.backfilling import start
from cellrail.errors import NotJson
from cellrail.panels.base import BUTTONS, ROOMS, kind_of
from cellrail.panels.pressing import backfill_table, backfill_wish, restart_table, restart_wish

DAY = dt.date(2025, 3, 1)
EVIL = "<script>alert(1)</script>"


def test_values_reach_another_process_as_parameters_take_them():
    given = {"parameters": {"day": DAY, "names": ("a", "b"), "none": None}, "cwd": Path("/tmp")}
    assert restart_wish("r1", "clean", given) == {
        "run": "r1",
        "options": {
            "from_step": "clean", "cwd": "/tmp",
            "parameters": {"day": "2025-03-01", "names": ["a", "b"], "none": None},
        },
    }  # fmt: skip
    assert restart_wish("r1", None, {"labels": None}) == {"run": "r1", "options": {}}
    made = backfill_wish(Path("/x/etl.ipynb"), "2025-03-01", None, {"every": "day", "tz": None})
    assert made == {
        "notebook": "/x/etl.ipynb", "start": "2025-03-01", "end": None, "options": {"every": "day"},
    }  # fmt: skip


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), object(), {1: 2}, b"bytes"])
def test_a_value_that_would_not_arrive_as_it_is_is_refused_when_the_button_is_made(value):
    with pytest.raises(NotJson, match="what the button does"):
        restart_wish("r1", None, {"parameters": {"a": value}})


@pytest.mark.parametrize("name", ["parallel", "progress", "plan", "detach"])
def test_an_option_that_there_is_not_is_refused_by_name(name):
    with pytest.raises(TypeError, match=f"restart_button.*'{name}'"):
        restart_wish("r1", None, {name: 1})
    if name != "parallel":
        with pytest.raises(TypeError, match=f"backfill_button.*'{name}'"):
            backfill_wish(Path("a.ipynb"), "2025-03-01", None, {name: 1})


def test_a_table_tells_what_a_press_would_do_and_no_value():
    given = {"parameters": {"token": "hunter2-hunter2"}, "labels": {"a": EVIL}}
    table = restart_table(restart_wish("r1", EVIL, given), "cellrail restart button")
    assert "parameters, labels" in table.text()
    assert "cellrail restart r1 --from" in table.text()
    assert "hunter2" not in table.text()
    assert "<script" not in table.html()
    wish = backfill_wish(Path("/x/etl.ipynb"), "2025-03-01", "2025-03-31", {"every": "day"})
    told = backfill_table(wish, "cellrail backfill button").text()
    assert "cellrail backfill start etl.ipynb --start 2025-03-01 --end 2025-03-31" in told
    assert "hunter2" not in told


def test_the_command_of_a_table_does_what_the_button_does():
    given = {
        "parameters": {"limit": 3, "day": DAY, "names": ["a b"], "none": None, "token": "hunter2"},
        "labels": {"team": "blue"}, "force": True, "widen": False, "timeout": 90,
        "kernels": "warm",
    }  # fmt: skip
    open_ones = {"limit", "day", "names", "none"}
    table = restart_table(restart_wish("r1", "clean", given), "button", told=open_ones)
    rows = dict(table.rows)
    assert shlex.split(rows["in a terminal"]) == [
        "cellrail", "restart", "r1", "--from", "clean", "-p", "limit", "3", "-r", "day",
        "2025-03-01", "-y", '{"names": ["a b"]}', "-p", "none", "None", "-r", "token", "***",
        "--label", "team=blue", "--force", "--timeout", "90",
    ]  # fmt: skip
    assert rows["only by the button"] == "kernels"
    options = {"every": "day", "stop_after": 2, "share": ["auto"], "secrets": ["token"],
               "from_start": True, "kernels": "cold", "memory": 8_000_000_000}  # fmt: skip
    wish = backfill_wish(Path("/x/my etl.ipynb"), "2025-03-01", None, options)
    words = shlex.split(dict(backfill_table(wish, "button").rows)["in a terminal"])
    known = start.make_context("start", words[3:], resilient_parsing=False).params
    assert Path(known["notebook"]).name == "my etl.ipynb"
    for name in ("every", "stop_after", "from_start", "kernels", "memory"):
        assert known[name] == options[name], name
    assert "--share auto --secret token" in " ".join(words)


def test_a_button_is_a_room_of_its_own_and_no_tab():
    assert {kind.name for kind in BUTTONS}.isdisjoint(kind.name for kind in ROOMS)
    for kind in BUTTONS:
        assert kind_of(kind.name) is kind
        assert kind.scripts == ("press", kind.name)
    assert ROOMS[-1].name == "state"
