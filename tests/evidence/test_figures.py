"""Rows behind the figures: points, histograms and flips, by hand and for any table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.evidence.estimates import QuestionTable, mean_and_error
from stages.evidence.figures import Flip, flips, length_edges, length_histogram, pareto_rows


def table(
    correct: list[list[int]], tokens: list[list[int]] | None = None, task: str = "t", first: int = 0
) -> QuestionTable:
    """Questions q0, q1, ... of one group each; nothing is truncated."""
    right = np.array(correct, dtype=np.bool_)
    names = tuple(f"q{first + i}" for i in range(len(correct)))
    none = np.zeros_like(right)
    lengths = np.full(right.shape, 10) if tokens is None else np.array(tokens)
    return QuestionTable(task, names, tuple(f"g{name}" for name in names), right, lengths, none, none)


def test_a_point_per_task() -> None:
    tables = {"a": table([[1, 0], [1, 1]], [[10, 20], [30, 30]], "a"), "b": table([[1]], [[7]], "b")}
    first, second = pareto_rows(tables)
    accuracy, tokens = mean_and_error([0.5, 1.0]), mean_and_error([15.0, 30.0])
    assert list(first.values()) == ["a", *tokens, *accuracy]
    assert second == {"task": "b", "mean_tokens": 7.0, "mean_tokens_se": None, "accuracy": 1.0, "accuracy_se": None}


def test_answers_are_counted_by_length_and_correctness() -> None:
    rows = length_histogram(table([[1, 0], [1, 1], [0, 0]], [[0, 9], [9, 10], [19, 20]]), [0, 10, 20, 30])
    assert [tuple(row.values()) for row in rows] == [("t", 0, 10, 2, 1), ("t", 10, 20, 1, 1), ("t", 20, 30, 0, 1)]


@pytest.mark.parametrize("edges", [[0, 10], [10, 30]])
def test_no_answer_is_dropped_silently(edges: list[int]) -> None:
    with pytest.raises(ValueError, match="num_tokens: task 't' has answers outside"):
        length_histogram(table([[1, 1]], [[5, 20]]), edges)


@given(st.integers(0, 40000), st.integers(1, 60))
def test_bins_are_equal_few_and_hold_the_longest(longest: int, num_bins: int) -> None:
    edges = length_edges(longest, num_bins)
    assert edges[0] == 0
    assert edges[-2] <= longest < edges[-1]
    assert len(edges) - 1 <= num_bins
    assert len(set(np.diff(edges))) == 1


def test_flips_are_sorted_by_size_losses_first() -> None:
    base = table([[1, 1], [0, 1], [1, 0], [0, 0], [1, 1]])
    candidate = table([[1, 0], [1, 1], [0, 1], [1, 1], [1, 1]])
    assert flips({"t": base}, {"t": candidate}) == [
        Flip("t", "gq3", "q3", 0, 2, 2, 0),
        Flip("t", "gq0", "q0", 2, 1, 2, 1),
        Flip("t", "gq1", "q1", 1, 2, 2, 0),
    ]


def test_flips_pair_questions_by_name() -> None:
    base, candidate = table([[1], [0]]), table([[0], [1]]).select([1, 0])
    assert {(flip.question_id, flip.kind) for flip in flips({"t": base}, {"t": candidate})} == {
        ("q0", "lost"),
        ("q1", "gained"),
    }


@pytest.mark.parametrize("other", [{"u": table([[1]], task="u")}, {"t": table([[1]], first=5)}, {"t": table([[1, 1]])}])
def test_tables_of_other_questions_have_no_flips(other: dict[str, QuestionTable]) -> None:
    with pytest.raises(ValueError):
        flips({"t": table([[1]])}, other)


@given(st.lists(st.tuples(*[st.lists(st.booleans(), min_size=3, max_size=3)] * 2), min_size=1, max_size=12))
def test_the_shown_answers_show_the_flip(questions: list[tuple[list[bool], list[bool]]]) -> None:
    base, candidate = (table([[int(x) for x in question[side]] for question in questions]) for side in (0, 1))
    found = flips({"t": base}, {"t": candidate})
    assert len(found) == sum(sum(before) != sum(after) for before, after in questions)
    for flip in found:
        before, after = questions[int(flip.question_id[1:])]
        assert (flip.before, flip.after) == (sum(before), sum(after))
        assert (before[flip.sample], after[flip.sample]) == ((True, False) if flip.kind == "lost" else (False, True))
