"""What sceptical users tried: each was wrong, or refused without need, once."""

from __future__ import annotations

import pytest


def said(run, label: str) -> list[dict]:
    return run[label].outputs


def holds(app, run, *, first: int = 2) -> None:
    """Every restart shows what the run showed."""
    for number in range(first, len(run.steps) + 1):
        again = app.restart(run.id, from_step=f"#{number}")
        assert again.status == "success", (number, again.cause)
        for step in run.steps:
            assert again[step.label].outputs == step.outputs, (number, step.label)


@pytest.mark.parametrize(
    "cells",
    [
        pytest.param(
            ("class Node:\n    def __init__(s, k): s.k = k\n"
             "    def __hash__(s): return hash((Node.__name__, s.k))\n"
             "    def __eq__(s, o): return isinstance(o, Node) and s.k == o.k\n"
             "graph = {Node(i): i for i in range(3)}", "print(graph[Node(2)])"),
            id="a class that uses its own name while it is loaded",
        ),
        pytest.param(
            ("import numpy as np\nhistory = np.arange(100_000.); config = history + 1; "
             "env = [0] * 200_000", "history", "config[0] = 7", "print(len(env), config[0])"),
            id="large variables with the names of magics",
        ),
        pytest.param(
            ("import sklearn, numpy as np\nfrom sklearn.preprocessing import StandardScaler\n"
             "sklearn.set_config(transform_output='pandas')",
             "print(type(StandardScaler().fit_transform(np.ones((3, 2)))))"),
            id="settings of scikit-learn",
        ),
        pytest.param(
            ("import sklearn\nimport matplotlib as mpl, matplotlib.colors",
             "sklearn.set_config(transform_output='pandas')",
             "mpl.colors.colorConverter.colors['b'] = (0.25, 0.5, 0.75)\n"
             "mpl.colors.colorConverter.colors.cache.clear()",
             "print(sklearn.get_config()['transform_output'], mpl.colors.to_hex('b'))"),
            id="settings that a cell changes without importing anything",
        ),
        pytest.param(
            ("import pandas as pd, numpy as np, logging\nlogging.disable(logging.ERROR)\n"
             "pd.options.display.float_format = '<{:.1f}>'.format\n"
             "np.set_printoptions(formatter={'float_kind': '{:.1f}'.format})", "x = 1",
             "print(pd.Series([1 / 3]), np.array([1 / 3]), logging.root.manager.disable)"),
            id="settings that are formats, and logging that is disabled",
        ),
        pytest.param(
            ("import inspect\nclass A:\n    def f(s):\n        return 1 / 0", "x = 1",
             "import traceback\nprint(inspect.getsource(A.f))\ntry: A().f()\n"
             "except ZeroDivisionError: print(traceback.format_exc().splitlines()[4])"),
            id="the source of a function",
        ),
        pytest.param(
            ("import numpy as np\nbig = np.arange(200_000.)\nclass Base:\n    @classmethod\n"
             "    def all(cls): return [c().go() for c in cls.__subclasses__()]\n"
             "class Plug(Base):\n    def go(self): return big.sum()", "x = 1", "print(Base.all())"),
            id="a registry of subclasses",
        ),
        pytest.param(
            ("%%writefile helper_made_here.py\ndef f(): return 3", "import helper_made_here",
             "print(helper_made_here.f())"),
            id="a local module that the notebook writes",
        ),
        pytest.param(
            ("import threading\nclass Acc:\n    def __init__(s):\n"
             "        s.lock, s.rows = threading.Lock(), []\nacc = Acc()\nrows = acc.rows", "x = 1",
             "acc.rows.append(x)\n"
             "print(type(acc) is Acc, isinstance(acc, Acc), rows)", "Acc.n = 5", "print(acc.n)"),
            id="a class and its object, which holds a lock, from one cell",
        ),
        pytest.param(
            ("import numpy as np\nrng = np.random.default_rng(0)\ndef draw(r):\n"
             "    while True: yield r.random()\ng = draw(rng)", "x = 1",
             "print(rng.random(), next(g), rng.random())", "print(next(g), rng.random())"),
            id="a random generator that a generator of Python draws from",
        ),
        pytest.param(
            ("import sqlite3\nhits = []\ndef told(x): hits.append(x); return 1\n"
             "con = sqlite3.connect(':memory:')\n_ = con.create_function('told', 1, told)",
             "_ = con.execute('select told(3)').fetchall(); print(hits)",
             "print(con.execute('select told(4)').fetchall(), hits)"),
            id="a connection that calls a function of the notebook",
        ),
        pytest.param(
            ("import numpy as np\nbig = np.arange(200_000.)", "import __main__ as main",
             "print(main.big[3])"),
            id="a large variable that is read through its module",
        ),
    ],
)  # fmt: skip
def test_a_restart_shows_what_the_run_showed(cells, make, app):
    run = app.run(make(*cells))
    assert run.status == "success", run.cause
    holds(app, run)


