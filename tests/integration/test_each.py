"""`flow.each` through real kernels: a cell goes on where its loop has stored.

Laws:

* a retry, a recovery and a restart at the step go on behind the last item stored; no item before it
  is executed again (counted by a witness file), and what comes out equals an undisturbed run's:
  values, sharing, classes, random numbers;
* whatever else executes the cell begins anew: a restart before its step, another parameter that it
  reads, a person in an open notebook;
* what is stored in mid-cell disturbs neither the checkpoint at the cell's end nor a roll-back;
* items that are not what they were are refused with a clear message, or as `on_change` says;
* of what was stored only what is needed is kept, and no secret is in it.
"""

from __future__ import annotations

import collections
import os
import signal
import sys
from pathlib import Path

import pytest

from cellrail_state.doctor import examine, holding
from cellrail_state.model import EachStored
from cellrail_state.prune import prune

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")

#: in a cell: who is killed, or what fails, once for each word
SETUP = (
    "import os, signal, time, random\n"
    "from cellrail import flow\n"
    "def witness(word):\n"
    "    fd = os.open('witness.txt', os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n"
    "    os.write(fd, f'{word}\\n'.encode()); os.close(fd)\n"
    "def crash(word, who='driver'):\n"
    "    name = f'crash-{word}'\n"
    "    if os.environ.get('CALM') or os.path.exists(name): return\n"
    "    os.close(os.open(name, os.O_CREAT))\n"
    "    if who == 'error': raise ValueError(word)\n"
    "    if who in ('driver', 'both'): os.kill(os.getppid(), signal.SIGKILL)\n"
    "    if who in ('kernel', 'both'): os.kill(os.getpid(), signal.SIGKILL)\n"
    "    time.sleep(60)\n"
)
TRAIN = (
    "%%step train {options}\n"
    "class Model:\n"
    "    def __init__(self): self.w = []\n"
    "    def step(self, x): self.w.append(x)\n"
    "model = Model()\n"
    "opt = {{'of': model, 'n': 0}}\n"
    "random.seed(5)\n"
    "for epoch in flow.each('epoch', range(8), save=['model', 'opt', 'epoch'], every={every}):\n"
    "    witness(epoch)\n"
    "    model.step(random.random())\n"
    "    opt['n'] += 1\n"
    "    if epoch == 5: crash('five', '{who}')\n"
    "last = epoch\n"
)
AFTER = "%%step after\nprint(opt['of'] is model, type(model) is Model, opt['n'], last, model.w)"


def train(who: str, *, options: str = "", every: object = 1) -> str:
    return TRAIN.format(who=who, options=options, every=every)


def printed(run, label: str) -> str:
    return "".join(o["text"] for o in run[label].outputs if o["output_type"] == "stream")


def counts(folder: Path) -> dict[str, int]:
    return dict(collections.Counter((folder / "witness.txt").read_text().split()))


def stored(app, run_id: str) -> list[EachStored]:
    return [r for r in app.store.records(run_id, verify=True) if isinstance(r, EachStored)]


@pytest.fixture
def calm(make, app, tmp_path, monkeypatch):
    """The same notebook, undisturbed; the witness forgets it."""

    def run(notebook: Path):
        with monkeypatch.context() as patched:
            patched.setenv("CALM", "1")
            done = app.run(notebook)
        assert done.status == "success", done.cause
        (tmp_path / "witness.txt").unlink(missing_ok=True)
        return done

    return run


def same(app, one, other) -> None:
    found = app.diff(one.id, other.id)
    assert found.equal, found


@pytest.mark.parametrize("who", ["driver", "kernel", "both"])
def test_a_crashed_run_goes_on_behind_the_last_item_stored(
    make, app, cellrail, calm, tmp_path, who
):
    notebook = make(SETUP, train(who), AFTER)
    undisturbed = calm(notebook)
    cellrail("run", notebook)
    run = app.show("last")
    assert run.status == ("failed" if who == "kernel" else "interrupted")
    assert counts(tmp_path) == {str(n): 1 for n in range(6)}

    again = app.recover(run.id)

    assert (again.id, again.status) == (run.id, "success"), again.cause
    assert counts(tmp_path) == {**{str(n): 1 for n in range(8)}, "5": 2}
    assert printed(again, "after").startswith("True True 8 7 [")
    same(app, undisturbed, again)
