"""A run's own journal answers the control machine as far as it reaches.

Laws: cut off behind any record, a journal leads the machine to the same end as if nothing had
happened; no job that it has is fired again, no decision that it has is made again, and what comes
after it happens as it would have; a wait that was under way takes what is left of it.
"""

from __future__ import annotations

import random
import re

import msgspec
import pytest

from cellrail.notebook import actions
from cellrail.notebook.actions import Purpose
from cellrail.notebook.blocks import blocks_of, mistakes
from cellrail.notebook.control import conduct
from cellrail.notebook.model import Step
from cellrail.notebook.options import parse_line
from cellrail.run.answers import Answers, Nobody, ended_as, where_it_ends
from cellrail.run.orders import loop_root
from cellrail_state.model import (
    Decided,
    JobFinished,
    StepError,
    StepSkipped,
    StepStatus,
    WaitInfo,
    Woken,
)
from cellrail_state.turns import job_address

LINES = (
    "a --retry 2 --retry-if yes --on-error continue",
    "outer --foreach x in xs --on-error skip",
    "b --in outer --when yes --retry 1",
    "inner --in outer --foreach y in ys",
    "c --in inner --branch g --when no",
    "d --in inner --branch g:default --on-error continue --retry 1",
    "e --in outer --stop-if rarely",
    "turns --while yes --max-turns 3 --on-error skip",
    "f --in turns --retry 2",
    "g --when yes",
)


def steps_of(*lines: str) -> list[Step]:
    steps = []
    for number, line in enumerate(lines, 1):
        name, options = parse_line(line)
        steps.append(Step(number=number, name=name, options=options))
    assert mistakes(steps) == []
    return steps


class World:
    """Answers the same question always the same, and keeps a journal."""

    def __init__(self, seed: int, records=()) -> None:
        self.seed = seed
        self.records = list(records)
        self.done: list[str] = []
        self.waited: list[float] = []
        self.attempt, self.ended = 1, None

    def chance(self, *what: object) -> float:
        return random.Random(f"{self.seed} {what}").random()

    def do(self, action):
        where = job_address(action.step.label, action.path)
        number, path = action.step.number, action.path
        if isinstance(action, actions.Ask):
            return self.ask(action, where)
        if isinstance(action, actions.Fire):
            self.attempt = action.attempt
            self.done.append(f"{where} #{action.attempt}")
            draw = self.chance(where, action.attempt)
            ending = "ok" if draw < 0.7 else "error" if draw < 0.9 else "timeout"
            ending = "overdue" if draw > 0.98 else ending
            error = StepError(name="E", value=where) if ending == "error" else None
            cause = "timeout after 1 s" if ending in {"timeout", "overdue"} else ""
            cause += " (whole run)" if ending == "overdue" else ""
            self.ended = actions.Ended(ending=ending, error=error, cause=cause)
            return self.ended
        if isinstance(action, actions.Commit):
            error = self.ended.error if self.ended is not None else None
            self.finish(number, path, action.status, action.attempt, action.cause,
                        accepted=action.accepted, error=error)  # fmt: skip
            self.ended = None
        elif isinstance(action, actions.Skip):
            self.records.append(
                StepSkipped(time=0.0, step=number, reason=action.reason, turns=path)
            )
        elif isinstance(action, actions.Leave):
            self.done.append(f"{where} leave")
            self.finish(number, path, StepStatus.SUCCESS, 1, "")
        elif isinstance(action, actions.Wait):
            self.waited.append(action.seconds)
        return None

    def ask(self, action, where):
        self.done.append(f"{where} ?{action.purpose} {self.attempt}")
        keys = ()
        if action.purpose is Purpose.FOREACH:
            keys = tuple("pqr"[: int(self.chance(where) * 4)])
        again = self.attempt if action.purpose is Purpose.RETRY_IF else 0
        limit = {Purpose.STOP_IF: 0.1, Purpose.WHILE: 0.7}.get(action.purpose, 0.6)
        value = bool(keys) or self.chance(where, action.purpose, again) < limit
        self.records.append(
            Decided(
                time=0.0,
                step=action.step.number,
                purpose=str(action.purpose),
                expression="",
                value=value,
                keys=keys,
                turns=action.path,
            )
        )
        return actions.Told(value=value, keys=keys)

    def finish(self, number, path, status, attempt, cause, **rest):
        job_id = f"run/{len(self.records)}"
        self.records.append(
            JobFinished(
                time=100.0,
                step=number,
                job_id=job_id,
                status=status,
                started=0.0,
                attempt=attempt,
                cause=cause,
                turns=path,
                **rest,
            )
        )


