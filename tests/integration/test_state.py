"""State, through real kernels.

Laws: what a step sets is there after its success and in no other case; a restart sees what stood at
its cut; a killed run has set what it committed, and nothing else.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel

from cellrail.errors import NotSet, RestartRefused
from cellrail_state.errors import StateConflict, StoreError
from cellrail_state.model import JobFinished
from cellrail_state.testing import LEDGER_POINTS, open_store
from reading import printed

IMPORT = "from cellrail import flow, get_state, set_state, get_state_path\n"
USER = "from cellrail import get_flow_user_state as get, set_flow_user_state as put\n"
RESOURCE = "from cellrail import get_resource, set_resource\n"
VARIABLE = "from cellrail import get_variable, set_variable\n"
COMMIT_POINTS = (
    *LEDGER_POINTS[:2], "journal.before_append", "journal.after_append", *LEDGER_POINTS[2:],
)  # fmt: skip


class Front:
    """Executes cells as a front end does."""

    def __init__(self, client) -> None:
        self.client = client

    def run(self, code: str, cell_id: str = "") -> str:
        """What a cell prints, shows and raises."""
        said: list[str] = []

        def take(message) -> None:
            content = message["content"]
            if message["msg_type"] == "stream":
                said.append(content["text"])
            elif message["msg_type"] == "execute_result":
                said.append(content["data"]["text/plain"])
            elif message["msg_type"] == "error":
                said.append(f"{content['ename']}: {content['evalue']}")

        self.client.session.metadata = {"cellId": cell_id or code}
        self.client.execute_interactive(
            code, store_history=True, timeout=60, output_hook=take, allow_stdin=False
        )
        return "".join(said)


def mend(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


# --- states ----------------------------------------------------------------------------------


def test_a_state_goes_from_run_to_run_and_is_set_by_success_only(make, app, tmp_path):
    path = make(
        IMPORT + "import pathlib",
        "%%step watch\nold = get_state()\n"
        "set_state({'n': (old or {'n': 0})['n'] + 1})\n"
        "print(old, get_state(), get_state_path())\n"
        "if pathlib.Path('bad').exists(): raise ValueError('bad day')",
    )
    first, second = app.run(path), app.run(path)
    where = f"flow.ipynb/watch/{app.history(first.id).started.scope}"
    assert printed(first, "watch") == f"None {{'n': 1}} {where}\n"
    assert printed(second, "watch") == f"{{'n': 1}} {{'n': 2}} {where}\n"
    (tmp_path / "bad").touch()
    assert app.run(path).status == "failed"
    assert app.state_get(where) == {"n": 2}
    [stored] = app.state_list()
    assert (stored.path, stored.version, stored.run_id) == (where, 2, second.id)
    assert app.resource_list()[0].type == "state"


def test_an_attempt_that_is_tried_again_begins_without_what_it_had_set(make, app):
    run = app.run(
        make(
            USER + "import pathlib",
            "%%step flaky --retry 2 --backoff 1ms\nprint(get('n'))\nput('n', 1)\n"
            "pathlib.Path('tries').open('a').write('x')\n"
            "if len(pathlib.Path('tries').read_text()) < 3: raise ValueError",
            "print(get('n'), get('nothing', default=7))",
        )
    )
    assert run.status == "success", run.cause
    assert printed(run, "flaky") == "None\n"
    assert printed(run, "#3") == "1 7\n"
    jobs = [r for r in app.store.records(run.id) if isinstance(r, JobFinished) and r.step == 2]
    assert [job.effects.user for job in jobs] == [{}, {}, {"n": "1"}]


def test_a_restart_sees_flow_user_state_as_it_stood_at_its_cut(make, app):
    path = make(
        USER + "put('a', 1)",
        "%%step two\nprint(get('a'), get('b'))\nput('b', 2)",
        "%%step three\nprint(get('a'), get('b'), get('c'))\nput('a', 10); put('c', 3)",
        "%%step four\nprint(get('a'), get('b'), get('c'))",
    )
    run = app.run(path)
    assert printed(run, "four") == "10 2 3\n"
    for cut, told in (("two", "1 None\n"), ("three", "1 2 None\n"), ("four", "10 2 3\n")):
        again = app.restart(run.id, from_step=cut)
        assert again.status == "success", again.cause
        assert printed(again, cut) == told
        assert printed(again, "four") == "10 2 3\n"
    assert run["two"].user_state == {"a": 1, "b": 2}
    assert (run["four"].user_state, run["four"].effects) == ({"a": 10, "b": 2, "c": 3}, ())
    assert run["three"].effects == ("state",)
    # of a restart of a restart too
    third = app.restart(app.restart(run.id, from_step="three").id, from_step="three")
    assert printed(third, "three") == "1 2 None\n"


def test_a_restart_inside_a_loop_sees_flow_user_state_of_its_turn(make, app):
    path = make(
        USER + "put('seen', [])",
        "%%step each --foreach x in 'abcd'\nput('seen', get('seen') + [x])\nprint(get('seen'))\n"
        "if x == 'c': 1 / 0",
        "%%step end\nprint(get('seen'))",
    )
    run = app.run(path)
    assert run.status == "failed"
    mend(path, "if x == 'c': 1 / 0", "pass")
    again = app.restart(run.id, from_step="each[b]", force=True)
    assert again.status == "success", again.cause
    assert printed(again, "end") == "['a', 'b', 'c', 'd']\n"
    assert app.restart(run.id, force=True).status == "success"


def test_an_always_cell_before_the_cut_sees_what_stood_before_it(make, app):
    path = make(
        USER + "put('a', 1)",
        "%%step again --always\nprint(get('a'))\nput('a', (get('a') or 0) + 1)",
        "%%step three\nput('a', 100)",
        "%%step four\nprint(get('a'))",
    )
    run = app.run(path)
    again = app.restart(run.id, from_step="three")
    assert printed(again, "again") == "1\n"
    after = app.restart(run.id, from_step="four")
    assert printed(after, "again") == "1\n"
    assert printed(after, "four") == "100\n"


def test_a_restarted_step_sees_the_state_that_it_read_and_replaces_what_its_origin_wrote(make, app):
    path = make(
        IMPORT + "x = 1",
        "%%step watch\nprint(get_state())\nset_state((get_state() or 0) + 1)",
        "%%step use\nif x: raise ValueError",
    )
    origin = app.run(path)
    [stored] = app.state_list()
    assert (origin.status, stored.value) == ("failed", 1)
    again = app.restart(origin.id, from_step="watch")
    assert printed(again, "watch") == "None\n"
    assert app.state_get(stored.path) == 1
    third = app.restart(again.id, from_step="watch")
    assert printed(third, "watch") == "None\n"
    assert app.state_list()[0].version == 3


def test_a_restart_is_refused_a_state_that_somebody_else_has_written_since(make, app):
    path = make(IMPORT, "%%step watch\nprint(get_state())\nset_state((get_state() or 0) + 1)")
    origin = app.run(path)
    other = app.run(path)
    [warning] = app.restart(origin.id, from_step="watch", plan=True).warnings
    assert f"though run {other.id} has written it since (restart with --state current" in warning
    assert not app.restart(origin.id, from_step="watch", state="current", plan=True).warnings
    refused = app.restart(origin.id, from_step="watch")
    assert refused.status == "failed"
    assert refused["watch"].traceback[-1].startswith("StateConflict") or "StateConflict" in (
        refused.cause
    )
    assert f"written by run {other.id}" in refused.cause
    assert printed(refused, "watch") == "None\n"
    current = app.restart(origin.id, from_step="watch", state="current")
    assert printed(current, "watch") == "2\n"
    assert app.state_list()[0].value == 3


COUNT = "n = get_resource('n', 0)\nset_resource(n + 1, 'n')\nprint(n)"


def test_a_step_that_runs_for_the_first_time_sees_what_stood_at_its_cut(make, app, edit):
    """What the origin's steps behind the cut have set is undone, whether it was read or not."""
    path = make(
        RESOURCE, "%%step look\nx = 1", "%%step blind\nset_resource(5, 'm')",
        f"%%step add\n{COUNT}", "%%step end\nprint(get_resource('n'), get_resource('m', 0))",
    )  # fmt: skip
    origin = app.run(path)
    assert printed(origin, "end") == "1 5\n"
    edit(path, "x = 1", "print(get_resource('n', 0), get_resource('m', 0))")
    edit(path, "set_resource(5, 'm')", "x = 1")

    again = app.restart(origin.id, from_step="look")

    assert printed(again, "look") == "0 0\n"
    assert (printed(again, "add"), printed(again, "end")) == ("0\n", "1 0\n")
    third = app.restart(again.id, from_step="end")
    assert printed(third, "end") == "1 0\n"


