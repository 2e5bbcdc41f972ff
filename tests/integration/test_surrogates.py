"""Texts with half a character, as names of files that are no UTF-8 have them.

Law: wherever a cell brings one, the run goes on or the cell is told; nothing waits for ever, and
every command that tells of it ends well.
"""

from __future__ import annotations

import json

import pytest

from reading import printed

API = (
    "from cellrail import flow, get_resource, get_variable, set_flow_user_state, set_resource\n"
    "from cellrail import set_state, set_variable\ns = '\\ud800'\n"
    "def told(act):\n    try: return ascii(act())\n"
    "    except Exception as e: return type(e).__name__"
)


@pytest.fixture(params=["forked", pytest.param("cold", marks=pytest.mark.cold)])
def ran(make, app):
    run = app.run(
        make(
            API,
            "%%step refused\nprint(told(lambda: get_resource(s, 1)),\n"
            "  told(lambda: get_variable(s)), told(lambda: set_resource(1, s)),\n"
            "  told(lambda: set_variable(s, 'x')),\n"
            "  told(lambda: set_flow_user_state(s, 1)), told(lambda: flow.call(s)),\n"
            "  told(lambda: flow.call('flow.ipynb', parameters={'a': s})))",
            "%%step kept\nset_resource({s: s}, 'f/x')\nset_state([s])\nset_variable('f/v', s)\n"
            "set_flow_user_state('k', s)",
            "%%step once\nprint([flow.once(s, lambda: [s]) == [s] for _ in range(2)])",
            "%%step each\nprint(list(flow.each(s, range(2), save='s')))",
            "%%step loop --foreach i in [s, 'b'] --collect n\nn = ascii(i)",
            "%%step wait\nflow.suspend('1h')",
            "%%step end\nprint(ascii(flow.resume_data), ascii(get_resource('f/x')), n)",
        )
    )
    assert run.status == "suspended", run.cause
    app.resume(run.id, data={"a": "\ud800"})
    return app.show(run.id)


REFUSED = "BadState BadState BadState BadState BadState BadCall BadCall\n"


def test_a_cell_goes_on_or_is_told(ran, app):
    assert ran.status == "success", ran.cause
    assert printed(ran, "refused") == REFUSED
    assert printed(ran, "once") == "[True, True]\n"
    assert printed(ran, "each") == "[0, 1]\n"
    (end,) = printed(ran, "end").splitlines()
    assert end == r"""{'a': '\ud800'} {'\ud800': '\ud800'} ["'\\ud800'", "'b'"]"""

    again = app.restart(ran.id, from_step="loop[#1]", to="loop")

    assert again.status == "success", again.cause


def test_every_command_tells_of_them(ran, cellrail):
    commands = [
        ["show", "last", "--vars"], ["journal", "last"], ["resource", "list"], ["state", "list"],
        ["variable", "list"], ["resource", "get", "f/x"], ["runs"],
        ["sql", "SELECT * FROM state"],
    ]  # fmt: skip
    for words in commands:
        done = cellrail(*words)
        assert done.returncode == 0, (words, done.stderr)
        told = cellrail(*words, "--json") if words[0] != "journal" else done
        assert told.returncode == 0, (words, told.stderr)
        assert [json.loads(line) for line in told.stdout.splitlines()]
    found = json.loads(cellrail("resource", "get", "f/x", "--json").stdout)
    assert found["value"] == {"\ud800": "\ud800"}
