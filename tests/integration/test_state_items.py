"""States and resources in the items of loops: what a restart of some of them sees and may write.

Laws: whatever is restarted, recovered or rerun ends as an undisturbed run does (of a parallel loop:
in some order of its items), or is told that it cannot; no write is lost in silence, and none is
counted twice.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence

import pytest

from cellrail.errors import RestartRefused
from cellrail_state.model import JobFinished
from reading import printed

IMPORT = (
    "from cellrail import *\nimport os, signal, time\n"
    "def there(name): return os.path.exists(name)\n"
    # `order.txt` tells in which order items come to their turn
    "def turn(k):\n"
    "    order = open('order.txt').read().split()\n"
    "    before, late = order[: order.index(str(k))], time.monotonic() + 20\n"
    "    while not all(there(f'done{x}') for x in before):\n"
    "        assert time.monotonic() < late\n"
    "        time.sleep(0.01)\n"
)
#: the items count in a resource, or in the step's state
COUNT = {
    "resource": ("n = get_resource('cnt', 0)", "set_resource(n + 1, 'cnt')", "get_resource('cnt')"),
    "state": ("n = get_state() or 0", "set_state(n + 1)", "get_resource(path)"),
}
SHOW = "%%step end\nprint(r, {shown})"
DONE = "open(f'done{k}', 'w').close()"


def jobs_of(app, run) -> list[JobFinished]:
    return [record for record in app.store.records(run.id) if isinstance(record, JobFinished)]


@pytest.fixture
def order(tmp_path):
    """Tells the items' order for the run to come."""

    def tell(keys: Sequence[str]) -> None:
        for old in tmp_path.glob("done*"):
            old.unlink()
        (tmp_path / "order.txt").write_text(" ".join(keys))

    return tell


def counting(make, how: str = "resource", *, items: int = 2, more: str = ""):
    read, write, shown = COUNT[how]
    return make(
        IMPORT,
        f"%%step P --foreach k in range({items}) --collect r, path --parallel {items} {more}\n"
        f"turn(k)\n{read}\nif k == 1 and there('boom'): {DONE}; raise ValueError\n"
        f"{write}\nr = n\npath = get_state_path()",
        # an item is done when its write is committed
        f"%%step close --in P\n{DONE}",
        SHOW.format(shown=shown.replace("path", "path[0]")),
    )


@pytest.mark.parametrize("how", COUNT)
def test_items_that_run_again_in_another_order_do_not_see_what_those_of_the_origin_had_set(
    how, make, app, order
):
    path = counting(make, how)
    order("01")
    run = app.run(path)
    assert printed(run, "end") == "[0, 1] 2\n", run.cause

    order("10")
    again = app.restart(run.id, from_step="P")
    assert printed(again, "end") == "[1, 0] 2\n", again.cause
    order("01")
    third = app.restart(again.id, from_step="P")
    assert printed(third, "end") == "[0, 1] 2\n", third.cause


@pytest.mark.parametrize("how", COUNT)
def test_an_item_does_not_replace_what_a_kept_one_has_set_since_it_read(how, make, app, order):
    path = counting(make, how)
    order("01")
    run = app.run(path)
    [stored] = [s for s in app.resource_list() if s.value == 2]

    order("0")
    plan = app.restart(run.id, from_step="P[0]", plan=True)
    again = app.restart(run.id, from_step="P[0]")

    told = "\n".join(plan.lines())
    assert f"step 'P[0]' sees {stored.path!r} as run {run.id} saw it, though P[1], which" in told
    assert "has written it since (--from P: every item again; or restart with --state cur" in told
    assert "P[1], which is kept, has read what P[0] had set" in told
    assert (again.status, again["P"].status) == ("failed", "failed")
    assert f"{stored.path!r} was written by P[1], which is kept, in the meantime" in again.cause
    assert app.resource_get(stored.path) == 2
    order("01")
    whole = app.restart(run.id, from_step="P")
    assert printed(whole, "end") == "[0, 1] 2\n", whole.cause
    order("0")
    now = app.restart(whole.id, from_step="P[0]", state="current")
    assert printed(now, "end") == "[2, 1] 3\n", now.cause