def test_a_deleted_object_is_deleted_after_a_restart_too(make, app):
    run = app.run(
        make(
            "log = []\nclass D:\n    def __del__(self): log.append('gone')\nd = D()",
            "del d",
            "print(log)",
        )
    )
    again = app.restart(run.id, from_step="#2")

    assert said(again, "#3") == said(run, "#3")


def test_checkpoints_do_not_touch_open_figures(make, app):
    pytest.importorskip("matplotlib")
    run = app.run(
        make(
            "import matplotlib; matplotlib.use('agg')\nimport matplotlib.pyplot as plt\n"
            "fig, ax = plt.subplots(); plt.plot([1, 2]);",
            "plt.title('q'); print(plt.gcf() is fig, plt.get_fignums())",
            "plt.plot([3, 4]); print(len(ax.lines), plt.get_fignums())",
        )
    )

    assert said(run, "#2")[0]["text"] == "True [1]\n"
    assert said(run, "#3")[0]["text"] == "2 [1]\n"


def test_a_value_made_again_is_said_to_be_cut_off_from_what_changed_since(make, app, caplog):
    run = app.run(
        make(
            "rows = [1, 2]\ng = (r for r in rows)\nnext(g)",
            "rows.append(3)",
            "print(list(g), rows)",
        )
    )
    app.restart(run.id, from_step="#2")
    assert "cut off" not in caplog.text
    app.restart(run.id, from_step="#3")
    assert "`g` was made again by its cell, and is cut off from `rows`" in caplog.text


def test_what_of_the_surroundings_cannot_be_put_back_is_said(make, app, caplog, tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    run = app.run(make(f"import os\nos.chdir({str(folder)!r})", "x = 1"))
    folder.rmdir()
    app.restart(run.id, from_step="#2")
    assert "could not be put back: FileNotFoundError" in caplog.text


def test_a_local_module_that_keeps_something_is_named(make, app, tmp_path):
    (tmp_path / "keeping_it.py").write_text("seen = {}\ndef note(k): seen[k] = 1\n")
    (tmp_path / "counting_it.py").write_text("n = 0\ndef up():\n    global n\n    n += 1\n")
    (tmp_path / "keeping_no.py").write_text("import re\nW = re.compile('a')\ndef f(x): return x\n")
    run = app.run(make("import keeping_it, keeping_no\nfrom counting_it import up\nup()"))
    notes = {v.name: v.record.not_covered for v in run["#1"].variables.values()}
    assert notes["keeping_it"] == "what the module `keeping_it` keeps is not kept"
    assert notes["up"] == "what the module `counting_it` keeps is not kept"
    assert notes["keeping_no"] == ""


def test_a_setting_that_is_a_function_is_said_not_to_come_back(make, app, caplog):
    run = app.run(make("import pandas as pd\npd.options.display.float_format = lambda v: 'x'", "1"))
    app.restart(run.id, from_step="#2")
    assert "display.float_format: set to a function; set it again" in caplog.text
