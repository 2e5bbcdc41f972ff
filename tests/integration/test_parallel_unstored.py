"""What cannot be stored in parallel loops: each kernel makes it again, or the item says why not."""

from __future__ import annotations

import signal

import pytest

from cellrail.errors import RestartRefused
from reading import WITNESS, counts, printed, statuses

CONNECT = "import sqlite3; conn = sqlite3.connect(':memory:')"
USE = "res = conn.execute('select 1').fetchone()"
TELL = "%%step tell --on-failure\nwitness('tell'); print(flow.error)"


@pytest.mark.parametrize(
    ("effect", "told"),
    [
        ("flow.call('sub.ipynb')", "call"),
        ("flow.once('k', lambda: 1)", "once"),
        ("(flow.shared / 'f').open('a').write('x')", "shared files"),
        ("set_resource(1, 'a/r')", "state"),
        ("set_flow_user_state('k', 1)", "state"),
        ("for n in flow.each('n', [1, 2], save=[]): set_flow_user_state('k', n)", "state"),
    ],
)
def test_a_step_with_effects_is_not_executed_for_a_value_that_items_need(
    effect, told, make, app, cellrail, edit, tmp_path
):
    make("open('called.txt', 'a').write('x')", name="sub.ipynb")
    path = make(
        WITNESS + "from cellrail import set_flow_user_state, set_resource",
        f"%%step make\nwitness('make')\n{CONNECT}\n{effect}",
        f"%%step p --foreach j in range(2) --collect res --parallel 2 --on-error skip\n"
        f"witness('item')\n{USE}",
        TELL,
        "%%step end\nwitness('end'); print(res)",
    )

    done = cellrail("run", path)

    run = app.show("last")
    assert (done.returncode, run.status) == (1, "failed"), done.stderr
    assert statuses(run) == {"#1": "success", "make": "success", "p": "failed",
                             "tell": "success", "end": "pending"}  # fmt: skip
    why = (
        f"`conn` is lost: it cannot be stored, and step 'make', which made it, has recorded {told}"
    )
    assert why in run.cause
    assert "make it in the loop" in run.cause
    assert run["p"].cause == run.cause
    assert counts(tmp_path) == {"make": 1, "tell": 1}
    assert printed(run, "tell") == f"step p: RunFailed: {run.cause}\n"
    if told == "call":
        assert (tmp_path / "called.txt").read_text() == "x"

    with pytest.raises(RestartRefused) as refused:
        app.restart(run.id)
    assert why in str(refused.value)
    assert "a restart from 'make' would do" in refused.value.hint
    edit(path, "witness('item')\n", f"witness('item')\n{CONNECT.replace('conn =', 'own =')}\n")
    edit(path, USE, USE.replace("conn", "own"))
    again = app.restart(run.id)
    assert (again.status, printed(again, "end")) == ("success", "[(1,), (1,)]\n"), again.cause
    assert counts(tmp_path) == {"make": 1, "tell": 1, "item": 2, "end": 1}


@pytest.mark.parametrize(
    ("loop", "shown"),
    [
        # a loop's items are evaluated once, where the loop stands
        ("--foreach j in conn.execute('values (5), (6)').fetchall() --when conn is not None",
         "[(5,), (6,)]"),
        # each item binds the name before it uses it
        ("--foreach conn in [7, 8]", "[7, 8]"),
        ("--foreach j in []", "[]"),
    ],
)  # fmt: skip
def test_items_that_do_not_need_such_a_value_execute_nothing_again(
    loop, shown, make, app, tmp_path
):
    item = "conn" if "foreach conn" in loop else "j"
    run = app.run(
        make(
            WITNESS,
            f"%%step make\nwitness('make')\n{CONNECT}\n(flow.shared / 'f').open('a').write('x')",
            f"%%step p {loop} --collect res --parallel 2\nother = {item}",
            f"%%step q --in p\nres = {item} if other == {item} else None",
            "print(res, (flow.shared / 'f').read_text())",
        )
    )

    assert run.status == "success", run.cause
    assert printed(run, "#5") == f"{shown} x\n"
    assert counts(tmp_path) == {"make": 1}


def test_an_item_that_may_use_any_name_is_told_what_it_misses(make, app, tmp_path):
    run = app.run(
        make(
            WITNESS,
            f"%%step make\nwitness('make')\n{CONNECT}\nflow.once('k', lambda: 1)",
            "%%step p --foreach code in ['1', 'type(conn).__name__', '3'] --collect res "
            "--parallel 2 --on-error skip\nwitness('item'); res = eval(code)",
            "print(res)",
        )
    )

    assert (run.status, printed(run, "#4")) == ("success", "[1, None, 3]\n"), run.cause
    assert counts(tmp_path) == {"make": 1, "item": 3}
    (cause,) = [item.cause for item in run.items(run["p"]) if item.cause]
    assert cause.startswith("NameError: name 'conn' is not defined: `conn` is lost: it cannot be")
    assert "step 'make', which made it, has recorded once; make it in the loop" in cause