def test_an_item_that_came_last_runs_again_on_what_the_kept_ones_have_set(make, app, order):
    path = counting(make)
    order("10")
    run = app.run(path)
    assert printed(run, "end") == "[1, 0] 2\n", run.cause

    order("0")
    assert not app.restart(run.id, from_step="P[0]", plan=True).warnings
    again = app.restart(run.id, from_step="P[0]")
    third = app.restart(again.id, from_step="P[0]")

    assert printed(again, "end") == printed(third, "end") == "[1, 0] 2\n", third.cause


def test_an_item_that_sets_without_reading_sets_in_any_case(make, app, order):
    path = make(
        IMPORT,
        "%%step P --foreach k in range(2) --collect r --parallel 2\n"
        "turn(k)\nset_resource(k, 'last')\nr = k",
        f"%%step close --in P\n{DONE}",
        "%%step end\nprint(get_resource('last'))",
    )
    order("01")
    run = app.run(path)
    assert printed(run, "end") == "1\n", run.cause

    order("0")
    again = app.restart(run.id, from_step="P[0]")

    assert printed(again, "end") == "0\n", again.cause


def test_an_item_that_has_not_looked_since_does_not_count_on_what_a_kept_one_had_of_it(
    make, app, order, tmp_path
):
    """It failed before it read: what is there holds what it had counted two runs ago."""
    path = make(
        IMPORT,
        "%%step P --foreach k in range(2) --collect r --parallel 2\n"
        "turn(k)\nif k == 0 and there('boom'): raise ValueError\n"
        "n = get_resource('cnt', 0)\nset_resource(n + 1, 'cnt')\nr = n",
        f"%%step close --in P\n{DONE}",
        "%%step end\nprint(r, get_resource('cnt'))",
    )
    order("01")
    run = app.run(path)
    assert printed(run, "end") == "[0, 1] 2\n", run.cause
    order("0")
    (tmp_path / "boom").touch()
    failed = app.restart(run.id, from_step="P[0]")
    assert failed.cause.startswith("ValueError")
    (tmp_path / "boom").unlink()

    again = failed
    for _ in range(2):
        again = app.restart(again.id)
        assert "'cnt' was written by P[1], which is kept, in the meantime" in again.cause
    order("01")
    whole = app.restart(again.id, from_step="P")
    assert printed(whole, "end") == "[0, 1] 2\n", whole.cause


def test_items_of_a_loop_in_a_turn_of_another_one_see_what_stood_in_that_turn(make, app, order):
    path = make(
        IMPORT,
        "%%step turns --foreach t in range(2) --collect r\nr = t",
        "%%step P --in turns --foreach k in range(2) --collect s --parallel 2\n"
        "turn(f'{t}{k}')\nn = get_resource('cnt', 0)\nset_resource(n + 1, 'cnt')\ns = n",
        "%%step close --in P\nopen(f'done{t}{k}', 'w').close()",
        "%%step each --in turns\nr = s",
        "%%step end\nprint(r, get_resource('cnt'))",
    )
    order(["00", "01", "10", "11"])
    run = app.run(path)
    assert printed(run, "end") == "[[0, 1], [2, 3]] 4\n", run.cause

    order(["11", "10"])
    again = app.restart(run.id, from_step="turns[1]/P")
    assert printed(again, "end") == "[[0, 1], [3, 2]] 4\n", again.cause
    order(["11"])
    one = app.restart(again.id, from_step="turns[1]/P[1]")
    assert "'cnt' was written by turns[1]/P[0], which is kept, in the meantime" in one.cause
    hint = "--from 'turns[1]/P': every item again"
    plan = app.restart(again.id, from_step="turns[1]/P[1]", plan=True)
    assert hint in "\n".join(plan.warnings)
    assert len(plan.warnings) == 2
    order(["10"])
    last = app.restart(again.id, from_step="turns[1]/P[0]")
    assert printed(last, "end") == "[[0, 1], [3, 2]] 4\n", last.cause
    order(["00", "01", "10", "11"])
    whole = app.restart(last.id, from_step="turns")
    assert printed(whole, "end") == "[[0, 1], [2, 3]] 4\n", whole.cause