def test_a_condition_at_the_cut_sees_what_stood_there(make, app):
    path = make(
        RESOURCE,
        "%%step go --when not get_resource('gone', False)\nset_resource(True, 'gone')\nprint(1)",
    )
    origin = app.run(path)
    again = app.restart(origin.id, from_step="go")
    assert printed(again, "go") == printed(origin, "go") == "1\n"


def test_a_step_that_had_run_several_times_begins_on_what_stood_before_the_first(make, app):
    path = make(
        RESOURCE + "from cellrail import flow",
        f"%%step turns\n{COUNT}\nif flow.runs < 3: flow.rerun(0)",
        "%%step end\nprint(get_resource('n'))",
    )
    origin = app.run(path)
    assert printed(origin, "end") == "3\n", origin.cause
    again = app.restart(origin.id, from_step="turns")
    assert (printed(again, "turns"), printed(again, "end")) == ("2\n", "3\n"), again.cause


def test_an_origin_that_goes_on_beside_its_restart_is_another_run(make, app):
    path = make(
        RESOURCE + "from cellrail import flow\nimport os",
        "%%step ask\nn = get_resource('n', 0)\nif not os.path.exists('asked'):\n"
        "    open('asked', 'w').close(); flow.suspend('1h')\nelse: set_resource(n + 10, 'n')",
        f"%%step add\n{COUNT}",
    )
    origin = app.run(path)
    assert origin.status == "suspended"
    first = app.restart(origin.id, from_step="ask", keep_waiting=True, to="ask")
    assert app.resource_get("n") == 10, first.cause
    app.resume(origin.id)
    assert app.resource_get("n") == 11

    again = app.restart(first.id, from_step="ask")

    assert f"written by run {origin.id}" in again.cause
    assert app.resource_get("n") == 11


