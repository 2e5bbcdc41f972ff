"""The inbox: waits and their answers.

Laws: a wait is answered once, whoever comes; what is there is whole and signed for its place; a
token counts for the one thing it was made for.
"""

from __future__ import annotations

import threading

import pytest

from cellrail_state import waits
from cellrail_state.errors import StoreNotWritable, Untrusted
from cellrail_state.inbox import Inbox
from cellrail_state.keys import KeyRing
from cellrail_state.waits import Answer, WaitInfo

WAIT = WaitInfo(wait_id="20260101-a/1", kind="suspend", step=1, asked=1.0, until=10.0)


@pytest.fixture
def inbox(tmp_path):
    return Inbox(tmp_path / "waits", keyring=KeyRing(tmp_path / "keys"))


def test_of_many_answers_at_once_one_counts_and_all_are_told_which(inbox):
    inbox.tell(WAIT)
    answers = [Answer(by="resume", time=float(n), who=str(n)) for n in range(8)]
    told: list[Answer] = []
    gate = threading.Barrier(len(answers))

    def give(answer):
        gate.wait()
        told.append(inbox.answer(WAIT.wait_id, answer))

    threads = [threading.Thread(target=give, args=(answer,)) for answer in answers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == len(answers)
    assert set(told) == {inbox.answered(WAIT.wait_id)}
    assert [
        path.name for path in (inbox._folder / "20260101-a").iterdir() if path.name[0] == "."
    ] == []


def test_what_comes_with_an_answer_lies_encrypted_and_is_read_as_it_came(inbox):
    inbox.tell(WAIT)
    given = Answer(by="resume", time=2.0, who="ann", data='"a word"', request='{"body": "a word"}')

    assert inbox.answer(WAIT.wait_id, given) == given
    assert inbox.answered(WAIT.wait_id) == inbox.due(WAIT, 3.0) == given
    late = Answer(by="resume", time=2.5, data='"late"')
    assert inbox.answer(WAIT.wait_id, late) == given
    files = [path.read_bytes() for path in inbox._folder.rglob("*") if path.is_file()]
    assert not [data for data in files if b"a word" in data or b"late" in data]


def test_the_time_that_is_up_is_an_answer_like_others(inbox):
    inbox.tell(WAIT)
    assert inbox.due(WAIT, 9.9) is None
    assert inbox.due(WAIT, 12.0) == Answer(by="timeout", time=10.0)
    assert inbox.answer(WAIT.wait_id, Answer(by="resume", time=9.0)).by == "timeout"
    other = WaitInfo(wait_id="20260101-a/2", kind="suspend", step=2, asked=1.0)
    inbox.tell(other)
    assert inbox.due(other, 1e12) is None  # its step has not ended
    inbox.answer(other.wait_id, Answer(by="resume", time=2.0))
    assert inbox.due(other, 1e12) == Answer(by="resume", time=2.0)


def test_waits_are_listed_until_somebody_has_gone_on_and_known_after_that(inbox):
    later = WaitInfo(wait_id="20260101-b/1", kind="rerun", step=1, asked=0.5)
    inbox.tell(WAIT)
    inbox.tell(later)
    assert inbox.waiting() == [later, WAIT]
    assert inbox.waiting("20260101-a") == [WAIT]
    inbox.done(WAIT.wait_id)
    inbox.done(WAIT.wait_id)
    assert inbox.waiting() == [later]
    assert inbox.wait(WAIT.wait_id) == WAIT
    inbox.forget("20260101-a")
    assert inbox.wait(WAIT.wait_id) is None
    assert inbox.answered(WAIT.wait_id) is None


def test_what_somebody_else_put_there_or_moved_there_is_refused(inbox, tmp_path):
    inbox.tell(WAIT)
    Inbox(inbox._folder, keyring=KeyRing(tmp_path / "other")).answer(
        WAIT.wait_id, Answer(by="resume", time=1.0, data='"mine"')
    )
    with pytest.raises(Untrusted):
        inbox.answered(WAIT.wait_id)
    folder = inbox._folder / "20260101-a"
    (folder / "1.answer").unlink()
    inbox.answer("20260101-a/2", Answer(by="resume", time=1.0))
    (folder / "2.answer").rename(folder / "1.answer")
    with pytest.raises(Untrusted):
        inbox.answered(WAIT.wait_id)


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "waits").write_text("a file")
    inbox = Inbox(tmp_path / "waits", keyring=KeyRing(tmp_path / "keys"))
    with pytest.raises(StoreNotWritable, match="cannot be told of"):
        inbox.tell(WAIT)


def test_a_token_counts_for_its_wait_and_its_action_only():
    wait = WaitInfo(
        wait_id="20260101-a/1", kind="suspend", step=1, asked=1.0,
        resume_hash=waits.digest("yes"), cancel_hash=waits.digest("no"),
    )  # fmt: skip
    assert wait.fits("resume", "yes")
    assert wait.fits("cancel", "no")
    assert not wait.fits("cancel", "yes")
    assert not wait.fits("resume", "")
    assert not WAIT.fits("resume", "")
    assert not wait.fits("other", "yes")


@pytest.mark.parametrize("text", ["", "a", "a.1", "a.1.", "../b.1.x", "a./etc.x", ".1.x"])
def test_what_is_no_token_names_no_wait(text):
    assert waits.read(text) == ("", "")


def test_a_token_tells_which_wait_it_is_for():
    text = waits.written("20260101-1200-abcd/12", "x-_y")
    assert waits.read(text) == ("20260101-1200-abcd/12", "x-_y")
