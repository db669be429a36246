"""False passes and false alarms of the gate where the truth is known: simulated benchmarks with several samples.

`benchmarks.gate` holds the simulation. Small on purpose (seconds, seeded); the tolerances are about three Monte Carlo errors.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.gate import policy, verdicts
from stages.evidence.gate import rate_p_value


def test_a_loss_as_large_as_the_margin_rarely_passes() -> None:
    found = verdicts(policy(0.03, None), loss=0.03, growth=1.0, benchmarks=1, draws=250, seed=51)
    assert found.count("PASS") / 250 <= 0.05 + 0.035


def test_no_change_rarely_fails() -> None:
    found = verdicts(policy(0.03, -0.05), loss=0.0, growth=1.0, benchmarks=1, draws=250, seed=52)
    assert found.count("FAIL") / 250 <= 0.05
    assert found.count("PASS") / 250 > 0.2


def test_seven_unchanged_benchmarks_rarely_fail() -> None:
    found = verdicts(policy(0.03, -0.05), loss=0.0, growth=1.0, benchmarks=7, draws=40, seed=53)
    assert found.count("FAIL") / 40 <= 0.05


@pytest.mark.parametrize(("loss", "growth", "minimum"), [(0.03, 1.0, None), (0.0, 1.0, 0.0)])
def test_seven_benchmarks_at_their_limit_fail_together_at_the_level(
    loss: float, growth: float, minimum: float | None
) -> None:
    """Every benchmark loses its margin, or saves nothing where nothing must be saved: still within the limits."""
    found = verdicts(policy(0.03, minimum), loss, growth, benchmarks=7, draws=60, seed=54)
    assert found.count("FAIL") / 60 <= 0.05 + 0.085


def test_a_large_loss_or_growth_on_one_of_seven_is_found() -> None:
    rules = policy(0.03, -0.05)
    lost = verdicts(rules, loss=0.12, growth=1.0, benchmarks=7, draws=10, seed=55)
    grown = verdicts(rules, loss=0.0, growth=1.3, benchmarks=7, draws=10, seed=56)
    assert lost.count("FAIL") >= 9 and grown.count("FAIL") >= 9


@pytest.mark.parametrize(("num", "samples", "limit"), [(40, 1, 0.05), (100, 4, 0.05), (1000, 4, 0.05), (500, 8, 0.02)])
@pytest.mark.parametrize("alike", [0.2, 1e6])
def test_a_rate_at_its_limit_is_rarely_shown_to_exceed_it(num: int, samples: int, limit: float, alike: float) -> None:
    """`alike` small: the answers to a question are cut together; large: independently of each other."""
    rng = np.random.default_rng(57)
    chances = rng.beta(alike * limit, alike * (1 - limit), (600, num))
    rates = rng.binomial(samples, chances) / samples
    assert np.mean([rate_p_value(row, limit) <= 0.05 for row in rates]) <= 0.05 + 0.025
