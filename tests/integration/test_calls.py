"""`flow.call`: a cell has another notebook run, as a run of its own.

Laws:

* the child is a run like any other, named in its parent's journal before anything of it begins;
* it is executed once: a retry, a recovered parent and a restart of what had failed find it, go on
  with it, or restart it from where it failed; a restart that keeps the step keeps the child, and
  one that executes the step again calls anew;
* it ends with its parent: interrupted, timed out or killed;
* what fails in it fails the cell that called it, with a message that names it;
* nothing of a secret stands on a command line, in a record or in a message.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cellrail_state.model import Called
from reading import WITNESS, printed, wait_for

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

CALL = "from cellrail import flow\n"
#: a child that counts what it executes
SETUP = f"%%step setup\n{WITNESS}witness(f'setup-{{n}}')"
ITEM = ("n = 1", SETUP, "%%step work\nwitness(f'work-{n}')\nr = n * 10")


@pytest.fixture
def item(make):
    """Makes the notebook that is called."""

    def build(*cells: str, name: str = "item.ipynb") -> Path:
        return make(*ITEM, *cells, name=name, tags={1: ["parameters"]})

    return build


def words(folder: Path) -> list[str]:
    return (folder / "witness.txt").read_text().split()


def started(*arguments: str, folder: Path) -> subprocess.Popen[bytes]:
    # where the tests run in the background interrupts are ignored, and that is inherited
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from cellrail.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=folder,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def drivers() -> list[int]:
    """Processes of this test that drive a called run."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line, dead = process.info["cmdline"] or [], process.info["status"] == psutil.STATUS_ZOMBIE
        with contextlib.suppress(psutil.Error):
            mine = process.environ().get("CELLRAIL_KEYS") == os.environ["CELLRAIL_KEYS"]
            if "called" in line and mine and not dead:
                found.append(process.pid)
    return found


# --- a call ----------------------------------------------------------------------------------


def test_a_notebook_runs_as_a_run_of_its_own_and_its_values_come_back(make, app, item, cellrail):
    item()
    notebook = make(
        "%%step go\n" + CALL + "run = flow.call('item.ipynb', {'n': 4}, labels={'a': 'b'})\n"
        "print(run.status, run['work'].variables['r'].load(), run.value('r'))",
        "%%step later\nprint(run.value('r'), run.run.parameters)",
        name="parent.ipynb",
    )

    parent = app.run(notebook)

    assert (parent.status, printed(parent, "go")) == ("success", "success 40 40\n")
    assert printed(parent, "later") == "40 {'n': 4}\n"
    (child,) = parent.children
    assert (child.status, child.step, child.notebook) == ("success", "go", "item.ipynb")
    assert app.show(child.run_id).labels == {"parent": parent.id, "a": "b"}
    # `last` is what a person has run
    assert app.show("last").id == parent.id
    told = cellrail("show", parent.id)
    assert f"{child.run_id}  item.ipynb  success" in told.stdout
    (plain,) = json.loads(cellrail("show", parent.id, "--json").stdout)["children"]
    assert plain["run_id"] == child.run_id
    assert parent["go"].effects == ("call",)


def test_the_record_of_a_call_precedes_its_run(make, app, item):
    item()
    parent = app.run(make(CALL + "run = flow.call('item.ipynb', key='k')"))

    records = list(app.store.records(parent.id))
    (called,) = [record for record in records if isinstance(record, Called)]
    child = app.show(called.run_id)
    assert called.time <= child.started
    assert (called.key, called.notebook) == ("k", "item.ipynb")


def test_dates_stay_dates_and_values_of_a_restored_parent_can_be_read(make, app, tmp_path):
    make(
        "import datetime as dt\nday: dt.date = dt.date(2020, 1, 1)\ndays = []",
        "print(repr(day), days)", name="item.ipynb", tags={1: ["parameters"]},
    )  # fmt: skip
    notebook = make(
        "import datetime as dt",
        "%%step go\n" + CALL
        + "run = flow.call('item.ipynb', {'day': dt.date(2021, 2, 3), 'days': ['x']})",
        "%%step read\nprint(run['#2'].outputs[0]['text'], end='')",
        name="parent.ipynb",
    )  # fmt: skip
    parent = app.run(notebook)
    assert printed(parent, "read") == "datetime.date(2021, 2, 3) ['x']\n"

    again = app.restart(parent.id, from_step="read")

    assert printed(again, "read") == printed(parent, "read")
    # the restart keeps the step, and with it the child
    assert [c.run_id for c in again.children] == [c.run_id for c in parent.children]


