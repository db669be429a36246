"""Baseline against candidate as one plain dict: the object that `tldr compare --json` and `tldr report --json` print.

Rows are the tasks if there are several, else the groups of the one task (tiny: chain lengths). Nothing is read or written.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.evidence.bootstrap import TokenSums, macro_interval, micro_interval, resampled_sums
from stages.evidence.describe import describe
from stages.evidence.estimates import QuestionTable
from stages.evidence.paired import (
    AES_WEIGHTS,
    Verdict,
    aes,
    both_correct_tokens,
    clipped_reduction,
    holm_verdicts,
    macro_reduction,
    mean_difference,
    median_interval,
    median_reduction,
    micro_reduction,
    non_inferiority,
)
from stages.evidence.pairing import Pair, natural, pair_tasks

SCHEMA_VERSION = 2
VERDICT_NUMBERS = {"PASS": 1, "INCONCLUSIVE": 0, "FAIL": -1}
AGGREGATION = (
    "Overall: every question counts once, its samples averaged first, so a benchmark weighs by its number of questions; "
    "micro is 1 - sum(tokens after) / sum(tokens before) over them. Macro is the mean over the rows, signed."
)


@dataclass(frozen=True)
class Settings:
    """`margin`: share of accuracy that may be lost; `alpha`: one-sided level of the verdict; `confidence`: two-sided level
    of all intervals; `resamples` of the bootstrap, at least 100; `seed` of its draws."""

    margin: float
    alpha: float
    confidence: float
    resamples: int
    seed: int

    def __post_init__(self) -> None:
        if self.resamples < 100:
            raise ValueError(f"resamples: {self.resamples} are too few for an interval, at least 100 are needed")


def compare(
    base: Mapping[str, QuestionTable],
    candidate: Mapping[str, QuestionTable],
    *,
    margin: float,
    alpha: float,
    confidence: float,
    resamples: int,
    seed: int,
    length_unit: str = "tokens",
    allow_mismatch: bool = False,
) -> dict[str, Any]:
    """The report; shares and fractions throughout, None where a figure is not defined.

    ValueError names what the models do not share; with `allow_mismatch` they are compared on the questions that they do
    share, and `mismatches` says what was left out.
    """
    settings = Settings(margin, alpha, confidence, resamples, seed)
    pairs, left_out = pair_tasks(base, candidate, allow_mismatch=allow_mismatch)
    rows = _rows(pairs)
    parts = {name: _part([pair], settings, (seed, _key(name))) for name, pair in rows.items()}
    if len(rows) == 1:
        whole = next(iter(parts.values()))
    else:
        whole = _part(pairs, settings, (seed,), None if len(pairs) == 1 else list(parts.values()))
    for part, verdict in zip(parts.values(), holm_verdicts([part.verdict for part in parts.values()]), strict=True):
        part.report["verdict_holm"] = verdict
    report = {
        "schema_version": SCHEMA_VERSION,
        "baseline": describe([pair[0] for pair in pairs], confidence),
        "candidate": describe([pair[1] for pair in pairs], confidence),
        **copy.deepcopy(whole.report),
        **vars(settings),
        "length_unit": length_unit,
        "aggregation": AGGREGATION,
        "mismatches": left_out,
        "tasks": {name: part.report for name, part in parts.items()},
    }
    report.pop("verdict_holm", None)
    _add_macro(report, list(parts.values()), confidence)
    report["fewer_tokens_at_no_loss"] = _joint_claim(report)
    report["aes"] = _aes(report["baseline"], report["candidate"])
    for side, key in ((0, "baseline"), (1, "candidate")):
        report[key]["tasks"] = {name: describe([pair[side]], confidence) for name, pair in rows.items()}
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
        numbers = {name: value for name, value in report[side].items() if isinstance(value, (int, float))}
        metrics |= {f"{side}_{name}": value for name, value in numbers.items()}
    return {name: value for name, value in metrics.items() if value is not None}


@dataclass(frozen=True, eq=False)
class _Part:
    """A row or the whole: what is reported of it, its verdict, and the draws of its tokens."""

    report: dict[str, Any]
    verdict: Verdict
    sums: list[TokenSums]
    solved_sums: list[TokenSums]


def _part(pairs: Sequence[Pair], settings: Settings, seed: Sequence[int], rows: Sequence[_Part] | None = None) -> _Part:
    """Figures of the pooled questions; the draws are those of the `rows` where the rows are the benchmarks."""
    before = np.concatenate([base.question_tokens for base, _ in pairs])
    after = np.concatenate([candidate.question_tokens for _, candidate in pairs])
    micro = micro_reduction(before, after)
    if rows is None:
        drawn = [_drawn(pair, settings, seed) for pair in pairs]
    else:
        drawn = [(row.sums[0], row.solved_sums[0]) for row in rows]
    sums, solved_sums = [each[0] for each in drawn], [each[1] for each in drawn]
    changes = np.concatenate([candidate.question_accuracy - base.question_accuracy for base, candidate in pairs])
    difference = mean_difference(changes, settings.confidence)
    verdict = non_inferiority(changes, settings.margin, settings.alpha)
    solved = np.sum([part.observed for part in solved_sums], axis=0)
    reduction = {
        "micro": micro,
        "ci": _listed(micro_interval(sums, settings.confidence)),
        "median": median_reduction(before, after),
        "median_ci": _listed(median_interval(before, after, settings.confidence)),
        "both_correct": 1 - float(solved[1] / solved[0]) if solved[0] > 0 else None,
        "both_correct_ci": _listed(micro_interval(solved_sums, settings.confidence)),
    }
    report = {
        "token_reduction": reduction,
        "accuracy_difference": {
            "value": difference.value,
            "se": difference.se,
            "ci": [difference.lower, difference.upper],
            "lower": verdict.lower,
            "upper": verdict.upper,
        },
        "verdict": verdict.verdict,
        "p_inferior": verdict.p_inferior,
        "p_regression": verdict.p_regression,
        "minimum_detectable_effect": verdict.minimum_detectable_effect,
    }
    return _Part(report, verdict, sums, solved_sums)


def _drawn(pair: Pair, settings: Settings, seed: Sequence[int]) -> tuple[TokenSums, TokenSums]:
    """All answers, and the correct ones of questions that both models solved, over the same drawn questions."""
    arrays = [(pair[0].question_tokens, pair[1].question_tokens), both_correct_tokens(pair)]
    columns = np.stack([column for b, a in arrays for column in (b, a, b * b, a * b, a * a)], axis=1)
    observed, draws = columns.sum(axis=0), resampled_sums(columns, settings.resamples, seed)
    num = len(columns)
    return TokenSums(num, observed[:5], draws[:, :5]), TokenSums(num, observed[5:], draws[:, 5:])


def _add_macro(report: dict[str, Any], parts: Sequence[_Part], confidence: float) -> None:
    """Means over the rows; the clipped one is the paper's."""
    reductions = [part.report["token_reduction"]["micro"] for part in parts]
    sums = [each for part in parts for each in part.sums]
    report["token_reduction"] |= {
        "macro": macro_reduction(reductions),
        "macro_ci": _listed(macro_interval(sums, confidence)),
        "clipped_macro": clipped_reduction(reductions),
    }
    differences = [part.report["accuracy_difference"]["value"] for part in parts]
    report["accuracy_difference"]["macro"] = float(np.mean(differences))


def _rows(pairs: Sequence[Pair]) -> dict[str, Pair]:
    if len(pairs) > 1:
        return {pair[0].task: pair for pair in pairs}
    base, candidate = pairs[0]
    members: dict[str, list[int]] = {}
    for index, group in enumerate(base.groups):
        members.setdefault(group or base.task, []).append(index)
    return {
        name: (base.select(members[name]), candidate.select(members[name])) for name in sorted(members, key=natural)
    }


def _key(name: str) -> int:
    """A row's own random stream, so that adding a row leaves the intervals of the others as they are."""
    return zlib.crc32(name.encode())


def _listed(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)


def _joint_claim(report: Mapping[str, Any]) -> bool:
    """Non-inferior accuracy and fewer tokens, each at level alpha: so the claim of both has level alpha as well."""
    interval = report["token_reduction"]["ci"]
    return report["verdict"] == "PASS" and interval is not None and interval[0] > 0


def _aes(base: Mapping[str, Any], candidate: Mapping[str, Any]) -> dict[str, Any]:
    value = aes(base["mean_tokens"], candidate["mean_tokens"], base["accuracy"], candidate["accuracy"])
    return {"value": value, "weights": list(AES_WEIGHTS)}
