"""State, resources, variables, the shared folder and `flow.once`, through real kernels.

Laws: what a step sets is there after its success and in no other case; a restart sees what stood at
its cut; of two writers one is told; a secret is nowhere; a recorded effect is not repeated.
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

from cellrail import App
from cellrail.errors import NotSet, RestartRefused, UserError
from cellrail_state.errors import StateConflict, StoreError
from cellrail_state.ledger import Ledger
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
    assert [job.effects and job.effects.user for job in jobs] == [None, None, {"n": "1"}]


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


def test_a_state_conflict_can_be_tried_again(make, app, cellrail):
    """Another process writes between the cell's write and its end; the second attempt succeeds."""
    run = app.run(
        make(
            RESOURCE + "import subprocess, sys",
            "%%step add --retry 1 --backoff 1ms\nn = get_resource('n', 0)\n"
            "set_resource(n + 1, 'n')\n"
            "words = [sys.executable, '-m', 'cellrail', 'resource', 'set', 'n', '10']\n"
            "if n == 0: subprocess.run(words, check=True, capture_output=True)",
        )
    )
    assert run.status == "success", run.cause
    assert app.resource_get("n") == 11
    jobs = [r for r in app.store.records(run.id) if isinstance(r, JobFinished) and r.step == 2]
    assert [str(job.status) for job in jobs] == ["failed", "success"]
    assert jobs[0].error is not None
    assert "by hand" in jobs[0].error.value


ADD = (
    "%%step add --retry 1 --backoff 1ms\nn = get_resource('n', 0)\nrows.append(n)\n"
    "set_resource(n + 1, 'n')"
)


def test_items_of_one_run_that_write_one_key_are_tried_again_and_told_of_one_another(make, app):
    begin = RESOURCE + "import time\nfrom pathlib import Path\nrows = []"
    loop = (
        "%%step add --foreach x in range(5) --parallel 2 --collect rows --retry 5 --backoff 1ms\n"
        "n = get_resource('n', 0)\nPath(f'item{x}').touch()\n"
        # two of them have read before one writes
        "while len(list(Path().glob('item*'))) < 2: time.sleep(0.01)\n"
        "rows.append(n)\nset_resource(n + 1, 'n')"
    )
    run = app.run(make(begin, loop))
    assert run.status == "success", run.cause
    assert app.resource_get("n") == 5
    assert sorted(run["add"].variables["rows"].load()) == [[n] for n in range(5)]
    jobs = [record for record in app.store.records(run.id) if isinstance(record, JobFinished)]
    failed = [job for job in jobs if job.error is not None]
    assert failed
    assert {job.error.name for job in failed} == {"StateConflict"}
    told = f"written by another item of this run ({run.id})"
    assert all(told in job.error.value for job in failed)


@pytest.fixture
def beaten(app, monkeypatch):
    """Somebody writes the key `n` right before the first commit of a step that writes it."""
    commits = []

    def claim(ledger, *arguments, **options):
        commits.append(1)
        if len(commits) == 1:
            App(app.store_path).resource_set("n", 10)
        return original(ledger, *arguments, **options)

    original = Ledger.claim
    monkeypatch.setattr(Ledger, "claim", claim)
    return commits


def test_a_conflict_after_the_capture_is_tried_again_on_the_namespace_before(make, app, beaten):
    run = app.run(
        make(
            RESOURCE + "import threading\nrows, also = [], None\nalso = rows\n"
            "lock = threading.Lock()\nclass Count:\n    calls = 0",
            "kept = 1",
            ADD + "\nCount.calls += 1\nkept = 2\nnew = n",
            "%%step after\nprint(rows, also is rows, Count.calls, kept, new, lock.locked())",
        )
    )
    assert run.status == "success", run.cause
    assert (app.resource_get("n"), len(beaten)) == (11, 2)
    jobs = [r for r in app.store.records(run.id) if isinstance(r, JobFinished) and r.step == 3]
    assert [str(job.status) for job in jobs] == ["failed", "success"]
    assert jobs[0].error.name == "StateConflict"
    told = "[10] True 1 2 10 False\n"
    assert printed(run, "after") == told
    # the checkpoint is the namespace's
    again = app.restart(run.id, from_step="after")
    assert printed(again, "after") == told


def test_a_conflict_after_the_capture_can_be_asked_for_and_passed_over(make, app, beaten):
    run = app.run(
        make(
            RESOURCE + "rows = []",
            "%%step add --retry 1 --retry-if type(error).__name__ != 'StateConflict' "
            "--on-error continue\nn = get_resource('n', 0)\nrows.append(n)\n"
            "set_resource(n + 1, 'n')",
            "%%step after\nprint(rows, type(error_add).__name__)",
        )
    )
    assert run.status == "success", run.cause
    assert app.resource_get("n") == 10
    assert printed(run, "after") == "[0] StateConflict\n"
    assert printed(app.restart(run.id, from_step="after"), "after") == "[0] StateConflict\n"


