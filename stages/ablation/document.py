"""docs/ablation.md: the result in sentences, one table, one figure, what was run, the tuning table. Pure: text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages.ablation.findings import findings, passing
from stages.ablation.statistics import Comparison, comparisons
from stages.ablation.tables import DASH, Content, mean_of, percent, report_table, tuning_table

FIGURE = "ablation.svg"


def document(content: Content) -> str:
    """Markdown, ending with a newline."""
    compared = _compared(content)
    lines = [
        "# Ablation: ways to move the ratio",
        "",
        "Written by `tldr ablate table` from the runs that `tldr ablate tune` and `tldr ablate report` stored, by the plan in "
        "[ablation.yaml](../ablation.yaml); not to be edited. Tokens are means per answer.",
        "",
        "## Result",
        "",
        *(f"- {sentence}" for sentence in _result(content, compared)),
        "",
    ]
    if content.shown:
        lines += [*report_table(content, compared), "", f"![Accuracy against mean tokens, by arm]({FIGURE})", ""]
        lines += [*_reading(content), ""]
    lines += ["## Tuning", "", *tuning_table(content), "", *_choice(content), ""]
    return "\n".join([*lines, "## What was run", "", *(f"- {fact}" for fact in content.facts), ""])


def _compared(content: Content) -> dict[str, Comparison]:
    if content.best_static not in content.shown:
        return {}
    return comparisons(content.shown, content.best_static, content.confidence)


def _result(content: Content, compared: Mapping[str, Comparison]) -> list[str]:
    plan, shown = content.plan, content.shown
    if not shown:
        return [*_incomplete(content), "Nothing is reported yet: no run has answered the fresh test set."]
    if content.best_static is None:
        return [*_incomplete(content), "No static arm was tuned, so there is nothing to compare with."]
    scheduled = [arm for arm in plan.arms if arm not in (*plan.static, *plan.dynamic)]
    groups = {"dynamic": plan.dynamic, "scheduled": scheduled, "other static": plan.static}
    return [
        *_incomplete(content),
        *findings(compared, groups, content.best_static, content.confidence),
        passing(shown, content.margin),
        _shortest(content),
        *_fallbacks(content),
    ]


def _incomplete(content: Content) -> list[str]:
    """What is missing of the tuning, and of the report once it has begun."""
    parts: list[tuple[str, Mapping[str, Mapping[int, object]], list[int], list[str]]]
    parts = [("tuning", content.tuned, content.plan.tune_seeds, content.plan.tuned)]
    if content.shown:
        parts.append(("reporting", content.tested, content.plan.report_seeds, content.reported))
    return [
        f"INCOMPLETE: {len(runs.get(arm, {}))} of {len(seeds)} {what} seeds of {arm} are there."
        for what, runs, seeds, arms in parts
        for arm in arms
        if len(runs.get(arm, {})) < len(seeds)
    ]


def _shortest(content: Content) -> str:
    tokens = {arm: mean_of(runs, "tokens", content.confidence).mean for arm, runs in content.shown.items()}
    best = min(tokens, key=lambda arm: tokens[arm])
    fewer, change = (mean_of(content.shown[best], name, content.confidence) for name in ("reduction", "difference"))
    return (
        f"Fewest tokens: {best}, {percent(fewer)} % fewer than the base model at {percent(change, 2, signed=True)} points of "
        f"accuracy. The oracle, simulated, saves {100 * content.oracle.reduction:.1f} % at no loss."
    )


def _fallbacks(content: Content) -> list[str]:
    counts = {arm: sum(run.trained.fallback for run in runs.values()) for arm, runs in content.shown.items()}
    return [
        f"{arm}: at {count} of {len(content.shown[arm])} seeds no checkpoint that answered the whole control set was shown to "
        "keep its accuracy there, and the most accurate of them was taken (fallback)."
        for arm, count in counts.items()
        if count
    ]


def _choice(content: Content) -> list[str]:
    groups = "; ".join(" or ".join(group) for group in content.plan.variants) or "none"
    return [
        "Control set, at the checkpoint that each run selected. Arms are ranked by fallbacks, then by control tokens: a "
        "checkpoint that is no fallback was shown to keep its accuracy. The best static share here is "
        f"{content.best_static or DASH}, which the report compares with. Of variants only the best is reported ({groups}). The "
        "other arms have no part in either choice and were not tuned. No test answer was read."
    ]


def _reading(content: Content) -> list[str]:
    margin = f"{100 * content.margin:g} point{'' if content.margin == 0.01 else 's'}"
    return [
        f"Means over seeds with {100 * content.confidence:g} % intervals (Student t): the training seed is the unit, with its "
        "own samples, mixture and answers of the base model. All seeds answer the same fresh test questions, so nothing here "
        "holds over other questions, and the intervals do not allow for the choice of the arms.",
        "",
        f"Differences from {content.best_static}, the best static share of the tuning seeds, are paired by seed; p values are "
        "two-sided and corrected over the arms (Holm), those of tokens and those of accuracy each by themselves. PASS: seeds "
        f"at which it was shown that less than {margin} of accuracy was lost, as in `tldr report`. Step: the selected "
        "checkpoint, seed by seed. Fallback: seeds at which no checkpoint that answered the whole control set was shown to "
        "keep its accuracy. Mean share: of System-1, over the whole training.",
    ]


def facts_of(records: Sequence[Mapping[str, Any]], phase: str, jobs: int) -> list[str]:
    """How many runs of the phase there are, how often each stage ran, and how long a run took."""
    mine = [record for record in records if record["phase"] == phase]
    if not mine:
        return []
    counts = {stage: sum(record["ran"].count(stage) for record in mine) for record in mine for stage in record["ran"]}
    ran = ", ".join(f"{stage} {count}" for stage, count in counts.items())
    seconds = sorted(record["seconds"] for record in mine if record["arm"][0] != "_")
    total = sum(record["seconds"] for record in mine)
    sentence = f"{phase}: stages that ran (all else was there): {ran}."
    if not seconds:
        return [sentence]
    return [
        sentence,
        f"{phase}: {len(seconds)} runs, {seconds[len(seconds) // 2]:.0f} s in the middle ({seconds[0]:.0f} to "
        f"{seconds[-1]:.0f}), {total / 3600:.1f} hours altogether, {jobs} at a time.",
    ]