def test_wrong_calls_are_refused_in_the_cell(make, app, item, tmp_path):
    item()
    (tmp_path / "text.ipynb").write_text("no notebook")
    calls = {
        "'itm.ipynb'": "there is no notebook",
        "'text.ipynb'": "is no notebook",
        "'item.ipynb', {'m': 1}": "has no parameter 'm' (it has: n)",
        "'item.ipynb', {'n': {1}}": "parameters: ['n'] is a set",
        "'item.ipynb', key=''": "the key is a string",
        "'item.ipynb', labels={'parent': 'x'}": "the label 'parent' names the run that calls",
        "'item.ipynb', timeout=-1": "is no number of seconds",
        "'item.ipynb', secrets='n'": "secrets are a list",
    }
    cells = [f"%%step c{n}\nflow.call({call})" for n, call in enumerate(calls)]
    notebook = make(CALL, *cells, tags={n + 2: ["raises-exception"] for n in range(len(calls))})

    run = app.run(notebook)

    for place, told in enumerate(calls.values()):
        assert told in run[f"c{place}"].cause, run[f"c{place}"].cause
        assert "called" not in run[f"c{place}"].cause
    assert not any(child.status for child in run.children)


def test_a_notebook_that_would_wait_for_itself_is_refused_with_the_chain(make, app):
    make(CALL + "flow.call('b.ipynb')", name="a.ipynb")
    make(CALL + "flow.call('a.ipynb')", name="b.ipynb")

    run = app.run("a.ipynb") if Path("a.ipynb").exists() else app.run(
        app.store_path.parent / "a.ipynb"
    )  # fmt: skip

    assert run.status == "failed"
    assert "would wait for itself: a.ipynb → b.ipynb → a.ipynb" in run.cause


def test_what_fails_in_the_child_fails_the_cell_unless_it_says_otherwise(make, app, item):
    item("%%step check\nraise ValueError('unlucky')")
    notebook = make(
        CALL + "run = flow.call('item.ipynb', check=False)\nprint(run.status, run.value('r'))",
        "%%step bad\ntry: flow.call('item.ipynb')\n"
        "except Exception as error: print(type(error).__name__, error.run.status); raise",
    )

    run = app.run(notebook)

    assert printed(run, "#1") == "failed 10\n"
    assert printed(run, "bad") == "CallFailed failed\n"
    assert "item.ipynb: failed at step 'check': ValueError: unlucky (cellrail show " in run.cause


def test_the_same_key_stands_for_one_call(make, app, item, tmp_path):
    item()
    notebook = make(
        CALL + "a = flow.call('item.ipynb', {'n': 1}, key='k')\n"
        "b = flow.call('item.ipynb', {'n': 1}, key='k')\n"
        "c = flow.call('item.ipynb', {'n': 1})\nd = flow.call('item.ipynb', {'n': 1})\n"
        "print(a.id == b.id, len({a.id, c.id, d.id}))",
        "%%step bad\nflow.call('item.ipynb', {'n': 2}, key='k')\n"
        "flow.call('item.ipynb', {'n': 3}, key='k')",
    )

    run = app.run(notebook)

    assert printed(run, "#1") == "True 3\n"
    assert "the key 'k' stands for another call in this step" in run.cause
    assert words(tmp_path).count("work-1") == 3


