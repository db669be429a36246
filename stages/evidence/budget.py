"""Accuracy and tokens that a smaller limit of tokens would have given, from the answers to one evaluation.

The noise of an answer is keyed by answer and position, so a run with a smaller `decode.max_tokens` draws the same tokens up
to its limit, and cuts what is longer; a cut answer is wrong. Nothing needs to be generated again. Pure functions; nothing is
read or written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from stages.evidence.estimates import QuestionTable, mean_and_error


def budget_curve(tables: Mapping[str, QuestionTable], budgets: Iterable[int]) -> list[dict[str, Any]]:
    """One row per task and budget (tokens, at most the limit of the run), in the order of the tasks, budgets rising.

    `accuracy` and `truncation_rate` are shares, `mean_tokens` counts a cut answer with `budget` tokens; the standard errors
    are clustered by question, None for a single question.
    """
    return [_at_budget(table, budget) for table in tables.values() for budget in sorted(set(budgets))]


def _at_budget(table: QuestionTable, budget: int) -> dict[str, Any]:
    cut = table.truncated | (table.tokens > budget)
    accuracy, accuracy_error = mean_and_error((table.correct & ~cut).mean(axis=1))
    tokens, tokens_error = mean_and_error(np.minimum(table.tokens, budget).mean(axis=1))
    return {
        "task": table.task,
        "budget": budget,
        "accuracy": accuracy,
        "accuracy_se": accuracy_error,
        "mean_tokens": tokens,
        "mean_tokens_se": tokens_error,
        "truncation_rate": float(cut.mean(axis=1).mean()),
    }
