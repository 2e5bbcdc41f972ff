"""Loops in loops, cut wherever they can be, each time against the run that was never disturbed.

Laws, for every place that an address can name:

* a restart there begins on the namespace right before that place: on the jobs that were committed
  before it and no other;
* it executes what comes at and behind the place, each job as often as the undisturbed run did, and
  nothing before it; of a parallel loop, one item;
* outputs and variables are those of the undisturbed run, and a restart of the restart is no other;
* a run that was killed there comes to the same when it is recovered.

What is expected is read from the undisturbed run's journal, record by record.
"""

from __future__ import annotations

import collections
import os
import shutil
from pathlib import Path

import pytest

from cellrail import App
from cellrail.restarting import plan_restart_of
from cellrail_state import journal
from cellrail_state.model import JobFinished, JobStarted, StepSkipped
from cellrail_state.turns import job_address
from reading import counts

#: each cell says once which job it is, tells it an outside witness, and draws a random number
SETUP = (
    "import os, random\nrandom.seed(7)\ng = []\n"
    "def did(*job):\n"
    "    word = '-'.join(map(str, job))\n"
    "    fd = os.open('witness.txt', os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n"
    "    os.write(fd, f'{word}\\n'.encode()); os.close(fd)\n"
    "    print('did', word, random.random())\n"
    "def once_in_two(name):\n"
    "    if os.path.exists(name): os.remove(name)\n"
    "    else: os.close(os.open(name, os.O_CREAT)); raise ValueError(name)\n"
)
END = "%%step end\ndid('end'); print(g, sorted(k for k in globals() if len(k) == 1))"

#: two levels: loops begin, stand empty, are skipped, take turns; cells between them
TWO = (
    SETUP,
    "%%step L --foreach k in ['p', 'q', 'r'] --collect c\ng.append(k); c = len(g); did('L', k)",
    "%%step M --in L --foreach y in range(2) --collect m\nm = (k, y); g.append(y); did('M', k, y)",
    "%%step N --in M --retry 1 --backoff 1ms\ng.append('n'); did('N', k, y)\n"
    "if k == 'q': once_in_two(f'N{y}')",
    "%%step O --in M --when y == 1 and g[-1] == 'n'\ng.append('o'); did('O', k, y)",
    "%%step B --in L\ng.append(len(g)); did('B', k)",
    "%%step W --in L --while len(g) % 13\ng.append(9); did('W', k, len(g))",
    "%%step V --in W --when len(g) % 2\ng.append(8); did('V', k, len(g))",
    "%%step S --in L --when k != 'q' --foreach z in 'ab'\ng.append(z); did('S', k, z)",
    "%%step E --in L --foreach z in range(k != 'q')\ng.append(z); did('E', k, z)",
    "%%step Z --in L\ng.append('z'); did('Z', k)",
    END,
)
#: three levels, `--while` in the midst, keys of one's own
THREE = (
    SETUP,
    "%%step L --foreach k in [1, 2]\ng.append(k); did('L', k)",
    "%%step W --in L --while len(g) % 5\ng.append(0); did('W', k, len(g))",
    "%%step M --in W --foreach y in 'ab'\ng.append(y) if len(g) % 5 else 0; did('M', len(g), y)",
    "%%step N --in M\nn = len(g); did('N', k, n, y)",
    "%%step X --in W\nn += 1; did('X', k, n)",
    "%%step T --in L --foreach a in 'uv'\nt = [a]; did('T', k, a)",
    "%%step U --in T --foreach b in range(2) --key f'b{b}' --collect c\n"
    "c = b; t.append(b); did('U', k, a, b)",
    "%%step T2 --in T\nt.append(c); did('T2', k, a); g.append(tuple(map(str, t)))",
    END,
)
#: branches, and failures that the loops go on past
CHOICES = (
    SETUP,
    "%%step L --foreach k in ['p', 'q', 'r'] --on-error skip\ng.append(k); did('L', k)",
    "%%step one --in L --branch size --when k == 'p'\nv = 1; did('one', k)",
    "%%step two --in L --branch size:default --foreach i in range(2)\nv = 2; did('two', k, i)",
    "%%step three --in two\ng.append((v, i)); did('three', k, i)",
    "%%step M --in L --foreach y in [1, 0, 2] --on-error skip --collect v\n"
    "did('M', k, y); g.append(y); v = 1 / y",
    "%%step C --in M --on-error continue\ndid('C', k, y); g.append(v)\n"
    "if y == 2: raise KeyError(y)",
    "%%step D --in M\ng.append('error_C' in globals()); did('D', k, y)",
    "%%step F --in L\ndid('F', k)\nif k == 'q': raise ValueError(k)",
    "%%step W --in L --while g[-1] != 'w'\ng.append('w' if g[-1] == 'v' else 'v'); did('W', k)",
    END,
)
#: loops in the items of a parallel loop
OUTER = (
    SETUP,
    "%%step L --foreach k in ['p', 'q'] --parallel 2 --collect c\nh = [k]; did('L', k)",
    "%%step M --in L --foreach y in range(2)\nh.append(y); did('M', k, y)",
    "%%step N --in M\nh.append('n'); did('N', k, y)",
    "%%step W --in L --while len(h) < 7\nh.append(9); did('W', k, len(h))",
    "%%step Z --in L\nc = list(h); did('Z', k)",
    "%%step end\ndid('end'); print(c)",
)
#: a parallel loop in another loop
INNER = (
    SETUP,
    "%%step L --foreach k in ['p', 'q']\ng.append(k); did('L', k)",
    "%%step P --in L --foreach y in range(2) --parallel 2 --collect r\n"
    "r = (y, len(g)); did('P', k, y)",
    "%%step Q --in P --foreach z in 'ab'\nr = (*r, z); did('Q', k, y, z)",
    "%%step M --in L --foreach y in range(2)\ng.append((y, r[y])); did('M', k, y)",
    END,
)


