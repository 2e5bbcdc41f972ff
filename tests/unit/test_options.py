"""The one parser of step lines: what it accepts, what it says of the rest."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellrail.notebook.options import OptionError, StepOptions, duration, parse_line, parse_options

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,12}", fullmatch=True)
OPTIONS = st.builds(
    StepOptions,
    always=st.booleans(),
    timeout=st.none() | st.floats(0, 1e6, allow_nan=False).map(lambda x: round(x, 3)),
    outputs=st.lists(st.sampled_from(["a", "b_1", "frame"]), unique=True).map(tuple),
    no_checkpoint=st.booleans(),
)


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
        ("x --retry 0", "no whole number above 0"),
        ("x --on-error explode", "none of stop, continue, skip"),
    ],
)
def test_a_wrong_line_says_what_is_wrong(line, told):
    with pytest.raises(OptionError, match=r".") as error:
        parse_line(line)
    assert told in str(error.value)


@pytest.mark.parametrize(
    "line",
    ["x --retry 3 --backoff 2s*2..60s", "x --when a -- b > (1 --c)", "x --foreach r in [1, '--no']",
     "x --cache 1d", "x --reads data/*.csv"],
)  # fmt: skip
def test_options_that_are_still_to_come_are_checked_and_named(line):
    with pytest.raises(OptionError, match="is not available yet") as error:
        parse_line(line)
    assert error.value.later


def test_quotes_and_brackets_protect_what_looks_like_an_option():
    with pytest.raises(OptionError, match="--when is not available yet"):
        parse_line("x --when f('a --always') and d[' --timeout 3']")


def test_options_alone_need_no_name():
    assert parse_options("--always --timeout 2m") == StepOptions(always=True, timeout=120.0)
    with pytest.raises(OptionError, match="stands before the first option"):
        parse_options("load --always")
