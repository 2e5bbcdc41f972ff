"""Recover: the same run goes on after a crash.

Laws:

* it is the same run: its id, its record, its parameters, its labels, its output;
* no committed job executes twice, however often and wherever it was killed; the interrupted one
  executes again; what comes out equals an undisturbed run's: outputs, variables, decisions;
* a living run is not recovered, and an owner that was taken for dead writes nothing more;
* what cannot go on is refused before anything is changed, with the restart that would do.
"""

from __future__ import annotations

import collections
import os
import signal
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")

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


def printed(run, label: str) -> str:
    return "".join(
        output["text"] for output in run[label].outputs if output["output_type"] == "stream"
    )


def statuses(run) -> dict[str, str]:
    return {step.label: str(step.status) for step in run.steps}


def counts(folder: Path) -> dict[str, int]:
    return dict(collections.Counter((folder / "witness.txt").read_text().split()))


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
    undisturbed = calm(notebook)
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
