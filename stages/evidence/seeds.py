"""Several training runs of one candidate against one baseline: each on its own, all pooled, and how far they lie apart.

Training with another seed gives another model; intervals over questions do not know that. Pure functions; nothing is read
or written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from stages.evidence.estimates import QuestionTable
from stages.evidence.pairing import align, pair_tasks
from stages.evidence.summary import VERDICT_NUMBERS

Tables = Mapping[str, QuestionTable]
Report = dict[str, Any]
Comparison = Callable[[Tables, Tables, bool], Report]  # baseline, candidate, allow_mismatch


def compare_runs(base: Tables, candidates: Mapping[str, Tables], compare: Comparison, allow_mismatch: bool) -> Report:
    """The report of all runs pooled, with `runs` (a report each, by name) and `spread` over the runs.

    Pooled, the answers of all runs to a question count as its samples, so every run weighs alike; the intervals are
    conditional on these runs. ValueError names what a run does not share with the baseline.
    """
    if len(candidates) < 2:
        raise ValueError(f"candidate: {len(candidates)} runs have no spread, at least two are needed")
    runs = {}
    for name, tables in candidates.items():
        try:
            runs[name] = compare(base, tables, allow_mismatch)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    report = compare(base, _pooled(base, list(candidates.values())), True)
    report["mismatches"] = list(dict.fromkeys(each for run in runs.values() for each in run["mismatches"]))
    return report | {"runs": runs, "spread": spread(list(runs.values()))}


def spread(runs: Sequence[Report]) -> dict[str, Any]:
    """Mean, standard deviation (ddof 1), smallest and largest of the figures of at least two runs, and their verdicts."""
    figures = {
        "token_reduction_micro": [run["token_reduction"]["micro"] for run in runs],
        "token_reduction_macro": [run["token_reduction"]["macro"] for run in runs],
        "accuracy_difference": [run["accuracy_difference"]["value"] for run in runs],
        "accuracy": [run["candidate"]["accuracy"] for run in runs],
        "mean_tokens": [run["candidate"]["mean_tokens"] for run in runs],
    }
    verdicts = [run["verdict"] for run in runs]
    return {
        "num_runs": len(runs),
        **{name: _figure(values) for name, values in figures.items()},
        "verdicts": {verdict: verdicts.count(verdict) for verdict in VERDICT_NUMBERS},
    }


def _figure(values: Sequence[float]) -> dict[str, float]:
    array = np.asarray(values, dtype=np.float64)
    return {
        "mean": float(array.mean()),
        "sd": float(array.std(ddof=1)),
        "min": float(array.min()),
        "max": float(array.max()),
    }


def _pooled(base: Tables, candidates: Sequence[Tables]) -> dict[str, QuestionTable]:
    """The runs side by side, on the questions that all of them and the baseline have."""
    pooled: dict[str, QuestionTable] = {}
    for tables in candidates:
        pairs, _ = pair_tasks(pooled if pooled else base, tables, allow_mismatch=True)
        if not pooled:
            pooled = {first.task: second for first, second in pairs}
        else:
            pooled = {first.task: _joined(first, second) for first, second in pairs}
    return pooled


def _joined(first: QuestionTable, second: QuestionTable) -> QuestionTable:
    (first, second), _ = align(first, second, allow_mismatch=True)
    names = ("correct", "tokens", "truncated", "no_think")
    arrays = [np.concatenate([getattr(first, name), getattr(second, name)], axis=1) for name in names]
    return QuestionTable(first.task, first.question_ids, first.groups, *arrays)
