"""`--collect` in loops whose items run one after another, and at the same time.

Laws: both give the same list; an item whose cell failed or was skipped has None, not its
neighbour's value; `error_NAME` is bound behind both; a name that no turn binds is an error.
"""

from __future__ import annotations

import pytest

from cellrail.errors import BadNotebook
from reading import printed

PARALLEL = ["", " --parallel 2"]


def loop(more: str, body: str, *, line: str = " --on-error continue") -> list[str]:
    return [
        "import os",
        f"%%step L --foreach x in ['a', 'b', 'c', 'd'] --collect r{more}\npass",
        f"%%step M --in L{line}\n{body}",
        "%%step end\nprint(r)",
    ]


@pytest.mark.parametrize("more", PARALLEL)
def test_a_failed_item_has_none_and_its_error_is_bound(more, make, app):
    cells = loop(more, "if x in 'bc': raise ValueError(x)\nr = x * 2")
    cells[-1] += "\nprint(repr(error_M))"
    run = app.run(make(*cells))

    assert run.status == "success", run.cause
    assert printed(run, "end") == "['aa', None, None, 'dd']\nValueError('c')\n"


@pytest.mark.parametrize("more", PARALLEL)
def test_what_a_cell_bound_before_it_failed_is_not_collected(more, make, app):
    run = app.run(make(*loop(more, "r = x * 2\nif x == 'b': 1 / 0")))
    assert printed(run, "end") == "['aa', None, 'cc', 'dd']\n"


@pytest.mark.parametrize("more", PARALLEL)
def test_an_item_whose_cell_was_skipped_has_none(more, make, app):
    run = app.run(make(*loop(more, "r = x * 2", line=" --when x != 'b'")))
    assert printed(run, "end") == "['aa', None, 'cc', 'dd']\n"


@pytest.mark.parametrize("more", PARALLEL)
def test_another_cell_of_the_item_may_bind_what_a_failed_one_did_not(more, make, app):
    cells = loop(more, "if x == 'b': 1 / 0\nr = x * 2")
    cells.insert(3, "%%step other --in L --when x == 'b'\nr = 'other'")
    run = app.run(make(*cells))
    assert printed(run, "end") == "['aa', 'other', 'cc', 'dd']\n"


@pytest.mark.parametrize("more", PARALLEL)
def test_an_error_that_cannot_be_stored_is_told_in_words(more, make, app):
    cells = loop(more, "if x == 'b': raise Odd(1, 2)\nr = x")
    cells[0] = (
        "class Odd(Exception):\n"
        "    def __init__(self, one, two): super().__init__('odd'); self.f = lambda: open('x')\n"
        "    def __reduce__(self): raise TypeError('never')"
    )
    cells[-1] += "\nprint(isinstance(error_M, Exception), 'odd' in str(error_M))"
    run = app.run(make(*cells))
    assert run.status == "success", run.cause
    assert printed(run, "end") == "['a', None, 'c', 'd']\nTrue True\n"


@pytest.mark.parametrize("more", PARALLEL)
def test_a_restart_inside_the_loop_collects_the_same(more, make, app):
    body = (
        "if x == 'b': raise ValueError(x)\nif x == 'c' and not os.path.exists('ok'): os._exit(1)\n"
        "r = x * 2"
    )
    failed = app.run(make(*loop(more, body)))
    assert failed.status == "failed"
    (app.store_path.parent / "ok").touch()

    again = app.restart(failed.id)

    assert again.status == "success", again.cause
    assert printed(again, "end") == "['aa', None, 'cc', 'dd']\n"
    third = app.restart(again.id, from_step="L[d]/M")
    assert printed(third, "end") == "['aa', None, 'cc', 'dd']\n"


def test_failed_items_that_run_apart_leave_what_the_kept_ones_left(make, app):
    cells = [
        "import os",
        "%%step L --foreach x in ['a', 'b', 'c'] --collect r --on-error skip\npass",
        "%%step M --in L --when x != 'b'\nif x == 'c' and not os.path.exists('ok'): 1 / 0\nr = x",
        "%%step end\nprint(r)",
    ]
    run = app.run(make(*cells))
    assert printed(run, "end") == "['a', None, None]\n"
    (app.store_path.parent / "ok").touch()
    again = app.restart(run.id, failed_only=True)
    assert printed(again, "end") == "['a', None, 'c']\n"


@pytest.mark.parametrize("more", PARALLEL)
def test_a_name_that_no_turn_binds_is_an_error_that_names_it(more, make, app):
    cells = [
        "def f(x):\n    global r\n    if x > 5: r = x",
        f"%%step L --foreach x in [1, 2] --collect r{more}\nf(x)",
        "%%step end\nprint(r)",
    ]
    run = app.run(make(*cells))
    assert (run.status, run["L"].status, run["end"].status) == ("failed", "failed", "pending")
    assert run.cause == "--collect r: no turn of the loop binds it"


def test_such_a_name_is_found_before_the_run_where_the_code_shows_it(make, app, cellrail):
    path = make("%%step L --foreach x in [1, 2] --collect r\nrr = x")
    told = "--collect r: no turn of the loop binds it; did you mean 'rr'?"
    with pytest.raises(BadNotebook) as error:
        app.run(path)
    assert told in str(error.value)
    done = cellrail("steps", path)
    assert done.returncode == 2
    assert told in done.stderr


def test_a_loop_all_of_whose_items_failed_collects_none_of_each(make, app):
    run = app.run(make(*loop("", "1 / 0\nr = x")))
    assert printed(run, "end") == "[None, None, None, None]\n"