# --- failed items ----------------------------------------------------------------------------


def test_failed_items_that_share_a_resource_with_kept_ones_are_refused(make, app, order, tmp_path):
    path = counting(make, items=3, more="--on-error skip")
    (tmp_path / "boom").touch()
    order("012")
    run = app.run(path)
    assert printed(run, "end") == "[0, None, 1] 2\n", run.cause
    (tmp_path / "boom").unlink()

    plan = app.restart(run.id, failed_only=True, plan=True)
    with pytest.raises(RestartRefused) as raised:
        app.restart(run.id, failed_only=True)

    told = "the items of 'P' depend on one another: P[2], which is kept, has written 'cnt' since"
    assert f"{told} 'P[1]' read it" in str(raised.value)
    assert raised.value.hint.startswith("--from P: every item again; or restart with --state cur")
    assert plan.refusals == (str(raised.value),)
    assert app.resource_get("cnt") == 2
    order("1")
    now = app.restart(run.id, failed_only=True, state="current")
    assert printed(now, "end") == "[0, 2, 1] 3\n", now.cause


def test_a_failed_item_that_came_last_finds_what_the_kept_ones_have_set(make, app, order, tmp_path):
    path = counting(make, items=3, more="--on-error skip")
    (tmp_path / "boom").touch()
    order("021")
    run = app.run(path)
    (tmp_path / "boom").unlink()

    order("1")
    again = app.restart(run.id, failed_only=True)

    assert printed(again, "end") == "[0, 2, 1] 3\n", again.cause


SETS = {
    "resource": ("set_resource(k, f'f/{k}')", "resource 'f/0'"),
    "state": ("set_state(k)", "state 'flow.ipynb/P/"),
    "variable": ("set_variable('v', str(k))", "variable 'v'"),
    "user": ("set_flow_user_state('u', k)", "flow user state 'u'"),
}


@pytest.mark.parametrize("how", SETS)
def test_items_in_sequence_that_set_anything_but_what_they_collect_are_refused_alone(
    how, make, app, tmp_path
):
    call, told = SETS[how]
    path = make(
        IMPORT,
        "%%step P --foreach k in range(3) --collect r --on-error skip\n"
        f"if k == 1 and there('boom'): raise ValueError\n{call}\nr = k",
        "%%step end\nprint(r)",
    )
    (tmp_path / "boom").touch()
    run = app.run(path)
    assert printed(run, "end") == "[0, None, 2]\n", run.cause
    (tmp_path / "boom").unlink()

    with pytest.raises(RestartRefused) as raised:
        app.restart(run.id, failed_only=True)

    assert f"the items of 'P' depend on one another: P[0] set the {told}" in str(raised.value)
    assert raised.value.hint.endswith("--from 'P[1]'")
    again = app.restart(run.id, from_step="P[1]")
    assert printed(again, "end") == "[0, 1, 2]\n", again.cause


@pytest.mark.parametrize("how", SETS)
def test_an_item_in_sequence_that_runs_alone_cannot_set_what_those_behind_it_have_not_seen(
    how, make, app, tmp_path
):
    """No record tells of it: only the item that failed sets something."""
    path = make(
        IMPORT,
        "%%step P --foreach k in range(3) --collect r --on-error skip\n"
        f"if k == 1 and there('boom'): raise ValueError\nif k == 1: {SETS[how][0]}\nr = k",
        "%%step end\nset_flow_user_state('end', 1)\nset_resource(1, 'end')\nprint(r)",
    )
    (tmp_path / "boom").touch()
    run = app.run(path)
    (tmp_path / "boom").unlink()

    again = app.restart(run.id, failed_only=True)

    assert printed(again, "end") == "[0, None, 2]\n", again.cause
    [error] = [job.error for job in jobs_of(app, again) if job.error is not None]
    assert "cannot be set here: P[1] runs behind the items that are kept" in error.value
    whole = app.restart(run.id, from_step="P[1]")
    assert printed(whole, "end") == "[0, 1, 2]\n", whole.cause


