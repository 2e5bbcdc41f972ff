"""`flow.each` without kernels: its iterator, the book of what it stored, what a restart takes over.

Laws: items before the last one stored are not gone through again, and the names come back before
the next one; an item that is another is noticed where that costs little; of each loop the newest
record counts, until its step succeeds.
"""

from __future__ import annotations

import datetime as dt
import pickle
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from cellrail.each import Each
from cellrail.errors import BadState, EachChanged
from cellrail_state.eachs import EachBook
from cellrail_state.errors import CannotStore
from cellrail_state.model import (
    Checkpoint,
    EachStored,
    JobFinished,
    JobStarted,
    RunKind,
    StepStatus,
    Turn,
    Variable,
    Verdict,
    from_plain,
)
from cellrail_state.testing import first_record


class Kernel:
    """A namespace that is stored whole, and a book."""

    def __init__(self) -> None:
        self.space: dict[str, Any] = {"w": 0}
        self.kept: dict[Any, dict[str, Any]] = {}
        self.values: dict[str, Any] = {}
        self.log: list[Any] = []
        self.loops: list[Any] = []
        self.broken: Exception | None = None
        self.job = "r/1"

    def midway(self) -> Kernel:
        return self

    def captures(self) -> Kernel:
        return self

    def bring(self, names) -> None:
        self.log.append("bring")

    def store(self, names) -> Checkpoint:
        if self.broken is not None:
            raise self.broken
        ident = str(len(self.values))
        self.values[ident] = {name: self.space[name] for name in names}
        known = {n: Variable(name=n, verdict=Verdict.STORED, component=ident) for n in names}
        return Checkpoint(variables=known)

    def put_back(self, checkpoint, names, *, edited) -> list[str]:
        self.log.append("put")
        for name in names:
            self.space[name] = self.values[checkpoint.variables[name].component][name]
        return ["`a` shared an object with `w`"] if edited else []

    def ask(self, name: str, arguments) -> Any:
        if name == "each_job":
            return self.job
        key = (arguments["name"], tuple(map(tuple, arguments["path"])))
        if name == "each_find":
            return self.kept.get(key, {})
        self.kept[key] = {**arguments["stored"], "edited": False}
        self.log.append(arguments["stored"]["position"])
        return None


def loop(kernel: Kernel | None, items, name: str = "k", **options) -> Each[Any]:
    given = {"save": ["w"], "every": 1, "on_change": "raise", **options}
    return Each(name, items, backend=kernel, **given)


def run(kernel: Kernel, items, *, stop: object = None, **options) -> list[Any]:
    done = []
    for item in loop(kernel, items, **options):
        done.append(item)
        if stop is not None and item == stop:
            break
        kernel.space["w"] += 1
    return done


def test_it_goes_on_behind_the_last_item_stored_with_the_names_put_back():
    kernel = Kernel()
    assert run(kernel, range(5), stop=3) == [0, 1, 2, 3]
    kernel.space["w"] = 100
    kernel.log.clear()
    assert run(kernel, range(5)) == [3, 4]
    assert kernel.space["w"] == 5
    assert kernel.log == ["bring", "put", 4, 5]
    kernel.space["w"] = 100
    assert run(kernel, range(5)) == []
    assert kernel.space["w"] == 5


@pytest.mark.parametrize(
    "items",
    [
        lambda: list("abcde"), lambda: tuple("abcde"), lambda: "abcde", lambda: iter("abcde"),
        lambda: dict.fromkeys("abcde"), lambda: (x for x in "abcde"), lambda: Lazy("abcde"),
        lambda: np.array(list("abcde")),
    ],
)  # fmt: skip
def test_whatever_can_be_gone_through_can_be_gone_on_with(items):
    kernel = Kernel()
    assert run(kernel, items(), stop="c") == ["a", "b", "c"]
    assert run(kernel, items()) == ["c", "d", "e"]
    assert kernel.space["w"] == 5
    assert run(kernel, items()) == []


class Lazy(Sequence[str]):
    """Items that cost something."""

    def __init__(self, items: str) -> None:
        self.items, self.got = items, []

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, n):
        if n >= len(self.items):
            raise IndexError
        self.got.append(n)
        return self.items[n]


