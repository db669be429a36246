"""What the figures of a report show, as rows: points, histograms of length, questions whose correctness changed.

Pure functions over question tables; nothing is read or written. `evaluate` writes some of the rows to results/, where DVC
plots them; `stages.page` draws them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from stages.evidence.estimates import QuestionTable, mean_and_error
from stages.evidence.pairing import pair_tasks


@dataclass(frozen=True)
class Flip:
    """A question whose share of correct answers changed, with a pair of answers that shows it.

    `before` and `after` count correct answers out of `num_samples`. `sample` is a position among the question's answers
    (from 0) at which a lost question was right before and is wrong after; a gained one the other way round.
    """

    task: str
    group: str
    question_id: str
    before: int
    after: int
    num_samples: int
    sample: int

    @property
    def kind(self) -> Literal["lost", "gained"]:
        return "lost" if self.after < self.before else "gained"


def pareto_rows(tables: Mapping[str, QuestionTable]) -> list[dict[str, Any]]:
    """One row per task: `accuracy` (share) and `mean_tokens` (per answer) with errors clustered by question."""
    return [_point(table) for table in tables.values()]


def _point(table: QuestionTable) -> dict[str, Any]:
    accuracy, accuracy_error = mean_and_error(table.question_accuracy)
    tokens, tokens_error = mean_and_error(table.question_tokens)
    return {
        "task": table.task,
        "mean_tokens": tokens,
        "mean_tokens_se": tokens_error,
        "accuracy": accuracy,
        "accuracy_se": accuracy_error,
    }


def length_edges(longest: int, num_bins: int) -> list[int]:
    """Edges in tokens of at most `num_bins` equally wide bins [lower, upper) from 0 that hold answers up to `longest`."""
    if longest < 0 or num_bins < 1:
        raise ValueError(f"bins: {num_bins} bins up to {longest} tokens cannot be made")
    width = -(-(longest + 1) // num_bins)
    return list(range(0, longest + 1 + width, width))


def length_histogram(table: QuestionTable, edges: Sequence[int]) -> list[dict[str, Any]]:
    """Answers per bin [lower, upper) of tokens, as `correct` and `wrong` (cut answers are wrong); one row per bin.

    Both are columns rather than rows, as DVC draws one line per column. ValueError if an answer lies outside the bins.
    """
    correct, wrong = (_counts(table.tokens[which], edges) for which in (table.correct, ~table.correct))
    if int(correct.sum() + wrong.sum()) != table.tokens.size:
        raise ValueError(f"num_tokens: task {table.task!r} has answers outside {edges[0]} to {edges[-1] - 1} tokens")
    rows = zip(edges, edges[1:], correct, wrong, strict=False)
    return [
        {"task": table.task, "lower": lower, "upper": upper, "correct": int(right), "wrong": int(missed)}
        for lower, upper, right, missed in rows
    ]


def _counts(tokens: np.ndarray, edges: Sequence[int]) -> np.ndarray:
    bins = np.searchsorted(np.asarray(edges), tokens, side="right") - 1
    inside = bins[(bins >= 0) & (bins < len(edges) - 1)]
    return np.bincount(inside, minlength=len(edges) - 1)


def flips(
    base: Mapping[str, QuestionTable], candidate: Mapping[str, QuestionTable], *, allow_mismatch: bool = False
) -> list[Flip]:
    """The largest changes first, losses before gains of the same size.

    ValueError if the questions are not the same (with `allow_mismatch` if none is) or not answered equally often.
    """
    pairs, _ = pair_tasks(base, candidate, allow_mismatch=allow_mismatch)
    for before, after in pairs:
        if before.num_samples != after.num_samples:
            raise ValueError(f"sample_index: flips of task {before.task!r} need the same number of samples in both")
    found = [flip for pair in pairs for flip in _task_flips(*pair)]
    return sorted(found, key=lambda flip: (-abs(flip.after - flip.before) / flip.num_samples, flip.kind == "gained"))


def _task_flips(base: QuestionTable, candidate: QuestionTable) -> list[Flip]:
    before, after = base.correct.sum(axis=1), candidate.correct.sum(axis=1)
    found = []
    for row in np.flatnonzero(before != after):
        # The side with more correct answers has one at some position where the other side has none.
        better, worse = (base, candidate) if after[row] < before[row] else (candidate, base)
        sample = int(np.flatnonzero(better.correct[row] & ~worse.correct[row])[0])
        names = (base.task, base.groups[row], base.question_ids[row])
        found.append(Flip(*names, int(before[row]), int(after[row]), base.num_samples, sample))
    return found
