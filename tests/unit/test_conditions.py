"""Which conditions can do more than look, as far as their text tells."""

from __future__ import annotations

import pytest

from cellrail.notebook.conditions import may_change


@pytest.mark.parametrize(
    "expression",
    [
        "n < 100",
        "not rows",
        "frame.empty",
        "len(frame) > 0 and frame.shape[0] == limit",
        "kind in {'a', 'b'} if strict else kind is not None",
        "isinstance(error, ValueError)",
        "f'{region}-{day}' != last['key'][1:]",
        "-x ** 2 <= abs(y) | 3",
        "what is this",  # evaluating it raises
        "",
    ],
)
def test_expressions_that_only_look(expression: str) -> None:
    assert not may_change(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "todo.pop() > 3",
        "(n := n + 1) < 5",
        "next(items, None) is not None",
        "random.random() < 0.1",
        "any(row for row in rows)",
        "sum(items) > 3",
        "ready()",
        "len(take()) > 0",
        "(lambda: todo.clear())() is None",
        "[*items] == []",
    ],
)
def test_expressions_that_may_do_more(expression: str) -> None:
    assert may_change(expression)
