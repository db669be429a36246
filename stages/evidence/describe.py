"""One model on the questions of one or more benchmarks, as a plain dict: accuracy, lengths, rates, with intervals.

Questions of all tables count alike. Pure functions; nothing is read or written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

from stages.evidence.estimates import (
    Floats,
    QuestionTable,
    answer_weights,
    mean_and_error,
    pass_at_k,
    token_percentiles,
)
from stages.evidence.score import score_bounds

PERCENTS = (50, 90, 99)


def describe(tables: Sequence[QuestionTable], confidence: float) -> dict[str, Any]:
    """Shares, tokens per answer; `num_samples` counts all answers. None where a figure is not defined.

    `accuracy_ci` is Wilson's for one sample per question and its generalisation (score.py) for several; `mean_tokens_ci` is
    Student's over questions.
    """
    accuracies = np.concatenate([table.question_accuracy for table in tables])
    accuracy, error = mean_and_error(accuracies)
    tokens = np.concatenate([table.question_tokens for table in tables])
    mean_tokens, tokens_error = mean_and_error(tokens)
    lengths = np.concatenate([table.tokens.ravel() for table in tables])
    correct = np.concatenate([table.correct.ravel() for table in tables])
    weights = answer_weights(tables)
    percentiles = token_percentiles(tables, PERCENTS)
    return {
        "accuracy": accuracy,
        "accuracy_se": error,
        "accuracy_ci": list(accuracy_interval(accuracies, confidence)),
        "mean_tokens": mean_tokens,
        "mean_tokens_se": tokens_error,
        "mean_tokens_ci": None
        if tokens_error is None
        else _student(mean_tokens, tokens_error, len(tokens), confidence),
        **{f"p{percent}_tokens": value for percent, value in zip(PERCENTS, percentiles, strict=True)},
        "truncation_rate": _rate([table.truncated.mean(axis=1) for table in tables]),
        "no_think_rate": _rate([table.no_think.mean(axis=1) for table in tables]),
        "tokens_per_correct": mean_tokens / accuracy if accuracy > 0 else None,
        "tokens_given_correct": _weighted_mean(lengths, weights * correct),
        "tokens_given_wrong": _weighted_mean(lengths, weights * ~correct),
        "pass_at_k": _pass_at_ks(tables),
        "num_questions": len(tokens),
        "num_samples": int(lengths.size),
    }


def accuracy_interval(accuracies: Floats, confidence: float) -> tuple[float, float]:
    """Two-sided score interval of a mean of question accuracies, shape (n,), each in [0, 1]."""
    lower, upper = score_bounds(2 * accuracies - 1, (1 - confidence) / 2)
    return max(0.0, (lower + 1) / 2), min(1.0, (upper + 1) / 2)


def _student(mean: float, error: float, num: int, confidence: float) -> list[float]:
    half = float(special.stdtrit(num - 1, (1 + confidence) / 2)) * error
    return [max(0.0, mean - half), mean + half]


def _pass_at_ks(tables: Sequence[QuestionTable]) -> dict[str, float]:
    """For k = 1, 2, 4, ... and the number of samples itself; tables with different numbers share the smallest."""
    most = min(table.num_samples for table in tables)
    ks = sorted({*(1 << i for i in range(most.bit_length())), most})
    sizes = [table.num_questions for table in tables]
    return {str(k): float(np.average([pass_at_k(table.correct, k) for table in tables], weights=sizes)) for k in ks}


def _rate(shares: Sequence[Floats]) -> float:
    return float(np.mean(np.concatenate(shares)))


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> float | None:
    total = float(weights.sum())
    return float(values @ weights) / total if total > 0 else None