def test_calls_in_threads_and_in_items_of_parallel_loops_run_side_by_side(make, app, item):
    item()
    notebook = make(
        CALL + "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(2) as pool:\n"
        "    runs = list(pool.map(lambda n: flow.call('item.ipynb', {'n': n}), [1, 2]))\n"
        "print([run.value('r') for run in runs])",
        "%%step items --foreach n in [3, 4] --parallel 2 --collect r\n"
        "r = flow.call('item.ipynb', {'n': n}, key='k').value('r')",
        "print(r)",
    )

    run = app.run(notebook)

    assert (printed(run, "#1"), printed(run, "#3")) == ("[10, 20]\n", "[30, 40]\n")
    assert sorted(c.step for c in run.children) == ["#1", "#1", "items[3]", "items[4]"]


def test_a_secret_stays_one_in_the_child(make, app, everything):
    make("token = ''", "print(len(token), token)", name="item.ipynb", tags={1: ["parameters"]})
    notebook = make(
        "password = ''  # secret",
        CALL + "run = flow.call('item.ipynb', {'token': password})",
        CALL + "given = flow.call('item.ipynb', {'token': 'x' * 9}, secrets=['token'])",
        tags={1: ["parameters"]}, name="parent.ipynb",
    )  # fmt: skip

    parent = app.run(notebook, parameters={"password": "s3cret-word"})

    assert parent.status == "success"
    children = [app.show(child.run_id) for child in parent.children]
    assert [printed(child, "#2") for child in children] == ["11 ***\n", "9 ***\n"]
    found = [place for place, content in everything(app) if b"s3cret-word" in content]
    assert not found


# --- once ------------------------------------------------------------------------------------


def test_a_retry_finds_what_succeeded_and_restarts_what_failed(make, app, item, tmp_path):
    item("%%step check\nwitness(f'check-{n}')\nif n == 2 and first('failed'): raise ValueError(n)")
    notebook = make(
        "%%step go --retry 2 --backoff 1ms\n" + CALL
        + "rs = [flow.call('item.ipynb', {'n': n}, key=f'k{n}').value('r') for n in [1, 2, 3]]",
        "print(rs)",
    )  # fmt: skip

    run = app.run(notebook)

    assert (run.status, printed(run, "#2")) == ("success", "[10, 20, 30]\n")
    # of the one that failed, what had ended well is kept
    assert [w for w in words(tmp_path) if not w.startswith("setup")] == [
        "work-1", "check-1", "work-2", "check-2", "check-2", "work-3", "check-3",
    ]  # fmt: skip
    assert {c.key: c.status for c in run.children} == dict.fromkeys(("k1", "k2", "k3"), "success")


@pytest.mark.parametrize("who", ["parent", "child", "both"])
def test_killed_while_the_child_runs_the_recovered_run_executes_it_once(
    make, app, item, tmp_path, who
):
    item("%%step check\nwitness('check')\nif first('slow'): time.sleep(60)")
    notebook = make(
        "%%step go\n" + CALL + "r = flow.call('item.ipynb', {'n': 5}, key='k').value('r')",
        "print(r)", name="parent.ipynb",
    )  # fmt: skip
    process = started("run", str(notebook), folder=tmp_path)
    wait_for((tmp_path / "slow").exists)
    (child,) = drivers()

    if who != "child":
        process.kill()
    if who != "parent":
        with contextlib.suppress(ProcessLookupError):  # it ends with its parent
            os.kill(child, signal.SIGKILL)

    process.wait(60)
    wait_for(lambda: not drivers())
    run = app.show("last")
    if who == "child":
        # its parent has noticed, and fails
        assert run.status == "failed"
        assert "item.ipynb: interrupted" in run.cause
        again = app.restart(run.id)
    else:
        assert run.status == "interrupted"
        again = app.recover(run.id)
    assert (again.status, printed(again, "#2")) == ("success", "50\n")
    assert words(tmp_path) == ["setup-5", "work-5", "check", "check"]
    (found,) = again.children
    assert (found.status, app.show(found.run_id).epoch) == ("success", 2)


