"""Coverage, false passes and power where the truth is known: simulated pairs of models, and enumeration of all tables.

`benchmarks.calibration` holds the simulation; here it runs at 300 draws of 1,000 resamples, seeded, and the committed
results of 1,000 draws of 10,000 are held to the same bands.
"""

from __future__ import annotations

import csv

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from benchmarks.calibration import ALPHA, OUT, SCENARIOS, Scenario, calibrate
from stages.evidence.paired import non_inferiority

Floats = NDArray[np.float64]
DRAWS, RESAMPLES = 300, 1000
SMALL = [scenario for scenario in SCENARIOS if scenario.num <= 100]
LARGE = [scenario for scenario in SCENARIOS if scenario.num == 300][::3]


def band(num_questions: int, draws: int) -> tuple[float, float]:
    """Between which the coverage of 95 % intervals must lie, two Monte Carlo errors of it allowed."""
    low, high = (0.90, 0.98) if num_questions < 100 else (0.93, 0.97)
    error = 2 * np.sqrt(0.95 * 0.05 / draws)
    return low - error, high + error


def most_false_passes(draws: int) -> float:
    return ALPHA + 3 * float(np.sqrt(ALPHA * (1 - ALPHA) / draws))


@pytest.mark.parametrize("scenario", [*SMALL, *LARGE], ids=lambda scenario: f"{scenario.name}-{scenario.num}")
def test_intervals_cover_and_a_loss_as_large_as_the_margin_does_not_pass(scenario: Scenario) -> None:
    found = calibrate(scenario, DRAWS, RESAMPLES, seed=scenario.num)
    low, high = band(scenario.num, DRAWS)
    assert low <= found.coverage_accuracy <= high
    assert low <= found.coverage_tokens <= high
    assert found.false_pass <= most_false_passes(DRAWS)
    assert found.false_fail <= most_false_passes(DRAWS)
    assert found.power >= found.false_pass  # a model without loss passes at least as often


def committed() -> list[dict[str, str]]:
    with OUT.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_committed_results_are_of_these_scenarios_and_within_the_bands() -> None:
    rows = committed()
    assert [(row["scenario"], int(row["questions"])) for row in rows] == [(s.name, s.num) for s in SCENARIOS]
    for row in rows:
        assert (row["draws"], row["resamples"]) == ("1000", "10000")
        low, high = band(int(row["questions"]), 1000)
        for name in ("coverage_accuracy", "coverage_tokens"):
            assert low <= float(row[name]) <= high, row
        for name in ("false_pass", "false_fail"):
            assert float(row[name]) <= most_false_passes(1000), row


def test_power_grows_with_the_number_of_questions() -> None:
    for name in {scenario.name for scenario in SCENARIOS}:
        powers = [float(row["power"]) for row in committed() if row["scenario"] == name]
        assert powers == sorted(powers)
        assert powers[-1] > 0.7


def changes(num: int, gains: int, losses: int) -> Floats:
    """Differences of one sample per question."""
    return np.array([1.0] * gains + [-1.0] * losses + [0.0] * (num - gains - losses))


def test_false_verdicts_for_one_sample_by_enumeration() -> None:
    num, margin = 100, 0.03  # every table of gains and losses, at several true rates of gains
    tables = [(g, k) for g in range(20) for k in range(26)]
    verdicts = np.array([non_inferiority(changes(num, g, k), margin, 0.05).verdict for g, k in tables])
    passes, fails = verdicts == "PASS", verdicts == "FAIL"
    counts = np.array([(g, k, num - g - k) for g, k in tables])
    for gain in (0.0, 0.005, 0.02, 0.04):
        rates = [gain, gain + margin, 1 - 2 * gain - margin]
        assert stats.multinomial.pmf(counts, num, rates)[passes].sum() <= 0.055
        assert stats.multinomial.pmf(counts, num, rates)[fails].sum() <= 0.05


def test_the_default_profile_has_power_and_does_not_pass_its_margin() -> None:
    """1,000 questions, 4 answers each, accuracy .985, 1 point: the size of the shipped test set."""
    found = calibrate(Scenario("default", 1000, 4, 0.985, 4.0, 0.01), DRAWS, 200, seed=21)
    assert found.false_pass <= most_false_passes(DRAWS)
    assert found.power > 0.8


def test_rare_full_losses_do_not_pass_unseen() -> None:
    """Three questions in a hundred lose every answer: a small sample may hold none of them, and must not pass."""
    for num in (30, 125):
        scenario = Scenario("collapse", num, 4, 0.97, 2.0, 0.03, collapse=True)
        assert calibrate(scenario, 400, 100, seed=41).false_pass <= most_false_passes(400)