def test_of_two_runs_that_write_one_key_at_a_time_the_second_fails_and_names_the_first(
    make, app, tmp_path
):
    meet = (
        "open(f'{who}.read', 'w').close()\n"
        "import os, time\n"
        "end = time.time() + 60\n"
        "while not (os.path.exists('a.read') and os.path.exists('b.read')):\n"
        "    assert time.time() < end; time.sleep(0.01)\n"
    )
    path = make(
        "who = 'a'",
        RESOURCE + "n = get_resource('shared/n', default=0)\n" + meet
        + "set_resource(n + 1, 'shared/n')\ntime.sleep(0.3)",
        tags={1: ["parameters"]},
    )  # fmt: skip
    app.resource_set("other", 1)  # the store is there
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "cellrail", "run", str(path), "-p", "who", who, "--json"],
            stdout=subprocess.PIPE, text=True, cwd=tmp_path,
        )
        for who in "ab"
    ]  # fmt: skip
    told = [json.loads(process.communicate(timeout=120)[0]) for process in runs]
    assert sorted(run["status"] for run in told) == ["failed", "success"]
    good = next(run for run in told if run["status"] == "success")
    bad = next(run for run in told if run["status"] == "failed")
    assert "shared/n" in bad["cause"]
    assert good["run_id"] in bad["cause"]
    [stored] = [s for s in app.resource_list() if s.path == "shared/n"]
    assert (stored.value, stored.version, stored.run_id) == (1, 1, good["run_id"])


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


# --- resources and variables -----------------------------------------------------------------


def test_what_is_no_json_missing_or_of_another_type_is_refused_where_it_is_asked_for(make, app):
    app.resource_set("f/database", {"host": "a"}, resource_type="postgres")
    run = app.run(
        make(
            IMPORT + RESOURCE + VARIABLE + USER + "def tried(call):\n"
            "    try:\n        call()\n"
            "    except Exception as error:\n"
            "        print(type(error).__name__, isinstance(error, (KeyError, TypeError)), error)",
            "%%step all\nimport math, numpy\n"
            "tried(lambda: get_resource('f/databse'))\n"
            "tried(lambda: get_variable('nix'))\n"
            "tried(lambda: set_state({'x': {1, 2}}))\n"
            "tried(lambda: put('k', numpy.int64(3)))\n"
            "tried(lambda: set_resource(math.nan, 'f/x'))\n"
            "tried(lambda: set_resource({}, 'f/database', resource_type='mysql'))\n"
            "tried(lambda: set_variable('v', 3))\n"
            "tried(lambda: get_resource(' '))\n"
            "print(get_resource('nix', default=None), get_variable('nix', default='d'))\n"
            "set_resource({'host': 'b'}, 'f/database')\nset_resource([1], None)\n"
            "print(get_state())",
        )
    )
    assert run.status == "success", run.cause
    assert printed(run, "all").splitlines() == [
        "NotSet True there is no resource 'f/databse'; did you mean 'f/database'?",
        "NotSet True there is no variable 'nix'",
        "NotJson True set_state(): ['x'] is a set, which is no JSON (keep numbers, strings, lists, "
        "and dictionaries with string keys)",
        "NotJson True set_flow_user_state('k'): the value is a numpy int64, which is no JSON (keep "
        "numbers, strings, lists, and dictionaries with string keys)",
        "NotJson True set_resource(): the value is nan, which is no JSON (keep numbers, strings, "
        "lists, and dictionaries with string keys)",
        "BadState False the resource 'f/database' was created with the type 'postgres', not "
        "'mysql' (leave the type out, or use another path)",
        "BadState False set_variable('v'): a variable is a string, not a int",
        "BadState False ' ' is no path of a resource or variable (f/db/main is one)",
        "None d",
        "[1]",
    ]
    assert app.resource_get("f/database") == {"host": "b"}


def test_user_threads_ask_and_forked_processes_are_told_that_they_cannot(make, app):
    run = app.run(
        make(
            USER + "import threading, os",
            "%%step many\n"
            "threads = [threading.Thread(target=put, args=(f'k{n}', n)) for n in range(20)]\n"
            "[t.start() for t in threads]; [t.join() for t in threads]\n"
            "print(sum(get(f'k{n}') for n in range(20)))",
            "%%step forked\nread, write = os.pipe()\npid = os.fork()\n"
            "if not pid:\n"
            "    try:\n        get('k1')\n"
            "    except BaseException as error:\n        os.write(write, str(error).encode())\n"
            "    os._exit(0)\n"
            "os.waitpid(pid, 0); print(os.read(read, 100).decode()[:28]); print(get('k2'))",
            "%%step condition --when put('x', 1) is None\npass",
        )
    )
    assert printed(run, "many") == "190\n"
    assert printed(run, "forked") == "a forked process cannot ask \n2\n"
    assert run.status == "failed"
    assert "set_flow_user_state() is for the cell of a step" in run.cause