def test_a_step_without_effects_is_executed_again_in_each_kernel_and_shows_nothing(
    make, app, tmp_path
):
    run = app.run(
        make(
            WITNESS,
            f"%%step make\nwitness('make'); print('made')\nlock = os\n{CONNECT}\n"
            "for n in flow.each('n', [1, 2], save='done'): done = n; witness(f'each{n}')",
            f"%%step p --foreach j in range(3) --collect res --parallel 2\nwitness('item')\n{USE}",
            "print(res, done)",
        )
    )

    assert (run.status, printed(run, "#4")) == ("success", "[(1,), (1,), (1,)] 2\n"), run.cause
    assert printed(run, "make") == "made\n"
    assert printed(run, "p") == ""
    # a kernel in which a cell was executed again serves one item only
    assert counts(tmp_path) == {"make": 4, "each1": 4, "each2": 4, "item": 3}


@pytest.mark.parametrize(
    ("fails", "told"),
    [
        ("raise OSError('no server')", "OSError: no server"),
        ("time.sleep(60)", "timeout"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "the kernel died"),
    ],
)
def test_a_cell_that_fails_when_it_is_executed_again_fails_the_item(
    fails, told, make, app, tmp_path
):
    source = (
        WITNESS,
        f"%%step make --timeout 3\nwitness('make'); made = not first('made')\n"
        "if made and not first('second') and not os.path.exists('ok'):\n"
        f"    {fails}\n{CONNECT}",
        "%%step p --foreach j in 'abc' --collect res --parallel 1{more}\n"
        f"witness('item' + j)\n{USE}",
        TELL,
        "%%step end\nprint(res)",
    )

    run = app.run(make(*(text.replace("{more}", "") for text in source)))

    cause = f"rebuild failed: step 'make' ran again for a parallel item, to make conn: {told}"
    assert (run.status, run.cause) == ("failed", cause)
    items = [(item.address, item.status) for item in run.items(run["p"])]
    assert items == [("p[a]", "success"), ("p[b]", "failed")]
    assert printed(run, "tell").endswith(f": RunFailed: {cause}\n")
    assert counts(tmp_path) == {"make": 3, "itema": 1, "tell": 1}

    for name in ("made", "second"):
        (tmp_path / name).unlink()
    run = app.run(make(*(text.replace("{more}", " --on-error skip --retry 1") for text in source)))
    assert (run.status, printed(run, "end")) == ("success", "[(1,), None, None]\n"), run.cause
    assert [item.cause for item in run.items(run["p"])] == ["", cause, cause]

    (tmp_path / "ok").touch()
    again = app.restart(run.id, failed_only=True)
    assert (again.status, printed(again, "end")) == ("success", "[(1,), (1,), (1,)]\n"), again.cause


@pytest.mark.parametrize("effect", ["", "if i == 1: flow.once('k', lambda: 1)"])
def test_a_value_that_a_loop_has_made_is_made_again_turn_by_turn_or_not_at_all(
    effect, make, app, tmp_path
):
    path = make(
        WITNESS + "import threading\nheld = [threading.Lock()]",
        f"%%step grow --foreach i in [1, 2]\nwitness(f'grow{{i}}'); held.append(i)\n{effect}",
        "%%step p --foreach j in 'ab' --collect res --parallel 2\nres = held[1:]",
        "print(res)",
    )

    run = app.run(path)

    if effect:
        assert run.status == "failed"
        assert "step 'grow', which may have changed it, has recorded once" in run.cause
        assert counts(tmp_path) == {"grow1": 1, "grow2": 1}
    else:
        assert (run.status, printed(run, "#4")) == ("success", "[[1, 2], [1, 2]]\n"), run.cause
        assert counts(tmp_path) == {"grow1": 3, "grow2": 3}


@pytest.mark.parametrize(
    "effect",
    [
        "1", "flow.once('k', lambda: 1)", "flow.call('sub.ipynb')", "set_variable('v', '1')",
        "set_state((get_state() or 0) + 1)",
    ],
)  # fmt: skip
def test_what_runs_in_each_kernel_anyhow_makes_it_there_whatever_it_does(
    effect, make, app, tmp_path
):
    make("x = 1", name="sub.ipynb")
    run = app.run(
        make(
            WITNESS + "from cellrail import get_state, set_state, set_variable",
            f"%%step make --always\nwitness('make')\n{CONNECT}\n{effect}",
            f"%%step p --foreach j in range(2) --collect res --parallel 2\n{USE}",
            "%%step end\nprint(res, conn.execute('select 2').fetchone())",
        )
    )
    assert (run.status, printed(run, "end")) == ("success", "[(1,), (1,)] (2,)\n"), run.cause
    assert counts(tmp_path) == {"make": 3}
    # what it sets once more is dropped
    assert [entry.version for entry in app.state_list()] in ([], [1])

    again = app.restart(run.id, from_step="end")

    assert (again.status, printed(again, "end")) == ("success", printed(run, "end")), again.cause
    assert counts(tmp_path) == {"make": 4}


