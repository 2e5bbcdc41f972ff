"""Secrets in what identifies something: items of loops, keys of effects, calls and loops in cells.

Laws: no record holds a secret; what stands for one in a key is the same for the same secret and
another for another one; items are addressed by it and by their place.
"""

from __future__ import annotations

import re

import pytest

from cellrail.errors import RestartRefused
from reading import printed

WORDS = ("hunter2-battery", "hunter2-staple")
SECRETS = "from cellrail import flow, get_variable\na, b = get_variable('a'), get_variable('b')"
STAND_IN = re.compile(r"secret-[0-9a-f]{16}")


@pytest.fixture
def holds_none(app, everything, disguises):
    """Checks that nothing of the store holds a secret."""
    for name, word in zip("ab", WORDS, strict=True):
        app.variable_set(name, word, secret=True)

    def check() -> None:
        for word in WORDS:
            ways = disguises(word)
            assert not {where for where, data in everything(app) for way in ways if way in data}

    return check


def keys(app, run, loop):
    (line,) = [x for x in app.journal(run.id) if x["type"] == "decided" and x["step"] == loop]
    return line["keys"]


@pytest.mark.parametrize("more", ["", " --parallel 2"])
def test_a_loop_over_secrets_is_known_by_what_stands_for_them(
    more, make, app, cellrail, holds_none
):
    loop = f"%%step k --foreach i in [a, b, 'c', a + '/x']{more} --collect n\nn = len(i)\nprint(i)"
    run = app.run(make(SECRETS, loop, "%%step end\nprint(n)"))

    assert run.status == "success", run.cause
    assert printed(run, "end") == "[15, 14, 1, 17]\n"
    found = keys(app, run, 2)
    assert [STAND_IN.sub("_", key) for key in found] == ["_", "_", "c", "_/x"]
    assert found[0] != found[1]
    assert found[3] == found[0] + "/x"
    holds_none()
    said = cellrail("show", "last").stdout + cellrail("journal", "last").stdout
    assert f"k[{found[1]}]" in said
    assert not [word for word in WORDS if word in said]


@pytest.mark.parametrize("more", ["", " --parallel 2"])
@pytest.mark.parametrize("place", ["#1", "#3", "key"])
def test_an_item_that_is_a_secret_can_be_restarted(place, more, make, app, tmp_path, holds_none):
    loop = f"%%step k --foreach i in [a, b, 'c', a + '/x']{more} --collect n\nn = len(i)"
    witness = "with open('w.txt', 'a') as f: f.write(f'{len(i)} ')"
    run = app.run(make(SECRETS, f"{loop}\n{witness}", "%%step end\nprint(n, len(a))"))
    assert run.status == "success", run.cause
    key = keys(app, run, 2)[1]
    (tmp_path / "w.txt").unlink()

    again = app.restart(run.id, from_step=f"k[{key if place == 'key' else place}]")

    assert again.status == "success", again.cause
    assert printed(again, "end") == "[15, 14, 1, 17] 15\n"
    expected = "17 " if place == "#3" else "14 " if more else "14 1 17 "
    assert (tmp_path / "w.txt").read_text() == expected
    assert keys(app, again, 2) == keys(app, run, 2)
    holds_none()


def test_items_that_the_loop_changes_are_not_evaluated_again(make, app, holds_none):
    run = app.run(make(SECRETS, "n = 0", "%%step k --foreach i in [a, b][n:]\nn += 1"))
    assert run.status == "success", run.cause
    with pytest.raises(RestartRefused, match="the loop changes `n`"):
        app.restart(run.id, from_step="k[#1]")
    assert app.restart(run.id, from_step="k[#0]").status == "success"


def test_a_cut_within_an_item_has_the_loops_variable(make, app, holds_none):
    inner = "%%step size --in k\nprint(len(i))"
    run = app.run(make(SECRETS, "%%step k --foreach i in [b, a]\npass", inner))
    assert run.status == "success", run.cause

    again = app.restart(run.id, from_step="k[#1]/size")

    assert again.status == "success", again.cause
    assert printed(again, "size") == "14\n15\n"


