"""The one parser of step lines: what it accepts, what it says of the rest."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellrail.notebook.options import (
    Backoff,
    Branch,
    OptionError,
    StepOptions,
    duration,
    parse_line,
    parse_options,
)

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,12}", fullmatch=True)
OPTIONS = st.builds(
    StepOptions,
    always=st.booleans(),
    timeout=st.none() | st.floats(0.001, 1e6, allow_nan=False).map(lambda x: round(x, 3)),
    outputs=st.lists(st.sampled_from(["a", "b_1", "frame"]), unique=True).map(tuple),
    no_checkpoint=st.booleans(),
    retry=st.just(3),
    backoff=st.builds(
        Backoff,
        st.floats(0.5, 5).map(lambda x: round(x, 2)),
        st.integers(1, 4).map(float),
        st.integers(5, 90).map(float),
    ),
    when=st.sampled_from(["", "a < 3", "x['--y']"]),
    foreach=st.sampled_from(["", "i in range(3)"]),
    in_=st.sampled_from(["", "other"]),
    on_error=st.sampled_from(["stop", "skip", "continue"]),
).filter(lambda options: not (options.always and (options.loops or options.in_)))


@given(name=NAMES, options=OPTIONS)
def test_what_options_print_parses_to_the_same_options(name, options):
    assert parse_line(f"{name} {options}") == (name, options)


@given(st.text(max_size=200))
def test_no_line_does_anything_but_parse_or_raise_an_option_error(line):
    with contextlib.suppress(OptionError):
        name, options = parse_line(line)
        assert name
        assert isinstance(options, StepOptions)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5s", 1.5), ("10m", 600), ("500ms", 0.5), ("2h", 7200), ("1d", 86400),
     ("1w", 604800), (".5 s", 0.5)],
)  # fmt: skip
def test_durations_have_units_and_default_to_seconds(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("load --timout 3", "unknown option --timout; did you mean --timeout?"),
        ("load --timeout soon", "'soon' is no duration"),
        ("load --timeout", "--timeout needs a value"),
        ("load --always now", "--always takes no value"),
        ("load --timeout 1 --timeout 2", "--timeout is given twice"),
        ("load --outputs a,,b", "'' is no variable name"),
        ("3rd", "'step_3rd' would do"),
        ("my step", "'my_step' would do"),
        ("", "the step has no name"),
        ("x --when a ==", "--when: 'a ==' is no Python expression"),
        ("x --foreach region regions", "write VARIABLE in EXPRESSION"),
        ("x --foreach a.b in c", "write VARIABLE in EXPRESSION"),
        ("x --foreach a, b[0] in c", "write VARIABLE in EXPRESSION"),
        ("x --foreach (a, in c", "write VARIABLE in EXPRESSION"),
        ("x --foreach 3 in c", "write VARIABLE in EXPRESSION"),
        ("x --retry 0", "no whole number above 0"),
        ("x --on-error explode", "none of stop, continue, skip"),
    ],
)
def test_a_wrong_line_says_what_is_wrong(line, told):
    with pytest.raises(OptionError, match=r".") as error:
        parse_line(line)
    assert told in str(error.value)


@pytest.mark.parametrize(
    "other",
    ["--always", "--foreach x in y", "--while x", "--in loop", "--branch b:default",
     "--stop-if x", "--sleep 1", "--cache 1d"],
)  # fmt: skip
def test_what_runs_on_failures_takes_no_part_in_the_flow(other):
    with pytest.raises(OptionError, match=r"--on-failure and --[a-z-]+ exclude each other"):
        parse_line(f"x --on-failure {other}")
    assert parse_line("x --on-failure --retry 2 --timeout 5 --when y")[1].on_failure


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("x --when f('a --always') and d[' --timeout 3']", "when",
         "f('a --always') and d[' --timeout 3']"),
        ("x --when a -- b > (1 --c) --always", "when", "a -- b > (1 --c)"),
        ("x --foreach r in [1, '--no'] --key r", "foreach", "r in [1, '--no']"),
        ("x --while n < 3 --max-turns 5", "while_", "n < 3"),
        ("x --in loop-1", "in_", "loop-1"),
        ("x --branch size:default", "branch", Branch("size", default=True)),
        ("x --retry 2 --backoff 2s", "backoff", Backoff(2, 1, 2)),
        ("x --retry 2 --backoff 2s*3", "backoff", Backoff(2, 3, 60)),
        ("x --retry 2 --backoff 500ms*1.5..1m", "backoff", Backoff(0.5, 1.5, 60)),
        ("x --foreach a in b --collect c, d", "collect", ("c", "d")),
    ],
)  # fmt: skip
def test_values_reach_to_the_next_option_outside_quotes_and_brackets(line, field, value):
    assert getattr(parse_line(line)[1], field) == value


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("x --backoff 2s", "--backoff needs --retry"),
        ("x --key a", "--key needs --foreach"),
        ("x --collect a", "--collect needs --foreach or --while"),
        ("x --max-turns 3 --foreach a in b", "--max-turns needs --while"),
        ("x --foreach a in b --while c", "--foreach and --while exclude each other"),
        ("x --branch g", "--branch g needs --when (or write g:default)"),
        ("x --branch g:default --when x", "the default takes no --when"),
        ("x --branch g:other", "write GROUP, or GROUP:default"),
        ("x --retry 2 --backoff soon", "'soon' is no duration"),
        ("x --retry 2 --backoff 2s*", "as in 2s*2..60s"),
        ("x --retry 2 --backoff -2s", "is no duration"),
    ],
)
def test_options_that_make_no_sense_together_are_refused(line, told):
    with pytest.raises(OptionError) as error:
        parse_line(line)
    assert told in str(error.value)


def test_options_alone_need_no_name():
    assert parse_options("--always --timeout 2m") == StepOptions(always=True, timeout=120.0)
    with pytest.raises(OptionError, match="stands before the first option"):
        parse_options("load --always")
