"""What one model scored: question tables as arrays, means with question-clustered errors, rates, percentiles.

The unit of analysis is the question: its samples are averaged first (Miller 2024, https://arxiv.org/abs/2411.00640).
Pure functions over arrays; nothing is read or written.
"""

from __future__ import annotations

from array import array
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
    """One table per task, questions in order of first appearance, samples by index; ValueError names the field.

    `rows` may be a stream: a row that was read takes 25 bytes.
    """
    by_task: dict[str, _Rows] = {}
    for row in rows:
        mine = by_task.get(row.task)
        if mine is None:
            mine = by_task[row.task] = _Rows(row.task)
        mine.add(row)
    if not by_task:
        raise ValueError("question_id: no rows")
    return {task: mine.table() for task, mine in by_task.items()}


class _Rows:
    """The rows of one task in the order in which they come, as columns of numbers."""

    def __init__(self, task: str) -> None:
        self.task = task
        self.numbers: dict[str, int] = {}  # of the questions, by id
        self.groups: list[str] = []
        self.questions, self.samples, self.tokens = array("q"), array("q"), array("q")
        self.flags = bytearray()

    def add(self, row: QuestionRow) -> None:
        _, group, question_id, sample_index, correct, num_tokens, truncated, no_think = row
        number = self.numbers.setdefault(question_id, len(self.groups))
        if number == len(self.groups):
            self.groups.append(group)
        elif group != self.groups[number]:
            raise ValueError(f"group: task {self.task!r}, question {question_id!r} is in several groups")
        self.questions.append(number)
        self.samples.append(sample_index)
        self.tokens.append(num_tokens)
        self.flags.append(correct | truncated << 1 | no_think << 2)

    def table(self) -> QuestionTable:
        questions, samples = np.asarray(self.questions), np.asarray(self.samples)
        order = np.lexsort((samples, questions))
        self._check(questions[order], samples[order])
        shape = (len(self.numbers), -1)
        flags = np.frombuffer(self.flags, dtype=np.uint8)[order].reshape(shape)
        return QuestionTable(
            self.task,
            tuple(self.numbers),
            tuple(self.groups),
            (flags & 1) > 0,
            np.asarray(self.tokens, dtype=np.int64)[order].reshape(shape),
            (flags & 2) > 0,
            (flags & 4) > 0,
        )

    def _check(self, questions: NDArray[np.int64], samples: NDArray[np.int64]) -> None:
        """Every question has the same sample indices, each once; both arrays are sorted by question, then by sample."""
        starts = np.flatnonzero(np.diff(questions, prepend=-1))
        first = samples[: starts[1]] if starts.size > 1 else samples
        for question_id, found in zip(self.numbers, np.split(samples, starts[1:]), strict=True):
            where = f"task {self.task!r}, question {question_id!r}"
            if (np.diff(found) == 0).any():
                raise ValueError(f"sample_index: {where} has one index twice")
            if not np.array_equal(found, first):
                raise ValueError(
                    f"sample_index: {where} has {_listed(found)}, other questions of the task have {_listed(first)}"
                )


def _listed(indices: NDArray[np.int64]) -> str:
    """The indices of a question's samples, shortened where there are many."""
    most = 16
    text = ", ".join(map(str, indices[:most]))
    return f"[{text}]" if indices.size <= most else f"[{text}, ...] ({indices.size} in all)"


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
