"""Coverage and false passes where the truth is known: simulated pairs of models, and enumeration of all tables.

Small on purpose (seconds, seeded); the tolerances are about three Monte Carlo errors.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from stages.evidence.paired import non_inferiority, reduction_interval

Floats = NDArray[np.float64]


def changes(num: int, gains: int, losses: int) -> Floats:
    """Differences of one sample per question."""
    return np.array([1.0] * gains + [-1.0] * losses + [0.0] * (num - gains - losses))


def lengths(num: int, seed: int) -> tuple[Floats, Floats]:
    """Skewed token means per question, the candidate at about half with its own noise."""
    rng = np.random.default_rng(seed)
    before = rng.lognormal(5, 0.7, num)
    return before, before * rng.lognormal(-0.7, 0.4, num)


def simulated_differences(draws: int, num: int, loss: float, accuracy: float, samples: int, seed: int) -> Floats:
    """Shape (draws, num): correlated samples, question accuracies beta distributed, the candidate `loss` lower."""
    rng = np.random.default_rng(seed)
    before = rng.beta(4 * accuracy, 4 * (1 - accuracy), (draws, num))
    after = before * (1 - loss / accuracy)
    return (rng.binomial(samples, after) - rng.binomial(samples, before)) / samples


def test_calibration_of_the_accuracy_difference_in_the_default_profile() -> None:
    draws = simulated_differences(800, 1000, 0.01, 0.985, 4, seed=21)
    found = [non_inferiority(draw, 0.01, 0.05) for draw in draws]
    covered = np.mean([v.difference.lower <= -0.01 <= v.difference.upper for v in found])
    false_passes = np.mean([v.verdict == "PASS" for v in found])
    assert covered == pytest.approx(0.90, abs=0.035)
    assert false_passes <= 0.05 + 0.025
    no_loss = simulated_differences(300, 1000, 0.0, 0.985, 4, seed=22)
    assert np.mean([non_inferiority(draw, 0.01, 0.05).verdict == "PASS" for draw in no_loss]) > 0.8


@pytest.mark.parametrize(("num", "samples", "accuracy", "loss"), [(30, 1, 0.97, 0.03), (30, 4, 0.97, 0.03)])
def test_small_samples_do_not_pass_a_loss_as_large_as_the_margin(
    num: int, samples: int, accuracy: float, loss: float
) -> None:
    draws = simulated_differences(400, num, loss, accuracy, samples, seed=23)
    assert np.mean([non_inferiority(draw, loss, 0.05).verdict == "PASS" for draw in draws]) <= 0.05 + 0.025


def test_false_pass_rate_for_one_sample_by_enumeration() -> None:
    num, margin = 100, 0.03  # every table of gains and losses, at several true rates of gains
    tables = [(g, k) for g in range(20) for k in range(26)]
    passes = np.array([non_inferiority(changes(num, g, k), margin, 0.05).verdict == "PASS" for g, k in tables])
    counts = np.array([(g, k, num - g - k) for g, k in tables])
    for gain in (0.0, 0.005, 0.02, 0.04):
        rates = [gain, gain + margin, 1 - 2 * gain - margin]
        assert stats.multinomial.pmf(counts, num, rates)[passes].sum() <= 0.055


@pytest.mark.parametrize(("num", "draws"), [(1000, 400), (60, 300)])
def test_calibration_of_the_token_interval(num: int, draws: int) -> None:
    rng = np.random.default_rng(31)
    truth = 1 - float(np.exp(-0.7 + 0.4**2 / 2))  # ratio of means of `lengths`, noise independent of length
    hits = 0
    for _ in range(draws):
        before, after = lengths(num, int(rng.integers(1 << 30)))
        found = reduction_interval(before, after, alpha=0.05, resamples=400, seed=1)
        assert found is not None
        hits += found[0] <= truth <= found[1]
    assert hits / draws == pytest.approx(0.90, abs=0.045)


def test_rare_full_losses_do_not_pass_unseen() -> None:
    """Three questions in a hundred lose every answer: a small sample may hold none of them, and must not pass."""
    rng = np.random.default_rng(41)
    for num in (30, 125):
        before = rng.beta(1.94, 0.06, (400, num))
        after = np.where(rng.random((400, num)) < 0.03 / 0.97, 0.0, before)
        draws = (rng.binomial(4, after) - rng.binomial(4, before)) / 4
        assert np.mean([non_inferiority(draw, 0.03, 0.05).verdict == "PASS" for draw in draws]) <= 0.05 + 0.03
