"""Paired bootstrap over questions: symmetric bootstrap-t intervals of token reductions, one pass of draws for all of them.

Lengths are skewed, and with few questions percentile and BCa intervals are too short; studentised on the log ratio they
are the best of those that benchmarks/calibration.py compares. Sources: Efron and Tibshirani 1993, chapter 12; Hall 1988,
https://doi.org/10.1111/j.2517-6161.1988.tb01707.x (symmetric intervals). Nothing is read or written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Interval = tuple[float, float]
MAX_ELEMENTS = 1_000_000  # questions drawn in one block: 8 MB of indices and 8 MB of counts
WIDEST = np.log(100)  # a bound a hundred times as far from zero tokens as the other says nothing
SAME = 1e-9  # relative; a standard error below this share of the ratio is rounding


@dataclass(frozen=True, eq=False)
class TokenSums:
    """Sums over the questions of one benchmark of (b, a, bb, ab, aa), b and a the tokens per question before and after.

    `observed` has shape (5,), `draws` shape (resamples, 5): the same sums over `num` questions drawn with replacement.
    """

    num: int
    observed: Floats
    draws: Floats


def token_sums(before: Floats, after: Floats, resamples: int, seed: int | Sequence[int]) -> TokenSums:
    """From per-question tokens of shape (n,); questions that do not count have 0 in both."""
    columns = np.stack([before, after, before * before, before * after, after * after], axis=1)
    return TokenSums(len(columns), columns.sum(axis=0), resampled_sums(columns, resamples, seed))


def resampled_sums(columns: Floats, resamples: int, seed: int | Sequence[int]) -> Floats:
    """Sums of `columns`, shape (n, m), over n rows drawn with replacement, `resamples` times: shape (resamples, m).

    Every block of draws has a random stream of its own, so the result does not depend on the number of threads.
    """
    num = len(columns)
    size = max(1, min(resamples, MAX_ELEMENTS // num))
    starts = range(0, resamples, size)

    def block(start: int, stream: np.random.SeedSequence) -> Floats:
        rows = min(size, resamples - start)
        drawn = np.random.default_rng(stream).integers(num, size=(rows, num))
        drawn += np.arange(0, rows * num, num)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * num).reshape(rows, num)
        return np.asarray(counts.astype(np.float64) @ columns)

    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        return np.concatenate(list(pool.map(block, starts, np.random.SeedSequence(seed).spawn(len(starts)))))


def micro_interval(benchmarks: Sequence[TokenSums], confidence: float) -> Interval | None:
    """Of 1 - sum(after) / sum(before) over all questions, drawn within each benchmark.

    None where there is none to give: a single question, no tokens before in a draw, or so few questions that the bounds
    would be a factor of 100 from the ratio. Width zero only if every question
    shrank by the same factor.
    """

    def pooled(sums: Sequence[Floats]) -> tuple[Floats, Floats]:
        before, after = (sum(each[..., column] for each in sums) for column in (0, 1))
        ratio = np.asarray(after / before)
        variances = (_variance(each, ratio, part.num) for each, part in zip(sums, benchmarks, strict=True))
        return ratio, np.sqrt(sum(variances)) / before

    return _interval(benchmarks, pooled, confidence)


def macro_interval(benchmarks: Sequence[TokenSums], confidence: float) -> Interval | None:
    """Of the signed mean over benchmarks of 1 - sum(after) / sum(before); questions are drawn, benchmarks are not."""

    def averaged(sums: Sequence[Floats]) -> tuple[Floats, Floats]:
        ratios = [each[..., 1] / each[..., 0] for each in sums]
        errors = [
            _variance(each, ratio, part.num) / each[..., 0] ** 2
            for each, ratio, part in zip(sums, ratios, benchmarks, strict=True)
        ]
        return np.asarray(sum(ratios) / len(sums)), np.sqrt(sum(errors)) / len(sums)

    return _interval(benchmarks, averaged, confidence)


def _variance(sums: Floats, ratio: Floats, num: int) -> Floats:
    """Variance of sum(a) - ratio * sum(b) over the questions of one benchmark (linearised ratio)."""
    b, a, bb, ab, aa = (sums[..., column] for column in range(5))
    squares = aa - 2 * ratio * ab + ratio**2 * bb
    spread = np.maximum(squares - (a - ratio * b) ** 2 / num, 0.0)
    return np.asarray(spread * num / (num - 1))


Estimator = Callable[[Sequence[Floats]], tuple[Floats, Floats]]  # sums per benchmark -> ratio, its standard error


def _interval(benchmarks: Sequence[TokenSums], estimator: Estimator, confidence: float) -> Interval | None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: {confidence} is not between 0 and 1")
    draws = [part.draws for part in benchmarks]
    if any(part.num < 2 for part in benchmarks) or any((each[:, 0] <= 0).any() for each in draws):
        return None
    found, error = (float(value) for value in estimator([part.observed for part in benchmarks]))
    if error <= SAME * found:
        return 1 - found, 1 - found
    ratios, errors = estimator(draws)
    if (ratios <= 0).any():  # nothing was written after: no logarithm
        low, high = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
        return 1 - float(high), 1 - float(low)
    # A draw of questions that all shrank alike has no error of its own; it then has that of the sample.
    own = np.where(errors > SAME * ratios, errors, error)
    distances = np.abs(np.log(ratios) - np.log(found)) * ratios / own
    half = float(np.quantile(distances, confidence)) * error / found
    if half > WIDEST:
        return None
    return 1 - found * float(np.exp(half)), 1 - found * float(np.exp(-half))