def test_what_a_pruned_origin_had_set_is_undone_as_before(make, app):
    path = make(f"{RESOURCE}{COUNT}")
    origin = app.run(path)
    first = app.restart(origin.id, from_step="#1")
    app.prune(keep_last=1)
    assert app.store.run_ids() == [first.id]
    again = app.restart(first.id, from_step="#1")
    assert (printed(again, "#1"), app.resource_get("n")) == ("0\n", 1), again.cause


def test_a_cell_that_always_runs_does_not_replace_what_a_kept_step_has_set_behind_it(make, app):
    path = make(
        RESOURCE, f"%%step again --always\n{COUNT}", f"%%step add\n{COUNT}",
        "%%step end\nprint(get_resource('n'))",
    )  # fmt: skip
    origin = app.run(path)
    assert printed(origin, "end") == "2\n"
    refused = app.restart(origin.id, from_step="end")
    assert "the resource 'n' was written by add, which is kept, in the meantime" in refused.cause
    assert app.resource_get("n") == 2
    again = app.restart(origin.id, from_step="add")
    assert printed(again, "end") == "2\n", again.cause
    third = app.restart(again.id, from_step="add")
    assert printed(third, "end") == "2\n", third.cause


# --- kills -----------------------------------------------------------------------------------


def commit(folder: Path, point: str, run_id: str, value: str) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).with_name("state_worker.py")
    return subprocess.run(
        [sys.executable, str(script), str(folder), point, run_id, value],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
@pytest.mark.parametrize("point", COMMIT_POINTS)
def test_a_write_is_there_exactly_if_its_step_is_in_the_journal(tmp_path, point):
    first, killed, last = (f"20260101-00000000{n}-aaaa" for n in range(3))
    assert commit(tmp_path, "none", first, "1").stdout == "committed\n"
    assert commit(tmp_path, point, killed, "2").returncode == -signal.SIGKILL
    store = open_store(tmp_path)
    happened = any(isinstance(record, JobFinished) for record in store.records(killed))
    assert happened == (COMMIT_POINTS.index(point) >= COMMIT_POINTS.index("journal.after_append"))
    entry = store.ledger.entry("resource", "f/x")
    assert entry is not None
    assert (entry.written.value, entry.run_id) == (("2", killed) if happened else ("1", first))
    # the next writer goes on from there
    done = commit(tmp_path, "none", last, "3")
    assert done.stdout == "committed\n", done.stderr
    assert open_store(tmp_path).ledger.version("resource", "f/x") == 2 + happened


def test_doctor_makes_a_lost_ledger_anew_from_the_journals(make, app):
    path = make(RESOURCE + "set_resource({'a': 1}, 'f/x', resource_type='thing')")
    run = app.run(path)
    ledger = app.store.path / "state" / "ledger"
    ledger.unlink()
    assert [finding.kind for finding in app.doctor().findings] == ["ledger"]
    assert app.doctor(fix=True).findings[0].fixed
    assert not app.doctor().findings
    [stored] = app.resource_list()
    assert (stored.value, stored.type, stored.run_id) == ({"a": 1}, "thing", run.id)


def test_a_killed_driver_has_set_nothing(make, app, cellrail):
    path = make(
        RESOURCE + "import os, signal",
        "set_resource(1, 'f/x')\nos.kill(os.getppid(), signal.SIGKILL)\nimport time; time.sleep(5)",
    )
    assert cellrail("run", str(path)).returncode == -signal.SIGKILL
    assert app.resource_list() == []


def test_a_recovered_run_has_the_state_of_what_it_committed_and_of_nothing_else(
    make, app, cellrail, tmp_path
):
    path = make(
        USER + RESOURCE + "from cellrail import flow\nimport os, signal\nput('n', 1)\n"
        "set_resource(1, 'r')\n(flow.shared / 'f').write_text('1')\n"
        "flow.once('mail', lambda: open('sent', 'a').write('x'))",
        "%%step kill\nprint(get('n'), get_resource('r'), open('shared/f').read())\n"
        "put('n', 2); set_resource(2, 'r'); open('shared/f', 'a').write('2')\n"
        "flow.once('second', lambda: open('sent', 'a').write('y'))\n"
        "if not os.path.exists('killed'):\n    open('killed', 'w').close()\n"
        "    os.kill(os.getppid(), signal.SIGKILL)\n    import time; time.sleep(9)",
        "%%step end\nprint(get('n'), get_resource('r'), open('shared/f').read())",
    )
    assert cellrail("run", str(path), "--shared").returncode == -signal.SIGKILL
    assert app.resource_get("r") == 1
    run = app.recover("last")
    assert run.status == "success", run.cause
    assert printed(run, "kill") == "1 1 1\n"
    assert printed(run, "end") == "2 2 12\n"
    assert (tmp_path / "sent").read_text() == "xy"
    assert (app.resource_get("r"), app.resource_list()[0].version) == (2, 2)
    assert not (tmp_path / "shared").exists()


def test_pruned_runs_leave_what_they_have_set(make, app):
    path = make(RESOURCE + "set_resource('x' * 10_000, 'f/big')")
    app.run(path)
    app.prune(keep_last=0)
    assert app.store.run_ids() == []
    app.clock = lambda: time.time() + 100_000
    app.prune(keep_last=0)
    assert app.resource_get("f/big") == "x" * 10_000
    assert not app.doctor().findings


# --- effects and plans -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "effect",
    ["set_state(1)", "put('k', 1)", "flow.once('k', lambda: 1)", "(flow.shared / 'f').touch()"],
)
def test_a_cell_that_recorded_an_effect_is_never_run_again_for_what_it_made(make, app, effect):
    path = make(
        IMPORT + USER + "import threading",
        f"%%step make\nopen('made', 'a').write('x')\nlock = threading.Lock()\n{effect}",
        "%%step use\nlock.acquire(False)",
        "%%step after\nlock.release()",
    )
    run = app.run(path)
    assert run.status == "success", run.cause
    with pytest.raises(RestartRefused, match=r"`lock` is lost: .*step 'make'") as refused:
        app.restart(run.id, from_step="after")
    assert "a restart from 'make' would do" in refused.value.hint
    assert (path.parent / "made").read_text() == "x"


