"""Do the intervals and verdicts hold what they claim? Simulated pairs of models whose truth is known.

Writes benchmarks/calibration.csv: a row per scenario with coverage of the 95 % intervals, the rate at which a loss as large
as the margin passes, and power. tests/evidence/test_calibration.py repeats it at a smaller size and holds the file to the
bands. Run: `python -m benchmarks.calibration` (about a quarter of an hour on 2 cores).
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.evidence.paired import mean_difference, non_inferiority, reduction_interval

Floats = NDArray[np.float64]
OUT = Path(__file__).with_suffix(".csv")
CONFIDENCE, ALPHA = 0.95, 0.05


@dataclass(frozen=True)
class Scenario:
    """`num` questions with `samples` answers each, whose chance of being right is beta distributed about `accuracy`.

    `spread`: beta concentration, small is all or nothing. The candidate loses `loss` (the margin): a share of every
    question's chance, or with `collapse` all of it on some questions. Lengths are lognormal between (`length_sd`) and
    within questions; the candidate's ratio has a mean of about a half and depends on the question by `ratio_sd`.
    """

    name: str
    num: int
    samples: int
    accuracy: float
    spread: float
    loss: float
    collapse: bool = False
    length_sd: float = 0.7
    ratio_sd: float = 0.4

    @property
    def reduction(self) -> float:
        """The true micro reduction: the ratio of the lognormal means."""
        return 1 - float(np.exp(MEAN_LOG_RATIO + self.ratio_sd**2 / 2))


MEAN_LOG_RATIO = -0.7
WITHIN_SD = 0.4  # of the logarithm of a length, between answers to one question
SHAPES: tuple[dict[str, Any], ...] = (
    {"name": "one sample", "samples": 1, "accuracy": 0.8, "spread": 2.0, "loss": 0.03},
    {"name": "one sample, near the ceiling", "samples": 1, "accuracy": 0.97, "spread": 4.0, "loss": 0.03},
    {"name": "four samples", "samples": 4, "accuracy": 0.85, "spread": 4.0, "loss": 0.02},
    {"name": "eight samples, hard", "samples": 8, "accuracy": 0.5, "spread": 1.0, "loss": 0.03},
    {
        "name": "eight samples, skewed lengths",
        "samples": 8,
        "accuracy": 0.8,
        "spread": 2.0,
        "loss": 0.03,
        "length_sd": 1.0,
    },
    {"name": "four samples, near the ceiling", "samples": 4, "accuracy": 0.97, "spread": 4.0, "loss": 0.02},
    {"name": "questions collapse", "samples": 4, "accuracy": 0.9, "spread": 4.0, "loss": 0.03, "collapse": True},
)
SIZES = (30, 100, 300, 1319)
SCENARIOS = [Scenario(num=num, **shape) for num in SIZES for shape in SHAPES]


def simulate(scenario: Scenario, loss: float, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Per question: accuracy difference, tokens before, tokens after; each of shape (num,)."""
    num, samples, accuracy = scenario.num, scenario.samples, scenario.accuracy
    before = rng.beta(scenario.spread * accuracy, scenario.spread * (1 - accuracy), num)
    lost = loss / accuracy
    kept = rng.random(num) >= lost if scenario.collapse else 1 - lost
    difference = (rng.binomial(samples, before * kept) - rng.binomial(samples, before)) / samples
    length = np.exp(6 + scenario.length_sd * rng.standard_normal(num))
    ratio = np.exp(MEAN_LOG_RATIO + scenario.ratio_sd * rng.standard_normal(num))
    noise = np.exp(WITHIN_SD * rng.standard_normal((2, samples, num)) - WITHIN_SD**2 / 2).mean(axis=1)
    return difference, length * noise[0], length * ratio * noise[1]


@dataclass(frozen=True)
class Calibration:
    """Rates over the draws. `false_pass` and `false_fail`: verdicts at a true loss equal to the margin; `power`: PASS at no
    loss; `changed`: mean number of questions whose accuracy differs."""

    coverage_accuracy: float
    coverage_tokens: float
    false_pass: float
    false_fail: float
    power: float
    changed: float
    width_accuracy: float
    width_tokens: float


def calibrate(scenario: Scenario, draws: int, resamples: int, seed: int) -> Calibration:
    """Rates over `draws` simulated pairs at the margin, and as many at no loss."""
    rng = np.random.default_rng(seed)
    rows = np.array([_draw(scenario, resamples, rng) for _ in range(draws)])
    return Calibration(*(float(value) for value in rows.mean(axis=0)))


def _draw(scenario: Scenario, resamples: int, rng: np.random.Generator) -> list[float]:
    difference, before, after = simulate(scenario, scenario.loss, rng)
    found = mean_difference(difference, CONFIDENCE)
    seed = int(rng.integers(1 << 32))
    tokens = reduction_interval(before, after, confidence=CONFIDENCE, resamples=resamples, seed=seed)
    verdict = non_inferiority(difference, scenario.loss, ALPHA).verdict
    same, _, _ = simulate(scenario, 0.0, rng)
    low, high = tokens or (-np.inf, 1.0)
    return [
        found.lower <= -scenario.loss <= found.upper,
        low <= scenario.reduction <= high,
        verdict == "PASS",
        verdict == "FAIL",
        non_inferiority(same, scenario.loss, ALPHA).verdict == "PASS",
        np.count_nonzero(difference),
        found.upper - found.lower,
        high - low,
    ]


def _rows(draws: int, resamples: int) -> Iterator[dict[str, Any]]:
    with ProcessPoolExecutor(2) as pool:
        size = len(SCENARIOS)
        found = pool.map(calibrate, SCENARIOS, [draws] * size, [resamples] * size, range(size))
        for scenario, calibration in zip(SCENARIOS, found, strict=True):
            row = {"scenario": scenario.name, "questions": scenario.num, "samples": scenario.samples}
            row |= {"margin": scenario.loss, "draws": draws, "resamples": resamples}
            row |= {field.name: round(getattr(calibration, field.name), 4) for field in fields(calibration)}
            print(row, flush=True)
            yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=10_000)
    arguments = parser.parse_args()
    rows = list(_rows(arguments.draws, arguments.resamples))
    with OUT.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
