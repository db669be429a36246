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

from stages.evidence.estimates import QuestionTable, mean_and_error
from stages.evidence.score import score_bounds

Floats = NDArray[np.float64]
Pair = tuple[QuestionTable, QuestionTable]
MIN_QUESTIONS = 300  # below it normal and percentile intervals are too short
MIN_DISCORDANT = 100  # questions that differ; with fewer, rare full losses make the normal interval too short
POWER = 0.8  # of the minimum detectable effect
AES_WEIGHTS = (1.0, 3.0, 5.0)
MAX_ELEMENTS = 2_000_000  # of one block of bootstrap indices: 16 MB


@dataclass(frozen=True)
class Difference:
    """Mean of per-question differences; each bound is one-sided at `alpha`, both together hold 1 - 2 alpha."""

    value: float
    se: float | None
    lower: float
    upper: float
    method: Literal["normal", "score"]


@dataclass(frozen=True)
class Verdict:
    """PASS: lower bound above -margin. FAIL: upper bound below -margin. Otherwise INCONCLUSIVE."""

    verdict: Literal["PASS", "FAIL", "INCONCLUSIVE"]
    difference: Difference
    minimum_detectable_effect: float
    margin: float
    alpha: float

    @property
    def lower(self) -> float:
        return self.difference.lower


def align(base: QuestionTable, candidate: QuestionTable) -> QuestionTable:
    """The candidate with its questions in the order of the baseline; ValueError names the field that differs."""
    positions = {question_id: i for i, question_id in enumerate(candidate.question_ids)}
    missing = [question_id for question_id in base.question_ids if question_id not in positions]
    extra = sorted(set(candidate.question_ids) - set(base.question_ids))
    if missing or extra:
        side, example = ("candidate", missing[0]) if missing else ("baseline", extra[0])
        raise ValueError(
            f"question_id: task {base.task!r} has different questions in the two models, {len(missing)} only in the "
            f"baseline and {len(extra)} only in the candidate; {example!r} is missing in the {side}"
        )
    if base.num_samples != candidate.num_samples:
        raise ValueError(
            f"sample_index: task {base.task!r} has {base.num_samples} samples per question in the baseline and "
            f"{candidate.num_samples} in the candidate; evaluate both with the same number"
        )
    aligned = candidate.select([positions[question_id] for question_id in base.question_ids])
    for question_id, before, after in zip(base.question_ids, base.groups, aligned.groups, strict=True):
        if before != after:
            raise ValueError(f"group: question {question_id!r} is {before!r} in one model and {after!r} in the other")
    return aligned


def mean_difference(differences: ArrayLike, alpha: float) -> Difference:
    """Candidate minus baseline accuracy from per-question differences of shape (n,), values in [-1, 1].

    The normal interval, clustered by question, is used for several samples per question if there are at least
    `MIN_QUESTIONS` questions and `MIN_DISCORDANT` of them differ; otherwise the score interval of score.py, which for
    one sample per question is Tango's. Its width is never zero.
    """
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha: {alpha} is not between 0 and 0.5")
    array: Floats = np.asarray(differences, dtype=np.float64).round(12)  # 2/3 - 1/3 and 1 - 2/3 are the same difference
    value, error = mean_and_error(array)
    if np.abs(array).max() > 1:
        raise ValueError("differences: accuracies are shares, so their differences lie between -1 and 1")
    whole = bool((array == np.round(array)).all())
    if not whole and error is not None and array.size >= MIN_QUESTIONS and np.count_nonzero(array) >= MIN_DISCORDANT:
        half = float(special.ndtri(1 - alpha)) * error
        return Difference(value, error, max(-1.0, value - half), min(1.0, value + half), "normal")
    return Difference(value, error, *score_bounds(array, alpha), "score")


def non_inferiority(differences: ArrayLike, margin: float, alpha: float) -> Verdict:
    """Is the candidate at most `margin` less accurate? `differences`: candidate minus baseline per question, (n,).

    The minimum detectable effect is the smallest margin at which a candidate as accurate as the baseline would pass
    with probability `POWER`; both are shares (0.01 is one point).
    """
    if not 0 < margin < 1:
        raise ValueError(f"margin: {margin} is not between 0 and 1")
    difference = mean_difference(differences, alpha)
    z = float(special.ndtri(1 - alpha))
    spread = (difference.value - difference.lower) / z  # the standard error wherever the normal interval is used
    effect = (z + float(special.ndtri(POWER))) * spread
    if difference.lower > -margin:
        return Verdict("PASS", difference, effect, margin, alpha)
    if difference.upper < -margin:
        return Verdict("FAIL", difference, effect, margin, alpha)
    return Verdict("INCONCLUSIVE", difference, effect, margin, alpha)


