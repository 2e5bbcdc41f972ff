"""Kills a flow at random moments, recovers it each time, and looks whether anything is wrong.

The flow has loops, retries, conditions, a while loop, tolerated failures, an `--always` cell, state
of the run, an effect that is to happen once, a loop that stores in mid-cell, a step that is
executed again, and one that suspends it. In each round its driver, its kernel or both are killed
(-9) at some moments, whoever resumes it is killed between the answer and the record of it, and it
is recovered until it ends. Then:

* every job was committed once, and was not even begun again after that;
* every wait was ended once, by the answer that was given first;
* what a witness file counts is what the journal tells: no execution is hidden;
* outputs, variables, conditions and statuses are those of an undisturbed run;
* the doctor finds nothing but what a sudden end may leave.

`--prefixes` takes an undisturbed run's journal instead and cuts it off behind each record: every
moment between two records at which a driver can be killed. So is that of a restart inside a loop.

    python tests/campaigns/flows.py --moments 300 [--seed N] [--prefixes] [--keep]
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

from cellrail import App
from cellrail.notebook.control import Path as Turns
from cellrail_state import journal as journals
from cellrail_state.doctor import examine
from cellrail_state.model import (
    JobFinished,
    JobStarted,
    KernelStarted,
    Record,
    StepSkipped,
    Woken,
)
from cellrail_state.waits import RESUME, Answer

SETUP = """%%step setup --always
import os, time
from cellrail import flow, get_flow_user_state, set_flow_user_state
def witness(where):
    line = f'{os.getpid()} {where}\\n'.encode()
    fd = os.open('witness.txt', os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, line); os.close(fd)
    time.sleep(0.01)
def add(n):
    set_flow_user_state('sum', get_flow_user_state('sum', 0) + n)
witness('setup')
"""
CELLS = (
    SETUP,
    "%%step data\nwitness('data')\nimport random\nrandom.seed(5)\n"
    "regions = ['north', 'south', 'east']\nseen, totals, n = [], {}, 1\n"
    "big = bytes(range(256)) * 4000\nadd(1)",
    "%%step score --foreach region in regions --collect mark\nwitness(f'score[{region}]')\n"
    "mark = [region, random.random()]\nseen.append(mark)\nprint(region); add(10)",
    "%%step inner --in score --foreach day in range(2) --collect t\n"
    "witness(f'score[{region}]/inner[{day}]')\nt = (region, day)\nprint(t)",
    "%%step deep --in inner --retry 3 --backoff 20ms\n"
    "where = f'score[{region}]/inner[{day}]/deep'\nwitness(where)\ntotals[t] = len(seen)\n"
    "tried = f'tried-{region}-{day}'\n"
    "if day == 1 and not os.path.exists(tried): os.mkdir(tried); raise ValueError('again')\n"
    "print('done'); add(100)",
    "%%step odd --in score --when region != 'south'\nwitness(f'score[{region}]/odd')\n"
    "kept = region",
    "%%step grow --while n < 100 --collect n\nturn = {1: 0, 3: 1, 9: 2, 27: 3, 81: 4}[n]\n"
    "witness(f'grow[{turn}]')\nn *= 3",
    "%%step small --branch size --when len(n) < 2\nwitness('small')",
    "%%step large --branch size:default\nwitness('large'); kind = 'large'",
    "%%step extra --on-error continue\nwitness('extra'); part = 1; 1 / 0",
    "%%step items --foreach x in [2, 0, 4] --on-error skip --collect y\nwitness(f'items[{x}]')\n"
    "y = 1 / x; time.sleep(0.05)",
    "%%step sent\nwitness('sent')\n"
    "def send():\n    os.write(os.open('sent.txt', os.O_WRONLY | os.O_APPEND | os.O_CREAT), b'x')\n"
    "    return 7\ncode = flow.once('send', send); time.sleep(0.05)",
    "%%step learn\nwitness('learn')\nlearnt, also = [], [0]\n"
    "for epoch in flow.each('epoch', range(15), save=['learnt', 'also', 'epoch'], every=4):\n"
    "    learnt.append(random.random()); also[:] = [learnt]; time.sleep(0.01)",
    "%%step poll\nwitness('poll'); add(1000)\nif flow.runs < 3: flow.rerun(0.05)",
    "%%step ask\nwitness('ask')\nurls = flow.suspend('1h'); big2 = big[::2]; time.sleep(0.05)",
    "%%step gate\nwitness('gate'); answer = flow.resume_data, flow.woke_by; print(answer)",
    "%%step end\nwitness('end')\n"
    "print(mark, seen, t, totals, mark[0] is seen[0], kept, n, kind, y,\n"
    "      type(error_extra).__name__, part, len(big), code, random.random(),\n"
    "      learnt, also[0] is learnt, epoch,\n"
    "      get_flow_user_state('sum'), answer, len(big2), flow.step('ask').resume_data)",
)
#: what the run is resumed with; a second answer would bring something else
ANSWER, SECOND = "7", "8"
#: where a restart in the midst of it begins
RESTART = "score[south]/inner[1]/deep"
#: what a sudden end may leave
HARMLESS = {"orphan object", "temporary file", "torn journal", "catalog", "wait"}

Key = tuple[int, Turns]


class Wrong(Exception):
    """Something is not as it has to be."""


def cellrail(folder: Path, *words: str) -> subprocess.Popen[str]:
    """The command line, in a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "cellrail", *words], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def begin(folder: Path) -> str:
    """Make the notebook and an undisturbed run of it; its id."""
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    nbformat.write(notebook, folder / "flow.ipynb")
    run_id = undisturbed(folder, "run", "flow.ipynb")
    clean(folder)
    return run_id