def test_a_cell_that_is_executed_again_sees_the_run_as_it_did(make, app):
    run = app.run(
        make(
            "from cellrail import get_flow_user_state, set_flow_user_state\nimport sqlite3",
            "set_flow_user_state('name', ':memory:')",
            "%%step make\nconn = sqlite3.connect(get_flow_user_state('name'))",
            "set_flow_user_state('name', '/nowhere/at/all')",
            f"%%step p --foreach j in range(2) --collect res --parallel 2\n{USE}",
            "print(res)",
        )
    )

    assert (run.status, printed(run, "#6")) == ("success", "[(1,), (1,)]\n"), run.cause


def test_killed_behind_a_loop_that_could_not_begin_the_run_goes_on_as_failed(
    make, app, cellrail, tmp_path
):
    path = make(
        WITNESS,
        f"%%step make\n{CONNECT}\nflow.once('k', lambda: 1)",
        f"%%step p --foreach j in range(2) --collect res --parallel 2\nwitness('item')\n{USE}",
        "%%step tell --on-failure\nwitness('tell')\n"
        "if first('killed'): os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)",
        "%%step end\nwitness('end')",
    )
    assert cellrail("run", path).returncode == -signal.SIGKILL
    assert app.show("last").status == "interrupted"

    run = app.recover("last")

    assert run.status == "failed"
    assert "`conn` is lost: it cannot be stored" in run.cause
    assert counts(tmp_path) == {"tell": 2}


def test_a_loop_that_a_restart_or_a_rerun_executes_refuses_as_in_a_run(make, app, edit, tmp_path):
    path = make(
        WITNESS,
        f"%%step make\nwitness('make')\n{CONNECT}\nflow.once('k', lambda: 1)",
        "%%step p --foreach j in range(2) --collect res --parallel 2\nres = j",
        "print(res)",
    )
    run = app.run(path)
    assert run.status == "success", run.cause
    # it needs nothing of that step
    assert app.restart(run.id, from_step="p").status == "success"
    edit(path, "res = j", "res = j, conn.execute('select 1').fetchone()")

    with pytest.raises(RestartRefused, match="step 'make', which made it, has recorded once"):
        app.restart(run.id, from_step="p")
    with pytest.raises(
        RestartRefused, match=r"step make made it and has recorded an effect \(once"
    ):
        app.rerun(run.id)
    again = app.rerun(run.id, changed=["step:make", "step:p"])

    assert again.status == "failed"
    assert "step 'make', which made it, has recorded once; make it in the loop" in again.cause
    assert counts(tmp_path) == {"make": 2}


@pytest.mark.parametrize("effect", ["1", "flow.once('k' + j, lambda: 1)"])
def test_an_item_that_goes_on_makes_again_what_its_kept_jobs_made_or_says_why_not(
    effect, make, app, tmp_path
):
    run = app.run(
        make(
            WITNESS,
            f"%%step p --foreach j in 'ab' --parallel 2\nwitness('p' + j)\n{CONNECT}\n{effect}",
            f"%%step q --in p\nwitness('q' + j)\n{USE}\nif j == 'b' and first('b'): 1 / 0",
        )
    )
    assert (run.status, run.cause) == ("failed", "ZeroDivisionError: division by zero")

    if effect == "1":
        again = app.restart(run.id)
    else:
        told = "`conn` is lost: it cannot be stored, and step 'p', which may have changed it, has"
        with pytest.raises(RestartRefused, match=told) as error:
            app.restart(run.id)
        assert "a restart from 'p[b]' would do" in error.value.hint
        again = app.restart(run.id, from_step="p[b]")
    assert again.status == "success", again.cause
    assert counts(tmp_path) == {"pa": 1, "qa": 1, "pb": 2, "qb": 2}


MAKE = (
    "%%step p --foreach j in 'ab' --parallel 2 --collect res\nwitness('p' + j)\n"
    "import threading; held = [threading.Lock()]; res = with_file = 0\n"
    "with open('flow.ipynb') as with_file: pass",
    "%%step q --in p --foreach k in range(3)\nwitness(f'q{j}{k}'); held.append(k)",
    "%%step r --in p\nwitness('r' + j); res = held[1:]; del held",
    "%%step s --in p\nwitness('s' + j); res += [j]",
    "%%step end\nprint(res)",
)


@pytest.mark.parametrize(
    ("cut", "executed"),
    [
        ("p[b]/q", "pb qb0 qb1 qb2 rb sb"),
        ("p[b]/q[2]", "pb qb0 qb1 qb2 rb sb"),
        ("p[b]/r", "pb qb0 qb1 qb2 rb sb"),
        # the list is gone, and the file is used by nothing
        ("p[b]/s", "sb"),
    ],
)
def test_kept_jobs_of_an_item_run_again_only_for_what_its_rest_can_reach(
    cut, executed, make, app, tmp_path
):
    run = app.run(make(WITNESS, *MAKE))
    assert printed(run, "end") == "[[0, 1, 2, 'a'], [0, 1, 2, 'b']]\n", run.cause
    (tmp_path / "witness.txt").write_text("")

    again = app.restart(run.id, from_step=cut)

    assert printed(again, "end") == printed(run, "end"), again.cause
    assert counts(tmp_path) == dict.fromkeys(executed.split(), 1)
