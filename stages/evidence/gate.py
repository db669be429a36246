"""The gate's decision: which benchmarks regressed against a baseline, given a policy. docs/gate.md states the rules.

A regression is declared only if it is shown: within each criterion the p values of all gating benchmarks are adjusted by Holm
(1979, https://www.jstor.org/stable/4615733), so false alarms over all of them stay below alpha. Passing needs every deciding
benchmark within its limits; such an intersection-union test (Berger 1982) needs no adjustment. Nothing is read or written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy import special

from stages.evidence.estimates import Bools, Floats, QuestionTable
from stages.evidence.paired import holm
from stages.evidence.policy import DECIDING, GATING, Policy, Rules
from stages.evidence.score import p_at_most

SCHEMA_VERSION = 1
Name = Literal["accuracy", "tokens", "truncation", "no_think"]
Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]
WORST_FIRST: tuple[Verdict, ...] = ("FAIL", "INCONCLUSIVE", "PASS")
MIN_EXPECTED = 30  # questions over the limit if the rate lay at it; with fewer the score test declares too much


@dataclass(frozen=True)
class Criterion:
    """One limit of one benchmark, as it was found.

    accuracy: `observed` is the difference to the baseline (share), `bounds` one-sided at alpha each. tokens: the micro
    reduction (fraction), `bounds` its interval at the policy's confidence. truncation, no_think: the share of answers, no
    bounds. `p_regression` belongs to the hypothesis that the limit holds; `verdict` counts it adjusted by Holm.
    """

    criterion: Name
    baseline: float
    candidate: float
    observed: float | None
    bounds: list[float] | None
    limit: float
    p_regression: float
    p_adjusted: float
    verdict: Verdict


def decide(
    reports: Mapping[str, Mapping[str, Any]],
    candidates: Mapping[str, QuestionTable],
    policy: Policy,
    only_baseline: Iterable[str] = (),
) -> dict[str, Any]:
    """Verdict, benchmarks and their criteria, notes.

    `reports` holds `summary.compare` of each common benchmark, compared alone with its margin and the policy's levels;
    `candidates` the candidate's answers to it. `only_baseline`: benchmarks that the candidate was not evaluated on.
    """
    rules = {name: policy.rules(name) for name in [*reports, *only_baseline]}
    found = {name: _measured(reports[name], candidates[name], rules[name], policy) for name in reports}
    adjusted = _adjusted(found, rules, policy.alpha)
    benchmarks = [_benchmark(name, rules[name], adjusted[name], reports[name]) for name in reports]
    benchmarks += [_benchmark(name, rules[name], [], None) for name in only_baseline]
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": _verdict(benchmarks),
        "benchmarks": benchmarks,
        "notes": _notes(benchmarks),
    }


def rate_p_value(question_rates: Floats, limit: float) -> float:
    """One-sided p value of the hypothesis that the true rate is at most `limit`; `question_rates` (n,), each in [0, 1].

    Exact binomial where a question's answers all agree (one sample each). Otherwise the score test of score.py on
    2 * rate - 1, whose extremes are a question with all or none of its answers counted; where fewer than `MIN_EXPECTED` are
    expected at the limit, not below the binomial tail, as the normal approximation is too short there.
    """
    num, total = question_rates.size, float(question_rates.sum())
    if total <= limit * num:
        return 1.0
    if limit == 0:  # one such answer disproves it
        return 0.0
    exact = float(special.betainc(total, num - total + 1, limit))
    if bool(np.isin(question_rates, (0.0, 1.0)).all()):
        return exact
    score = p_at_most(2 * question_rates - 1, 2 * limit - 1)
    return max(score, exact) if num * limit < MIN_EXPECTED else score


def token_p_value(reduction: float, interval: Sequence[float] | None, minimum: float, confidence: float) -> float:
    """One-sided p value of the hypothesis that at least `minimum` is saved, read off the interval of the reduction.

    The interval is normal on the log ratio of tokens by construction (evidence.bootstrap), so the half that decides gives the
    standard error: p falls below (1 - confidence) / 2 exactly where the interval ends below `minimum`.
    """
    if interval is None or reduction >= minimum:
        return 1.0
    upper = interval[1]
    half = float(np.log1p(-reduction) - np.log1p(-upper)) if upper < 1 else np.inf
    if half <= 0:  # every question changed by the same factor
        return 0.0
    z = float(np.log1p(-reduction) - np.log1p(-minimum)) / half * float(special.ndtri((1 + confidence) / 2))
    return float(special.ndtr(-z))


def _measured(report: Mapping[str, Any], table: QuestionTable, rules: Rules, policy: Policy) -> list[Criterion]:
    """The criteria of one benchmark that have a limit, each with the verdict that it would have alone."""
    found = [_accuracy(report, rules.accuracy_margin)]
    if rules.min_token_reduction is not None:
        found.append(_tokens(report, rules.min_token_reduction, policy.confidence))
    before = report["baseline"]
    if (limit := rules.max_truncation_rate) is not None:
        found.append(_rate("truncation", before["truncation_rate"], table.truncated, limit, policy.alpha))
    if (limit := rules.max_no_think_rate) is not None:
        found.append(_rate("no_think", before["no_think_rate"], table.no_think, limit, policy.alpha))
    return found


def _accuracy(report: Mapping[str, Any], margin: float) -> Criterion:
    difference = report["accuracy_difference"]
    p_value = report["p_regression"]
    return Criterion(
        "accuracy",
        report["baseline"]["accuracy"],
        report["candidate"]["accuracy"],
        difference["value"],
        [difference["lower"], difference["upper"]],
        -margin,
        p_value,
        p_value,
        report["verdict"],
    )


def _tokens(report: Mapping[str, Any], minimum: float, confidence: float) -> Criterion:
    value, interval = report["token_reduction"]["micro"], report["token_reduction"]["ci"]
    tokens = (report["baseline"]["mean_tokens"], report["candidate"]["mean_tokens"])
    if value is None or interval is None:
        return Criterion("tokens", *tokens, value, None, minimum, 1.0, 1.0, "INCONCLUSIVE")
    p_value = token_p_value(value, interval, minimum, confidence)
    verdict: Verdict = "INCONCLUSIVE"
    if interval[0] >= minimum:
        verdict = "PASS"
    elif interval[1] < minimum:
        verdict = "FAIL"
    return Criterion("tokens", *tokens, value, list(interval), minimum, p_value, p_value, verdict)


def _rate(criterion: Name, before: float, answers: Bools, limit: float, alpha: float) -> Criterion:
    question_rates = np.asarray(answers.mean(axis=1), dtype=np.float64)
    rate, p_value = float(question_rates.mean()), rate_p_value(question_rates, limit)
    verdict: Verdict = "PASS" if rate <= limit else "FAIL" if p_value <= alpha else "INCONCLUSIVE"
    return Criterion(criterion, before, rate, rate, None, limit, p_value, p_value, verdict)


def _adjusted(
    found: Mapping[str, list[Criterion]], rules: Mapping[str, Rules], alpha: float
) -> dict[str, list[Criterion]]:
    """A FAIL of a gating benchmark that does not hold over all of them becomes INCONCLUSIVE; an advisory one stands alone."""
    family: dict[str, list[str]] = {}
    for name, criteria in found.items():
        for each in criteria:
            if rules[name].tier in GATING:
                family.setdefault(each.criterion, []).append(name)
    p_values = {
        (name, criterion): p_value
        for criterion, names in family.items()
        for name, p_value in zip(names, holm([_named(found[name], criterion) for name in names]), strict=True)
    }

    def counted(name: str, each: Criterion) -> Criterion:
        p_value = p_values.get((name, each.criterion), each.p_regression)
        shown = each.verdict != "FAIL" or p_value <= alpha
        return replace(each, p_adjusted=p_value, verdict=each.verdict if shown else "INCONCLUSIVE")

    return {name: [counted(name, each) for each in criteria] for name, criteria in found.items()}


def _named(criteria: Sequence[Criterion], criterion: str) -> float:
    return next(each.p_regression for each in criteria if each.criterion == criterion)


def _benchmark(
    name: str, rules: Rules, criteria: Sequence[Criterion], report: Mapping[str, Any] | None
) -> dict[str, Any]:
    """One row of the result; without a report the benchmark was not measured, which decides nothing."""
    verdicts = [each.verdict for each in criteria] or ["INCONCLUSIVE"]
    return {
        "name": name,
        "tier": rules.tier,
        "verdict": min(verdicts, key=WORST_FIRST.index),
        "measured": report is not None,
        "num_questions": report["candidate"]["num_questions"] if report else 0,
        "minimum_detectable_effect": report["minimum_detectable_effect"] if report else None,
        "criteria": [asdict(each) for each in criteria],
    }


def _verdict(benchmarks: Sequence[Mapping[str, Any]]) -> Verdict:
    if any(each["verdict"] == "FAIL" and each["tier"] in GATING for each in benchmarks):
        return "FAIL"
    gating = [each for each in benchmarks if each["tier"] in GATING]
    undecided = [each for each in gating if each["verdict"] == "INCONCLUSIVE" and each["tier"] in DECIDING]
    return "INCONCLUSIVE" if undecided or not gating else "PASS"


def _notes(benchmarks: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = []
    if all(each["tier"] not in GATING for each in benchmarks):
        notes.append("Every benchmark is advisory, so nothing was decided.")
    if not any(each["tier"] == "off_domain" and each["measured"] for each in benchmarks):
        notes.append("No off-domain benchmark is in the results: a loss outside the trained domain would not be seen.")
    return notes
