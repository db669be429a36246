"""The score interval against Tango's closed form, a published interval and the exact binomial bound."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, stats

from stages.evidence.paired import mean_difference, non_inferiority
from stages.evidence.score import score_bounds, score_statistic

Floats = NDArray[np.float64]


def changes(num: int, gains: int, losses: int) -> Floats:
    """Differences of one sample per question."""
    return np.array([1.0] * gains + [-1.0] * losses + [0.0] * (num - gains - losses))


def tango_statistic(num: int, gains: int, losses: int, mean: float) -> float:
    """Closed form of Tango 1998, equation 6: a quadratic for the constrained share of losses."""
    b = -gains - losses + (2 * num - gains + losses) * mean
    share = (np.sqrt(b**2 + 8 * num * losses * mean * (1 - mean)) - b) / (4 * num)
    return float((gains - losses - num * mean) / np.sqrt(num * (2 * share + mean * (1 - mean))))


@pytest.mark.parametrize(("num", "gains", "losses"), [(30, 0, 1), (30, 3, 1), (44, 1, 0), (160, 40, 20), (1319, 9, 14)])
@pytest.mark.parametrize("mean", [-0.3, -0.03, -0.001, 0.0, 0.02, 0.4])
def test_score_statistic_is_tango_closed_form(num: int, gains: int, losses: int, mean: float) -> None:
    expected = tango_statistic(num, gains, losses, mean)
    assert score_statistic(changes(num, gains, losses), mean) == pytest.approx(expected, rel=1e-6)


def test_score_interval_published_examples() -> None:
    # Airway hyper-responsiveness (Bentur 2009): Fagerland, Lydersen, Laake 2014, https://doi.org/10.1002/sim.6148
    low, high = score_bounds(changes(21, 1, 7), 0.025)
    assert (round(low, 3), round(high, 3)) == (-0.517, -0.026)


def test_score_interval_inverts_the_closed_form() -> None:
    z = stats.norm.ppf(0.95)
    found = score_bounds(changes(160, 40, 20), 0.05)
    expected = [optimize.brentq(lambda m, s=s: tango_statistic(160, 40, 20, m) - s, -0.9, 0.9) for s in (z, -z)]
    assert found == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(("num", "losses"), [(30, 0), (300, 3), (1319, 0)])
def test_without_gains_the_bound_is_at_least_as_far_as_the_exact_one(num: int, losses: int) -> None:
    exact = stats.binomtest(losses, num).proportion_ci(0.90, method="exact").high
    assert mean_difference(changes(num, 0, losses), 0.9).lower <= -exact + 1e-12


@pytest.mark.parametrize("num_samples", [1, 3, 8])
def test_every_verdict_has_bounds_in_order(num_samples: int) -> None:
    """Up to models that lose or win nearly everything, where the corrected mean lies beyond -1."""
    rng = np.random.default_rng(num_samples)
    for _ in range(300):
        num = int(rng.integers(1, 40))
        before, after = (rng.binomial(num_samples, rng.choice([0, 0.02, 0.5, 0.98, 1]), num) for _ in range(2))
        differences = (after - before) / num_samples
        found = non_inferiority(differences, 0.1, 0.05)
        assert -1 <= found.lower <= differences.mean() + 1e-9
        assert differences.mean() - 1e-9 <= found.upper <= 1
        assert (found.p_regression < 0.05) == (found.upper < -0.1)
        assert (found.p_inferior < 0.05) == (found.lower > -0.1)


def test_score_is_symmetric_and_never_of_zero_width() -> None:
    for num in (1, 2, 30, 500):
        for differences in (np.zeros(num), np.ones(num), changes(num, num // 2, num - num // 2)):
            found = mean_difference(differences, 0.9)
            mirrored = mean_difference(-differences, 0.9)
            assert -1 <= found.lower <= found.value <= found.upper <= 1
            assert found.upper - found.lower > 1e-3
            assert (mirrored.lower, mirrored.upper) == pytest.approx((-found.upper, -found.lower), abs=1e-9)