def test_after_a_failure_in_a_parallel_loop_the_plan_tells_what_kept_items_have_set(
    make, app, order, tmp_path
):
    path = counting(make, items=3)
    (tmp_path / "boom").touch()
    order("120")
    run = app.run(path)
    assert run.status == "failed"
    (tmp_path / "boom").unlink()

    order("1")
    plan = app.restart(run.id, plan=True)
    again = app.restart(run.id)

    written = [job.turns[0].key for job in jobs_of(app, run) if job.effects and job.effects.writes]
    assert written == ["2", "0"]
    assert "'P[1]' sees 'cnt'" in "\n".join(plan.warnings)
    assert "'cnt' was written by P[2], which is kept, in the meantime" in again.cause
    now = app.restart(run.id, state="current")
    assert printed(now, "end") == "[1, 2, 0] 3\n", now.cause


# --- killed, and gone on with ----------------------------------------------------------------


KILL = "if k == 1 and there('kill'): os.remove('kill'); os.kill(os.getppid(), signal.SIGKILL)"


def killed(make):
    return make(
        IMPORT,
        "%%step P --foreach k in range(3) --collect r --parallel 3\n"
        "turn(k)\nn = get_resource('cnt', 0)\nset_resource(n + 1, 'cnt')\nr = n\n"
        "flow.once(f'paid{k}', lambda: open('paid.txt', 'a').write(str(k)))",
        f"%%step close --in P\n{KILL}; time.sleep(60)\n{DONE}",
        "%%step end\nprint(r, get_resource('cnt'))",
    )


def test_a_run_that_was_killed_among_items_counts_each_of_them_once(
    make, app, order, cellrail, tmp_path
):
    path = killed(make)
    (tmp_path / "kill").touch()
    order("012")
    assert cellrail("run", path).returncode == -signal.SIGKILL

    assert cellrail("recover", "last").returncode == 0

    run = app.show("last")
    assert printed(run, "end") == "[0, 1, 2] 3\n", run.cause
    assert (tmp_path / "paid.txt").read_text() == "012"
    order("1")
    again = app.restart(run.id, from_step="P[1]")
    assert "'cnt' was written by P[2], which is kept, in the meantime" in again.cause
    assert (tmp_path / "paid.txt").read_text() == "012"


def test_a_restart_of_a_loop_that_was_killed_among_items_counts_each_of_them_once(
    make, app, order, cellrail, tmp_path
):
    path = killed(make)
    order("012")
    run = app.run(path)
    assert printed(run, "end") == "[0, 1, 2] 3\n", run.cause
    order("210")
    (tmp_path / "kill").touch()
    killed_one = cellrail("restart", run.id, "--from", "P")
    assert killed_one.returncode == -signal.SIGKILL, killed_one.stderr

    back = cellrail("recover", "last")

    assert back.returncode == 0, back.stderr
    assert printed(app.show("last"), "end") == "[2, 1, 0] 3\n"
    assert (tmp_path / "paid.txt").read_text() == "012"


def test_a_restart_of_one_item_that_was_killed_still_does_not_replace_what_kept_ones_have_set(
    make, app, order, cellrail, tmp_path
):
    path = make(
        IMPORT,
        "%%step P --foreach k in range(2) --collect r --parallel 2\n"
        "turn(k)\nif k == 0 and there('kill'): os.remove('kill'); "
        "os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)\n"
        "n = get_resource('cnt', 0)\nset_resource(n + 1, 'cnt')\nr = n",
        f"%%step close --in P\n{DONE}",
        "%%step end\nprint(r, get_resource('cnt'))",
    )
    order("01")
    run = app.run(path)
    (tmp_path / "kill").touch()
    order("0")
    assert cellrail("restart", run.id, "--from", "P[0]").returncode == -signal.SIGKILL

    back = cellrail("recover", "last")

    assert back.returncode == 1
    assert "'cnt' was written by P[1], which is kept, in the meantime" in app.show("last").cause
    assert app.resource_get("cnt") == 2
