"""Which control questions are asked at an update, and what their answers say of the whole control set. No files, no torch.

With `ratio.control_questions` an update asks a part of the set, other questions every time, and compares them with the base
model's answers to the same questions; the whole set is answered only by checkpoints that may be kept (`confirmation`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from stages._params import Params
from stages.training.control import ControlSet, Score, binomial_error, loss_error, standard_error


@dataclass(frozen=True)
class Estimate:
    """Of the whole control set: accuracy (a fraction) and tokens per answer with standard errors.

    `loss_error` is the standard error of accuracy - base accuracy, paired by question.
    """

    accuracy: float
    accuracy_error: float
    mean_tokens: float
    tokens_error: float
    loss_error: float
    truncation_rate: float


def is_screened(params: Params, control: ControlSet) -> bool:
    """Whether an update asks a part of the control set only."""
    return num_asked(params, len(control.problems)) < len(control.problems)


def num_asked(params: Params, num_questions: int) -> int:
    """Control questions that an update asks, of `num_questions` in the set."""
    wanted = params.ratio.control_questions
    return num_questions if wanted is None else min(wanted, num_questions)


def asked(params: Params, num_questions: int, update: int) -> list[int]:
    """Indices of the questions of an update (0 is the first), ascending.

    A seeded order of all questions is gone through, again and again, so they are asked equally often and no update's
    choice depends on what the model did before.
    """
    number = num_asked(params, num_questions)
    if number == num_questions:
        return list(range(num_questions))
    order = list(range(num_questions))
    Random(f"control/{params.seed}").shuffle(order)
    return sorted(order[(update * number + index) % num_questions] for index in range(number))


def part(control: ControlSet, questions: Sequence[int]) -> ControlSet:
    return replace(control, problems=tuple(control.problems[index] for index in questions))


def estimate(base: Score, questions: Sequence[int], measured: Score, num_samples: int) -> Estimate:
    """What `measured`, the score on `questions` with `num_samples` answers each, says of all questions of `base`."""
    if len(questions) == len(base.question_accuracy):
        return Estimate(
            measured.accuracy,
            measured.accuracy_error,
            measured.mean_tokens,
            measured.tokens_error,
            loss_error(base, measured),
            measured.truncation_rate,
        )
    tokens, tokens_error = _regressed(base.question_tokens, questions, measured.question_tokens)
    accuracy, fitted_error = _regressed(base.question_accuracy, questions, measured.question_accuracy)
    error = max(fitted_error, binomial_error(base.accuracy, len(questions) * num_samples))
    return Estimate(min(max(accuracy, 0.0), 1.0), error, tokens, tokens_error, error, measured.truncation_rate)


def _regressed(before: Sequence[float], questions: Sequence[int], after: Sequence[float]) -> tuple[float, float]:
    """Mean of `after`, known for `questions`, at the mean of `before`, known for all of them; and its standard error.

    The regression estimator of sampling theory (Cochran 1977, Sampling Techniques, chapter 7): the questions that were
    asked may be harder, or need longer answers, than all of them do in the mean.
    """
    from scipy.stats import linregress

    mean = math.fsum(before) / len(before)
    known = [before[index] - mean for index in questions]
    if max(known) == min(known) or max(after) == min(after):  # there is no line to fit
        return math.fsum(after) / len(after), standard_error(after)
    fitted = linregress(known, after)
    return float(fitted.intercept), float(fitted.intercept_stderr)