def micro_reduction(base_tokens: Floats, tokens: Floats) -> float:
    """1 - sum(tokens) / sum(base_tokens) over per-question means of shape (n,); negative if answers grew."""
    if base_tokens.size == 0 or base_tokens.shape != tokens.shape:
        raise ValueError(f"num_tokens: shapes {base_tokens.shape} and {tokens.shape} are not paired questions")
    if (base_tokens <= 0).any():
        raise ValueError("num_tokens: the baseline has a question whose answers are all empty, nothing to reduce")
    return 1 - float(tokens.sum() / base_tokens.sum())


def macro_reduction(reductions: Sequence[float]) -> float:
    """Signed mean over benchmarks; nothing is clipped at zero."""
    return float(np.mean(reductions))


def median_reduction(base_tokens: Floats, tokens: Floats) -> float:
    """Median over questions of 1 - tokens / base_tokens."""
    return float(np.median(1 - tokens / base_tokens))


def both_correct_reduction(pairs: Sequence[Pair]) -> float | None:
    """Micro reduction between the correct answers of the questions that both models solved; None if there are none."""
    before, after = [], []
    for base, candidate in pairs:
        solved = base.correct.any(axis=1) & candidate.correct.any(axis=1)
        before.append(_mean_correct_tokens(base)[solved])
        after.append(_mean_correct_tokens(candidate)[solved])
    base_tokens, tokens = np.concatenate(before), np.concatenate(after)
    return 1 - float(tokens.sum() / base_tokens.sum()) if base_tokens.sum() > 0 else None


def _mean_correct_tokens(table: QuestionTable) -> Floats:
    counts = np.maximum(table.correct.sum(axis=1), 1)
    return np.asarray((table.tokens * table.correct).sum(axis=1) / counts, dtype=np.float64)


def reduction_interval(
    base_tokens: Floats, tokens: Floats, *, alpha: float, resamples: int, seed: int | Sequence[int]
) -> tuple[float, float] | None:
    """Interval at 1 - 2 alpha of the micro reduction by paired bootstrap over questions; None for a single question.

    From `MIN_QUESTIONS` on percentiles, below BCa on the log ratio (Efron 1987). Width zero only if every question
    shrank by the same factor.
    """
    value = micro_reduction(base_tokens, tokens)
    if base_tokens.size == 1:
        return None
    ratios = tokens / base_tokens
    if np.ptp(ratios) <= 1e-12 * max(1.0, float(ratios.max())):
        return value, value
    rng = np.random.default_rng(seed)
    if base_tokens.size < MIN_QUESTIONS and (tokens > 0).all():
        return _bca(base_tokens, tokens, alpha, resamples, rng)
    draws = bootstrap_ratios(base_tokens, tokens, resamples, rng)
    low, high = np.quantile(draws, [alpha, 1 - alpha])
    return 1 - float(high), 1 - float(low)


def bootstrap_ratios(base_tokens: Floats, tokens: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """`resamples` draws of sum(tokens) / sum(base_tokens) over questions drawn with replacement, shape (resamples,)."""
    num = base_tokens.size
    block = max(1, MAX_ELEMENTS // num)
    draws = np.empty(resamples)
    for start in range(0, resamples, block):
        chosen = rng.integers(num, size=(min(block, resamples - start), num))
        draws[start : start + block] = tokens[chosen].sum(axis=1) / base_tokens[chosen].sum(axis=1)
    return draws


def _bca(
    base_tokens: Floats, tokens: Floats, alpha: float, resamples: int, rng: np.random.Generator
) -> tuple[float, float]:
    def log_ratio(after: Floats, before: Floats, axis: int = -1) -> Floats:
        return np.asarray(np.log(after.sum(axis=axis) / before.sum(axis=axis)), dtype=np.float64)

    result = stats.bootstrap(
        (tokens, base_tokens),
        log_ratio,
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        confidence_level=1 - 2 * alpha,
        method="BCa",
        rng=rng,
    )
    low, high = result.confidence_interval
    if not (np.isfinite(low) and np.isfinite(high)):  # all draws on one side: BCa has no correction to offer
        low, high = np.quantile(result.bootstrap_distribution, [alpha, 1 - alpha])
    return 1 - float(np.exp(high)), 1 - float(np.exp(low))


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
