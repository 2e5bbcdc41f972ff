"""The state machine of control flow, carried out by a pretended driver.

Laws: it yields the same actions for the same answers; every job that was fired is committed once,
before anything else is done; nothing happens behind the end.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellrail.notebook.actions import (
    Ask,
    Commit,
    End,
    Ended,
    Enter,
    Fire,
    Fork,
    ItemEnd,
    Joined,
    Leave,
    RollBack,
    Skip,
    Suspend,
    Told,
    Turned,
    Wait,
    Woke,
)
from cellrail.notebook.blocks import blocks_of, mistakes
from cellrail.notebook.control import conduct, conduct_handler, conduct_item
from cellrail.notebook.model import Step
from cellrail.notebook.options import parse_line
from cellrail_state.model import RunStatus, StepError, StepStatus, Turn
from cellrail_state.turns import job_address

ERROR = StepError(name="ValueError", value="bad")


def flow(*lines: str, tags: dict[str, tuple[str, ...]] | None = None) -> list[Step]:
    """Steps from their lines."""
    steps = []
    for number, line in enumerate(lines, 1):
        name, options = parse_line(line)
        found = (tags or {}).get(name, ())
        steps.append(Step(number=number, name=name, options=options, tags=found))
    return steps


class Driver:
    """Answers as told, and writes down what it was asked to do."""

    def __init__(self, answers: dict[str, Any] | None = None) -> None:
        #: address, or `address ?purpose` -> an answer, or a list of answers in turn
        self.answers = dict(answers or {})
        self.log: list[str] = []
        #: what parallel items came to
        self.ended: list[ItemEnd] = []

    def run(self, steps: list[Step], **options: Any) -> End:
        assert mistakes(steps) == []
        machine = conduct(blocks_of(steps), **options)
        answer = None
        while True:
            try:
                action = machine.send(answer)
            except StopIteration as stop:
                end: End = stop.value
                return end
            answer = self.do(action)

    def do(self, action: Any) -> Any:
        where = job_address(action.step.label, action.path)
        if isinstance(action, Ask):
            self.log.append(f"{where} ?{action.purpose}")
            return self.next(f"{where} ?{action.purpose}", Told(value=True))
        if isinstance(action, Fire):
            self.log.append(where)
            return self.next(where, Ended(ending="ok"))
        if isinstance(action, Commit):
            accepted = " accepted" * action.accepted
            attempt = f" #{action.attempt}" if action.attempt > 1 else ""
            self.log.append(f"{where} = {action.status}{accepted}{attempt}")
        elif isinstance(action, Wait):
            self.log.append(f"wait {action.seconds:g}")
            return self.answers.get(f"{where} wait")
        elif isinstance(action, Suspend):
            self.log.append(f"{where} suspends")
            return self.next(f"{where} suspends", Woke(by="resume"))
        elif isinstance(action, Skip):
            self.log.append(f"{where} skipped: {action.reason}")
        elif isinstance(action, Turned):
            self.log.append(f"{where} turned" + " without" * action.skipped)
            return self.answers.get(f"{where} turned")
        elif isinstance(action, Fork):
            self.log.append(f"fork {where}")
            return Joined(items=tuple(self.items(action)))
        else:
            word = {Enter: "enter", Leave: "leave", RollBack: "roll back"}
            self.log.append(f"{word[type(action)]} {where}")
        return None

    def items(self, fork: Fork) -> Any:
        """Items one after another, until one ends the run."""
        over = False
        for path in fork.items:
            yield None if over else self.item(fork, path)
            over = self.ended[-1].end is not None

    def item(self, fork: Fork, path: Any) -> ItemEnd:
        machine = conduct_item(fork, path)
        answer = None
        while True:
            try:
                answer = self.do(machine.send(answer))
            except StopIteration as stop:
                self.ended.append(stop.value)
                return self.ended[-1]

    def next(self, where: str, default: Any) -> Any:
        answer = self.answers.get(where, default)
        if isinstance(answer, list):
            answer = answer.pop(0) if answer else default
        if isinstance(answer, str):
            answer = Ended(ending=answer, error=ERROR if answer == "error" else None)
        if isinstance(answer, bool):
            answer = Told(value=answer)
        if isinstance(answer, tuple):
            answer = Told(keys=answer)
        return answer


def test_steps_run_in_order():
    driver = Driver()

    assert driver.run(flow("a", "b")) == End(status=RunStatus.SUCCESS)
    assert driver.log == ["a", "a = success", "b", "b = success"]


@pytest.mark.parametrize(
    ("ending", "status", "run"),
    [("error", "failed", "failed"), ("timeout", "failed", "failed"), ("died", "failed", "failed"),
     ("overdue", "failed", "failed"), ("interrupted", "cancelled", "cancelled")],
)  # fmt: skip
def test_what_does_not_end_well_ends_the_run(ending, status, run):
    driver = Driver({"a": ending})

    end = driver.run(flow("a", "b"))

    assert (end.status, end.step) == (run, "a")
    assert driver.log == ["a", f"a = {status}"]


def test_an_exit_ends_the_run_well():
    driver = Driver({"a": Ended(ending="error", exited=True)})

    assert driver.run(flow("a", "b")) == End(status=RunStatus.SUCCESS, cause="exit", step="a")
    assert driver.log == ["a", "a = success"]


def test_strict_fails_what_cannot_be_restored():
    driver = Driver({"a": Ended(ending="ok", refused="not restorable after: disk full")})

    assert driver.run(flow("a")).cause == "not restorable after: disk full"


def test_a_false_condition_skips_a_step_and_its_loop():
    driver = Driver({"a ?when": False})

    driver.run(flow("a --when x --foreach i in y", "b --in a", "c"))

    assert driver.log == [
        "a ?when", "a skipped: x is false", "b skipped: a is skipped", "c", "c = success",
    ]  # fmt: skip


def test_the_first_true_branch_runs():
    steps = flow("a --branch g --when x", "b --branch g --when y", "c --branch g:default", "d")
    driver = Driver({"a ?when": False})

    driver.run(steps)

    assert driver.log == [
        "a ?when", "a skipped: x is false", "b ?when", "b", "b = success",
        "c skipped: branch g: b was taken", "d", "d = success",
    ]  # fmt: skip


def test_the_default_branch_runs_where_none_is_true():
    driver = Driver({"a ?when": False})

    driver.run(flow("a --branch g --when x", "b --branch g:default"))

    assert driver.log[-1] == "b = success"


def test_a_branch_that_was_taken_before_the_cut_is_known():
    driver = Driver()

    driver.run(flow("b --branch g --when y", "c --branch g:default"), taken={"g": "a"})

    assert driver.log == [
        "b skipped: branch g: a was taken", "c skipped: branch g: a was taken",
    ]  # fmt: skip


@pytest.mark.parametrize("purpose", ["when", "stop-if"])
def test_a_condition_that_raises_fails_its_step_with_the_expression(purpose):
    driver = Driver({f"a ?{purpose}": Told(error=ERROR)})

    end = driver.run(flow(f"a --{purpose} x.y", "b"))

    assert end.status == RunStatus.FAILED
    assert end.cause == f"--{purpose} x.y: ValueError: bad"
    assert driver.log[-1] == "a = failed"


def test_a_retry_rolls_back_waits_longer_each_time_and_keeps_each_attempt():
    driver = Driver({"a": ["error", "timeout", "error", "ok"]})

    end = driver.run(flow("a --retry 3 --backoff 2s*3..10s"))

    assert end.status == RunStatus.SUCCESS
    assert driver.log == [
        "a", "a = failed", "roll back a", "wait 2",
        "a", "a = failed #2", "roll back a", "wait 6",
        "a", "a = failed #3", "roll back a", "wait 10",
        "a", "a = success #4",
    ]  # fmt: skip


def test_after_the_last_attempt_the_run_fails():
    driver = Driver({"a": ["error", "error"]})

    assert driver.run(flow("a --retry 1", "b")).status == RunStatus.FAILED
    assert driver.log[-1] == "a = failed #2"


def test_what_retry_if_denies_is_not_tried_again():
    driver = Driver({"a": ["error", "error"], "a ?retry-if": [True, False]})

    driver.run(flow("a --retry 5 --retry-if 'bad' in error.value"))

    assert driver.log.count("a") == 2


def test_an_interrupt_is_never_tried_again():
    driver = Driver({"a": "interrupted"})

    assert driver.run(flow("a --retry 5")).status == RunStatus.CANCELLED
    assert driver.log == ["a", "a = cancelled"]


def test_the_flow_goes_on_after_a_tolerated_failure():
    driver = Driver({"a": "error"})

    assert driver.run(flow("a --on-error continue", "b")).status == RunStatus.SUCCESS
    assert driver.log == ["a", "a = failed accepted", "b", "b = success"]


def test_raises_exception_tolerates_errors_only():
    tags = {"a": ("raises-exception",)}

    assert Driver({"a": "error"}).run(flow("a", tags=tags)).status == RunStatus.SUCCESS
    assert Driver({"a": "timeout"}).run(flow("a", tags=tags)).status == RunStatus.FAILED


@pytest.mark.parametrize("ending", ["died", "timeout"])
def test_what_took_its_kernel_along_is_not_tried_again(ending):
    driver = Driver({"a": Ended(ending=ending, alive=False)})

    assert driver.run(flow("a --retry 3 --on-error continue", "b")).status == RunStatus.FAILED
    assert driver.log == ["a", "a = failed"]


@pytest.mark.parametrize(
    ("ending", "status"), [("overdue", "failed"), ("interrupted", "cancelled")]
)
@pytest.mark.parametrize(
    "lines",
    [
        ("a --on-error continue", "b"),
        ("a --on-error skip --retry 3 --retry-if z", "b"),
        ("a --foreach x in xs --on-error skip", "b --in a"),
        ("a --while x --on-error continue", "b --in a"),
        ("o --foreach y in ys --on-error skip", "a --in o --foreach x in xs --on-error skip"),
        ("o --foreach y in ys --on-error skip", "a --in o --on-error skip --retry 2"),
    ],
)
def test_the_end_of_the_whole_runs_time_and_an_interrupt_are_accepted_by_no_line(
    lines, ending, status
):
    asked = {"a ?foreach": ("p", "q"), "o ?foreach": ("p", "q"), "o[p]/a ?foreach": ("p", "q")}
    places = ("a", "a[0]", "a[p]", "o[p]/a", "o[p]/a[p]")
    driver = Driver(asked | dict.fromkeys(places, ending))

    end = driver.run(flow(*lines, tags={"a": ("raises-exception",)}))

    assert end.status == status
    assert driver.log[-2:] == [end.step, f"{end.step} = {status}"]


def test_an_exit_is_not_tried_again():
    driver = Driver({"a": Ended(ending="error", exited=True)})

    assert driver.run(flow("a --retry 3")).status == RunStatus.SUCCESS
    assert driver.log == ["a", "a = success"]


def test_an_interrupted_condition_cancels_the_run():
    stopped = Told(error=StepError(name="KeyboardInterrupt", value=""))

    assert Driver({"a ?when": stopped}).run(flow("a --when x")).status == RunStatus.CANCELLED


def test_after_a_dead_kernel_nothing_is_tolerated():
    driver = Driver({"a": "died"})

    assert driver.run(flow("a --on-error continue", "b")).status == RunStatus.FAILED


def test_stop_if_ends_the_run_early_as_success():
    driver = Driver()

    end = driver.run(flow("a --stop-if not rows", "b"))

    assert end == End(status=RunStatus.SUCCESS, cause="not rows is true", step="a")
    assert driver.log == ["a", "a = success", "a ?stop-if"]


def test_a_loop_runs_its_steps_once_per_item():
    driver = Driver({"a ?foreach": ("x", "y")})

    driver.run(flow("a --foreach i in xs --collect s", "b --in a", "c"))

    assert driver.log == [
        "a ?foreach",
        "enter a[x]", "a[x]", "a[x] = success", "a[x]/b", "a[x]/b = success", "a[x] turned",
        "enter a[y]", "a[y]", "a[y] = success", "a[y]/b", "a[y]/b = success", "a[y] turned",
        "leave a", "c", "c = success",
    ]  # fmt: skip


def test_loops_nest():
    driver = Driver({"a ?foreach": ("x", "y"), "a[x]/b ?foreach": ("1",), "a[y]/b ?foreach": ()})

    driver.run(flow("a --foreach i in xs", "b --in a --foreach j in i", "c --in b"))

    assert [line for line in driver.log if "=" in line] == [
        "a[x] = success", "a[x]/b[1] = success", "a[x]/b[1]/c = success", "a[y] = success",
    ]  # fmt: skip


def test_branches_are_decided_anew_in_each_turn():
    driver = Driver({"a ?foreach": ("x", "y"), "a[y]/b ?when": False})

    driver.run(
        flow("a --foreach i in xs", "b --in a --branch g --when i", "c --in a --branch g:default")
    )

    assert "a[x]/b = success" in driver.log
    assert "a[x]/c skipped: branch g: b was taken" in driver.log
    assert "a[y]/c = success" in driver.log


@pytest.mark.parametrize("failing", ["a[x]", "a[x]/b"])
def test_a_loop_can_go_on_past_failed_items(failing):
    driver = Driver({"a ?foreach": ("x", "y"), failing: "error"})

    end = driver.run(flow("a --foreach i in xs --on-error skip", "b --in a"))

    assert end.status == RunStatus.SUCCESS
    assert f"{failing} = failed accepted" in driver.log
    assert "a[x] turned without" in driver.log
    assert "a[y]/b = success" in driver.log


def test_an_inner_failure_skips_the_item_of_the_loop_that_says_so():
    answers = {"a ?foreach": ("x", "y"), "a[x]/b ?foreach": ("1", "2"), "a[x]/b[1]": "error",
               "a[y]/b ?foreach": ("3",)}  # fmt: skip
    driver = Driver(answers)

    driver.run(flow("a --foreach i in xs --on-error skip", "b --in a --foreach j in i"))

    assert "a[x]/b[2]" not in driver.log
    assert "a[y]/b[3] = success" in driver.log


def test_a_while_loop_asks_before_each_turn():
    driver = Driver({"a[0] ?while": True, "a[1] ?while": True, "a[2] ?while": False})

    driver.run(flow("a --while x < 2", "b"))

    assert [line for line in driver.log if "=" in line] == [
        "a[0] = success", "a[1] = success", "b = success",
    ]  # fmt: skip


def test_a_while_loop_that_does_not_end_fails():
    driver = Driver()

    end = driver.run(flow("a --while True --max-turns 3", "b"))

    assert end.status == RunStatus.FAILED
    assert end.cause == "True is still true after 3 turns (--max-turns)"
    assert driver.log.count("b") == 0


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (("a", "b --in a"), "no step above has this name and --foreach or --while"),
        (("a --foreach i in x", "b --in aa"), "did you mean 'a'?"),
        (("a --foreach i in x", "b", "c --in a"), "the steps of a loop stand together"),
        (("b --in a", "a --foreach i in x"), "the steps of a loop stand together"),
        (("a --branch g:default", "b --branch g --when x"), "behind the group's default"),
    ],
)
def test_misplaced_steps_are_named(lines, told):
    assert any(told in message for _, message in mistakes(flow(*lines)))


LINES = st.lists(
    st.sampled_from(
        ["--retry 2", "--when x", "--on-error continue", "--on-error skip", "--stop-if x",
         "--foreach i in x", "--foreach i in x --on-error skip", "--while x --max-turns 2",
         "--branch g --when x", "", ""]
    ),
    min_size=1, max_size=6,
)  # fmt: skip


@given(lines=LINES, nested=st.booleans(), data=st.data())
def test_whatever_happens_each_job_is_committed_once_before_anything_else(lines, nested, data):
    named = [f"s{number} {line}" for number, line in enumerate(lines)]
    if nested and ("--foreach" in lines[0] or "--while" in lines[0]):
        named[1:] = [f"{line} --in s0" for line in named[1:]]
    answers = st.sampled_from(["ok", "ok", "error", "timeout", "overdue", "died", "interrupted"])

    class Any_(Driver):
        def next(self, where, default):
            if "?foreach" in where:
                return Told(keys=tuple("xyz"[: data.draw(st.integers(0, 3))]))
            if "?" in where:
                return Told(value=data.draw(st.booleans()))
            return Ended(ending=data.draw(answers), error=ERROR)

    driver = Any_()
    end = driver.run(flow(*named), jitter=lambda: 1.0)

    fired: str | None = None
    for line in driver.log:
        if fired is not None and "?retry-if" not in line:
            assert line.startswith(f"{fired} = ")
        word = line.split(" ")[0]
        fired = line if line == word and "?" not in line else None
    assert fired is None
    assert end.status in {RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.CANCELLED}


def test_places_are_addresses():
    step = flow("load --in b")[0]

    assert job_address(step.label, (Turn("a", 0, "x"), Turn("b", 1, "y"))) == "a[x]/b[y]/load"
    assert StepStatus.FAILED == "failed"


# --- waits -----------------------------------------------------------------------------------

WAITS = Ended(ending="ok", waits=True)
AGAIN = Ended(ending="ok", waits=True, again=True)


def test_a_step_waits_behind_its_commit_and_its_stop_condition_also_as_the_last_one():
    driver = Driver({"a": WAITS, "a ?stop-if": False, "b": WAITS})

    assert driver.run(flow("a --stop-if x --sleep 1h", "b --sleep 1h")).status == RunStatus.SUCCESS
    assert driver.log == [
        "a", "a = success", "a ?stop-if", "a suspends", "wait 3600", "b", "b = success",
        "b suspends",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("woke", "status", "cause"),
    [
        (Woke(by="timeout"), "success", ""),
        (Woke(by="timeout", on_timeout="cancel"), "cancelled", "nobody resumed it in time"),
        (Woke(by="timeout", on_timeout="fail"), "failed", "nobody resumed it in time"),
        (Woke(by="cancel", who="ann"), "cancelled", "cancelled by ann"),
        (Woke(by="parked", cause="waits"), "suspended", "waits"),
    ],
)
def test_what_the_end_of_a_wait_means_for_the_run(woke, status, cause):
    steps = flow("a", "b", "c --retry 1")
    for waiting in ("a suspends", "c wait"):
        driver = Driver({"a": WAITS, "c": "error", waiting: woke})
        end = driver.run(steps)
        if waiting == "a suspends" or status != "success":
            place = waiting[0]
            assert (end.status, end.cause) in {(status, cause), ("failed", "ValueError: bad")}
            assert place == "c" or ("b" in driver.log) == (status == "success")
            assert place == "a" or end.step == "c"


def test_a_step_is_executed_again_from_the_namespace_before_it():
    driver = Driver({"a": [AGAIN, "error", AGAIN, WAITS]})

    driver.run(flow("a --retry 1 --backoff 1s --sleep 2s", "b"))

    assert driver.log == [
        "a", "a = success", "a suspends", "roll back a",
        "a", "a = failed", "roll back a", "wait 1",
        "a", "a = success #2", "a suspends", "roll back a",
        "a", "a = success", "a suspends", "wait 2", "b", "b = success",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "ended",
    [
        Ended(ending="error", error=ERROR, waits=True, again=True),
        Ended(ending="ok", refused="disk full", waits=True, again=True),
        Ended(ending="error", exited=True, waits=True),
    ],
)
def test_what_does_not_end_well_waits_for_nothing(ended):
    driver = Driver({"a": ended})

    driver.run(flow("a --on-error continue", "b"))

    assert "a suspends" not in driver.log


def test_a_step_sleeps_between_turns_and_before_whatever_follows_but_not_for_nothing():
    driver = Driver({"a ?foreach": ("x", "y"), "b ?when": False, "c[1] ?while": False})

    driver.run(flow("a --foreach i in y --sleep 1s", "b --when n --sleep 9s", "c --while m"))

    assert driver.log == [
        "a ?foreach", "enter a[x]", "a[x]", "a[x] = success", "a[x] turned", "wait 1",
        "enter a[y]", "a[y]", "a[y] = success", "a[y] turned", "leave a", "wait 1",
        "b ?when", "b skipped: n is false", "c[0] ?while", "enter c[0]", "c[0]", "c[0] = success",
        "c[0] turned", "c[1] ?while", "leave c",
    ]  # fmt: skip


# --- parallel loops --------------------------------------------------------------------------

PARALLEL = ("a --foreach x in y --parallel 2{}", "b --in a{}", "c")


def parallel(loop: str = "", body: str = "") -> list[Step]:
    return flow(PARALLEL[0].format(loop), PARALLEL[1].format(body), PARALLEL[2])


def test_items_of_a_parallel_loop_are_conducted_apart():
    driver = Driver({"a ?foreach": ("p", "q")})

    assert driver.run(parallel()).status is RunStatus.SUCCESS
    assert driver.log == [
        "a ?foreach", "fork a",
        "enter a[p]", "a[p]", "a[p] = success", "a[p]/b", "a[p]/b = success", "a[p] turned",
        "enter a[q]", "a[q]", "a[q] = success", "a[q]/b", "a[q]/b = success", "a[q] turned",
        "leave a", "c", "c = success",
    ]  # fmt: skip


@pytest.mark.parametrize("ending", ["error", "timeout", "died"])
def test_a_parallel_loop_goes_on_past_an_item_whatever_became_of_its_kernel(ending):
    dead = Ended(ending=ending, alive=ending != "died")
    driver = Driver({"a ?foreach": ("p", "q"), "a[p]/b": dead})

    assert driver.run(parallel(" --on-error skip", " --retry 2 --retry-if z")).status == "success"
    assert "a[p]/b = failed accepted" in " ".join(driver.log)
    assert [end.skipped for end in driver.ended] == [True, False]


@pytest.mark.parametrize(
    ("ending", "status"), [("overdue", "failed"), ("interrupted", "cancelled")]
)
@pytest.mark.parametrize("alive", [True, False])
def test_the_end_of_the_whole_runs_time_in_an_item_ends_the_run(ending, status, alive):
    over = Ended(ending=ending, alive=alive)
    driver = Driver({"a ?foreach": ("p", "q"), "a[p]/b": over})

    end = driver.run(parallel(" --on-error skip", " --on-error continue --retry 2"))

    assert (end.status, end.step) == (status, "a[p]/b")
    assert "enter a[q]" not in driver.log


def test_a_dead_kernel_of_an_item_ends_a_run_that_does_not_skip():
    driver = Driver({"a ?foreach": ("p", "q"), "a[p]": Ended(ending="died", alive=False)})

    end = driver.run(parallel())

    assert (end.status, end.step) == ("failed", "a[p]")
    assert "enter a[q]" not in driver.log
    assert driver.ended[0].end == end


def test_items_that_cannot_begin_fail_the_loop_and_no_line_tolerates_that():
    class Refusing(Driver):
        def do(self, action: Any) -> Any:
            answer = super().do(action)
            return Joined(refused="`x` is lost") if isinstance(action, Fork) else answer

    driver = Refusing({"a ?foreach": ("p", "q")})
    driver.items = lambda _: ()

    end = driver.run(parallel(" --on-error skip --retry 2"))

    assert (end.status, end.cause, end.step) == ("failed", "`x` is lost", "a")
    assert driver.log == ["a ?foreach", "fork a", "a = failed"]


@pytest.mark.parametrize("line", [" --when w", " --foreach y in ys", " --while w"])
def test_an_item_whose_kernel_cannot_be_had_fails_whatever_its_line_asks(line):
    purpose = line.split()[0].strip("-")
    where = "a[p]/b[0]" if purpose == "while" else "a[p]/b"
    lacks = Ended(ending="died", cause="no room", alive=False)
    for more, status, items in (("", "failed", 1), (" --on-error skip", "success", 2)):
        driver = Driver({"a ?foreach": ("p", "q"), f"{where} ?{purpose}": Told(lacks=lacks)})
        driver.answers |= {"a[q]/b ?foreach": (), "a[q]/b[0] ?while": False}

        end = driver.run(parallel(more, line)[:2])

        assert (end.status, end.cause) == (status, "" if more else "no room")
        assert f"{where} = failed" + " accepted" * bool(more) in driver.log
        assert len(driver.ended) == items


def test_an_item_whose_kernel_cannot_be_had_in_time_ends_the_run():
    lacks = Ended(ending="overdue", cause="late", alive=False)
    driver = Driver({"a ?foreach": ("p", "q"), "a[p]/b ?when": Told(lacks=lacks)})

    end = driver.run(parallel(" --on-error skip", " --when w"))

    assert (end.status, end.cause, end.step) == ("failed", "late", "a[p]/b")


def test_what_an_item_must_not_write_fails_the_run_whatever_is_tolerated():
    forbidden = Ended(ending="ok", forbidden="`x` was there")
    driver = Driver({"a ?foreach": ("p",), "a[p]/b": forbidden})

    end = driver.run(parallel(" --on-error skip", " --on-error continue --retry 3"))

    assert (end.status, end.cause, end.step) == ("failed", "`x` was there", "a[p]/b")
    assert driver.log[-1] == "a[p]/b = failed"


def test_what_cannot_be_gathered_fails_the_item():
    driver = Driver({"a ?foreach": ("p",), "a[p] turned": "a generator"})

    end = driver.run(parallel())

    assert (end.status, end.cause, driver.log[-1]) == ("failed", "a generator", "a[p] = failed")


def test_an_interruption_counts_before_a_failure_and_that_before_an_early_end():
    class Together(Driver):
        def items(self, fork: Fork) -> Any:
            return [self.item(fork, path) for path in fork.items]

    keys = ("p", "q", "r")
    stops = {"a ?foreach": keys, "a[p] ?stop-if": True, "a[q] ?stop-if": False}
    for answers, status in (
        ({"a[q]": "error", "a[r]": "interrupted"}, "cancelled"),
        ({"a[q]": "error", "a[r] ?stop-if": False}, "failed"),
        ({"a[r] ?stop-if": False}, "success"),
    ):
        end = Together({**stops, **answers}).run(parallel(" --stop-if s"))
        assert end.status == status


def test_a_loop_around_goes_on_past_an_item_that_does_not():
    driver = Driver({"o ?foreach": ("1", "2"), "a ?foreach": ("p",), "o[1]/a[p]": "error"})
    steps = flow("o --foreach i in j --on-error skip", "a --in o --foreach x in y --parallel 2")
    driver.answers |= {f"o[{n}]/a ?foreach": ("p",) for n in (1, 2)}

    assert driver.run(steps).status is RunStatus.SUCCESS
    assert driver.ended[0].leaves == "o"
    assert "o[1] turned without" in driver.log
    assert "leave o[1]/a" not in driver.log
    assert "leave o[2]/a" in driver.log


def test_an_item_is_never_suspended_nor_executed_again():
    steps = parallel()
    for asked in (WAITS, AGAIN):
        driver = Driver({"a ?foreach": ("p", "q"), "a[q]/b": asked})

        assert driver.run(steps).status is RunStatus.SUCCESS
        assert not [line for line in driver.log if "suspends" in line or "roll back" in line]
        assert driver.log.count("a[q]/b = success") == 1


def test_a_step_sleeps_before_a_parallel_loop_and_behind_it():
    driver = Driver({"a ?foreach": ("p",)})

    driver.run(flow("z --sleep 3s", "a --foreach x in y --parallel 2", "b --sleep 4s", "c"))

    assert driver.log == [
        "z", "z = success", "wait 3", "a ?foreach", "fork a", "enter a[p]", "a[p]",
        "a[p] = success", "a[p] turned", "leave a", "b", "b = success", "wait 4", "c",
        "c = success",
    ]  # fmt: skip


def handle(driver: Driver, line: str) -> list[str]:
    """Conduct a step with `--on-failure` of a run that has failed."""
    machine = conduct_handler(flow(line)[0])
    answer = None
    while True:
        try:
            action = machine.send(answer)
        except StopIteration:
            return driver.log
        answer = driver.do(action)


def test_a_step_for_failures_is_skipped_by_the_run_itself():
    driver = Driver()
    driver.run(flow("a", "tell --on-failure --when x"))
    assert driver.log == ["a", "a = success", "tell skipped: it runs when a headless run fails"]


@pytest.mark.parametrize(
    ("line", "answers", "log"),
    [
        ("t --on-failure", {}, ["t", "t = success"]),
        ("t --on-failure", {"t": Ended(ending="error", error=ERROR)}, ["t", "t = failed"]),
        ("t --on-failure", {"t": Ended(ending="died", alive=False)}, ["t", "t = failed"]),
        ("t --on-failure", {"t": Ended(ending="ok", waits=True)}, ["t", "t = success"]),
        ("t --on-failure --when x", {"t ?when": Told(value=False)},
         ["t ?when", "t skipped: x is false"]),
        ("t --on-failure --when x", {"t ?when": Told(error=ERROR)}, ["t ?when", "t = failed"]),
        ("t --on-failure --retry 1 --backoff 1s",
         {"t": [Ended(ending="error", error=ERROR), Ended(ending="ok")]},
         ["t", "t = failed", "roll back t", "wait 1", "t", "t = success #2"]),
        ("t --on-failure --on-error continue", {"t": Ended(ending="error", error=ERROR)},
         ["t", "t = failed accepted"]),
    ],
)  # fmt: skip
def test_a_step_for_failures_is_conducted_like_a_step_and_ends_nothing(line, answers, log):
    assert handle(Driver(answers), line) == log
