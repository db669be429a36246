"""Estimates of one model against scipy and short independent scripts."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from stages.evidence.estimates import (
    QuestionTable,
    answer_weights,
    mean_and_error,
    pass_at_k,
    question_tables,
    token_percentiles,
    wilson,
)
from stages.evidence.questions import QuestionRow


def row(question: str, sample: int = 0, *, correct: bool = True, tokens: int = 10, group: str = "g") -> QuestionRow:
    return QuestionRow("tiny", group, question, sample, correct, tokens, False, False)


def table(correct: list[list[int]], tokens: list[list[int]]) -> QuestionTable:
    rows = [
        row(f"q{i}", j, correct=bool(value), tokens=tokens[i][j])
        for i, values in enumerate(correct)
        for j, value in enumerate(values)
    ]
    return question_tables(rows)["tiny"]


def test_tables_keep_question_order_and_sort_samples() -> None:
    rows = [row("b", 1, tokens=4), row("a", 0, tokens=1), row("b", 0, tokens=3), row("a", 1, correct=False, tokens=2)]
    found = question_tables(rows)["tiny"]
    assert found.question_ids == ("b", "a")
    assert found.tokens.tolist() == [[3, 4], [1, 2]]
    assert found.question_accuracy.tolist() == [1.0, 0.5]
    assert found.question_tokens.tolist() == [3.5, 1.5]
    assert (found.num_questions, found.num_samples) == (2, 2)
    assert found.select([1]).question_ids == ("a",)


@pytest.mark.parametrize(
    ("rows", "field"),
    [
        ([], "question_id"),
        ([row("a", 0), row("a", 1), row("b", 0)], "sample_index"),
        ([row("a", 0), row("b", 1)], "sample_index"),
        ([row("a", 0), row("a", 0)], "sample_index"),
        ([row("a", 0), row("a", 1, group="h")], "group"),
        ([row("a", tokens=-1)], "num_tokens"),
        ([QuestionRow("tiny", "", "a", 0, True, 5, True, False)], "correct"),
    ],
)
def test_inconsistent_rows_name_the_field(rows: list[QuestionRow], field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        question_tables(rows)


def test_mean_and_error_is_scipy_sem() -> None:
    values = np.random.default_rng(0).random(57)
    mean, error = mean_and_error(values)
    assert mean == pytest.approx(values.mean())
    assert error == pytest.approx(stats.sem(values))


def test_mean_and_error_edges() -> None:
    assert mean_and_error([0.5]) == (0.5, None)
    assert mean_and_error([0.0, 0.0, 0.0]) == (0.0, 0.0)
    for bad in ([], [1.0, math.nan], [math.inf]):
        with pytest.raises(ValueError, match="values"):
            mean_and_error(bad)


@pytest.mark.parametrize(("successes", "num"), [(0, 30), (30, 30), (1, 1), (0, 1), (81, 263), (985, 1000)])
def test_wilson_is_scipy(successes: int, num: int) -> None:
    expected = stats.binomtest(successes, num).proportion_ci(0.95, method="wilson")
    assert wilson(successes, num, 0.95) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_published_example() -> None:
    low, high = wilson(81, 263, 0.95)  # Newcombe 1998, Statistics in Medicine 17, 857-872, table I
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_wilson_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="successes"):
        wilson(4, 3, 0.95)
    with pytest.raises(ValueError, match="confidence"):
        wilson(1, 3, 1.0)


def test_pass_at_k_counts_subsets() -> None:
    correct = np.array([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 1, 0, 0]], dtype=bool)
    for k in range(1, 6):
        hits = [any(subset) for question in correct for subset in combinations(question, k)]
        assert pass_at_k(correct, k) == pytest.approx(sum(hits) / len(hits))
    for k in (0, 6):
        with pytest.raises(ValueError, match=r"^k: "):
            pass_at_k(correct, k)


def test_percentiles_are_lengths_that_occurred_and_questions_weigh_the_same() -> None:
    one = table([[1, 1, 1, 1]], [[10, 10, 10, 10]])
    other = table([[1]], [[30]])
    assert token_percentiles([one], [50, 90]) == [10, 10]
    assert answer_weights([one, other]).tolist() == [0.25] * 4 + [1.0]
    assert token_percentiles([one, other], [40, 60]) == [10, 30]
    tokens = np.random.default_rng(3).integers(1, 500, size=(40, 4))
    many = table(np.ones((40, 4), dtype=int).tolist(), tokens.tolist())
    expected = np.sort(tokens.ravel())[[math.ceil(q / 100 * 160) - 1 for q in (50, 90, 99)]]
    assert token_percentiles([many], [50, 90, 99]) == expected.tolist()
