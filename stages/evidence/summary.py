"""Baseline against candidate as one plain dict: the object that `tldr report --json` prints.

Rows are the tasks if there are several, else the groups of the one task (tiny: chain lengths). The overall line pools
all questions with equal weight (micro); `macro` is the signed mean over the rows. Nothing is read or written.
"""

from __future__ import annotations

import copy
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stages.evidence.estimates import Floats, QuestionTable, answer_weights, mean_and_error, token_percentiles
from stages.evidence.paired import (
    AES_WEIGHTS,
    Pair,
    Verdict,
    aes,
    align,
    both_correct_reduction,
    macro_reduction,
    median_reduction,
    micro_reduction,
    non_inferiority,
    reduction_interval,
)

SCHEMA_VERSION = 1
VERDICT_NUMBERS = {"PASS": 1, "INCONCLUSIVE": 0, "FAIL": -1}


def compare(
    base: Mapping[str, QuestionTable],
    candidate: Mapping[str, QuestionTable],
    *,
    margin: float,
    alpha: float,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """The report; shares and fractions throughout, intervals at 1 - 2 alpha, None where a figure is not defined.

    `margin` is a share (0.01 is one point), `resamples` at least 100. ValueError names what the models do not share.
    """
    if resamples < 100:
        raise ValueError(f"resamples: {resamples} are too few for an interval, at least 100 are needed")
    rows = _rows(_pairs(base, candidate))
    overall = [pair for pairs in rows.values() for pair in pairs]
    whole = _compared(overall, margin, alpha, resamples, (seed,))
    if len(rows) == 1:
        parts = dict.fromkeys(rows, copy.deepcopy(whole))
    else:
        parts = {name: _compared(pairs, margin, alpha, resamples, (seed, _key(name))) for name, pairs in rows.items()}
    report = {
        "schema_version": SCHEMA_VERSION,
        "baseline": _described([pair[0] for pair in overall]),
        "candidate": _described([pair[1] for pair in overall]),
        **whole,
        "margin": margin,
        "alpha": alpha,
        "confidence": 1 - 2 * alpha,
        "resamples": resamples,
        "seed": seed,
        "tasks": parts,
    }
    report["token_reduction"]["macro"] = macro_reduction([part["token_reduction"]["micro"] for part in parts.values()])
    report["fewer_tokens_at_no_loss"] = _joint_claim(report)
    report["aes"] = _aes(report["baseline"], report["candidate"])
    for side, key in ((0, "baseline"), (1, "candidate")):
        report[key]["tasks"] = {name: _described([pair[side] for pair in pairs]) for name, pairs in rows.items()}
    return report


def flat_metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of `results/metrics.json`, flat, stable names; undefined ones are left out. verdict: PASS 1, FAIL -1."""
    reduction, difference = report["token_reduction"], report["accuracy_difference"]
    reduction_ci = reduction["ci"] or (None, None)
    metrics = {
        "token_reduction": reduction["micro"],
        "token_reduction_lower": reduction_ci[0],
        "token_reduction_upper": reduction_ci[1],
        "token_reduction_macro": reduction["macro"],
        "token_reduction_median": reduction["median"],
        "accuracy_difference": difference["value"],
        "accuracy_difference_se": difference["se"],
        "accuracy_difference_lower": difference["ci"][0],
        "accuracy_difference_upper": difference["ci"][1],
        "minimum_detectable_effect": report["minimum_detectable_effect"],
        "verdict": VERDICT_NUMBERS[report["verdict"]],
        "aes": report["aes"]["value"],
    }
    for side in ("baseline", "candidate"):
        metrics |= {f"{side}_{name}": value for name, value in report[side].items() if name != "tasks"}
    return {name: value for name, value in metrics.items() if value is not None}


def _pairs(base: Mapping[str, QuestionTable], candidate: Mapping[str, QuestionTable]) -> list[Pair]:
    if set(base) != set(candidate) or not base:
        raise ValueError(f"task: the baseline has {sorted(base)}, the candidate {sorted(candidate)}")
    return [(base[task], align(base[task], candidate[task])) for task in sorted(base, key=_natural)]


def _rows(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    if len(pairs) > 1:
        return {pair[0].task: [pair] for pair in pairs}
    base, candidate = pairs[0]
    members: dict[str, list[int]] = {}
    for index, group in enumerate(base.groups):
        members.setdefault(group or base.task, []).append(index)
    return {
        name: [(base.select(members[name]), candidate.select(members[name]))] for name in sorted(members, key=_natural)
    }


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts length-2 before length-10."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _key(name: str) -> int:
    """A row's own random stream, so that adding a row leaves the intervals of the others as they are."""
    return zlib.crc32(name.encode())


def _described(tables: Sequence[QuestionTable]) -> dict[str, Any]:
    """One model on the pooled questions. `num_samples` counts all answers."""
    accuracy, error = mean_and_error(_pooled([table.question_accuracy for table in tables]))
    tokens = _pooled([table.question_tokens for table in tables])
    lengths = np.concatenate([table.tokens.ravel() for table in tables])
    correct = np.concatenate([table.correct.ravel() for table in tables])
    weights = answer_weights(tables)
    p50, p90, p99 = token_percentiles(tables, (50, 90, 99))
    return {
        "accuracy": accuracy,
        "accuracy_se": error,
        "mean_tokens": float(tokens.mean()),
        "p50_tokens": p50,
        "p90_tokens": p90,
        "p99_tokens": p99,
        "truncation_rate": float(np.mean(_pooled([table.truncated.mean(axis=1) for table in tables]))),
        "no_think_rate": float(np.mean(_pooled([table.no_think.mean(axis=1) for table in tables]))),
        "tokens_per_correct": float(tokens.mean()) / accuracy if accuracy > 0 else None,
        "tokens_given_correct": _weighted_mean(lengths, weights * correct),
        "tokens_given_wrong": _weighted_mean(lengths, weights * ~correct),
        "num_questions": len(tokens),
        "num_samples": int(lengths.size),
    }


def _compared(
    pairs: Sequence[Pair], margin: float, alpha: float, resamples: int, seed: Sequence[int]
) -> dict[str, Any]:
    base_accuracy = _pooled([base.question_accuracy for base, _ in pairs])
    accuracy = _pooled([candidate.question_accuracy for _, candidate in pairs])
    base_tokens = _pooled([base.question_tokens for base, _ in pairs])
    tokens = _pooled([candidate.question_tokens for _, candidate in pairs])
    micro = micro_reduction(base_tokens, tokens)
    interval = reduction_interval(base_tokens, tokens, alpha=alpha, resamples=resamples, seed=seed)
    verdict = non_inferiority(accuracy - base_accuracy, margin, alpha)
    return {
        "token_reduction": {
            "micro": micro,
            "median": median_reduction(base_tokens, tokens),
            "both_correct": both_correct_reduction(pairs),
            "ci": None if interval is None else list(interval),
        },
        "accuracy_difference": _difference(verdict),
        "verdict": verdict.verdict,
        "minimum_detectable_effect": verdict.minimum_detectable_effect,
    }


def _difference(verdict: Verdict) -> dict[str, Any]:
    found = verdict.difference
    return {"value": found.value, "se": found.se, "ci": [found.lower, found.upper], "method": found.method}


def _joint_claim(report: Mapping[str, Any]) -> bool:
    """Non-inferior accuracy and fewer tokens, each at level alpha: so the claim of both has level alpha as well."""
    interval = report["token_reduction"]["ci"]
    return report["verdict"] == "PASS" and interval is not None and interval[0] > 0


def _aes(base: Mapping[str, Any], candidate: Mapping[str, Any]) -> dict[str, Any]:
    value = aes(base["mean_tokens"], candidate["mean_tokens"], base["accuracy"], candidate["accuracy"])
    return {"value": value, "weights": list(AES_WEIGHTS)}


def _pooled(arrays: Sequence[Floats]) -> Floats:
    return np.concatenate(arrays)


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> float | None:
    total = float(weights.sum())
    return float(values @ weights) / total if total > 0 else None