def undisturbed(folder: Path, *words: str) -> str:
    """Start a run, and resume it where it waits; its id."""
    process = cellrail(folder, *words, "--json")
    out, err = process.communicate(timeout=300)
    if process.returncode != 3:
        raise Wrong(f"{words}: {process.returncode} {out}{err}")
    run_id: str = json.loads(out)["run_id"]
    process = cellrail(folder, "resume", run_id, "--data", ANSWER)
    out, err = process.communicate(timeout=300)
    if process.returncode:
        raise Wrong(f"the resume of {words}: {out}{err}")
    return run_id


def clean(folder: Path) -> None:
    """What a run leaves beside its store."""
    for path in folder.glob("tried-*"):
        path.rmdir()
    for name in ("witness.txt", "sent.txt"):
        (folder / name).unlink(missing_ok=True)


# --- one round -------------------------------------------------------------------------------


class Round:
    """One run, killed and recovered until it ends."""

    def __init__(self, folder: Path, right: str, chance: random.Random, seconds: float) -> None:
        self.folder, self.right, self.chance, self.seconds = folder, right, chance, seconds
        self.app = App(folder / ".cellrail")
        self.run_id = ""
        #: what was killed, and when
        self.kills: list[str] = []

    def play(self, moments: int) -> None:
        """Kill at so many moments, then let it end."""
        for _ in range(moments):
            if self._killed(self._words()):
                return
        for _ in range(5):  # a kernel's death is told by a driver that lives
            process = cellrail(self.folder, *self._words())
            out, err = process.communicate(timeout=300)
            self._find()
            if self.run_id and self.app.show(self.run_id).status == "success":
                return
        raise Wrong(f"it does not end: {process.returncode} {out}{err}")

    def _words(self) -> tuple[str, ...]:
        """How somebody would go on with it."""
        if not self.run_id:
            return ("run", "flow.ipynb")
        pending = self.app.history(self.run_id).pending
        if self.app.show(self.run_id).status != "suspended" or pending is None:
            return ("recover", self.run_id)
        inbox, resume = self.app.store.inbox, ("resume", self.run_id, "--data")
        if inbox.answered(pending.wait_id) is None:
            if self.chance.random() < 0.5:
                return (*resume, ANSWER)
            # as a process does that is killed right behind its answer
            inbox.answer(pending.wait_id, Answer(by=RESUME, time=time.time(), data=ANSWER))
            self.kills.append("who resumed it")
        ways = [("tick",), ("recover", self.run_id), (*resume, SECOND)]
        return self.chance.choice(ways)

    def _killed(self, words: tuple[str, ...]) -> bool:
        """Kill it at some moment; whether it was too late."""
        size = self._size()
        process = cellrail(self.folder, *words)
        if self.chance.random() < 0.85:  # most moments of its start are alike
            deadline = time.monotonic() + 60
            while self._size() <= size and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.005)
                self._find()
            delay = self.chance.uniform(0, self.seconds)
        else:
            delay = self.chance.uniform(0, 2)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(delay)
        self._find()
        who = self.chance.choice(["driver", "driver", "kernel", "both"])
        self.kills.append(f"{who} after {delay:.3f} s")
        self._kill(process, who)
        out, err = process.communicate(timeout=120)
        # a process that was not killed has begun its run since
        self._find()
        ended = self.app.show(self.run_id).status == "success" if self.run_id else False
        if process.returncode not in {0, 1, 3, -signal.SIGKILL} and not ended:
            if who != "driver" and self._size() <= size:
                return False  # the kernel was killed before the run went on
            raise Wrong(f"exit code {process.returncode}: {out}{err}")
        return ended

    def _kill(self, process: subprocess.Popen[str], who: str) -> None:
        kernels = [r for r in self._records() if isinstance(r, KernelStarted)]
        if who != "driver" and kernels and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(kernels[-1].pid, signal.SIGKILL)
        if who != "kernel":
            process.kill()

    def _find(self) -> None:
        if not self.run_id and (self.folder / ".cellrail").exists():
            new = [r for r in self.app.store.run_ids() if r != self.right]
            self.run_id = new[0] if new else ""

    def _size(self) -> int:
        return self.app.store.journal_size(self.run_id) if self.run_id else 0

    def _records(self) -> list[Record]:
        return list(self.app.store.records(self.run_id, verify=True)) if self.run_id else []

    # --- what has to be ----------------------------------------------------------------------

    def check(self) -> None:
        """Look at everything.

        Raises:
            Wrong: something is not as it has to be.
        """
        run = self.app.show(self.run_id)
        if run.status != "success":
            raise Wrong(f"the run is {run.status}: {run.cause}")
        self._check_jobs()
        self._check_waits()
        difference = self.app.diff(self.right, self.run_id)
        steps = [step for step in difference.steps if not step.equal]
        wrong = [s.step for s in steps if s.variables or not self._shows_the_same(s.step)]
        if wrong:
            raise Wrong(f"steps differ from the undisturbed run: {wrong}")
        right = {step.label: step.status for step in self.app.show(self.right).steps}
        if {step.label: step.status for step in run.steps} != right:
            raise Wrong("statuses differ from the undisturbed run")
        if decisions(self._records()) != decisions(
            list(self.app.store.records(self.right, verify=True))
        ):
            raise Wrong("decisions differ from the undisturbed run")
        findings = examine(self.app.store, now=time.time() + 10 * 86_400).findings
        if bad := [f for f in findings if f.kind not in HARMLESS]:
            raise Wrong(f"the doctor: {bad}")

    def _shows_the_same(self, step: str) -> bool:
        """Whether outputs are equal but for numbers of cells in tracebacks.

        A kernel that dies right behind the `mkdir` of an attempt that fails has counted one cell
        less: the next attempt is the first that is committed, and it succeeds.
        """
        runs = (self.app.show(self.right), self.app.show(self.run_id))
        one, other = (re.sub(r"In\[\d+\]", "In[]", str(run[step].outputs)) for run in runs)
        return one == other

    def _check_jobs(self) -> None:
        labels = {i.number: i.label for i in self.app.store.started(self.run_id).steps}
        begun: dict[tuple[int, Key], int] = collections.Counter()
        ended: dict[tuple[int, Key], int] = collections.Counter()
        done: dict[Key, str] = {}
        pid, attempts = 0, set()
        for record in self._records():
            if isinstance(record, KernelStarted):
                pid = record.pid
            elif isinstance(record, JobStarted):
                key = (record.step, record.turns)
                begun[pid, key] += 1
                if key in done and labels[record.step] != "setup":
                    raise Wrong(f"{name(labels, key)} began again after {done[key]}")
            elif isinstance(record, JobFinished) and not record.cause.startswith("the kernel"):
                key = (record.step, record.turns)
                ended[pid, key] += 1
                if not record.replaces and (key, record.runs, record.attempt) in attempts:
                    raise Wrong(f"{name(labels, key)}: attempt {record.attempt} ended twice")
                attempts.add((key, record.runs, record.attempt))
                if (record.status == "success" or record.accepted) and not record.again:
                    done[key] = record.job_id
        self._check_witness(labels, begun, ended)

    def _check_waits(self) -> None:
        woken = [record for record in self._records() if isinstance(record, Woken)]
        if len({record.wait_id for record in woken}) < len(woken):
            raise Wrong("a wait was ended twice")
        told = [(record.label, record.by, record.data) for record in woken]
        if told != [("poll", "timeout", None)] * 2 + [("ask", "resume", ANSWER)]:
            raise Wrong(f"the waits came to {told}")
        # a step that was killed after its call asks anew; what it asked first stays without a time
        if [info for info in self.app.store.inbox.waiting(self.run_id) if info.until is not None]:
            raise Wrong("somebody is still to go on")

    def _check_witness(
        self,
        labels: dict[int, str],
        begun: dict[tuple[int, Key], int],
        ended: dict[tuple[int, Key], int],
    ) -> None:
        lines = collections.Counter((self.folder / "witness.txt").read_text().splitlines())
        told = {f"{pid} {name(labels, key)}": (pid, key) for pid, key in begun}
        for line, count in lines.items():
            if line not in told or not ended[told[line]] <= count <= begun[told[line]]:
                raise Wrong(f"the witness saw {line!r} {count} times")
        for line, key in told.items():
            # the end of a loop is a job, too, and executes nothing
            number, turns = key[1]
            leaves = not turns and any(t.loop == labels[number] for _, (_, p) in begun for t in p)
            inner = labels[number] == "inner" and len(turns) == 1
            if ended[key] > lines[line] and not leaves and not inner:
                raise Wrong(f"the witness did not see {line!r}")