def roots(records, steps) -> set[str]:
    """The items that are in the checkpoint of a journal's last job."""
    labels = {step.label: step for step in steps}
    found: set[str] = set()
    for record in records:
        if not isinstance(record, JobFinished) or not (
            record.status is StepStatus.SUCCESS or record.accepted
        ):
            continue
        for depth, turn in enumerate(record.turns):
            found.add(loop_root(labels[turn.loop], record.turns[:depth]))
        step = steps[record.step - 1]
        if step.options.loops and not (record.turns and record.turns[-1].loop == step.label):
            found.discard(loop_root(step, record.turns))
    return found


def answers_of(records, steps, **rest) -> Answers:
    jobs = {r.job_id: r for r in records if isinstance(r, JobFinished)}
    return Answers(
        records, job=jobs.__getitem__, outputs=lambda _: [], roots=roots(records, steps), **rest
    )


def drive(steps, world: World, answers: Answers | None = None) -> actions.End:
    machine, answer, nobody = conduct(blocks_of(steps)), None, Nobody()
    while True:
        try:
            action = machine.send(answer)
        except StopIteration as stop:
            return stop.value
        if answers is not None and answers.takes(action):
            if isinstance(action, actions.Fire):
                world.attempt = action.attempt
            answer = answers.perform(action, nobody, nobody)
            continue
        if answers is not None:
            answers.live(action)
        answer = world.do(action)


def facts(records):
    found = []
    for record in records:
        if isinstance(record, JobFinished):
            told = (record.attempt, record.status, record.accepted, record.cause)
        elif isinstance(record, Decided):
            told = (record.purpose, record.value, record.keys)
        else:
            told = ("skipped", record.reason)
        found.append((record.step, record.turns, *told))
    return found


def settled(told: list) -> list:
    """Without what is decided again: a loop's items before its first job, and whether an attempt
    is tried again that has no commit."""
    return [
        one for one in told if not {"foreach", "retry-if"} & set(re.findall(r"[a-z-]+", str(one)))
    ]


@pytest.mark.parametrize("seed", range(40))
def test_a_journal_cut_off_anywhere_leads_to_the_same_end(seed):
    steps = steps_of(*LINES)
    right = World(seed)
    end = drive(steps, right)
    for cut in range(len(right.records) + 1):
        prefix = right.records[:cut]
        at = where_it_ends(conduct(blocks_of(steps)), answers_of(prefix, steps))
        world = World(seed, prefix)
        assert drive(steps, world, answers_of(prefix, steps)) == end
        assert settled(facts(world.records)) == settled(facts(right.records))
        now, then = settled(world.done), settled(right.done)
        assert now == then[len(then) - len(now) :]
        if world.done:
            assert f"{job_address(at.step.label, at.path)} " in f"{world.done[0]} "
        elif isinstance(at, actions.End):
            assert at == end


class WaitingWorld(World):
    """A world whose steps ask for waits, and to be executed again."""

    def do(self, action):
        where = job_address(action.step.label, action.path)
        if isinstance(action, actions.Fire):
            self.runs = action.runs
            ended = super().do(action)
            self.done[-1] += f" run {action.runs}"
            draw = self.chance(where, "waits", action.runs)
            again = draw < 0.3 and action.runs < 3
            self.ended = msgspec.structs.replace(ended, waits=draw < 0.6, again=again)
            return self.ended
        if isinstance(action, actions.Suspend):
            self.done.append(f"{where} waits {action.runs}")
            draw = self.chance(where, "woken", action.runs)
            by = "resume" if draw < 0.6 else "timeout" if draw < 0.95 else "cancel"
            job = [record for record in self.records if isinstance(record, JobFinished)][-1]
            self.records.append(
                Woken(time=0.0, step=action.step.number, wait_id=job.job_id, by=by, who="ann")
            )
            return actions.Woke(by=by, who="ann")
        if isinstance(action, actions.Commit):
            self.again = action.again
        return super().do(action)

    def finish(self, number, path, status, attempt, cause, **rest):
        ended = self.ended
        if ended is not None and ended.waits and status is StepStatus.SUCCESS:
            rest["wait"] = WaitInfo(
                wait_id=f"run/{len(self.records)}", step=number, turns=path,
                kind="rerun" if self.again else "suspend",
                runs=self.runs, attempt=attempt, asked=0.0, until=0.0,
            )  # fmt: skip
            rest["again"] = self.again
        runs = self.runs if ended is not None else 1
        super().finish(number, path, status, attempt, cause, runs=runs, **rest)