def test_no_content_of_the_store_holds_a_secret_variable(
    make, app, tmp_path, cellrail, everything, disguises
):
    secret, later = "s3cr3t-horse-battery", 'second "sécret" of it'
    app.variable_set("db/password", secret, secret=True)
    path = make(
        VARIABLE + USER + RESOURCE + "import sys, os",
        "%%step read\npassword = get_variable('db/password')\nprint('with', password)\n"
        "print(password, file=sys.stderr)\n[password]",
        "nested = {'a': [1, (password,)]}\nos.environ['WORD'] = password\nraw = password.encode()",
        "%%step new\nset_variable('db/later', open('later').read(), secret=True)\n"
        "print(get_variable('db/later'))\nfrom cellrail import flow\n"
        "(flow.shared / 'f.txt').write_text(password)\n"
        "(flow.shared / 'g.txt').write_text('fine')\n"
        "print(flow.once('k', lambda: {'token': password}))",
        "%%step refused\n"
        "for call in (lambda: put('k', {'p': password}), lambda: set_resource([password], 'x'),\n"
        "             lambda: set_variable('plain', password)):\n"
        "    try:\n        call()\n    except ValueError as error:\n        print(error)",
        "raise ValueError('refused: ' + password)",
    )
    (tmp_path / "later").write_text(later)
    run = app.run(path, tmp_path / "out.ipynb")
    assert run.status == "failed"
    assert printed(run, "read") == "with ***\n***\n"
    assert printed(run, "refused").count("holds a secret of this run") == 3
    assert app.variable_get("db/later") == later
    again = app.restart(run.id, from_step="new", state="current", force=True)
    assert "'token': '***'" in printed(again, "new")
    exported = [app.export(run.id, tmp_path / f"export.{kind}") for kind in ("ipynb", "html")]
    texts = [path.read_bytes() for path in (tmp_path / "out.ipynb", *exported)]
    shared = app.store.path / "shared"
    kept = [(where, data) for where, data in everything(app) if str(shared) not in where]
    for word in (secret, later):
        found = {where for where, data in kept for way in disguises(word) if way in data}
        assert not found
        assert not any(word.encode() in text for text in texts)
    assert any(b"refused: " in data for _, data in everything(app))
    said = cellrail("variable", "list")
    assert secret not in said.stdout + said.stderr
    assert "***" in said.stdout


# --- the shared folder -----------------------------------------------------------------------


def test_shared_files_are_put_back_as_they_stood_at_the_cut(make, app):
    path = make(
        "from cellrail import flow\nhere = flow.shared / 'data'\nhere.mkdir()\n"
        "(here / 'a.txt').write_text('one')\n(here / 'big.bin').write_bytes(b'x' * 9_000_000)",
        "%%step two\nprint(sorted(p.name for p in here.iterdir()), (here / 'a.txt').read_text())\n"
        "(here / 'a.txt').write_text('two'); (here / 'b.txt').write_text('new')",
        "%%step three\n"
        "print(sorted(p.name for p in here.iterdir()), (here / 'a.txt').read_text())\n"
        "(here / 'big.bin').unlink(); (here / 'a.txt').write_text('three')",
        "%%step four\nprint(sorted(p.name for p in here.iterdir()), (here / 'a.txt').read_text())",
    )
    run = app.run(path)
    assert run.status == "success", run.cause
    before = app.store.shared_folder(run.id)
    assert run["two"].shared_files == ("data/a.txt", "data/b.txt", "data/big.bin")
    told = {label: printed(run, label) for label in ("two", "three", "four")}
    assert told["four"] == "['a.txt', 'b.txt'] three\n"
    for cut in ("two", "three", "four"):
        again = app.restart(run.id, from_step=cut)
        assert again.status == "success", again.cause
        assert all(printed(again, label) == text for label, text in told.items())
        # the paths in the restored variables lead into the new run's folder
        assert (app.store.shared_folder(again.id) / "data/a.txt").read_text() == "three"
    assert (before / "data/a.txt").read_text() == "three"
    assert not app.doctor().findings


def test_a_retry_begins_on_the_shared_files_before_the_step(make, app):
    run = app.run(
        make(
            "from cellrail import flow\n(flow.shared / 'log').write_text('0')",
            "%%step flaky --retry 2 --backoff 1ms\nlog = flow.shared / 'log'\n"
            "log.write_text(log.read_text() + 'x'); (flow.shared / 'more').touch()\n"
            "open('tries', 'a').write('x')\nif len(open('tries').read()) < 3: raise ValueError",
            "print(log.read_text())",
        )
    )
    assert printed(run, "#3") == "0x\n"