def name(labels: dict[int, str], key: Key) -> str:
    """A job as the witness calls it."""
    number, turns = key
    inside = [str(turn) for turn in turns]
    own = [] if turns and turns[-1].loop == labels[number] else [labels[number]]
    return "/".join([*inside, *own])


def decisions(records: list[Record]) -> dict[Any, Any]:
    """What was decided, and what was skipped."""
    found: dict[Any, Any] = {}
    for record in records:
        if isinstance(record, StepSkipped):
            found[record.step, record.turns] = record.reason
        elif type(record).__name__ == "Decided":
            found[record.step, record.purpose, record.turns] = (record.value, record.keys)
    return found


# --- campaigns -------------------------------------------------------------------------------


def at_random(base: Path, right: str, args: argparse.Namespace, work: Path) -> int:
    """Kill at random moments; how many."""
    chance, done, number = random.Random(args.seed), 0, 0
    run = App(base / ".cellrail").show(right)
    seconds = (run.seconds or 1.0) * 1.1
    while done < args.moments:
        number += 1
        folder = work / f"round-{number}"
        shutil.copytree(base, folder)
        round_ = Round(folder, right, random.Random(chance.random()), seconds)
        try:
            round_.play(min(chance.randint(1, 5), args.moments - done))
            round_.check()
        except BaseException:
            print(f"round {number} in {folder}: {round_.kills}")
            args.keep = True
            raise
        done += max(1, len(round_.kills))
        print(f"round {number}: {len(round_.kills)} kills, {done} of {args.moments}", flush=True)
        if not args.keep:
            shutil.rmtree(folder)
    return done


