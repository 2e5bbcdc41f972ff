"""The words behind a `%flow` command.

Laws: positional words, flags and values are told apart; parameters are read as on the command
line; what is unknown, or lacks its value, is refused with what is known.
"""

from __future__ import annotations

import shlex

import pytest

from cellrail.errors import UserError
from cellrail.magics.words import split


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
