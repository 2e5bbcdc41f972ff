"""The words behind a `%flow` command.

Laws: positional words, flags and values are told apart; parameters are read as on the command
line; what is unknown, or lacks its value, is refused with what is known.
"""

from __future__ import annotations

import shlex

import pytest

from cellrail.errors import UserError
from cellrail.magics.words import split, split_line


def test_positional_words_options_and_parameters_are_told_apart():
    line = split(
        shlex.split("etl.ipynb out.ipynb -p n 3 -r zip 007 --plan --to load --label a=b "
                    "--changed step:x --changed var:y --timeout 10m -y 'm: [1]'"),
        flags={"plan", "force"}, values={"to", "timeout"}, lists={"changed"}, parameters=True,
    )  # fmt: skip

    assert (line.at(0), line.at(1), line.at(2)) == ("etl.ipynb", "out.ipynb", None)
    assert line.parameters == {"n": 3, "zip": "007", "m": [1]}
    assert ("plan" in line, "force" in line, line.options["to"]) == (True, False, "load")
    assert line.lists["changed"] == ["step:x", "var:y"]
    assert (line.labels, line.seconds("timeout")) == ({"a": "b"}, 600.0)
    assert line.number("parallel", 2) == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--nope", "unknown option --nope"),
        ("a b c", "'c' is one word too many"),
        ("--to", "--to needs a value"),
        ("-p n", "-p needs a value"),
        ("--label a", "a label is KEY=VALUE"),
        ("--to soon", "--to: 'soon' is no duration"),
        ("--limit many", "--limit many: a number is needed"),
    ],
)
def test_what_is_wrong_is_told(words, told):
    def read():
        line = split(shlex.split(words), most=2, values={"to", "limit"}, parameters=True)
        return line.labels, line.seconds("to"), line.number("limit", 1)

    with pytest.raises(UserError, match=told.replace("?", r"\?")):
        read()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('resume --data {"by":"ann"}', ["resume", "--data", '{"by":"ann"}']),
        ('resume --data {"n":10, "m": [1, "x"]} --step s',
         ["resume", "--data", '{"n":10, "m": [1, "x"]}', "--step", "s"]),
        ('resume --data ["a b", {x}]', ["resume", "--data", '["a b", 7]']),
        ("resume --data '{\"by\": \"$x\"}'", ["resume", "--data", '{"by": "7"}']),
        ("resume --data {told}", ["resume", "--data", '{"by": "ann"}']),
        ("resume --label 'see {\"a\": 1} here'", ["resume", "--label", 'see {"a": 1} here']),
        ("backfill start --param d={x}", ["backfill", "start", "--param", "d={x}"]),
    ],
)  # fmt: skip
def test_json_in_a_line_keeps_its_quotes(line, words):
    def expanded(text):
        return text.replace("{x}", "7").replace("$x", "7").replace("{told}", '{"by": "ann"}')

    assert split_line(line, expanded) == words


def test_a_quote_that_is_not_closed_is_told():
    with pytest.raises(ValueError, match="quotation"):
        split_line("resume --data 'x", str)