def test_a_conflict_of_a_rerun_names_the_writer_of_what_stands_there_and_the_way_out(make, app):
    path = make("from cellrail import get_state, set_state",
                "%%step st\nset_state((get_state() or 0) + 1)")  # fmt: skip
    first = app.run(path)
    app.rerun(first.id, changed=["step:st"])
    last = app.run(path)

    run = app.rerun(first.id, changed=["step:st"])

    assert f"was written by run {last.id} in the meantime (version 3)" in run.cause
    assert "restart with --state current" in run.cause
    assert app.restart(run.id, state="current").status == "success"


def test_nor_is_one_that_waited(make, app, edit):
    waits = "lock = threading.Lock()\nflow.suspend()"
    path = make(f"{IMPORT}import threading", f"%%step make\n{waits}", "%%step use\nx = 1")
    run = app.resume(app.run(path).id)
    assert run.status == "success", run.cause
    edit(path, "x = 1", "lock.acquire()")

    with pytest.raises(RestartRefused, match=r"`lock` is lost: .*step 'make'"):
        app.restart(run.id, from_step="use")


# --- the command line, and where nothing is recorded -----------------------------------------


def test_states_resources_and_variables_from_the_command_line(cellrail, app):
    assert cellrail("resource", "set", "f/x", '{"a": 1}', "--type", "thing").returncode == 0
    got = json.loads(cellrail("resource", "get", "f/x", "--json").stdout)
    assert got == {"schema": 1, "path": "f/x", "value": {"a": 1}}
    stale = cellrail("resource", "set", "f/x", "2", "--if-version", "0")
    assert stale.returncode == 2
    assert "by hand in the meantime (version 1, 0 was seen)" in stale.stderr
    assert cellrail("resource", "set", "f/x", "2", "--if-version", "1").returncode == 0
    listed = json.loads(cellrail("resource", "list", "--json").stdout)["resources"]
    assert [(r["path"], r["type"], r["version"], r["value"]) for r in listed] == [
        ("f/x", "thing", 2, 2)
    ]
    wrong = cellrail("resource", "get", "f/y", "--json")
    assert wrong.returncode == 2
    assert json.loads(wrong.stdout)["error"]["code"] == "not-set"
    assert "did you mean 'f/x'?" in wrong.stdout
    assert "no JSON" in cellrail("state", "set", "p", "text").stderr
    assert "the key 'a' comes twice" in cellrail("state", "set", "p", '{"a": 1, "a": 2}').stderr
    assert cellrail("state", "set", "p", '"text"').returncode == 0
    assert cellrail("state", "get", "p").stdout == '"text"\n'
    assert cellrail("state", "get", "f/x").returncode == 2
    assert cellrail("state", "delete", "p").returncode == 0
    assert cellrail("state", "get", "p").returncode == 2
    done = cellrail("variable", "set", "pw", "-", "--secret", input="hunter2-hunter2\n")
    assert done.returncode == 0
    assert cellrail("variable", "get", "pw").stdout == "***\n"
    assert cellrail("variable", "get", "pw", "--reveal").stdout == "hunter2-hunter2\n"
    assert (
        json.loads(cellrail("variable", "list", "--json").stdout)["variables"][0]["value"] is None
    )
    with pytest.raises(NotSet):
        app.variable_get("nix")
    with pytest.raises(StateConflict):
        app.variable_set("pw", "x", if_version=7)


