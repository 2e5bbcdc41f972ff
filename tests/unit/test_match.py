"""Which step of today's notebook is which step of a run."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cellrail.notebook.match import match
from cellrail_state.model import StepInfo


def steps(*made):
    return [StepInfo(number=n + 1, **{"source_hash": f"h{n}", **one}) for n, one in enumerate(made)]


def pairs(old, new):
    return {number: found.number for number, found in match(old, new).items()}


def test_names_win_over_ids_and_sources():
    old = steps({"name": "a", "cell_id": "1"}, {"cell_id": "2"})
    new = steps({"cell_id": "2"}, {"name": "a", "cell_id": "9", "source_hash": "x"})

    assert pairs(old, new) == {1: 2, 2: 1}


def test_an_edited_cell_with_its_id_is_the_same_step():
    old = steps({"cell_id": "1"}, {"cell_id": "2"})
    new = steps({"cell_id": "1"}, {"cell_id": "2", "source_hash": "edited"})

    assert pairs(old, new) == {1: 1, 2: 2}


def test_without_ids_an_edited_cell_is_matched_between_its_neighbours():
    old = steps({}, {"source_hash": "old"}, {"source_hash": "last"})
    new = steps({}, {"source_hash": "new"}, {"source_hash": "last"})

    assert pairs(old, new) == {1: 1, 2: 2, 3: 3}


def test_an_inserted_cell_matches_nothing_and_equal_cells_match_in_order():
    old = steps({"source_hash": "p"}, {"source_hash": "q"}, {"source_hash": "p"})
    new = steps(
        {"source_hash": "p"}, {"source_hash": "new"}, {"source_hash": "q"}, {"source_hash": "p"}
    )

    assert pairs(old, new) == {1: 1, 3: 2, 4: 3}


CELLS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["", "", "a", "b"]),
            "cell_id": st.sampled_from(["", "1", "2", "3"]),
            "source_hash": st.sampled_from(["x", "y", "z"]),
        }
    ),
    max_size=6,
)


@given(CELLS, CELLS)
def test_no_step_is_matched_twice(old, new):
    found = match(steps(*old), steps(*new))

    numbers = [step.number for step in found.values()]
    assert len(numbers) == len(set(numbers))


@given(st.lists(st.sampled_from(["x", "y", "z", "w"]), max_size=6))
def test_a_notebook_matches_itself_in_place(hashes):
    same = steps(*[{"source_hash": h} for h in hashes])

    assert pairs(same, same) == {step.number: step.number for step in same}