class Undisturbed:
    """A run that nothing happened to, and what a cut of it has to come to."""

    def __init__(self, app: App, notebook: Path) -> None:
        self.app, self.folder = app, notebook.parent
        self.run = app.run(notebook)
        assert self.run.status == "success", self.run.cause
        self.history = app.history(self.run.id)
        self.entries = list(journal.read(app.store.journal_path(self.run.id)))
        self.told = [entry.record() for entry in self.entries]
        #: what tells of a job
        kinds = (JobStarted, JobFinished, StepSkipped)
        self.records = [record for record in self.told if isinstance(record, kinds)]
        (self.folder / "witness.txt").unlink()

    def words(self, record) -> list[str]:
        """What a job has told the witness."""
        if not isinstance(record, JobFinished):
            return []
        shown = self.history.outputs(record)
        lines = "".join(o["text"] for o in shown if o["output_type"] == "stream").splitlines()
        return [line.split()[1] for line in lines if line.startswith("did ")]

    def places(self) -> dict[str, tuple[int, tuple]]:
        """Every address, with the number of its step and the turns that this is in."""
        found = {}
        for record in self.records:
            label, turns = self.history.label_of(record.step), record.turns
            found[job_address(label, turns)] = record.step, turns
            if turns and turns[-1].loop == label:
                # the loop as a whole, in the turns around it
                found[job_address(label, turns[:-1])] = record.step, turns[:-1]
        # what is skipped with its loop is in no turn of that
        return {a: place for a, place in found.items() if not a.endswith("/three") or "two[" in a}

    def is_at(self, record, number: int, turns: tuple) -> bool:
        """Whether a record is of a step in these turns: of a loop, any turn."""
        label, depth = self.history.label_of(number), len(turns)
        inside = record.turns[:depth] == turns and len(record.turns) > depth
        own = record.step == number and record.turns == turns
        return own or (inside and record.turns[depth].loop == label)

    def first(self, number: int, turns: tuple) -> int:
        """The place of the first record that is of a step in these turns."""
        return next(n for n, r in enumerate(self.records) if self.is_at(r, number, turns))

    def committed_before(self, number: int, turns: tuple) -> list[str]:
        """The jobs that the run's own kernel has done before a cut."""
        at, fork = self.first(number, turns), self.history.fork_of(turns)
        if fork is not None:
            at = 1 + next(n for n, r in enumerate(self.records) if self._forks(r, *fork))
        return [
            record.job_id
            for record in self.records[:at]
            if isinstance(record, JobFinished) and (record.accepted or record.status == "success")
            if self.history.fork_of(record.turns) is None
        ]

    def _forks(self, record, number: int, turns: tuple) -> bool:
        forks = isinstance(record, JobFinished) and record.forks
        return bool(forks) and (record.step, record.turns) == (number, turns)

    def executed_from(self, number: int, turns: tuple) -> collections.Counter[str]:
        """How often each job is executed at a place and behind it."""
        at, fork = self.first(number, turns), self.history.fork_of(turns)
        behind = self.records[at:]
        if fork is not None:
            # of its loop only this item; what comes behind the loop is in no item of it
            item = turns[: len(fork[1]) + 1]
            behind = [
                record
                for record in behind
                if record.turns[: len(item)] == item or self.history.fork_of(record.turns) != fork
            ]
        return self.counted(behind)

    def counted(self, records) -> collections.Counter[str]:
        """How often each job was executed."""
        return collections.Counter(word for record in records for word in self.words(record))

    def killed_at(self, address: str) -> tuple[App, collections.Counter[str]]:
        """The store as a kill right before a job left it, and what was to be executed still."""
        job = self.run[address].job_id
        place = next(n for n, r in enumerate(self.told) if getattr(r, "job_id", "") == job)
        folder = self.folder / f"killed-{place}"
        folder.mkdir()
        shutil.copytree(self.app.store_path, folder / self.app.store_path.name)
        shutil.copy(self.folder / "flow.ipynb", folder)
        app = App(folder / self.app.store_path.name)
        os.truncate(app.store.journal_path(self.run.id), self.entries[place].offset)
        # it was not told of what came later
        for index in app.store_path.glob("catalog.duckdb*"):
            index.unlink()
        return app, self.counted(self.told) - self.counted(self.told[:place])

    def check(self, app: App, run, executed: collections.Counter[str], where: str) -> None:
        """A run of the same notebook came to the same, and executed this."""
        assert run.status == "success", (where, run.cause)
        assert counts(self.folder) == executed, where
        (self.folder / "witness.txt").unlink()
        assert outputs(app, run) == outputs(self.app, self.run), where


