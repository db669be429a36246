"""The tables of docs/ablation.md: text per row and column. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stages.ablation.findings import p_text
from stages.ablation.plan import Plan
from stages.ablation.statistics import (
    Comparison,
    Contrast,
    Estimate,
    Seeds,
    TestSeeds,
    estimate,
    ranking,
    reported_arms,
)
from stages.tiny.policies import Policy

DASH = "—"
COLUMNS = (
    *(
        "arm",
        "seeds",
        "tokens",
        "fewer tokens, %",
        "accuracy, %",
        "accuracy - base, points",
        "PASS",
        "step",
        "fallback",
    ),
    "mean share",
)
TUNING_COLUMNS = (
    *("arm", "seeds", "control tokens", "fewer, %", "accuracy - base, points", "step", "fallback", "mean share"),
    "reported",
)


@dataclass(frozen=True)
class Content:
    """`tuned` and `tested` hold the runs by arm and seed; `oracle` is the best policy that costs no accuracy; `facts` are
    sentences on what was run; `confidence`, `margin` are evaluate.* of params.yaml."""

    plan: Plan
    tuned: Mapping[str, Seeds]
    tested: Mapping[str, TestSeeds]
    oracle: Policy
    facts: Sequence[str]
    confidence: float
    margin: float

    @property
    def reported(self) -> list[str]:
        """The arms to report, in the order of the plan."""
        return reported_arms(list(self.plan.arms), self.plan.variants, self.tuned)

    @property
    def best_static(self) -> str | None:
        """The best static arm on the tuning seeds by the control set; None before any was tuned."""
        return next(iter(ranking(self.tuned, self.plan.static)), None)

    @property
    def shown(self) -> dict[str, TestSeeds]:
        """The reported arms that have been tested."""
        return {arm: self.tested[arm] for arm in self.reported if self.tested.get(arm)}


def report_table(content: Content, compared: Mapping[str, Comparison]) -> list[str]:
    reference = content.best_static
    rows = [
        [_named(arm, reference), *_cells(runs, content), *_contrasts(arm, compared)]
        for arm, runs in content.shown.items()
    ]
    header = [*COLUMNS, f"tokens - {reference}", f"accuracy - {reference}, points"]
    return _markdown(header, [*rows, _base_row(content), _oracle_row(content.oracle)])


def _base_row(content: Content) -> list[str]:
    """Every seed once: all arms of a seed were compared with the same answers of the base model."""
    by_seed = {seed: run for runs in content.shown.values() for seed, run in runs.items()}
    tokens = _interval(mean_of(by_seed, "base_tokens", content.confidence), 1)
    accuracy = percent(mean_of(by_seed, "base_accuracy", content.confidence), 2)
    return ["base model", str(len(by_seed)), tokens, "0.0", accuracy, "+0.00", *[DASH] * 6]


def _oracle_row(oracle: Policy) -> list[str]:
    figures = f"{oracle.mean_tokens:.1f}", f"{100 * oracle.reduction:.1f}", f"{100 * oracle.accuracy:.2f}"
    return ["oracle, simulated", DASH, *figures, *[DASH] * 7]


def _cells(runs: TestSeeds, content: Content) -> list[str]:
    level = content.confidence
    ordered = [runs[seed] for seed in sorted(runs)]
    share = sum(run.trained.short_share for run in ordered) / len(ordered)
    return [
        str(len(ordered)),
        _interval(mean_of(runs, "tokens", level), 1),
        percent(mean_of(runs, "reduction", level)),
        percent(mean_of(runs, "accuracy", level), 2),
        percent(mean_of(runs, "difference", level), 2, signed=True),
        f"{sum(run.passed for run in ordered)}/{len(ordered)}",
        " ".join(str(run.trained.selected_step) for run in ordered),
        f"{sum(run.trained.fallback for run in ordered)}/{len(ordered)}",
        f"{share:.2f}",
    ]


def _contrasts(arm: str, compared: Mapping[str, Comparison]) -> list[str]:
    if arm not in compared:
        return [DASH, DASH]
    return [_contrast(compared[arm].tokens, 1.0, 1), _contrast(compared[arm].accuracy, 100.0, 2)]


def _contrast(contrast: Contrast, scale: float, digits: int) -> str:
    text = _interval(contrast.estimate, digits, scale=scale, signed=True)
    return text if contrast.p is None else f"{text}, {p_text(contrast.p)}"


def tuning_table(content: Content) -> list[str]:
    """One row per arm, the best first: the control set at the selected checkpoint."""
    level, rows = content.confidence, []
    for arm in ranking(content.tuned, content.plan.tuned):
        runs = [content.tuned[arm][seed] for seed in sorted(content.tuned[arm])]
        fewer = estimate([1 - run.tokens / run.base_tokens for run in runs], level)
        change = estimate([run.accuracy - run.base_accuracy for run in runs], level)
        rows.append(
            [
                *(arm, str(len(runs)), _interval(estimate([run.tokens for run in runs], level), 1), percent(fewer)),
                percent(change, 2, signed=True),
                " ".join(str(run.selected_step) for run in runs),
                f"{sum(run.fallback for run in runs)}/{len(runs)}",
                f"{sum(run.short_share for run in runs) / len(runs):.2f}",
                "yes" if arm in content.reported else "no",
            ]
        )
    return _markdown(TUNING_COLUMNS, rows)


def mean_of(runs: TestSeeds, name: str, confidence: float) -> Estimate:
    return estimate([getattr(runs[seed], name) for seed in sorted(runs)], confidence)


def _named(arm: str, reference: str | None) -> str:
    return f"**{arm}**" if arm == reference else arm


def percent(found: Estimate, digits: int = 1, *, signed: bool = False) -> str:
    return _interval(found, digits, scale=100.0, signed=signed)


def _interval(found: Estimate, digits: int, *, scale: float = 1.0, signed: bool = False) -> str:
    """`55.7 [54.7, 56.7]`; the mean alone where there is no interval."""
    sign = "+" if signed else ""
    mean = f"{scale * found.mean:{sign}.{digits}f}"
    if found.interval is None:
        return mean
    lower, upper = (f"{scale * end:{sign}.{digits}f}" for end in found.interval)
    return f"{mean} [{lower}, {upper}]"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    marks = ["---", *["---:"] * (len(header) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (header, marks, *rows)]