def test_of_a_sequence_of_ones_own_only_items_that_are_left_are_asked_for():
    kernel = Kernel()
    run(kernel, Lazy("abcde"), stop="d")
    items = Lazy("abcde")
    assert run(kernel, items) == ["d", "e"]
    assert items.got == [3, 4]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([1, 2, 3], [1, 5, 3]),
        ([1, 2, 3], [1, 2.0, 3]),
        ([1, 2, 3], [1]),
        ([(1, {"a": [2]}), 2, 3], [(1, {"a": [3]}), 2, 3]),
        ([dt.date(2020, 1, 1), 2, 3], [dt.date(2020, 1, 2), 2, 3]),
        ([np.float32(1), 2, 3], [np.float32(2), 2, 3]),
        ([object(), 2, 3], ["x", 2, 3]),
    ],
)
@pytest.mark.parametrize("kind", [list, iter], ids=["counted", "not counted"])
def test_other_items_are_refused_or_gone_on_with_or_begun_anew(before, after, kind):
    kernel = Kernel()
    run(kernel, kind(before), stop=3)
    with pytest.raises(EachChanged, match=r"flow\.each\('k'\) has stored after item 2, but"):
        next(loop(kernel, kind(after)))
    was = dict(kernel.kept)
    assert list(loop(kernel, kind(after), on_change="continue")) == after[2:]
    kernel.kept = was
    assert list(loop(kernel, kind(after), on_change="anew")) == after


def test_another_number_of_items_is_refused():
    kernel = Kernel()
    run(kernel, range(3), stop=2)
    with pytest.raises(EachChanged, match="there were 3 items, and they are 4 now"):
        next(loop(kernel, range(4)))
    run(kernel, range(3))
    with pytest.raises(EachChanged, match="there were 3 items, and they cannot be counted now"):
        next(loop(kernel, iter(range(3))))
    run(kernel, iter(range(3)), name="l")
    with pytest.raises(EachChanged, match="there were 3 items, and there are more now"):
        next(loop(kernel, iter(range(4)), "l"))
    assert list(loop(kernel, iter(range(4)), "l", on_change="continue")) == [3]


def test_another_name_to_save_is_refused():
    kernel = Kernel()
    kernel.space["v"] = 1
    run(kernel, range(3), stop=2)
    with pytest.raises(EachChanged, match="but 'v' was not saved then"):
        next(loop(kernel, range(3), save=["w", "v"]))
    assert run(kernel, range(3), save=["w", "v"], on_change="continue") == [2]
    assert run(kernel, range(3), save=["w"]) == []


def test_items_that_cannot_be_told_apart_pass():
    kernel = Kernel()
    run(kernel, [object(), 2, 3], stop=3)
    assert run(kernel, [object(), 2, 3]) == [3]


def test_every_is_a_number_of_items_or_a_duration(monkeypatch):
    for every, told in ((2, [1, 2, 4, 5]), (3, [1, 3, 5]), (100, [1, 5]), ("10s", [1, 4, 5])):
        kernel, now = Kernel(), [0.0]
        monkeypatch.setattr("cellrail.each.time.monotonic", lambda now=now: now[0])
        for _ in loop(kernel, range(5), every=every):
            now[0] += 4
        assert kernel.log[1:] == told, every


def test_loops_within_loops_are_known_by_the_items_around_them():
    kernel = Kernel()
    for a in loop(kernel, "xy", "a"):
        for _ in loop(kernel, range(3), "b"):
            if a == "y":
                break
        for _ in loop(kernel, range(2), "c"):
            pass
    paths = {key: kept["position"] for key, kept in kernel.kept.items()}
    assert paths == {
        ("a", ()): 2, ("b", (("a", 0),)): 3, ("c", (("a", 0),)): 2, ("c", (("a", 1),)): 2,
    }  # fmt: skip


