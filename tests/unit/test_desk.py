"""The desk of one run's cells, where items of a parallel loop work side by side.

Law: whoever may commit does, whoever else waits for it; none waits for ever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from cellrail.run.desk import Desk, Job
from cellrail.run.desks import desk_of
from cellrail.run.recorder import Recorder
from cellrail_state.model import JobFinished, StepStatus
from cellrail_state.testing import first_record, open_store

RUN = "20250101-000000000-aaaa"


@pytest.fixture
def recorder(tmp_path):
    recorder = Recorder(open_store(tmp_path / "store"), first_record(RUN, steps=1))
    yield recorder
    recorder.close()


def ask(desk: Desk, name: str, **arguments: object) -> object:
    answer = desk.reply({"id": 1, "name": name, "arguments": arguments})
    assert "error" not in answer, answer
    return answer["value"]


def writes(desk: Desk, path: str) -> None:
    desk.begin(Job(number=1, step="add", job_id=f"{RUN}/{path}"))
    ask(desk, "set_resource", path=path, value="1", resource_type=None)


def commit(desk: Desk, recorder: Recorder) -> None:
    with desk.committing(success=True) as effects:
        recorder.finished(
            JobFinished(time=1.0, step=1, job_id=desk.job.job_id, status=StepStatus.SUCCESS,
                        started=1.0, effects=effects)
        )  # fmt: skip


def begun(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("waits_for", ["the ledger", "an answer"])
def test_one_that_may_commit_does_whatever_another_waits_for(recorder, waits_for):
    first = desk_of(recorder, flow="etl.ipynb")
    second = first.another()
    writes(first, "f/x")
    writes(second, "f/y")
    claimed, asked = threading.Event(), threading.Event()

    def one() -> None:
        assert first.claim() is None
        claimed.set()
        asked.wait(10)
        commit(first, recorder)

    def other() -> None:
        claimed.wait(10)
        threading.Timer(0.2, asked.set).start()  # by then it waits
        if waits_for == "an answer":
            ask(second, "get_resource", path="f/x", required=True)
        assert second.claim() is None
        commit(second, recorder)

    threads = [begun(one), begun(other)]
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    ledger = recorder.store.ledger
    assert [ledger.version("resource", path) for path in ("f/x", "f/y")] == [1, 1]


def test_what_is_given_up_keeps_nobody(recorder):
    first = desk_of(recorder, flow="etl.ipynb")
    second = first.another()
    writes(first, "f/x")
    writes(second, "f/y")
    assert first.claim() is None
    first.give_up()
    thread = begun(lambda: commit(second, recorder))
    thread.join(10)
    assert not thread.is_alive()
    assert recorder.store.ledger.version("resource", "f/x") == 0
