"""Score bounds for the mean of paired differences in [-1, 1]: they stay honest with few questions or few changes.

With one sample per question the differences are -1, 0, 1 and this is Tango's interval (Statistics in Medicine 17,
1998, 891-908). With k samples per question the same test is used on their finer values: at a hypothetical mean the
variance comes from the multinomial that fits the data best among those with that mean, and this multinomial may put
weight on a change of size `extreme` that has not been seen: 1 (a question lost or won altogether) makes verdicts safe
against rare collapses; the largest change that was seen makes intervals as wide as they claim. Nothing is read or written.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

Floats = NDArray[np.float64]
NEAR_ONE = 1 - 1e-12


def score_bounds(differences: Floats, alpha: float, extreme: float = 1.0) -> tuple[float, float]:
    """One-sided lower and upper bound, each at level `alpha`; `differences` has shape (n,), values within +-`extreme`."""
    scaled = (differences / extreme).round(12)
    return lower_bound(scaled, alpha) * extreme, -lower_bound(-scaled, alpha) * extreme


def lower_bound(differences: Floats, alpha: float, correction: float = 0.0) -> float:
    """One-sided lower bound at level `alpha`; `correction` is a distance that the observed mean is moved down by."""
    num = differences.size
    values, counts = np.unique(differences, return_counts=True)
    shares = counts / num
    observed = float(values @ shares)
    z = float(special.ndtri(1 - alpha))
    bound = -1.0
    if observed - correction > -NEAR_ONE:
        bound = optimize.brentq(
            lambda mean: _statistic(values, shares, num, mean, correction) - z,
            -NEAR_ONE,
            min(observed, NEAR_ONE),
            xtol=1e-12,
        )
    if values[-1] <= 0:  # nothing gained: the normal approximation is at its worst, and an exact bound exists
        bound = min(bound, -_exact_rate(-observed * num, num, alpha))
    return float(bound)


def score_statistic(differences: Floats, mean: float, correction: float = 0.0) -> float:
    """Standardised distance of the observed mean from `mean`, -1 < mean < 1; about normal if `mean` is the truth."""
    values, counts = np.unique(differences, return_counts=True)
    return _statistic(values, counts / differences.size, differences.size, mean, correction)


def p_at_most(differences: Floats, mean: float, correction: float = 0.0) -> float:
    """One-sided p value of the hypothesis that the true mean is at most `mean`, -1 < mean < 1.

    Below alpha exactly where `lower_bound` at alpha, with the same correction, lies above `mean`.
    """
    num = differences.size
    p_value = float(special.ndtr(-score_statistic(differences, mean, correction)))
    if differences.max() <= 0 and mean < 0:  # the exact bound of `lower_bound`
        losses = -float(differences.sum())
        exact = 1.0 if losses >= num else 1 - float(special.betainc(losses + 1, num - losses, -mean))
        p_value = max(p_value, exact)
    return p_value


def _exact_rate(losses: float, num: int, alpha: float) -> float:
    """Upper bound of a loss rate, exact for whole `losses` (Clopper and Pearson 1934), in between for partial ones."""
    return float(special.betaincinv(losses + 1, num - losses, 1 - alpha)) if losses < num else 1.0


def _statistic(values: Floats, shares: Floats, num: int, mean: float, correction: float = 0.0) -> float:
    variance = _constrained_variance(values, shares, mean)
    distance = float(values @ shares) - mean - correction
    if variance <= 0:
        return 0.0 if distance == 0 else float(np.copysign(np.inf, distance))
    return distance / float(np.sqrt(variance / num))


def _constrained_variance(values: Floats, shares: Floats, mean: float) -> float:
    """Variance of the best-fitting multinomial with this mean, on the observed values, -1 and 1.

    Its weights are shares / (1 + t * (values - mean)), with t so that they have the mean (Owen 1988). When no t within
    the limits set by -1 and 1 does, t is at a limit and the missing weight lies on that extreme.
    """
    gaps = values - mean

    def imbalance(t: float) -> float:
        return float(np.sum(shares * gaps / (1 + t * gaps)))

    low, high = -NEAR_ONE / (1 - mean), NEAR_ONE / (1 + mean)
    if imbalance(high) >= 0:
        t, extreme = high, -1.0
    elif imbalance(low) <= 0:
        t, extreme = low, 1.0
    else:
        t, extreme = float(optimize.brentq(imbalance, low, high, xtol=1e-14)), 0.0
    weights = shares / (1 + t * gaps)
    missing = max(0.0, 1 - float(weights.sum()))
    return float(weights @ gaps**2) + missing * (extreme - mean) ** 2
