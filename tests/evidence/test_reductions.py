"""Token reductions and their bootstrap intervals against hand calculation, plain loops and closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from stages.evidence.bootstrap import macro_interval, micro_interval, resampled_sums, token_sums
from stages.evidence.estimates import QuestionTable, question_tables
from stages.evidence.paired import (
    both_correct_tokens,
    clipped_reduction,
    macro_reduction,
    median_interval,
    median_reduction,
    micro_reduction,
    reduction_interval,
)
from stages.evidence.questions import QuestionRow

Floats = NDArray[np.float64]
OPTIONS: dict[str, Any] = {"confidence": 0.9, "resamples": 2000}


def lengths(num: int, seed: int) -> tuple[Floats, Floats]:
    """Skewed token means per question, the candidate at about half with its own noise."""
    rng = np.random.default_rng(seed)
    before = rng.lognormal(5, 0.7, num)
    return before, before * rng.lognormal(-0.7, 0.4, num)


def table(questions: dict[str, list[tuple[bool, int]]]) -> QuestionTable:
    rows = [
        QuestionRow("t", "", name, i, correct, tokens, False, False)
        for name, answers in questions.items()
        for i, (correct, tokens) in enumerate(answers)
    ]
    return question_tables(rows)["t"]


def test_reductions_by_hand() -> None:
    before, after = np.array([100.0, 50.0, 10.0]), np.array([20.0, 25.0, 30.0])
    assert micro_reduction(before, after) == pytest.approx(1 - 75 / 160)
    assert median_reduction(before, after) == pytest.approx(0.5)
    assert macro_reduction([0.8, 0.5, -2.0]) == pytest.approx(-0.7 / 3)  # signed: growth is not clipped
    assert clipped_reduction([0.8, 0.5, -2.0]) == pytest.approx(1.3 / 3)
    base = table({"a": [(True, 10), (False, 90)], "b": [(False, 20)] * 2, "c": [(True, 40)] * 2})
    new = table({"a": [(True, 4), (True, 6)], "b": [(True, 1)] * 2, "c": [(False, 9), (True, 20)]})
    solved_before, solved_after = both_correct_tokens((base, new))
    assert solved_before.tolist() == [10, 0, 40]
    assert solved_after.tolist() == [5, 0, 20]


def test_reduction_needs_paired_questions_and_a_baseline_with_tokens() -> None:
    for before, after in (([], []), ([1.0], [1.0, 2.0]), ([0.0, 0.0], [1.0, 1.0])):
        with pytest.raises(ValueError, match=r"^num_tokens: "):
            micro_reduction(np.array(before), np.array(after))


def test_a_question_that_the_baseline_left_empty_counts_in_the_sums_only() -> None:
    before, after = np.array([0.0, 10.0, 20.0]), np.array([3.0, 5.0, 5.0])
    assert micro_reduction(before, after) == pytest.approx(1 - 13 / 30)
    assert median_reduction(before, after) == pytest.approx((0.5 + 0.75) / 2)


def test_draws_match_a_plain_loop_in_distribution() -> None:
    before, after = lengths(60, 2)
    fast = resampled_sums(np.stack([before, after], axis=1), 4000, 1)
    rng, slow = np.random.default_rng(2), []
    for _ in range(4000):
        chosen = rng.choice(60, 60)
        slow.append(sum(after[chosen]) / sum(before[chosen]))
    assert stats.ks_2samp(fast[:, 1] / fast[:, 0], slow).pvalue > 0.001


@pytest.mark.parametrize("num", [40, 1500])
def test_bootstrap_is_seeded(num: int) -> None:
    before, after = lengths(num, 1)
    first = reduction_interval(before, after, seed=7, **OPTIONS)
    assert first == reduction_interval(before, after, seed=7, **OPTIONS)
    assert first != reduction_interval(before, after, seed=8, **OPTIONS)
    assert first is not None
    assert first[0] < micro_reduction(before, after) < first[1]


def test_large_sample_interval_is_near_the_delta_method() -> None:
    before, after = lengths(3000, 3)
    ratio = after.sum() / before.sum()
    error = (after - ratio * before).std(ddof=1) / before.mean() / np.sqrt(3000)
    found = reduction_interval(before, after, seed=1, **OPTIONS)
    assert found == pytest.approx(stats.norm.interval(0.9, loc=1 - ratio, scale=error), abs=0.15 * error)


def test_benchmarks_are_drawn_apart() -> None:
    """Two benchmarks of very different length: only the questions within each vary, so the pooled error is theirs."""
    (b1, a1), (b2, a2) = lengths(800, 4), tuple(20 * each for each in lengths(400, 5))
    sums = [token_sums(b1, a1, 4000, 1), token_sums(b2, a2, 4000, 2)]
    before, after = b1.sum() + b2.sum(), a1.sum() + a2.sum()
    ratio = after / before
    variance = sum(len(b) * (a - ratio * b).var(ddof=1) for b, a in ((b1, a1), (b2, a2)))
    error = np.sqrt(variance) / before
    found = micro_interval(sums, 0.9)
    assert found == pytest.approx(stats.norm.interval(0.9, loc=1 - ratio, scale=error), abs=0.15 * error)
    ratios = [a.sum() / b.sum() for b, a in ((b1, a1), (b2, a2))]
    errors = [
        (a - r * b).std(ddof=1) / b.mean() / np.sqrt(len(b))
        for (b, a), r in zip(((b1, a1), (b2, a2)), ratios, strict=True)
    ]
    error = np.hypot(*errors) / 2
    expected = stats.norm.interval(0.9, loc=1 - np.mean(ratios), scale=error)
    assert macro_interval(sums, 0.9) == pytest.approx(expected, abs=0.15 * error)


def test_interval_edges() -> None:
    options = {**OPTIONS, "seed": 1}
    assert reduction_interval(np.array([5.0]), np.array([3.0]), **options) is None
    assert reduction_interval(np.full(9, 8.0), np.full(9, 4.0), **options) == (0.5, 0.5)
    assert reduction_interval(np.arange(1.0, 9), np.zeros(8), **options) == (1.0, 1.0)
    some_empty = reduction_interval(np.arange(1.0, 9), np.array([0.0] * 4 + [3.0] * 4), **options)
    assert some_empty is not None
    assert 0 < some_empty[0] < some_empty[1] <= 1
    with pytest.raises(ValueError, match=r"^confidence: "):
        reduction_interval(np.arange(1.0, 9), np.arange(1.0, 9), confidence=1.0, resamples=100, seed=1)


def test_both_correct_has_no_interval_where_a_draw_may_hold_no_solved_question() -> None:
    solved = np.array([9.0, 8.0, 0, 0, 0, 0])
    assert micro_interval([token_sums(solved, solved / 3, 1000, 1)], 0.95) is None


def test_median_interval_covers_whatever_the_lengths() -> None:
    assert median_interval(np.ones(5), np.ones(5), 0.95) is None
    rng, hits = np.random.default_rng(9), 0
    for _ in range(400):
        before = rng.pareto(1.2, 41) + 1
        found = median_interval(
            before, before * rng.choice([0.1, 0.9, 3.0], 41, p=[0.3, 0.4, 0.3]) * rng.random(41), 0.95
        )
        assert found is not None
        hits += found[0] <= TRUE_MEDIAN <= found[1]
    assert 0.93 <= hits / 400 <= 1


def _true_median() -> float:
    rng = np.random.default_rng(10)
    return float(np.median(1 - rng.choice([0.1, 0.9, 3.0], 400_000, p=[0.3, 0.4, 0.3]) * rng.random(400_000)))


TRUE_MEDIAN = _true_median()
