"""What the runs of the ablation say: intervals over seeds, the best static share, paired differences from it.

The training seed is the unit: a seed is one training run, with its own samples, mixture and answers. Intervals and tests are
Student's t over seeds. All seeds answer the same test questions, so nothing here holds over other questions. Pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from stages.evidence.paired import holm


@dataclass(frozen=True)
class Trained:
    """One training run on the control set: the selected checkpoint and the base model. Tokens are means per answer."""

    tokens: float
    accuracy: float
    base_tokens: float
    base_accuracy: float
    selected_step: int
    fallback: bool
    short_share: float


@dataclass(frozen=True)
class Tested:
    """The same run on the test set; `reduction` is micro, `difference` in accuracy against the base model of the seed."""

    trained: Trained
    tokens: float
    accuracy: float
    base_tokens: float
    base_accuracy: float
    reduction: float
    difference: float
    passed: bool


Seeds = Mapping[int, Trained]
TestSeeds = Mapping[int, Tested]


@dataclass(frozen=True)
class Estimate:
    """Mean over `num` seeds with a two-sided t interval, None for a single seed."""

    mean: float
    interval: tuple[float, float] | None
    num: int


@dataclass(frozen=True)
class Contrast:
    """An arm less the best static arm, paired by seed; `p` is two-sided, corrected over the arms (Holm)."""

    estimate: Estimate
    p: float | None


@dataclass(frozen=True)
class Comparison:
    """`tokens` per answer and `accuracy` as a share, on the seeds that both arms have."""

    tokens: Contrast
    accuracy: Contrast


def estimate(values: Sequence[float], confidence: float) -> Estimate:
    """Of at least one value; equal values have an interval of no width."""
    array = np.asarray(values, dtype=np.float64)
    mean = float(array.mean())
    if len(array) < 2:
        return Estimate(mean, None, len(array))
    half = float(stats.t.ppf((1 + confidence) / 2, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array)))
    return Estimate(mean, (mean - half, mean + half), len(array))


def p_of_zero(differences: Sequence[float]) -> float | None:
    """Two-sided p value of a mean of 0 (t test); None for a single difference, where nothing says how far it may be chance."""
    array = np.asarray(differences, dtype=np.float64).round(12)  # 0.3 - 0.2 and 0.2 - 0.1 are the same difference
    if len(array) < 2:
        return None
    error = array.std(ddof=1) / np.sqrt(len(array))
    if error == 0:
        return 1.0 if array.mean() == 0 else 0.0
    return float(2 * stats.t.sf(abs(array.mean()) / error, len(array) - 1))


def ranking(tuned: Mapping[str, Seeds], arms: Sequence[str]) -> list[str]:
    """`arms` from the best on: most tuning seeds done, fewest fallbacks, then fewest control tokens at selected checkpoints.

    A checkpoint that is no fallback was shown to keep its accuracy on the control set, so tokens decide among those. Arms
    without any run are left out.
    """

    def key(arm: str) -> tuple[int, int, float]:
        runs = list(tuned[arm].values())
        return -len(runs), sum(run.fallback for run in runs), float(np.mean([run.tokens for run in runs]))

    return sorted((arm for arm in arms if tuned.get(arm)), key=key)


def reported_arms(arms: Sequence[str], variants: Sequence[Sequence[str]], tuned: Mapping[str, Seeds]) -> list[str]:
    """`arms` without those that another variant of their group beat in `ranking`."""
    beaten = {name for group in variants for name in ranking(tuned, group)[1:]}
    return [arm for arm in arms if arm not in beaten]


def comparisons(tested: Mapping[str, TestSeeds], reference: str, confidence: float) -> dict[str, Comparison]:
    """Every other arm against `reference`; tokens and accuracy are two families of tests."""
    base = tested[reference]
    paired = {arm: sorted(base.keys() & runs.keys()) for arm, runs in tested.items() if arm != reference}
    paired = {arm: seeds for arm, seeds in paired.items() if seeds}
    tokens = {a: [tested[a][s].tokens - base[s].tokens for s in seeds] for a, seeds in paired.items()}
    accuracy = {a: [tested[a][s].accuracy - base[s].accuracy for s in seeds] for a, seeds in paired.items()}
    by_tokens, by_accuracy = _contrasts(tokens, confidence), _contrasts(accuracy, confidence)
    return {arm: Comparison(by_tokens[arm], by_accuracy[arm]) for arm in paired}


def _contrasts(differences: Mapping[str, Sequence[float]], confidence: float) -> dict[str, Contrast]:
    tests = {arm: p for arm, values in differences.items() if (p := p_of_zero(values)) is not None}
    corrected = dict(zip(tests, holm(list(tests.values())), strict=True))
    return {arm: Contrast(estimate(values, confidence), corrected.get(arm)) for arm, values in differences.items()}
