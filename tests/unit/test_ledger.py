"""The ledger of what outlives runs.

Laws: a proposal counts if the run's journal holds its token, and only then; of two writers that saw
one version one is refused, by name; versions only grow, also after a deletion; a torn line is cut
off, a changed one is told; what is made anew says the same.
"""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from cellrail_state import ledger as ledgers
from cellrail_state.errors import LedgerDamaged, StateConflict
from cellrail_state.ledger import Expected, Ledger
from cellrail_state.model import Written
from cellrail_state.testing import Crashed, RaiseAt

KEY = ("resource", "f/x")


class Journals:
    """Tokens that runs have committed."""

    def __init__(self) -> None:
        self.tokens: set[tuple[str, str]] = set()

    def holds(self, run_id: str, token: str) -> bool:
        return (run_id, token) in self.tokens


def open_ledger(folder: Path, journals: Journals | None = None, points=None) -> Ledger:
    return Ledger(folder / "state", holds=(journals or Journals()).holds, points=points)


def write(value: str | None, path: str = "f/x") -> Written:
    return Written(kind="resource", path=path, version=0, value=value, type="any")


def commit(ledger: Ledger, journals: Journals, run_id: str, value: str, version: int) -> None:
    claim = ledger.claim([write(value)], {KEY: Expected(version=version)})
    claim.propose(run_id, by="me", now=1.0)
    journals.tokens.add((run_id, claim.token))
    claim.settle()
    claim.release()


def held(ledger: Ledger) -> tuple[str, int, str] | None:
    entry = ledger.entry(*KEY)
    return entry and (entry.written.value, entry.written.version, entry.run_id)


def test_what_is_committed_is_seen_by_others_with_its_version_and_writer(tmp_path):
    journals = Journals()
    ours, theirs = open_ledger(tmp_path, journals), open_ledger(tmp_path, journals)
    assert held(theirs) is None
    commit(ours, journals, "A", "1", 0)
    assert held(theirs) == ("1", 1, "A")
    commit(theirs, journals, "B", "2", 1)
    assert held(ours) == ("2", 2, "B")
    assert ours.writers_since(*KEY, 0) == ["A", "B"]


def test_the_second_of_two_writers_is_refused_and_told_who_the_first_was(tmp_path):
    journals = Journals()
    ledger = open_ledger(tmp_path, journals)
    commit(ledger, journals, "A", "1", 0)
    with pytest.raises(StateConflict, match=r"'f/x' was written by run A .*version 1, 0 was seen"):
        commit(ledger, journals, "B", "2", 0)
    # the lock is free again, and nothing was written
    commit(open_ledger(tmp_path, journals), journals, "C", "3", 1)
    assert held(ledger) == ("3", 2, "C")


def test_a_proposal_without_its_journal_record_never_happened(tmp_path):
    journals = Journals()
    ledger = open_ledger(tmp_path, journals)
    commit(ledger, journals, "A", "1", 0)
    claim = ledger.claim([write("lost")], {KEY: Expected(version=1)})
    claim.propose("B", by="me", now=2.0)
    claim.release()  # as the system does when the writer is killed
    assert held(open_ledger(tmp_path, journals)) == ("1", 1, "A")
    commit(ledger, journals, "C", "2", 1)
    assert held(open_ledger(tmp_path, journals)) == ("2", 2, "C")
    # a record that comes later is of another token
    assert held(ledger) == ("2", 2, "C")


def test_a_proposal_whose_record_is_in_the_journal_has_happened(tmp_path):
    journals = Journals()
    ledger = open_ledger(tmp_path, journals)
    claim = ledger.claim([write("kept")], {KEY: Expected(version=0)})
    claim.propose("B", by="me", now=2.0)
    journals.tokens.add(("B", claim.token))
    claim.release()
    assert held(open_ledger(tmp_path, journals)) == ("kept", 1, "B")
    # settled: the journal may go
    assert held(open_ledger(tmp_path)) == ("kept", 1, "B")


