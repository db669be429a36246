"""Paired comparison against closed forms, plain loops and hand calculation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from stages.evidence.estimates import question_tables
from stages.evidence.paired import (
    POWER,
    aes,
    align,
    bootstrap_ratios,
    both_correct_reduction,
    macro_reduction,
    mean_difference,
    median_reduction,
    micro_reduction,
    non_inferiority,
    reduction_interval,
)
from stages.evidence.questions import QuestionRow
from stages.evidence.score import score_bounds

Floats = NDArray[np.float64]


def changes(num: int, gains: int, losses: int) -> Floats:
    """Differences of one sample per question."""
    return np.array([1.0] * gains + [-1.0] * losses + [0.0] * (num - gains - losses))


def test_normal_interval_with_several_samples_and_many_discordant_questions() -> None:
    rng = np.random.default_rng(5)
    differences = (rng.binomial(4, 0.8, 600) - rng.binomial(4, 0.82, 600)) / 4
    found = mean_difference(differences, 0.05)
    assert found.method == "normal"
    assert found.se == pytest.approx(stats.sem(differences))
    expected = stats.norm.interval(0.9, loc=differences.mean(), scale=stats.sem(differences))
    assert (found.lower, found.upper) == pytest.approx(expected)
    score = score_bounds(differences, 0.05)  # both agree where both may be used
    assert score == pytest.approx((found.lower, found.upper), abs=2e-3)


@pytest.mark.parametrize(
    "differences",
    [
        changes(2000, 150, 150),  # one sample per question
        np.array([0.25, -0.25] * 145),  # fewer than 300 questions
        np.array([0.25, -0.25] * 10 + [0.0] * 980),  # few discordant questions
    ],
)
def test_score_interval_decides_otherwise(differences: Floats) -> None:
    assert mean_difference(differences, 0.05).method == "score"


def test_rounding_noise_is_not_a_change() -> None:
    differences = np.array([2 / 3 - 1 / 3 - 1 / 3, 1 - 2 / 3 - 1 / 3] * 200)
    assert np.count_nonzero(differences) > 0
    assert mean_difference(differences, 0.05) == mean_difference(np.zeros(400), 0.05)


def test_zero_discordant_proves_a_point_only_with_enough_questions() -> None:
    assert non_inferiority(np.zeros(30), 0.01, 0.05).verdict == "INCONCLUSIVE"
    assert non_inferiority(np.zeros(298), 0.01, 0.05).verdict == "INCONCLUSIVE"  # .99 ** 298 > .05
    assert non_inferiority(np.zeros(299), 0.01, 0.05).verdict == "PASS"
    assert non_inferiority(np.zeros(1319), 0.01, 0.05).verdict == "PASS"


def test_verdicts() -> None:
    assert non_inferiority(changes(1000, 30, 25), 0.01, 0.05).verdict == "PASS"
    assert non_inferiority(changes(1000, 30, 40), 0.01, 0.05).verdict == "INCONCLUSIVE"
    assert non_inferiority(changes(1000, 30, 90), 0.01, 0.05).verdict == "FAIL"
    assert non_inferiority([0.0], 0.01, 0.05).verdict == "INCONCLUSIVE"
    assert non_inferiority([-1.0] * 30, 0.01, 0.05).verdict == "FAIL"
    found = non_inferiority([0.5, 0.0, -0.25], 0.01, 0.05)
    assert found.lower == found.difference.lower <= -0.01


def test_minimum_detectable_effect_is_the_margin_that_passes_with_its_power() -> None:
    rng = np.random.default_rng(8)
    accuracy = rng.beta(8, 0.8, 1000)
    first = (rng.binomial(4, accuracy) - rng.binomial(4, accuracy)) / 4
    effect = non_inferiority(first, 0.01, 0.05).minimum_detectable_effect
    draws = (rng.binomial(4, accuracy, (400, 1000)) - rng.binomial(4, accuracy, (400, 1000))) / 4
    passed = [non_inferiority(draw, effect, 0.05).verdict == "PASS" for draw in draws]
    assert np.mean(passed) == pytest.approx(POWER, abs=0.08)
    assert non_inferiority(np.zeros(30), 0.01, 0.05).minimum_detectable_effect > 0.1  # AIME24 resolves 10 points


@pytest.mark.parametrize(
    ("differences", "margin", "alpha", "field"),
    [
        ([0.0], 0.0, 0.05, "margin"),
        ([0.0], 1.0, 0.05, "margin"),
        ([0.0], 0.01, 0.5, "alpha"),
        ([], 0.01, 0.05, "values"),
        ([np.nan], 0.01, 0.05, "values"),
        ([2.0, 0.0], 0.01, 0.05, "differences"),
    ],
)
def test_bad_input_names_the_field(differences: list[float], margin: float, alpha: float, field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        non_inferiority(differences, margin, alpha)


def rows(questions: dict[str, list[tuple[bool, int]]], group: str = "") -> list[QuestionRow]:
    return [
        QuestionRow("t", group, name, i, correct, tokens, False, False)
        for name, answers in questions.items()
        for i, (correct, tokens) in enumerate(answers)
    ]


def test_align_pairs_by_id_and_names_what_differs() -> None:
    base = question_tables(rows({"a": [(True, 10)], "b": [(False, 20)]}))["t"]
    swapped = question_tables(rows({"b": [(True, 2)], "a": [(False, 1)]}))["t"]
    assert align(base, swapped).tokens.tolist() == [[1], [2]]
    for questions, group, field in (
        ({"a": [(True, 1)]}, "", "question_id"),
        ({"a": [(True, 1)], "b": [(True, 1)], "c": [(True, 1)]}, "", "question_id"),
        ({"a": [(True, 1)] * 2, "b": [(True, 1)] * 2}, "", "sample_index"),
        ({"a": [(True, 1)], "b": [(True, 1)]}, "other", "group"),
    ):
        with pytest.raises(ValueError, match=f"^{field}: "):
            align(base, question_tables(rows(questions, group))["t"])


def test_reductions_by_hand() -> None:
    before, after = np.array([100.0, 50.0, 10.0]), np.array([20.0, 25.0, 30.0])
    assert micro_reduction(before, after) == pytest.approx(1 - 75 / 160)
    assert median_reduction(before, after) == pytest.approx(0.5)
    assert macro_reduction([0.8, 0.5, -2.0]) == pytest.approx(-0.7 / 3)  # signed: growth is not clipped
    base = question_tables(rows({"a": [(True, 10), (False, 90)], "b": [(False, 20)] * 2, "c": [(True, 40)] * 2}))["t"]
    new = question_tables(rows({"a": [(True, 4), (True, 6)], "b": [(True, 1)] * 2, "c": [(False, 9), (True, 20)]}))["t"]
    assert both_correct_reduction([(base, new)]) == pytest.approx(1 - (5 + 20) / (10 + 40))
    nothing = question_tables(rows({name: [(False, 3)] * 2 for name in "abc"}))["t"]
    assert both_correct_reduction([(base, nothing)]) is None


def test_reduction_needs_paired_questions_and_a_baseline_with_tokens() -> None:
    for before, after in (([], []), ([1.0], [1.0, 2.0]), ([0.0, 1.0], [1.0, 1.0])):
        with pytest.raises(ValueError, match=r"^num_tokens: "):
            micro_reduction(np.array(before), np.array(after))


def lengths(num: int, seed: int) -> tuple[Floats, Floats]:
    """Skewed token means per question, the candidate at about half with its own noise."""
    rng = np.random.default_rng(seed)
    before = rng.lognormal(5, 0.7, num)
    return before, before * rng.lognormal(-0.7, 0.4, num)


@pytest.mark.parametrize("num", [40, 400])
def test_bootstrap_is_seeded(num: int) -> None:
    before, after = lengths(num, 1)
    first = reduction_interval(before, after, alpha=0.05, resamples=2000, seed=7)
    assert first == reduction_interval(before, after, alpha=0.05, resamples=2000, seed=7)
    assert first != reduction_interval(before, after, alpha=0.05, resamples=2000, seed=8)
    assert first is not None
    assert first[0] < micro_reduction(before, after) < first[1]


def test_bootstrap_draws_match_a_plain_loop_in_distribution() -> None:
    before, after = lengths(60, 2)
    fast = bootstrap_ratios(before, after, 4000, np.random.default_rng(1))
    rng, slow = np.random.default_rng(2), []
    for _ in range(4000):
        chosen = rng.choice(60, 60)
        slow.append(sum(after[chosen]) / sum(before[chosen]))
    assert stats.ks_2samp(fast, slow).pvalue > 0.001


def test_large_sample_interval_is_near_the_delta_method() -> None:
    before, after = lengths(3000, 3)
    ratio = after.sum() / before.sum()
    error = (after - ratio * before).std(ddof=1) / before.mean() / np.sqrt(3000)
    found = reduction_interval(before, after, alpha=0.05, resamples=4000, seed=1)
    assert found == pytest.approx(stats.norm.interval(0.9, loc=1 - ratio, scale=error), abs=0.15 * error)


def test_interval_edges() -> None:
    options: dict[str, Any] = {"alpha": 0.05, "resamples": 500, "seed": 1}
    assert reduction_interval(np.array([5.0]), np.array([3.0]), **options) is None
    assert reduction_interval(np.full(9, 8.0), np.full(9, 4.0), **options) == (0.5, 0.5)
    assert reduction_interval(np.arange(1.0, 9), np.zeros(8), **options) == (1.0, 1.0)
    some_empty = reduction_interval(np.arange(1.0, 9), np.array([0.0] * 4 + [3.0] * 4), **options)
    assert some_empty is not None
    assert 0 < some_empty[0] < some_empty[1] <= 1


def test_aes_by_hand() -> None:
    assert aes(100, 60, 0.8, 0.88) == pytest.approx(0.4 + 3 * 0.1)
    assert aes(100, 60, 0.8, 0.72) == pytest.approx(0.4 - 5 * 0.1)
    assert aes(100, 150, 0.8, 0.8) == pytest.approx(-0.5)
    assert aes(100, 60, 0.0, 0.1) is None
