"""Published tables: one mean accuracy and one mean length per benchmark, and no interval, because no answers are known.

`compare_cells` names its figures as `summary.compare` does, as far as they exist; every interval, error and verdict is
None. Nothing is read or written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stages.evidence.paired import AES_WEIGHTS, aes
from stages.evidence.summary import SCHEMA_VERSION

NOTE = (
    "Published means, no intervals: a difference may be noise, and whether both sides were measured alike is not in the "
    "table, so there is no verdict."
)
AGGREGATION = (
    "Every benchmark counts once, whatever its number of questions: accuracy and tokens are means over benchmarks; micro is "
    "1 - sum of mean tokens / sum of the baseline's, macro the signed mean over benchmarks of 1 - tokens / the baseline's, "
    "clipped macro (A.C.R. in arXiv 2506.02678) the same with every benchmark that grew counted as 0."
)


@dataclass(frozen=True)
class Cell:
    """One model on one benchmark: accuracy as a share, mean tokens of an answer (above 0)."""

    benchmark: str
    accuracy: float
    mean_tokens: float


def compare_cells(base: Sequence[Cell], candidate: Sequence[Cell]) -> dict[str, Any]:
    """The candidate against the baseline, paired by benchmark in the baseline's order; shares and fractions throughout.

    ValueError names the benchmarks that only one of the two has.
    """
    pairs = _paired(base, candidate)
    before, after = _described(base), _described([cell for _, cell in pairs])
    reductions = [1 - cell.mean_tokens / baseline.mean_tokens for baseline, cell in pairs]
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "cells",
        "note": NOTE,
        "aggregation": AGGREGATION,
        "baseline": before,
        "candidate": after,
        "token_reduction": {
            "micro": 1 - after["mean_tokens"] / before["mean_tokens"],
            "ci": None,
            "macro": _mean(reductions),
            "macro_ci": None,
            "clipped_macro": _mean([max(0.0, reduction) for reduction in reductions]),
        },
        "accuracy_difference": _difference(after["accuracy"] - before["accuracy"]),
        "verdict": None,
        "aes": {"value": _aes(before, after), "weights": list(AES_WEIGHTS)},
        "tasks": {
            cell.benchmark: {
                "token_reduction": {"micro": reduction, "ci": None},
                "accuracy_difference": _difference(cell.accuracy - baseline.accuracy),
                "verdict": None,
            }
            for (baseline, cell), reduction in zip(pairs, reductions, strict=True)
        },
    }


def _paired(base: Sequence[Cell], candidate: Sequence[Cell]) -> list[tuple[Cell, Cell]]:
    before, after = ({cell.benchmark: cell for cell in cells} for cells in (base, candidate))
    assert len(before) == len(base) and len(after) == len(candidate), "a benchmark stands once in a group"
    if before.keys() != after.keys() or not before:
        alone = [
            f"{', '.join(sorted(ours.keys() - theirs.keys()))} only in the {side}"
            for side, ours, theirs in (("baseline", before, after), ("candidate", after, before))
            if ours.keys() - theirs.keys()
        ]
        raise ValueError(f"the benchmarks differ: {' and '.join(alone) or 'there are none'}")
    return [(cell, after[name]) for name, cell in before.items()]


def _described(cells: Sequence[Cell]) -> dict[str, Any]:
    return {
        "accuracy": _mean([cell.accuracy for cell in cells]),
        "accuracy_se": None,
        "mean_tokens": _mean([cell.mean_tokens for cell in cells]),
        "tasks": {
            cell.benchmark: {"accuracy": cell.accuracy, "accuracy_se": None, "mean_tokens": cell.mean_tokens}
            for cell in cells
        },
    }


def _difference(value: float) -> dict[str, Any]:
    return {"value": value, "se": None, "ci": None}


def _aes(before: dict[str, Any], after: dict[str, Any]) -> float | None:
    value = aes(before["mean_tokens"], after["mean_tokens"], before["accuracy"], after["accuracy"])
    return value if value is not None and math.isfinite(value) else None  # a baseline accuracy of 1e-320 overflows


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