def test_loops_of_an_attempt_before_are_no_longer_around():
    kernel = Kernel()
    left = loop(kernel, range(3), "left")
    next(left)
    kernel.job = "r/2"
    assert list(loop(kernel, range(2), "k")) == [0, 1]
    assert ("k", ()) in kernel.kept
    assert next(left) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""}, {"name": 3}, {"items": 5}, {"every": 0}, {"every": True}, {"every": 0.5},
        {"every": "soon"}, {"every": "-3s"}, {"save": ["a b"]}, {"save": [3]},
        {"on_change": "ignore"},
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused_at_the_call(wrong):
    with pytest.raises(BadState, match=r"flow\.each"):
        loop(None, **{"items": range(3), **wrong})


def test_what_cannot_be_stored_is_raised_at_first_and_told_later(capsys):
    kernel = Kernel()
    kernel.broken = CannotStore("`w` is a lock")
    with pytest.raises(CannotStore, match=r"flow\.each\('k'\): `w` is a lock"):
        run(kernel, range(3))
    kernel.broken = OSError("disk full")
    assert run(kernel, range(3)) == [0, 1, 2]
    assert capsys.readouterr().err.count("could not store after item 1: disk full") == 1


def test_nothing_is_stored_where_nothing_was_done_or_no_job_runs():
    kernel = Kernel()
    assert run(kernel, []) == []
    assert kernel.log == ["bring"]
    kernel.job = ""
    assert run(kernel, range(2)) == [0, 1]
    assert not kernel.kept


def test_in_a_checkpoint_a_loop_is_over():
    made = loop(Kernel(), range(3))
    next(made)
    again = pickle.loads(pickle.dumps(made))
    assert list(again) == []
    assert len(made) == 3
    assert repr(again) == "<flow.each('k'): 0 of 0 done>"


# --- the book --------------------------------------------------------------------------------


def record(position: int, name: str = "k", path=(), step: int = 1, **rest: Any) -> EachStored:
    return EachStored(
        time=1.0, step=step, job_id="r/1", name=name, path=path, position=position, **rest
    )


def told(book: EachBook) -> list[Any]:
    return [(r.name, r.path, r.position) for r in book.records()]


def test_the_newest_record_of_a_loop_counts_until_its_step_succeeds():
    book = EachBook()
    done = JobFinished(time=1.0, step=1, job_id="r/1", status=StepStatus.FAILED, started=1.0)
    for seen in (record(1), record(2), record(1, "l"), record(7, step=2), done):
        book.see(seen)
    assert told(book) == [("k", (), 2), ("l", (), 1), ("k", (), 7)]
    book.see(JobStarted(time=1.0, step=1, job_id="r/2"))
    assert book.find(1, (), (), "k") == record(2)
    assert book.find(1, (Turn("l", 0, "a"),), (), "k") is None
    book.see(msgspec.structs.replace(done, status=StepStatus.SUCCESS))
    assert told(book) == [("k", (), 7)]


def test_what_an_inner_loop_stored_goes_with_the_item_around_it():
    book = EachBook()
    inner = [record(1, "in", (("out", n),)) for n in range(3)]
    other = record(1, "in", (("else", 0),))
    deep = record(4, "deep", (("out", 0), ("in", 0)))
    for seen in (*inner, other, deep, record(2, "out")):
        book.take(seen)
    assert told(book) == [("in", (("out", 2),), 1), ("in", (("else", 0),), 1), ("out", (), 2)]


def test_a_person_begins_anew_except_after_a_restart():
    book = EachBook()
    book.see(first_record(steps=1, kind=RunKind.LIVE))
    begin = JobStarted(time=1.0, step=1, job_id="r/2")
    for first, kept in ((record(1), []), (record(1, origin="o"), [("k", (), 1)])):
        book.see(first)
        book.see(begin)
        assert told(book) == kept
    book.see(msgspec.structs.replace(begin, attempt=2))
    assert told(book) == [("k", (), 1)]
    book.see(begin)
    assert told(book) == []
    book.see(record(1, origin="o"))
    book.take_back()
    assert told(book) == []


def test_a_record_survives_its_journal():
    made = record(3, path=(("a", 1),), turns=(Turn("l", 0, "a"),), total=5, ended=True)
    assert from_plain(msgspec.to_builtins(made), EachStored) == made