def outputs(app: App, run) -> dict[str, list[str]]:
    """What each job has shown."""
    history, shown = app.history(run.id), {}
    for state in history.states:
        for turns, job in history.turns_of(state.info.number) or [((), state.job)]:
            address = job_address(state.info.label, turns)
            texts = [o.get("text") or o.get("evalue") for o in history.outputs(job)] if job else []
            shown[address] = texts
    return shown


#: of each notebook some places of each kind, by key and by index
CUTS = {
    "two": (
        TWO,
        "L[p]/M[0] L[#1]/M[#0]/N L[q]/W[1] L[q]/S L[r]/W L[r]/S[a] L[r]/E",
    ),
    "three": (
        THREE,
        "L[1]/W[0]/M L[2]/W[0]/M[b]/N L[2]/T[u]/U[b0] L[2]/T[v]/U L[#1]/T[#1]/U[#1]",
    ),
    "choices": (CHOICES, "L[q]/two[0] L[q]/M[2]/C L[r]/W"),
    "outer": (OUTER, "L[q]/M L[q]/W[1] L[p]"),
    "inner": (INNER, "L[p]/P L[q]/P[1]/Q L[q]/P[0]/Q[b]"),
}  # fmt: skip


@pytest.mark.parametrize("name", CUTS)
def test_a_restart_at_any_place_of_nested_loops_ends_as_the_undisturbed_run(name, make, app):
    cells, cuts = CUTS[name]
    was = Undisturbed(app, make(*cells))
    places, flow = was.places(), app.restartable(was.run.id)[1]

    # of every place: what a restart would begin on
    for cut, (number, turns) in places.items():
        decided = plan_restart_of(
            flow, was.history, from_step=cut, to=None, changed=(), force=False, widen=False
        )
        assert not decided.plan.refusals, cut
        assert list(decided.chain) == was.committed_before(number, turns), cut

    # by turns from the run itself and from the restart before
    origin = was.run.id
    for count, cut in enumerate(cuts.split()):
        again = app.restart(origin if count % 2 else was.run.id, from_step=cut)
        address = was.run[cut].address if "#" in cut else cut
        was.check(app, again, was.executed_from(*places[address]), cut)
        difference = app.diff(was.run.id, again.id)
        assert difference.equal, (cut, [s.told for s in difference.steps if not s.equal])
        origin = again.id