def test_a_query_sees_what_outlives_runs_and_no_secret(make, app, cellrail):
    app.run(make("nothing = 'was set'"))
    assert app.sql("SELECT * FROM state") == []
    large = "x" * 100_000
    run = app.run(make(IMPORT, f"%%step w\nset_state({{'n': [1, None, {large!r}]}})"))
    app.variable_set("db/password", "hunter2-hunter2", secret=True)
    app.variable_set("db/user", 'ann "a"')
    app.resource_set("f/x", None, resource_type="thing")

    done = cellrail("sql", "SELECT * FROM State ORDER BY path", "--json")

    assert "hunter2" not in done.stdout
    rows = {row["path"]: row for row in json.loads(done.stdout)["rows"]}
    assert {path: (row["kind"], row["type"], row["run_id"]) for path, row in rows.items()} == {
        "db/password": ("variable", "", None), "db/user": ("variable", "", None),
        "f/x": ("resource", "thing", None),
        app.state_list()[0].path: ("state", "state", run.id),
    }  # fmt: skip
    assert (rows["db/password"]["secret"], rows["db/password"]["value"]) == (True, None)
    assert json.loads(rows["db/user"]["value"]) == 'ann "a"'
    (length,) = app.sql("SELECT length(value->>'$.n[2]') AS n FROM state WHERE kind = 'state'")
    assert length == {"n": 100_000}
    assert "state" in {row["name"] for row in app.sql("SHOW TABLES")}
    wrong = cellrail("sql", "SELECT path FROM states")
    assert "state" in wrong.stderr.partition("tables: ")[2]
    with pytest.raises(StoreError, match="no_such"):
        app.sql("SELECT no_such FROM state")
    assert len(app.sql("SELECT * FROM state")) == 4


