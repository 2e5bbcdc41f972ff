"""Waits: suspend, resume, cancel, rerun of a step, sleep, durable retries, tick.

Laws:

* a run that waits holds no kernel and no process; what it waits for survives everything;
* of a resume, a cancel, a timeout and a second resume one counts, whatever the races; the others
  are told who was first;
* an answer is not lost: whoever looks next goes on; no committed job executes twice;
* the namespace, the state and what a resume brought are the same, however the run came there.
"""

import datetime as dt
import json
import subprocess
import sys
import time

import pytest

from cellrail import App
from cellrail.errors import AlreadyAnswered, BadState, NotWaiting, RestartRefused
from reading import APPROVAL, WITNESS, counts, kernels_alive, printed, statuses

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")


NO_URL = "cellrail: there is no base_url; to go on: cellrail resume RUN\n"


def test_a_suspended_run_holds_no_kernel_and_goes_on_with_what_a_resume_brings(
    make, app, cellrail, tmp_path
):
    done = cellrail("run", make(*APPROVAL), tmp_path / "out.ipynb", "--label", "a=b")
    assert done.returncode == 3, done.stderr
    assert "cellrail resume" in done.stderr
    run = app.show("last")
    assert (run.status, kernels_alive(app, run.id)) == ("suspended", [])
    assert statuses(run) | {"#1": ""} == {
        "#1": "", "plan": "success", "approve": "suspended", "deploy": "pending",
        "later": "pending",
    }  # fmt: skip
    assert [row.run_id for row in app.runs(status="suspended")] == [run.id]
    assert printed(run, "approve") == NO_URL + "['cancel_url', 'resume_url']\n"

    done = cellrail("resume", run.id, "--data", '{"ok": [1, null]}')

    assert done.returncode == 0, done.stderr
    again = app.show(run.id)
    assert (again.status, again.labels) == ("success", {"a": "b"})
    assert counts(tmp_path) == {"plan": 1, "approve": 1, "deploy": 1, "later": 1}
    data = {"ok": [1, None]}
    assert printed(again, "deploy") == f"{data} resume True\n"
    assert printed(again, "later") == f"None None {data}\n"
    assert again["approve"].resume_data == data
    assert again["approve"].status == "success"
    assert printed(again, "later").strip() in (tmp_path / "out.ipynb").read_text()
    kinds = [line["type"] for line in app.journal(run.id)]
    assert kinds.index("woken") > kinds.index("continued") > kinds.index("end")


def test_a_second_resume_and_one_after_a_cancel_are_told_who_was_first(make, app, cellrail):
    run = app.run(make(*APPROVAL))
    assert run.status == "suspended"
    app.resume(run.id)
    with pytest.raises(NotWaiting, match=r"is success; approve was resumed by \w+ at 20"):
        app.resume(run.id)

    other = app.run(make(*APPROVAL))
    cancelled = app.cancel(other.id)
    assert (cancelled.status, statuses(cancelled)["approve"]) == ("cancelled", "cancelled")
    assert cancelled.cause.startswith("cancelled by ")
    done = cellrail("resume", other.id)
    assert done.returncode == 2
    assert "is cancelled" in done.stderr
    assert "approve was cancelled by" in done.stderr


