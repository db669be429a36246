"""Paired comparison against closed forms, plain loops and hand calculation."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from stages.evidence.paired import (
    MIN_CHANGED,
    POWER,
    Verdict,
    aes,
    holm,
    holm_verdicts,
    mean_difference,
    non_inferiority,
)
from stages.evidence.score import score_bounds

Floats = NDArray[np.float64]


def changes(num: int, gains: int, losses: int) -> Floats:
    """Differences of one sample per question."""
    return np.array([1.0] * gains + [-1.0] * losses + [0.0] * (num - gains - losses))


def test_interval_is_near_the_normal_one_with_many_changes() -> None:
    rng = np.random.default_rng(5)
    differences = (rng.binomial(4, 0.8, 600) - rng.binomial(4, 0.82, 600)) / 4
    found = mean_difference(differences, 0.95)
    assert found.se == pytest.approx(stats.sem(differences))
    expected = stats.norm.interval(0.95, loc=differences.mean(), scale=stats.sem(differences))
    assert (found.lower, found.upper) == pytest.approx(expected, abs=1e-3)


def test_few_changes_say_little_about_how_large_others_may_be() -> None:
    few, enough = (np.array([0.25, *[-0.25] * (num - 1), *[0.0] * 95]) for num in (MIN_CHANGED - 1, MIN_CHANGED))
    wide, narrow = mean_difference(few, 0.95), mean_difference(enough, 0.95)
    assert wide.lower < -0.03 < -0.027 < narrow.lower
    assert (wide.lower, wide.upper) == pytest.approx(score_bounds(few, 0.025))


def test_verdict_bounds_allow_for_losses_that_were_not_seen() -> None:
    differences = np.array([0.25, -0.25] * 10 + [0.0] * 80)
    verdict, found = non_inferiority(differences, 0.03, 0.025), mean_difference(differences, 0.95)
    assert verdict.lower < found.lower < 0 < found.upper < verdict.upper


def test_rounding_noise_is_not_a_change() -> None:
    differences = np.array([2 / 3 - 1 / 3 - 1 / 3, 1 - 2 / 3 - 1 / 3] * 200)
    assert np.count_nonzero(differences) > 0
    assert mean_difference(differences, 0.95) == mean_difference(np.zeros(400), 0.95)


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
    assert non_inferiority([0.5, 0.0, -0.25], 0.01, 0.05).lower <= -0.01


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


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_p_values_and_bounds_decide_alike(alpha: float) -> None:
    rng = np.random.default_rng(3)
    samples = [changes(300, gains, losses) for gains in (0, 2, 20) for losses in (0, 1, 6, 30)]
    samples += [(rng.binomial(4, p, 120) - rng.binomial(4, 0.9, 120)) / 4 for p in (0.7, 0.85, 0.9, 0.95)]
    decided = []
    for differences in samples:
        for margin in (0.004, 0.01, 0.05):
            found = non_inferiority(differences, margin, alpha)
            assert (found.p_inferior < alpha) == (found.lower > -margin)
            assert (found.p_regression < alpha) == (found.upper < -margin)
            decided.append(found.verdict)
    assert set(decided) == {"PASS", "FAIL", "INCONCLUSIVE"}


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_verdicts_hold_rows_to_the_level_of_all() -> None:
    passing, failing = non_inferiority(changes(400, 4, 1), 0.01, 0.05), non_inferiority(changes(400, 3, 14), 0.01, 0.05)
    assert (passing.verdict, failing.verdict) == ("PASS", "FAIL")
    assert 0.05 / 8 < passing.p_inferior < 0.05 > failing.p_regression > 0.05 / 8
    assert holm_verdicts([passing]) == ["PASS"]
    unclear: Verdict = non_inferiority(np.zeros(30), 0.01, 0.05)
    assert holm_verdicts([passing, failing] + [unclear] * 6) == ["INCONCLUSIVE"] * 8


def test_aes_by_hand() -> None:
    assert aes(100, 60, 0.8, 0.88) == pytest.approx(0.4 + 3 * 0.1)
    assert aes(100, 60, 0.8, 0.72) == pytest.approx(0.4 - 5 * 0.1)
    assert aes(100, 150, 0.8, 0.8) == pytest.approx(-0.5)
    assert aes(100, 60, 0.0, 0.1) is None