def drawn(world: World) -> list:
    """What a journal tells of jobs and waits, and no decision."""
    return [
        (r.by,) if isinstance(r, Woken) else (r.step, r.turns, r.runs, r.attempt, r.status, r.again)
        for r in world.records
        if isinstance(r, (JobFinished, Woken))
    ]


@pytest.mark.parametrize("seed", range(40))
def test_a_journal_with_waits_leads_to_the_same_end_and_waits_for_nothing_twice(seed):
    steps = steps_of(*LINES)
    right = WaitingWorld(seed)
    end = drive(steps, right)
    for cut in range(len(right.records) + 1):
        prefix = right.records[:cut]
        last = prefix[-1] if prefix else None
        world = WaitingWorld(seed, prefix)
        at = where_it_ends(conduct(blocks_of(steps)), answers_of(prefix, steps))
        parks = isinstance(last, JobFinished) and last.wait is not None
        if parks and "--stop-if" not in LINES[last.step - 1]:
            assert isinstance(at, actions.End)
            assert at.status == "suspended"
        assert drive(steps, world, answers_of(prefix, steps)) == end
        assert drawn(world) == drawn(right)


def test_a_wait_goes_on_until_its_time_is_up():
    steps = steps_of("a --retry 1 --backoff 60s*1..60s")
    failed = JobFinished(
        time=100.0, step=1, job_id="run/1", status=StepStatus.FAILED, started=0.0,
        error=StepError(name="E", value=""),
    )  # fmt: skip

    class Stage(Nobody):
        waited: tuple[float, ...] = ()

        def perform(self, action):
            if isinstance(action, actions.Wait):
                self.waited += (action.seconds,)

    for now, left in ((100.0, (60.0,)), (130.0, (30.0,)), (500.0, ()), (50.0, (60.0,))):
        stage = Stage()
        answers = answers_of([failed], steps, clock=lambda now=now: now)
        machine, answer = conduct(blocks_of(steps)), None
        while not isinstance(action := machine.send(answer), actions.Fire) or action.attempt == 1:
            assert answers.takes(action)
            answer = answers.perform(action, stage, stage)
        assert not answers.takes(action)
        assert stage.waited == left


def test_a_job_whose_kernel_died_has_told_nothing():
    steps = steps_of("a")
    died = JobFinished(
        time=0.0, step=1, job_id="run/1", status=StepStatus.FAILED, started=0.0,
        cause="the kernel died (SIGKILL)",
    )  # fmt: skip
    at = where_it_ends(conduct(blocks_of(steps)), answers_of([died], steps))
    assert isinstance(at, actions.Fire)


@pytest.mark.parametrize("line", ["a --foreach x in xs", "a --foreach x in xs --parallel 2"])
def test_a_loop_that_failed_though_no_item_had_has_failed(line):
    steps = steps_of(line, "b")
    asked = Decided(time=0.0, step=1, purpose="foreach", expression="xs", value=False, keys=())
    failed = JobFinished(
        time=0.0, step=1, job_id="run/1", status=StepStatus.FAILED, started=0.0, cause="no `x`",
    )  # fmt: skip

    end = where_it_ends(conduct(blocks_of(steps)), answers_of([asked, failed], steps))

    assert (end.status, end.cause, end.step) == ("failed", "no `x`", "a")


@pytest.mark.parametrize(
    ("status", "error", "cause", "told"),
    [
        ("success", None, "", ("ok", False)),
        ("success", "SystemExit", "", ("ok", True)),
        ("failed", "ValueError", "", ("error", False)),
        ("failed", "KeyboardInterrupt", "timeout after 3 s", ("timeout", False)),
        ("failed", "KeyboardInterrupt", "timeout after 3 s (whole run)", ("overdue", False)),
        ("failed", None, "not restorable after: no room", ("ok", False)),
        ("cancelled", "KeyboardInterrupt", "interrupted", ("interrupted", False)),
    ],
)
def test_a_commit_tells_how_its_code_ended(status, error, cause, told):
    job = JobFinished(
        time=0.0, step=1, job_id="run/1", status=StepStatus(status), started=0.0, cause=cause,
        error=StepError(name=error, value="") if error else None,
    )  # fmt: skip
    ended = ended_as(job)
    assert (ended.ending, ended.exited) == told
    assert ended.refused == ("no room" if "no room" in cause else "")