def test_two_resumes_at_once_from_two_processes_are_one(make, app, tmp_path):
    run = app.run(make(*APPROVAL))
    words = [sys.executable, "-m", "cellrail", "resume", run.id, "--data"]
    both = [
        subprocess.Popen([*words, str(n)], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        for n in (1, 2)
    ]
    told = [process.communicate(timeout=120)[1] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes in ([0, 2], [0, 0]), (codes, told)
    again = app.show(run.id)
    assert counts(tmp_path) == {"plan": 1, "approve": 1, "deploy": 1, "later": 1}
    assert again["approve"].resume_data in {1, 2}
    assert len([line for line in app.journal(run.id) if line["type"] == "woken"]) == 1


def test_a_resume_while_the_step_still_runs_is_kept_and_the_kernel_stays(make, app, tmp_path):
    notebook = make(
        WITNESS,
        "%%step ask\nflow.suspend('1h'); witness('asked')\n"
        "while not Path('go').exists(): time.sleep(0.02)",
        "%%step after\nprint(flow.resume_data, os.getpid())",
    )
    driver = subprocess.Popen(
        [sys.executable, "-m", "cellrail", "run", notebook], cwd=tmp_path, stdout=subprocess.PIPE
    )
    while not (tmp_path / "witness.txt").exists():
        time.sleep(0.02)
    kept = app.resume("last", data="early")
    assert kept.status == "running"
    with pytest.raises(AlreadyAnswered, match="resumed by"):
        app.resume("last", data="second")
    (tmp_path / "go").touch()
    driver.communicate(timeout=120)
    assert driver.returncode == 0
    run = app.show("last")
    assert printed(run, "after").startswith("early ")
    assert [line for line in app.journal(run.id) if line["type"] == "continued"] == []


def test_the_tokens_of_a_step_that_fails_die_with_it(make, tmp_path, monkeypatch):
    monkeypatch.setenv("CELLRAIL_BASE_URL", "http://localhost:1/x/")
    app = App(tmp_path / ".cellrail")
    notebook = make(
        WITNESS,
        "%%step ask --retry 1 --backoff 1ms\nurls = flow.suspend('1h')\n"
        "assert flow.suspend(3600.0) == urls\nprint(urls.resume_url); print(urls['cancel_url'])\n"
        "tries = Path('tries.txt'); tries.open('a').write(urls.resume_url + '\\n')\n"
        "if len(tries.read_text().split()) == 1: raise ValueError",
        "%%step after\nprint(flow.resume_data)",
    )
    run = app.run(notebook)
    first, second = [url.rpartition("/")[2] for url in (tmp_path / "tries.txt").read_text().split()]
    assert run.status == "suspended"
    assert printed(run, "ask").startswith("http://localhost:1/x/resume/")
    secret = second.rpartition(".")[2].encode()
    assert len(secret) >= 43
    with pytest.raises(NotWaiting, match="failed"):
        app.wake(first)
    with pytest.raises(NotWaiting, match="not known"):
        app.wake(second, "cancel")
    with pytest.raises(NotWaiting, match="not known"):
        app.wake(second[:-1] + ("a" if second[-1] != "a" else "b"))
    woke = app.wake(second, data={"n": 1}, request={"method": "POST"}, who="10.0.0.1")
    assert (woke.run_id, woke.step, woke.early) == (run.id, "ask", False)
    with pytest.raises(AlreadyAnswered, match=r"resumed by 10\.0\.0\.1 at 20"):
        app.wake(second)
    (ticked,) = app.tick()
    assert ticked.run is not None
    assert printed(ticked.run, "after") == "{'n': 1}\n"
    with pytest.raises(AlreadyAnswered):
        app.wake(second)
    files = [p for p in (tmp_path / ".cellrail" / "waits").rglob("*") if p.is_file()]
    assert files
    assert not [p for p in files if secret in p.read_bytes()]


@pytest.mark.parametrize(
    ("asked", "status", "step", "cause"),
    [
        ("flow.suspend('1h')", "success", "success", ""),
        ("flow.suspend('1h', approval=True)", "cancelled", "cancelled", "nobody resumed it"),
        ("flow.suspend('1h', on_timeout='fail')", "failed", "failed", "nobody resumed it"),
    ],
)
def test_when_nobody_answers_in_time_it_comes_to_what_was_asked(
    make, app, clock, asked, status, step, cause
):
    run = app.run(
        make(WITNESS, f"%%step ask\n{asked}", "%%step after\nprint(flow.resume_data, flow.woke_by)")
    )
    assert app.tick() == []
    assert app.tick(clock() + 3500) == []
    clock.ahead = 3700
    with pytest.raises((AlreadyAnswered, NotWaiting), match="over"):
        app.resume(run.id, data="late")
    (ticked,) = app.tick()
    assert ticked.run is not None
    assert (ticked.run.status, ticked.run["ask"].status) == (status, step)
    assert ticked.run.cause.startswith(cause)
    assert ticked.run["ask"].woke_by == "timeout"
    if status == "success":
        assert printed(ticked.run, "after") == "None timeout\n"
    assert app.tick() == []


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_an_item_behind_which_the_run_did_not_go_on_says_so(make, app, cellrail, clock, status):
    words = "on_timeout='fail'" if status == "failed" else "approval=True"
    run = app.run(
        make(
            WITNESS,
            "%%step loop --foreach i in range(3) --collect m --on-error skip\n"
            "witness(f'loop{i}'); m = i",
            f"%%step ask --in loop\nif i == 1 and first('asked'): flow.suspend('1h', {words})",
            "%%step end\nprint(m)",
        )
    )
    assert [i.status for i in run.items(run["loop"])] == ["success", "suspended"]
    clock.ahead = 3700
    (ticked,) = app.tick()

    assert (ticked.run.status, ticked.run["ask"].status) == (status, status)
    items = ticked.run.items(ticked.run["loop"])
    assert [(i.status, i.cause) for i in items] == [
        ("success", ""), (status, "nobody resumed it in time"),
    ]  # fmt: skip
    assert ticked.run["loop[1]/ask"].status == status
    assert f"1 success, 1 {status}" in cellrail("show", run.id).stdout
    # what runs apart from the loop cannot wait, and the loop did not end
    with pytest.raises(RestartRefused) as refused:
        app.restart(run.id, failed_only=True, plan=True)
    told = f"the run ended behind loop[1]/ask (nobody resumed it in time: {status})"
    assert told in str(refused.value)
    assert refused.value.hint == f"without it the run goes on there: cellrail restart {run.id}"
    # the item goes on where it was given up; those before it are kept
    again = app.restart(run.id)
    assert (again.status, printed(again, "end")) == ("success", "[0, 1, 2]\n")
    assert counts(app.store.path.parent) == {"loop0": 1, "loop1": 1, "loop2": 1}


def test_a_late_tick_goes_on_with_the_run_first_whose_time_was_up_first(make, app, clock):
    ask = "from cellrail import flow\nflow.suspend('{}h')"
    runs = [app.run(make(ask.format(hours), name=f"{hours}.ipynb")) for hours in (3, 1, 2)]
    late, first, second = (run.id for run in runs)

    moment = dt.datetime.fromtimestamp(clock() + 2.5 * 3600)
    assert [done.run_id for done in app.tick(moment)] == [first, second]
    assert [done.run_id for done in app.tick(moment.astimezone() + dt.timedelta(hours=1))] == [late]


def test_any_number_of_ticks_at_once_fire_a_wait_once(make, app, tmp_path, clock):
    notebook = make(WITNESS, "%%step ask\nflow.suspend('1h')", "witness('after')")
    runs = [app.run(notebook), app.run(notebook)]
    for info in app.store.inbox.waiting():  # as a tick does that is killed behind it
        assert app.store.inbox.due(info, clock() + 4000)
    ticks = [
        subprocess.Popen(
            [sys.executable, "-m", "cellrail", "tick", "--json"], cwd=tmp_path,
            stdout=subprocess.PIPE, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    told = [json.loads(tick.communicate(timeout=120)[0]) for tick in ticks]
    assert {run["status"] for one in told for run in one["runs"]} == {"success"}
    assert sorted(run["run_id"] for one in told for run in one["runs"]) == sorted(
        run.id for run in runs
    )
    assert counts(tmp_path) == {"after": 2}


def test_a_suspension_in_a_loop_and_as_the_last_step(make, app, tmp_path):
    run = app.run(
        make(
            WITNESS,
            "got = []",
            "%%step each --foreach item in ['a', 'b'] --collect item\n"
            "witness(f'each-{item}')\nflow.suspend('1h')",
            "%%step inner --in each\nwitness(f'inner-{item}')\n"
            "got.append((item, flow.resume_data))",
            "%%step last\nprint(got, item)\nflow.suspend('1h', on_timeout='fail')",
        )
    )
    items = (["suspended"], ["success", "suspended"])
    for data, told in enumerate(items, 1):
        assert run.status == "suspended"
        assert [item.status for item in run.items(run["each"])] == told
        run = app.resume(run.id, step="each", data=data)
    assert printed(run, "last") == f"[('a', 1), ('b', 2)] ['a', 'b']\n{NO_URL}"
    assert (run.status, run["last"].status) == ("suspended", "suspended")
    run = app.resume(run.id)
    assert (run.status, run["last"].status) == ("success", "success")
    assert counts(tmp_path) == {"each-a": 1, "inner-a": 1, "each-b": 1, "inner-b": 1}


CONNECT = "import sqlite3; con = sqlite3.connect(':memory:')"


@pytest.mark.parametrize(
    ("cells", "fails"),
    [
        ((f"%%step ask\n{CONNECT}\nflow.suspend()", "con.execute('select 1')"), True),
        ((f"%%step ask\n{CONNECT}\nflow.suspend()", "def f(): con.close()", "f()"), True),
        ((f"%%step ask\n{CONNECT}\nflow.suspend()", f"{CONNECT}\ncon.close()"), False),
        ((CONNECT, "%%step ask\nflow.suspend()", "con.execute('select 1')"), False),
        # each turn makes its own; it is used behind the wait, or before it
        (("%%step each --foreach i in range(2)", f"%%step ask --in each\n{CONNECT}\nflow.suspend()",
          "%%step use --in each\ncon.close()"), True),
        (("%%step each --foreach i in range(2)", f"%%step ask --in each\n{CONNECT}\nflow.suspend()",
          "%%step use --in each\nx = i"), False),
    ],
)  # fmt: skip
def test_a_step_that_waits_beside_what_a_later_one_needs_and_nobody_can_make_fails_at_once(
    cells, fails, make, app
):
    run = app.run(make("from cellrail import flow", *cells))

    if fails:
        assert (run.status, list(app.waits())) == ("failed", [])
        assert "a step behind the wait needs `con`, which cannot be stored" in run.cause
        return
    while run.status == "suspended":
        run = app.resume(run.id)
    assert run.status == "success", run.cause


def test_a_skipped_gate_does_not_park_the_flow_and_an_early_end_needs_no_answer(make, app):
    run = app.run(
        make(
            WITNESS,
            "%%step gate --when False\nflow.suspend('1h')",
            "%%step bad --on-error continue\nflow.suspend('1h'); 1 / 0",
            "%%step end --stop-if True\nflow.suspend('1h')",
            "%%step never\n1",
        )
    )
    assert (run.status, run["gate"].status, run["never"].status) == (
        "success", "skipped", "pending",
    )  # fmt: skip
    with pytest.raises(NotWaiting, match="it is success"):
        app.resume(run.id)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        ("flow.suspend(-1)", "BadState", "-1 is no number of seconds"),
        ("flow.suspend('-5m')", "BadState", "is no duration"),
        ("flow.suspend(True)", "BadState", "True is no number"),
        ("flow.suspend(1, on_timeout='wait')", "BadState", "resume, cancel or fail"),
        ("flow.rerun(float('nan'))", "BadState", "nan is no number"),
        ("flow.rerun(1, context={1, 2})", "NotJson", "which is no JSON"),
        ("flow.rerun(1, max_retries=-1)", "BadState", "max_retries"),
        ("flow.suspend(1); flow.suspend(2)", "UserError", "asked for another wait"),
        ("flow.suspend(1); flow.rerun(1)", "UserError", "asked for another wait"),
        ("flow.step('aks')", "StepNotFound", "'ask'"),
    ],
)
def test_a_wrong_call_is_refused_where_it_stands(make, app, call, error, words):
    run = app.run(make(WITNESS, f"%%step ask\n{call}"))
    assert run.status == "failed"
    assert run.cause.startswith(f"{error}: ")
    assert words in run.cause


def test_papermills_own_command_does_not_take_a_suspended_run_for_done(make, app, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "papermill", "--engine", "cellrail", make(*APPROVAL), "out.ipynb"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "RunSuspended" in done.stderr
    assert app.show("last").status == "suspended"


def test_data_that_is_no_json_is_refused_before_anything_is_answered(make, app, cellrail, tmp_path):
    run = app.run(make(*APPROVAL))
    for data, told in (("yes", "is no JSON"), ("@missing.json", "missing.json: No such file")):
        done = cellrail("resume", run.id, "--data", data)
        assert (done.returncode, told in done.stderr) == (2, True), done.stderr
    done = cellrail("resume", run.id, "--step", "deploy")
    assert (done.returncode, "not wait behind 'deploy'" in done.stderr) == (2, True)
    (tmp_path / "data.json").write_text('["from a file"]')
    done = cellrail("resume", "last", "--step", "approve", "--data", "@data.json", "--json")
    assert done.returncode == 0, done.stderr
    steps = {step["label"]: step for step in json.loads(done.stdout)["steps"]}
    assert (steps["approve"]["woke_by"], steps["approve"]["resume_data"]) == (
        "resume", ["from a file"],
    )  # fmt: skip
    (row,) = app.sql("SELECT label, kind, status, data FROM waits")
    assert row == {
        "label": "approve", "kind": "suspend", "status": "resume", "data": '["from a file"]',
    }  # fmt: skip


@pytest.mark.cold
def test_a_lone_surrogate_comes_through_in_answers_and_questions(make, app, tmp_path):
    path = make(
        "from cellrail import flow, get_flow_user_state, set_flow_user_state",
        "flow.suspend('1h')",
        "print(ascii(flow.resume_data))\n"
        "set_flow_user_state('n', flow.resume_data)\nprint(ascii(get_flow_user_state('n')))",
        "try:\n    flow.once('\\ud800', lambda: 1)\nexcept Exception as error:\n    print('told')",
    )
    run = app.run(path)
    app.resume(run.id, data={"\udcff": ["\ud800", 10**40]})
    after = app.show(run.id)
    assert after.status == "success", after.cause
    assert printed(after, "#3").splitlines() == [ascii({"\udcff": ["\ud800", 10**40]})] * 2


def test_where_no_run_is_recorded_the_notebook_goes_on_as_if_resumed(capsys):
    from cellrail import flow

    urls = flow.suspend("1h")
    assert (urls.resume_url, urls["cancel_url"]) == (None, None)
    assert (flow.rerun(1), flow.runs, flow.resume_data, flow.woke_by) == (urls, 1, None, None)
    line = "cellrail: no run waits here; the notebook goes on as if resumed without data\n"
    assert capsys.readouterr().out == line * 2
    with pytest.raises(BadState):
        flow.suspend(-1)