def test_a_loop_in_a_loop_is_known_by_what_stands_for_secrets(make, app, holds_none):
    outer = "%%step outer --foreach o in [a, b] --key o.upper().lower()\npass"
    inner = "%%step inner --in outer --foreach i in [b, o + '-']\nprint(o, i)"

    run = app.run(make(SECRETS, outer, inner))

    assert run.status == "success", run.cause
    lists = [x["keys"] for x in app.journal(run.id) if x["type"] == "decided"]
    assert [len({*found}) for found in lists] == [2, 2, 2]
    assert lists[1] != lists[2]
    assert all(STAND_IN.match(key) for found in lists for key in found)
    holds_none()


def test_an_open_notebook_shows_and_records_no_secret(app, front, holds_none):
    front.run("%load_ext cellrail", "load")
    front.run(SECRETS, "read")
    shown = [
        front.execute("import sys\nprint(a)\nprint(b, file=sys.stderr)\n{a: [b]}", "print"),
        front.execute("from IPython.display import HTML, display\ndisplay(HTML(a))\na", "show"),
        front.execute("%%step k --foreach i in [a, 'c']\nprint(i)\nlen(i)", "loop"),
        front.execute("word = a\nraise ValueError(b)", "fails"),
    ]
    assert shown[0].text == "***\n***\n{'***': ['***']}"
    assert shown[2].text.startswith("***\n15c\n1")
    assert shown[3].error["evalue"] == "***"
    said = str([one.outputs for one in shown])
    assert not [word for word in WORDS if word in said]
    run = app.show("last")
    assert "***" in str(run.history.outputs(run.history.state(3).job))
    holds_none()


def test_no_other_key_holds_a_secret(make, app, tmp_path, holds_none):
    make("print('called')", name="child.ipynb")
    run = app.run(
        make(
            SECRETS,
            "%%step loop --foreach i in [a, b]\npass",
            "%%step once\nfor word in (a, b):\n"
            "    flow.once(word, lambda: open('mails', 'a').write('x'))",
            "%%step call\nfor word in (a, b): print(flow.call('child.ipynb', key=word).status)",
            "%%step each\nfor word in (a, b):\n    for x in flow.each(word, range(2), save=[]): x",
            "%%step fails\nraise ValueError(a)",
        )
    )

    assert run.status == "failed", run.cause
    assert (tmp_path / "mails").read_text() == "xx"
    holds_none()

    again = app.restart(run.id, from_step="once", to="each")

    assert again.status == "success", again.cause
    assert (tmp_path / "mails").read_text() == "xx"
    children = [x["run_id"] for x in app.journal(again.id) if x["type"] == "called"]
    assert len({*children}) == 2
    holds_none()


def test_a_short_secret_does_not_hide_what_was_done(make, app, tmp_path):
    app.variable_set("pin", "2013", secret=True)
    run = app.run(
        make(
            "from cellrail import flow, get_variable",
            "pin = get_variable('pin')",
            "%%step mail\nflow.once('mail-2013-01', lambda: open('mails', 'a').write('x'))",
        )
    )
    assert run.status == "success", run.cause
    assert app.restart(run.id, from_step="mail").status == "success"
    assert (tmp_path / "mails").read_text() == "x"


# --- what a resume brings ------------------------------------------------------------------------


@pytest.mark.parametrize("more", ["", "read = "])
@pytest.mark.parametrize("reader", ["a cell", "a condition"])
def test_a_secret_that_a_resume_brings_stands_nowhere_in_clear(
    reader, more, make, app, cellrail, holds_none
):
    path = make(
        "from cellrail import flow, get_variable",
        "%%step ask --when get_variable('a')\nurls = flow.suspend('1h')"
        if reader == "a condition"
        else "%%step ask\npassword = get_variable('a')\nurls = flow.suspend('1h')",
        f"%%step read\n{more}flow.resume_data['is']\nprint(flow.resume_data['is'])",
        "print(flow.step('ask').resume_data['is'] == get_variable('a'))",
    )
    assert app.run(path).status == "suspended"
    holds_none()

    told = cellrail("resume", "last", "--data", f'{{"is": "{WORDS[0]}"}}')

    assert told.returncode == 0, told.stderr
    run = app.show("last")
    assert (run.status, printed(run, "read"), printed(run, "#4")) == ("success", "***\n", "True\n")
    (woken,) = [x for x in app.journal(run.id) if x["type"] == "woken"]
    assert woken["secret"]
    (continued,) = [x for x in app.journal(run.id) if x["type"] == "continued"]
    assert "***" in continued["command"]
    holds_none()
