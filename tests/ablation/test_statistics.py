"""Intervals, tests and choices against figures worked out otherwise."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from stages.ablation.statistics import comparisons, estimate, p_of_zero, ranking, reported_arms
from tests.ablation.toy_runs import measured, trained


def test_the_interval_over_seeds_is_students():
    found = estimate([1.0, 2.0, 3.0, 4.0, 5.0], 0.95)
    # sd sqrt(2.5), n 5, t(.975, 4) = 2.776445
    half = 2.776445 * math.sqrt(2.5 / 5)
    assert found.mean == 3.0 and found.num == 5
    assert found.interval == pytest.approx((3 - half, 3 + half), abs=1e-6)


def test_a_single_seed_has_neither_interval_nor_test():
    assert estimate([7.0], 0.95).interval is None
    assert p_of_zero([7.0]) is None


def test_the_p_value_is_that_of_scipys_t_test():
    values = [0.4, -0.1, 0.9, 0.3, 0.2]
    assert p_of_zero(values) == pytest.approx(stats.ttest_1samp(values, 0.0).pvalue)
    assert p_of_zero([-value for value in values]) == pytest.approx(p_of_zero(values))


def test_equal_differences_are_certain_and_none_at_all_shows_nothing():
    assert p_of_zero([0.3 - 0.2, 0.2 - 0.1]) == 0.0
    assert p_of_zero([0.0, 0.0, 0.0]) == 1.0


def test_arms_rank_by_seeds_done_then_fallbacks_then_tokens():
    tuned = {
        "long": {1: trained(80.0), 2: trained(82.0)},
        "short": {1: trained(70.0), 2: trained(72.0)},
        "fallen": {1: trained(50.0), 2: trained(50.0, fallback=True)},
        "broken": {1: trained(40.0)},
    }
    assert ranking(tuned, [*tuned, "untuned"]) == ["short", "long", "fallen", "broken"]


def test_of_variants_the_best_is_reported_and_all_while_none_is_tuned():
    arms, variants = ["half", "slow", "fast"], [["slow", "fast"]]
    tuned = {"slow": {1: trained(80.0)}, "fast": {1: trained(70.0)}}
    assert reported_arms(arms, variants, tuned) == ["half", "fast"]
    assert reported_arms(arms, variants, {}) == arms


def test_differences_are_paired_by_seed_and_corrected_over_arms():
    base = {6: measured(70.0, 0.980), 7: measured(74.0, 0.984), 8: measured(72.0, 0.982)}
    runs = {
        "half": base,
        "up": {6: measured(69.0, 0.981), 7: measured(72.5, 0.986), 8: measured(70.9, 0.985)},
        "fast": {8: measured(75.0, 0.979), 6: measured(71.0, 0.985), 7: measured(80.0, 0.983), 9: measured(1.0, 0.1)},
    }
    found = comparisons(runs, "half", 0.95)
    assert set(found) == {"up", "fast"}
    assert found["up"].tokens.estimate.mean == pytest.approx((-1.0 - 1.5 - 1.1) / 3)
    assert found["fast"].tokens.estimate.mean == pytest.approx((1.0 + 6.0 + 3.0) / 3)
    assert found["fast"].tokens.estimate.num == 3, "seed 9 has no partner"
    raw = {
        "up": stats.ttest_rel([69.0, 72.5, 70.9], [70.0, 74.0, 72.0]).pvalue,
        "fast": stats.ttest_rel([71.0, 80.0, 75.0], [70.0, 74.0, 72.0]).pvalue,
    }
    assert raw["up"] < raw["fast"]
    assert found["up"].tokens.p == pytest.approx(2 * raw["up"])
    assert found["fast"].tokens.p == pytest.approx(max(2 * raw["up"], raw["fast"]))
    accuracy = stats.ttest_rel([0.981, 0.986, 0.985], [0.980, 0.984, 0.982]).pvalue
    assert found["up"].accuracy.p == pytest.approx(2 * accuracy), "a family of its own"