# --- where it was killed ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "jobs"),
    [
        # the job that a loop has in the turns around it ends it
        (TWO, "L[q]/M[0] L[p]/M L[q]/W[1] L[r]/E"),
        (OUTER, "L[q]/M[0] L[p]/M[1]/N L[q]/M L[p]/W"),
        (INNER, "L[q]/P[0]/Q[a] L[q]/P[1]/Q"),
    ],
    ids=["two", "outer", "inner"],
)
def test_a_run_that_was_killed_there_is_recovered_to_the_same(cells, jobs, make, app):
    was = Undisturbed(app, make(*cells))
    for address in jobs.split():
        store, left = was.killed_at(address)

        again = store.recover(was.run.id)

        was.check(store, again, left, address)


# --- what cannot be stored -------------------------------------------------------------------

#: a connection that every turn of two loops changes, a file that a turn opens and others read
UNSTORED = (
    SETUP + "with open('lines', 'w') as lines: print(*range(9), sep='\\n', file=lines)",
    "import sqlite3\ncon = sqlite3.connect(':memory:')\ncon.execute('create table t(x)')\n"
    "def add(): con.execute('insert into t values(1)')\n"
    "def n(): return con.execute('select count(*) from t').fetchone()[0]",
    "%%step L --foreach k in 'pqr'\nit = open('lines'); did('L', k)",
    "%%step A --in L\nadd(); did('A', k)",
    "%%step M --in L --foreach y in range(2)\ng.append(next(it)); did('M', k, y)",
    "%%step W --in L --while n() % 3\nadd(); did('W', k, n())",
    "%%step Z --in L\nit.close(); del it; did('Z', k)",
    "%%step end\ndid('end'); print(g, n())",
)


@pytest.mark.parametrize("recovered", [False, True])
def test_kept_turns_run_again_for_what_cannot_be_stored_and_no_others(recovered, make, app):
    was = Undisturbed(app, make(*UNSTORED))
    rows = "A-p W-p-2 W-p-3"
    for address, again in {
        "L[p]/M[1]": "L-p A-p M-p-0",
        "L[q]": rows,
        "L[q]/W[1]": f"{rows} L-q A-q M-q-0 M-q-1 W-q-5",
        # the files are gone
        "end": f"{rows} A-q W-q-5 W-q-6 A-r W-r-8 W-r-9",
    }.items():
        if recovered:
            store, left = was.killed_at(address)
            run = store.recover(was.run.id)
        else:
            store, left = app, was.executed_from(*was.places()[address])
            run = app.restart(was.run.id, from_step=address)
        was.check(store, run, left + collections.Counter(again.split()), address)


def test_items_in_a_loop_begin_on_what_its_turns_have_made_of_what_cannot_be_stored(make, app):
    cells = (
        f"{SETUP}import threading\nheld = [threading.Lock()]",
        "%%step L --foreach i in range(3) --collect res\nres = None",
        "%%step P --in L --foreach y in 'ab' --parallel 2 --collect seen\nseen = y, held[1:]",
        "%%step Q --in L\nheld.append(i); res = seen",
        "%%step end\nprint(res)",
    )
    run = app.run(make(*cells))
    expected = [[("a", list(range(n))), ("b", list(range(n)))] for n in range(3)]
    assert run["end"].outputs[0]["text"] == f"{expected}\n", run.cause

    for cut in ("L[1]", "L[2]/P", "L[2]/P[b]", "L[2]/Q"):
        again = app.restart(run.id, from_step=cut)
        assert again["end"].outputs == run["end"].outputs, (cut, again.cause)


