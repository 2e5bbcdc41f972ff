"""A headless restart reads large values when code can reach them.

Laws: only what a cell can reach is put back before it; what is put back late equals what would have
been put back at once; what cannot be put back fails the cell that can reach it, and no other.
"""

from __future__ import annotations

import pytest

CLASSES = """
class Heavy:
    def __init__(self, name):
        self.name, self.data = name, bytes(300_000)
    def __setstate__(self, state):
        import random
        random.random()
        with open('loaded.txt', 'at') as file:
            file.write(state['name'])
        self.__dict__.update(state)
"""
VALUES = """
a, b, c, d = (Heavy(name) for name in 'abcd')
pair, query = [b], 'd.name'
import random; random.seed(7)
"""
FUNCTIONS = """
def use():
    return c.name
def evaluate():
    return eval(query)
class Holder:
    def look(self):
        return use()
holder = Holder()
"""


@pytest.fixture
def whole(make, app):
    """A run that made four large values, two of them shared."""

    def run(*cells: str):
        return app.run(make(CLASSES, VALUES, FUNCTIONS, *cells))

    return run


def loaded(tmp_path, act) -> str:
    """What was loaded meanwhile, sorted."""
    witness = tmp_path / "loaded.txt"
    witness.write_text("")
    act()
    return "".join(sorted(set(witness.read_text())))


#: a cell, and the values that it can reach
REACHES = {
    "x = 1": "",
    "print(a.name)": "a",
    "print(use())": "c",
    "print(holder.look())": "c",
    "def f():\n    return d.name\nprint(f())": "d",
    "print(pair[0].name)": "b",
    "import pandas\nprint(pandas.eval('c.name'))": "abcd",
    "print(query.upper())": "d",
    "%time print(a.name)": "a",
    "print(evaluate())": "abcd",
    "print(len(globals()))": "abcd",
    "print('c.name', a.name)": "ac",
    "del d": "d",
}


def test_only_what_a_cell_can_reach_is_put_back_before_it(whole, app, tmp_path):
    run = whole(*REACHES)
    assert run.status == "success"

    def restart(number: int) -> str:
        return loaded(
            tmp_path, lambda: app.restart(run.id, from_step=f"#{number}", to=f"#{number}")
        )

    found = {code: restart(number) for number, code in enumerate(REACHES, 4)}

    assert found == REACHES


def test_what_is_put_back_late_equals_an_uninterrupted_run(whole, app, tmp_path):
    run = whole(
        "import random; first = random.random()",
        "second = random.random(), a.name, pair[0] is b",
        "b.name = 'new'; third = pair[0].name",
        "d = 4",
        "del c",
    )

    for cut in range(4, 9):
        again = app.restart(run.id, from_step=f"#{cut}")
        assert again.status == "success", again.cause
        difference = app.diff(run.id, again.id)
        assert difference.equal, (cut, difference)
        # and what was never read is still there for a restart of the restart
        third = app.restart(again.id, from_step="#8")
        assert app.diff(run.id, third.id).equal


def test_the_time_a_value_takes_to_load_is_not_the_cells(make, app, edit):
    slow = CLASSES.replace("import random", "import time; time.sleep(wait)")
    notebook = make(f"wait = 0\n{slow}", VALUES, "wait = 3", "%%step look --timeout 2\nx = a.name")
    run = app.run(notebook)

    again = app.restart(run.id, from_step="look")

    assert again.status == "success", again.cause


@pytest.mark.parametrize("error", ["ValueError('spoiled')", "KeyboardInterrupt('stop')"])
def test_a_value_that_does_not_load_fails_the_cell_that_reaches_it(error, make, app):
    spoiled = CLASSES.replace("import random", f"if spoiled: raise {error}")
    notebook = make(
        f"spoiled = False\n{spoiled}", VALUES, "spoiled = True", "x = 1", "done = a.name", "z = 3"
    )
    run = app.run(notebook)
    assert run.status == "success"

    again = app.restart(run.id, from_step="#4")

    steps = {step.label: step for step in app.show(again.id).steps}
    assert steps["#4"].status == "success"
    assert steps["#5"].status == "failed"
    assert again.status == "failed"
    told = str(again.cause) + str(steps["#5"])
    assert ("spoiled" if "spoiled" in error else "stop") in told
