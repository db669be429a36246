"""Two models on the same questions: accuracy difference, non-inferiority verdict, token reduction, AES.

Everything is paired by question, samples averaged first. Functions over arrays; nothing is read or written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from stages.evidence.bootstrap import micro_interval, token_sums
from stages.evidence.estimates import QuestionTable, mean_and_error
from stages.evidence.pairing import Pair
from stages.evidence.score import lower_bound, p_at_most, score_bounds

Floats = NDArray[np.float64]
Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE"]
POWER = 0.8  # of the minimum detectable effect
MIN_CHANGED = 5  # questions whose accuracy changed; with fewer, their changes say little about how large others may be
AES_WEIGHTS = (1.0, 3.0, 5.0)


@dataclass(frozen=True)
class Difference:
    """Mean of per-question differences with a two-sided score interval; `se` is sd / sqrt(n), None for one question."""

    value: float
    se: float | None
    lower: float
    upper: float


@dataclass(frozen=True)
class Verdict:
    """PASS: `lower` above -margin. FAIL: `upper` below -margin. Otherwise INCONCLUSIVE.

    Each bound is one-sided at `alpha`. `p_inferior` is the p value of the hypothesis that at least the margin is lost (PASS
    rejects it), `p_regression` that of at most the margin (FAIL rejects it).
    """

    verdict: Outcome
    lower: float
    upper: float
    p_inferior: float
    p_regression: float
    minimum_detectable_effect: float
    margin: float
    alpha: float


def mean_difference(differences: ArrayLike, confidence: float) -> Difference:
    """Candidate minus baseline accuracy from per-question differences of shape (n,), values in [-1, 1].

    The interval of score.py with changes as large as those seen; for one sample per question it is Tango's. Where fewer than
    `MIN_CHANGED` questions changed, they may have been lost or won altogether, so its width is never zero.
    """
    array = _checked(differences)
    value, error = mean_and_error(array)
    extreme = float(np.abs(array).max()) if np.count_nonzero(array) >= MIN_CHANGED else 1.0
    return Difference(value, error, *score_bounds(array, _tail(confidence), extreme))


def non_inferiority(differences: ArrayLike, margin: float, alpha: float) -> Verdict:
    """Is the candidate at most `margin` less accurate? `differences`: candidate minus baseline per question, (n,).

    Its bounds allow for questions lost altogether that no sample has shown, so with few questions they are wider than the
    interval of `mean_difference`. The upper one is corrected for continuity by half a changed answer: with few changes the
    score test alone would call a loss of just the margin a FAIL in up to 9 % instead of 5 % of all samples.

    The minimum detectable effect is the smallest margin at which a candidate as accurate as the baseline would pass with
    probability `POWER`; both are shares (0.01 is one point).
    """
    if not 0 < margin < 1:
        raise ValueError(f"margin: {margin} is not between 0 and 1")
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha: {alpha} is not between 0 and 0.5")
    array = _checked(differences)
    changed = np.abs(array[array != 0])
    correction = (float(changed.min()) if changed.size else 1.0) / (2 * array.size)
    lower, upper = lower_bound(array, alpha), -lower_bound(-array, alpha, correction)
    z = float(special.ndtri(1 - alpha))
    spread = (float(array.mean()) - lower) / z  # the standard error wherever the sample is large
    outcome: Outcome = "PASS" if lower > -margin else "FAIL" if upper < -margin else "INCONCLUSIVE"
    return Verdict(
        outcome,
        lower,
        upper,
        p_inferior=p_at_most(array, -margin),
        p_regression=p_at_most(-array, margin, correction),
        minimum_detectable_effect=(z + float(special.ndtri(POWER))) * spread,
        margin=margin,
        alpha=alpha,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values of a family of tests, in the order given: at most alpha with that family-wise error rate.

    Source: Holm 1979, Scandinavian Journal of Statistics 6, 65-70.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def holm_verdicts(verdicts: Sequence[Verdict]) -> list[Outcome]:
    """The verdicts of several rows, each held to the level that keeps a false one among them below alpha."""
    passes = holm([verdict.p_inferior for verdict in verdicts])
    failures = holm([verdict.p_regression for verdict in verdicts])
    return [
        "PASS" if good < found.alpha else "FAIL" if bad < found.alpha else "INCONCLUSIVE"
        for found, good, bad in zip(verdicts, passes, failures, strict=True)
    ]


def _checked(differences: ArrayLike) -> Floats:
    array: Floats = np.asarray(differences, dtype=np.float64).round(12)  # 2/3 - 1/3 and 1 - 2/3 are the same difference
    mean_and_error(array)
    if np.abs(array).max() > 1:
        raise ValueError("differences: accuracies are shares, so their differences lie between -1 and 1")
    return array


def _tail(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: {confidence} is not between 0 and 1")
    return (1 - confidence) / 2


def micro_reduction(base_tokens: Floats, tokens: Floats) -> float:
    """1 - sum(tokens) / sum(base_tokens) over per-question means of shape (n,); negative if answers grew."""
    if base_tokens.size == 0 or base_tokens.shape != tokens.shape:
        raise ValueError(f"num_tokens: shapes {base_tokens.shape} and {tokens.shape} are not paired questions")
    if base_tokens.sum() <= 0:
        raise ValueError("num_tokens: all answers of the baseline are empty, there is nothing to reduce")
    return 1 - float(tokens.sum() / base_tokens.sum())


def macro_reduction(reductions: Sequence[float]) -> float:
    """Signed mean over benchmarks; nothing is clipped at zero."""
    return float(np.mean(reductions))


def clipped_reduction(reductions: Sequence[float]) -> float:
    """What the paper prints as A.C.R.: the mean over benchmarks with longer answers counted as 0. Flattering by design."""
    return float(np.mean(np.maximum(reductions, 0.0)))


def question_reductions(base_tokens: Floats, tokens: Floats) -> Floats:
    """1 - tokens / base_tokens of each question that the baseline did not answer with nothing."""
    answered = base_tokens > 0
    return np.asarray(1 - tokens[answered] / base_tokens[answered], dtype=np.float64)


def median_reduction(base_tokens: Floats, tokens: Floats) -> float:
    """Median over questions of their reductions."""
    return float(np.median(question_reductions(base_tokens, tokens)))


def both_correct_tokens(pair: Pair) -> tuple[Floats, Floats]:
    """Mean tokens of the correct answers before and after, shape (n,); 0 and 0 where not both models solved the question."""
    base, candidate = pair
    solved = base.correct.any(axis=1) & candidate.correct.any(axis=1)
    return _mean_correct_tokens(base) * solved, _mean_correct_tokens(candidate) * solved


def _mean_correct_tokens(table: QuestionTable) -> Floats:
    counts = np.maximum(table.correct.sum(axis=1), 1)
    return np.asarray((table.tokens * table.correct).sum(axis=1) / counts, dtype=np.float64)


def reduction_interval(
    base_tokens: Floats, tokens: Floats, *, confidence: float, resamples: int, seed: int | Sequence[int]
) -> tuple[float, float] | None:
    """Interval of the micro reduction by paired bootstrap over questions of shape (n,); None for a single question."""
    return micro_interval([token_sums(base_tokens, tokens, resamples, seed)], confidence)


def median_interval(base_tokens: Floats, tokens: Floats, confidence: float) -> tuple[float, float] | None:
    """Of the median reduction over questions, between order statistics: covers at least `confidence`, whatever the lengths.

    None where so few questions admit no such interval (below 6 at 95 %).
    """
    reductions = np.sort(question_reductions(base_tokens, tokens))
    num = len(reductions)
    rank = int(stats.binom.ppf(_tail(confidence), num, 0.5))
    if rank < 1:
        return None
    return float(reductions[rank - 1]), float(reductions[num - rank])


def aes(base_tokens: float, tokens: float, base_accuracy: float, accuracy: float) -> float | None:
    """Accuracy-efficiency score with weights (1, 3, 5); None if the baseline has no correct answer.

    Source: Luo et al. 2025 (O1-Pruner), https://arxiv.org/abs/2501.12570.
    """
    if base_accuracy <= 0:
        return None
    length_weight, gain_weight, loss_weight = AES_WEIGHTS
    shorter = (base_tokens - tokens) / base_tokens
    change = (accuracy - base_accuracy) / base_accuracy
    return length_weight * shorter + (gain_weight if change >= 0 else loss_weight) * change