#: what turns do to a value by another name of it, by the last one, and by what they make of both
SHARED = {
    "an alias": (
        "other = held",
        ("did('L', i); other.append(i)",),
        {"L[2]": "L-0 L-1", "end": "L-0 L-1 L-2"},
    ),
    "each in the other": (
        "other = [threading.Lock(), held]\nheld.append(other)",
        (
            "did('L', i); other[1].append(i)",
            "did('M', i); other = [threading.Lock(), held]; held[1] = other",
        ),
        {"L[1]/M": "L-0 M-0 L-1", "end": "L-0 M-0 L-1 M-1 L-2 M-2"},
    ),
    "a part": (
        "parts = {0: held, 1: [threading.Lock()], 2: held}",
        ("did('L', i); other = parts[i]", "did('M', i); other.append(i)"),
        {"L[1]": "L-0 M-0", "end": "L-0 M-0 L-1 M-1 L-2 M-2"},
    ),
    "made of the one before": (
        "",
        ("did('L', i); held = [held, i]",),
        {"L[2]": "L-0 L-1", "end": "L-0 L-1 L-2"},
    ),
    "the variable of the loop": (
        "",
        ("pass", "did('M', i); i = [threading.Lock(), i]", "did('N', i[1]); held.append(i[1])"),
        {"L[1]": "M-0 N-0", "end": "M-0 N-0 M-1 N-1 M-2 N-2"},
    ),
}


@pytest.mark.parametrize("how", SHARED)
def test_what_cannot_be_stored_is_whole_whatever_way_the_turns_have_changed_it(how, make, app):
    before, bodies, cuts = SHARED[how]
    lines = ("L --foreach i in range(3)", "M --in L", "N --in L")
    turns = [f"%%step {line}\n{body}" for line, body in zip(lines, bodies, strict=False)]
    seen = (
        "def seen(value, *around):\n"
        "    if not isinstance(value, list): return value if type(value) is int else '-'\n"
        "    return '^' if value in around else [seen(v, value, *around) for v in value]\n"
    )
    was = Undisturbed(
        app,
        make(
            f"{SETUP}import threading\n{seen}held = [threading.Lock()]\n{before}",
            *turns,
            "%%step end\ndid('end'); print(seen(held))",
        ),
    )
    for cut, again in cuts.items():
        run = app.restart(was.run.id, from_step=cut)
        left = was.executed_from(*was.places()[cut])
        was.check(app, run, left + collections.Counter(again.split()), cut)


def test_items_that_cannot_be_stored_are_as_the_kept_turns_have_left_them(make, app):
    was = Undisturbed(
        app,
        make(
            f"{SETUP}import threading\npool = [[threading.Lock(), n] for n in range(2)]",
            "%%step L --foreach y in pool\ndid('L', y[1])",
            "%%step A --in L\ndid('A', y[1]); y.append('a')",
            "%%step B --in L\ndid('B', y[1]); y.append('b'); print(y[1:])",
            "%%step M --in L --foreach z in [[y, 5], [y, 6]]\ndid('M', y[1]); z[0].append(z[1])",
            "%%step end\ndid('end'); print([one[1:] for one in pool], y[1:], z[1:])",
        ),
    )
    first = "L-0 A-0 B-0 M-0 M-0"
    for cut, again in {
        "L[#0]/B": "L-0 A-0",
        "L[#1]": first,
        "L[#1]/B": f"{first} L-1 A-1",
        "L[#1]/M[#1]": f"{first} L-1 A-1 B-1 M-1",
        "end": f"{first} L-1 A-1 B-1 M-1 M-1",
    }.items():
        run = app.restart(was.run.id, from_step=cut)
        left = was.executed_from(*was.places()[cut])
        was.check(app, run, left + collections.Counter(again.split()), cut)


# --- in an open notebook ---------------------------------------------------------------------


def test_an_open_notebook_says_where_to_cut_and_its_run_is_cut_like_any_other(make, front, app):
    notebook = make(*TWO)
    front.run("%load_ext cellrail\n%flow config notebook=flow.ipynb", "scratch")
    for place in (1, 2, len(TWO)):
        assert front.execute(TWO[place - 1], f"cell-{place}").status == "ok"
    (live,) = app.runs()

    for cut in ("L[q]/M[0]", "L[q]/M", "L[#1]/W"):
        said = front.run(f"%flow restart --from '{cut}'", "scratch")
        assert "lies inside a loop, which a cell executes as a whole (--from L here" in said

    (notebook.parent / "witness.txt").unlink()
    was = Undisturbed(app, notebook)
    for cut in ("L[q]/M[0]", "L[r]/W"):
        again = app.restart(live.run_id, from_step=cut)
        was.check(app, again, was.executed_from(*was.places()[cut]), cut)