def test_a_child_that_ended_while_its_parent_was_dead_is_the_answer(make, app, item, tmp_path):
    item("%%step check\nwitness('check')\nif first('slow'): time.sleep(60)")
    notebook = make("%%step go\n" + CALL + "run = flow.call('item.ipynb', key='k')")
    process = started("run", str(notebook), folder=tmp_path)
    wait_for((tmp_path / "slow").exists)
    process.kill()
    process.wait(60)
    wait_for(lambda: not drivers())
    parent = app.show("last")
    (child,) = parent.children

    # a person has recovered the child alone
    assert app.recover(child.run_id).status == "success"
    done = app.recover(all=True)

    assert [one.run_id for one in done] == [parent.id]
    assert words(tmp_path) == ["setup-1", "work-1", "check", "check"]


def test_recover_all_goes_on_with_a_parent_and_its_child_once(make, app, item, tmp_path):
    item("%%step check\nwitness('check')\nif first('slow'): time.sleep(60)")
    notebook = make("%%step go\n" + CALL + "run = flow.call('item.ipynb', key='k')")
    process = started("run", str(notebook), folder=tmp_path)
    wait_for((tmp_path / "slow").exists)
    process.kill()
    process.wait(60)
    wait_for(lambda: not drivers())

    done = app.recover(all=True)

    assert [(one.run.flow, str(one.run.status)) for one in done] == [("flow.ipynb", "success")]
    assert words(tmp_path) == ["setup-1", "work-1", "check", "check"]


def test_a_restart_goes_on_with_the_calls_of_what_failed_and_calls_anew_what_had_ended_well(
    make, app, item, tmp_path, edit
):
    item("%%step check\nif n == 2 and first('failed'): raise ValueError(n)")
    notebook = make(
        "%%step go\n" + CALL
        + "rs = [flow.call('item.ipynb', {'n': n}, key=f'k{n}').value('r') for n in [1, 2]]",
        "print(rs)", name="parent.ipynb",
    )  # fmt: skip
    failed = app.run(notebook)
    assert failed.status == "failed"

    mended = app.restart(failed.id)

    assert printed(mended, "#2") == "[10, 20]\n"
    assert words(tmp_path).count("work-1") == words(tmp_path).count("work-2") == 1
    # the step had ended well: whoever executes it again wants it executed
    anew = app.restart(mended.id, from_step="go")
    assert anew.status == "success"
    assert words(tmp_path).count("work-1") == words(tmp_path).count("work-2") == 2
    known = {c.run_id for run in (failed, mended) for c in run.children}
    assert not known & {c.run_id for c in anew.children}


def test_a_restart_calls_an_edited_notebook_anew(make, app, item, tmp_path, edit):
    path = item()
    notebook = make(
        "%%step go\n" + CALL + "r = flow.call('item.ipynb', key='k').value('r')\n"
        "import os\nif not os.path.exists('well'): raise ValueError",
        "print(r)", name="parent.ipynb",
    )  # fmt: skip
    failed = app.run(notebook)
    (tmp_path / "well").touch()
    edit(path, "n * 10", "n * 7")

    again = app.restart(failed.id)

    assert printed(again, "#2") == "7\n"


def test_each_execution_by_rerun_calls_anew(make, app, item, tmp_path):
    item()
    notebook = make(
        CALL + "run = flow.call('item.ipynb', key='k')\nif flow.runs < 2: flow.rerun('10ms')"
    )

    assert app.run(notebook).status == "success"
    assert words(tmp_path).count("work-1") == 2


# --- together to the end ---------------------------------------------------------------------


SLOW = "%%step slow\nopen('begun', 'w').close()\ntime.sleep(60)"


def test_ctrl_c_interrupts_the_child_with_its_parent(make, app, item, tmp_path):
    item(SLOW)
    notebook = make(CALL + "flow.call('item.ipynb')", name="parent.ipynb")
    process = started("run", str(notebook), folder=tmp_path)
    wait_for((tmp_path / "begun").exists)

    process.send_signal(signal.SIGINT)

    assert process.wait(60) == 130
    parent = app.show("last")
    (child,) = parent.children
    assert (str(parent.status), child.status) == ("cancelled", "cancelled")
    assert app.show(child.run_id)["slow"].status == "cancelled"
    assert not drivers()