def prefixes(base: Path, right: str, args: argparse.Namespace, work: Path) -> int:
    """Cut an undisturbed run's journal off behind each record; how many cuts."""
    store = App(base / ".cellrail").store
    runs = [right, restarted(base, right)]
    ends = [(r, e.end) for r in runs for e in list(journals.read(store.journal_path(r)))[:-1]]
    chance = random.Random(args.seed)
    some = sorted(chance.sample(ends, min(args.moments, len(ends))))
    for place, (run_id, end) in enumerate(some, 1):
        path = store.journal_path(run_id)
        folder = work / f"prefix-{place}"
        shutil.copytree(base, folder)
        clean(base)  # where the run goes on: its working directory is recorded
        for region in ("north", "south", "east"):
            if _has_tried(path, end, region):
                (base / f"tried-{region}-1").mkdir()
        # the run under test is the undisturbed one, cut off; it is compared with a copy elsewhere
        cut = App(folder / ".cellrail").store.journal_path(run_id)
        cut.write_bytes(path.read_bytes()[:end])
        untold = _cut_waits(folder, run_id, chance)
        for words in _ways_on(folder, run_id):
            process = cellrail(folder, *words)
            out, err = process.communicate(timeout=300)
            if process.returncode not in {0, 3}:
                args.keep = True
                raise Wrong(f"run {run_id} cut at {end} in {folder}: {words}: {out}{err}")
        compare(base, folder, run_id)
        print(f"cut {place} of {len(some)}, run {run_id} at byte {end}{untold}", flush=True)
        shutil.rmtree(folder)
    return len(some)