def test_states_follow_a_notebook_that_was_renamed(make, app):
    path = make(IMPORT, "%%step w\nprint(get_state())\nset_state((get_state() or 0) + 1)")
    run = app.run(path)
    new = path.with_name("new.ipynb")
    path.rename(new)
    app.mv(path, new)
    assert printed(app.run(new), "w") == "1\n"
    [stored] = app.state_list()
    assert stored.path.startswith("new.ipynb/w/user:")
    assert app.show(run.id).flow == "new.ipynb"


def test_where_nothing_is_recorded_state_lives_as_long_as_the_kernel(tmp_path):
    code = (
        "import sys\nfrom cellrail import *\n"
        "from cellrail import flow, get_state, set_state, get_resource, set_resource\n"
        "print(get_state(), flow.tick, flow.runs, flow.recovering)\nset_state(1)\n"
        "set_resource({'a': 1}, 'f/x')\nprint(get_state(), get_resource('f/x'))\n"
        "print([flow.once('k', lambda: print('ran')) for _ in range(2)], flow.shared.is_dir())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout == "None None 1 False\n1 {'a': 1}\nran\n[None, None] True\n"
    assert done.stderr == (
        "cellrail: no run is recorded here; what is set lives as long as this kernel\n"
    )
    assert not list(tmp_path.iterdir())


def test_an_open_notebook_that_is_recorded_keeps_state_too(make, app, tmp_path, everything):
    make("%load_ext cellrail", "%%step w\nx = 1")
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(tmp_path))
    front = Front(client)
    try:
        front.run("%load_ext cellrail\n%flow config notebook=flow.ipynb", "cell-1")
        front.run(IMPORT + USER + VARIABLE)
        front.run("%%step w\nset_state((get_state() or 0) + 1); put('k', 1)", "cell-2")
        front.run("%%step w\nset_state((get_state() or 0) + 1); put('k', 2)", "cell-2")
        assert front.run("get('k')") == "2"
        assert "ZeroDivisionError" in front.run("put('k', 3); 1 / 0")
        assert front.run("get('k')") == "2"
        assert "no JSON" in front.run("set_state({1})")
        assert "2" in front.run("%flow state get " + app.state_list()[0].path)
        front.run("set_variable('pw', 'hunter2-' * 2, secret=True)")
        front.run("print(get_variable('pw'))")
        said = front.run("%flow restart --from w --force")
        assert "right before" in said, said
        assert front.run("get('k')") == "1"
        front.run("%flow undo")
        assert front.run("get('k')") == "2"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=False)
    run = app.show("last")
    assert app.state_list()[0].run_id == run.id
    words = b"hunter2-hunter2-"
    assert not [where for where, data in everything(app) if words in data]