def test_a_limit_of_the_step_ends_the_child(make, app, item):
    item(SLOW)
    limited = make("%%step go --timeout 8\n" + CALL + "flow.call('item.ipynb')", name="a.ipynb")
    own = make("%%step go\n" + CALL + "flow.call('item.ipynb', timeout='4s')", name="b.ipynb")

    runs = [app.run(limited), app.run(own)]

    assert runs[0].cause == "timeout after 8 s"
    assert [run.children[0].status for run in runs] == ["cancelled", "failed"]
    assert "timeout after 4 s (whole run)" in runs[1].cause
    assert not drivers()


def test_a_dead_kernel_ends_the_child(make, app, item):
    item(SLOW)
    notebook = make(
        CALL + "import os, signal, threading, time\n"
        "def kill():\n"
        "    while not os.path.exists('begun'): time.sleep(0.05)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "threading.Thread(target=kill).start()\nflow.call('item.ipynb')"
    )

    run = app.run(notebook)

    assert run.cause == "the kernel died (SIGKILL)"
    assert [child.status for child in run.children] == ["cancelled"]
    assert not drivers()


def test_a_child_that_waits_is_waited_for(make, app, item, tmp_path):
    item("%%step ask\nfrom cellrail import flow\n_ = flow.suspend('1h')",
         "%%step then\nanswer = flow.resume_data")  # fmt: skip
    notebook = make(CALL + "print(flow.call('item.ipynb').value('answer'))", name="parent.ipynb")
    process = started("run", str(notebook), folder=tmp_path)
    wait_for(lambda: (app.store_path / "store.json").exists() and app.runs(status="suspended"))
    (waiting,) = app.runs(status="suspended")

    app.resume(waiting.run_id, data="yes")

    assert process.wait(60) == 0
    assert printed(app.show("last"), "#1") == "yes\n"


def test_a_parent_that_is_kept_keeps_its_children_and_takes_them_along(make, app, item):
    item()
    notebook = make(CALL + "run = flow.call('item.ipynb')", name="parent.ipynb")
    first, second = app.run(notebook), app.run(notebook)
    old, new = first.children[0].run_id, second.children[0].run_id

    report = app.prune(keep_last=1)

    assert set(report.runs) == {first.id, old}
    assert app.show(new).status == "success"


# --- elsewhere -------------------------------------------------------------------------------


def test_an_open_notebook_calls_too(front, item, app, tmp_path):
    item("if n == 2: raise ValueError(n)")
    front.run("%load_ext cellrail\nfrom cellrail import flow")

    told = front.run("run = flow.call('item.ipynb', {'n': 4})\nprint(run.status, run.value('r'))")
    failed = front.execute("flow.call('item.ipynb', {'n': 2})", "d")

    assert told == "success 40\n"
    assert failed.error["ename"] == "CallFailed"
    live = app.show("last")
    assert [child.status for child in live.children] == ["success", "failed"]


def test_where_no_run_is_recorded_a_call_runs_all_the_same(item, app, tmp_path):
    item()
    code = (
        "from cellrail import flow\nrun = flow.call('item.ipynb', {'n': 4})\n"
        "print(run.status, run.value('r'))\n"
        "try: flow.call('item.ipynb', {'m': 4})\nexcept ValueError as error: print(error)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    first, second = done.stdout.splitlines()
    assert first == "success 40"
    assert "has no parameter 'm'" in second
    assert len(app.runs()) == 1


def test_a_called_run_restarted_by_hand_is_a_run_of_its_own(make, app, item, tmp_path):
    item("%%step check\nif first('failed'): raise ValueError(n)")
    parent = app.run(make("%%step go\n" + CALL + "flow.call('item.ipynb')", name="parent.ipynb"))
    child = app.show(parent.children[0].run_id)
    assert (parent.status, child.labels) == ("failed", {"parent": parent.id})
    assert app.show("last").id == parent.id

    by_hand = app.restart(child.id, labels={"by": "me"})

    assert (by_hand.status, by_hand.labels) == ("success", {"by": "me"})
    assert app.show("last").id == by_hand.id
    named = app.restart(app.run(make("x = 1"), labels={"parent": "Ann"}).id, from_step="#1")
    assert named.labels == {"parent": "Ann"}