@pytest.mark.parametrize("point", ["ledger.before_propose", "ledger.after_propose"])
def test_a_crash_before_the_journals_append_leaves_the_value_before(tmp_path, point):
    journals = Journals()
    commit(open_ledger(tmp_path, journals), journals, "A", "1", 0)
    ledger = open_ledger(tmp_path, journals, RaiseAt(point))
    claim = ledger.claim([write("2")], {KEY: Expected(version=1)})
    with pytest.raises(Crashed):
        claim.propose("B", by="me", now=2.0)
    claim.release()
    assert held(open_ledger(tmp_path, journals)) == ("1", 1, "A")


def test_a_deleted_key_goes_on_counting_its_versions(tmp_path):
    ledger = open_ledger(tmp_path)
    ledger.state([write("1")], {}, by="me", now=1.0)
    ledger.state([write(None)], {KEY: Expected(version=1)}, by="me", now=2.0)
    assert ledger.entry(*KEY) is None
    assert ledger.entries("resource") == []
    with pytest.raises(StateConflict, match="by me, by hand"):
        ledger.state([write("2")], {KEY: Expected(version=0)}, by="you", now=3.0)
    ledger.state([write("2")], {KEY: Expected(version=2)}, by="you", now=3.0)
    assert ledger.version(*KEY) == 3


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_a_torn_line_is_not_there_and_is_cut_off_by_the_next_writer(tmp_path, cut):
    ledger = open_ledger(tmp_path)
    ledger.state([write("1")], {}, by="me", now=1.0)
    whole = ledger.path.read_bytes()
    ledger.state([write("2")], {}, by="me", now=2.0)
    ledger.path.write_bytes(ledger.path.read_bytes()[: len(whole) + cut])
    other = open_ledger(tmp_path)
    assert held(other) == ("1", 1, "")
    other.state([write("3")], {}, by="me", now=3.0)
    assert held(open_ledger(tmp_path)) == ("3", 2, "")


def test_a_changed_line_is_told_and_mended_from_the_rest(tmp_path):
    ledger = open_ledger(tmp_path)
    for number in range(1, 4):
        ledger.state([write(str(number), f"f/{number}")], {}, by="me", now=float(number))
    data = ledger.path.read_bytes()
    place = data.index(b'"f/2"')
    ledger.path.write_bytes(data[:place] + b"#" + data[place + 1 :])
    broken = open_ledger(tmp_path)
    with pytest.raises(LedgerDamaged, match="damaged at byte"):
        broken.entries("resource")
    assert "damaged" in broken.problem()
    broken.rebuild([])
    assert [entry.written.path for entry in broken.entries("resource")] == ["f/1", "f/3"]
    assert broken.problem() == ""


def test_a_file_that_is_mostly_history_is_made_anew_and_says_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(ledgers, "COMPACT_BYTES", 2000)
    journals = Journals()
    ledger, reader = open_ledger(tmp_path, journals), open_ledger(tmp_path, journals)
    for number in range(100):
        commit(ledger, journals, f"R{number}", str(number), number)
        assert held(reader) == (str(number), number + 1, f"R{number}")
    assert ledger.path.stat().st_size < 10_000
    assert reader.writers_since(*KEY, 95) == [f"R{n}" for n in range(95, 100)]


def test_states_follow_a_renamed_flow(tmp_path):
    ledger = open_ledger(tmp_path)
    state = Written(kind="resource", path="a.ipynb/s/user:me", version=0, value="1", type="state")
    ledger.state([state, write("2", "a.ipynb/mine")], {}, by="me", now=1.0)
    ledger.move("a.ipynb", "b.ipynb", by="me", now=2.0)
    paths = [entry.written.path for entry in ledger.entries("resource")]
    assert paths == ["a.ipynb/mine", "b.ipynb/s/user:me"]


def _count(folder: str, rounds: int) -> None:
    ledger = open_ledger(Path(folder))
    done = 0
    while done < rounds:
        entry = ledger.entry(*KEY)
        seen = entry.written.version if entry is not None else 0
        value = int(str(entry.written.value)) if entry is not None else 0
        try:
            ledger.state([write(str(value + 1))], {KEY: Expected(version=seen)}, by="me", now=1.0)
        except StateConflict:
            continue
        done += 1


def test_no_write_of_several_processes_is_lost(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_count, args=(str(tmp_path), 50)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert held(open_ledger(tmp_path)) == ("150", 150, "")