def _cut_waits(folder: Path, run_id: str, chance: random.Random) -> str:
    """Leave of the run's waits what was there at the cut; what is special about them, in words."""
    store, untold = App(folder / ".cellrail").store, ""
    records = list(store.records(run_id))
    asked = {r.job_id for r in records if isinstance(r, JobFinished) and r.wait is not None}
    woken = {r.wait_id for r in records if isinstance(r, Woken)}
    for path in (folder / ".cellrail" / "waits" / run_id).glob("*.done"):
        wait_id, answer = f"{run_id}/{path.stem}", path.with_suffix(".answer")
        if wait_id not in asked:
            path.unlink()
            answer.unlink()
        elif wait_id not in woken:
            path.rename(path.with_suffix(".open"))
            untold = ", answered"
            if chance.random() < 0.5:
                untold = ""
                answer.unlink()
    return untold


def _ways_on(folder: Path, run_id: str) -> Iterator[tuple[str, ...]]:
    """Commands until the run has ended."""
    app = App(folder / ".cellrail")
    for _ in range(5):
        history = app.history(run_id)
        if history.status == "success":
            return
        pending = history.pending if history.status == "suspended" else None
        if pending is not None and app.store.inbox.answered(pending.wait_id) is None:
            yield ("resume", run_id, "--data", ANSWER)
        else:
            yield ("recover", run_id)


def restarted(base: Path, right: str) -> str:
    """A restart inside the loops of the undisturbed run; its id."""
    return undisturbed(base, "restart", right, "--from", RESTART)


def _has_tried(path: Path, end: int, region: str) -> bool:
    """Whether the failing attempt was committed before the cut."""
    return any(
        isinstance(record := entry.record(), JobFinished)
        and record.status == "failed"
        and record.turns
        and record.turns[0].key == region
        and not record.accepted
        for entry in journals.read(path)
        if entry.end <= end
    )


def committed(app: App, run_id: str) -> collections.Counter[tuple[int, Turns, int, int]]:
    """How often each attempt of each job was committed, but for cells that ran again."""
    jobs = [r for r in app.store.records(run_id) if isinstance(r, JobFinished) and not r.replaces]
    return collections.Counter((job.step, job.turns, job.runs, job.attempt) for job in jobs)


def compare(base: Path, folder: Path, run_id: str) -> None:
    """Compare a recovered run with the one that it was cut from."""
    was, now = App(base / ".cellrail"), App(folder / ".cellrail")
    a, b = was.show(run_id), now.show(run_id)
    for left, right in zip(a.steps, b.steps, strict=True):
        if (left.label, left.status) != (right.label, right.status):
            raise Wrong(f"{left.label}: {left.status} became {right.status}: {right.cause}")
        if left.outputs != right.outputs:
            raise Wrong(f"{left.label}: outputs {left.outputs} became {right.outputs}")
    # an `--always` cell runs again with each new kernel: in a restart, too
    keys, wanted = committed(now, run_id), committed(was, run_id)
    if keys != wanted:
        raise Wrong(f"missing jobs: {wanted - keys}; more than there were: {keys - wanted}")
    if decisions(list(now.store.records(run_id))) != decisions(list(was.store.records(run_id))):
        raise Wrong("other decisions")


@contextlib.contextmanager
def workspace(args: argparse.Namespace) -> Iterator[Path]:
    """A folder that goes unless something was wrong."""
    work = Path(tempfile.mkdtemp(prefix="cellrail-campaign-"))
    os.environ["CELLRAIL_KEYS"] = str(work / "keys")
    yield work
    if not args.keep:
        shutil.rmtree(work, ignore_errors=True)


def main() -> None:
    """Run a campaign."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--moments", "--rounds", type=int, default=300, help="kills, or cuts")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--prefixes", action="store_true", help="cut journals off instead")
    parser.add_argument("--keep", action="store_true", help="keep the folders")
    args = parser.parse_args()
    print(f"--seed {args.seed} --moments {args.moments}", flush=True)
    started = time.monotonic()
    with workspace(args) as work:
        base = work / "base"
        base.mkdir()
        right = begin(base)
        campaign = prefixes if args.prefixes else at_random
        done = campaign(base, right, args, work)
    what = "cuts" if args.prefixes else "kills"
    print(f"{done} {what}, nothing wrong, in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
