"""Recover: the same run goes on after a crash.

Laws:

* it is the same run: its id, its record, its parameters, its labels, its output;
* no committed job executes twice, however often and wherever it was killed; the interrupted one
  executes again; what comes out equals an undisturbed run's: outputs, variables, decisions;
* a living run is not recovered, and an owner that was taken for dead writes nothing more;
* what cannot go on is refused before anything is changed, with the restart that would do.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from cellrail.errors import RecoverRefused
from cellrail.kernels.cold import EXTENSION_FLAG
from cellrail.kernels.ending import end_kernels
from cellrail.run.client import CellClient, Ending
from cellrail_state.errors import RunIsOwned, RunTakenOver
from cellrail_state.model import KernelStarted
from reading import WITNESS, counts, printed, statuses, wait_for

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL"),
    # a forked kernel's parent is not its driver
    pytest.mark.cold,
]

#: in a cell: its driver is killed, once for each word
CRASH = (
    "import os, signal, time\n"
    "def witness(word):\n"
    "    fd = os.open('witness.txt', os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n"
    "    os.write(fd, f'{word}\\n'.encode()); os.close(fd)\n"
    "def crash(word, who='driver'):\n"
    "    name = f'crash-{word}'\n"
    "    if os.environ.get('CALM') or os.path.exists(name): return\n"
    "    os.close(os.open(name, os.O_CREAT))\n"
    "    if who != 'kernel': os.kill(os.getppid(), signal.SIGKILL)\n"
    "    if who != 'driver': os.kill(os.getpid(), signal.SIGKILL)\n"
    "    time.sleep(60)\n"
)


@pytest.fixture
def calm(cellrail, make, tmp_path, app):
    """The same notebook, undisturbed, in a folder of its own store."""

    def run(notebook: Path, *words: str):
        before = set(app.store.run_ids()) if (tmp_path / ".cellrail").exists() else set()
        done = cellrail("run", notebook, *words, env={**os.environ, "CALM": "1"})
        assert done.returncode == 0, done.stderr
        (tmp_path / "witness.txt").unlink(missing_ok=True)
        (new,) = set(app.store.run_ids()) - before
        return app.show(new)

    return run


def crashed(cellrail, app, notebook, *words, **options):
    """A run whose driver was killed."""
    done = cellrail("run", notebook, *words, **options)
    assert done.returncode == -signal.SIGKILL, (done.returncode, done.stderr)
    run = app.show("last")
    assert run.status == "interrupted"
    return run


PLAIN = (
    CRASH,
    "%%step one\nwitness('one')\nimport random\nrandom.seed(3)\nshared = [1]\nalso = shared",
    "%%step two\nwitness('two')\nprint('before'); crash('two'); value = random.random()\n"
    "also.append(value)\nprint('after')",
    "%%step three\nwitness('three')\nprint(shared is also, len(shared), value)",
)


def test_the_same_run_goes_on_from_its_first_unfinished_step(make, app, cellrail, tmp_path, calm):
    notebook = make(*PLAIN)
    undisturbed = calm(notebook)
    run = crashed(cellrail, app, notebook, tmp_path / "out.ipynb", "--label", "a=b")

    again = app.recover(run.id)

    assert (again.id, again.status, again.labels) == (run.id, "success", {"a": "b"})
    assert counts(tmp_path) == {"one": 1, "two": 2, "three": 1}
    assert printed(again, "two") == "before\nafter\n"
    assert app.diff(undisturbed.id, again.id).equal
    out = app.export(run.id, tmp_path / "again.ipynb").read_text()
    assert printed(again, "three").strip() in out
    assert printed(again, "three").strip() in (tmp_path / "out.ipynb").read_text()


FLOW = (
    CRASH,
    "regions = ['north', 'south', 'east']\nseen, totals, n = [], {}, 1\nwitness('setup')",
    "%%step score --foreach region in regions --collect mark\n"
    "witness(f'score-{region}')\nmark = [region]\nseen.append(mark)\nprint(region)\n"
    "if region == 'south': crash('score')",
    "%%step inner --in score --foreach day in range(2) --collect t\n"
    "witness(f'inner-{region}-{day}')\nt = (region, day)\nprint(t)\n"
    "if (region, day) == ('south', 1): crash('inner')",
    "%%step deep --in inner --retry 2 --backoff 1ms\nwitness(f'deep-{region}-{day}')\n"
    "totals[t] = len(seen)\nprint('try')\n"
    "tries = open('witness.txt').read().split().count(f'deep-{region}-{day}')\n"
    "if (region, day) == ('north', 1) and tries < 2: raise ValueError(tries)\n"
    "if (region, day) == ('north', 1) and tries == 2: crash('deep')\ndel tries",
    "%%step odd --in score --when region != 'south'\nwitness(f'odd-{region}')\n"
    "kept = region; crash('odd')",
    "%%step grow --while n < 50 --collect n\nwitness(f'grow-{n}')\nn *= 3\n"
    "if n == 27: crash('grow')",
    "%%step small --branch size --when len(n) < 2\nwitness('small')",
    "%%step large --branch size:default\nwitness('large'); kind = 'large'; crash('large')",
    "%%step extra --on-error continue\nwitness('extra'); part = 1; 1 / 0",
    "%%step after\nwitness('after'); crash('after'); print(type(error_extra).__name__, part)",
    "%%step items --foreach x in [2, 0, 4] --on-error skip --collect y\nwitness(f'items-{x}')\n"
    "if x == 4: crash('items')\ny = 1 / x",
    "%%step end --stop-if len(y) == 3\nwitness('end')\n"
    "print(mark, seen, t, totals, mark[0] is seen[0], kept, n, kind, y)",
    "%%step never\nwitness('never')",
)
CRASHES = ("score", "inner", "deep", "odd", "grow", "large", "after", "items")


def test_a_flow_with_everything_goes_on_wherever_it_was_killed(make, app, cellrail, tmp_path, calm):
    notebook = make(*FLOW)
    undisturbed = calm(notebook, tmp_path / "calm.ipynb")
    run = crashed(cellrail, app, notebook, tmp_path / "out.ipynb")

    for _ in CRASHES[1:]:
        done = cellrail("recover", run.id)
        assert done.returncode == -signal.SIGKILL, (done.stdout, done.stderr)
        plan = app.recover(run.id, plan=True)
        assert plan.cut
    again = app.recover(run.id)

    assert (again.status, again.cause) == ("success", "len(y) == 3 is true")
    difference = app.diff(undisturbed.id, again.id)
    assert difference.equal, [
        (s.step, undisturbed[s.step].outputs, again[s.step].outputs)
        for s in difference.steps
        if not s.equal
    ]
    assert statuses(again) == statuses(undisturbed)
    out, right = (json.loads((tmp_path / f"{n}.ipynb").read_text()) for n in ("out", "calm"))
    for cell, wanted in zip(out["cells"], right["cells"], strict=True):
        assert (cell["source"], cell["outputs"]) == (wanted["source"], wanted["outputs"])
        assert cell["execution_count"] == wanted["execution_count"]
    twice = {w: n for w, n in counts(tmp_path).items() if n > 1}
    assert twice == {
        "score-south": 2, "inner-south-1": 2, "deep-north-1": 3, "odd-north": 2, "grow-9": 2,
        "large": 2, "after": 2, "items-4": 2,
    }  # fmt: skip
    attempts = [
        (line.get("attempt", 1), line["status"])
        for line in app.journal(run.id)
        if line["type"] == "finished" and line["step"] == again["deep"].number
    ]
    assert attempts[1:3] == [(1, "failed"), (2, "success")]
    continued = [line for line in app.journal(run.id) if line["type"] == "continued"]
    assert [line["epoch"] for line in continued] == list(range(2, len(CRASHES) + 2))
    assert {line["reason"] for line in continued} == {"recover"}


# --- what was killed -------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["kernel", "both"])
def test_a_run_whose_kernel_died_goes_on_too(who, make, app, cellrail, tmp_path, calm):
    notebook = make(*[source.replace("crash('two')", f"crash('two', {who!r})") for source in PLAIN])
    undisturbed = calm(notebook)
    done = cellrail("run", notebook)
    run = app.show("last")
    assert (done.returncode, str(run.status)) == {
        "kernel": (1, "failed"), "both": (-signal.SIGKILL, "interrupted"),
    }[who]  # fmt: skip

    again = app.recover(run.id)

    assert (again.status, again.id) == ("success", run.id)
    assert app.diff(undisturbed.id, again.id).equal
    assert counts(tmp_path) == {"one": 1, "two": 2, "three": 1}
    (row,) = (row for row in app.runs() if row.run_id == run.id)
    assert row.status == "success"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl")
def test_a_kernel_that_outlived_its_driver_is_ended_first(make, app, cellrail):
    # stopped, it sees no channel close; and it has asked for no death signal any more
    notebook = make(
        CRASH,
        "%%step a\nimport ctypes\n"
        "if not os.path.exists('once'):\n"
        "    os.mkdir('once'); ctypes.CDLL(None).prctl(1, 0)\n"
        "    os.kill(os.getppid(), signal.SIGKILL); os.kill(os.getpid(), signal.SIGSTOP)\n"
        "done = True",
    )
    run = crashed(cellrail, app, notebook)
    (kernel,) = (r for r in app.store.records(run.id) if isinstance(r, KernelStarted))
    assert psutil.pid_exists(kernel.pid)

    again = app.recover(run.id)

    assert again.status == "success", again.cause
    with contextlib.suppress(psutil.NoSuchProcess):
        assert psutil.Process(kernel.pid).status() == psutil.STATUS_ZOMBIE


def test_a_process_that_has_a_kernels_pid_by_now_is_not_killed():
    words = [sys.executable, "-c", "import time; time.sleep(60)"]
    stranger = subprocess.Popen(words)
    kernel = subprocess.Popen([*words, EXTENSION_FLAG], start_new_session=True)
    try:
        # a process that has just begun has no command line yet
        wait_for(lambda: EXTENSION_FLAG in psutil.Process(kernel.pid).cmdline())
        began = psutil.Process(kernel.pid).create_time()
        told = KernelStarted(
            time=0.0, pid=kernel.pid, started=began, python="3.11.1", implementation="cpython"
        )
        same_pid = msgspec.structs.replace(told, started=began - 60)
        other_kind = msgspec.structs.replace(
            told, pid=stranger.pid, started=psutil.Process(stranger.pid).create_time()
        )
        gone = msgspec.structs.replace(told, pid=2**22 + 1)
        assert end_kernels([same_pid, other_kind, gone]) == []
        assert kernel.poll() is None
        assert end_kernels([told]) == [kernel.pid]
        assert kernel.wait(10) == -signal.SIGKILL
        assert stranger.poll() is None
    finally:
        stranger.kill()
        kernel.kill()
        stranger.wait(10)


# --- who may ---------------------------------------------------------------------------------


def test_a_living_run_is_not_recovered(app, make):
    run = app.run(make("x = 1"))
    with pytest.raises(RecoverRefused, match="has ended: success"):
        app.recover(run.id)
    journal = app.store.create_journal(
        msgspec.structs.replace(app.store.started(run.id), run_id="20260101-000000000-bbbb")
    )
    with pytest.raises(RunIsOwned, match="still running"):
        app.recover("20260101-000000000-bbbb")
    journal.close()


def test_failed_and_live_runs_are_refused_and_restart_is_named(app, make):
    run = app.run(make("1 / 0"))
    with pytest.raises(RecoverRefused, match="has ended: failed") as raised:
        app.recover(run.id)
    assert raised.value.hint == f"make a new run of it: cellrail restart {run.id}"


def test_the_run_of_another_host_is_refused_where_its_lock_cannot_be_seen(
    make, app, cellrail, monkeypatch
):
    run = crashed(cellrail, app, make(*PLAIN))
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    with monkeypatch.context() as patch:
        patch.setattr("cellrail.continuing.is_on_network", lambda path: True)
        with pytest.raises(RecoverRefused, match="and its lock cannot be seen from elsewhere"):
            app.recover(run.id)
    # on a local disk nobody elsewhere can hold it
    assert app.recover(run.id).status == "success"


def test_the_interrupted_runs_are_listed_and_all_of_them_go_on(make, app, cellrail, tmp_path):
    assert cellrail("run", make("x = 1", name="good.ipynb")).returncode == 0
    assert "no run is interrupted" in cellrail("recover").stdout
    first = crashed(cellrail, app, make(*PLAIN, name="first.ipynb"))
    (tmp_path / "crash-two").unlink()
    second = crashed(cellrail, app, make(*PLAIN, name="second.ipynb"))

    listed = json.loads(cellrail("recover", "--json").stdout)
    plan = cellrail("recover", "--all", "--plan")
    done = cellrail("recover", "--all", "--json")

    assert [row["run_id"] for row in listed["runs"]] == [second.id, first.id]
    assert "two    executes: interrupted" in plan.stdout
    assert done.returncode == 0, done.stderr
    runs = json.loads(done.stdout)["runs"]
    assert [(run["run_id"], run["status"]) for run in runs] == [
        (first.id, "success"), (second.id, "success"),
    ]  # fmt: skip
    assert cellrail("recover", "--all").stdout == "no run is interrupted\n"


def test_an_owner_that_was_taken_for_dead_writes_nothing_more(make, app, cellrail, tmp_path):
    run = crashed(cellrail, app, make(*PLAIN))
    sleeper, records = app.store.reopen_journal(run.id)
    fcntl.flock(sleeper._descriptor, fcntl.LOCK_UN)  # its lock is lost, and it does not know
    again = app.recover(run.id)
    before = app.store.journal_path(run.id).read_bytes()

    with pytest.raises(RunTakenOver, match="continued by another process"):
        sleeper.append(records[-1])

    sleeper.close()
    assert again.status == "success"
    assert app.store.journal_path(run.id).read_bytes() == before


def test_a_run_that_was_taken_over_kills_its_kernel_and_leaves_its_output(
    make, app, cellrail, tmp_path
):
    notebook = make(
        "open('ready', 'w').close()\nimport os, time\n"
        "while not os.path.exists('go'): time.sleep(0.01)",
        "open('never', 'w').close()",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "cellrail", "run", str(notebook), "out.ipynb"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for((tmp_path / "ready").exists)
    run = app.show("last")
    path = app.store.journal_path(run.id)
    with path.open("ab") as file:  # another owner has written
        file.write(path.read_bytes()[-50:])
    (tmp_path / "go").touch()
    _, told = process.communicate(timeout=60)

    assert process.returncode == 2
    assert f"run {run.id} was continued by another process; this one stops" in told
    assert not (tmp_path / "never").exists()
    assert not (tmp_path / "out.ipynb").exists()


# --- with what -------------------------------------------------------------------------------


def test_parameters_secrets_and_options_are_those_of_the_run(make, app, cellrail, tmp_path, calm):
    notebook = make(
        "day = '1'\ntoken = 'none'  # secret",
        CRASH,
        "%%step a\ncrash('a'); print(day, len(token), os.getcwd()[-3:], hash('x'))",
        "%%step last\nprint(day)",
        "%%step never\nraise ValueError",
        tags={1: ["parameters"]},
    )
    (tmp_path / "sub").mkdir()
    words = ("-p", "day", "2", "-p", "token", "a-long-secret-9", "--to", "last", "--cwd", "sub")
    run = crashed(cellrail, app, notebook, tmp_path / "out.ipynb", *words)

    again = app.recover(run.id)

    assert statuses(again) == {
        "parameters": "success", "#2": "success", "a": "success", "last": "success",
        "never": "pending",
    }  # fmt: skip
    assert printed(again, "a").startswith("2 15 sub ")
    for path in [*(tmp_path / ".cellrail").rglob("*"), tmp_path / "out.ipynb"]:
        assert not path.is_file() or b"a-long-secret-9" not in path.read_bytes(), path


def test_secrets_are_put_back_where_the_parameters_cell_is_executed_again(
    make, app, cellrail, tmp_path, edit
):
    notebook = make(
        "day = '1'\ntoken = 'default-secret-7'  # secret\nimport os, signal\n"
        "if not os.path.exists('once'):\n"
        "    open('once', 'w').close(); os.kill(os.getppid(), signal.SIGKILL)",
        "print(day, token[-2:])",
        tags={1: ["parameters"]},
    )
    run = crashed(cellrail, app, notebook, "-p", "day", "2")
    edit(notebook, "print(day", "print('edited', day")
    told: list[str] = []

    again = app.recover(run.id, tell=told.append)

    assert again.status == "success", again.cause
    assert printed(again, "#2") == "2 -7\n"
    assert told == [
        f"flow.ipynb has changed since run {run.id} began; the run goes on with what it recorded "
        f"then. To run what is there now: cellrail restart {run.id}"
    ]


def test_a_changed_or_lost_notebook_goes_on_with_what_was_recorded(
    make, app, cellrail, tmp_path, edit
):
    notebook = make(*PLAIN)
    run = crashed(cellrail, app, notebook)
    edit(notebook, "%%step three", "%%step third")
    done = cellrail("recover", "--plan", run.id)
    assert "three  executes" in done.stdout
    notebook.unlink()

    done = cellrail("recover", run.id)

    assert done.returncode == 0, done.stderr
    assert "flow.ipynb cannot be read any more" in done.stderr
    assert statuses(app.show(run.id))["three"] == "success"


def test_always_cells_and_cells_that_rebuild_run_first(make, app, cellrail, tmp_path):
    notebook = make(
        CRASH,
        "%%step setup --always\nfrom cellrail import flow\n"
        "witness('setup'); here = flow.recovering",
        "%%step gen\nwitness('gen'); numbers = (n for n in range(5))",
        "%%step a\nwitness('a'); kept = 1; was = here, flow.recovering",
        "%%step b\nwitness('b'); crash('b'); print(next(numbers), was, here, flow.recovering)",
        "%%step c\ncrash('c'); print(flow.recovering)",
        "%%step d\nprint(flow.recovering)",
    )
    run = crashed(cellrail, app, notebook)
    plan = app.recover(run.id, plan=True)
    assert [(p.label, str(p.fate)) for p in plan.steps[1:6]] == [
        ("setup", "runs again"), ("gen", "rebuilds"), ("a", "kept"), ("b", "executes"),
        ("c", "executes"),
    ]  # fmt: skip
    assert cellrail("recover", run.id).returncode == -signal.SIGKILL

    again = app.recover(run.id)

    assert again.status == "success", again.cause
    assert counts(tmp_path) == {"setup": 3, "gen": 2, "a": 1, "b": 2}
    assert printed(again, "b") == "0 (False, False) True True\n"
    assert (printed(again, "c"), printed(again, "d")) == ("True\n", "False\n")
    # and the run is a legal origin, at every cut
    for cut in ("b", "c"):
        assert app.restart(run.id, from_step=cut).status == "success"


def test_what_cannot_go_on_is_refused_with_the_restart_that_would_do(make, app, cellrail, tmp_path):
    notebook = make(
        CRASH,
        "%%step a\nx = 1",
        "%%step b --no-checkpoint\ny = 2",
        "%%step c\ncrash('c'); z = x + y",
    )
    run = crashed(cellrail, app, notebook)
    before = app.store.journal_path(run.id).read_bytes()

    done = cellrail("recover", run.id)

    assert done.returncode == 2
    assert "there is no checkpoint after 'b', the last step committed" in done.stderr
    assert f"make a new run of it: cellrail restart {run.id} --from b" in done.stderr
    assert app.store.journal_path(run.id).read_bytes() == before
    assert app.restart(run.id, from_step="b").status == "success"


# --- restarts that crash ---------------------------------------------------------------------


def test_a_restart_that_was_killed_keeps_what_it_kept(make, app, cellrail, tmp_path, calm):
    notebook = make(
        "day = 1",
        *FLOW[:2],
        "%%step score --foreach region in regions --collect mark\nwitness(f'score-{region}')\n"
        "mark = region, day\nprint(region)",
        "%%step body --in score\nwitness(f'body-{region}')\n"
        "if region == 'east': crash('body')\nseen.append(region)",
        "%%step end\nwitness('end'); print(mark, seen); crash('end')",
        tags={1: ["parameters"]},
    )
    origin = calm(notebook)
    words = ("--from", "score[south]/body")
    calm_words = {"env": {**os.environ, "CALM": "1"}}
    assert cellrail("restart", origin.id, *words, **calm_words).returncode == 0
    straight = app.show("last")
    (tmp_path / "witness.txt").unlink()

    assert cellrail("restart", origin.id, *words).returncode == -signal.SIGKILL
    run = app.show("last")
    assert cellrail("recover", run.id).returncode == -signal.SIGKILL
    again = app.recover(run.id)

    assert (again.status, again.origin) == ("success", origin.id)
    assert counts(tmp_path) == {"body-south": 1, "score-east": 1, "body-east": 2, "end": 2}
    assert app.diff(straight.id, again.id).equal
    assert statuses(again) == statuses(straight)


def test_previous_is_what_the_step_left_the_last_time(make, app, cellrail, tmp_path):
    notebook = make(
        CRASH + "from cellrail import flow\nclass Box:\n    n = 0\n",
        "%%step open --always\nbefore = flow.previous\nn = before.get('n', 0) + 1\nprint(n)",
        "%%step loop --foreach x in 'ab'\nlast = dict(flow.previous)\nbox = Box(); box.n = x\n"
        "crash('loop-' + x)\nprint(x, last.get('x'), isinstance(last.get('box'), Box),\n"
        "      [o['text'] for o in flow.previous.outputs])",
        "%%step end\nprint(n, len(flow.previous), flow.previous)",
    )
    run = crashed(cellrail, app, notebook)
    assert cellrail("recover", run.id).returncode == -signal.SIGKILL
    run = app.recover(run.id)

    assert (run.status, run.epoch) == ("success", 3)
    assert printed(run, "open") == "3\n"
    assert printed(run, "loop").splitlines() == [
        "a None False []",
        "b a True ['a None False []\\n']",
    ]
    assert printed(run, "end") == "3 0 <previous values: none>\n"
    again = app.restart(run.id, from_step="loop")
    assert printed(again, "loop").splitlines()[0].startswith("a a True")
    assert "continued 2 times" in cellrail("show", run.id).stdout


OWN = (
    "from cellrail import flow\nclass Base:\n    made = 0",
    "%%step make\nimport threading\n"
    "was = dict(flow.previous)\n"
    "print(sorted(was))\n"
    "if was: print(was['g'].x(), was['f'](), was['kind']().x(), isinstance(was['g'], Base))\n"
    "class G(Base):\n    def x(self): return 1\n"
    "def f(n=len(was)): return 'f', n\n"
    "g = G(); kind = G; lock = threading.Lock(); Base.made += 1\n"
    "if was: print(isinstance(was['g'], G), flow.previous['kind'] is G,\n"
    "              isinstance(flow.previous['g'], G), flow.previous['f'] is f,\n"
    "              flow.previous['f'](), 'lock' in flow.previous, Base.made)\n"
    "was = None",
    "%%step use\nprint(g.x(), lock.locked())",
)
NAMES = "['Base', 'G', 'f', 'g', 'kind', 'threading', 'was']"


@pytest.mark.parametrize("again", ["restart", "rerun"])
def test_previous_of_a_class_that_the_same_step_defines_is_as_the_step_left_it(make, app, again):
    run = app.run(make(*OWN))
    if again == "restart":
        run = app.restart(run.id, from_step="make")
    else:
        run = app.rerun(run.id, changed=["step:make"])

    assert run.status == "success", run.cause
    # an equal class is the notebook's own; the function had another default then
    assert printed(run, "make").splitlines() == [
        NAMES, "1 ('f', 0) 1 True", "False True True False ('f', 0) False 1",
    ]  # fmt: skip


def test_previous_does_not_hold_what_could_not_be_stored_and_says_why_when_asked(make, app):
    run = app.run(make(*OWN))
    # its cell is executed again for the lock alone
    again = app.rerun(run.id, changed=["step:use"])

    assert again.status == "success", again.cause
    assert again["use"].outputs[0]["text"] == "1 False\n"
    asks = make(OWN[0], OWN[1] + "\nflow.previous.get('lock')", OWN[2])
    assert app.run(asks).status == "success"
    failed = app.restart("last", from_step="make")
    assert "`lock` was not stored" in failed.cause


def test_previous_of_a_class_that_was_changed_since_has_that_of_then(make, app, edit):
    path = make(*OWN)
    run = app.run(path)
    edit(path, "return 1", "return 2")
    again = app.restart(run.id, from_step="make")

    assert printed(again, "make").splitlines()[1:] == [
        "1 ('f', 0) 1 True", "False False False False ('f', 0) False 1",
    ]  # fmt: skip
    assert printed(again, "use") == "2 False\n"


def test_previous_of_another_run_never_takes_a_function_for_another_one(make, app, edit):
    path = make(
        "from cellrail import flow",
        "%%step one\na = lambda: 'a'",
        "%%step two\nb = [lambda: 'b']\nprint([was() for was in flow.previous.get('b', [])])",
    )
    run = app.run(path)
    # definitions are known by a number that each run counts up anew
    edit(path, "a = lambda: 'a'", "a = [lambda: 'a', lambda: 'c']")
    again = app.restart(run.id, from_step="one")

    assert printed(again, "two") == "['b']\n"


def test_previous_of_an_item_is_that_item_also_where_the_origin_had_kept_it(make, app):
    run = app.run(
        make(
            "from cellrail import flow",
            "%%step loop --foreach i in [1, 2, 3]\nprint(flow.previous.get('i'))",
            "%%step end\nx = 1",
        )
    )
    kept = app.restart(run.id, from_step="end")

    for origin in (run, kept, app.rerun(run.id)):
        again = app.restart(origin.id, from_step="loop[2]")
        # the item itself, then the turn before
        assert [item.cause or again[item.address].outputs[0]["text"]
                for item in again.items(again["loop"])][1:] == ["2\n", "2\n"]  # fmt: skip


def said(run, label: str) -> dict[str, str]:
    """What each item of a step has printed."""
    items = run.items(run[label])
    return {i.address: "".join(o["text"] for o in run[i.address].outputs).strip() for i in items}


ITEMS = (
    "from cellrail import flow",
    "%%step loop --foreach x in 'abc' --collect r{more}\nprint(flow.previous.get('r'))\nr = x * 2",
    "%%step inner --foreach y in [1, 2] --in loop\nprint(flow.previous.get('z'))\nz = x, y",
    "%%step body --in loop\nprint(flow.previous.get('q'))\nq = x * 3",
    "%%step end\nprint(r)",
)


def test_previous_in_a_parallel_item_is_what_the_same_item_left(make, app):
    run = app.run(make(*(source.replace("{more}", " --parallel 2") for source in ITEMS)))

    # items stand beside one another; a loop in one of them has the turn before
    assert said(run, "loop") == {f"loop[{x}]": "None" for x in "abc"}
    firsts = {f"loop[{x}]/inner[1]": "None" for x in "abc"}
    assert said(run, "inner") == firsts | {f"loop[{x}]/inner[2]": f"('{x}', 1)" for x in "abc"}
    kept = app.restart(run.id, from_step="end")
    one = app.restart(kept.id, from_step="loop[b]")
    for origin in (kept, one):
        again = app.restart(origin.id, from_step="loop")
        assert said(again, "loop") == {f"loop[{x}]": x * 2 for x in "abc"}
        assert said(again, "inner")["loop[b]/inner[1]"] == "('b', 1)"
        assert printed(again, "body").split() == ["aaa", "bbb", "ccc"]
        # kept turns of the item are not what it has left the last time
        inside = app.restart(origin.id, from_step="loop[c]/inner[2]")
        assert said(inside, "inner")["loop[c]/inner[2]"] == "('c', 2)"
        assert printed(inside, "body").split()[-1] == "ccc"
    rerun = app.rerun(run.id, changed=["step:loop"])
    assert said(rerun, "loop") == {f"loop[{x}]": x * 2 for x in "abc"}


def test_previous_in_a_loop_in_sequence_is_never_the_end_of_an_inner_loop(make, app):
    run = app.run(make(*(source.replace("{more}", "") for source in ITEMS)))

    assert said(run, "inner")["loop[b]/inner[1]"] == "('a', 2)"
    again = app.restart(run.id, from_step="loop[b]")
    # the item itself, then the turn before: also of the steps in the loop
    assert said(again, "loop") == {"loop[a]": "None", "loop[b]": "bb", "loop[c]": "bb"}
    assert said(again, "inner")["loop[b]/inner[1]"] == "('b', 1)"
    assert printed(again, "body").split() == ["None", "bbb", "bbb"]


def test_previous_in_a_parallel_item_is_found_by_its_key(make, app):
    run = app.run(
        make(
            "from cellrail import flow",
            "%%step names --always\nnames = ['a', 'b'] if flow.previous else ['b']",
            "%%step loop --foreach x in names --parallel 2\nprint(flow.previous.get('r'))\nr = x",
        )
    )
    again = app.restart(run.id, from_step="names")

    assert said(again, "loop") == {"loop[a]": "None", "loop[b]": "b"}


def test_previous_in_a_parallel_item_that_failed_is_what_it_left_before_that(make, app, edit):
    path = make(
        "from cellrail import flow\nimport os",
        "%%step loop --foreach x in 'ab' --parallel 2\nprint(flow.previous.get('r'))\nr = x",
        "%%step body --in loop\nprint(flow.previous.get('q'), x)\nq = x * 2\n"
        "if os.environ.get('BAD') == x: 1 / 0",
    )
    assert app.run(path).status == "success"
    os.environ["BAD"] = "b"
    try:
        failed = app.restart("last", from_step="loop")
    finally:
        del os.environ["BAD"]
    assert failed.status == "failed"
    again = app.restart(failed.id)

    # the item goes on behind its first step; in the origin its second one ended with nothing
    assert again.status == "success", again.cause
    assert printed(again, "body").split("\n")[-2] == "None b"
    assert app.restart(again.id, from_step="loop[a]")["loop[a]/body"].outputs[0]["text"] == "aa a\n"


def test_previous_after_a_recovery_in_a_parallel_item_is_that_of_the_origin(
    make, app, cellrail, tmp_path
):
    path = make(
        WITNESS,
        "%%step loop --foreach x in 'ab' --parallel 2\nprint(flow.previous.get('r'))\nr = x",
        "%%step body --in loop\nprint(flow.previous.get('q'), x)\nq = x * 2\n"
        "if Path('kill').exists() and x == 'b':\n"
        "    Path('kill').unlink(); os.kill(os.getppid(), signal.SIGKILL); time.sleep(9)",
    )
    run = app.run(path)
    (tmp_path / "kill").touch()
    assert cellrail("restart", run.id, "--from", "loop").returncode == -signal.SIGKILL

    again = app.recover("last")

    assert again.status == "success", again.cause
    assert printed(again, "body").split("\n")[-2] == "bb b"


def test_ctrl_c_ends_the_recovery_of_all(make, app, cellrail):
    stops = "import os, signal\nos.kill(os.getppid(), signal.SIGINT)\ntime.sleep(30)"
    for name in ("a.ipynb", "b.ipynb"):
        make(CRASH, f"crash('{name}')\n{stops}", name=name)
        assert cellrail("run", name).returncode == -signal.SIGKILL

    (done,) = app.recover(all=True)

    assert done.interrupted
    assert [row.flow for row in app.recover()] == ["b.ipynb"]


# --- campaigns -------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("--moments", "2"), ("--moments", "2", "--prefixes")])
def test_a_flow_that_is_killed_at_random_moments_ends_as_if_nothing_had_happened(words):
    script = Path(__file__).resolve().parents[1] / "campaigns" / "flows.py"
    done = subprocess.run(
        [sys.executable, str(script), *words], capture_output=True, text=True, check=False,
        timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing wrong" in done.stdout


def test_an_attempt_after_a_recovered_one_begins_on_its_own_item(make, app, cellrail, tmp_path):
    notebook = make(
        CRASH + "done = []",
        "%%step a --foreach x in 'pqr' --retry 3 --backoff 1ms --collect y\n"
        "witness('a' + x); done.append(x); y = x * 2\n"
        "tries = open('witness.txt').read().split().count('a' + x)\n"
        "if x == 'q' and tries == 2: crash('q')\n"
        "if x == 'q' and tries < 5: raise ValueError(tries)",
        "%%step end\nprint(done, y, x)",
    )
    run = crashed(cellrail, app, notebook)

    again = app.recover(run.id)

    assert again.status == "success", again.cause
    assert printed(again, "end") == "['p', 'q', 'r'] ['pp', 'qq', 'rr'] r\n"
    attempts = [
        line.get("attempt", 1)
        for line in app.journal(run.id)
        if line["type"] == "finished" and [t["key"] for t in line.get("turns", ())] == ["q"]
    ]
    assert attempts == [1, 2, 3, 4]


@pytest.mark.parametrize("options", ["--retry 1", "--on-error continue"])
def test_a_kernel_that_dies_right_behind_an_error_is_a_kernel_that_died(
    options, make, app, monkeypatch, tmp_path
):
    finish, killed = CellClient.finish, []

    def finish_and_die(client, message_id, cell, index, timeout):
        result = finish(client, message_id, cell, index, timeout)
        if result.ending is Ending.ERROR and not killed:
            kernel = client._kernel
            killed.append(kernel.pid)
            kernel.kill()
            while kernel.exit_code() is None:
                time.sleep(0.01)
        return result

    monkeypatch.setattr(CellClient, "finish", finish_and_die)
    run = app.run(
        make(
            f"from pathlib import Path\n{CRASH}",
            f"%%step a {options}\nwitness('a')\n"
            "if Path('witness.txt').read_text().count('a') < 2: raise ValueError('again')",
            "%%step b\nwitness('b')",
        )
    )
    assert (run.status, run.cause.split(" (")[0]) == ("failed", "the kernel died")

    run = app.recover(run.id)

    assert run.status == "success", run.cause
    assert counts(tmp_path)["b"] == 1
    assert counts(tmp_path)["a"] == (2 if "retry" in options else 1)