def test_shared_is_in_the_working_directory_while_the_run_lasts(make, app, tmp_path):
    path = make("open('shared/x', 'w').write('1')\nimport os\nprint(os.path.islink('shared'))")
    run = app.run(path, shared=True)
    assert printed(run, "#1") == "True\n"
    assert not (tmp_path / "shared").exists()
    # a restart has it too
    assert app.restart(run.id, from_step="#1").status == "success"
    # what a killed run has left is taken over
    (tmp_path / "shared").symlink_to(app.store.shared_folder(run.id))
    assert app.run(path, shared=True).status == "success"
    assert not (tmp_path / "shared").is_symlink()
    # what is not ours is not touched
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "mine").write_text("mine")
    runs = len(app.store.run_ids())
    with pytest.raises(UserError, match="cellrail has not made it"):
        app.run(path, shared=True)
    assert (tmp_path / "shared" / "mine").read_text() == "mine"
    assert len(app.store.run_ids()) == runs


def test_shared_of_a_run_that_is_running_is_refused_to_another(make, app, tmp_path, cellrail):
    path = make(
        "import subprocess, sys\n"
        "r = subprocess.run([sys.executable, '-m', 'cellrail', 'run', 'other.ipynb', '--shared'],"
        " capture_output=True, text=True)\nprint(r.returncode, r.stderr)"
    )
    make("x = 1", name="other.ipynb")
    run = app.run(path, shared=True)
    assert printed(run, "#1").startswith("2 error: ")
    assert f"is held by run {run.id}, which is running" in printed(run, "#1")


# --- once ------------------------------------------------------------------------------------


def test_once_is_not_repeated_by_retry_restart_or_restart_of_a_restart(make, app, tmp_path):
    path = make(
        "from cellrail import flow\n"
        "def send():\n    open('sent', 'a').write('x')\n    return {'id': 7}",
        "%%step mail --retry 2 --backoff 1ms\nprint(flow.once('mail', send))\n"
        "open('tries', 'a').write('x')\nif len(open('tries').read()) < 3: raise ValueError",
        "%%step end\nraise KeyError",
    )
    run = app.run(path)
    assert (tmp_path / "sent").read_text() == "x"
    again = app.restart(run.id, from_step="mail")
    third = app.restart(again.id, from_step="mail")
    assert printed(third, "mail") == "{'id': 7}\n"
    assert (tmp_path / "sent").read_text() == "x"
    # another run does it anew
    app.run(path)
    assert (tmp_path / "sent").read_text() == "xx"


def test_a_function_that_asks_for_itself_once_is_refused_and_does_not_wait(make, app):
    inner = "flow.once('n', lambda: flow.once('n', lambda: 2))"
    run = app.run(make("from cellrail import flow", inner, "print(flow.once('n', lambda: 3))"))

    assert run.status == "failed"
    assert run.cause == "BadState: flow.once('n'): its function waits for itself"


def test_once_per_flow_is_found_by_other_runs_and_waited_for(make, app, tmp_path):
    path = make(
        "from cellrail import flow\nimport time\ndef send():\n"
        "    open('sent', 'a').write('x'); time.sleep(1)\n    return 'done'",
        "%%step mail\nprint(flow.once('k', send, scope='flow'))",
    )
    app.resource_set("x", 1)
    command = [sys.executable, "-m", "cellrail", "run", str(path), "--json"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=tmp_path) for _ in range(2)]
    assert [json.loads(p.communicate(timeout=120)[0])["status"] for p in both] == ["success"] * 2
    assert printed(app.run(path), "mail") == "done\n"
    assert (tmp_path / "sent").read_text() == "x"


def test_a_result_of_once_that_is_no_json_is_told_and_the_function_does_not_run_again(
    make, app, tmp_path
):
    path = make(
        "from cellrail import flow\ndef send():\n    open('sent', 'a').write('x')\n    return {1}",
        "%%step mail\nflow.once('k', send)",
    )
    run = app.run(path)
    assert "flow.once('k'): it has run, and does not run again; but its result" in run.cause
    again = app.restart(run.id)
    assert f"it has run in run {run.id}, and does not run again" in again.cause
    assert (tmp_path / "sent").read_text() == "x"


def test_once_runs_again_where_the_function_raised(make, app, tmp_path):
    run = app.run(
        make(
            "from cellrail import flow\ndef send():\n    open('n', 'a').write('x')\n"
            "    if len(open('n').read()) < 3: raise OSError('down')\n    return 1",
            "%%step mail --retry 5 --backoff 1ms\nprint(flow.once('k', send))",
        )
    )
    assert printed(run, "mail") == "1\n"


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
