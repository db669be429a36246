"""What one model scored: question tables as arrays, means with question-clustered errors, rates, percentiles.

The unit of analysis is the question: its samples are averaged first (Miller 2024, https://arxiv.org/abs/2411.00640).
Pure functions over arrays; nothing is read or written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from stages.evidence.questions import QuestionRow

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class QuestionTable:
    """One task: n questions with k samples each; `correct`, `tokens`, `truncated`, `no_think` have shape (n, k)."""

    task: str
    question_ids: tuple[str, ...]
    groups: tuple[str, ...]
    correct: Bools
    tokens: NDArray[np.int64]
    truncated: Bools
    no_think: Bools

    def __post_init__(self) -> None:
        shape = (len(self.question_ids), self.correct.shape[-1])
        if 0 in shape:
            raise ValueError(f"question_id: task {self.task!r} has no questions or no samples")
        for name in ("correct", "tokens", "truncated", "no_think"):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name}: shape {getattr(self, name).shape} instead of {shape} in task {self.task!r}")
        if (self.tokens < 0).any():
            raise ValueError(f"num_tokens: below zero in task {self.task!r}")
        if (self.correct & self.truncated).any():
            raise ValueError(f"correct: a truncated answer counts as wrong, but task {self.task!r} has a correct one")

    @property
    def num_questions(self) -> int:
        return len(self.question_ids)

    @property
    def num_samples(self) -> int:
        """Samples per question."""
        return int(self.correct.shape[1])

    @property
    def question_accuracy(self) -> Floats:
        """Share of correct samples per question, shape (n,)."""
        return np.asarray(self.correct.mean(axis=1), dtype=np.float64)

    @property
    def question_tokens(self) -> Floats:
        """Mean tokens per answer of each question, shape (n,)."""
        return np.asarray(self.tokens.mean(axis=1), dtype=np.float64)

    def select(self, indices: Sequence[int]) -> QuestionTable:
        """The table of these questions, in this order."""
        rows = np.asarray(indices, dtype=np.intp)
        return QuestionTable(
            self.task,
            tuple(self.question_ids[i] for i in rows),
            tuple(self.groups[i] for i in rows),
            self.correct[rows],
            self.tokens[rows],
            self.truncated[rows],
            self.no_think[rows],
        )


def question_tables(rows: Iterable[QuestionRow]) -> dict[str, QuestionTable]:
    """One table per task, questions in order of first appearance, samples by index; ValueError names the field."""
    by_task: dict[str, dict[str, list[QuestionRow]]] = {}
    for row in rows:
        by_task.setdefault(row.task, {}).setdefault(row.question_id, []).append(row)
    if not by_task:
        raise ValueError("question_id: no rows")
    return {task: _table(task, questions) for task, questions in by_task.items()}


def _table(task: str, questions: dict[str, list[QuestionRow]]) -> QuestionTable:
    indices = sorted(row.sample_index for row in next(iter(questions.values())))
    for question_id, rows in questions.items():
        where = f"task {task!r}, question {question_id!r}"
        rows.sort(key=lambda row: row.sample_index)
        found = [row.sample_index for row in rows]
        if len(set(found)) < len(found):
            raise ValueError(f"sample_index: {where} has one index twice")
        if found != indices:
            raise ValueError(f"sample_index: {where} has {found}, other questions of the task have {indices}")
        if len({row.group for row in rows}) > 1:
            raise ValueError(f"group: {where} is in several groups")
    samples = list(questions.values())
    return QuestionTable(
        task,
        tuple(questions),
        tuple(rows[0].group for rows in samples),
        np.array([[row.correct for row in rows] for rows in samples], dtype=np.bool_),
        np.array([[row.num_tokens for row in rows] for rows in samples], dtype=np.int64),
        np.array([[row.truncated for row in rows] for rows in samples], dtype=np.bool_),
        np.array([[row.no_think for row in rows] for rows in samples], dtype=np.bool_),
    )


def mean_and_error(values: ArrayLike) -> tuple[float, float | None]:
    """Mean over questions and its standard error sd / sqrt(n) with ddof 1; one question has no error (None)."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError("values: a non-empty list of finite numbers, one per question, is needed")
    error = float(array.std(ddof=1) / np.sqrt(array.size)) if array.size > 1 else None
    return float(array.mean()), error


def wilson(successes: int, num_trials: int, confidence: float) -> tuple[float, float]:
    """Two-sided score interval of one rate (Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953)."""
    if not 0 <= successes <= num_trials or num_trials == 0:
        raise ValueError(f"successes: {successes} of {num_trials} is not a rate")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: {confidence} is not between 0 and 1")
    z2 = float(special.ndtri((1 + confidence) / 2)) ** 2
    rate = successes / num_trials
    centre = rate + z2 / (2 * num_trials)
    spread = float(np.sqrt(z2 * (rate * (1 - rate) + z2 / (4 * num_trials)) / num_trials))
    scale = 1 + z2 / num_trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def token_percentiles(tables: Sequence[QuestionTable], percents: Sequence[float]) -> list[float]:
    """Percentiles of tokens per answer (0 to 100); each question has weight 1, shared by its samples.

    Inverse of the empirical distribution: every percentile is a length that occurred.
    """
    tokens = np.concatenate([table.tokens.ravel() for table in tables])
    quantiles = np.quantile(tokens, np.asarray(percents) / 100, weights=answer_weights(tables), method="inverted_cdf")
    return [float(value) for value in quantiles]


def answer_weights(tables: Sequence[QuestionTable]) -> Floats:
    """Weight 1 / k of every answer, flattened table after table, question after question."""
    return np.concatenate([np.full(table.tokens.size, 1 / table.num_samples) for table in tables])


def pass_at_k(correct: Bools, k: int) -> float:
    """Mean over questions of 1 - C(n - c, k) / C(n, k); `correct` has shape (questions, n), 1 <= k <= n.

    Source: Chen et al. 2021, section 2.1, https://arxiv.org/abs/2107.03374.
    """
    num_samples = correct.shape[1]
    if not 1 <= k <= num_samples:
        raise ValueError(f"k: {k} is not between 1 and the {num_samples} samples per question")
    wrong = num_samples - correct.sum(axis=1)
    return float(np.mean(1 - special.comb(wrong, k) / special.comb(num_samples, k)))
